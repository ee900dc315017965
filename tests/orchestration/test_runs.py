"""A range of a source through Dagster in this process: what is done, what is recorded, and what is not done again."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from told import HOUR, QUARTER, START, Told, key, put_point, window

from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.heartbeats import this_host
from ionbeam_dagster.orchestration.home import ensure_home
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.partitions import dataset_partitions, source_partitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import reingest_range, run_range
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.stores.ledger.leases import lease_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
TOLD = "  told: {start: 2026-06-21T00:00:00Z}"


def materialised(instance, platform, *asset: str) -> set[str]:
    settings = platform.config.sources["told"]
    dataset = platform.config.datasets["told"]
    fine = asset[1] in ("raw", "observations")
    partitions = source_partitions(settings, dataset) if fine else dataset_partitions(dataset)
    status = get_and_update_asset_status_cache_value(instance, dg.AssetKey(asset), partitions)
    return set(status.deserialize_materialized_partition_subsets(partitions).get_partition_keys())


def failed(instance, platform, *asset: str) -> set[str]:
    settings = platform.config.sources["told"]
    partitions = source_partitions(settings, platform.config.datasets["told"])
    status = get_and_update_asset_status_cache_value(instance, dg.AssetKey(asset), partitions)
    return set(status.deserialize_failed_partition_subsets(partitions).get_partition_keys())


def test_a_range_waits_for_nobody_who_was_killed(platform_with, instance):
    """No worker and no daemon is there to see it: after `kill -9`, `ionbeam run` goes on at once."""
    platform = platform_with(TOLD)
    gone = subprocess.Popen(["true"])
    gone.wait()
    platform.ledger.workers.beat("killed", this_host(), gone.pid, "run of told__collect")
    held = [lease_of(stage, "told", window("00:15")) for stage in ("collect", "ingest")]
    assert platform.ledger.leases.take(held, "killed") == held
    results = run_range(platform, "told", START, START + HOUR, instance)
    assert [r.failure for r in results if r.failure] == [] and len(results) == 11
    assert platform.ledger.leases.held() == {}


def test_a_range_goes_all_the_way_and_a_second_time_there_is_nothing_to_do(platform_with, instance, monkeypatch):
    platform = platform_with(TOLD)
    seen, planned, listed = [], {}, []
    listing = dg.TimeWindowPartitionsDefinition.get_partition_keys
    monkeypatch.setattr(
        dg.TimeWindowPartitionsDefinition,
        "get_partition_keys",
        lambda partitions, *given, **named: listed.append(partitions) or listing(partitions, *given, **named),
    )

    results = run_range(
        platform, "told", START, START + 2 * HOUR, instance,
        on_window=lambda asset, window, failure: seen.append((asset, window)),
        on_plan=lambda asset, windows: planned.update({asset: windows}),
    )  # fmt: skip

    assert listed == [], "what takes minutes, where there are millions of partitions"
    assert [r.failure for r in results if r.failure] == []
    done = Counter(result.asset for result in results)
    assert done == {"told/raw": 8, "told/observations": 8, "told/dataset": 2, "told/odb": 2, "told/pygeoapi": 2}
    assert planned == dict(done)
    assert seen == [(result.asset, result.window) for result in results]
    assert materialised(instance, platform, "told", "pygeoapi") == {key("00:00"), key("01:00")}
    exported = pl.read_parquet(platform.export_path("told", "pygeoapi", window("01:00", HOUR)))
    assert exported.height == 8
    assert {run.job_name for run in instance.get_runs()} == {"told__collect", "told__build"}


def test_what_another_process_collects_meanwhile_is_no_part_of_a_run(platform_with, instance):
    platform = platform_with(TOLD)
    told = platform.source("told")
    platform.sources["told"].stray = {key("00:15"): START + 3 * HOUR}

    def meanwhile(asset, at, failure):
        if asset == "told/raw":
            collect(platform, told, window("07:00"), platform.now())
            ingest(platform, told, window("07:00"))

    results = run_range(platform, "told", START, START + HOUR, instance, on_window=meanwhile)
    assert {r.window for r in results if r.asset == "told/dataset"} == {window("00:00", HOUR), window("03:00", HOUR)}


def test_a_window_that_fails_in_the_middle_takes_no_other_with_it(platform_with, instance):
    platform = platform_with(TOLD)
    platform.sources["told"].failing = {key("00:15")}

    results = run_range(platform, "told", START, START + HOUR, instance)

    failures = [(r.asset, r.window, r.failure) for r in results if r.failure]
    assert failures == [("told/raw", window("00:15"), "no answer for 20260621T001500")]
    all_keys = {key(f"00:{minute:02}") for minute in range(0, 60, 15)}
    assert materialised(instance, platform, "told", "raw") == all_keys - {key("00:15")}
    assert failed(instance, platform, "told", "raw") == {key("00:15")}
    assert materialised(instance, platform, "told", "observations") == all_keys - {key("00:15")}
    # the retries asked only for the window that had failed
    fetched = Counter(platform.sources["told"].fetched)
    assert fetched.pop(key("00:15")) == 3
    assert set(fetched.values()) == {1}
    latest = platform.ledger.latest_revision("told", window("00:00", HOUR))
    assert [(gap.key, gap.end.minute) for gap in latest.facts.gaps] == [("20260621T001500", 30)]

    platform.sources["told"].failing = set()
    mended = run_range(platform, "told", START, START + HOUR, instance)

    assert [(r.asset, r.window.key) for r in mended] == [
        ("told/raw", key("00:15")), ("told/observations", key("00:15")),
        ("told/dataset", key("00:00")), ("told/odb", key("00:00")), ("told/pygeoapi", key("00:00")),
    ]  # fmt: skip
    latest = platform.ledger.latest_revision("told", window("00:00", HOUR))
    assert latest.revision.number == 2
    assert latest.facts.complete


def test_a_lost_raw_partition_is_collected_again_and_only_its_hour_is_rebuilt_to_the_same_bytes(
    platform_with, instance
):
    platform = platform_with(TOLD)
    run_range(platform, "told", START, START + 2 * HOUR, instance)
    built = Path(platform.ledger.latest_revision("told", window("00:00", HOUR)).path)
    before = built.read_bytes()
    platform.files.delete(platform.ledger.raw("told", window("00:30")).path)

    results = run_range(platform, "told", START, START + 2 * HOUR, instance)

    assert {(r.asset, r.window.key) for r in results} == {
        ("told/raw", key("00:30")), ("told/observations", key("00:30")),
        ("told/dataset", key("00:00")), ("told/odb", key("00:00")), ("told/pygeoapi", key("00:00")),
    }  # fmt: skip
    assert platform.ledger.latest_revision("told", window("00:00", HOUR)).revision.number == 1
    assert built.read_bytes() == before


def test_a_reingest_asks_the_source_again_and_builds_what_came_out_differently(platform_with, instance, monkeypatch):
    platform = platform_with(TOLD)
    run_range(platform, "told", START, START + 2 * HOUR, instance)
    seen, fetch = [], Told.fetch
    monkeypatch.setattr(Told, "fetch", lambda self, window: seen.append(self.config.use_cache) or fetch(self, window))
    platform.sources["told"].warmer = {key("01:15"): 5.0}

    results = reingest_range(platform, "told", START, START + 2 * HOUR, instance)
    assert seen == [False] * 8
    assert {(r.asset, r.window.key) for r in results if r.asset not in ("told/raw", "told/observations")} == {
        ("told/dataset", key("01:00")), ("told/odb", key("01:00")), ("told/pygeoapi", key("01:00"))
    }  # fmt: skip
    assert platform.ledger.latest_revision("told", window("01:00", HOUR)).revision.number == 2

    seen.clear()
    reingest_range(platform, "told", START, START + HOUR, instance, use_cache=True)
    assert seen == [True] * 4


def test_what_fails_once_is_tried_again_after_the_others(platform_with, instance):
    platform = platform_with(TOLD)
    platform.sources["told"].failing_once = {key("00:15")}

    results = run_range(platform, "told", START, START + 3 * QUARTER, instance)

    assert [r.failure for r in results if r.failure] == []
    assert platform.sources["told"].fetched == [key("00:00"), key("00:15"), key("00:30"), key("00:15")]
    assert materialised(instance, platform, "told", "raw") == {key("00:00"), key("00:15"), key("00:30")}


def test_a_person_can_stop_it(platform_with, instance):
    platform = platform_with(TOLD)
    platform.sources["told"].stopped_at = key("00:15")
    with pytest.raises(KeyboardInterrupt):
        run_range(platform, "told", START, START + HOUR, instance)
    assert platform.sources["told"].fetched == [key("00:00"), key("00:15")]
    assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]
    assert materialised(instance, platform, "told", "raw") == {key("00:00")}

    platform.sources["told"].stopped_at = None
    assert run_range(platform, "told", START, START + HOUR, instance)
    assert Counter(platform.sources["told"].fetched)[key("00:00")] == 1


def test_a_window_that_a_check_blocks_is_named_and_the_others_are_exported(platform_with, instance):
    platform = platform_with(TOLD)
    put_point(platform, "01:00", "off the globe", latitude=95.0)

    results = run_range(platform, "told", START, START + 2 * HOUR, instance)

    blocked = [(r.asset, r.window) for r in results if r.failure]
    assert blocked == [("told/odb", window("01:00", HOUR)), ("told/pygeoapi", window("01:00", HOUR))]
    assert "coordinates" in next(r.failure for r in results if r.failure)
    assert platform.files.exists(platform.export_path("told", "odb", window("00:00", HOUR)))
    assert not platform.files.exists(platform.export_path("told", "odb", window("01:00", HOUR)))
    assert run_range(platform, "told", START, START + 2 * HOUR, instance) == []


shared = {}


def collect_job():
    """Dagster makes the job anew to run it again."""
    return build_definitions(WatchedPlatform(shared["platform"])).resolve_job_def("told__collect")


def test_a_run_that_is_executed_again_from_its_failure_does_only_what_had_failed(platform_with):
    platform = shared["platform"] = platform_with(TOLD)
    source = platform.sources["told"]
    source.failing = {key("00:15")}
    job, tags = dg.reconstructable(collect_job), partition_tags(key("00:00"), key("00:45"))
    with dg.instance_for_test() as instance:
        first = dg.execute_job(job, instance, run_config=QUIET, tags=tags)
        assert not first.success
        source.failing.clear()
        source.fetched.clear()
        again = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        second = dg.execute_job(
            job, instance, run_config=QUIET, tags=tags | {"dagster/is_resume_retry": "true"}, reexecution_options=again
        )
        assert second.success
        assert source.fetched == [key("00:15")]
        assert len(materialised(instance, platform, "told", "observations")) == 4


def test_home_is_made_once_and_is_one_that_dagster_takes(tmp_path):
    home = ensure_home(tmp_path / "home")
    settings = home / "dagster.yaml"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
    settings.write_text("telemetry: {enabled: false}")
    ensure_home(home)
    assert settings.read_text() == "telemetry: {enabled: false}"


def test_definitions_name_every_asset_job_and_sensor(platform_with):
    platform = platform_with(
        TOLD + "\n  told_changes: {start: 2026-06-21T00:00:00Z}\n"
        "  push: {type: told, kind: external, dataset: both}\n"
        "  pull: {type: told, dataset: both, station_prefix: '', exports: [odb]}",
        automation="{enabled: false}",
    )
    defs = build_definitions(WatchedPlatform(platform))
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    assert {asset.to_user_string() for asset in graph.get_all_asset_keys()} == {
        "told/raw", "told/observations", "told/dataset", "told/odb", "told/pygeoapi",
        "told_changes/raw", "told_changes/observations", "told_changes/dataset", "told_changes/odb",
        "told_changes/pygeoapi", "push/raw", "push/observations", "pull/raw", "pull/observations",
        "both/dataset", "both/odb", "retention", "history", "report", "pygeoapi_config",
        *(f"{source}/stations" for source in ("told", "told_changes", "push", "pull")),
        *(f"{source}/heard" for source in ("told", "told_changes", "push", "pull")),
    }  # fmt: skip
    assert not graph.get(dg.AssetKey(["push", "raw"])).is_materializable
    assert graph.get(dg.AssetKey(["both", "dataset"])).parent_keys == {
        dg.AssetKey(["push", "observations"]), dg.AssetKey(["pull", "observations"])
    }  # fmt: skip
    repository = defs.get_repository_def()
    assert {"told__collect", "told__build", "both__build", "push__collect"} <= set(repository.job_names)
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "told_changes__changes", "configuring", "reconciliation", "dead_runs", "freshness",
        *(f"{source}__collecting" for source in ("told", "told_changes", "push", "pull")),
        *(f"{dataset}__building" for dataset in ("told", "told_changes", "both")),
    }  # fmt: skip
