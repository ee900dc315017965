"""The client against a real RabbitMQ: rows/s of one stream, commands/s, time to the handler, and peak memory.

The alternative does what a plain script does: it writes a Parquet file into a shared folder and publishes a persistent,
confirmed JSON command that names it, one after the other. A process for each measurement; `--rows` makes it smaller.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path

from measure import peak_megabytes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

START = datetime(2026, 6, 21, tzinfo=UTC)
DAY = timedelta(days=1)
BATCH = 50_000
EVENTS = 50


def metadata():
    from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata

    units = {"air_temperature": "degC", "relative_humidity": "%"}
    return IngestionMetadata(
        dataset=DatasetMetadata(name="benchmark"),
        ingestion_map=DataIngestionMap(
            canonical_variables=[
                CanonicalVariable(column=name, standard_name=name, cf_unit=unit) for name, unit in units.items()
            ],
            metadata_variables=[{"column": "station_id"}],
        ),
    )


def sweeps(rows, size, commands):
    """For each command its batches of `size` rows, made beforehand; a long stream repeats its first 20."""
    pools = [[batch_of(size, 100 * i + j) for j in range(min(20, rows // size))] for i in range(commands)]
    return [islice(cycle(pool), rows // size) for pool in pools]


def batch_of(size, seed):
    """Rows with values of one decimal, as sensors give them."""
    import numpy as np
    import pyarrow as pa

    from ionbeam_client import wire

    rng, schema = np.random.default_rng(seed), wire.declared_schema(metadata())
    times = np.sort(rng.integers(0, 86_400, size)) * 1_000_000 + int(START.timestamp()) * 1_000_000
    columns = [
        pa.array(times).cast(wire.TIME),
        pa.array(np.round(rng.uniform(40, 60, size), 4)),
        pa.array(np.round(rng.uniform(0, 20, size), 4)),
        pa.array(np.round(rng.normal(15, 8, size), 1)),
        pa.array(np.round(rng.uniform(0, 1, size), 2)),
        pa.array([f"station-{i % 500}" for i in range(size)]),
    ]
    return pa.record_batch(columns, schema=schema)


async def ours(url, rows, size, commands):
    from ionbeam_client import IonbeamClient, IonbeamClientConfig

    config = IonbeamClientConfig(amqp_url=url, state_path=Path("state"), outbox_max_bytes=10**11, close_timeout=600)
    async with IonbeamClient(config) as client:
        await client.wait_until_connected()
        given, described = sweeps(rows, size, commands), metadata()
        begun = time.perf_counter()
        for batches in given:
            await client.ingest(batches, described, START, START + DAY)
        durable = time.perf_counter() - begun
        await client.flush()
        return durable, time.perf_counter() - begun


async def plain(url, rows, size, commands):
    import aio_pika
    import pyarrow.parquet as pq

    from ionbeam_client import wire
    from ionbeam_client.models import IngestDataCommand

    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.declare_queue(wire.INGESTION.name, durable=True)
    given, described = sweeps(rows, size, commands), metadata()
    begun = time.perf_counter()
    for i, batches in enumerate(given):
        with pq.ParquetWriter(f"{i}.parquet", wire.declared_schema(described), compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        command = IngestDataCommand(
            metadata=described, start_time=START, end_time=START + DAY, payload_location=f"{i}.parquet"
        )
        message = aio_pika.Message(wire.json_body(command), delivery_mode=2, message_id=str(command.id))
        await channel.default_exchange.publish(message, wire.INGESTION.name)
    took = time.perf_counter() - begun
    await connection.close()
    return took, took


async def to_the_handler(url, rows, size, commands):
    """From publishing a dataset's event to the first line of the handler, and to the last batch."""
    from ionbeam_client import IonbeamClient, IonbeamClientConfig, wire
    from ionbeam_client.amqp import AmqpTransport
    from ionbeam_client.models import DataSetAvailableEvent, DatasetMetadata
    from ionbeam_client.transport import Outgoing

    called, read = [], asyncio.Event()
    config = IonbeamClientConfig(amqp_url=url, state_path=Path("state"))
    client = IonbeamClient(config)

    @client.register_export_handler("benchmark")
    async def export(event, batch_stream):
        called.append(time.perf_counter())
        async for _ in batch_stream:
            pass
        read.set()

    transport = AmqpTransport(config)
    await transport.open()
    await transport.connected()
    first, last = [], []
    async with client:
        await client.wait_until_connected()
        await transport.fetch(wire.exporter_queue("benchmark"))
        batches = [batch_of(size, 0)]
        for i in range(commands):
            hour = START + timedelta(hours=i)
            event = DataSetAvailableEvent(
                metadata=DatasetMetadata(name="benchmark"), dataset_location="inline",
                start_time=hour, end_time=hour + timedelta(hours=1),
            )  # fmt: skip
            body = wire.with_rows(event, batches[0].schema, batches)
            read.clear()
            begun = time.perf_counter()
            await transport.broadcast(wire.DATASET_EXCHANGE, Outgoing(str(event.id), body, wire.ARROW))
            await read.wait()
            first.append(called[-1] - begun)
            last.append(time.perf_counter() - begun)
    await transport.close()
    return statistics.median(first), statistics.median(last)


