"""Profiles: each height of a variable is a level of its own, in netCDF and in tables with a column of heights."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig
from ionbeam_dagster.sources.files.guessing import propose

DAY = datetime(2024, 3, 1, tzinfo=UTC)
WHOLE = Window(DAY - timedelta(days=2), DAY + timedelta(days=7))
T = {"column": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": "z"}


def level(height: float) -> str:
    return f"air_temperature__degC__{height}__point__PT0S"


def source(folder: Path, ending: str, **keys) -> Files:
    """A source of files of one ending; those without a station are of A."""
    block = {"path": str(folder / f"*.{ending}"), "data_path": folder / "raw", "settle": 0, "variables": [T]}
    if ending != "nc":
        block |= {"time": "time", "latitude": 45.0, "longitude": 7.0, "constants": {"station_id": "A"}}
    return Files("s", FilesConfig.model_validate(block | keys))


NAMED = {"constants": {"station_id": "A"}}


def taken(made: Files) -> pl.DataFrame:
    """The points of all rows: of each value the last that there is."""
    done = [canonicalise(batch, made.metadata) for batch in made.fetch(WHOLE)]
    assert [one.rejected.height for one in done] == [0] * len(done)
    rows = pl.concat([one.rows for one in done])
    points = rows.group_by("datetime", "station_id", maintain_order=True).agg(pl.all().drop_nulls().last())
    return points.sort("datetime", "station_id")


def put(file, name, kind, dimensions, values, **attributes):
    made = file.createVariable(name, kind, dimensions, fill_value=attributes.pop("fill", None))
    made.setncatts(attributes)
    made[:] = values


def profile(
    path: Path, feature: str = "timeSeriesProfile", heights=(6.0, 33.0, 165.0), heights_first=False, **z
) -> None:
    """Two stations (or one, or one that moves), two times, heights in feet; a pressure without heights beside them."""
    stations = 2 if feature == "timeSeriesProfile" else 1
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"Conventions": "CF-1.8", "featureType": feature})
        file.createDimension("time", 2)
        file.createDimension("height", len(heights))
        named = ("station",) if stations == 2 else ()
        if named:
            file.createDimension("station", stations)
        if named:
            put(file, "id", str, named, np.array(["A", "B"], object), cf_role="timeseries_id")
        put(file, "time", "i4", ("time",), [0, 60], units="minutes since 2024-03-01", standard_name="time")
        places = ("time",) if feature != "timeSeriesProfile" else named
        put(file, "lat", "f8", places, [45.0, 46.0], units="degrees_north", standard_name="latitude")
        put(file, "lon", "f8", places, [7.0, 8.0], units="degrees_east", standard_name="longitude")
        put(file, "z", "f4", ("height",), heights, **{"units": "ft", "standard_name": "height"} | z)
        order = ("height", *named, "time") if heights_first else (*named, "time", "height")
        sizes = [{"height": len(heights), "station": 2, "time": 2}[name] for name in order]
        values = np.arange(1, 1 + stations * 2 * len(heights)).reshape(sizes)
        put(file, "t", "f4", order, values, units="degC", standard_name="air_temperature", fill=np.float32(2.0))
        put(file, "p", "f4", (*named, "time"), 1000.0, units="hPa", standard_name="air_pressure")


METRES = (1.8288, 10.0584, 50.292)
"""6, 33 and 165 feet."""


@pytest.mark.parametrize("feature", ["profile", "trajectoryProfile", "timeSeriesProfile"])
def test_each_height_of_a_profile_is_a_level(tmp_path, feature):
    profile(tmp_path / "a.nc", feature)
    named = {} if feature == "timeSeriesProfile" else NAMED
    made = source(tmp_path, "nc", variables=[T, {"column": "p", "level": 2}], **named)
    assert made.problems() == []
    rows = taken(made)
    names = [name for name in rows.columns if name.startswith("air_temperature")]
    assert sorted(names) == sorted(level(height) for height in METRES)
    found = [rows[level(height)].to_list() for height in METRES]
    if feature == "timeSeriesProfile":
        assert rows.select("station_id", "lat", "datetime").rows() == [
            (station, lat, DAY + timedelta(hours=hour)) for hour in (0, 1) for station, lat in (("A", 45), ("B", 46))
        ]
        assert found == [[1, 7, 4, 10], [None, 8, 5, 11], [3, 9, 6, 12]]
    else:
        assert rows["lat"].to_list() == [45.0, 46.0]
        assert found == [[1, 4], [None, 5], [3, 6]]
    assert rows["air_pressure__hPa__2.0__point__PT0S"].to_list() == [1000.0] * rows.height
    assert sum(batch.num_rows for batch in made.fetch(WHOLE)) == rows.height, "one row a time and station"


def test_heights_may_come_before_the_time_and_depths_are_below_the_ground(tmp_path):
    profile(tmp_path / "a.nc", "profile", (0.1, 0.5), heights_first=True, units="m", standard_name="depth")
    rows = taken(source(tmp_path, "nc", **NAMED))
    assert [rows[level(height)].to_list() for height in (-0.1, -0.5)] == [[1, None], [3, 4]]


def test_some_of_the_heights_and_files_that_lack_one(tmp_path):
    profile(tmp_path / "a.nc", "profile")
    profile(tmp_path / "b.nc", "profile", (33.0,))
    profile(tmp_path / "c.nc", "profile", (7.0,))
    with pytest.raises(
        SourceError, match=r"c\.nc: has other heights in 'z' \(2\.1336 m\) than other files \(1\.8288, "
    ):
        taken(source(tmp_path, "nc", **NAMED))
    (tmp_path / "c.nc").unlink()
    assert taken(source(tmp_path, "nc", **NAMED))[level(10.0584)].to_list() == [1, 5], "of two files the later name"
    stated = [{**T, "level": {"column": "z", "heights": [10.0584, 50.292]}}]
    rows = taken(source(tmp_path, "nc", variables=stated, **NAMED))
    assert rows[level(10.0584)].to_list() == [1, 5] and rows[level(50.292)].to_list() == [3, 6]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"units": "hPa"}, "'hPa' is no unit of a length"),
        ({"standard_name": "altitude"}, "are altitudes above the sea, and levels are heights above the ground"),
        ({"heights": [*range(150)]}, "has 150 heights in 'z'; state which of them are read"),
    ],
)
def test_heights_that_are_no_levels_are_refused(tmp_path, change, told):
    profile(tmp_path / "a.nc", "profile", **change)
    made = source(tmp_path, "nc")
    with pytest.raises(SourceError, match=told):
        _ = made.metadata


def test_heights_that_change_are_refused(tmp_path):
    profile(tmp_path / "a.nc", "profile")
    changing = [{**T, "level": "lat"}]
    assert "heights that change cannot be levels" in " ".join(source(tmp_path, "nc", variables=changing).problems())


TABLE = """time,z,t,t_qc
2024-03-01T00:00Z,6,1.5,V
2024-03-01T00:00Z,33,2.5,N
2024-03-01T00:00Z,165,3.5,V
2024-03-01T01:00Z,33.0,4.5,V
2024-03-01T01:00Z,,5.5,V
"""


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_of_heights_is_levels(tmp_path, ending):
    (tmp_path / "a.csv").write_text(TABLE)
    if ending == "parquet":
        pl.read_csv(tmp_path / "a.csv").write_parquet(tmp_path / "a.parquet")
    where = {"column": "z", "unit": "ft", "heights": [1.8288, 10.0584]}
    quality = {"column": "t_qc", "good": ["V"], "poor": ["N"]}
    made = source(tmp_path, ending, variables=[{**T, "level": where, "quality": quality}])
    rows = taken(made)
    assert rows[level(1.8288)].to_list() == [1.5, None] and rows[level(10.0584)].to_list() == [2.5, 4.5]
    flags = [name for name in rows.columns if "provider_flag" in name]
    assert [rows[name].to_list() for name in sorted(flags)] == [[1, None], [3, 1]]
    assert any("2 rows without a value of any variable are left out" in line for line in made.problems())


def test_one_value_a_row_with_its_height(tmp_path):
    (tmp_path / "a.csv").write_text(
        "time,what,z,value,unit\n2024-03-01T00:00Z,temp,2,50,degF\n2024-03-01T00:00Z,temp,10,9.5,degC\n"
        "2024-03-01T00:00Z,rh,2,80,%\n"
    )
    humidity = {"column": "rh", "standard_name": "relative_humidity", "cf_unit": "%", "level": 2}
    temperature = {**T, "column": "temp", "level": {"column": "z", "heights": [2, 10]}}
    long = {"variable": "what", "value": "value", "unit": "unit"}
    (row,) = taken(source(tmp_path, "csv", variables=[temperature, humidity], long=long)).to_dicts()
    assert row[level(2.0)] == pytest.approx(10) and row[level(10.0)] == 9.5
    assert row["relative_humidity__%__2.0__point__PT0S"] == 80


def test_a_table_has_to_be_told_which_heights_are_read(tmp_path):
    (tmp_path / "a.csv").write_text(TABLE)
    with pytest.raises(SourceError, match=r"state which heights in 'z' are read: level: \{column: z, heights: \[2, 10"):
        _ = source(tmp_path, "csv").metadata
    with pytest.raises(ValidationError, match="'10 m' is a number with its unit; levels are in m: write 10"):
        source(tmp_path, "csv", variables=[{**T, "level": "10 m"}])
    with pytest.raises(ValidationError, match="has one of them twice"):
        source(tmp_path, "csv", variables=[{**T, "level": {"column": "z", "heights": [2, 2.0]}}])


def test_a_profile_is_guessed_and_goes_through_to_the_dataset(tmp_path, monkeypatch, no_pictures):
    (tmp_path / "in").mkdir()
    profile(tmp_path / "in" / "a.nc")
    guess = propose(str(tmp_path / "in"))
    levels = {one["column"]: one.get("level") for one in guess.block["variables"]}
    assert levels["t"] == "z" and levels["p"] != "z"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "sources:\n  mast:\n    type: files\n    path: in/*.nc\n    settle: 0\n    exports: [odb, pygeoapi]\n"
        "    variables: [{column: t, level: z}, {column: p, level: 2}]\n"
    )
    for command in (["config", "check"], ["run"]):
        done = CliRunner().invoke(app, ["--config", "config.yaml", *command])
        assert done.exit_code == 0, done.output
    (first, second) = (pl.read_parquet(path) for path in sorted((tmp_path / "data").rglob("mast_2*.parquet")))
    assert first.sort("station_id")[level(50.292)].to_list() == [3, 9]
    assert second.sort("station_id")[level(1.8288)].to_list() == [4, 10]
