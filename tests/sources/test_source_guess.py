"""`ionbeam source guess`: with few edits its blocks read what the documented ones read."""

import gzip
import re
from collections import Counter
from copy import deepcopy
from datetime import date, datetime
from pathlib import Path
from zipfile import ZipFile

import polars as pl
import pytest
import yaml
from test_docs_files import DAYS, KINDS, PAGE
from test_files_packed import WRITTEN, T, book
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig
from ionbeam_dagster.sources.files.guessing import propose

PLACE = ("place", (45.0, 7.0))
GOOD_HUMAN = {"good": [1, 5], "poor": [2, 3, 6, 7]}
EDITS = {
    "A Campbell": [PLACE, ("time.zone", "+01:00")],
    "Columns that blanks": [
        ("place", (34.7, -72.2)),
        *((f"variables.{name}.level", level) for name, level in (("WDIR", 5), ("WSPD", 5), ("ATMP", 4))),
    ],
    "Hourly files": [("place", (52.9, 8.2))],
    "One value": [],
    "What pandas": [PLACE],
    "Date and clock": [
        ("place", (40.0, -105.0)),
        ("time.zone", "America/Denver"),
        ("constants.station_id", "{folder}"),
        ("variables.Rain.scale", 0.1),
    ],
    "How good each": [
        PLACE,
        ("constants.station_id", "A"),
        ("variables.t.quality", {"column": "t_qc", "good": ["V"], "poor": ["N", "I"]}),
    ],
    "A list of": [
        ("variables.T.level", 1.5),
        ("variables.+", {"column": "FH", "standard_name": "wind_speed", "cf_unit": "m s-1", "level": 10, "scale": 0.1,
                         "method": "mean", "period": "PT1H"}),
    ],
    "One column": [PLACE],
    "Value and code": [],
    "Columns divided by bars": [
        ("variables.temperature.quality", {"column": "temperature_Quality_Code", **GOOD_HUMAN}),
    ],
    "A console's export": [("place", (40.0, -105.0)), ("time.zone", "-07:00")],
    "The archive of weewx": [("place", (40.0, -105.0))],
    "What R": [PLACE],
    "Times as numbers": [PLACE, ("constants.station_id", "A")],
    "The log of": [PLACE],
    "The other log": [PLACE],
}  # fmt: skip
"""What a person has to say of each layout; of those that are left out more than a few lines are to be written."""
MORE = ("Two lines above", "Day of the year")


def edited(block, edits):
    block = deepcopy(block)
    for where, value in edits:
        if where == "place":
            block["latitude"], block["longitude"] = value
            continue
        steps, of = where.split("."), block
        if steps[-1] == "+":
            block[steps[0]].append(value)
            continue
        for step in steps[:-1]:
            of = next(one for one in of if one["column"] == step) if isinstance(of, list) else of[step]
        of[steps[-1]] = value
    return block


def read(block, tmp_path):
    source = Files("s", FilesConfig.model_validate(block | {"data_path": tmp_path / "raw", "settle": 0}))
    assert source.problems() == []
    done = [canonicalise(batch, source.metadata) for batch in source.fetch(DAYS)]
    assert [one.rejected.height for one in done] == [0] * len(done)
    return pl.concat([one.rows for one in done]).sort("datetime", "station_id")


@pytest.fixture
def laid_out(tmp_path, monkeypatch):
    """Puts a layout of the page where its block looks for it; gives the file, and the block as it is documented."""
    monkeypatch.chdir(tmp_path)

    def put(text, listed, block):
        said = yaml.safe_load(block)
        path = Path(said["path"].replace("*", "a1"))
        path.parent.mkdir()
        path.write_text(text)
        if listed:
            Path("stations.csv").write_text(listed)
        return path, said

    return put


