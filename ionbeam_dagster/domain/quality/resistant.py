"""The resistant buddy test: a value against the median of its neighbours, in rounds, so that shared errors do not hide.

Belongs here: that test, on arrays, one element a report, all of one moment and one quantity, and who is near whom,
which is found once for all moments and quantities of a window. Does not belong here: the tests that take means
(neighbours.py), which reports are compared, and with what limits (chain.py, limits.py).

A mean of neighbours follows the wrong ones, and their standard deviation grows with them: a tenth of Fahrenheit among
them, and nothing is found. The median and the median absolute deviation (MAD) stay where they are until nearly half of
the neighbours are wrong (Rousseeuw and Croux, 1993, doi:10.1080/01621459.1993.10476408). Each round listens to those
that passed the round before; a report that was wronged by its neighbours is listened to again once they have failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are first used, which a process that judges nothing does without

from ionbeam_dagster.domain.quality.neighbours import Bools, Floats, Ints, Outcome, Places, known_rows

_NORMAL = 1.4826
"""The standard deviation of normal errors over their MAD."""

_USUAL = 60.0
"""What half of the network says of the spread counts like so many neighbours: the MAD of a dozen is itself off by a
third. Where neighbours differ much more than elsewhere (beyond `_WIDER`), theirs alone counts."""

_WIDER = 1.2
_LIKE = 2.5
"""Neighbours within so many spreads of their median tell the value that is expected, by their mean: half as far off as
the median, and as hard to move."""

_FALSE, _PLAIN, _AT_REST, _KEENEST = 0.2, 5.0, 2.8, 1.2
"""See `_keenness`; what is further away than `_PLAIN` spreads is found anyway, and is no reason to be keener."""

_SLACK, _UNSTEADY, _FAR = 0.5, 0.3, 4.0
"""Of directions: the share of the usual speed below which none is expected; the least spread of a component, as a share
of it; and the spreads beyond which one is no longer listened to."""

_ROWS = 20_000
"""Places that are looked at at a time: some megabytes of neighbours."""

_SHARE = 0.5
"""A table of who is near whom serves for as long as so many of its places report."""


@dataclass(frozen=True)
class ResistantOutcome(Outcome):
    """What the test found of each report: how many neighbours it has, what they make expect at its height, and how many
    spreads the report is above that (negative: below; NaN where it was not tested)."""

    number: Ints
    expected: Floats
    deviation: Floats


class Nearness:
    """Who is near whom, kept from moment to moment and from quantity to quantity while the same places report.

    Of each place at most the `most` nearest within `radius` (m) are kept, none at exactly the same place, and of those
    told that report.
    """

    def __init__(self, radius: float, most: int) -> None:
        self._radius, self._most = radius, most
        self._keys: npt.NDArray[np.complex128] = np.zeros(0, np.complex128)
        self._near: npt.NDArray[np.int32] = np.zeros((0, most), np.int32)
        self._tree: scipy.spatial.KDTree | None = None

    def among(self, places: Places) -> npt.NDArray[np.int32]:
        """The nearest of `places`, no two the same, of each of them: their numbers, (n, most); -1: none."""
        keys = _keys(places)
        known = self._numbers(keys)
        if (known < 0).any() or keys.size < _SHARE * self._keys.size:
            self._learn(places, keys)
            known = self._numbers(keys)
        return self._told(known, self._near[known])

    def around(self, at: Places, places: Places) -> npt.NDArray[np.int32]:
        """The same of others, `at`, of whose stations none is near itself. `among` was asked of `places` before."""
        if not len(at) or self._tree is None:
            return np.full((len(at), self._most), -1, np.int32)
        near = self._query(at.xyz(), _keys(at))
        found = self._told(self._numbers(_keys(places)), near)
        own = (found >= 0) & (places.station[found] == at.station[:, None])
        return np.where(own, np.int32(-1), found)

    def _told(self, known: Ints, near: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Numbers in the table as numbers among the places whose numbers in the table are `known`."""
        number = np.full(self._keys.size + 1, -1, np.int32)  # the last for -1
        number[known] = np.arange(known.size, dtype=np.int32)
        return np.asarray(number[near])

    def _numbers(self, keys: npt.NDArray[np.complex128]) -> Ints:
        if not self._keys.size:
            return np.full(keys.size, -1)
        found = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        return np.where(self._keys[found] == keys, found, -1)

    def _learn(self, places: Places, keys: npt.NDArray[np.complex128]) -> None:
        together = np.union1d(self._keys, keys)
        self._keys = together if keys.size >= _SHARE * together.size else np.unique(keys)
        at = Places(self._keys.real, self._keys.imag, np.zeros(self._keys.size), np.zeros(self._keys.size, np.intp))
        xyz = at.xyz()
        self._tree = scipy.spatial.KDTree(xyz) if self._keys.size else None
        self._near = self._query(xyz, self._keys)

    def _query(self, xyz: Floats, keys: npt.NDArray[np.complex128]) -> npt.NDArray[np.int32]:
        near = np.full((keys.size, self._most), -1, np.int32)
        if self._tree is None:
            return near
        for first in range(0, keys.size, _ROWS):
            some = slice(first, first + _ROWS)
            _, found = self._tree.query(xyz[some], k=self._most + 1, distance_upper_bound=self._radius)
            found = np.where(found < self._keys.size, found, -1)
            here = (found >= 0) & (self._keys[found] == keys[some, None])
            order = np.argsort(here, axis=1, kind="stable")[:, : self._most]  # the place itself goes last
            near[some] = np.take_along_axis(np.where(here, -1, found), order, axis=1)
        return near


