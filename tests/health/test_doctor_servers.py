"""What `ionbeam doctor` says of real servers that are there, and not as they should be."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import aio_pika
import pytest
import redis as redis_client
from influxdb_client import InfluxDBClient, Permission, PermissionResource

from ionbeam_client import wire
from ionbeam_dagster.doors.amqp.bridge import BrokerAway
from ionbeam_dagster.health import clocks, queues, stores
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.stores.ledger import LedgerError
from ionbeam_dagster.stores.timeseries.influxdb.errors import InfluxError

SOURCE = "  ioncannon: {start: 2026-06-21}"


def test_a_redis_that_forgets(platform_of, redis):
    url = redis.url[:-1] + "7"
    platform = platform_of(SOURCE, redis=f"{{redis_url: '{url}'}}")
    client = redis_client.Redis.from_url(url)
    platform.ledger.reconciliations.last()
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendfsync", "everysec")
    try:
        found = {one.remedy for one in stores.ledger(platform) if one.severity == "warning"}
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendfsync", "always")
    assert found == {"set maxmemory-policy noeviction", "set appendfsync always"}


def test_a_redis_of_a_newer_version(platform_of, redis):
    url = redis.url[:-1] + "6"
    client = redis_client.Redis.from_url(url)
    client.flushdb()
    client.set("ionbeam:form", 7)
    platform = platform_of(SOURCE, redis=f"{{redis_url: '{url}'}}")
    with pytest.raises(LedgerError, match=r"written by a newer version .*form 7.*; install that version"):
        list(stores.ledger(platform))
    assert client.dbsize() == 1  # and nothing was made of it
    client.flushdb()


def test_a_redis_that_is_full_and_one_that_asks_for_a_password(platform_of, redis):
    platform = platform_of(SOURCE, redis=f"{{redis_url: '{redis.url[:-1]}5'}}")
    client = redis_client.Redis.from_url(redis.url)
    platform.ledger.reconciliations.last()
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(LedgerError, match=r"refuses: .* 'maxmemory'; it is full: raise its maxmemory"):
            list(stores.ledger(platform))
    finally:
        client.config_set("maxmemory", 0)
    client.config_set("requirepass", "another")
    try:
        with pytest.raises(LedgerError, match=r"correct user and password in redis.redis_url"):
            list(stores.ledger(platform))
    finally:
        client.config_set("requirepass", "")
    assert list(stores.ledger(platform))[-1].severity == "well"


def _observations(platform_of, influxdb, **changed: str):
    section = {f"influxdb_{key}": getattr(influxdb, key) for key in ("org", "url", "token", "bucket")} | changed
    return list(stores.observations(platform_of(SOURCE, influxdb_common=str(section))))


def test_an_influxdb_that_does_not_let_us_in(platform_of, influxdb):
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        org, bucket = (client.organizations_api().find_organizations()[0].id, client.buckets_api())
        id = bucket.find_bucket_by_name(influxdb.bucket).id
        reads = [Permission("read", PermissionResource(type=type, org_id=org)) for type in ("buckets", "dbrp")]
        reader = client.authorizations_api().create_authorization(org, reads)
        assert [one.severity for one in _observations(platform_of, influxdb)] == ["well"], id
        for changed, told in (
            ({"influxdb_token": "another"}, "the token is not accepted .*; correct influxdb_common.influxdb_token"),
            ({"influxdb_token": reader.token}, "the token may not do this .*; give it read and write of the bucket"),
            ({"influxdb_org": "nobody"}, "; correct influxdb_common.influxdb_org"),
        ):
            with pytest.raises(InfluxError, match=told):
                _observations(platform_of, influxdb, **changed)
        [told] = _observations(platform_of, influxdb, influxdb_bucket="elsewhere")
        assert told.severity == "note" and "no bucket 'elsewhere' yet" in told.words and told.remedy
        assert bucket.find_bucket_by_name("elsewhere") is None  # it was only looked


def test_a_bucket_that_is_gone_with_what_was_built(platform_of, influxdb, monkeypatch):
    platform = platform_of(SOURCE)
    monkeypatch.setattr(type(platform.ledger), "revisions", lambda *given: ["a window"])
    platform.ledger.reconciliations.last()
    [told] = _observations(platform_of, influxdb, influxdb_bucket="elsewhere")
    assert told.severity == "error" and "gone with it" in told.words and "backup" in told.remedy


def test_an_s3_that_does_not_let_us_in(platform_of, s3):
    place = s3.bucket("doctor")
    for changed, location, told in (
        ({"access_key": "nobody"}, place, "s3.access_key; correct it"),
        ({"secret_key": "another"}, place, "correct s3.secret_key"),
        ({}, "s3://no-such-bucket/q", "create it, or correct the path"),
    ):
        platform = platform_of(SOURCE, s3=str(s3.section() | changed), quarantine_path=location)
        [fault] = [one for one in stores.files(platform) if one.severity == "error"]
        assert location.partition("/q")[0] in fault.words and told in f"{fault.words}; {fault.remedy}", fault
    platform = platform_of(SOURCE, s3=str(s3.section()), quarantine_path=place)
    assert [one.severity for one in stores.files(platform)] == ["well"]


def test_a_broker_that_refuses_us(platform_of, rabbitmq):
    platform = platform_of(SOURCE, broker=f"{{url: '{rabbitmq.url.replace('guest@', 'another@')}'}}")
    with pytest.raises(BrokerAway, match=r"refuses user or password; correct broker.url"):
        list(queues.bus(platform))


def test_a_broker_without_room_takes_nothing_and_does_again(platform_of, rabbitmq):
    platform = platform_of(SOURCE, broker=f"{{url: '{rabbitmq.url}'}}")

    def wrong() -> list[str]:
        return [one.words for one in queues.Growth().findings(platform) if one.severity == "error"]

    def soon(is_wrong: bool) -> list[str]:
        """The broker looks at its memory every few seconds."""
        for _ in range(20):
            if bool(told := wrong()) == is_wrong:
                return told
            time.sleep(0.5)
        raise AssertionError(f"wrong should be {is_wrong}")

    assert wrong() == []
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        [told] = soon(True)
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.6")
    assert told.startswith("the broker takes no messages: its disk or memory is full")
    assert soon(False) == []


@pytest.fixture
def bus(platform_of, rabbitmq):
    """A platform, and what puts so many messages into a queue."""

    async def put(queue: wire.Queue, number: int) -> None:
        connection = await aio_pika.connect(rabbitmq.url)
        async with connection, connection.channel() as channel:
            declared = await channel.declare_queue(queue.name, durable=True)
            await declared.purge()
            for _ in range(number):
                await channel.default_exchange.publish(aio_pika.Message(b"{}"), queue.name)

    async def forget() -> None:
        connection = await aio_pika.connect(rabbitmq.url)
        async with connection, connection.channel() as channel:
            for queue in (wire.INGESTION, wire.INGESTION.dead):
                await channel.queue_delete(queue.name)

    asyncio.run(forget())
    yield platform_of(SOURCE, broker=f"{{url: '{rabbitmq.url}'}}"), lambda *given: asyncio.run(put(*given))
    asyncio.run(forget())


def test_messages_that_nobody_takes_and_that_are_parked(bus):
    platform, put = bus
    put(wire.INGESTION, 3)
    put(wire.INGESTION.dead, 2)
    found = {one.severity: f"{one.words} -> {one.remedy}" for one in queues.bus(platform)}
    assert found["error"].startswith(f"3 messages wait in {wire.INGESTION.name}") and "ionbeam worker" in found["error"]
    assert found["warning"].startswith("2 messages are parked") and "ionbeam-client dead list" in found["warning"]


def test_a_queue_that_grows_and_a_dead_one_that_did(bus):
    platform, put = bus
    clock = 0.0
    growth = queues.Growth(lambda: clock)

    def wrong(number: int, dead: int, later: float) -> list[str]:
        nonlocal clock
        clock += later
        put(wire.INGESTION, number)
        put(wire.INGESTION.dead, dead)
        return [one.words for one in growth.findings(platform) if one.severity == "error"]

    assert wrong(0, 5, 10) == [] and wrong(2, 5, 10) == []
    assert wrong(2, 5, 20) == []
    [grows] = wrong(3, 5, 25)
    assert grows.startswith(f"3 messages wait in {wire.INGESTION.name}")
    assert wrong(1, 5, 10) == []  # they are taken again
    [grew] = wrong(0, 6, 10)
    assert grew.startswith(f"{wire.INGESTION.dead.name} grew within the last 10 minutes, to 6")
    assert wrong(0, 6, 590) != [] and wrong(0, 6, 20) == []


def test_a_clock_that_differs_from_the_servers_is_told_by_doctor_and_by_health(
    platform_of, redis, influxdb, s3, rabbitmq, monkeypatch
):
    influx = f"influxdb_url: '{influxdb.url}', influxdb_org: {influxdb.org}, influxdb_token: {influxdb.token}"
    platform = platform_of(
        SOURCE, automation="{enabled: false}", redis=f"{{redis_url: '{redis.url[:-1]}4'}}", s3=str(s3.section()),
        influxdb_common=f"{{{influx}, influxdb_bucket: first}}", broker=f"{{url: '{rabbitmq.url}'}}",
        quarantine_path=s3.bucket("clocks"),
    )  # fmt: skip
    ours = clocks.now

    def wrong(off: timedelta) -> list[tuple[str, str]]:
        monkeypatch.setattr(clocks, "now", lambda: ours() + off)
        return [(one.severity, one.words) for one in clocks.clocks(platform) if one.severity != "well"]

    [well] = clocks.clocks(platform)
    assert well.words.endswith(", Redis, InfluxDB, S3, the broker")
    every = ("the disk of ", "Redis", "InfluxDB", "S3", "the broker")
    for off, severity, words in (
        (timedelta(seconds=2), None, ""),
        (timedelta(seconds=9), "warning", "ahead of that of"),
        (timedelta(hours=1), "error", "ahead of that of"),
        (timedelta(hours=-1), "error", "behind that of"),
    ):
        told = wrong(off)
        assert [one for one, _ in told] == [severity] * (len(every) if severity else 0)
        assert all(f"{words} {whose}" in said for (_, said), whose in zip(told, every, strict=False)), told
    watch = Watch(platform)
    watch.look()
    status, body = watch.answer(in_full=True)
    assert status == 503 and b"behind that of Redis" in body and b"NTP" in body
    monkeypatch.setattr(clocks, "now", ours)
    watch.look()
    assert watch.answer(in_full=True)[0] == 200


def test_a_server_whose_time_nobody_tells_is_compared_with_nothing(platform_of):
    platform = platform_of(
        SOURCE, broker="{url: 'amqp://guest:guest@127.0.0.1:9/'}", redis="{redis_url: 'redis://127.0.0.1:9'}"
    )
    [well] = clocks.compared(platform)
    assert well.words.startswith("compared with the disk of ") and "broker" not in well.words
