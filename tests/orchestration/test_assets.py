"""What Dagster keeps of a window: metadata, checks and events, for single partitions and for range runs."""

from __future__ import annotations

from collections import Counter

import dagster as dg
import pytest
from told import HOUR, QUARTER, START, TEMPERATURE, key, window

from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import run_range

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

TOLD = "  told: {start: 2026-06-21T00:00:00Z}"
DATASET = dg.AssetKey(["told", "dataset"])


def latest_metadata(instance, *asset: str) -> dict[str, dict[str, dg.MetadataValue]]:
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    return {r.partition_key: r.asset_materialization.metadata for r in reversed(records)}


def check_records(instance, name: str) -> dict[str | None, tuple[str, bool]]:
    """The latest status of a check by partition, and whether it stands for the latest materialisation."""
    check = dg.AssetCheckKey(DATASET, name)
    infos = instance.event_log_storage.get_asset_check_partition_info([check])
    return {info.partition_key: (info.latest_execution_status.value, info.is_current) for info in infos}


@pytest.mark.usefixtures("no_pictures")
def test_each_window_of_a_range_run_has_its_own_metadata_and_one_event(platform_with, instance):
    platform = platform_with(TOLD)
    run_range(platform, "told", START, START + HOUR + QUARTER, instance)

    for asset in ("raw", "observations"):
        records = instance.fetch_materializations(dg.AssetKey(["told", asset]), limit=100).records
        assert Counter(r.partition_key for r in records) == Counter(
            key(time) for time in ("00:00", "00:15", "00:30", "00:45", "01:00")
        )
    hours = latest_metadata(instance, "told", "dataset")
    assert [hours[key(time)]["dagster/partition_row_count"].value for time in ("00:00", "01:00")] == [8, 2]
    assert [hours[key(time)]["coverage"].value for time in ("00:00", "01:00")] == [1.0, 0.25]
    assert "2026-06-21T01:15:00+00:00 .. 2026-06-21T02:00:00+00:00" in hours[key("01:00")]["gaps"].value
    assert hours[key("00:00")]["decision"].value == "ready"
    assert hours[key("00:00")]["revision"].value == 1
    assert "| 2026-06-21 00:00:00+00:00 | 52 | 4 | 10 | a |" in hours[key("00:00")]["preview"].value


def test_columns_are_described_and_traced_from_the_raw_file_to_the_export(platform_with, instance):
    run_range(platform_with(TOLD), "told", START, START + HOUR, instance)
    name = TEMPERATURE.to_canonical_name()

    def upstream(metadata, column):
        deps = metadata["dagster/column_lineage"].value.deps_by_column[column]
        return [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps]

    observations = latest_metadata(instance, "told", "observations")[key("00:45")]
    assert upstream(observations, name) == [("told/raw", "t")]
    dataset = latest_metadata(instance, "told", "dataset")[key("00:00")]
    assert upstream(dataset, name) == [("told/observations", name)]
    described = {column.name: column.description for column in dataset["dagster/column_schema"].value.columns}
    assert described[name] == "air_temperature, degC, at 2.0 m, point over PT0S"
    odb = latest_metadata(instance, "told", "odb")[key("00:00")]
    assert odb["picture"].value.startswith("![places, values and flags of the export](data:image/png;base64,")
    traced = odb["dagster/column_lineage"].value.deps_by_column
    assert [dep.column_name for deps in traced.values() for dep in deps].count(name) == 1
    assert odb["dagster/partition_row_count"].value == 8


@pytest.mark.usefixtures("no_pictures")
def test_checks_stand_for_each_window_also_of_a_range_run(platform_with, instance):
    platform = platform_with(TOLD)
    platform.sources["told"].warmer = {key("00:00"): 100.0}
    run_range(platform, "told", START, START + HOUR + QUARTER, instance)

    good, bad = ("SUCCEEDED", True), ("FAILED", True)
    expected = {
        "schema": (good, good), "coordinates": (good, good), "not_empty": (good, good),
        "coverage": (good, bad), "plausible": (bad, good), "duplicates": (good, good), "quarantined": (good, good),
    }  # fmt: skip
    for name, (first, second) in expected.items():
        found = check_records(instance, name)
        assert (name, found[key("00:00")], found[key("01:00")]) == (name, first, second)


