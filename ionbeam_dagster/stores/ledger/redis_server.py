"""The Redis 7 of a ledger, for platforms that run on more than one machine: its connection, and how scripts are run.

Belongs here: how the server is asked, and found to be another one. Does not belong here: what is in it.

    ionbeam:generation                            <run of the server>/<filling>/<policy>, once it has all of the past
    ionbeam:filling                               the same of a filling that is not done
    ionbeam:evicted                               how many keys that run had evicted by then
    ionbeam:form                                  the form of its records, where a later version wrote another than 1

The policy is "evicts" where keys could be evicted when it was last looked at: what is left of them after a restart of
the server is not known, and is made again. What has records, and is neither filled nor being filled, lost its marks.

Keys begin with ``ionbeam:``; each subject says which are its own. A <window> in them is ``<start>:<end>`` in
microseconds since 1970. Every method of a subject is one Lua script or one command, thus a transaction. Scripts name
keys that they find, so a Redis Cluster will not do; nothing expires but ``ionbeam:answered:<call>``, an answer
that may have been lost on the way.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from ionbeam_client.certificates import certificate_fault, perhaps_ours
from ionbeam_dagster.stores.ledger.errors import LedgerError, of_a_newer_version
from ionbeam_dagster.stores.ledger.feed_numbers import feed_begins
from ionbeam_dagster.stores.ledger.lost import Past

_LOG = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds, of who only looks
_GENERATION = "ionbeam:generation"
_EVICTED = "ionbeam:evicted"
_FORM = "ionbeam:form"
_KNOWN_FORM = 1
_LOST = "IONBEAM-LOST"
_HURT = "IONBEAM-HURT"
_FILLING = "ionbeam:filling"
_GUARD = f"""
local function mark()
    return redis.call('GET', '{_GENERATION}') or redis.call('GET', '{_FILLING}') or 'none'
end
local function needed(command, key, ...)
    local found = redis.call(command, key, ...)
    if not found or type(found) == 'table' and not found[1] then
        error({{err = '{_HURT} ' .. mark() .. ' ' .. key .. ' is gone'}})
    end
    return found
end
if table.remove(ARGV) == '1' and redis.call('EXISTS', '{_GENERATION}') == 0 then
    return redis.error_reply('{_LOST} there is no ledger')
end
"""
_ONCE = """
local call = 'ionbeam:answered:' .. table.remove(ARGV)
local answered = redis.call('GET', call)
if answered then return cjson.decode(answered)[1] end
local function answer()
%s
end
local found = answer()
redis.call('SET', call, cjson.encode({found}), 'EX', %d)
return found
"""
_ANSWERED_FOR = 600  # seconds; a command is sent again within some
_MARKS = f"""
local generation, filling = redis.call('GET', '{_GENERATION}'), redis.call('GET', '{_FILLING}')
local mark = generation or filling or 'none'
local mark_of_run = mark:match('^[^/]*')
local is_marked_evicting = mark:match('[^/]*$') == 'evicts'
"""
_BEGIN = f"""{_MARKS}
local run, evicted, policy, kept = ARGV[1], tonumber(ARGV[2]), ARGV[3], {{}}
for i = 4, #ARGV do kept[ARGV[i]] = true end
local function has_records()
    local cursor = '0'
    repeat
        local found = redis.call('SCAN', cursor, 'MATCH', 'ionbeam:*', 'COUNT', 1000)
        cursor = found[1]
        for _, key in ipairs(found[2]) do
            if not kept[key:match('^ionbeam:[^:]+')] then return true end
        end
    until cursor == '0'
    return false
end
local before = mark_of_run == run and tonumber(redis.call('GET', '{_EVICTED}') or '0') or 0
if mark == 'none' then
    if has_records() then return {{'hurt', mark}} end
elseif policy ~= 'volatile' and evicted > before or mark_of_run ~= run and is_marked_evicting then
    return {{'hurt', mark}}
end
if generation and mark_of_run == run then
    local marked = generation:match('^[^/]*/[^/]*') or generation .. '/earlier'
    redis.call('SET', '{_GENERATION}', marked .. '/' .. policy)
    return {{'whole', mark}}
end
return {{'new', mark}}
"""
_FILL = f"""
if redis.call('EXISTS', 'ionbeam:feed') == 0 then redis.call('SETNX', 'ionbeam:feed_begins', ARGV[3]) end
redis.call('SETNX', '{_FILLING}', ARGV[1])
redis.call('SET', '{_EVICTED}', ARGV[2])
return redis.call('GET', '{_FILLING}')
"""
_FINISH = f"""
if redis.call('GET', '{_FILLING}') == ARGV[1] then
    redis.call('DEL', '{_FILLING}')
    redis.call('SET', '{_GENERATION}', ARGV[2])
    redis.call('SET', '{_EVICTED}', ARGV[3])
    return 1
