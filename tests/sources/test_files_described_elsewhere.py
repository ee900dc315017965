"""What a file's rows mean, said beside them: a list of stations, names of columns, units and codes in cells. Each is
compared with a reading by the csv module."""

import csv
import io
import math
import os
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from pydantic import ValidationError

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig

DAY = datetime(2024, 3, 1, tzinfo=UTC)
WHOLE = Window(DAY - timedelta(days=2), DAY + timedelta(days=7))
T = "air_temperature__degC__2.0__point__PT0S"
TEMPERATURE = {"column": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}
HUMIDITY = {"column": "rh", "standard_name": "relative_humidity", "cf_unit": "%", "level": 2.0}


def source(folder, text, **keys):
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "a.csv").write_text(text)
    block = {"path": str(folder / "in/*.csv"), "data_path": folder / "raw", "settle": 0, "time": "time"}
    given = block | {"variables": [TEMPERATURE]} | keys
    return Files("s", FilesConfig.model_validate({key: value for key, value in given.items() if value is not None}))


def taken(made):
    done = [canonicalise(batch, made.metadata) for batch in made.fetch(WHOLE)]
    rows = pl.concat([one.rows for one in done])
    return rows.sort("datetime", "station_id"), [told for one in done for told in _told(one.rejected)]


def _told(rejected):
    return [row["x_problem"] or row["reason"] for row in rejected.iter_rows(named=True)] if rejected.height else []


def moment(text):
    return datetime.fromisoformat(text).astimezone(UTC)


def records(text, delimiter=","):
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


LIST = "id;breite;laenge;hoehe;name\n06260;52,10;5,18;6,6;De Bilt\n06270;53,22;5,75;3,3;Leeuwarden\n00044;;;1;Nowhere\n"
LISTED = {"id": "id", "latitude": "breite", "longitude": "laenge", "ids_are_numbers": True}
LISTED |= {"csv": {"separator": ";", "decimal": ","}}
LISTED |= {"metadata": {"altitude": {"column": "hoehe", "unit": "ft"}, "station_name": "name"}}
DATA = "time,stn,t\n2024-03-01T00:00Z,6260.0,1.5\n2024-03-01T00:00Z,06270,2.5\n2024-03-01T00:10Z,6260,1.6\n"


def with_list(folder, data=DATA, text=LIST, **keys):
    (folder / "stations.csv").write_text(text)
    stations = LISTED | {"path": str(folder / "stations.csv")} | keys
    return source(folder, data, metadata={"station_id": "stn"}, stations=stations)


def test_a_list_in_another_file_says_where_stations_are(tmp_path):
    rows, reasons = taken(with_list(tmp_path))
    of = {int(one["id"]): one for one in records(LIST, ";")}
    expected = [
        (moment(row["time"]), float(row["t"]), one["id"], float(one["breite"].replace(",", ".")), one["name"])
        for row in records(DATA)
        for one in [of[int(float(row["stn"]))]]
    ]
    assert rows.select("datetime", T, "station_id", "lat", "station_name").rows() == sorted(expected)
    heights = [float(text) for text in rows["altitude"]]
    assert heights == pytest.approx([6.6 * 0.3048, 3.3 * 0.3048, 6.6 * 0.3048], abs=1e-6)
    assert reasons == []


def test_rows_of_stations_that_the_list_does_not_place_are_set_aside_with_their_names(tmp_path):
    more = "2024-03-01T00:20Z,999,3\n2024-03-01T00:20Z,44,4\n2024-03-01T00:20Z,6270,5\n2024-03-01T00:20Z,,6\n"
    made = with_list(tmp_path, DATA + more, LIST + "6270;1;1;1;Elsewhere\n")
    rows, reasons = taken(made)
    assert rows[T].to_list() == [1.5, 1.6]
    assert sorted(reason.split(f" {tmp_path}")[0] for reason in reasons) == [
        "station_id: 00044 has no place in the list",
        "station_id: 06270 stands more than once, each time otherwise, in the list",
        "station_id: 06270 stands more than once, each time otherwise, in the list",
        "station_id: 999 is not in the list",
        "station_id: a row without a station is not in the list",
    ]
    assert any("has no station 999, whose rows are set aside" in line for line in made.problems())


def test_ids_are_texts_unless_it_is_said_that_they_are_numbers(tmp_path):
    rows, reasons = taken(with_list(tmp_path, ids_are_numbers=False))
    assert (rows["station_id"].to_list(), len(reasons)) == (["06270"], 2)


