"""A server is away, or takes nothing, for longer than whoever asks it has patience, while a client sends and a worker
works: nothing is lost, nothing twice, `status` tells it meanwhile, and no person is needed afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import backends
import pytest
from doors.bus_samples import HOUR, START, STORM_METADATA, rows
from redis import Redis
from servers import RabbitMQ, why_no_rabbitmq

from ionbeam_client import IonbeamClient, IonbeamClientConfig, cli
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_200)]
AWAY = 75  # seconds; and of InfluxDB, for which a try waits a minute:
OF_INFLUXDB = 150
IN_TIME = 420  # seconds until all is made, of which the longest pause between two tries is a part
A_HOUR = 6
"""Rows of an hour."""
CONFIG = """
state_path: state
automation: {{lookback: PT1H}}
broker: {{url: '{broker}'}}
redis: {{redis_url: '{redis}'}}
s3: {s3}
influxdb_common: {influxdb}
dataset_aggregator: {{data_path: {root}/data}}
projections: {{odb_service: {{output_path: {root}/out}}, pygeoapi_service: {{output_path: {root}/out}}}}
sources:
  scheduler: {{windows: [{{source_name: my_source, window_size: PT1H}}]}}
  my_source: {{kind: external, dataset: example_weather, start: 2024-01-01, end: 2024-01-02, aggregation_span: PT1H,
    data_path: {root}/raw, exports: [odb, pygeoapi]}}
"""


class Servers(NamedTuple):
    rabbitmq: RabbitMQ
    redis: backends.Redis
    s3: backends.S3
    influxdb: backends.InfluxDB


@pytest.fixture
def servers(tmp_path) -> Iterator[Servers]:
    if reason := why_no_rabbitmq():
        pytest.skip(reason)
    started = []
    try:
        for start in (backends.start_redis, backends.start_s3, backends.start_influxdb):
            folder = tmp_path / start.__name__
            folder.mkdir()
            started.append(start(folder))
    except backends.Missing as missing:
        pytest.skip(missing.reason)
    (tmp_path / "rabbitmq").mkdir()
    rabbitmq = RabbitMQ(tmp_path / "rabbitmq")
    rabbitmq.start()
    yield Servers(rabbitmq, *started)
    rabbitmq.close()
    for one in started:
        one.process.stop()


@contextmanager
def stopped(process: backends.Process) -> Iterator[None]:
    process.stop()
    yield
    process.start()


@contextmanager
def without_memory(servers: Servers) -> Iterator[None]:
    """Redis reads, and writes nothing."""
    server = Redis.from_url(servers.redis.url)
    server.config_set("maxmemory", 1)
    yield
    server.config_set("maxmemory", 0)


@contextmanager
def alarmed(servers: Servers) -> Iterator[None]:
    """The broker takes no messages."""
    servers.rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1")
    yield
    servers.rabbitmq.ctl("set_vm_memory_high_watermark", "0.6")


OUTAGES = {
    "redis": (without_memory, ("maxmemory", "memory")),
    "s3": (lambda servers: stopped(servers.s3.process), ("S3 at", "does not answer")),
    "influxdb": (lambda servers: stopped(servers.influxdb.process), ("InfluxDB", "does not answer")),
    "broker": (alarmed, ()),
}


@contextmanager
def working(folder: Path) -> Iterator[None]:
    command = [str(Path(sys.executable).with_name("ionbeam")), "--config", "config.yaml", "worker"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def made(platform: Platform) -> dict[Window, int]:
    """The rows of all hours that are built and exported."""
    latest = platform.ledger.revisions("example_weather", START, START + 24 * HOUR)
    formats = platform.dataset("example_weather").exports
    return {
        one.revision.window: one.facts.rows
        for one in latest
        if all(platform.ledger.export("example_weather", one.revision.window, format) for format in formats)
    }


async def until(what, seconds: float, folder: Path) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(what):
        assert time.monotonic() < deadline, (folder / "log").read_text()[-4000:]
        await asyncio.sleep(1)


def status(folder: Path) -> str:
    command = [str(Path(sys.executable).with_name("ionbeam")), "--config", "config.yaml", "status"]
    environment = {**os.environ, "COLUMNS": "400"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("away", OUTAGES)
def test_what_is_away_for_longer_than_every_try_costs_nothing(away, servers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    influxdb = {f"influxdb_{key}": getattr(servers.influxdb, key) for key in ("org", "url", "token", "bucket")}
    (tmp_path / "config.yaml").write_text(
        CONFIG.format(
            broker=servers.rabbitmq.url,
            redis=servers.redis.url,
            s3=json.dumps(servers.s3.section()),
            influxdb=json.dumps(influxdb),
            root=servers.s3.bucket("outages"),
        )
    )
    platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
    outage, words = OUTAGES[away]
    client_state = tmp_path / "client"

    async def sent(client, *hours):
        for hour in hours:
            begin = START + hour * HOUR
            table = rows(A_HOUR, first=hour, start=begin, step=HOUR / A_HOUR)
            await client.ingest(table, STORM_METADATA, begin, begin + HOUR)

    async def run():
        config = IonbeamClientConfig(amqp_url=servers.rabbitmq.url, state_path=client_state)
        async with IonbeamClient(config) as client:
            await sent(client, 0, 1)
            await until(lambda: len(made(platform)) == 2, IN_TIME, tmp_path)
            with outage(servers):
                await sent(client, 2, 3, 4)
                await asyncio.sleep(OF_INFLUXDB if away == "influxdb" else AWAY)
                told = await asyncio.to_thread(status, tmp_path)
                of_client = await asyncio.to_thread(cli.main, ["--state-path", str(client_state), "status"])
                await sent(client, 5)
            assert all(word in told for word in words), told
            assert (of_client == 1) == (away == "broker")
            await sent(client, 6)
            assert await client.flush(120)
            await until(lambda: len(made(platform)) == 7, IN_TIME, tmp_path)

    with working(tmp_path):
        asyncio.run(run())
    if away == "broker":
        assert "nothing could be sent since" in capsys.readouterr().out
    assert [*made(platform).values()] == [A_HOUR] * 7
    assert not platform.ledger.attempts.open("ingest") and platform.ledger.commands.count() == 7
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and log.count("nothing is given out until it goes on") < 5
