"""Who works on a window: the lease that a run takes for it, and whether a worker is there that does what is due.

Belongs here: waiting for leases. Does not belong here: how they are named and kept (stores/ledger), or who
is believed dead (dead_runs.py).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from weakref import WeakKeyDictionary

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration.heartbeats import is_alive, this_host
from ionbeam_dagster.pipeline.forgetting import Others
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.leases import lease_of
from ionbeam_dagster.stores.ledger.workers import Worker

WORKER = "worker"
"""How the holder's name of `ionbeam worker` begins among the workers of the ledger."""
ALIVE_FOR = 60.0
"""Seconds without a heartbeat for which a worker is believed to be alive."""
_WAITED = 300.0
"""Seconds for which a run waits for another one that works on its window."""
_LOOKED_EVERY = 0.5
_KEPT: set[tuple[str, str]] = set()
"""Leases, each with its run, that a run of this process keeps until it ends."""


@contextmanager
def keeping(platform: Platform, names: Sequence[str], run_id: str) -> Iterator[bool]:
    """Have a run of this process keep leases until its end, and not only while it works on each; gives whether it has
    got all of them."""
    kept = {(name, run_id) for name in names}
    try:
        has_all = len(platform.ledger.leases.take(names, run_id)) == len(names)
        _KEPT.update(kept if has_all else ())
        yield has_all
    finally:
        _KEPT.difference_update(kept)
        platform.ledger.leases.give_back(names, run_id)


@contextmanager
def working_on(platform: Platform, stage: str, of: str, window: Window, run_id: str) -> Iterator[None]:
    """Hold the lease of a window for a run, whose heart beats; waits for another run that holds it.

    A run that waits holds nothing but what it keeps, which what it waits for is made of, and never the other way round:
    so two of them never wait for each other. Raises PipelineError when the other one takes too long.
    """
    name = lease_of(stage, of, window)
    try:
        _wait_for(platform, [name], run_id)
        yield
    finally:
        if (name, run_id) not in _KEPT:
            platform.ledger.leases.give_back([name], run_id)


def _wait_for(platform: Platform, names: Sequence[str], holder: str) -> None:
    """Take leases as they become free; raises PipelineError when that takes too long, with some of them taken."""
    until, patience = time.monotonic() + _WAITED, _Patience()
    while lacking := {*names}.difference(platform.ledger.leases.take(names, holder)):
        patience.look(platform, _LOOKED_EVERY)
        if time.monotonic() > until:
            name = min(lacking)
            other = platform.ledger.leases.held().get(name, "another run")
            raise PipelineError(f"{name}: run {other} works on it since {_WAITED:.0f} s; it is tried again")
        time.sleep(_LOOKED_EVERY)


class OtherRuns(Others):
    """The runs that work on a station's sources and dataset (`works`) while `holder` forgets it, whose heart beats."""

    def __init__(self, platform: Platform, works: Collection[str], holder: str) -> None:
        self._platform = platform
        self._works = works
        self._holder = holder

    def let_end(self) -> None:
        """Raises PipelineError when it takes too long."""
        _let_end(self._platform, self._works)

    @contextmanager
    def kept_from(self, source: str, windows: Sequence[Window]) -> Iterator[None]:
        """Raises PipelineError when one of them is worked on for too long."""
        names = [lease_of(stage, source, window) for window in windows for stage in ("collect", "ingest")]
        try:
            _wait_for(self._platform, names, self._holder)
            yield
        finally:
            self._platform.ledger.leases.give_back(names, self._holder)


def _let_end(platform: Platform, of: Collection[str]) -> None:
    """Wait until what is at work now on these sources and datasets has ended, but not for what begins meanwhile.

    Raises PipelineError when it takes too long.
    """

    def at_work() -> set[tuple[str, str]]:
        held = platform.ledger.leases.held().items()
        return {(name, holder) for name, holder in held if name.split(" ")[1].partition("/")[0] in of}

    before, until, patience = at_work(), time.monotonic() + _WAITED, _Patience()
    while still := before & at_work():
        if time.monotonic() > until:
            name, holder = min(still)
            raise PipelineError(
                f"run {holder} is at work on {name} since {_WAITED:.0f} s; run the same command again once it has ended"
            )
        patience.look(platform, _LOOKED_EVERY)
        time.sleep(_LOOKED_EVERY)


class _Patience:
    """Frees what is held by those who are gone, whether or not anybody else watches them: processes of this host that
    were killed, and whoever's heart did not beat while this one waited. A pause of its own is no silence of others."""

    def __init__(self) -> None:
        self._silent: dict[str, tuple[int, float]] = {}

    def look(self, platform: Platform, passed: float) -> None:
        for worker in platform.ledger.workers.present():
            beats, silent = self._silent.get(worker.holder, (worker.beats, 0.0))
            silent = silent + passed if beats == worker.beats else 0.0
            self._silent[worker.holder] = worker.beats, silent
            was_killed = worker.host == this_host() and not is_alive(worker.process)
            if was_killed or silent > ALIVE_FOR:
                platform.ledger.workers.leave(worker.holder)


def worker_with(config: IonbeamConfig) -> str:
    """What a worker says that it does: with which YAML, and what that says."""
    return f"{WORKER} with {config.path.absolute()} ({sha256(config.path.read_bytes()).hexdigest()[:12]})"


def is_of_another_configuration(worker: Worker, config: IonbeamConfig) -> bool:
    """Whether a worker works with a YAML that says something else than `config`."""
    said, ours = worker.doing.rpartition(" "), worker_with(config).rpartition(" ")
    return said[0].startswith(f"{WORKER} with ") and said[2] != ours[2]


def workers_beats(platform: Platform) -> dict[str, int]:
    """How often the heart of each worker has beaten that is not known to be gone."""
    workers = [one for one in platform.ledger.workers.present() if one.holder.startswith(WORKER)]
    return {one.holder: one.beats for one in workers if one.host != this_host() or is_alive(one.process)}


class _Pulse:
    """The heartbeats of workers as this process saw them last, and when."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, platform: Platform) -> bool:
        now = time.monotonic()
        present = workers_beats(platform)
        before, self._seen = self._seen, {}
        for holder, beats in present.items():
            known = before.get(holder)
            self._seen[holder] = known if known is not None and known[0] == beats else (beats, now)
        return any(now - at < ALIVE_FOR for _, at in self._seen.values())


_PULSES: WeakKeyDictionary[Platform, _Pulse] = WeakKeyDictionary()


def worker_is_alive(platform: Platform) -> bool:
    """Whether a worker's heart has beaten within the last minute, as far as this process can tell."""
    if platform not in _PULSES:
        _PULSES[platform] = _Pulse()
    return _PULSES[platform].look(platform)
