"""A range of windows, through Dagster in this process: brought up to date, or done again as a person asks for it.

Belongs here: which windows of a range need which step, and the runs that do them, which the UI shows as it shows its
own. Does not belong here: what a person sees of it (cli).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import uuid4

import dagster as dg

from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.windows import Window, merge, window_of, windows_between
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration.assets import FORCE_TAG, OUTDATED_TAG, REPLACE_TAG, USE_CACHE_TAG
from ionbeam_dagster.orchestration.assets.dataset import build_job, dataset_key
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.assets.request import request_key
from ionbeam_dagster.orchestration.assets.retention import PURGE_JOB
from ionbeam_dagster.orchestration.assets.source import collect_job, observations_key, raw_key
from ionbeam_dagster.orchestration.cancelling import interrupted_when_cancelled
from ionbeam_dagster.orchestration.dead_runs import end_dead_runs, this_process
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.heartbeats import beating
from ionbeam_dagster.orchestration.internals import was_interrupted
from ionbeam_dagster.orchestration.launcher import PROCESS_TAG
from ionbeam_dagster.orchestration.partitions import contiguous_runs, dataset_partitions, source_partitions, tags_of_run
from ionbeam_dagster.orchestration.resources import WatchedPlatform, Watcher
from ionbeam_dagster.orchestration.sealing import SEAL_JOB
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.platform import Platform

Planner = Callable[[str, int], None]
"""Is told an asset and how many windows of it are about to be done."""

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


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

    Of a source that is written at a door this is what was written: nobody can be asked for more.

    Nothing is done that is done already. A window that fails does not keep the others from going on. Returns what was
    done, nothing when there was nothing to do; every run is in `instance`. Raises PipelineError for a source that the
    platform does not know or cannot ask.
    """
    settings = platform.source(source)
    if settings.kind == "external":
        raise PipelineError(
            f"{source} is sent to the platform by a client outside; ask it for a range with `ionbeam reingest {source}`"
        )
    return _Range(platform, settings.dataset, instance, on_window, on_plan).bring_up_to_date(settings, start, end)


def reingest_range(
    platform: Platform,
    source: str,
    start: datetime,
    end: datetime,
    instance: dg.DagsterInstance,
    on_window: Watcher = lambda asset, window, failure: None,
    on_plan: Planner = lambda asset, windows: None,
    use_cache: bool = False,
    replace: bool = False,
) -> list[WindowResult]:
    """Fetch every window of `source` in [start, end) anew, and build and export what came out differently.

    What the source no longer gives stays, unless it is to `replace` what it gave before.

    The client of an external source is asked for the range instead; what it sends arrives by itself. Raises
    PipelineError for a source that the platform does not know, or cannot ask: for want of a broker, or because it is
    written at a door.
    """
    settings = platform.source(source)
    if settings.kind == "door":
        raise PipelineError(
            f"{source} is written by its stations, which cannot be asked again; `ionbeam run {source}` builds and "
            "exports what they wrote"
        )
    asked = {USE_CACHE_TAG: use_cache, REPLACE_TAG: replace}
    tags = {tag: "true" for tag, wanted in asked.items() if wanted}
    done = _Range(platform, settings.dataset, instance, on_window, on_plan, tags)
    if settings.kind == "external":
        if platform.config.sections.broker is None:
            raise PipelineError(f"{source} is sent by a client, and {platform.config.path} has no broker to ask it by")
        return done.request(settings, start, end)
    return done.bring_up_to_date(settings, start, end, again=True)


def rebuild_range(
    platform: Platform,
    dataset: str,
    start: datetime,
    end: datetime,
    instance: dg.DagsterInstance,
    on_window: Watcher = lambda asset, window, failure: None,
    on_plan: Planner = lambda asset, windows: None,
    force: bool = False,
) -> list[WindowResult]:
    """Build the windows of `dataset` in [start, end) of which anything was collected, and export them.

    As in the UI, a window that holds all that arrived stays as it is, as does one that is sealed; with `force` they get
    a new revision, too.
    """
    tags = {FORCE_TAG: "true"} if force else {}
    return _Range(platform, dataset, instance, on_window, on_plan, tags).rebuild(start, end)


