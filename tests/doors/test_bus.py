"""Commands in and events out against a real RabbitMQ, with the real client at the other end."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import random
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bus_samples import (
    DAY,
    FIRST_DAY,
    HOUR,
    METADATA,
    SCHEMA,
    SOURCES,
    START,
    TEMPERATURE,
    body,
    built_day,
    command,
    day,
    ends,
    heard,
    listen,
    rows,
    send,
    waiting,
)
from typer.testing import CliRunner

from ionbeam_client import IonbeamClient, IonbeamClientConfig, wire
from ionbeam_client.models import DataSetAvailableEvent, IngestDataCommand, ReplayDatasetsCommand, StartSourceCommand
from ionbeam_client.payloads import PayloadStore
from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import FOREVER, Window
from ionbeam_dagster.doors.amqp.bridge import BrokerAway, bridge_of
from ionbeam_dagster.doors.amqp.leftovers import bus_leftovers
from ionbeam_dagster.doors.amqp.status import bus_status
from ionbeam_dagster.errors import PipelineError, SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.retention import purge
from ionbeam_dagster.stores.ledger.parts import Unfinished
from ionbeam_dagster.stores.publish import file_hash

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
            turn = await asyncio.to_thread(bridge_of(platform).take_in, 20)
            assert turn.taken == {wire.INGESTION.name: 1} and not turn.refused
            ingested = await asyncio.to_thread(
                ingest, platform, platform.source("my_source"), Window(START, START + 6 * HOUR)
            )
            assert (ingested.claim.id, ingested.rows) == (str(receipt.id), 24)
            [raw] = platform.ledger.raws("my_source", FOREVER)
            assert (raw.bytes, raw.hash) == (Path(raw.path).stat().st_size, file_hash(Path(raw.path)))
            await asyncio.to_thread(built_day, platform)
            turn = await asyncio.to_thread(bridge_of(platform).announce, 20)
            assert turn.announced == 2
            deadline = time.monotonic() + 20
            while not received and time.monotonic() < deadline:
                await asyncio.sleep(0.02)

    asyncio.run(run())
    [(event, table)] = received
    assert (event.start_time, event.end_time, event.revision, event.previous_revision) == (*ends(FIRST_DAY), 1, None)
    assert event.metadata.description == "One thermometer"
    assert table[TEMPERATURE].to_pylist() == rows()["t"].to_pylist()
    assert table["datetime"].to_pylist() == rows()["datetime"].to_pylist()
    assert waiting(broker, wire.INGESTION.dead) == []


def test_a_command_is_one_ingestion_however_often_it_comes(platform, broker):
    message = command()
    send(broker, body(message), body(message), body(message))
    bridge_of(platform).take_in(20)
    send(broker, body(message))
    assert bridge_of(platform).take_in(20).taken == {wire.INGESTION.name: 1}
    window = Window(START, START + 6 * HOUR)
    [raw] = platform.ledger.sent("my_source", window)
    assert raw.ingestion == str(message.id) and raw.window == FIRST_DAY
    assert [arrival.commands for arrival in platform.ledger.commands.unreported(10)] == [1, 1, 1, 1]
    assert len(list(Path(raw.path).parent.glob("*.parquet"))) == 1
    ingest(platform, platform.source("my_source"), window)
    assert built_day(platform).height == 24


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_crash_between_any_two_steps_is_mended_by_the_next_delivery(platform, broker, monkeypatch, step):
    """The files are there and the ledger knows nothing, or it does, and the message was not acknowledged."""
    message, bridge = command(), bridge_of(platform)
    send(broker, body(message))
    commands = type(platform.ledger.commands)

    def dies(*given):
        if step == "after":
            take(*given)
        raise OSError("no room")

    with monkeypatch.context() as broken:
        take = commands.take
        broken.setattr(commands, "take", dies)
        with pytest.raises(OSError, match="no room"):
            bridge.take_in(20)
    assert bridge.take_in(20).taken == {wire.INGESTION.name: 1}
    [raw] = platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))
    assert raw.ingestion == str(message.id) and Path(raw.path).exists()
    assert [one.commands for one in platform.ledger.commands.unreported(10)] == [1, 1, 1, 1]
    assert waiting(broker, wire.INGESTION) == [] and waiting(broker, wire.INGESTION.dead) == []


def with_a_damaged_page(path: Path) -> None:
    before = path.read_bytes()
    path.write_bytes(before[:4] + bytes(60) + before[64:])


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3)))[::2])
def test_a_range_is_collected_once_all_parts_are_there(platform, order):
    id, table = uuid4(), rows(24)
    bodies = {part: body(command(id=id, part=part, parts=3), table.slice(8 * (part - 1), 8)) for part in (1, 2, 3)}
    window = Window(START, START + 6 * HOUR)
    take = bridge_of(platform).intake.ingestions
    assert take([bodies[order[0]], bodies[order[1]], bodies[order[0]]]) == [None, None, None]
    assert platform.ledger.sent("my_source", window) == []
    assert platform.ledger.parts.unfinished() == [Unfinished(str(id), "my_source", 2, 3)]
    assert take([bodies[order[2]]]) == [None]
    assert take([bodies[order[1]]]) == [None], "a part that comes again after the end changes nothing"
    [raw] = platform.ledger.sent("my_source", window)
    assert pq.read_table(raw.path)["t"].to_pylist() == table["t"].to_pylist()
    assert platform.ledger.parts.unfinished() == []
    assert not list(Path("ionbeam-state/bus/parts").rglob("*.parquet"))


def test_parts_that_say_different_things_are_refused_and_the_right_one_completes(platform):
    id = uuid4()
    take = bridge_of(platform).intake.ingestions
    other = command(id=id, part=2, parts=2, end_time=START + 2 * DAY)
    assert take([body(command(id=id, part=1, parts=2))]) == [None]
    assert "other things" in take([body(other)])[0]
    assert take([body(command(id=id, part=2, parts=2))]) == [None]
    assert len(platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))) == 1


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"PAR1"), with_a_damaged_page])
def test_a_lost_part_is_named_parks_its_command_alone_and_comes_again(platform, harm):
    id, table, window = uuid4(), rows(24), Window(START, START + 6 * HOUR)
    bodies = [body(command(id=id, part=part + 1, parts=3), table.slice(8 * part, 8)) for part in range(3)]
    take = bridge_of(platform).intake.ingestions
    assert take(bodies[:2]) == [None, None]
    harm(next(Path("ionbeam-state/bus/parts").rglob("*_1.parquet")))
    reason, other = take([bodies[2], body(command())])
    assert "part 1 of it is lost" in reason and "send the command again" in reason and other is None
    assert len(platform.ledger.sent("my_source", window)) == 1
    assert take(bodies) == [None, None, None] and platform.ledger.parts.unfinished() == []
    assert [raw.rows for raw in platform.ledger.sent("my_source", window)] == [24, 24]


def test_a_later_ingestion_corrects_an_earlier_one_in_the_order_of_arrival(platform):
    bodies = [body(command(), rows(first=first)) for first in (10.0, 30.0, 20.0)]
    assert bridge_of(platform).intake.ingestions(bodies) == [None] * 3
    ingested = ingest(platform, platform.source("my_source"), Window(START + 6 * HOUR, START + 12 * HOUR))
    assert ingested.rows == 72
    assert built_day(platform)[TEMPERATURE].to_list() == rows(first=20.0)["t"].to_pylist()


def test_what_replaces_takes_the_place_of_what_its_client_sent_before(platform, broker, tmp_path):
    """Two ingestions and then one that replaces both, in their order on the queue; what another day brought stays."""
    config = IonbeamClientConfig(amqp_url=broker, state_path=tmp_path / "client", retry_delays=(0.1,))
    middle, tomorrow = START + 6 * HOUR, START + DAY

    async def run():
        async with IonbeamClient(config) as client:
            await client.ingest(rows(station="misread"), METADATA, START, tomorrow)
            await client.ingest(rows(6, start=middle, station="other"), METADATA, middle, middle + 6 * HOUR)
            await client.ingest(rows(start=tomorrow, station="next_day"), METADATA, tomorrow, tomorrow + DAY)
            await client.ingest(rows(12, first=5.0, station="roof"), METADATA, START, tomorrow, replaces=True)
            assert await client.flush(20)

    asyncio.run(run())
    assert bridge_of(platform).take_in(20).taken == {wire.INGESTION.name: 4}
    for quarter in range(8):
        begin = START + quarter * 6 * HOUR
        ingest(platform, platform.source("my_source"), Window(begin, begin + 6 * HOUR))
    built = built_day(platform)
    assert built["station_id"].unique().to_list() == ["roof"]
    assert built[TEMPERATURE].to_list() == rows(12, first=5.0)["t"].to_pylist()
    assert built_day(platform, Window(tomorrow, tomorrow + DAY))["station_id"].unique().to_list() == ["next_day"]
    assert len(platform.ledger.claims("example_weather", FIRST_DAY)) == 1
    assert platform.ledger.waiting("my_source") == []
    for file in Path("ionbeam-state").glob("ledger.sqlite*"):
        file.unlink()
    again = open_platform(platform.config)
    assert again.ledger.recovered() and len(again.ledger.claims("example_weather", FIRST_DAY)) == 1
    assert built_day(again)["station_id"].unique().to_list() == ["roof"], "nor do they come back with a lost ledger"


@pytest.mark.parametrize("ingested", [True, False])
def test_what_replaces_leaves_what_another_sender_sent(platform, ingested):
    """Also in a ledger that is made again, and where the source names no senders."""
    first = Window(START, START + 6 * HOUR)

    def take(sender, table, **said):
        assert bridge_of(platform).intake.ingestions([body(command(id=uuid4(), **said), table)], [sender]) == [None]

    def ingest_all():
        for window in platform.ledger.waiting("my_source"):
            ingest(platform, platform.source("my_source"), window)

    take("oslo", rows(3))
    if ingested:
        ingest_all()
    for sender in ("bergen", ""):
        take(sender, rows(0), replaces=True)
    for file in Path("ionbeam-state").glob("ledger.sqlite*"):
        file.unlink()
    platform = open_platform(platform.config)
    assert platform.ledger.recovered()
    ingest_all()
    assert built_day(platform).height == 3
    assert {raw.sender for raw in platform.ledger.sent("my_source", first)} == {"oslo", "bergen", ""}
    take("oslo", rows(2), replaces=True)
    ingest_all()
    assert built_day(platform).height == 2


def test_other_columns_under_the_same_version_are_parked_with_the_difference_and_a_new_version_taken(platform, broker):
    other = _measured(level=10.0)
    newer = other.model_copy(update={"version": 2})
    send(broker, body(command()))
    bridge_of(platform).take_in(20)
    ingest(platform, platform.source("my_source"), Window(START, START + 6 * HOUR))
    refused, raised = command(metadata=other), command(metadata=newer, start_time=START + DAY, end_time=START + 2 * DAY)
    send(broker, body(refused), body(raised, rows(start=START + DAY)))
    turn = bridge_of(platform).take_in(20)
    assert len(turn.refused) == 1 and turn.taken == {wire.INGESTION.name: 1}
    (parked,) = waiting(broker, wire.INGESTION.dead)
    changed = TEMPERATURE.replace("2.0", "10.0")
    for told in ("my_source: ", f"{TEMPERATURE} is no longer there", f"{changed} is new", "raise the version to 2"):
        assert told in parked.headers[wire.ERROR_HEADER]
    assert wire.decode(IngestDataCommand, parked.body).message.id == refused.id, "it can be sent back as it came"
    ingest(platform, platform.source("my_source"), Window(START + DAY, START + DAY + 6 * HOUR))
    assert built_day(platform)[TEMPERATURE].len() == 24
    assert built_day(platform, Window(START + DAY, START + 2 * DAY))[changed].len() == 24


def test_late_rows_and_empty_ones_are_told_to_their_windows(platform):
    late = rows(1, start=START + 3 * DAY + HOUR)
    assert day(platform, pa.concat_tables([rows(), late])) == [None]
    assert day(platform, rows(0), start_time=START + DAY, end_time=START + 2 * DAY) == [None]
    for start in (START, START + DAY):
        ingest(platform, platform.source("my_source"), Window(start, start + 6 * HOUR))
    due = platform.ledger.due("example_weather")
    assert [window.start for window in due] == [START, START + DAY, START + 3 * DAY]
    assert built_day(platform, due[0]).height == 24
    assert (built_day(platform, due[1]).height, built_day(platform, due[2]).height) == (0, 1)


def test_a_payload_of_an_older_client_is_taken_when_it_lies_in_the_store(platform, tmp_path):
    store = Path("ionbeam-state/payloads")
    take = bridge_of(platform).intake.ingestions
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


def test_payloads_and_parts_go_when_nobody_needs_them(platform_of):
    platform = platform_of(SOURCES, broker="{url: 'amqp://127.0.0.1:9/'}", retention="{payloads: P7D}")
    bridge, store, now = bridge_of(platform), Path("ionbeam-state/payloads"), datetime.now(UTC)
    for name in ("taken", "parked", "unsent"):
        pq.write_table(rows(), store / f"{name}.parquet")
    (store / ".draft-0123").write_bytes(b"half of a payload")
    wrong = command(payload_location=Path("parked.parquet"), metadata=_measured(cf_unit="nonsense"))
    sent = [command(payload_location=Path("taken.parquet")), wrong, command(id=UUID(int=1), part=1, parts=2)]
    bodies = [*map(wire.json_body, sent[:2]), body(sent[2])]
    assert [verdict is None for verdict in bridge.intake.ingestions(bodies)] == [True, False, True]
    [part] = bridge.intake.parts.folder.rglob("*.parquet")
    joined = part.with_name("my_source_joined.parquet")
    joined.write_bytes(b"what a crash left")
    for young in (store / ".draft-0123", part, joined):
        assert young.exists() and purge(platform, now, also=[bus_leftovers]).gone == ()
        os.utime(young, (0, 0))
        if young != part:
            assert len(purge(platform, now, also=[bus_leftovers]).gone) == 1 and not young.exists()
    assert [one.what for one in purge(platform, now + 8 * DAY, dry_run=True, also=[bus_leftovers]).gone] == [
        "taken.parquet"
    ]
    assert (
        purge(platform, now + 8 * DAY, also=[bus_leftovers]).bytes > 0
        and purge(platform, now + 8 * DAY, also=[bus_leftovers]).gone == ()
    )
    assert sorted(path.stem for path in store.glob("*.parquet")) == ["parked", "unsent"]
    assert bridge.intake.ingestions([body(command(id=UUID(int=1), part=2, parts=2)), bodies[0]]) == [None, None]
    assert len(platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))) == 2 and not part.exists()


def test_payloads_and_raw_partitions_lie_in_s3(platform_of, broker, s3, monkeypatch):
    root = s3.bucket("bus")
    sources = SOURCES.replace("kind: external,", f"kind: external, data_path: {root}/raw,")
    payloads = f"{root}/payloads"
    s3_section = json.dumps(s3.section())
    platform = platform_of(sources, broker=f"{{url: '{broker}', payload_path: '{payloads}'}}", s3=s3_section)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    where = f"endpoint_override={s3.endpoint.partition('//')[2]}&scheme=http&region={s3.region}"
    writer = PayloadStore(f"{payloads}?{where}").writer(SCHEMA)
    writer.write(rows().to_batches())
    writer.publish("day/a.parquet")
    named = wire.json_body(command(payload_location=Path("day/a.parquet")))
    assert bridge_of(platform).intake.ingestions([named]) == [None]
    (raw,) = platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))
    assert raw.path.startswith(f"{root}/raw/my_source/")
    assert ingest(platform, platform.source("my_source"), Window(START, START + 6 * HOUR)).rows == 24
    assert built_day(platform)[TEMPERATURE].to_list() == rows()["t"].to_pylist()


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
    "accept elsewhere` adds 'sources: {elsewhere: {kind: external, aggregation_span: P1D}}'": lambda: body(
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
    turn = bridge_of(platform).take_in(30)
    assert len(turn.refused) == len(bad) and turn.taken == {wire.INGESTION.name: 1}
    assert len(platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))) == 1
    parked = waiting(broker, wire.INGESTION.dead)
    reasons = {delivery.body: delivery.headers[wire.ERROR_HEADER] for delivery in parked}
    for reason, sent in bad.items():
        assert reason in reasons[sent]
    assert {refused.reason for refused in platform.ledger.refusals.newest(100)} == set(reasons.values())
    told = bus_status(platform.ledger, limit=100).lines()
    assert told[0] == "1 commands taken in within 30 days, 0 changes not announced yet"
    assert all(any(reason in line and "dead requeue m" in line for line in told) for reason in REFUSED)
    assert not list(Path("data-raw").rglob(".*parquet*")), "drafts are left behind"


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.soak)])
def test_malformed_messages_in_a_row_take_no_memory_and_hold_nothing_up(platform, broker, count, caplog):
    """All parked, each with its reason; what stands behind them is taken in."""
    caplog.set_level(logging.CRITICAL, "ionbeam_dagster")  # pytest would keep a record a message
    nonsense = random.Random(7)

    def take_in(number: int) -> int:
        """Returns the memory that Python holds afterwards."""
        bad = [nonsense.randbytes(nonsense.randint(0, 3_000)) for _ in range(number)]
        send(broker, *bad, body(command()))
        taken = 0
        while not taken:
            turn = bridge_of(platform).take_in(60)
            taken += sum(turn.taken.values())
        del bad, turn
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = take_in(50)
        assert take_in(count) - before < 2_000_000
    finally:
        tracemalloc.stop()
    parked = waiting(broker, wire.INGESTION.dead)
    assert len(parked) == count + 50 and all(one.headers[wire.ERROR_HEADER] for one in parked)
    assert len(platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))) == 2
    assert len(platform.ledger.refusals.newest(10_000)) == min(count + 50, 1_000)


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
    [reason] = bridge_of(platform).intake.ingestions([many])
    assert "more than 5000000 rows" in reason


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_buffer_that_says_it_is_huge_is_not_unpacked(platform, value):
    """A message of some kilobytes whose buffers would be gigabytes, few rows or not."""
    message, count = command(), 4_000_000
    names = pa.array(["x" * 250] * 1_000).take(pa.array([0] * 1_000))
    wide = pa.RecordBatch.from_arrays(
        [pa.array([START] * 1_000, wire.TIME), *[pa.array([value] * 1_000)] * 3, names], schema=SCHEMA
    )
    many = wire.with_rows(message, SCHEMA, [wide] * (count // 1_000))
    [reason] = bridge_of(platform).intake.ingestions([many])
    assert "would decompress to more than 512000000 bytes" in reason
    assert not platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))


# -- out ---------------------------------------------------------------------------------------------------------------


def revised(platform: Platform, times: int) -> None:
    for number in range(times):
        assert day(platform, rows(first=float(number)), id=UUID(int=number + 1)) == [None]
        ingest(platform, platform.source("my_source"), Window(START, START + 6 * HOUR))
        build(platform, platform.dataset("example_weather"), FIRST_DAY, datetime.now(UTC), insist=True)


def test_every_revision_is_announced_once_in_order_also_what_was_built_meanwhile(platform, broker):
    listen(broker)
    revised(platform, 2)
    assert bridge_of(platform).announce(20).announced == 4
    assert bridge_of(platform).announce(20).announced == 0
    revised(platform, 5)  # the first two are known, so that three are new
    assert bridge_of(platform).announce(20).announced == 6
    events = heard(broker)
    assert [(event.revision, event.previous_revision) for event in events] == [
        (1, None), (2, 1), (3, 2), (4, 3), (5, 4)
    ][: len(events)] and len(events) == 5  # fmt: skip
    assert len({event.id for event in events}) == 5


def test_a_replay_brings_the_latest_revisions_under_the_ids_that_they_had(platform, broker):
    listen(broker)
    revised(platform, 2)
    assert day(platform, rows(start=START + DAY), start_time=START + DAY, end_time=START + 2 * DAY) == [None]
    ingest(platform, platform.source("my_source"), Window(START + DAY, START + DAY + 6 * HOUR))
    built_day(platform, Window(START + DAY, START + 2 * DAY))
    bridge_of(platform).announce(20)
    live = heard(broker)
    assert [event.revision for event in live] == [1, 2, 1]
    asked = [
        ReplayDatasetsCommand(exporter_name="x", start_time=START, datasets=["example_weather", "unheard_of"]),
        ReplayDatasetsCommand(exporter_name="x", start_time=START + DAY),
    ]
    for one in asked:
        send(broker, wire.json_body(one), queue=wire.REPLAY)
        bridge_of(platform).take_in(20)
        bridge_of(platform).announce(20)
    assert [event.id for event in heard(broker)] == [live[1].id, live[2].id, live[2].id]
    assert bridge_of(platform).announce(20).replayed == 0


def test_rows_too_many_for_a_message_come_in_parts(platform, broker, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.doors.amqp.outbox.PART_LIMIT", 20_000)
    monkeypatch.setattr("ionbeam_dagster.doors.amqp.outbox._BATCH", 1_000)
    listen(broker)
    table = rows(20_000, step=timedelta(seconds=4))
    assert day(platform, table) == [None]
    ingest(platform, platform.source("my_source"), Window(START, START + 6 * HOUR))
    built_day(platform)
    bridge_of(platform).announce(20)
    decoded = [wire.decode(DataSetAvailableEvent, d.body) for d in waiting(broker, wire.exporter_queue("x"))]
    assert len(decoded) > 2
    assert [(one.message.part, one.message.parts) for one in decoded] == [
        (part, len(decoded)) for part in range(1, len(decoded) + 1)
    ]
    together = pa.Table.from_batches(batch for one in decoded for batch in wire.batches(one.rows))
    assert together[TEMPERATURE].to_pylist() == table["t"].to_pylist()


# -- asking ------------------------------------------------------------------------------------------------------------


def test_a_window_that_is_asked_for_is_unanswered_until_its_range_comes(platform, broker):
    bridge, window = bridge_of(platform), Window(START, START + 6 * HOUR)
    assert bridge.ask("my_source", [window]) == {window: 1}
    assert bridge.ask("my_source", [window]) == {window: 2}
    sent = [wire.decode(StartSourceCommand, d.body).message for d in waiting(broker, wire.source_queue("my_source"))]
    assert [(one.start_time, one.end_time) for one in sent] == [ends(window)] * 2
    assert sent[0].id != sent[1].id, "a client would take the second for the first"
    assert [asked.window for asked in platform.ledger.requests.unanswered(10)] == [window]
    answer = body(command(end_time=START + DAY))
    assert bridge.intake.ingestions([answer]) == [None]
    assert platform.ledger.requests.unanswered(10) == [] and platform.ledger.requests.last("my_source", window).answered
    assert bridge.ask("my_source", [window]) == {window: 1}
    assert bridge.intake.ingestions([answer]) == [None], "the same rows again are an answer, too"
    assert platform.ledger.requests.unanswered(10) == []


def test_a_start_command_for_a_built_in_source_is_remembered_and_a_wrong_one_parked(platform, broker):
    queue = wire.source_queue("ioncannon")
    good = StartSourceCommand(source_name="ioncannon", start_time=START, end_time=START + HOUR)
    wrong = good.model_copy(update={"source_name": "other", "id": uuid4()})
    early = good.model_copy(update={"start_time": START - DAY, "end_time": START - HOUR, "id": uuid4()})
    send(broker, *map(wire.json_body, (good, wrong, early, good)), queue=queue)
    turn = bridge_of(platform).take_in(20)
    assert turn.taken == {queue.name: 2} and len(turn.refused) == 2
    [wanted] = platform.ledger.requests.after(0, 10)
    assert (wanted.source, wanted.range) == ("ioncannon", Window(START, START + HOUR))
    reasons = [delivery.headers[wire.ERROR_HEADER] for delivery in waiting(broker, queue.dead)]
    assert any("send it to ionbeam.source.other.start" in reason for reason in reasons)
    assert any("begins" in reason for reason in reasons)


def test_a_broker_that_is_away_is_said_to_be(platform_of):
    platform = platform_of("  my_source: {kind: external}", broker="{url: 'amqp://127.0.0.1:9/'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ionbeam_dagster.doors.amqp.bridge.CONNECT_TIMEOUT", 0.5)
        with pytest.raises(BrokerAway, match=r"127\.0\.0\.1:9/ does not answer \(.*Connect call failed.*\); start it"):
            bridge_of(platform).take_in(5)


def _no_room(*args):
    raise OSError("no room")


def test_an_external_source_needs_no_more_than_to_be_called_so(platform_of):
    platform = platform_of("  netatmo: {kind: external}")
    source = platform.source("netatmo")
    assert (source.type.__name__, source.kind, source.window_size) == ("External", "external", DAY)
    with pytest.raises(SourceError, match="is sent by a client"):
        platform.sources["netatmo"].fetch(FIRST_DAY)
    with pytest.raises(PipelineError, match="no client sent anything; materialise netatmo/request"):
        ingest(platform, platform.source("netatmo"), FIRST_DAY)
    with pytest.raises(PipelineError, match="has no message broker; add 'broker:"):
        _ = bridge_of(platform)


def test_several_external_sources_feed_one_dataset_and_a_message_says_which(platform_of):
    block = "{kind: external, dataset: one, station_prefix: '', start: 2024-01-01}"
    platform = platform_of(
        "".join(f"  {name}: {block}\n" for name in "abc"),
        broker="{url: 'amqp://127.0.0.1:9/'}",
    )
    said = _said(name="one")
    ranges = [command(metadata=said, source_name=name) for name in ("a", "b", "c", None, "d")]
    verdicts = bridge_of(platform).intake.ingestions(
        [body(one, rows(first=i, station=f"s{i}")) for i, one in enumerate(ranges)]
    )
    assert verdicts[:3] == [None] * 3
    assert "fed by a, b, c, and the message says no source_name" in verdicts[3] and "'d'" in verdicts[4]
    for name in "abc":
        assert len(platform.ledger.sent(name, FIRST_DAY)) == 1
        ingest(platform, platform.source(name), FIRST_DAY)
    made = build(platform, platform.dataset("one"), FIRST_DAY, datetime.now(UTC))
    assert made.built and set(pl.read_parquet(made.revision.path)["station_id"]) == {"s0", "s1", "s2"}


def test_a_damaged_raw_file_holds_up_none_that_was_sent_after_it(platform):
    assert day(platform, rows(station="broken"), id=UUID(int=1)) == [None]
    assert day(platform, rows(station="whole"), id=UUID(int=2)) == [None]
    window = Window(START, START + 6 * HOUR)
    Path(platform.ledger.sent("my_source", window)[0].path).write_bytes(b"damaged")
    with pytest.raises(PipelineError, match="cannot be read"):
        ingest(platform, platform.source("my_source"), window)
    assert [claim.id for claim in platform.ledger.claims("example_weather", FIRST_DAY)] == [str(UUID(int=2))]
    assert platform.ledger.waiting("my_source")[0] == window


YAML = """\
# the platform of the village
broker: {url: '%s'}
sources:
    # the load generator
    ioncannon: {num_stations: 2, start: 2024-01-01}  # small
