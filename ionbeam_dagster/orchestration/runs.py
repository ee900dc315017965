"""A range of a source, through Dagster in this process: collected, ingested, built and exported.

Belongs here: which windows of a range need which step, and the runs that do them. Nothing is done that is done already.
Does not belong here: what a person sees of it (cli).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from ionbeam_dagster.definitions import platform_definitions
from ionbeam_dagster.domain.windows import Build, Wait, Window, windows_between
from ionbeam_dagster.orchestration.assets.dataset import build_job, dataset_key
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.assets.source import collect_job, observations_key, raw_key
from ionbeam_dagster.orchestration.checks import may_go_on
from ionbeam_dagster.orchestration.due import not_ingested
from ionbeam_dagster.orchestration.internals import was_interrupted
from ionbeam_dagster.orchestration.partitions import contiguous_runs, dataset_partitions, source_partitions, tags_of_run
from ionbeam_dagster.orchestration.resources import WatchedPlatform, Watcher
from ionbeam_dagster.pipeline import (
    PipelineError,
    Platform,
    assess,
    export_is_current,
    needs_collecting,
)

Planner = Callable[[str, int], None]
"""Is told an asset and how many windows of it are about to be done."""

_PROCESS_TAG = "ionbeam/process"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What became of one window of an asset (``<name>/<stage>``) in a run; `failure` is why it failed, if it did."""

    asset: str
    window: Window
    failure: str | None
    run_id: str


def run_range(
    platform: Platform,
    source: str,
    start: datetime,
    end: datetime,
    instance: dg.DagsterInstance,
    on_window: Watcher = lambda asset, window, failure: None,
    on_plan: Planner = lambda asset, windows: None,
) -> list[WindowResult]:
    """Bring every window of `source` in [start, end), and every dataset window that it touches, up to date.

    A window that fails does not keep the others from going on. Returns what was done, nothing when there was nothing to
    do; every run is in `instance`. Raises PipelineError for a source that the platform does not know or cannot ask.
    """
    _end_dead_runs(instance)
    return _Range(platform, source, instance, on_window, on_plan).bring_up_to_date(start, end)


