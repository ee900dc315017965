"""Any partition of any asset materialised again, whatever else is missing: it does what its name says, or says what is
to be materialised first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from told import HOUR, START, key, window

from ionbeam_dagster.domain.windows import windows_between
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

TOLD = "  told: {start: 2026-06-21T00:00:00Z, exports: [odb, pygeoapi]}"
FIRST = window("00:00", HOUR)
LATER = START + 100 * HOUR


def unlinked(*patterns: str) -> Callable[[], None]:
    def work() -> None:
        found = [path for pattern in patterns for path in Path().glob(pattern)]
        assert found, patterns
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return work


RAW = "data-raw/told/*.parquet"
SEGMENTS = "ionbeam-state/segments"
DATASET = "data/told/*.parquet"
MISSING = {
    "nothing": lambda: None,
    "raw": unlinked(RAW),
    "observations": unlinked(SEGMENTS),
    "dataset": unlinked(DATASET),
    "exports": unlinked("data-projections"),
    "raw and observations": unlinked(RAW, SEGMENTS),
    "observations and dataset": unlinked(SEGMENTS, DATASET),
    "raw, observations and dataset": unlinked(RAW, SEGMENTS, DATASET),
    "all files": unlinked(RAW, SEGMENTS, DATASET, "data-projections"),
    "ledger": unlinked("ionbeam-state/ledger.sqlite*"),
    "everything": unlinked("ionbeam-state", "data*"),
}
TELLING = ("raw", "observations and dataset", "ledger")  # the others are tried by `make soak`
COLLECT, BUILD = "materialise told/raw", "materialise told/dataset first"
REFUSED = {
    "raw": {},
    "observations": {
        "raw": COLLECT, "raw and observations": COLLECT, "raw, observations and dataset": COLLECT,
        "all files": COLLECT, "everything": COLLECT,
    },
    "dataset": {
        "raw, observations and dataset": COLLECT, "all files": COLLECT, "everything": COLLECT,
    },
    "odb": {
        "dataset": BUILD, "observations and dataset": BUILD, "raw, observations and dataset": BUILD,
        "all files": BUILD, "everything": BUILD,
    },
}  # fmt: skip


def made(platform_with, asset: str) -> tuple[Platform, list[Path], dict[str, bytes]]:
    """A platform that has all of an hour; the files of `asset`, and their bytes."""
    platform = platform_with(TOLD)
    for quarter in windows_between(FIRST.start, FIRST.end, platform.config.sources["told"].window_size):
        collect(platform, platform.source("told"), quarter, LATER)
        ingest(platform, platform.source("told"), quarter)
    revision = build(platform, platform.dataset("told"), FIRST, LATER).revision
    exports = {
        format: export(platform, platform.dataset("told"), platform.config.window_exporters[format], FIRST).path
        for format in ("odb", "pygeoapi")
    }
    files = {
        "raw": sorted(Path().glob(RAW)), "observations": sorted(Path(SEGMENTS).rglob("2*/*.parquet")),
        "dataset": [Path(revision.path)], **{format: [Path(path)] for format, path in exports.items()},
    }[asset]  # fmt: skip
    assert files
    return platform, files, {str(path): path.read_bytes() for path in files}


def materialised(platform: Platform, asset: str, instance: dg.DagsterInstance) -> str | None:
    """Materialise the hour's partitions of an asset; why it failed, if it did."""
    fine = asset in ("raw", "observations")
    job = build_definitions(WatchedPlatform(platform)).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[dg.AssetKey(["told", asset])],
        tags=partition_tags(key("00:00"), key("00:45") if fine else key("00:00")),
        instance=instance,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    if result.success:
        return None
    (step,) = [event.step_failure_data for event in result.filter_events(lambda event: event.is_step_failure)]
    return step.user_failure_data.description


@pytest.mark.parametrize("asset", ["raw", "observations", "dataset", "odb"])
@pytest.mark.parametrize("missing", [m if m in TELLING else pytest.param(m, marks=pytest.mark.soak) for m in MISSING])
def test_it_is_made_again_or_says_what_to_make_first(asset, missing, platform_with, instance):
    platform, files, before = made(platform_with, asset)
    MISSING[missing]()
    platform = open_platform(platform.config)  # a process that remembers nothing
    told = materialised(platform, asset, instance)
    if first := REFUSED[asset].get(missing):
        assert told and first in told, told
    else:
        assert told is None
        assert {str(path): path.read_bytes() for path in files} == before


def test_in_the_order_that_they_tell_all_is_made_again(platform_with, instance):
    platform, files, before = made(platform_with, "dataset")
    MISSING["everything"]()
    platform = open_platform(platform.config)
    assert BUILD in materialised(platform, "odb", instance)
    assert COLLECT in materialised(platform, "dataset", instance)
    assert [materialised(platform, asset, instance) for asset in ("raw", "observations", "dataset", "odb")] == [
        None
    ] * 4
    assert {str(path): path.read_bytes() for path in files} == before


def test_what_a_client_sent_is_ingested_again_when_the_store_lost_it(platform_with, instance):
    platform = platform_with("  told: {type: told, kind: external, start: 2026-06-21T00:00:00Z}")
    source, store = platform.sources["told"], platform.raws(platform.source("told"))
    for name, quarter in enumerate(windows_between(FIRST.start, FIRST.end, source.default_window)):
        raw = store.write_sent("told", f"sent{name}", quarter, source.metadata, source.fetch(quarter))
        platform.ledger.record_sent([(raw, [quarter])])
        ingest(platform, platform.source("told"), quarter)
    before = sorted(Path(SEGMENTS).rglob("2*/*.parquet"))
    MISSING["observations"]()
    assert materialised(platform, "observations", instance) is None
    assert sorted(Path(SEGMENTS).rglob("2*/*.parquet")) == before and len(before) == 4
    unlinked(SEGMENTS, RAW)()
    assert "materialise told/request for 20260621T000000 first" in materialised(platform, "observations", instance)