def rebuild_outdated(
    platform: Platform,
    dataset: str,
    start: datetime,
    end: datetime,
    instance: dg.DagsterInstance,
    on_window: Watcher = lambda asset, window, failure: None,
    on_plan: Planner = lambda asset, windows: None,
) -> list[WindowResult]:
    """Make again what of `dataset` in [start, end) an older exporter, quality plan or mapping made, and nothing else.

    Windows that a person sealed keep their revision.
    """
    return _Range(platform, dataset, instance, on_window, on_plan, {OUTDATED_TAG: "true"}).renew(start, end)


def seal_windows(
    platform: Platform,
    dataset: str,
    start: datetime,
    end: datetime,
    instance: dg.DagsterInstance,
    unseal: bool = False,
) -> list[Window]:
    """Close the built windows of `dataset` that overlap [start, end) for good, or open them again.

    Returns those that were changed. Raises PipelineError for a dataset that the platform does not know, and where they
    could not be changed.
    """
    platform.dataset(dataset)
    changed: list[Window] = []
    defs = build_definitions(WatchedPlatform(platform, lambda asset, window, failure: changed.append(window)))
    config = {"dataset": dataset, "start": start.isoformat(), "end": end.isoformat(), "unseal": unseal}
    job = defs.resolve_job_def(SEAL_JOB)
    result = _executed(platform, instance, job, {**QUIET, "ops": {"seal_windows": {"config": config}}})
    if not result.success:
        raise PipelineError(_why(result))
    return changed


def purge_now(platform: Platform, instance: dg.DagsterInstance) -> None:
    """Materialise ``retention``. Raises PipelineError when something could not be removed."""
    result = _executed(platform, instance, build_definitions(WatchedPlatform(platform)).resolve_job_def(PURGE_JOB))
    if not result.success:
        raise PipelineError(_why(result))


