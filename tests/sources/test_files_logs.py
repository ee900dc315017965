"""The logs of a station's own logger, as files: what it wrote becomes windows, whatever happened to the log."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ionbeam_client.influx import EHTInfluxDBClient
from ionbeam_client.influx.annotated import read_lines
from ionbeam_client.influx.lines import row_of
from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import EPOCH, Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.agenda import needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources.files import Files, FilesConfig
from ionbeam_dagster.sources.files.annotated_csv import AnnotatedCsvReader

HOUR = timedelta(hours=1)
DAY = datetime(2024, 3, 1, tzinfo=UTC)
DAYS = Window(DAY, DAY + timedelta(days=2))
T, RH = "air_temperature__degC__2.0__point__PT0S", "relative_humidity__%__2.0__point__PT0S"


def ns(minutes: float) -> int:
    return (int(DAY.timestamp()) + int(minutes * 60)) * 10**9


def logs(folder: Path, pattern: str, **keys) -> Files:
    block = {"path": str(folder / pattern), "data_path": folder / "raw", "settle": 0, "latitude": 45.0}
    block |= {"longitude": 7.0, "metadata": {"station_id": "station"}, "variables": [
        {"column": "weather.t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2},
        {"column": "rh", "standard_name": "relative_humidity", "cf_unit": "%", "level": 2, "optional": True},
    ]}  # fmt: skip
    return Files("weather", FilesConfig.model_validate(block | keys))


def canonical(source: Files, window: Window = DAYS) -> tuple[list[tuple], list[str]]:
    """The rows of a window, in the order of time, and why others were rejected."""
    done = [canonicalise(batch, source.metadata) for batch in source.fetch(window)]
    rows = pl.concat([one.rows for one in done]).sort("datetime", T, RH)
    why = [problem for one in done for problem in one.rejected["x_problem"].to_list()]
    return rows.select("datetime", "station_id", T, RH).rows(), why


def line(minutes: float, t: object = 1.5, station: str = "Kp", measurement: str = "weather", field: str = "t") -> str:
    row = {"timestamp": ns(minutes), "measurement": measurement, "tags": {"station": station}, "fields": {field: t}}
    return json.dumps(row, separators=(",", ":")) + "\n"


@pytest.fixture
def logger(tmp_path):
    """A logger whose server is away; it writes both logs."""
    keys = {"url": "http://127.0.0.1:9", "org": "o", "bucket": "b_test", "token": "t", "close_timeout": 0.2}
    folder = tmp_path / "log"
    with EHTInfluxDBClient(jsonlogfile=folder / "log.jsonl", csvlogfile=folder / "log.csv", **keys) as client:
        yield client


def test_both_logs_of_the_logger_say_the_same(logger, tmp_path):
    written = logger.write_api()
    names = ["Kp", 'a,b "c"', "Grönland Nord", "#9"]
    rows = [
        {"measurement": ("weather", "cpu")[n % 5 == 4], "tags": {"station": names[n % 4]}, "time": ns(n),
         "fields": {"t": (1.5 * n, n)[n % 2], "rh": n, "ok": True, "note": 'x,"\n{}'}} for n in range(100)
    ]  # fmt: skip
    for place in range(0, 100, 10):
        written.write(record=rows[place : place + 10])
    written.write(record={"measurement": "weather", "tags": {"station": "Kp"}, "time": ns(100), "fields": {"rh": 7}})
    logger.close()
    expected = sorted(
        (DAY + n * HOUR / 60, names[n % 4], 1.5 * n if n % 2 == 0 else float(n), float(n))
        for n in range(100)
        if n % 5 != 4
    )
    expected += [(DAY + n * HOUR / 60, names[n % 4], None, float(n)) for n in range(4, 100, 5)]
    expected = sorted([*expected, (DAY + 100 * HOUR / 60, "Kp", None, 7.0)], key=lambda row: row[0])
    for form, pattern in (("jsonl", "*.jsonl"), ("influx_csv", "log.csv")):
        source = logs(tmp_path / "log", pattern, format=form, data_path=tmp_path / form)
        assert source.problems() == []
        assert canonical(source) == (expected, []), form


def test_a_folder_of_logs_is_windows_and_what_comes_late_is_a_revision_of_its_own(platform_of, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(line(n * 10, n) for n in range(12)))
    (folder / "log.jsonl.schema.json").write_text("{}")
    (folder / "log.jsonl.refused.jsonl").write_text('{"refused": {"target": "x"}, "line": "weather t=1 1"}\n')
    block = """
  mast:
    type: files
    path: in
    start: 2024-03-01
    aggregation_span: PT1H
    settle: 0
    latitude: 45.0
    longitude: 7.0
    exports: [pygeoapi]
    metadata: {station_id: station}
    variables: [{column: weather.t, standard_name: air_temperature, cf_unit: degC, level: 2}]
