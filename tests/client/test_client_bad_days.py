"""The client on days when the broker is there and refuses, or the line swallows."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import timedelta

import aio_pika
import pytest
from client_samples import END, METADATA, SCHEMA, START, event, rows
from servers import Line

from ionbeam_client import (
    IonbeamClient,
    IonbeamClientConfig,
    IonbeamError,
    SyncIonbeamClient,
    cli,
    engine,
    ingest,
    wire,
)
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.transport import Outgoing

HOUR = timedelta(hours=1)


async def ingest_hours(client, count, first=0):
    for hour in range(first, first + count):
        await client.ingest(rows(5, first=hour), METADATA, START + hour * HOUR, START + (hour + 1) * HOUR)
        await asyncio.sleep(0.05)


def test_an_alarm_of_the_broker_is_told_ends_and_everything_is_sent(rabbitmq, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "SILENT_FOR", 1.0)
    status = ["--state-path", str(tmp_path), "status"]
    config = IonbeamClientConfig(amqp_url=rabbitmq.url, state_path=tmp_path, heartbeat=1)

    async def run():
        async with IonbeamClient(config) as client:
            client.register_export_handler("alarmed", lambda event, stream: None)
            assert await client.wait_until_connected(30)
            await ingest_hours(client, 3)
            rabbitmq.ctl("set_vm_memory_high_watermark", "0.0001")
            try:
                await ingest_hours(client, 30, first=3)
                await asyncio.sleep(6)
                assert await asyncio.to_thread(cli.main, status) == 1
            finally:
                rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
            assert await client.flush(40)

    asyncio.run(run())
    assert "confirmed nothing for 1 s: it has no room (an alarm" in capsys.readouterr().out
    assert cli.main(status) == 0


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp://guest:wrong@127.0.0.1:{port}/", "it refused user and password"),
        ("amqp://guest:guest@127.0.0.1:{port}/nowhere", "it has no such virtual host, or this user may not use it"),
        ("amqp://guest:guest@127.0.0.1:9/", "Connect call failed"),
    ],
)
def test_why_nothing_can_be_sent_is_told(rabbitmq, tmp_path, caplog, capsys, monkeypatch, url, told):
    monkeypatch.setattr(cli, "CONNECT_TIMEOUT", 2.0)
    where = ["--state-path", str(tmp_path)]
    url = url.format(port=rabbitmq.port)
    config = IonbeamClientConfig(amqp_url=url, state_path=tmp_path, close_timeout=1.5)
    ingest(rows(2), METADATA, START, END, config)
    assert cli.main([*where, "status"]) == 1
    [trouble] = [line for line in capsys.readouterr().out.splitlines() if "nothing could be sent" in line]
    assert told in trouble
    assert caplog.text.count(f"does not answer ({told}") <= 1, "it is told once"
    assert cli.main(["--amqp-url", url, *where, "dead", "list", "--queue", "any"]) == 1
    assert told in capsys.readouterr().err


def test_a_line_that_swallowed_for_a_while_is_told_and_everything_is_sent(rabbitmq, tmp_path, capsys):
    line, state = Line(rabbitmq.port), tmp_path / "state"

    async def run():
        async with line.open() as port:
            url = f"amqp://guest:guest@127.0.0.1:{port}/"
            config = IonbeamClientConfig(amqp_url=url, state_path=state, heartbeat=1)
            async with IonbeamClient(config) as client:
                client.register_export_handler("swallowed", lambda event, stream: None)
                assert await client.wait_until_connected(30)
                await ingest_hours(client, 3)
                line.hole = True
                began = time.monotonic()
                await ingest_hours(client, 20, first=3)
                while time.monotonic() < began + 8:
                    await asyncio.sleep(0.2)
                assert await asyncio.to_thread(cli.main, ["--state-path", str(state), "status"]) == 1
                line.hole = False
                assert await client.flush(60)
                assert await asyncio.to_thread(cli.main, ["--state-path", str(state), "status"]) == 0

    asyncio.run(run())
    away, well = capsys.readouterr().out.split("outbox:")[1:]
    assert "nothing could be sent since" in away and "20 messages" in away
    assert "0 messages" in well and "since" not in well


def test_what_the_broker_refuses_is_told_and_flush_is_not_true(rabbitmq, tmp_path, caplog, capsys):
    rabbitmq.ctl("add_user", "reader", "pw")
    rabbitmq.ctl("set_permissions", "reader", "", "", ".*")
    url = rabbitmq.url.replace("guest:guest", "reader:pw")
    config = IonbeamClientConfig(amqp_url=url, state_path=tmp_path, close_timeout=0)

    async def run():
        async with IonbeamClient(config) as client:
            await ingest_hours(client, 1)
            assert await asyncio.wait_for(client.flush(), 30) is False
            assert await client.flush(0.2) is False

    asyncio.run(run())
    assert "refused" in caplog.text and "1 messages still wait" in caplog.text
    assert cli.main(["--state-path", str(tmp_path), "outbox", "list", "--refused"]) == 0
    assert "ACCESS_REFUSED" in capsys.readouterr().out


def test_who_may_write_but_not_declare_sends_into_queues_that_are_there(rabbitmq, tmp_path):
    async def run():
        transport = AmqpTransport(IonbeamClientConfig(amqp_url=rabbitmq.url))
        await transport.open()
        await asyncio.wait_for(transport.connected(), 30)
        while (found := await transport.fetch(wire.INGESTION)) is not None:
            await found.ack()
        await transport.close()
        rabbitmq.ctl("add_user", "writer", "pw")
        rabbitmq.ctl("set_permissions", "writer", "", "amq.default", "")
        url = rabbitmq.url.replace("guest:guest", "writer:pw")
        async with IonbeamClient(IonbeamClientConfig(amqp_url=url, state_path=tmp_path)) as client:
            await ingest_hours(client, 2)
            assert await client.flush(30)

    asyncio.run(run())


def test_a_queue_that_was_made_otherwise_and_goes_is_made_again(rabbitmq, tmp_path):
    config = IonbeamClientConfig(amqp_url=rabbitmq.url, state_path=tmp_path)

    async def run():
        connection = await aio_pika.connect(rabbitmq.url)
        async with connection, connection.channel() as channel:
            await channel.queue_delete(wire.INGESTION.name)
            arguments = {"x-max-length": 1000}
            there = await channel.declare_queue(wire.INGESTION.name, durable=True, arguments=arguments)
            async with IonbeamClient(config) as client:
                await ingest_hours(client, 1)
                assert await client.flush(20)
                await there.delete(if_unused=False, if_empty=False)
                rabbitmq.ctl("close_all_connections", "it is made anew")
                await ingest_hours(client, 1, first=1)
                assert await client.flush(20)
        again = await aio_pika.connect(rabbitmq.url)
        async with again, again.channel() as channel:
            made = await channel.declare_queue(wire.INGESTION.name, durable=True)
            assert made.declaration_result.message_count == 1

    asyncio.run(run())


def test_thousands_of_parked_messages_are_listed_in_seconds_and_stay(rabbitmq, tmp_path, capsys):
    dead, count = wire.Queue("many").dead, 4_000

    async def park():
        transport = AmqpTransport(IonbeamClientConfig(amqp_url=rabbitmq.url))
        await transport.open()
        await asyncio.wait_for(transport.connected(), 30)
        for first in range(0, count, 500):
            messages = [
                Outgoing(f"m{n}", b"x", headers={wire.ERROR_HEADER: f"why {n}"}) for n in range(first, first + 500)
            ]
            await asyncio.gather(*(transport.publish(dead, message) for message in messages))
        await transport.close()

    asyncio.run(park())
    for _ in range(2):
        assert cli.main(["--amqp-url", rabbitmq.url, "dead", "list", "--queue", "many"]) == 0
        listed = capsys.readouterr().out
        assert listed.count("why ") == count and f"{count} dead messages" in listed


def test_a_wrong_virtual_host_is_told_once(rabbitmq, caplog):
    async def run():
        transport = AmqpTransport(IonbeamClientConfig(amqp_url=f"{rabbitmq.url}nowhere"))
        await transport.open()
        await asyncio.sleep(2)
        await transport.close()

    asyncio.run(run())
    assert caplog.text.count("it has no such virtual host, or this user may not use it") == 1


@pytest.mark.parametrize("queues", ["classic", "quorum"])
def test_two_clients_of_one_name_one_serves_and_the_other_takes_over(rabbitmq, tmp_path, caplog, queues):
    """A window in parts would be handled by neither if both served."""
    called = {"first": [], "second": []}

    def client(name):
        config = IonbeamClientConfig(
            amqp_url=rabbitmq.url, state_path=tmp_path / name, heartbeat=1, queues=queues
        )  # fmt: skip
        client = IonbeamClient(config)
        client.register_export_handler(f"one_name_{queues}", lambda event, stream: called[name].append(event.revision))
        return client

    async def announce(*revisions):
        for revision in revisions:
            message = event(revision)
            body = wire.with_rows(message, SCHEMA, rows(3).to_batches())
            await transport.broadcast(wire.DATASET_EXCHANGE, Outgoing(str(message.id), body, wire.ARROW))

    async def until_called(name, revisions):
        for _ in range(400):
            if called[name] == revisions:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(called)

    transport = AmqpTransport(IonbeamClientConfig(amqp_url=rabbitmq.url))

    async def run():
        await transport.open()
        await asyncio.wait_for(transport.connected(), 30)
        async with client("first") as first:
            await first.wait_until_connected(30)
            async with client("second") as second:
                await second.wait_until_connected(30)
                await announce(1, 2, 3, 4)
                await until_called("first", [1, 2, 3, 4])
                assert called["second"] == []
                await first.__aexit__(None, None, None)
                await announce(5, 6)
                await until_called("second", [5, 6])
                await first.__aenter__()
        await transport.close()

    asyncio.run(run())
    assert caplog.text.count("another client serves") == 1


def test_a_forked_process_is_told_to_open_a_client_of_its_own(tmp_path):
    with SyncIonbeamClient(
        IonbeamClientConfig(amqp_url="amqp://127.0.0.1:9/", state_path=tmp_path, close_timeout=0)
    ) as one:
        child = os.fork()
        if not child:
            try:
                one.ingest(rows(1), METADATA, START, END)
            except IonbeamError as error:
                os._exit(0 if "fork" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        one.ingest(rows(1), METADATA, START, END)


def test_a_forked_process_can_not_open_what_its_parent_has_open_and_can_open_another_place(tmp_path):
    """It would take the parent's locks for held for ever, and its messages would wait without a word."""

    def config(name):
        url = "amqp://127.0.0.1:9/"
        return IonbeamClientConfig(amqp_url=url, state_path=tmp_path / name, close_timeout=0)

    def in_a_child(name):
        child = os.fork()
        if not child:
            try:
                with SyncIonbeamClient(config(name)) as mine:
                    mine.ingest(rows(1), METADATA, START, END)
                os._exit(0)
            except IonbeamError as error:
                os._exit(1 if "forked while a client had" in str(error) else 2)
            finally:
                os._exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with SyncIonbeamClient(config("one")):
        assert in_a_child("one") == 1 and in_a_child("other") == 0
    assert in_a_child("one") == 0, "it is closed"


