"""RabbitMQ as the transport.

Belongs here: everything that knows AMQP. Does not belong here: what the messages mean.

The connection is rebuilt as a whole after any trouble (lost, closed channel, consumer cancelled by the broker): one
path, the one that is taken at start. Each consumer has a channel of its own, and so have publishing and fetching: an
error on one stops none of the others. Whatever the library raises while it publishes, declares or acknowledges means
that the broker is away; that includes a CancelledError that nobody here asked for.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import aio_pika
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
)
from aio_pika.exceptions import (
    AMQPConnectionError,
    ChannelPreconditionFailed,
    DeliveryError,
)
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from yarl import URL

from ionbeam_client.amqp_messages import Quiet, delivery_of, encoded, raised_as_not_connected, short
from ionbeam_client.certificates import certificate_fault, no_passphrase, perhaps_ours
from ionbeam_client.config import IonbeamClientConfig
from ionbeam_client.errors import IonbeamError, NotConnectedError, RefusedError
from ionbeam_client.transport import Delivery, Outgoing
from ionbeam_client.wire import Queue

log = logging.getLogger("ionbeam_client")

PREFETCH = 16
CONNECT_TIMEOUT = 10.0
LONGEST_PAUSE = 10.0

_UNLIMITED = 2_000_000_000
"""How often a message may be given back: RabbitMQ 4 drops one of a quorum queue after 20 times otherwise."""

STANDS_BY = 5.0
"""Seconds between two tries to serve a queue that another client serves."""

_LOGGERS = [logging.getLogger(name) for name in ("aiormq.connection", "aiormq.channel", "aio_pika.channel")]

Receive = Callable[[Delivery], Awaitable[None]]


class AmqpTransport:
    """Publishes with confirms, mandatory and persistent; consumes with manual acknowledgement.

    A queue is served by one client at a time: the others stand by, so that the parts of a window and the revisions of
    a dataset come to one handler. `shared` lets several share the messages of a queue. The exchanges `fanouts` are made
    on connecting, for those who may not make them and want to listen. `ca_file` and `cert_file` are what the settings
    are called, where a person sets them, that name the authority and the certificate of one's own.
    """

    def __init__(
        self,
        config: IonbeamClientConfig,
        prefetch: int = PREFETCH,
        shared: bool = False,
        fanouts: Sequence[str] = (),
        ca_file: str = "tls_ca_file",
        cert_file: str = "tls_cert_file",
    ) -> None:
        self._config = config
        self._prefetch = prefetch
        self._shared = shared
        self._made_at_once = fanouts
        self._ca_file, self._cert_file = ca_file, cert_file
        self._standing_by: set[Queue] = set()
        self._user = config.user
        self._only_found: set[str] = set()
        self._made_otherwise: set[str] = set()
        self._optional: set[Queue] = set()
        self._done_without: set[Queue] = set()
        self._consumers: dict[Queue, Receive] = {}
        self._connection: AbstractConnection | None = None
        self._channels: dict[str, AbstractChannel] = {}
        self._declared: set[Queue] = set()
        self._fanouts: dict[str, AbstractExchange] = {}
        self._consuming: dict[Queue, AbstractQueue] = {}
        self._failing: dict[Queue, str] = {}
        self._trouble: str | None = None
        self._opening, self._publishing = asyncio.Lock(), asyncio.Lock()

    async def open(self) -> None:
        self._quiet = Quiet(threading.get_ident())
        for logger in _LOGGERS:
            logger.addFilter(self._quiet)
        self._up, self._broken = asyncio.Event(), asyncio.Event()
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        while not self._supervisor.done():  # Python's wait_for may swallow a cancellation that comes as it returns
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor}, timeout=1)
        await self._disconnect()
        for logger in _LOGGERS:
            logger.removeFilter(self._quiet)

    @property
    def is_connected(self) -> bool:
        return self._up.is_set()

    @property
    def trouble(self) -> str | None:
        return None if self._up.is_set() else self._trouble

    async def connected(self) -> None:
        await self._up.wait()

    async def publish(self, queue: Queue, message: Outgoing) -> None:
        with raised_as_not_connected(), self._by_its_own_name():
            try:
                async with self._publishing:  # those who publish at the same time keep their order
                    channel = await self._channel("publish")
                    if queue not in self._declared:
                        channel, _ = await self._found_on(lambda: self._channel("publish"), queue)
                await channel.default_exchange.publish(
                    encoded(message, self._user), routing_key=queue.name, mandatory=True
                )
            except DeliveryError as error:
                self._declared.discard(queue)
                raise RefusedError(f"the broker has no room or no queue {queue.name} for the message") from error

    async def reply(self, queue: str, message: Outgoing) -> None:
        with raised_as_not_connected(), self._by_its_own_name():
            channel = await self._channel("publish")
            try:
                await channel.default_exchange.publish(encoded(message, self._user), routing_key=queue, mandatory=True)
            except DeliveryError as error:
                raise RefusedError(f"there is no queue {queue}") from error

    async def broadcast(self, exchange: str, message: Outgoing) -> None:
        with raised_as_not_connected(), self._by_its_own_name():
            channel = await self._channel("publish")
            if exchange not in self._fanouts:
                self._fanouts[exchange] = await channel.declare_exchange(exchange, "fanout", durable=True)
            await self._fanouts[exchange].publish(encoded(message, self._user), routing_key="", mandatory=False)

    async def consume(self, queue: Queue, receive: Receive, *, optional: bool = False) -> None:
        self._consumers[queue] = receive
        if optional:
            self._optional.add(queue)
        if self._up.is_set():
            try:
                with raised_as_not_connected():
                    await self._start_consumer(queue, receive)
            except (NotConnectedError, RefusedError):
                self._broken.set()

    async def fetch(self, queue: Queue) -> Delivery | None:
        with raised_as_not_connected():
            _, there = await self._found_on(lambda: self._channel("fetch"), queue)
            found = await there.get(no_ack=False, fail=False)
            return None if found is None else delivery_of(found)

    async def browse(self, queue: Queue) -> AsyncIterator[Delivery]:
        """What is in a queue now, each without its body, in seconds also where it is very much; it stays there."""
        with raised_as_not_connected():
            channel, there = await self._found_on(lambda: self._channel("browse"), queue)
            arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

            async def receive(message: AbstractIncomingMessage) -> None:
                message.body = b""  # type: ignore[misc]  # the library's own class has it
                arrived.put_nowait(message)

            await there.consume(receive)
            try:
                for _ in range(there.declaration_result.message_count or 0):
                    yield delivery_of(await asyncio.wait_for(arrived.get(), CONNECT_TIMEOUT))
            except TimeoutError:
                log.info("somebody else takes messages out of %s, too", queue.name)
            finally:
                await channel.close()

    # -- the connection ------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        pause = 0.25
        task = asyncio.current_task()
        while task is None or not task.cancelling():
            try:
                with raised_as_not_connected():
                    await self._connect()
                    log.info("connected to %s", self._config.broker)
                    pause, self._trouble = 0.25, None
                    reason = await self._watch()
                    log.warning("lost the connection to %s (%s); reconnecting", self._config.broker, reason)
            except (NotConnectedError, RefusedError) as error:
                if str(error) != self._trouble:
                    log.warning("%s does not answer (%s); waiting for it", self._config.broker, error)
                self._trouble = str(error)
            await self._disconnect()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _connect(self) -> None:
        url = URL(self._config.amqp_url)
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=self._config.heartbeat)
        self._broken.clear()
        tls = _tls(self._config) if url.scheme == "amqps" else None
        self._connection = aio_pika.Connection(url, ssl_context=tls)  # known before it connects, to be closed after all
        try:
            await self._connection.connect(timeout=CONNECT_TIMEOUT)
        except Exception as error:
            if fault := certificate_fault(error, self._ca_file, self._cert_file):
                raise NotConnectedError(fault) from error
            is_closed = tls is not None and isinstance(error, AMQPConnectionError)
            if not (is_closed and (hint := perhaps_ours(error, self._cert_file))):
                raise
            raise NotConnectedError(f"it closed the connection{hint}") from error
        self._connection.close_callbacks.add(lambda *_: self._broken.set())
        for exchange in self._made_at_once:
            await (await self._channel("publish")).declare_exchange(exchange, "fanout", durable=True)
        while missing := self._consumers.keys() - self._consuming.keys() - self._standing_by - self._done_without:
            for queue in missing:
                await self._start_consumer(queue, self._consumers[queue])
        self._up.set()  # a consumer that was added while the others were started is among them

    async def _watch(self) -> str:
        """Returns why the connection is to be rebuilt."""
        while True:
            pause = max(1.0, self._config.heartbeat / 2)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._broken.wait(), min(pause, STANDS_BY) if self._standing_by else pause)
                return "closed"
            for queue in list(self._standing_by):
                await self._start_consumer(queue, self._consumers[queue])
            for queue, consuming in list(self._consuming.items()):
                if consuming.channel.is_closed:
                    return f"the channel of {queue.name} was closed"
                seen = await asyncio.wait_for(consuming.declare(), CONNECT_TIMEOUT)
                if not seen.consumer_count:
                    return f"the broker cancelled the consumer of {queue.name}"

    async def _disconnect(self) -> None:
        self._up.clear()
        connection, self._connection = self._connection, None
        self._channels, self._declared, self._fanouts, self._consuming = {}, set(), {}, {}
        if connection is not None:
            with suppress(NotConnectedError), raised_as_not_connected():
                await asyncio.wait_for(connection.close(), timeout=2)

    @contextmanager
    def _by_its_own_name(self) -> Iterator[None]:
        """Where the broker knows this user by another name than the URL does (a token), say no name at all."""
        try:
            yield
        except ChannelPreconditionFailed as error:
            if self._user is None or "user_id" not in str(error):
                raise
            self._user = None
            raise NotConnectedError("the broker knows this user by another name; the message goes without") from error

    async def _channel(self, purpose: str) -> AbstractChannel:
        async with self._opening:
            channel = self._channels.get(purpose)
            if channel is None or channel.is_closed:
                if self._connection is None or self._connection.is_closed:
                    raise NotConnectedError(f"{self._config.broker} is not connected")
                channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
                self._channels[purpose] = channel
                self._declared, self._fanouts = set(), {}
            return channel

    async def _found_on(
        self, open_channel: Callable[[], Awaitable[AbstractChannel]], queue: Queue
    ) -> tuple[AbstractChannel, AbstractQueue]:
        """A channel, and the queue on it; what may not be made closes the channel, and is looked for on the next."""
        while True:
            channel = await open_channel()
            with suppress(_OnlyFound):
                return channel, await self._declare(channel, queue)

    async def _declare(self, channel: AbstractChannel, queue: Queue) -> AbstractQueue:
        """Make the queue, or find it where this user may not make one, or it is there and was made otherwise. Raises
        _OnlyFound, at most once for each of these and for its exchange, when it has to be looked for."""
        may_make, asked = queue.name not in self._only_found, queue.name
        passive = not may_make or queue.name in self._made_otherwise
        try:
            declared = await channel.declare_queue(
                queue.name, durable=True, passive=passive, arguments=self._arguments(queue)
            )
            if queue.bound_to and may_make:
                asked, found = queue.bound_to, queue.bound_to in self._only_found
                exchange = await channel.declare_exchange(asked, "fanout", durable=True, passive=found)
                asked = queue.name
                await declared.bind(exchange)
        except ChannelAccessRefused as error:
            if asked in self._only_found:
                raise
            self._only_found.add(asked)
            log.info("this user may not make %s; what is there is used", asked)
            raise _OnlyFound(short(error)) from error
        except ChannelPreconditionFailed as error:
            if passive or "inequivalent arg" not in str(error):
                raise
            self._made_otherwise.add(queue.name)
            log.info("%s is there, made otherwise, and is used as it is (%s)", queue.name, short(error))
            raise _OnlyFound(short(error)) from error
        except ChannelNotFoundEntity as error:
            if asked not in self._made_otherwise:
                raise
            self._made_otherwise.discard(asked)  # it is gone meanwhile, and made on the next channel
            raise _OnlyFound(short(error)) from error
        self._declared.add(queue)
        return declared

    def _arguments(self, queue: Queue) -> dict[str, Any]:
        arguments: dict[str, Any] = {"x-expires": 1000 * queue.expires} if queue.expires else {}
        if self._config.queues == "quorum":
            arguments |= {"x-queue-type": "quorum", "x-delivery-limit": _UNLIMITED}
            if not queue.is_dead:  # from which messages are fetched, and which nobody serves
                arguments["x-single-active-consumer"] = not self._shared
        return arguments

    async def _start_consumer(self, queue: Queue, receive: Receive) -> None:
        if queue not in self._optional:
            await self._begin_to_consume(queue, receive)
            return
        try:
            await self._begin_to_consume(queue, receive)
        except (ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed) as error:
            log.info("this user may not have queue %s (%s); it is done without", queue.name, short(error))
            self._done_without.add(queue)

    async def _begin_to_consume(self, queue: Queue, receive: Receive) -> None:
        assert self._connection is not None
        channel, declared = await self._found_on(self._connection.channel, queue)
        await channel.set_qos(prefetch_count=self._prefetch)

        async def hand_over(message: AbstractIncomingMessage) -> None:
            try:
                await receive(delivery_of(message))
                self._failing.pop(queue, None)
                return
            except NotConnectedError as error:
                log.debug("%s: %s", queue.name, error)  # it is delivered again over the next connection
            except Exception as error:
                self._tell_of_failure(queue, error)
            await asyncio.sleep(1)
            with suppress(NotConnectedError):
                await delivery_of(message).give_back()

        try:
            await declared.consume(hand_over, exclusive=not self._shared)
        except ChannelAccessRefused:
            if queue not in self._standing_by:
                _tell_of_another(queue)
            self._standing_by.add(queue)
        else:
            if self._config.queues == "quorum" and declared.declaration_result.consumer_count:
                _tell_of_another(queue)  # a quorum queue lets it in, and gives it nothing while the other is there
            self._standing_by.discard(queue)
            self._consuming[queue] = declared

    def _tell_of_failure(self, queue: Queue, error: Exception) -> None:
        """Once for what fails again and again, as all messages do on a full disk."""
        words = f"{type(error).__name__}: {error}"
        if self._failing.get(queue) != words:
            known = isinstance(error, (IonbeamError, OSError))
            log.error(
                "messages of %s cannot be taken in, and are given back (%s)",
                queue.name,
                words,
                exc_info=None if known else error,
            )
        self._failing[queue] = words


def _tell_of_another(queue: Queue) -> None:
    log.warning(
        "another client serves %s; this one stands by. Give one of them a name of its own if both should get every "
        "message",
        queue.name,
    )


class _OnlyFound(NotConnectedError):
    """What was to be made may only be found."""


def _tls(config: IonbeamClientConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.tls_ca_file)
    if config.tls_cert_file is not None:
        context.load_cert_chain(config.tls_cert_file, config.tls_key_file, no_passphrase)
    return context
