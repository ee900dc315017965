"""What `ionbeam doctor` says of real servers that are there, and not as they should be."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest
import redis as redis_client

from ionbeam_client import wire
from ionbeam_dagster.health import queues, stores

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

    yield platform_of(SOURCE, broker=f"{{url: '{rabbitmq.url}'}}"), lambda *given: asyncio.run(put(*given))
    for queue in (wire.INGESTION, wire.INGESTION.dead):
        asyncio.run(put(queue, 0))


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
