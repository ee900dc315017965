"""Whether what others sent is taken in, and how much of it could not be.

Belongs here: the queues of the bus, the journal of the HTTP door, and those of MQTT, as findings. Does not belong here:
what is in them (doors, sources).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from ionbeam_client.text import visible
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.doors.amqp.queues import Queue, queues, takes_messages
from ionbeam_dagster.doors.amqp.status import bus_status
from ionbeam_dagster.doors.http.memory import Memory, damaged_memory, door_folder
from ionbeam_dagster.health import disks
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline.platform import Platform

BUS, DOOR, MQTT = "bus", "door", "mqtt"
GROWS_FOR = 40.0
"""Seconds in which a queue that holds messages and never got shorter grows."""
TOLD_FOR = 600.0
"""Seconds for which it is told that a dead queue grew."""
_WAITS = timedelta(minutes=5)
"""How old what the door has in its journal may be: it takes it in twice a minute."""
_SHOWN = 5
_LONGEST = 500  # characters of what is said


def bus(platform: Platform) -> Iterator[Finding]:
    """What waits on the bus, and what is parked there. Raises BrokerAway."""
    if platform.config.sections.broker is None:
        return
    found = queues(platform)
    for queue in found:
        if queue.is_dead and queue.messages:
            words = f"{queue.messages:,} messages are parked in {queue.name}"
            remedy = f"`ionbeam-client dead list --queue {queue.name.removesuffix('.dead')}` shows each with its reason"
            yield Finding(BUS, "warning", words, remedy)
        elif queue.messages and not queue.consumers and not queue.is_dead:
            words = f"{queue.messages:,} messages wait in {queue.name}, and nobody takes them"
            yield Finding(BUS, "error", words, "start `ionbeam worker` or `ionbeam bridge`")
    if can_ask_ledger(platform):
        yield from _of_clients(platform)
    yield from _alarm(platform)
    waiting = sum(queue.messages for queue in found if not queue.is_dead)
    yield Finding(BUS, "well", f"the broker answers, {waiting:,} messages wait")


def _alarm(platform: Platform) -> Iterator[Finding]:
    if not takes_messages(platform):
        words = "the broker takes no messages: its disk or memory is full, and clients wait"
        yield Finding(BUS, "error", words, "`rabbitmq-diagnostics alarms` on its machine says which; make room there")


def _of_clients(platform: Platform) -> Iterator[Finding]:
    told = bus_status(platform.ledger, _SHOWN)
    for asked in told.unanswered:
        words = f"{asked.source} {asked.window}: its client was asked {asked.times} times, and has not answered"
        yield Finding(BUS, "warning", words, "see whether the client runs: `ionbeam-client status` on its machine")
    for part in told.unfinished:
        words = f"{part.source}: ingestion {part.id} waits for {part.parts - part.there} of its {part.parts} parts"
        yield Finding(BUS, "note", words, "its client sends them again; `ionbeam-client status` on its machine")
    for stranger in told.strangers:
        who = stranger.sender or "nobody who says who he is"
        words = visible(f"{stranger.source}: {stranger.messages} messages of {who} are parked")
        yield Finding(BUS, "warning", words, f"sources.{stranger.source}.senders says who may send it")


def door(platform: Platform) -> Iterator[Finding]:
    """What waits in the journal of the HTTP door, and what is parked."""
    folder = door_folder(platform)
    if not folder.exists():
        return
    written_to = [name for name, source in platform.config.sources.items() if source.kind == "door"]
    waiting = disks.stats((folder / "journal").glob("*.journal"))
    held = [stat.st_mtime for stat in waiting if stat.st_size > 1_000]  # an open one begins with a line of its own
    oldest = datetime.now(UTC) - datetime.fromtimestamp(min(held), UTC) if held else timedelta(0)
    if oldest > _WAITS:
        size = sum(stat.st_size for stat in waiting)
        words = f"{size / 1e6:.1f} MB wait in the journal of the door, the oldest for {in_short(oldest)}"
        remedy = "start `ionbeam receive`, or see in its log why it cannot take them in"
        if not written_to:
            remedy = "put the sources that they are of, of kind door, back into the YAML, and start `ionbeam receive`"
        yield Finding(DOOR, "error", words, remedy)
    memory = Memory(folder)
    for aside in memory.set_aside()[:_SHOWN]:
        yield Finding(DOOR, "error", visible(aside.in_words(), _LONGEST), aside.remedy)
    for one in memory.parked()[:_SHOWN]:
        what = f"{one.source}: {one.lines:,} lines of {one.measurement[:60]!r} are parked"
        words = visible(f"{what}: {one.reason}", _LONGEST)
        lost = f"put sources.{one.source} of kind door back, or remove {folder / 'parked' / one.source}"
        is_there = one.source in written_to
        yield Finding(DOOR, "warning", words, one.remedy if is_there else visible(lost))
    for refused in memory.refused()[:_SHOWN]:
        words = visible(refused.in_words(), _LONGEST)
        yield Finding(DOOR, "warning" if refused.source else "note", words, refused.remedy)
    if damaged := damaged_memory(folder):
        words = f"what the door remembered was damaged, and is kept as {damaged}; it began anew"
        yield Finding(DOOR, "note", words, "see why the disk damaged it; remove the file when nobody needs it")
    for anew in memory.began_anew()[:_SHOWN]:
        yield Finding(DOOR, "warning", anew.in_words(), "see whether the device was reset or replaced")
    yield Finding(DOOR, "well", f"{sum(stat.st_size for stat in waiting) / 1e6:.1f} MB in the journal")


def mqtt(platform: Platform) -> Iterator[Finding]:
    """Whether what is published over MQTT is listened to, and sorted into its windows."""
    listening = {name: source for name, source in platform.sources.items() if source.subscribes}
    for name, source in listening.items():
        for words, remedy in source.standstill(platform.now()):
            yield Finding(MQTT, "error", f"{name}: {words}", remedy)
    if listening:
        yield Finding(MQTT, "well", f"sources that listen: {', '.join(listening)}")


class Growth:
    """Looks again and again whether a queue grows, or a dead one did lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, Mapping[str, int]]] = deque()
        self._dead_grew: dict[str, float] = {}
        self.queues: list[Queue] = []
        """The queues as they were at the last look."""

    def findings(self, platform: Platform) -> Iterator[Finding]:
        """Which queues grow, as far as this process has seen. Raises BrokerAway."""
        if platform.config.sections.broker is None:
            return
        now, found = self._clock(), queues(platform)
        self.queues = found
        before = self._seen[-1][1] if self._seen else {}
        self._seen.append((now, {queue.name: queue.messages for queue in found}))
        while len(self._seen) > 2 and now - self._seen[1][0] >= GROWS_FOR:
            self._seen.popleft()
        for queue in found:
            if queue.is_dead:
                if queue.messages > before.get(queue.name, queue.messages):
                    self._dead_grew[queue.name] = now
                if now - self._dead_grew.get(queue.name, -TOLD_FOR) < TOLD_FOR:
                    words = f"{queue.name} grew within the last {TOLD_FOR / 60:.0f} minutes, to {queue.messages:,}"
                    remedy = f"`ionbeam-client dead list --queue {queue.name.removesuffix('.dead')}` shows the reasons"
                    yield Finding(BUS, "error", words, remedy)
            elif self._never_shrank(queue.name, now):
                words = f"{queue.messages:,} messages wait in {queue.name}, and get no fewer"
                remedy = "start `ionbeam worker` or `ionbeam bridge`, or see in its log why it cannot take them in"
                yield Finding(BUS, "error", words, remedy)
        yield from _alarm(platform)
        yield Finding(BUS, "well", f"the broker answers, {len(found)} queues are there")

    def _never_shrank(self, name: str, now: float) -> bool:
        counts = [seen.get(name, 0) for _, seen in self._seen]
        never_shrank = counts[0] > 0 and all(one <= other for one, other in pairwise(counts))
        return never_shrank and now - self._seen[0][0] >= GROWS_FOR
