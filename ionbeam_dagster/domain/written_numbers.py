"""Numbers of the YAML that are written otherwise than they are shown: 0x1F, 1_000, 1.10.

Belongs here: remembering how they were written, for whoever wants a text. Does not belong here: reading the YAML
(config/reading.py), and numbers of which YAML makes another one (there they are refused).
"""

from __future__ import annotations

import re
from typing import Any

_DECIMAL = re.compile(r"[-+]?\d+\.?\d*")


class _Whole(int):
    written: str


class _Fraction(float):
    written: str


def as_written(number: float, text: str) -> float:
    """A number that knows how it was written, where that is not as it is shown."""
    if str(number) == text:
        return number
    known = _Whole(number) if isinstance(number, int) else _Fraction(number)
    known.written = text
    return known


def same_as_text(given: Any) -> Any:
    """What was given, be it no number. Raises ValueError for a number that would be another text than was written."""
    written = getattr(given, "written", None)
    if written is not None:
        raise ValueError(f"YAML reads {written} as {given}; write '{written}', in quotes")
    return given


def same_as_number(given: Any) -> Any:
    """The same, where 1.10 may be 1.1, but 0x1F not 31."""
    return given if _DECIMAL.fullmatch(getattr(given, "written", "0")) else same_as_text(given)