def test_a_list_that_changes_makes_windows_due_and_moves_their_rows(tmp_path):
    made = with_list(tmp_path)
    rows, _ = taken(made)
    signature, (_, cursor) = made.signature(WHOLE), made.changes(None)
    os.utime(tmp_path / "stations.csv", (1, 1))
    assert (made.signature(WHOLE), made.changes(cursor)[0]) == (signature, [])
    (tmp_path / "stations.csv").write_text(LIST.replace("52,10", "52,20"))
    assert made.signature(WHOLE) != signature
    assert made.changes(cursor)[0] != []
    moved, _ = taken(made)
    assert (rows["lat"].to_list(), moved["lat"].to_list()) == ([52.1, 53.22, 52.1], [52.2, 53.22, 52.2])


def test_a_list_that_is_gone_is_told(tmp_path):
    made = with_list(tmp_path)
    (tmp_path / "stations.csv").unlink()
    with pytest.raises(SourceError, match="list of stations cannot be read"):
        list(made.fetch(WHOLE))
    assert any("list of stations cannot be read" in line for line in made.problems())


WIDE = "time,t_A,t_B,rh_A,note\n2024-03-01T00:00Z,1.5,2.5,80,x\n2024-03-01T00:10Z,,2.6,81,y\nnever,1,2,3,z\n"


def test_one_column_a_station(tmp_path):
    wide = "(?P<variable>[^_]+)_(?P<station_id>.+)"
    rows, reasons = taken(
        source(tmp_path, WIDE, latitude=45.0, longitude=7.0, wide=wide, variables=[TEMPERATURE, HUMIDITY])
    )
    expected = {
        (moment(row["time"]), name.partition("_")[2], name.partition("_")[0]): float(text)
        for row in records(WIDE)
        if row["time"] != "never"
        for name, text in row.items()
        if "_" in name and text
    }
    humidity = next(column for column in rows.columns if column.startswith("relative_humidity"))
    found = {
        (row["datetime"], row["station_id"], name): row[column]
        for row in rows.iter_rows(named=True)
        for name, column in (("t", T), ("rh", humidity))
        if row[column] is not None
    }
    assert found == expected
    assert [reason[:20] for reason in reasons] == ["time: never is not a"]


def test_one_column_a_station_of_one_quantity_in_parquet_with_a_list(tmp_path):
    (tmp_path / "in").mkdir()
    pl.DataFrame({"time": [DAY], "6260": [1.5], "6270": [2.5]}).write_parquet(tmp_path / "in" / "a.parquet")
    (tmp_path / "stations.csv").write_text(LIST)
    keys = {"path": str(tmp_path / "in/*.parquet"), "wide": r"(?P<station_id>\d+)"}
    made = source(tmp_path, "", stations=LISTED | {"path": str(tmp_path / "stations.csv")}, **keys)
    assert taken(made)[0].select("station_id", "lat", T).rows() == [("06260", 52.1, 1.5), ("06270", 53.22, 2.5)]


def test_columns_of_time_place_and_metadata_are_no_station_whatever_wide_finds(tmp_path):
    text = "e,hoch,lat,lon,North,South\n1709251200,12,45,7,1,2\n1709251800,12,45,7,3,4\n"
    keys = {"latitude": "lat", "longitude": "lon", "metadata": {"altitude": "hoch"}}
    made = source(tmp_path, text, time={"column": "e", "unit": "s"}, wide="(?P<station_id>.+)", **keys)
    rows, reasons = taken(made)
    assert rows.select("station_id", T, "altitude").rows() == [
        ("North", 1.0, "12"), ("South", 2.0, "12"), ("North", 3.0, "12"), ("South", 4.0, "12")
    ]  # fmt: skip
    assert reasons == []
    (tmp_path / "in" / "a.csv").write_text("e,hoch,lat,lon\n1709251200,12,45,7\n")
    with pytest.raises(SourceError, match="has no column that `wide` finds"):
        taken(made)


LONG = "time,id,what,value,unit\n2024-03-01T00:00Z,A,t,50,degF\n2024-03-01T00:00Z,B,t,283.15,K\n"
LONG += "2024-03-01T00:10Z,A,t,5,hPa\n2024-03-01T00:10Z,B,t,11,\n2024-03-01T00:20Z,A,rh,0.5,1\n"


