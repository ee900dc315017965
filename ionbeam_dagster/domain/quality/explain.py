"""Why a value has its flag: each test that was applied to it, in a sentence with the numbers that decided.

Belongs here: words for one report. Does not belong here: the verdicts, which stand in the dataset file; the numbers are
worked out again from the rows that are there now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ionbeam_dagster.domain.quality import Test, neighbours, series
from ionbeam_dagster.domain.quality.chain import LOOK_BACK, MANY_AT_ONE_PLACE, Listened
from ionbeam_dagster.domain.quality.fields import at_sea_level, field_of, in_words, likely_cause
from ionbeam_dagster.domain.quality.plan import Plan, Reports, Tested, places_of, sane


@dataclass(frozen=True, slots=True)
class Reason:
    """What one test has to say of one value."""

    column: str
    test: Test
    words: str


@dataclass(frozen=True)
class _Case:
    """One report (`row` of `own`, its station's series) and the reports of its slice, in which it is the row `near`."""

    plan: Plan
    own: Reports
    row: int
    slice: Reports
    near: int
    listened: Listened


def explain(plan: Plan, own: Reports, row: int, slice: Reports, near: int, masks: dict[str, int]) -> Iterator[Reason]:
    """The reasons for one report, by variable and in the order of the tests; `masks` are its ``tests_applied``.

    `own` are the reports of its station in order, of which it is number `row`; `slice` those of all stations at its
    time, of which it is number `near`.
    """
    case = _Case(plan, own, row, slice, near, Listened.to(plan, [slice]))
    for column, mask in masks.items():
        for test in Test:
            if mask & test:
                yield Reason(column, test, _WORDS[test](case, plan.tested[column]))


def _value(case: _Case, one: Tested) -> float:
    return float(case.own.values[one.column][case.row])


def _range(case: _Case, one: Tested) -> str:
    assert one.range is not None
    return f"{_value(case, one):.6g}; possible is {one.range[0]:g} to {one.range[1]:g} {one.limits.unit}"


def _climatology(case: _Case, one: Tested) -> str:
    month = int((case.own.time[[case.row]] * 1e6).astype("datetime64[us]").astype("datetime64[M]").astype(int)[0]) % 12
    assert one.limits.climatology is not None
    low, high = one.limits.climatology[month]
    return f"{_value(case, one):.6g}; usual in month {month + 1} is {low:g} to {high:g} {one.limits.unit}"


def _beside(case: _Case, one: Tested) -> tuple[str, str]:
    """The values before and after, with their distance in minutes."""
    values = sane(one, case.own.values[one.column])
    there = np.flatnonzero(np.isfinite(values))
    told = []
    for rows in (there[there < case.row][-1:], there[there > case.row][:1]):
        minutes = [abs(case.own.time[r] - case.own.time[case.row]) / 60 for r in rows]
        told.append(next((f"{values[r]:.6g} ({m:.0f} min)" for r, m in zip(rows, minutes, strict=True)), "none known"))
    return told[0], told[1]


def _step(case: _Case, one: Tested) -> str:
    before, _ = _beside(case, one)
    return f"{_value(case, one):.6g} after {before}; at most {one.limits.step:g} {one.limits.unit} in an hour"


def _spike(case: _Case, one: Tested) -> str:
    before, after = _beside(case, one)
    return (
        f"{_value(case, one):.6g} between {before} and {after}; at most {one.limits.spike:g} {one.limits.unit} beyond"
    )


def _persistence(case: _Case, one: Tested) -> str:
    kept = case.own.values[one.column][: case.row + 1]
    same = np.abs(kept - kept[-1]) < (one.limits.persistence or 0.0)
    first = int(np.flatnonzero(~same & np.isfinite(kept))[-1] + 1) if (~same & np.isfinite(kept)).any() else 0
    minutes = (case.own.time[case.row] - case.own.time[first]) / 60
    least, most = one.limits.persistence, LOOK_BACK.total_seconds() / 60
    return f"within {least:g} {one.limits.unit} for {minutes:.0f} min of what is known; suspect from {most:.0f} min"


def _internal(case: _Case, one: Tested) -> str:
    level = one.column.split("__")[2]
    partners = ("air_temperature", "dew_point_temperature", "wind_speed", "wind_speed_of_gust")
    alike = [t for t in case.plan.tested.values() if t.name in partners and t.column.split("__")[2] == level]
    return ", ".join(f"{t.name.replace('_', ' ')} {_value(case, t):.6g} {t.limits.unit}" for t in alike)


def _position(case: _Case, one: Tested) -> str:
    here = (case.slice.lat == case.slice.lat[case.near]) & (case.slice.lon == case.slice.lon[case.near])
    many = np.unique(case.slice.station[here]).size
    return f"{many} station{'s' if many > 1 else ''} at this very place; suspect beyond {MANY_AT_ONE_PLACE}"


def _moved(case: _Case, one: Tested) -> str:
    if case.row == 0:
        return "no earlier place is known"
    lat, lon = case.own.lat[case.row - 1], case.own.lon[case.row - 1]
    return f"at {case.own.lat[case.row]:.4f}, {case.own.lon[case.row]:.4f}; before at {lat:.4f}, {lon:.4f}"


def _indoor(case: _Case, one: Tested) -> str:
    said = "its provider says indoors" if case.own.indoor[case.row] else "outdoors as far as its provider says"
    return f"{said}; {_value(case, one):.6g} {one.limits.unit}" + (f"; {_mean(case, one)}" if one.limits.buddy else "")


def _radiation(case: _Case, one: Tested) -> str:
    row = slice(case.row, case.row + 1)
    (height,) = series.sun_elevation(case.own.lat[row], case.own.lon[row], case.own.time[row])
    return f"the sun stands at {height:.0f} degrees; {_mean(case, one)}"


def _report(case: _Case, one: Tested) -> Reports:
    return case.slice.taken(np.array([case.near]), [one.column])


def _buddies(case: _Case, one: Tested) -> tuple[int, float, float]:
    report, test = _report(case, one), case.listened.tests[one.column][Test.BUDDY]
    found = test.judged(report.values[one.column], case.listened.surroundings.sums_at(places_of(report))[test])
    assert isinstance(found, neighbours.Buddies)
    return int(found.number[0]), float(found.mean[0]), float(found.deviation[0])


def _mean(case: _Case, one: Tested) -> str:
    number, mean, _ = _buddies(case, one)
    return f"the mean of {number} neighbours is {mean:.6g} {one.limits.unit}"


def _isolation(case: _Case, one: Tested) -> str:
    assert one.limits.buddy is not None
    test = case.listened.tests[one.column][Test.ISOLATION]
    (told,) = case.listened.surroundings.sums_at(places_of(_report(case, one)))[test]
    near, least = f"within {one.limits.buddy.radius / 1000:g} km", one.limits.buddy.num_min
    return f"{told[0, 0]:.0f} neighbours {near}; {least} are needed"


def _buddy(case: _Case, one: Tested) -> str:
    assert one.limits.buddy is not None
    number, mean, deviation = _buddies(case, one)
    return (
        f"{_value(case, one):.6g}; the mean of {number} neighbours at its height is {mean:.6g} {one.limits.unit}, "
        f"{deviation:.1f} deviations away; suspect beyond {one.limits.buddy.threshold:g}"
    )


def _resistant(case: _Case, one: Tested) -> str:
    limits = one.limits.resistant
    assert limits is not None
    report = case.slice.taken(np.array([case.near]))
    field = field_of(case.plan, one, report)
    if not np.isfinite(field[0]):
        return "not worked out again: what it takes beside the value is not there now"
    found = case.listened.resistant[one.column].of(places_of(report), field)
    if not found.applied[0]:
        return f"too few neighbours now ({found.number[0]})"
    told, expected, unit = in_words(one, float(report.values[one.column][0]), field[0], float(found.expected[0]))
    words = (
        f"{told}; {found.number[0]} neighbours of which the wrong ones are left out make expect {expected:.6g} {unit}, "
        f"{abs(found.deviation[0]):.1f} spreads away; suspect beyond {limits.threshold:g}, or {limits.lasting:g} in "
        f"the mean of the hour around it"
    )
    if abs(found.deviation[0]) <= limits.lasting:
        return words
    likely = likely_cause(case.plan, one, report, float(found.expected[0]))
    return f"{words}; {likely}" if likely else words


def _lasting(case: _Case, one: Tested) -> str:
    if one.limits.event is not None:
        return f"bad where {one.limits.event.bad:.0%} of the neighbours say otherwise in the hour around it"
    assert one.limits.resistant is not None
    return f"bad beyond {one.limits.resistant.bad:g} spreads from its neighbours in the mean of the hour around it"


def _tendency(case: _Case, one: Tested) -> str:
    change = case.own.values[one.change][case.row]
    known = (
        f"{change:+.2f} {one.limits.unit} in two hours" if np.isfinite(change) else "no value of two hours before now"
    )
    return f"{known}; its height is unknown, so that its change is compared with its neighbours'"


def _impossible(case: _Case, one: Tested) -> str:
    row = slice(case.row, case.row + 1)
    if one.limits.bounded_by == "sun":
        (sun,) = series.sun_elevation(case.own.lat[row], case.own.lon[row], case.own.time[row])
        return f"{_value(case, one):.6g} {one.limits.unit} with the sun at {sun:.0f} degrees"
    height = case.own.height[row]
    (reduced,) = at_sea_level(case.own.values[one.column][row], height, np.array([np.nan]))
    return f"{_value(case, one):.6g} {one.limits.unit} at {height[0]:g} m would be {reduced:.5g} at sea level"


def _provider(case: _Case, one: Tested) -> str:
    return "what its provider says of it; poor makes a value suspect, good excuses nothing"


def _event(case: _Case, one: Tested) -> str:
    assert one.limits.event is not None
    least = one.limits.event.event
    happens = "yes" if _value(case, one) >= least else "no"
    return (
        f"{least:g} {one.limits.unit} or more here: {happens}; suspect where {1 - one.limits.event.threshold:.0%} of "
        f"the neighbours say otherwise, or {one.limits.event.lasting:.0%} in the hour around it"
    )


def _consistency(case: _Case, one: Tested) -> str:
    assert one.limits.consistency is not None
    (place,) = np.nonzero(case.listened.rows[case.listened.scored[one.column]] == case.near)
    if not place.size:
        return "not compared so: another report of its station or place was, or it failed the resistant buddy test"
    score = case.listened.consistency[one.column].score[place[0]]
    return (
        f"score {score:.1f} against what neighbours make of its place; suspect beyond {one.limits.consistency.above:g}"
    )


_WORDS: dict[Test, Callable[[_Case, Tested], str]] = {
    Test.GROSS_RANGE: _range,
    Test.CLIMATOLOGY: _climatology,
    Test.STEP: _step,
    Test.SPIKE: _spike,
    Test.PERSISTENCE: _persistence,
    Test.INTERNAL_CONSISTENCY: _internal,
    Test.POSITION: _position,
    Test.MOVED: _moved,
    Test.INDOOR: _indoor,
    Test.RADIATION: _radiation,
    Test.ISOLATION: _isolation,
    Test.BUDDY: _buddy,
    Test.BUDDY_EVENT: _event,
    Test.SPATIAL_CONSISTENCY: _consistency,
    Test.RESISTANT_BUDDY: _resistant,
    Test.LASTING: _lasting,
    Test.IMPOSSIBLE_HERE: _impossible,
    Test.TENDENCY: _tendency,
    Test.PROVIDER: _provider,
}
