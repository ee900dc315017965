"""Runs of dead processes end, and give back what they held: at once where the process is known to be gone, else when
its heartbeat has stopped; and no run that is well is ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from told import Told

from ionbeam_dagster.orchestration.dead_runs import SILENT_FOR, Watch, end_dead_runs, pool_of, set_pools, this_process
from ionbeam_dagster.orchestration.heartbeats import this_host
from ionbeam_dagster.orchestration.home import ensure_home
from ionbeam_dagster.orchestration.launcher import PROCESS_TAG

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
STATUS = dg.DagsterRunStatus


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def platform(platform_with):
    return platform_with("  told: {type: told, start: 2026-06-21}")


@pytest.fixture
def watched(platform, instance):
    """Looks so many seconds later; gives the status of the run that `of` names."""
    clock = Clock()
    watch = Watch(clock)

    def looked(later: float, run_id: str = "r") -> dg.DagsterRunStatus:
        clock.now += later
        watch.look(platform, instance, ["told__collect"])
        return instance.get_run_by_id(run_id).status

    return looked


def _run(instance, run_id="r", status=STATUS.STARTED, job="told__collect", **tags):
    return instance.add_run(dg.DagsterRun(job_name=job, run_id=run_id, status=status, tags=tags))


def _beat(platform, host="far away", process=1):
    platform.ledger.workers.beat("r", host, process, "run of told__collect")


@pytest.mark.parametrize(("status", "after"), [(STATUS.STARTED, STATUS.FAILURE), (STATUS.CANCELING, STATUS.CANCELED)])
def test_a_run_whose_heartbeat_stopped_is_ended(platform, instance, watched, status, after):
    _run(instance, status=status)
    for _ in range(10):
        _beat(platform)
        assert watched(10) == status
    silent = 0.0
    while silent + 10 < SILENT_FOR:
        silent += 10
        assert watched(10) == status
    assert watched(10) == after
    assert platform.ledger.workers.present() == []


def test_a_pause_of_whoever_looks_is_no_silence(platform, instance, watched):
    _run(instance)
    _beat(platform)
    watched(10)
    for _ in range(2):  # a ledger that was away, a machine that slept
        assert watched(3600) == STATUS.STARTED
    _beat(platform)
    for _ in range(3):
        assert watched(10) == STATUS.STARTED


def test_a_process_of_this_host_that_is_gone_is_known_at_once(platform, instance, watched):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    _run(instance)
    _beat(platform, this_host(), gone.pid)
    _run(instance, "well")
    platform.ledger.workers.beat("well", this_host(), os.getpid(), "")
    assert watched(0) == STATUS.FAILURE
    assert watched(0, "well") == STATUS.STARTED


@pytest.mark.parametrize(("status", "after"), [(STATUS.STARTED, STATUS.FAILURE), (STATUS.CANCELING, STATUS.CANCELED)])
def test_who_begins_ends_the_runs_of_processes_of_this_host_that_are_gone(instance, status, after):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    _run(instance, status=status, **{PROCESS_TAG: f"{socket.gethostname()} {gone.pid}"})
    _run(instance, "well", status, **{PROCESS_TAG: this_process()})
    end_dead_runs(instance)
    assert instance.get_run_by_id("r").status == after
    assert instance.get_run_by_id("well").status == status


def test_without_any_heartbeat_it_had_time_to_begin_and_what_is_not_ours_is_left_alone(platform, instance, watched):
    _run(instance)
    _run(instance, "starting", STATUS.STARTING)
    _run(instance, "another's", job="of another code location")
    assert watched(10) == STATUS.STARTED
    for _ in range(4):
        watched(10)
    assert watched(10) == STATUS.FAILURE
    assert watched(10, "starting") == STATUS.STARTING, "it was launched after we began, and takes its time"
    assert watched(10, "another's") == STATUS.STARTED


def test_a_killed_process_gives_back_its_window_and_its_pool(platform_of, tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text("state_path: state\nsources:\n  stuck: {type: stuck, start: 2026-06-21}\n")
    home = ensure_home(tmp_path / "home")
    points = {"stuck": SimpleNamespace(load=lambda: Told)}
    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: points)
    platform = platform_of("  stuck: {type: stuck, start: 2026-06-21}", state_path="state")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        set_pools(platform, instance)
        config.write_text("state_path: state\nsources:\n  stuck: {type: stuck, start: 2026-06-21}\n")
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("stuck.py")), str(config), "600"],
            cwd=tmp_path, env=os.environ | {"DAGSTER_HOME": str(home)},
        )  # fmt: skip
        try:
            until = time.monotonic() + 100
            while not (platform.ledger.workers.present() and instance.event_log_storage.get_concurrency_run_ids()):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.2)
            [run] = instance.get_runs()
            watch = Watch()
            assert watch.look(platform, instance, []) == []
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        [told] = watch.look(platform, instance, [])
        assert f"process {process.pid}, in which it ran, is gone" in told
        assert instance.get_run_by_id(run.run_id).status == STATUS.FAILURE
        assert not instance.event_log_storage.get_concurrency_run_ids()
        assert platform.ledger.workers.present() == []


def test_pools_have_limits_of_their_own_and_keep_those_that_a_person_set(platform_with, tmp_path):
    platform = platform_with("  told: {type: told, start: 2026-06-21}\n  other: {type: told, start: 2026-06-21}")
    with dg.DagsterInstance.from_config(str(ensure_home(tmp_path / "home"))) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(pool_of("told"))
        storage.set_concurrency_slots(pool_of("other"), 3)
        assert {limit.name: limit.from_default for limit in storage.get_pool_limits()}[pool_of("told")]
        for _ in range(2):
            set_pools(platform, instance)
            limits = {limit.name: (limit.limit, limit.from_default) for limit in storage.get_pool_limits()}
            assert limits == {pool_of("told"): (1, False), pool_of("other"): (3, False)}
