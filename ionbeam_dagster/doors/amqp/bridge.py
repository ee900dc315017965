"""The platform's end of the broker: it takes messages in, and publishes what the outbox has.

Belongs here: connections, who does which job, and how long a turn may last. The same turns make a sensor's tick and the
process `ionbeam bridge`; one process of all machines does each job at a time, so that several may run side by side.
Whatever asks the ledger does so in a thread: one that is away, or made again, stops no heartbeat. Does not belong here:
how messages are taken in (receiving.py) and announced (announcing.py), or what lies in the dead queues (parked.py).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4
from weakref import WeakKeyDictionary

from ionbeam_client import wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.errors import IonbeamError as ClientError
from ionbeam_client.models import IngestDataCommand, StartSourceCommand
from ionbeam_client.transport import Outgoing, Transport
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.announcing import Announcer
from ionbeam_dagster.doors.amqp.intake import Intake
from ionbeam_dagster.doors.amqp.outbox import Outbox
from ionbeam_dagster.doors.amqp.parked import dataset_of, parked_ingestions, send_back
from ionbeam_dagster.doors.amqp.receiving import MOST_AT_ONCE, Receiver
from ionbeam_dagster.doors.amqp.settings import BusSettings, bus_settings
from ionbeam_dagster.doors.amqp.turn import Turn
from ionbeam_dagster.errors import IonbeamError, StoreError
from ionbeam_dagster.matters import Matter
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.holding import Job

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
IDLE = 0.5
"""Seconds without a message after which a turn calls its queues empty."""


class BrokerAway(IonbeamError, ConnectionError):
    """The broker does not answer; the message says which and what to do."""


class JobTaken(Exception):
    """Another process does this job."""


def bridge_of(platform: Platform) -> Bridge:
    """The bridge of a platform, one for each; raises PipelineError when its configuration has no message broker."""
    if platform not in _BRIDGES:
        _BRIDGES[platform] = Bridge(bus_settings(platform), platform.ledger)
    return _BRIDGES[platform]


class Bridge:
    """Between the broker and the ledger. Making one connects to nothing; turns open a connection and close it."""

    def __init__(self, settings: BusSettings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self.intake = Intake(settings, ledger)
        self._receiver = Receiver(settings, ledger, self.intake)
        self._announcer = Announcer(ledger, Outbox(settings, ledger))

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
                return [command async for _, command in parked_ingestions(transport) if dataset_of(command) == dataset]

        return asyncio.run(look())

    async def _send_back(self) -> None:
        """Take in after all what is parked of datasets that were accepted, and that this configuration knows."""
        known = {feed.dataset.name for feed in self._settings.feeds.values()}
        accepted = known.intersection(await asyncio.to_thread(self._ledger.refusals.accepted))
        if not accepted:
            return
        async with self._connected() as transport:
            count = await send_back(transport, accepted)
        log.info("%d parked messages of %s are taken in now", count, ", ".join(sorted(accepted)))
        for dataset in accepted:
            await asyncio.to_thread(self._ledger.refusals.sent_back, dataset)

    # -- turns ---------------------------------------------------------------------------------------------------

    def _transport(self) -> AmqpTransport:
        fanouts = wire.DATA_EXCHANGE, wire.DATASET_EXCHANGE
        return AmqpTransport(
            self._settings.client, prefetch=MOST_AT_ONCE, fanouts=fanouts, ca_file="broker.ca_file",
            cert_file="broker.cert_file",
        )  # fmt: skip

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
                place = self._settings.client.broker
                why = f" ({transport.trouble})" if transport.trouble else ""
                raise BrokerAway(f"the broker {place} does not answer{why}; start it, or correct broker.url") from error
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
        arrived = await self._receiver.consuming(transport)
        while (
            job.is_ours and time.monotonic() < until and await self._receiver.take_batch(transport, arrived, turn, IDLE)
        ):
            pass

    async def _serve_intake(self, taken: asyncio.Event) -> None:
        while True:
            async with self._held("intake") as job, self._open() as transport:  # what waits goes back when it closes
                arrived = await self._receiver.consuming(transport)
                taking_in = Matter(log)
                while job.is_ours:
                    async with _told(taking_in, "taking messages in"):
                        await self._send_back()
                        if await self._receiver.take_batch(transport, arrived, Turn(), 1.0):
                            taken.set()

    async def _serve_work(self, work: Callable[[], object], taken: asyncio.Event) -> None:
        while True:
            async with self._held("work") as job:
                working = Matter(log)
                while job.is_ours:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(taken.wait(), 1)
                    taken.clear()
                    async with _told(working, "the work on what was taken in"):
                        await asyncio.to_thread(work)

    # -- announcing ----------------------------------------------------------------------------------------------

    async def _announce_for(self, transport: Transport, job: Job, until: float, turn: Turn) -> None:
        while time.monotonic() < until and await self._announcer.announce_some(transport, job, turn, until):
            pass

    async def _serve_outbox(self) -> None:
        while True:
            async with self._held("outbox") as job, self._open() as transport:
                announcing = Matter(log)
                while job.is_ours:
                    await transport.connected()
                    async with _told(announcing, "announcing"):
                        if not await self._announcer.announce_some(transport, job, Turn(), time.monotonic() + 60):
                            await asyncio.sleep(IDLE)

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


@asynccontextmanager
async def _told(matter: Matter, what: str) -> AsyncIterator[None]:
    """What fails in the block is told as it begins and when it is over, and rests a second."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, (IonbeamError, ClientError, OSError))
        words = f"{what} fails ({type(error).__name__}: {error}) and is tried again"
        matter.goes_wrong((type(error).__name__, str(error)), words, None if known else error)
        await asyncio.sleep(1)
    else:
        matter.goes_well(f"{what} goes on")


_BRIDGES: WeakKeyDictionary[Platform, Bridge] = WeakKeyDictionary()
