"""Tells what is given away in processes that are killed, and lets the next one go on.

    python killed_telling.py PORT      in a folder; reads lines `BASE NUMBER`, prints what became of each

Belongs here: the program that test_killed_telling.py starts. For each line it copies the folder BASE (`first`: three
windows are exported; `next`: they were told, and one has another revision) to `now`, tells what is due there and is
killed right before write NUMBER that others could see, and tells again.
"""

from __future__ import annotations

import shutil
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from given import SOURCES, WINDOWS, brought_up_to_date, section, write_rows
from killed import Counter, forked, opened

from ionbeam_dagster.wis2.telling import publish


def prepared(root: Path, port: int) -> None:
    first = root / "first"
    first.mkdir()
    (first / "config.yaml").write_text(f"sources:\n{SOURCES}\nwis2: {section(port)}\n")

    def exported() -> None:
        write_rows(Path("in"))
        brought_up_to_date(opened())

    def told_and_exported_again() -> None:
        assert publish(opened()).told == 4
        write_rows(Path("in"), warm=21.5)
        brought_up_to_date(opened(), WINDOWS[:1])

    assert forked(first, exported) == 0
    shutil.copytree(first, root / "next")
    assert forked(root / "next", told_and_exported_again) == 0


def killed(root: Path, base: str, number: int) -> str:
    now = root / "now"
    shutil.rmtree(now, ignore_errors=True)
    shutil.copytree(root / base, now)

    def told() -> None:
        counter = Counter(number)
        counter.watch()
        socket.socket.send = counter._counted(socket.socket.send)  # paho's
        publish(opened())

    def told_after_all() -> None:
        turn = publish(opened())
        assert turn.failed == {}, turn.failed
        assert publish(opened()).told == 0

    status = forked(now, told)
    if forked(now, told_after_all) != 0:
        return "not mended"
    return {-signal.SIGKILL: "killed", 0: "whole"}.get(status, f"ended with {status}")


if __name__ == "__main__":
    prepared(Path().absolute(), int(sys.argv[1]))
    print("prepared", flush=True)
    for line in sys.stdin:
        base, number = line.split()
        print(killed(Path().absolute(), base, int(number)), flush=True)
