"""The ledger in Redis 7: for platforms that run on more than one machine.

Belongs here: how the records of a ledger lie in Redis, and the scripts that read and change several of them at once.
Does not belong here: what follows from the records.

    ionbeam:arrival, ionbeam:arrivals             the last place in the order of arrival; the place of each ingestion
    ionbeam:raw:<source>:<window>                 a raw partition
    ionbeam:sent:<id>                             a raw file that was sent from outside
    ionbeam:sent_into:<source>:<window>           the raw files sent that touch a window, by arrival
    ionbeam:waiting:<source>                      the raw files sent that have no claim
    ionbeam:sent_windows:<id>                     the windows that a raw file sent touches
    ionbeam:raws:<source>                         windows, and ids of raw files sent, whose file is kept, by their end
    ionbeam:swept                                 when retention removed a raw file, by its ingestion
    ionbeam:readings                              ingestion metadata as JSON, by their hash
    ionbeam:claim:<id>                            a claim, with the hash of its metadata
    ionbeam:touching:<dataset>:<window>           the claims that touch a window, by arrival
    ionbeam:touched:<id>                          the windows that a claim touches
    ionbeam:rows:<dataset>:<window>               how many rows each claim brought into a window
    ionbeam:due:<dataset>                         the windows that are due, by start
    ionbeam:until:<dataset>                       the same, by the time until which they are postponed
    ionbeam:lateness:<source>:<hour>              how many ingestions arrived in an hour, by how many seconds too late
    ionbeam:versions:<source>                     the hash of the first metadata of each version
    ionbeam:built:<dataset>                       the windows that have a revision, by start
    ionbeam:revisions:<dataset>:<window>          the numbers of a window's revisions
    ionbeam:revision:<dataset>:<window>:<number>  a revision
    ionbeam:sealed:<dataset>                      when a person sealed a window
    ionbeam:export:<dataset>:<window>:<format>    an export
    ionbeam:generation                            the run of the server that has what is known of the past
    ionbeam:recovered                             when that was last put here from the other stores
    ionbeam:feed_begins                           the number before the first of the feed
    ionbeam:feed                                  every new claim and revision, in order: "c <id>", "r <revision>"

A <window> is ``<start>:<end>`` in microseconds since 1970. Every method is one Lua script or one command, thus a
transaction. Scripts name keys that they find, so a Redis Cluster will not do; nothing expires.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from threading import Event, RLock, Thread
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.lateness import lateness_of
from ionbeam_dagster.domain.records import (
    BuiltRevision,
    Claim,
    ExportFacts,
    ExportRecord,
    Lateness,
    RawPartition,
    Revision,
    RevisionFacts,
)
from ionbeam_dagster.domain.windows import EPOCH, HOUR, Window, window_of, windows_between
from ionbeam_dagster.stores.ledger import Change, LedgerError, Recover, feed_begins
from ionbeam_dagster.stores.ledger.attempts import RedisAttempts

_LOG = logging.getLogger(__name__)

HELD_FOR = 60.0  # seconds after which a window is free whose holder is silent

_GENERATION = "ionbeam:generation"
_LOST = "IONBEAM-LOST"
_GUARD = f"""
if table.remove(ARGV) == '1' and redis.call('EXISTS', '{_GENERATION}') == 0 then
    return redis.error_reply('{_LOST} there is no ledger')
end
"""
_PAIRS_AT_ONCE = 1000

_CALL = """
return redis.call(unpack(ARGV))
"""

_BEGIN_FEED = """
if redis.call('EXISTS', 'ionbeam:feed') == 0 then redis.call('SETNX', 'ionbeam:feed_begins', ARGV[1]) end
"""

_RESTORE_ARRIVALS = """
local last, taken = tonumber(redis.call('GET', 'ionbeam:arrival') or 0), {}
for _, place in ipairs(redis.call('HVALS', 'ionbeam:arrivals')) do taken[place] = true end
for i = 1, #ARGV, 2 do
    local id, place = ARGV[i], ARGV[i + 1]
    if not taken[place] and redis.call('HSETNX', 'ionbeam:arrivals', id, place) == 1 then
        taken[place] = true
        last = math.max(last, tonumber(place))
    end
