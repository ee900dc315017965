"""Whether this host's clock agrees with those of the disks and servers, and what a wrong clock brought in.

Belongs here: comparisons with what answers anyway. Does not belong here: what is done about it (the agenda has what was
collected before its time collected again).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx

from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import HOUR
from ionbeam_dagster.doors.amqp.queues import time_of_broker
from ionbeam_dagster.errors import IonbeamError
from ionbeam_dagster.health.findings import Finding, Severity
from ionbeam_dagster.health.places import local_places, places
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import is_address
from ionbeam_dagster.tls import TlsSettings

SUBJECT = "clock"
APART = timedelta(seconds=5)
"""By how much clocks may differ before it is told; from `agenda.SKEW` on windows are collected at a wrong time."""
_PATIENCE = 5.0  # seconds
_WHOLE = timedelta(seconds=1)
"""Most of what is told of time is told in whole seconds that have begun."""
_AWS = "https://s3.amazonaws.com"
_DISK = "the disk of"


def now() -> datetime:
    """The time that this host tells."""
    return datetime.now(UTC)


def clocks(platform: Platform) -> Iterator[Finding]:
    """All that can be said of clocks: also what one of ours that was ahead left behind."""
    if can_ask_ledger(platform):
        yield from _left_behind(platform)
    yield from at_a_glance(platform)


def at_a_glance(platform: Platform) -> Iterator[Finding]:
    """How far the clocks are apart, and which stations' are ahead, as far as that costs little."""
    for told in agenda.to_come(platform, now()) if can_ask_ledger(platform) else ():
        words, _, remedy = told.partition("; ")
        yield Finding(SUBJECT, "warning", words, remedy)
    yield from compared(platform)


def _steady() -> float | None:
    """Seconds since this host was started, also those that it slept, whatever its clock is set to; None where nobody
    can say."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None


class Steps:
    """Whether this host's clock was set while it was looked at again and again, where no other clock could tell so.

    It is told for an hour, or until the clock is set back.
    """

    def __init__(self, steady: Callable[[], float | None] = _steady) -> None:
        self._steady = steady
        self._begun: datetime | None = None
        """When this host was started, by its clock as it was before it was set."""
        self._last: datetime | None = None
        self._told_until = 0.0
        self._noticed = ""

    def findings(self) -> Iterator[Finding]:
        since = self._steady()
        if since is None:
            return
        begun = now() - timedelta(seconds=since)
        if self._last is not None and abs(begun - self._last) > agenda.SKEW:
            self._told_until, self._noticed = since + HOUR.total_seconds(), f"{now():%Y-%m-%d %H:%M}"
        if self._begun is None or since > self._told_until:
            self._begun = begun
        self._last = begun
        moved = begun - self._begun
        if abs(moved) > agenda.SKEW:
            way = "ahead" if moved > timedelta(0) else "back"
            by = f"by {in_short(abs(moved))}, as was noticed when it said {self._noticed}"
            remedy = (
                "if it is wrong now, set it by NTP (`timedatectl status`); what is collected before its time is "
                "collected again when that comes"
            )
            yield Finding(SUBJECT, "warning", f"this host's clock was put {way} {by}", remedy)


def compared(platform: Platform) -> Iterator[Finding]:
    """How far the clocks are apart; one that cannot be asked is no matter of this check."""
    asked = []
    for whose, clock in _clocks(platform):
        with suppress(IonbeamError, OSError, httpx.HTTPError, LookupError, ValueError):
            difference = _ahead(clock)
            asked.append(whose)
            if abs(difference) > APART:
                way = "behind" if difference > timedelta(0) else "ahead of"
                words = f"this host's clock is {in_short(abs(difference))} {way} that of {whose}"
                severity: Severity = "error" if abs(difference) > agenda.SKEW else "warning"
                remedy = "set both by NTP (`timedatectl status`), then `ionbeam doctor` again"
                yield Finding(SUBJECT, severity, words, remedy)
    own = "; a disk of this host has no other clock than this" if all(map(_is_disk, asked)) else ""
    yield Finding(SUBJECT, "well", f"compared with {', '.join(asked) or 'nothing'}{own}")


def _is_disk(whose: str) -> bool:
    return whose.startswith(_DISK)


def _clocks(platform: Platform) -> Iterator[tuple[str, Callable[[], datetime]]]:
    """Whose clocks there are, and what asks each."""
    sections = platform.config.sections
    for folder in {folder.stat().st_dev: folder for folder in local_places(platform)}.values():
        yield f"{_DISK} {folder}", partial(_time_of_disk, folder)
    if sections.redis is not None:
        from ionbeam_dagster.stores.ledger.redis_server import time_of_redis  # its client takes long to import

        yield "Redis", partial(time_of_redis, sections.redis.address)
    if sections.influxdb_common is not None:
        yield (
            "InfluxDB",
            partial(_time_of_web, f"{sections.influxdb_common.influxdb_url}/ping", sections.influxdb_common),
        )
    if any(map(is_address, places(platform))):
        yield "S3", partial(_time_of_web, sections.s3.endpoint or _AWS, TlsSettings(ca_file=sections.s3.ca_file))
    if sections.broker is not None:
        yield "the broker", partial(time_of_broker, sections.broker)


def _ahead(clock: Callable[[], datetime]) -> timedelta:
    """How far a clock is ahead of ours (below zero: behind) for certain, however long it took to answer."""
    before, theirs, after = now(), clock(), now()
    return max(theirs - after, timedelta(0)) + min(theirs + _WHOLE - before, timedelta(0))


def _time_of_disk(folder: Path) -> datetime:
    probe = folder / ".ionbeam-clock"
    try:
        probe.write_bytes(b"")
        return datetime.fromtimestamp(probe.stat().st_mtime, UTC)
    finally:
        probe.unlink(missing_ok=True)


def _time_of_web(url: str, tls: TlsSettings) -> datetime:
    verify = tls.context() if tls.has_files else True
    return parsedate_to_datetime(httpx.head(url, timeout=_PATIENCE, verify=verify).headers["Date"])


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
