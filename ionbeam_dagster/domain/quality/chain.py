"""All tests over the reports of a dataset, and their verdicts put together.

Belongs here: the two halves of quality control, tests in series and tests against neighbours: which reports each test
sees. Does not belong here: what is tested of which column (plan.py), the tests themselves (series.py, neighbours.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.domain.quality import SAYS_GOOD, SAYS_POOR, Flag, Test, neighbours, series
from ionbeam_dagster.domain.quality.consistency import Boxes, Consistency, spatial_consistency
from ionbeam_dagster.domain.quality.fields import Field, field_of, impossible_here
from ionbeam_dagster.domain.quality.limits import HOUR, ConsistencyLimits, Limits, ResistantLimits
from ionbeam_dagster.domain.quality.neighbours import Bools, Floats, Ints
from ionbeam_dagster.domain.quality.plan import Plan, Reports, Tested, Verdicts, places_of, sane
from ionbeam_dagster.domain.quality.resistant import Nearness, Resistant, ResistantDirection

LOOK_BACK = timedelta(hours=2)
"""How far before a window its series are looked at."""

SLICE = timedelta(minutes=10)
"""Reports within a slice are compared with each other; of each station its last report there is listened to."""

_SUN_UP, _WARMED = 5.0, 3.0  # degrees; K: a shield that the sun heats, and by how much at least
_ROOM, _OUTDOORS = (17.0, 27.0), 7.0  # degC; K: a room, and how far from it the neighbours must be
MANY_AT_ONE_PLACE = 3  # stations
_LASTS, _LEAST = HOUR, 3  # s, reports: what lasts is the mean of so many at least, within so long before and after
_MOVED = 1000.0  # m
_LISTENS = 2  # times to those where it happens: the second time without those that nobody agrees with
_WET, _GUSTY, _DUSTY = 0.5, 0.5, 3.0  # K; m s-1; ug m-3: what rounding may do
_PM = "mass_concentration_of_{}_ambient_aerosol_particles_in_air"
_IN = (("pm1", "pm2p5"), ("pm2p5", "pm10"), ("pm1", "pm10"))  # those that are among others


def in_series(plan: Plan, reports: Reports) -> Verdicts:
    """The tests of reports by themselves and in their series. `reports` are whole stations, ordered by time."""
    verdicts = Verdicts.none(plan.tested, len(reports))
    months = (reports.time * 1e6).astype("datetime64[us]").astype("datetime64[M]").astype(int) % 12 + 1
    strayed = series.moved(reports.lat, reports.lon, reports.station, _MOVED)
    for column, one in plan.tested.items():
        values, limits = reports.values[column], one.limits
        there = np.isfinite(values)
        if one.range:
            verdicts.add(column, Test.GROSS_RANGE, there, series.gross_range(values, *one.range))
        if limits.climatology:
            low, high = np.array(limits.climatology).T
            verdicts.add(column, Test.CLIMATOLOGY, there, series.climatology(values, months.astype(np.int8), low, high))
        _changes(verdicts, column, limits, sane(one, values), reports)
        if (here := impossible_here(plan, one, reports)) is not None:
            verdicts.add(column, Test.IMPOSSIBLE_HERE, *here)
        verdicts.add(column, Test.INDOOR, there & reports.indoor, reports.indoor)
        verdicts.add(column, Test.MOVED, there & reports.fixed, strayed)
    for column, said in reports.said.items():
        poor = (said >= SAYS_POOR) & (said != Flag.MISSING)
        verdicts.add(column, Test.PROVIDER, np.isfinite(reports.values[column]) & (poor | (said == SAYS_GOOD)), poor)
    _internal(verdicts, plan, reports)
    return verdicts


def _changes(verdicts: Verdicts, column: str, limits: Limits, values: Floats, reports: Reports) -> None:
    """Step, spike and persistence among the values that are there; those out of range are not."""
    known = np.flatnonzero(np.isfinite(values))
    kept, times, station = values[known], reports.time[known], reports.station[known]

    def add(test: Test, applied: Bools, failed: Bools) -> None:
        whole = np.zeros((2, values.size), np.bool_)
        whole[0, known], whole[1, known] = applied, failed
        verdicts.add(column, test, whole[0], whole[1])

    spikes = np.zeros(kept.size, np.bool_)
    if limits.spike is not None:
        applied = series.has_before(times, station, HOUR) & series.has_after(times, station, HOUR)
        spikes = series.spike(kept, times, station, limits.spike, HOUR)
        add(Test.SPIKE, applied, spikes)
    if limits.step is not None:
        smooth = np.flatnonzero(~spikes)  # the way back from a spike is no step
        jumps, applied = np.zeros((2, kept.size), np.bool_)
        of = times[smooth], station[smooth]
        jumps[smooth] = series.step(kept[smooth], *of, limits.step, HOUR)
        applied[smooth] = series.has_before(*of, HOUR)
        add(Test.STEP, applied, jumps)
    if limits.persistence is not None:
        steady = np.zeros(kept.size, np.bool_)
        if limits.steady_from is not None:
            steady |= kept >= limits.steady_from
        if limits.steady_at is not None:
            steady |= kept == limits.steady_at
        coarse = series.resolution(kept, station) / (2 * limits.persistence)
        over = LOOK_BACK.total_seconds() * np.maximum(coarse, 1.0)
        failed = series.persistence(kept, times, station, limits.persistence, over, steady)
        add(Test.PERSISTENCE, series.reaches_back(times, station, over) & ~steady, failed)


def _internal(verdicts: Verdicts, plan: Plan, reports: Reports) -> None:
    """Pairs of quantities at one level that bound each other: both values of a contradiction are suspect.

    A dew point is held against the temperature of the same method and period, a gust against the mean wind of the same
    period: the dew point of a minute may well be above the lowest temperature of ten. Small particles are among the
    larger ones.
    """
    pairs: list[tuple[str, str, Callable[[Tested, Tested], bool], Callable[[Floats, Floats, float], Bools], float]] = [
        ("air_temperature", "dew_point_temperature", _measured_alike, series.dew_point_above_temperature, _WET),
        ("wind_speed", "wind_speed_of_gust", _measured_at_once, series.part_above_whole, _GUSTY),
        *(
            (_PM.format(small), _PM.format(large), _measured_alike, series.part_above_whole, _DUSTY)
            for small, large in _IN
        ),
    ]
    for first, second, comparable, contradict, tolerance in pairs:
        for one in (t for t in plan.tested.values() if t.name == first):
            for other in (t for t in plan.tested.values() if t.name == second and comparable(t, one)):
                a, b = (sane(t, reports.values[t.column]) for t in (one, other))
                both = np.isfinite(a) & np.isfinite(b)
                failed = contradict(a, b, tolerance)
                for column in (one.column, other.column):
                    verdicts.add(column, Test.INTERNAL_CONSISTENCY, both, failed)


def _measured_alike(one: Tested, other: Tested) -> bool:
    """At one level, by one method and over one period."""
    return one.column.split("__")[2:] == other.column.split("__")[2:]


def _measured_at_once(one: Tested, other: Tested) -> bool:
    """At one level and over one period, by whatever methods."""
    return one.column.split("__")[2::2] == other.column.split("__")[2::2]


@dataclass
class Geometry:
    """What follows from where stations are, kept from moment to moment and from quantity to quantity of a window: who
    is near whom, by radius and how many of them, and the boxes of the spatial consistency test."""

    near: dict[tuple[float, int], Nearness] = field(default_factory=dict)
    boxes: Boxes = field(default_factory=Boxes)


@dataclass(frozen=True)
class Listened:
    """What is listened to in one slice: of each station its last report, and where it stands in the slice. No other
    report counts in a test, so that a slice may be tested in parts.

    Of stations at exactly one place one is listened to. `resistant` finds those whose values the other tests do not
    listen to. `tests` are those against neighbours, by column, whose sums are in `surroundings`; `consistency` is what
    was found of those that are `scored`, which alone are tested so; `crowded` are the places, as ``lat + lon j``, with
    too many stations.
    """

    reports: Reports
    rows: Ints
    scored: dict[str, Bools]
    resistant: dict[str, Resistant | ResistantDirection]
    tendency: dict[str, Resistant | ResistantDirection]
    tests: dict[str, dict[Test, neighbours.NeighbourTest]]
    surroundings: neighbours.Surroundings
    consistency: dict[str, Consistency]
    crowded: npt.NDArray[np.complex128]

    @classmethod
    def to(cls, plan: Plan, parts: Iterable[Reports], geometry: Geometry | None = None) -> Listened:
        """What is listened to among all `parts` of a slice, in their order.

        The `geometry` is kept from slice to slice by the caller.
        """
        kept = geometry or Geometry()
        compared = {column: one for column, one in plan.tested.items() if one.compared}
        lasts: list[tuple[Reports, Ints, dict[str, Bools]]] = []
        spots, first = [], 0
        for told in parts:
            part = _with_comparable(plan, told)
            last = {column: _last_of_station(part, _usable(one, part)) for column, one in compared.items()}
            rows = _rows_of_any(last, len(part))
            lasts.append((part.taken(rows), rows + first, {column: of[rows] for column, of in last.items()}))
            spots.append(np.stack([part.lat, part.lon, part.station], axis=1)[_moves(part)])
            first += len(part)
        reports, rows, heard = _last_of_all(lasts, compared)
        resistant, tendency = {}, {}
        for column, one in compared.items():
            if (limits := one.limits.tendency) and np.isnan(reports.height).any():
                tendency[column], _ = _resistant(limits, reports, heard[column], reports.values[one.change], kept)
            if limits := one.limits.resistant:
                field = field_of(plan, one, reports)
                resistant[column], wrong = _resistant(limits, reports, heard[column], field, kept)
                heard[column][wrong] = False
        tests = {column: _tests(one, reports.values[column], heard[column]) for column, one in compared.items()}
        surroundings = neighbours.Surroundings(
            places_of(reports), [test for of_column in tests.values() for test in of_column.values()]
        )
        scored = {
            column: _with_height(one.limits.consistency, reports, heard[column])
            for column, one in compared.items()
            if one.limits.consistency
        }
        consistency = {
            column: _consistency(one.limits.consistency, reports, scored[column], column, kept.boxes)
            for column, one in compared.items()
            if one.limits.consistency
        }
        return cls(
            reports,
            rows,
            scored,
            resistant,
            tendency,
            tests,
            surroundings,
            consistency,
            _crowded(np.concatenate(spots)),
        )


def _last_of_all(
    lasts: Sequence[tuple[Reports, Ints, dict[str, Bools]]], columns: Iterable[str]
) -> tuple[Reports, Ints, dict[str, Bools]]:
    """The last reports of each station among the last ones in each part, by station; of those outdoors."""
    reports = Reports.joined([some for some, _, _ in lasts])
    heard = {}
    for column in columns:
        candidates = np.flatnonzero(np.concatenate([last[column] for _, _, last in lasts]))
        heard[column] = _last_of_station(reports, candidates) & ~reports.indoor
    chosen = _rows_of_any(heard, len(reports))
    chosen = chosen[np.argsort(reports.station[chosen], kind="stable")]
    rows = np.concatenate([rows for _, rows, _ in lasts])
    reports = reports.taken(chosen)
    return reports, rows[chosen], {column: _one_of_each_place(reports, of[chosen]) for column, of in heard.items()}


def _one_of_each_place(reports: Reports, heard: Bools) -> Bools:
    """Those that are heard without the further stations at a place: one box says one thing, however often."""
    rows = np.flatnonzero(heard)
    _, first = np.unique(reports.lat[rows] + 1j * reports.lon[rows], return_index=True)
    alone = np.zeros(len(reports), np.bool_)
    alone[rows[first]] = True
    return alone


def _rows_of_any(masks: Mapping[str, Bools], size: int) -> Ints:
    return np.flatnonzero(np.any([np.zeros(size, np.bool_), *masks.values()], axis=0))


def _with_height(limits: ConsistencyLimits, reports: Reports, heard: Bools) -> Bools:
    """Those that are heard by a test that adjusts for height: without those of unknown height, unless all are."""
    known = np.isfinite(reports.height)
    return heard & known if limits.gradient is not None and (heard & known).any() else heard


def _with_comparable(plan: Plan, reports: Reports) -> Reports:
    """The reports, with what a dataset has of a quantity in other comparable columns where a column has nothing."""
    values = dict(reports.values)
    for column, one in plan.tested.items():
        for other in plan.comparable(one)[1:]:
            values[column] = np.where(np.isfinite(values[column]), values[column], reports.values[other])
            if one.change in values and plan.tested[other].change in values:
                change = reports.values[plan.tested[other].change]
                values[one.change] = np.where(np.isfinite(values[one.change]), values[one.change], change)
    return replace(reports, values=values)


def _resistant(
    limits: ResistantLimits, reports: Reports, heard: Bools, field: Field, kept: Geometry
) -> tuple[Resistant | ResistantDirection, Ints]:
    """The test of those that are heard and have a value in the field, and the rows that it does not trust."""
    rows = np.flatnonzero(heard & np.isfinite(field))
    which = limits.radius, limits.num_max
    test = (ResistantDirection if limits.field == "vector" else Resistant)(
        kept.near.setdefault(which, Nearness(*which)),
        places_of(reports).taken(rows),
        field[rows],
        **limits.model_dump(exclude={"field", "radius", "num_max", "lasting", "bad"}),
    )
    return test, rows[~test.trusted]


def _tests(one: Tested, values: Floats, heard: Bools) -> dict[Test, neighbours.NeighbourTest]:
    tests: dict[Test, neighbours.NeighbourTest] = {}
    if given := one.limits.buddy:
        tests[Test.ISOLATION] = neighbours.Isolation(values, heard, radius=given.radius, num_min=given.num_min)
        tests[Test.BUDDY] = neighbours.Buddy(values, heard, **given.model_dump())
    if event := one.limits.event:
        tests[Test.BUDDY_EVENT] = neighbours.BuddyEvent(
            values, heard, **event.model_dump(exclude={"lasting", "bad"}), iterations=_LISTENS
        )
    return tests


def _consistency(limits: ConsistencyLimits, reports: Reports, heard: Bools, column: str, boxes: Boxes) -> Consistency:
    rows = np.flatnonzero(heard)
    places = places_of(reports).taken(rows)
    return spatial_consistency(places, reports.values[column][rows], boxes=boxes, **limits.model_dump())


def _crowded(spots: Floats) -> npt.NDArray[np.complex128]:
    """The places with too many stations; `spots` are latitude, longitude and station, (n, 3)."""
    lat, lon, station = spots.T
    many = series.default_position(lat, lon, station.astype(np.intp), MANY_AT_ONE_PLACE)
    return np.unique((lat + 1j * lon)[many])


def among_neighbours(plan: Plan, listened: Listened, part: Reports, first: int = 0) -> Verdicts:
    """The tests of a part of a slice, which begins at its report number `first`, against what is `listened` to.

    Values out of range are neither tested nor listened to, nor are those of indoor stations listened to.
    """
    verdicts = Verdicts.none(plan.tested, len(part))
    told = listened.surroundings.sums_at(places_of(part))
    crowded = np.isin(part.lat + 1j * part.lon, listened.crowded)
    for column, one in plan.tested.items():
        verdicts.add(column, Test.POSITION, np.isfinite(part.values[column]), crowded)
        if not one.compared:
            continue
        usable = _usable(one, part)
        reports = part.taken(usable, [column])
        if one.limits.resistant:
            field = field_of(plan, one, part)
            compared = usable[np.isfinite(field[usable])]
            resistant = listened.resistant[column].of(places_of(part).taken(compared), field[compared])
            verdicts.add_at(compared, column, Test.RESISTANT_BUDDY, resistant.applied, resistant.failed)
            verdicts.deviation[column][compared] = resistant.deviation
        if column in listened.tendency:
            changed = usable[np.isnan(part.height[usable]) & np.isfinite(part.values[one.change][usable])]
            changes: Field = part.values[one.change][changed]
            tendency = listened.tendency[column].of(places_of(part).taken(changed), changes)
            verdicts.add_at(changed, column, Test.TENDENCY, tendency.applied, tendency.failed)
        for test, chosen in listened.tests[column].items():
            found = chosen.judged(reports.values[column], [some[usable] for some in told[chosen]])
            verdicts.add_at(usable, column, test, found.applied, found.failed)
            if isinstance(found, neighbours.Events):
                verdicts.deviation[column][usable] = found.deviation
            if isinstance(found, neighbours.Buddies) and one.name == "air_temperature":
                for why, applied, failed in _why_too_warm(reports, reports.values[column], found):
                    verdicts.add_at(usable, column, why, applied, failed)
        if column in listened.consistency:
            scored = listened.consistency[column]
            rows = listened.rows[listened.scored[column]] - first
            here = (rows >= 0) & (rows < len(part))
            here[here] &= np.isfinite(part.values[column][rows[here]])
            of = rows[here], column, Test.SPATIAL_CONSISTENCY
            verdicts.add_at(*of, scored.applied[here], scored.failed[here])
    return verdicts


def lasting(plan: Plan, reports: Reports, among: Verdicts) -> Verdicts:
    """Whether reports are away from their neighbours in the mean of the hour around each, by what `among` says of them.

    `reports` are whole stations, ordered by time.
    """
    verdicts = Verdicts.none(plan.tested, len(reports))
    for column, one in plan.tested.items():
        if not (limits := one.limits.resistant or one.limits.event):
            continue
        test = Test.RESISTANT_BUDDY if one.limits.resistant else Test.BUDDY_EVENT
        rows = np.flatnonzero(np.isfinite(among.deviation[column]))
        mean, number = series.mean_around(
            among.deviation[column][rows].astype(np.float64), reports.time[rows], reports.station[rows], _LASTS
        )
        applied, away = number >= _LEAST, np.abs(mean)
        verdicts.add_at(rows, column, test, applied, away > limits.lasting)
        verdicts.add_at(rows, column, Test.LASTING, applied, away > limits.bad)
    return verdicts


def _why_too_warm(reports: Reports, values: Floats, found: neighbours.Buddies) -> Iterator[tuple[Test, Bools, Bools]]:
    """Suspicions that explain why a temperature is not its neighbours': the sun on a shield, or a room."""
    above = values - found.mean
    sunny = series.sun_elevation(reports.lat, reports.lon, reports.time) > _SUN_UP
    yield Test.RADIATION, found.applied & sunny, found.failed & (above > _WARMED) & sunny
    in_room = (values >= _ROOM[0]) & (values <= _ROOM[1]) & (np.abs(above) > _OUTDOORS)
    yield Test.INDOOR, found.applied, found.failed & in_room


def _usable(one: Tested, reports: Reports) -> Ints:
    return np.flatnonzero(np.isfinite(sane(one, reports.values[one.column])))


def _moves(reports: Reports) -> Bools:
    """Which reports are not from where the one before them is, by the same station."""
    moves = np.ones(len(reports), np.bool_)
    moves[1:] = False
    for column in (reports.lat, reports.lon, reports.station):
        moves[1:] |= column[1:] != column[:-1]
    return moves


def _last_of_station(reports: Reports, among: Ints) -> Bools:
    """Which of the reports are the last of their station, of those `among` the rows."""
    ordered = among[np.lexsort((reports.time[among], reports.station[among]))]
    last = np.ones(ordered.size, np.bool_)
    last[:-1] = np.diff(reports.station[ordered]) != 0
    chosen = np.zeros(len(reports), np.bool_)
    chosen[ordered[last]] = True
    return chosen
