"""Tests of a value by itself, against its station's other quantities, and in its station's series.

Belongs here: plain functions of arrays, one element a report. Those that look at a series take reports ordered by
station and time, with `station` as numbers that change where the station does. NaN is no value: it fails nothing.
Times are in seconds. Each returns True where a value fails. Does not belong here: limits (limits.py), neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.domain.geo import TEST_RADIUS

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


_EXACT = 1e-4
"""What the conversion of units may do to a value."""


_LATE = 60.0
"""How many seconds clocks and timetables may be off."""


def gross_range(values: Floats, low: float, high: float) -> Bools:
    """QARTOD's gross range test: outside [low, high] is what no sensor measures."""
    return (values < low) | (values > high)


def climatology(values: Floats, months: npt.NDArray[np.int8], low: Floats, high: Floats) -> Bools:
    """Outside [low, high] of the month (1..12); `low` and `high` have twelve elements each."""
    return (values < low[months - 1]) | (values > high[months - 1])


def step(values: Floats, times: Floats, station: Ints, most: float, within: float) -> Bools:
    """QARTOD's rate of change test: more than `most` away from the value before, which is at most `within` s old."""
    jumps = np.abs(values - _previous(values, station)) > most
    return jumps & (times - _previous(times, station) <= within)


def spike(values: Floats, times: Floats, station: Ints, most: float, within: float) -> Bools:
    """A spike: more than `most` away from the values before and after, within `within` s, to the same side of both.

    QARTOD compares with the mean of the two, by which the value beside a spike would fail, too.
    """
    before, after = _previous(values, station), _next(values, station)
    near = (times - _previous(times, station) <= within) & (_next(times, station) - times <= within)
    away = np.minimum(np.abs(values - before), np.abs(values - after)) > most
    same_side = (values - before) * (values - after) > 0
    return near & away & same_side


def persistence(
    values: Floats, times: Floats, station: Ints, least: float, over: Floats | float, exempt: Bools
) -> Bools:
    """WMO's persistence test: the station's values vary by less than `least` over the last `over` s.

    A value fails when the run of values that ends with it, each within `least` of the run's first, spans `over` s or
    more. `exempt` values (calm, no rain, saturated air) fail nothing and end a run.
    """
    size = values.size
    if not size:
        return np.zeros(0, np.bool_)
    known = np.flatnonzero(np.isfinite(values))
    failed = np.zeros(size, np.bool_)
    if not known.size:
        return failed
    kept, when, where, free = values[known], times[known], station[known], exempt[known]
    long = np.broadcast_to(over, size)[known]
    starts = np.ones(known.size, np.bool_)
    starts[1:] = (np.abs(np.diff(kept)) >= least) | (np.diff(where) != 0) | free[1:] | free[:-1]
    first = np.maximum.accumulate(np.where(starts, np.arange(known.size), 0))
    stuck = (when - when[first] >= long) & (np.abs(kept - kept[first]) < least) & ~free
    failed[known] = stuck
    return failed


def mean_around(values: Floats, times: Floats, station: Ints, within: float) -> tuple[Floats, Ints]:
    """The mean of the station's values at most `within` s before and after each, and how many they are.

    All values are finite.
    """
    if not values.size:
        return values, np.zeros(0, np.intp)
    axis = _apart(times, station, 2 * within)
    first = np.searchsorted(axis, axis - within, side="left")
    end = np.searchsorted(axis, axis + within, side="right")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[end] - sums[first]) / (end - first), end - first