def test_a_full_disk_is_said_and_what_was_ingested_before_stays(tmp_path):
    config = IonbeamClientConfig(amqp_url="amqp://127.0.0.1:9/", state_path=tmp_path, close_timeout=0)
    with SyncIonbeamClient(config) as client:
        client.ingest(rows(1), METADATA, START, END)
        disk = client._client._outbox._db._connection
        disk.execute("PRAGMA max_page_count = 1")  # no larger than it is
        with pytest.raises(IonbeamError, match=r"the disk of .*outbox.sqlite is full; make room"):
            client.ingest(rows(20_000), METADATA, START, END)
        disk.execute("PRAGMA max_page_count = 1000000")
        client.ingest(rows(2), METADATA, START, END)
        assert client._client._outbox.count() == 2


def test_a_client_that_can_not_be_opened_leaves_no_thread(tmp_path):
    (tmp_path / "file").touch()
    config = IonbeamClientConfig(amqp_url="amqp://127.0.0.1:9/", state_path=tmp_path / "file" / "state")
    with pytest.raises(NotADirectoryError):
        SyncIonbeamClient(config).__enter__()
    assert not [one for one in threading.enumerate() if one.name == "ionbeam-client-loop"]


def test_a_folder_in_which_no_client_was_is_told_and_not_made(tmp_path, capsys):
    for command in (["status"], ["outbox", "list"], ["outbox", "flush"]):
        assert cli.main(["--state-path", str(tmp_path / "mistyped"), *command]) == 1
        assert "no client has kept anything in" in capsys.readouterr().err
    assert not (tmp_path / "mistyped").exists()


def test_ingest_in_one_call_can_replace(tmp_path):
    config = IonbeamClientConfig(amqp_url="amqp://127.0.0.1:9/", state_path=tmp_path, close_timeout=0)
    one = ingest(rows(2), METADATA, START, END, config)
    other = ingest(rows(2), METADATA, START, END, config, replaces=True)
    assert one.id != other.id, "what replaces is another ingestion than what adds"


def test_a_certificate_file_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        IonbeamClientConfig(tls_ca_file=tmp_path / "none.pem")