@pytest.mark.parametrize(("title", "text", "listed", "block"), KINDS, ids=[title for title, *_ in KINDS])
def test_a_layout_of_the_page_is_guessed_but_for_what_no_file_tells(title, text, listed, block, laid_out, tmp_path):
    path, said = laid_out(text, listed, block)
    guess = propose(str(path))
    assert guess.notes == []
    assert yaml.safe_load(guess.text)["sources"] == {path.stem.lower(): guess.block}
    edits = next((edits for start, edits in EDITS.items() if title.startswith(start)), None)
    if edits is None:
        assert title.startswith(MORE)
        return
    asked = [] if {"latitude", "stations"} & {*guess.block} else [PLACE]
    assert read(edited(guess.block, asked), tmp_path).height  # what `config check` takes, if not yet all that is meant
    expected, rows = read(said, tmp_path), read(edited(guess.block, edits), tmp_path)
    wanted = [name for name in expected.columns if expected[name].count() and name in rows.columns]
    measured = [name for name in expected.columns if "__" in name and expected[name].count()]
    assert {"datetime", "lat", "lon", "station_id", *measured} <= {*wanted}
    for name in wanted:
        if expected[name].dtype.is_float():
            assert rows[name].to_list() == [None if one is None else pytest.approx(one) for one in expected[name]]
        else:
            assert rows[name].to_list() == expected[name].to_list()


def test_the_page_says_how_many_edits_the_layouts_need():
    counts = Counter(min(len(edits), 3) for edits in EDITS.values()) + Counter({3: len(MORE)})
    assert sum(counts.values()) == len(KINDS)
    told = re.search(
        r"Of the (\d+) layouts.*?(\d+) need no edit, (\d+) need one, (\d+) two and (\d+) more", PAGE, re.DOTALL
    )
    assert [int(number) for number in told.groups()] == [len(KINDS), *(counts[number] for number in range(4))]


@pytest.mark.parametrize(
    ("name", "edits"),
    [
        ("knmi", []),
        ("rain", []),
        ("meteotracker", []),
        ("acronet", [("place", (44.313, 9.322)), ("time.zone", "Europe/Rome")]),
    ],
)
def test_real_files_are_guessed_such_that_they_can_be_read(name, edits, real_data, tmp_path):
    guess = propose(str(real_data / name))
    assert guess.notes == []
    block = edited(guess.block, edits)
    source = Files("s", FilesConfig.model_validate(block | {"data_path": tmp_path / "raw", "settle": 0}))
    assert source.problems() == []
    extent, batches = source.extent(), 0
    for batch in source.fetch(extent):
        done = canonicalise(batch, source.metadata)
        assert done.rows.height and not done.rejected.height
        batches += 1
        break
    assert batches


