"""Commands in and events out against a real RabbitMQ, with the real client at the other end."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import RabbitMQ, at_port_5672, why_no_rabbitmq

from ionbeam_client import IonbeamClient, IonbeamClientConfig, wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DataSetAvailableEvent,
    DatasetMetadata,
    IngestDataCommand,
    IngestionMetadata,
    MetadataVariable,
    ReplayDatasetsCommand,
    StartSourceCommand,
)
from ionbeam_client.transport import Outgoing
from ionbeam_dagster.bus.bridge import BrokerAway, JobTaken
from ionbeam_dagster.bus.status import bus_status
from ionbeam_dagster.config import ConfigError
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import PipelineError, Platform, build, ingest
from ionbeam_dagster.sources import SourceError

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
    yield transport
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
    return platform.bridge._intake.ingestions([body(command(**said), table)])


def built_day(platform: Platform, window: Window = FIRST_DAY) -> pl.DataFrame:
    made = build(platform, "example_weather", window, datetime.now(UTC), insist=True)
    return pl.read_parquet(made.revision.path)


# -- in ----------------------------------------------------------------------------------------------------------------


def test_what_a_client_sends_becomes_its_dataset_and_comes_back_in_the_same_numbers(platform, broker, tmp_path):
    received = []
    config = IonbeamClientConfig(amqp_url=broker, state_path=tmp_path / "client", retry_delays=(0.1,))

    async def run():
        async with IonbeamClient(config) as client:

            @client.register_export_handler("x")
            async def export(event, batch_stream):
                received.append((event, pa.Table.from_batches([batch async for batch in batch_stream])))

            receipt = await client.ingest(rows(), METADATA, START, START + DAY)
            assert await client.flush(20)
            turn = await asyncio.to_thread(platform.bridge.take_in, 20)
            assert turn.taken == {wire.INGESTION.name: 1} and not turn.refused
            ingested = await asyncio.to_thread(ingest, platform, "my_source", Window(START, START + 6 * HOUR))
            assert (ingested.claim.id, ingested.rows) == (str(receipt.id), 24)
            await asyncio.to_thread(built_day, platform)
            turn = await asyncio.to_thread(platform.bridge.announce, 20)
            assert turn.announced == 2
            deadline = time.monotonic() + 20
            while not received and time.monotonic() < deadline:
                await asyncio.sleep(0.02)

    asyncio.run(run())
    [(event, table)] = received
    assert (event.start_time, event.end_time, event.revision, event.previous_revision) == (*_ends(FIRST_DAY), 1, None)
    assert event.metadata.description == "One thermometer"
    assert table[TEMPERATURE].to_pylist() == rows()["t"].to_pylist()
    assert table["datetime"].to_pylist() == rows()["datetime"].to_pylist()
    assert waiting(broker, wire.INGESTION.dead) == []


def test_a_command_is_one_ingestion_however_often_it_comes(platform, broker):
    message = command()
    send(broker, body(message), body(message), body(message))
    platform.bridge.take_in(20)
    send(broker, body(message))
    assert platform.bridge.take_in(20).taken == {wire.INGESTION.name: 1}
    window = Window(START, START + 6 * HOUR)
    [raw] = platform.ledger.sent("my_source", window)
    assert raw.ingestion == str(message.id) and raw.window == FIRST_DAY
    assert [arrival.commands for arrival in platform.bridge.inbox.unreported(10)] == [1, 1, 1, 1]
    assert len(list(raw.path.parent.glob("*.parquet"))) == 1
    ingest(platform, "my_source", window)
    assert built_day(platform).height == 24


@pytest.mark.parametrize("step", ["record_sent", "take"])
def test_a_crash_between_any_two_steps_is_mended_by_the_next_delivery(platform, broker, monkeypatch, step):
    """The files are there and the ledger is not, or the ledger and not the inbox."""
    message, bridge = command(), platform.bridge
    send(broker, body(message))
    owner = platform.ledger if step == "record_sent" else bridge.inbox
    with monkeypatch.context() as broken:
        broken.setattr(type(owner), step, _no_room)
        with pytest.raises(OSError, match="no room"):
            bridge.take_in(20)
    assert bridge.take_in(20).taken == {wire.INGESTION.name: 1}
    [raw] = platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))
    assert raw.ingestion == str(message.id) and raw.path.exists()
    assert waiting(broker, wire.INGESTION) == [] and waiting(broker, wire.INGESTION.dead) == []


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3)))[::2])
def test_a_range_is_swept_once_all_parts_are_there(platform, order):
    id, table = uuid4(), rows(24)
    bodies = {part: body(command(id=id, part=part, parts=3), table.slice(8 * (part - 1), 8)) for part in (1, 2, 3)}
    window = Window(START, START + 6 * HOUR)
    take = platform.bridge._intake.ingestions
    assert take([bodies[order[0]], bodies[order[1]], bodies[order[0]]]) == [None, None, None]
    assert platform.ledger.sent("my_source", window) == []
    assert platform.bridge.inbox.unfinished() == [(str(id), "my_source", 2, 3)]
    assert take([bodies[order[2]]]) == [None]
    assert take([bodies[order[1]]]) == [None], "a part that comes again after the end changes nothing"
    [raw] = platform.ledger.sent("my_source", window)
    assert pq.read_table(raw.path)["t"].to_pylist() == table["t"].to_pylist()
    assert platform.bridge.inbox.unfinished() == []
    assert not list(Path("ionbeam-state/bus/parts").rglob("*.parquet"))


def test_parts_that_say_different_things_are_refused_and_the_right_one_completes(platform):
    id = uuid4()
    take = platform.bridge._intake.ingestions
    other = command(id=id, part=2, parts=2, end_time=START + 2 * DAY)
    assert take([body(command(id=id, part=1, parts=2))]) == [None]
    assert "other things" in take([body(other)])[0]
    assert take([body(command(id=id, part=2, parts=2))]) == [None]
    assert len(platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))) == 1


def test_a_later_sweep_corrects_an_earlier_one_in_the_order_of_arrival(platform):
    bodies = [body(command(), rows(first=first)) for first in (10.0, 30.0, 20.0)]
    assert platform.bridge._intake.ingestions(bodies) == [None] * 3
    ingested = ingest(platform, "my_source", Window(START + 6 * HOUR, START + 12 * HOUR))
    assert ingested.rows == 72
    assert built_day(platform)[TEMPERATURE].to_list() == rows(first=20.0)["t"].to_pylist()


def test_late_rows_and_empty_sweeps_are_told_to_their_windows(platform):
    late = rows(1, start=START + 3 * DAY + HOUR)
    assert day(platform, pa.concat_tables([rows(), late])) == [None]
    assert day(platform, rows(0), start_time=START + DAY, end_time=START + 2 * DAY) == [None]
    for start in (START, START + DAY):
        ingest(platform, "my_source", Window(start, start + 6 * HOUR))
    due = platform.ledger.due("example_weather")
    assert [window.start for window in due] == [START, START + DAY, START + 3 * DAY]
    assert built_day(platform, due[0]).height == 24
    assert (built_day(platform, due[1]).height, built_day(platform, due[2]).height) == (0, 1)


def test_a_payload_of_an_older_client_is_taken_when_it_lies_in_the_store(platform, tmp_path):
    store = Path("ionbeam-state/payloads")
    take = platform.bridge._intake.ingestions
    assert (store / ".ionbeam-payload-store").exists()
    older = rows().set_column(0, "datetime", rows()["datetime"].cast(pa.timestamp("ns", tz="UTC")))
    pq.write_table(older.select(reversed(SCHEMA.names)), store / "a.parquet")
    pq.write_table(rows().drop_columns("t"), store / "without.parquet")
    pq.write_table(rows(), "outside.parquet")
    (store / "link.parquet").symlink_to(Path("outside.parquet").absolute())
    named = ["a.parquet", (store / "a.parquet").absolute(), "without.parquet", "gone.parquet", "../../outside.parquet",
             Path("outside.parquet").absolute(), "link.parquet", "/etc/passwd"]  # fmt: skip
    verdicts = take([wire.json_body(command(payload_location=Path(name))) for name in named])
    assert verdicts[:2] == [None, None]
    assert "'t' is declared" in verdicts[2] and "no payload gone.parquet" in verdicts[3]
    assert all("is refused" in verdict for verdict in verdicts[4:])
    raw, again = platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))
    assert pq.read_table(raw.path).select(SCHEMA.names).cast(SCHEMA).equals(rows())
    assert pq.read_table(again.path).num_rows == 24


def _said(**of_dataset):
    return METADATA.model_copy(update={"dataset": METADATA.dataset.model_copy(update=of_dataset)})


def _measured(**of_variable):
    variable = METADATA.ingestion_map.canonical_variables[0].model_copy(update=of_variable)
    return METADATA.model_copy(
        update={"ingestion_map": METADATA.ingestion_map.model_copy(update={"canonical_variables": [variable]})}
    )


REFUSED = {
    "neither JSON nor an Arrow": lambda: b"\x00garbage",
    "not a IngestDataCommand": lambda: b'{"id": "no"}',
    "add 'sources: {elsewhere: {kind: external, aggregation_span: P1D}}'": lambda: body(
        command(metadata=_said(name="elsewhere"))
    ),
    "collected by the platform itself": lambda: body(
        command(metadata=_said(name="ioncannon", aggregation_span=HOUR))
    ),
    "the message says aggregation_span PT1H, but sources.my_source.aggregation_span": lambda: body(
        command(metadata=_said(aggregation_span=HOUR))
    ),
    "before source 'my_source' begins": lambda: body(command(start_time=START - DAY, end_time=START)),
    "in the future": lambda: body(command(start_time=START + 10_000 * DAY, end_time=START + 10_001 * DAY)),
    "nonsense": lambda: body(command(metadata=_measured(cf_unit="nonsense"))),
    "the metadata declare": lambda: body(command(), rows().select(["datetime", "lat", "lon", "t"])),
    "column 't' is float": lambda: body(
        command(), rows().set_column(3, "t", rows()["t"].cast(pa.float32()))
    ),
    "broken Arrow IPC stream": lambda: body(command())[:-200],
    "neither rows nor a payload_location": lambda: wire.json_body(command()),
}  # fmt: skip


def test_what_cannot_be_taken_in_is_parked_with_its_reason_and_holds_nothing_up(platform, broker):
    bad = {reason: make() for reason, make in REFUSED.items()}
    good = command()
    send(broker, *bad.values(), body(good))
    turn = platform.bridge.take_in(30)
    assert len(turn.refused) == len(bad) and turn.taken == {wire.INGESTION.name: 1}
    assert len(platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))) == 1
    parked = waiting(broker, wire.INGESTION.dead)
    reasons = {delivery.body: delivery.headers[wire.ERROR_HEADER] for delivery in parked}
    for reason, sent in bad.items():
        assert reason in reasons[sent]
    assert {refused.reason for refused in platform.bridge.inbox.refusals(100)} == set(reasons.values())
    told = bus_status(platform.bridge.inbox, platform.ledger, limit=100).lines()
    assert told[0] == "1 commands taken in, 0 changes not announced yet"
    assert all(any(reason in line and "dead requeue m" in line for line in told) for reason in REFUSED)
    assert not list(Path("data-raw").rglob(".*parquet*")), "drafts are left behind"


def test_a_compressed_bomb_is_parked_before_it_is_unpacked(platform):
    table = rows(1_000)
    huge = pa.table({"t": pa.array([1.0] * 1_000)}).column("t")
    bomb = table.set_column(3, "t", huge).to_batches()[0]
    zeros = pa.RecordBatch.from_arrays(
        [pa.array([START] * 2_000_000, wire.TIME), *[pa.nulls(2_000_000, field.type) for field in list(SCHEMA)[1:]]],
        schema=SCHEMA,
    )
    message = command()
    many = wire.with_rows(message, SCHEMA, [bomb, zeros, zeros, zeros])
    assert len(many) < 1_000_000
    [reason] = platform.bridge._intake.ingestions([many])
    assert "more than 5000000 rows" in reason


# -- out ---------------------------------------------------------------------------------------------------------------


def revised(platform: Platform, times: int) -> None:
    for number in range(times):
        assert day(platform, rows(first=float(number)), id=UUID(int=number + 1)) == [None]
        ingest(platform, "my_source", Window(START, START + 6 * HOUR))
        build(platform, "example_weather", FIRST_DAY, datetime.now(UTC), insist=True)


def listen(url: str, name: str = "x") -> None:
    """Declare an exporter's queue, as its client would."""
    waiting(url, wire.exporter_queue(name))