class _Range:
    def __init__(
        self, platform: Platform, source: str, instance: dg.DagsterInstance, on_window: Watcher, on_plan: Planner
    ) -> None:
        self._platform = platform
        self._source = platform.source(source)
        if self._source.kind == "external":
            raise PipelineError(f"{source} is sent to the platform by a client outside; it cannot be run from here")
        self._dataset = platform.dataset(self._source.dataset)
        self._instance = instance
        self._on_window = on_window
        self._on_plan = on_plan
        self._told: list[tuple[str, Window, str | None]] = []
        self._results: list[WindowResult] = []
        self._defs = platform_definitions(WatchedPlatform(platform, self._note))

    def bring_up_to_date(self, start: datetime, end: datetime) -> list[WindowResult]:
        name, dataset = self._source.name, self._dataset
        raw, observations, built = raw_key(name), observations_key(name), dataset_key(dataset.name)
        exports = {format: export_key(dataset.name, format) for format in dataset.exports}
        due_before = set(self._platform.ledger.due(dataset.name))
        windows = self._source_windows(start, end)

        self._run(collect_job(name), [raw, observations], [w for w in windows if self._to_collect(w)])
        # where one window could not be collected, the run ended before it ingested the others
        self._run(collect_job(name), [observations], [w for w in windows if self._to_ingest(w, observations)])

        touched = self._dataset_windows(start, end, set(self._platform.ledger.due(dataset.name)) - due_before)
        now = datetime.now(UTC)
        self._run(build_job(dataset.name), [built, *exports.values()], [w for w in touched if self._to_build(w, now)])
        for format, key in exports.items():
            self._run(build_job(dataset.name), [key], [w for w in touched if self._to_export(w, format, key)])
        return self._results

    def _source_windows(self, start: datetime, end: datetime) -> list[Window]:
        partitions = source_partitions(self._source, self._dataset)
        return [
            window
            for window in windows_between(start, end, self._source.window_size)
            if partitions.has_partition_key(window.key)
        ]

    def _dataset_windows(self, start: datetime, end: datetime, touched: set[Window]) -> list[Window]:
        partitions = dataset_partitions(self._dataset)
        wanted = touched.union(windows_between(start, end, self._dataset.span))
        return sorted(window for window in wanted if partitions.has_partition_key(window.key))

    def _to_collect(self, window: Window) -> bool:
        return needs_collecting(self._platform, self._source.name, window)

    def _to_ingest(self, window: Window, key: dg.AssetKey) -> bool:
        return not self._failed(key, window) and not_ingested(self._platform, self._source.name, window) is not None

    def _to_build(self, window: Window, now: datetime) -> bool:
        """What `decide` wants built and, as a person asked for it, what would wait although something was collected."""
        decision = assess(self._platform, self._dataset.name, window, now)
        if isinstance(decision, Wait):
            return bool(self._platform.ledger.claims(self._dataset.name, window))
        return isinstance(decision, Build)

    def _to_export(self, window: Window, format: str, key: dg.AssetKey) -> bool:
        latest = self._platform.ledger.latest_revision(self._dataset.name, window)
        if latest is None or self._failed(key, window) or self._is_broken(window):
            return False
        return not export_is_current(self._platform, self._dataset.name, format, window)

    def _failed(self, key: dg.AssetKey, window: Window) -> bool:
        asset = key.to_user_string()
        return any(r.failure and r.asset == asset and r.window == window for r in self._results)

    def _run(self, job: str, assets: Sequence[dg.AssetKey], windows: Iterable[Window]) -> None:
        wanted = list(windows)
        if not wanted:
            return
        for key in assets:
            self._on_plan(key.to_user_string(), len(wanted))
        span = wanted[0].span
        for run in contiguous_runs(wanted, span):
            self._told.clear()
            result = self._defs.resolve_job_def(job).execute_in_process(
                asset_selection=list(assets),
                tags=tags_of_run(run, span) | {_PROCESS_TAG: _this_process()},
                instance=self._instance,
                run_config=_QUIET,
                raise_on_error=False,
            )
            if was_interrupted(result):
                raise KeyboardInterrupt
            self._results += [WindowResult(*told, run_id=result.run_id) for told in self._told]
            if not result.success and not any(failure for _, _, failure in self._told):
                self._note_blocked(result, assets, list(windows_between(run.start, run.end, span)))

    def _note_blocked(
        self, result: dg.ExecuteInProcessResult, assets: Sequence[dg.AssetKey], windows: list[Window]
    ) -> None:
        """A run failed although no window did: a blocking check ended it, for the windows that do not pass it."""
        reached = {asset for asset, _, _ in self._told}
        missed = [asset for key in assets if (asset := key.to_user_string()) not in reached]
        broken = [window for window in windows if self._is_broken(window)] or windows
        reason = _why(result)
        self._results += [WindowResult(asset, window, reason, result.run_id) for window in broken for asset in missed]

    def _is_broken(self, window: Window) -> bool:
        latest = self._platform.ledger.latest_revision(self._dataset.name, window)
        return latest is not None and not may_go_on(latest)

    def _note(self, asset: str, window: Window, failure: str | None) -> None:
        self._told.append((asset, window, failure))
        self._on_window(asset, window, failure)


def _why(result: dg.ExecuteInProcessResult) -> str:
    steps = [event.step_failure_data for event in result.filter_events(lambda event: event.is_step_failure)]
    errors = [step.error.message.strip() for step in steps if step.error]
    return errors[0] if errors else f"run {result.run_id} failed; the UI shows why"


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _end_dead_runs(instance: dg.DagsterInstance) -> None:
    """End the runs of earlier processes that were killed: to Dagster they go on, and hold their windows for ever."""
    status = dg.DagsterRunStatus
    for run in instance.get_runs(dg.RunsFilter(statuses=[status.NOT_STARTED, status.STARTING, status.STARTED])):
        host, _, process = run.tags.get(_PROCESS_TAG, "").rpartition(" ")
        if host == socket.gethostname() and not _is_alive(int(process)):
            instance.report_run_failed(run, f"process {process}, in which it ran, is gone")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
