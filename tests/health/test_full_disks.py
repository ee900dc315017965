"""The disk under each store in turn fills, and has room again: nothing that was acknowledged is lost, the platform's
health is red meanwhile, and green again by itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika
import backends
import pytest
from door_samples import SOURCES, opened, write
from installations import mounted, small_disk  # noqa: F401
from servers import RabbitMQ, free_port, why_no_rabbitmq

from ionbeam_client import wire
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.doors.amqp import queues
from ionbeam_dagster.errors import IonbeamError
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.pipeline import contents
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.sources.netatmo.journal import Journal, Writer

pytestmark = pytest.mark.soak
MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOURS = [Window(MORNING + timedelta(hours=h), MORNING + timedelta(hours=h + 1)) for h in range(2)]
LATER = MORNING + timedelta(days=3)
WITHIN = 60.0  # seconds
NOT_WELL = 503


def network(place: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A source with its places; those of `place` are elsewhere."""
    at = {one: place.get(one, one) for one in ("state", "raw", "data", "out", "quarantine", "scratch")}
    source = (
        f"  ioncannon: {{num_stations: 200, start: 2026-06-21, data_path: '{at['raw']}', aggregation_span: PT1H, "
        "bad_value_fraction: 0.1, exports: [odb, pygeoapi]}"
    )
    projections = {"odb_service": {"output_path": at["out"]}, "pygeoapi_service": {"output_path": at["out"]}}
    return source, {
        "state_path": at["state"],
        "scratch_path": at["scratch"],
        "quarantine_path": at["quarantine"],
        "dataset_aggregator": json.dumps({"data_path": at["data"]}),
        "projections": json.dumps(projections),
        "automation": "{enabled: false}",
    }


def do(platform: Platform, hour: Window) -> int:
    """All of an hour; the rows that it has."""
    source, dataset = platform.source("ioncannon"), platform.dataset("ioncannon")
    for window in windows_between(hour.start, hour.end, source.window_size):
        collect(platform, source, window, LATER)
        ingest(platform, source, window)
    built = build(platform, dataset, hour, LATER)
    for exporter in (platform.config.window_exporters[format] for format in dataset.exports):
        export(platform, dataset, exporter, hour)
    return built.revision.facts.rows


