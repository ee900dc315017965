"""Taking messages in, batch by batch: each is judged, made durable or parked, and only then acknowledged.

Belongs here: messages that wait for their turn, and the order of commit and acknowledgement. Does not belong here: what
is made of a message (intake.py), or who takes in, when and for how long (bridge.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from ionbeam_client import wire
from ionbeam_client.errors import NotConnectedError, RefusedError
from ionbeam_client.models import Returned
from ionbeam_client.text import visible
from ionbeam_client.transport import Delivery, Outgoing, Transport
from ionbeam_dagster.doors.amqp.intake import Intake
from ionbeam_dagster.doors.amqp.parked import REASON_BYTES, times_sent_back, why_parked
from ionbeam_dagster.doors.amqp.settings import BusSettings
from ionbeam_dagster.doors.amqp.turn import Turn
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.refusals import Refusal

log = logging.getLogger(__name__)

MOST_AT_ONCE = 64
_HELD_BYTES = 1_000_000
"""A message larger than this waits for its turn on disk: the broker delivers by count, whatever their size."""
_BATCH_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that waits for its turn, its body in memory or in a file that nobody else sees."""

    queue: wire.Queue
    delivery: Delivery
    size: int
    body: IO[bytes] | None

    @classmethod
    def of(cls, queue: wire.Queue, delivery: Delivery, folder: Path) -> Arrived:
        size = len(delivery.body)
        if size <= _HELD_BYTES:
            return cls(queue, delivery, size, None)
        folder.mkdir(parents=True, exist_ok=True)
        file = TemporaryFile(dir=folder)  # noqa: SIM115  # it lives until its turn
        try:
            file.write(delivery.body)
        except BaseException:
            file.close()
            raise
        return cls(queue, delivery.without_body(), size, file)

    def whole(self) -> Delivery:
        """The delivery with its body."""
        if self.body is None:
            return self.delivery
        with self.body as file:
            file.seek(0)
            return replace(self.delivery, body=file.read())


class Receiver:
    """Takes in what arrives on the queues that are the platform's."""

    def __init__(self, settings: BusSettings, ledger: Ledger, intake: Intake) -> None:
        self._settings = settings
        self._ledger = ledger
        self._intake = intake
        self._trusted = {settings.client.user, *settings.operators}

    async def consuming(self, transport: Transport) -> asyncio.Queue[Arrived]:
        """Everything that arrives on the queues that are the platform's."""
        arrived: asyncio.Queue[Arrived] = asyncio.Queue()

        def receive(queue: wire.Queue) -> Callable[[Delivery], Awaitable[None]]:
            async def put(delivery: Delivery) -> None:
                arrived.put_nowait(Arrived.of(queue, delivery, self._settings.scratch))

            return put

        sources = {wire.source_queue(source) for source in self._settings.pulled}
        for queue in (wire.INGESTION, wire.REPLAY, *sorted(sources, key=lambda queue: queue.name)):
            await transport.consume(queue, receive(queue))
        return arrived

    async def take_batch(self, transport: Transport, arrived: asyncio.Queue[Arrived], turn: Turn, idle: float) -> bool:
        """Take in what has arrived; False when nothing came for `idle` seconds."""
        taken: list[Arrived] = []
        with suppress(TimeoutError):
            taken.append(await asyncio.wait_for(arrived.get(), idle))
        size = taken[0].size if taken else 0
        while taken and not arrived.empty() and len(taken) < MOST_AT_ONCE and size < _BATCH_BYTES:
            taken.append(arrived.get_nowait())
            size += taken[-1].size
        batch = [(one.queue, one.whole()) for one in taken]
        try:
            for queue in dict.fromkeys(queue for queue, _ in batch):
                deliveries = [delivery for of, delivery in batch if of == queue]
                verdicts = await asyncio.to_thread(self._judge, queue, deliveries)
                pairs = zip(deliveries, verdicts, strict=True)
                await asyncio.gather(*(self._settle(transport, queue, *pair, turn) for pair in pairs))
                await asyncio.to_thread(self._remember_refusals, queue, deliveries, verdicts)
        except BaseException:
            for _, delivery in batch:
                with suppress(Exception):
                    await delivery.give_back()
            raise
        return bool(batch)

    def _judge(self, queue: wire.Queue, deliveries: Sequence[Delivery]) -> list[str | None]:
        bodies = [delivery.body for delivery in deliveries]
        if queue == wire.INGESTION:
            return self._intake.ingestions(bodies, [self._sender(delivery) for delivery in deliveries])
        if queue == wire.REPLAY:
            return self._intake.replays(bodies)
        source = next(name for name in self._settings.pulled if wire.source_queue(name) == queue)
        return self._intake.start_commands(source, bodies)

    def _sender(self, delivery: Delivery) -> str:
        """The broker's user who sent a message first: what the platform or an operator puts into a queue again says so
        itself. Empty for a client that does not say."""
        said = delivery.headers.get(wire.SENDER_HEADER)
        return str(said) if said and delivery.user in self._trusted else delivery.user or ""

    async def _settle(
        self, transport: Transport, queue: wire.Queue, delivery: Delivery, reason: str | None, turn: Turn
    ) -> None:
        """Acknowledge what is durable, here or in the dead queue. What cannot be is delivered again, and known then."""
        try:
            if reason is not None:
                log.error("a message of %s is parked in %s: %s", queue.name, queue.dead.name, visible(reason))
                headers = why_parked(reason, delivery) | {wire.SENDER_HEADER: self._sender(delivery)}
                message = Outgoing(
                    delivery.message_id, delivery.body, delivery.content_type, headers, delivery.reply_to
                )
                await transport.publish(queue.dead, message)
                await self._return(transport, queue, delivery, reason)
                turn.refused.append(reason)
            else:
                turn.taken[queue.name] += 1
            await delivery.ack()
        except (NotConnectedError, RefusedError) as error:
            log.warning("message %s could not be settled (%s); it is delivered again", delivery.message_id, error)
        except Exception as error:  # the connection went away under the acknowledgement
            log.debug("message %s could not be acknowledged: %s", delivery.message_id, error)

    async def _return(self, transport: Transport, queue: wire.Queue, delivery: Delivery, reason: str) -> None:
        """Tell the client that its message is parked, in its own queue and no other."""
        place = delivery.reply_to
        if not place or not place.startswith(wire.returned_queue(self._sender(delivery), "").name):
            return
        told = Returned(message_id=delivery.message_id, queue=queue.name, reason=reason[:REASON_BYTES])
        try:
            await transport.reply(place, Outgoing(f"returned-{delivery.message_id}", told.model_dump_json().encode()))
        except (NotConnectedError, RefusedError) as error:
            log.info("its client is not told that %s is parked: %s", delivery.message_id, error)

    def _remember_refusals(
        self, queue: wire.Queue, deliveries: Sequence[Delivery], verdicts: Sequence[str | None]
    ) -> None:
        now = datetime.now(UTC)
        refused = [
            Refusal(queue.name, delivery.message_id, reason[:REASON_BYTES], now)
            for delivery, reason in zip(deliveries, verdicts, strict=True)
            if reason is not None
        ]
        if refused:
            self._ledger.refusals.add(refused)
        again = [
            one.message_id
            for one, reason in zip(deliveries, verdicts, strict=True)
            if reason is None and times_sent_back(one)
        ]
        if again:
            self._ledger.refusals.forget(again)
