"""What earlier versions left behind is read, and gone on with: their ledgers, files, records of the bus and messages.

tests/fixtures/make_state.py says what was done there. Belongs here: what a person or a client sees of it, through the
command line and over a real broker. Does not belong here: how any of it is kept, which may change.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import polars as pl
import pytest
import redis as redis_client
from typer.testing import CliRunner

from ionbeam_client import IonbeamClient, IonbeamClientConfig, wire
from ionbeam_client.models import (
    DataAvailableEvent,
    DataSetAvailableEvent,
    IngestDataCommand,
    ReplayDatasetsCommand,
    StartSourceCommand,
)
from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.stores.ledger import LedgerError

STATE = Path(__file__).parent / "fixtures" / "state-1"
MESSAGES = json.loads((STATE / "messages.json").read_text())
WINDOWS = {  # state, rows, stations, coverage, revision
    "city": {
        "2026-06-21 06:00-07:00": ("built", "29", "5", "100%", "2"),
        "2026-06-21 07:00-08:00": ("built", "27", "5", "100%", "1"),
    },
    "coast": {
        "2026-06-21 05:00-06:00": ("built", "3", "2", "0%", "1"),
        "2026-06-21 06:00-07:00": ("sealed", "9", "3", "100%", "1"),
        "2026-06-21 07:00-08:00": ("built", "9", "3", "100%", "1"),
        "2026-06-21 08:00-09:00": ("built", "3", "2", "0%", "1"),
        "2026-06-21 09:00-10:00": ("built", "7", "3", "100%", "1"),
    },
    "balconies": {
        "2026-06-20 00:00": ("built", "24", "1", "100%", "1"),
        "2026-06-21 00:00": ("built", "480", "4", "75%", "1"),
    },
}
EXPORTS = {"city": ("odb", "pygeoapi", "bufr"), "coast": ("odb", "pygeoapi"), "balconies": ("odb", "pygeoapi")}
NOBODY = "amqp://guest:guest@127.0.0.1:9/"


@dataclass
class Earlier:
    """A platform in `folder` that an earlier version left, under today's command line."""

    folder: Path
    forget: Callable[[], None]
    """Loses the ledger."""

    def ionbeam(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["--config", "config.yaml", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    def run(self, source: str, first: int, last: int) -> str:
        return self.ionbeam(
            "run", source, "--from", f"2026-06-21T{first:02d}:00Z", "--to", f"2026-06-21T{last:02d}:00Z"
        )

    def windows(self, dataset: str) -> dict[str, list[str]]:
        """The cells of each window's first line in the table of `ionbeam status`."""
        lines = [line.split("│") for line in self.ionbeam("status", dataset).splitlines()]
        rows = [[cell.strip() for cell in line[1:-1]] for line in lines if len(line) > 3]
        return {row[0]: row[1:] for row in rows if row[0].startswith("2026-") and ":" in row[0]}

    def files(self, *folders: str) -> dict[str, tuple[int, bytes]]:
        """When each file below `folders` was written, and what is in it."""
        found = (path for folder in folders for path in (self.folder / folder).rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def fill(url: str) -> None:
    """Make a Redis the one that went on running while the platform was upgraded."""
    client = redis_client.Redis.from_url(url, decode_responses=True)
    client.flushdb()
    put = {
        "string": lambda key, value: client.set(key, value),
        "hash": lambda key, value: client.hset(key, mapping=value),
        "set": lambda key, value: client.sadd(key, *value),
        "zset": lambda key, value: client.zadd(key, dict(value)),
        "list": lambda key, value: client.rpush(key, *value),
    }
    with gzip.open(STATE / "redis.json.gz", "rt") as file:
        for key, kept in json.load(file).items():
            put[kept["type"]](key, kept["value"])
    client.set("ionbeam:generation", client.info()["run_id"])


@pytest.fixture(params=["sqlite", "on_redis"])
def earlier(request, tmp_path, monkeypatch, no_pictures) -> Earlier:
    with tarfile.open(STATE / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with tarfile.open(STATE / "sqlite.tar.xz") as archive:  # the client knows nothing of ledgers
        archive.extractall(tmp_path, [one for one in archive if one.name.startswith("client")], filter="data")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "IONBEAM_BROKER": NOBODY,
        "COLUMNS": "200",
        "IONBEAM_CONFIG_PATH": "",
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }.items():
        monkeypatch.setenv(name, value)

    def forget() -> None:
        for path in tmp_path.glob("state/ledger*sqlite*"):
            path.unlink()

    if request.param == "on_redis":
        url = request.getfixturevalue("redis").url[:-1] + "9"
        monkeypatch.setenv("IONBEAM_REDIS", url)
        fill(url)
        return Earlier(tmp_path, lambda: redis_client.Redis.from_url(url).flushdb())
    return Earlier(tmp_path, forget)


def test_its_windows_are_shown_and_nothing_of_them_is_to_do(earlier):
    before = earlier.files("data", "data-projections", "data-raw", "state/quarantine")
    for dataset, expected in WINDOWS.items():
        shown = earlier.windows(dataset)
        assert list(shown) == list(expected)
        for window, cells in expected.items():
            assert [cell for cell in shown[window] if cell in cells][: len(cells)] == list(cells), window
            assert ", ".join(EXPORTS[dataset]) in shown[window]
    cycle = next(line for line in earlier.ionbeam("status", "city").splitlines() if "2026-06-21 06 " in line)
    assert "made" in cycle and "2 of 6" in cycle and "672" in cycle
    told = " ".join(earlier.ionbeam("status").split())
    assert "12 rows" in told and "arrived later" in told, "what came for a sealed window"
    assert "7 of its 8 parts" in told and "asked for 1 times" in told and "source accept roofs" in told
    gaps = " ".join(earlier.ionbeam("gaps").split())
    assert gaps.count("no gap") == 2 and "--from 2026-06-21T08:00Z" in gaps

    for source, first, last in (("city", 6, 8), ("coast", 6, 8), ("coast", 9, 10)):
        assert "Nothing to do" in earlier.run(source, first, last)
    assert earlier.files("data", "data-projections", "data-raw", "state/quarantine") == before


def test_late_data_make_the_next_revision_and_its_exports(earlier):
    before = earlier.files("data", "data-projections")
    earlier.run("city", 8, 9)
    shown = earlier.windows("city")
    (late,) = (row for window, row in shown.items() if "07:00-08:00" in window)
    assert "2" in late and "built" in late and "27" not in late and ", ".join(EXPORTS["city"]) in late
    assert "2" in shown["2026-06-21 06:00-07:00"] and "1" in shown["2026-06-21 08:00-09:00"]
    after = earlier.files("data", "data-projections")
    changed = {name for name in before if after[name][1] != before[name][1]}
    of_the_window = {name for name in before if "T070000_PT1H." in name and "/city/" in name}
    cycle = {name for name in before if "odb_cycle" in name}
    assert changed == of_the_window | cycle and len(of_the_window) == 3 and len(cycle) == 1
    added = {Path(name).name for name in after.keys() - before.keys() if "07" in name.partition("20260621")[2][:4]}
    assert any(name.endswith("_r2.parquet") for name in added)


def test_a_lost_ledger_is_made_again_from_the_files(earlier):
    kept, files = known(earlier), earlier.files("data", "data-projections")
    tables = {
        name: pl.read_parquet(earlier.folder / name)
        for name in files
        if name.endswith(".parquet") and "pygeoapi" in name
    }
    earlier.forget()
    earlier.ionbeam("ledger", "rebuild")
    assert "7 of its 8 parts" in " ".join(earlier.ionbeam("status").split()), "what waited for its other parts"
    assert "lacks nothing" in earlier.ionbeam("ledger", "rebuild")
    assert known(earlier) == kept
    assert "2026-06-22 00:00" in earlier.windows("balconies"), "what waited to be ingested was found, too"
    earlier.run("city", 6, 8)  # makes the exports again
    assert "Nothing to do" in earlier.run("city", 6, 8)
    assert EXPORTS["city"] == tuple(earlier.windows("city")["2026-06-21 06:00-07:00"][5].split(", "))
    after = earlier.files("data", "data-projections")
    assert after.keys() == files.keys()
    assert all(pl.read_parquet(earlier.folder / name).equals(table) for name, table in tables.items())
    changed = {name for name in files if after[name][1] != files[name][1]} - tables.keys()  # these have checksums now
    assert all(name.split("/")[1] in ("odb", "odb_cycle", "bufr", "gts") for name in changed), sorted(changed)


def test_its_records_of_the_bus_are_taken_over_once_also_by_one_who_is_killed_on_the_way(earlier, monkeypatch):
    old, after = (earlier.folder / "state" / "bus" / name for name in ("bus.sqlite", "bus.sqlite.taken-over"))
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", _dies)
        with pytest.raises(KeyboardInterrupt):
            platform_of(earlier).ledger.commands.count()
    assert old.exists() and not after.exists()
    ledger = platform_of(earlier).ledger
    assert len(ledger.commands.unreported(100)) == 8 and after.exists() and not old.exists()
    assert [one.times for one in ledger.requests.unanswered(10)] == [1] and len(ledger.refusals.newest(10)) == 1
    assert ledger.commands.count() == 4 and ledger.announcements.announced() > 10**12
    assert ledger.announcements.next_replay() is None
    [waits] = ledger.parts.unfinished()
    assert (waits.there, waits.parts) == (1, 8)
    ledger.commands.note_reported(ledger.commands.unreported(100))
    assert platform_of(earlier).ledger.commands.unreported(100) == []


def test_its_records_of_the_bus_are_taken_over_also_where_its_version_knew_no_parts(earlier):
    with closing(sqlite3.connect(earlier.folder / "state" / "bus" / "bus.sqlite")) as older:
        older.execute("DROP TABLE parts")
    ledger = platform_of(earlier).ledger
    assert len(ledger.commands.unreported(100)) == 8 and ledger.parts.unfinished() == []


def test_records_of_the_bus_that_an_earlier_version_still_uses_are_left_alone(earlier):
    old = earlier.folder / "state" / "bus" / "bus.sqlite"
    with closing(sqlite3.connect(old)) as running:
        running.execute("SELECT 1 FROM taken")
        with pytest.raises(LedgerError, match="end all processes of that version"):
            platform_of(earlier).ledger.commands.count()
    assert platform_of(earlier).ledger.commands.count() == 4


def platform_of(earlier: Earlier) -> Platform:
    return open_platform(IonbeamConfig.load(earlier.folder / "config.yaml"))


def _dies(*given: object) -> None:
    raise KeyboardInterrupt


def known(earlier: Earlier) -> tuple[dict, list[str]]:
    """What files can tell of windows (not: what was exported, and that a person sealed one), and what was collected.

    A window is "built" only when its revision was made of all of its claims, in their order.
    """
    shown = {name: earlier.windows(name) for name in WINDOWS}
    shown["coast"].pop("2026-06-21 06:00-07:00")
    built = {name: {at: row[:5] for at, row in shown[name].items() if at in WINDOWS[name]} for name in shown}
    return built, [earlier.ionbeam("gaps", name) for name in ("city", "coast")]


def test_its_messages_are_read():
    models = {
        "rows in one message": IngestDataCommand,
        "rows in parts": IngestDataCommand,
        "rows in the payload store": IngestDataCommand,
        "parked, of a dataset that nobody knows": IngestDataCommand,
        "one of several parts, of which others come later": IngestDataCommand,
        "an ingestion is stored": DataAvailableEvent,
        "a revision is ready": DataSetAvailableEvent,
        "a revision again, to one exporter": DataSetAvailableEvent,
        "a replay is asked for": ReplayDatasetsCommand,
        "a client is asked": StartSourceCommand,
    }
    rows: dict[str, int] = dict.fromkeys(models, 0)
    for kept in MESSAGES:
        body, model = base64.b64decode(kept["body"]), models[kept["kind"]]
        if model is DataAvailableEvent:
            assert str(DataAvailableEvent.from_wire(body).id) == kept["message_id"]
            continue
        decoded = wire.decode(model, body)
        assert kept["message_id"] == wire.message_id(decoded.message)
        if decoded.rows is not None:
            rows[kept["kind"]] += sum(batch.num_rows for batch in wire.batches(decoded.rows))
    assert rows == dict.fromkeys(models, 0) | {
        "rows in one message": 24,
        "rows in parts": 240,
        "parked, of a dataset that nobody knows": 3,
        "one of several parts, of which others come later": 240,
        "a revision is ready": 618,
        "a revision again, to one exporter": 504,
    }
    (parked,) = (kept["headers"] for kept in MESSAGES if kept["kind"].startswith("parked"))
    assert "roofs" in parked[wire.ERROR_HEADER] and parked[wire.ATTEMPTS_HEADER] == 1
    assert {wire.DETAILS_HEADER, wire.PARKED_HEADER, wire.REQUEUES_HEADER} <= parked.keys()


def kept_in(queue: str, kind: str) -> list[dict]:
    return [kept for kept in MESSAGES if kept["kind"] == kind and kept["queue"] == queue]


async def publish(channel, kept: dict) -> None:
    message = aio_pika.Message(
        base64.b64decode(kept["body"]), message_id=kept["message_id"], content_type=kept["content_type"],
        headers=kept["headers"], delivery_mode=kept["delivery_mode"],
    )  # fmt: skip
    await channel.declare_queue(kept["queue"], durable=True)
    await channel.default_exchange.publish(message, routing_key=kept["queue"])


async def heard(channel, queue: str, count: int) -> list[DataSetAvailableEvent]:
    """The events of the next `count` revisions; nothing may be behind them."""
    declared, found, until = await channel.declare_queue(queue, durable=True), [], time.monotonic() + 90
    while len(found) < count and time.monotonic() < until:
        message = await declared.get(no_ack=True, fail=False)
        if message is None:
            await asyncio.sleep(0.1)
        else:
            found.append(wire.decode(DataSetAvailableEvent, message.body).message)
    await asyncio.sleep(1)
    assert await declared.get(no_ack=True, fail=False) is None
    return found


@pytest.mark.parametrize(
    "earlier", ["sqlite", pytest.param("on_redis", marks=pytest.mark.soak)], indirect=True
)  # fmt: skip
def test_its_bus_goes_on(earlier, rabbitmq, monkeypatch):
    """What waited is built and announced, and what was announced is not announced again; parts complete one that was
    begun; a message that comes a second time changes nothing; a client sends what an earlier one could not."""
    monkeypatch.setenv("IONBEAM_BROKER", rabbitmq.url)
    ingestion = wire.INGESTION.name
    listener = wire.exporter_queue("new_one")

    async def meanwhile() -> list[DataSetAvailableEvent]:
        connection = await aio_pika.connect(rabbitmq.url)
        async with connection, connection.channel() as channel:
            for name in (ingestion, listener.name):
                await channel.queue_delete(name)
            exchange = await channel.declare_exchange(wire.DATASET_EXCHANGE, "fanout", durable=True)
            await (await channel.declare_queue(listener.name, durable=True)).bind(exchange)
            for kept in kept_in(ingestion, "rows in one message"):
                await publish(channel, kept)
            for kept in kept_in(ingestion, "one of several parts, of which others come later")[1:]:
                await publish(channel, kept)
            config = IonbeamClientConfig(amqp_url=rabbitmq.url, state_path=earlier.folder / "client")
            async with IonbeamClient(config) as client:
                assert await client.flush(30)
            return await heard(channel, listener.name, 3)

    bridge = subprocess.Popen(
        [Path(sys.executable).with_name("ionbeam"), "--config", "config.yaml", "bridge"], env={**os.environ}
    )
    try:
        events = asyncio.run(meanwhile())
    finally:
        bridge.terminate()
        bridge.wait(30)
    found = sorted((event.metadata.name, f"{event.start_time:%m-%d}", event.revision) for event in events)
    assert found == [("balconies", "06-22", 1), ("balconies", "06-23", 1), ("balconies", "06-24", 1)]
    shown = earlier.windows("balconies")
    rows = {window: next(cell for cell in row if cell.isdigit()) for window, row in shown.items()}
    assert list(rows.values()) == ["24", "480", "6", "240", "6"]