@contextmanager
def full(folder: Path, but_for: int = 0) -> Iterator[None]:
    """Without a byte left, or `but_for` some, until the end."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", 0) as file:
        while file.write(bytes(1 << 16)):
            pass
    os.truncate(filler, filler.stat().st_size - but_for)
    try:
        yield
    finally:
        filler.unlink()


def turns(watch: Watch, status: int) -> dict[str, object]:
    """Look until the page has a status; within a minute."""
    until = time.monotonic() + WITHIN
    while True:
        watch.look()
        found, body = watch.answer(in_full=True)
        if found == status:
            return {one["name"]: one for one in json.loads(body)["checks"] if one["status"] == "fail"}
        assert time.monotonic() < until, body
        time.sleep(1)


def survives(platform: Platform, disk: Path, started: Callable[[], None] = lambda: None) -> dict[str, object]:
    """One hour before, one on a full disk, both after: what was said to be there is; gives what was not well."""
    rows = do(platform, HOURS[0])
    watch = Watch(platform)
    turns(watch, 200)
    with full(disk):
        wrong = turns(watch, NOT_WELL)
        with suppress(IonbeamError, OSError):
            do(platform, HOURS[1])
    started()
    turns(watch, 200)
    found = reconcile(platform, platform.now(), contents.looked_at_all)
    assert not [work for work in found.work if work.window == HOURS[0]] and not found.for_a_person, found
    assert platform.ledger.latest_revision("ioncannon", HOURS[0]).facts.rows == rows
    assert do(platform, HOURS[1]) > 0.8 * rows and do(platform, HOURS[0]) == rows
    found = reconcile(platform, platform.now(), contents.looked_at_all)
    assert not found.work and not found.for_a_person, found
    return wrong


@pytest.mark.parametrize("place", ["state", "raw", "data", "out", "quarantine", "scratch"])
def test_a_disk_under_one_folder(platform_of, small_disk, place):  # noqa: F811
    source, sections = network({place: str(small_disk / place)})
    wrong = survives(platform_of(source, **sections), small_disk)
    assert {"disk", "files"} <= wrong.keys()
    assert "ledger" in wrong or place != "state"


def _server(start, folder: Path):
    try:
        return start(folder)
    except backends.Missing as missing:
        pytest.skip(missing.reason)


def test_a_disk_under_redis(platform_of, small_disk):  # noqa: F811
    redis = _server(backends.start_redis, small_disk)

    def started() -> None:
        """Redis ends where it cannot keep its word; its supervisor starts it again."""
        with suppress(OSError, RuntimeError):
            redis.process.stop()
        redis.process.start()

    source, sections = network({})
    try:
        wrong = survives(platform_of(source, **sections, redis=f"{{redis_url: '{redis.url}'}}"), small_disk, started)
        assert "ledger" in wrong
    finally:
        redis.process.stop()


def test_a_disk_under_influxdb(platform_of, tmp_path):
    disk = tmp_path / "disk"
    mounted(disk, "size=250m")  # its series files alone take more than 50 MB
    influx = _server(backends.start_influxdb, disk)

    def started() -> None:
        """InfluxDB does not try again to open a shard that it could not; who looks after it starts it again."""
        influx.process.stop()
        influx.process.start()

    section = {f"influxdb_{key}": getattr(influx, key) for key in ("org", "url", "token", "bucket")}
    source, sections = network({})
    try:
        wrong = survives(platform_of(source, **sections, influxdb_common=json.dumps(section)), disk, started)
        assert "observations" in wrong
    finally:
        influx.process.stop()
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_under_s3(platform_of, small_disk):  # noqa: F811
    s3 = _server(backends.start_s3, small_disk)
    bucket = s3.bucket("full")
    source, sections = network({place: f"{bucket}/{place}" for place in ("raw", "data", "out", "quarantine")})
    try:
        wrong = survives(platform_of(source, **sections, s3=json.dumps(s3.section())), small_disk)
        assert "files" in wrong
    finally:
        s3.process.stop()


def test_a_disk_under_the_broker(platform_of, small_disk):  # noqa: F811
    if reason := why_no_rabbitmq():
        pytest.skip(reason)
    rabbitmq = RabbitMQ(small_disk)
    rabbitmq.start()

    async def confirmed() -> int:
        """Messages that the broker confirms, until it takes no more or there are fifty."""
        async with await aio_pika.connect(rabbitmq.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(wire.INGESTION.name, durable=True)
            for number in range(50):
                try:
                    message = aio_pika.Message(b"{}" * 500, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                    await channel.default_exchange.publish(message, wire.INGESTION.name, timeout=5)
                except TimeoutError:
                    return number
            return 50

    try:
        rabbitmq.ctl("set_disk_free_limit", "10MB")
        platform = platform_of("  ioncannon: {start: 2026-06-21}", broker=f"{{url: '{rabbitmq.url}'}}",
                               automation="{enabled: false}")  # fmt: skip
        watch = Watch(platform)
        turns(watch, 200)
        taken = asyncio.run(confirmed())
        with full(small_disk, but_for=3_000_000):  # a broker ends where it cannot write its log
            assert "takes no messages" in turns(watch, NOT_WELL)["bus"]["message"]
            taken += asyncio.run(confirmed())
        until = time.monotonic() + WITHIN
        while not queues.takes_messages(platform):
            assert time.monotonic() < until
        assert taken >= 50
        [queue] = [one for one in queues.queues(platform) if one.name == wire.INGESTION.name]
        assert queue.messages >= taken
    finally:
        rabbitmq.close()


def test_a_disk_under_the_door(platform_of, small_disk):  # noqa: F811
    platform = platform_of(SOURCES, state_path=str(small_disk / "state"), automation="{enabled: false}")
    platform.ledger.reconciliations.last()
    watch = Watch(platform)
    begin = int((datetime.now(UTC) - timedelta(minutes=30)).timestamp())
    taken = 0

    def line() -> str:
        return f"weather,station=roof temperature={taken / 10} {begin + taken}000000000"

    with opened(platform) as (door, url):
        for _ in range(20):
            assert write(url, line()).status_code == 204
            taken += 1
        turns(watch, 200)
        with full(small_disk):
            refused = 0
            for _ in range(20):
                answer = write(url, line())
                refused += answer.status_code == 503
                taken += answer.status_code == 204
            assert refused, "the disk is full"
            assert {"disk", "files"} <= turns(watch, NOT_WELL).keys()
        turns(watch, 200)
        assert write(url, line()).status_code == 204
        taken += 1
        door.flush.run()
    raws = {
        raw.path: raw.rows
        for window in platform.ledger.waiting("garden")
        for raw in platform.ledger.sent("garden", window)
    }
    assert sum(raws.values()) == taken


def test_a_disk_under_the_journal_of_mqtt(platform_of, small_disk):  # noqa: F811
    platform = platform_of(
        f"  netatmo_mqtt: {{host: localhost, port: {free_port()}, tls: false, data_path: '{small_disk}'}}",
        automation="{enabled: false}",
    )
    journal = platform.sources["netatmo_mqtt"].journal
    writer, taken = Writer(Journal(journal.root)), 0

    def commit(number: int) -> None:
        nonlocal taken
        for _ in range(number):
            writer.add("raw-obs/a", os.urandom(500).hex().encode())
            taken += writer.commit()

    commit(100)
    with full(small_disk):
        with pytest.raises(OSError, match="No space"):
            commit(10_000)
        watch = Watch(platform)
        assert "disk" in turns(watch, NOT_WELL)
    taken += writer.commit()  # what waits is not lost with the try
    commit(100)
    writer.rotate(force=True)
    writer.listens(same_session=False)
    turns(Watch(platform), 200)
    lines = b"".join(path.read_bytes() for path in (journal.root / "arrived").glob("*.lines")).count(b"\n")
    assert lines == taken >= 200