class Resistant:
    """The resistant buddy test of the reports that are listened to in one moment.

    `places` and `values` are of the reports that are listened to, one of each place. A report fails when it is more
    than `threshold` spreads from what its neighbours make expect, with at least `num_min` of them: the mean of those
    near their median. A spread is their MAD, steadied by what it is in the whole network, at least `min_spread`. With a
    `gradient` (per m) neighbours are moved to the report's height, and those of unknown height are left out; a report
    whose own height is unknown is compared with all, as they are, and less strictly where their heights differ.
    Neighbours further than `max_height_difference` (m) above or
    below are left out.
    """

    def __init__(
        self,
        nearness: Nearness,
        places: Places,
        values: Floats,
        *,
        num_min: int,
        threshold: float,
        max_height_difference: float,
        gradient: float,
        min_spread: float,
        rounds: int,
    ) -> None:
        self._nearness, self._places, self.values = nearness, places, values
        self._num_min, self._threshold, self._min_spread = num_min, threshold, min_spread
        self._gradient, self._most_apart = gradient, max_height_difference
        self.trusted: Bools = np.ones(values.size, np.bool_)
        self._keen = 1.0
        near = nearness.among(places)
        told = np.zeros((3, values.size), np.float32)
        asking = np.arange(values.size)
        for _ in range(rounds):
            told[:, asking] = self._told(near[asking], places.height[asking])
            self._usual = self._half_the_networks(told)
            trusted = ~self.judged(values, told).failed
            changed = np.append(trusted != self.trusted, False)  # the last for -1
            self.trusted = trusted
            if not changed.any():
                break
            asking = np.flatnonzero(changed[near].any(axis=1))
        self._known = told
        self._keen = _keenness(self.judged(values, told).deviation)

    def of(self, at: Places, values: Floats) -> ResistantOutcome:
        """What comes of reports with `values`, wherever they are."""
        return self.judged(values, self.told(at, known_rows(self._places, at)))

    def told(self, at: Places, known: Ints) -> npt.NDArray[np.float32]:
        """Number, expected value and spread of the neighbours of reports `at`, (3, reports).

        `known` says which of the reports that are listened to is of the same station and place; -1: none.
        """
        told = np.zeros((3, len(at)), np.float32)
        there, strange = np.flatnonzero(known >= 0), np.flatnonzero(known < 0)
        told[:, there] = self._known[:, known[there]]
        others = at.taken(strange)
        told[:, strange] = self._told(self._nearness.around(others, self._places), others.height)
        return told

    def judged(self, values: Floats, told: npt.NDArray[np.float32]) -> ResistantOutcome:
        """What comes of reports with `values` that were `told` this."""
        number, expected, spread = told.astype(np.float64)
        enough = number >= self._num_min
        steadied = np.sqrt((number * spread**2 + _USUAL * self._usual**2) / (number + _USUAL))
        widest = np.maximum(np.maximum(steadied, spread / _WIDER), self._min_spread)
        off = np.sqrt(1 + 1.57 / np.maximum(number, 1))  # a median of n is itself off by 1.25 over the root of n
        deviation = np.where(enough, self._keen * (values - expected) / (widest * off), np.nan)
        failed = enough & (np.abs(deviation) > self._threshold)
        return ResistantOutcome(enough, failed, number.astype(np.intp), np.where(enough, expected, np.nan), deviation)

    def _half_the_networks(self, told: npt.NDArray[np.float32]) -> float:
        number, _, spread = told
        enough = number >= self._num_min
        return float(np.median(spread[enough])) if enough.any() else 0.0

    def _told(self, near: npt.NDArray[np.int32], height: Floats) -> npt.NDArray[np.float32]:
        told = np.zeros((3, height.size), np.float32)
        listened = np.append(self.trusted, False)  # the last for -1
        for first in range(0, height.size, _ROWS):
            some = slice(first, first + _ROWS)
            told[:, some] = self._medians(near[some], height[some], listened)
        return told

    def _unsaid(self, height: Floats, of_neighbours: Floats) -> Floats:
        """What a report may be off for its height is unknown: it may be at any that its neighbours have."""
        off = np.zeros(height.size)
        unknown = np.flatnonzero(np.isnan(height))
        off[unknown] = abs(self._gradient) * _WIDER * _range(of_neighbours[unknown])
        return off

    def _medians(self, near: npt.NDArray[np.int32], height: Floats, listened: Bools) -> npt.NDArray[np.float32]:
        used = listened[near]
        values = self.values[near] if self.values.size else np.zeros(near.shape)
        if self._places.height.size:
            climb = height[:, None] - self._places.height[near]
            used &= ~(np.abs(climb) > self._most_apart)
            if self._gradient:
                unknown = np.isnan(climb)
                used &= ~unknown | np.isnan(height)[:, None]
                values = values + np.where(unknown, 0.0, self._gradient * climb)
        number = used.sum(axis=1)
        median = _median(np.where(used, values, np.inf), number)
        apart = np.where(used, np.abs(values - median[:, None]), np.inf)
        spread = _NORMAL * _median(apart, number)
        if self._gradient:
            spread = np.hypot(spread, self._unsaid(height, np.where(used, self._places.height[near], np.nan)))
        like = apart <= _LIKE * np.maximum(spread, self._min_spread)[:, None]
        expected = np.where(like, values, 0.0).sum(axis=1) / np.maximum(like.sum(axis=1), 1)
        return np.stack([number, expected, spread]).astype(np.float32)


