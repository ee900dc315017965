"""The bridge against a real RabbitMQ: commands a second taken in, and the time from `ingest()` to the export handler.

The alternative takes the same messages as a plain consumer would: it reads one, writes its Parquet file and a line in
SQLite durably, acknowledges it, and reads the next. A process for each measurement; `--commands` and `--rows` make it
smaller. The way to the handler is timed step by step where `ionbeam dev` is the whole platform, and where `ionbeam
bridge` runs beside it.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measure import peak_megabytes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

START = datetime(2026, 6, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
CONFIG = """
sources:
  crowd: {{kind: external, start: 2026-06-21, aggregation_span: PT1H}}
broker: {{url: '{url}'}}
"""


def platform_on(url):
    from ionbeam_dagster.config import IonbeamConfig
    from ionbeam_dagster.pipeline.recovery import open_platform

    Path("config.yaml").write_text(CONFIG.format(url=url))
    return open_platform(IonbeamConfig.load(Path("config.yaml")))


def metadata():
    from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata

    names = {"air_temperature": "degC", "relative_humidity": "%"}
    return IngestionMetadata(
        dataset=DatasetMetadata(name="crowd", aggregation_span=HOUR),
        ingestion_map=DataIngestionMap(
            canonical_variables=[CanonicalVariable(column=n, standard_name=n, cf_unit=u) for n, u in names.items()],
            metadata_variables=[{"column": "station_id"}],
        ),
    )


def batch_of(rows, seed, start=START):
    """Rows with values of one decimal, as sensors give them."""
    import numpy as np
    import pyarrow as pa

    from ionbeam_client import wire

    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 3_600, rows)) * 1_000_000 + int(start.timestamp()) * 1_000_000
    columns = [
        pa.array(times).cast(wire.TIME),
        pa.array(np.round(rng.uniform(40, 60, rows), 4)),
        pa.array(np.round(rng.uniform(0, 20, rows), 4)),
        pa.array(np.round(rng.normal(15, 8, rows), 1)),
        pa.array(np.round(rng.uniform(0, 100, rows), 1)),
        pa.array([f"station-{seed}-{i % 500}" for i in range(rows)]),
    ]
    return pa.record_batch(columns, schema=wire.declared_schema(metadata()))


async def fill(url, commands, rows):
    """Put the commands into the queue."""
    import aio_pika

    from ionbeam_client import wire
    from ionbeam_client.models import IngestDataCommand

    described, schema = metadata(), wire.declared_schema(metadata())
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        await channel.declare_queue(wire.INGESTION.name, durable=True)
        for seed in range(commands):
            command = IngestDataCommand(metadata=described, start_time=START, end_time=START + HOUR)
            body = wire.with_rows(command, schema, [batch_of(rows, seed)])
            message = aio_pika.Message(body, delivery_mode=2, message_id=str(command.id))
            await channel.default_exchange.publish(message, wire.INGESTION.name)


def ours(url, commands):
    from ionbeam_dagster.doors.amqp.bridge import bridge_of

    bridge, taken = bridge_of(platform_on(url)), 0
    begun = time.perf_counter()
    while taken < commands:
        taken += sum(bridge.take_in(60).taken.values())
    return time.perf_counter() - begun


def plain(url, commands):
    import sqlite3

    import aio_pika
    import pyarrow.parquet as pq

    from ionbeam_client import wire
    from ionbeam_client.models import IngestDataCommand

    async def consume():
        database = sqlite3.connect("taken.sqlite", isolation_level=None)
        database.execute("CREATE TABLE taken (id TEXT PRIMARY KEY)")
        connection = await aio_pika.connect(url)
        async with connection, connection.channel() as channel:
            await channel.set_qos(prefetch_count=1)
            queue = await channel.declare_queue(wire.INGESTION.name, durable=True)
            taken = 0
            async with queue.iterator() as messages:
                async for message in messages:
                    decoded = wire.decode(IngestDataCommand, message.body)
                    with Path(f"{decoded.message.id}.parquet").open("wb") as file:
                        with pq.ParquetWriter(file, wire.schema_of(decoded.rows), compression="zstd") as writer:
                            for batch in wire.batches(decoded.rows):
                                writer.write_batch(batch)
                        file.flush()
                        os.fsync(file.fileno())
                    database.execute("INSERT INTO taken VALUES (?)", (str(decoded.message.id),))
                    await message.ack()
                    taken += 1
                    if taken == commands:
                        return

    begun = time.perf_counter()
    asyncio.run(consume())
    return time.perf_counter() - begun


def way(url, rows, served_by):
    """Seconds from `ingest()` returning to each step's end, and to the handler; the median of three windows.

    `served_by` is "dev" or "bridge": the platform is `ionbeam dev`, alone or with `ionbeam bridge` beside it.
    """
    from servers import free_port

    from ionbeam_client import IonbeamClient, IonbeamClientConfig
    from ionbeam_dagster.domain.windows import Window

    platform = platform_on(url)
    ionbeam = [Path(sys.executable).with_name("ionbeam"), "--config", "config.yaml"]
    commands = [[*ionbeam, "dev", "--port", str(free_port())]] + [[*ionbeam, "bridge"]] * (served_by == "bridge")
    environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    with Path("served.log").open("w") as log:
        served = [
            subprocess.Popen(c, stdout=log, stderr=log, env=environment, start_new_session=True) for c in commands
        ]

    async def once(client, number, called):
        start, steps = START + number * HOUR, {}
        hour, day = Window(start, start + HOUR), Window(START, START + timedelta(days=1))
        before = len(platform.ledger.sent("crowd", day))
        await client.ingest([batch_of(rows, number, start)], metadata(), start, start + HOUR)
        begun = time.perf_counter()
        for step, is_done in (
            ("taken in", lambda: len(platform.ledger.sent("crowd", day)) > before),
            ("ingested", lambda: platform.ledger.claims("crowd", hour)),
            ("built", lambda: platform.ledger.latest_revision("crowd", hour)),
            ("handler called", lambda: start in called),
        ):
            while not is_done():
                await asyncio.sleep(0.01)
            steps[step] = time.perf_counter() - begun
        return steps

    async def run():
        called = set()
        async with IonbeamClient(IonbeamClientConfig(amqp_url=url, state_path=Path("client"))) as client:

            @client.register_export_handler("bench")
            async def export(event, batch_stream):
                called.add(event.start_time)

            await client.wait_until_connected()
            await once(client, 0, called)  # everything is started by then
            return [await once(client, number, called) for number in range(1, 4)]

    try:
        measured = asyncio.run(run())
    finally:
        for process in served:
            process.send_signal(signal.SIGINT)
        for process in served:
            process.wait(60)
    return {step: statistics.median(one[step] for one in measured) for step in measured[0]}


def measured(given):
    sides = {"ours": ours, "plain": plain}
    if given.side in sides:
        took = sides[given.side](given.url, given.commands)
    else:
        took = way(given.url, given.rows, given.side)
    print(json.dumps([took, peak_megabytes()]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--side", choices=["ours", "plain", "dev", "bridge"])
    parser.add_argument("--url")
    given = parser.parse_args()
    if given.side:
        measured(given)
        return
    from servers import RabbitMQ, why_no_rabbitmq

    if reason := why_no_rabbitmq():
        sys.exit(f"bridge: {reason}")

    def side(name, url):
        command = [sys.executable, str(Path(__file__).absolute()), "--side", name, "--url", url]
        command += ["--commands", str(given.commands), "--rows", str(given.rows)]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as folder:
        broker = RabbitMQ(Path(folder))
        broker.start()
        try:
            print(f"bridge: {given.commands} commands of {given.rows} rows, acknowledged after commit")
            rates = {}
            for name in ("ours", "plain"):
                asyncio.run(fill(broker.url, given.commands, given.rows))
                seconds, peak = side(name, broker.url)
                rates[name] = given.commands / seconds
                print(f"  {name:6} {rates[name]:7.0f} commands/s  {seconds:6.1f} s  peak {peak:5.0f} MB")
            print(f"  ours is {rates['ours'] / rates['plain']:.1f} times as fast")
            whole = {}
            for name, served in (("dev", "ionbeam dev"), ("bridge", "ionbeam dev and ionbeam bridge")):
                steps, _ = side(name, broker.url)
                whole[name] = steps["handler called"]
                print(f"  {served}, from ingest() to: " + ", ".join(f"{step} {at:.1f} s" for step, at in steps.items()))
            print(f"  with the bridge the handler is called {whole['dev'] / whole['bridge']:.1f} times as soon")
        finally:
            broker.close()


if __name__ == "__main__":
    main()