def change(values: Floats, times: Floats, station: Ints, over: float) -> Floats:
    """By how much a station's value changed in `over` s, from its oldest report in about that time; NaN where no report
    is from the first half of it."""
    changed = np.full(values.size, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return changed
    kept, when = values[known], times[known]
    axis = _apart(when, station[known], 2 * over)
    first = np.searchsorted(axis, axis - over - _LATE, side="left")
    age = when - when[first]
    changed[known] = np.where(age >= over / 2, (kept - kept[first]) * over / np.maximum(age, 1.0), np.nan)
    return changed


def _apart(times: Floats, station: Ints, gap: float) -> Floats:
    """Times (not none) that ascend over all stations, with more than `gap` s between one station and the next."""
    return np.asarray(times - times.min() + (station - station[0]) * (times.max() - times.min() + gap + 1))


_STEPS = (1.0, 0.5, 0.2, 0.1)


def resolution(values: Floats, station: Ints) -> Floats:
    """The step in which the station of each value tells its values, learnt from them; 0 where none is seen.

    It is the largest of 1, 0.5, 0.2 and 0.1 of which all are multiples, else the smallest change from one to the next
    (degrees Fahrenheit told in Celsius). All values are finite, those of a station together.
    """
    if not values.size:
        return np.zeros(0)
    first = np.flatnonzero(np.append(True, np.diff(station) != 0))
    of = np.repeat(np.arange(first.size), np.diff(np.append(first, values.size)))
    changes = np.full(values.size, np.inf)
    changes[1:] = np.abs(np.diff(values))
    changes[first] = np.inf
    smallest = np.minimum.reduceat(np.where(changes > _EXACT, changes, np.inf), first)
    found = np.where(np.isfinite(smallest), smallest, 0.0)
    for step in reversed(_STEPS):
        on_it = np.abs(values / step - np.round(values / step)) * step <= _EXACT
        found[np.logical_and.reduceat(on_it, first)] = step
    return found[of]


def has_before(times: Floats, station: Ints, within: float) -> Bools:
    """Whether a report has one of its station before it, at most `within` s older."""
    return np.asarray(times - _previous(times, station) <= within)


def has_after(times: Floats, station: Ints, within: float) -> Bools:
    """Whether a report has one of its station after it, at most `within` s younger."""
    return np.asarray(_next(times, station) - times <= within)


def reaches_back(times: Floats, station: Ints, over: Floats | float) -> Bools:
    """Whether a report's station has one at least `over` s older."""
    starts = np.ones(times.size, np.bool_)
    starts[1:] = np.diff(station) != 0
    first = np.maximum.accumulate(np.where(starts, np.arange(times.size), 0))
    return np.asarray(times - times[first] >= over)


def dew_point_above_temperature(temperature: Floats, dew_point: Floats, tolerance: float) -> Bools:
    """The air cannot be wetter than saturated: dew point more than `tolerance` above the temperature."""
    return dew_point > temperature + tolerance


def part_above_whole(part: Floats, whole: Floats, tolerance: float) -> Bools:
    """The mean wind of a period is not above its highest gust, nor small particles more than all up to a larger size,
    by more than `tolerance`."""
    return part > whole + tolerance


def moved(lat: Floats, lon: Floats, station: Ints, most: float) -> Bools:
    """A fixed station that is more than `most` m from where it was in its report before."""
    north = np.radians(lat - _previous(lat, station))
    turned = (lon - _previous(lon, station) + 180.0) % 360.0 - 180.0
    east = np.radians(turned) * np.cos(np.radians(lat))
    return np.asarray(np.hypot(north, east) * TEST_RADIUS > most)


def default_position(lat: Floats, lon: Floats, station: Ints, most: int) -> Bools:
    """CrowdQC's m1: more than `most` stations at exactly one place, which is an address' default rather than theirs
    (Napoly et al., 2018, doi:10.3389/feart.2018.00118); and the place 0, 0, which is nobody's."""
    places, place = np.unique(np.stack([lat, lon], axis=1), axis=0, return_inverse=True)
    pairs = np.unique(np.stack([place.ravel(), station], axis=1), axis=0)
    stations = np.bincount(pairs[:, 0], minlength=len(places))
    return np.asarray((stations[place.ravel()] > most) | ((lat == 0) & (lon == 0)))


def sun_elevation(lat: Floats, lon: Floats, times: Floats) -> Floats:
    """The sun's height above the horizon in degrees, to about half a degree (Spencer, 1971, Search 2:172).

    `times` are seconds since 1970, UTC.
    """
    days = times / 86_400.0
    year = 2 * np.pi * (days % 365.2425) / 365.2425
    declination = (
        0.006918 - 0.399912 * np.cos(year) + 0.070257 * np.sin(year)
        - 0.006758 * np.cos(2 * year) + 0.000907 * np.sin(2 * year)
        - 0.002697 * np.cos(3 * year) + 0.00148 * np.sin(3 * year)
    )  # fmt: skip
    equation = 229.18 / 1440 * (
        0.000075 + 0.001868 * np.cos(year) - 0.032077 * np.sin(year)
        - 0.014615 * np.cos(2 * year) - 0.040849 * np.sin(2 * year)
    )  # fmt: skip
    hour_angle = 2 * np.pi * (days + lon / 360 + equation - 0.5)
    north = np.radians(lat)
    sine = np.sin(north) * np.sin(declination) + np.cos(north) * np.cos(declination) * np.cos(hour_angle)
    return np.asarray(np.degrees(np.arcsin(np.clip(sine, -1, 1))))


def _previous(values: Floats, station: Ints) -> Floats:
    """The value before, of the same station; NaN for its first."""
    before = np.full(values.size, np.nan)
    before[1:] = np.where(station[1:] == station[:-1], values[:-1], np.nan)
    return before


def _next(values: Floats, station: Ints) -> Floats:
    after = np.full(values.size, np.nan)
    after[:-1] = np.where(station[1:] == station[:-1], values[1:], np.nan)
    return after