OTHERS = {
    "WeatherLink.com": (
        '"Station","Home",,,,\n"6/1/24 12:00 AM","to 7/1/24",,,,\n,,,,,\n'
        '"Date & Time","Barometer - in Hg","Temp - °F","High Temp - °F","Hum - %","Avg Wind Speed - mph"\n'
        '"3/1/24 12:00 AM","29.921","61.2","62.0","80","3"\n"3/1/24 1:15 PM","29.922","71.0","71.5","61","--"\n',
        {"column": "Date & Time", "format": "%m/%d/%y %I:%M %p", "zone": "UTC"},
        {"Barometer - in Hg": "inHg", "Temp - °F": "degF", "High Temp - °F": "degF", "Hum - %": None,
         "Avg Wind Speed - mph": "mile hour-1"},
    ),
    "Ecowitt": (
        "Time,Outdoor Temperature(℃),Outdoor Humidity(%),Wind(km/h),Wind Direction(º),Indoor Temperature(℃)\n"
        "2024-03-01 00:00,4.1,82,1.2,220,20\n2024-03-01 00:05,4.0,82,1.2,220,20\n",
        {"column": "Time", "zone": "UTC"},
        {"Outdoor Temperature(℃)": None, "Outdoor Humidity(%)": None, "Wind(km/h)": "km h-1",
         "Wind Direction(º)": None},
    ),
    "HOBO": (
        '"Plot Title: 10347386"\n"#","Date Time, GMT+01:00","Temp, °C (LGR S/N: 1, SEN S/N: 1)","RH, % (LGR S/N: 1)"\n'
        "1,03/01/24 12:00:00 AM,4.1,80.2\n2,03/01/24 01:15:00 PM,4.2,80.3\n3,03/02/24 01:15:00 PM,4.2,80.3\n",
        {"column": "Date Time, GMT+01:00", "format": "%m/%d/%y %I:%M:%S %p", "zone": "+01:00"},
        {"Temp, °C (LGR S/N: 1, SEN S/N: 1)": None, "RH, % (LGR S/N: 1)": None},
    ),
    "METARs": (
        "#DEBUG: Format -> comma\nstation,valid,lon,lat,elevation,tmpf,relh,sknt,p01i,alti,gust,skyc1\n"
        "AMS,2024-03-01 00:25,4.77,52.3,-3.4,44.6,87.1,10.0,0.00,29.8,M,BKN\n"
        "AMS,2024-03-01 00:55,4.77,52.3,-3.4,44.6,93.1,11.0,T,29.8,22,BKN\n",
        {"column": "valid", "zone": "UTC"},
        {"tmpf": "degF", "relh": None, "sknt": "knot", "p01i": "inch", "alti": "inHg", "gust": "knot"},
    ),
    "Netatmo": (
        'Timestamp;"Timezone : Europe/Paris";Temperature;Humidity\n'
        '1709251200;"2024/03/01 01:00:00";4.1;80\n1709251500;"2024/03/01 01:05:00";4.2;80\n',
        {"column": "Timezone : Europe/Paris", "format": "%Y/%m/%d %H:%M:%S", "zone": "Europe/Paris"},
        {"Temperature": None, "Humidity": None},
    ),
    "Open-Meteo": (
        "latitude,longitude,elevation,timezone\n45.0,7.0,38.0,GMT\n\ntime,temperature_2m (°C),wind_speed_10m (km/h)\n"
        "2024-03-01T00:00,4.1,12.0\n2024-03-01T01:00,4.0,11.0\n",
        {"column": "time", "zone": "UTC"},
        {"temperature_2m (°C)": None, "wind_speed_10m (km/h)": "km h-1"},
    ),
    "SMHI": (
        "Stationsnamn;Stationsnummer;Stationsnät;Mäthöjd (meter över marken)\nAbisko Aut;188790;SMHI;2.0\n\n"
        "Datum;Tid (UTC);Lufttemperatur;Kvalitet\n2024-03-01;00:00:00;-4.1;G\n2024-03-01;01:00:00;-4.2;G\n",
        {"columns": ["Datum", "Tid (UTC)"], "format": "%Y-%m-%d %H:%M:%S", "zone": "UTC"},
        {"Lufttemperatur": None},
    ),
    "FMI": (
        '"Observation station","Year","Month","Day","Time [UTC]","Average temperature [°C]"\n'
        '"Kaisaniemi","2024","3","1","00:00","-1.2"\n"Kaisaniemi","2024","3","1","00:10","-"\n',
        {"columns": ["Year", "Month", "Day", "Time [UTC]"], "format": "%Y %m %d %H:%M", "zone": "UTC"},
        {"Average temperature [°C]": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_layouts_that_are_often_met_can_be_read_as_guessed(name, tmp_path):
    text, time, units = OTHERS[name]
    (tmp_path / "a.csv").write_text(text)
    guess = propose(str(tmp_path / "a.csv"))
    assert guess.notes == [] and guess.block["time"] == time
    assert {one["column"]: one.get("unit") for one in guess.block["variables"]} == units
    block = guess.block if "latitude" in guess.block else edited(guess.block, [PLACE])
    rows = read(block, tmp_path)
    assert rows["datetime"].dt.date().min() in (date(2024, 2, 29), date(2024, 3, 1)) and rows.height in (1, 2, 3)


SHAPES = {
    "a separator at the ends of rows": "time;t;rh\n2024-03-01 00:00;1,5;80;\n2024-03-01 00:10;1,6;81;\n",
    "names of rows": '"time" "t" "rh"\n"1" "2024-03-01 00:00:00" 1.5 80\n"2" "2024-03-01 00:10:00" 1.6 81\n',
    "a date and a clock that blanks divide": "date time t rh\n2024-03-01 00:00 1.5 80\n2024-03-01 00:10 1.6 81\n",
    "many comments": "".join(f"# line {n} of words, with, commas\n" for n in range(9))
    + "# time, temp, rh\n2024-03-01T00:00:00Z, 1.5, 80\n2024-03-01T00:10:00Z, 1.6, 81\n",
    "units in brackets": "time,temp,hum\n[UTC],[°C],[%]\n2024-03-01 00:00,1.5,80\n2024-03-01 00:10,1.6,81\n",
    "months as words": "Date,Time,T,RH\n01-Mar-2024,00:00,1.5,80\n01-Mar-2024,00:10,1.6,81\n",
    "offsets": "ts,temp_c,rh_pct\n2024-03-01T01:00:00+0100,1.5,80\n2024-03-01T01:10:00+0100,1.6,81\n",
    "compact times": "dt,temp,hum\n20240301T000000Z,1.5,80\n20240301T001000Z,1.6,81\n",
    "a line break in quotes": 'time,t,rh,note\n2024-03-01T00:00:00Z,1.5,80,"a\nb"\n2024-03-01T00:10:00Z,1.6,81,x\n',
    "a byte order mark": "\ufefftime,t,rh\r\n2024-03-01T00:00:00Z,1.5,80\r\n2024-03-01T00:10:00Z,1.6,81\r\n",
    "other units": "time,t2m,rh\n2024-03-01T00:00:00Z,274.65,0.80\n2024-03-01T00:10:00Z,274.75,0.81\n",
}


@pytest.mark.parametrize("name", SHAPES)
def test_however_a_table_is_written_its_rows_are_the_same(name, tmp_path):
    (tmp_path / "a.csv").write_text(SHAPES[name], newline="")
    rows = read(edited(propose(str(tmp_path / "a.csv")).block, [PLACE]), tmp_path)
    assert rows["datetime"].dt.strftime("%d %H:%M").to_list() == ["01 00:00", "01 00:10"]
    assert rows[T].to_list() == pytest.approx([1.5, 1.6])
    assert rows["relative_humidity__%__2.0__point__PT0S"].to_list() == pytest.approx([80, 81])


def test_hours_from_1_to_24_are_no_years_and_a_line_of_means_is_no_time(tmp_path):
    """01.03.2024 was read as the first of March 2020, at 24 o'clock."""
    (tmp_path / "a.csv").write_text("Date;Hour;Temp\n01.03.2024;1;1,5\n01.03.2024;24;1,6\nMean;;1,55\n")
    block = propose(str(tmp_path / "a.csv")).block
    assert block["time"] == {"columns": ["Date", "Hour"], "format": "%d.%m.%Y %H", "zone": "UTC"}


WEEWX = """dateTime,usUnits,interval,barometer,outTemp,windSpeed,rain,rainRate,snowDepth
1709251200,{0},5,{1},{2},{3},{4},{5},{6}
1709251500,{0},5,{1},{2},{3},{4},{5},{6}
"""


@pytest.mark.parametrize("where", ["stations.csv", "loggers/stations.csv"])
def test_a_list_of_stations_is_found_also_where_the_files_names_tell_the_stations(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loggers").mkdir()
    for station in ("north", "south"):
        lines = "".join(f"2024-03-01T0{n}:00Z,{n}.5\n" for n in range(4))
        Path(f"loggers/{station}_20240301.csv").write_text(f"time,temp\n{lines}")
    Path(where).write_text("id,name,lat,lon,elev\nnorth,North hill,45.1,7.02,310\nsouth,South field,45.02,7.05,250\n")
    guess = propose("loggers")
    assert guess.block["stations"]["path"] == where and "latitude" not in guess.block
    rows = read(guess.block, tmp_path)
    assert rows.select("station_id", "lat", "altitude").unique().sort("station_id").rows() == [
        ("north", 45.1, "310"), ("south", 45.02, "250")
    ]  # fmt: skip


def test_a_number_that_is_written_otherwise_is_not_taken_for_no_value(tmp_path):
    cells = ["1.5", "2,5", "3.5", "M", "4.5 C", "5.5"]
    text = "".join(f'2024-03-01T0{n}:00Z,"{cell}"\n' for n, cell in enumerate(cells))
    (tmp_path / "a.csv").write_text(f"time,temp\n{text}")
    assert propose(str(tmp_path / "a.csv")).block["missing"] == ["M"]


def test_times_as_spreadsheets_count_them_are_found(tmp_path):
    (tmp_path / "a.csv").write_text("time,temp\n45352.0,1.5\n45352.0416666667,2.5\n45352.0833333333,3.5\n")
    found = propose(str(tmp_path / "a.csv"))
    assert found.block["time"] == {"column": "time", "unit": "excel", "zone": "UTC"}
    assert "the first is 2024-03-01 00:00" in found.text and "which clock their times are of" in found.text


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("101,2024,61,5,1.5\n101,2024,61,15,1.6\n101,2024,61,930,2.5\n", ([2, 3, 4], "%Y %j %H%M")),
        ("2024 361 0005 1.5\n2024 361 2355 1.6\n2024 361 2400 2.5\n", ([1, 2, 3], "%Y %j %H%M")),
        ("2024 61 1 1.5\n2024 61 23 1.6\n2024 61 24 2.5\n", ([1, 2, 3], "%Y %j %H")),
        (
            "year;doy;hhmm;t\n2024;61;5;1.5\n2024;61;110;1.6\n2024;61;1355;2.5\n",
            (["year", "doy", "hhmm"], "%Y %j %H%M"),
        ),
    ],
)
def test_a_day_of_the_year_and_a_clock_that_is_a_number_are_a_time(text, time, tmp_path):
    (tmp_path / "a.dat").write_text(text)
    columns = [f"column_{one}" if isinstance(one, int) else one for one in time[0]]
    found = propose(str(tmp_path / "a.dat")).block["time"]
    assert (found["columns"], found["format"]) == (columns, time[1])


@pytest.mark.parametrize(
    ("system", "cells", "units"),
    [
        (1, (29.92, 41.0, 10.0, 0.04, 0.4, 3.0), ("inHg", "degF", "mile hour-1", "inch", "inch hour-1", "inch")),
        (16, (1013.2, 5.0, 18.0, 0.1, 1.0, 8.0), (None, None, "km h-1", "cm", "cm h-1", "cm")),
        (17, (1013.2, 5.0, 5.0, 1.0, 10.0, 80.0), (None, None, None, None, None, "mm")),
    ],
)
def test_the_unit_system_of_weewx_says_every_unit(tmp_path, system, cells, units):
    (tmp_path / "a.csv").write_text(WEEWX.format(system, *cells))
    guess = propose(str(tmp_path / "a.csv"))
    found = {one["column"]: one.get("unit") for one in guess.block["variables"]}
    assert found == dict(
        zip(("barometer", "outTemp", "windSpeed", "rain", "rainRate", "snowDepth"), units, strict=True)
    )
    assert "do not say the unit" not in guess.text and "assumed" not in guess.text


def test_an_archive_of_weewx_in_several_unit_systems_is_refused(tmp_path):
    """Its degrees Fahrenheit were taken for Celsius beside those that are."""
    american, metric = (WEEWX.format(system, 1000, 41.0, 5.0, 1, 1, 1) for system in (1, 16))
    (tmp_path / "a.csv").write_text(american + metric.partition("\n")[2].replace("17092", "17093"))
    with pytest.raises(SourceError, match=r"a\.csv: its rows are in several systems of units \(usUnits is 1 and 16\)"):
        propose(str(tmp_path / "a.csv"))


def test_a_counter_of_rain_is_no_amount_and_a_low_pressure_is_not_at_sea_level(tmp_path):
    rows = "".join(f"2024-03-01T{n:02}:00:00Z,{n // 5 * 0.2:.1f},{n % 3 * 0.2:.1f},{870 + n % 4}\n" for n in range(24))
    (tmp_path / "a.csv").write_text(f"time,rain_total,precip,pres\n{rows}")
    guess = propose(str(tmp_path / "a.csv"))
    assert {one["column"]: one["standard_name"] for one in guess.block["variables"]} == {
        "precip": "lwe_thickness_of_precipitation_amount",
        "pres": "air_pressure",
    }
    assert "'rain_total' is left out: its values only grow, as those of a counter" in guess.text


def test_of_a_real_day_names_and_sentences_tell_methods_periods_and_levels(real_data):
    """What examples/knmi.yaml states of the same file, but for a height that two variables do not tell."""
    told = yaml.safe_load((Path(__file__).parents[2] / "examples/knmi.yaml").read_text())["sources"]["knmi"][
        "variables"
    ]
    guessed = {one["column"]: one for one in propose(str(real_data / "knmi")).block["variables"]}
    assert {one["column"] for one in told} - guessed.keys() == {"rg"}
    for one in told:
        if one["column"] in guessed:
            keys = ("method", "period") if one["column"] in ("ta", "rh") else ("level", "method", "period")
            assert [guessed[one["column"]].get(key) for key in keys] == [one.get(key) for key in keys], one


def test_each_line_says_how_sure_it_is_and_what_is_unknown_is_asked(laid_out):
    _, *layout = KINDS[0]
    path, _ = laid_out(*layout)
    text = propose(str(path)).text
    assert re.search(r"zone: UTC +# a guess: ", text) and "# TODO: the files do not say which clock" in text
    assert "# latitude: 0.0" in text and re.search(r"header: 2 +# sure: line 2 has the names", text)
    assert "# sure: 'AirTC_Avg' is usually that; the file says Deg C; values 1.5 to 1.5" in text


def test_files_of_one_shape_are_one_block_and_others_are_named(tmp_path):
    for name, value in (("north", 1), ("south", 2), ("east", 3)):
        (tmp_path / f"{name}.csv").write_text(
            f"time,t,rh\n2024-03-01T00:00:00Z,{value},80\n2024-03-01T01:00:00Z,{value},80\n"
        )
    (tmp_path / "power.csv").write_text("when;volt\n2024-03-01T00:00:00Z;12,5\n2024-03-01T01:00:00Z;12,6\n")
    (tmp_path / "empty.csv").write_text("")
    guess = propose(str(tmp_path))
    assert [one["column"] for one in guess.block["variables"]] == ["t", "rh"]
    assert guess.block["constants"] == {"station_id": "{stem}"}
    assert "# sure: 3 files of one shape" in guess.text
    assert any("power.csv" in note and "another shape" in note for note in guess.notes)
    assert any("empty.csv" in note and "empty" in note for note in guess.notes)


def test_columns_that_some_files_lack_are_optional_and_a_list_of_names_is_no_table(tmp_path):
    (tmp_path / "a.csv").write_text("time,t,rh\n2024-03-01 00:30 CET,1,80\n")
    (tmp_path / "b.csv").write_text("time,t\n2024-03-01 00:30 CET,2\n")
    (tmp_path / "README").write_text("How this was measured\n")
    guess = propose(str(tmp_path))
    assert guess.block["path"] == f"{tmp_path}/*.csv"
    assert [(one["column"], one.get("optional")) for one in guess.block["variables"]] == [("t", None), ("rh", True)]
    assert guess.block["time"] == {"column": "time", "format": "%Y-%m-%d %H:%M CET", "zone": "+01:00"}
    rows = read(edited(guess.block, [PLACE]), tmp_path)
    assert rows["datetime"].dt.strftime("%d %H:%M").unique().to_list() == ["29 23:30"]
    assert rows["station_id"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "text", "time", "station"),
    [
        ("a.ndjson", '{"at":1709251200,"sensor":"A","t":1.5}\n{"at":1709251500,"sensor":"A","t":2}\n',
         {"column": "at", "unit": "s"}, {"metadata": {"station_id": "sensor"}}),
        ("a.csv", "time,location,t\n2024-03-01T00:00:00Z,Bergen,1.5\n2024-03-01T01:00:00Z,Oslo,1.5\n",
         {"column": "time"}, {"metadata": {"station_id": "location"}}),
        ("mast_2024-03-01.csv", "time,t\n2024-03-01T00:00:00Z,1.5\n", {"column": "time"}, {"name": None}),
    ],
)  # fmt: skip
def test_what_tells_stations_apart_is_found(name, text, time, station, tmp_path):
    (tmp_path / name).write_text(text)
    block = propose(str(tmp_path / name)).block
    assert block["time"] == time and {*station} <= {*block}
    assert station.get("metadata") == block.get("metadata")
    assert {*read(edited(block, [PLACE]), tmp_path)["station_id"]} <= {"A", "Bergen", "Oslo", "mast"}


@pytest.mark.parametrize("packed", ["parquet", "csv.gz", "zip", "xlsx"])
def test_what_is_in_packed_files_books_and_parquet_is_guessed_alike(packed, tmp_path):
    days = pl.datetime_range(datetime(2024, 3, 1), datetime(2024, 3, 1, 5, 50), "10m", eager=True).alias("time")
    given = pl.DataFrame({"time": days, "station": "A", "temp": [n / 2 for n in range(len(days))]})
    path = tmp_path / "in" / f"a.{packed}"
    path.parent.mkdir()
    text = given.with_columns(pl.col("time").dt.strftime("%d.%m.%Y %H:%M")).write_csv(separator=";")
    if packed == "parquet":
        given.write_parquet(path)
    elif packed == "csv.gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif packed == "zip":
        with ZipFile(path, "w") as archive:
            archive.writestr("about_20240301.txt", "words alone")
            archive.writestr("produkt_20240301_44.txt", text)
    else:
        book(path, ("Notes", "Data"))
    guess = propose(str(path))
    rows = read(edited(guess.block, [PLACE]), tmp_path)
    of_book = packed == "xlsx"
    values = [value for number, value in WRITTEN if number != 5] if of_book else given["temp"].to_list()
    assert rows["datetime"].to_list()[:5] == days.dt.replace_time_zone("UTC").to_list()[:5]
    assert rows["station_id"].unique().to_list() == ["6260" if of_book else "A"]
    assert rows[T].to_list() == pytest.approx(values)


def test_of_a_large_file_only_the_beginning_and_the_end_are_read(tmp_path):
    path = tmp_path / "large.csv"
    rows = "".join(f"0{day}/03/2024 00:00;{day},5\n" for day in range(1, 5)) * 5000
    with path.open("wb") as file:
        file.write(f"date;temp\n{rows}".encode())
        file.truncate(8 << 30)  # a hole, which nobody may read
        file.seek(0, 2)
        file.write(b"\n31/03/2024 00:00;-999,9\n30/03/2024 00:00;7,5\n")
    guess = propose(str(path))
    assert guess.block["missing"] == [-999.9]
    assert guess.block["time"]["format"] == "%d/%m/%Y %H:%M"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"time,t\r2024-03-01T00:00:00Z,1\r", "carriage returns"),
        ("time,t\n2024-03-01T00:00:00Z,1\n".encode("utf-16"), "iconv"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no text"),
        (b'[{"a": 1},\n{"a": 2}]\n', "one JSON document"),
        (b"only words\nand nothing\nthat is a table of numbers\n", "no table"),
    ],
)
def test_what_is_no_table_is_told_with_what_to_do(content, told, tmp_path):
    path = tmp_path / ("a.json" if content.startswith(b"[") else "a.csv")
    path.write_bytes(content)
    with pytest.raises(SourceError, match=told):
        propose(str(path))
    with pytest.raises(SourceError, match="no file is there"):
        propose(str(tmp_path / "none" / "*.csv"))


def test_its_output_is_a_configuration(laid_out, monkeypatch):
    path, _ = laid_out("time,lat,lon,id,temp\n2024-03-01T00:00:00Z,45,7,A,\x1b1\n2024-03-01T01:00:00Z,45,7,B,2\n", "",
                       "path: in/*.csv")  # fmt: skip
    done = CliRunner().invoke(app, ["source", "guess", str(path)])
    assert done.exit_code == 0 and "\x1b" not in done.output
    Path("guessed.yaml").write_text(done.stdout)
    checked = CliRunner().invoke(app, ["--config", "guessed.yaml", "config", "check"])
    assert checked.exit_code == 0, checked.output
    assert "air_temperature" in checked.output
    assert CliRunner().invoke(app, ["source", "guess", "nowhere"]).exit_code == 1
