"""What every ledger promises. An implementation joins by adding itself to `ledger`."""

from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_dagster.domain.windows import Claim, Revision, Window, hash_of_inputs
from ionbeam_dagster.stores.ledger import BuiltRevision, ExportRecord, Ledger, RawPartition
from ionbeam_dagster.stores.ledger.sqlite import SqliteLedger

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)
NEXT = Window(NOON + HOUR, NOON + 2 * HOUR)


@pytest.fixture(params=["sqlite"])
def ledger(request, tmp_path) -> Ledger:
    return {"sqlite": lambda: SqliteLedger(tmp_path / "state" / "ledger.sqlite")}[request.param]()


def metadata(unit: str = "degC") -> IngestionMetadata:
    variable = CanonicalVariable(column="T", standard_name="air_temperature", cf_unit=unit)
    return IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"), ingestion_map=DataIngestionMap(canonical_variables=[variable])
    )


def claimed(ledger: Ledger, id: str, swept: Window, *touched: Window, unit: str = "degC") -> Claim:
    claim = Claim(id, "crowd", "crowd", swept, ledger.arrival_of(id), rows=7, stray_windows=touched)
    ledger.record_claim(claim, metadata(unit), [swept, *touched])
    return claim


def built(window: Window, number: int, claims: list[Claim]) -> BuiltRevision:
    revision = Revision("crowd", window, number, hash_of_inputs(claims))
    return BuiltRevision(revision, Path(f"r{number}.parquet"), NOON + HOUR, {"rows": 7, "gaps": [], "coverage": 1.0})


def test_an_ingestion_keeps_its_place_in_the_order_of_arrival(ledger):
    first, second = ledger.arrival_of("a"), ledger.arrival_of("b")
    assert first < second and ledger.arrival_of("a") == first


def test_a_windows_raw_partition_is_the_last_one_recorded(ledger):
    for content in ("one", "two"):
        ledger.record_raw(RawPartition(content, "crowd", WINDOW, Path(f"{content}.parquet"), 5, signature=content))
    assert ledger.raw("crowd", WINDOW) == RawPartition("two", "crowd", WINDOW, Path("two.parquet"), 5, "two")
    assert ledger.raw("crowd", NEXT) is None


def test_claims_are_found_by_every_window_that_they_touch_in_order_of_arrival(ledger):
    first = claimed(ledger, "first", WINDOW)
    late = claimed(ledger, "late", NEXT, WINDOW, unit="K")
    assert ledger.claims("crowd", WINDOW) == [first, late]
    assert ledger.claims("crowd", NEXT) == [late]
    assert ledger.claims("other", WINDOW) == []
    assert ledger.metadata_of([first, late, first]) == [metadata("degC"), metadata("K")]


def test_a_window_is_due_from_its_claim_to_its_revision(ledger):
    first = claimed(ledger, "first", WINDOW)
    assert ledger.due("crowd") == [WINDOW]
    ledger.record_revision(built(WINDOW, 1, [first]), [first])
    assert ledger.due("crowd") == []
    claimed(ledger, "first", WINDOW)
    assert ledger.due("crowd") == [], "a claim that is known already makes nothing due"
    claimed(ledger, "late", NEXT, WINDOW)
    assert ledger.due("crowd") == [WINDOW, NEXT]


def test_a_claim_that_arrives_while_a_window_is_built_leaves_it_due(ledger):
    seen = [claimed(ledger, "first", WINDOW)]
    claimed(ledger, "meanwhile", WINDOW)
    ledger.record_revision(built(WINDOW, 1, seen), seen)
    assert ledger.due("crowd") == [WINDOW]


def test_a_withdrawn_claim_leaves_its_windows_due_and_their_revisions_not_intact(ledger):
    first = claimed(ledger, "first", WINDOW)
    ledger.record_revision(built(WINDOW, 1, [first]), [first])
    ledger.withdraw_claim("first")
    assert ledger.claims("crowd", WINDOW) == [] and ledger.due("crowd") == [WINDOW]
    assert ledger.latest_revision("crowd", WINDOW).revision.intact is False
    again = claimed(ledger, "first", WINDOW)
    assert again == first
    ledger.record_revision(built(WINDOW, 1, [again]), [again])
    assert ledger.latest_revision("crowd", WINDOW).revision.intact and ledger.due("crowd") == []


def test_the_latest_revision_of_each_window_is_remembered_with_its_facts(ledger):
    first, second, other = built(WINDOW, 1, []), built(WINDOW, 2, []), built(NEXT, 1, [])
    for revision in (first, second, other):
        ledger.record_revision(revision, [])
    assert ledger.latest_revision("crowd", WINDOW) == second
    assert ledger.revisions("crowd", NOON, NOON + 2 * HOUR) == [second, other]
    assert ledger.revisions("crowd", NOON + HOUR, NOON + 2 * HOUR) == [other]
    assert ledger.latest_revision("other", WINDOW) is None


def test_an_export_is_remembered_also_when_it_has_no_file(ledger):
    full = ExportRecord("crowd", WINDOW, "odb", 2, Path("x.odb"), {"rows": 12})
    empty = ExportRecord("crowd", WINDOW, "pygeoapi", 2, None)
    for record in (full, empty):
        ledger.record_export(record)
    assert ledger.export("crowd", WINDOW, "odb") == full
    assert ledger.export("crowd", WINDOW, "pygeoapi") == empty
    assert ledger.export("crowd", NEXT, "odb") is None


def _claim_many(path: Path, worker: int) -> None:
    ledger = SqliteLedger(path)
    for number in range(20):
        claimed(ledger, f"{worker} {number}", WINDOW)


def test_claims_of_several_processes_are_all_kept_and_numbered_apart(tmp_path):
    path = tmp_path / "ledger.sqlite"
    context = get_context("spawn")
    workers = [context.Process(target=_claim_many, args=(path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    claims = SqliteLedger(path).claims("crowd", WINDOW)
    assert len(claims) == 60 and len({claim.arrival for claim in claims}) == 60
