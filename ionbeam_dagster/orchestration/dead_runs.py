"""Ends runs: of processes that are gone, wherever they were, and of those that are about to be ended because they hang.

Dagster's own monitoring does not notice that the process of a run was killed: the run goes on for it, and holds its
windows, its place among the runs and its pools. Belongs here: which run is dead, and what is given back with it. Does
not belong here: what is due again, which the agenda says of itself.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import dagster as dg

from ionbeam_dagster.orchestration.heartbeats import is_alive, this_host
from ionbeam_dagster.orchestration.internals import fail_run
from ionbeam_dagster.orchestration.launcher import PROCESS_TAG
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.workers import Worker

SILENT_FOR = 35.0
"""Seconds without a heartbeat after which a run is dead."""
_LOOKED_WITHIN = 15.0
_Status = dg.DagsterRunStatus


def this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """End the runs of earlier processes that were killed: to Dagster they go on, and hold their windows for ever."""
    gone_on = [_Status.NOT_STARTED, _Status.STARTING, _Status.STARTED, _Status.CANCELING]
    for run in instance.get_runs(dg.RunsFilter(statuses=gone_on)):
        host, _, process = run.tags.get(PROCESS_TAG, "").rpartition(" ")
        if host == socket.gethostname() and not is_alive(int(process)):
            end_run(instance, run, f"process {process}, in which it ran, is gone")


class Watch:
    """Looks at runs again and again, and ends those whose process is gone or whose heartbeat has stopped.

    Only what it has seen itself counts, on its own clock, and a pause between two looks is no silence of others: so no
    clock that steps, no ledger that was away and no machine that slept ends a run that is well.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = time.time() - 2.0  # storages keep whole seconds
        self._looked: float | None = None
        self._marks: dict[str, tuple[object, float]] = {}

    def look(self, platform: Platform, instance: dg.DagsterInstance, jobs: Collection[str]) -> list[str]:
        """End dead runs of `jobs`, free what ended runs still hold, and return what was done, a sentence each."""
        present = {worker.holder: worker for worker in platform.ledger.workers.present()}
        gone_on = [_Status.STARTING, _Status.STARTED, _Status.CANCELING]
        records = instance.get_run_records(dg.RunsFilter(statuses=gone_on))
        now = self._clock()
        passed = min(now - self._looked, _LOOKED_WITHIN) if self._looked is not None else 0.0
        self._looked = now
        before, self._marks = self._marks, {}
        told: list[str] = []
        for record in records:
            run = record.dagster_run
            worker = present.get(run.run_id)
            if worker is None and not self._is_judged(record, jobs):
                continue
            mark = (run.status, worker.beats if worker else None)
            known, silent = before.get(run.run_id, (mark, 0.0))
            silent = silent + passed if known == mark else 0.0
            self._marks[run.run_id] = mark, silent
            if why := _why_dead(worker, silent):
                end_run(instance, run, why)
                platform.ledger.workers.leave(run.run_id)
                told.append(f"run {run.run_id} of {run.job_name} was ended: {why}")
        runs = {record.dagster_run.run_id for record in records}
        others = [worker for holder, worker in present.items() if holder not in runs]
        return [*told, *self._forgotten(platform, others, before, passed), *_freed(instance)]

    def _forgotten(
        self, platform: Platform, workers: Collection[Worker], before: Mapping[str, tuple[object, float]], passed: float
    ) -> Iterator[str]:
        """Those who are no run that goes on, and are gone: what they hold is free."""
        for worker in workers:
            mark = worker.beats
            known, silent = before.get(worker.holder, (mark, 0.0))
            silent = silent + passed if known == mark else 0.0
            self._marks[worker.holder] = mark, silent
            if why := _why_dead(worker, silent):
                platform.ledger.workers.leave(worker.holder)
                yield f"{worker.doing or worker.holder} is over: {why}"

    def _is_judged(self, record: dg.RunRecord, jobs: Collection[str]) -> bool:
        """Whether a run without any heartbeat is one that should have had one: not one that is only about to start."""
        run = record.dagster_run
        if run.job_name not in jobs or PROCESS_TAG in run.tags:
            return False
        return run.status != _Status.STARTING or record.update_timestamp.timestamp() < self._begun


def _why_dead(worker: Worker | None, silent: float) -> str | None:
    if worker and worker.host == this_host() and not is_alive(worker.process):
        return f"process {worker.process}, in which it ran, is gone"
    if silent < SILENT_FOR:
        return None
    where = f"process {worker.process} on {worker.host.split()[0]}, in which it ran, gives" if worker else "it gives"
    return f"{where} no sign of life"


def _freed(instance: dg.DagsterInstance) -> Iterator[str]:
    """Places in pools that are held by runs that have ended."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    for run_id in storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
            yield f"run {run_id} had ended, and gave back its places in pools"


def set_pools(platform: Platform, instance: dg.DagsterInstance) -> None:
    """Give the pool of each source a limit of its own, where it has none that a person set.

    Otherwise it has Dagster's `concurrency.pools.default_limit`; once that is changed, every run that has a pool fails
    on PostgreSQL.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    by_default = instance.global_op_concurrency_default_limit or 1
    own = {limit.name for limit in storage.get_pool_limits() if not limit.from_default}
    for name, source in platform.config.sources.items():
        if source.kind == "pull" and pool_of(name) not in own:
            storage.set_concurrency_slots(pool_of(name), by_default)


def pool_of(source: str) -> str:
    return f"{source}_api"


def end_run(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str, again: bool = True) -> None:
    """Record a run as failed, and give back its places in pools; `again` lets Dagster try it again, where it does."""
    known = instance.get_run_by_id(run.run_id)
    if known is not None and not known.is_finished:
        if known.status == _Status.CANCELING:
            instance.report_run_canceled(run, why)
        else:
            fail_run(instance, run, why, again)
    if instance.event_log_storage.supports_global_concurrency_limits:
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
