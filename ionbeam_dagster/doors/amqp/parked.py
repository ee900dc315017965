"""Messages that were refused, in their dead queues: what they are told with, and how they are taken out again.

Belongs here: the dead queue of ingestions, and the headers of whatever is parked. Does not belong here: what is refused
(intake.py), or when it is accepted after all (bridge.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from datetime import UTC, datetime

from ionbeam_client import wire
from ionbeam_client.errors import MessageError
from ionbeam_client.models import IngestDataCommand
from ionbeam_client.transport import Delivery, Outgoing, Transport

REASON_BYTES = 2_000


async def parked_ingestions(transport: Transport) -> AsyncIterator[tuple[Delivery, IngestDataCommand]]:
    """What is parked of the ingestions, as far as it can be read; it stays there unless it is acknowledged."""
    while (delivery := await transport.fetch(wire.INGESTION.dead)) is not None:
        with suppress(MessageError):
            yield delivery, wire.decode(IngestDataCommand, delivery.body).message


async def send_back(transport: Transport, datasets: Collection[str]) -> int:
    """Put the parked ingestions of datasets into their queue again; says how many these were. A crash in between sends
    some of them twice, and they are known by their ids."""
    count = 0
    async for delivery, command in parked_ingestions(transport):
        if dataset_of(command) in datasets:
            headers: dict[str, str | int] = {wire.REQUEUES_HEADER: 1}
            if sender := delivery.headers.get(wire.SENDER_HEADER):
                headers[wire.SENDER_HEADER] = sender
            message = Outgoing(delivery.message_id, delivery.body, delivery.content_type, headers, delivery.reply_to)
            await transport.publish(wire.INGESTION, message)
            await delivery.ack()
            count += 1
    return count


def dataset_of(command: IngestDataCommand) -> str:
    return command.metadata.dataset.name


def times_sent_back(delivery: Delivery) -> int:
    """How often a message was sent back from the dead queue."""
    requeues = delivery.headers.get(wire.REQUEUES_HEADER, 0)
    return requeues if isinstance(requeues, int) else 0


def why_parked(reason: str, delivery: Delivery) -> dict[str, str | int]:
    return {
        wire.ERROR_HEADER: reason[:REASON_BYTES],
        wire.DETAILS_HEADER: "",
        wire.ATTEMPTS_HEADER: 1,
        wire.PARKED_HEADER: datetime.now(UTC).isoformat(timespec="seconds"),
        wire.REQUEUES_HEADER: times_sent_back(delivery),
    }
