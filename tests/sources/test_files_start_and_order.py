"""Where a source of files begins when nobody says it, and rows whose meaning their order or their file tells."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.sources.files import Files, FilesConfig
from ionbeam_dagster.sources.files.stretches import beginning, joined, stretches_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

BLOCK = """sources:
  loggers:
    type: files
    path: in/*.csv
    settle: 0
    time: time
    latitude: 45.0
    longitude: 7.0
    exports: []
    metadata: {station_id: id}
    variables: [{column: t, standard_name: air_temperature, cf_unit: degC, level: 2.0}]
"""


@pytest.fixture
def ionbeam(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    (tmp_path / "config.yaml").write_text(BLOCK)
    (tmp_path / "in").mkdir()

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["--config", "config.yaml", *arguments])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    return command


def put(tmp_path: Path, name: str, *rows: str, folder: str = "in") -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / name).write_text("\n".join(["time,id,t", *rows, ""]))


@pytest.mark.parametrize("large", [False, True])
def test_a_row_of_a_clock_that_was_not_set_is_no_beginning(ionbeam, tmp_path, large, monkeypatch):
    """After a power cut a logger begins in 2000: without this, a quarter of a million empty windows."""
    if large:
        monkeypatch.setattr("ionbeam_dagster.sources.files.small_files.is_small", lambda size: False)
        monkeypatch.setattr("ionbeam_dagster.sources.files.index.is_small", lambda size: False)
    put(
        tmp_path,
        "a.csv",
        "2024-03-02T00:10Z,A,1",
        "2000-01-01T00:00Z,A,2",
        "2000-01-01T00:05Z,A,2",
        "2024-03-02T00:20Z,A,3",
    )
    put(tmp_path, "b.csv", "2000-01-01T00:00:30Z,B,1")
    told = ionbeam("run")
    assert "2024-03-02 00:00" in told and "2000-01-01 00:00-" not in told
    assert "has observations from 2000-01-01 00:00 on, and those before its start 2024-03-02 00:00 are left out" in told
    assert "by sources.loggers.start" in told
    put(tmp_path, "c.csv", "2021-05-01T00:10Z,A,1", "2021-05-03T00:10Z,A,1")  # a hole of years is no such clock
    assert "2021-05-01 00:00" in ionbeam("run", "--to", "2021-05-01T02:00Z")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("start", ["", "    start: 2024-03-02"])
def test_a_row_without_a_time_is_set_aside_beside_a_clock_that_was_wrong(ionbeam, tmp_path, large, start, monkeypatch):
    """Rows filed beside one of 1970 or of 2099 would be in no window that is ever collected."""
    if large:
        monkeypatch.setattr("ionbeam_dagster.sources.files.small_files.is_small", lambda size: False)
        monkeypatch.setattr("ionbeam_dagster.sources.files.index.is_small", lambda size: False)
    (tmp_path / "config.yaml").write_text(f"{BLOCK}{start}\n")
    put(
        tmp_path,
        "a.csv",
        "1970-01-01T00:00Z,A,1",
        "2024-03-33T00:00Z,first,2",
        "2024-03-02T00:10Z,A,3",
        "2099-01-01T00:00Z,A,4",
        "2024-03-34T00:00Z,second,5",
        "2024-03-02T00:20Z,A,6",
    )
    put(tmp_path, "b.csv", "2024-03-35T00:00Z,third,1", "2099-01-01T00:00Z,B,2", "2024-03-02T01:10Z,B,3")
    told = ionbeam("run", "--to", "2024-03-02T02:00Z")
    assert "loggers: 5 rows set aside, whole, in 2 windows" in told
    shown = ionbeam("quarantine", "show", "loggers")
    assert all(text in shown for text in ("2024-03-33", "2024-03-34", "2024-03-35")), shown
    aside = [path for path in tmp_path.rglob("*.parquet") if "quarantine" in path.parts]
    reasons = [reason for path in aside for reason in pl.read_parquet(path)["reason"]]
    assert reasons.count("in the future when it arrived: 2099-01-01T00:00:00Z") == 2, reasons
    for asked in (["config", "check"], ["status"], ["gaps"]):
        told = ionbeam(*asked)
        assert "has observations until 2099-01-01 00:00; those further in the future than P1D" in told
        assert "has observations from 1970-01-01 00:00 on, and those before its start 2024-03-02 00:00" in told
    rows = pl.concat([pl.read_parquet(path) for path in (tmp_path / "data").rglob("loggers_*.parquet")])
    assert sorted(rows["air_temperature__degC__2.0__point__PT0S"].to_list()) == [3, 3, 6]


@pytest.mark.parametrize("large", [False, True])
def test_a_clock_that_is_decades_ahead_makes_no_windows_until_today(ionbeam, tmp_path, large, monkeypatch):
    """Whoever runs all that there is, and whoever follows the files: without this, tens of thousands of windows."""
    if large:
        monkeypatch.setattr("ionbeam_dagster.sources.files.small_files.is_small", lambda size: False)
        monkeypatch.setattr("ionbeam_dagster.sources.files.index.is_small", lambda size: False)
    put(tmp_path, "a.csv", "2024-03-02T00:10Z,A,1", "2099-01-01T00:00Z,A,2", "2024-03-02T01:20Z,A,3")
    source = Files("loggers", IonbeamConfig.load(tmp_path / "config.yaml").sources["loggers"].config)
    until = datetime(2024, 3, 2, 1, 20, tzinfo=UTC) + timedelta.resolution
    assert source.last_time() == until and source.extent().end.year == 2099
    assert Window(datetime(2024, 3, 2, 0, 10, tzinfo=UTC), until) in source.changes(None)[0]
    told = ionbeam("run")
    assert "has observations until 2099-01-01 00:00; those further in the future than P1D" in told
    raws = [path.name for path in (tmp_path / "data-raw").rglob("*.parquet") if "quarantine" not in path.parts]
    assert len(raws) == 2, raws
    assert "loggers: 1 row set aside" in told
    put(tmp_path, "a.csv", "2099-01-01T00:00Z,A,2")
    assert source.last_time() is None or source.last_time().year == 2099


@pytest.mark.parametrize("large", [False, True])
def test_rows_without_any_value_are_counted(ionbeam, tmp_path, large, monkeypatch):
    if large:
        monkeypatch.setattr("ionbeam_dagster.sources.files.small_files.is_small", lambda size: False)
    times = ("2024-03-02T00:20Z,A,NaN", "2024-03-02T00:30Z,A,inf", "2024-03-02T01:30Z,A,", "2024-03-02T01:40Z,A,1e400")
    put(tmp_path, "a.csv", "2024-03-02T00:10Z,A,1", *times)
    told = ionbeam("run")
    assert "loggers: in/*.csv: 3 rows without a value of any variable are left out" in told
    assert "loggers: 1 row set aside, whole" in told and "t is no float64: 1e400" in told


def test_rows_that_lost_a_value_alone_are_told_apart_from_those_that_are_lost(ionbeam, tmp_path):
    block = BLOCK.replace("level: 2.0}]", "level: 2.0}, {column: rh, standard_name: relative_humidity, cf_unit: '%'}]")
    (tmp_path / "config.yaml").write_text(block)
    lines = ["time,id,t,rh", *(f"2024-03-01T00:{n}0Z,A,{t},80" for n, t in enumerate(["1", "x", "3"])), "soon,A,4,80"]
    (tmp_path / "in" / "a.csv").write_text("\n".join([*lines, ""]))
    (tmp_path / "in" / "b.csv").write_text("time,id,t,rh\n2024-03-01T01:00Z,A,x,80\n2024-03-01T01:10Z,A,1,80\n")
    assert "loggers: 3 rows set aside, 1 whole and 2 for a value alone, in 2 windows" in ionbeam("run")
    for command in ("status", "gaps"):
        assert "3 rows set aside, 1 whole and 2 for a value alone" in ionbeam(command)
    shown = ionbeam("quarantine", "show", "loggers")
    assert (
        "2 rows set aside, 1 whole and 1 for a value alone" in shown and "1 row set aside, for a value alone" in shown
    )
    assert shown.count("│ a value │") == 2 and shown.count("│ yes │") == 1
    listed = ionbeam("quarantine", "list")
    assert "│ 2 (1 whole) │" in listed and "│ 1 (0 whole) │" in listed


def test_what_is_wrong_with_a_row_stands_first(ionbeam, tmp_path):
    put(tmp_path, "a.csv", "2024-03-02T00:10Z,A,1", "2024-03-02T00:20Z,A,1,extra", "2024-03-02T00:30Z,A")
    ionbeam("run")
    shown = ionbeam("quarantine", "show", "loggers")
    assert "4 cells where the header has 3: '2024-03-02T00:20Z,A,1,extra'; no time" in shown
    assert "2 cells where the header has 3: '2024-03-02T00:30Z,A'; no time" in shown


def test_it_is_said_what_another_window_size_does(ionbeam, tmp_path):
    put(tmp_path, "a.csv", "2024-03-02T00:10Z,A,1")
    ionbeam("run")
    assert "another length" not in ionbeam("config", "check")
    scheduled = "  scheduler: {windows: [{source_name: loggers, window_size: PT10M, trigger_interval: PT10M}]}"
    (tmp_path / "config.yaml").write_text(BLOCK.replace("sources:", f"sources:\n{scheduled}"))
    for asked in (["config", "check"], ["status"]):
        told = ionbeam(*asked)
        assert "loggers: 1 of its 1 raw partitions are of windows of another length (PT1H) than its window_size" in told


@given(st.lists(st.integers(-(2**55), 2**55), min_size=1, max_size=30), st.integers(1, 5))
def test_stretches_of_parts_are_those_of_the_whole(times, pieces):
    series = pl.Series(times, dtype=pl.Int64).cast(pl.Datetime("us"))
    whole = stretches_of(series)
    parts = [stretches_of(series[place::pieces]) for place in range(min(pieces, len(times)))]
    assert joined(one for part in parts for one in part) == whole
    assert beginning(whole, times[0]) in {first for first, _ in whole}


def test_files_begin_with_their_first_time_and_rows_of_one_point_are_told(ionbeam, tmp_path):
    put(tmp_path, "b.csv", "2024-03-02T00:10Z,A,1", "2024-03-02T00:20Z,A,2", "2024-03-02T00:20Z,A,3")
    told = ionbeam("run")
    assert "2024-03-02 00:00" in told and "without a value" not in told
    assert "loggers: 1 row had the station and time of another, in 1 window" in told
    assert "loggers: 1 row had the station and time of another" in ionbeam("status")
    put(tmp_path, "a.csv", "2023-12-31T23:10Z,A,1")
    told = ionbeam("run", "--to", "2024-01-01T00:00Z")
    assert "2023-12-31 23:00" in told and "are left out" not in told, "earlier files came, and are taken at once"
    (tmp_path / "in" / "a.csv").unlink()
    assert "2023-12-31 23:00" in ionbeam("status", "--from", "2023-12-31"), "what was there once still has its windows"


def test_what_is_kept_is_counted_again_after_the_ledger_was_lost(ionbeam, tmp_path):
    put(tmp_path, "a.csv", *(f"2024-03-02T00:{minute}Z,A,1" for minute in (10, 20, 30)))
    ionbeam("run")
    put(tmp_path, "a.csv", "2024-03-02T00:30Z,A,1")
    assert "2 rows kept that the source no longer gives" in ionbeam("run")
    for path in tmp_path.rglob("ledger.sqlite*"):
        path.unlink()
    assert "2 rows kept that the source no longer gives" in ionbeam("run")


def test_a_text_that_says_that_there_is_no_value_is_no_station(ionbeam, tmp_path):
    put(tmp_path, "a.csv", "2024-03-02T00:10Z,NA,1", "2024-03-02T00:10Z,--,2", "2024-03-02T00:10Z,A,3")
    told = ionbeam("run")
    assert "2 rows set aside" in told and "station_id: NA is no station's name" in told
    [path] = (tmp_path / "data").rglob("loggers_*.parquet")
    assert pl.read_parquet(path)["station_id"].to_list() == ["A"]


def times_of(tmp_path: Path, rows: list[tuple[str, str]], **time: str) -> list[tuple[str, str | None]]:
    """The station and the time in UTC of each row."""
    path = tmp_path / "clock.csv"
    path.write_text("\n".join(["time,id,t", *(f"{text},{id},1" for text, id in rows), ""]))
    keys = {
        "type": "files", "path": str(path), "data_path": str(tmp_path / "raw"), "settle": 0, "latitude": 45.0,
        "longitude": 7.0, "metadata": {"station_id": "id"}, "time": {"column": "time", "zone": "Europe/Rome"} | time,
        "variables": [{"column": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}],
    }  # fmt: skip
    source = Files("s", FilesConfig.model_validate(keys))
    batches = source.fetch(Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)))
    found = pl.concat([pl.DataFrame(batch) for batch in batches])
    return [
        (id, None if time is None else f"{time:%H:%M}")
        for id, time in found.sort("x_row").select("station_id", "datetime").iter_rows()
    ]


def clock(*minutes: int, day: str = "2024-10-27") -> list[str]:
    return [f"{day} {datetime(2024, 1, 1) + timedelta(minutes=minute):%H:%M}" for minute in minutes]


AUTUMN = clock(90, 120, 150, 120, 150, 180)
IN_UTC = ["23:30", "00:00", "00:30", "01:00", "01:30", "02:00"]


def test_the_hour_that_clocks_show_twice_is_told_by_the_order_of_a_station_s_rows(tmp_path):
    one = [(text, "A") for text in AUTUMN]
    assert times_of(tmp_path, one) == [("A", t) for t in ["23:30", None, None, None, None, "02:00"]]
    assert times_of(tmp_path, one, ambiguous="in_order") == [("A", t) for t in IN_UTC]
    by_time = [(text, id) for text in AUTUMN for id in "AB"]
    assert times_of(tmp_path, by_time, ambiguous="in_order") == [(id, t) for t in IN_UTC for id in "AB"]
    by_station = [(text, id) for id in "AB" for text in AUTUMN]
    assert times_of(tmp_path, by_station, ambiguous="in_order") == [(id, t) for id in "AB" for t in IN_UTC]
    of_the_hour = [(text, id) for id in "AB" for text in AUTUMN[1:3]] + [(AUTUMN[-1], "C")]
    unknown = [(id, None) for id in "AABB"]
    assert times_of(tmp_path, of_the_hour, ambiguous="in_order") == [*unknown, ("C", "02:00")]


def test_the_hour_that_clocks_leave_out_is_no_time(tmp_path):
    rows = [(text, "A") for text in clock(90, 150, 180, day="2024-03-31")]
    for ambiguous in ("refuse", "in_order"):
        assert times_of(tmp_path, rows, ambiguous=ambiguous) == [("A", "00:30"), ("A", None), ("A", "01:00")]


def test_months_without_a_row_are_told_and_make_no_windows(ionbeam, tmp_path):
    """Two rows four months apart made 2,900 empty windows, each with its files."""
    put(tmp_path, "a.csv", "2024-03-01T00:10Z,A,1", "2024-03-01T02:10Z,A,2", "2024-07-01T05:20Z,A,3")

    def files(folder: str) -> list[str]:
        found = (tmp_path / folder).rglob("loggers_*.parquet")
        return sorted(path.name.removeprefix("loggers_")[:11] for path in found if "quarantine" not in path.parts)

    windows = ["20240301T00", "20240301T01", "20240301T02", "20240701T05"]
    hole = "loggers: has nothing from 2024-03-01 03:00 to 2024-07-01 05:00 (122 days): no windows are made of that time"
    assert hole in ionbeam("run")
    assert files("data-raw") == windows and files("data") == windows
    assert "Nothing to do" in ionbeam("run")
    told = ionbeam("gaps")
    assert "100% collected, no gap" in told and hole in told and "-----" in told
    assert "loggers: has nothing from 2024-04-01 00:00 to 2024-05-01 00:00 (30 days)" in ionbeam(
        "gaps", "--from", "2024-04-01", "--to", "2024-05-01"
    )
    told = ionbeam("status")
    assert "│ none │" in told and "2,930 windows, until 2024-07-01" in told and "nothing was collected" not in told
    assert hole in told
    platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
    assert reconcile(platform, platform.now()).work == []
    put(tmp_path, "b.csv", "2024-05-01T12:10Z,B,4", "2024-05-01T12:20Z,A,4")
    told = ionbeam("run")
    assert (
        "has nothing in 2 stretches, 122 days together, the longest from 2024-03-01 03:00 to 2024-05-01 12:00" in told
    )
    assert files("data") == sorted([*windows, "20240501T12"])
    put(tmp_path, "b.csv", "2024-05-20T12:10Z,B,4")  # what was collected is looked at again, and stays
    assert "2 rows kept that the source no longer gives" in ionbeam("run")
    assert files("data") == sorted([*windows, "20240501T12", "20240520T12"])


def test_what_is_removed_is_withdrawn_also_where_retention_took_what_was_collected_of_it(ionbeam, tmp_path):
    """Beside it nothing is left for weeks, so that its windows looked like ones that never were."""
    mirror = BLOCK.replace("settle: 0", "settle: 0\n    when_removed: withdraw")
    (tmp_path / "config.yaml").write_text(f"{mirror}dataset_aggregator: {{delete_after_export: true}}\n")
    put(tmp_path, "a.csv", "2024-03-01T00:10Z,A,1", "2024-04-01T00:10Z,A,1")
    put(tmp_path, "b.csv", "2024-03-15T00:10Z,B,2")
    ionbeam("run")
    ionbeam("purge")
    assert not list((tmp_path / "data-raw").rglob("loggers_*.parquet"))
    (tmp_path / "in" / "b.csv").unlink()
    ionbeam("run")
    newest = {path.name[:20]: path for path in sorted((tmp_path / "data").rglob("loggers_*.parquet"))}
    assert [pl.read_parquet(path).height for path in newest.values()] == [1, 0, 1]


def test_no_part_of_a_window_is_a_hole_where_windows_were_shorter_when_it_was_collected(ionbeam, tmp_path):
    """Such a part was noted to be collected, failed as no window of its source, and was noted again."""
    put(tmp_path, "a.csv", "2024-03-01T00:10Z,A,1", "2024-04-01T00:10Z,A,1")
    put(tmp_path, "b.csv", "2024-03-15T03:10Z,B,2")
    ionbeam("run")
    put(tmp_path, "b.csv", "2024-03-01T03:10Z,B,2")
    daily = "  scheduler: {windows: [{source_name: loggers, window_size: P1D, trigger_interval: P1D}]}"
    (tmp_path / "config.yaml").write_text(BLOCK.replace("sources:", f"sources:\n{daily}"))
    platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
    march = Window(datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    collected = Window(datetime(2024, 3, 15, tzinfo=UTC), datetime(2024, 3, 16, tzinfo=UTC))
    assert collected in agenda.without_holes(platform, platform.source("loggers"), [march])


@pytest.mark.parametrize("large", [False, True])
def test_where_several_sources_feed_a_dataset_only_what_none_of_them_has_is_a_hole(
    ionbeam, tmp_path, large, monkeypatch
):
    """Of every other window each says that it has nothing, or those in which the others have rows would wait for it."""
    if large:
        monkeypatch.setattr("ionbeam_dagster.sources.files.small_files.is_small", lambda size: False)
        monkeypatch.setattr("ionbeam_dagster.sources.files.index.is_small", lambda size: False)
    other = BLOCK.partition("\n")[2].replace("loggers", "others").replace("in/", "out/")
    both = "    dataset: both\n    aggregation_span: P1D\n"
    put(tmp_path, "a.csv", "2024-03-12T06:20Z,A,3", "2024-03-01T00:10Z,A,1", "2024-03-03T00:10Z,A,1")
    march = Window(datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    cycles = Window(datetime(2024, 3, 3, 3, tzinfo=UTC), datetime(2024, 3, 12, 3, tzinfo=UTC))
    until = Window(datetime(2024, 3, 12, 9, tzinfo=UTC), march.end)
    with_cycles = BLOCK.replace("exports: []", "exports: [odb_cycle]")
    of_two = BLOCK + both + other + both + "    station_prefix: o-\n"

    def holes(text: str) -> list[Window]:
        (tmp_path / "config.yaml").write_text(text)
        platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
        return agenda.holes(platform, platform.source("loggers"), march)

    assert holes(BLOCK + both) == [days(4, 12), days(13, 32)]
    assert holes(with_cycles) == [cycles, until]
    assert holes(of_two) == [], "nobody knows what the other one has, whose files are not there"
    put(tmp_path, "b.csv", "2024-03-06T12:00Z,B,1", "2024-04-06T12:00Z,B,1", folder="out")
    assert holes(of_two) == [days(4, 6), days(7, 12), days(13, 32)], "where no source has anything no window is made"


def test_two_sources_of_one_dataset_make_no_windows_of_the_weeks_in_which_neither_has_a_row(ionbeam, tmp_path):
    other = BLOCK.partition("\n")[2].replace("loggers", "others").replace("in/", "out/")
    both = "    dataset: both\n    aggregation_span: P1D\n"
    (tmp_path / "config.yaml").write_text(BLOCK + both + other + both + "    station_prefix: o-\n")
    put(tmp_path, "a.csv", "2024-03-01T00:10Z,A,1", "2024-06-01T00:10Z,A,1")
    put(tmp_path, "b.csv", "2024-03-01T00:10Z,B,1", "2024-04-01T00:10Z,B,1", "2024-06-01T00:10Z,B,2", folder="out")
    told = ionbeam("run", "--from", "2024-02-01", "--to", "2024-06-02")
    assert "loggers: has nothing in 3 stretches" in told
    latest = sorted((tmp_path / "data").rglob("both_*.parquet"))  # the first of each was made of one source alone
    found = {path.name[5:13]: pl.read_parquet(path).height for path in latest}
    assert found == {"20240301": 2, "20240401": 1, "20240601": 2}
    assert ionbeam("gaps").count("100% collected, no gap") == 2
    told = ionbeam("status")
    assert told.count("built") >= 3 and "100%" in told and "waiting" not in told


def days(first: int, last: int) -> Window:
    """From one day of March on, before another."""
    begin = datetime(2024, 3, 1, tzinfo=UTC)
    return Window(begin + timedelta(days=first - 1), begin + timedelta(days=last - 1))
