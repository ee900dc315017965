"""Ends runs: of processes that are gone, and of those that are about to be ended because they hang.

Belongs here: which run is dead, and what is given back with it. Does not belong here: what is due again, which the
agenda says of itself.
"""

from __future__ import annotations

import os
import socket

import dagster as dg

from ionbeam_dagster.orchestration.internals import fail_run

PROCESS_TAG = "ionbeam/process"


def this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """End the runs of earlier processes that were killed: to Dagster they go on, and hold their windows for ever."""
    status = dg.DagsterRunStatus
    for run in instance.get_runs(dg.RunsFilter(statuses=[status.NOT_STARTED, status.STARTING, status.STARTED])):
        host, _, process = run.tags.get(PROCESS_TAG, "").rpartition(" ")
        if host == socket.gethostname() and not _is_alive(int(process)):
            end_run(instance, run, f"process {process}, in which it ran, is gone")


def end_run(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str, again: bool = True) -> None:
    """Record a run as failed, and give back its places in pools; `again` lets Dagster try it again, where it does."""
    known = instance.get_run_by_id(run.run_id)
    if known is not None and not known.is_finished:
        fail_run(instance, run, why, again)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
