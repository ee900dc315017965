"""*Terminate* ends a run, whoever executes it: what it held is free, and its window stays due."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._daemon.monitoring.run_monitoring import check_run_timeout
from told import Told

from ionbeam_dagster.errors import PipelineError, StoreError
from ionbeam_dagster.orchestration import cancelling
from ionbeam_dagster.orchestration.dead_runs import Watch
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.orchestration.home import ensure_home
from ionbeam_dagster.orchestration.runs import purge_now, seal_windows

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]
HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
SLOW = f"  slow: {{type: slow, start: {HOUR_AGO:%Y-%m-%dT%H:00Z}, deadline: PT1H}}"


class Slow(Told):
    """Takes minutes for a window."""

    def fetch(self, window):
        for _ in range(2000):
            time.sleep(0.1)
        yield from super().fetch(window)


def click_on_terminate(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    return instance.run_coordinator.cancel_run(record.dagster_run.run_id)


def find_it_too_long(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """What Dagster's monitoring does with a run that goes on for longer than `max_runtime_seconds`."""
    time.sleep(0.1)
    check_run_timeout(instance, record, logging.getLogger(), 0.01)
    return True


def terminated(
    instance: dg.DagsterInstance, told: list[object], how: Callable[..., bool] = click_on_terminate
) -> threading.Thread:
    """Terminate a run as soon as it has begun."""

    def click() -> None:
        for _ in range(600):
            if records := instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
                told.extend([how(instance, records[0]), records[0].dagster_run.run_id])
                return
            time.sleep(0.1)

    thread = threading.Thread(target=click)
    thread.start()
    return thread


def in_a_thread(work: Callable[[], object]) -> None:
    """As `ionbeam bridge` and `ionbeam receive` work."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


STATUS = dg.DagsterRunStatus


@pytest.mark.parametrize(
    ("where", "how", "ends"),
    [
        (lambda work: work(), click_on_terminate, {STATUS.CANCELED}),
        # Dagster's monitoring cancels it first, and then says that it failed, if it has not ended by then.
        (lambda work: work(), find_it_too_long, {STATUS.FAILURE, STATUS.CANCELED}),
        (in_a_thread, click_on_terminate, {STATUS.CANCELED}),
    ],
    ids=["by a click", "as it takes too long", "in a thread"],
)
def test_a_run_that_is_terminated_ends_and_its_window_stays_due(platform_of, tmp_path, monkeypatch, where, how, ends):
    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: {"slow": _Point})
    monkeypatch.setattr(cancelling, "_LOOKED_EVERY", 0.2)
    platform = platform_of(SLOW)
    home = ensure_home(tmp_path / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        told: list[object] = []
        clicking, begun = terminated(instance, told, how), time.monotonic()
        doing = Doing(platform, instance)
        where(lambda: doing.source("slow"))
        clicking.join()
        is_told, run_id = told
        assert is_told and time.monotonic() - begun < 150
        assert instance.get_run_by_id(run_id).status in ends
    assert platform.ledger.leases.held() == {} and platform.ledger.workers.present() == []
    still_due = platform.ledger.attempts.open("collect", "slow")
    assert still_due and all(one.may_begin(platform.now() + timedelta(hours=1)) for one in still_due)


def test_a_run_that_is_interrupted_where_dagster_does_not_look_is_cancelled_all_the_same(monkeypatch):
    monkeypatch.setattr(cancelling, "_LOOKED_EVERY", 0.1)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_run(dg.DagsterRun(job_name="slow__collect", run_id="r", status=STATUS.CANCELING))

        def work() -> None:
            with cancelling.interrupted_when_cancelled(instance, "r", may_end_process=False):
                for _ in range(300):
                    time.sleep(0.1)

        with pytest.raises(PipelineError, match="run r was terminated"):
            in_a_thread(work)
        assert instance.get_run_by_id("r").status == STATUS.CANCELED


@pytest.mark.parametrize(
    ("slow", "what"),
    [
        ("sealing.seal_range", lambda *given: seal_windows(given[0], "slow", HOUR_AGO, HOUR_AGO, given[1])),
        ("assets.retention.retention.purge", purge_now),
    ],
    ids=["seal", "purge"],
)
def test_what_a_command_does_to_windows_at_once_ends_where_it_is_terminated(
    platform_of, tmp_path, monkeypatch, slow, what
):
    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: {"slow": _Point})
    monkeypatch.setattr(cancelling, "_LOOKED_EVERY", 0.2)
    monkeypatch.setattr(f"ionbeam_dagster.orchestration.{slow}", lambda *_: [time.sleep(0.1) for _ in range(300)])
    platform = platform_of(SLOW)
    monkeypatch.setenv("DAGSTER_HOME", str(ensure_home(tmp_path / "dagster")))
    with dg.DagsterInstance.get() as instance:
        told: list[object] = []
        clicking, begun = terminated(instance, told), time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            what(platform, instance)
        clicking.join()
        assert time.monotonic() - begun < 25
        assert instance.get_run_by_id(told[1]).status == STATUS.CANCELED
    assert platform.ledger.workers.present() == []


def test_where_windows_cannot_be_sealed_the_command_is_told_why(platform_of, monkeypatch, instance):
    def away(*_):
        raise StoreError("the ledger is away; start it")

    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: {"slow": _Point})
    monkeypatch.setattr("ionbeam_dagster.orchestration.sealing.seal_range", away)
    with pytest.raises(PipelineError, match="the ledger is away; start it"):
        seal_windows(platform_of(SLOW), "slow", HOUR_AGO, HOUR_AGO, instance)


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
