"""The Redis 7 of a ledger, for platforms that run on more than one machine: its connection, and how scripts are run.

Belongs here: how the server is asked, and found to be another one. Does not belong here: what is in it.

    ionbeam:generation                            the run of the server that has what is known of the past

Keys begin with ``ionbeam:``; each subject says which are its own. A <window> in them is ``<start>:<end>`` in
microseconds since 1970. Every method of a subject is one Lua script or one command, thus a transaction. Scripts name
keys that they find, so a Redis Cluster will not do; nothing expires.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from ionbeam_dagster.stores.ledger.errors import LedgerError
from ionbeam_dagster.stores.ledger.feed_numbers import feed_begins
from ionbeam_dagster.stores.ledger.lost import Past

_LOG = logging.getLogger(__name__)

_GENERATION = "ionbeam:generation"
_LOST = "IONBEAM-LOST"
_GUARD = f"""
if table.remove(ARGV) == '1' and redis.call('EXISTS', '{_GENERATION}') == 0 then
    return redis.error_reply('{_LOST} there is no ledger')
end
"""
_BEGIN_FEED = """
if redis.call('EXISTS', 'ionbeam:feed') == 0 then redis.call('SETNX', 'ionbeam:feed_begins', ARGV[1]) end
"""


def named(url: str) -> str:
    """What messages call a Redis: its address without user and password."""
    address = urlsplit(url)
    return f"Redis at {address.hostname}:{address.port or 6379}{address.path}"


class RedisServer:
    """The Redis database `url` (``redis://[user:password@]host:port/number``), which is the ledger's alone.

    Making one connects to nothing. Methods raise LedgerError when Redis does not answer, or refuses; they may then be
    called again, since none does a thing twice.
    """

    def __init__(self, url: str, past: Past) -> None:
        self._past = past
        self._run_id = ""
        self._place = named(url)
        self.client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=30, socket_connect_timeout=5, health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 5),
        )  # fmt: skip

    def run(self, script: str, *arguments: str | int) -> Any:
        """Run a script; its text is sent once, and after that only its hash. One that finds no past asks for it."""
        with self.asked() as client:
            run = client.register_script(_GUARD + script)
            self._settle()
            try:
                return run(args=[*arguments, int(not self._past.is_filling)])
            except redis.ResponseError as error:
                if _LOST not in str(error):
                    raise
            self._past.was_lost()
            self._settle()
            return run(args=[*arguments, 1])

    @contextmanager
    def asked(self) -> Iterator[redis.Redis]:
        try:
            yield self.client
        except redis.AuthenticationError as error:
            raise LedgerError(f"{self._place}: {error}; correct user and password in redis.redis_url") from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise LedgerError(
                f"{self._place} does not answer ({error}); start it, or correct redis.redis_url"
            ) from error
        except redis.RedisError as error:
            raise LedgerError(f"{self._place} refuses: {error}; nothing was changed") from error

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Pass over a Redis that is away for a moment."""
        with suppress(redis.RedisError):
            yield

    def _settle(self) -> None:
        """Have a Redis that is new, was emptied, or was started again, filled with what it lacks of the past."""
        self._past.settle(self, self._begin, self._finish)

    def _begin(self) -> bool:
        info: Mapping[str, Any] = self.client.info()
        self._warn(info)
        self._run_id = info["run_id"]
        if self.client.get(_GENERATION) == self._run_id:
            return False
        self.client.register_script(_BEGIN_FEED)(args=[feed_begins()])
        return True

    def _finish(self) -> None:
        self.client.set(_GENERATION, self._run_id)

    def _warn(self, info: Mapping[str, Any]) -> None:
        """Say it when this Redis may forget: without the append-only file, or one that is written to disk later than it
        answers (the last second is lost when it is killed, more where the disk is busy), or when it may evict keys."""
        if not info.get("aof_enabled"):
            _LOG.warning("%s loses the ledger when it ends: set appendonly yes", self._place)
        elif self._written_later():
            _LOG.warning("%s loses its last seconds when it is killed: set appendfsync always", self._place)
        if info.get("maxmemory_policy", "noeviction") != "noeviction":
            _LOG.warning("%s may drop parts of the ledger: set maxmemory-policy noeviction", self._place)

    def _written_later(self) -> bool:
        try:
            return bool(self.client.config_get("appendfsync").get("appendfsync", "always") != "always")
        except redis.ResponseError:  # hosted services do not let their users ask
            return False
