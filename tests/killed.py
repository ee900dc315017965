"""Runs the way of an observation in processes that are killed, one at every write, and lets the next one mend it.

    python killed.py FOLDER FIRST STEP [SECTIONS]

Belongs here: the program that tests/test_kills.py starts. It forks after the imports, before anything has threads: a
process costs a tenth of a second. The killed process dies right before its n-th write that others could see: a file
made durable, renamed or removed, a transaction committed, something sent to a server. Prints how many such places there
are, and what is wrong with what came of it, a line each.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.decisions import Build
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline.agenda import assess, export_is_current, needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.retention import purge
from ionbeam_dagster.pipeline.show import contents
from ionbeam_dagster.stores.ledger import holding

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
HALF, HOUR = timedelta(minutes=30), timedelta(hours=1)
HOURS = [Window(MORNING, MORNING + HOUR), Window(MORNING + HOUR, MORNING + 2 * HOUR)]
LATER = MORNING + timedelta(days=3)
NETWORK = """
state_path: state
sources:
  scheduler: {windows: [{source_name: ioncannon, window_size: PT30M}]}
  ioncannon: {num_stations: 4, start: 2026-06-21, aggregation_span: PT1H, late_fraction: 0.3, late_by: PT1H, seed: 3}
"""


def bring_up_to_date(platform: Platform) -> None:
    """What a run does: each hour's halves, then what became due. The second hour brings late rows of the first.

    (All of them, before the first hour is built again: so that the revisions are the same however often it is killed.)
    """
    for hour in HOURS:
        for half in windows_between(hour.start, hour.end, HALF):
            if needs_collecting(platform, "ioncannon", half):
                collect(platform, platform.source("ioncannon"), half, LATER)
            raw = platform.ledger.raw("ioncannon", half)
            if not platform.ledger.claims_of([raw.ingestion]):
                ingest(platform, platform.source("ioncannon"), half)
        for window in HOURS[: HOURS.index(hour) + 1]:
            again = hour == HOURS[0] and platform.ledger.latest_revision("ioncannon", window) is not None
            if not again and isinstance(assess(platform, platform.dataset("ioncannon"), window, LATER), Build):
                build(platform, platform.dataset("ioncannon"), window, LATER)
            for format in ("odb", "pygeoapi"):
                if not export_is_current(platform, "ioncannon", format, window):
                    export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], window)


def results() -> dict[str, bytes]:
    """The dataset files, by name."""
    return {path.name: path.read_bytes() for path in Path("data").rglob("[!.]*.parquet")}


def check_files() -> None:
    """Every file that can be seen is whole."""
    for folder in ("data", "data-raw", "data-projections"):
        for path in Path(folder).rglob("[!.]*.*"):
            if path.is_file():
                contents(path)


def check_mended(platform: Platform, expected: dict[str, bytes] | None) -> None:
    halves = list(windows_between(HOURS[0].start, HOURS[1].end, HALF))
    raws = [platform.ledger.raw("ioncannon", half) for half in halves]
    assert [claim.id for claim in platform.ledger.claims_of([raw.ingestion for raw in raws])] == [
        raw.ingestion for raw in raws
    ], "a claim is lost, or out of order"
    assert not {*platform.ledger.due("ioncannon")}.intersection(HOURS)
    assert [platform.ledger.latest_revision("ioncannon", hour).revision.number for hour in HOURS] == [2, 1]
    numbers = sorted(path.stem.rsplit("_", 1)[1] for path in Path("data").rglob("[!.]*060000*.parquet"))
    assert numbers == ["r1", "r2"], f"revisions with holes: {numbers}"
    assert all(export_is_current(platform, "ioncannon", f, h) for f in ("odb", "pygeoapi") for h in HOURS)
    rows = [pl.read_parquet(platform.ledger.latest_revision("ioncannon", hour).path).height for hour in HOURS]
    assert rows[0] == 4 * 12, f"rows are lost: {rows}"
    found = results()
    assert expected is None or found == expected, f"not the same bytes: {sorted(found)}"
    assert purge(platform, datetime.now(UTC) + timedelta(days=2)).failed == ()
    assert [path for path in Path().rglob(".*.*") if path.is_file() and "state" not in path.parts] == []


class Counter:
    """Counts writes, and dies right before the n-th."""

    def __init__(self, dies_before: int | None) -> None:
        self.seen = 0
        self._last = dies_before

    def __call__(self) -> None:
        self.seen += 1
        if self.seen == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (socket.socket, "sendall")):
            setattr(owner, name, self._counted(getattr(owner, name)))
        count, connect = self, sqlite3.connect

        class Watched(sqlite3.Connection):
            def execute(self, sql: str, *given: object) -> sqlite3.Cursor:
                if sql.startswith("COMMIT"):
                    count()
                return super().execute(sql, *given)

            def commit(self) -> None:
                count()
                super().commit()

        sqlite3.connect = lambda *given, **named: connect(*given, **{"factory": Watched, **named})  # type: ignore[assignment]

    def _counted(self, real: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, **named: object) -> object:
            self()
            return real(*given, **named)

        return counted


def forked(folder: Path, work: Callable[[], None]) -> int:
    """Do `work` in a process of its own in `folder`; its exit status, negative for the signal that killed it."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 0
    try:
        os.chdir(folder)
        work()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        status = 1
    sys.stdout.flush()
    os._exit(status)


def opened() -> Platform:
    return open_platform(IonbeamConfig.load(Path("config.yaml")))


def place(root: Path, name: str, sections: str) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "config.yaml").write_text(NETWORK + sections.replace("NAME", name))

    def emptied() -> None:
        redis = opened().config.sections.redis
        if redis is not None:
            from redis import Redis

            server = Redis.from_url(redis.redis_url)
            server.flushdb()
            server.script_flush()  # what is sent to a server that knows the scripts is less

    assert forked(folder, emptied) == 0
    return folder


def main(root: Path, first: int, step: int, sections: str = "") -> None:
    holding.HELD_FOR = 4.0  # what the dead held in Redis is free soon
    whole = place(root, "whole", sections)

    def uninterrupted() -> None:
        counter = Counter(None)
        counter.watch()
        platform = opened()
        bring_up_to_date(platform)
        Path("writes").write_text(str(counter.seen))
        check_files()
        check_mended(platform, None)

    assert forked(whole, uninterrupted) == 0
    writes = int((whole / "writes").read_text())
    os.chdir(whole)
    expected = results()
    for number in range(first, writes + 1, step):
        folder = place(root, f"killed{number}", sections)

        def killed(number: int = number) -> None:
            Counter(number).watch()
            bring_up_to_date(opened())

        def mended() -> None:
            check_files()
            bring_up_to_date(opened())
            check_files()
            check_mended(opened(), expected)

        if (status := forked(folder, killed)) != -signal.SIGKILL:
            print(f"before write {number}: it was not killed but ended with {status}")
        if forked(folder, mended) != 0:
            print(f"before write {number}: not mended")
    print(f"writes: {writes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
