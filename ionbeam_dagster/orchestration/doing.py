"""Does what is due of one source or one dataset, by Dagster runs in this process.

Belongs here: which runs that makes, and the leases that they take before they begin, so that no window is worked on
twice at a time. Does not belong here: what is due (pipeline/agenda), which source or dataset is next (worker.py), or
what a run does (assets/).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from uuid import uuid4

import dagster as dg

from ionbeam_dagster.domain.cycles import CYCLE
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration.assets.dataset import build_job, dataset_key
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.assets.source import collect_job, observations_key, raw_key
from ionbeam_dagster.orchestration.cancelling import interrupted_when_cancelled
from ionbeam_dagster.orchestration.dead_runs import this_process
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.heartbeats import beating
from ionbeam_dagster.orchestration.holders import keeping
from ionbeam_dagster.orchestration.launcher import PROCESS_TAG
from ionbeam_dagster.orchestration.partitions import (
    contiguous_runs,
    cycle_partitions,
    dataset_partitions,
    source_partitions,
    tags_of_run,
)
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import QUIET
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import Stage, Work
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt
from ionbeam_dagster.stores.ledger.leases import is_held, lease_of

log = logging.getLogger(__name__)

Partitions = dg.PartitionsDefinition[str]
_TOLD = 3
"""Reasons of failures that are logged at once."""


class Doing:
    """Runs for what is due, on definitions that are made once. `may_end_process` says whether a step that hangs may
    take this process with it."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance, may_end_process: bool = False) -> None:
        self._platform = platform
        self._instance = instance
        self._may_end_process = may_end_process
        self._definitions = build_definitions(WatchedPlatform(platform, may_end_process=may_end_process))

    def source(self, name: str) -> int:
        """Collect and ingest what is due of a source; says how many runs that took."""
        source = self._platform.source(name)
        partitions = source_partitions(source, self._platform.dataset(source.dataset))
        job, observations = collect_job(name), observations_key(name)
        steps = [partial(self._do, "ingest", name, job, [observations], partitions)]
        if source.kind == "pull":
            steps.insert(0, partial(self._do, "collect", name, job, [raw_key(name), observations], partitions))
        return _each(steps)

    def dataset(self, name: str) -> int:
        """Build and export what is due of a dataset; says how many runs that took."""
        dataset = self._platform.dataset(name)
        partitions = dataset_partitions(dataset)
        exports = {format: export_key(name, format) for format in dataset.exports}
        steps = [partial(self._do, "build", name, build_job(name), [dataset_key(name), *exports.values()], partitions)]
        for format, key in exports.items():
            steps.append(partial(self._do, "export", f"{name}/{format}", build_job(name), [key], partitions))
        for format in dataset.cycle_exports:
            key, cycles = export_key(name, format), cycle_partitions(dataset)
            steps.append(partial(self._do, "export_cycle", f"{name}/{format}", None, [key], cycles))
        return _each(steps)

    def _do(self, stage: Stage, of: str, job: str | None, assets: Sequence[dg.AssetKey], partitions: Partitions) -> int:
        now = self._platform.now()
        held = self._platform.ledger.leases.held()
        found = agenda.due_of(self._platform, stage, of, now)
        free = [one for one in found if not is_held(held, stage, of, one.window)]
        work = {
            one.window: one
            for one in agenda.probed(self._platform, stage, of, free)
            if partitions.has_partition_key(one.window.key)
        }
        if not work:
            return 0
        span = CYCLE if stage == "export_cycle" else next(iter(work)).span
        failed = self._failing(stage, of)
        runs = 0
        for stretch in sorted(contiguous_runs(sorted(work), span), reverse=True):  # the newest first
            covered = [one for one in work.values() if stretch.covers(one.window)]
            runs += self._run(stage, of, job, assets, stretch, covered)
        self._tell(failed, self._failing(stage, of))
        return runs

    def _failing(self, stage: Stage, of: str) -> list[Attempt]:
        found = agenda.failing(self._platform, self._platform.now())
        return [one for one in found if (one.stage, one.product) == (stage, of) and one.was_tried]

    def _tell(self, before: Sequence[Attempt], now: Sequence[Attempt]) -> None:
        """Log what fails and did not before, once for all windows that fail alike, and when nothing does any more."""
        windows, kinds = {one.window for one in before}, set(map(agenda.kind_of, before))
        new = agenda.alike(one for one in now if one.window not in windows and agenda.kind_of(one) not in kinds)
        for alike in new[:_TOLD]:
            log.warning("%s", agenda.in_words(self._platform, alike))
        if rest := sum(map(len, new[_TOLD:])):
            log.warning("%s: %s further windows fail; `ionbeam status` shows them", new[0][0].product, f"{rest:,}")
        if before and not now:
            log.warning("%s: to %s succeeds again", before[0].product, before[0].stage)

    def _run(
        self, stage: Stage, of: str, job: str | None, assets: Sequence[dg.AssetKey], stretch: Window, work: list[Work]
    ) -> bool:
        """One run for windows without a hole; False, where somebody else began with one of them: they stay due."""
        known = self._definitions.resolve_job_def(job) if job else self._implicit_job()
        run_id = str(uuid4())
        names = [lease_of(stage, of, one.window) for one in work]
        beats = beating(self._platform, run_id, f"run of {known.name}")
        with beats, keeping(self._platform, names, run_id) as has_all:
            if not has_all:
                return False
            agenda.begin(self._platform, work, self._platform.now())
            with interrupted_when_cancelled(self._instance, run_id, self._may_end_process):
                known.execute_in_process(
                    asset_selection=list(assets),
                    tags=tags_of_run(stretch, work[0].window.span) | {PROCESS_TAG: this_process()},
                    instance=self._instance,
                    run_config=QUIET,
                    raise_on_error=False,
                    run_id=run_id,
                )
            return True

    def _implicit_job(self) -> dg.JobDefinition:
        return self._definitions.resolve_implicit_global_asset_job_def()


def _each(steps: Sequence[Callable[[], int]]) -> int:
    """Do all of them, and only then raise what the first one raised that failed: it holds up no other."""
    runs, trouble = 0, None
    for step in steps:
        try:
            runs += step()
        except Exception as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return runs
