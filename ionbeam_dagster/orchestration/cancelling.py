"""A run that a process of ours executes ends when a person terminates it in the UI.

Belongs here: noticing that, and interrupting the run. Does not belong here: how Dagster is told (launcher.py), or what
a run that was interrupted leaves behind: its windows stay due, and what it held is free.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg

from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration.dead_runs import end_run

_LOOKED_EVERY = 2.0
END_AFTER = 15.0
"""Seconds after which a process is ended whose run cannot be interrupted."""
_CANCELLED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


@contextmanager
def interrupted_when_cancelled(instance: dg.DagsterInstance, run_id: str, may_end_process: bool) -> Iterator[None]:
    """Interrupt this thread, which executes the run inside, when the run is to end; where that does not help and it
    may, the process ends, and whoever watches processes records the run as cancelled.

    Raises PipelineError where Dagster itself did not take the interrupt as the run's end.
    """
    runner = threading.current_thread()
    done, interrupted, ending = threading.Event(), threading.Event(), threading.Lock()

    def look() -> None:
        while not done.wait(_LOOKED_EVERY):
            if _is_cancelled(instance, run_id):
                with ending:  # what comes next in this thread is not to be interrupted
                    if done.is_set():
                        return
                    interrupted.set()
                    _interrupt(runner)
                if may_end_process and not done.wait(END_AFTER):
                    os._exit(1)
                return

    threading.Thread(target=look, name="cancelling", daemon=True).start()
    try:
        yield
        with ending:
            done.set()
    except KeyboardInterrupt:
        if not interrupted.is_set():
            raise
        if (run := instance.get_run_by_id(run_id)) is not None:
            end_run(instance, run, "it was terminated")
        raise PipelineError(f"run {run_id} was terminated") from None
    finally:
        done.set()


def _is_cancelled(instance: dg.DagsterInstance, run_id: str) -> bool:
    with suppress(Exception):  # Dagster's storage is away: whatever library says so
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status == dg.DagsterRunStatus.FAILURE:  # as what takes too long is recorded at once
            return bool(instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_CANCELING))
        return run is not None and run.status in _CANCELLED
    return False


def _interrupt(runner: threading.Thread) -> None:
    if runner is threading.main_thread():
        os.kill(os.getpid(), signal.SIGINT)
    else:  # no signal reaches it, and the main thread's work is another
        error = ctypes.py_object(KeyboardInterrupt)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(runner.ident or 0), error)
