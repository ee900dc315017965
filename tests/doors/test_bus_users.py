"""Who may send what, who may do what on the broker, and how a client hears of what was parked: with real users."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import shlex
import time
from datetime import UTC, datetime

import aio_pika
import pytest
from aiormq.exceptions import ChannelAccessRefused
from bus_samples import DAY, FIRST_DAY, METADATA, START, body, built_day, command, connected, rows, send, waiting
from typer.testing import CliRunner

from ionbeam_client import IonbeamClient, IonbeamClientConfig, wire
from ionbeam_client import cli as client_cli
from ionbeam_client.transport import Outgoing
from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.doors.amqp.queues import time_of_broker
from ionbeam_dagster.doors.amqp.status import bus_status
from ionbeam_dagster.pipeline.ingest import ingest

SOURCES = """
  my_source: {kind: external, dataset: example_weather, start: 2024-01-01, aggregation_span: P1D,
    senders: [oslo, guest]}
  other_source: {kind: external, dataset: other_weather, start: 2024-01-01, aggregation_span: P1D, senders: [bergen]}
"""


@pytest.fixture(scope="module")
def permitted(rabbitmq, tmp_path_factory):
    """The broker with the users oslo, bergen and keeper, who have the permissions that the platform prints."""
    for user in ("oslo", "bergen", "keeper"):
        rabbitmq.ctl("add_user", user, "pw")
    config = tmp_path_factory.mktemp("permissions") / "config.yaml"
    config.write_text(f"sources:\n{SOURCES}\nbroker: {section(rabbitmq.url)}")
    asked = ["--exporter", "bergen=bergen_archive"]
    printed = CliRunner().invoke(app, ["--config", str(config), "broker", "permissions", *asked])
    assert printed.exit_code == 0, printed.output
    for line in printed.output.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "rabbitmqctl"
        rabbitmq.ctl(*arguments)
    yield
    for user in ("oslo", "bergen", "keeper"):
        rabbitmq.ctl("delete_user", user)
    rabbitmq.ctl("set_permissions", "-p", "/", "guest", ".*", ".*", ".*")


def section(url):
    return f"{{url: '{url}', operators: [keeper]}}"


@pytest.fixture
def users(permitted, broker, platform_of):
    """A platform whose sources have senders, and the address of each user."""
    platform = platform_of(SOURCES, broker=section(broker))
    bridge_of(platform).take_in(5)
    return platform, {user: broker.replace("guest:guest", f"{user}:pw") for user in ("oslo", "bergen", "keeper")}


def sent_by(url, state, *ingestions, wait_for=lambda client: True):
    """A client that sends, and then waits for what it hears."""

    async def run():
        config = IonbeamClientConfig(amqp_url=url, state_path=state, close_timeout=0)
        async with IonbeamClient(config) as client:
            for table, metadata in ingestions:
                await client.ingest(table, metadata, START, START + DAY, replaces=not table.num_rows)
            assert await client.flush(30)
            for _ in range(400):
                if wait_for(client):
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("it was not heard")

    asyncio.run(run())


def test_another_client_can_not_replace_a_sources_window_and_hears_why(users, tmp_path, capsys, caplog):
    platform, urls = users
    sent_by(urls["oslo"], tmp_path / "oslo", (rows(), METADATA))
    sent_by(urls["bergen"], tmp_path / "bergen", (rows(0), METADATA))
    turn = bridge_of(platform).take_in(20)
    assert turn.taken == {wire.INGESTION.name: 1}
    assert turn.refused == [
        f"user 'bergen' may not send my_source (sources.my_source.senders in {platform.config.path})"
    ]
    ingest(platform, platform.source("my_source"), FIRST_DAY)
    assert built_day(platform).height == 24
    told = "\n".join(bus_status(platform.ledger).lines())
    assert "my_source: 1 messages of bergen are parked" in told

    sent_by(urls["bergen"], tmp_path / "bergen", wait_for=lambda client: client._outbox.parked())
    assert "could not take message" in caplog.text
    state = ["--state-path", str(tmp_path / "bergen")]
    assert client_cli.main([*state, "status"]) == 1
    assert "1 could not be taken by the platform" in capsys.readouterr().out
    assert client_cli.main([*state, "outbox", "list", "--refused"]) == 0
    assert "user 'bergen' may not send my_source" in capsys.readouterr().out
    assert client_cli.main([*state, "outbox", "forget", "--all"]) == 0 == client_cli.main([*state, "status"])


def test_what_was_parked_is_sent_back_by_an_operator_in_the_name_of_its_sender(users, tmp_path, capsys):
    platform, urls = users
    sent_by(urls["bergen"], tmp_path / "bergen", (rows(), METADATA))
    assert len(bridge_of(platform).take_in(20).refused) == 1
    back = ["dead", "requeue", "--all", "--queue", wire.INGESTION.name]
    for url in (urls["keeper"], platform.config.sections.broker.url):
        assert client_cli.main(["--amqp-url", url, *back]) == 0
        [reason] = bridge_of(platform).take_in(20).refused
        assert "user 'bergen' may not send" in reason


def test_the_platforms_user_may_ask_what_time_the_broker_has_and_leaves_nothing(users, rabbitmq):
    platform, _ = users
    asked = datetime.now(UTC).replace(microsecond=0)
    assert asked <= time_of_broker(platform.config.sections.broker) <= datetime.now(UTC)
    assert "ionbeam.probe" not in rabbitmq.ctl("list_queues", "name")


def test_a_client_of_an_earlier_version_goes_on_where_everybody_may_send(users, platform_of, broker):
    async def send_without_a_name(url):
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            message = aio_pika.Message(body(command()), message_id="old")
            await channel.default_exchange.publish(message, routing_key=wire.INGESTION.name)

    platform, urls = users
    asyncio.run(send_without_a_name(urls["oslo"]))
    assert "does not say who sent it" in bridge_of(platform).take_in(20).refused[0]
    everybody = platform_of(SOURCES.replace("senders: [oslo, guest]", ""), broker=f"{{url: '{broker}'}}")
    asyncio.run(send_without_a_name(urls["oslo"]))
    assert bridge_of(everybody).take_in(20).taken == {wire.INGESTION.name: 1}


def test_the_platform_writes_into_no_other_queue_than_its_clients_own(users, broker):
    platform, urls = users
    victim = wire.source_queue("other_source")

    async def forge():
        async with connected(broker) as transport:
            await transport.publish(victim, Outgoing("first", b"{}"))
        async with connected(urls["bergen"]) as transport:
            await transport.publish(wire.INGESTION, Outgoing("m", b"{}", reply_to=victim.name))
            await transport.publish(wire.INGESTION, Outgoing("m", b"{}", reply_to="ionbeam.returned.oslo.0"))

    asyncio.run(forge())
    assert len(bridge_of(platform).take_in(20).refused) == 2
    assert [one.message_id for one in waiting(broker, victim)] == ["first"]


def test_a_client_can_neither_read_anothers_triggers_nor_delete_a_queue_nor_say_it_is_another(users, broker):
    _, urls = users
    send(broker, b"{}", queue=wire.source_queue("other_source"))

    async def tries(act):
        async with await aio_pika.connect(urls["oslo"]) as connection:
            channel = await connection.channel()
            await act(channel)

    async def read(channel):
        await (await channel.declare_queue(wire.source_queue("other_source").name, passive=True)).get()

    async def purge(channel):
        await (await channel.declare_queue(wire.INGESTION.name, passive=True)).purge()

    async def delete(channel):
        await channel.queue_delete(wire.INGESTION.name)

    async def listen(channel):
        queue = await channel.declare_queue("ionbeam.returned.oslo.0", durable=True)
        await queue.bind(wire.DATASET_EXCHANGE)

    async def forge(channel):
        message = aio_pika.Message(b"", user_id="bergen")
        await channel.default_exchange.publish(message, routing_key=wire.INGESTION.name)

    for act in (read, purge, delete, listen):
        with pytest.raises(ChannelAccessRefused):
            asyncio.run(tries(act))
    with pytest.raises(Exception, match="user_id property set to 'bergen'"):
        asyncio.run(tries(forge))


def test_an_exporter_of_few_rights_gets_what_is_built(users, tmp_path):
    platform, urls = users
    received = []

    async def run():
        config = IonbeamClientConfig(amqp_url=urls["bergen"], state_path=tmp_path)
        async with IonbeamClient(config) as client:
            client.register_export_handler("bergen_archive", lambda event, stream: received.append(event.revision))
            assert await client.wait_until_connected(30)
            await asyncio.sleep(0.5)
            assert bridge_of(platform).intake.ingestions([body(command())], ["oslo"]) == [None]
            await asyncio.to_thread(ingest, platform, platform.source("my_source"), Window(START, START + DAY))
            await asyncio.to_thread(built_day, platform)
            await asyncio.to_thread(bridge_of(platform).announce, 20)
            for _ in range(400):
                if received:
                    return
                await asyncio.sleep(0.05)

    asyncio.run(run())
    assert received == [1]


SECONDS, EVERY, A_SECOND = 120, 10, 25


def send_what_is_refused(url):
    """Send messages that cannot be taken in, A_SECOND of them, some of 1 MB, for SECONDS."""
    long_ago = body(command(start_time=datetime(1, 1, 1, tzinfo=UTC)))
    bad = itertools.cycle([b"{}", b"no message", body(command()), long_ago] * 6 + [os.urandom(1_000_000)])

    async def run():
        began, number = time.monotonic(), 0
        async with connected(url) as transport:
            while time.monotonic() < began + SECONDS:
                given = [Outgoing(f"hostile{number + more}", next(bad)) for more in range(A_SECOND)]
                await asyncio.gather(*(transport.publish(wire.INGESTION, one) for one in given))
                number += A_SECOND
                await asyncio.sleep(max(began + number / A_SECOND - time.monotonic(), 0))

    asyncio.run(run())


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_client_of_which_nothing_can_be_taken_in_makes_no_other_late(users, tmp_path):
    platform, urls = users
    process = multiprocessing.get_context("spawn").Process(target=send_what_is_refused, args=(urls["bergen"],))
    waited = []

    async def taken(count):
        while await asyncio.to_thread(platform.ledger.commands.count) < count:
            await asyncio.sleep(0.1)

    async def run():
        stop = asyncio.Event()
        serving = asyncio.create_task(bridge_of(platform).serve(stop))
        process.start()
        async with IonbeamClient(IonbeamClientConfig(amqp_url=urls["oslo"], state_path=tmp_path / "oslo")) as client:
            for number in range(SECONDS // EVERY):
                begin, sent = START + number * DAY, time.monotonic()
                await client.ingest(rows(start=begin), METADATA, begin, begin + DAY)
                await taken(number + 1)
                waited.append(time.monotonic() - sent)
                await asyncio.sleep(max(EVERY - waited[-1], 0))
        await asyncio.to_thread(process.join)
        stop.set()
        await serving

    asyncio.run(run())
    assert max(waited) < EVERY, f"taken in after {[round(one, 1) for one in waited]} s"
    parked = [one.messages for one in platform.ledger.refusals.strangers(9)]
    assert sum(parked) > SECONDS * A_SECOND / 5
