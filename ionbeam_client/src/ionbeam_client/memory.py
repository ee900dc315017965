"""A broker inside the process, for tests of handlers and of the client itself.

Belongs here: queues with the promises of a real broker: a message is kept until it is acknowledged, and is delivered
again when its receiver goes away. Does not belong here: anything durable.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from ionbeam_client.errors import NotConnectedError, RefusedError
from ionbeam_client.transport import Delivery, Outgoing
from ionbeam_client.wire import Queue

Receive = Callable[[Delivery], Awaitable[None]]


class MemoryBroker:
    """Queues and fanouts that several transports, each in its own thread, may share. `up` False: nobody is answered."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[Outgoing]] = {}
        self.unacknowledged: dict[_MemoryDelivery, None] = {}
        self.up = True
        self._bound: dict[str, set[str]] = defaultdict(set)
        self._listeners: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._lock = threading.RLock()

    def transport(self) -> MemoryTransport:
        return MemoryTransport(self)

    def declare(self, queue: Queue) -> None:
        with self._lock:
            self.queues.setdefault(queue.name, deque())
            if queue.bound_to:
                self._bound[queue.bound_to].add(queue.name)

    def put(self, queue: str, message: Outgoing, *, first: bool = False) -> None:
        with self._lock:
            self.queues[queue].appendleft(message) if first else self.queues[queue].append(message)
            listeners = list(self._listeners[queue])
        for listener in listeners:
            listener()

    def broadcast(self, exchange: str, message: Outgoing) -> None:
        with self._lock:
            bound = sorted(self._bound[exchange])
        for queue in bound:
            self.put(queue, message)

    def take(self, queue: str) -> Outgoing | None:
        with self._lock:
            waiting = self.queues.get(queue)
            return waiting.popleft() if waiting else None

    def deliver(self, queue: str, transport: MemoryTransport) -> _MemoryDelivery | None:
        """Take a message from a queue and remember it as unacknowledged, in one step."""
        with self._lock:
            message = self.take(queue)
            if message is None:
                return None
            delivery = _MemoryDelivery(
                message.message_id, message.body, message.content_type, message.headers, transport, queue, message,
                reply_to=message.reply_to,
            )  # fmt: skip
            self.unacknowledged[delivery] = None
            return delivery

    def forgotten(self, delivery: _MemoryDelivery) -> bool:
        """Strike a delivery off the unacknowledged ones; False when it was not, or no longer, one of them."""
        with self._lock:
            known = delivery in self.unacknowledged
            self.unacknowledged.pop(delivery, None)
            return known

    def listen(self, queue: str, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners[queue].append(listener)

    def forget(self, queue: str, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners[queue].remove(listener)


@dataclass(frozen=True, slots=True, eq=False)
class _MemoryDelivery(Delivery):
    transport: MemoryTransport
    queue: str
    message: Outgoing

    async def ack(self) -> None:
        self.transport.broker.forgotten(self)

    async def give_back(self) -> None:
        if self.transport.broker.forgotten(self):
            self.transport.broker.put(self.queue, self.message, first=True)


class MemoryTransport:
    """One client's connection to a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        pass

    @property
    def is_connected(self) -> bool:
        return self.broker.up

    @property
    def trouble(self) -> str | None:
        return None if self.broker.up else "the broker in memory is down"

    async def connected(self) -> None:
        while not self.broker.up:
            await asyncio.sleep(0.01)

    async def publish(self, queue: Queue, message: Outgoing) -> None:
        self._check_up()
        self.broker.declare(queue)
        self.broker.put(queue.name, message)

    async def reply(self, queue: str, message: Outgoing) -> None:
        self._check_up()
        if queue not in self.broker.queues:
            raise RefusedError(f"there is no queue {queue}")
        self.broker.put(queue, message)

    async def broadcast(self, exchange: str, message: Outgoing) -> None:
        self._check_up()
        self.broker.broadcast(exchange, message)

    async def consume(self, queue: Queue, receive: Receive, *, optional: bool = False) -> None:
        self.broker.declare(queue)
        self._tasks.append(asyncio.create_task(self._deliver(queue.name, receive)))

    async def fetch(self, queue: Queue) -> Delivery | None:
        self._check_up()
        self.broker.declare(queue)
        return self.broker.deliver(queue.name, self)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        mine = [delivery for delivery in self.broker.unacknowledged if delivery.transport is self]
        for delivery in reversed(mine):
            await delivery.give_back()

    async def _deliver(self, queue: str, receive: Receive) -> None:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop of a client that was not closed is gone
                loop.call_soon_threadsafe(arrived.set)

        self.broker.listen(queue, wake)
        try:
            while True:
                arrived.clear()
                await self.connected()
                while (delivery := self.broker.deliver(queue, self)) is not None:
                    try:
                        await receive(delivery)
                    except Exception:
                        await delivery.give_back()
                        await asyncio.sleep(0.05)
                await arrived.wait()
        finally:
            self.broker.forget(queue, wake)

    def _check_up(self) -> None:
        if not self.broker.up:
            raise NotConnectedError("the broker in memory is down")
