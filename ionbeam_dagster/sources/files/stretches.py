"""Stretches of time: a row or a few that stand alone a year before all others are no beginning of a series, and where
no row stands for a week nothing is to be collected.

Belongs here: telling the rows of a clock that was not set yet (loggers begin in 1970, 1980 or 2000 after a power cut)
from those of a series, and the holes of a series. Does not belong here: which files have which times (index.py). Times
are in microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

import numpy as np
import polars as pl

Stretch = tuple[int, int]
"""The first and the last time of rows between which no long time lies without any."""

APART = timedelta(days=365) // timedelta.resolution
ALONE = timedelta(days=1) // timedelta.resolution
HOLE = timedelta(days=7) // timedelta.resolution


def stretches_of(times: pl.Series, apart: int = APART) -> list[Stretch]:
    """The stretches of times without nulls, in order; more than `apart` lies between two."""
    known = np.sort(times.to_physical().to_numpy())
    breaks = np.flatnonzero(np.diff(known) > apart)
    firsts, lasts = known[[0, *(breaks + 1)]], known[[*breaks, len(known) - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def joined(stretches: Iterable[Stretch], apart: int = APART) -> list[Stretch]:
    """The stretches of all rows of which these are the stretches of some; more than `apart` lies between two."""
    found: list[Stretch] = []
    for first, last in sorted(stretches):
        if found and first - found[-1][1] <= apart:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def beginning(stretches: Sequence[Stretch], latest: int) -> int | None:
    """The first time of a series; those that stand alone before it, for less than a day, are left out, and so are those
    that begin after `latest`, where there are others."""
    believed = [stretch for stretch in stretches if stretch[0] <= latest] or stretches
    for first, last in believed[:-1]:
        if last - first >= ALONE:
            return first
    return believed[-1][0] if believed else None