end
redis.call('SET', 'ionbeam:arrival', last)
"""

_SEAL = """
for i = 3, #ARGV do redis.call('HSETNX', 'ionbeam:sealed:' .. ARGV[1], ARGV[i], ARGV[2]) end
"""

_PLACE = """
local function place_of(id)
    local place = redis.call('HGET', 'ionbeam:arrivals', id)
    if not place then
        place = redis.call('INCR', 'ionbeam:arrival')
        redis.call('HSET', 'ionbeam:arrivals', id, place)
    end
    return tonumber(place)
end
"""

_ARRIVAL = f"""{_PLACE}
return place_of(ARGV[1])
"""

_RECORD_SENT = f"""{_PLACE}
local id, record, source = unpack(ARGV, 1, 3)
local place = place_of(id)
redis.call('SET', 'ionbeam:sent:' .. id, record)
redis.call('HDEL', 'ionbeam:swept', id)
redis.call('ZADD', 'ionbeam:raws:' .. source, cjson.decode(record)[3]:match('[^:]+$'), 'sent ' .. id)
for i = 4, #ARGV do
    redis.call('ZADD', 'ionbeam:sent_into:' .. source .. ':' .. ARGV[i], place, id)
    redis.call('SADD', 'ionbeam:sent_windows:' .. id, ARGV[i])
end
if redis.call('EXISTS', 'ionbeam:claim:' .. id) == 0 then
    redis.call('SADD', 'ionbeam:waiting:' .. source, id)
