"""Tests of a value against its neighbours: isolation, buddy, buddy event, spatial consistency.

Belongs here: plain functions of arrays, one element a report, all of one moment and one quantity. They are those of
MET Norway's titanlib (Baaserud et al., 2020, "TITAN automatic spatial quality control of meteorological in-situ
observations", MET report 7/2020), which the tests hold them against. Does not belong here: which reports are compared,
and with what limits (chain.py, limits.py).

Values are finite; a report without a value is left out by the caller. A height (m) may be NaN: it is then neither a
reason to leave a neighbour out nor to adjust its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

EARTH_RADIUS = 6_371_000.0
"""Metres, as titanlib has it; distances are straight through the Earth, 2.6 m short in 20 km."""

_PAIRS_AT_ONCE = 8_000_000  # keeps the arrays of pairs under half a gigabyte whatever the network's density


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
        """Metres from the centre of the Earth, (n, 3): poles and date line are places like others."""
        lat, lon = np.radians(self.lat), np.radians(self.lon)
        unit = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
        return np.asarray(unit * EARTH_RADIUS)


class Neighbourhood:
    """Which reports are within `radius` (m) and `max_height_difference` (m) of which.

    Reports of one station are not neighbours of each other. Those from one place have the same neighbours, so that
    pairs are of places, however many reports they have. Pairs are kept as sparse matrices, of which there are several,
    made anew for each pass, where one would grow too large.
    """

    def __init__(self, places: Places, radius: float, max_height_difference: float = np.inf) -> None:
        self._by_place = np.lexsort((places.height, places.lon, places.lat, places.station))
        firsts = _first_of_each(places, self._by_place)
        self._begins = np.flatnonzero(firsts)
        self._place = np.empty(len(places), np.intp)
        self._place[self._by_place] = np.cumsum(firsts) - 1
        self._places = places = places.taken(self._by_place[self._begins])
        self._radius = radius
        self._most_height = max_height_difference
        self._xyz = places.xyz()
        self._slabs = max(1, round(self._expected_pairs() / _PAIRS_AT_ONCE))
        self._kept = [self._found(slab) for slab in self._cut()] if self._slabs == 1 else None

    def sums(self, columns: Floats) -> Floats:
        """For each report the sums over its neighbours of `columns` (reports x quantities)."""
        if not len(columns):
            return np.zeros_like(columns)
        of_places = np.add.reduceat(columns[self._by_place], self._begins)
        total = np.zeros_like(of_places)
        for pairs in self._kept if self._kept is not None else map(self._found, self._cut()):
            total += pairs @ of_places + pairs.T @ of_places
        return np.asarray(total[self._place])

    def _expected_pairs(self) -> float:
        if len(self._places) < 2:
            return 0.0
        sample = self._xyz[:: max(1, len(self._places) // 500)]
        counts = KDTree(self._xyz).query_ball_point(sample, self._radius, return_length=True)
        return float(np.mean(counts)) * len(self._places) / 2

    def _cut(self) -> list[Ints]:
        """The reports in slabs along the axis of the Earth's rotation, each with about the same number of them."""
        return np.array_split(np.argsort(self._xyz[:, 2], kind="stable"), self._slabs)

    def _found(self, slab: Ints) -> coo_array:
        """The pairs of the slab's reports, each pair once: row and column are its reports, the lower one first."""
        size = len(self._places)
        if not size:
            return coo_array((0, 0))
        axis = self._xyz[:, 2]
        low, high = axis[slab[0]] - self._radius, axis[slab[-1]] + self._radius
        near = np.flatnonzero((axis >= low) & (axis <= high))
        found = KDTree(self._xyz[near]).query_pairs(self._radius, output_type="ndarray")
        one, other = (found[:, column].astype(np.int32) for column in (0, 1))  # half the memory to go through
        if near.size < size:
            one, other = near[one], near[other]
        wanted = self._places.station[one] != self._places.station[other]
        if np.isfinite(self._most_height):
            apart = np.abs(self._places.height[one] - self._places.height[other])
            wanted &= ~(apart > self._most_height)  # of an unknown height: not known to be too far
        if self._slabs > 1:
            own = np.zeros(size, np.bool_)
            own[slab] = True
            wanted &= own[one]
        one, other = one[wanted], other[wanted]
        return coo_array((np.ones(one.size), (one, other)), shape=(size, size))


def _first_of_each(places: Places, order: Ints) -> Bools:
    """Which of `places`, in `order`, are not where the one before them is."""
    first = np.ones(len(places), np.bool_)
    first[1:] = False
    for column in (places.station, places.lat, places.lon, np.nan_to_num(places.height, nan=np.inf)):
        ordered = column[order]
        first[1:] |= ordered[1:] != ordered[:-1]
    return first


