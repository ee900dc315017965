"""What the suites of a ledger share.

Belongs here: claims, revisions and work as they are recorded there, and the ledger of a test. Does not belong here:
what is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_dagster.domain.decisions import hash_of_inputs
from ionbeam_dagster.domain.records import BuiltRevision, Claim, Revision, RevisionFacts
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.attempts import Attempt

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)
NEXT = Window(NOON + HOUR, NOON + 2 * HOUR)


def metadata(unit: str = "degC") -> IngestionMetadata:
    variable = CanonicalVariable(column="T", standard_name="air_temperature", cf_unit=unit)
    return IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"), ingestion_map=DataIngestionMap(canonical_variables=[variable])
    )


def claimed(ledger: Ledger, id: str, collected: Window, *touched: Window, unit: str = "degC") -> Claim:
    claim = Claim(id, "crowd", "crowd", collected, ledger.arrival_of(id), rows=7, stray_windows=touched)
    ledger.record_claim(claim, metadata(unit), dict.fromkeys([collected, *touched], 7))
    return claim


def built(window: Window, number: int, claims: list[Claim]) -> BuiltRevision:
    revision = Revision("crowd", window, number, hash_of_inputs(claims))
    return BuiltRevision(revision, f"r{number}.parquet", NOON + HOUR, RevisionFacts(rows=7, made_by="x"))


def arrived(ledger: Ledger, id: str, at: datetime, rows: int = 7, replaces: Sequence[str] = ()) -> Claim:
    claim = Claim(id, "crowd", "crowd", WINDOW, ledger.arrival_of(id), 7, arrived_at=at)
    ledger.record_claim(claim, metadata(), {WINDOW: rows}, replaces)
    return claim


def latest(ledger: Ledger, window: Window) -> BuiltRevision:
    found = ledger.latest_revision("crowd", window)
    assert found is not None
    return found


def work(window: Window = WINDOW, token: str = "a", product: str = "crowd", stage: str = "collect") -> Attempt:
    return Attempt(stage, product, window, token, "it is lost", 0, NOON, NOON)


class Suite:
    """A suite of a subject. A subclass gives `open_ledger`, and a ledger that is new to each test."""

    @pytest.fixture
    def open_ledger(self) -> Callable[[], Ledger]:
        """What opens the test's ledger, in this process or another: it can be pickled."""
        raise NotImplementedError("a suite of a ledger has a fixture open_ledger")

    @pytest.fixture
    def ledger(self, open_ledger: Callable[[], Ledger]) -> Ledger:
        return open_ledger()