@pytest.mark.parametrize("unit", ["° Fahrenheit", "degrees F", "deg F", "ºF", "F"])
def test_a_unit_in_the_yaml_is_understood_as_that_of_a_netcdf_file(tmp_path, unit):
    keys = {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}}
    made = source(tmp_path, DATA, variables=[TEMPERATURE | {"unit": unit}], **keys)
    assert taken(made)[0][T].to_list() == pytest.approx([(t - 32) / 1.8 for t in (1.5, 2.5, 1.6)])
    rows = "time,id,what,value,unit\n2024-03-01T00:00Z,A,t,50," + unit
    made = source(tmp_path, rows, long={"variable": "what", "value": "value", "unit": "unit"}, **keys)
    assert taken(made)[0][T].to_list() == pytest.approx([10.0])


@pytest.mark.parametrize("unit", ["hPa", "°", "furlong", "nonsense"])
def test_a_unit_in_the_yaml_that_cannot_become_that_of_the_dataset_is_told_before_any_window(tmp_path, unit):
    keys = {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}}
    made = source(tmp_path, DATA, variables=[TEMPERATURE | {"unit": unit}], **keys)
    with pytest.raises(SourceError, match=r"sources\.s\.variables: 't': .*cannot become 'degC'.*correct `unit`"):
        made.metadata  # noqa: B018


def test_the_unit_of_each_value_in_a_column(tmp_path):
    rows, reasons = taken(
        source(
            tmp_path,
            LONG,
            latitude=45.0,
            longitude=7.0,
            metadata={"station_id": "id"},
            long={"variable": "what", "value": "value", "unit": "unit"},
            variables=[TEMPERATURE, HUMIDITY],
        )
    )
    to_celsius = {"degF": lambda value: (value - 32) / 1.8, "K": lambda value: value - 273.15, "": lambda value: value}
    expected = [
        to_celsius[row["unit"]](float(row["value"]))
        for row in records(LONG)
        if row["what"] == "t" and row["unit"] in to_celsius
    ]
    assert rows[T].drop_nulls().to_list() == pytest.approx(expected)
    assert rows[next(column for column in rows.columns if column.startswith("relative"))].drop_nulls().to_list() == [50]
    assert reasons == ["t: its unit hPa cannot become that of the variable; correct the file"]


CELLS = 'time,TMP,WND\n2024-03-01T00:00Z,"+0050,1","220,1,N,0051,1"\n2024-03-01T01:00Z,"+9999,9","999,9,V,0012,3"\n'
CELLS += '2024-03-01T02:00Z,"-0012,3","010,1,N,9999,9"\n2024-03-01T03:00Z,broken,"020,1,N,0010,1"\n'
ISD = [
    TEMPERATURE
    | {"column": "TMP", "pattern": "^([+-][0-9]{4}),", "scale": 0.1}
    | {"quality": {"column": "TMP", "pattern": ",(.)$", "good": [1, 5], "poor": [3, 7]}},
    {"column": "speed", "read_from": "WND", "pattern": "^[^,]*,.,.,([0-9]{4}),", "scale": 0.1}
    | {"standard_name": "wind_speed", "cf_unit": "m s-1", "level": 10},
]


def test_several_parts_of_a_cell_are_values_and_codes(tmp_path):
    keys = {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}, "missing": [9999]}
    rows, reasons = taken(source(tmp_path, CELLS, variables=ISD, **keys))
    cells = [row["TMP"].split(",") for row in records(CELLS)[:3]]
    speeds = [int(row["WND"].split(",")[3]) / 10 for row in records(CELLS)]
    assert rows[T].to_list() == [None if cell[0] == "+9999" else pytest.approx(int(cell[0]) / 10) for cell in cells] + [
        None
    ]
    flag = next(column for column in rows.columns if column.startswith(T) and column != T)
    assert rows[flag].to_list()[:3:2] == [1, 3]
    wind = next(column for column in rows.columns if column.startswith("wind_speed"))
    assert rows[wind].to_list() == [None if math.isclose(one, 999.9) else pytest.approx(one) for one in speeds]
    assert len(reasons) == 1
    assert "broken" in reasons[0]


@pytest.mark.parametrize(
    ("form", "texts", "hours"),
    [
        ("%Y%m%d %H", ["20240301 1", "20240301 24", "20240229 24"], [1, 24, 0]),
        ("%d.%m.%Y %H:%M", ["01.03.2024 24:00", "01.03.2024 00:00"], [24, 0]),
        ("%m/%d/%y %I:%M%p", ["3/1/24 12:00a", "3/1/24 4:00p", "3/1/24 12:00PM"], [0, 16, 12]),
    ],
)
def test_an_hour_24_and_clocks_of_twelve_hours(tmp_path, form, texts, hours):
    text = "time,t\n" + "".join(f"{one},{number}\n" for number, one in enumerate(texts))
    keys = {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}}
    rows, reasons = taken(source(tmp_path, text, time={"column": "time", "format": form}, **keys))
    assert dict(zip(rows[T], rows["datetime"], strict=True)) == {
        float(number): DAY + timedelta(hours=hour) for number, hour in enumerate(hours)
    }
    assert reasons == []


