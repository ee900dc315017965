"""A platform in memory, so that users test their handlers and their ingestion without a broker.

Belongs here: the part of a platform that a client sees. Does not belong here: what a real one makes of the data.

    async def test_my_exporter(tmp_path):
        platform = TestPlatform(tmp_path)
        client = platform.client()
        client.register_export_handler("mine", my_handler)
        async with client:
            platform.publish_dataset(table, "netatmo", start, end)
            await platform.settle()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa

from ionbeam_client import wire
from ionbeam_client.client import IonbeamClient
from ionbeam_client.config import IonbeamClientConfig
from ionbeam_client.memory import MemoryBroker
from ionbeam_client.models import DataSetAvailableEvent, DatasetMetadata, IngestDataCommand, StartSourceCommand
from ionbeam_client.sync import SyncIonbeamClient
from ionbeam_client.transport import Outgoing

__all__ = ["Ingested", "Parked", "TestPlatform"]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What a client handed over: its command, and its rows from all parts."""

    command: IngestDataCommand
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class Parked:
    """A message in a dead queue, and why it is there."""

    message_id: str
    error: str
    attempts: int


class TestPlatform:
    """Gives out clients that are connected to it, asks them for data, publishes datasets, and keeps what they send."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, folder: Path) -> None:
        self.broker = MemoryBroker()
        self._folder = folder
        self._clients: list[IonbeamClient] = []
        self._numbers = count()
        self._ingested: dict[UUID, dict[int, bytes]] = {}

    def client(self, **settings: Any) -> IonbeamClient:
        """A client of this platform; `settings` are those of `IonbeamClientConfig`."""
        self._clients.append(IonbeamClient(self._config(settings), transport=self.broker.transport()))
        return self._clients[-1]

    def sync_client(self, **settings: Any) -> SyncIonbeamClient:
        """The same for a plain ``with``."""
        return SyncIonbeamClient(self._config(settings), transport=self.broker.transport())

    def _config(self, settings: dict[str, Any]) -> IonbeamClientConfig:
        folder = self._folder / f"client-{next(self._numbers)}"
        return IonbeamClientConfig(**{"state_path": folder, **settings})

    def trigger(self, source_name: str, start_time: datetime, end_time: datetime) -> StartSourceCommand:
        """Ask a source for a range."""
        command = StartSourceCommand(source_name=source_name, start_time=start_time, end_time=end_time)
        queue = wire.source_queue(source_name)
        self.broker.declare(queue)
        self.broker.put(queue.name, Outgoing(str(command.id), wire.json_body(command)))
        return command

    def publish_dataset(
        self,
        rows: pa.Table,
        dataset: str | DatasetMetadata,
        start_time: datetime,
        end_time: datetime,
        revision: int = 1,
        previous_revision: int | None = None,
    ) -> DataSetAvailableEvent:
        """Announce a revision of a dataset window to the exporters that are connected."""
        event = DataSetAvailableEvent(
            metadata=DatasetMetadata(name=dataset) if isinstance(dataset, str) else dataset,
            dataset_location=Path("in-the-message"),
            start_time=start_time,
            end_time=end_time,
            revision=revision,
            previous_revision=previous_revision,
        )
        body = wire.with_rows(event, rows.schema.remove_metadata(), rows.to_batches(max_chunksize=65_536))
        self.broker.broadcast(wire.DATASET_EXCHANGE, Outgoing(str(event.id), body, wire.ARROW))
        return event

    def ingested(self) -> list[Ingested]:
        """What arrived so far, in order; an ingestion that came twice is one."""
        while (message := self.broker.take(wire.INGESTION.name)) is not None:
            command = wire.decode(IngestDataCommand, message.body).message
            self._ingested.setdefault(command.id, {})[command.part] = message.body
        complete = (_joined(bodies) for bodies in self._ingested.values())
        return [one for one in complete if one is not None]

    def parked(self, queue: wire.Queue) -> list[Parked]:
        """What is in the dead queue of `queue`."""
        return [
            Parked(
                message.message_id,
                str(message.headers[wire.ERROR_HEADER]),
                int(message.headers[wire.ATTEMPTS_HEADER]),
            )
            for message in self.broker.queues.get(queue.dead.name, ())
        ]

    async def settle(self, timeout: float = 10.0) -> None:
        """Wait until every outbox is empty and every handler has handled or parked what came for it."""
        deadline = time.monotonic() + timeout
        quiet = 0
        while quiet < 2:  # what moved on between the two looks is seen by the second
            quiet = 0 if self._queued() or any(client.busy for client in self._clients) else quiet + 1
            if time.monotonic() > deadline:
                raise TimeoutError(f"the clients are still busy after {timeout} s")
            await asyncio.sleep(0.01)

    def _queued(self) -> bool:
        kept = (wire.INGESTION.name, wire.REPLAY.name)
        queues = self.broker.queues.items()
        waiting = any(messages for name, messages in queues if name not in kept and not _is_dead(name))
        return waiting or bool(self.broker.unacknowledged)


def _is_dead(queue: str) -> bool:
    return queue.endswith(".dead")


def _joined(bodies: dict[int, bytes]) -> Ingested | None:
    decoded = [wire.decode(IngestDataCommand, bodies[part]) for part in sorted(bodies)]
    if len(decoded) < decoded[0].message.parts:
        return None
    command = decoded[0].message
    return Ingested(command, pa.Table.from_batches(_rows(decoded), schema=wire.declared_schema(command.metadata)))


def _rows(decoded: Iterable[wire.Decoded[IngestDataCommand]]) -> Iterable[pa.RecordBatch]:
    return (batch for one in decoded if one.rows is not None for batch in wire.batches(one.rows))
