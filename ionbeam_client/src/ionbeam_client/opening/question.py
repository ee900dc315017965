"""What is asked of a dataset: when, where, which stations, how good.

Belongs here: reading what a caller gave, each fault with a sentence that says what would be right. Does not belong
here: columns (columns.py), or files.

A time is as in the service's parameter ``datetime``: both ends count, a date is all of that day, and a text without a
zone is UTC. A box is west, south, east, north in degrees; where west is greater than east it crosses the date line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_client.opening.errors import OpenError

Moment = datetime | date | str | None
Time = str | tuple[Moment, Moment] | slice | None
Box = tuple[float, float, float, float]
Quality = Literal["good"] | None

GOOD = 1
"""QARTOD's flag of a value that passed its tests."""
_DAY = timedelta(days=1) - timedelta.resolution
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_RIGHT = "right would be '2022-12-31', '2022-12-31T06:00Z/2022-12-31T12:00Z', or (start, end) with None for an open end"


@dataclass(frozen=True, slots=True)
class Question:
    """`start` and `end` are microseconds since 1970, both included; None leaves a side open."""

    start: int | None = None
    end: int | None = None
    bbox: Box | None = None
    stations: tuple[str, ...] | None = None
    good_only: bool = False

    def concerns(self, start: int, end: int) -> bool:
        """Whether a window [start, end) has a moment that is asked for."""
        return (self.start is None or end > self.start) and (self.end is None or start <= self.end)

    def conditions(self, start: int, end: int) -> list[pc.Expression]:
        """What has to be true of a row of the window [start, end); without what all of its rows are."""
        found = []
        if self.start is not None and self.start > start:
            found.append(pc.field("datetime") >= _moment(self.start))
        if self.end is not None and self.end < end - 1:
            found.append(pc.field("datetime") <= _moment(self.end))
        if self.bbox is not None:
            west, south, east, north = self.bbox
            lon, lat = pc.field("lon"), pc.field("lat")
            inside = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
            found += [inside, lat >= south, lat <= north]
        if self.stations is not None:
            found.append(pc.field("station_id").isin(pa.array(self.stations, pa.string())))
        return found


def question_of(
    time: Time = None, bbox: Sequence[float] | None = None, stations: str | Sequence[str] | None = None,
    quality: str | None = None,
) -> Question:  # fmt: skip
    """Raises OpenError where one of them cannot be understood."""
    if quality not in (None, "good"):
        raise OpenError(f"quality={quality!r} is not known; right would be 'good', or None for every value")
    start, end = _range(time)
    if start is not None and end is not None and start > end:
        raise OpenError(f"time={time!r} ends before it begins")
    named = None if stations is None else (stations,) if isinstance(stations, str) else tuple(map(str, stations))
    return Question(start, end, None if bbox is None else _box(bbox), named, quality == "good")


def _moment(micros: int) -> pa.Scalar:
    return pa.scalar(micros, pa.timestamp("us", "UTC"))


def _range(time: Time) -> tuple[int | None, int | None]:
    first: Any
    last: Any
    if time is None:
        return None, None
    if isinstance(time, slice):
        first, last = time.start, time.stop
    elif isinstance(time, tuple | list) and len(time) == 2:
        first, last = time
    elif isinstance(time, str) and time.count("/") == 1:
        first, last = time.split("/")
    elif isinstance(time, str | date) or _is_numpy(time):
        first = last = time
    else:
        raise OpenError(f"time={time!r:.80} is no time; {_RIGHT}")
    return _micros(first, last=False), _micros(last, last=True)


def _micros(given: Any, last: bool) -> int | None:
    if given is None or given in ("", ".."):
        return None
    if _is_numpy(given):
        given = str(given)
    if isinstance(given, str):
        found = _read(given.strip())
        whole_day = _DATE.fullmatch(given.strip()) is not None
    elif isinstance(given, datetime):
        if given.tzinfo is None:
            raise OpenError(f"time={given.isoformat()} has no time zone: give it one, such as tzinfo=UTC")
        found, whole_day = given, False
    elif isinstance(given, date):
        found, whole_day = datetime(given.year, given.month, given.day, tzinfo=UTC), True
    else:
        raise OpenError(f"time={given!r:.80} is no time; {_RIGHT}")
    if last and whole_day:
        found += _DAY
    return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta.resolution


def _read(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise OpenError(f"time={text[:80]!r} is no time; {_RIGHT}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _is_numpy(given: object) -> bool:
    return type(given).__module__ == "numpy"


def _box(given: Sequence[float]) -> Box:
    try:
        west, south, east, north = map(float, given)
        fits = all(map(math.isfinite, (west, south, east, north)))
    except (TypeError, ValueError):
        fits = False
    if not fits or not -90 <= south <= north <= 90 or not (-180 <= west <= 180 and -180 <= east <= 180):
        raise OpenError(
            f"bbox={given!r:.80} is not (west, south, east, north) in degrees; right would be (4.5, 51, 6, 53)"
        )
    return west, south, east, north
