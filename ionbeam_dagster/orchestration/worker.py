"""The warm worker: does what is due of all sources and datasets within seconds, several at once, each in a child.

Belongs here: which source or dataset is next, how many are worked on at once, and what is done with a child that hangs.
Does not belong here: what is due (pipeline/agenda), or the runs (doing.py).

A child works on one source or dataset at a time. A source that takes long (it waits for a service) gives its place
away, so that services that hang hold up nobody. Any number of workers may share the work, on any host: leases in the
ledger keep two from doing one window.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Literal

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.windows import EPOCH
from ionbeam_dagster.orchestration.dead_runs import Watch
from ionbeam_dagster.orchestration.heartbeats import this_host
from ionbeam_dagster.orchestration.holders import WORKER, worker_with
from ionbeam_dagster.orchestration.supervision import processor_used
from ionbeam_dagster.orchestration.worker_child import work_for
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import Stage
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.leases import is_held

log = logging.getLogger(__name__)

GATHERED_FOR = 0.5
"""Seconds between two looks: what comes meanwhile is done together."""
SLOW_AFTER = 10.0
"""Seconds after which the place of a child that works on a source is given to another one."""
MOST_SLOW = 16
"""Children beyond their number that may be slow at once."""
MOST_PROBES = 2
"""Of sources that do not answer, as many are asked at once."""
_SHARE = 4
"""So many times as long as a look took is waited until the next one."""
_RESTED = 5.0
_BEATS_EVERY, _WATCHED_EVERY = 2.0, 5.0
_COLLECTS_AGAIN = 30.0
_SILENT_FOR, _BEGINS_WITHIN = 20.0, 120.0
_FINISHED_WITHIN = 8.0

Kind = Literal["source", "dataset"]


@dataclass(slots=True)
class _Child:
    process: ForkServerProcess
    connection: Connection
    ready: bool = False
    group: _Group | None = None
    since: float = 0.0
    heard: float = field(default_factory=time.monotonic)
    worked: int | None = None

    @property
    def is_slow(self) -> bool:
        """Whether it waits for a service: what is slow of a dataset is work, of which more at once would be slower."""
        asks = self.group is not None and self.group.kind == "source"
        return asks and time.monotonic() - self.since > SLOW_AFTER


@dataclass(slots=True)
class _Group:
    """One source, or one dataset: what is worked on by one child at a time."""

    kind: Kind
    name: str
    products: list[tuple[Stage, str]]
    waits_since: float | None = None
    rests_until: float = 0.0
    is_worked_on: bool = False
    trigger: int = -1
    looked: float = 0.0


class Worker:
    """Works until `stop`; `at_once` sources or datasets at a time, and more while some of them only wait. Where
    automation is off, it has nothing to do."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance, at_once: int) -> None:
        self._platform = platform
        self._instance = instance
        self._at_once = at_once
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([work_for.__module__])
        self._starter = ThreadPoolExecutor(1, "starter")
        self._children: list[_Child] = []
        self._groups = list(_groups(platform)) if platform.config.automation.enabled else []
        self._watch = Watch()
        self._name = f"{WORKER} {socket.gethostname()} {os.getpid()}"
        self._doing = worker_with(platform.config)
        self._begun, self._beaten, self._watched, self._examined = time.monotonic(), 0.0, 0.0, 0.0
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        for _ in range(self._at_once):
            self._fork()
        trouble = ""
        try:
            while not self._stopping:
                begun = time.monotonic()
                try:
                    self._beat()
                    self._end_what_hangs()
                    self._look()
                    self._give_out()
                    self._rest(max(GATHERED_FOR, _SHARE * (time.monotonic() - begun)))
                    trouble = ""
                except Exception as error:  # the ledger, a store or Dagster's storage is away, whatever library says so
                    before, trouble = trouble, f"{type(error).__name__}: {error}"
                    if trouble != before:
                        log.warning("nothing is given out until it goes on: %s", trouble)
                    time.sleep(GATHERED_FOR)
        finally:
            self._end()

    # -- what is due ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        platform, now, clock = self._platform, self._platform.now(), time.monotonic()
        held = platform.ledger.leases.held()
        opened = {(one.stage, one.product) for one in platform.ledger.attempts.open() if one.may_begin(now)}
        for group in self._groups:
            if group.is_worked_on or clock < group.rests_until:
                continue
            try:
                is_due = any(self._is_due(group, stage, of, now, held.keys(), opened) for stage, of in group.products)
            except Exception as error:  # whatever is wrong with one holds up no other
                log.warning("%s %s cannot be looked at: %s: %s", group.kind, group.name, type(error).__name__, error)
                group.rests_until = clock + _RESTED
                continue
            if not is_due:
                group.waits_since = None
            elif group.waits_since is None:
                group.waits_since = clock

    def _is_due(
        self,
        group: _Group,
        stage: Stage,
        of: str,
        now: datetime,
        held: Container[str],
        opened: Iterable[tuple[str, str]],
    ) -> bool:
        if stage == "collect" and group.waits_since is None and (stage, of) not in opened:
            trigger, clock = _trigger(self._platform.source(of), now), time.monotonic()
            if trigger == group.trigger and clock - group.looked < _COLLECTS_AGAIN:
                return False
            group.trigger, group.looked = trigger, clock
        elif stage in ("export", "export_cycle") and (stage, of) not in opened:
            return False
        work = agenda.due_of(self._platform, stage, of, now)
        return not all(is_held(held, stage, of, one.window) for one in work)

    # -- who does it ---------------------------------------------------------------------------------------------

    def _give_out(self) -> None:
        silent = agenda.silent(self._platform)
        waiting = sorted((group for group in self._groups if group.waits_since), key=lambda one: one.waits_since or 0)
        for group in waiting:
            is_silent = group.kind == "source" and group.name in silent
            if is_silent and self._probes(silent) >= MOST_PROBES:
                continue
            child = self._idle()
            if child is None:
                return
            try:
                child.connection.send((group.kind, group.name))
            except OSError:  # it ended; `_listen` finds that out
                continue
            child.group, child.since = group, time.monotonic()
            group.is_worked_on, group.waits_since = True, None

    def _probes(self, silent: Iterable[str]) -> int:
        busy = [child.group for child in self._children if child.group is not None]
        return sum(group.kind == "source" and group.name in silent for group in busy)

    def _idle(self) -> _Child | None:
        """A child that may begin something, if there is a place: places of those that only wait are given away."""
        busy = [child for child in self._children if child.group is not None]
        slow = sum(child.is_slow for child in busy)
        if len(busy) - min(slow, MOST_SLOW) >= self._at_once:
            return None
        free = [child for child in self._children if child.group is None]
        for child in free:
            if child.ready:
                return child
        if not free:
            self._fork()
        return None

    def _fork(self) -> None:
        here, there = self._context.Pipe()
        arguments = (there, str(self._platform.config.path.absolute()), str(Path.cwd()))
        process = self._context.Process(target=work_for, args=arguments, daemon=True)
        starting = self._starter.submit(process.start)
        until = time.monotonic() + _BEGINS_WITHIN
        # the fork server imports for many seconds on a busy machine: to awake now and then is a sign of life; where it
        # hangs there is none any longer, and whoever watches this process ends it
        while wait_for([starting], _BEATS_EVERY).not_done and not self._stopping and time.monotonic() < until:
            pass
        starting.result()
        there.close()
        self._children.append(_Child(process, here))

    # -- what became of it ---------------------------------------------------------------------------------------

    def _rest(self, seconds: float) -> None:
        """Listen for so many seconds, or until a child has finished, and give signs of life meanwhile: who rests for
        long, since a look took long, is neither dead nor hangs."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if self._listen(min(left, _BEATS_EVERY)):
                return
            self._beat()
            self._end_what_hangs()

    def _listen(self, seconds: float) -> bool:
        """Take what children say, for so many seconds, or until one of them has finished: whether one has."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            by_connection = {child.connection: child for child in self._children}
            finished = False
            for connection in wait(list(by_connection), left):
                child = by_connection[connection]  # type: ignore[index]
                if child.connection.closed:  # there were too many, and another one has just finished
                    continue
                try:
                    said = child.connection.recv()
                except (EOFError, OSError):
                    self._gone(child)
                    continue
                child.heard = time.monotonic()
                if said == "ready":
                    child.ready = finished = True
                elif said != "alive":
                    self._finished(child, *said)
                    finished = True
            if finished:
                return True
        return False

    def _finished(self, child: _Child, runs: int, trouble: str) -> None:
        group, child.group = child.group, None
        if trouble and group is not None:
            log.error("%s %s: %s", group.kind, group.name, trouble)
        if group is not None:
            group.is_worked_on = False
            if not runs or trouble:
                group.rests_until = time.monotonic() + _RESTED
        idle = [one for one in self._children if one.group is None]
        for one in idle[self._at_once :]:  # they were there for those that were slow
            one.connection.close()
            self._children.remove(one)

    def _gone(self, child: _Child) -> None:
        self._children.remove(child)
        child.connection.close()
        child.process.join(1)
        if child.group is not None:
            child.group.is_worked_on = False
            child.group.rests_until = time.monotonic() + _RESTED
            log.warning("the process that worked on %s %s is gone; it is due again", child.group.kind, child.group.name)
        self._watched = 0.0  # what it held is given back at once
        if len(self._children) < self._at_once:
            if not child.ready:
                time.sleep(_RESTED)  # it could not even begin: nor could another one at once
            self._fork()

    def _end_what_hangs(self) -> None:
        """Kill children that say nothing and do nothing; their deadlines end those that merely wait for a service.

        Whoever was not listened to since the last time is not judged again.
        """
        now = time.monotonic()
        if now - self._examined < GATHERED_FOR:
            return
        self._examined = now
        for child in self._children:
            silent = now - child.heard
            if not child.ready and silent > _BEGINS_WITHIN:
                log.warning("process %s does not get ready and is killed", child.process.pid)
                child.process.kill()
            if not child.ready or child.process.pid is None or silent < _SILENT_FOR:
                child.worked = None
                continue
            used = processor_used(child.process.pid)
            if used is not None and used == child.worked:
                log.warning("process %s gives no sign of life and is killed", child.process.pid)
                child.process.kill()
            child.worked = used

    # -- signs of life -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        now = time.monotonic()
        can_work = any(child.ready for child in self._children) or now - self._begun < _BEGINS_WITHIN
        if now - self._beaten > _BEATS_EVERY and can_work:  # else automation does the work
            self._beaten = now
            self._platform.ledger.workers.beat(self._name, this_host(), os.getpid(), self._doing)
        if now - self._watched > _WATCHED_EVERY:
            self._watched = now
            for told in self._watch.look(self._platform, self._instance, ()):
                log.warning(told)

    def _end(self) -> None:
        until = time.monotonic() + _FINISHED_WITHIN
        for child in self._children:
            if child.group is None:
                child.connection.close()
        self._children = [child for child in self._children if child.group is not None]
        while any(child.group for child in self._children) and time.monotonic() < until:
            self._listen(0.2)
        for process in multiprocessing.active_children():
            process.kill()
        with suppress(Exception):
            self._platform.ledger.workers.leave(self._name)


def _groups(platform: Platform) -> Iterable[_Group]:
    for name, source in platform.config.sources.items():
        stages: list[Stage] = ["collect", "ingest"] if source.kind == "pull" else ["ingest"]
        yield _Group("source", name, [(stage, name) for stage in stages])
    for name, dataset in platform.config.datasets.items():
        exports: list[tuple[Stage, str]] = [("export", f"{name}/{format}") for format in dataset.exports]
        exports += [("export_cycle", f"{name}/{format}") for format in dataset.cycle_exports]
        yield _Group("dataset", name, [("build", name), *exports])


def _trigger(source: SourceSettings, now: datetime) -> int:
    """The number of the latest trigger of a source: another one is due work, unless something was noted."""
    every = min(source.trigger_interval, source.window_size) or timedelta(seconds=1)
    return (now - source.window_lag - EPOCH) // every