end
local generation = redis.call('GET', '{_GENERATION}') or ''
return generation:match('^[^/]*/[^/]*') == ARGV[1]:match('^[^/]*/[^/]*') and 1 or 0
"""
_DROP = f"""{_MARKS}
if mark ~= ARGV[1] then return 0 end
local cursor, kept = '0', {{}}
for i = 5, #ARGV do kept[ARGV[i]] = true end
repeat
    local found = redis.call('SCAN', cursor, 'MATCH', 'ionbeam:*', 'COUNT', 1000)
    cursor = found[1]
    for _, key in ipairs(found[2]) do
        if not kept[key:match('^ionbeam:[^:]+')] then redis.call('UNLINK', key) end
    end
until cursor == '0'
redis.call('SET', '{_FILLING}', ARGV[2])
redis.call('SET', '{_EVICTED}', ARGV[3])
redis.call('SET', 'ionbeam:feed_begins', ARGV[4])
return 1
"""
_KEPT_ALWAYS = [f"ionbeam:{subject}" for subject in ("sealed", "holding", "job", "leases", "workers", "beats")]
_KEPT = _KEPT_ALWAYS + [
    f"ionbeam:{subject}"
    for subject in (
        "parts", "requests", "requested", "unanswered", "source_requests", "replays", "refused", "accepted",
        "too_early", "strangers", "taken", "payloads", "unreported", "attempts", "silences", "removals",
        "corrections", "corrections_last", "alerts",
    )
]  # fmt: skip
"""What no other store tells, and what needs no other key: it stays where part of a ledger was evicted."""


class _Dropped(Exception):
    """The ledger turned out to lack a part while it was filled; the filling begins again."""


_SCRIPT = re.compile(r"\.? script: \w+, on @user_script:\d+\.?$")
"""Which of our scripts was refused; of one trouble that is another one each time."""


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
        self._filling, self._evicted = "", 0
        self._url, self._place = url, named(url)
        self.client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=30, socket_connect_timeout=5, health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 5),
        )  # fmt: skip

    def run(self, script: str, *arguments: str | int) -> Any:
        """Run a script; its text is sent once, and after that only its hash. One that finds no past asks for it."""
        with self.asked() as client:
            run = client.register_script(_GUARD + script)
            self._settle()
            before = self._past.fillings
            try:
                return run(args=[*arguments, int(not self._past.is_filling)])
            except redis.ResponseError as error:
                if _HURT in str(error):
                    seen, missing, *_ = str(error).partition(_HURT)[2].split()
                    self._drop_once(missing, seen, before)
                elif _LOST not in str(error):
                    raise
                else:
                    self._past.was_lost()
            self._settle()
            return run(args=[*arguments, 1])

    def run_once(self, script: str, *arguments: str | int) -> Any:
        """Run a script that would count twice if it ran twice: one whose answer is lost on the way is sent again, and
        then answers the same."""
        return self.run(_ONCE % (script, _ANSWERED_FOR), *arguments, uuid4().hex)

    @contextmanager
    def asked(self) -> Iterator[redis.Redis]:
        try:
            yield self.client
        except redis.AuthenticationError as error:
            raise LedgerError(f"{self._place}: {error}; correct user and password in redis.redis_url") from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise LedgerError(f"{self._place} {_why_away(error, self._url)}") from error
        except redis.RedisError as error:
            told = _SCRIPT.sub("", str(error))
            raise LedgerError(f"{self._place} refuses: {told}; {_what_to_do(told)}") from error

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Pass over a Redis that is away for a moment."""
        with suppress(redis.RedisError):
            yield

    def _settle(self) -> None:
        """Have a Redis that is new, was emptied, or was started again, filled with what it lacks of the past."""
        for _ in range(2):
            try:
                self._past.settle(self, self._begin, self._finish)
                return
            except _Dropped as dropped:
                missing = dropped
        raise LedgerError(
            f"{self._place} lost part of the ledger again while it was made from the files ({missing}): see that no "
            "other program removes keys that begin with ionbeam:, and try again; what is there is used by nobody"
        ) from missing

    def _begin(self) -> bool:
        form = int(self.client.get(_FORM) or _KNOWN_FORM)
        if form > _KNOWN_FORM:
            raise of_a_newer_version(self._place, form, _KNOWN_FORM)
        info: Mapping[str, Any] = self.client.info()
        self._warn(info)
        policy = "volatile" if _policy(info).startswith("volatile") else "evicts" if _may_evict(info) else "keeps"
        given = info["run_id"], _evicted(info), policy, *_KEPT_ALWAYS
        state, seen = self.client.register_script(_BEGIN)(args=given)
        if state == "whole":
            return False
        if state == "hurt":
            self._drop(seen)
        self._evicted = _evicted(info)
        begun = self._mark(info), self._evicted, feed_begins()
        self._filling = self.client.register_script(_FILL)(args=begun)
        return True

    def _drop_once(self, missing: str, seen: str, before: int) -> None:
        """Drop what another thread did not make again meanwhile, since it was filled for the time `before`."""
        with self._past.alone():
            if self._past.is_filling or self._past.fillings == before:
                self._drop(seen, missing)
                self._past.was_lost()
            if self._past.is_filling:
                raise _Dropped(f"{missing} is gone")

    def _drop(self, seen: str, missing: str = "") -> None:
        """Forget what the other stores tell of the past, so that the ledger is made again whole and not in part.

        Nothing is forgotten where the mark is another one than was `seen` when it was noticed: another process was
        quicker. `missing` is a key that is gone, if one is known. Raises LedgerError as long as this Redis would evict
        keys again.
        """
        info: Mapping[str, Any] = self.client.info()
        why = f"{missing} is gone" if missing else "keys were evicted, or may have been before it was started again"
        if _policy(info).startswith("allkeys"):
            raise LedgerError(
                f"{self._place} dropped part of the ledger ({why}), and may do so again: set maxmemory-policy "
                f"noeviction (now {_policy(info)}), and maxmemory to more than the ledger needs; it is then made again "
                "from the files"
            )
        known = ":".join(missing.split(":")[:2]) in _KEPT
        begun = self._mark(info), _evicted(info), feed_begins()
        if self.client.register_script(_DROP)(args=[seen, *begun, *(_KEPT_ALWAYS if known else _KEPT)]):
            _LOG.warning("%s dropped part of the ledger (%s); all of it is made again from the files", self._place, why)

    def _finish(self) -> None:
        """Mark the ledger as whole; raises _Dropped where another process dropped what was filled in meanwhile."""
        done = self._filling, self._mark(self.client.info(), self._filling), self._evicted
        if not self.client.register_script(_FINISH)(args=done):
            raise _Dropped("another process found it hurt meanwhile")

    def _mark(self, info: Mapping[str, Any], filling: str = "") -> str:
        name = filling.split("/")[1] if filling else uuid4().hex
        return f"{info['run_id']}/{name}/{'evicts' if _may_evict(info) else 'keeps'}"

    def _warn(self, info: Mapping[str, Any]) -> None:
        """Say it when this Redis may forget: without the append-only file, or one that is written to disk later than it
        answers (the last second is lost when it is killed, more where the disk is busy), or when it may evict keys."""
        for weakness, remedy in _weaknesses(self.client, info):
            _LOG.warning("%s %s: %s", self._place, weakness, remedy)


