"""Of two daemons one works; the other one takes over when it is killed or stands still, and never are there two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import pytest
from redis import Redis

HELD_FOR = 2.0
PROGRAM = Path(__file__).with_name("standing_by.py")


def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start a process that works, or stands by, with such sections in the YAML."""
    running: list[subprocess.Popen[bytes]] = []

    def started(sections: str) -> subprocess.Popen[bytes]:
        config = tmp_path / "config.yaml"
        config.write_text(f"state_path: state\n{sections}")
        command = [sys.executable, str(PROGRAM), str(config), str(tmp_path / "lines"), str(HELD_FOR)]
        running.append(subprocess.Popen(command, cwd=tmp_path))
        return running[-1]

    yield started
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("ledger", "how"),
    [("sqlite", signal.SIGKILL), ("redis", signal.SIGKILL), ("redis", signal.SIGSTOP)],
    ids=lambda value: getattr(value, "name", value),
)
def test_one_works_and_the_other_takes_over(start, tmp_path, request, ledger, how):
    sections = ""
    if ledger == "redis":
        url = request.getfixturevalue("redis").url
        Redis.from_url(url).flushdb()
        sections = f"redis: {{redis_url: '{url}'}}\n"
    lines = tmp_path / "lines"

    def worked() -> list[int]:
        return [int(line) for line in lines.read_text().split()] if lines.exists() else []

    first = start(sections)
    until(worked)
    second = start(sections)
    time.sleep(2 * HELD_FOR)
    assert set(worked()) == {first.pid}, "who is alive keeps it"
    os.kill(first.pid, how)
    until(lambda: second.pid in worked(), HELD_FOR + 10)
    with suppress(ProcessLookupError):
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait(10) == -(signal.SIGALRM if how == signal.SIGSTOP else how), "it does nothing more"
    assert second.poll() is None
    assert [pid for pid, _ in groupby(worked())] == [first.pid, second.pid], "never two"
