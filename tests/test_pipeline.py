"""The way of an observation, without Dagster: collect, ingest, build, export on real stores."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from ionbeam_dagster import __version__
from ionbeam_dagster.domain.decisions import Build, Unchanged, Wait, hash_of_inputs
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline import build as building
from ionbeam_dagster.pipeline.agenda import needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import name_of
from ionbeam_dagster.stores.publish import file_hash

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
FIRST = Window(MORNING, MORNING + HOUR)
SECOND = Window(MORNING + HOUR, MORNING + 2 * HOUR)
LATER = MORNING + timedelta(days=3)
CANNON = """
  scheduler: {windows: [{source_name: ioncannon, window_size: PT5M}]}
  ioncannon: {num_stations: 20, start: 2026-06-21, aggregation_span: PT1H%s}
"""


def five_minutes(window: Window) -> list[Window]:
    return list(windows_between(window.start, window.end, timedelta(minutes=5)))


def take_in(platform: Platform, *windows: Window, source: str = "ioncannon") -> None:
    for window in windows:
        collect(platform, platform.source(source), window, LATER)
        ingest(platform, platform.source(source), window)


def test_an_hour_becomes_a_dataset_an_odb_and_a_geoparquet_with_the_same_rows(platform_of):
    platform = platform_of(CANNON % "")
    take_in(platform, *five_minutes(FIRST))
    built = build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    assert isinstance(built.decision, Build) and built.revision.revision.number == 1
    assert built.revision.facts.rows == 240 and built.revision.facts.stations == 20
    assert built.revision.facts.complete and built.revision.facts.duplicates == 0
    assert name_of(built.revision.path) == "ioncannon_20260621T060000_PT1H_r1.parquet"
    exports = {
        format: export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], FIRST)
        for format in ("odb", "pygeoapi")
    }
    assert name_of(exports["odb"].path) == "ioncannon_20260621T060000_PT1H.odb"
    variables = [name for name in pl.read_parquet_schema(built.revision.path) if "__" in name]
    counts = ", ".join(f'count("{name}")' for name in variables)
    counted = duckdb.sql(f"select count(*), {counts} from '{exports['pygeoapi'].path}'").fetchall()[0]
    assert counted[0] == 240
    mapped = [name for name in variables if name in exports["odb"].report.plan.mapped]
    values = dict(zip(variables, counted[1:], strict=True))
    assert exports["odb"].report.rows >= sum(values[name] for name in mapped) > 0


def test_bufr_is_written_for_a_dataset_that_names_it(platform_of):
    platform = platform_of(CANNON % ", exports: [bufr]")
    take_in(platform, *five_minutes(FIRST))
    build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    made = export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["bufr"], FIRST)
    assert Path(made.path).read_bytes().startswith(b"BUFR") and made.report.rows == 240
    assert platform.config.datasets["ioncannon"].exports == ("bufr",)


def test_a_window_with_the_same_inputs_is_not_built_again(platform_of):
    platform = platform_of(CANNON % "")
    take_in(platform, *five_minutes(FIRST))
    build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    take_in(platform, *five_minutes(FIRST))
    again = build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    assert isinstance(again.decision, Unchanged) and not again.built
    assert platform.ledger.due("ioncannon") == []


def test_a_lost_raw_partition_comes_back_and_only_its_hour_is_built_again_to_the_same_bytes(platform_of):
    platform = platform_of(CANNON % "")
    take_in(platform, *five_minutes(FIRST), *five_minutes(SECOND))
    files = [build(platform, platform.dataset("ioncannon"), window, LATER).revision.path for window in (FIRST, SECOND)]
    before = [file_hash(Path(path)) for path in files]
    lost = five_minutes(FIRST)[3]
    platform.files.delete(platform.raws(platform.source("ioncannon")).path("ioncannon", lost))
    both = five_minutes(FIRST) + five_minutes(SECOND)
    wanted = [window for window in both if needs_collecting(platform, "ioncannon", window)]
    assert wanted == [lost]
    take_in(platform, lost)
    assert platform.ledger.due("ioncannon") == [FIRST]
    rebuilt = build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    assert rebuilt.built and rebuilt.revision.revision.number == 1
    assert [file_hash(Path(path)) for path in files] == before
    assert not build(platform, platform.dataset("ioncannon"), SECOND, LATER).built


def test_damaged_points_of_whatever_is_compared_are_ingested_again_and_hold_up_nothing(platform_of):
    """Of the window itself, of the hours before it, and of a neighbouring network that has no work of its own."""
    two = """
  scheduler: {windows: [{source_name: ioncannon, window_size: PT5M}, {source_name: second, window_size: PT5M}]}
  ioncannon: {num_stations: 20, start: 2026-06-21, aggregation_span: PT1H}
  second: {type: ioncannon, num_stations: 20, seed: 7, start: 2026-06-21, aggregation_span: PT1H}