def weaknesses(url: str) -> list[tuple[str, str]]:
    """What the Redis `url` may forget, and what is to be set there; raises LedgerError when it does not answer."""
    with _looked_at(url) as client:
        info: Mapping[str, Any] = client.info()
        return [(f"{named(url)} {what}", remedy) for what, remedy in _weaknesses(client, info)]


def time_of_redis(url: str) -> datetime:
    """The time that the Redis `url` has; raises LedgerError when it does not answer."""
    with _looked_at(url) as client:
        seconds, micros = client.time()
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)


@contextmanager
def _looked_at(url: str) -> Iterator[redis.Redis]:
    try:
        with redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE
        ) as client:
            yield client
    except redis.AuthenticationError as error:
        raise LedgerError(f"{named(url)}: {error}; correct user and password in redis.redis_url") from error
    except redis.RedisError as error:
        raise LedgerError(f"{named(url)} {_why_away(error, url)}") from error


def _why_away(error: redis.RedisError, url: str) -> str:
    if fault := certificate_fault(error, "redis.ca_file", "redis.cert_file"):
        return f"cannot be used: {fault}"
    hint = perhaps_ours(error, "redis.cert_file") if url.startswith("rediss:") else ""
    return f"does not answer ({error}); start it, or correct redis.redis_url{hint}"


def _what_to_do(refusal: str) -> str:
    if "'maxmemory'" in refusal:
        return "it is full: raise its maxmemory"
    if "MISCONF" in refusal:
        return "it cannot write to its disk: make room there, and see its log"
    if refusal.startswith("READONLY"):
        return "it is a copy of another one: name that in redis.redis_url"
    return "nothing was changed"


def _weaknesses(client: redis.Redis, info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not info.get("aof_enabled"):
        yield "loses the ledger when it ends", "set appendonly yes"
    elif _written_later(client):
        yield "loses its last seconds when it is killed", "set appendfsync always"
    if _policy(info) != "noeviction":
        yield "may drop parts of the ledger", "set maxmemory-policy noeviction"


def _written_later(client: redis.Redis) -> bool:
    try:
        return bool(client.config_get("appendfsync").get("appendfsync", "always") != "always")
    except redis.ResponseError:  # hosted services do not let their users ask
        return False


def _policy(info: Mapping[str, Any]) -> str:
    return str(info.get("maxmemory_policy", "noeviction"))


def _may_evict(info: Mapping[str, Any]) -> bool:
    return _policy(info).startswith("allkeys") and int(info.get("maxmemory", 0)) > 0


def _evicted(info: Mapping[str, Any]) -> int:
    return int(info.get("evicted_keys", 0))