def _executed(
    platform: Platform,
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    run_config: Mapping[str, object] = QUIET,
    tags: Mapping[str, str] = MappingProxyType({}),
    assets: Sequence[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    """What became of a run in this process; raises KeyboardInterrupt where a person stopped or terminated it."""
    run_id = str(uuid4())
    with (
        beating(platform, run_id, f"run of {job.name}"),
        interrupted_when_cancelled(instance, run_id, may_end_process=False),
    ):
        result = job.execute_in_process(
            asset_selection=assets,
            tags={PROCESS_TAG: this_process(), **tags},
            instance=instance,
            run_config=run_config,
            raise_on_error=False,
            run_id=run_id,
        )
    if was_interrupted(result):
        raise KeyboardInterrupt
    return result


class _Range:
    def __init__(
        self,
        platform: Platform,
        dataset: str,
        instance: dg.DagsterInstance,
        on_window: Watcher,
        on_plan: Planner,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        end_dead_runs(instance)
        self._platform = platform
        self._dataset = platform.dataset(dataset)
        platform.check_span(self._dataset)
        self._instance = instance
        self._on_window = on_window
        self._on_plan = on_plan
        self._tags = dict(tags or {})
        self._told: list[tuple[str, Window, str | None]] = []
        self._results: list[WindowResult] = []
        self._defs = build_definitions(WatchedPlatform(platform, self._note))
        self._built = dataset_key(dataset)
        self._partitions = dataset_partitions(self._dataset)
        self._exports = {format: export_key(dataset, format) for format in self._dataset.exports}

    def bring_up_to_date(
        self, source: SourceSettings, start: datetime, end: datetime, again: bool = False
    ) -> list[WindowResult]:
        """Collect what needs it, or all `again`; ingest, build and export what follows from it."""
        name, dataset = source.name, self._dataset.name
        raw, observations = raw_key(name), observations_key(name)
        due_before, reached = set(self._platform.ledger.due(dataset)), self._reached(source, start, end)
        if source.sent:  # rows of any time are in what waits
            windows = self._platform.ledger.waiting(name)
        else:
            windows = self._source_windows(source, start, end)
            wanted = [w for w in windows if again or agenda.needs_collecting(self._platform, name, w)]
            self._run(collect_job(name), [raw, observations], wanted)
        # where one window could not be collected, the run ended before it ingested the others
        self._run(collect_job(name), [observations], [w for w in windows if self._to_ingest(name, w, observations)])

        newly_due = set(self._platform.ledger.due(dataset)) - due_before
        if not source.sent:  # others may be at work at the same time
            newly_due &= reached | self._reached(source, start, end)
        touched = self._dataset_windows(start, end, newly_due)
        now = self._platform.now()
        self._build([w for w in touched if agenda.to_build(self._platform, dataset, w, now, insist=True)])
        self._export(touched)
        self._export_cycles(touched)
        return self._results

    def request(self, source: SourceSettings, start: datetime, end: datetime) -> list[WindowResult]:
        self._run(None, [request_key(source.name)], self._source_windows(source, start, end))
        return self._results

    def rebuild(self, start: datetime, end: datetime) -> list[WindowResult]:
        """Build and export what can be, also where a check stopped the run before it exported the others."""
        windows = [w for w in touched_windows(self._platform, self._dataset, start, end) if self._is_partition(w)]
        self._build(windows)
        self._export(windows)
        self._export_cycles(windows)
        return self._results

    def renew(self, start: datetime, end: datetime) -> list[WindowResult]:
        """Build and export what is outdated."""
        platform, dataset, name = self._platform, self._dataset, self._dataset.name
        windows = [w for w in agenda.outdated(platform, dataset, start, end) if self._is_partition(w)]
        self._build([window for window in windows if agenda.is_outdated(platform, dataset, window)])
        for format, key in self._exports.items():
            stale = [w for w in windows if agenda.to_export(platform, f"{name}/{format}", w, renew=True)]
            self._run(build_job(name), [key], [w for w in stale if not self._failed(key, w)])
        self._export_cycles([*windows, *windows_between(start, end, self._dataset.span)], renew=True)
        return self._results

    def _build(self, windows: list[Window]) -> None:
        self._run(build_job(self._dataset.name), [self._built, *self._exports.values()], windows)

    def _export(self, windows: list[Window]) -> None:
        for format, key in self._exports.items():
            stale = [window for window in windows if self._to_export(window, format, key)]
            self._run(build_job(self._dataset.name), [key], stale)

    def _export_cycles(self, windows: list[Window], renew: bool = False) -> None:
        now, name = self._platform.now(), self._dataset.name
        touched = sorted({cycle_of(window.start) for window in windows})
        for format in self._dataset.cycle_exports:
            of = f"{name}/{format}"
            due = [cycle for cycle in touched if agenda.to_export_cycle(self._platform, of, cycle, now, renew)]
            self._run(None, [export_key(name, format)], due)

    def _source_windows(self, source: SourceSettings, start: datetime, end: datetime) -> list[Window]:
        partitions = source_partitions(source, self._dataset)
        first = max(start, window_of(source.start, self._dataset.span).start)
        last = min(end, source.end or end, datetime.now(UTC))
        windows = [
            window
            for part in agenda.without_holes(self._platform, source, [Window(first, last)] if first < last else [])
            for window in windows_between(part.start, part.end, source.window_size)
        ]
        return [window for window in windows if partitions.has_partition_key(window.key)]

    def _dataset_windows(self, start: datetime, end: datetime, touched: set[Window]) -> list[Window]:
        wanted = touched.union(touched_windows(self._platform, self._dataset, start, end))
        return sorted(window for window in wanted if self._is_partition(window))

    def _reached(self, source: SourceSettings, start: datetime, end: datetime) -> set[Window]:
        """The dataset windows that hold rows of what `source` gave for [start, end)."""
        span = self._dataset.span
        claims = self._platform.ledger.claims_between(self._dataset.name, window_of(start, span).start, end)
        ours = [one for one in claims if one.source == source.name and one.collected.overlaps(Window(start, end))]
        places = [place for claim in ours for place in (claim.collected, *claim.stray_windows)]
        return {window for place in places for window in windows_between(place.start, place.end, span)}

    def _is_partition(self, window: Window) -> bool:
        return self._partitions.has_partition_key(window.key)

    def _to_ingest(self, source: str, window: Window, key: dg.AssetKey) -> bool:
        return not self._failed(key, window) and agenda.to_ingest(self._platform, source, window) is not None

    def _to_export(self, window: Window, format: str, key: dg.AssetKey) -> bool:
        of = f"{self._dataset.name}/{format}"
        return not self._failed(key, window) and agenda.to_export(self._platform, of, window) is not None

    def _failed(self, key: dg.AssetKey, window: Window) -> bool:
        asset = key.to_user_string()
        return any(r.failure and r.asset == asset and r.window == window for r in self._results)

    def _run(self, job: str | None, assets: Sequence[dg.AssetKey], windows: Iterable[Window]) -> None:
        wanted = list(windows)
        if not wanted:
            return
        for key in assets:
            self._on_plan(key.to_user_string(), len(wanted))
        span = wanted[0].span
        for run in contiguous_runs(wanted, span):
            self._told.clear()
            known = self._defs.resolve_job_def(job) if job else self._defs.resolve_implicit_global_asset_job_def()
            tags = tags_of_run(run, span) | self._tags
            result = _executed(self._platform, self._instance, known, tags=tags, assets=assets)
            self._results += [WindowResult(*told, run_id=result.run_id) for told in self._told]
            if not result.success and not any(failure for _, _, failure in self._told):
                self._note_blocked(result, assets, [window for window in wanted if run.covers(window)])

    def _note_blocked(
        self, result: dg.ExecuteInProcessResult, assets: Sequence[dg.AssetKey], windows: list[Window]
    ) -> None:
        """A run failed although no window did: a blocking check ended it, for the windows that do not pass it."""
        reached = {asset for asset, _, _ in self._told}
        missed = [asset for key in assets if (asset := key.to_user_string()) not in reached]
        dataset = self._dataset.name
        broken = [window for window in windows if agenda.is_broken(self._platform, dataset, window)] or windows
        reason = _why(result)
        self._results += [WindowResult(asset, window, reason, result.run_id) for window in broken for asset in missed]

    def _note(self, asset: str, window: Window, failure: str | None) -> None:
        self._told.append((asset, window, failure))
        self._on_window(asset, window, failure)


def touched_windows(platform: Platform, dataset: DatasetSettings, start: datetime, end: datetime) -> list[Window]:
    """The windows of a dataset that overlap [start, end) and of which anything was collected, in order."""
    first = window_of(start, dataset.span).start
    claims = platform.ledger.claims_between(dataset.name, first, end)
    reach = merge(place for claim in claims for place in (claim.collected, *claim.stray_windows))
    found = {
        window
        for stretch in reach
        if stretch.end > first and stretch.start < end
        for window in windows_between(max(stretch.start, first), min(stretch.end, end), dataset.span)
    }
    return sorted(found)


def _why(result: dg.ExecuteInProcessResult) -> str:
    steps = [event.step_failure_data for event in result.filter_events(lambda event: event.is_step_failure)]
    told = [step.error.cause or step.error for step in steps if step.error]  # Dagster's own says only which step it was
    errors = [error.message.strip() for error in told]
    return errors[0] if errors else f"run {result.run_id} failed; the UI shows why"
