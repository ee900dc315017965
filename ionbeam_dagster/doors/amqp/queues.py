"""How many messages wait in the queues of the bus, as the broker says.

Belongs here: asking it, without making or changing anything. Does not belong here: what follows from the numbers
(health/queues.py).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import aio_pika
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from ionbeam_client import wire
from ionbeam_dagster.doors.amqp.bridge import BrokerAway
from ionbeam_dagster.pipeline.platform import Platform

_PATIENCE = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that is there: its messages that nobody has been given, and those who take messages from it."""

    name: str
    messages: int
    consumers: int
    is_dead: bool


def queues(platform: Platform) -> list[Queue]:
    """The queues that the platform takes from, and their dead queues; none where there is no broker. Those that nobody
    made yet are left out. Raises BrokerAway."""
    broker = platform.config.sections.broker
    if broker is None:
        return []
    pulled = (name for name, source in platform.config.sources.items() if source.kind == "pull")
    live = [wire.INGESTION, wire.REPLAY, *map(wire.source_queue, sorted(pulled))]
    try:
        return asyncio.run(asyncio.wait_for(_inspected(broker.url, live), 3 * _PATIENCE))
    except (AMQPError, OSError, TimeoutError) as error:
        address = urlsplit(broker.url)
        raise BrokerAway(
            f"the broker at {address.hostname}:{address.port or 5672} does not answer ({type(error).__name__}: "
            f"{error}); start it, or correct broker.url"
        ) from error


async def _inspected(url: str, live: list[wire.Queue]) -> list[Queue]:
    connection = await aio_pika.connect(url, timeout=_PATIENCE)
    found = []
    async with connection:
        for queue, is_dead in [(one, False) for one in live] + [(one.dead, True) for one in live]:
            with suppress(ChannelNotFoundEntity):  # closes its channel
                channel = await connection.channel()
                declared = (await channel.declare_queue(queue.name, passive=True)).declaration_result
                found.append(Queue(queue.name, declared.message_count or 0, declared.consumer_count or 0, is_dead))
                await channel.close()
    return found
