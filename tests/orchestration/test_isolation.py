"""Many sources: a run is one source's or one dataset's, and one source that fails holds up no other."""

from __future__ import annotations

import dagster as dg
import pytest

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
