"""Handlers: what a registered function is, which messages are for it, and how it is called.

Belongs here: from a message to a call. Does not belong here: when, how often and what happens on an error (engine.py).
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import pyarrow as pa

from ionbeam_client import wire
from ionbeam_client.errors import MessageError
from ionbeam_client.inbox import Inbox, Incoming, Job
from ionbeam_client.models import DataSetAvailableEvent, StartSourceCommand
from ionbeam_client.payloads import PayloadStore
from ionbeam_client.transport import Delivery

BATCH_SIZE = 65_536
NO_BOUND = 2**62

TriggerHandler = Callable[[datetime, datetime], Any]
CALLED_FOR: ContextVar[str | None] = ContextVar("CALLED_FOR", default=None)
"""The source for which a trigger handler is being called."""

ExportHandler = Callable[[DataSetAvailableEvent, Any], Any]
"""The second argument is a `BatchStream`; it is Any so that handlers may name any kind of iterator."""


class Handler(ABC):
    """A function of the user's and the queue whose messages it gets."""

    queue: wire.Queue

    @abstractmethod
    def read(self, delivery: Delivery) -> Incoming | None:
        """The delivery as the inbox keeps it; None when it is not for this handler.

        Raises MessageError when nobody could ever handle it.
        """

    @abstractmethod
    async def call(self, inbox: Inbox, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        """Call the function: a coroutine function in the user's `loop`, a plain one in a thread of its own."""

    def _incoming(self, delivery: Delivery, id: str, subject: str, revision: int, part: int, parts: int) -> Incoming:
        requeues = delivery.headers.get(wire.REQUEUES_HEADER, 0)
        return Incoming(
            queue=self.queue.name,
            id=id,
            subject=subject,
            revision=revision,
            part=part,
            parts=parts,
            requeues=requeues if isinstance(requeues, int) else 0,
            message_id=delivery.message_id,
            content_type=delivery.content_type,
            body=delivery.body,
        )


class Trigger(Handler):
    """Called with the range to collect."""

    def __init__(self, source_name: str, function: TriggerHandler) -> None:
        self.queue = wire.source_queue(source_name)
        self._source = source_name
        self._function = function

    def read(self, delivery: Delivery) -> Incoming:
        command = wire.decode(StartSourceCommand, delivery.body).message
        if command.source_name != self._source:
            raise MessageError(f"it asks for source {command.source_name!r} on the queue of {self._source!r}")
        return self._incoming(delivery, str(command.id), str(command.id), 1, 1, 1)

    async def call(self, inbox: Inbox, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        [part] = inbox.parts(job)
        command = wire.decode(StartSourceCommand, part.body).message
        await _call(self._function, loop, command.start_time, command.end_time, called_for=self._source)


class Export(Handler):
    """Called with an event and its rows, for the datasets in `datasets` (None: all)."""

    def __init__(
        self,
        exporter_name: str,
        function: ExportHandler,
        datasets: Collection[str] | None,
        batch_size: int | None,
        store: PayloadStore | None,
    ) -> None:
        self.queue = wire.exporter_queue(exporter_name)
        self._function = function
        self._datasets = datasets
        self._batch_size = batch_size or BATCH_SIZE
        self._store = store

    def read(self, delivery: Delivery) -> Incoming | None:
        decoded = wire.decode(DataSetAvailableEvent, delivery.body)
        event = decoded.message
        if self._datasets is not None and event.metadata.name not in self._datasets:
            return None
        if decoded.rows is not None:
            for _ in wire.batches(decoded.rows):  # a handler must not find out halfway that the rest is broken
                pass
        elif self._store is None:
            raise MessageError(f"its rows are in {event.dataset_location}, and this client has no arrow_store_path")
        else:
            self._store.path_of(event.dataset_location)
        subject = f"{event.metadata.name} {event.start_time.isoformat()} {event.end_time.isoformat()}"
        return self._incoming(delivery, str(event.id), subject, event.revision, event.part, event.parts)

    async def call(self, inbox: Inbox, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        event = wire.decode(DataSetAvailableEvent, next(inbox.parts(job)).body).message
        event = event.model_copy(update={"part": 1, "parts": 1})
        await _call(self._function, loop, event, BatchStream(self._batches(inbox, job, event)))

    def _batches(self, inbox: Inbox, job: Job, event: DataSetAvailableEvent) -> Iterator[pa.RecordBatch]:
        for part in inbox.parts(job):
            decoded = wire.decode(DataSetAvailableEvent, part.body)
            if decoded.rows is not None:
                for batch in wire.batches(decoded.rows):
                    yield from (batch.slice(at, self._batch_size) for at in range(0, batch.num_rows, self._batch_size))
            elif self._store is not None:
                yield from self._store.batches(
                    event.dataset_location, batch_size=self._batch_size, max_rows=NO_BOUND, max_bytes=NO_BOUND
                )


class BatchStream:
    """The rows of a dataset window as Arrow record batches, one in memory at a time, for ``async for`` and ``for``."""

    def __init__(self, source: Iterator[pa.RecordBatch]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._source

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        batch = await asyncio.to_thread(next, self._source, None)  # reading must not hold up the handler's loop
        if batch is None:
            raise StopAsyncIteration
        return batch


async def _call(
    function: Callable[..., Any],
    loop: asyncio.AbstractEventLoop,
    *arguments: object,
    called_for: str | None = None,
) -> None:
    async def run() -> None:
        CALLED_FOR.set(called_for)
        await function(*arguments)

    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), loop))
    else:
        await _in_thread(function, *arguments, called_for=called_for)


async def _in_thread(function: Callable[..., Any], *arguments: object, called_for: str | None) -> None:
    """Call a plain function in a daemon thread: one that hangs must not keep the program from ending."""
    loop, outcome = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def settle(result: Exception | None) -> None:
        if not outcome.done():
            outcome.set_exception(result) if result else outcome.set_result(None)

    def run() -> None:
        CALLED_FOR.set(called_for)
        try:
            returned = function(*arguments)
            result: Exception | None = None
            if inspect.isawaitable(returned):
                result = TypeError(f"{function!r} returned something to await; write the handler as 'async def'")
        except BaseException as error:
            result = error if isinstance(error, Exception) else RuntimeError(f"the handler raised {error!r}")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, name=f"ionbeam-{getattr(function, '__name__', 'handler')}", daemon=True).start()
    await outcome
