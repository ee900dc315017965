"""Ingestion metadata in the ledger.

Belongs here: under which metadata claims came. Does not belong here: the claims, which are recorded with them
(claims.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.stores.ledger.errors import LedgerError
from ionbeam_dagster.stores.ledger.on_redis import OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import OnSqlite

_GONE = "the claim {} was replaced or withdrawn meanwhile; try again"


class Readings(Protocol):
    """Remembers under which metadata claims came, that is, how their columns are to be read."""

    def metadata_of_version(self, source: str, version: int) -> IngestionMetadata | None:
        """The first ingestion metadata that a claim of `source` came with under `version`."""
        ...

    def metadata_of(self, claims: Sequence[Claim]) -> list[IngestionMetadata]:
        """The different ingestion metadata under which `claims` came, in order of arrival.

        Raises LedgerError when one of them was replaced or withdrawn since it was read.
        """
        ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteReadings(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS readings (hash TEXT PRIMARY KEY, metadata TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    source TEXT, version INTEGER, reading TEXT, PRIMARY KEY (source, version)
) WITHOUT ROWID;
"""

    def metadata_of_version(self, source: str, version: int) -> IngestionMetadata | None:
        with self._file.reading() as db:
            row = db.execute(
                "SELECT r.metadata FROM versions v JOIN readings r ON r.hash = v.reading "
                "WHERE v.source = ? AND v.version = ?",
                (source, version),
            ).fetchone()
        return IngestionMetadata.model_validate_json(row[0]) if row else None

    def metadata_of(self, claims: Sequence[Claim]) -> list[IngestionMetadata]:
        found: dict[str, IngestionMetadata] = {}
        with self._file.reading() as db:
            for claim in claims:
                row = db.execute(
                    "SELECT r.hash, r.metadata FROM claims c JOIN readings r ON r.hash = c.reading WHERE c.id = ?",
                    (claim.id,),
                ).fetchone()
                if row is None:
                    raise LedgerError(f"{self._file.path}: {_GONE.format(claim.id)}")
                reading, text = row
                if reading not in found:
                    found[reading] = IngestionMetadata.model_validate_json(text)
        return list(found.values())


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:readings                              ingestion metadata as JSON, by their hash
#     ionbeam:versions:<source>                     the hash of the first metadata of each version

_VERSION = """
local reading = redis.call('HGET', 'ionbeam:versions:' .. ARGV[1], ARGV[2])
return reading and needed('HGET', 'ionbeam:readings', reading)
"""

_METADATA = f"""
local seen, found = {{}}, {{}}
for _, id in ipairs(ARGV) do
    local reading = redis.call('HGET', 'ionbeam:claim:' .. id, 'reading')
    if not reading then return redis.error_reply('GONE {_GONE.format("' .. id .. '")}') end
    if not seen[reading] then
        seen[reading] = true
        found[#found + 1] = needed('HGET', 'ionbeam:readings', reading)
    end
end
return found
"""


class RedisReadings(OnRedis):
    def metadata_of_version(self, source: str, version: int) -> IngestionMetadata | None:
        found = self._server.run(_VERSION, source, version)
        return IngestionMetadata.model_validate_json(found) if found else None

    def metadata_of(self, claims: Sequence[Claim]) -> list[IngestionMetadata]:
        found = self._server.run(_METADATA, *(claim.id for claim in claims))
        return [IngestionMetadata.model_validate_json(text) for text in found]
