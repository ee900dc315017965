"""What the bus's tests share: observations, messages, and the processes of a platform."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from ionbeam_client import IonbeamClientConfig, wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DataSetAvailableEvent,
    DatasetMetadata,
    IngestDataCommand,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_client.transport import Outgoing
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.platform import Platform

EXAMPLES = Path(__file__).parents[2] / "examples" / "client"
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FIRST_DAY = Window(START, START + DAY)
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
METADATA = IngestionMetadata(
    dataset=DatasetMetadata(name="example_weather", description="One thermometer"),
    ingestion_map=DataIngestionMap(
        canonical_variables=[CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC", level=2.0)],
        metadata_variables=[MetadataVariable(column="station_id")],
    ),
)
SCHEMA = wire.declared_schema(METADATA)
STORM_METADATA = METADATA.model_copy(update={"dataset": DatasetMetadata(name="example_weather", aggregation_span=HOUR)})
SOURCES = """
  scheduler: {windows: [{source_name: my_source, window_size: PT6H}]}
  my_source: {kind: external, dataset: example_weather, start: 2024-01-01, aggregation_span: P1D}
  ioncannon: {num_stations: 2, start: 2024-01-01, aggregation_span: PT1H}
"""


def rows(count=24, *, first=20.0, start=START, step=HOUR, station="roof") -> pa.Table:
    times = [start + i * step for i in range(count)]
    values = [first + 0.5 * i for i in range(count)]
    columns = [pa.array(times, wire.TIME), [52.5] * count, [13.4] * count, values, [station] * count]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


def command(**said) -> IngestDataCommand:
    return IngestDataCommand(**({"metadata": METADATA, "start_time": START, "end_time": START + DAY} | said))


def body(message: IngestDataCommand, table: pa.Table | None = None) -> bytes:
    table = rows() if table is None else table
    return wire.with_rows(message, table.schema, table.to_batches())


@asynccontextmanager
async def connected(url):
    transport = AmqpTransport(IonbeamClientConfig(amqp_url=url))
    await transport.open()
    await asyncio.wait_for(transport.connected(), 30)
    try:
        yield transport
    finally:
        await transport.close()


def send(url: str, *bodies: bytes, queue: wire.Queue = wire.INGESTION) -> None:
    async def run():
        async with connected(url) as transport:
            for number, one in enumerate(bodies):
                await transport.publish(queue, Outgoing(f"m{number}", one))

    asyncio.run(run())


def waiting(url: str, queue: wire.Queue) -> list:
    """Takes everything out of a queue."""

    async def run():
        found = []
        async with connected(url) as transport:
            while (delivery := await transport.fetch(queue)) is not None:
                found.append(delivery)
                await delivery.ack()
        return found

    return asyncio.run(run())


def day(platform: Platform, table: pa.Table, **said) -> list[str | None]:
    """Takes one command in without a broker."""
    return bridge_of(platform).intake.ingestions([body(command(**said), table)])


def built_day(platform: Platform, window: Window = FIRST_DAY) -> pl.DataFrame:
    made = build(platform, platform.dataset("example_weather"), window, datetime.now(UTC), insist=True)
    return pl.read_parquet(made.revision.path)


def listen(url: str, name: str = "x") -> None:
    """Declare an exporter's queue, as its client would."""
    waiting(url, wire.exporter_queue(name))


def heard(url: str, name: str = "x") -> list[DataSetAvailableEvent]:
    return [wire.decode(DataSetAvailableEvent, d.body).message for d in waiting(url, wire.exporter_queue(name))]


def bridge_process(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [Path(sys.executable).with_name("ionbeam"), "--config", str(folder / "config.yaml"), "bridge"], cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"},
    )  # fmt: skip


def ends(window: Window) -> tuple[datetime, datetime]:
    return window.start, window.end


def until(condition, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