@pytest.mark.usefixtures("no_pictures")
def test_a_check_of_a_single_window_is_recorded_once_for_that_window(platform_with, instance):
    run_range(platform_with(TOLD), "told", START, START + HOUR, instance)
    assert check_records(instance, "plausible") == {key("00:00"): ("SUCCEEDED", True)}


@pytest.mark.usefixtures("no_pictures")
def test_rows_that_cannot_be_used_are_told_by_a_check_with_their_reasons(platform_with, instance):
    platform = platform_with(TOLD)
    platform.sources["told"].latitude = 89.5
    run_range(platform, "told", START, START + HOUR, instance)
    observations = latest_metadata(instance, "told", "observations")[key("00:00")]
    assert observations["rows quarantined"].value == 1
    assert "latitude" in observations["why quarantined"].value
    check = dg.AssetCheckKey(DATASET, "quarantined")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(check, limit=5)
    evaluation = record.event.dagster_event.event_specific_data
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluation.description == "4 rows are in quarantine; the observations tell why"


@pytest.mark.usefixtures("no_pictures")
def test_a_window_of_which_nothing_was_collected_fails_with_that_reason_and_the_others_are_built(
    platform_with, instance
):
    platform = platform_with(TOLD)
    run_range(platform, "told", START + HOUR, START + 2 * HOUR, instance)
    result = (
        build_definitions(WatchedPlatform(platform))
        .resolve_job_def("told__build")
        .execute_in_process(
            asset_selection=[DATASET],
            tags=partition_tags(key("00:00"), key("01:00")),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=instance,
            raise_on_error=False,
        )
    )
    assert not result.success
    (step,) = [event.step_failure_data for event in result.filter_events(lambda event: event.is_step_failure)]
    assert "1 of 2 windows failed; the others are done and recorded" in step.user_failure_data.description
    assert "nothing has been collected for this window yet" in step.user_failure_data.description
    assert latest_metadata(instance, "told", "dataset").keys() == {key("01:00")}
    assert latest_metadata(instance, "told", "dataset")[key("01:00")]["decision"].value == "built"
    assert check_records(instance, "schema")[key("01:00")] == ("SUCCEEDED", True)
    assert platform.ledger.latest_revision("told", window("01:00", HOUR)).revision.number == 1


@pytest.mark.usefixtures("no_pictures")
def test_what_arrives_after_the_seal_is_told_by_the_observations_and_by_a_check_of_the_sealed_window(
    platform_with, instance
):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z, revise_for: PT2H}")
    run_range(platform, "told", START, START + HOUR, instance)
    assert check_records(instance, "in_time") == {key("00:00"): ("SUCCEEDED", True)}
    platform.sources["told"].warmer = {key("00:15"): 3.0}
    collect = build_definitions(WatchedPlatform(platform)).resolve_job_def("told__collect")
    assert collect.execute_in_process(
        tags=partition_tags(key("00:15"), key("00:15")),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=instance,
    ).success

    sealed = "sealed since 2026-06-21 03:00; 1 ingestion with 2 rows arrived later: kept, not built"
    told = latest_metadata(instance, "told", "observations")[key("00:15")]["dataset windows"].value
    assert f"| 2026-06-21 00:00-01:00 | sealed | {sealed} |" in told
    assert check_records(instance, "in_time")[key("00:00")][0] == "FAILED"
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(DATASET, "in_time"), limit=1
    )
    assert history[0].event.dagster_event.event_specific_data.description == sealed

    run_range(platform, "told", START, START + HOUR, instance)
    assert platform.ledger.latest_revision("told", window("00:00", HOUR)).revision.number == 1