def isolation(places: Places, radius: float, num_min: int, speaking: Bools | None = None) -> Bools:
    """True for reports with fewer than `num_min` neighbours (that are `speaking`) within `radius` (m)."""
    heard = np.ones(len(places)) if speaking is None else speaking.astype(np.float64)
    number = Neighbourhood(places, radius).sums(heard[:, None])[:, 0]
    return np.asarray(number < num_min)


@dataclass(frozen=True, slots=True)
class Buddies:
    """What the buddy test found of each report: how many neighbours were used, their mean (adjusted to the report's
    height), and how many of their standard deviations the report is away from it (NaN where it was not tested)."""

    number: Ints
    mean: Floats
    deviation: Floats
    failed: Bools


def buddy(
    places: Places,
    values: Floats,
    *,
    radius: float,
    num_min: int,
    threshold: float,
    max_height_difference: float,
    gradient: float,
    min_std: float,
    iterations: int = 2,
    speaking: Bools | None = None,
) -> Buddies:
    """Test values against the mean of their neighbours, of which only those that are `speaking` are listened to.

    Neighbours within `radius` (m) and `max_height_difference` (m) count, with their values moved along `gradient` (per
    metre) to the report's height. With at least `num_min` of them a report fails when it is more than `threshold`
    standard deviations from their mean; the deviation is widened by the error of the mean and at least `min_std`.
    What failed is no neighbour in the next iteration.
    """
    size = len(places)
    failed = np.zeros(size, np.bool_)
    number, mean, deviation = np.zeros(size, np.intp), np.full(size, np.nan), np.full(size, np.nan)
    around = Neighbourhood(places, radius, max_height_difference)
    heard = np.ones(size, np.bool_) if speaking is None else speaking
    centre = values.mean() if size else 0.0
    known = np.isfinite(places.height)
    rise = np.where(known, gradient * np.nan_to_num(places.height), 0.0)
    for _ in range(iterations):
        moments = _moments(around, values - centre, rise, known, ~failed & heard)
        enough = ~failed & (moments.number >= num_min)
        spread = np.maximum(np.sqrt(moments.variance * (1 + 1 / np.maximum(moments.number, 1))), min_std)
        number[enough], mean[enough] = moments.number[enough], moments.mean[enough] + centre
        deviation[enough] = np.abs(values[enough] - mean[enough]) / spread[enough]
        failed[enough] = deviation[enough] > threshold
    return Buddies(number, mean, deviation, failed)


def buddy_event(
    places: Places,
    values: Floats,
    *,
    radius: float,
    num_min: int,
    event: float,
    threshold: float,
    max_height_difference: float,
    iterations: int = 1,
    speaking: Bools | None = None,
) -> tuple[Bools, Bools]:
    """Test whether something happens at a report (its value is `event` or more) as it does at its neighbours.

    A report fails when at most the share `threshold` of its neighbours agrees with it. Returns (tested, failed).
    """
    size = len(places)
    failed, tested = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    heard = np.ones(size, np.bool_) if speaking is None else speaking
    happens = values >= event
    around = Neighbourhood(places, radius, max_height_difference)
    for _ in range(iterations):
        trusted = (~failed & heard).astype(np.float64)
        number, happening = around.sums(np.stack([trusted, trusted * happens], axis=1)).T
        agreeing = np.where(happens, happening, number - happening)
        enough = ~failed & (number >= num_min)
        tested |= enough
        failed |= enough & (agreeing <= threshold * number)
    return tested, failed


@dataclass(frozen=True, slots=True)
class Consistency:
    """What the spatial consistency test found: the score that decided (NaN where it was not tested)."""

    score: Floats
    failed: Bools


