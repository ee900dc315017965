"""The source `files`: real observations point for point, what is told of bad files, and what becomes due again."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ionbeam_client.cf import check_metadata
from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig, text_lines, window_rows
from ionbeam_dagster.sources.files import index as index_module
from ionbeam_dagster.sources.files.csv_files import CsvReader

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data"
DAY = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

PLAIN = """\
time,lat,lon,station,temperature
2024-03-01T00:00:00Z,45.0,7.0,A,1.5
2024-03-01T00:10:00Z,45.0,7.0,A,2.5
2024-03-01T05:00:00Z,45.0,7.0,A,3.5
"""


def files(folder: Path, pattern: str = "*.csv", **keys) -> Files:
    """A source of one temperature; files count as written at once, so that a test need not wait."""
    temperature = {"column": "temperature", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}
    block = {"path": str(folder / pattern), "data_path": folder / "raw", "time": "time", "settle": 0}
    block |= {"metadata": {"station_id": "station"}, "variables": [temperature]}
    return Files("weather", FilesConfig.model_validate(block | keys))


def example(name: str, tmp_path: Path) -> Files:
    """The source of an example configuration."""
    sources = yaml.safe_load((ROOT / f"examples/{name}.yaml").read_text())["sources"]
    ((source, block),) = sources.items()
    block["path"] = str(ROOT / block["path"])
    return Files(source, FilesConfig.model_validate(block | {"data_path": tmp_path, "settle": 0}))


def fetched(source: Files, window: Window) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(batch) for batch in source.fetch(window)])


def canonical(source: Files, window: Window) -> pl.DataFrame:
    """All rows of a window in canonical form; none may be rejected."""
    converted = [canonicalise(batch, source.metadata) for batch in source.fetch(window)]
    assert [row for one in converted for row in one.rejected.iter_rows()] == []
    return pl.concat([one.rows for one in converted])


def rejected(source: Files, window: Window) -> pl.DataFrame:
    return pl.concat([canonicalise(batch, source.metadata).rejected for batch in source.fetch(window)])


def hours(source: Files) -> list[Window]:
    extent = source.extent()
    return list(windows_between(extent.start, extent.end, HOUR))


def hour(number: int) -> Window:
    return Window(DAY + number * HOUR, DAY + (number + 1) * HOUR)


# Real observations


def test_knmi_is_what_an_independent_reading_of_the_file_gives(tmp_path):
    source = example("knmi", tmp_path)
    assert source.problems() == [] and check_metadata(source.metadata) == []
    assert len(hours(source)) == 24
    rows = pl.concat([canonical(source, window) for window in hours(source)])
    with netCDF4.Dataset(DATA / "knmi" / "20221231.nc") as file:
        stations = list(file["station"][:])
        assert sorted(rows["station_id"].unique()) == sorted(stations) and len(stations) == 55
        assert rows.height == 55 * 144 and rows["datetime"].n_unique() == 144
        names = {v.column: v.to_canonical_name() for v in source.metadata.ingestion_map.canonical_variables}
        for column, name in names.items():
            values = file[column][:]
            assert rows[name].count() == values.count()
            factor = 12.5 if column == "nc" else 1.0  # octas became per cent
            assert rows[name].sum() == pytest.approx(factor * float(values.sum()))
        assert rows[names["ta"]].count() == 7200
        for station, step in ((0, 0), (17, 60), (54, 143)):
            moment = datetime(1950, 1, 1, tzinfo=UTC) + timedelta(seconds=float(file["time"][step]))
            row = rows.row(
                by_predicate=(pl.col("station_id") == stations[station]) & (pl.col("datetime") == moment), named=True
            )
            assert (row["lat"], row["lon"]) == (file["lat"][step, station], file["lon"][step, station])
            assert row["station_name"] == file["stationname"][step, station]
            for column in ("ta", "td", "rh", "pp", "ff", "dd", "gff"):
                value = file[column][station, step]
                assert row[names[column]] == (None if np.ma.is_masked(value) else value)


def test_knmi_is_described_by_its_attributes_with_the_names_that_cf_uses_today(tmp_path):
    names = {
        v.column: v.to_canonical_name() for v in example("knmi", tmp_path).metadata.ingestion_map.canonical_variables
    }
    assert names["pp"] == "air_pressure_at_mean_sea_level__hPa__0.0__mean__PT1M"
    assert names["ta"] == "air_temperature__degC__1.5__mean__PT1M"
    assert names["ff"] == "wind_speed__m s-1__10.0__mean__PT10M"


def test_the_meteotracker_drive_is_there_point_for_point(tmp_path):
    source = example("meteotracker_drive", tmp_path)
    drive = pl.read_csv(DATA / "meteotracker" / "jerusalem_2022-08-25.csv")
    rows = pl.concat([canonical(source, window) for window in hours(source)])
    assert rows["datetime"].dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_list() == drive["time"].to_list()
    for variable in source.metadata.ingestion_map.canonical_variables:
        expected = drive[variable.column].cast(pl.Float64).fill_nan(None).to_list()
        assert rows[variable.to_canonical_name()].to_list() == expected
    assert rows["lat"].to_list() == drive["lat"].to_list() and rows["lon"].to_list() == drive["lon"].to_list()
    assert rows["station_id"].unique().to_list() == ["jerusalem_2022-08-25"]
    assert not [name for name in rows.columns if name.startswith("wind_")]


def test_acronet_keeps_its_three_tables_apart_and_its_local_time_becomes_utc(tmp_path):
    source = example("acronet_day", tmp_path)
    assert source.extent().start == datetime(2022, 8, 18, 0, 10, tzinfo=UTC)
    rows = pl.concat([canonical(source, window) for window in hours(source)])
    storm = rows.filter(pl.col("datetime") == datetime(2022, 8, 18, 5, tzinfo=UTC)).drop("datetime").max()
    assert storm["wind_speed_of_gust__m s-1__10.0__maximum__PT10M"][0] == pytest.approx(136.04 / 3.6)
    assert storm["wind_speed__m s-1__10.0__mean__PT10M"][0] == pytest.approx(50.37 / 3.6)
    assert [rows[name].count() for name in rows.columns if name.startswith("wind")] == [288, 288, 288]
    assert rows["wind_from_direction__degree__10.0__mean__PT10M"].max() == 335.92


# How files are written


def test_a_csv_with_its_own_separator_decimals_encoding_and_clock(tmp_path):
    text = (
        'Zeit;Länge;Breite;"Temperatur; 2 m"\r\n01.03.2024 01:30;7,5;45,25;-1,5\r\n01.03.2024 01:40;7,5;45,25;k.A.\r\n'
    )
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    source = files(
        tmp_path,
        csv={"separator": ";", "encoding": "latin-1", "decimal": ",", "missing": ["k.A."]},
        time={"column": "Zeit", "format": "%d.%m.%Y %H:%M", "zone": "Europe/Berlin"},
        latitude="Breite",
        longitude="Länge",
        metadata={},
        constants={"station_id": "{stem}", "height": 300},
        variables=[{"column": "Temperatur; 2 m", "standard_name": "air_temperature", "unit": "degC", "cf_unit": "K"}],
    )
    (row,) = canonical(source, hour(0)).rows(named=True)
    assert row["datetime"] == DAY + timedelta(minutes=30)
    assert (row["lat"], row["lon"], row["station_id"], row["height"]) == (45.25, 7.5, "a", "300")
    assert row["air_temperature__K__0.0__point__PT0S"] == pytest.approx(271.65)


def test_a_byte_order_mark_quotes_and_blanks_in_the_header_and_gzip_do_no_harm(tmp_path):
    import gzip

    header, *lines = PLAIN.splitlines()
    quoted = ", ".join(f'"{name}"' for name in header.split(",")).replace(", ", ",")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("\n".join(["\ufeff" + quoted, "", *lines, ""]).encode()))
    (tmp_path / "b.csv").write_text(PLAIN.replace(",A,", ",B,").replace("time,lat", "time , lat"))
    source = files(tmp_path, "*.csv*")
    assert source.problems() == []
    assert fetched(source, hour(0))["x_file"].to_list() == ["a.csv.gz", "a.csv.gz", "b.csv", "b.csv"]
    assert fetched(source, hour(0))["x_row"].to_list() == [3, 4, 2, 3]


def test_parquet_of_any_kind_of_time_is_read(tmp_path):
    moments = [DAY.replace(tzinfo=None) + timedelta(minutes=10 * step) for step in range(12)]
    frame = pl.DataFrame({"time": moments, "lat": 45.0, "lon": 7.0, "station": 7, "temperature": range(12)})
    frame.with_columns(pl.col("time").dt.replace_time_zone("Europe/Rome")).write_parquet(tmp_path / "zoned.parquet")
    frame.with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M")).write_parquet(tmp_path / "text.parquet")
    frame.write_parquet(tmp_path / "naive.parquet", row_group_size=5)
    for name, first in (("zoned", -HOUR), ("text", 0 * HOUR), ("naive", 0 * HOUR)):
        source = files(tmp_path, f"{name}.parquet")
        rows = canonical(source, Window(DAY + first, DAY + first + HOUR))
        assert rows["air_temperature__degC__2.0__point__PT0S"].to_list() == [0, 1, 2, 3, 4, 5]
        assert rows["station_id"].unique().to_list() == ["7"]


def cf_file(path: Path, fill, **keys) -> Path:
    with netCDF4.Dataset(path, "w", **keys) as file:
        fill(file)
    return path


def variable(file, name: str, kind, dimensions, values, fill_value=None, **attributes):
    made = file.createVariable(name, kind, dimensions, fill_value=fill_value)
    made.setncatts(attributes)
    made.set_auto_maskandscale(False)
    made[...] = np.asarray(values)


HERE = {"units": "degrees_north"}, {"units": "degrees_east"}


def test_netcdf_tells_height_method_period_packing_and_quality_itself(tmp_path):
    def fill(file):
        file.createDimension("obs", 4)
        file.createDimension("two", 2)
        days = np.arange(1, 5) / 144
        variable(file, "when", "f8", ("obs",), days, standard_name="time", units="days since 2024-03-01", bounds="b")
        variable(file, "b", "f8", ("obs", "two"), np.stack([days - 1 / 144, days], axis=1))
        variable(file, "y", "f4", (), 45.5, **HERE[0])
        variable(file, "x", "f4", (), 7.25, **HERE[1])
        variable(file, "z", "f4", (), 200.0, standard_name="height", units="cm")
        variable(
            file,
            "qc",
            "i1",
            ("obs",),
            [0, 1, 2, 0],
            standard_name="quality_flag",
            flag_values=np.int8([0, 1, 2]),
            flag_meanings="good doubtful missing",
        )
        variable(
            file,
            "t",
            "i2",
            ("obs",),
            [0, 100, -999, 300],
            np.int16(-999),
            standard_name="air_temperature",
            units="degrees Celsius",
            scale_factor=0.1,
            add_offset=5.0,
            coordinates="y x z",
            cell_methods="area: point time: mean",
            ancillary_variables="qc",
        )

    cf_file(tmp_path / "a.nc", fill)
    source = files(tmp_path, "*.nc", time={}, metadata={}, variables=["t"])
    rows = canonical(source, hour(0))
    assert rows["air_temperature__degC__2.0__mean__PT10M"].to_list() == pytest.approx([5.0, 15.0, 35.0])
    assert rows["qc"].to_list() == ["good", "doubtful", "good"]
    assert rows["datetime"].to_list() == [DAY + timedelta(minutes=minutes) for minutes in (10, 20, 40)]
    assert rows.select("lat", "lon").unique().rows() == [(45.5, 7.25)]


@pytest.mark.parametrize("ragged", ["indexed", "contiguous"])
def test_netcdf_of_ragged_arrays_gives_each_point_its_station(tmp_path, ragged):
    def fill(file):
        file.createDimension("site", 3)
        file.createDimension("sample", 6)
        file.createDimension("letters", 4)
        variable(
            file,
            "id",
            "S1",
            ("site", "letters"),
            netCDF4.stringtochar(np.array(["one", "two", "six"], "S4")),
            cf_role="timeseries_id",
        )
        variable(file, "lat", "f8", ("site",), [41.0, 42.0, 46.0], **HERE[0])
        variable(file, "lon", "f8", ("site",), [1.0, 2.0, 6.0], **HERE[1])
        if ragged == "indexed":
            variable(file, "of", "i4", ("sample",), [0, 1, 1, 2, 2, 2], instance_dimension="site")
        else:
            variable(file, "count", "i4", ("site",), [1, 2, 3], sample_dimension="sample")
        variable(file, "time", "i4", ("sample",), range(6), units="minutes since 2024-03-01 00:00:00")
        variable(file, "t", "f4", ("sample",), range(6), standard_name="air_temperature", units="K")

    cf_file(tmp_path / "a.nc", fill, format="NETCDF3_CLASSIC")
    rows = canonical(files(tmp_path, "*.nc", time={}, metadata={}, variables=["t"]), hour(0))
    assert rows["station_id"].to_list() == ["one", "two", "two", "six", "six", "six"]
    assert rows["lat"].to_list() == [41.0, 42.0, 42.0, 46.0, 46.0, 46.0]
    assert rows["air_temperature__K__0.0__point__PT0S"].to_list() == [0, 1, 2, 3, 4, 5]


# What every row comes to


def test_bad_rows_reach_the_quarantine_with_their_place_and_reason(tmp_path):
    bad = PLAIN.replace("3.5\n", "warm\n") + (
        "2024-03-01T05:10:00Z,45.0,7.0,A\n"
        "yesterday,45.0,7.0,A,5.5\n"
        ",45.0,7.0,A,6.5\n"
        "2024-03-01T05:20:00Z,45.0,7.0,A,\n"
        "1800-01-01T00:00:00Z,45.0,7.0,A,7.5\n"
    )
    (tmp_path / "a.csv").write_text(bad)
    source = files(tmp_path)
    faults = rejected(source, hour(5))
    told = dict(zip(faults["x_row"], zip(faults["reason"], faults["x_problem"], strict=True), strict=True))
    assert faults["x_file"].unique().to_list() == ["a.csv"]
    assert sorted(told) == [4, 5, 6, 7, 9]
    assert told[4][0] == "temperature is no float64: warm"
    assert "4 cells where the header has 5" in told[5][1]
    assert told[6][1] == "time: yesterday is not a time (ISO 8601)"
    assert told[7] == ("no time", None)
    assert "time out of range" in told[9][0]
    assert rejected(source, hour(0)).height == 0


def test_a_local_time_that_the_clock_shows_twice_or_never_is_kept_for_the_quarantine(tmp_path):
    text = "time,temperature\n" + "".join(f"2022-10-30 0{h}:30,{h}\n" for h in range(5)) + "2022-03-27 02:30,9\n"
    (tmp_path / "a.csv").write_text(text)
    source = files(tmp_path, time={"column": "time", "zone": "Europe/Rome"}, latitude=45, longitude=7, metadata={})
    assert str(source.extent().start) == "2022-10-29 22:30:00+00:00"
    rows = pl.concat([fetched(source, window) for window in hours(source) if list(source.fetch(window))])
    assert rows["x_row"].to_list() == [2, 3, 4, 5, 6, 7]
    assert rows.filter(pl.col("datetime").is_null())["x_row"].to_list() == [4, 7]
    assert rows["x_problem"].drop_nulls()[0].endswith("that the clocks of Europe/Rome show exactly once")


line = st.one_of(
    st.integers(0, 299).map(lambda minute: f"{DAY + timedelta(minutes=minute):%Y-%m-%dT%H:%M}Z,45,7,A,{minute}"),
    st.sampled_from(["never,45,7,A,1", "2024-03-01T01:00Z,45,7,A", ",45,7,A,2", PLAIN.splitlines()[0]]),
)


@settings(max_examples=60)
@given(lines=st.lists(line, min_size=1, max_size=30), size=st.integers(40, 400))
def test_every_row_of_a_csv_is_in_exactly_one_window_however_it_is_cut(lines, size):
    import tempfile

    header = PLAIN.splitlines()[0]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "CSV_PART", size)
        (Path(folder) / "a.csv").write_text("\n".join([header, *lines]) + "\n")
        source = files(Path(folder))
        if source.extent() is None:
            assert not any(text.startswith("2024") and text.count(",") == 4 for text in lines)
            return
        found = [
            row for window in hours(source) for batch in source.fetch(window) for row in batch["x_row"].to_pylist()
        ]
        assert sorted(found) == [number for number, text in enumerate(lines, 2) if text != header]


# Files that cannot be used


def damaged_parquet(folder: Path) -> str:
    pl.read_csv(PLAIN.encode()).write_parquet(folder / "a.parquet")
    (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-30])
    return "a.parquet"


def damaged_netcdf(folder: Path) -> str:
    (folder / "a.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    return "a.nc"


def written(text: str | bytes, name: str = "a.csv"):
    def write(folder: Path) -> str:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (damaged_parquet, ["cannot be read", "put an intact copy in its place"]),
        (damaged_netcdf, ["cannot be read", "put an intact copy in its place"]),
        (written(b""), ["is empty", "remove it"]),
        (written(b"", "a.parquet"), ["is empty"]),
        (written(b"", "a.nc"), ["is empty"]),
        (written(PLAIN.splitlines()[0] + "\n"), ["has no row with a time", "holds no row"]),
        (
            written(PLAIN.replace(",", ";")),
            ["line 1 has no column 'time'", "right would probably be csv.separator: ';'"],
        ),
        (
            written("of a logger,5\nmade today\n" + PLAIN),
            [
                "line 1 has no column 'time'",
                "the names stand in line 3, which has 'time'",
                "right would be csv: {header: 3}",
            ],
        ),
        (written('"TOA5","CR1000"\n' + PLAIN), ["right would be csv: {header: 2, skip: [3, 4]}"]),
        (written(PLAIN.replace("temperature", "temperatur")), ["no column 'temperature'", "near is 'temperatur'"]),
        (written(PLAIN.replace("A,2.5", "Ä,2.5").encode("latin-1")), ["line 3: byte 0xc4 is not utf-8", "latin-1"]),
        (written(PLAIN.replace("2024-03-01T", "1 March ")), ["has no row with a time", "is not a time (ISO 8601)"]),
        (written(PLAIN.replace("lat,lon", "time,lon")), ["line 1 has two columns 'time'"]),
        (written(bytes(2_000_000)), ["line 1 does not end within 1 MiB"]),
        (written(PLAIN, "a.txt"), ["does not tell its format", "state `format`"]),
    ],
)
def test_a_file_that_cannot_be_used_is_reported_with_place_reason_and_remedy(tmp_path, write, told):
    name = write(tmp_path)
    source = files(tmp_path, f"*{Path(name).suffix}")
    (problem,) = source.problems()
    assert problem.startswith(f"{(tmp_path / name).as_posix()}: ")
    assert [words for words in told if words not in problem] == []
    assert source.extent() is None
    with pytest.raises(SourceError, match="may hold observations") as gap:  # and no empty window is claimed
        list(source.fetch(hour(0)))
    assert problem in str(gap.value)


def test_a_csv_that_is_utf8_but_read_as_another_encoding_says_so(tmp_path):
    (tmp_path / "a.csv").write_text(PLAIN.replace("temperature", "température"), encoding="utf-8")
    column = {"column": "température", "standard_name": "air_temperature", "cf_unit": "degC"}
    (problem,) = files(tmp_path, csv={"encoding": "latin-1"}, variables=[column]).problems()
    assert problem.endswith("right would be csv.encoding: utf-8")


def grid(path: Path, **attributes) -> Path:
    def fill(file):
        file.createDimension("time", 2)
        variable(file, "time", "i4", ("time",), [0, 10], units="minutes since 2024-03-01 00:00:00")
        variable(file, "ta", "f4", ("time",), [1.0, 2.0], **attributes)

    return cf_file(path, fill)


@pytest.mark.parametrize(
    ("attributes", "stated", "told"),
    [
        ({"standard_name": "air_temperature"}, {}, "'ta': has no units in the file; state `unit`"),
        ({"units": "K"}, {}, "'ta': has no standard_name in the file; state `standard_name`"),
        ({"standard_name": "air_temperature", "units": "Pa"}, {}, "air_temperature cannot be in 'Pa'"),
        ({"standard_name": "air_temprature", "units": "K"}, {}, "near to it is air_temperature"),
    ],
)
def test_a_netcdf_that_does_not_say_enough_is_refused_until_the_yaml_says_it(tmp_path, attributes, stated, told):
    grid(tmp_path / "a.nc", **attributes)
    keys = {"time": {}, "metadata": {}, "latitude": 45.0, "longitude": 7.0}
    with pytest.raises(SourceError, match=r"sources\.weather\.variables") as refused:
        _ = files(tmp_path, "*.nc", variables=["ta"], **keys).metadata
    assert told in str(refused.value)
    whole = {"column": "ta", "standard_name": "air_temperature", "unit": "K"}
    assert canonical(files(tmp_path, "*.nc", variables=[whole], **keys), hour(0)).height == 2


def test_units_are_converted_and_a_file_whose_unit_does_not_fit_fails_with_its_name_variable_and_units(tmp_path):
    grid(tmp_path / "a.nc", standard_name="air_temperature", units="degC")
    grid(tmp_path / "b.nc", standard_name="air_temperature", units="K")
    keys = {"time": {}, "metadata": {}, "latitude": 45.0, "longitude": 7.0, "variables": ["ta"]}
    source = files(tmp_path, "*.nc", **keys)
    rows = canonical(source, hour(0))
    assert rows["air_temperature__degC__0.0__point__PT0S"].to_list() == pytest.approx([1.0, 2.0, -272.15, -271.15])
    grid(tmp_path / "b.nc", standard_name="air_temperature", units="hPa")
    with pytest.raises(SourceError, match=r"b\.nc: variable 'ta': .*'hPa'"):
        list(source.fetch(hour(0)))


def test_a_missing_folder_and_a_mixture_of_formats_are_refused_rather_than_empty(tmp_path):
    with pytest.raises(SourceError, match="there is no such file or folder"):
        list(files(tmp_path / "absent").fetch(hour(0)))
    (tmp_path / "a.csv").write_text(PLAIN)
    pl.read_csv(PLAIN.encode()).write_parquet(tmp_path / "a.parquet")
    assert files(tmp_path / "absent").problems() == [f"{tmp_path}/absent: there is no such file or folder; correct "
                                                     "`path`, or mount the folder"]  # fmt: skip
    with pytest.raises(SourceError, match=r"several formats \(csv, parquet\)") as refused:
        files(tmp_path, "a.*").extent()
    assert files(tmp_path, "a.*").problems() == [str(refused.value)]
    nothing = files(tmp_path, "*.txt", format="csv")
    assert nothing.problems() == [f"{tmp_path}/*.txt: no file matches; correct `path`, or put files there"]
    with pytest.raises(SourceError, match="no file matches"):
        list(nothing.fetch(hour(0)))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"csv": {"separator": ",", "decimal": ","}}, "separator and decimal are both"),
        ({"csv": {"encoding": "utf-16"}}, "cannot be read in pieces"),
        ({"time": {"zone": "Europe/Atlantis"}}, "is not a time zone"),
        ({"constants": {"station_id": "x"}}, "station_id: stands twice"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
        ({"latitude": 91.0}, "less than or equal to 90"),
    ],
)
def test_a_block_that_cannot_be_right_is_refused(tmp_path, keys, told):
    with pytest.raises(ValidationError, match=told):
        files(tmp_path, **keys)


# What changes


def test_a_damaged_file_fails_its_own_windows_only_and_is_read_again_when_mended(tmp_path):
    early, late = tmp_path / "early.csv", tmp_path / "late.csv"
    early.write_text(PLAIN)
    late.write_text(PLAIN.replace("2024-03-01T0", "2024-03-01T1"))
    source = files(tmp_path)
    before = {number: source.signature(hour(number)) for number in (0, 5, 10, 15)}
    late.write_bytes(b"\xff\xf0 broken")
    damaged = files(tmp_path)
    for number in (10, 15):
        assert damaged.signature(hour(number)) != before[number]
        with pytest.raises(SourceError, match=r"late\.csv: line 1: byte 0xff is not utf-8"):
            list(damaged.fetch(hour(number)))
    for number in (0, 5):
        assert damaged.signature(hour(number)) == before[number]
    assert fetched(damaged, hour(0)).height == 2
    late.write_text(PLAIN.replace("2024-03-01T0", "2024-03-01T1"))
    assert {number: damaged.signature(hour(number)) for number in before} == before
    assert fetched(damaged, hour(10)).height == 2 and damaged.problems() == []


def test_changes_are_told_once_with_old_and_new_times(tmp_path):
    source = files(tmp_path)
    (tmp_path / "a.csv").write_text(PLAIN)
    (first,), cursor = source.changes(None)
    assert (first.start, first.end - timedelta(microseconds=1)) == (DAY, DAY + 5 * HOUR)
    assert source.changes(cursor) == ([], cursor)
    os.utime(tmp_path / "a.csv", (0, 0))
    assert source.changes(cursor) == ([], cursor)
    (tmp_path / "b.csv").write_text(PLAIN.replace("2024-03-01", "2024-03-02"))
    (added,), cursor = source.changes(cursor)
    assert added.start == DAY + 24 * HOUR
    (tmp_path / "b.csv").write_text(PLAIN.replace("2024-03-01", "2024-03-05"))
    moved, cursor = source.changes(cursor)
    assert [window.start for window in moved] == [DAY + 24 * HOUR, DAY + 96 * HOUR]
    (tmp_path / "b.csv").write_bytes(b"")
    (lost,), cursor = source.changes(cursor)
    assert lost.start == DAY + 96 * HOUR
    (tmp_path / "a.csv").unlink()
    assert source.changes(cursor)[0] == [first], "its windows are looked at again, and what is kept is counted"
    (removed,), cursor = files(tmp_path, when_removed="withdraw").changes(cursor)
    assert removed == first
    again = files(tmp_path, longitude=7.5).changes(cursor)[0]
    assert [window.start for window in again] == [DAY + 96 * HOUR]
    assert source.changes("not a cursor")[0] == source.changes(None)[0]


def test_a_csv_that_grows_makes_only_the_windows_of_its_new_rows_due(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "CSV_PART", 100)
    moments = [DAY + timedelta(minutes=10 * step) for step in range(60)]
    lines = [f"{moment:%Y-%m-%dT%H:%M:%SZ},45,7,A,1.0" for moment in moments]
    grown = tmp_path / "a.csv"
    grown.write_text("\n".join(["time,lat,lon,station,temperature", *lines[:48], ""]))
    source = files(tmp_path)
    before, (_, cursor) = {n: source.signature(hour(n)) for n in range(9)}, source.changes(None)
    with grown.open("a") as file:
        file.write("\n".join([*lines[48:], ""]))
    assert [n for n in before if source.signature(hour(n)) != before[n]] in ([8], [7, 8])
    assert min(window.start for window in source.changes(cursor)[0]) >= DAY + 7 * HOUR
    assert sum(batch.num_rows for n in range(10) for batch in source.fetch(hour(n))) == 60


def test_a_csv_that_grows_is_read_as_far_as_its_lines_are_whole(tmp_path):
    (tmp_path / "a.csv").write_text(PLAIN[:-8])  # the last line has no end yet
    growing = files(tmp_path, settle=3600)
    reached = "is still being written, and its rows go as far as 2024-03-01 00:10:00"
    assert growing.problems() == [f"{tmp_path.as_posix()}/a.csv: {reached}"]
    with pytest.raises(SourceError, match=f"{reached}; collect 2024-03-01 00:00-01:00 again later"):
        list(growing.fetch(hour(0)))  # a gap, which says why
    with pytest.raises(SourceError, match=reached):
        list(growing.fetch(hour(5)))
    (tmp_path / "a.csv").write_text(PLAIN)
    growing = files(tmp_path, settle=3600)
    assert fetched(growing, hour(0))["temperature"].to_list() == ["1.5", "2.5"]  # rows behind it are there
    assert list(growing.fetch(hour(1))) == []
    with pytest.raises(SourceError, match="still being written"):
        list(growing.fetch(hour(5)))
    assert fetched(files(tmp_path), hour(5)).height == 1
    before, (_, cursor) = growing.signature(hour(0)), growing.changes(None)
    with (tmp_path / "a.csv").open("a") as file:
        file.write("2024-03-01T06:00:00Z,45.0,7.0,A,4.5\n2024-03-01T06:10:00Z,4")
    growing = files(tmp_path, settle=3600)
    assert fetched(growing, hour(5)).height == 1 and growing.changes(cursor)[0]
    assert growing.signature(hour(0)) != before  # the piece is small; a longer file's earlier ones stay as they are


def test_a_file_of_another_format_that_is_still_being_written_is_a_gap(tmp_path):
    pl.read_csv(PLAIN.encode(), try_parse_dates=True).write_parquet(tmp_path / "a.parquet")
    known = files(tmp_path, "*.parquet")
    signature, (ranges, cursor) = known.signature(hour(0)), known.changes(None)
    assert len(ranges) == 1
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    writing = files(tmp_path, "*.parquet", settle=3600)
    assert writing.problems() == [f"{tmp_path.as_posix()}/a.parquet: is still being written"]
    assert writing.signature(hour(0)) == signature and writing.changes(cursor)[0] == []
    with pytest.raises(SourceError, match="still being written"):
        list(writing.fetch(hour(0)))


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_whole(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(PLAIN)
    (tmp_path / "b.csv").write_text(PLAIN)
    together, alone = files(tmp_path), files(tmp_path, time={"column": "time", "ambiguous": "in_order"})
    assert together.extent() == alone.extent() and fetched(files(tmp_path), hour(0)).height == 4
    read, read_together = CsvReader.read, window_rows.rows_of

    def overtaken(self, path, places, columns):
        yield from read(self, path, places, columns)
        (tmp_path / "b.csv").write_text(PLAIN * 2)

    def overtaken_together(reader, tables, columns):
        (tmp_path / "b.csv").write_text(PLAIN * 3)
        return read_together(reader, tables, columns)

    with monkeypatch.context() as patch:
        patch.setattr(CsvReader, "read", overtaken)
        with pytest.raises(SourceError, match=r"b\.csv: was changed while it was read"):
            list(alone.fetch(hour(0)))
    (tmp_path / "b.csv").write_text(PLAIN)
    together.extent()
    monkeypatch.setattr(window_rows, "rows_of", overtaken_together)
    with pytest.raises(SourceError, match=r"b\.csv: was changed while it was read"):
        list(together.fetch(hour(0)))


def test_two_files_for_the_same_times_are_both_read_the_later_name_last_and_reported(tmp_path):
    (tmp_path / "20240301.csv").write_text(PLAIN)
    (tmp_path / "20240301_corrected.csv").write_text(PLAIN.replace("1.5", "-1.5"))
    (tmp_path / "another_station.csv").write_text(PLAIN.replace(",A,", ",B,"))
    source = files(tmp_path)
    (note,) = source.problems()
    assert "20240301.csv and" in note and note.endswith("20240301_corrected.csv wins")
    rows = fetched(source, Window(DAY, DAY + timedelta(minutes=1))).filter(pl.col("station_id") == "A")
    assert rows["temperature"].to_list() == ["1.5", "-1.5"]


def test_what_was_learnt_is_kept_for_the_next_process_but_not_for_another_way_of_reading(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(PLAIN)
    extent = files(tmp_path).extent()

    def unasked(*_):
        raise AssertionError("the file was read again")

    with monkeypatch.context() as patch:
        patch.setattr(CsvReader, "parts", unasked)
        patch.setattr(index_module, "small_tables", unasked)
        assert files(tmp_path).extent() == extent
        with pytest.raises(AssertionError):
            files(tmp_path, time={"column": "time", "zone": "Europe/Rome"}).extent()
    (tmp_path / "raw" / "weather.files.json").write_text("{")
    assert files(tmp_path).extent() == extent
