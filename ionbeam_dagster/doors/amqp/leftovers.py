"""What retention may remove of the bus: payloads that clients shared, and parts of ingestions.

Belongs here: the rules for both. Does not belong here: the purge that follows them (pipeline/retention.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.retention import DRAFT_AGE, KINDS, Purgeable, old_file


def bus_leftovers(platform: Platform, now: datetime) -> Iterator[Purgeable]:
    """What may go of the bus, if the configuration has a broker."""
    if platform.config.sections.broker is not None:
        yield from _payloads(platform, now)
        yield from _parts(platform, now)


def _payloads(platform: Platform, now: datetime) -> Iterator[Purgeable]:
    """What clients put into the payload store, once its rows have been a raw partition for so long. One that only a
    parked message names stays: it is read when a person sends the message back."""
    age, bridge = platform.config.sections.retention.payloads, bridge_of(platform)
    store = bridge.intake.payloads
    for name, size in store.drafts(now - DRAFT_AGE):
        yield Purgeable(KINDS[4], "payloads", name, size, "whoever wrote it is gone", partial(store.remove_draft, name))
    if age is None:
        return

    def remove(location: str) -> None:
        store.remove(location)
        platform.ledger.commands.forget_payload(location)

    for location, source in platform.ledger.commands.payloads(now - age):
        why = "its rows are a raw partition"
        yield Purgeable(KINDS[5], source, location, store.size(location), why, partial(remove, location))


def _parts(platform: Platform, now: datetime) -> Iterator[Purgeable]:
    """Parts that a crash left behind after they were joined. Those that wait for others are known, and stay."""
    bridge = bridge_of(platform)
    known = {Path(part).absolute() for part in platform.ledger.parts.files()}
    for path in sorted(bridge.intake.parts.folder.rglob("*.parquet")):
        if path.absolute() not in known:
            yield from old_file(KINDS[6], path.parent.name, path, now - DRAFT_AGE, "it was joined with the others")
