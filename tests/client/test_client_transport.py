"""What the client relies on of any transport; RabbitMQ and the one in memory pass the same tests."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from client_samples import until

from ionbeam_client import IonbeamClientConfig, wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.memory import MemoryBroker
from ionbeam_client.transport import Outgoing


@pytest.fixture(params=["memory", "rabbitmq"])
def connect(request):
    """Makes transports of one broker."""
    if request.param == "memory":
        return MemoryBroker().transport
    config = IonbeamClientConfig(amqp_url=request.getfixturevalue("rabbitmq").url)
    return lambda: AmqpTransport(config)


def a_queue(**more) -> wire.Queue:
    return wire.Queue(f"test.{uuid4().hex}", **more)


async def opened(connect):
    transport = connect()
    await transport.open()
    await asyncio.wait_for(transport.connected(), 20)
    return transport


def test_what_is_published_arrives_in_order_with_everything_it_had(connect):
    async def run():
        transport, queue, got = await opened(connect), a_queue(), []

        async def receive(delivery):
            got.append((delivery.message_id, delivery.body, delivery.content_type, dict(delivery.headers)))
            await delivery.ack()

        sent = [Outgoing(f"m{i}", bytes([i]), wire.ARROW, {"a": "b", "n": i}) for i in range(20)]
        for message in sent[:10]:
            await transport.publish(queue, message)  # nobody has declared the queue
        await transport.consume(queue, receive)
        for message in sent[10:]:
            await transport.publish(queue, message)
        await until(lambda: len(got) == 20)
        assert got == [(m.message_id, m.body, m.content_type, m.headers) for m in sent]
        assert await transport.fetch(queue) is None
        await transport.close()

    asyncio.run(run())


def test_a_fanout_reaches_every_bound_queue_and_may_reach_none(connect):
    async def run():
        transport, exchange = await opened(connect), f"test.{uuid4().hex}"
        await transport.broadcast(exchange, Outgoing("unheard", b"x"))
        queues = [a_queue(bound_to=exchange), a_queue(bound_to=exchange)]
        for queue in queues:
            assert await transport.fetch(queue) is None
        await transport.broadcast(exchange, Outgoing("heard", b"x"))
        for queue in queues:
            assert (await transport.fetch(queue)).message_id == "heard"
        await transport.close()

    asyncio.run(run())


def test_what_is_not_acknowledged_is_delivered_again(connect):
    async def run():
        first, queue = await opened(connect), a_queue()
        for name in ("a", "b", "c"):
            await first.publish(queue, Outgoing(name, name.encode()))
        await (await first.fetch(queue)).ack()
        assert (await first.fetch(queue)).message_id == "b"
        await (await first.fetch(queue)).give_back()
        await first.close()
        second, seen = await opened(connect), []
        while (delivery := await second.fetch(queue)) is not None:
            seen.append(delivery.message_id)
            await delivery.ack()
        assert seen == ["b", "c"]
        await second.close()

    asyncio.run(run())


def test_a_message_whose_receiver_fails_comes_again(connect):
    async def run():
        transport, queue, tries = await opened(connect), a_queue(), []

        async def receive(delivery):
            tries.append(delivery.message_id)
            if len(tries) == 1:
                raise ValueError("the disk is full")
            await delivery.ack()

        await transport.consume(queue, receive)
        await transport.publish(queue, Outgoing("m", b""))
        await until(lambda: len(tries) == 2)
        await transport.close()

    asyncio.run(run())
