"""What waits, failed or is parked on the bus, for those who look.

Belongs here: the facts, taken from the records of this machine; the broker is not asked. Does not belong here: how they
are shown (cli, the UI).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ionbeam_client.text import visible
from ionbeam_dagster.doors.inbox import ANNOUNCED, Asked, Inbox, Refused
from ionbeam_dagster.stores.ledger import Ledger

_COUNTED = 1_000


@dataclass(frozen=True, slots=True)
class BusStatus:
    """`taken` commands in all; by source, how many said ranges that begin before it, from when on, and when the last of
    them came; by source, users who may not send it, how many of their messages were parked, and when the last came;
    commands of which parts are missing; windows that were asked for and did not come; the newest messages
    that were parked; and changes that are not announced yet (counted up to 1,000)."""

    taken: int
    too_early: list[tuple[str, int, datetime, datetime]]
    strangers: list[tuple[str, str, int, datetime]]
    unfinished: list[tuple[str, str, int, int]]
    unanswered: list[Asked]
    refused: list[Refused]
    unannounced: int

    def lines(self) -> list[str]:
        """The same in sentences, each with what to do where something is to be done."""
        told = [f"{self.taken} commands taken in, {self.unannounced} changes not announced yet"]
        told += [
            f"{source}: {count} commands say ranges that begin before it, from {first.date()} on (the last came at "
            f"{at:%Y-%m-%d %H:%M}); what is before sources.{source}.start does not count"
            for source, count, first, at in self.too_early
        ]
        told += [
            f"{source}: {count} messages of {sender or 'nobody who says who he is'} are parked, the last at "
            f"{at:%Y-%m-%d %H:%M}; sources.{source}.senders says who may send it"
            for source, sender, count, at in self.strangers
        ]
        told += [
            f"{source}: ingestion {id} waits for {parts - there} of its {parts} parts; its client sends them again"
            for id, source, there, parts in self.unfinished
        ]
        told += [
            f"{asked.source} {asked.window}: asked for {asked.times} times, last at {asked.last:%Y-%m-%d %H:%M}, and "
            "not answered; is its client running?"
            for asked in self.unanswered
        ]
        told += [
            f"parked at {refused.at:%Y-%m-%d %H:%M} in {refused.queue}.dead: {refused.reason} (message "
            f"{refused.message_id}; `ionbeam-client dead requeue {refused.message_id} --queue {refused.queue}`)"
            for refused in self.refused
        ]
        return [visible(line) for line in told]


def bus_status(inbox: Inbox, ledger: Ledger, limit: int = 10) -> BusStatus:
    """Look at the records; of what there may be much of, the newest `limit`."""
    return BusStatus(
        taken=inbox.count(),
        too_early=inbox.too_early(),
        strangers=inbox.strangers(limit),
        unfinished=inbox.unfinished()[:limit],
        unanswered=inbox.unanswered(limit),
        refused=inbox.refusals(limit),
        unannounced=len(ledger.changes(inbox.cursor(ANNOUNCED), _COUNTED)),
    )
