"""The client against a platform in memory: what is sent, who is called, in which order, and what happens on errors."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from itertools import count

import numpy as np
import pyarrow as pa
import pytest
from client_samples import END, METADATA, SCHEMA, START, event, rows, until

from ionbeam_client import DataError, IonbeamError, OutboxFullError, wire
from ionbeam_client.models import ReplayDatasetsCommand
from ionbeam_client.outbox import Outbox
from ionbeam_client.payloads import PayloadStore
from ionbeam_client.testing import TestPlatform
from ionbeam_client.transport import Outgoing

HOUR = timedelta(hours=1)
QUICK = {"retry_delays": (0.05, 0.05), "close_timeout": 5.0}


@pytest.fixture
def platform(tmp_path):
    return TestPlatform(tmp_path)


def send(platform, message, body=None, headers=None):
    platform.broker.broadcast(
        wire.DATASET_EXCHANGE, Outgoing(wire.message_id(message), body or sealed(message), headers=headers or {})
    )


def sealed(message, table=None):
    return wire.with_rows(message, SCHEMA, (table or rows(3)).to_batches())


def noise(count: int) -> pa.Table:
    values = pa.array(np.random.default_rng(1).normal(size=count))
    return rows(count).set_column(3, SCHEMA.field("t"), values)


def test_what_goes_in_comes_out_and_the_same_twice_is_one(platform):
    async def run():
        async with platform.client() as client:
            first = await client.ingest(rows(100), METADATA, START, END)
            again = await client.ingest(rows(100).to_batches(max_chunksize=7), METADATA, START, END)
            other = await client.ingest(rows(100, first=21), METADATA, START, END)
            empty = await client.ingest([], METADATA, START, END)
            theirs = await client.ingest([], METADATA, START, END, source_name="another")
            await platform.settle()
        assert first == again and len({first.id, other.id, empty.id, theirs.id}) == 4
        assert (first.rows, empty.rows) == (100, 0)
        found = platform.ingested()
        assert [one.command.id for one in found] == [first.id, other.id, empty.id, theirs.id]
        assert found[0].rows.equals(rows(100)) and found[2].rows.num_rows == 0
        assert (found[0].command.start_time, found[0].command.end_time) == (START, END)

    asyncio.run(run())


@pytest.mark.parametrize("ends", [RuntimeError("what nobody thought of"), asyncio.CancelledError()])
def test_a_sender_that_ends_is_told_and_begins_again(platform, monkeypatch, caplog, ends):
    asked = Outbox.due
    left = [ends]

    def due(*given, **more):
        if left:
            raise left.pop()
        return asked(*given, **more)

    monkeypatch.setattr(Outbox, "due", due)

    async def run():
        async with platform.client() as client:
            sent = await client.ingest(rows(3), METADATA, START, END)
            assert await client.flush(20)
        assert [one.command.id for one in platform.ingested()] == [sent.id]

    asyncio.run(run())
    assert not left and "sending" in caplog.text and "again in 1 s" in caplog.text


def test_a_stream_too_large_for_one_message_goes_in_parts_or_into_the_shared_store(platform, tmp_path):
    table = noise(30_000)

    async def run():
        shared, unshared = tmp_path / "shared", tmp_path / "unshared"
        PayloadStore(shared).mark()
        async with platform.client(inline_limit=100_000, arrow_store_path=unshared) as client:
            in_parts = await client.ingest(table, METADATA, START, END)
        [found] = platform.ingested()
        assert found.command.parts > 3 and found.rows.equals(table) and not unshared.exists()
        async with platform.client(inline_limit=100_000, arrow_store_path=shared) as client:
            by_name = await client.ingest(table, METADATA, START, END)
            small = await client.ingest(rows(10), METADATA, START, END)
        assert in_parts.id == by_name.id
        bodies = [platform.broker.take(wire.INGESTION.name).body for _ in range(2)]
        named, inline = (wire.decode(wire.IngestDataCommand, body) for body in bodies)
        assert (
            named.rows is None and named.message.payload_location.as_posix() == f"example_weather/{by_name.id}.parquet"
        )
        assert pa.Table.from_batches(PayloadStore(shared).batches(named.message.payload_location)).equals(table)
        assert inline.message.id == small.id and inline.rows is not None

    asyncio.run(run())


@pytest.mark.parametrize("shared", [True, False])
def test_an_interrupted_stream_leaves_nothing(platform, tmp_path, shared):
    async def breaks_off():
        for batch in noise(50_000).to_batches(max_chunksize=5000):
            yield batch
        raise OSError("the sensor is gone")

    async def run():
        if shared:
            PayloadStore(tmp_path / "store").mark()
        async with platform.client(inline_limit=100_000, arrow_store_path=tmp_path / "store") as client:
            with pytest.raises(OSError, match="the sensor is gone"):
                await client.ingest(breaks_off(), METADATA, START, END)
            with pytest.raises(DataError, match=r"'t' .*batch that begins at row 10"):
                wrong = rows(1).set_column(3, "t", pa.array(["warm"])).to_batches()
                await client.ingest([*rows(10).to_batches(), *wrong], METADATA, START, END)
            await client.ingest(rows(1), METADATA, START, END)
            assert client._outbox.size() < 10_000
        assert [one.rows.num_rows for one in platform.ingested()] == [1]
        assert not list((tmp_path / "store").rglob("*draft*"))

    asyncio.run(run())


def test_a_full_outbox_waits_or_raises(platform):
    platform.broker.up = False

    async def run():
        async with platform.client(outbox_max_bytes=1_000_000, outbox_full="raise", close_timeout=0) as client:
            with pytest.raises(OutboxFullError, match="bytes wait for"):
                for i in count():
                    await client.ingest(noise(20_000 + i), METADATA, START, END)
            with pytest.raises(OutboxFullError):
                await client.ingest(rows(1), METADATA, START, END)
        async with platform.client(outbox_max_bytes=1_000_000, close_timeout=0) as client:
            with pytest.raises(OutboxFullError, match="the whole outbox"):
                await client.ingest(noise(400_000), METADATA, START, END)
            while client._outbox.size() < 1_000_000:
                await client.ingest(noise(20_000 + client._outbox.count()), METADATA, START, END)
            waits = asyncio.create_task(client.ingest(rows(5), METADATA, START, END))
            await asyncio.sleep(0.3)
            assert not waits.done()
            platform.broker.up = True
            assert (await asyncio.wait_for(waits, 10)).rows == 5
            await platform.settle()

    asyncio.run(run())


def test_a_trigger_handler_is_called_with_its_range_and_may_ingest(platform):
    async def run():
        client, plain = platform.client(), []

        @client.register_trigger_handler("my_source")
        async def fetch(start_time, end_time):
            await client.ingest(rows(5), METADATA, start_time, end_time)

        client.register_trigger_handler(
            "other", lambda start, end: plain.append((start, end, threading.current_thread()))
        )
        platform.trigger("my_source", START, START + HOUR)  # asked before anybody was there
        async with client:
            platform.trigger("other", START, END)
            await platform.settle()
        [one] = platform.ingested()
        assert (one.command.start_time, one.command.end_time) == (START, START + HOUR)
        assert one.command.source_name == "my_source"
        [(start, end, thread)] = plain
        assert (start, end) == (START, END) and thread is not threading.main_thread()

    asyncio.run(run())


def test_export_handlers_get_their_datasets_in_batches_and_nothing_twice(platform):
    async def run():
        client, seen, plain = platform.client(), [], []

        async def export(event, batch_stream):
            seen.append((event.metadata.name, event.revision, [batch.num_rows async for batch in batch_stream]))

        def export_all(event, batch_stream):
            plain.append((event.metadata.name, sum(batch.num_rows for batch in batch_stream)))

        client.register_export_handler("filtered", export, dataset_filter={"netatmo"}, batch_size=40)
        client.register_export_handler("all", export_all)
        async with client:
            await until(lambda: len(platform.broker._bound[wire.DATASET_EXCHANGE]) == 2)
            announced = platform.publish_dataset(rows(100), "netatmo", START, END)
            platform.publish_dataset(rows(7), "knmi", START, END)
            await platform.settle()
            send(platform, announced, sealed(announced, rows(100)))  # redelivered after its acknowledgement
            await platform.settle()
        assert seen == [("netatmo", 1, [40, 40, 20])]
        assert plain == [("netatmo", 100), ("knmi", 7)]

    asyncio.run(run())


def test_a_failing_handler_is_retried_and_then_parked(platform):
    async def run():
        client, calls = platform.client(**QUICK), []

        @client.register_export_handler("x")
        async def export(event, batch_stream):
            calls.append((event.metadata.name, event.revision))
            if event.metadata.name == "bad":
                raise KeyError("no such table")
            if event.metadata.name == "flaky" and calls.count(("flaky", 1)) < 3:
                raise asyncio.CancelledError

        async with client:
            await until(lambda: platform.broker._bound[wire.DATASET_EXCHANGE])
            bad = event(dataset="bad")
            for message in (bad, event(2, dataset="bad"), event(dataset="flaky"), event(dataset="good")):
                send(platform, message)
            await platform.settle()
            assert calls.count(("bad", 1)) == 3 and calls.count(("flaky", 1)) == 3
            assert calls.index(("bad", 2)) > max(i for i, call in enumerate(calls) if call == ("bad", 1))
            parked = platform.parked(wire.exporter_queue("x"))
            assert (parked[0].message_id, parked[0].attempts) == (str(bad.id), 3)
            assert parked[0].error == "KeyError: 'no such table'"
            before = len(calls)
            send(platform, bad)  # a redelivery is not a second ladder
            await platform.settle()
            assert len(calls) == before
            send(platform, bad, headers={wire.REQUEUES_HEADER: 1})  # a person's wish is one
            await platform.settle()
            assert len(calls) == before + 3

    asyncio.run(run())


def test_a_failed_message_does_not_hold_up_those_behind_it(platform):
    async def run():
        client, calls = platform.client(retry_delays=(3600,), close_timeout=0), []

        @client.register_export_handler("x")
        async def export(event, batch_stream):
            calls.append((event.metadata.name, event.revision))
            if event.metadata.name == "bad":
                raise KeyError("no such table")

        async with client:
            await until(lambda: platform.broker._bound[wire.DATASET_EXCHANGE])
            for message in (event(dataset="bad"), event(2, dataset="bad"), event(dataset="good")):
                send(platform, message)
            await until(lambda: len(calls) == 2)
        assert calls == [("bad", 1), ("good", 1)]

    asyncio.run(run())


def test_revisions_of_a_window_come_in_order_and_never_go_back(platform):
    async def run():
        client, calls = platform.client(retry_delays=(0.2,)), []

        @client.register_export_handler("x")
        async def export(event, batch_stream):
            calls.append((event.start_time.hour, event.revision, event.previous_revision))
            if calls == [(0, 1, None)]:
                raise ConnectionError("the database is away")

        async with client:
            await until(lambda: platform.broker._bound[wire.DATASET_EXCHANGE])
            for message in (event(1), event(2, previous_revision=1), event(1, hour=1)):
                send(platform, message)
            await platform.settle()
            assert calls == [(0, 1, None), (1, 1, None), (0, 1, None), (0, 2, 1)]
            send(platform, event(1))
            await platform.settle()
            assert len(calls) == 4

    asyncio.run(run())


def test_a_dataset_in_parts_is_one_call_and_a_broken_one_is_none(platform):
    table = noise(20_000)
    message = event()
    parts = [body for body, _ in wire.part_bodies(SCHEMA, table.to_batches(max_chunksize=4096), 100_000)]
    pieces = [message.model_copy(update={"part": i, "parts": len(parts)}) for i in range(1, len(parts) + 1)]

    async def run():
        client, got = platform.client(), []

        @client.register_export_handler("x")
        async def export(event, batch_stream):
            got.append((event.parts, pa.Table.from_batches([batch async for batch in batch_stream])))

        async with client:
            await until(lambda: platform.broker._bound[wire.DATASET_EXCHANGE])
            for piece, body in reversed(list(zip(pieces, parts, strict=True))):
                assert not got
                send(platform, piece, wire.sealed(wire.head(piece, SCHEMA), body))
            send(platform, event(hour=1), sealed(event(hour=1), noise(9000))[:-50_000])
            send(platform, event(hour=2), b"nonsense")
            await platform.settle()
        [(of, whole)] = got
        assert of == 1 and whole.equals(table)
        assert [one.error[:22] for one in platform.parked(wire.exporter_queue("x"))] == [
            "a broken Arrow IPC str",
            "neither JSON nor an Ar",
        ]

    asyncio.run(run())


def test_a_dataset_in_the_shared_store_is_read_by_its_name(platform, tmp_path):
    store = PayloadStore(tmp_path / "store")
    writer = store.writer(SCHEMA)
    writer.write(rows(50).to_batches())
    writer.publish("example/window.parquet")

    async def run():
        client, got = platform.client(arrow_store_path=tmp_path / "store", **QUICK), []
        client.register_export_handler("x", lambda event, batches: got.append(sum(batch.num_rows for batch in batches)))
        async with client:
            await until(lambda: platform.broker._bound[wire.DATASET_EXCHANGE])
            for name in ("example/window.parquet", "example/absent.parquet", "../../etc/passwd"):
                message = event(hour=len(name)).model_copy(update={"dataset_location": name})
                send(platform, message, wire.json_body(message))
            await platform.settle()
        assert got == [50]
        absent, outside = sorted(platform.parked(wire.exporter_queue("x")), key=lambda one: -one.attempts)
        assert "there is no payload example/absent.parquet" in absent.error and absent.attempts == 3
        assert "refused" in outside.error

    asyncio.run(run())


def test_a_new_exporter_asks_once_for_what_it_missed(platform, tmp_path):
    async def run():
        for _ in range(2):
            client = platform.client(state_path=tmp_path / "mine")
            client.register_export_handler("x", print, dataset_filter={"netatmo", "knmi"}, replay_from=START)
            async with client:
                await platform.settle()
        [asked] = platform.broker.queues[wire.REPLAY.name]
        command = wire.decode(ReplayDatasetsCommand, asked.body).message
        assert (command.exporter_name, command.datasets, command.start_time) == ("x", ["knmi", "netatmo"], START)

    asyncio.run(run())


def test_what_a_stopped_client_left_is_done_by_the_next_one(platform, tmp_path):
    async def run():
        began, calls = asyncio.Event(), []

        async def never_ends(event, batch_stream):
            calls.append("first")
            began.set()
            await asyncio.Event().wait()

        client = platform.client(state_path=tmp_path / "mine", close_timeout=0.1, retry_delays=())
        client.register_export_handler("x", never_ends)
        async with client:
            await until(lambda: platform.broker._bound[wire.DATASET_EXCHANGE])
            send(platform, event())
            await began.wait()
        platform._clients.remove(client)
        client = platform.client(state_path=tmp_path / "mine", retry_delays=())
        client.register_export_handler("x", lambda event, batch_stream: calls.append("second"))
        async with client:
            await platform.settle()
        assert calls == ["first", "second"] and not platform.parked(wire.exporter_queue("x"))

    asyncio.run(run())


def test_two_clients_with_one_state_folder_do_not_do_things_twice(platform, tmp_path):
    async def run():
        calls = []
        clients = [platform.client(state_path=tmp_path / "shared") for _ in range(2)]
        for client in clients:
            client.register_export_handler("x", lambda event, batch_stream: calls.append(event.id))
        async with clients[0]:
            await until(lambda: platform.broker._bound[wire.DATASET_EXCHANGE])
            async with clients[1]:
                announced = [event(hour=hour) for hour in range(5)]
                for message in announced:
                    send(platform, message)
                for i in range(5):
                    await clients[i % 2].ingest(rows(3 + i), METADATA, START, END)
                await platform.settle()
        assert calls == [message.id for message in announced]
        assert sorted(one.rows.num_rows for one in platform.ingested()) == [3, 4, 5, 6, 7]

    asyncio.run(run())


def test_the_synchronous_twins(platform):
    calls = []
    with platform.sync_client() as client:

        @client.register_trigger_handler("my_source")
        def fetch(start_time, end_time):
            calls.append(client.ingest(rows(4), METADATA, start_time, end_time))

        @client.register_trigger_handler("other")
        async def fetch_async(start_time, end_time):
            await asyncio.sleep(0)
            calls.append("other")

        platform.trigger("my_source", START, END)
        platform.trigger("other", START, END)
        receipt = client.ingest(rows(6).to_pandas(), METADATA, START, END)
        asyncio.run(platform.settle())
        assert client.flush(5)
    assert len(calls) == 2
    assert sorted(one.rows.num_rows for one in platform.ingested()) == [4, 6] and receipt.rows == 6
    with pytest.raises(IonbeamError, match="not open"):
        client.ingest(rows(1), METADATA, START, END)


def test_a_handler_that_blocks_its_loop_does_not_stop_the_sending(platform):
    async def run():
        client, blocked = platform.client(), []

        @client.register_trigger_handler("slow")
        async def fetch(start_time, end_time):
            await client.ingest(rows(2), METADATA, start_time, end_time)
            deadline = time.monotonic() + 10
            while not platform.broker.queues.get(wire.INGESTION.name) and time.monotonic() < deadline:
                time.sleep(0.01)  # the loop of the client's user stands still
            blocked.append(bool(platform.broker.queues[wire.INGESTION.name]))

        async with client:
            platform.trigger("slow", START, END)
            await platform.settle()
        assert blocked == [True]

    asyncio.run(run())


def test_mistakes_of_the_caller_are_told(platform):
    client = platform.client()
    client.register_export_handler("x", print)
    with pytest.raises(ValueError, match="already"):
        client.register_export_handler("x", print)
    with pytest.raises(ValueError, match="exporter_name"):
        client.register_export_handler("a.b", print)
    with pytest.raises(TypeError, match="a set of names"):
        client.register_export_handler("y", print, dataset_filter="netatmo")
    with pytest.raises(ValueError, match="batch_size"):
        client.register_export_handler("y", print, batch_size=0)
    with pytest.raises(IonbeamError, match="not open"):
        asyncio.run(client.ingest(rows(1), METADATA, START, END))
