"""Windows of time, and interval arithmetic.

Belongs here: ranges of time and what can be said of them alone. Does not belong here: what was collected of a window
(records.py), or whether one can be built (decisions.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ionbeam_client.models import format_duration, parse_duration

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
"""Where a range ends that has no end."""
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
KEY_FORMAT = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, order=True, slots=True)
class Window:
    """The half-open range [start, end), in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"a window must end after it starts: {self.start} .. {self.end}")

    @property
    def span(self) -> timedelta:
        return self.end - self.start

    @property
    def key(self) -> str:
        """The start as ``YYYYmmddTHHMMSS``: partition key and part of file names, sorted as time is."""
        return self.start.strftime(KEY_FORMAT)

    @property
    def label(self) -> str:
        """``<key>_<span>``, as it stands in file names."""
        return f"{self.key}_{format_duration(self.span)}"

    @property
    def as_options(self) -> str:
        """``--from ... --to ...``, as the commands take a range."""
        return f"--from {_as_option(self.start)} --to {_as_option(self.end)}"

    def overlaps(self, other: Window) -> bool:
        return self.start < other.end and other.start < self.end

    def covers(self, other: Window) -> bool:
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M}-{self.end:%H:%M}" if self.span < DAY else f"{self.start:%Y-%m-%d %H:%M}"


def _as_option(moment: datetime) -> str:
    precision = "auto" if moment.second or moment.microsecond else "minutes"
    return f"{moment.replace(tzinfo=None).isoformat(timespec=precision)}Z"


def check_span(span: timedelta) -> None:
    """Refuse a span that cannot be a partition: it must divide an hour, a day, or be a day or a week.

    Raises ValueError that names the spans that would do.
    """
    if span <= timedelta(0) or span % timedelta(minutes=1):
        fits = False
    elif span <= HOUR:
        fits = HOUR % span == timedelta(0)
    else:
        fits = span == WEEK or (span % HOUR == timedelta(0) and DAY % span == timedelta(0))
    if not fits:
        raise ValueError(
            f"{format_duration(span)} cannot be a partition; use whole minutes that divide an hour (PT5M, PT10M, "
            "PT15M, ...), whole hours that divide a day (PT1H, PT3H, PT6H, ...), P1D or P7D"
        )


def window_of(moment: datetime, span: timedelta) -> Window:
    """The window of `span` that holds `moment`: aligned to the Unix epoch, weeks to Monday."""
    origin = MONDAY if span == WEEK else EPOCH
    start = origin + (moment - origin) // span * span
    return Window(start, start + span)


def parts_of(window: Window, longest: timedelta) -> Iterator[Window]:
    """`window` in parts of `longest`, the last one perhaps shorter."""
    start = window.start
    while start < window.end:
        part = Window(start, min(start + longest, window.end))
        yield part
        start = part.end


def windows_between(start: datetime, end: datetime, span: timedelta) -> Iterator[Window]:
    """Every window of `span` that overlaps [start, end), in order."""
    window = window_of(start, span)
    while window.start < end:
        yield window
        window = Window(window.end, window.end + span)


def window_from_key(key: str, span: timedelta) -> Window:
    """The window whose partition key is `key`; raises ValueError when the key is none."""
    start = datetime.strptime(key, KEY_FORMAT).replace(tzinfo=UTC)
    return Window(start, start + span)


def window_from_label(label: str) -> Window:
    """The window whose label stands in a file's name; raises ValueError when it is none."""
    key, _, span = label.partition("_")
    return window_from_key(key, parse_duration(span))


def merge(intervals: Iterable[Window]) -> list[Window]:
    """The union of `intervals`: sorted, disjoint, with touching ones joined."""
    merged: list[Window] = []
    for interval in sorted(intervals):
        if merged and interval.start <= merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return merged


def gaps(window: Window, collected: Iterable[Window]) -> list[Window]:
    """The parts of `window` that none of `collected` covers, in order."""
    missing: list[Window] = []
    reached = window.start
    for interval in merge(collected):
        if interval.end <= window.start:
            continue
        if interval.start >= window.end:
            break
        if interval.start > reached:
            missing.append(Window(reached, interval.start))
        reached = max(reached, interval.end)
    if reached < window.end:
        missing.append(Window(reached, window.end))
    return missing


def common(first: Iterable[Window], second: Iterable[Window]) -> list[Window]:
    """The time that lies in windows of both, in order."""
    others = list(second)
    return [part for one in merge(first) for part in gaps(one, gaps(one, others))]


def overlaps(window: Window, collected: Iterable[Window]) -> list[Window]:
    """The parts of `window` that more than one of `collected` covers, in order."""
    twice: list[Window] = []
    reached = window.start
    for interval in sorted(collected):
        start, end = max(interval.start, window.start), min(interval.end, window.end)
        if start < min(reached, end):
            twice.append(Window(start, min(reached, end)))
        reached = max(reached, end)
    return merge(twice)
