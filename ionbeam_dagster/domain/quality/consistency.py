"""The spatial consistency test (SCT): a value against an optimal interpolation of its neighbours.

Belongs here: that test, on arrays, one element a report, all of one moment and one quantity; titanlib's is what the
tests hold it against. Does not belong here: which reports are compared, and with what limits (chain.py, limits.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts when they are first used, which a process that judges nothing does without

from ionbeam_dagster.domain.quality.neighbours import Bools, Floats, Outcome, Places

_MOST_KEPT = 4_000_000
"""Numbers: 32 MB, some 800 boxes of 50 reports."""


class Boxes:
    """The correlations and the inverse of each box, which follow from its places alone: kept while stations report
    again, for other moments and quantities. Beyond `_MOST_KEPT` numbers all are forgotten."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Floats, Floats]] = {}
        self._numbers = 0

    def of(
        self, xyz: Floats, level: Floats, min_scale: float, vertical_scale: float, error_ratio: float
    ) -> tuple[Floats, Floats]:
        """The correlations of the reports of a box, and the inverse of them with their errors; (n, n) each."""
        key = xyz.tobytes() + level.tobytes() + np.array([min_scale, vertical_scale, error_ratio]).tobytes()
        if (found := self._kept.get(key)) is None:
            found = _correlated(xyz, level, min_scale, vertical_scale, error_ratio)
            self._numbers += 2 * found[0].size
            if self._numbers > _MOST_KEPT:
                self._kept, self._numbers = {}, 2 * found[0].size
            self._kept[key] = found
        return found


@dataclass(frozen=True)
class Consistency(Outcome):
    """What the spatial consistency test found: the score that decided (NaN where it was not tested)."""

    score: Floats


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
    boxes: Boxes | None = None,
) -> Consistency:
    """SCT: test values against an optimal interpolation of their neighbours that leaves them out.

    Lussana, Uboldi and Salvati (2010), doi:10.1002/qj.622. Around one report after the other, at least `num_min` and at
    most the `num_max` nearest reports within `outer_radius` (m) make a box. Its background is the mean, or, with a
    `gradient` (per metre) that the fit starts from, a line in height. Correlations fall with distance (the scale is
    the distance to the nearest tenth of the box, at least `min_horizontal_scale`) and with height (`vertical_scale`);
    observation errors are `error_ratio` of the background's. Reports within `inner_radius` of the middle fail when the
    product of their residuals with and without themselves, over the box's error variance, exceeds `above` (the value
    is too high) or `below`. Reports of one station in a box count as those of stations apart. `boxes` are kept by the
    caller from one call to the next.
    """
    boxes = boxes or Boxes()
    size = len(places)
    failed, score = np.zeros(size, np.bool_), np.full(size, np.nan)
    xyz = places.xyz()
    for _ in range(iterations):
        trusted = np.flatnonzero(~failed)
        if trusted.size < num_min:
            break
        tree = scipy.spatial.KDTree(xyz[trusted])
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
            level = _levels(places.height[box])
            verdict = _scores(
                level,
                values[box],
                *boxes.of(xyz[box], level, min_horizontal_scale, vertical_scale, error_ratio),
                gradient,
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
    return Consistency(np.isfinite(score), failed, score)


@dataclass(frozen=True, slots=True)
class _Scores:
    score: Floats
    high: Bools


def _levels(height: Floats) -> Floats:
    known = np.isfinite(height)
    if known.all():
        return height
    return np.where(known, height, height[known].mean() if known.any() else 0.0)


def _correlated(
    xyz: Floats, level: Floats, min_scale: float, vertical_scale: float, error_ratio: float
) -> tuple[Floats, Floats]:
    apart = scipy.spatial.distance.cdist(xyz, xyz)
    scale = max(_near_tenth(apart), min_scale)
    vertical = level[:, None] - level[None, :]
    correlation = np.exp(-0.5 * (apart / scale) ** 2 - 0.5 * (vertical / vertical_scale) ** 2)
    return correlation, np.linalg.inv(correlation + error_ratio * np.eye(level.size))


def _scores(level: Floats, values: Floats, correlation: Floats, inverse: Floats, gradient: float | None) -> _Scores:
    departure = values - _background(level, values, gradient)
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
