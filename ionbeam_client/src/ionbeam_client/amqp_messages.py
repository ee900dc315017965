"""What AMQP's library gives and raises, as the transport's own: messages and deliveries, errors, its log.

Belongs here: the forms of one message, and what an error of the library means. Does not belong here: the connection
(amqp.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, DeliveryMode
from aio_pika.exceptions import AuthenticationError, ChannelPreconditionFailed, ProbableAuthenticationError
from aiormq.exceptions import ChannelAccessRefused

from ionbeam_client.errors import NotConnectedError, RefusedError
from ionbeam_client.transport import Delivery, Outgoing


@dataclass(frozen=True, slots=True, eq=False)
class AmqpDelivery(Delivery):
    message: AbstractIncomingMessage

    def without_body(self) -> Self:
        self.message.body = b""  # type: ignore[misc]  # the library's own class has it
        return replace(self, body=b"")

    async def ack(self) -> None:
        with raised_as_not_connected():
            await self.message.ack()

    async def give_back(self) -> None:
        with raised_as_not_connected():
            await self.message.reject(requeue=True)


def encoded(message: Outgoing, user: str | None) -> aio_pika.Message:
    return aio_pika.Message(
        message.body,
        message_id=message.message_id,
        content_type=message.content_type,
        headers=dict(message.headers),
        delivery_mode=DeliveryMode.PERSISTENT,
        reply_to=message.reply_to,
        user_id=user,  # the broker refuses it unless it is this connection's
    )


def delivery_of(message: AbstractIncomingMessage) -> AmqpDelivery:
    headers = {name: value for name, value in message.headers.items() if isinstance(value, (str, int))}
    name = message.message_id or f"unnamed-{sha256(message.body).hexdigest()[:16]}"
    return AmqpDelivery(
        name,
        message.body,
        message.content_type or "",
        headers,
        message,
        user=message.user_id,
        reply_to=message.reply_to,
    )


@contextmanager
def raised_as_not_connected() -> Iterator[None]:
    """Raise NotConnectedError for whatever the library raises, or RefusedError where the broker would refuse again."""
    try:
        yield
    except (NotConnectedError, RefusedError):
        raise
    except ChannelPreconditionFailed as error:
        raise RefusedError(short(error)) from error
    except ChannelAccessRefused as error:
        raise RefusedError(f"this user may not do it: {short(error)}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise NotConnectedError("the connection was lost") from error
    except Exception as error:
        raise NotConnectedError(short(error)) from error


def short(error: BaseException) -> str:
    if isinstance(error, (AuthenticationError, ProbableAuthenticationError)):
        return "it refused user and password"
    if "Connection.Close object" in str(error):  # in place of an answer to the name of the virtual host
        return "it has no such virtual host, or this user may not use it"
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]


class Quiet(logging.Filter):
    """Keeps the library's stack traces of every lost connection out of the user's log: ours says it in one line."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread
