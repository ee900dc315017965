"""Windows of a dataset, wherever they are: what is known of one by its name, and what can be done with them.

Belongs here: what places.py and service.py have in common. Does not belong here: either of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ionbeam_client.models import parse_duration


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A window [start, end) in microseconds since 1970, its `name`, and where its `file` is."""

    start: int
    end: int
    name: str
    file: str


class Windows(Protocol):
    """The windows of one dataset."""

    dataset: str
    at_once: int
    """How many are worth being read side by side."""

    def listed(self) -> list[Window]:
        """All of them, in order of time. Raises OpenError."""
        ...

    def about(self) -> dict[str, Any]:
        """What a service says of the dataset beside its windows. Raises OpenError."""
        ...

    def opened(self, window: Window) -> Any:
        """A context manager that gives a file of Arrow's to read a window from.

        Raises FileNotFoundError where it is gone, and Replaced, also at its end, where it became another meanwhile.
        """
        ...


def window_of(name: str, file: str) -> Window | None:
    """The window ``<YYYYmmddTHHMMSS>_<span>``; None for any other name."""
    start, _, span = name.partition("_")
    try:
        begun = datetime.strptime(start, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        length = parse_duration(span)
    except ValueError:
        return None
    micros = int(begun.timestamp()) * 1_000_000
    return Window(micros, micros + int(length.total_seconds()) * 1_000_000, name, file)
