"""Files as people have them: each fault that was found stands for its kind, with the right value or a sentence."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig, text_lines

DAY = datetime(2024, 3, 1, tzinfo=UTC)
WHOLE = Window(DAY - timedelta(days=2), DAY + timedelta(days=7))
T = "air_temperature__degC__2.0__point__PT0S"
TEMPERATURE = {"column": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}


def source(folder: Path, text: str | bytes | None = None, name: str = "a.csv", **keys) -> Files:
    """A source of one temperature, in a file with `text`; settled at once."""
    if text is not None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    block = {"path": str(folder / f"**/*{Path(name).suffix}"), "data_path": folder / "raw", "time": "time", "settle": 0}
    block |= {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}, "variables": [TEMPERATURE]}
    given = {key: value for key, value in (block | keys).items() if value is not None}
    return Files("s", FilesConfig.model_validate(given))


def taken(made: Files, window: Window = WHOLE) -> tuple[pl.DataFrame, list[str]]:
    """The canonical rows of a window, and why others, or values of theirs, could not be used."""
    done = [canonicalise(batch, made.metadata) for batch in made.fetch(window)]
    rows = pl.concat([one.rows for one in done]).sort("datetime", maintain_order=True)
    return rows, [reason for one in done for reason in one.rejected["reason"]]


def at(*hours_and_minutes: tuple[int, int]) -> list[datetime]:
    return [DAY + timedelta(hours=hour, minutes=minute) for hour, minute in hours_and_minutes]


def cf(path: Path, fill) -> Path:
    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "CF-1.8"
        fill(file)
    return path


def variable(file, name: str, kind, dimensions, values, **attributes):
    made = file.createVariable(name, kind, dimensions)
    made.setncatts(attributes)
    made[:] = values


# Times


@pytest.mark.parametrize(
    ("kind", "unit", "numbers", "expected"),
    [
        ("i4", "seconds since 2024-03-01", [0, 3600, 7200], at((0, 0), (1, 0), (2, 0))),
        ("u4", "seconds since 2024-03-01", [7200, 0, 3600], at((0, 0), (1, 0), (2, 0))),
        ("i2", "minutes since 2024-03-01", [0, 60, 700], at((0, 0), (1, 0), (11, 40))),
        ("i4", "seconds since 1970-01-01", [1709251200, 1709254800, 1709258400], at((0, 0), (1, 0), (2, 0))),
        ("f4", "days since 2024-03-01", [0, 9 / 24, 11 / 24 + 40 / 1440], at((0, 0), (9, 0), (11, 40))),
        ("f8", "days since 1950-01-01", [27088, 27088.375, 27088.5], at((0, 0), (9, 0), (12, 0))),
    ],
)
def test_netcdf_times_of_every_type_are_exact(tmp_path, kind, unit, numbers, expected):
    def fill(file):
        file.createDimension("time", 3)
        variable(file, "time", kind, ("time",), numbers, units=unit, standard_name="time")
        variable(file, "t", "f4", ("time",), [1, 2, 3], units="degC", standard_name="air_temperature")

    cf(tmp_path / "a.nc", fill)
    rows, reasons = taken(source(tmp_path, name="a.nc", time=None))
    assert rows["datetime"].to_list() == expected and reasons == []


def test_netcdf_times_that_floats_of_32_bits_cannot_hold_are_refused(tmp_path):
    def fill(file):
        file.createDimension("time", 2)
        variable(file, "time", "f4", ("time",), [1.7e9, 1.7e9], units="seconds since 1970-01-01", standard_name="time")
        variable(file, "t", "f4", ("time",), [1, 2], units="degC")

    cf(tmp_path / "a.nc", fill)
    assert "exact to 128 s alone; write them as doubles" in source(tmp_path, name="a.nc", time=None).problems()[0]


@pytest.mark.parametrize(
    ("keys", "text", "expected"),
    [
        ({"columns": ["date", "clock"]}, "date,clock,t\n2024-03-01,00:10,1\n2024-03-01,23:00,2\n",
         at((0, 10), (23, 0))),
        (
            {"columns": ["d", "h"], "format": "%d.%m.%Y %H:%M", "zone": "+01:00"},
            "h,d,t\n01:30,01.03.2024,1\n", at((0, 30)),
        ),
        ({"columns": ["y", "m", "d", "h"], "format": "%Y %m %d %H"}, "y,m,d,h,t\n2024,3,1,5,1\n", at((5, 0))),
        ({"column": "time", "format": "%Y%m%d%H"}, "time,t\n2024030105,1\n", at((5, 0))),
        ({"column": "time", "format": "%d/%m/%Y %H"}, "time,t\n01/03/2024 05,1\n", at((5, 0))),
        ({"column": "time", "unit": "s"}, "time,t\n1709251200,1\n1709251200.5,2\n",
         [DAY, DAY.replace(microsecond=500000)]),
        ({"column": "time", "unit": "ms"}, "time,t\n1709251200250,1\n", [DAY.replace(microsecond=250000)]),
        ({"column": "time", "zone": "+01:00"}, "time,t\n2024-03-01 01:00:00,1\n", at((0, 0))),
        ({"column": "time", "zone": "UTC-3"}, "time,t\n2024-02-29 21:00,1\n", at((0, 0))),
        ({"column": "time", "zone": "GMT+5:30"}, "time,t\n2024-03-01 05:30,1\n", at((0, 0))),
        ({"column": ""}, ",t\n2024-03-01 00:10,1\n", at((0, 10))),  # pandas' own to_csv
    ],
)  # fmt: skip
def test_a_time_is_read_as_it_is_written(tmp_path, keys, text, expected):
    rows, reasons = taken(source(tmp_path, text, time=keys))
    assert rows["datetime"].to_list() == expected and reasons == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"column": "time", "format": "%Y-%m-%d"}, r"has no clock.*time\.columns: \[date, time\]"),
        ({"column": "time", "format": "%Y-%m-%d %H:%M %Z"}, "%Z, the abbreviation of a zone"),
        ({"column": "time", "zone": "CEST"}, r"right would be, for example, UTC, Europe/Rome or \+01:00"),
        ({"column": "time", "columns": ["a", "b"]}, "both `column` and `columns`"),
        ({"column": "time", "unit": "s", "format": "%H"}, "both `format`"),
    ],
)
def test_a_time_that_would_be_read_wrongly_is_refused(tmp_path, keys, told):
    with pytest.raises(ValidationError, match=told):
        source(tmp_path, time=keys)


def test_dates_without_a_clock_in_parquet_are_refused(tmp_path):
    pl.DataFrame({"time": [DAY.date()], "t": [1.0]}).write_parquet(tmp_path / "a.parquet")
    (told,) = source(tmp_path, name="a.parquet").problems()
    assert "holds dates without a clock" in told and "time.columns" in told


# Dimensions


def test_heights_of_a_profile_and_an_instrument_with_times_of_its_own_are_refused_by_name(tmp_path):
    def base(file):
        file.createDimension("time", 2)
        variable(file, "time", "i4", ("time",), [0, 60], units="minutes since 2024-03-01", standard_name="time")

    def profile(file):
        base(file)
        file.createDimension("z", 3)
        variable(file, "t", "f4", ("time", "z"), [[1, 2, 3], [4, 5, 6]], units="degC")

    def instruments(file):
        base(file)
        file.createDimension("time10", 3)
        variable(file, "t", "f4", ("time10",), [7, 8, 9], units="degC")

    for name, fill, told in (("p", profile, "'t' lies along 'z' (3 values)"), ("i", instruments, "along 'time10'")):
        cf(tmp_path / name / "a.nc" if (tmp_path / name).mkdir() is None else tmp_path, fill)
        made = source(tmp_path / name, name="a.nc", time="time")
        (problem,) = made.problems()
        assert told in problem and "which neither the times nor the places do" in problem
        with pytest.raises(SourceError, match="lies along"):
            list(made.fetch(WHOLE))


# Descriptions


def test_a_name_without_an_ending_is_its_own_stem_and_a_folder_can_name_a_station(tmp_path):
    for name in ("oslo/loggerA", "oslo/loggerB"):
        source(tmp_path, "time,t\n2024-03-01T00:00Z,1\n", name)
    constants = {"station_id": "{stem}", "town": "{folder}"}
    rows, _ = taken(source(tmp_path, path=str(tmp_path / "oslo" / "logger*"), format="csv", constants=constants))
    assert rows.select("station_id", "town").rows() == [("loggerA", "oslo"), ("loggerB", "oslo")]
    with pytest.raises(ValidationError, match=r"\{name\} stands for nothing; there are \{stem\}"):
        source(tmp_path, constants={"station_id": "{name}"})


def test_heights_are_in_metres_whatever_unit_they_come_in(tmp_path):
    def fill(file):
        file.createDimension("time", 1)
        variable(file, "time", "i4", ("time",), [0], units="minutes since 2024-03-01", standard_name="time")
        variable(file, "elev", "f4", (), 1000.0, units="ft", standard_name="height")
        variable(file, "t", "f4", ("time",), [1], units="degC")

    cf(tmp_path / "a.nc", fill)
    made = source(tmp_path, name="a.nc", time=None, metadata={"altitude": "elev"})
    assert taken(made)[0]["altitude"].to_list() == ["304.8"]
    text = "time,t,elev\n2024-03-01T00:00Z,1,1000\n"
    for unit, expected in (("ft", "304.8"), ("km", "1000000.0"), (None, "1000")):
        described = {"altitude": {"column": "elev"} | ({"unit": unit} if unit else {})}
        assert taken(source(tmp_path, text, metadata=described))[0]["altitude"].to_list() == [expected]
    described = {"altitude": {"column": "elev", "unit": "degC"}}
    with pytest.raises(SourceError, match="a unit that is none of a length"):
        list(source(tmp_path, text, metadata=described).fetch(WHOLE))


def test_station_numbers_that_are_floats_are_written_as_numbers(tmp_path):
    frame = pl.DataFrame({"time": [DAY, DAY], "id": [6260.0, None], "t": [1.0, 2.0]})
    frame.write_parquet(tmp_path / "a.parquet")
    keys = {"metadata": {"station_id": "id"}, "constants": {}}
    assert taken(source(tmp_path, name="a.parquet", **keys))[0]["station_id"].to_list() == ["6260", "45.0_7.0"]
    text = "time,id,t\n2024-03-01T00:00Z,6260.0,1\n2024-03-01T00:00Z,NA,2\n"
    assert taken(source(tmp_path, text, **keys))[0]["station_id"].to_list() == ["6260"], "NA is no name"


# Values


@pytest.mark.parametrize("missing", [[-999], ["-999"], [-999.0]])
def test_a_number_that_stands_for_no_value_is_one_however_it_is_written(tmp_path, missing):
    text = "time,t\n" + "".join(
        f"2024-03-01T00:0{n}Z,{value}\n" for n, value in enumerate(["-999", "-999.0", "-9.99e2", "5"])
    )
    for keys in ({"missing": missing}, {"csv": {"missing": missing}}):
        rows, reasons = taken(source(tmp_path, text, **keys))
        assert rows[T].to_list() == [5.0] and reasons == []
    pl.DataFrame({"time": [DAY, DAY + timedelta(hours=1)], "t": [-999, 5]}).write_parquet(tmp_path / "a.parquet")
    assert taken(source(tmp_path, name="a.parquet", missing=missing))[0][T].to_list() == [5.0]


HUMIDITY = {"column": "rh", "standard_name": "relative_humidity", "cf_unit": "%", "level": 2.0}


def test_one_bad_cell_loses_only_its_value_and_is_told(tmp_path):
    text = "time,t,rh\n" + "".join(
        f"2024-03-01T00:{n:02}Z,{t},{rh}\n"
        for n, (t, rh) in enumerate([("5.5", "NA"), ("5.6", "--"), ("5.x7", "80"), ("NAN", "81"), ("#N/A", "////")])
    )
    rows, reasons = taken(source(tmp_path, text, variables=[TEMPERATURE, HUMIDITY]))
    assert rows[T].to_list() == [5.5, 5.6, None, None]
    assert rows["relative_humidity__%__2.0__point__PT0S"].to_list() == [None, None, 80.0, 81.0]
    assert reasons == ["t is no float64: 5.x7"]


RAGGED = """time,t,note,rh
2024-03-01T00:00Z,1.5,a,80
2024-03-01T00:10Z,2.5
# a comment