automation: {enabled: false}
"""


def test_a_dataset_that_the_yaml_does_not_know_is_accepted_and_what_was_parked_taken_in(platform_of, broker, tmp_path):
    platform_of("  ioncannon: {start: 2024-01-01}")  # goes to the test's folder
    place, yaml = tmp_path / "own.yaml", YAML % broker
    place.write_text(yaml)
    before = open_platform(IonbeamConfig.load(place))
    said, again = _said(name="roof", aggregation_span=6 * HOUR), command(metadata=_said(name="other"))
    ranges = [command(metadata=said, start_time=START + i * DAY, end_time=START + (i + 1) * DAY) for i in (1, 0)]
    send(broker, *map(body, ranges), body(again), b"garbage")
    assert len(bridge_of(before).take_in(20).refused) == 4

    def ionbeam(*arguments):
        return CliRunner().invoke(app, ["--config", str(place), *arguments])

    assert "nothing is parked of dataset 'unheard_of'" in ionbeam("source", "accept", "unheard_of").output
    accepted = ionbeam("source", "accept", "roof")
    assert accepted.exit_code == 0 and "2 parked messages are taken in once" in accepted.output
    lines = (
        "roof:",
        "    # One thermometer",
        "    kind: external",
        "    start: 2024-01-01",
        "    aggregation_span: PT6H",
    )
    added = "".join(f"    {line}\n" for line in lines)
    assert place.read_text() == yaml.replace("sources:\n", f"sources:\n{added}")
    assert bridge_of(before).take_in(20).taken == {}, "it has not read the new YAML"

    after = open_platform(IonbeamConfig.load(place))
    assert bridge_of(after).take_in(20).taken == {wire.INGESTION.name: 2}
    assert len(after.ledger.sent("roof", FIRST_DAY)) == 1
    assert len(after.ledger.refusals.newest(10)) == 2 and len(waiting(broker, wire.INGESTION.dead)) == 2
    assert "has dataset 'roof' already" in ionbeam("source", "accept", "roof").output
