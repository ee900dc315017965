"""The ledger: the platform's memory of what was collected, claimed, built and exported.

Belongs here: the interface and its implementations. Does not belong here: the records (domain/records.py), the data
themselves, or what follows from the records (domain/decisions.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.records import BuiltRevision, Claim, ExportRecord, Lateness, RawPartition, Revision
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.stores.ledger.attempts import Attempts


class LedgerError(StoreError):
    """The ledger cannot be used; the message names its place, the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the ledger's feed: a new claim or a recorded revision; neither, when it has been withdrawn since."""

    number: int
    claim: Claim | None = None
    built: BuiltRevision | None = None


Recover = Callable[[], object]
"""Puts into a new ledger what is known of the past; what it returns is false when that is nothing."""


def feed_begins() -> int:
    """The number before the first of a new ledger's feed: larger than any that an earlier one gave out.

    It is the time in milliseconds, and a feed grows by less than 1,000 entries a second in the long run. Who follows
    the feed of a ledger that was lost finds all of the new one's entries after its own place.
    """
    return time.time_ns() // 1_000_000


class Ledger(Protocol):
    """Remembers. Every method is one transaction, and may be called from many threads and processes at once.

    A ledger that finds itself new, or was lost while it was used, calls its `Recover` before it does anything else.
    """

    @property
    def attempts(self) -> Attempts:
        """Work that is open, and how often it was tried in vain."""
        ...

    def recovered(self) -> tuple[datetime, str] | None:
        """When this ledger was last made again from the other stores, and what was found; None: it never was."""
        ...

    def note_recovery(self, told: str) -> None:
        """Remember that the ledger was made again."""
        ...

    def restore_arrivals(self, arrivals: Mapping[str, int]) -> None:
        """Give ingestions back their places in the order of arrival, unless they have one, or it is taken."""
        ...

    def arrival_of(self, ingestion: str) -> int:
        """The place of an ingestion in the order of arrival; a new one gets the next place, a known one keeps its."""
        ...

    def record_raw(self, raw: RawPartition) -> None:
        """Remember the raw file of a source's window; it replaces the earlier one of the same window.

        A new ingestion takes the next place in the order of arrival.
        """
        ...

    def raw(self, source: str, window: Window) -> RawPartition | None: ...

    def record_sent(self, raws: Sequence[tuple[RawPartition, Sequence[Window]]]) -> None:
        """Remember raw files that were sent from outside, each with the windows of its source that it touches.

        Their own windows are the ranges that they collected; each stands beside the others. They take their places in
        the order of arrival as they are given; one that is known keeps its own.
        """
        ...

    def sent(self, source: str, window: Window) -> list[RawPartition]:
        """The raw files sent from outside that touch one window of their source, in order of arrival."""
        ...

    def waiting(self, source: str) -> list[Window]:
        """The windows of a source into which something was sent that has no claim yet, in order."""
        ...

    def raws(self, source: str, before: datetime) -> list[RawPartition]:
        """The raw files of a source, collected or sent, of windows that end by `before`, but for those purged."""
        ...

    def record_purged(self, raw: RawPartition, at: datetime) -> None:
        """Remember that a raw file was removed on purpose, until it is recorded again."""
        ...

    def record_claim(
        self, claim: Claim, metadata: IngestionMetadata, touched: Mapping[Window, int], replaces: Sequence[str] = ()
    ) -> None:
        """Remember a claim, and how many of its rows lie in each dataset window that it touches.

        It touches those that it collected in part, and those that it gave late rows.

        The ingestions `replaces` are forgotten along with it, for good, also those that have no claim yet: what was
        sent is waiting no more, and one that should come back gets a new place in the order of arrival. A claim that is
        new is also measured for its lateness, if it says when it arrived.
        """
        ...

    def lateness(self, source: str, start: datetime, end: datetime) -> list[Lateness]:
        """How late ingestions of a source came, of those that arrived in the whole hours of [start, end)."""
        ...

    def metadata_of_version(self, source: str, version: int) -> IngestionMetadata | None:
        """The first ingestion metadata that a claim of `source` came with under `version`."""
        ...

    def rows_in(self, dataset: str, window: Window) -> int | None:
        """How many rows its claims brought into a dataset window, repeated ones counted each time.

        None where a claim of an earlier version of the ledger touches it, which did not count them.
        """
        ...

    def span_of(self, dataset: str) -> timedelta | None:
        """How long the newest window is that a claim of `dataset` touched; None while none did."""
        ...

    def claims(self, dataset: str, window: Window) -> list[Claim]:
        """The claims that touch one dataset window, in order of arrival; the cost does not grow with the others."""
        ...

    def claims_between(self, dataset: str, start: datetime, end: datetime) -> list[Claim]:
        """The claims that touch dataset windows that start in [start, end), in order of arrival.

        The cost grows with these claims, not with the range.
        """
        ...

    def claims_of(self, ingestions: Sequence[str]) -> list[Claim]:
        """The claims of these ingestions, of those that have one, in order of arrival."""
        ...

    def metadata_of(self, claims: Sequence[Claim]) -> list[IngestionMetadata]:
        """The different ingestion metadata under which `claims` came, in order of arrival."""
        ...

    def withdraw_claim(self, ingestion: str) -> None:
        """Forget a claim. Revisions of the windows that it touched are intact no more."""
        ...

    def holding(self, dataset: str, window: Window) -> AbstractContextManager[None]:
        """Keep every other thread, process and machine from holding the window; waits for one that does.

        Whoever dies holds it no more, on SQLite at once, on Redis within a minute.
        """
        ...

    def record_revision(self, built: BuiltRevision, made_of: Sequence[Claim]) -> None:
        """Remember a revision. Its window is due no more, unless a claim not in `made_of` touched it meanwhile."""
        ...

    def latest_revision(self, dataset: str, window: Window) -> BuiltRevision | None: ...

    def revisions(self, dataset: str, start: datetime, end: datetime) -> list[BuiltRevision]:
        """The latest revision of each window that starts in [start, end), in order."""
        ...

    def revisions_of(self, dataset: str, window: Window) -> list[BuiltRevision]:
        """The revisions of one window that are not forgotten, in order of their numbers."""
        ...

    def superseded(self, dataset: str, before: datetime) -> list[BuiltRevision]:
        """Revisions whose successor was built by `before`, in order of window and number."""
        ...

    def forget_revision(self, revision: Revision) -> None:
        """Forget a superseded revision, whose file is gone; the latest one of a window stays, whatever is asked."""
        ...

    def seal(self, dataset: str, windows: Sequence[Window], at: datetime) -> None:
        """Remember that a person closed windows for good at `at`; one that is sealed already keeps its time."""
        ...

    def unseal(self, dataset: str, windows: Sequence[Window]) -> None:
        """Open windows again, and make them due: what arrived meanwhile may be built. Unsealed ones are left alone."""
        ...

    def sealed(self, dataset: str, window: Window) -> datetime | None:
        """When a person sealed the window, if one did."""
        ...

    def due(self, dataset: str, now: datetime | None = None) -> list[Window]:
        """Windows that were touched by a claim, or lost one, since their latest revision, in order.

        With `now`, those among them that are not postponed beyond that; the cost does not grow with the others.
        """
        ...

    def postpone(self, dataset: str, window: Window, seen: Sequence[Claim], until: datetime | None) -> None:
        """Leave a window that is due alone until then (None: for ever), or until a claim touches it or is withdrawn.

        Nothing happens when its claims are not those that were `seen`.
        """
        ...

    def record_export(self, export: ExportRecord) -> None: ...

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None: ...

    def changes(self, after: int, limit: int) -> list[Change]:
        """The next `limit` entries of the feed after number `after`: new claims and revisions, in order of recording.

        Numbers only grow, and an entry is never seen before one with a smaller number.
        """
        ...