def heard(url: str, name: str = "x") -> list[DataSetAvailableEvent]:
    return [wire.decode(DataSetAvailableEvent, d.body).message for d in waiting(url, wire.exporter_queue(name))]


def test_every_revision_is_announced_once_in_order_also_what_was_built_meanwhile(platform, broker):
    listen(broker)
    revised(platform, 2)
    assert platform.bridge.announce(20).announced == 4
    assert platform.bridge.announce(20).announced == 0
    revised(platform, 5)  # the first two are known, so that three are new
    assert platform.bridge.announce(20).announced == 6
    events = heard(broker)
    assert [(event.revision, event.previous_revision) for event in events] == [
        (1, None), (2, 1), (3, 2), (4, 3), (5, 4)
    ][: len(events)] and len(events) == 5  # fmt: skip
    assert len({event.id for event in events}) == 5


def test_a_replay_brings_the_latest_revisions_under_the_ids_that_they_had(platform, broker):
    listen(broker)
    revised(platform, 2)
    assert day(platform, rows(start=START + DAY), start_time=START + DAY, end_time=START + 2 * DAY) == [None]
    ingest(platform, "my_source", Window(START + DAY, START + DAY + 6 * HOUR))
    built_day(platform, Window(START + DAY, START + 2 * DAY))
    platform.bridge.announce(20)
    live = heard(broker)
    assert [event.revision for event in live] == [1, 2, 1]
    asked = [
        ReplayDatasetsCommand(exporter_name="x", start_time=START, datasets=["example_weather", "unheard_of"]),
        ReplayDatasetsCommand(exporter_name="x", start_time=START + DAY),
    ]
    for one in asked:
        send(broker, wire.json_body(one), queue=wire.REPLAY)
        platform.bridge.take_in(20)
        platform.bridge.announce(20)
    assert [event.id for event in heard(broker)] == [live[1].id, live[2].id, live[2].id]
    assert platform.bridge.announce(20).replayed == 0