"""
    platform = platform_of(two)
    for source in ("ioncannon", "second"):
        take_in(platform, *five_minutes(FIRST), *five_minutes(SECOND), source=source)
    first, second = platform.dataset("ioncannon"), platform.dataset("second")
    before = build(platform, first, SECOND, LATER).revision
    segments = platform.config.sections.state_path / "segments"
    for folder in (segments / "ioncannon" / "20260621T06", segments / "ioncannon" / "20260621T07",
                   segments / "second" / "20260621T07"):  # fmt: skip
        damaged = min(folder.glob("*.parquet"))
        damaged.write_bytes(damaged.read_bytes()[:-9])
    again = build(platform, first, SECOND, LATER, force=True).revision
    assert pl.read_parquet(again.path).equals(pl.read_parquet(before.path))
    assert len(list(segments.rglob("*.damaged"))) == 3
    assert build(platform, second, SECOND, LATER).revision.facts.rows == 240


def test_a_gap_lets_a_window_wait_and_a_person_may_insist(platform_of):
    platform = platform_of(CANNON % "")
    raw = five_minutes(FIRST)
    take_in(platform, *raw[:5], *raw[6:])
    soon = FIRST.end + HOUR
    waiting = build(platform, platform.dataset("ioncannon"), FIRST, soon)
    assert isinstance(waiting.decision, Wait) and "06:25-06:30" in waiting.decision.reason and not waiting.built
    insisted = build(platform, platform.dataset("ioncannon"), FIRST, soon, insist=True)
    assert insisted.built and not insisted.revision.facts.complete
    assert insisted.revision.facts.coverage == pytest.approx(11 / 12, abs=1e-5)
    take_in(platform, raw[5])
    whole = build(platform, platform.dataset("ioncannon"), FIRST, soon)
    assert whole.revision.revision.number == 2 and whole.revision.facts.complete
    assert platform.files.exists(insisted.revision.path), "a superseded revision stays until a retention purge"


def test_two_that_build_a_window_at_once_leave_what_its_revisions_say(platform_of, monkeypatch):
    """As two runs in Dagster do, or a run and the bridge: what the slow one began with is older."""
    platform = platform_of(CANNON % ", late_fraction: 0.2, late_by: PT1H, seed: 3")
    take_in(platform, *five_minutes(FIRST))
    write, slow, begun = building._write_revision, Event(), Event()

    def slowly(*given):
        if not slow.is_set():
            slow.set()
            begun.wait(5)
            time.sleep(0.5)  # as long as the other may need
        return write(*given)

    monkeypatch.setattr(building, "_write_revision", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(build, platform, platform.dataset("ioncannon"), FIRST, LATER)
        assert slow.wait(10)
        take_in(platform, *five_minutes(SECOND))
        second = pool.submit(build, platform, platform.dataset("ioncannon"), FIRST, LATER)
        begun.set()
        numbers = [one.result().revision.revision.number for one in (first, second)]
    assert numbers == [1, 2]
    latest = platform.ledger.latest_revision("ioncannon", FIRST)
    assert latest.revision.inputs == hash_of_inputs(platform.ledger.claims("ioncannon", FIRST))
    assert pl.read_parquet(latest.path).height == latest.facts.rows == 240


def test_late_rows_make_the_hour_they_belong_to_due(platform_of):
    platform = platform_of(CANNON % ", late_fraction: 0.2, late_by: PT1H, seed: 3")
    take_in(platform, *five_minutes(FIRST))
    first = build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    take_in(platform, *five_minutes(SECOND))
    assert FIRST in platform.ledger.due("ioncannon")
    second = build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    assert second.revision.revision.number == 2
    assert first.revision.facts.why == "the first revision, of 12 ingestions"
    why = second.revision.facts.why
    assert " arrived after revision 1: ioncannon 2026-06-21 07:00-07:05 with " in why and " and 9 more" in why
    assert second.revision.facts.rows > first.revision.facts.rows
    assert second.revision.facts.rows == 240


def test_rows_that_cannot_be_used_are_kept_with_their_reason_and_block_nothing(platform_of):
    platform = platform_of(CANNON % ", bad_value_fraction: 0.3")
    kept = []
    for window in five_minutes(FIRST):
        collect(platform, platform.source("ioncannon"), window, LATER)
        kept.append(ingest(platform, platform.source("ioncannon"), window))
    quarantined = sum(one.quarantined for one in kept)
    assert quarantined and sum(one.rows for one in kept) > 0
    files = [one.quarantine for one in kept if one.quarantine]
    reasons = pl.concat([pl.read_parquet(file).select("reason") for file in files])
    assert reasons.height == quarantined and reasons["reason"].null_count() == 0
    assert build(platform, platform.dataset("ioncannon"), FIRST, LATER).built


def test_steps_that_lack_the_one_before_say_which(platform_of):
    platform = platform_of(CANNON % "")
    raw = five_minutes(FIRST)[0]
    with pytest.raises(PipelineError, match="materialise ioncannon/raw first"):
        ingest(platform, platform.source("ioncannon"), raw)
    with pytest.raises(PipelineError, match="materialise ioncannon/raw first"):
        build(platform, platform.dataset("ioncannon"), FIRST, LATER, insist=True)
    with pytest.raises(PipelineError, match="materialise ioncannon/dataset first"):
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["odb"], FIRST)
    with pytest.raises(PipelineError, match="has not begun yet"):
        collect(platform, platform.source("ioncannon"), raw, MORNING - HOUR)
    collect(platform, platform.source("ioncannon"), raw, LATER)
    path = Path(platform.raws(platform.source("ioncannon")).path("ioncannon", raw))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PipelineError, match=r"raw partition cannot be read .* materialise ioncannon/raw"):
        ingest(platform, platform.source("ioncannon"), raw)


def test_a_source_whose_names_or_units_are_wrong_is_not_collected(platform_of, monkeypatch):
    platform = platform_of(CANNON % "")
    right = platform.sources["ioncannon"].metadata
    wrong = right.ingestion_map.canonical_variables[0].model_copy(update={"standard_name": "air_temprature"})
    variables = {"canonical_variables": [wrong, *right.ingestion_map.canonical_variables[1:]]}
    faulty = right.model_copy(update={"ingestion_map": right.ingestion_map.model_copy(update=variables)})
    monkeypatch.setattr(type(platform.sources["ioncannon"]), "metadata", faulty)
    with pytest.raises(PipelineError, match=r"cannot be collected: .*air_temprature.*air_temperature"):
        collect(platform, platform.source("ioncannon"), five_minutes(FIRST)[0], LATER)


def test_an_open_window_claims_only_what_was_collected(platform_of):
    platform = platform_of(CANNON % "")
    raw = five_minutes(FIRST)[0]
    now = raw.start + timedelta(minutes=2)
    collect(platform, platform.source("ioncannon"), raw, now)
    assert ingest(platform, platform.source("ioncannon"), raw).claim.collected == Window(raw.start, now)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A disk of a size that can be changed."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")

    def sized(size: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)
        return place

    yield sized
    subprocess.run(["umount", place], check=True)


def test_a_disk_without_space_is_told_and_leaves_nothing_half_and_a_later_run_goes_on(platform_of, small_disk):
    disk = small_disk("64k")
    network = f"{{num_stations: 5000, start: 2026-06-21, aggregation_span: PT1H, data_path: {disk}}}"
    platform = platform_of(
        f"  scheduler: {{windows: [{{source_name: ioncannon, window_size: PT5M}}]}}\n  ioncannon: {network}"
    )
    window = five_minutes(FIRST)[0]
    with pytest.raises(
        PipelineError, match=r"ioncannon_20260621T060000_PT5M\.parquet: cannot be written .*No space left"
    ):
        collect(platform, platform.source("ioncannon"), window, LATER)
    assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert needs_collecting(platform, "ioncannon", window)
    small_disk("8m")
    take_in(platform, window)
    assert not needs_collecting(platform, "ioncannon", window)


def rows_of(platform: Platform, window: Window) -> list[dict]:
    return pl.read_parquet(build(platform, platform.dataset("ioncannon"), window, LATER).revision.path).to_dicts()


def test_a_range_that_is_collected_again_is_replaced_with_all_that_is_there_no_more(platform_of, monkeypatch):
    platform = platform_of(CANNON % "")
    raw = five_minutes(FIRST)
    take_in(platform, *raw)
    before = rows_of(platform, FIRST)
    source = platform.sources["ioncannon"]
    whole = source.fetch

    def fewer(window: Window) -> Iterator:
        return (batch.slice(0, 15) for batch in whole(window))

    monkeypatch.setattr(source, "fetch", fewer)
    take_in(platform, raw[3])
    after = rows_of(platform, FIRST)
    assert len(before) == 240 and len(after) == 235 and all(row in before for row in after)
    latest = platform.ledger.latest_revision("ioncannon", FIRST)
    assert latest.revision.number == 2 and latest.facts.duplicates == 0 and latest.facts.ingestions == 12

    monkeypatch.setattr(source, "fetch", whole)
    take_in(platform, raw[3])
    assert rows_of(platform, FIRST) == before
    assert platform.ledger.latest_revision("ioncannon", FIRST).revision.number == 3


def test_a_crash_before_the_claim_that_replaces_another_is_mended_by_ingesting_again(platform_of, monkeypatch):
    platform = platform_of(CANNON % "")
    raw = five_minutes(FIRST)
    take_in(platform, *raw)
    source = platform.sources["ioncannon"]
    whole = source.fetch
    monkeypatch.setattr(source, "fetch", lambda window: (batch.slice(0, 15) for batch in whole(window)))
    collect(platform, platform.source("ioncannon"), raw[3], LATER)
    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(platform.ledger, "record_claim", lambda *claimed: (_ for _ in ()).throw(KeyboardInterrupt))
        ingest(platform, platform.source("ioncannon"), raw[3])
    assert len(platform.ledger.claims("ioncannon", FIRST)) == 12
    ingest(platform, platform.source("ioncannon"), raw[3])
    assert len(platform.ledger.claims("ioncannon", FIRST)) == 12 and len(rows_of(platform, FIRST)) == 235


def test_repeated_rows_are_counted_also_where_an_ingestion_reaches_beyond_the_window(platform_of):
    platform = platform_of(
        "  scheduler: {windows: [{source_name: ioncannon, window_size: PT2H}]}\n"
        "  ioncannon: {num_stations: 20, start: 2026-06-21, aggregation_span: PT1H, duplicate_fraction: 0.3}"
    )
    both = Window(FIRST.start, SECOND.end)
    take_in(platform, both)
    [claim] = platform.ledger.claims("ioncannon", FIRST)
    counted = [
        build(platform, platform.dataset("ioncannon"), window, LATER).revision.facts for window in (FIRST, SECOND)
    ]
    assert all(facts.rows == 240 and facts.duplicates > 0 for facts in counted)
    assert sum(facts.rows + facts.duplicates for facts in counted) == claim.rows


def test_other_columns_under_the_same_version_are_refused_and_a_new_version_is_a_new_schema(platform_of, monkeypatch):
    platform = platform_of(CANNON % "")
    take_in(platform, *five_minutes(FIRST))
    old = pl.read_parquet_schema(build(platform, platform.dataset("ioncannon"), FIRST, LATER).revision.path)
    right = platform.sources["ioncannon"].metadata
    first, *others = right.ingestion_map.canonical_variables
    moved = first.model_copy(update={"level": 12.5})
    changed = right.ingestion_map.model_copy(update={"canonical_variables": [moved, *others]})
    other = right.model_copy(update={"ingestion_map": changed})
    monkeypatch.setattr(type(platform.sources["ioncannon"]), "metadata", other)
    second = five_minutes(SECOND)
    refused = (
        f"its columns changed, but its version is still 1: {first.to_canonical_name()} is no longer there; "
        f"{moved.to_canonical_name()} is new; let them be as they were, or raise the version to 2, "
        "which keeps both readable (sources.ioncannon.version)"
    )
    with pytest.raises(PipelineError, match=re.escape(refused)):
        collect(platform, platform.source("ioncannon"), second[0], LATER)

    again = platform_of(CANNON % ", version: 2")
    take_in(again, *second[:6])
    monkeypatch.undo()
    monkeypatch.chdir(again.config.path.parent)
    take_in(platform, *second[6:])
    new = build(again, again.dataset("ioncannon"), SECOND, LATER).revision.path
    assert {first.to_canonical_name(), moved.to_canonical_name()} <= pl.read_parquet_schema(new).keys()
    assert pl.read_parquet(new)[moved.to_canonical_name()].count() == 120
    assert pl.read_parquet_schema(build(again, again.dataset("ioncannon"), FIRST, LATER).revision.path) == old


def test_two_platforms_with_windows_of_other_lengths_on_one_store_are_told(platform_of):
    one = platform_of(CANNON % "")
    take_in(one, *five_minutes(FIRST))
    other = platform_of(CANNON.replace("aggregation_span: PT1H", "aggregation_span: PT3H") % "")
    refused = (
        r"says aggregation_span PT3H, but what is there was collected for windows of PT1H.*another name.*state_path"
    )
    quarter = five_minutes(FIRST)[0]
    for step in (
        lambda: collect(other, other.source("ioncannon"), quarter, LATER),
        lambda: ingest(other, other.source("ioncannon"), quarter),
        lambda: build(other, other.dataset("ioncannon"), Window(MORNING, MORNING + 3 * HOUR), LATER),
    ):
        with pytest.raises(PipelineError, match=refused):
            step()
    assert build(one, one.dataset("ioncannon"), FIRST, LATER).revision.facts.complete


def test_two_platforms_of_one_store_each_with_its_own_source_build_both(platform_of):
    one = platform_of(CANNON % "")
    other = platform_of(
        (CANNON % ", seed: 7")
        .replace("ioncannon: {", "second: {type: ioncannon, ")
        .replace("source_name: ioncannon", "source_name: second")
    )
    for window in five_minutes(FIRST):
        take_in(one, window)
        take_in(other, window, source="second")
    assert build(one, one.dataset("ioncannon"), FIRST, LATER).revision.facts.rows == 240
    assert build(other, other.dataset("second"), FIRST, LATER).revision.facts.rows == 240
    assert one.ledger.due("ioncannon") == other.ledger.due("second") == []


def test_a_clock_that_goes_back_between_two_runs_loses_nothing(platform_of):
    """What arrives by an earlier clock still comes after what is known, and takes its place."""
    platform = platform_of(CANNON % "")
    platform.now = lambda: LATER
    take_in(platform, *five_minutes(FIRST))
    first = build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    earlier = FIRST.end + HOUR
    platform.now = lambda: earlier
    platform = platform_of((CANNON % "").replace("num_stations: 20", "num_stations: 21"))
    platform.now = lambda: earlier
    for window in (*five_minutes(FIRST)[:1], *five_minutes(SECOND)):
        collect(platform, platform.source("ioncannon"), window, earlier)
        ingest(platform, platform.source("ioncannon"), window)
    again = build(platform, platform.dataset("ioncannon"), FIRST, earlier, insist=True)
    assert (first.revision.revision.number, again.revision.revision.number) == (1, 2)
    assert again.revision.facts.rows == 241 and again.revision.facts.stations == 21
    assert [claim.arrival for claim in platform.ledger.claims("ioncannon", FIRST)][-1] > 12
    assert build(platform, platform.dataset("ioncannon"), SECOND, earlier, insist=True).revision.facts.rows == 252


def test_what_a_revision_is_made_of_stands_in_its_file_and_in_the_ledger(platform_of):
    platform = platform_of(CANNON % "")
    raw = five_minutes(FIRST)
    take_in(platform, *raw[:5], *raw[6:])
    built = build(platform, platform.dataset("ioncannon"), FIRST, LATER).revision
    written = json.loads(pq.read_schema(built.path).metadata[b"ionbeam"])
    claims = platform.ledger.claims("ioncannon", FIRST)
    assert written["ingestions"] == list(built.facts.made_of) == [claim.id for claim in claims]
    assert written["inputs"] == built.revision.inputs == hash_of_inputs(claims)
    assert written["coverage"] == built.facts.coverage == pytest.approx(11 / 12, abs=1e-5)
    assert written["gaps"] == [["2026-06-21T06:25:00+00:00", "2026-06-21T06:30:00+00:00"]]
    assert [[gap.start.isoformat(), gap.end.isoformat()] for gap in built.facts.gaps] == written["gaps"]
    assert written["software"] == built.facts.software == f"ionbeam {__version__}"


@pytest.mark.parametrize(("tolerance", "kept"), [("P1D", 0), ("P3D", 20)])
def test_observations_from_the_future_are_counted_in_the_quarantine_or_taken_where_the_source_says_so(
    platform_of, monkeypatch, tolerance, kept
):
    platform = platform_of(CANNON % f", future_tolerance: {tolerance}")
    monkeypatch.setattr(type(platform), "now", lambda platform: MORNING - timedelta(days=2))
    window = five_minutes(FIRST)[0]
    collect(platform, platform.source("ioncannon"), window, LATER)
    ingested = ingest(platform, platform.source("ioncannon"), window)
    assert (ingested.rows, ingested.quarantined) == (kept, 20 - kept)
    assert ingested.reasons == ({} if kept else {"in the future when it arrived": 20})
    assert ingest(platform, platform.source("ioncannon"), window).claim == ingested.claim, (
        "it is the time of its arrival that counts"
    )
