"""Tests of a value against sums over its neighbours: isolation, buddy, buddy event.

Belongs here: tests on arrays, one element a report, all of one moment and one quantity. They are those of MET Norway's
titanlib (Baaserud et al., 2020, "TITAN automatic spatial quality control of meteorological in-situ observations", MET
report 7/2020), which the tests hold them against. Does not belong here: which reports are compared, and with what
limits (chain.py, limits.py); the test that interpolates (consistency.py).

`Surroundings` takes the sums for the places of the reports that are listened to once, for all tests together, and keeps
them: other reports, which are judged but not listened to, may then come in parts.

Values are finite; a report without a value is left out by the caller. A height (m) may be NaN. Where values are moved
along a gradient, neighbours of unknown height are then left out; a report whose own height is unknown is compared with
all, as they are. Elsewhere an unknown height is no reason to leave a neighbour out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are first used, which a process that judges nothing does without

from ionbeam_dagster.domain.geo import TEST_RADIUS, unit_vectors

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]
Sums = npt.NDArray[np.float32]
"""What tests keep of the neighbours of every place: half the memory, and still a millionth of what sensors tell."""

_MOST_PAIRS, _MOST_ROWS = 100_000, 64
"""Pairs, and reports that ask, that are looked at at a time, to stay in the processor's cache."""


@dataclass(frozen=True)
class Places:
    """Where reports were made: degrees, metres, and which station each is from (two reports of one are no buddies)."""

    lat: Floats
    lon: Floats
    height: Floats
    station: Ints

    def __len__(self) -> int:
        return self.lat.size

    def taken(self, rows: Ints) -> Places:
        return Places(self.lat[rows], self.lon[rows], self.height[rows], self.station[rows])

    def xyz(self) -> Floats:
        """Metres from the centre of the Earth, (n, 3)."""
        return np.asarray(unit_vectors(self.lat, self.lon) * TEST_RADIUS)


@dataclass
class Block:
    """Some reports that ask (`rows`), those that any of them may hear (`others`), and the heights of both.

    `near` (rows x others) tells who hears whom: reports of other stations within the radius.
    """

    rows: Ints
    others: Ints
    near: Bools
    height: Floats
    others_height: Floats
    _within: dict[tuple[float, bool], Floats] = field(default_factory=dict)

    def within(self, max_height_difference: float, adjusted: bool = False) -> Floats:
        """1.0 where a report is near and not further away in height, else 0.0; (rows x others).

        `adjusted` leaves out those of unknown height around a report of known height.
        """
        adjusted = adjusted and bool(np.isnan(self.others_height).any())
        which = max_height_difference, adjusted
        if which not in self._within:
            apart = np.abs(self.height[:, None] - self.others_height)
            near = self.near & ~(apart > max_height_difference)
            if adjusted:
                near &= ~np.isnan(apart) | np.isnan(self.height)[:, None]
            self._within[which] = near.astype(np.float64)
        return self._within[which]