2024-03-01T00:20Z,3.5,"b, c"
2024-03-01T00:30Z,4.5,d,83,,
2024-03-01T00:40Z,5.5,e,84,lost
"""


@pytest.mark.parametrize("comment", [None, "#"])
def test_rows_that_lack_cells_at_their_end_are_taken_where_that_is_said(tmp_path, comment):
    text = RAGGED if comment else RAGGED.replace("# a comment\n", "")
    csv = {"comment": comment} if comment else {}
    keys = {"variables": [TEMPERATURE, HUMIDITY], "csv": csv}
    rows, reasons = taken(source(tmp_path, text, **keys))
    assert rows[T].to_list() == [1.5] and len([one for one in reasons if one.startswith("no time")]) == len(reasons)
    keys["csv"] = csv | {"ragged": True}
    made = source(tmp_path, **keys)
    rows, reasons = taken(made)
    assert rows[T].to_list() == [1.5, 2.5, 3.5, 4.5]
    assert rows["relative_humidity__%__2.0__point__PT0S"].to_list() == [80, None, None, 83]
    (wrong,) = pl.concat(pl.DataFrame(batch) for batch in made.fetch(WHOLE)).drop_nulls("x_problem").to_dicts()
    assert wrong["x_problem"] == "5 cells where the header has 4: '2024-03-01T00:40Z,5.5,e,84,lost'"
    assert wrong["x_row"] == (8 if comment else 7), "a comment above it moves no line"


def test_a_quote_within_a_row_that_ends_early_moves_no_cell_of_another(tmp_path):
    text = 'time,t,note,rh\n2024-03-01T00:00Z,1.5,5" pipe\n2024-03-01T00:10Z,2.5,"a\n2024-03-01T00:20Z,3.5,b,80\n'
    rows, _ = taken(source(tmp_path, text, variables=[TEMPERATURE, HUMIDITY], csv={"ragged": True}))
    told = dict(zip(rows["datetime"].dt.minute(), rows[T], strict=True))
    assert told.items() <= {0: 1.5, 10: 2.5, 20: 3.5}.items()


def test_other_quotes_and_none_at_all(tmp_path):
    text = "time,t,note\n2024-03-01T00:00Z,1.5,'a, b\n\"c'\n2024-03-01T00:10Z,2.5,5\" pipe\n"
    rows, reasons = taken(source(tmp_path, text, csv={"quote": "'"}))
    assert (rows[T].to_list(), reasons) == ([1.5, 2.5], [])
    text = "time,t,note\n" + "".join(f'2024-03-01T00:{n:02}Z,{n},5" pipe\n' for n in range(3))
    rows, reasons = taken(source(tmp_path, text, csv={"quote": "none"}))
    assert (rows[T].to_list(), reasons) == ([0, 1, 2], [])
    with pytest.raises(ValidationError, match="is not one character; right would be"):
        source(tmp_path, text, csv={"quote": "off"})


def test_marks_between_thousands_are_read_where_that_is_said(tmp_path):
    pressure = {"column": "p", "standard_name": "surface_air_pressure", "cf_unit": "hPa"}
    name = "surface_air_pressure__hPa__0.0__point__PT0S"
    text = 'time,p\n2024-03-01T00:00Z,"1,013.2"\n2024-03-01T00:10Z,998.5\n2024-03-01T00:20Z,"1,013"\n'
    rows, reasons = taken(source(tmp_path, text, variables=[pressure], csv={"thousands": ","}))
    assert (rows[name].to_list(), reasons) == ([1013.2, 998.5, 1013.0], [])
    rows, reasons = taken(source(tmp_path, text, variables=[pressure]))
    assert rows[name].to_list() == [998.5] and len(reasons) == 2
    dialect = {"separator": ";", "decimal": ","}
    text = (
        "time;p;lat\n2024-03-01T00:00Z;1.013,2;45.123\n2024-03-01T00:10Z;998,5;45.123\n2024-03-01T00:20Z;1.013;45.123\n"
    )
    keys = {"variables": [pressure], "latitude": "lat"}
    rows, reasons = taken(source(tmp_path, text, csv=dialect, **keys))
    assert rows[name].to_list() == [998.5] and rows["lat"].to_list() == [45.123]
    assert "1.013 (decimals are commas: is it csv.thousands: '.'?)" in reasons[1], "1.013 hPa was read"
    rows, reasons = taken(source(tmp_path, text, csv=dialect | {"thousands": "."}, **keys))
    assert (rows[name].to_list(), reasons) == ([1013.2, 998.5, 1013.0], [])
    with pytest.raises(ValidationError, match="decimal and thousands are both"):
        source(tmp_path, text, csv={"thousands": "."})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("time,t\n2024-03-01T00:00Z,1\n".encode("utf-16"), "is UTF-16, .* iconv -f utf-16 -t utf-8"),
        (b"PK\x03\x04" + bytes(100), "holds a zip file or a workbook, no text"),
        (gzip.compress(b"time,t\n", mtime=0), "holds a gzip file, no text; unpack it, or give it the ending .gz"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "holds netCDF 4, no text"),
        (b"time,t\x00\n2024-03-01T00:00Z,1\n", r"line 1 holds bytes that are no text \(NUL\)"),
    ],
    ids=["utf-16", "zip", "gzip", "netcdf", "nul"],
)
def test_a_file_that_is_no_text_is_told_as_what_it_is(tmp_path, content, told):
    with pytest.raises(SourceError, match=told):
        list(source(tmp_path, content).fetch(WHOLE))


def test_times_as_spreadsheets_count_them(tmp_path):
    text = "time,t\n45352.0,1\n45352.0416666667,2\n-,3\n999999,4\n"
    rows, reasons = taken(source(tmp_path, text, time={"column": "time", "unit": "excel", "zone": "+01:00"}))
    assert rows["datetime"].to_list() == [DAY - timedelta(hours=1), DAY]
    assert len(reasons) == 2


def test_a_scale_and_a_column_that_some_files_lack(tmp_path):
    source(tmp_path, "time,t,rh\n2024-03-01T00:00Z,215,80\n", "a.csv")
    variables = [TEMPERATURE | {"scale": 0.1}, HUMIDITY | {"optional": True}]
    rows, reasons = taken(source(tmp_path, "time,t\n2024-03-01T01:00Z,-5\n", "b.csv", variables=variables))
    assert rows[T].to_list() == pytest.approx([21.5, -0.5]) and reasons == []
    assert rows["relative_humidity__%__2.0__point__PT0S"].to_list() == [80.0, None]
    (problem,) = source(tmp_path, variables=[TEMPERATURE, HUMIDITY]).problems()
    assert "b.csv: line 1 has no column 'rh'" in problem
    tenths = TEMPERATURE | {"unit": "0.1 degC"}
    with pytest.raises(SourceError, match=r"write 'degC' .*and scale the values"):
        list(source(tmp_path, variables=[tenths]).fetch(WHOLE))


def test_two_columns_of_one_quantity_are_told(tmp_path):
    with pytest.raises(SourceError, match=r"'t' and 't2' are both air_temperature__degC__2.0"):
        _ = source(tmp_path, "time,t,t2\n", variables=[TEMPERATURE, TEMPERATURE | {"column": "t2"}]).metadata


@pytest.mark.parametrize(
    "unit", ["Degrees Celsius", "° Celsius", "DEGREES CELSIUS", "degree-celsius", "degrees kelvin"]
)
def test_a_temperature_is_no_angle(tmp_path, unit):
    offset = 273.15 if "kelvin" in unit else 0.0
    text = f"time,t\n2024-03-01T00:00Z,{20 + offset}\n"

    def fill(file):
        file.createDimension("time", 1)
        variable(file, "time", "i4", ("time",), [0], units="minutes since 2024-03-01", standard_name="time")
        variable(file, "t", "f8", ("time",), [20 + offset], units=unit)

    cf(tmp_path / "a.nc", fill)
    assert taken(source(tmp_path, name="a.nc", time=None))[0][T].to_list() == pytest.approx([20.0])
    in_yaml = source(tmp_path, text, variables=[TEMPERATURE | {"unit": unit}])
    assert taken(in_yaml)[0][T].to_list() == pytest.approx([20.0])


# Lines


def test_a_quoted_line_break_at_the_edge_of_a_piece_costs_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "CSV_PART", 200)
    lines = [f'2024-03-01T{n // 60:02}:{n % 60:02}Z,"a note\nof two lines",{n}\n' for n in range(120)]
    lines[50] = '2024-03-01T00:50Z,"5"" of rain",50\n'
    rows, reasons = taken(source(tmp_path, "time,note,t\n" + "".join(lines)))
    assert rows[T].to_list() == list(range(120)) and reasons == []
    found = pl.concat([pl.DataFrame(batch) for batch in source(tmp_path).fetch(WHOLE)]).sort("datetime")
    assert found["x_row"].to_list() == [2 * n + 2 - (n > 50) for n in range(120)]


def test_a_stray_quote_costs_its_own_neighbourhood_only(tmp_path):
    lines = [f"2024-03-01T{n // 60 % 24:02}:{n % 60:02}Z,5 inch,{n}\n" for n in range(1200)]
    lines[600] = '2024-03-01T10:00Z,5" pipe,600\n'
    rows, reasons = taken(source(tmp_path, "time,note,t\n" + "".join(lines)))
    assert rows.height == 1200 and reasons == []


def test_lines_that_end_in_carriage_returns_alone_are_told(tmp_path):
    (told,) = source(tmp_path, b"time,t\r2024-03-01T00:00Z,1\r").problems()
    assert "its lines end in carriage returns alone" in told and "tr '" in told
    windows = source(tmp_path, b"time,t\r\n2024-03-01T00:00Z,1\r\n")
    assert taken(windows)[0][T].to_list() == [1.0]


def test_rows_that_begin_with_the_separator_are_no_headers(tmp_path):
    text = ",time,t\n,2024-03-01T00:00Z,1\n,2024-03-01T00:10Z,2\n"
    assert taken(source(tmp_path, text))[0][T].to_list() == [1.0, 2.0]


def test_a_number_of_bits_does_not_matter_to_values(tmp_path):
    """Unsigned and small integers as values, unpacked and converted."""

    def fill(file):
        file.createDimension("time", 2)
        variable(file, "time", "i4", ("time",), [0, 60], units="minutes since 2024-03-01", standard_name="time")
        variable(file, "t", "u1", ("time",), np.array([250, 5], np.uint8), units="K")

    cf(tmp_path / "a.nc", fill)
    assert taken(source(tmp_path, name="a.nc", time=None))[0][T].to_list() == pytest.approx([-23.15, -268.15])


# Layouts

TOA5 = """"TOA5","CR1000","mast","1234","std"
"TIMESTAMP","RECORD","AirTC_Avg","RH"
"TS","RN","Deg C","%"
"","","Avg","Smp"
"2024-03-01 00:00:00",1,1.5,80
"2024-03-01 00:10:00",2,"NAN",81
"""
BLANKS = """# buoy 41001
#YY  MM DD hh mm  WTMP
2024 03 01 00 50  10.5
2024 03 01 01 50    MM
# moved
2024 03 01 02 50   9.25
"""
LONG = """station,when,parameter,value
A,2024-03-01T00:00Z,temp,1.5
A,2024-03-01T00:00Z,rh,80
B,2024-03-01T00:00Z,temp,2.5
A,2024-03-01T00:10Z,rain,0.2
"""


def test_a_logger_s_table_with_lines_above_and_below_its_header(tmp_path):
    columns = [TEMPERATURE | {"column": "AirTC_Avg"}, HUMIDITY | {"column": "RH"}]
    made = source(tmp_path, TOA5, time="TIMESTAMP", csv={"header": 2, "skip": [3, 4]}, variables=columns)
    assert made.problems() == []
    rows, reasons = taken(made)
    assert rows["datetime"].to_list() == at((0, 0), (0, 10)) and rows[T].to_list() == [1.5, None] and reasons == []
    found = pl.concat([pl.DataFrame(batch) for batch in made.fetch(WHOLE)])
    assert found["x_row"].to_list() == [5, 6]
    (told,) = source(tmp_path, TOA5, time="TIMESTAMP", csv={"header": 9}, variables=columns).problems()
    assert "has no line 9" in told


def test_columns_that_blanks_divide_with_comments_and_names_of_our_own(tmp_path):
    keys = {
        "csv": {"separator": "blanks", "comment": "#", "names": ["y", "m", "d", "h", "min", "t"]},
        "time": {"columns": ["y", "m", "d", "h", "min"], "format": "%Y %m %d %H %M"},
        "missing": ["MM"],
    }
    made = source(tmp_path, BLANKS, **keys)
    rows, reasons = taken(made)
    assert rows["datetime"].to_list() == at((0, 50), (2, 50)) and rows[T].to_list() == [10.5, 9.25] and reasons == []
    found = pl.concat([pl.DataFrame(batch) for batch in made.fetch(WHOLE)])
    assert found["x_row"].to_list() == [3, 6]
    indented = "".join(f"  {line}  \n" for line in BLANKS.splitlines() if line[0] != "#")
    assert taken(source(tmp_path, indented, **keys))[0][T].to_list() == [10.5, 9.25]


def test_comments_above_a_header_and_a_file_without_one(tmp_path):
    text = "# made by hand\n# twice\ntime;t\n2024-03-01T00:00Z;1\n# a note\n2024-03-01T00:10Z;2\n"
    assert taken(source(tmp_path, text, csv={"comment": "#", "separator": ";"}))[0][T].to_list() == [1.0, 2.0]
    bare = "2024-03-01T00:00Z,1\n2024-03-01T00:10Z,2\n"
    assert taken(source(tmp_path, bare, csv={"names": ["time", "t"]}))[0][T].to_list() == [1.0, 2.0]
    units = "s,degC\n" + bare
    assert taken(source(tmp_path, units, csv={"names": ["time", "t"], "skip": [1]}))[0][T].to_list() == [1.0, 2.0]
    with pytest.raises(ValidationError, match="has `names` and a `header`"):
        source(tmp_path, csv={"names": ["time", "t"], "header": 2})


def test_one_value_a_row(tmp_path):
    columns = [TEMPERATURE | {"column": "temp"}, HUMIDITY | {"column": "rh"}]
    keys = {"long": {"variable": "parameter", "value": "value"}, "time": "when", "constants": {}}
    made = source(tmp_path, LONG, variables=columns, metadata={"station_id": "station"}, **keys)
    rows, reasons = taken(made)
    assert reasons == [] and rows.height == 3
    assert rows[T].to_list() == [1.5, None, 2.5]
    assert rows["relative_humidity__%__2.0__point__PT0S"].to_list() == [None, 80.0, None]
    assert made.problems() == []


def test_the_name_of_a_file_tells_its_station(tmp_path):
    for name in ("north/A01_2024.csv", "south/B02_2024.csv", "south/odd.csv"):
        source(tmp_path, "time,t\n2024-03-01T00:00Z,1\n", name)
    made = Files("s", FilesConfig.model_validate({
        "path": str(tmp_path / "*/*.csv"), "data_path": tmp_path / "raw", "time": "time", "settle": 0, "latitude": 45.0,
        "longitude": 7.0, "variables": [TEMPERATURE], "name": r"(?P<region>[^/]+)/(?P<station_id>[^_/]+)_.*",
    }))  # fmt: skip
    rows, _ = taken(made)
    assert rows.select("region", "station_id").rows() == [("north", "A01"), ("south", "B02"), (None, "45.0_7.0")]
    with pytest.raises(ValidationError, match="has no named group"):
        FilesConfig.model_validate({"path": "x.csv", "variables": [TEMPERATURE], "name": ".*"})


def test_a_compressed_file_of_many_pieces_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "CSV_PART", 500)
    lines = "".join(f"2024-03-01T{n // 60:02}:{n % 60:02}Z,{n}\n" for n in range(600))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"time,t\n{lines}".encode()))
    made = source(tmp_path, name="a.gz", path=str(tmp_path / "*.csv.gz"))
    assert taken(made)[0][T].to_list() == list(range(600))


# Units that a code in each row says

MIXED = """time,usUnits,outTemp,barometer
2024-03-01T00:00Z,1,41.0,29.92
2024-03-01T01:00Z,17,5.5,1013.2
2024-03-01T02:00Z,16.0,6.5,1013.4
2024-03-01T03:00Z,,7.5,
2024-03-01T04:00Z,9,8.5,
2024-03-01T05:00Z,9,,
"""
OUT = {"column": "outTemp", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}
BY_CODE = {"column": "usUnits", "units": {1: "degF", 16: "degC", 17: "degC"}}


def set_aside(made: Files) -> tuple[pl.DataFrame, list[str]]:
    done = [canonicalise(batch, made.metadata) for batch in made.fetch(WHOLE)]
    rows = pl.concat([one.rows for one in done]).sort("datetime")
    return rows, [problem for one in done for problem in one.rejected["x_problem"]]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_code_in_each_row_says_its_unit(form, tmp_path):
    if form == "parquet":
        pl.read_csv(MIXED.encode()).write_parquet(tmp_path / "a.parquet")
    given = {"text": MIXED} if form == "csv" else {}
    made = source(tmp_path, name=f"a.{form}", variables=[OUT | {"unit": BY_CODE}], **given)
    rows, why = set_aside(made)
    assert rows[T].round(6).to_list() == [5.0, 5.5, 6.5]
    assert sorted(why) == [
        "outTemp: usUnits is 9, of which `unit` says nothing; state its unit there",
        "outTemp: usUnits is empty, of which `unit` says nothing; state its unit there",
    ]


@pytest.mark.parametrize(("unit", "right"), [("degF", [0]), ("degC", [1, 2])])
def test_rows_of_weewx_that_are_in_another_unit_than_the_block_says_are_set_aside(unit, right, tmp_path):
    """Degrees Fahrenheit and Celsius of one archive came out as one of them."""
    metric = {"column": "barometer", "standard_name": "air_pressure_at_mean_sea_level", "unit": "inHg"}
    lines = MIXED.splitlines(keepends=True)
    made = source(tmp_path, "".join(lines[:4]), variables=[OUT | {"unit": unit}])
    rows, why = set_aside(made)
    assert rows["datetime"].to_list() == at(*((hour, 0) for hour in right))
    assert len(why) == 3 - len(right) and all(
        "and the block says otherwise; state what its codes mean" in w for w in why
    )
    assert any("usUnits is 1, by which it is in degF" in w for w in why) == (unit == "degC")
    made = source(tmp_path, "".join(lines[:2]), variables=[metric | {"cf_unit": "hPa", "level": 0.0}])
    assert set_aside(made)[1] == []


def test_units_of_codes_are_looked_at_before_any_row(tmp_path):
    def block(**keys):
        return source(tmp_path, MIXED, variables=[OUT | keys])

    with pytest.raises(SourceError, match="outTemp': state `cf_unit`: its rows are in several units"):
        _ = block(unit=BY_CODE, cf_unit=None).metadata
    with pytest.raises(SourceError, match="its values are in 'm', which cannot become 'degC'"):
        _ = block(unit=BY_CODE | {"units": {1: "m"}}).metadata
    with pytest.raises(SourceError, match="has no column 'system'"):
        list(block(unit=BY_CODE | {"column": "system"}).fetch(WHOLE))
