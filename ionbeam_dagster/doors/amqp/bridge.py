"""The platform's end of the broker: it takes messages in, and publishes what the outbox has.

Belongs here: connections, the order of commit and acknowledgement, dead queues, and how long a turn may last. The same
turns make a sensor's tick and the process `ionbeam bridge`; one process of all machines does each job at a time, so
that several may run side by side. Whatever asks the ledger does so in a thread: one that is away, or made again, stops
no heartbeat. Does not belong here: what becomes of a message (intake.py), or what there is to tell (outbox.py).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from uuid import uuid4
from weakref import WeakKeyDictionary

from ionbeam_client import wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.config import IonbeamClientConfig
from ionbeam_client.errors import MessageError, NotConnectedError, RefusedError
from ionbeam_client.models import IngestDataCommand, ReplayDatasetsCommand, Returned, StartSourceCommand
from ionbeam_client.text import visible
from ionbeam_client.transport import Delivery, Outgoing, Transport
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.intake import Intake
from ionbeam_dagster.doors.amqp.outbox import Outbox
from ionbeam_dagster.doors.amqp.settings import BusSettings, bus_settings
from ionbeam_dagster.errors import IonbeamError, StoreError
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.holding import Job
from ionbeam_dagster.stores.ledger.refusals import Refusal

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
IDLE = 0.5
"""Seconds without a message after which a turn calls its queues empty."""

_MOST_AT_ONCE = 64
_CHANGES_AT_ONCE = 50
_HELD_BYTES = 1_000_000
"""A message larger than this waits for its turn on disk: the broker delivers by count, whatever their size."""
_BATCH_BYTES = 64_000_000
_REASON_BYTES = 2_000


class BrokerAway(IonbeamError, ConnectionError):
    """The broker does not answer; the message says which and what to do."""


class JobTaken(Exception):
    """Another process does this job."""


@dataclass
class Turn:
    """What one turn did."""

    taken: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    announced: int = 0
    replayed: int = 0


def bridge_of(platform: Platform) -> Bridge:
    """The bridge of a platform, one for each; raises PipelineError when its configuration has no message broker."""
    if platform not in _BRIDGES:
        _BRIDGES[platform] = Bridge(bus_settings(platform), platform.ledger)
    return _BRIDGES[platform]


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A message that waits for its turn, its body in memory or in a file that nobody else sees."""

    queue: wire.Queue
    delivery: Delivery
    size: int
    body: IO[bytes] | None

    @classmethod
    def of(cls, queue: wire.Queue, delivery: Delivery, folder: Path) -> _Arrived:
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


