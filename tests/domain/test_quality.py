"""Quality control's tests: against titanlib on random networks, and what each of them must and must not flag."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_dagster.domain.quality import Flag, Test, consistency, flags_of, names_of, neighbours, resistant, series
from ionbeam_dagster.domain.quality.limits import DEFAULTS, limits_with

BUDDY = {
    "radius": 20_000.0, "num_min": 5, "threshold": 2.0, "max_height_difference": 200.0, "gradient": -0.0065,
    "min_std": 1.0,
}  # fmt: skip
CONSISTENCY = {
    "num_min": 5, "num_max": 60, "inner_radius": 10_000.0, "outer_radius": 50_000.0, "min_horizontal_scale": 10_000.0,
    "vertical_scale": 200.0, "above": 4.0, "below": 8.0, "error_ratio": 0.5,
}  # fmt: skip


def network(size, seed, north=50.0):
    """A random network with a temperature field and, in one value of twenty, an error of 4 to 15 K."""
    random = np.random.default_rng(seed)
    lat, lon = random.uniform(north, north + 2, size), random.uniform(5, 8, size)
    height = random.uniform(0, 400, size)
    values = 15 - 0.0065 * height + 2 * np.sin(3 * lat) + random.normal(0, 0.7, size)
    wrong = random.random(size) < 0.05
    values[wrong] += random.choice([-1, 1], wrong.sum()) * random.uniform(4, 15, wrong.sum())
    return neighbours.Places(lat, lon, height, np.arange(size)), values, wrong


def judged(test, places, values, **limits):
    """What comes of reports of as many stations, in a test against each other."""
    made = test(values, np.ones(len(places), bool), **limits)
    return made.judged(values, neighbours.Surroundings(places, [made]).sums_at(places)[made])


@pytest.fixture(params=[1, 2, 3])
def seeded(request):
    titanlib = pytest.importorskip("titanlib", reason="titanlib has no wheel for this Python")
    places, values, _ = network(1500, request.param)
    return titanlib, titanlib.Points(places.lat, places.lon, places.height), places, values


def test_range_is_titanlibs(seeded):
    titanlib, _, _, values = seeded
    theirs = titanlib.range_check(values, [5.0], [20.0])
    assert np.array_equal(theirs, series.gross_range(values, 5.0, 20.0))


def test_isolation_is_titanlibs(seeded):
    titanlib, points, places, values = seeded
    theirs = titanlib.isolation_check(points, 12, 8000.0)
    assert 0 < np.sum(theirs) < len(places)
    assert np.array_equal(theirs, judged(neighbours.Isolation, places, values, radius=8000.0, num_min=12).failed)


@pytest.mark.parametrize("iterations", [1, 2])
def test_buddy_is_titanlibs(seeded, iterations):
    titanlib, points, places, values = seeded
    theirs = titanlib.buddy_check(points, values, [20_000.0], [5], 2.0, 200.0, -0.0065, 1.0, iterations)
    ours = judged(neighbours.Buddy, places, values, iterations=iterations, **BUDDY)
    decided = np.abs(ours.deviation - 2.0) > 1e-4  # titanlib computes in single precision
    assert np.sum(theirs) > 20 and decided.mean() > 0.99
    assert np.array_equal(np.array(theirs, bool)[decided], ours.failed[decided])


def test_buddy_event_is_titanlibs(seeded):
    titanlib, points, places, values = seeded
    rain = np.where(np.sin(4 * places.lat) > 0, 0.0, np.abs(values))
    rain[::17] = 0.3 - rain[::17].clip(0, 0.3)
    theirs = titanlib.buddy_event_check(points, rain, [20_000.0], [5], 0.2, 0.2, 200.0, 0.0, 1)
    limits = {"radius": 20_000.0, "num_min": 5, "event": 0.2, "threshold": 0.2, "max_height_difference": 200.0}
    ours = judged(neighbours.BuddyEvent, places, rain, **limits)
    assert np.sum(theirs) > 10 and ours.applied.mean() > 0.98
    # Theirs wants one neighbour more than it was told to want, before it looks at heights.
    assert (np.array(theirs, bool) != ours.failed).sum() <= 2


@pytest.mark.parametrize(("profile", "gradient"), [(-1, None), (2000, -0.0065)])
@pytest.mark.parametrize("seed", [1, 2])
def test_spatial_consistency_is_titanlibs(seed, profile, gradient):
    titanlib = pytest.importorskip("titanlib", reason="titanlib has no wheel for this Python")
    places, values, _ = network(700, seed)
    points = titanlib.Points(places.lat, places.lon, places.height)
    same = np.ones(len(places))
    theirs = titanlib.sct(
        points, values, 5, 60, 10_000.0, 50_000.0, 2, profile, 200.0, 10_000.0, 200.0, 4 * same, 8 * same, 0.5 * same
    )[0]
    ours = consistency.spatial_consistency(places, values, gradient=gradient, **CONSISTENCY)
    assert np.sum(theirs) > 20
    # With a profile titanlib searches the line that we compute, and stops near it.
    assert (np.array(theirs, bool) != ours.failed).sum() <= (0 if gradient is None else 2)


@pytest.mark.parametrize("pairs", [1, 5000])
def test_a_network_too_dense_for_one_block_is_judged_as_in_one(pairs, monkeypatch):
    places, values, wrong = network(800, 7)
    whole = judged(neighbours.Buddy, places, values, **BUDDY)
    monkeypatch.setattr(neighbours, "_MOST_PAIRS", pairs)
    portions = judged(neighbours.Buddy, places, values, **BUDDY)
    assert np.array_equal(whole.failed, portions.failed) and np.allclose(whole.mean, portions.mean, equal_nan=True)
    assert whole.failed[wrong].mean() > 0.9 and whole.failed[~wrong].mean() < 0.05


@pytest.mark.parametrize("north", [88.0, -90.0])
def test_poles_and_date_line_are_places_like_others(north):
    places, values, _ = network(400, 5, north)
    moved = neighbours.Places(places.lat, (places.lon + 173.5 + 180) % 360 - 180, places.height, places.station)
    one, other = (judged(neighbours.Buddy, p, values, **BUDDY | {"radius": 60_000.0}) for p in (places, moved))
    assert np.array_equal(one.failed, other.failed) and (moved.lon < 0).any() and (moved.lon > 0).any()


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_network_of_hardly_any_station_is_not_judged(size):
    places, values, _ = network(size, 1)
    assert not judged(neighbours.Buddy, places, values, **BUDDY).failed.any()
    assert not consistency.spatial_consistency(places, values, gradient=None, **CONSISTENCY).failed.any()
    assert judged(neighbours.Isolation, places, values, radius=1e4, num_min=2).failed.all()


def test_reports_of_one_station_are_no_buddies():
    many = neighbours.Places(np.full(20, 50.0), np.full(20, 5.0), np.full(20, np.nan), np.zeros(20, np.intp))
    assert judged(neighbours.Isolation, many, np.zeros(20), radius=1e4, num_min=1).failed.all()
    assert not judged(neighbours.Buddy, many, np.arange(20.0), **BUDDY).applied.any()


reports_anywhere = st.lists(
    st.tuples(
        st.sampled_from([50.0, 50.1, 50.3]),
        st.sampled_from([5.0, 5.1]),
        st.sampled_from([0.0, 150.0, 500.0, np.nan]),
        st.integers(0, 3),
        st.floats(-50, 50),
        st.booleans(),
    ),
    max_size=25,
)


def places_and_values(reports):
    lat, lon, height, station, values, heard = (
        (np.array(column) for column in zip(*reports, strict=True)) if reports else [np.zeros(0)] * 6
    )
    return neighbours.Places(lat, lon, height, station.astype(np.intp)), values, heard.astype(bool)


@given(network=reports_anywhere, asking=reports_anywhere, gradient=st.sampled_from([0.0, -0.0065]))
def test_anyone_is_told_of_all_reports_of_other_stations_nearby_that_are_listened_to(network, asking, gradient):
    places, values, heard = places_and_values(sorted(network, key=lambda report: report[3]))
    at, _, _ = places_and_values(asking + network)
    limits = BUDDY | {"radius": 15_000, "num_min": 1, "gradient": gradient, "iterations": 1}
    test = neighbours.Buddy(values, heard, **limits)
    found = test.judged(np.zeros(len(at)), neighbours.Surroundings(places, [test]).sums_at(at)[test])
    near = np.linalg.norm(at.xyz()[:, None] - places.xyz(), axis=2) <= 15_000
    climb = at.height[:, None] - places.height
    near &= (at.station[:, None] != places.station) & ~(np.abs(climb) > 200) & heard
    if gradient:
        near &= np.isfinite(places.height) | np.isnan(at.height)[:, None]
    assert np.array_equal(found.number, near.sum(axis=1)) and np.array_equal(found.applied, found.number > 0)
    for row in np.flatnonzero(found.applied):
        moved = (values + np.nan_to_num(climb[row]) * gradient)[near[row]]
        spread = max(moved.std() * np.sqrt(1 + 1 / moved.size), BUDDY["min_std"])
        assert found.mean[row] == pytest.approx(moved.mean(), abs=1e-4)
        assert found.deviation[row] == pytest.approx(abs(moved.mean()) / spread, rel=1e-4, abs=1e-4)


def test_where_no_height_is_known_all_are_neighbours():
    places, values, _ = network(500, 3)
    unknown = neighbours.Places(places.lat, places.lon, np.full(500, np.nan), places.station)
    flat = neighbours.Places(places.lat, places.lon, np.zeros(500), places.station)
    one, other = (judged(neighbours.Buddy, p, values, **BUDDY) for p in (unknown, flat))
    assert np.array_equal(one.failed, other.failed) and np.array_equal(one.number, other.number)


def of_one_station(values, minutes=5):
    values = np.array(values, float)
    return values, np.arange(values.size) * 60.0 * minutes, np.zeros(values.size, np.intp)


def test_step_and_spike_look_at_one_station_only():
    values, times, station = of_one_station([10, 10, 25, 10, 10, 40])
    assert series.step(values, times, station, 10, 3600).tolist() == [False, False, True, True, False, True]
    assert series.spike(values, times, station, 10, 3600).tolist() == [False, False, True, False, False, False]
    station[2:] = 1
    assert not series.step(values, times, station, 10, 3600)[2]
    assert not series.step(values, times * 100, station, 10, 3600).any()


def test_persistence_is_of_values_that_do_not_vary_for_so_long():
    values, times, station = of_one_station([5.0] * 26 + [5.2, 5.2], minutes=5)
    nothing = np.zeros(28, bool)
    failed = series.persistence(values, times, station, 0.05, 7200, nothing)
    assert failed.tolist() == [False] * 24 + [True, True, False, False]
    assert not series.persistence(values, times, station, 0.05, 7200, values == 5.0).any()
    values[3] = np.nan
    assert series.persistence(values, times, station, 0.05, 7200, nothing).sum() == 2


def test_a_station_that_moves_and_many_at_one_address():
    lat, lon = np.array([50.0, 50.001, 50.5, 50.5]), np.array([5.0, 5.0, 5.0, 5.0])
    assert series.moved(lat, lon, np.zeros(4, np.intp), 1000.0).tolist() == [False, False, True, False]
    assert not series.moved(np.array([0.0, 0.0]), np.array([179.999, -179.999]), np.zeros(2, np.intp), 1000.0).any()
    crowded = series.default_position(np.zeros(5) + 51.5, np.zeros(5), np.arange(5), 3)
    assert crowded.all() and not series.default_position(np.zeros(5) + 51.5, np.zeros(5), np.zeros(5, int), 3).any()


@pytest.mark.parametrize(
    ("when", "lat", "lon", "expected"),
    [  # NOAA's solar calculator
        ("2026-06-21T12:00", 51.48, 0.0, 61.9),
        ("2026-12-21T12:00", 51.48, 0.0, 15.1),
        ("2026-03-20T18:00", 0.0, -90.0, 88.2),
        ("2026-06-21T00:00", 78.2, 15.6, 11.8),
    ],
)
def test_the_sun_stands_where_it_does(when, lat, lon, expected):
    seconds = np.datetime64(when).astype("datetime64[s]").astype(float)
    (height,) = series.sun_elevation(np.array([lat]), np.array([lon]), np.array([seconds]))
    assert height == pytest.approx(expected, abs=0.7)


tests = st.lists(st.sampled_from(list(Test)), unique=True)


@given(applied=tests, failing=tests, missing=st.booleans())
def test_a_flag_is_one_of_qartods_and_never_better_for_more_failures(applied, failing, missing):
    masks = np.array([[sum(applied), sum(applied)], [0, sum(set(failing) & set(applied))]], np.uint32)
    clean, flag = flags_of(masks[0], masks[1], np.array([missing, missing]))
    if missing:
        assert flag == Flag.MISSING
        return
    assert flag in (Flag.PASS, Flag.NOT_EVALUATED, Flag.SUSPECT, Flag.FAIL) and flag >= clean
    assert (flag == Flag.FAIL) >= (Test.GROSS_RANGE in set(failing) & set(applied))


def test_two_kinds_of_evidence_make_a_suspect_value_bad():
    every = np.full(4, sum(Test), np.uint32)
    failed = np.array([0, Test.BUDDY, Test.BUDDY | Test.SPATIAL_CONSISTENCY, Test.BUDDY | Test.STEP], np.uint32)
    assert flags_of(every, failed, np.zeros(4, bool)).tolist() == [Flag.PASS, Flag.SUSPECT, Flag.SUSPECT, Flag.FAIL]
    assert flags_of(every[:1], np.array([Test.ISOLATION], np.uint32), np.zeros(1, bool)) == [Flag.PASS]
    assert names_of(Test.STEP | Test.BUDDY) == ["step", "buddy"]


def test_a_configuration_changes_what_it_names_and_no_more():
    changed = limits_with({"air_temperature": {"range": [-50, 50], "buddy": {"radius": 9000}, "consistency": False}})
    default, ours = DEFAULTS["air_temperature"], changed["air_temperature"]
    assert ours.range == (-50, 50) and ours.step == default.step and ours.consistency is None
    assert ours.buddy.radius == 9000 and ours.buddy.gradient == default.buddy.gradient
    assert "relative_humidity" not in limits_with({"relative_humidity": False})
    assert limits_with({"soil_temperature": {"unit": "degC", "range": [-50, 80]}})["soil_temperature"].step is None
    for wrong in ({"range": [5, 1]}, {"rnage": [1, 5]}, {"buddy": {"radius": -1}}):
        with pytest.raises(ValueError):
            limits_with({"air_temperature": wrong})


RESISTANT = {
    "num_min": 5, "threshold": 3.0, "max_height_difference": 200.0, "gradient": -0.0065, "min_spread": 0.4, "rounds": 5,
}  # fmt: skip


def resistant_test(places, values, nearness=None, **limits):
    test = resistant.Resistant(nearness or resistant.Nearness(15_000.0, 40), places, values, **RESISTANT | limits)
    return test.of(places, values)


def towns(seed, size=600, step=0.0):
    """Stations in forty towns of 15, with biases of 0.5 K."""
    random = np.random.default_rng(seed)
    town = random.uniform([51.2, 4.6], [53.0, 6.4], (40, 2))[np.arange(size) % 40]
    places = neighbours.Places(
        *(town + random.normal(0, [0.06, 0.09], (size, 2))).T, np.full(size, step), np.arange(size)
    )
    return places, 10 + np.sin(3 * places.lat) + random.normal(0, 0.5, size), random


@pytest.mark.parametrize(("share", "found"), [(0.05, 0.95), (0.1, 0.95), (0.2, 0.9), (0.3, 0.7)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_error_that_many_stations_share_is_found(share, found, seed):
    places, right, random = towns(seed)
    wrong = random.permutation(right.size) < share * right.size
    for error in (lambda value: value * 1.8 + 32, lambda value: np.full(value.size, 22.5), lambda value: value + 4):
        failed = resistant_test(places, np.where(wrong, error(right), right)).failed
        assert failed[wrong].mean() >= found and failed[~wrong].mean() < 0.03
    assert resistant_test(places, right).failed.mean() < 0.01


def test_who_is_near_whom_is_learnt_once_and_does_not_depend_on_what_was_asked_before():
    places, values, random = towns(4)
    kept = resistant.Nearness(15_000.0, 600)  # so many that none is left out for being further than the nearest
    for share in (1.0, 0.9, 0.7, 0.2, 1.0):
        rows = np.flatnonzero(random.random(values.size) < share)
        some = places.taken(rows), values[rows]
        alone, after = (resistant_test(*some, near) for near in (resistant.Nearness(15_000.0, 600), kept))
        assert np.array_equal(alone.failed, after.failed) and np.array_equal(alone.number, after.number)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_network_of_hardly_any_station_is_not_tested_by_medians(size):
    places, values, _ = network(size, 1)
    assert not resistant_test(places, values).applied.any()


@given(reports=reports_anywhere)
def test_the_expected_value_is_among_the_neighbours_that_are_used(reports):
    places, values, _ = places_and_values(list({report[:2]: report for report in reports}.values()))
    places = neighbours.Places(places.lat, places.lon, places.height, np.arange(len(places)))
    found = resistant_test(places, values, num_min=1, gradient=0.0)
    near = np.linalg.norm(places.xyz()[:, None] - places.xyz(), axis=2) <= 15_000
    near &= ~np.eye(len(places), dtype=bool) & ~(np.abs(places.height[:, None] - places.height) > 200)
    assert (found.number <= near.sum(axis=1)).all()
    for row in np.flatnonzero(found.applied):
        told = values[near[row]]
        assert told.min() - 1e-4 <= found.expected[row] <= told.max() + 1e-4


def test_neighbours_of_unknown_height_say_nothing_of_a_value_at_another_height():
    random = np.random.default_rng(7)
    lat, lon = 46.5 + random.uniform(0, 0.4, 500), 10 + random.uniform(0, 0.5, 500)
    height = 600 + 1800 * np.abs(np.sin(25 * lat) * np.cos(20 * lon))
    right = 15 - 0.0065 * height + random.normal(0, 0.4, 500)
    wrong = np.arange(500) % 20 == 0
    for unknown in (0.1, 0.3):
        told = neighbours.Places(lat, lon, np.where(random.random(500) < unknown, np.nan, height), np.arange(500))
        assert resistant_test(told, right).failed.mean() < 0.01
        found = resistant_test(told, np.where(wrong, right + 6, right))
        assert found.failed[wrong & found.applied & np.isfinite(told.height)].mean() > 0.9


def test_a_coarse_sensor_may_tell_the_same_for_longer():
    values, times, station = of_one_station([4.0] * 30 + [5.0] * 6 + [21.34] * 36)
    station[36:] = 1
    steps = series.resolution(values, station)
    assert steps[0] == 1 and steps[-1] == 0
    assert series.resolution(np.array([50.0, 50.0, 51.0, 52.0]) / 1.8, np.zeros(4, np.intp))[0] == pytest.approx(
        1 / 1.8
    )
    over = 7200 * np.maximum(steps / 0.1, 1)
    failed = series.persistence(values, times, station, 0.05, over, np.zeros(values.size, bool))
    assert not failed[:36].any() and failed[36:].sum() == 12


def test_the_mean_around_a_report_is_of_its_station_and_hour():
    values, times, station = of_one_station([1, 2, 3, 4, 100, 5], minutes=30)
    station[4:] = 1
    mean, number = series.mean_around(values, times, station, 3600)
    assert number.tolist() == [3, 4, 4, 3, 2, 2] and mean.tolist() == [2, 2.5, 2.5, 3, 52.5, 52.5]
