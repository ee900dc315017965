"""Many sources: a run is one source's or one dataset's, and one source that fails holds up no other."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.execution.backfill import PartitionBackfill
from told import HOUR, START

from ionbeam_dagster.domain.windows import windows_between
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline import agenda

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]


@pytest.fixture
def tick(platform_with, instance):
    """Ticks a sensor of a platform that has more than 500 assets with a condition; gives the assets of each run."""
    blocks = [f"  s{number:03d}: {{type: told, start: 2026-06-21}}" for number in range(200)]
    platform = platform_with("\n".join(blocks), automation="{lookback: PT1H}")
    repository = build_definitions(WatchedPlatform(platform)).get_repository_def()
    conditions = [
        key
        for key in repository.asset_graph.get_all_asset_keys()
        if repository.asset_graph.get(key).automation_condition
    ]
    assert len(conditions) > 1000

    def ticked(name: str) -> list[set[str]]:
        context = dg.build_sensor_context(instance=instance, repository_def=repository, sensor_name=name)
        found = repository.get_sensor_def(name).evaluate_tick(context)
        runs = [
            run.asset_graph_subset.asset_keys if run.asset_graph_subset else run.asset_selection
            for run in found.run_requests
        ]
        return [{asset.to_user_string() for asset in run} for run in runs]

    return ticked


def _assets(run: dg.RunRequest):
    return run.asset_graph_subset.asset_keys if run.asset_graph_subset else run.asset_selection


def test_a_run_is_one_sources_and_a_source_that_fails_holds_up_no_other(tick, monkeypatch):
    due_of = agenda.due_of

    def broken_for_one(platform, stage, of, now, afresh=False):
        if of == "s000":
            raise StoreError("its files are away")
        return due_of(platform, stage, of, now, afresh)

    monkeypatch.setattr(agenda, "due_of", broken_for_one)
    with pytest.raises(Exception, match="Error while evaluating conditions for s000"):
        tick("s000__collecting")
    assert tick("s001__collecting") == [{"s001/raw", "s001/observations"}]
    assert tick("s199__collecting") == [{"s199/raw", "s199/observations"}]
    assert tick("s199__building") == []


@pytest.mark.parametrize("size", ["PT30M", "PT2H", "P1D"])
def test_windows_of_another_length_while_a_backfill_is_open_stop_no_automation(platform_with, instance, size):
    other = "  other: {type: told, start: 2026-06-21, end: 2026-06-22}\n"

    def repository(size: str):
        windows = f"  scheduler: {{windows: [{{source_name: told, window_size: {size}}}]}}\n"
        platform = platform_with(
            f"{windows}  told: {{type: told, start: 2026-06-21, end: 2026-06-22}}\n{other}",
            automation="{lookback: P400D}",
        )
        return build_definitions(WatchedPlatform(platform)).get_repository_def()

    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id="open",
            asset_graph=repository("PT1H").asset_graph,
            partition_names=[one.key for one in windows_between(START, START + 6 * HOUR, HOUR)],
            asset_selection=[dg.AssetKey(["told", "raw"]), dg.AssetKey(["told", "observations"])],
            backfill_timestamp=(START + timedelta(days=400)).timestamp(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
    )
    changed = repository(size)
    for name in ("other", "told"):
        context = dg.build_sensor_context(instance=instance, repository_def=changed, sensor_name=f"{name}__collecting")
        assert changed.get_sensor_def(f"{name}__collecting").evaluate_tick(context).run_requests, name
