"""Times as InfluxDB keeps them, whole nanoseconds since 1970, from and to everything that programs have.

Belongs here: conversions of times, exact to the nanosecond. Does not belong here: layouts of foreign CSV files
(layouts.py).

What is the difference between ISO 8601 and RFC 3339? ISO 8601 has very many forms: dates alone, weeks and ordinal
days, basic forms without separators, times without an offset. RFC 3339 is the one form for the internet: date, time and
offset are always there (`2026-11-30T05:45:00.25Z`). Every text of `to_rfc3339` is also ISO 8601; `from_iso8601` reads
more than `from_rfc3339`, but has to be told what a time without an offset means.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

SECOND = 1_000_000_000
LONG_AGO = 32 * 86_400 * SECOND
"""Times nearer to 1970 than this many ns are doubtful: s, ms or us of our years look so in the next finer unit."""

PRECISIONS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND}
"""Nanoseconds of one unit of each write precision."""

EARLIEST, LATEST = -(2**63) + 2, 2**63 - 2
"""What InfluxDB can store: 1677-09-21 to 2262-04-11."""

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)
_FRACTION = re.compile(r"^(.*\d)[.,](\d+)(.*)$")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 text, exact to the nanosecond.

    Raises:
        ValueError: the text is not RFC 3339, or is no time of the calendar (a leap second is not: InfluxDB has none).
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2026-11-30T05:45:00.25Z")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, _, sign, hours, minutes = found.groups()[6:]
    try:
        datetime(year, month, day, hour, minute, second)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time of the calendar: {error}") from None
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError(f"{text!r} has an offset that does not exist")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += offset if sign == "-" else -offset
    return seconds * SECOND + _nanoseconds(fraction, text)


def from_iso8601(text: str, zone: tzinfo | None = None) -> int:
    """Nanoseconds since 1970 of any ISO 8601 date or time that Python reads, exact to the nanosecond.

    `zone` is that of a time without an offset; without it such a time is a ValueError, because nobody can know.
    """
    found = _FRACTION.match(text)
    whole, fraction, rest = found.groups() if found else (text, None, "")
    try:
        moment = datetime.fromisoformat(whole + rest)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 time") from None
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError(f"{text!r} has no offset from UTC: give `zone`, or end it with Z")
        moment = moment.replace(tzinfo=zone)
    return from_datetime(moment) + _nanoseconds(fraction, text)


def to_rfc3339(time: int) -> str:
    """The RFC 3339 text (which is ISO 8601 too), in UTC, of nanoseconds since 1970; 0, 3, 6 or 9 decimals."""
    seconds, rest = divmod(time, SECOND)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{rest:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def from_datetime(moment: datetime) -> int:
    """Nanoseconds since 1970; a datetime without a zone is UTC, as in InfluxDB's own client."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - _EPOCH
    nanosecond = getattr(moment, "nanosecond", 0)  # pandas' Timestamp has more digits than a datetime
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds * 1_000 + nanosecond


def to_datetime(time: int) -> datetime:
    """An aware datetime in UTC; what is finer than a microsecond is cut off."""
    return _EPOCH + timedelta(microseconds=time // 1_000)


def to_nanoseconds(time: Any, precision: str = "ns", zone: tzinfo | None = None) -> int:
    """What a program gives as a time, in nanoseconds since 1970.

    Integers count units of `precision` (ns, us, ms, s); so do floats and decimals, fractions of which are kept to the
    nanosecond. Texts are RFC 3339 or ISO 8601, in `zone` (UTC when None) where they have no offset. Datetimes likewise.

    Raises:
        ValueError: it is no time, is finer than a nanosecond, or InfluxDB cannot store it (before 1677 or after 2262).
    """
    found = _nanoseconds_of(time, PRECISIONS[precision], zone or UTC)
    if not EARLIEST <= found <= LATEST:
        raise ValueError(
            f"{time!r} lies outside of what InfluxDB stores, 1677 to 2262: is the unit right? ({precision})"
        )
    return found


def _nanoseconds_of(time: Any, unit: int, zone: tzinfo) -> int:
    if isinstance(time, bool) or time is None:
        raise ValueError(f"{time!r} is not a time")
    if isinstance(time, int):
        return time * unit
    if isinstance(time, str):
        return from_iso8601(time, zone)
    if isinstance(time, datetime):
        if time != time:  # pandas' NaT
            raise ValueError("NaT is not a time")
        return from_datetime(time if time.tzinfo else time.replace(tzinfo=zone))
    if isinstance(time, date):
        return from_datetime(datetime(time.year, time.month, time.day, tzinfo=zone))
    if isinstance(time, float | Decimal):
        if not Decimal(time).is_finite():
            raise ValueError(f"{time!r} is not a time")
        exact = Decimal(repr(float(time)) if isinstance(time, float) else time) * unit
        if exact != int(exact) and (unit == 1 or isinstance(time, Decimal)):  # floats of other units are never exact
            raise ValueError(f"{time!r} is finer than a nanosecond: is the unit right?")
        return int(exact)
    if hasattr(time, "item"):  # NumPy's scalars
        if type(time).__name__ == "datetime64":
            return int(time.astype("datetime64[ns]").astype("int64"))
        return _nanoseconds_of(time.item(), unit, zone)
    raise ValueError(f"{time!r} is not a time")


def precision_of(given: Any) -> str:
    """A write precision (ns, us, ms, s), which is given as a text or as an Enum of texts.

    Raises:
        ValueError: there is no such precision.
    """
    name = str(getattr(given, "value", given))
    if name not in PRECISIONS:
        raise ValueError(f"write_precision is {name!r}; it has to be one of {', '.join(PRECISIONS)}")
    return name


def zone_of(name: str | tzinfo | None) -> tzinfo | None:
    """A time zone by its IANA name."""
    if name is None or isinstance(name, tzinfo):
        return name
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError):
        raise ValueError(f"{name!r} is not a time zone") from None


def _nanoseconds(fraction: str | None, text: str) -> int:
    if fraction is None:
        return 0
    if len(fraction) > 9 and fraction[9:].strip("0"):
        raise ValueError(f"{text!r} is finer than a nanosecond")
    return int(fraction[:9].ljust(9, "0"))
