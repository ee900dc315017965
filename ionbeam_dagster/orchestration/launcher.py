"""Starts and ends runs as Dagster does, and ends those, too, that a process of ours executes itself.

Belongs here: what dagster.yaml names as `run_launcher`; Dagster's own processes import it, and nothing of the platform.
Does not belong here: how a process of ours notices that its run is to end (cancelling.py).
"""

from __future__ import annotations

from dagster._core.launcher import DefaultRunLauncher

PROCESS_TAG = "ionbeam/process"
"""On a run that a command of ours executes in its own process: the host, and the number of the process."""


class RunLauncher(DefaultRunLauncher):
    """Dagster's own can reach no run that it did not start itself: *Terminate* would be refused for those of `ionbeam
    worker`, `ionbeam run` and their like."""

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or PROCESS_TAG not in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        return True
