"""A run of a source that cannot be interrupted, in a process of its own: ``python stuck.py CONFIG SECONDS``.

Belongs here: the program that test_deadlines and test_dead_runs start. It ends so many seconds after its deadline.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import dagster as dg
from told import Told

from ionbeam_dagster.config import resolving
from ionbeam_dagster.orchestration import deadlines
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.partitions import partition_tags
from ionbeam_dagster.orchestration.resources import PlatformResource


class Stuck(Told):
    """Never answers."""

    def fetch(self, window):
        while True:
            time.sleep(60)
            yield from super().fetch(window)


if __name__ == "__main__":
    resolving.installed_sources = lambda: {"stuck": SimpleNamespace(load=lambda: Stuck)}
    deadlines.ALARM_AFTER = 600.0  # as in native code, which no alarm interrupts
    deadlines.END_AFTER = float(sys.argv[2])
    definitions = build_definitions(PlatformResource(config_path=sys.argv[1]))
    tags = partition_tags("20260621T000000", "20260621T003000")
    with dg.DagsterInstance.get() as instance:
        definitions.resolve_job_def("stuck__collect").execute_in_process(tags=tags, instance=instance)
