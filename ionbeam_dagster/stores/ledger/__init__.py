"""The ledger: the platform's memory of what was collected, claimed, built and exported.

A subject is one module: what every ledger promises of it, and how SQLite and Redis keep it, side by side. Belongs here:
the subjects put together. Does not belong here: the records (domain/records.py), the data themselves, or what follows
from the records (domain/decisions.py).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Protocol

from ionbeam_dagster.stores.ledger.alerts import Alerts, RedisAlerts, SqliteAlerts
from ionbeam_dagster.stores.ledger.announcements import Announcements, RedisAnnouncements, SqliteAnnouncements
from ionbeam_dagster.stores.ledger.arrivals import Arrivals, RedisArrivals, SqliteArrivals
from ionbeam_dagster.stores.ledger.attempts import Attempts, RedisAttempts, SqliteAttempts
from ionbeam_dagster.stores.ledger.claims import Claims, RedisClaims, SqliteClaims
from ionbeam_dagster.stores.ledger.commands import Commands, RedisCommands, SqliteCommands
from ionbeam_dagster.stores.ledger.corrections import Corrections, RedisCorrections, SqliteCorrections
from ionbeam_dagster.stores.ledger.counts import Counts, RedisCounts, SqliteCounts
from ionbeam_dagster.stores.ledger.due import DueWindows, RedisDueWindows, SqliteDueWindows
from ionbeam_dagster.stores.ledger.errors import LedgerError
from ionbeam_dagster.stores.ledger.exports import Exports, RedisExports, SqliteExports
from ionbeam_dagster.stores.ledger.feed import Change, Feed, RedisFeed, SqliteFeed
from ionbeam_dagster.stores.ledger.holding import Holding, RedisHolding, SqliteHolding
from ionbeam_dagster.stores.ledger.leases import Leases, RedisLeases, SqliteLeases
from ionbeam_dagster.stores.ledger.lost import Past, Recover, TakeOver
from ionbeam_dagster.stores.ledger.migration import RedisTakesOver, SqliteTakesOver, TakesOver, migrate
from ionbeam_dagster.stores.ledger.notices import Notices, RedisNotices, SqliteNotices
from ionbeam_dagster.stores.ledger.parts import Parts, RedisParts, SqliteParts
from ionbeam_dagster.stores.ledger.raws import RawPartitions, RedisRawPartitions, SqliteRawPartitions
from ionbeam_dagster.stores.ledger.readings import Readings, RedisReadings, SqliteReadings
from ionbeam_dagster.stores.ledger.reconciliations import (
    Reconciliations,
    RedisReconciliations,
    SqliteReconciliations,
)
from ionbeam_dagster.stores.ledger.recovery_notes import RecoveryNotes, RedisRecoveryNotes, SqliteRecoveryNotes
from ionbeam_dagster.stores.ledger.refusals import RedisRefusals, Refusals, SqliteRefusals
from ionbeam_dagster.stores.ledger.removals import RedisRemovals, Removals, SqliteRemovals
from ionbeam_dagster.stores.ledger.requests import RedisRequests, Requests, SqliteRequests
from ionbeam_dagster.stores.ledger.revisions import RedisRevisions, Revisions, SqliteRevisions
from ionbeam_dagster.stores.ledger.seals import RedisSeals, Seals, SqliteSeals
from ionbeam_dagster.stores.ledger.silences import RedisSilences, Silences, SqliteSilences
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite, SqliteFile
from ionbeam_dagster.stores.ledger.workers import RedisWorkers, SqliteWorkers, Workers

__all__ = ["Change", "Ledger", "LedgerError", "Recover", "RedisLedger", "SqliteLedger", "TakeOver"]


class Ledger(
    RawPartitions,
    Arrivals,
    Claims,
    Readings,
    Counts,
    DueWindows,
    Revisions,
    Exports,
    Seals,
    Feed,
    RecoveryNotes,
    Holding,
    TakesOver,
    Protocol,
):
    """Remembers. Every method is one transaction, and may be called from many threads and processes at once.

    A ledger that finds itself new, or was lost while it was used, calls its `Recover` before it does anything else, and
    each process its `TakeOver` before it uses one.
    """

    @property
    def attempts(self) -> Attempts:
        """Work that is open, and how often it was tried in vain."""
        ...

    @property
    def corrections(self) -> Corrections:
        """Changes of their past that sources told, and how far they are published."""
        ...

    @property
    def reconciliations(self) -> Reconciliations:
        """When files were compared with the ledger."""
        ...

    @property
    def removals(self) -> Removals:
        """Raw files that are to be removed."""
        ...

    @property
    def workers(self) -> Workers:
        """Who is doing something now."""
        ...

    @property
    def leases(self) -> Leases:
        """Who works on what."""
        ...

    @property
    def silences(self) -> Silences:
        """The sources that do not answer."""
        ...

    @property
    def commands(self) -> Commands:
        """What doors took in."""
        ...

    @property
    def parts(self) -> Parts:
        """Parts of commands that wait for others."""
        ...

    @property
    def requests(self) -> Requests:
        """What clients were asked for, and what they asked of the platform."""
        ...

    @property
    def refusals(self) -> Refusals:
        """What was refused at a door."""
        ...

    @property
    def announcements(self) -> Announcements:
        """What of the feed was announced."""
        ...

    @property
    def alerts(self) -> Alerts:
        """Troubles, and who was told of them."""
        ...

    @property
    def notices(self) -> Notices:
        """Which files others were told of."""
        ...


_APART = (
    SqliteAttempts, SqliteCorrections, SqliteReconciliations, SqliteRemovals, SqliteWorkers, SqliteLeases,
    SqliteSilences, SqliteCommands, SqliteParts, SqliteRequests, SqliteRefusals, SqliteAnnouncements,
    SqliteAlerts, SqliteNotices,
)  # fmt: skip


class SqliteLedger(
    SqliteRawPartitions, SqliteArrivals, SqliteClaims, SqliteReadings, SqliteCounts, SqliteDueWindows, SqliteRevisions,
    SqliteExports, SqliteSeals, SqliteFeed, SqliteRecoveryNotes, SqliteHolding, SqliteTakesOver,
):  # fmt: skip
    """A `Ledger` in the SQLite file `path`: the default, which needs no server."""

    def __init__(self, path: Path, recover: Recover = lambda: None, take_over: TakeOver = lambda: None) -> None:
        subjects = [one for one in (*type(self).__mro__, *_APART) if issubclass(one, OnSqlite)]
        prepare = partial(
            migrate,
            tables=[one.TABLES for one in subjects],
            added=[column for one in subjects for column in one.ADDED],
            indices=[one.INDICES for one in subjects],
        )
        file = SqliteFile(path, prepare, Past(str(path), recover, self.note_recovery, take_over))
        super().__init__(file)
        self.attempts = SqliteAttempts(file)
        self.corrections = SqliteCorrections(file)
        self.reconciliations = SqliteReconciliations(file)
        self.removals = SqliteRemovals(file)
        self.workers = SqliteWorkers(file)
        self.leases = SqliteLeases(file)
        self.silences = SqliteSilences(file)
        self.commands = SqliteCommands(file)
        self.parts = SqliteParts(file)
        self.requests = SqliteRequests(file)
        self.refusals = SqliteRefusals(file)
        self.announcements = SqliteAnnouncements(file)
        self.alerts = SqliteAlerts(file)
        self.notices = SqliteNotices(file)


class RedisLedger(
    RedisRawPartitions, RedisArrivals, RedisClaims, RedisReadings, RedisCounts, RedisDueWindows, RedisRevisions,
    RedisExports, RedisSeals, RedisFeed, RedisRecoveryNotes, RedisHolding, RedisTakesOver,
):  # fmt: skip
    """A `Ledger` in the Redis database `url`, for platforms that run on more than one machine."""

    def __init__(self, url: str, recover: Recover = lambda: None, take_over: TakeOver = lambda: None) -> None:
        from ionbeam_dagster.stores.ledger.redis_server import RedisServer, named  # its client takes long to import

        server = RedisServer(url, Past(named(url), recover, self.note_recovery, take_over))
        super().__init__(server)
        self.attempts = RedisAttempts(server)
        self.corrections = RedisCorrections(server)
        self.reconciliations = RedisReconciliations(server)
        self.removals = RedisRemovals(server)
        self.workers = RedisWorkers(server)
        self.leases = RedisLeases(server)
        self.silences = RedisSilences(server)
        self.commands = RedisCommands(server)
        self.parts = RedisParts(server)
        self.requests = RedisRequests(server)
        self.refusals = RedisRefusals(server)
        self.announcements = RedisAnnouncements(server)
        self.alerts = RedisAlerts(server)
        self.notices = RedisNotices(server)