"""
    now = DAY + timedelta(days=30)
    hours = [Window(DAY + n * HOUR, DAY + (n + 1) * HOUR) for n in range(2)]

    def exported(platform, window):
        collect(platform, platform.source("mast"), window, now)
        ingest(platform, platform.source("mast"), window)
        made = build(platform, platform.dataset("mast"), window, now).revision.revision.number
        file = export(platform, platform.dataset("mast"), platform.config.window_exporters["pygeoapi"], window).path
        return made, pl.read_parquet(file, columns=[T])[T].to_list()

    platform = platform_of(block)
    assert [exported(platform, window) for window in hours] == [(1, [0, 1, 2, 3, 4, 5]), (1, [6, 7, 8, 9, 10, 11])]
    # The log is put aside with a number, a new one begins; a row of the first hour comes last.
    (folder / "log.jsonl").rename(folder / "log.jsonl.000001")
    (folder / "log.jsonl").write_text(line(35, 99) + line(40, -4) + line(130, 13))
    again = platform_of(block)
    (told,) = again.sources["mast"].problems()
    assert told.endswith("where they differ, in/log.jsonl wins")
    assert needs_collecting(again, "mast", hours[0])
    assert exported(again, hours[0]) == (2, [0, 1, 2, 3, 99, -4, 5])
    collect(again, again.source("mast"), hours[1], now)
    ingest(again, again.source("mast"), hours[1])
    assert build(again, again.dataset("mast"), hours[1], now).revision is None or exported(again, hours[1])[0] == 1


def test_torn_and_foreign_lines_go_to_the_quarantine_and_take_none_along(tmp_path):
    bad = [line(10)[:40], "[1]", '"x"', "{} {}", line(20).replace(str(ns(20)), '"soon"'), '{"measurement":"weather"}']
    text = line(0, 1) + "\n".join(bad) + "\n\n" + line(30, None) + line(40, "many") + line(50, 2)
    (tmp_path / "log.jsonl").write_bytes(
        text.encode() + line(60).encode().replace(b"Kp", b"K\xff") + line(70)[:-9].encode()
    )
    source = logs(tmp_path, "*.jsonl")
    assert source.problems() == []
    rows, why = canonical(source)
    assert rows == [(DAY, "Kp", 1.0, None), (DAY + 50 * HOUR / 60, "Kp", 2.0, None)]
    told = "\n".join(str(one) for one in why)
    for part in (
        f"is not whole JSON: its writer was killed, or it was edited: {bad[0]}", "is no JSON object: [1]",
        "edited: {} {}", "timestamp: soon is no whole number", "timestamp: none is no whole number",
        "is not UTF-8 text",
    ):  # fmt: skip
        assert part in told
    places = pl.concat([canonicalise(batch, source.metadata).rejected for batch in source.fetch(DAYS)])
    assert set(places["x_row"].to_list()) >= {2, 3, 4, 5, 6, 8, 11, 13, 14}


def test_a_log_that_is_being_written_is_read_as_far_as_its_lines_are_whole(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(line(n * 10) for n in range(8)) + line(80)[:30])
    source = logs(tmp_path, "*.jsonl", settle=3600)
    rows, why = canonical(source, Window(DAY, DAY + HOUR))
    assert (len(rows), why) == (6, [])
    with pytest.raises(SourceError, match="still being written, and its rows go as far as 2024-03-01 01:10"):
        canonical(source, Window(DAY + HOUR, DAY + 2 * HOUR))


def test_names_that_no_row_has_are_told_with_the_nearest(tmp_path):
    (tmp_path / "log.jsonl").write_text(line(0, field="temperature"))
    (told,) = logs(tmp_path, "*.jsonl", variables=[
        {"column": "temprature", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2}
    ]).problems()  # fmt: skip
    assert "no row has 'temprature'; it has 'timestamp', 'measurement', 'temperature', 'station' (near is" in told
    (tmp_path / "log.csv").write_text("#datatype measurement,tag,double,dateTime\nm,station,temperature,t\na,b,1,1\n")
    (told,) = logs(tmp_path, "log.csv", format="influx_csv", variables=[
        {"column": "temprature", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2}
    ]).problems()  # fmt: skip
    assert "no row has 'temprature'; it has 'temperature', 'station' (near is 'temperature')" in told


def test_other_json_lines_have_a_time_as_the_block_says(tmp_path):
    rows = [{"at": "2024-03-01T00:00:00+01:00", "t": 1.5}, {"at": "2024-03-01T01:30:00+01:00", "t": 2}]
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    source = logs(
        tmp_path, "x.jsonl.gz", time="at", metadata={}, constants={"station_id": "A"},
        variables=[{"column": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2}],
    )  # fmt: skip
    (batch,) = source.fetch(Window(DAY - HOUR, DAY + HOUR))
    assert pl.DataFrame(batch)["datetime"].to_list() == [DAY - HOUR, DAY + HOUR / 2]
    assert source.problems() == []


def test_the_time_of_annotated_csv_is_not_described_twice(tmp_path):
    with pytest.raises(ValidationError, match="annotated CSV says itself where its time is"):
        logs(tmp_path, "x.csv", format="influx_csv", time="timestamp")


# -- annotated CSV, as InfluxData's tools write it

FLUX = """#group,false,false,true,true,false,false,true,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string
#default,_result,,,,,,,,
,result,table,_start,_stop,_time,_value,_field,_measurement,station
,,0,2024-02-01T00:00:00Z,2024-03-09T00:00:00Z,2024-03-01T00:00:00.5Z,1.5,t,weather,Kp
,,0,2024-02-01T00:00:00Z,2024-03-09T00:00:00Z,2024-03-01T01:00:00+01:00,2.5,t,weather,Kp