def test_rows_too_many_for_a_message_come_in_parts(platform, broker, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.bus.outbox.PART_LIMIT", 20_000)
    monkeypatch.setattr("ionbeam_dagster.bus.outbox._BATCH", 1_000)
    listen(broker)
    table = rows(20_000, step=timedelta(seconds=4))
    assert day(platform, table) == [None]
    ingest(platform, "my_source", Window(START, START + 6 * HOUR))
    built_day(platform)
    platform.bridge.announce(20)
    decoded = [wire.decode(DataSetAvailableEvent, d.body) for d in waiting(broker, wire.exporter_queue("x"))]
    assert len(decoded) > 2
    assert [(one.message.part, one.message.parts) for one in decoded] == [
        (part, len(decoded)) for part in range(1, len(decoded) + 1)
    ]
    together = pa.Table.from_batches(batch for one in decoded for batch in wire.batches(one.rows))
    assert together[TEMPERATURE].to_pylist() == table["t"].to_pylist()


# -- asking ------------------------------------------------------------------------------------------------------------


def test_a_window_that_is_asked_for_is_unanswered_until_its_range_comes(platform, broker):
    bridge, window = platform.bridge, Window(START, START + 6 * HOUR)
    assert bridge.ask("my_source", [window]) == {window: 1}
    assert bridge.ask("my_source", [window]) == {window: 2}
    sent = [wire.decode(StartSourceCommand, d.body).message for d in waiting(broker, wire.source_queue("my_source"))]
    assert [(one.start_time, one.end_time) for one in sent] == [_ends(window)] * 2
    assert sent[0].id != sent[1].id, "a client would take the second for the first"
    assert [asked.window for asked in bridge.inbox.unanswered(10)] == [window]
    answer = body(command(end_time=START + DAY))
    assert bridge._intake.ingestions([answer]) == [None]
    assert bridge.inbox.unanswered(10) == [] and bridge.inbox.asked("my_source", window).answered
    assert bridge.ask("my_source", [window]) == {window: 1}
    assert bridge._intake.ingestions([answer]) == [None], "the same rows again are an answer, too"
    assert bridge.inbox.unanswered(10) == []


def test_a_start_command_for_a_built_in_source_is_remembered_and_a_wrong_one_parked(platform, broker):
    queue = wire.source_queue("ioncannon")
    good = StartSourceCommand(source_name="ioncannon", start_time=START, end_time=START + HOUR)
    wrong = good.model_copy(update={"source_name": "other", "id": uuid4()})
    early = good.model_copy(update={"start_time": START - DAY, "end_time": START - HOUR, "id": uuid4()})
    send(broker, *map(wire.json_body, (good, wrong, early, good)), queue=queue)
    turn = platform.bridge.take_in(20)
    assert turn.taken == {queue.name: 2} and len(turn.refused) == 2
    [wanted] = platform.bridge.inbox.wanted(0, 10)
    assert (wanted.source, wanted.range) == ("ioncannon", Window(START, START + HOUR))
    reasons = [delivery.headers[wire.ERROR_HEADER] for delivery in waiting(broker, queue.dead)]
    assert any("send it to ionbeam.source.other.start" in reason for reason in reasons)
    assert any("begins" in reason for reason in reasons)


# -- together ----------------------------------------------------------------------------------------------------------


def bridge_process(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [Path(sys.executable).with_name("ionbeam"), "--config", str(folder / "config.yaml"), "bridge"], cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"},
    )  # fmt: skip


def test_two_bridges_side_by_side_do_nothing_twice(platform, broker, tmp_path):
    listen(broker)
    processes = [bridge_process(tmp_path) for _ in range(2)]
    try:
        ids = [uuid4() for _ in range(40)]
        for first in range(0, 40, 10):
            send(broker, *(body(command(id=id), rows(first=float(i))) for i, id in enumerate(ids[first : first + 10])))
        window = Window(START, START + 6 * HOUR)
        _until(lambda: len(platform.ledger.sent("my_source", window)) == 40)
        with pytest.raises(JobTaken):
            platform.bridge.take_in(5)
        assert [UUID(raw.ingestion) for raw in platform.ledger.sent("my_source", window)] == ids
        processes[0].kill()  # whichever it was: the other takes over
        send(broker, body(command()))
        _until(lambda: len(platform.ledger.sent("my_source", window)) == 41)
        ingest(platform, "my_source", window)
        built_day(platform)
        _until(lambda: not platform.ledger.changes(platform.bridge.inbox.cursor("announced"), 100))
        assert [event.revision for event in heard(broker)] == [1]
        processes[1].terminate()
        assert processes[1].wait(20) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert waiting(broker, wire.INGESTION) == [] and waiting(broker, wire.INGESTION.dead) == []


@pytest.mark.soak
def test_the_four_programs_run_against_the_platform_and_get_back_the_numbers_that_they_sent(
    platform_of, broker, tmp_path
):
    """The platform is a bridge process and its pipeline; the programs are the specification's, each in its folder."""
    platform = platform_of(
        "  my_source: {kind: external, dataset: example_weather, start: 2024-01-01}\n"
        "  netatmo: {kind: external, start: 2024-01-01}\n",
        broker=f"{{url: '{broker}'}}",
    )
    bridge, second = platform.bridge, Window(START + DAY, START + 2 * DAY)
    for exporter in ("my_exporter", "netatmo_exporter"):
        listen(broker, exporter)
    netatmo = METADATA.model_copy(update={"dataset": DatasetMetadata(name="netatmo")})

    async def run():
        async with at_port_5672(broker):
            served = bridge_process(tmp_path)
            programs = [_program(tmp_path, name) for name in EXAMPLES.glob("*.py")]
            try:
                await asyncio.to_thread(send, broker, body(command(metadata=netatmo)))
                await asyncio.to_thread(bridge.ask, "my_source", [second])
                swept = (("my_source", FIRST_DAY), ("my_source", second), ("netatmo", FIRST_DAY))
                await asyncio.to_thread(_until, lambda: all(platform.ledger.sent(*one) for one in swept), 60)
                for source, window in swept:
                    ingest(platform, source, window)
                    dataset = platform.source(source).dataset
                    build(platform, dataset, window, datetime.now(UTC), insist=True)
                database = tmp_path / "filtered_export" / "exported.sqlite"
                exported = tmp_path / "export" / "exported"
                await asyncio.to_thread(
                    _until, lambda: len(list(exported.glob("*.parquet"))) == 3 and _count(database) == 24, 60
                )
            finally:
                for process in [served, *programs]:
                    process.terminate()
                for process in [served, *programs]:  # in a thread: what they still say goes through this loop
                    await asyncio.to_thread(process.wait, 20)

    asyncio.run(run())
    found = {path.stem: pl.read_parquet(path) for path in (tmp_path / "export" / "exported").glob("*.parquet")}
    first = found["example_weather_20240101T000000"]
    assert first[TEMPERATURE].to_list() == [20.0 + i * 0.5 for i in range(24)]
    assert first["datetime"].dt.hour().to_list() == list(range(24))
    triggered = found["example_weather_20240102T000000"]
    assert triggered[TEMPERATURE].to_list() == [20.0 + (i // 6) * 0.5 for i in range(144)]
    with sqlite3.connect(tmp_path / "filtered_export" / "exported.sqlite") as database:
        values = database.execute(f'SELECT "{TEMPERATURE}" FROM observations ORDER BY datetime').fetchall()
    assert [value for (value,) in values] == rows()["t"].to_pylist()
    assert bridge.inbox.unanswered(10) == [] and bridge.inbox.refusals(10) == []


def test_a_broker_that_is_away_is_said_to_be(platform_of):
    platform = platform_of("  my_source: {kind: external}", broker="{url: 'amqp://127.0.0.1:9/'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ionbeam_dagster.bus.bridge.CONNECT_TIMEOUT", 0.5)
        with pytest.raises(BrokerAway, match=r"127\.0\.0\.1:9/ does not answer; start it"):
            platform.bridge.take_in(5)


def _program(folder: Path, path: Path) -> subprocess.Popen:
    place = folder / path.stem
    place.mkdir()
    return subprocess.Popen(
        [sys.executable, path], cwd=place, stdout=subprocess.DEVNULL,
        env={**os.environ, "IONBEAM_STATE_PATH": str(place / "state")},
    )  # fmt: skip


def _ends(window: Window) -> tuple[datetime, datetime]:
    return window.start, window.end


def _no_room(*args):
    raise OSError("no room")


def _count(database: Path) -> int:
    if not database.exists():
        return 0
    with sqlite3.connect(database) as opened:
        known = opened.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return opened.execute("SELECT count(*) FROM observations").fetchone()[0] if known else 0


def _until(condition, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_broker_and_bridge_are_killed_again_and_again_and_every_sweep_is_there_once(platform_of, tmp_path):
    """A storm with a fixed seed: the client keeps sending while both ends of the platform die between and in steps."""
    if reason := why_no_rabbitmq():
        pytest.skip(reason)
    (tmp_path / "broker").mkdir()
    server, chance = RabbitMQ(tmp_path / "broker"), random.Random(4)
    server.start()
    platform = platform_of(
        "  my_source: {kind: external, dataset: example_weather, start: 2024-01-01}", broker=f"{{url: '{server.url}'}}"
    )
    config = IonbeamClientConfig(amqp_url=server.url, state_path=tmp_path / "client", retry_delays=(0.1,))
    heard_of: list[tuple[int, int]] = []
    bridge, ids = bridge_process(tmp_path), []

    async def run():
        nonlocal bridge
        async with IonbeamClient(config) as client:

            @client.register_export_handler("x")
            async def export(event, batch_stream):
                heard_of.append((event.revision, sum([batch.num_rows async for batch in batch_stream])))

            for number in range(60):
                sweep = rows(24, first=float(number), station=f"s{number}")
                ids.append(str((await client.ingest(sweep, METADATA, START, START + DAY)).id))
                if number % 30 == 10:
                    await asyncio.sleep(chance.uniform(0, 3))
                    bridge.kill()
                    bridge = bridge_process(tmp_path)
                if number == 40:
                    await asyncio.sleep(chance.uniform(0, 1))
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
            await asyncio.to_thread(_until, lambda: len(platform.ledger.sent("my_source", FIRST_DAY)) == 60, 90)
            await asyncio.to_thread(ingest, platform, "my_source", FIRST_DAY)
            await asyncio.to_thread(built_day, platform)
            await asyncio.to_thread(_until, lambda: heard_of, 60)

    try:
        asyncio.run(run())
        assert [raw.ingestion for raw in platform.ledger.sent("my_source", FIRST_DAY)] == ids
        assert heard_of == [(1, 60 * 24)]
        assert platform.bridge.inbox.refusals(10) == []
        assert waiting(server.url, wire.INGESTION.dead) == [] and waiting(server.url, wire.INGESTION) == []
    finally:
        bridge.kill()
        bridge.wait()
        server.close()


def test_an_external_source_needs_no_more_than_to_be_called_so(platform_of):
    platform = platform_of("  netatmo: {kind: external}")
    source = platform.source("netatmo")
    assert (source.type.__name__, source.kind, source.window_size) == ("External", "external", DAY)
    with pytest.raises(SourceError, match="is sent by a client"):
        platform.sources["netatmo"].fetch(FIRST_DAY)
    with pytest.raises(PipelineError, match="no client sent anything; materialise netatmo/request"):
        ingest(platform, "netatmo", FIRST_DAY)
    with pytest.raises(PipelineError, match="has no message broker; add 'broker:"):
        _ = platform.bridge


def test_two_external_sources_of_one_dataset_are_refused(platform_of):
    with pytest.raises(ConfigError, match="a and b are both external, but a message names only its dataset"):
        platform_of("  a: {kind: external, dataset: one}\n  b: {kind: external, dataset: one}")


def test_a_damaged_raw_file_holds_up_none_that_was_sent_after_it(platform):
    assert day(platform, rows(station="broken"), id=UUID(int=1)) == [None]
    assert day(platform, rows(station="whole"), id=UUID(int=2)) == [None]
    window = Window(START, START + 6 * HOUR)
    platform.ledger.sent("my_source", window)[0].path.write_bytes(b"damaged")
    with pytest.raises(PipelineError, match="cannot be read"):
        ingest(platform, "my_source", window)
    assert [claim.id for claim in platform.ledger.claims("example_weather", FIRST_DAY)] == [str(UUID(int=2))]
    assert platform.ledger.waiting("my_source")[0] == window
