"""Backfills as Dagster's own daemon does them: in range runs, with a window that fails in the middle."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import WorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from told import HOUR, START, Told

from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import run_range

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

DAY = timedelta(days=1)
IN_PROCESS = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}
AT_ONCE = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
STAGES = ("raw", "observations", "dataset", "odb", "pygeoapi")


class InOneProcess(WorkspaceLoadTarget):
    """The platform's definitions as a code location, with what a test replaced in this process."""

    def create_origins(self):
        target = LoadableTargetOrigin(executable_path=sys.executable, module_name="ionbeam_dagster.definitions")
        return [InProcessCodeLocationOrigin(target, location_name="ionbeam")]


@pytest.fixture
def told(platform_of, monkeypatch, tmp_path):
    """Makes platforms whose source counts its fetches, and fails where it is told to, whoever opened the platform."""
    fetched: list[str] = []
    failing: set[str] = set()

    class Watched(Told):
        def fetch(self, window: Window):
            self.failing = failing
            fetched.append(window.key)
            return super().fetch(window)

    monkeypatch.setattr(
        "ionbeam_dagster.config.resolving.installed_sources", lambda: {"told": SimpleNamespace(load=lambda: Watched)}
    )
    monkeypatch.setattr("ionbeam_dagster.orchestration.assets.RETRY_DELAY", 0.01)
    monkeypatch.setattr("ionbeam_dagster.orchestration.metadata.import_module", lambda name: None)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.yaml"))
    return SimpleNamespace(open=platform_of, fetched=fetched, failing=failing)


@pytest.fixture
def instance():
    with dg.instance_for_test({"run_launcher": IN_PROCESS, "run_coordinator": AT_ONCE}) as made:
        yield made


def backfilled(platform, instance: dg.DagsterInstance, keys: list[str]) -> BulkActionStatus:
    """Backfill all assets of the source for `keys`, until Dagster's daemon has no more to do."""
    graph = build_definitions(WatchedPlatform(platform)).resolve_asset_graph()
    with create_test_daemon_workspace_context(InOneProcess(), instance) as daemon:
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="all",
                asset_graph=graph,
                partition_names=keys,
                asset_selection=[dg.AssetKey(["told", stage]) for stage in STAGES],
                backfill_timestamp=(START + 400 * DAY).timestamp(),
                tags={},
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )
        for _ in range(50):
            errors = [error for error in execute_backfill_iteration(daemon, logging.getLogger("backfill")) if error]
            assert not errors, errors[0].message
            status = instance.get_backfill("all").status
            if status not in (BulkActionStatus.REQUESTED, BulkActionStatus.FAILING):
                return status
    raise AssertionError(f"the backfill is {status}")


@pytest.mark.parametrize(
    ("size", "days"), [("PT1H", 2), pytest.param("PT5M", 30, marks=pytest.mark.soak, id="a month of five minutes")]
)
def test_a_window_that_fails_in_the_middle_of_a_backfill_neither_loses_nor_repeats_the_others(
    told, instance, size, days
):
    sections = f"  told: {{start: {START:%Y-%m-%d}, aggregation_span: PT6H}}\n"
    sections += f"  scheduler: {{windows: [{{source_name: told, window_size: {size}}}]}}"
    platform = told.open(sections)
    end = START + days * DAY
    windows = list(windows_between(START, end, HOUR if size == "PT1H" else timedelta(minutes=5)))
    spans = list(windows_between(START, end, 6 * HOUR))
    broken = windows[len(windows) // 2 + 1]
    around = next(span for span in spans if span.covers(broken))
    told.failing.add(broken.key)

    assert backfilled(platform, instance, [window.key for window in windows]) == BulkActionStatus.COMPLETED_FAILED
    raws = [window for window in windows if platform.ledger.raw("told", window)]
    assert raws == [window for window in windows if window != broken], "the others were collected"
    collecting = [run for run in instance.get_runs() if {"raw"} & {key.path[-1] for key in run.asset_selection}]
    assert len(collecting) == days, "one run a day, not one a window"

    # what the failed run left behind is done by the next run, and nothing else
    told.failing.clear()
    done = run_range(platform, "told", START, end, instance)
    assert [result.window for result in done if result.asset == "told/raw"] == [broken]
    assert not any(result.failure for result in done)
    once = [key for key in told.fetched if key != broken.key]
    assert sorted(once) == [window.key for window in windows if window != broken], "fetched once each"
    latest = {span: platform.ledger.latest_revision("told", span) for span in spans}
    assert {built.revision.number for built in latest.values()} == {1} and latest[around].facts.complete
    assert sum(built.facts.rows for built in latest.values()) == 2 * len(windows)
    assert all(platform.ledger.export("told", span, format).number == 1 for span in spans for format in STAGES[3:])