#group,false,false,true,true,false,false,true,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,long,string,string,string
#default,_result,,,,,,,,
,result,table,_start,_stop,_time,_value,_field,_measurement,station
,,1,2024-02-01T00:00:00Z,2024-03-09T00:00:00Z,2024-03-01T00:00:00.5Z,80,rh,weather,
"""


def test_what_influx_query_gives_is_read(tmp_path):
    (tmp_path / "back.csv").write_text(FLUX.replace("\n", "\r\n"))
    source = logs(tmp_path, "back.csv", format="influx_csv")
    half = DAY + timedelta(seconds=0.5)
    rows, why = canonical(source)
    assert set(rows) == {(DAY, "Kp", 2.5, None), (half, "Kp", 1.5, None), (half, "45.0_7.0", None, 80.0)}
    assert why == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#datatype tag,double,dateTime\nstation,t,time\na,1,1\n#constant measurement,m\nb,2,2\n",
         "line 4: annotations"),
        ("#timezone -0500\n#datatype tag,double,dateTime\nstation,t,time\na,1,1\n#datatype tag,double,dateTime\n"
         "station,t,time\na,1,1\n", "a second table under a #timezone"),
        ('#datatype tag,double,dateTime\n"station,t,time\na,1,1\n', "a quote that opens in line 2 does not close"),
        ("#datatype tag,double,dateTime\nstation,t,time\na,1,x\n", "timestamp: x is no time as the head says"),
    ],
)  # fmt: skip
def test_an_annotated_csv_that_cannot_be_used_is_told(tmp_path, text, told):
    (tmp_path / "x.csv").write_text(text)
    (problem,) = logs(tmp_path, "x.csv", format="influx_csv", variables=[
        {"column": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2}
    ]).problems()  # fmt: skip
    assert told in problem


name = st.sampled_from(["t", "rh", "station", "x"])
cells = {
    "double": st.one_of(st.floats(-1e6, 1e6).map(repr), st.sampled_from(["", "1_0", "1 0.5"])),
    "long": st.one_of(st.integers(-(2**53), 2**53).map(str), st.sampled_from(["", "1.5", "+7", "1_000"])),
    "unsignedLong": st.one_of(st.integers(0, 2**53).map(str), st.sampled_from(["", "1.5"])),
    "duration": st.sampled_from(["1h", "-2m3.5s", "", "0"]),
    "double:,.": st.sampled_from(["1.000,5", "2", ""]),
    "field": st.sampled_from(["1i", "2.5", ""]),
    "tag": st.sampled_from(["", "A", "b c", 'q"r', "#x"]),
}


@st.composite
def tables(draw) -> str:
    """Tables with fields t and rh and a tag station, in any order and of any types."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    for _ in range(draw(st.integers(1, 4))):
        kinds = {one: draw(st.sampled_from(sorted(cells.keys() - {"tag"}))) for one in ("t", "rh")}
        numbers = {one: "1h" if kinds[one] == "duration" else "7" for one in kinds}
        kinds |= {
            "station": "tag",
            "m": "measurement",
            "time": draw(st.sampled_from(["dateTime", "dateTime:2006-01-02 15:04"])),
        }
        order = draw(st.permutations(sorted(kinds)))
        writer.writerow([f"#datatype {kinds[order[0]]}", *(kinds[one] for one in order[1:])])
        if draw(st.booleans()):
            defaults = numbers | {"station": "S", "m": "", "time": ""}
            writer.writerow([f"#default {defaults[order[0]]}", *(defaults[one] for one in order[1:])])
        writer.writerow(order)
        for _ in range(draw(st.integers(0, 4))):
            moment = DAY + timedelta(minutes=draw(st.integers(0, 300)))
            given = {one: draw(cells[kind]) for one, kind in kinds.items() if kind in cells} | {
                "m": draw(st.sampled_from(["weather", "cpu"])),
                "time": f"{moment:%Y-%m-%d %H:%M}" if ":" in kinds["time"] else str(int(moment.timestamp()) * 10**9),
            }
            writer.writerow([given[one] for one in order])
        if draw(st.booleans()):
            out.write("\n# a comment\n")
    return out.getvalue()


