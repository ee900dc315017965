"""The bridge on days when clients, or the broker, are not what one hopes."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from bus_samples import (
    FIRST_DAY,
    HOUR,
    METADATA,
    SOURCES,
    START,
    body,
    built_day,
    command,
    heard,
    listen,
    rows,
    send,
    waiting,
)  # fmt: skip
from servers import Line

from ionbeam_client import IonbeamClient, IonbeamClientConfig, cli, wire
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.doors.amqp.status import bus_status
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform


@pytest.mark.parametrize("start", [datetime(1970, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)])
def test_a_range_that_begins_long_before_its_source_touches_the_windows_of_the_source_alone(platform, broker, start):
    """From the message to the dataset, in what is told of it, and in a ledger that is made again from the files."""
    send(broker, body(command(start_time=start)))
    tracemalloc.start()
    assert bridge_of(platform).take_in(20).refused == []
    assert platform.ledger.waiting("my_source") == [
        Window(START + n * 6 * HOUR, START + (n + 1) * 6 * HOUR) for n in range(4)
    ]
    ingested = ingest(platform, platform.source("my_source"), Window(START, START + 6 * HOUR))
    assert ingested.claim.collected == FIRST_DAY and platform.ledger.due("example_weather") == [FIRST_DAY]
    assert list(agenda.outlook(platform, ingested.claim, datetime.now(UTC))) == [FIRST_DAY]
    for file in Path("ionbeam-state").glob("ledger.sqlite*"):
        file.unlink()
    again = open_platform(platform.config)
    assert again.ledger.recovered() and again.ledger.due("example_weather") == [FIRST_DAY]
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert built_day(again).height == 24
    told = "\n".join(bus_status(again.ledger).lines())
    assert f"1 commands say ranges that begin before it, from {start.date()} on" in told


def test_what_replaces_from_long_ago_removes_the_files_of_what_it_replaces(platform):
    take, long_ago = bridge_of(platform).intake.ingestions, datetime(1970, 1, 1, tzinfo=UTC)
    first = Window(START, START + 6 * HOUR)
    assert take([body(command(start_time=long_ago))]) == [None]
    ingest(platform, platform.source("my_source"), first)
    assert take([body(command(start_time=long_ago, replaces=True), rows(3, station="other"))]) == [None]
    ingest(platform, platform.source("my_source"), first)
    assert built_day(platform)["station_id"].to_list() == ["other"] * 3
    [raw] = platform.ledger.sent("my_source", first)
    assert [Path(raw.path)] == list(Path(raw.path).parent.glob("*.parquet"))


def test_what_would_touch_too_many_windows_is_parked(platform):
    later = command(start_time=START, end_time=START + timedelta(days=365 * 30))
    [reason] = bridge_of(platform).intake.ingestions([body(later)])
    assert "more than 10000 windows" in reason and "send shorter ranges" in reason


def test_a_version_that_no_store_can_hold_is_refused_in_a_sentence(platform):
    text = command(id=uuid4()).model_dump_json().replace('"version":1', f'"version":{2**70}')
    [reason] = bridge_of(platform).intake.ingestions([text.encode()])
    assert "metadata.version" in reason and "less than or equal" in reason


def test_large_messages_wait_on_disk_whatever_their_number(platform, broker):
    """Forty of eight megabytes: in memory they would be more than all that is allowed here."""
    large = b"{" + b" " * 8_000_000
    send(broker, *[large] * 40)
    tracemalloc.start()
    assert len(bridge_of(platform).take_in(60).refused) == 40
    assert tracemalloc.get_traced_memory()[1] < 250_000_000
    tracemalloc.stop()
    assert [path.name for path in (Path("ionbeam-state") / "bus").iterdir() if path.name.startswith("tmp")] == []


@pytest.mark.parametrize("day", ["an alarm", "a line that swallows", "an operator who closes"])
def test_a_bridge_outlives_its_brokers_bad_day(platform_of, rabbitmq, broker, day):
    """What came before, during and after it is taken in and announced, and nobody has to start the bridge again."""
    line = Line(rabbitmq.port)

    async def begin():
        line.hole = day == "a line that swallows"
        if day == "an alarm":
            await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.0001")
        if day == "an operator who closes":
            await asyncio.to_thread(rabbitmq.ctl, "close_all_connections", "an operator says so")

    async def end():
        line.hole = False
        await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")

    async def taken(platform, count):
        until = time.monotonic() + 60
        while platform.ledger.commands.count() < count:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)

    async def run():
        await asyncio.to_thread(listen, broker)
        async with line.open() as port:
            address = broker.replace(f":{rabbitmq.port}/", f":{port}/?heartbeat=1")
            platform = platform_of(SOURCES, broker=f"{{url: '{address}'}}")
            stop = asyncio.Event()
            serving = asyncio.create_task(bridge_of(platform).serve(stop))
            await asyncio.to_thread(send, broker, body(command(id=uuid4())))
            await taken(platform, 1)
            await begin()
            try:
                if day != "an alarm":  # in which nobody can send
                    await asyncio.to_thread(send, broker, body(command(id=uuid4()), rows(12)))
                await asyncio.to_thread(ingest, platform, platform.source("my_source"), Window(START, START + 6 * HOUR))
                await asyncio.to_thread(built_day, platform)
                await asyncio.sleep(4)
            finally:
                await end()
            await asyncio.to_thread(send, broker, body(command(id=uuid4()), rows(6)))
            await taken(platform, 2 if day == "an alarm" else 3)
            until = time.monotonic() + 60
            while not (told := await asyncio.to_thread(heard, broker)):
                assert time.monotonic() < until
            assert told[0].revision == 1 and not serving.done()
            stop.set()
            await serving

    asyncio.run(run())


def test_a_disk_that_is_away_for_a_while_is_told_once_and_everything_is_taken_in(platform, broker, monkeypatch, caplog):
    bridge = bridge_of(platform)
    send(broker, body(command(id=uuid4())))

    async def run():
        stop = asyncio.Event()
        with monkeypatch.context() as patch:
            patch.setattr(bridge.intake, "ingestions", fails)
            serving = asyncio.create_task(bridge.serve(stop))
            await asyncio.sleep(5)
        until = time.monotonic() + 20
        while not platform.ledger.commands.count():
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
        stop.set()
        await serving

    asyncio.run(run())
    assert caplog.text.count("taking messages in fails (OSError: the disk is away)") == 1
    assert "Traceback" not in caplog.text


@pytest.mark.soak
def test_a_line_that_swallows_for_ten_minutes_loses_and_doubles_nothing(
    platform_of, rabbitmq, broker, tmp_path, capsys
):
    """Both ends are behind it, each with the heartbeat of a minute that they have when nobody says otherwise."""
    line, state, received = Line(rabbitmq.port), tmp_path / "client", []

    async def until_taken(platform, count):
        until = time.monotonic() + 240
        while platform.ledger.commands.count() < count:
            assert time.monotonic() < until
            await asyncio.sleep(0.5)

    async def ingest_at(client, number):
        await client.ingest(rows(first=float(number)), METADATA, START, FIRST_DAY.end)

    async def run():
        async with line.open() as port:
            address = broker.replace(f":{rabbitmq.port}/", f":{port}/")
            platform = platform_of(SOURCES, broker=f"{{url: '{address}'}}")
            stop = asyncio.Event()
            serving = asyncio.create_task(bridge_of(platform).serve(stop))
            async with IonbeamClient(IonbeamClientConfig(amqp_url=address, state_path=state)) as client:
                client.register_export_handler("swallowed", lambda event, stream: received.append(event.revision))
                await ingest_at(client, 0)
                await until_taken(platform, 1)
                line.hole = True
                for number in range(1, 21):
                    await ingest_at(client, number)
                    await asyncio.sleep(30)
                assert await asyncio.to_thread(cli.main, ["--state-path", str(state), "status"]) == 1
                line.hole = False
                assert await client.flush(240)
                await until_taken(platform, 21)
                await asyncio.to_thread(ingest, platform, platform.source("my_source"), Window(START, START + 6 * HOUR))
                assert (await asyncio.to_thread(built_day, platform)).height == 24
                until = time.monotonic() + 240
                while not received:
                    assert time.monotonic() < until
                    await asyncio.sleep(0.5)
            stop.set()
            await serving
            assert platform.ledger.commands.count() == 21 and received == [1]

    asyncio.run(run())
    assert "20 messages" in (told := capsys.readouterr().out) and "nothing could be sent since" in told


def test_over_quorum_queues_also_with_a_client_that_knows_nothing_of_them(
    platform_of, rabbitmq, broker, tmp_path, monkeypatch, capsys
):
    platform = platform_of(SOURCES, broker=f"{{url: '{broker}', queues: quorum}}")
    bridge = bridge_of(platform)
    bridge.take_in(1)

    async def run():
        async with IonbeamClient(IonbeamClientConfig(amqp_url=broker, state_path=tmp_path / "client")) as client:
            await client.ingest(rows(), METADATA, START, FIRST_DAY.end)
            assert await client.flush(20)

    asyncio.run(run())
    with monkeypatch.context() as patch:
        patch.setattr(bridge.intake, "ingestions", fails)
        for _ in range(3):
            with pytest.raises(OSError, match="away"):
                bridge.take_in(20)
    send(broker, b"no message")
    turn = bridge.take_in(20)
    assert turn.taken == {wire.INGESTION.name: 1} and len(turn.refused) == 1
    assert cli.main(["--amqp-url", broker, "dead", "list", "--queue", wire.INGESTION.name]) == 0
    assert "1 dead message" in capsys.readouterr().out
    kinds = dict(line.split("\t", 1) for line in rabbitmq.ctl("-q", "list_queues", "name", "type").splitlines())
    assert kinds[wire.INGESTION.name] == kinds[wire.INGESTION.dead.name] == "quorum"
    assert [one.message_id for one in waiting(broker, wire.INGESTION.dead)] == ["m0"]


def fails(*_):
    raise OSError("the disk is away")