class Bridge:
    """Between the broker and the ledger. Making one connects to nothing; turns open a connection and close it."""

    def __init__(self, settings: BusSettings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._trusted = {IonbeamClientConfig(amqp_url=settings.url).user, *settings.operators}
        self.intake = Intake(settings, ledger)
        self._outbox = Outbox(settings, ledger)

    def take_in(self, seconds: float) -> Turn:
        """Take messages in until the queues are empty, or for `seconds`.

        Raises BrokerAway, JobTaken, or what kept this machine from keeping them; they are delivered again.
        """
        return asyncio.run(self._turn("intake", self._consume_for, seconds))

    def announce(self, seconds: float) -> Turn:
        """Publish what was built and stored since the last time, and replays, for at most `seconds`."""
        return asyncio.run(self._turn("outbox", self._announce_for, seconds))

    def ask(self, source: str, windows: Iterable[Window]) -> dict[Window, int]:
        """Ask the client of an external source for windows; says how often each was asked for without an answer."""
        return asyncio.run(self._ask(source, list(windows)))

    def run_forever(self, work: Callable[[], object] = lambda: None) -> None:
        """`serve` until SIGTERM or SIGINT."""

        async def run() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await self.serve(stop, work)

        asyncio.run(run())

    async def serve(self, stop: asyncio.Event, work: Callable[[], object] = lambda: None) -> None:
        """Do both jobs until `stop` is set, waiting for the broker and for other processes that do them.

        `work` is what lies between them: it is called in a thread of its own, when something was taken in and once a
        second, by one process at a time.
        """
        arrived = asyncio.Event()
        jobs = [self._serve_intake(arrived), self._serve_work(work, arrived), self._serve_outbox()]
        tasks = [asyncio.create_task(job) for job in jobs]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
        finally:
            for task in [*tasks, stopped]:
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)

    # -- what was parked -----------------------------------------------------------------------------------------

    def parked(self, dataset: str) -> list[IngestDataCommand]:
        """The ingestions of a dataset in the dead queue, which keeps them; raises BrokerAway."""

        async def look() -> list[IngestDataCommand]:
            async with self._connected() as transport:
                return [command async for _, command in _dead_ingestions(transport) if _dataset(command) == dataset]

        return asyncio.run(look())

    async def _send_back(self) -> None:
        """Put the parked ingestions of datasets that were accepted, and that this configuration knows, into their queue
        again. A crash in between sends some of them twice, and they are known by their ids."""
        known = {feed.dataset.name for feed in self._settings.feeds.values()}
        accepted = known.intersection(await asyncio.to_thread(self._ledger.refusals.accepted))
        if not accepted:
            return
        count = 0
        async with self._connected() as transport:
            async for delivery, command in _dead_ingestions(transport):
                if _dataset(command) in accepted:
                    headers: dict[str, str | int] = {wire.REQUEUES_HEADER: 1}
                    if sender := delivery.headers.get(wire.SENDER_HEADER):
                        headers[wire.SENDER_HEADER] = sender
                    message = Outgoing(
                        delivery.message_id, delivery.body, delivery.content_type, headers, delivery.reply_to
                    )
                    await transport.publish(wire.INGESTION, message)
                    await delivery.ack()
                    count += 1
        log.info("%d parked messages of %s are taken in now", count, ", ".join(sorted(accepted)))
        for dataset in accepted:
            await asyncio.to_thread(self._ledger.refusals.sent_back, dataset)

    # -- turns ---------------------------------------------------------------------------------------------------

    def _transport(self) -> AmqpTransport:
        config = IonbeamClientConfig(amqp_url=self._settings.url, queues=self._settings.queues)
        return AmqpTransport(config, prefetch=_MOST_AT_ONCE, fanouts=(wire.DATA_EXCHANGE, wire.DATASET_EXCHANGE))

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Transport]:
        """A transport that connects as soon as it can."""
        transport = self._transport()
        await transport.open()
        try:
            yield transport
        finally:
            await transport.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Transport]:
        async with self._open() as transport:
            try:
                await asyncio.wait_for(transport.connected(), CONNECT_TIMEOUT)
            except TimeoutError as error:
                place = IonbeamClientConfig(amqp_url=self._settings.url).broker
                raise BrokerAway(f"the broker {place} does not answer; start it, or correct broker.url") from error
            yield transport

    async def _turn(
        self, name: str, work: Callable[[Transport, Job, float, Turn], Awaitable[None]], seconds: float
    ) -> Turn:
        job = self._ledger.job(name)
        try:
            if not job.acquire():
                raise JobTaken(f"another process does this ({name})")
            turn, until = Turn(), time.monotonic() + seconds
            async with self._connected() as transport:
                await work(transport, job, until, turn)
            return turn
        finally:
            job.close()

    @asynccontextmanager
    async def _held(self, name: str) -> AsyncIterator[Job]:
        """A job, as soon as no other process does it; it may be lost again."""
        job, told = self._ledger.job(name), ""
        try:
            while True:
                try:
                    if await asyncio.to_thread(job.acquire):
                        break
                    why = "another process does it"
                except StoreError as error:
                    why = str(error)
                if why != told:
                    log.info("%s: this process stands by (%s)", name, why)
                told = why
                await asyncio.sleep(1)
            yield job
            log.warning("%s: another process may do it now, as this one was silent for too long", name)
        finally:
            await asyncio.to_thread(job.close)

    # -- taking in -----------------------------------------------------------------------------------------------

    async def _consume_for(self, transport: Transport, job: Job, until: float, turn: Turn) -> None:
        await self._send_back()
        arrived = await self._consuming(transport)
        while job.is_ours and time.monotonic() < until and await self._take_batch(transport, arrived, turn, IDLE):
            pass

    async def _serve_intake(self, taken: asyncio.Event) -> None:
        while True:
            async with self._held("intake") as job, self._open() as transport:  # what waits goes back when it closes
                arrived = await self._consuming(transport)
                while job.is_ours:
                    try:
                        await self._send_back()
                        if await self._take_batch(transport, arrived, Turn(), 1.0):
                            taken.set()
                    except Exception:
                        log.exception("a turn failed; what is not acknowledged is delivered again")
                        await asyncio.sleep(1)

    async def _serve_work(self, work: Callable[[], object], taken: asyncio.Event) -> None:
        while True:
            async with self._held("work") as job:
                while job.is_ours:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(taken.wait(), 1)
                    taken.clear()
                    try:
                        await asyncio.to_thread(work)
                    except Exception:
                        log.exception("what was taken in could not be worked on; again in a second")
                        await asyncio.sleep(1)

    async def _consuming(self, transport: Transport) -> asyncio.Queue[_Arrived]:
        """Everything that arrives on the queues that are the platform's."""
        arrived: asyncio.Queue[_Arrived] = asyncio.Queue()

        def receive(queue: wire.Queue) -> Callable[[Delivery], Awaitable[None]]:
            async def put(delivery: Delivery) -> None:
                arrived.put_nowait(_Arrived.of(queue, delivery, self._settings.scratch))

            return put

        sources = {wire.source_queue(source) for source in self._settings.pulled}
        for queue in (wire.INGESTION, wire.REPLAY, *sorted(sources, key=lambda queue: queue.name)):
            await transport.consume(queue, receive(queue))
        return arrived

    async def _take_batch(
        self, transport: Transport, arrived: asyncio.Queue[_Arrived], turn: Turn, idle: float
    ) -> bool:
        """Take in what has arrived; False when nothing came for `idle` seconds."""
        taken: list[_Arrived] = []
        with suppress(TimeoutError):
            taken.append(await asyncio.wait_for(arrived.get(), idle))
        size = taken[0].size if taken else 0
        while taken and not arrived.empty() and len(taken) < _MOST_AT_ONCE and size < _BATCH_BYTES:
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
            return self.intake.ingestions(bodies, [self._sender(delivery) for delivery in deliveries])
        if queue == wire.REPLAY:
            return self.intake.replays(bodies)
        source = next(name for name in self._settings.pulled if wire.source_queue(name) == queue)
        return self.intake.start_commands(source, bodies)

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
                headers = _why(reason, delivery) | {wire.SENDER_HEADER: self._sender(delivery)}
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
        told = Returned(message_id=delivery.message_id, queue=queue.name, reason=reason[:_REASON_BYTES])
        try:
            await transport.reply(place, Outgoing(f"returned-{delivery.message_id}", told.model_dump_json().encode()))
        except (NotConnectedError, RefusedError) as error:
            log.info("its client is not told that %s is parked: %s", delivery.message_id, error)

    def _remember_refusals(
        self, queue: wire.Queue, deliveries: Sequence[Delivery], verdicts: Sequence[str | None]
    ) -> None:
        now = datetime.now(UTC)
        refused = [
            Refusal(queue.name, delivery.message_id, reason[:_REASON_BYTES], now)
            for delivery, reason in zip(deliveries, verdicts, strict=True)
            if reason is not None
        ]
        if refused:
            self._ledger.refusals.add(refused)
        again = [
            one.message_id for one, reason in zip(deliveries, verdicts, strict=True) if reason is None and _again(one)
        ]
        if again:
            self._ledger.refusals.forget(again)

    # -- announcing ----------------------------------------------------------------------------------------------

    async def _announce_for(self, transport: Transport, job: Job, until: float, turn: Turn) -> None:
        while time.monotonic() < until and await self._announce_some(transport, job, turn, until):
            pass

    async def _serve_outbox(self) -> None:
        while True:
            async with self._held("outbox") as job, self._open() as transport:
                while job.is_ours:
                    await transport.connected()
                    try:
                        if not await self._announce_some(transport, job, Turn(), time.monotonic() + 60):
                            await asyncio.sleep(IDLE)
                    except (NotConnectedError, RefusedError) as error:
                        log.warning("nothing can be announced for now: %s", error)
                        await asyncio.sleep(1)
                    except Exception:
                        log.exception("announcing failed; again in a second")
                        await asyncio.sleep(1)

    async def _announce_some(self, transport: Transport, job: Job, turn: Turn, until: float) -> bool:
        """Publish the next changes in order, and a part of a replay; False when there was nothing to publish, or the
        job is another's now."""
        announced = await asyncio.to_thread(self._ledger.announcements.announced)
        changes = await asyncio.to_thread(self._outbox.changes, announced, _CHANGES_AT_ONCE)
        for change in changes:
            if not job.is_ours:
                return False
            messages = self._outbox.announcements(change)
            while (message := await asyncio.to_thread(next, messages, None)) is not None:
                await transport.broadcast(*message)
            await asyncio.to_thread(self._ledger.announcements.note_announced, change.number)
            turn.announced += 1
            if time.monotonic() > until:
                return True
        return await self._replay_some(transport, job, turn, until) or bool(changes)

    async def _replay_some(self, transport: Transport, job: Job, turn: Turn, until: float) -> bool:
        replay = await asyncio.to_thread(self._ledger.announcements.next_replay)
        if replay is None:
            return False
        note = self._ledger.announcements.note_replayed
        command, sent = ReplayDatasetsCommand.from_wire(replay.command.encode()), replay.sent
        windows = await asyncio.to_thread(self._outbox.replayed, command)
        queue = wire.exporter_queue(command.exporter_name)
        for built in windows[sent : sent + _CHANGES_AT_ONCE]:
            if not job.is_ours:
                return False
            if time.monotonic() > until:
                return True
            messages = self._outbox.revision(built)
            while (message := await asyncio.to_thread(next, messages, None)) is not None:
                await transport.publish(queue, message)
            sent += 1
            turn.replayed += 1
            await asyncio.to_thread(note, replay.id, sent, done=False)
        await asyncio.to_thread(note, replay.id, sent, done=sent >= len(windows))
        return True

    # -- asking --------------------------------------------------------------------------------------------------

    async def _ask(self, source: str, windows: Sequence[Window]) -> dict[Window, int]:
        times = {}
        async with self._connected() as transport:
            for window in windows:
                command = StartSourceCommand(
                    id=uuid4(), source_name=source, start_time=window.start, end_time=window.end
                )
                times[window] = await asyncio.to_thread(self._ledger.requests.note, source, window, datetime.now(UTC))
                await transport.publish(wire.source_queue(source), Outgoing(str(command.id), wire.json_body(command)))
        return times


async def _dead_ingestions(transport: Transport) -> AsyncIterator[tuple[Delivery, IngestDataCommand]]:
    """What is parked of the ingestions, as far as it can be read; it stays there unless it is acknowledged."""
    while (delivery := await transport.fetch(wire.INGESTION.dead)) is not None:
        with suppress(MessageError):
            yield delivery, wire.decode(IngestDataCommand, delivery.body).message


def _dataset(command: IngestDataCommand) -> str:
    return command.metadata.dataset.name


def _again(delivery: Delivery) -> int:
    """How often a message was sent back from the dead queue."""
    requeues = delivery.headers.get(wire.REQUEUES_HEADER, 0)
    return requeues if isinstance(requeues, int) else 0


def _why(reason: str, delivery: Delivery) -> dict[str, str | int]:
    return {
        wire.ERROR_HEADER: reason[:_REASON_BYTES],
        wire.DETAILS_HEADER: "",
        wire.ATTEMPTS_HEADER: 1,
        wire.PARKED_HEADER: datetime.now(UTC).isoformat(timespec="seconds"),
        wire.REQUEUES_HEADER: _again(delivery),
    }


_BRIDGES: WeakKeyDictionary[Platform, Bridge] = WeakKeyDictionary()
