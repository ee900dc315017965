"""Moments and durations as people write them: a moment without a zone is in UTC, and a duration is ISO 8601.

Belongs here: that rule, which stands nowhere else, and the types of moments and durations in the YAML. Does not belong
here: windows (windows.py), times in columns of observations (raw_values.py), or how ISO 8601 durations are read and
written (`ionbeam_client.models`, which clients need alone).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError, WithJsonSchema

from ionbeam_client.models import format_duration

_DURATION = TypeAdapter(timedelta)


def in_utc(moment: datetime) -> datetime:
    """`moment` in UTC, which is also meant where it has no zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def parse_moment(text: str) -> datetime:
    """An ISO 8601 time, or a date, which is its midnight; raises ValueError that says what would be right."""
    try:
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not an ISO 8601 time; right would be, for example, 2026-06-21T06:00Z") from None


def in_short(duration: timedelta) -> str:
    """A duration that is not negative as people say it, in its two largest units: ``3 h 20 min``."""
    left, parts = round(duration.total_seconds()), []
    for seconds, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def duration_or(*words: str) -> BeforeValidator:
    """Takes one of `words`, or a duration; for the YAML."""

    def read(given: object) -> object:
        if given in words or isinstance(given, timedelta):
            return given
        try:
            return _DURATION.validate_python(given)
        except ValidationError:
            raise ValueError(
                f"{given!r} is neither {' nor '.join(words)} nor a duration; right would be, for example, PT10M"
            ) from None

    return BeforeValidator(read)


def _at_midnight(given: object) -> object:
    return datetime.combine(given, time()) if isinstance(given, date) and not isinstance(given, datetime) else given


def _not_negative(duration: timedelta) -> timedelta:
    if duration < timedelta(0):
        raise ValueError(f"{format_duration(duration)} is negative; right would be, for example, PT0S, PT30M or P30D")
    return duration


_WRITTEN = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"

Moment = Annotated[
    datetime,
    BeforeValidator(_at_midnight),
    AfterValidator(in_utc),
    WithJsonSchema({"type": "string", "pattern": _WRITTEN}),
]
"""A moment in the YAML: in UTC unless it says otherwise; a date is its midnight."""

NonNegativeDuration = Annotated[timedelta, AfterValidator(_not_negative)]
"""A duration in the YAML that may be nothing, but not negative."""