@pytest.mark.parametrize(
    ("form", "lines", "minutes"),
    [
        (
            "%Y %j %H%M",
            ["2024,61,5", "2024,61,50", "2024,61,110", "2024,61,930", "2024,61,2400"],
            [5, 50, 70, 570, 1440],
        ),
        ("%Y %j %H%M", ["2024,61,0", "2024,61,0005", "2024,61,1230"], [0, 5, 750]),
        ("%Y %j %H%M%S", ["2024,61,5", "2024,61,100", "2024,61,93000", "2024,61,123000"], [5 / 60, 1, 570, 750]),
    ],
)
def test_a_clock_that_is_a_number_may_lack_the_zeros_before_it(tmp_path, form, lines, minutes):
    """What can be read otherwise was: 110 as 11:00."""
    text = "\n".join(["year,day,clock,t", *(f"{line},1.5" for line in lines), ""])
    keys = {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}}
    rows, reasons = taken(source(tmp_path, text, time={"columns": ["year", "day", "clock"], "format": form}, **keys))
    assert reasons == []
    assert rows["datetime"].to_list() == [DAY + timedelta(minutes=minute) for minute in minutes]


def test_parts_of_a_time_may_be_numbers_of_any_type(tmp_path):
    """In Parquet and Excel, and wherever a program read them beside one that was missing."""
    clocks = {"year": [2024.0, 2024.0, None], "day": [61, 61, 61], "clock": [930.0, 5.0, 5.0], "t": [1.5, 2.5, 3.5]}
    pl.DataFrame(clocks | {"stamp": [2024030109.0, 2024030110.0, None]}).write_parquet(tmp_path / "a.parquet")
    keys = {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}}
    parts = {"columns": ["year", "day", "clock"], "format": "%Y %j %H%M"}
    for path in ("a.parquet", "in/a.csv"):
        text = pl.DataFrame(clocks).write_csv()
        rows, reasons = taken(source(tmp_path, text, path=str(tmp_path / path), time=parts, **keys))
        assert rows["datetime"].sort().to_list() == [DAY + timedelta(minutes=minute) for minute in (5, 570)]
        assert len(reasons) == 1
    text = "day,clock,t\n2024-03-01,14.00,1.5\n2024-03-01,14.30,2.5\n"
    dotted = {"columns": ["day", "clock"], "format": "%Y-%m-%d %H.%M"}
    rows, reasons = taken(source(tmp_path, text, time=dotted, **keys))
    assert (rows["datetime"].dt.minute().to_list(), reasons) == ([0, 30], [])
    stamp = {"column": "stamp", "format": "%Y%m%d%H"}
    rows, reasons = taken(source(tmp_path, "", path=str(tmp_path / "a.parquet"), time=stamp, **keys))
    assert rows["datetime"].to_list() == [DAY + timedelta(hours=hour) for hour in (9, 10)]
    assert reasons == ["no time"]


def test_a_minute_behind_hour_24_is_no_time(tmp_path):
    keys = {"latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}}
    text = "time,t\n01.03.2024 24:10,1\n01.03.2024 10:10,2\n"
    rows, reasons = taken(source(tmp_path, text, time={"column": "time", "format": "%d.%m.%Y %H:%M"}, **keys))
    assert (rows[T].to_list(), len(reasons)) == ([2.0], 1)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"wide": "(?P<station_id>.+)", "variables": [TEMPERATURE, HUMIDITY]}, "no group tells which"),
        ({"constants": {"station_id": False}}, "is false to YAML, .* in quotes"),
        ({"missing": [False]}, "is false to YAML, .* in quotes"),
        ({"stations": {"path": "s.csv", "id": "id"}}, "nothing tells a row's station"),
        ({"stations": {"path": "s.csv", "id": "id", "latitude": "lat"}}, "name both"),
        (
            {"stations": {"path": "s.csv", "id": "i", "latitude": "a", "longitude": "o"}, "latitude": 1.0},
            "keep one of them",
        ),
        ({"variables": [TEMPERATURE | {"pattern": "[0-9]+"}]}, "has 0 groups"),
        ({"variables": [TEMPERATURE | {"pattern": "(?=a)([0-9])"}]}, "no regular expression"),
    ],
)
def test_a_block_that_cannot_be_right_is_refused(tmp_path, keys, told):
    with pytest.raises(ValidationError, match=told):
        source(tmp_path, "", **keys)
