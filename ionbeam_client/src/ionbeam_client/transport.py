"""What the client needs of a message broker.

Belongs here: the interface and what passes through it. Does not belong here: RabbitMQ (amqp.py) or any other broker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from ionbeam_client.wire import JSON, Queue

Headers = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish: persistent, to a queue, or with `exchange` to whoever is bound to that fanout. `reply_to`
    names the queue of its sender."""

    message_id: str
    body: bytes
    content_type: str = JSON
    headers: Headers = field(default_factory=dict)
    reply_to: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Delivery(ABC):
    """A message that the broker handed over; it is the broker's until it is acknowledged.

    `user` is the broker's user who sent it, as the broker has checked; None when the message does not say.
    """

    message_id: str
    body: bytes
    content_type: str
    headers: Headers
    user: str | None = field(default=None, kw_only=True)
    reply_to: str | None = field(default=None, kw_only=True)

    def without_body(self) -> Self:
        """The same delivery, which holds no body any longer."""
        return replace(self, body=b"")

    @abstractmethod
    async def ack(self) -> None:
        """Let the broker forget it."""

    @abstractmethod
    async def give_back(self) -> None:
        """Let the broker deliver it again, to anybody."""


class Transport(Protocol):
    """A connection that is made again by itself. All methods run in one event loop, the one in which it was opened."""

    async def open(self) -> None:
        """Begin to connect; returns at once. A broker that is away is waited for."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there now, as far as is known."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why the broker is not there, as far as is known; None while it is."""
        ...

    async def connected(self) -> None:
        """Wait until the broker is there."""
        ...

    async def publish(self, queue: Queue, message: Outgoing) -> None:
        """Declare the queue and put a message into it; returns once the broker has it for good.

        Raises NotConnectedError (nothing is known; send again) or RefusedError (the broker does not take it), and
        nothing else: a connection that ends under the call is NotConnectedError, however the library tells it.
        """
        ...

    async def broadcast(self, exchange: str, message: Outgoing) -> None:
        """Publish to a fanout exchange; nobody needs to listen. Raises as `publish` does."""
        ...

    async def reply(self, queue: str, message: Outgoing) -> None:
        """Put a message into a queue that is somebody else's, if it is there. Raises as `publish` does."""
        ...

    async def consume(
        self, queue: Queue, receive: Callable[[Delivery], Awaitable[None]], *, optional: bool = False
    ) -> None:
        """Declare the queue and hand its messages to `receive`, now and after every reconnection. Returns at once.

        An `optional` queue is done without where this user may not have it. A message for which `receive` raises is
        given back. While another client has the queue for itself, this one stands by and says so.
        """
        ...

    async def fetch(self, queue: Queue) -> Delivery | None:
        """Take one message out of a queue; None when it is empty. What is neither acknowledged nor given back until
        the transport closes is in the queue again. Raises NotConnectedError."""
        ...

    async def close(self) -> None: ...
