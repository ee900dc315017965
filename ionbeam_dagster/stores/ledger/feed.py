"""The feed of the ledger: every new claim and revision, in order.

Belongs here: its entries and numbers. Does not belong here: who follows it (doors/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ionbeam_dagster.domain.records import BuiltRevision, Claim
from ionbeam_dagster.stores.ledger.claims import CLAIM, claim_of_record, claim_of_row
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.revisions import REVISION, built_of_record, built_of_row
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the ledger's feed: a new claim or a recorded revision; neither, when it has been withdrawn since."""

    number: int
    claim: Claim | None = None
    built: BuiltRevision | None = None


class Feed(Protocol):
    """Tells what was claimed and built, in order."""

    def changes(self, after: int, limit: int) -> list[Change]:
        """The next `limit` entries of the feed after number `after`: new claims and revisions, in order of recording.

        Numbers only grow, and an entry is never seen before one with a smaller number.
        """
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteFeed(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS feed (
    number INTEGER PRIMARY KEY AUTOINCREMENT, claim TEXT, dataset TEXT, start INTEGER, end INTEGER, revision INTEGER
);
"""

    def changes(self, after: int, limit: int) -> list[Change]:
        changed = []
        with self._file.reading() as db:
            entries = db.execute(
                "SELECT number, claim, dataset, start, end, revision FROM feed WHERE number > ? ORDER BY number "
                "LIMIT ?",
                (after, limit),
            ).fetchall()
            for number, claim, *place in entries:
                if claim is not None:
                    row = db.execute(f"{CLAIM} WHERE id = ?", (claim,)).fetchone()
                    changed.append(Change(number, claim=claim_of_row(row) if row else None))
                else:
                    row = db.execute(
                        f"{REVISION} WHERE dataset = ? AND start = ? AND end = ? AND number = ?", place
                    ).fetchone()
                    changed.append(Change(number, built=built_of_row(row) if row else None))
        return changed


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:feed_begins                           the number before the first of the feed
#     ionbeam:feed                                  every new claim and revision, in order: "c <id>", "r <revision>"

_CHANGES = """
local base, found = tonumber(redis.call('GET', 'ionbeam:feed_begins') or 0), {}
local first = math.max(tonumber(ARGV[1]) - base, 0)
for i, entry in ipairs(redis.call('LRANGE', 'ionbeam:feed', first, first + ARGV[2] - 1)) do
    local kind, what = entry:sub(1, 1), entry:sub(3)
    local number = string.format('%.0f', base + first + i)
    if kind == 'c' then
        found[i] = {number, kind, '', redis.call('HGET', 'ionbeam:claim:' .. what, 'record') or '', ''}
    else
        local kept = redis.call('HMGET', 'ionbeam:revision:' .. what, 'record', 'intact')
        found[i] = {number, kind, what, kept[1] or '', kept[2] or ''}
    end
end
return found
"""


class RedisFeed(OnRedis):
    def changes(self, after: int, limit: int) -> list[Change]:
        return [_change(*entry) for entry in self._server.run(_CHANGES, after, limit)]


def _change(told: str, kind: str, place: str, record: str, intact: str) -> Change:
    number = int(told)
    if not record:
        return Change(number)
    if kind == "c":
        return Change(number, claim=claim_of_record(record))
    dataset, start, end, revision = place.split(":")
    return Change(number, built=built_of_record(dataset, f"{start}:{end}", revision, record, intact))
