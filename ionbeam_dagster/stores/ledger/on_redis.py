"""What the subjects of a ledger in Redis share.

Belongs here: what needs no Redis client, which takes long to import, and which a ledger in SQLite has no use for. Does
not belong here: the connection (redis_server.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ionbeam_dagster.stores.ledger.redis_server import RedisServer

CALL = """
return redis.call(unpack(ARGV))
"""


class OnRedis:
    """A subject of a ledger in Redis."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
