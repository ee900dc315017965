"""*Terminate* ends a run, whoever executes it: what it held is free, and its window stays due."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from told import Told

from ionbeam_dagster.orchestration import cancelling
from ionbeam_dagster.orchestration.dead_runs import Watch
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.orchestration.home import ensure_home

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]
HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
SLOW = f"  slow: {{type: slow, start: {HOUR_AGO:%Y-%m-%dT%H:00Z}, deadline: PT1H}}"


class Slow(Told):
    """Takes minutes for a window."""

    def fetch(self, window):
        time.sleep(200)
        yield from super().fetch(window)


def terminated(instance: dg.DagsterInstance, told: list[object]) -> threading.Thread:
    """What a click on *Terminate* does, as soon as a run has begun."""

    def click() -> None:
        for _ in range(600):
            if runs := instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
                told.extend([instance.run_coordinator.cancel_run(runs[0].run_id), runs[0].run_id])
                return
            time.sleep(0.1)

    thread = threading.Thread(target=click)
    thread.start()
    return thread


def test_a_run_of_the_worker_ends_and_its_window_stays_due(platform_of, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: {"slow": _Point})
    monkeypatch.setattr(cancelling, "_LOOKED_EVERY", 0.2)
    platform = platform_of(SLOW)
    home = ensure_home(tmp_path / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        told: list[object] = []
        clicking, begun = terminated(instance, told), time.monotonic()
        Doing(platform, instance).source("slow")
        clicking.join()
        is_told, run_id = told
        assert is_told and time.monotonic() - begun < 150
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED
    assert platform.ledger.leases.held() == {} and platform.ledger.workers.present() == []
    still_due = platform.ledger.attempts.open("collect", "slow")
    assert still_due and all(one.may_begin(platform.now() + timedelta(hours=1)) for one in still_due)


_Point = SimpleNamespace(load=lambda: Slow)

PROGRAM = """
import os, sys
from types import SimpleNamespace
sys.path[:0] = {paths!r}
from test_terminate import Slow
import ionbeam_dagster.orchestration.cancelling as cancelling
from ionbeam_dagster.config import IonbeamConfig, resolving
cancelling._LOOKED_EVERY, cancelling.END_AFTER = 0.2, 0.5
cancelling.os = SimpleNamespace(kill=lambda *given: None, getpid=os.getpid, _exit=os._exit)  # as in native code
resolving.installed_sources = lambda: dict(slow=SimpleNamespace(load=lambda: Slow))
import dagster as dg
from pathlib import Path
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.pipeline.recovery import open_platform
with dg.DagsterInstance.get() as instance:
    Doing(open_platform(IonbeamConfig.load(Path("config.yaml"))), instance, may_end_process=True).source("slow")
"""


def test_what_cannot_be_interrupted_ends_with_its_process(platform_of, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: {"slow": _Point})
    platform = platform_of(SLOW)
    home = ensure_home(tmp_path / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    program = PROGRAM.format(paths=[path for path in sys.path if "tests" in path or path == str(Path(__file__).parent)])
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"DAGSTER_HOME": str(home)})
    with dg.DagsterInstance.get() as instance:
        told: list[object] = []
        terminated(instance, told).join()
        assert process.wait(60) == 1
        Watch().look(platform, instance, ())
        assert instance.get_run_by_id(told[1]).status == dg.DagsterRunStatus.CANCELED
    assert platform.ledger.leases.held() == {}
    assert platform.ledger.attempts.open("collect", "slow")
