"""What retention takes, what it leaves, and what a later rebuild says of it. On real stores."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from ionbeam_dagster.domain.decisions import Unchanged
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.errors import ConfigError, PipelineError
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.agenda import assess, needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.retention import purge

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FIRST = Window(MORNING, MORNING + HOUR)
SECOND = Window(MORNING + HOUR, MORNING + 2 * HOUR)
LATER = MORNING + 3 * DAY
NETWORK = """
  scheduler: {windows: [{source_name: ioncannon, window_size: PT15M}]}
  ioncannon: {num_stations: 5, start: 2026-06-21, aggregation_span: PT1H%s}
"""


def quarters(window: Window) -> list[Window]:
    return list(windows_between(window.start, window.end, timedelta(minutes=15)))


def take_in(platform: Platform, *windows: Window) -> None:
    for window in windows:
        collect(platform, platform.source("ioncannon"), window, LATER)
        ingest(platform, platform.source("ioncannon"), window)


def finish(platform: Platform, window: Window, force: bool = False):
    built = build(platform, platform.dataset("ioncannon"), window, LATER, force=force)
    for format in ("odb", "pygeoapi"):
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], window)
    return built.revision


def files(folder: str) -> set[Path]:
    return {path for path in Path(folder).rglob("*") if path.is_file()}


def test_raw_goes_after_export_and_is_not_taken_for_lost(platform_of):
    platform = platform_of(NETWORK % "", dataset_aggregator="{delete_after_export: true}")
    take_in(platform, *quarters(FIRST), *quarters(SECOND)[:2])
    collect(platform, platform.source("ioncannon"), quarters(SECOND)[2], LATER)  # not ingested
    finish(platform, FIRST)
    before = files("data-raw")
    told = purge(platform, LATER, dry_run=True)
    assert files("data-raw") == before and len(told.gone) == 4
    assert told.bytes == sum(path.stat().st_size for path in before if "T06" in path.name)
    purged = purge(platform, LATER)
    assert purged.bytes == told.bytes and {path for path in before if "T07" in path.name} == files("data-raw")
    assert purge(platform, LATER).gone == ()

    gone = quarters(FIRST)[1]
    assert not needs_collecting(platform, "ioncannon", gone)
    with pytest.raises(PipelineError, match=r"was purged by retention on 2026-06-24 06:00; materialise ioncannon/raw"):
        ingest(platform, platform.source("ioncannon"), gone)
    assert build(platform, platform.dataset("ioncannon"), FIRST, LATER, force=True).revision.facts.rows == 60, (
        "segments are enough"
    )
    finish(platform, FIRST)
    take_in(platform, gone)
    assert isinstance(assess(platform, platform.dataset("ioncannon"), FIRST, LATER), Unchanged)
    assert platform.ledger.raw("ioncannon", gone).purged is None and len(purge(platform, LATER).gone) == 1


def test_raw_that_a_rebuild_would_need_stays(platform_of):
    platform = platform_of(NETWORK % "", dataset_aggregator="{delete_after_export: true}")
    take_in(platform, *quarters(FIRST))
    build(platform, platform.dataset("ioncannon"), FIRST, LATER)
    export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["odb"], FIRST)
    assert purge(platform, LATER).gone == (), "one export is missing"
    export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["pygeoapi"], FIRST)
    for segment in Path("ionbeam-state/segments").rglob("*.parquet"):
        segment.unlink()
    assert purge(platform, LATER).gone == (), "the raw partitions are all that is left of the observations"
    assert finish(platform, FIRST, force=True).facts.rows == 60, "they are ingested again"
    platform.files.delete(platform.export_path("ioncannon", "odb", FIRST))
    assert purge(platform, LATER).gone == (), "an export was lost"
    finish(platform, FIRST)
    assert len(purge(platform, LATER).gone) == 4


def rows_of(path: str) -> bytes:
    """The bytes of a Parquet file before its footer, which has the number of the revision."""
    content = Path(path).read_bytes()
    return content[: -8 - int.from_bytes(content[-8:-4], "little")]


def test_small_segments_of_built_windows_become_one_file_and_no_dataset_file_changes(platform_of):
    platform = platform_of(NETWORK.replace("PT15M", "PT5M") % "")
    take_in(platform, *windows_between(FIRST.start, SECOND.end, timedelta(minutes=5)))
    first = finish(platform, FIRST)
    hour = Path("ionbeam-state/segments/ioncannon/20260621T06")
    (told,) = purge(platform, LATER, dry_run=True).gone
    assert told.what == f"12 segments of {FIRST}" and len(list(hour.iterdir())) == 12
    assert len(purge(platform, LATER).gone) == 1
    assert [path.name for path in hour.iterdir()] == ["bundle.parquet"]
    assert len(list(hour.with_name("20260621T07").iterdir())) == 12, "its window is not built yet"
    assert purge(platform, LATER).gone == ()
    assert isinstance(assess(platform, platform.dataset("ioncannon"), FIRST, LATER), Unchanged)
    again = finish(platform, FIRST, force=True)
    assert first.revision.number < again.revision.number and rows_of(first.path) == rows_of(again.path)
    assert len(list(hour.iterdir())) == 1, "nothing had to be ingested again"


def test_superseded_revisions_go_after_their_time_and_who_reads_them_reads_on(platform_of):
    platform = platform_of(NETWORK % "", retention="{superseded: P7D}")
    take_in(platform, *quarters(FIRST))
    first = finish(platform, FIRST)
    second = finish(platform, FIRST, force=True)
    assert purge(platform, LATER + 6 * DAY).gone == ()
    with pq.ParquetFile(first.path) as reader:
        (gone,) = purge(platform, LATER + 7 * DAY).gone
        assert not platform.files.exists(first.path) and reader.read().num_rows == 60
    assert gone.what == first.path and platform.files.exists(second.path)
    assert finish(platform, FIRST, force=True).revision.number == 3
    assert purge(platform, LATER).failed == ()


def test_a_sealed_window_loses_what_it_was_made_of_but_not_what_came_too_late(platform_of):
    platform = platform_of(NETWORK % ", revise_for: P2D", retention="{raw: P30D, observations: P10D, quarantine: P1D}")
    platform.now = lambda: MORNING + 2 * HOUR
    take_in(platform, *quarters(FIRST)[:3])
    build(platform, platform.dataset("ioncannon"), FIRST, MORNING + 2 * HOUR, insist=True)
    for format in ("odb", "pygeoapi"):
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], FIRST)
    platform.now = lambda: LATER
    take_in(platform, quarters(FIRST)[3])
    sealed = FIRST.end + 2 * DAY

    assert purge(platform, sealed + 10 * DAY - timedelta(seconds=1)).gone == ()
    segments = purge(platform, sealed + 10 * DAY)
    assert {one.kind for one in segments.gone} == {"observations"} and len(segments.gone) == 3
    assert sum(1 for path in files("ionbeam-state/segments") if path.suffix == ".parquet") == 1
    assert build(platform, platform.dataset("ioncannon"), FIRST, LATER, force=True).revision.facts.rows == 60, (
        "raw is still there"
    )

    for format in ("odb", "pygeoapi"):
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], FIRST)
    purged = purge(platform, sealed + 30 * DAY)
    assert len(purged.of_kind("raw partitions")) == 4 and len(purged.of_kind("observations")) == 4
    assert files("data-raw") == set()
    with pytest.raises(PipelineError, match=r"purged by retention on .*; materialise ioncannon/raw for 20260621T06"):
        build(platform, platform.dataset("ioncannon"), FIRST, LATER, force=True)
    assert platform.files.exists(platform.ledger.latest_revision("ioncannon", FIRST).path)
    take_in(platform, *quarters(FIRST))
    assert build(platform, platform.dataset("ioncannon"), FIRST, LATER, force=True).revision.facts.rows == 60


def test_the_dagster_asset_tells_what_it_purged_and_in_a_dry_run_what_it_would(platform_of):
    platform = platform_of(NETWORK % "", retention="{superseded: PT1H}")
    take_in(platform, *quarters(FIRST))
    first = finish(platform, FIRST)
    finish(platform, FIRST, force=True)
    built = Path(first.path)
    draft = built.with_name(f".{built.name}.0123abcd")
    draft.write_bytes(b"cut short")
    dealt_out = draft.with_name(f"{draft.name}.room") / "3.arrow"
    dealt_out.parent.mkdir()
    dealt_out.write_bytes(b"cut short")
    job = build_definitions(WatchedPlatform(platform)).resolve_job_def("purge")
    with dg.DagsterInstance.ephemeral() as instance:
        for dry_run in (True, False):
            config = {"ops": {"retention": {"config": {"dry_run": dry_run}}}}
            platform.now = lambda: datetime.now(UTC) + 2 * DAY
            assert job.execute_in_process(run_config=config, instance=instance).success
            assert built.exists() is draft.exists() is dealt_out.exists() is dry_run
        records = instance.fetch_materializations(dg.AssetKey("retention"), limit=2).records
    told = [record.asset_materialization.metadata for record in records]
    assert [one["dry run"].value for one in told] == [False, True]
    assert [one["files"].value for one in told] == [3, 3] and told[0]["bytes"].value == told[1]["bytes"].value > 0
    assert "superseded revisions" in told[0]["by kind"].value and str(first.path) in told[0]["the first of them"].value


def test_what_lies_in_s3_is_purged_as_in_a_folder(platform_of, s3):
    bucket = s3.bucket("purged")
    platform = platform_of(
        NETWORK % f", data_path: '{bucket}/raw'",
        dataset_aggregator=f"{{data_path: '{bucket}/data', delete_after_export: true}}",
        projections=f"{{odb_service: {{output_path: '{bucket}/exports'}}}}",
        retention="{superseded: P7D, quarantine: P1D}",
        s3=json.dumps(s3.section()),
    )
    take_in(platform, *quarters(FIRST), *quarters(SECOND)[:1])
    first = finish(platform, FIRST)
    second = finish(platform, FIRST, force=True)
    quarantined = Path(platform.quarantine.path("ioncannon", quarters(FIRST)[0]))
    quarantined.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(Path("data-projections").rglob("*.parquet").__next__()), quarantined)
    later = datetime.now(UTC) + 8 * DAY
    before = platform.files.under(bucket)
    told = purge(platform, later, dry_run=True)
    assert platform.files.under(bucket) == before and quarantined.exists()
    gone = {path for path in before if "/raw/" in path and "T06" in path} | {first.path}
    assert {one.what for one in told.gone} == gone | {str(quarantined)} and len(gone) == 5
    assert all(one.bytes > 0 for one in told.gone)

    purged = purge(platform, later)
    assert purged.failed == () and purged.bytes == told.bytes and not quarantined.exists()
    assert set(platform.files.under(bucket)) == set(before) - gone
    assert platform.files.exists(second.path) and not needs_collecting(platform, "ioncannon", quarters(FIRST)[0])
    assert purge(platform, later).gone == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"retention": "{superseded: PT1M}"}, "retention.superseded: PT1M is too short: somebody may still read"),
        ({"retention": "{raw: -P1D}"}, "retention.raw: "),
        ({"retention": "{raws: P1D}"}, "retention.raws: this key is not known; is raw meant.; known are every, "),
        ({"retention": "{every: PT7H}"}, "retention.every: PT7H cannot be a partition"),
        (
            {"retention": "{observations: P1D}", "influxdb_common": "{influxdb_org: a, influxdb_url: 'http://b', "
             "influxdb_token: c, influxdb_bucket: d}"},
            "whose bucket has a retention of its own",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_so_is_refused_with_its_key(platform_of, given, told):
    with pytest.raises(ConfigError, match=told):
        platform_of(NETWORK % "", **given)


def test_a_note_says_that_windows_which_are_never_sealed_keep_all(platform_of):
    (note,) = platform_of(NETWORK % "", retention="{raw: P30D}").config.notes(datetime(2026, 6, 22, tzinfo=UTC))
    assert "windows of ioncannon never are by themselves: give it revise_for, or use `ionbeam seal`" in note
