"""Stations that fall silent are named, and no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_dagster.domain.heard import Heard

START = datetime(2026, 6, 21, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def _rows(given: list[tuple[str, datetime, int]]) -> pl.DataFrame:
    schema = {"station_id": pl.String, "datetime": pl.Datetime("us", "UTC"), "flag": pl.UInt8}
    return pl.DataFrame(given, schema=schema, orient="row")


def _told(rows: list[tuple[str, datetime, int]], until: datetime, window: timedelta = HOUR) -> pl.DataFrame:
    heard, start = Heard(["station_id"], ["flag"]), START
    while start < until:
        heard.add(_rows([row for row in rows if start <= row[1] < start + window]))
        start += window
    return heard.told(START, until)


def test_100_of_1_000_stations_fall_silent_and_exactly_these_are_named():
    until, rows = START + 12 * HOUR, []
    for number in range(1000):
        interval = (5, 10, 15)[number % 3] * MINUTE
        end = START + 9 * HOUR if number % 10 == 7 else until
        rows += [(f"s{number:04}", START + step * interval, 1) for step in range((end - START) // interval)]
    told = _told(rows, until)
    assert told.height == 1000
    assert told.filter("silent")["station_id"].to_list() == [
        f"s{number:04}" for number in range(1000) if number % 10 == 7
    ]
    assert told["interval"].to_list() == [(5, 10, 15)[number % 3] * MINUTE for number in range(1000)]
    lost = told.filter("silent")["completeness"]
    assert abs(lost - 0.75).max() < 0.01 and told.filter(~pl.col("silent"))["completeness"].min() > 0.99


def test_a_station_that_often_pauses_is_given_as_long_and_one_heard_too_seldom_is_not_judged():
    until = START + 12 * HOUR
    pausing = [("pauses", START + minute * MINUTE, 1) for minute in range(0, 690, 5) if minute < 200 or minute > 270]
    seldom = [("seldom", START + minute * MINUTE, 1) for minute in (0, 5)]
    hourly = [("hourly", START + hour * HOUR, 1) for hour in range(12)]
    told = _told(pausing + seldom + hourly, until)
    assert told["silent"].to_list() == [False, False, False]
    by_id = dict(zip(told["station_id"], told["interval"], strict=True))
    assert by_id == {"hourly": HOUR, "pauses": 5 * MINUTE, "seldom": None}


def test_what_quality_control_doubts_is_a_share_of_what_it_judged():
    rows = [("a", START + step * MINUTE, flag) for step, flag in enumerate([1, 1, 3, 4, 2, 9])]
    told = _told(rows, START + HOUR)
    assert told["flagged"].to_list() == [0.5]


@given(
    st.lists(st.integers(0, 23 * 60), min_size=1, max_size=60, unique=True),
    st.sampled_from([HOUR, 2 * HOUR, 24 * HOUR]),
)
def test_how_rows_are_cut_into_windows_changes_nothing(minutes, window):
    rows = [("a", START + minute * MINUTE, 1) for minute in minutes]
    assert _told(rows, START + 24 * HOUR, window).equals(_told(rows, START + 24 * HOUR, 24 * HOUR))