end
"""

_WAITING = """
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', 'ionbeam:waiting:' .. ARGV[1])) do
    for _, window in ipairs(redis.call('SMEMBERS', 'ionbeam:sent_windows:' .. id)) do
        found[#found + 1] = window
    end
end
return found
"""

_SENT = """
local found = {}
for i, id in ipairs(redis.call('ZRANGE', 'ionbeam:sent_into:' .. ARGV[1] .. ':' .. ARGV[2], 0, -1)) do
    found[i] = {redis.call('GET', 'ionbeam:sent:' .. id), redis.call('HGET', 'ionbeam:swept', id) or ''}
end
return found
"""

_RECORD_RAW = f"""{_PLACE}
local source, window, ingestion = unpack(ARGV, 1, 3)
place_of(ingestion)
redis.call('HSET', 'ionbeam:raw:' .. source .. ':' .. window,
    'ingestion', ingestion, 'path', ARGV[4], 'rows', ARGV[5], 'signature', ARGV[6])
redis.call('HDEL', 'ionbeam:swept', ingestion)
redis.call('ZADD', 'ionbeam:raws:' .. source, window:match('[^:]+$'), window)
"""

_RAW = """
local kept = redis.call('HMGET', 'ionbeam:raw:' .. ARGV[1] .. ':' .. ARGV[2], 'ingestion', 'path', 'rows', 'signature')
if not kept[1] then return {} end
kept[5] = redis.call('HGET', 'ionbeam:swept', kept[1]) or ''
return kept
"""

_RAWS = """
local found = {}
for i, name in ipairs(redis.call('ZRANGE', 'ionbeam:raws:' .. ARGV[1], '-inf', ARGV[2], 'BYSCORE')) do
    if name:sub(1, 5) == 'sent ' then
        found[i] = {'', redis.call('GET', 'ionbeam:sent:' .. name:sub(6))}
    else
        local kept = redis.call('HMGET', 'ionbeam:raw:' .. ARGV[1] .. ':' .. name,
            'ingestion', 'path', 'rows', 'signature')
        found[i] = {name, unpack(kept)}
    end
end
return found
"""

_RECORD_PURGED = """
local source, window, ingestion, at = unpack(ARGV, 1, 4)
redis.call('HSET', 'ionbeam:swept', ingestion, at)
redis.call('ZREM', 'ionbeam:raws:' .. source, 'sent ' .. ingestion)
if redis.call('HGET', 'ionbeam:raw:' .. source .. ':' .. window, 'ingestion') == ingestion then
    redis.call('ZREM', 'ionbeam:raws:' .. source, window)
end
"""

_CLAIMS_OF = """
local found = {}
for _, id in ipairs(ARGV) do
    local record = redis.call('HGET', 'ionbeam:claim:' .. id, 'record')
    if record then found[#found + 1] = record end
end
return found
"""

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

_MAKE_DUE = """
local function make_due(dataset, window)
    redis.call('ZADD', 'ionbeam:due:' .. dataset, window:match('^[^:]+'), window)
    redis.call('ZADD', 'ionbeam:until:' .. dataset, '-inf', window)
end
"""

_FORGET = (
    _MAKE_DUE
    + """
local function forget(id)
    local dataset = redis.call('HGET', 'ionbeam:claim:' .. id, 'dataset')
    for _, window in ipairs(redis.call('SMEMBERS', 'ionbeam:touched:' .. id)) do
        local place = dataset .. ':' .. window
        for _, number in ipairs(redis.call('ZRANGE', 'ionbeam:revisions:' .. place, 0, -1)) do
            redis.call('HSET', 'ionbeam:revision:' .. place .. ':' .. number, 'intact', 0)
        end
        make_due(dataset, window)
        redis.call('ZREM', 'ionbeam:touching:' .. place, id)
        redis.call('HDEL', 'ionbeam:rows:' .. place, id)
    end
    redis.call('DEL', 'ionbeam:touched:' .. id, 'ionbeam:claim:' .. id)
end
"""
)

_RECORD_CLAIM = (
    _FORGET
    + """
local id, source, dataset, arrival, version, reading, metadata, record, hour, late, touched = unpack(ARGV, 1, 11)
redis.call('SREM', 'ionbeam:waiting:' .. source, id)
redis.call('HSETNX', 'ionbeam:readings', reading, metadata)
redis.call('HSETNX', 'ionbeam:versions:' .. source, version, reading)
local known = redis.call('EXISTS', 'ionbeam:claim:' .. id) == 1
redis.call('HSET', 'ionbeam:claim:' .. id, 'record', record, 'dataset', dataset, 'reading', reading)
local last = 11 + 2 * touched
for i = 12, last, 2 do
    redis.call('ZADD', 'ionbeam:touching:' .. dataset .. ':' .. ARGV[i], arrival, id)
    redis.call('HSET', 'ionbeam:rows:' .. dataset .. ':' .. ARGV[i], id, ARGV[i + 1])
    redis.call('SADD', 'ionbeam:touched:' .. id, ARGV[i])
    if not known then make_due(dataset, ARGV[i]) end
end
for i = last + 1, #ARGV do
    local sent = redis.call('GET', 'ionbeam:sent:' .. ARGV[i])
    if sent then
        for _, window in ipairs(redis.call('SMEMBERS', 'ionbeam:sent_windows:' .. ARGV[i])) do
            redis.call('ZREM', 'ionbeam:sent_into:' .. source .. ':' .. window, ARGV[i])
        end
        redis.call('SREM', 'ionbeam:waiting:' .. source, ARGV[i])
    end
    forget(ARGV[i])
    redis.call('HDEL', 'ionbeam:arrivals', ARGV[i])
end
if known then return end
redis.call('RPUSH', 'ionbeam:feed', 'c ' .. id)
if hour ~= '' then redis.call('HINCRBY', 'ionbeam:lateness:' .. source .. ':' .. hour, late, 1) end
"""
)

_LATENESS = """
local found = {}
for i = 2, #ARGV do
    found[i - 1] = redis.call('HGETALL', 'ionbeam:lateness:' .. ARGV[1] .. ':' .. ARGV[i])
end
return found
"""

_VERSION = """
local reading = redis.call('HGET', 'ionbeam:versions:' .. ARGV[1], ARGV[2])
return reading and redis.call('HGET', 'ionbeam:readings', reading)
"""

_ROWS_IN = """
local place = ARGV[1] .. ':' .. ARGV[2]
local rows = redis.call('HVALS', 'ionbeam:rows:' .. place)
if #rows ~= redis.call('ZCARD', 'ionbeam:touching:' .. place) then return false end
local sum = 0
for _, number in ipairs(rows) do sum = sum + number end
return sum
"""

_NEWEST = """
local newest = ''
for _, kind in ipairs({'due', 'built'}) do  -- a window that was touched is in one of them
    local window = redis.call('ZRANGE', 'ionbeam:' .. kind .. ':' .. ARGV[1], -1, -1)[1]
    if window and (newest == '' or tonumber(window:match('^[^:]+')) > tonumber(newest:match('^[^:]+'))) then
        newest = window
    end
end
return newest
"""

_CLAIMS = """
local found = {}
for i, id in ipairs(redis.call('ZRANGE', 'ionbeam:touching:' .. ARGV[1] .. ':' .. ARGV[2], 0, -1)) do
    found[i] = redis.call('HGET', 'ionbeam:claim:' .. id, 'record')
end
return found
"""

_CLAIMS_BETWEEN = """
local seen, found = {}, {}
for _, kind in ipairs({'due', 'built'}) do  -- a window that was touched is in one of them
    for _, window in ipairs(redis.call('ZRANGE', 'ionbeam:' .. kind .. ':' .. ARGV[1], ARGV[2], ARGV[3], 'BYSCORE')) do
        for _, id in ipairs(redis.call('ZRANGE', 'ionbeam:touching:' .. ARGV[1] .. ':' .. window, 0, -1)) do
            if not seen[id] then
                seen[id] = true
                found[#found + 1] = redis.call('HGET', 'ionbeam:claim:' .. id, 'record')
            end
        end
    end
end
return found
"""

_METADATA = """
local seen, found = {}, {}
for _, id in ipairs(ARGV) do
    local reading = redis.call('HGET', 'ionbeam:claim:' .. id, 'reading')
    if not seen[reading] then
        seen[reading] = true
        found[#found + 1] = redis.call('HGET', 'ionbeam:readings', reading)
    end
end
return found
"""

_WITHDRAW = (
    _FORGET
    + """
local sent = redis.call('GET', 'ionbeam:sent:' .. ARGV[1])
if sent then redis.call('SADD', 'ionbeam:waiting:' .. cjson.decode(sent)[2], ARGV[1]) end
forget(ARGV[1])
"""
)

_TOUCHED_BY = """
local function touched_by(place, first)
    if redis.call('ZCARD', 'ionbeam:touching:' .. place) ~= #ARGV - first + 1 then return false end
    for i = first, #ARGV do
        if not redis.call('ZSCORE', 'ionbeam:touching:' .. place, ARGV[i]) then return false end
    end
    return true
end
"""

_RECORD_REVISION = (
    _TOUCHED_BY
    + """
local dataset, window, number, record, intact = unpack(ARGV, 1, 5)
local place = dataset .. ':' .. window
redis.call('HSET', 'ionbeam:revision:' .. place .. ':' .. number, 'record', record, 'intact', intact)
redis.call('ZADD', 'ionbeam:revisions:' .. place, number, number)
redis.call('RPUSH', 'ionbeam:feed', 'r ' .. place .. ':' .. number)
redis.call('ZADD', 'ionbeam:built:' .. dataset, window:match('^[^:]+'), window)
if touched_by(place, 6) then
    redis.call('ZREM', 'ionbeam:due:' .. dataset, window)
    redis.call('ZREM', 'ionbeam:until:' .. dataset, window)
end
"""
)

_POSTPONE = (
    _TOUCHED_BY
    + """
local dataset, window, later = unpack(ARGV, 1, 3)
if touched_by(dataset .. ':' .. window, 4) then
    redis.call('ZADD', 'ionbeam:until:' .. dataset, 'XX', later, window)
end
"""
)

_LATEST = """
local dataset, found = ARGV[1], {}
for i, window in ipairs(redis.call('ZRANGE', 'ionbeam:built:' .. dataset, ARGV[2], ARGV[3], 'BYSCORE')) do
    local place = dataset .. ':' .. window
    local number = redis.call('ZRANGE', 'ionbeam:revisions:' .. place, -1, -1)[1]
    local kept = redis.call('HMGET', 'ionbeam:revision:' .. place .. ':' .. number, 'record', 'intact')
    found[i] = {window, number, kept[1], kept[2]}
end
return found
"""

_REVISIONS_OF = """
local place, found = ARGV[1], {}
for i, number in ipairs(redis.call('ZRANGE', 'ionbeam:revisions:' .. place, 0, -1)) do
    local kept = redis.call('HMGET', 'ionbeam:revision:' .. place .. ':' .. number, 'record', 'intact')
    found[i] = {number, kept[1], kept[2]}
end
return found
"""

_SUPERSEDED = """
local dataset, found = ARGV[1], {}
for _, window in ipairs(redis.call('ZRANGE', 'ionbeam:built:' .. dataset, 0, -1)) do
    local place = dataset .. ':' .. window
    local numbers = redis.call('ZRANGE', 'ionbeam:revisions:' .. place, 0, -1)
    for i = 1, #numbers - 1 do
        local kept = redis.call('HMGET', 'ionbeam:revision:' .. place .. ':' .. numbers[i], 'record', 'intact')
        local following = redis.call('HGET', 'ionbeam:revision:' .. place .. ':' .. numbers[i + 1], 'record')
        if cjson.decode(following)[3] <= tonumber(ARGV[2]) then
            found[#found + 1] = {window, numbers[i], kept[1], kept[2]}
        end
    end
end
return found
"""

_FORGET_REVISION = """
local place, number = ARGV[1], ARGV[2]
if redis.call('ZRANGE', 'ionbeam:revisions:' .. place, -1, -1)[1] ~= number then
    redis.call('ZREM', 'ionbeam:revisions:' .. place, number)
    redis.call('DEL', 'ionbeam:revision:' .. place .. ':' .. number)
end
"""

_UNSEAL = (
    _MAKE_DUE
    + """
for i = 2, #ARGV do
    if redis.call('HDEL', 'ionbeam:sealed:' .. ARGV[1], ARGV[i]) == 1 then make_due(ARGV[1], ARGV[i]) end
end
"""
)


class RedisLedger:
    """A `Ledger` in the Redis database `url` (``redis://[user:password@]host:port/number``), which is its alone.

    Making one connects to nothing. Methods raise LedgerError when Redis does not answer, or refuses; they may then be
    called again, since none does a thing twice.
    """

    def __init__(self, url: str, recover: Recover = lambda: None) -> None:
        self._recover = recover
        self.attempts = RedisAttempts(self._run)
        self._settling = RLock()
        self._settled = self._filling = False
        self._client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=30, socket_connect_timeout=5, health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 5),
        )  # fmt: skip
        address = urlsplit(url)
        self._place = f"Redis at {address.hostname}:{address.port or 6379}{address.path}"

    def arrival_of(self, ingestion: str) -> int:
        return int(self._run(_ARRIVAL, ingestion))

    def record_raw(self, raw: RawPartition) -> None:
        record = (raw.ingestion, raw.path, raw.rows, raw.signature)
        self._run(_RECORD_RAW, raw.source, _range(raw.window), *record)

    def raw(self, source: str, window: Window) -> RawPartition | None:
        kept = self._run(_RAW, source, _range(window))
        return _raw(source, _range(window), *kept) if kept else None

    def record_sent(self, raws: Sequence[tuple[RawPartition, Sequence[Window]]]) -> None:
        for raw, touched in raws:
            record = json.dumps(
                [raw.ingestion, raw.source, _range(raw.window), raw.path, raw.rows, raw.signature]
            )  # fmt: skip
            self._run(_RECORD_SENT, raw.ingestion, record, raw.source, *(_range(window) for window in touched))

    def sent(self, source: str, window: Window) -> list[RawPartition]:
        return [_sent(*kept) for kept in self._run(_SENT, source, _range(window))]

    def waiting(self, source: str) -> list[Window]:
        return sorted({_window(text) for text in self._run(_WAITING, source)})

    def raws(self, source: str, before: datetime) -> list[RawPartition]:
        found = self._run(_RAWS, source, _micros(before))
        raws = (_raw(source, *kept) if kept[0] else _sent(kept[1]) for kept in found)
        return sorted(raws, key=lambda raw: raw.window)

    def record_purged(self, raw: RawPartition, at: datetime) -> None:
        self._run(_RECORD_PURGED, raw.source, _range(raw.window), raw.ingestion, _micros(at))

    def record_claim(
        self, claim: Claim, metadata: IngestionMetadata, touched: Mapping[Window, int], replaces: Sequence[str] = ()
    ) -> None:
        text = metadata.model_dump_json()
        reading = sha256(text.encode()).hexdigest()
        arrived_at = None if claim.arrived_at is None else _micros(claim.arrived_at)
        hour = "" if claim.arrived_at is None else _hour(claim.arrived_at)
        record = json.dumps(
            [claim.id, claim.source, claim.dataset, _range(claim.collected), claim.arrival, claim.rows,
             claim.quarantined, [_range(window) for window in claim.stray_windows], arrived_at]
        )  # fmt: skip
        rows = (part for window, rows in touched.items() for part in (_range(window), rows))
        self._run(
            _RECORD_CLAIM, claim.id, claim.source, claim.dataset, claim.arrival, metadata.version, reading, text,
            record, hour, lateness_of(claim) // timedelta(seconds=1), len(touched), *rows, *replaces,
        )  # fmt: skip

    def lateness(self, source: str, start: datetime, end: datetime) -> list[Lateness]:
        hours = [window.start for window in windows_between(start, end, HOUR) if window.start >= start]
        found = self._run(_LATENESS, source, *map(_hour, hours))
        return [
            Lateness(hour, timedelta(seconds=late), count)
            for hour, flat in zip(hours, found, strict=True)
            for late, count in sorted(
                (int(late), int(count)) for late, count in zip(flat[::2], flat[1::2], strict=True)
            )
        ]

    def metadata_of_version(self, source: str, version: int) -> IngestionMetadata | None:
        found = self._run(_VERSION, source, version)
        return IngestionMetadata.model_validate_json(found) if found else None

    def rows_in(self, dataset: str, window: Window) -> int | None:
        rows = self._run(_ROWS_IN, dataset, _range(window))
        return None if rows is None else int(rows)

    def span_of(self, dataset: str) -> timedelta | None:
        newest = self._run(_NEWEST, dataset)
        return _window(newest).span if newest else None

    def claims(self, dataset: str, window: Window) -> list[Claim]:
        return [_claim(record) for record in self._run(_CLAIMS, dataset, _range(window))]

    def claims_between(self, dataset: str, start: datetime, end: datetime) -> list[Claim]:
        found = (_claim(r) for r in self._run(_CLAIMS_BETWEEN, dataset, _micros(start), f"({_micros(end)}"))
        return sorted(found, key=lambda claim: claim.arrival)

    def claims_of(self, ingestions: Sequence[str]) -> list[Claim]:
        found = (_claim(record) for record in self._run(_CLAIMS_OF, *ingestions))
        return sorted(found, key=lambda claim: claim.arrival)

    def metadata_of(self, claims: Sequence[Claim]) -> list[IngestionMetadata]:
        found = self._run(_METADATA, *(claim.id for claim in claims))
        return [IngestionMetadata.model_validate_json(text) for text in found]

    def withdraw_claim(self, ingestion: str) -> None:
        self._run(_WITHDRAW, ingestion)

    @contextmanager
    def holding(self, dataset: str, window: Window) -> Iterator[None]:
        lock = self._client.lock(f"ionbeam:holding:{dataset}:{_range(window)}", HELD_FOR, thread_local=False)
        done = Event()

        def keep() -> None:
            while not done.wait(HELD_FOR / 4):
                with suppress(redis.RedisError):  # away for a moment: it is held for a minute from the last time
                    lock.reacquire()

        with self._asked():
            lock.acquire()
        keeper = Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            with suppress(redis.RedisError):  # it ends by itself
                lock.release()

    def record_revision(self, built: BuiltRevision, made_of: Sequence[Claim]) -> None:
        revision = built.revision
        record = json.dumps([revision.inputs, built.path, _micros(built.built_at), built.facts.to_json()])
        place = (revision.dataset, _range(revision.window), revision.number)
        self._run(_RECORD_REVISION, *place, record, int(revision.intact), *{claim.id for claim in made_of})

    def latest_revision(self, dataset: str, window: Window) -> BuiltRevision | None:
        start = _micros(window.start)
        same_start = (_built(dataset, *kept) for kept in self._run(_LATEST, dataset, start, start))
        return next((built for built in same_start if built.revision.window == window), None)

    def revisions(self, dataset: str, start: datetime, end: datetime) -> list[BuiltRevision]:
        kept = self._run(_LATEST, dataset, _micros(start), f"({_micros(end)}")
        return sorted((_built(dataset, *one) for one in kept), key=lambda built: built.revision.window)

    def revisions_of(self, dataset: str, window: Window) -> list[BuiltRevision]:
        place = _range(window)
        return [_built(dataset, place, *kept) for kept in self._run(_REVISIONS_OF, f"{dataset}:{place}")]

    def superseded(self, dataset: str, before: datetime) -> list[BuiltRevision]:
        return [_built(dataset, *kept) for kept in self._run(_SUPERSEDED, dataset, _micros(before))]

    def forget_revision(self, revision: Revision) -> None:
        self._run(_FORGET_REVISION, f"{revision.dataset}:{_range(revision.window)}", revision.number)

    def seal(self, dataset: str, windows: Sequence[Window], at: datetime) -> None:
        self._run(_SEAL, dataset, _micros(at), *(_range(window) for window in windows))

    def unseal(self, dataset: str, windows: Sequence[Window]) -> None:
        self._run(_UNSEAL, dataset, *(_range(window) for window in windows))

    def sealed(self, dataset: str, window: Window) -> datetime | None:
        at = self._run(_CALL, "HGET", f"ionbeam:sealed:{dataset}", _range(window))
        return _moment(int(at)) if at else None

    def due(self, dataset: str, now: datetime | None = None) -> list[Window]:
        if now is None:
            found = self._run(_CALL, "ZRANGE", f"ionbeam:due:{dataset}", 0, -1)
        else:
            found = self._run(_CALL, "ZRANGEBYSCORE", f"ionbeam:until:{dataset}", "-inf", _micros(now))
        return sorted(map(_window, found))

    def postpone(self, dataset: str, window: Window, seen: Sequence[Claim], until: datetime | None) -> None:
        later = "+inf" if until is None else _micros(until)
        self._run(_POSTPONE, dataset, _range(window), later, *{claim.id for claim in seen})

    def record_export(self, export: ExportRecord) -> None:
        path = export.path or ""
        facts = json.dumps(export.facts.to_json())
        record = ("number", export.number, "path", path, "facts", facts, "made_by", export.made_by)
        self._run(_CALL, "HSET", _export_key(export.dataset, export.window, export.format), *record)

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None:
        key = _export_key(dataset, window, format)
        number, path, facts, made_by = self._run(_CALL, "HMGET", key, "number", "path", "facts", "made_by")
        if not number:
            return None
        return ExportRecord(
            dataset, window, format, int(number), path or None, ExportFacts.from_json(json.loads(facts)), made_by or ""
        )

    def changes(self, after: int, limit: int) -> list[Change]:
        return [_change(*entry) for entry in self._run(_CHANGES, after, limit)]

    def recovered(self) -> tuple[datetime, str] | None:
        at, told = self._run(_CALL, "HMGET", "ionbeam:recovered", "at", "told")
        return (_moment(int(at)), told) if at else None

    def note_recovery(self, told: str) -> None:
        self._run(_CALL, "HSET", "ionbeam:recovered", "at", _micros(datetime.now(UTC)), "told", told)

    def restore_arrivals(self, arrivals: Mapping[str, int]) -> None:
        for some in _flat_pairs(arrivals):
            self._run(_RESTORE_ARRIVALS, *some)

    def _run(self, script: str, *arguments: str | int) -> Any:
        """Run a script; its text is sent once, and after that only its hash. One that finds no past asks for it."""
        with self._asked() as client:
            run = client.register_script(_GUARD + script)
            self._settle()
            try:
                return run(args=[*arguments, int(not self._filling)])
            except redis.ResponseError as error:
                if _LOST not in str(error):
                    raise
            self._settled = False
            self._settle()
            return run(args=[*arguments, 1])

    @contextmanager
    def _asked(self) -> Iterator[redis.Redis]:
        try:
            yield self._client
        except redis.AuthenticationError as error:
            raise LedgerError(f"{self._place}: {error}; mend user and password in redis.redis_url") from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise LedgerError(f"{self._place} does not answer ({error}); start it, or mend redis.redis_url") from error
        except redis.RedisError as error:
            raise LedgerError(f"{self._place} refuses: {error}; nothing was changed") from error

    def _settle(self) -> None:
        """Have a Redis that is new, was emptied, or was started again, filled with what it lacks of the past.

        Its filling comes here again, and goes on; other threads wait.
        """
        if self._settled:
            return
        with self._settling:
            if self._settled or self._filling:
                return
            info = self._client.info()
            self._warn(info)
            if self._client.get(_GENERATION) != info["run_id"]:
                try:
                    self._filling = True
                    self._client.register_script(_BEGIN_FEED)(args=[feed_begins()])
                    if found := self._recover():
                        _LOG.warning("%s had lost, or never had, what the stores hold: %s", self._place, found)
                        self.note_recovery(str(found))
                    self._client.set(_GENERATION, info["run_id"])
                finally:
                    self._filling = False
            self._settled = True

    def _warn(self, info: Mapping[str, Any]) -> None:
        """Say it when this Redis may forget: without the append-only file, or when it may evict keys."""
        if not info.get("aof_enabled"):
            _LOG.warning("%s loses the ledger when it ends: set appendonly yes", self._place)
        if info.get("maxmemory_policy", "noeviction") != "noeviction":
            _LOG.warning("%s may drop parts of the ledger: set maxmemory-policy noeviction", self._place)


def _flat_pairs(arrivals: Mapping[str, int]) -> Iterator[list[str | int]]:
    """The pairs as flat lists that are short enough for one script."""
    items = iter(arrivals.items())
    while some := list(islice(items, _PAIRS_AT_ONCE)):
        yield [part for pair in some for part in pair]


def _export_key(dataset: str, window: Window, format: str) -> str:
    return f"ionbeam:export:{dataset}:{_range(window)}:{format}"


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _moment(micros: int) -> datetime:
    return (EPOCH + timedelta(microseconds=micros)).astimezone(UTC)


def _hour(moment: datetime) -> int:
    return _micros(window_of(moment, HOUR).start)


def _range(window: Window) -> str:
    return f"{_micros(window.start)}:{_micros(window.end)}"


def _window(text: str) -> Window:
    start, end = text.split(":")
    return Window(_moment(int(start)), _moment(int(end)))


def _claim(record: str) -> Claim:
    id, source, dataset, collected, arrival, rows, quarantined, strays, *noted = json.loads(record)
    stray_windows = tuple(_window(stray) for stray in strays)
    arrived_at = _moment(noted[0]) if noted and noted[0] is not None else None
    return Claim(id, source, dataset, _window(collected), arrival, rows, quarantined, stray_windows, arrived_at)


def _raw(
    source: str, window: str, ingestion: str, path: str, rows: str, signature: str, purged: str = ""
) -> RawPartition:
    removed = _moment(int(purged)) if purged else None
    return RawPartition(ingestion, source, _window(window), path, int(rows), signature, removed)


def _sent(record: str, purged: str = "") -> RawPartition:
    ingestion, source, reach, path, rows, signature = json.loads(record)
    return _raw(source, reach, ingestion, path, rows, signature, purged)


def _change(told: str, kind: str, place: str, record: str, intact: str) -> Change:
    number = int(told)
    if not record:
        return Change(number)
    if kind == "c":
        return Change(number, claim=_claim(record))
    dataset, start, end, revision = place.split(":")
    return Change(number, built=_built(dataset, f"{start}:{end}", revision, record, intact))


def _built(dataset: str, window: str, number: str, record: str, intact: str) -> BuiltRevision:
    inputs, path, built_at, facts = json.loads(record)
    revision = Revision(dataset, _window(window), int(number), inputs, intact == "1")
    return BuiltRevision(revision, path, _moment(built_at), RevisionFacts.from_json(facts))