@settings(max_examples=80, deadline=None)
@given(tables())
def test_rows_are_those_of_the_lines_that_the_client_makes(text):
    """The client's own reader, which gives the lines of InfluxData's csv2lp, against ours of columns."""
    expected = []
    for _, made, _ in read_lines(io.StringIO(text, newline="")):
        if made is not None:
            row = row_of(made)
            t = row.fields.get("t") if row.measurement == "weather" else None
            expected.append((row.timestamp, row.tags.get("station"), t, row.fields.get("rh")))
    config = FilesConfig.model_validate({"path": "x", "data_path": "y", "format": "influx_csv", "latitude": 1.0,
                                         "longitude": 1.0, "variables": ["weather.t", "rh"]})  # fmt: skip
    with NamedTemporaryFile(suffix=".csv") as file:
        Path(file.name).write_bytes(text.encode())
        reader = AnnotatedCsvReader(config)
        wanted = ["timestamp", "station", "weather.t", "rh"]
        places = [place for place, _ in reader.parts(Path(file.name))]
        frames = [frame for _, frame in reader.read(Path(file.name), places, wanted)]
    found = [
        ((moment - EPOCH) // timedelta(microseconds=1) * 1000, station, *(v and float(v) for v in values))
        for frame in frames for moment, station, *values in frame.select(wanted).rows()
    ]  # fmt: skip
    assert [row for row in found if row[2:] != (None, None)] == [row for row in expected if row[2:] != (None, None)]
