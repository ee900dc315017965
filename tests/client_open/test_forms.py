"""A question asked in five forms, of files and of a service: the same rows, as a plain look at all files has them."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime, timedelta

import netCDF4
import polars as pl
import polars.testing
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import blocks
from windows import HOUR, PLACES, START

from ionbeam_client import OpenError, OpenWarning, open_dataset, provenance

TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
KELVIN = "air_temperature__K__2.0__point__PT0S"
FLAG = f"{TEMPERATURE}__flag"
WIND = "wind_speed__m s-1__10.0__mean__PT10M"
COLUMNS = [
    "datetime", "lat", "lon", "station_id", "station_name", KELVIN, TEMPERATURE, FLAG,
    "precipitation_amount__kg m-2__0.0__sum__PT5M", WIND,
]  # fmt: skip
MOMENTS = st.integers(-2, 30).map(lambda tens: START + tens * timedelta(minutes=10))
QUESTIONS = st.fixed_dictionaries(
    {},
    optional={
        "time": st.tuples(st.none() | MOMENTS, st.none() | MOMENTS).filter(lambda two: None in two or two[0] <= two[1]),
        "bbox": st.sampled_from([(4.0, 50.0, 7.0, 53.0), (170.0, -30.0, -170.0, 0.0), (5.05, 52.05, 5.15, 52.15)]),
        "variables": st.sampled_from([["air_temperature"], [TEMPERATURE], ["wind_speed:10.0:*", KELVIN]]),
        "stations": st.lists(st.sampled_from([f"s{n}" for n in range(9)]), min_size=1, max_size=4),
    },
)


def every_row(folder) -> pl.DataFrame:
    """All rows of all files, by polars alone."""
    frames = [pl.read_parquet(file, glob=False).drop("id", "geometry", "bbox") for file in sorted(folder.iterdir())]
    return pl.concat(frames, how="diagonal").select(COLUMNS)


def expected(rows: pl.DataFrame, asked: dict, good: bool) -> pl.DataFrame:
    start, end = asked.get("time", (None, None))
    rows = rows.filter(pl.col("datetime").is_between(start or START - HOUR, end or START + 9 * HOUR))
    if box := asked.get("bbox"):
        west, south, east, north = box
        lon = pl.col("lon")
        inside = lon.is_between(west, east) if west <= east else (lon >= west) | (lon <= east)
        rows = rows.filter(inside & pl.col("lat").is_between(south, north))
    if stations := asked.get("stations"):
        rows = rows.filter(pl.col("station_id").is_in(stations))
    named = {"air_temperature": [KELVIN, TEMPERATURE], TEMPERATURE: [TEMPERATURE], KELVIN: [KELVIN]}
    variables = [one for name in asked.get("variables", ()) for one in named.get(name, [WIND])]
    if good:
        rows = rows.with_columns(pl.when(pl.col(FLAG) == 1).then(pl.col(TEMPERATURE)))
        variables = [TEMPERATURE]
    if variables:
        rows = rows.filter(pl.any_horizontal(pl.col(one).is_not_null() for one in variables))
        others = {KELVIN, TEMPERATURE, WIND, COLUMNS[-2]} - {*variables}
        rows = rows.drop(*others, *([FLAG] if TEMPERATURE not in variables else []), strict=False)
    return rows


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.sort("datetime", "lat", "lon")


def of_xarray(dataset) -> pl.DataFrame:
    """Rows of an indexed ragged array, by its conventions."""
    index = dataset["station_index"].to_numpy()
    columns = {"datetime": pl.Series(dataset["time"].to_numpy()).dt.replace_time_zone("UTC")}
    for name, one in dataset.variables.items():
        if one.dims not in (("obs",), ("station",)) or name in ("time", "station_index"):
            continue
        values = one.to_numpy()[index] if one.dims == ("station",) else one.to_numpy()
        types = {"f": pl.Float64, "u": pl.Int64}
        column = pl.Series(values.tolist(), dtype=types.get(values.dtype.kind, pl.String))
        if values.dtype.kind == "f":
            column = column.fill_nan(None)
        if values.dtype.kind == "u":
            column = column.set(column == one.encoding["_FillValue"], None)
        columns[name] = column
    return pl.DataFrame(columns)


def as_in_xarray(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.rename({name: name.replace(" ", "_").replace(".", "_").replace("-", "_") for name in rows.columns})


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=QUESTIONS, good=st.booleans())
def test_every_form_has_the_same_rows_over_files_and_over_a_service(serving, asked, good):
    if good:
        asked = {**asked, "variables": [TEMPERATURE]}
    right = in_order(expected(every_row(serving.windows / "net"), asked, good))
    asked |= {"quality": "good" if good else None}
    for where in (serving.windows, f"{serving.url}/collections/net"):
        found = open_dataset(where, **asked).collect()
        types = [found.schema[name] for name in found.columns]
        assert found.columns == [name for name in COLUMNS if name in found.columns]
        polars.testing.assert_frame_equal(in_order(found), right.select(found.columns))
        gone = right.drop(found.columns)
        assert all(column.null_count() == len(column) for column in gone), "none of the windows has them"
        arrow = open_dataset(where, **asked, as_="arrow")
        assert pl.DataFrame(pl.from_arrow(arrow)).equals(found)
        frame = open_dataset(where, **asked, as_="pandas")
        again = pl.from_pandas(frame, schema_overrides=dict(zip(found.columns, types, strict=True)))
        assert again.equals(found) and json.loads(frame.attrs["ionbeam"])["dataset"] == "net"
        relation = open_dataset(where, **asked, as_="duckdb")
        assert in_order(relation.pl()).select(found.columns).equals(in_order(found), null_equal=True)
        polars.testing.assert_frame_equal(
            of_xarray(open_dataset(where, **asked, as_="xarray")), as_in_xarray(found),
            check_dtypes=False, check_column_order=False,
        )  # fmt: skip


def test_what_is_lazy_reads_only_what_is_needed(where):
    frame = open_dataset(where)
    assert frame.select("station_id").unique().collect().height == len(PLACES)
    assert frame.filter(pl.col(TEMPERATURE) > 5, pl.col("station_id") == "s6").select("datetime").collect().height == 18
    assert frame.head(3).collect().height == 3
    relation = open_dataset(where, as_="duckdb")
    assert relation.filter("station_id = 's1'").aggregate("count(*)").fetchall() == [(24,)]
    assert relation.aggregate("count(*)").fetchall() == [(4 * 6 * len(PLACES),)], "as often as one likes"


def test_a_time_without_data_gives_no_rows_of_the_same_types(where):
    full = open_dataset(where, as_="arrow")
    empty = open_dataset(where, time="2031-05-01", as_="arrow")
    assert empty.num_rows == 0 and set(empty.schema.names) <= {*full.schema.names}
    assert all(one.type == full.schema.field(one.name).type for one in empty.schema)
    assert open_dataset(where, time="2031-05-01").collect().schema["datetime"] == pl.Datetime("us", "UTC")
    assert open_dataset(where, time="2031-05-01", as_="xarray").sizes["obs"] == 0
    assert len(open_dataset(where, time="2031-05-01", as_="pandas")) == 0


@pytest.mark.parametrize(
    ("time", "rows"),
    [
        ("2025-01-01", 24),
        ("2025-01-01T00:00Z/2025-01-01T01:00Z", 7),
        ("2025-01-01T02:00:00+01:00/..", 18),
        (slice("2025-01-01T03:00", None), 6),
        ((None, datetime(2025, 1, 1, tzinfo=UTC)), 1),
        ((START.date(), START.date()), 24),
    ],
)
def test_times_are_as_in_the_service(serving, time, rows):
    assert open_dataset(serving.windows, time=time, stations="s1").collect().height == rows


def test_good_is_what_passed_and_what_is_not_tested_is_told(serving):
    with pytest.warns(OpenWarning, match=r"wind_speed.* are left out: no test was applied"):
        found = open_dataset(serving.windows, quality="good").collect()
    assert found.columns == [*COLUMNS[:5], TEMPERATURE, FLAG]
    assert found.height == 2 * 6 * (len(PLACES) - 1) and found[FLAG].unique().to_list() == [1]
    with pytest.raises(OpenError, match=r"wind_speed.*no test was applied to"):
        open_dataset(serving.windows, quality="good", variables="wind_speed")


def test_xarray_has_the_geometry_of_cf_and_its_file_is_read_by_another(serving, tmp_path):
    fixed = open_dataset(serving.windows, time=(START, START + HOUR / 2), as_="xarray")
    assert fixed.attrs["featureType"] == "timeSeries" and fixed["lat"].dims == ("station",)
    fixed.to_netcdf(tmp_path / "fixed.nc")
    with netCDF4.Dataset(tmp_path / "fixed.nc") as file:
        assert file["station_id"].cf_role == "timeseries_id" and file["station_index"].instance_dimension == "station"
        value = file["air_temperature__degC__2_0__point__PT0S"]
        assert (value.standard_name, value.units, value.cell_methods) == ("air_temperature", "degC", "time: point")
        assert "height_2_0" in value.coordinates.split() and file["height_2_0"].standard_name == "height"
        assert file[value.ancillary_variables].long_name == "flag of air_temperature__degC__2_0__point__PT0S"
        assert file["time"].units.startswith("microseconds since 1970-01-01")
        [first] = {int(one) for one in file["station_index"][:4]}
        assert file["station_id"][first] == fixed["station_id"].to_numpy()[first]
    moving = open_dataset(serving.windows, time=(START + 3 * HOUR, None), as_="xarray")
    assert moving.attrs["featureType"] == "trajectory" and moving["lon"].dims == ("obs",)


def test_provenance_tells_revisions_and_sources(where):
    told = provenance(where, time=(START, START + HOUR))
    assert told.dataset == "net"
    assert [one.window for one in told.windows] == ["20250101T000000_PT1H", "20250101T010000_PT1H"]
    assert json.loads(open_dataset(where, as_="arrow").schema.metadata[b"ionbeam"])["dataset"] == "net"


def test_values_are_as_exported_to_the_bit(serving):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = open_dataset(serving.windows, as_="arrow")
    assert table.schema.field("datetime").type == pa.timestamp("us", "UTC")
    assert in_order(pl.DataFrame(pl.from_arrow(table))).equals(in_order(every_row(serving.windows / "net")))


def test_the_programs_of_the_page_run(serving, capsys):
    for program in blocks("opening.md")["python"]:
        for said, here in [
            ("demo/data-projections/pygeoapi/knmi", str(serving.windows)),
            ("2022-12-31", "2025-01-01"),
            ("air_temperature:1.5:mean:*", "air_temperature:2.0:*"),
        ]:
            program = program.replace(said, here)
        exec(compile(program, "opening.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Station 3" in printed and "20250101T030000_PT1H" in printed
