"""The whole platform with its clients: processes side by side, killed and started again."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
import pytest
from bus_samples import (
    DAY,
    EXAMPLES,
    HOUR,
    METADATA,
    SOURCES,
    START,
    TEMPERATURE,
    body,
    bridge_process,
    built_day,
    command,
    heard,
    listen,
    rows,
    send,
    until,
    waiting,
)
from servers import at_port_5672

from ionbeam_client import wire
from ionbeam_client.models import DatasetMetadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.bridge import JobTaken, bridge_of
from ionbeam_dagster.pipeline.ingest import ingest


def test_two_bridges_side_by_side_do_nothing_twice(platform_of, broker, tmp_path):
    platform = platform_of(SOURCES, broker=f"{{url: '{broker}'}}", automation="{enabled: false}")
    listen(broker)
    processes = [bridge_process(tmp_path) for _ in range(2)]
    try:
        ids = [uuid4() for _ in range(40)]
        for first in range(0, 40, 10):
            send(broker, *(body(command(id=id), rows(first=float(i))) for i, id in enumerate(ids[first : first + 10])))
        window = Window(START, START + 6 * HOUR)
        until(lambda: len(platform.ledger.sent("my_source", window)) == 40)
        with pytest.raises(JobTaken):
            bridge_of(platform).take_in(5)
        assert [UUID(raw.ingestion) for raw in platform.ledger.sent("my_source", window)] == ids
        processes[0].kill()  # whichever it was: the other takes over
        send(broker, body(command()))
        until(lambda: len(platform.ledger.sent("my_source", window)) == 41)
        ingest(platform, platform.source("my_source"), window)
        built_day(platform)
        until(lambda: not platform.ledger.changes(platform.ledger.announcements.announced(), 100))
        assert [event.revision for event in heard(broker)] == [1]
        processes[1].terminate()
        assert processes[1].wait(20) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert waiting(broker, wire.INGESTION) == [] and waiting(broker, wire.INGESTION.dead) == []


def test_the_four_programs_run_against_the_platform_and_get_back_the_numbers_that_they_sent(
    platform_of, broker, tmp_path
):
    """The platform is `ionbeam bridge`; the programs are the specification's, each in its folder."""
    platform = platform_of(
        "  my_source: {kind: external, dataset: example_weather, start: 2024-01-01}\n"
        "  netatmo: {kind: external, start: 2024-01-01}\n",
        broker=f"{{url: '{broker}'}}",
    )
    for exporter in ("my_exporter", "netatmo_exporter"):
        listen(broker, exporter)
    netatmo = METADATA.model_copy(update={"dataset": DatasetMetadata(name="netatmo")})

    async def run():
        async with at_port_5672(broker):
            processes = [bridge_process(tmp_path), *(_program(tmp_path, name) for name in EXAMPLES.glob("*.py"))]
            try:
                await asyncio.to_thread(send, broker, body(command(metadata=netatmo)))
                await asyncio.to_thread(bridge_of(platform).ask, "my_source", [Window(START + DAY, START + 2 * DAY)])
                for program, handled in (("export", 3), ("filtered_export", 1)):
                    await asyncio.to_thread(until, lambda: _handled(tmp_path / program) == handled, 120)  # noqa: B023
            finally:
                for process in processes:
                    process.terminate()
                for process in processes:  # in a thread: what they still say goes through this loop
                    await asyncio.to_thread(process.wait, 20)

    try:
        asyncio.run(run())
    except AssertionError as error:
        raise AssertionError("\n".join(p.read_text() for p in tmp_path.rglob("said"))) from error
    found = {path.stem: pl.read_parquet(path) for path in (tmp_path / "export" / "exported").glob("*.parquet")}
    assert len(found) == 3
    first = found["example_weather_20240101T000000"]
    assert first[TEMPERATURE].to_list() == [20.0 + i * 0.5 for i in range(24)]
    assert first["datetime"].dt.hour().to_list() == list(range(24))
    triggered = found["example_weather_20240102T000000"]
    assert triggered[TEMPERATURE].to_list() == [20.0 + (i // 6) * 0.5 for i in range(144)]
    with sqlite3.connect(tmp_path / "filtered_export" / "exported.sqlite") as database:
        values = database.execute(f'SELECT "{TEMPERATURE}" FROM observations ORDER BY datetime').fetchall()
    assert [value for (value,) in values] == rows()["t"].to_pylist()
    assert platform.ledger.requests.unanswered(10) == [] and platform.ledger.refusals.newest(10) == []


def _program(folder: Path, path: Path) -> subprocess.Popen:
    place = folder / path.stem
    place.mkdir()
    with (place / "said").open("w") as said:
        return subprocess.Popen(
            [sys.executable, path], cwd=place, stdout=said, stderr=said,
            env={**os.environ, "IONBEAM_STATE_PATH": str(place / "state")},
        )  # fmt: skip


def _handled(program: Path) -> int:
    """How many windows a program's handler has done: a file that is there need not be whole."""
    place = program / "state" / "inbox.sqlite"
    if not place.exists():
        return 0
    with closing(sqlite3.connect(place)) as inbox:
        try:
            return inbox.execute("SELECT count(*) FROM deliveries WHERE state = 'done'").fetchone()[0]
        except sqlite3.OperationalError:  # the program has only begun
            return 0
