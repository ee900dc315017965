"""The broker of the bus's tests, with empty queues, and a platform that is on it."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest
from bus_samples import SOURCES

from ionbeam_client import wire


@pytest.fixture
def broker(rabbitmq):
    """The address of a broker on whose queues nothing waits."""
    queues = [wire.INGESTION, wire.REPLAY, wire.source_queue("my_source"), wire.source_queue("ioncannon")]
    queues += [wire.exporter_queue(name) for name in ("x", "my_exporter", "netatmo_exporter")]

    async def empty() -> None:
        connection = await aio_pika.connect(rabbitmq.url)
        async with connection, connection.channel() as channel:
            for queue in queues:
                await channel.queue_delete(queue.name)
                await channel.queue_delete(queue.dead.name)

    asyncio.run(empty())
    return rabbitmq.url


@pytest.fixture
def platform(platform_of, broker):
    """An external source `my_source` that feeds `example_weather`, and a built-in one."""
    return platform_of(SOURCES, broker=f"{{url: '{broker}'}}")
