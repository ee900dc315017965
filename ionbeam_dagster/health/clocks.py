"""Whether this host's clock agrees with those of the disks and servers, and what a wrong clock left behind.

Belongs here: comparisons with what answers anyway. Does not belong here: what is done about it (the agenda has what was
collected before its time collected again).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.places import local_places, places
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import is_address

SUBJECT = "clock"
_PATIENCE = 5.0  # seconds
_ROUNDED = timedelta(seconds=2)
"""What whole seconds, and the way of an answer, may make of a difference."""


def clocks(platform: Platform) -> Iterator[Finding]:
    """How far the clocks are apart; one that cannot be asked is no matter of this check."""
    compared = list(_others(platform))
    for whose, difference in compared:
        if abs(difference) > agenda.SKEW + _ROUNDED:
            way = "behind" if difference > timedelta(0) else "ahead of"
            words = f"this host's clock is {in_short(abs(difference))} {way} that of {whose}"
            yield Finding(
                SUBJECT, "error", words, "set both by NTP (`timedatectl status`), then `ionbeam doctor` again"
            )
    if can_ask_ledger(platform):
        yield from _left_behind(platform)
    named = ", ".join(whose for whose, _ in compared) or "nothing to compare it with"
    yield Finding(SUBJECT, "well", f"compared with {named}")


def _others(platform: Platform) -> Iterator[tuple[str, timedelta]]:
    """Whose clock, and how far it is ahead of ours."""
    sections = platform.config.sections
    for folder in {folder.stat().st_dev: folder for folder in local_places(platform)}.values():
        probe = folder / ".ionbeam-clock"
        with suppress(OSError):
            probe.write_bytes(b"")
            try:
                yield f"the disk of {folder}", _ahead(datetime.fromtimestamp(probe.stat().st_mtime, UTC))
            finally:
                probe.unlink(missing_ok=True)
    if sections.redis is not None:
        import redis
        from redis.exceptions import RedisError

        with (
            suppress(RedisError),
            redis.Redis.from_url(sections.redis.redis_url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE)
            as client,
        ):  # fmt: skip
            seconds, micros = client.time()
            yield "Redis", _ahead(datetime.fromtimestamp(seconds + micros / 1e6, UTC))
    servers = {"InfluxDB": sections.influxdb_common and f"{sections.influxdb_common.influxdb_url}/ping"}
    if any(map(is_address, places(platform))):
        servers["S3"] = sections.s3.endpoint
    for whose, url in servers.items():
        with suppress(httpx.HTTPError, KeyError, ValueError, TypeError):
            if url:
                told = httpx.head(url, timeout=_PATIENCE).headers["Date"]
                yield whose, _ahead(parsedate_to_datetime(told))


def _ahead(theirs: datetime) -> timedelta:
    return theirs - datetime.now(UTC)


def _left_behind(platform: Platform) -> Iterator[Finding]:
    for name, source in platform.config.sources.items():
        claims = agenda.from_the_future(platform, source)
        if claims:
            first, last = min(one.collected.start for one in claims), max(one.collected.end for one in claims)
            words = (
                f"{name}: {len(claims)} ingestions are from the future ({first:%Y-%m-%d %H:%M} .. "
                f"{last:%Y-%m-%d %H:%M}): a clock was ahead"
            )
            remedy = "set the clock; the windows are collected again when their time comes"
            if source.sent:
                remedy = f"set the clock of whoever sends it; `ionbeam gaps {name}` shows what came"
            yield Finding(SUBJECT, "warning", words, remedy)
