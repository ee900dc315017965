"""What ends or hangs is started again, and nothing outlives who started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ionbeam_dagster.cli import dev
from ionbeam_dagster.cli.dev import _dagster_told, _works
from ionbeam_dagster.orchestration.home import SETTINGS
from ionbeam_dagster.orchestration.supervision import Child


def until(what: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _group(leader: int) -> list[int]:
    """The processes of a group that are not dead."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(process) for process, group, state in rows if group == str(leader) and "Z" not in state]


@pytest.fixture
def supervisor(tmp_path) -> Iterator[subprocess.Popen[bytes]]:
    program = Path(__file__).with_name("supervised.py")
    with (tmp_path / "told").open("wb") as told:
        process = subprocess.Popen([sys.executable, str(program), str(tmp_path)], stdout=told)
    try:
        until((tmp_path / "ready").exists)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_what_ends_or_hangs_is_started_again_and_told(supervisor, tmp_path, how):
    one, other = (int((tmp_path / name).read_text()) for name in ("one", "other"))
    os.kill(one, how)
    until(lambda: int((tmp_path / "one").read_text()) != one)
    assert int((tmp_path / "other").read_text()) == other
    told = (tmp_path / "told").read_text()
    why = "ended with signal SIGKILL" if how == signal.SIGKILL else "did not answer for"
    assert told.count("could not look: OSError: the disk is full") == 1, (
        "what fails as all begin is done at the next look"
    )
    assert f"one {why}" in told and "other" not in told.replace(str(tmp_path), "")


def test_all_ends_in_good_order_with_what_was_started_by_what_had_ended(supervisor, tmp_path):
    one = int((tmp_path / "one").read_text())
    os.kill(one, signal.SIGKILL)
    until(lambda: int((tmp_path / "one").read_text()) != one)
    groups = [one, *(int((tmp_path / name).read_text()) for name in ("one", "other"))]
    assert all(map(_group, groups)), "what a child started goes on without it"
    os.kill(groups[1], signal.SIGSTOP)
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    until(lambda: not any(map(_group, groups)))


def test_children_do_not_outlive_a_supervisor_that_is_killed(supervisor, tmp_path):
    children = [int((tmp_path / name).read_text()) for name in ("one", "other")]
    supervisor.kill()
    supervisor.wait()
    until(lambda: not any(child in _group(child) for child in children))
    for child in children:  # what they started is theirs to end
        for left in _group(child):
            os.kill(left, signal.SIGKILL)


def test_a_process_that_only_sleeps_and_wakes_shows_that_it_lives():
    program = "import time\nwhile True: time.sleep(0.05)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            answers = _works()
            answers(process.pid)
            time.sleep(1)
            assert answers(process.pid)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            answers(process.pid)
            time.sleep(0.5)
            assert not answers(process.pid)
        finally:
            process.kill()


def test_why_a_child_ended_stands_beside_it_and_not_what_was_said_before(tmp_path):
    log = tmp_path / "log"
    log.write_text("KeyError: of another time\n")
    fails = """
import sys, traceback
try:
    raise ValueError("two jobs are called x")
except ValueError:
    traceback.print_exc()
print("a.UserCodeUnreachableError: the code server does not answer", file=sys.stderr)
print("grpc._channel._InactiveRpcError: <of RPC>", file=sys.stderr)
sys.exit(1)
"""
    child = Child("the code server", [sys.executable, "-c", fails], log, lambda process: False)
    child.start()
    child.process.wait(30)
    told = child.look(1)
    assert told.endswith(f"(it said: {log}): ValueError: two jobs are called x")
    child.command = [sys.executable, "-c", "raise SystemExit(1)"]
    child.start()
    child.process.wait(30)
    assert child.look(1).endswith(f"(it said: {log})")


def test_dev_says_once_that_dagsters_folder_is_gone(tmp_path, capsys):
    home = tmp_path / "dagster"
    home.mkdir()
    (home / SETTINGS).touch()
    look = _dagster_told(home)
    look()
    home.rename(tmp_path / "away")
    look()
    look()
    told = capsys.readouterr().err
    assert told.count(f"{home} is gone, and no work is done; bring it back, or stop this") == 1
    assert "`ionbeam history rebuild`" in told


def test_dev_says_that_the_ledger_is_damaged_and_when_it_is_well_again(platform_of, capsys, monkeypatch):
    monkeypatch.setattr(dev, "_LOOKED_EVERY", 0.2)
    platform = platform_of("  ioncannon: {start: 2098-01-01}")
    platform.ledger.recovered()
    ledger = Path("ionbeam-state/ledger.sqlite")
    whole = ledger.rename("whole")
    ledger.write_bytes(b"no database " * 1000)
    said = ""

    def told(words: str) -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return words in said

    health = dev._Health(platform.config)
    health.begin()
    try:
        until(lambda: told("it is damaged: move it away, and it is made again from the stores"))
        time.sleep(0.5)
        whole.replace(ledger)
        until(lambda: told("ledger: is well again"))
    finally:
        health._watch.stop()
    assert said.count("it is damaged") == 1
