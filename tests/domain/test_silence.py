"""Stations that fall silent are named, and no other."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_dagster.domain.heard import Week, hour_of, sums_of, verdicts_of
from ionbeam_dagster.domain.quality import Test as QualityTest
from ionbeam_dagster.domain.silence import Told, told
from ionbeam_dagster.domain.windows import windows_between

START = datetime(2026, 6, 21, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOTHING = pl.DataFrame(
    schema={"station": pl.String, "hour": pl.Datetime("us", "UTC"), "what": pl.String, "rows": pl.UInt32}
)


def _moments(rows: list[tuple[str, datetime, int]]) -> pl.DataFrame:
    """Rows of station, time, and the seconds by which they came late."""
    schema = {"station": pl.String, "datetime": pl.Datetime("us", "UTC"), "late": pl.UInt32}
    place = [pl.lit(value, pl.Float64).alias(axis) for axis, value in (("lat", 52.0), ("lon", 5.0))]
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(place)


def _hear(week: Week, rows: list[tuple[str, datetime, int]], until: datetime, span: timedelta = HOUR) -> Week:
    for window in windows_between(START, until, span):
        within = [row for row in rows if window.start <= row[1] < window.end]
        hours = [one.start for one in windows_between(window.start, window.end, HOUR)]
        week.hear(hours, sums_of(_moments(within)), NOTHING)
    return week


def _told(rows: list[tuple[str, datetime, int]], until: datetime, span: timedelta = HOUR) -> Told:
    return told(_hear(Week(), rows, until, span), until)


def test_100_of_1_000_stations_fall_silent_and_exactly_these_are_named():
    until, rows = START + 12 * HOUR, []
    for number in range(1000):
        interval = (5, 10, 15)[number % 3] * MINUTE
        end = START + 9 * HOUR if number % 10 == 7 else until
        rows += [(f"s{number:04}", START + step * interval, 1) for step in range((end - START) // interval)]
    found = _told(rows, until).stations
    assert found.height == 1000
    assert found.filter("silent")["station"].to_list() == [
        f"s{number:04}" for number in range(1000) if number % 10 == 7
    ]
    assert found["interval"].to_list() == [(5, 10, 15)[number % 3] * MINUTE for number in range(1000)]
    lost = found.filter("silent")["completeness"]
    assert abs(lost - 0.75).max() < 0.01 and found.filter(~pl.col("silent"))["completeness"].min() > 0.99


def test_a_station_that_often_pauses_is_given_as_long_and_one_heard_too_seldom_is_not_judged():
    until = START + 12 * HOUR
    pausing = [("pauses", START + minute * MINUTE, 1) for minute in range(0, 690, 5) if minute < 200 or minute > 270]
    seldom = [("seldom", START + minute * MINUTE, 1) for minute in (0, 5)]
    hourly = [("hourly", START + hour * HOUR, 1) for hour in range(12)]
    found = _told(pausing + seldom + hourly, until).stations
    assert found["silent"].to_list() == [False, False, False]
    by_id = dict(zip(found["station"], found["interval"], strict=True))
    assert by_id == {"hourly": HOUR, "pauses": 5 * MINUTE, "seldom": None}


def test_who_pauses_each_night_is_not_silent_at_night_and_is_by_day():
    def rows(days: float) -> list[tuple[str, datetime, int]]:
        minutes = range(0, int(days * 1440), 10)
        return [("solar", START + minute * MINUTE, 1) for minute in minutes if 6 <= minute // 60 % 24 < 20] + [
            ("mains", START + minute * MINUTE, 1) for minute in range(0, 6 * 1440, 10)
        ]

    for until, silent in ((START + 3.2 * 24 * HOUR, []), (START + 3.6 * 24 * HOUR, ["solar"])):
        known = [row for row in rows(2.9) if row[1] < until]
        assert _told(known, until).silent["station"].to_list() == silent


def test_a_source_that_stood_still_as_a_whole_makes_nobody_patient_and_nobody_silent():
    until = START + 40 * HOUR
    away = set(range(10, 20))
    rows = [
        (name, START + minute * MINUTE, 1)
        for name, end in (("goes on", 40), ("falls silent", 36))
        for minute in range(0, end * 60, 10)
        if minute // 60 not in away
    ]
    before = [row for row in rows if row[1] < START + 10 * HOUR]
    assert _told(before, START + 20 * HOUR).silent.is_empty()
    assert _told(rows, until).silent["station"].to_list() == ["falls silent"]


def test_what_is_summed_again_is_the_same_and_a_row_that_comes_again_is_late_no_more():
    rows = [("a", START + minute * MINUTE, 60) for minute in range(0, 180, 10)]
    until = START + 3 * HOUR
    week = _hear(Week(), rows, until)
    once = told(week, until)
    again = told(_hear(week, [(name, at, 40_000) for name, at, _ in rows], until), until)
    assert again.stations.equals(once.stations) and again.hours.equals(once.hours)
    assert once.stations["late"].to_list() == once.stations["latest"].to_list() == [MINUTE]


def test_completeness_counts_from_when_a_station_was_first_heard():
    until = START + 48 * HOUR
    new = [("new", START + (46 * 60 + minute) * MINUTE, 1) for minute in range(0, 120, 10)]
    half = [("half", START + minute * MINUTE, 1) for minute in range(0, 2880, 10) if minute % 120 < 60]
    old = [("old", START + minute * MINUTE, 1) for minute in range(0, 2880, 10)]
    found = _told(new + half + old, until).stations
    assert found["station"].to_list() == ["half", "new", "old"]
    for name in ("completeness", "completeness_week"):
        assert [round(share, 2) for share in found[name]] == [0.5, 1.0, 1.0]


def test_a_week_forgets_what_is_older_and_stations_of_which_nothing_is_left():
    week = _hear(Week(), [("gone", START + minute * MINUTE, 1) for minute in range(0, 60, 10)], START + HOUR)
    week.forget(START + 6 * 24 * HOUR)
    assert told(week, START + 6 * 24 * HOUR).stations["interval"].to_list() == [10 * MINUTE]
    week.forget(START + 9 * 24 * HOUR)
    assert week.stations.is_empty() and not [name for name in week.stations.columns if name.startswith("rows ")]


def test_what_quality_control_doubts_is_a_share_of_what_it_judged_with_the_tests_that_failed():
    flags = [1, 1, 3, 4, 2, 9]
    rows = [("a", START + step * MINUTE, 1) for step in range(len(flags))]
    week = _hear(Week(), rows, START + HOUR)
    masks = [0, 0, int(QualityTest.SPIKE), int(QualityTest.SPIKE | QualityTest.BUDDY), 0, 0]
    judged = _moments(rows).with_columns(pl.Series("flag", flags), pl.Series("tests", masks, pl.UInt32))
    for _ in range(2):
        week.judge([START], *verdicts_of(judged, [("flag", "tests")]))
    found = told(week, START + HOUR)
    assert found.stations["flagged"].to_list() == [0.5] and (found.judged, found.doubted) == (4, 2)
    assert found.stations["tests"].to_list() == ["spike 50 %, buddy 25 %"]
    assert found.tests.rows() == [("spike", 2), ("buddy", 1)]


@given(
    st.lists(st.integers(0, 23 * 60), min_size=1, max_size=60, unique=True),
    st.sampled_from([HOUR, 2 * HOUR, 24 * HOUR]),
)
def test_how_hours_are_put_together_changes_nothing(minutes, span):
    rows = [("a", START + minute * MINUTE, 1) for minute in minutes]
    until = START + 24 * HOUR
    assert _told(rows, until, span).stations.equals(_told(rows, until, 24 * HOUR).stations)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3 * 1440 - 1)), min_size=1, max_size=80, unique=True))
def test_sums_say_what_a_loop_would(given):
    rows = [(name, START + minute * MINUTE, minute % 7) for name, minute in given]
    sums = sums_of(_moments(rows)).to_dicts()
    assert {(one["station"], one["hour"]): one["rows"] for one in sums} == Counter(
        (name, hour_of(at)) for name, at, _ in rows
    )
    found = _told(rows, START + 72 * HOUR, 24 * HOUR)
    assert dict(found.stations.select("station", "last").iter_rows()) == {
        name: max(at for other, at, _ in rows if other == name) for name, _, _ in rows
    }
    assert found.hours["rows"].sum() == len(rows)
