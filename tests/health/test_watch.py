"""What a process that stays says of the platform's health: red within a minute, green again by itself."""

from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from threading import Event, Thread

import pytest
from polars.exceptions import PanicException
from servers import free_port

from ionbeam_dagster.doors.http.serving import OpenDoor
from ionbeam_dagster.health import work
from ionbeam_dagster.health.examination import Examination
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.pages import pages, served
from ionbeam_dagster.health.watch import DOORS, Watch
from ionbeam_dagster.pipeline import agenda

SOURCE = "  ioncannon: {start: 2026-06-21T05:00Z}"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _still(platform, progress, clock, seconds: float) -> str:
    """What is found after some more seconds, looked at every ten of them."""
    for _ in range(int(seconds / 10)):
        clock.now += 10
        found = list(progress.findings(platform))
    return "; ".join(one.words for one in found if one.severity == "error")


def test_work_that_nobody_begins_stands_still_and_work_that_somebody_alive_does_not(platform_of):
    platform = platform_of(SOURCE)
    platform.ledger.reconciliations.last()
    progress = work.Progress(clock := Clock())
    assert _still(platform, progress, clock, 30) == ""
    told = _still(platform, progress, clock, 20)
    assert told.startswith("work stands still for 40 s") and "to collect" in told

    def beat() -> None:
        platform.ledger.workers.beat("a run", "host", os.getpid(), "collects")

    beat()
    [one, *_] = agenda.due(platform, platform.now())
    assert platform.ledger.leases.take([f"collect ioncannon {one.window.key}"], "a run")
    assert _still(platform, progress, clock, 10) == ""
    for _ in range(9):
        beat()
        assert _still(platform, progress, clock, 10) == ""
    assert "stands still" in _still(platform, progress, clock, 60)  # it was stopped, and holds the lease
    agenda.begin(platform, [one], platform.now())  # a try is a move
    assert _still(platform, progress, clock, 10) == ""


def test_a_machine_that_slept_has_not_stood_still(platform_of):
    platform = platform_of(SOURCE)
    platform.ledger.reconciliations.last()
    progress = work.Progress(clock := Clock())
    assert _still(platform, progress, clock, 10) == ""
    clock.now += 3600
    assert [one.severity for one in progress.findings(platform)] == ["well"]


def test_a_check_that_hangs_is_told_and_holds_up_no_other(platform_of):
    release = Event()

    def hanging():
        release.wait(30)
        return []

    examination = Examination({"hangs": hanging, "well": lambda: [Finding("well", "well", "it is")]}, within=2.0)
    for _ in range(2):
        hangs, well = examination.look()
        assert (hangs.subject, hangs.severity) == ("hangs", "error") and well.subject == "well"
    release.set()
    for running in examination._running.values():
        running.thread.join()
    assert [one.subject for one in examination.look()] == ["well"]


def test_looking_that_hangs_is_red(platform_of):
    watch = Watch(platform_of(SOURCE), clock=(clock := Clock()))
    watch.look()
    assert watch.answer(in_full=True)[0] == 200
    clock.now += 50
    assert watch.answer(in_full=True)[0] == 503


def _asked(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_disk_that_fills_is_red_and_green_again_by_itself(platform_of, small_disk):
    platform = platform_of(SOURCE, state_path=small_disk, automation="{enabled: false}")
    platform.ledger.reconciliations.last()
    watch = Watch(platform)
    with served(pages(platform, watch, in_full=True), "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/health"
        watch.look()
        assert _asked(url)[0] == 200
        free = shutil.disk_usage(small_disk).free
        Path(small_disk, "filler").write_bytes(bytes(free - 2_000_000))
        watch.look()
        status, told = _asked(url)
        assert status == 503 and told["message"].startswith("not well: disk")
        with pytest.raises(OSError, match="No space"), Path(small_disk, "rest").open("wb", 0) as file:
            while file.write(bytes(100_000)):
                pass
        watch.look()
        status, told = _asked(url)
        wrong = {one["name"]: one for one in told["checks"] if one["status"] == "fail"}
        assert status == 503 and {"disk", "files", "ledger"} <= wrong.keys()
        assert "cannot be written: No space left" in wrong["files"]["message"]
        assert all("make room" in one["remedy"] for one in wrong.values())
        for name in ("filler", "rest"):
            Path(small_disk, name).unlink()
        watch.look()
        assert _asked(url)[0] == 200


def test_the_door_says_to_anybody_only_that_something_is_wrong(platform_of, monkeypatch):
    redis = f"{{redis_url: 'redis://127.0.0.1:{free_port()}/0'}}"
    platform = platform_of("  garden: {kind: door, token: a-token-of-the-garden}", redis=redis)
    watch = Watch(platform)
    watch.look()
    door = OpenDoor(platform, "127.0.0.1", free_port(), pages=pages(platform, watch, in_full=False, fatal=DOORS))
    serving = Thread(target=door.run)
    serving.start()
    try:
        status, told = _asked(f"http://127.0.0.1:{door.port}/health")
        assert status == 200 and told["status"] == "pass" and "127.0.0.1" not in json.dumps(told)
        assert "ledger" in told["message"] and {"name": "ledger", "status": "fail"} in told["checks"]
        with monkeypatch.context() as patch:
            patch.setattr(watch, "_found", [Finding("door", "error", "it takes nothing in")])
            assert _asked(f"http://127.0.0.1:{door.port}/health")[0] == 503
        with urllib.request.urlopen(f"http://127.0.0.1:{door.port}/metrics", timeout=10) as answer:
            assert b'ionbeam_findings{severity="error",subject="ledger"} 1.0' in answer.read()
    finally:
        door.stop()
        serving.join()


def test_a_check_that_panics_is_told_and_ends_no_looking(platform_of, monkeypatch):
    def panics(*given):
        raise PanicException("a flipped byte")

    examination = Examination({"files": panics, "well": lambda: [Finding("well", "well", "it is")]})
    told, well = examination.look()
    assert (told.subject, told.severity, well.subject) == ("files", "error", "well")
    watch = Watch(platform_of("  ioncannon: {start: 2026-06-21}"), every=0.01)
    looked, panicked = Event(), []

    def looks() -> None:
        if panicked:
            looked.set()
            return
        panicked.append(True)
        panics()

    monkeypatch.setattr(watch, "look", looks)
    watch.start()
    assert looked.wait(10)
    watch.stop()


def test_what_joins_an_error_is_logged_too_and_once(platform_of, caplog):
    found: list[Finding] = []
    watch = Watch(platform_of("  ioncannon: {start: 2026-06-21}"), further={"disk": lambda: found})

    def logged(*disks: tuple[str, str]) -> list[str]:
        caplog.clear()
        found[:] = [Finding("disk", "error", f"{one} is {share} full", "make room") for one, share in disks]
        watch.look()
        return [one.getMessage() for one in caplog.records if one.name.endswith("watch")]

    assert logged(("/a1", "97.0%")) == ["disk: /a1 is 97.0% full; make room"]
    assert logged(("/a1", "98.1%")) == []
    assert logged(("/a1", "98.1%"), ("/b2", "96.0%")) == ["disk: /b2 is 96.0% full; make room"]
    assert logged() == ["disk: is well again"]
