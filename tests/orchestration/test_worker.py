"""The warm worker: what is due is done within seconds, by runs that Dagster shows; services that hang take nobody's
place; a worker that is killed leaves nothing undone, and nothing is done twice."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from told import START, Told, key

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import DeadlineExceeded, SourceError
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.doing import Doing, _each
from ionbeam_dagster.orchestration.heartbeats import this_host
from ionbeam_dagster.orchestration.holders import worker_is_alive, working_on
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.worker import Worker, _Child
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.stores.ledger.leases import lease_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]
TOLD = "  told: {type: told, start: 2026-06-21, end: 2026-06-21T02:00}"
AUTOMATION = "{lookback: P400D}"


@pytest.fixture
def platform(platform_with):
    return platform_with(TOLD, automation=AUTOMATION)


def _raws(platform) -> int:
    return len(platform.ledger.raws("told", datetime(9999, 1, 1, tzinfo=UTC)))


# --- the runs of one process ------------------------------------------------------------------------------------------


def test_what_is_due_is_done_by_range_runs_that_dagster_shows_and_no_lease_is_left(platform, instance):
    doing = Doing(platform, instance)
    assert doing.source("told") == 1
    assert doing.dataset("told") == 1
    assert platform.sources["told"].fetched == [
        key(f"{hour:02}:{minute:02}") for hour in (0, 1) for minute in (0, 15, 30, 45)
    ]
    exported = instance.get_materialized_partitions(dg.AssetKey(["told", "pygeoapi"]))
    assert exported == {key("00:00"), key("01:00")}
    assert doing.source("told") == 0 == doing.dataset("told")
    assert platform.ledger.leases.held() == {} and platform.ledger.workers.present() == []


def test_a_window_that_somebody_works_on_is_left_alone_and_given_out_when_he_is_gone(platform, instance):
    window = Window(START, START + timedelta(minutes=15))
    platform.ledger.workers.beat("another", "elsewhere", 1, "")
    platform.ledger.leases.take([lease_of("collect", "told", window)], "another")
    doing = Doing(platform, instance)
    doing.source("told")
    assert _raws(platform) == 7
    platform.ledger.workers.leave("another")
    doing.source("told")
    assert _raws(platform) == 8


def test_what_a_run_goes_on_with_is_left_to_it(platform, instance, monkeypatch):
    """Another worker sees that there are exports to make as soon as their windows are built, in the same run."""
    doing, others = Doing(platform, instance), []

    def made(*given):
        if not others:
            others.append(0)
            others.append(Doing(platform, instance).dataset("told"))
        return export(*given)

    monkeypatch.setattr("ionbeam_dagster.orchestration.assets.exports.export", made)
    doing.source("told")
    assert doing.dataset("told") == 1
    assert others == [0, 0]
    exported = instance.get_materialized_partitions(dg.AssetKey(["told", "pygeoapi"]))
    assert exported == {key("00:00"), key("01:00")}


def test_a_run_waits_for_whoever_works_on_its_window(platform, monkeypatch):
    window = Window(START, START + timedelta(minutes=15))
    platform.ledger.workers.beat("another", "elsewhere", 1, "")
    platform.ledger.leases.take([lease_of("collect", "told", window)], "another")
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        platform.ledger.workers.leave("another")

    monkeypatch.setattr("ionbeam_dagster.orchestration.holders.time.sleep", wait)
    platform.ledger.workers.beat("mine", "here", 2, "")
    with working_on(platform, "collect", "told", window, "mine"):
        assert list(platform.ledger.leases.held().values()) == ["mine"]
    assert len(waited) == 1 and platform.ledger.leases.held() == {}


def test_a_run_waits_a_minute_for_a_host_that_was_started_anew_or_is_gone(platform, monkeypatch):
    """The number of a process says nothing of another host, nor of this one before it was started anew."""
    window = Window(START, START + timedelta(minutes=15))
    platform.ledger.workers.beat("another", "elsewhere", os.getpid(), "")
    platform.ledger.workers.beat("well", "elsewhere", 2, "")
    platform.ledger.leases.take([lease_of("collect", "told", window)], "another")
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        platform.ledger.workers.beat("well", "elsewhere", 2, "")

    monkeypatch.setattr("ionbeam_dagster.orchestration.holders.time.sleep", wait)
    platform.ledger.workers.beat("mine", this_host(), os.getpid(), "")
    with working_on(platform, "collect", "told", window, "mine"):
        assert "another" not in {one.holder for one in platform.ledger.workers.present()}
    assert 60 <= sum(waited) < 62
    assert "well" in {one.holder for one in platform.ledger.workers.present()}


def test_a_source_that_does_not_answer_is_asked_for_one_window_until_it_answers(platform, instance, monkeypatch):
    hangs = True
    fetch = Told.fetch

    def fetched(self, window):
        if hangs:
            raise DeadlineExceeded("not answered in the time that it is given")
        return fetch(self, window)

    monkeypatch.setattr(Told, "fetch", fetched)
    doing = Doing(platform, instance)
    doing.source("told")
    assert platform.ledger.silences.all()["told"].windows == 2, "two in a row, and the run was given up"
    now = platform.now() + timedelta(hours=1)
    monkeypatch.setattr(platform, "now", lambda: now)
    work = agenda.due_of(platform, "collect", "told", now)
    assert len(work) == 8 and len(agenda.probed(platform, "collect", "told", work)) == 1
    doing.source("told")
    assert platform.ledger.silences.all()["told"].windows == 3
    hangs, now = False, now + timedelta(hours=1)
    doing.source("told")
    assert _raws(platform) == 1 and platform.ledger.silences.all() == {}
    doing.source("told")
    assert _raws(platform) == 8


def test_the_log_says_once_what_fails_and_when_it_no_longer_does(platform, instance, caplog, monkeypatch):
    told, broken, now = platform.sources["told"], "500 Internal Server Error", platform.now()
    fetch = Told.fetch

    def fetched(self, window):
        if broken and window.start.hour == 0:
            raise SourceError(broken)
        return fetch(self, window)

    monkeypatch.setattr(Told, "fetch", fetched)
    monkeypatch.setattr(platform, "now", lambda: now)

    def logged() -> list[str]:
        nonlocal now
        caplog.clear()
        Doing(platform, instance).source("told")
        now += timedelta(hours=1)
        return [one.getMessage() for one in caplog.records if one.name.endswith("doing")]

    [line] = logged()
    assert line.startswith("told cannot be collected (4 windows of 2026-06-21 00:00-01:00; since ")
    assert "): 500 Internal Server Error; `ionbeam run told --from 2026-06-21T00:00Z" in line
    assert logged() == [] and len(told.fetched) == 4
    broken = ""
    assert logged() == ["told: to collect succeeds again"] and logged() == []


def test_what_cannot_be_looked_at_holds_up_no_other(platform_with, instance, monkeypatch):
    """A store that refuses one source, a damaged file of one dataset."""
    other = TOLD.replace("told:", "other:").replace("type: told", "type: told, dataset: other")
    platform = platform_with(f"{TOLD}\n{other}", automation=AUTOMATION)
    due_of = agenda.due_of

    def refused(platform, stage, of, now):
        if (stage, of) == ("collect", "told"):
            raise OSError("403 Forbidden")
        return due_of(platform, stage, of, now)

    worker = Worker(platform, instance, 1)
    doing = Doing(platform, instance)
    doing.source("told")
    monkeypatch.setattr(agenda, "due_of", refused)
    worker._look()
    assert {(group.kind, group.name) for group in worker._groups if group.waits_since} == {
        ("source", "other"), ("dataset", "told"),
    }  # fmt: skip


def test_a_child_too_many_that_speaks_as_another_one_finishes_is_let_go(platform, instance):
    worker = Worker(platform, instance, 1)
    pipes = [multiprocessing.Pipe() for _ in range(3)]
    worker._children = [_Child(None, here, ready=True) for here, _ in pipes]
    worker._children[0].group = worker._groups[0]
    for _, there in pipes[1:]:
        there.send("alive")
    pipes[0][1].send((1, ""))
    worker._listen(1)
    assert len(worker._children) == 1


def test_who_rests_for_long_is_no_process_that_hangs(platform, instance, monkeypatch):
    """On a busy machine a look takes long, and so does the rest after it."""
    worker, beats = Worker(platform, instance, 1), []
    here, _there = multiprocessing.Pipe()
    worker._children = [_Child(multiprocessing.current_process(), here, ready=True)]
    monkeypatch.setattr("ionbeam_dagster.orchestration.worker._BEATS_EVERY", 0.02)
    monkeypatch.setattr(worker, "_beat", lambda: beats.append(time.monotonic()))
    worker._rest(1.0)
    assert len(beats) > 5


def test_a_child_is_not_judged_twice_without_being_listened_to(platform, instance, monkeypatch):
    """After a pause of the whole machine all children were silent, and none used the processor."""
    killed = []
    process = SimpleNamespace(pid=os.getpid(), kill=lambda: killed.append(1))
    worker = Worker(platform, instance, 1)
    here, there = multiprocessing.Pipe()
    worker._children = [_Child(process, here, ready=True, heard=time.monotonic() - 25)]
    monkeypatch.setattr("ionbeam_dagster.orchestration.worker.processor_used", lambda process: 7)
    worker._end_what_hangs()
    worker._end_what_hangs()
    assert not killed
    there.send("alive")
    worker._listen(0.1)
    worker._examined = 0.0
    worker._end_what_hangs()
    assert not killed
    worker._children[0].heard -= 25
    for _ in range(2):
        worker._examined = 0.0
        worker._end_what_hangs()
    assert killed


def test_a_step_that_fails_keeps_no_later_one_from_being_done():
    done = []

    def fails() -> int:
        raise OSError("403 Forbidden")

    with pytest.raises(OSError, match="403"):
        _each([fails, lambda: done.append("ingested") or 1])
    assert done == ["ingested"]


def test_automation_leaves_the_work_to_a_worker_that_is_alive(platform, instance):
    repository = build_definitions(WatchedPlatform(platform)).get_repository_def()

    def requested() -> int:
        name = "told__collecting"
        context = dg.build_sensor_context(instance=instance, repository_def=repository, sensor_name=name)
        return len(repository.get_sensor_def(name).evaluate_tick(context).run_requests)

    platform.ledger.workers.beat("worker elsewhere 1", "elsewhere", 1, "worker")
    assert worker_is_alive(platform) and requested() == 0
    platform.ledger.workers.leave("worker elsewhere 1")
    assert not worker_is_alive(platform) and requested() > 0


# --- the worker, as a program -----------------------------------------------------------------------------------------

NETWORK = """
state_path: state
automation: {{lookback: PT45M}}
sources:
  scheduler: {{windows: [{windows}]}}
{sources}
"""
LIVE = "  {name}: {{type: sensor_community_live, base_url: 'http://127.0.0.1:{port}/', start: {start}, exports: [odb]}}"
CANNON = "  {name}: {{type: ioncannon, num_stations: 5, start: {start}, aggregation_span: PT15M, exports: [odb]}}"
HANGING, WORKING = [f"hanging{n}" for n in range(4)], [f"working{n}" for n in range(5)]


class Silent:
    """Accepts, and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def working(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("ionbeam")), "--config", "network.yaml", "worker", "--at-once", "2"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _others(mark: Path) -> list[str]:
    """The processes but this one that were started for a test."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"IONBEAM_TEST={mark}".encode() in (place / "environ").read_bytes():
                found.append(place.name)
    return [number for number in found if number != str(os.getpid())]


def until(what: Callable[[], object], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.mark.soak
def test_sources_that_hang_hold_up_no_other_and_nothing_outlives_a_worker_that_is_killed(tmp_path, monkeypatch):
    start = f"{datetime.now(UTC) - timedelta(minutes=40):%Y-%m-%dT%H:00:00Z}"
    silent = Silent()
    names = [*HANGING, *WORKING]
    windows = ", ".join(f"{{source_name: {name}, window_size: PT15M}}" for name in names)
    blocks = [LIVE.format(name=name, port=silent.port, start=start) for name in HANGING]
    blocks += [CANNON.format(name=name, start=start) for name in WORKING]
    (tmp_path / "network.yaml").write_text(NETWORK.format(windows=windows, sources="\n".join(blocks)))
    monkeypatch.setenv("IONBEAM_TEST", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    platform = open_platform(IonbeamConfig.load(tmp_path / "network.yaml"))
    reach = Window(datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC) + timedelta(hours=2))

    def exported(name: str) -> bool:
        built = platform.ledger.revisions(name, reach.start, reach.end)
        return bool(built) and all(platform.ledger.export(name, one.revision.window, "odb") for one in built)

    with working(tmp_path):
        until(lambda: all(map(exported, WORKING)), 280, tmp_path / "log")
        held = {name.split()[1] for name in platform.ledger.leases.held()}
        tried = {one.product: one.tries for one in platform.ledger.attempts.open("collect")}
        assert {tried.get(name) for name in HANGING} == {1}, "their first window still goes on"
        assert held >= set(HANGING)
        [beating] = [one for one in platform.ledger.workers.present() if one.holder.startswith("worker")]
        assert worker_is_alive(platform) and beating.host == this_host()
    until(lambda: not _others(tmp_path), 30, tmp_path / "log")
    assert not worker_is_alive(platform)
    silent.close()
