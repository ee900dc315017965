"""The client against a real RabbitMQ: processes that are killed, a broker that goes away, dead queues, big streams."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from client_samples import END, METADATA, SCHEMA, START, event, rows, until
from servers import RabbitMQ

from ionbeam_client import IonbeamClient, IonbeamClientConfig, cli, wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.models import IngestDataCommand, StartSourceCommand
from ionbeam_client.transport import Outgoing

EXAMPLES = Path(__file__).parents[2] / "examples" / "client"
SPECIFICATION = Path(__file__).parents[2] / ".." / "shared" / "spec" / "ionbeam-client.md"


@pytest.fixture
def config(rabbitmq, tmp_path):
    return IonbeamClientConfig(amqp_url=rabbitmq.url, state_path=tmp_path / "state", retry_delays=(0.1,), heartbeat=2)


@asynccontextmanager
async def connected(url):
    transport = AmqpTransport(IonbeamClientConfig(amqp_url=url))
    await transport.open()
    await asyncio.wait_for(transport.connected(), 30)
    try:
        yield transport
    finally:
        await transport.close()


async def taken(transport, queue=wire.INGESTION):
    """Everything that is in a queue."""
    found = []
    while (delivery := await transport.fetch(queue)) is not None:
        found.append(delivery)
        await delivery.ack()
    return found


async def announce(transport, message, headers=None):
    body = wire.with_rows(message, SCHEMA, rows(3).to_batches())
    await transport.broadcast(wire.DATASET_EXCHANGE, Outgoing(str(message.id), body, wire.ARROW, headers or {}))


def run_python(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    folder = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": folder, **environment}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_what_was_ingested_survives_the_death_of_the_process(rabbitmq, config):
    program = """
        import asyncio, sys
        from client_samples import *
        from ionbeam_client import IonbeamClient, IonbeamClientConfig

        async def main():
            config = IonbeamClientConfig(amqp_url="amqp://127.0.0.1:9/", state_path=sys.argv[1])
            async with IonbeamClient(config) as client:
                for i in range(1000):
                    receipt = await client.ingest(rows(10 + i), METADATA, START, END)
                    print(receipt.id, flush=True)
        asyncio.run(main())
    """
    child = run_python(program, config.state_folder)
    promised = [child.stdout.readline().strip() for _ in range(20)]
    child.kill()
    promised += child.stdout.read().split()
    child.wait()

    async def run():
        async with connected(rabbitmq.url) as transport:
            await taken(transport)
            async with IonbeamClient(config) as client:
                assert await client.flush(20)
            arrived = [delivery.message_id for delivery in await taken(transport)]
        assert arrived[: len(promised)] == promised and len(arrived) <= len(promised) + 1

    asyncio.run(run())


def test_a_handler_that_kills_its_process_is_not_called_for_ever(rabbitmq, config):
    name = f"x{uuid4().hex[:8]}"
    program = """
        import os, sys
        from ionbeam_client import IonbeamClientConfig, SyncIonbeamClient

        def die(start_time, end_time):
            print("called", flush=True)
            os.kill(os.getpid(), 9)

        config = IonbeamClientConfig(amqp_url=sys.argv[1], state_path=sys.argv[2], retry_delays=(0,))
        with SyncIonbeamClient(config) as client:
            client.register_trigger_handler(sys.argv[3], die)
            client.run_forever()
    """

    async def run():
        async with connected(rabbitmq.url) as transport:
            command = StartSourceCommand(source_name=name, start_time=START, end_time=END)
            await transport.publish(wire.source_queue(name), Outgoing(str(command.id), wire.json_body(command)))
            for _ in range(2):
                child = run_python(program, rabbitmq.url, config.state_folder, name)
                assert await asyncio.to_thread(child.communicate, None, 30) == ("called\n", None)
            child, dead = run_python(program, rabbitmq.url, config.state_folder, name), None
            while dead is None and child.poll() is None:
                dead = await transport.fetch(wire.source_queue(name).dead)
                await asyncio.sleep(0.05)
            child.terminate()
            assert await asyncio.to_thread(child.communicate, None, 30) == ("", None)
            assert dead.headers[wire.ERROR_HEADER] == "the process died in the handler"

    asyncio.run(run())


def test_a_broker_that_goes_away_loses_and_doubles_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "broker").mkdir()
    server = RabbitMQ(tmp_path / "broker")
    config = IonbeamClientConfig(amqp_url=server.url, state_path=tmp_path / "state", retry_delays=(0.1,))
    called, sent = [], []

    async def run():
        client, all_announced = IonbeamClient(config), asyncio.Event()

        @client.register_export_handler("x")
        async def export(event, batch_stream):
            called.append(event.id)
            await all_announced.wait()
            if len(called) == 3:
                await asyncio.to_thread(server.kill)  # in the middle of a call

        async with client:
            sent.append((await client.ingest(rows(1), METADATA, START, END)).id)
            assert not await client.wait_until_connected(0.5)
            await asyncio.to_thread(server.start)
            await until(lambda: client._outbox.count() == 0)
            # RabbitMQ writes the names of new queues some seconds late, and forgets a queue with its messages if killed
            await asyncio.to_thread(server.ctl, "eval", "mnesia:sync_log().")
            sent.extend([(await client.ingest(rows(i), METADATA, START, END)).id for i in range(2, 30)])
            announced = [event(hour=hour) for hour in range(5)]
            async with connected(server.url) as transport:
                for message in announced:
                    await announce(transport, message)
            all_announced.set()
            await until(lambda: server.down)
            sent.extend([(await client.ingest(rows(i), METADATA, START, END)).id for i in range(30, 60)])
            await asyncio.to_thread(server.start)
            await until(lambda: client._outbox.count() == 0 and len(set(called)) == 5)
            async with connected(server.url) as transport:
                arrived = {delivery.message_id for delivery in await taken(transport)}
                assert arrived == {str(id) for id in sent}
            assert called == [message.id for message in announced]

    try:
        asyncio.run(run())
    finally:
        server.close()
    told = [record for record in caplog.records if record.name == "ionbeam_client"]
    assert not any(record.exc_info for record in told)
    assert not [record for record in caplog.records if record.name.startswith(("aiormq", "aio_pika", "asyncio"))]
    assert 3 <= len(told) <= 12


def test_a_queue_that_is_deleted_is_there_again(rabbitmq, config):
    async def run():
        client, called = IonbeamClient(config), []
        name = f"x{uuid4().hex[:8]}"
        client.register_export_handler(name, lambda event, batch_stream: called.append(event.id))
        async with client, connected(rabbitmq.url) as transport:
            await client.wait_until_connected(10)
            await until(lambda: client._engine._transport._consuming)
            channel = await transport._channel("fetch")
            await channel.queue_delete(wire.exporter_queue(name).name)
            message = event()
            deadline = time.monotonic() + 15
            while not called and time.monotonic() < deadline:
                await announce(transport, message)
                await asyncio.sleep(0.2)
            assert called == [message.id]

    asyncio.run(run())


def test_a_consumer_that_is_added_while_the_connection_is_made_gets_its_messages(rabbitmq, config, monkeypatch):
    first, second = (wire.source_queue(f"{name}{uuid4().hex[:8]}") for name in "ab")
    start, got = AmqpTransport._start_consumer, []

    async def receive(delivery):
        got.append(delivery.body)
        await delivery.ack()

    async def start_slowly(transport, queue, receive):
        if queue == first:
            await transport.consume(second, receive)
        await start(transport, queue, receive)

    async def run():
        transport = AmqpTransport(config)
        with monkeypatch.context() as slow:
            slow.setattr(AmqpTransport, "_start_consumer", start_slowly)
            await transport.open()
            await transport.consume(first, receive)
            await asyncio.wait_for(transport.connected(), 20)
        await transport.publish(second, Outgoing("m", b"arrived"))
        await until(lambda: got, 5)
        await transport.close()

    asyncio.run(run())


@pytest.mark.parametrize("failure", [Exception("closed"), asyncio.CancelledError()])
def test_nothing_that_goes_wrong_while_connecting_ends_the_attempts(rabbitmq, config, monkeypatch, failure):
    """The library fails what waits for a lost connection with whatever was at hand."""
    failures, start = [failure, failure], AmqpTransport._start_consumer

    async def fail_at_first(transport, queue, receive):
        if failures:
            raise failures.pop()
        await start(transport, queue, receive)

    async def run():
        monkeypatch.setattr(AmqpTransport, "_start_consumer", fail_at_first)
        transport = AmqpTransport(config)
        await transport.open()
        await transport.consume(wire.source_queue("x"), None)
        await asyncio.wait_for(transport.connected(), 20)
        await transport.close()

    asyncio.run(run())


def test_a_loop_that_ends_takes_a_connection_that_nobody_closed_with_it(rabbitmq, config):
    async def run():
        transport = AmqpTransport(config)
        await transport.open()
        await asyncio.wait_for(transport.connected(), 20)

    program = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    program.start()
    program.join(20)
    assert not program.is_alive()


def test_a_handler_that_blocks_longer_than_the_heartbeat_keeps_its_connection(rabbitmq, config, caplog):
    caplog.set_level(logging.INFO, "ionbeam_client")

    async def run():
        client, called = IonbeamClient(config.model_copy(update={"heartbeat": 1})), []
        name = f"slow{uuid4().hex[:8]}"

        @client.register_trigger_handler(name)
        async def fetch(start_time, end_time):
            called.append(start_time)
            time.sleep(4)

        async with client, connected(rabbitmq.url) as transport:
            command = StartSourceCommand(source_name=name, start_time=START, end_time=END)
            await transport.publish(wire.source_queue(name), Outgoing(str(command.id), wire.json_body(command)))
            await until(lambda: called and not client.busy)
        assert called == [START]

    asyncio.run(run())
    assert not [record for record in caplog.records if "lost" in record.message]


def test_dead_messages_are_shown_sent_back_and_dropped(rabbitmq, config, capsys):
    name = f"x{uuid4().hex[:8]}"
    queue, works = wire.exporter_queue(name), []
    messages = [event(hour=hour) for hour in range(3)]

    def command(*arguments: str) -> str:
        assert cli.main(["--amqp-url", rabbitmq.url, "--state-path", str(config.state_folder), *arguments]) == 0
        return capsys.readouterr().out

    def export(event, batch_stream):
        if not works:
            raise ValueError("the disk is full")
        works.append(event.id)

    async def serve(publish, until_this):
        client = IonbeamClient(config)
        client.register_export_handler(name, export)
        async with client, connected(rabbitmq.url) as transport:
            await until(lambda: queue in client._engine._transport._consuming)
            for message in publish:
                await announce(transport, message)
                await transport.publish(queue, Outgoing("poison", b"?"))
            await until(lambda: until_this(client) and not client.busy)

    asyncio.run(serve(messages[:1], lambda client: client._inbox.counts().get(queue.name) == {"parked": 1}))
    asyncio.run(serve(messages[1:], lambda client: client._inbox.counts().get(queue.name) == {"parked": 3}))
    listed = command("dead", "list")
    assert listed.count("the disk is full") == 3 and "neither JSON nor" in listed and "6 dead messages" in listed
    shown = command("dead", "show", str(messages[0].id))
    assert "Traceback" in shown and "example_weather" in shown and "x-ionbeam-attempts: 2" in shown
    command("dead", "drop", "poison", "--exporter", name)
    assert cli.main(["--amqp-url", rabbitmq.url, "dead", "drop", "poison", "--exporter", name]) == 1
    command("dead", "requeue", str(messages[0].id))
    assert "2 dead messages" in command("dead", "requeue", "--all", "--exporter", name)
    works.append("mended")
    asyncio.run(serve([], lambda client: len(works) == 4))
    assert works[1:] == [message.id for message in messages]
    assert "0 dead messages" in command("dead", "list")


def test_the_outbox_is_listed_exported_and_flushed(rabbitmq, config, capsys, tmp_path):
    away = ["--amqp-url", "amqp://127.0.0.1:9/", "--state-path", str(config.state_folder)]

    async def ingest():
        settings = {"amqp_url": "amqp://127.0.0.1:9/", "close_timeout": 0.0}
        async with IonbeamClient(config.model_copy(update=settings)) as client:
            return await client.ingest(rows(10), METADATA, START, END)

    receipt = asyncio.run(ingest())
    assert cli.main([*away, "outbox", "list"]) == 0
    assert f"{receipt.id}  10 rows" in capsys.readouterr().out
    assert cli.main([*away, "outbox", "export", str(tmp_path / "stick")]) == 0
    carried = wire.decode(IngestDataCommand, (tmp_path / "stick" / f"{receipt.id}.arrow").read_bytes())
    assert pa.Table.from_batches(wire.batches(carried.rows)).equals(rows(10))
    assert cli.main([*away, "outbox", "flush", "--timeout", "0.5"]) == 1
    assert cli.main(["--amqp-url", rabbitmq.url, *away[2:], "outbox", "flush", "--timeout", "20"]) == 0
    assert "everything is sent" in capsys.readouterr().out


def test_memory_does_not_grow_with_the_stream(rabbitmq, tmp_path):
    program = """
        import asyncio, resource, sys
        import numpy as np, pyarrow as pa
        from client_samples import *
        from ionbeam_client import IonbeamClient, IonbeamClientConfig

        def stream(count):
            rng = np.random.default_rng(0)
            base = rows(10_000)
            for _ in range(count // 10_000):
                yield base.set_column(3, SCHEMA.field("t"), pa.array(rng.normal(size=10_000)))

        async def main():
            config = IonbeamClientConfig(amqp_url=sys.argv[1], state_path=sys.argv[2], close_timeout=0)
            async with IonbeamClient(config) as client:
                for count in (200_000, 2_000_000):
                    receipt = await client.ingest(stream(count), METADATA, START, END)
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                    print(receipt.rows, receipt.bytes, peak, flush=True)
        asyncio.run(main())
    """
    child = run_python(program, "amqp://127.0.0.1:9/", tmp_path / "state")
    output, _ = child.communicate(timeout=60)
    small, large = ([int(word) for word in line.split()] for line in output.splitlines())
    assert large[0] == 2_000_000 and large[1] > 9 * small[1]
    assert large[2] - small[2] < 40, f"peak memory went from {small[2]} to {large[2]} MB"


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="the specification is not here")
def test_the_examples_are_the_programs_of_the_specification():
    programs = re.findall(r"```python\n(.*?)```", SPECIFICATION.read_text(), re.DOTALL)[1:]
    names = ("basic_ingestion", "scheduled_ingestion", "export", "filtered_export")
    assert len(programs) == len(names)
    for name, program in zip(names, programs, strict=True):
        assert program in (EXAMPLES / f"{name}.py").read_text(), name


def test_run_forever_stops_cleanly_on_sigterm(rabbitmq, tmp_path):
    program = """
        import sys
        from client_samples import *
        from ionbeam_client import IonbeamClientConfig, SyncIonbeamClient

        with SyncIonbeamClient(IonbeamClientConfig(amqp_url=sys.argv[1], state_path=sys.argv[2])) as client:
            print(client.ingest(rows(5), METADATA, START, END).id, flush=True)
            client.run_forever()
        print("stopped", flush=True)
    """
    child = run_python(program, rabbitmq.url, tmp_path / "state")
    assert child.stdout.readline()
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=20)[0] == "stopped\n" and child.returncode == 0