def measured(name, url, rows, size, commands):
    """(seconds to the first mark, seconds to the second, peak MB) of a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(Path(__file__).absolute()),
            "--side",
            name,
            url,
            str(rows),
            str(size),
            str(commands),
        ]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def drain(url):
    """Empty the ingestion queue, so that every measurement meets the same broker."""
    import aio_pika

    from ionbeam_client import wire

    async def run():
        connection = await aio_pika.connect(url)
        channel = await connection.channel()
        queue = await channel.declare_queue(wire.INGESTION.name, durable=True)
        await queue.purge()
        await connection.close()

    asyncio.run(run())


def compare(url, what, unit, total, rows, size, commands):
    results = {}
    for name in ("ours", "plain"):
        results[name] = measured(name, url, rows, size, commands)
        drain(url)
    (durable, confirmed, peak), (_, other, other_peak) = results["ours"], results["plain"]
    print(
        f"  {what:<30}{total / durable:12,.0f}{total / confirmed:12,.0f}{total / other:12,.0f}"
        f"{other / confirmed:9.2f}{peak:9.0f}{other_peak:9.0f}  {unit}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the longest stream")
    parser.add_argument("--side", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        name, url, *sizes = given.side
        side = {"ours": ours, "plain": plain, "handler": to_the_handler}[name]
        marks = asyncio.run(side(url, *map(int, sizes)))
        print(json.dumps([*marks, peak_megabytes()]))
        return

    from servers import RabbitMQ, why_no_rabbitmq

    if reason := why_no_rabbitmq():
        print(f"client: {reason}")
        return
    with tempfile.TemporaryDirectory() as folder:
        server = RabbitMQ(Path(folder))
        server.start()
        try:
            print("client: per second, until durable here, until confirmed by the broker, and the plain script")
            print(f"  {'':<30}{'durable':>12}{'confirmed':>12}{'plain':>12}{'ratio':>9}{'MB':>9}{'plain MB':>9}")
            for rows in (given.rows // 10, given.rows):
                size = min(BATCH, rows)
                compare(server.url, f"one stream of {rows:,} rows", "rows", rows, rows, size, 1)
            commands = max(10, given.rows // 20_000)
            compare(server.url, f"{commands} sweeps of 1,000 rows", "sweeps", commands, 1000, 1000, commands)
            for size in (1_000, 20_000):
                first, last, _ = measured("handler", server.url, size, size, EVENTS)
                marks = f"handler called after {first * 1e3:.1f} ms, rows read after {last * 1e3:.1f} ms"
                print(f"  event of {size:,} rows: {marks}")
        finally:
            server.close()


if __name__ == "__main__":
    main()