class ResistantDirection:
    """The same test of directions: `values` are vectors (east of north, as complex numbers), whose median by component
    makes a direction expected.

    A direction is away by its angle (degrees) over `min_spread`. Where neighbours do not agree on one, or hardly
    move (`_SLACK` of their speed, or of one where none is known), it is not tested.
    """

    def __init__(
        self,
        nearness: Nearness,
        places: Places,
        values: npt.NDArray[np.complex128],
        *,
        threshold: float,
        min_spread: float,
        **limits: Any,
    ) -> None:
        self._threshold, self._min_spread = threshold, min_spread
        self._usual = float(np.median(np.abs(values))) if values.size else 0.0
        given = {"threshold": _FAR, "min_spread": self._usual * _UNSTEADY or 1.0, **limits}
        self._parts = [Resistant(nearness, places, part, **given) for part in (values.real, values.imag)]
        self.trusted: Bools = self._parts[0].trusted & self._parts[1].trusted

    def of(self, at: Places, values: npt.NDArray[np.complex128]) -> ResistantOutcome:
        """What comes of reports with `values`, wherever they are; what is expected is in degrees."""
        east, north = (part.of(at, some) for part, some in zip(self._parts, (values.real, values.imag), strict=True))
        expected = east.expected + 1j * north.expected
        applied = east.applied & (np.abs(expected) > _SLACK * self._usual)
        away = np.degrees(np.abs(np.angle(values * np.conj(expected))))
        deviation = np.where(applied, away / self._min_spread, np.nan)
        failed = applied & (deviation > self._threshold)
        return ResistantOutcome(applied, failed, east.number, np.degrees(np.angle(expected)) % 360, deviation)


def _keenness(deviation: Floats) -> float:
    """By how much deviations count for more where more of them stand out than chance lets: 1 to `_KEENEST`.

    In a network without errors one report in a hundred is 2.6 spreads away, and none of them is wrong; where ten are,
    nine are wrong. The limit is set where at most `_FALSE` of those beyond it are so by chance (Benjamini and Hochberg,
    1995, doi:10.1111/j.2517-6161.1995.tb02031.x).
    """
    away = -np.sort(-np.abs(deviation[np.abs(deviation) < _PLAIN]))
    by_chance = scipy.special.erfc(away / np.sqrt(2)) * away.size
    beyond = np.flatnonzero(by_chance <= _FALSE * np.arange(1, away.size + 1))
    return float(np.clip(_AT_REST / away[beyond[-1]], 1.0, _KEENEST)) if beyond.size else 1.0


def _range(values: Floats) -> Floats:
    """Of each row the largest less the smallest value that is there; 0 where there is none."""
    there = np.isfinite(values)
    high, low = np.where(there, values, -np.inf).max(axis=1), np.where(there, values, np.inf).min(axis=1)
    return np.where(there.any(axis=1), high - low, 0.0)


def _median(values: Floats, number: Ints) -> Floats:
    """The median of the first `number` of each row's values in order; those to leave out are infinite."""
    ordered = np.sort(values, axis=1)
    rows, middle = np.arange(number.size), np.maximum(number, 1)
    low, high = ordered[rows, (middle - 1) // 2], ordered[rows, middle // 2]
    return np.where(number > 0, (low + high) / 2, 0.0) if number.size else np.zeros(0)


def _keys(places: Places) -> npt.NDArray[np.complex128]:
    return np.asarray(places.lat + 1j * places.lon)
