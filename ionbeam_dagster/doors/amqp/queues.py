"""How many messages wait in the queues of the bus, whether it takes more, and what time it is, as the broker says.

Belongs here: asking it, without making or changing anything that stays. Does not belong here: what follows from the
answers (health/queues.py, health/clocks.py).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity, ProbableAuthenticationError

from ionbeam_client import wire
from ionbeam_client.certificates import certificate_fault, perhaps_ours
from ionbeam_dagster.config.sections import BrokerSettings
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
        return asyncio.run(asyncio.wait_for(_inspected(broker, live), 3 * _PATIENCE))
    except ProbableAuthenticationError as error:
        raise BrokerAway(f"the broker at {_place(broker.url)} refuses user or password; correct broker.url") from error
    except (AMQPError, OSError, TimeoutError) as error:
        why = _why_away(error, broker)
        raise BrokerAway(f"the broker at {_place(broker.url)} {why}") from error


def takes_messages(platform: Platform) -> bool:
    """Whether the broker takes what is published: one whose disk or memory is full keeps everybody waiting."""
    broker = platform.config.sections.broker
    if broker is None:
        return True
    try:
        return asyncio.run(asyncio.wait_for(_published(broker), 3 * _PATIENCE))
    except (AMQPError, OSError, TimeoutError):
        return True  # it is away, or does not let us publish like this: others tell


async def _published(broker: BrokerSettings) -> bool:
    """Whether messages to nobody are confirmed. A broker without room takes the first of a connection all the same."""
    async with await _connected(broker) as connection:
        exchange = (await connection.channel()).default_exchange
        try:
            for _ in range(2):
                await exchange.publish(aio_pika.Message(b""), "ionbeam.probe", mandatory=False, timeout=_PATIENCE)
        except TimeoutError:
            return False
    return True


def time_of_broker(broker: BrokerSettings) -> datetime:
    """The time that the broker has, in whole seconds that have begun. Raises BrokerAway."""
    try:
        return asyncio.run(asyncio.wait_for(_parked_at(broker), 3 * _PATIENCE))
    except (AMQPError, OSError, TimeoutError) as error:
        raise BrokerAway(
            f"the broker at {_place(broker.url)} does not say its time; `ionbeam doctor` tells why"
        ) from error


async def _parked_at(broker: BrokerSettings) -> datetime:
    """When a message was parked that its queue gives back to itself: AMQP tells of no time but this."""
    async with await _connected(broker) as connection:
        channel = await connection.channel()
        name = f"ionbeam.probe.{uuid4().hex}"
        queue = await channel.declare_queue(name, exclusive=True, arguments={"x-dead-letter-exchange": ""})
        await channel.default_exchange.publish(aio_pika.Message(b""), queue.name, timeout=_PATIENCE)
        async with queue.iterator(timeout=_PATIENCE) as given:
            async for message in given:
                if parked := cast("list[dict[str, datetime]]", message.headers.get("x-death")):
                    return parked[0]["time"]
                await message.reject(requeue=False)
    raise TimeoutError


def _why_away(error: Exception, broker: BrokerSettings) -> str:
    if fault := certificate_fault(error, "broker.ca_file", "broker.cert_file"):
        return f"cannot be used: {fault}"
    hint = perhaps_ours(error, "broker.cert_file") if urlsplit(broker.url).scheme == "amqps" else ""
    return f"does not answer ({type(error).__name__}: {error}); start it, or correct broker.url{hint}"


def _place(url: str) -> str:
    address = urlsplit(url)
    return f"{address.hostname}:{address.port or 5672}"


async def _connected(broker: BrokerSettings) -> AbstractConnection:
    tls = broker.context("broker.") if urlsplit(broker.url).scheme == "amqps" else None
    return await aio_pika.connect(broker.url, timeout=_PATIENCE, ssl_context=tls)


async def _inspected(broker: BrokerSettings, live: list[wire.Queue]) -> list[Queue]:
    connection = await _connected(broker)
    found = []
    async with connection:
        for queue, is_dead in [(one, False) for one in live] + [(one.dead, True) for one in live]:
            with suppress(ChannelNotFoundEntity):  # closes its channel
                channel = await connection.channel()
                declared = (await channel.declare_queue(queue.name, passive=True)).declaration_result
                found.append(Queue(queue.name, declared.message_count or 0, declared.consumer_count or 0, is_dead))
                await channel.close()
    return found
