"""Times and windows as ledgers keep them: in whole microseconds since 1970.

Belongs here: their way there and back, as numbers (SQLite) and as text (Redis: ``<start>:<end>``). Does not belong
here: records.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ionbeam_dagster.domain.windows import EPOCH, Window

KEPT_FOR = timedelta(days=30)
"""For so long it is remembered what only spares a repetition: ids of commands, requests and replays that were answered.

No message is delivered again after that. (What a raw file or a claim tells of a command is known without an end.)
"""


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def milliseconds(moment: datetime) -> int:
    return micros(moment) // 1000


def moment(micros: int) -> datetime:
    return (EPOCH + timedelta(microseconds=micros)).astimezone(UTC)


def ends_of(window: Window) -> tuple[int, int]:
    return micros(window.start), micros(window.end)


def window_from(start: int, end: int) -> Window:
    return Window(moment(start), moment(end))


def place_of(window: Window) -> str:
    return f"{micros(window.start)}:{micros(window.end)}"


def window_at(place: str) -> Window:
    start, end = place.split(":")
    return window_from(int(start), int(end))
