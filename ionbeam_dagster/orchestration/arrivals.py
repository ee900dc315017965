"""What clients sent, told to Dagster and brought up to date in this process, as soon as it is there.

Belongs here: what `ionbeam bridge` and `ionbeam receive` do once something was taken in, where no worker does it, and
the thread in which a worker takes in what comes over the bus. Does not belong here: how it is taken in (doors/), or the
runs (doing.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import dagster as dg

from ionbeam_dagster.orchestration.dead_runs import Watch, end_dead_runs
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.orchestration.holders import worker_is_alive
from ionbeam_dagster.orchestration.reports import report_arrivals
from ionbeam_dagster.pipeline.platform import Platform

log = logging.getLogger(__name__)

_WATCHED_EVERY = 5.0


class Arrivals:
    """Ingests what clients sent, and builds and exports the windows that are ready by it.

    What there is to do, and when what failed is tried again, the agenda says, as it does to automation.
    """

    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self._platform = platform
        self._instance = instance
        self._doing = Doing(platform, instance)
        self._sources = [source for source in platform.config.sources.values() if source.sent]
        self._watch, self._watched = Watch(), 0.0
        end_dead_runs(instance)

    def bring_up_to_date(self) -> None:
        """Do what there is to do now, unless a worker does."""
        report_arrivals(self._platform.ledger, self._instance, 5.0)
        self._free()
        if not self._platform.config.automation.enabled or worker_is_alive(self._platform):
            return
        for source in self._sources:
            self._doing.source(source.name)
        for dataset in sorted({source.dataset for source in self._sources}):
            self._doing.dataset(dataset)

    def _free(self) -> None:
        """Free windows that are held by somebody who was killed, or could not give them back for a full disk."""
        now = time.monotonic()
        if now - self._watched > _WATCHED_EVERY:
            self._watched = now
            for told in self._watch.look(self._platform, self._instance, ()):
                log.warning(told)


@contextmanager
def bridging(platform: Platform, instance: dg.DagsterInstance) -> Iterator[None]:
    """Take in what comes over the bus, and announce what is new, in a thread of its own; nothing without a broker."""
    if platform.config.sections.broker is None:
        yield
        return
    from ionbeam_dagster.doors.amqp.bridge import bridge_of

    bridge = bridge_of(platform)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                loop.run_until_complete(bridge.serve(stop, partial(report_arrivals, platform.ledger, instance, 5.0)))
            except Exception:
                logging.exception("the bridge ended; it begins again in a second")
                loop.run_until_complete(asyncio.sleep(1))

    thread = threading.Thread(target=serve, name="bridge", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
