"""What waits, failed or is parked on the bus, for those who look.

Belongs here: the facts, taken from the ledger; the broker is not asked. Does not belong here: how they
are shown (cli, the UI).
"""

from __future__ import annotations

from dataclasses import dataclass

from ionbeam_client.text import visible
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.keys import KEPT_FOR
from ionbeam_dagster.stores.ledger.parts import Unfinished
from ionbeam_dagster.stores.ledger.refusals import Refusal, Stranger, TooEarly
from ionbeam_dagster.stores.ledger.requests import ClientRequest

_COUNTED = 1_000


@dataclass(frozen=True, slots=True)
class BusStatus:
    """`taken` commands within KEPT_FOR; sources of which commands began too early; users who sent what they may not;
    commands of which parts are missing; windows that were asked for and did not come; the newest messages that were
    parked; and changes that are not announced yet (counted up to 1,000)."""

    taken: int
    too_early: list[TooEarly]
    strangers: list[Stranger]
    unfinished: list[Unfinished]
    unanswered: list[ClientRequest]
    refused: list[Refusal]
    unannounced: int

    def lines(self) -> list[str]:
        """The same in sentences, each with what to do where something is to be done."""
        told = [
            f"{self.taken} commands taken in within {KEPT_FOR.days} days, {self.unannounced} changes not announced yet"
        ]
        told += [
            f"{one.source}: {one.commands} commands say ranges that begin before it, from {one.first.date()} on (the "
            f"last came at {one.at:%Y-%m-%d %H:%M}); what is before sources.{one.source}.start does not count"
            for one in self.too_early
        ]
        told += [
            f"{one.source}: {one.messages} messages of {one.sender or 'nobody who says who he is'} are parked, the "
            f"last at {one.at:%Y-%m-%d %H:%M}; sources.{one.source}.senders says who may send it"
            for one in self.strangers
        ]
        told += [
            f"{one.source}: ingestion {one.id} waits for {one.parts - one.there} of its {one.parts} parts; its client "
            "sends them again"
            for one in self.unfinished
        ]
        told += [
            f"{one.source} {one.window}: asked for {one.times} times, last at {one.last:%Y-%m-%d %H:%M}, and not "
            "answered; is its client running?"
            for one in self.unanswered
        ]
        told += [
            f"parked at {one.at:%Y-%m-%d %H:%M} in {one.queue}.dead: {one.reason} (message {one.message_id}; "
            f"`ionbeam-client dead requeue {one.message_id} --queue {one.queue}`)"
            for one in self.refused
        ]
        return [visible(line) for line in told]


def bus_status(ledger: Ledger, limit: int = 10) -> BusStatus:
    """Look at the records; of what there may be much of, the newest `limit`."""
    return BusStatus(
        taken=ledger.commands.count(),
        too_early=ledger.refusals.too_early(),
        strangers=ledger.refusals.strangers(limit),
        unfinished=ledger.parts.unfinished()[:limit],
        unanswered=ledger.requests.unanswered(limit),
        refused=ledger.refusals.newest(limit),
        unannounced=len(ledger.changes(ledger.announcements.announced(), _COUNTED)),
    )
