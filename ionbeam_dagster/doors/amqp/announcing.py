"""Publishing what the outbox has: changes in order, and replays, a part at a time.

Belongs here: the order of publishing and of the note that it was done. Does not belong here: what there is to tell
(outbox.py), or who announces, when and for how long (bridge.py).
"""

from __future__ import annotations

import asyncio
import time

from ionbeam_client import wire
from ionbeam_client.models import ReplayDatasetsCommand
from ionbeam_client.transport import Transport
from ionbeam_dagster.doors.amqp.outbox import Outbox
from ionbeam_dagster.doors.amqp.turn import Turn
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.holding import Job

_CHANGES_AT_ONCE = 50


class Announcer:
    """Tells clients what was built and stored."""

    def __init__(self, ledger: Ledger, outbox: Outbox) -> None:
        self._ledger = ledger
        self._outbox = outbox

    async def announce_some(self, transport: Transport, job: Job, turn: Turn, until: float) -> bool:
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
