"""The client: what a program that sends or receives data calls.

Belongs here: `IonbeamClient` and the one way in of all data, `ingest`. Does not belong here: what happens behind it
(engine.py), or the synchronous twin (sync.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import NAMESPACE_URL, UUID, uuid5

import pyarrow as pa
from pydantic import ValidationError

from ionbeam_client import wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.arrow import Fingerprint, Rechunker, batches_of, checked_schema, coerce
from ionbeam_client.config import IonbeamClientConfig
from ionbeam_client.engine import Engine
from ionbeam_client.errors import DataError, IonbeamError, OutboxFullError
from ionbeam_client.handlers import CALLED_FOR, Export, ExportHandler, Handler, Trigger, TriggerHandler
from ionbeam_client.inbox import Inbox
from ionbeam_client.models import IngestDataCommand, IngestionMetadata, ReplayDatasetsCommand
from ionbeam_client.outbox import Draft, Outbox
from ionbeam_client.payloads import PayloadStore, PayloadWriter
from ionbeam_client.transport import Transport

log = logging.getLogger("ionbeam_client")

T = TypeVar("T", bound=TriggerHandler)
E = TypeVar("E", bound=ExportHandler)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """An ingestion that is durable: its id, its rows and its compressed bytes."""

    id: UUID
    rows: int
    bytes: int


class IonbeamClient:
    """Sends observations to an Ionbeam platform, and calls handlers when the platform asks or a dataset is ready.

    Use it in ``async with``; `SyncIonbeamClient` is its twin for a plain ``with``. What is ingested is on disk when
    `ingest` returns, and is sent in the background, by this process or by the next one with the same `state_path`.
    """

    def __init__(self, config: IonbeamClientConfig | None = None, *, transport: Transport | None = None) -> None:
        self.config = config or IonbeamClientConfig()
        self._given_transport = transport
        self._store = PayloadStore(self.config.arrow_store_path) if self.config.arrow_store_path else None
        self._handlers: dict[str, Handler] = {}
        self._replays: list[ReplayDatasetsCommand] = []
        self._engine: Engine | None = None
        self._opened_by = 0

    # -- open and close ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise IonbeamError("this client is open already")
        folder = self.config.state_folder
        self._outbox = Outbox(folder, self.config.outbox_max_bytes)
        self._inbox = Inbox(folder)
        self._engine = Engine(
            self._given_transport or AmqpTransport(self.config),
            self._outbox,
            self._inbox,
            folder,
            self.config.retry_delays,
            asyncio.get_running_loop(),
            wire.returned_queue(self.config.user, self._outbox.name) if self.config.user else None,
        )
        self._opened_by = os.getpid()
        self._engine.start()
        for handler in self._handlers.values():
            self._engine.serve(handler)
        for replay in self._replays:
            self._ask(replay)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine, self._engine = self._opened(), None
        deadline = time.monotonic() + self.config.close_timeout
        try:
            if not await self._flushed(self.config.close_timeout):
                self._warn_of_what_is_left()
        finally:
            await engine.stop(max(0.0, deadline - time.monotonic()))
            self._outbox.close()
            self._inbox.close()

    def _warn_of_what_is_left(self) -> None:
        refused = [one for one in self._outbox.all() if one.refused]
        why = f"; {len(refused)} of them were refused: {refused[0].error}" if refused else ""
        log.warning(
            "%d messages still wait in %s%s; they are sent by the next client there, or by "
            "'ionbeam-client outbox flush'",
            self._outbox.count(),
            self.config.state_folder,
            why,
        )

    async def run_forever(self) -> None:
        """Serve the handlers until SIGTERM or SIGINT, then stop cleanly. Opens the client unless it is open."""
        if self._engine is None:
            async with self:
                await self.run_forever()
            return
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        signals = (signal.SIGTERM, signal.SIGINT)
        for one in signals:
            with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or not in the main thread
                loop.add_signal_handler(one, stop.set)
        try:
            await stop.wait()
        finally:
            for one in signals:
                with suppress(NotImplementedError, ValueError, RuntimeError):
                    loop.remove_signal_handler(one)

    async def wait_until_connected(self, timeout: float | None = None) -> bool:
        """Wait for the broker; False when it did not answer within `timeout` seconds. No other call needs this."""
        try:
            await asyncio.wait_for(self._opened().connected(), timeout)
        except TimeoutError:
            return False
        return True

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until the broker has confirmed what was ingested; False when it has not within `timeout` seconds.

        False at once, too, when all that is left was refused by the broker: `ionbeam-client outbox list --refused`
        says what and why.
        """
        self._opened()
        return await self._flushed(timeout)

    @property
    def busy(self) -> bool:
        """Whether something waits for the broker or for a handler."""
        return self._engine is not None and (self._outbox.count() > 0 or self._inbox.busy())

    async def _flushed(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._outbox.count(refused=False):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return self._outbox.count() == 0

    # -- sending -------------------------------------------------------------------------------------------------

    async def ingest(
        self,
        batch_stream: Any,
        metadata: IngestionMetadata,
        start_time: datetime,
        end_time: datetime,
        source_name: str | None = None,
        replaces: bool = False,
    ) -> Receipt:
        """Hand over what was collected of [start_time, end_time); no row at all is a finding, too.

        `batch_stream` is an async or plain iterator of Arrow record batches, an Arrow table, a polars or pandas frame.
        The rows have the columns that `metadata` declares, by name; types are converted where no value changes. Rows
        outside the range are allowed (late observations). Returns when everything is durable on this machine; until
        then nothing is sent. The same rows, range and metadata are one ingestion, however often they are handed over.

        With `replaces`, the rows take the place of what this user of the broker sent before for ranges that lie in this
        one: points that are not among them are gone. Otherwise they add to it, and the later value of a point wins.

        Where several sources feed one dataset, `source_name` says which one this is; in a trigger handler it is the
        handler's.

        Raises DataError (rows, names, units, range), OutboxFullError (only with ``outbox_full="raise"``, or for an
        ingestion larger than the outbox), IonbeamError (the disk is full) and whatever `batch_stream` raises.
        """
        engine = self._opened()
        schema = checked_schema(metadata)
        command = _command(metadata, start_time, end_time, source_name or CALLED_FOR.get(), replaces)
        await self._wait_for_room()
        spool = _Spool(self._outbox, self._store, schema, self.config.inline_limit)
        try:
            async for batch in batches_of(batch_stream):
                await asyncio.to_thread(spool.add, batch)
                if self._outbox.size() > self.config.outbox_max_bytes:
                    await self._wait_for_room(spool.waiting_bytes)
            receipt = await asyncio.to_thread(spool.finish, command)
        except BaseException:
            spool.discard()
            raise
        engine.sent_soon()
        return receipt

    async def _wait_for_room(self, own: int = 0) -> None:
        """Wait until the others in the outbox leave room (`own` bytes are ours already)."""
        told = False
        while (size := self._outbox.size()) >= self.config.outbox_max_bytes and size > own:
            message = f"the outbox in {self.config.state_folder} is full: {size} bytes wait for {self.config.broker}"
            if self.config.outbox_full == "raise":
                raise OutboxFullError(message)
            if not told:
                log.warning("%s; ingest() waits", message)
            told = True
            await asyncio.sleep(0.1)

    # -- handlers ------------------------------------------------------------------------------------------------

    @overload
    def register_trigger_handler(self, source_name: str, handler: T) -> T: ...

    @overload
    def register_trigger_handler(self, source_name: str) -> Callable[[T], T]: ...

    def register_trigger_handler(self, source_name: str, handler: T | None = None) -> T | Callable[[T], T]:
        """Have ``handler(start_time, end_time)`` called when the platform wants that range of a source.

        The handler may be a coroutine function or a plain one (called in a thread), and is called for one range at a
        time. Without `handler` this is a decorator. An error is retried and then parked, as the README says.
        """

        def register(function: T) -> T:
            self._register(Trigger(_checked_name("source_name", source_name), function))
            return function

        return register if handler is None else register(handler)

    @overload
    def register_export_handler(
        self,
        exporter_name: str,
        handler: E,
        dataset_filter: Collection[str] | None = None,
        batch_size: int | None = None,
        replay_from: datetime | None = None,
    ) -> E: ...

    @overload
    def register_export_handler(
        self,
        exporter_name: str,
        handler: None = None,
        dataset_filter: Collection[str] | None = None,
        batch_size: int | None = None,
        replay_from: datetime | None = None,
    ) -> Callable[[E], E]: ...

    def register_export_handler(
        self,
        exporter_name: str,
        handler: E | None = None,
        dataset_filter: Collection[str] | None = None,
        batch_size: int | None = None,
        replay_from: datetime | None = None,
    ) -> E | Callable[[E], E]:
        """Have ``handler(event, batch_stream)`` called for every revision of the datasets in `dataset_filter`.

        Without a filter these are all datasets. `batch_stream` gives Arrow record batches of at most `batch_size` rows,
        to ``async for`` and to ``for``. Revisions of one window come in order. With `replay_from` the platform is
        asked, once, for the windows that end after that moment, so that a new exporter gets what was built before it
        was known. Without `handler` this is a decorator.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if isinstance(dataset_filter, str):
            raise TypeError(f"dataset_filter is a set of names, such as {{{dataset_filter!r}}}")
        datasets = None if dataset_filter is None else frozenset(dataset_filter)

        def register(function: E) -> E:
            name = _checked_name("exporter_name", exporter_name)
            if replay_from is not None:
                asked = f"{name} {sorted(datasets or [])} {replay_from.isoformat()}"
                self._replays.append(
                    ReplayDatasetsCommand(
                        id=uuid5(NAMESPACE_URL, f"ionbeam:replay:{asked}"),
                        exporter_name=name,
                        datasets=None if datasets is None else sorted(datasets),
                        start_time=replay_from,
                    )
                )
            self._register(Export(name, function, datasets, batch_size, self._store))
            if replay_from is not None and self._engine is not None:
                self._ask(self._replays[-1])
            return function

        return register if handler is None else register(handler)

    def _register(self, handler: Handler) -> None:
        if handler.queue.name in self._handlers:
            raise ValueError(f"there is a handler of {handler.queue.name} already")
        self._handlers[handler.queue.name] = handler
        if self._engine is not None:
            self._engine.serve(handler)

    def _ask(self, replay: ReplayDatasetsCommand) -> None:
        if not self._inbox.was_asked(str(replay.id)):
            self._outbox.put(wire.REPLAY, replay)
            self._inbox.asked(str(replay.id))
            self._opened().sent_soon()

    def _opened(self) -> Engine:
        if self._engine is None:
            raise IonbeamError("the client is not open; use it in 'async with client:'")
        if os.getpid() != self._opened_by:
            raise IonbeamError(
                f"this client was opened by process {self._opened_by}; a forked process opens one of its "
                "own, with another state_path"
            )
        return self._engine


class _Spool:
    """The rows of one ingestion on their way to disk: memory holds a chunk and an unfinished part, never the stream."""

    def __init__(self, outbox: Outbox, store: PayloadStore | None, schema: pa.Schema, inline_limit: int) -> None:
        self._schema = schema
        self._store = store if store is not None and store.shared else None
        self._chunks = Rechunker(schema)
        self._fingerprint = Fingerprint()
        self._cutter = wire.PartCutter(schema, inline_limit)
        self._draft: Draft = outbox.draft()
        self._file: PayloadWriter | None = None
        self._kept: list[pa.RecordBatch] = []
        self._rows = 0

    @property
    def waiting_bytes(self) -> int:
        """What of it is in the outbox."""
        return self._draft.bytes

    def add(self, batch: pa.RecordBatch) -> None:
        try:
            for chunk in self._chunks.add(coerce(batch, self._schema)):
                self._take(chunk)
        except DataError as error:
            raise DataError(f"{error} (batch that begins at row {self._rows})") from error
        self._rows += batch.num_rows

    def finish(self, command: IngestDataCommand) -> Receipt:
        """Make messages of what was taken, all at once."""
        for chunk in self._chunks.rest():
            self._take(chunk)
        command = command.model_copy(update={"id": self._fingerprint.id(command)})
        if self._file is None:
            last = self._cutter.rest()
            self._draft.seal(command, self._schema, last)
            return Receipt(command.id, self._rows, self._draft.bytes)
        location = f"{command.metadata.dataset.name}/{command.id}.parquet"
        size = self._file.publish(location)
        self._draft.seal_payload(command.model_copy(update={"payload_location": Path(location)}))
        return Receipt(command.id, self._rows, size)

    def discard(self) -> None:
        self._draft.discard()
        if self._file is not None:
            self._file.discard()

    def _take(self, chunk: pa.RecordBatch) -> None:
        self._fingerprint.add(chunk)
        if self._file is not None:
            self._file.write([chunk])
            return
        full = list(self._cutter.add(chunk))
        if self._store is None:
            for part in full:
                self._draft.add(*part)
            return
        self._kept.append(chunk)
        if full:  # more than one message: it goes into the shared store instead
            self._file = self._store.writer(self._schema)
            self._file.write(self._kept)
            self._kept = []


def _command(
    metadata: IngestionMetadata,
    start_time: datetime,
    end_time: datetime,
    source_name: str | None = None,
    replaces: bool = False,
) -> IngestDataCommand:
    for name, moment in (("start_time", start_time), ("end_time", end_time)):
        if moment.tzinfo is None:
            raise DataError(f"{name} {moment} has no time zone; give it as UTC: datetime(..., tzinfo=timezone.utc)")
    try:
        return IngestDataCommand(
            metadata=metadata, start_time=start_time, end_time=end_time, source_name=source_name, replaces=replaces
        )
    except ValidationError as error:
        raise DataError(error.errors()[0]["msg"]) from error


def _checked_name(what: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: use letters, digits, '_' and '-', at most 64 of them")
    return name
