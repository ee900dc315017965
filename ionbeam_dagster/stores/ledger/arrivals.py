"""The order of arrival in the ledger.

Belongs here: the places of ingestions. Does not belong here: what they brought (claims.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite


class Arrivals(Protocol):
    """Remembers the order in which ingestions arrived."""

    def restore_arrivals(self, arrivals: Mapping[str, int]) -> None:
        """Give ingestions back their places in the order of arrival, unless they have one, or it is taken."""
        ...

    def arrival_of(self, ingestion: str) -> int:
        """The place of an ingestion in the order of arrival; a new one gets the next place, a known one keeps its."""
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------

TAKE_PLACE = (  # an ingestion that is known would use a place up, were it ignored
    "INSERT INTO arrivals (ingestion) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM arrivals WHERE ingestion = ?1)"
)


class SqliteArrivals(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS arrivals (arrival INTEGER PRIMARY KEY AUTOINCREMENT, ingestion TEXT NOT NULL UNIQUE);
"""

    def restore_arrivals(self, arrivals: Mapping[str, int]) -> None:
        with self._file.writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO arrivals (arrival, ingestion) VALUES (?, ?)",
                [(place, ingestion) for ingestion, place in arrivals.items()],
            )

    def arrival_of(self, ingestion: str) -> int:
        known = "SELECT arrival FROM arrivals WHERE ingestion = ?"
        with self._file.reading() as db:
            row = db.execute(known, (ingestion,)).fetchone()
        if row is None:
            with self._file.writing() as db:
                db.execute(TAKE_PLACE, (ingestion,))
                row = db.execute(known, (ingestion,)).fetchone()
        return int(row[0])


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:arrival, ionbeam:arrivals             the last place in the order of arrival; the place of each ingestion

PLACE_OF = """
local function place_of(id)
    local place = redis.call('HGET', 'ionbeam:arrivals', id)
    if not place then
        place = redis.call('INCR', 'ionbeam:arrival')
        redis.call('HSET', 'ionbeam:arrivals', id, place)
    end
    return tonumber(place)
end
"""

_RESTORE_ARRIVALS = """
local last, taken = tonumber(redis.call('GET', 'ionbeam:arrival') or 0), {}
for _, place in ipairs(redis.call('HVALS', 'ionbeam:arrivals')) do taken[place] = true end
for _, pair in ipairs(cjson.decode(ARGV[1])) do
    local id, place = unpack(pair)
    if not taken[place] and redis.call('HSETNX', 'ionbeam:arrivals', id, place) == 1 then
        taken[place] = true
    end
    last = math.max(last, tonumber(place))
end
redis.call('SET', 'ionbeam:arrival', last)
"""

_ARRIVAL = f"""{PLACE_OF}
return place_of(ARGV[1])
"""


class RedisArrivals(OnRedis):
    def restore_arrivals(self, arrivals: Mapping[str, int]) -> None:
        self._server.run(_RESTORE_ARRIVALS, json.dumps([(id, str(place)) for id, place in arrivals.items()]))

    def arrival_of(self, ingestion: str) -> int:
        return int(self._server.run(_ARRIVAL, ingestion))