def spatial_consistency(
    places: Places,
    values: Floats,
    *,
    num_min: int,
    num_max: int,
    inner_radius: float,
    outer_radius: float,
    min_horizontal_scale: float,
    vertical_scale: float,
    above: float,
    below: float,
    error_ratio: float,
    gradient: float | None,
    iterations: int = 2,
) -> Consistency:
    """SCT: test values against an optimal interpolation of their neighbours that leaves them out.

    Lussana, Uboldi and Salvati (2010), doi:10.1002/qj.622. Around one report after the other, at least `num_min` and at
    most the `num_max` nearest reports within `outer_radius` (m) make a box. Its background is the mean, or, with a
    `gradient` (per metre) that the fit starts from, a line in height. Correlations fall with distance (the scale is
    the distance to the nearest tenth of the box, at least `min_horizontal_scale`) and with height (`vertical_scale`);
    observation errors are `error_ratio` of the background's. Reports within `inner_radius` of the middle fail when the
    product of their residuals with and without themselves, over the box's error variance, exceeds `above` (the value
    is too high) or `below`. Reports of one station in a box count as those of stations apart.
    """
    size = len(places)
    failed, score = np.zeros(size, np.bool_), np.full(size, np.nan)
    xyz = places.xyz()
    for _ in range(iterations):
        trusted = np.flatnonzero(~failed)
        if trusted.size < num_min:
            break
        tree = KDTree(xyz[trusted])
        done = failed.copy()
        newly_failed = 0
        for middle in trusted:
            if done[middle]:
                continue
            most = min(num_max + newly_failed, trusted.size)
            distance, found = tree.query(xyz[middle], k=most, distance_upper_bound=outer_radius)
            near = np.isfinite(distance)
            box = trusted[found[near]]
            usable = np.flatnonzero(~failed[box])[:num_max]
            box, distance = box[usable], distance[near][usable]
            if box.size < num_min:
                done[middle] = True
                continue
            verdict = _scores(
                xyz[box], places.height[box], values[box], min_horizontal_scale, vertical_scale, error_ratio, gradient
            )
            inner = distance <= inner_radius
            of, scores, high = box[inner], verdict.score[inner], verdict.high[inner]
            score[of] = np.fmax(score[of], scores)
            outliers = of[scores > np.where(high, above, below)]
            failed[outliers] = True
            newly_failed += outliers.size
            done[of] = True
        if not newly_failed:
            break
    return Consistency(score, failed)


@dataclass(frozen=True, slots=True)
class _Scores:
    score: Floats
    high: Bools


def _scores(
    xyz: Floats,
    height: Floats,
    values: Floats,
    min_scale: float,
    vertical_scale: float,
    error_ratio: float,
    gradient: float | None,
) -> _Scores:
    apart = cdist(xyz, xyz)
    level = np.nan_to_num(height, nan=float(np.nanmean(height)) if np.isfinite(height).any() else 0.0)
    scale = max(_near_tenth(apart), min_scale)
    vertical = level[:, None] - level[None, :]
    correlation = np.exp(-0.5 * (apart / scale) ** 2 - 0.5 * (vertical / vertical_scale) ** 2)
    departure = values - _background(level, values, gradient)
    inverse = np.linalg.inv(correlation + error_ratio * np.eye(values.size))
    weighted = inverse @ departure
    residual = correlation @ weighted - departure
    left_out = -weighted / np.diag(inverse)
    variance = max(float(np.mean(-departure * residual)), 0.01)
    return _Scores(left_out * residual / variance, left_out < 0)


def _near_tenth(apart: Floats) -> float:
    """The mean over all reports of the distance within which the nearest tenth of them is, themselves included."""
    place = 0.1 * (len(apart) - 1)
    first = int(place)
    nearest = np.partition(apart, (first, first + 1), axis=1)[:, first : first + 2]
    return float((nearest[:, 0] + (place - first) * (nearest[:, 1] - nearest[:, 0])).mean())


def _background(height: Floats, values: Floats, gradient: float | None) -> Floats:
    if gradient is None:
        return np.full(values.size, values.mean())
    centred = height - height.mean()
    spread = float(centred @ centred)
    # Too flat to tell how the value changes with height: what it does elsewhere.
    slope = float(centred @ (values - values.mean())) / spread if spread > values.size * 50.0**2 else gradient
    return np.asarray(values.mean() + slope * centred)


@dataclass(frozen=True, slots=True)
class _Moments:
    number: Ints
    mean: Floats
    variance: Floats


def _moments(around: Neighbourhood, values: Floats, rise: Floats, known: Bools, trusted: Bools) -> _Moments:
    """Number, mean and variance of each report's trusted neighbours, moved to its own height.

    Where both heights are known, a neighbour's value becomes ``value - its rise + the report's rise``: the sums are
    over what belongs to the neighbour alone, so that no pair has to be looked at by itself.
    """
    both, either = trusted & known, trusted & ~known
    level = np.where(known, values - rise, values)
    sums = around.sums(
        np.stack(
            [
                both,
                both * level,
                both * level**2,
                both * values,
                both * values**2,
                either,
                either * values,
                either * values**2,
            ],
            axis=1,
        ).astype(np.float64)
    ).T
    n_known, level_1, level_2, value_1, value_2, n_other, other_1, other_2 = sums
    first = np.where(known, level_1 + n_known * rise, value_1) + other_1
    second = np.where(known, level_2 + 2 * rise * level_1 + n_known * rise**2, value_2) + other_2
    number = (n_known + n_other).round().astype(np.intp)
    many = np.maximum(number, 1)
    mean = first / many
    return _Moments(number, mean, np.maximum(second / many - mean**2, 0.0))