class Neighbourhood:
    """The reports at `places`, found from wherever is within `radius` (m) of them.

    Pairs are not kept: of dense networks there would be more than memory holds, and finding them takes no longer than
    reading them.
    """

    def __init__(self, places: Places, radius: float) -> None:
        self._places = places
        self._radius = radius
        self._xyz = places.xyz()
        self._tree = scipy.spatial.KDTree(self._xyz)
        self._station = places.station.astype(np.int32)

    def blocks(self, at: Places) -> Iterator[Block]:
        """Who is near the reports `at`, some at a time; those that are near nobody may be left out."""
        if not len(at) or not len(self._places):
            return
        xyz, station = at.xyz(), at.station.astype(np.int32)
        waiting = np.array_split(scipy.spatial.KDTree(xyz).indices, -(-len(at) // _MOST_ROWS))
        while waiting:
            rows = waiting.pop()
            middle = (xyz[rows].min(axis=0) + xyz[rows].max(axis=0)) / 2
            spread = np.linalg.norm(xyz[rows] - middle, axis=1).max()
            others = np.array(self._tree.query_ball_point(middle, self._radius + spread), np.intp)
            if rows.size > 1 and rows.size * others.size > _MOST_PAIRS:
                waiting += np.array_split(rows, 2)
            elif others.size:
                near = scipy.spatial.distance.cdist(xyz[rows], self._xyz[others], "sqeuclidean") <= self._radius**2
                near &= station[rows][:, None] != self._station[others]
                yield Block(rows, others, near, at.height[rows], self._places.height[others])


@dataclass(frozen=True)
class Outcome:
    """Of each report whether it was tested, and whether it failed."""

    applied: Bools
    failed: Bools


class NeighbourTest(ABC):
    """A test that follows from sums over the neighbours within `radius` (m) and `max_height_difference` (m).

    It listens to those of the reports of a network, whose values are `values`, that are `heard`. In a further iteration
    it no longer listens to those that failed.
    """

    width: int
    """How many numbers it needs of a report's neighbours."""

    def __init__(
        self, values: Floats, heard: Bools, *, radius: float, max_height_difference: float, iterations: int
    ) -> None:
        self.values, self.heard = values, heard
        self.radius, self.iterations = radius, iterations
        self._max_height_difference = max_height_difference

    @abstractmethod
    def sums(self, block: Block, trusted: Bools) -> Floats:
        """What the neighbours that are `trusted` (one for each report of the network) tell a block; (rows x width)."""

    @abstractmethod
    def judged(self, values: Floats, sums: Sequence[Sums]) -> Outcome:
        """What comes of reports with `values` and `sums` of their neighbours, (reports x width) for each iteration."""


class Surroundings:
    """What `tests` hear at `places`, whose reports they listen to, and anywhere else.

    Reports come with their stations ascending.
    """

    def __init__(self, places: Places, tests: Sequence[NeighbourTest]) -> None:
        self._places = places
        self._around = {test.radius: Neighbourhood(places, test.radius) for test in tests}
        self._trusted = {test: [test.heard] for test in tests}
        self._sums = _nothing(tests, len(places))
        for iteration in range(max((test.iterations for test in tests), default=0)):
            asking = [test for test in tests if test.iterations > iteration]
            for radius, around in self._around.items():
                for block in around.blocks(places):
                    for test in (one for one in asking if one.radius == radius):
                        self._sums[test][iteration][block.rows] = test.sums(block, self._trusted[test][iteration])
            for test in (one for one in asking if one.iterations > iteration + 1):
                failed = test.judged(test.values, self._sums[test][: iteration + 1]).failed
                self._trusted[test].append(test.heard & ~failed)

    def sums_at(self, at: Places) -> dict[NeighbourTest, list[Sums]]:
        """What each test hears at other places; (reports x width) for each iteration."""
        known = known_rows(self._places, at)
        there, strange = np.flatnonzero(known >= 0), np.flatnonzero(known < 0)
        sums = _nothing(self._sums, len(at))
        for test, iterations in sums.items():
            for some, kept in zip(iterations, self._sums[test], strict=True):
                some[there] = kept[known[there]]
        for radius, around in self._around.items():
            for block in around.blocks(at.taken(strange)):
                for test in (one for one in sums if one.radius == radius):
                    for some, trusted in zip(sums[test], self._trusted[test], strict=True):
                        some[strange[block.rows]] = test.sums(block, trusted)
        return sums


def known_rows(places: Places, at: Places) -> Ints:
    """Which of `places`, whose stations ascend, is of the same station and place as each of `at`; -1: none is found."""
    if not len(places):
        return np.full(len(at), -1)
    rows = np.minimum(np.searchsorted(places.station, at.station), len(places) - 1)
    there = places.taken(rows)
    same = (there.station == at.station) & (there.lat == at.lat) & (there.lon == at.lon)
    same &= (there.height == at.height) | (np.isnan(there.height) & np.isnan(at.height))
    return np.where(same, rows, -1)


def _nothing(tests: Iterable[NeighbourTest], size: int) -> dict[NeighbourTest, list[Sums]]:
    return {test: [np.zeros((size, test.width), np.float32) for _ in range(test.iterations)] for test in tests}


class Isolation(NeighbourTest):
    """Reports with fewer than `num_min` neighbours, at whatever height, fail."""

    width = 1

    def __init__(self, values: Floats, heard: Bools, *, radius: float, num_min: int) -> None:
        super().__init__(values, heard, radius=radius, max_height_difference=np.inf, iterations=1)
        self._num_min = num_min

    def sums(self, block: Block, trusted: Bools) -> Floats:
        return np.asarray(block.within(np.inf) @ trusted[block.others].astype(np.float64)[:, None])

    def judged(self, values: Floats, sums: Sequence[Sums]) -> Outcome:
        return Outcome(np.ones(values.size, np.bool_), sums[0][:, 0] < self._num_min)


@dataclass(frozen=True)
class Buddies(Outcome):
    """What the buddy test found of each report: how many neighbours were used, their mean (adjusted to the report's
    height), and how many of their standard deviations the report is away from it (NaN where it was not tested)."""

    number: Ints
    mean: Floats
    deviation: Floats


class Buddy(NeighbourTest):
    """Values are tested against the mean of their neighbours, moved along `gradient` (per metre) to their own height.

    With at least `num_min` neighbours a report fails when it is more than `threshold` standard deviations from their
    mean; the deviation is widened by the error of the mean and at least `min_std`.
    """

    width = 3

    def __init__(
        self,
        values: Floats,
        heard: Bools,
        *,
        radius: float,
        num_min: int,
        threshold: float,
        max_height_difference: float,
        gradient: float,
        min_std: float,
        iterations: int = 2,
    ) -> None:
        super().__init__(
            values, heard, radius=radius, max_height_difference=max_height_difference, iterations=iterations
        )
        self._num_min, self._threshold, self._min_std = num_min, threshold, min_std
        self._gradient = gradient
        self._centre = float(values[heard].mean()) if heard.any() else 0.0

    def sums(self, block: Block, trusted: Bools) -> Floats:
        """Number, mean (from the centre of all values) and variance of the neighbours.

        Where both heights are known a neighbour's value becomes ``value - its rise + the report's rise``: the sums are
        over what belongs to the neighbour alone, so that no pair has to be looked at by itself.
        """
        listened = trusted[block.others]
        values = np.where(listened, self.values[block.others] - self._centre, 0.0)
        number = listened.astype(np.float64)
        columns = [number, values, values**2]
        if self._gradient:
            known = np.isfinite(block.others_height)
            level = values - np.where(known & listened, self._gradient * block.others_height, 0.0)
            columns += [level, level**2]
        near = block.within(self._max_height_difference, adjusted=bool(self._gradient))
        sums = (near @ np.stack(columns, axis=1)).T
        n, first, second = sums[:3]
        if self._gradient:
            level_1, level_2 = sums[3:]
            known = np.isfinite(block.height)
            rise = np.where(known, self._gradient * block.height, 0.0)
            first = np.where(known, level_1 + n * rise, first)
            second = np.where(known, level_2 + 2 * rise * level_1 + n * rise**2, second)
        many = np.maximum(n, 1)
        mean = first / many
        return np.stack([n, mean, np.maximum(second / many - mean**2, 0.0)], axis=1)

    def judged(self, values: Floats, sums: Sequence[Sums]) -> Buddies:
        failed, used = np.zeros(values.size, np.bool_), np.zeros(values.size, np.intp)
        means, deviations = np.full((2, values.size), np.nan)
        for number, from_centre, variance in (some.T.astype(np.float64) for some in sums):
            mean = from_centre + self._centre
            enough = ~failed & (number >= self._num_min)
            spread = np.maximum(np.sqrt(variance * (1 + 1 / np.maximum(number, 1))), self._min_std)
            used[enough], means[enough] = number[enough], mean[enough]
            deviations[enough] = np.abs(values - mean)[enough] / spread[enough]
            failed[enough] = deviations[enough] > self._threshold
        return Buddies(np.isfinite(deviations), failed, used, means, deviations)


@dataclass(frozen=True)
class Events(Outcome):
    """What the buddy event test found of each report: the share of its neighbours that disagree, above 0 where it
    happens here and not there, below where it is the other way round (NaN where it was not tested)."""

    deviation: Floats


class BuddyEvent(NeighbourTest):
    """Something happens at a report (its value is `event` or more) as it does at its neighbours.

    With at least `num_min` neighbours a report fails when at most the share `threshold` of them agrees with it.
    """

    width = 2

    def __init__(
        self,
        values: Floats,
        heard: Bools,
        *,
        radius: float,
        num_min: int,
        event: float,
        threshold: float,
        max_height_difference: float,
        iterations: int = 1,
    ) -> None:
        super().__init__(
            values, heard, radius=radius, max_height_difference=max_height_difference, iterations=iterations
        )
        self._num_min, self._event, self._threshold = num_min, event, threshold

    def sums(self, block: Block, trusted: Bools) -> Floats:
        """Number of the neighbours, and of those where it happens."""
        listened = trusted[block.others]
        happens = listened & (self.values[block.others] >= self._event)
        return np.asarray(
            block.within(self._max_height_difference) @ np.stack([listened, happens], axis=1).astype(np.float64)
        )

    def judged(self, values: Floats, sums: Sequence[Sums]) -> Events:
        failed, deviation = np.zeros(values.size, np.bool_), np.full(values.size, np.nan)
        happens = values >= self._event
        for number, happening in (some.T for some in sums):
            agreeing = np.where(happens, happening, number - happening)
            enough = ~failed & (number >= self._num_min)
            failed |= enough & (agreeing <= self._threshold * number)
            deviation[enough] = (happens - happening / np.maximum(number, 1))[enough]
        return Events(np.isfinite(deviation), failed, deviation)
