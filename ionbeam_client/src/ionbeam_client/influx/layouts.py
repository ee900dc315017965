"""Times and durations in the notation of Go, which annotated CSV takes over: `dateTime:2006-01-02`, `1h30m`.

Belongs here: reading them, exact to the nanosecond. Does not belong here: RFC 3339 and what Python has (times.py).
Source: the documentation of Go's package time, "Layout" and "ParseDuration".
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache

from ionbeam_client.influx.times import SECOND, from_datetime

_MONTHS = [calendar.month_name[number].lower() for number in range(1, 13)]
_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_H = r"[+-]\d\d"  # hours of an offset from UTC
_TOKENS = [  # the longer ones first
    ("January", rf"(?P<month_name>{'|'.join(_MONTHS)})"),
    ("Monday", rf"(?:{_DAYS})"),
    ("Jan(?![a-z])", rf"(?P<month_name>{'|'.join(name[:3] for name in _MONTHS)})"),
    ("Mon(?![a-z])", rf"(?:{'|'.join(name[:3] for name in _DAYS.split('|'))})"),
    ("MST", r"(?P<zone>[A-Za-z]{3,5})"),
    ("2006", r"(?P<year>\d{4})"),
    ("_2(?!006)", r" ?(?P<day>\d{1,2})"),
    ("002", r"(?P<day_of_year>\d{3})"),
    ("01", r"(?P<month>\d\d)"),
    ("02", r"(?P<day>\d\d)"),
    ("03", r"(?P<hour12>\d\d)"),
    ("04", r"(?P<minute>\d\d)"),
    ("05", r"(?P<second>\d\d)"),
    ("06", r"(?P<short_year>\d\d)"),
    ("15", r"(?P<hour>\d{1,2})"),
    ("1", r"(?P<month>\d{1,2})"),
    ("2", r"(?P<day>\d{1,2})"),
    ("3", r"(?P<hour12>\d{1,2})"),
    ("4", r"(?P<minute>\d{1,2})"),
    ("5", r"(?P<second>\d{1,2})"),
    ("PM", r"(?P<half>AM|PM)"),
    ("pm", r"(?P<half>am|pm)"),
    ("Z070000", rf"(?P<offset>Z|{_H}\d\d\d\d)"),
    ("Z07:00:00", rf"(?P<offset>Z|{_H}:\d\d:\d\d)"),
    ("Z07:00", rf"(?P<offset>Z|{_H}:\d\d)"),
    ("Z0700", rf"(?P<offset>Z|{_H}\d\d)"),
    ("Z07", rf"(?P<offset>Z|{_H})"),
    ("-070000", rf"(?P<offset>{_H}\d\d\d\d)"),
    ("-07:00:00", rf"(?P<offset>{_H}:\d\d:\d\d)"),
    ("-07:00", rf"(?P<offset>{_H}:\d\d)"),
    ("-0700", rf"(?P<offset>{_H}\d\d)"),
    ("-07", rf"(?P<offset>{_H})"),
    (r"[.,]0+(?!\d)", ""),
    (r"[.,]9+(?!\d)", ""),
]
_TOKEN = re.compile("|".join(f"({token})" for token, _ in _TOKENS))
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 1e3, "µs": 1e3, "μs": 1e3, "ms": 1e6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


def read_time(text: str, layout: str, zone: tzinfo) -> int:
    """Nanoseconds since 1970 of a text in a layout; `zone` is that of a text without an offset.

    Raises:
        ValueError: the text is not in that layout, or is no time of the calendar.
    """
    found = _pattern(layout).fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} does not look like {layout!r}")
    parts = {name: value for name, value in found.groupdict().items() if value is not None}
    try:
        moment = datetime(*_date(parts), _hour(parts), int(parts.get("minute", 0)), int(parts.get("second", 0)))
    except ValueError as error:
        raise ValueError(f"{text!r} is no time of the calendar: {error}") from None
    fraction = int(parts.get("fraction", "0")[:9].ljust(9, "0"))
    if offset := parts.get("offset"):
        return from_datetime(moment) - _seconds(offset) * SECOND + fraction
    return from_datetime(moment if "zone" in parts else moment.replace(tzinfo=zone)) + fraction


def read_duration(text: str) -> int:
    """Nanoseconds of a duration such as `1h30m`, `-1.5s`, `2us`, `0`.

    Raises:
        ValueError: it is not a duration.
    """
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    parts = _DURATION.findall(rest)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != rest:
        raise ValueError(f"{text!r} is not a duration such as 1h30m or 250ms")
    return sign * sum(int(Decimal(number) * int(_UNITS[unit])) for number, unit in parts)


@lru_cache(maxsize=100)
def _pattern(layout: str) -> re.Pattern[str]:
    made, place, seen = "", 0, set()
    for token in _TOKEN.finditer(layout):
        made += re.escape(layout[place : token.start()])
        place = token.end()
        if token[0][0] in ".,":
            digits = r"\d+" if token[0][1] == "9" else rf"\d{{{len(token[0]) - 1}}}"
            one = rf"(?:[.,](?P<fraction>{digits}))" + ("?" if token[0][1] == "9" else "")
        else:
            one = _TOKENS[(token.lastindex or 1) - 1][1]
            if "<second>" in one and not re.match(r"[.,](0+|9+)(?!\d)", layout[place:]):
                one += r"(?:[.,](?P<fraction>\d+))?"  # a fraction is always read after seconds
        name = re.search(r"\?P<(\w+)>", one)
        made += one.replace(f"?P<{name[1]}>", "?:") if name and name[1] in seen else one
        seen |= {name[1]} if name else set()
    return re.compile(made + re.escape(layout[place:]), re.ASCII | re.IGNORECASE)


def _date(parts: dict[str, str]) -> tuple[int, int, int]:
    if "year" in parts:
        year = int(parts["year"])
    elif "short_year" in parts:
        short = int(parts["short_year"])
        year = short + (1900 if short >= 69 else 2000)
    else:
        raise ValueError("there is no year")
    if "day_of_year" in parts:
        day = datetime(year, 1, 1) + timedelta(days=int(parts["day_of_year"]) - 1)
        if day.year != year:
            raise ValueError("day of year is out of range")
        return year, day.month, day.day
    if "month_name" in parts:
        name = parts["month_name"].lower()
        month = next(number for number, full in enumerate(_MONTHS, 1) if full.startswith(name))
    else:
        month = int(parts.get("month", 1))
    return year, month, int(parts.get("day", 1))


def _hour(parts: dict[str, str]) -> int:
    if "hour" in parts:
        return int(parts["hour"])
    hour = int(parts.get("hour12", 0))
    if hour > 12:
        raise ValueError("hour must be in 0..12")
    half = parts.get("half", "").upper()
    if half == "PM" and hour < 12:
        return hour + 12
    return 0 if half == "AM" and hour == 12 else hour


def _seconds(offset: str) -> int:
    if offset in "Zz":
        return 0
    digits = offset[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 24 or minutes > 59 or seconds > 59:
        raise ValueError(f"{offset} is not an offset from UTC")
    return (hours * 3600 + minutes * 60 + seconds) * (-1 if offset[0] == "-" else 1)
