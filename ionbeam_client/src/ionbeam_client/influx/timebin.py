"""Values at any times become means over exact time bins.

Belongs here: the binning of one series. Does not belong here: writing what comes out.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import overload

LONGEST_GAP = 1_000_000
"""Bins that one point may fill: a clock that jumps by decades would otherwise fill the memory with bins."""


class TimeBin:
    """The time-weighted mean of a step function over bins of `interval` seconds that begin at whole multiples of it.

    A point's value stands for the time from the point before it until its own; the first point's for the time from the
    beginning of its bin. A bin is complete as soon as a point reaches its end.

        >>> bins = TimeBin(1.0)
        >>> for time, value in [(0.1, 100), (0.6, 200), (1.1, 100)]: bins.point(time, value)
        >>> bins.gettuples()
        [(0.0, 150.0)]
    """

    def __init__(self, interval: float = 1.0) -> None:
        """`interval` in seconds, greater than zero; anything else is a ValueError."""
        if not (math.isfinite(interval) and interval > 0):
            raise ValueError(f"interval is {interval}; it has to be a positive number of seconds")
        self.interval = interval
        self._step = _exact(interval)
        self._bin = 0
        self._last: Fraction | None = None
        self._complete: list[tuple[float, float]] = []
        self.value = 0.0
        """What the bin that is being filled has so far: the integral over its time until now, divided by `interval`."""

    def point(self, time: float, value: float) -> None:
        """Add a value at `time` (s since 1970-01-01T00:00Z).

        Raises:
            ValueError: `time` is no finite number, is earlier than the point before, or lies more than a million bins
                after it (a clock that was set); nothing changes then.
        """
        if not math.isfinite(time):
            raise ValueError(f"time is {time}; it has to be a finite number of seconds")
        exact = _exact(time)
        reached = math.floor(exact / self._step)
        if self._last is None:
            self._bin, self._last = reached, reached * self._step
        if exact < self._last:
            raise ValueError(f"time {time} is earlier than {float(self._last)}, the time of the point before it")
        if reached - self._bin > LONGEST_GAP:
            raise ValueError(
                f"time {time} lies {reached - self._bin} bins after the point before it: if the clock was set, begin "
                "with a new TimeBin"
            )
        while self._bin < reached:
            end = (self._bin + 1) * self._step
            self._add(end, value)
            self._complete.append((float(self._bin * self._step), self.value))
            self._bin, self.value = self._bin + 1, 0.0
        self._add(exact, value)

    def _add(self, until: Fraction, value: float) -> None:
        assert self._last is not None
        self.value += float((until - self._last) / self._step) * value if until > self._last else 0.0
        self._last = until

    @overload
    def gettuples(self, path: None = None) -> list[tuple[float, float]]: ...

    @overload
    def gettuples(self, path: str) -> list[tuple[str, tuple[float, float]]]: ...

    def gettuples(self, path: str | None = None) -> list[tuple[float, float]] | list[tuple[str, tuple[float, float]]]:
        """The bins that are complete since the last call, as (beginning of the bin in s, mean); none of them twice.

        With `path` (the name of a series) each is (path, (beginning, mean)).
        """
        complete, self._complete = self._complete, []
        return complete if path is None else [(path, one) for one in complete]


def _exact(number: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth, so that the third bin of 0.1 s begins at 0.3."""
    return Fraction(Decimal(repr(float(number)))) if not isinstance(number, int) else Fraction(number)
