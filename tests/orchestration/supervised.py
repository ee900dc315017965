"""A supervisor of two small programs, each of which starts one of its own: ``python supervised.py FOLDER``.

Belongs here: the program that test_supervision starts. Each child writes its number into a file again and again.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from ionbeam_dagster.orchestration import supervision
from ionbeam_dagster.orchestration.supervision import Child, Supervisor

BEATS = """
import os, pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
place = pathlib.Path(sys.argv[1])
while True:
    place.with_suffix(".new").write_text(str(os.getpid()))
    place.with_suffix(".new").replace(place)
    sum(range(100_000))
    time.sleep(0.05)
"""


def beats(place: Path):
    def answers(process: int) -> bool:
        try:
            return place.read_text() == str(process) and time.time() - place.stat().st_mtime < 0.5
        except OSError:
            return False

    return answers


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    supervision.ASKED_EVERY = 0.1
    supervision.HANGS_AFTER = 1.0
    supervision.FIRST_WAIT = 0.1
    children = [
        Child(name, [sys.executable, "-c", BEATS, str(folder / name)], folder / "log", beats(folder / name))
        for name in ("one", "other")
    ]
    faults = [OSError("the disk is full")]

    def begins() -> None:
        if faults:
            raise faults.pop()
        (folder / "ready").touch()

    supervisor = Supervisor(children, lambda told: print(told, flush=True), [begins])
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    supervisor.run()
