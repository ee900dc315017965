"""What runs beside the user's program: it sends what waits in the outbox, and gives the handlers what is in the inbox.

Belongs here: the thread with its own event loop, the order of commit and acknowledgement, retries and parking. Does not
belong here: the broker's protocol (amqp.py), or what the user calls (client.py).

The thread is there so that a handler that blocks its loop for minutes does not cost the connection to the broker.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ionbeam_client import wire
from ionbeam_client.errors import IonbeamError, MessageError, NotConnectedError, RefusedError
from ionbeam_client.handlers import Handler
from ionbeam_client.inbox import Inbox, Job
from ionbeam_client.models import Returned
from ionbeam_client.outbox import Outbox, Waiting
from ionbeam_client.state import ProcessLock
from ionbeam_client.text import visible
from ionbeam_client.transport import Delivery, Outgoing, Transport

log = logging.getLogger("ionbeam_client")

IN_FLIGHT = 100
IN_FLIGHT_BYTES = 16_000_000
INBOX_BYTES = 256_000_000
POLL = 0.5
"""Seconds between looks at what another process may have left: its lock, its messages."""
LONGEST_REST = 60.0
"""Seconds until what failed again and again begins again."""
SILENT_FOR = 30.0
"""Seconds without a confirmation after which a broker that is there counts as one that takes nothing."""


class Engine:
    """Runs between `start` and `stop`, in a thread of its own."""

    def __init__(
        self,
        transport: Transport,
        outbox: Outbox,
        inbox: Inbox,
        folder: Path,
        retry_delays: tuple[float, ...],
        handler_loop: asyncio.AbstractEventLoop,
        returned: wire.Queue | None,
    ) -> None:
        self._transport = transport
        self._outbox = outbox
        self._inbox = inbox
        self._folder = folder
        self._retry_delays = retry_delays
        self._handler_loop = handler_loop
        self._returned = returned
        self._hears_back = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="ionbeam-client", daemon=True)
        self._wake_sender = asyncio.Event()
        self._stopping = asyncio.Event()
        self._servers: set[asyncio.Task[None]] = set()
        self._locks: dict[str, ProcessLock] = {}

    def start(self) -> None:
        self._thread.start()
        self.do(self._open()).result()

    def serve(self, handler: Handler) -> None:
        """Give a handler its messages from now on."""
        self.do(self._begin_to_serve(handler)).result()

    def sent_soon(self) -> None:
        """Something new is in the outbox."""
        self._loop.call_soon_threadsafe(self._wake_sender.set)

    async def connected(self) -> None:
        """Wait, in the caller's loop, until the broker is there."""
        await asyncio.wrap_future(self.do(self._transport.connected()))

    async def stop(self, grace: float) -> None:
        """Stop; handlers that are being called have `grace` seconds to come to an end."""
        await asyncio.wrap_future(self.do(self._close(grace)))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the engine's thread; returns a future of concurrent.futures."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _open(self) -> None:
        await self._transport.open()
        self._silence = self._loop.call_later(0, lambda: None)
        self._sender = asyncio.create_task(self._watched("sending", self._send_for_ever))

    async def _close(self, grace: float) -> None:
        self._stopping.set()
        if self._servers:
            await asyncio.wait(self._servers, timeout=grace)
        for task in [*self._servers, self._sender]:
            task.cancel()
        await asyncio.gather(*self._servers, self._sender, return_exceptions=True)
        await self._transport.close()
        for lock in self._locks.values():
            lock.close()

    async def _hold(self, name: str, waiting: str) -> None:
        """Wait until this process alone does what `name` says."""
        if name not in self._locks:
            self._locks[name] = ProcessLock(self._folder / f"{name}.lock")
        told = False
        while not self._locks[name].acquire():
            if not told:
                log.info("another process %s; this one stands by", waiting)
            told = True
            await asyncio.sleep(POLL)

    async def _watched(self, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until the engine stops. What ends before is told and begun again, whatever ended it; ever more slowly where
        it ends again and again, as on a full disk, on which nobody can note what the broker has confirmed."""
        pause = 0.5
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await work()
                return
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                pause = 1.0 if time.monotonic() - began > LONGEST_REST else min(2 * pause, LONGEST_REST)
                known = isinstance(error, (IonbeamError, asyncio.CancelledError))
                why = str(error) or type(error).__name__
                log.error("%s failed (%s); again in %g s", what, why, pause, exc_info=None if known else error)
            await asyncio.sleep(pause)

    # -- sending -------------------------------------------------------------------------------------------------

    async def _send_for_ever(self) -> None:
        await self._hold("outbox", f"sends what is in {self._folder}")
        if self._returned is not None and not self._hears_back:
            self._hears_back = True
            await self._transport.consume(self._returned, self._hear_back, optional=True)
        while not self._stopping.is_set():
            await self._send_what_is_due()

    async def _send_what_is_due(self) -> None:
        while not self._transport.is_connected:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._transport.connected(), POLL)
                break
            self._outbox.note_trouble(self._transport.trouble or "the broker does not answer")
        self._wake_sender.clear()
        batch = self._outbox.due(time.time(), limit=IN_FLIGHT, max_bytes=IN_FLIGHT_BYTES)
        if not batch and not self._outbox.count():
            self._outbox.note_trouble(None)
        self._expect_a_confirmation()
        try:
            sent = await asyncio.gather(*(self._send(waiting) for waiting in batch))
        finally:
            self._silence.cancel()
        self._outbox.confirmed([waiting.seq for waiting, done in zip(batch, sent, strict=True) if done])
        if not any(sent):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake_sender.wait(), POLL)

    def _expect_a_confirmation(self) -> None:
        self._silence.cancel()
        self._silence = self._loop.call_later(SILENT_FOR, self._tell_of_silence)

    def _tell_of_silence(self) -> None:
        reason = (
            f"the broker has confirmed nothing for {SILENT_FOR:g} s: it has no room (an alarm of its memory or disk), "
            "or the line swallows"
        )
        log.warning("%s; what is ingested waits in %s", reason, self._folder)
        self._outbox.note_trouble(reason)

    async def _send(self, waiting: Waiting) -> bool:
        body = self._outbox.body(waiting.seq)
        content_type = wire.JSON if body.startswith(b"{") else wire.ARROW
        reply_to = self._returned.name if self._returned is not None else None
        message = Outgoing(waiting.message_id, body, content_type, reply_to=reply_to)
        try:
            await self._transport.publish(wire.Queue(waiting.queue), message)
        except NotConnectedError as error:
            # Perhaps because of this very message (too large), perhaps of another one: only patience tells
            self._outbox.note_trouble(str(error))
            self._outbox.failed(waiting.seq, str(error), keep_place=True)
            return False
        except RefusedError as error:
            log.error("message %s was refused (%s); it stays in the outbox", waiting.message_id, error)
            self._outbox.failed(waiting.seq, str(error), keep_place=False, refused=True)
            return False
        self._outbox.note_trouble(None)
        self._expect_a_confirmation()
        return True

    async def _hear_back(self, delivery: Delivery) -> None:
        """The platform could not take a message, and has parked it."""
        try:
            told = Returned.from_wire(delivery.body)
        except ValueError as error:
            log.warning("what came back from the platform cannot be read: %s", error)
        else:
            log.error("the platform could not take message %s: %s", told.message_id, visible(told.reason))
            self._outbox.returned(told)
        await delivery.ack()

    # -- handlers ------------------------------------------------------------------------------------------------

    async def _begin_to_serve(self, handler: Handler) -> None:
        what = f"serving {handler.queue.name}"
        self._servers.add(asyncio.create_task(self._watched(what, lambda: self._serve(handler))))

    async def _serve(self, handler: Handler) -> None:
        await self._unless_stopping(self._hold(handler.queue.name, f"serves {handler.queue.name}"))
        if self._stopping.is_set():
            return
        arrived, turn = asyncio.Event(), asyncio.Lock()

        async def receive(delivery: Delivery) -> None:
            async with turn:  # in the order of the queue
                await self._take_in(handler, delivery)
            arrived.set()

        await self._transport.consume(handler.queue, receive)
        while not self._stopping.is_set():
            await self._serve_next(handler, arrived)

    async def _serve_next(self, handler: Handler, arrived: asyncio.Event) -> None:
        arrived.clear()
        job = self._inbox.next(handler.queue.name, time.time())
        if job is not None:
            await self._handle(handler, job)
            return
        due = self._inbox.next_due(handler.queue.name, time.time())
        pause = POLL if due is None else min(POLL, max(0.01, due - time.time()))
        with suppress(asyncio.TimeoutError):
            await self._unless_stopping(asyncio.wait_for(arrived.wait(), pause))

    async def _unless_stopping(self, work: Coroutine[Any, Any, Any]) -> None:
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _take_in(self, handler: Handler, delivery: Delivery) -> None:
        """Durable first, acknowledged last. Raises when neither could be done: the broker delivers it again."""
        while self._inbox.waiting_bytes(handler.queue.name) > INBOX_BYTES:
            await asyncio.sleep(POLL)
        try:
            incoming = await asyncio.to_thread(handler.read, delivery)
        except MessageError as error:
            log.error("a message of %s is parked in %s: %s", handler.queue.name, handler.queue.dead.name, error)
            message = Outgoing(delivery.message_id, delivery.body, delivery.content_type, _why(str(error), "", 0, 0))
            await self._transport.publish(handler.queue.dead, message)
        else:
            if incoming is not None:
                self._inbox.put(incoming)
        await delivery.ack()

    async def _handle(self, handler: Handler, job: Job) -> None:
        calls = len(self._retry_delays) + 1
        if job.attempts >= calls:
            await self._park(handler, job, job.error or "", "")
            return
        self._inbox.begun(job)
        try:
            await handler.call(self._inbox, job, self._handler_loop)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self._stopping.is_set():
                self._inbox.interrupted(job)
                raise
            reason = f"{type(error).__name__}: {error}"
            if job.attempts + 1 < calls:
                delay = self._retry_delays[job.attempts]
                log.warning(
                    "%s: handling %s failed (%s); again in %g s",
                    handler.queue.name,
                    job.id,
                    reason,
                    delay,
                    exc_info=error,
                )
                self._inbox.failed(job, reason, time.time() + delay)
            else:
                await self._park(handler, job, reason, "".join(traceback.format_exception(error)))
        else:
            self._inbox.done(job)

    async def _park(self, handler: Handler, job: Job, reason: str, details: str) -> None:
        log.error("%s: %s is parked in %s: %s", handler.queue.name, job.id, handler.queue.dead.name, reason)
        try:
            for part in self._inbox.parts(job):
                headers = _why(reason, details, len(self._retry_delays) + 1, job.requeues)
                message = Outgoing(part.message_id, part.body, part.content_type, headers)
                await self._transport.publish(handler.queue.dead, message)
        except (NotConnectedError, RefusedError) as error:
            log.warning("%s cannot be parked yet: %s", job.id, error)
            self._inbox.failed(job, reason, time.time() + 1)
        else:
            self._inbox.parked(job, reason)


def _why(reason: str, details: str, attempts: int, requeues: int) -> dict[str, str | int]:
    return {
        wire.ERROR_HEADER: reason[:2000],
        wire.DETAILS_HEADER: details[-8000:],
        wire.ATTEMPTS_HEADER: attempts,
        wire.PARKED_HEADER: datetime.now(UTC).isoformat(timespec="seconds"),
        wire.REQUEUES_HEADER: requeues,
    }
