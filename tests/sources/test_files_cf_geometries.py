"""CF's discrete sampling geometries, by the block of docs/files.md: each value with its time, place and station."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np
import polars as pl
import pytest
import yaml

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig
from ionbeam_dagster.sources.files.guessing import propose

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
BLOCK = yaml.safe_load(re.search(r"^## CF netCDF.*?```yaml\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)[1])
DAY = datetime(2024, 3, 1, tzinfo=UTC)
WHOLE = Window(DAY - timedelta(days=1), DAY + timedelta(days=2))
ROWS = [("A", 45.0, 7.0, 0, 1.0), ("A", 45.0, 7.0, 10, 2.0), ("B", 46.0, 8.0, 0, 3.0), ("B", 46.0, 8.0, 10, 4.0)]
"""Station, latitude, longitude, minutes after midnight, temperature."""
MOVING = [("A", 45.0 + minute / 100, 7.0, minute, float(minute)) for minute in (0, 10, 20)]
ONE = ROWS[:2]


def variables(file, dimensions, rows, names=("lat", "lon", "time", "t")):
    """Variables of one value a row, along `dimensions`."""
    columns = dict(zip(("lat", "lon", "time", "t"), list(zip(*rows, strict=True))[1:], strict=True))
    for name in names:
        variable(file, name, dimensions, columns[name])


def variable(file, name, dimensions, values):
    made = file.createVariable(name, "f8", dimensions)
    units = {"lat": "degrees_north", "lon": "degrees_east", "time": "minutes since 2024-03-01", "t": "degC"}
    words = {"lat": "latitude", "lon": "longitude", "time": "time", "t": "air_temperature"}
    made.setncatts({"units": units[name], "standard_name": words[name]})
    made[:] = np.array(values).reshape(made.shape)


def named(file, dimensions, names, role="timeseries_id"):
    if dimensions:
        made = file.createVariable("id", str, dimensions)
        made[:] = np.array(names, object)
    else:
        file.createDimension("letters", len(names))
        made = file.createVariable("id", "S1", ("letters",))
        made[:] = list(names)
    made.cf_role = role


def point(file):
    file.createDimension("obs", len(ROWS))
    variables(file, ("obs",), ROWS)


def orthogonal(file):
    file.createDimension("station", 2)
    file.createDimension("time", 2)
    named(file, ("station",), ["A", "B"])
    variables(file, ("station",), ROWS[::2], ("lat", "lon"))
    variables(file, ("time",), ROWS[:2], ("time",))
    variables(file, ("station", "time"), ROWS, ("t",))


def incomplete(file):
    file.createDimension("station", 2)
    file.createDimension("o", 2)
    named(file, ("station",), ["A", "B"])
    variables(file, ("station",), ROWS[::2], ("lat", "lon"))
    variables(file, ("station", "o"), ROWS, ("time", "t"))


def contiguous(file, role="timeseries_id"):
    file.createDimension("station", 2)
    file.createDimension("obs", 4)
    named(file, ("station",), ["A", "B"], role)
    sizes = file.createVariable("size", "i4", ("station",))
    sizes.sample_dimension = "obs"
    sizes[:] = [2, 2]
    moves = role == "trajectory_id"
    variables(file, ("obs",) if moves else ("station",), ROWS if moves else ROWS[::2], ("lat", "lon"))
    variables(file, ("obs",), ROWS, ("time", "t"))


def indexed(file):
    file.createDimension("station", 2)
    file.createDimension("obs", 4)
    named(file, ("station",), ["A", "B"])
    which = file.createVariable("which", "i4", ("obs",))
    which.instance_dimension = "station"
    which[:] = [0, 0, 1, 1]
    variables(file, ("station",), ROWS[::2], ("lat", "lon"))
    variables(file, ("obs",), ROWS, ("time", "t"))


def single(file):
    file.createDimension("time", 2)
    named(file, (), "A")
    variables(file, (), ONE[:1], ("lat", "lon"))
    variables(file, ("time",), ONE, ("time", "t"))


def trajectory(file):
    file.createDimension("obs", 3)
    named(file, (), "A", "trajectory_id")
    variables(file, ("obs",), MOVING)


def several_trajectories(file):
    contiguous(file, "trajectory_id")


def source(folder, fill, feature, **keys):
    with netCDF4.Dataset(folder / "a.nc", "w") as file:
        file.setncatts({"Conventions": "CF-1.8", "featureType": feature})
        fill(file)
    keys |= {"path": str(folder / "*.nc"), "data_path": folder / "raw", "settle": 0}
    return Files("s", FilesConfig.model_validate(BLOCK | keys))


@pytest.mark.parametrize(
    ("fill", "feature", "rows"),
    [
        (point, "point", [("buoy", *row[1:]) for row in ROWS]),
        (orthogonal, "timeSeries", ROWS),
        (incomplete, "timeSeries", ROWS),
        (contiguous, "timeSeries", ROWS),
        (indexed, "timeSeries", ROWS),
        (single, "timeSeries", ONE),
        (trajectory, "trajectory", MOVING),
        (several_trajectories, "trajectory", ROWS),
    ],
)
def test_each_value_has_its_time_place_and_station(tmp_path, fill, feature, rows):
    keys = {"constants": {"station_id": "buoy"}} if fill is point else {}
    made = source(tmp_path, fill, feature, **keys)
    guess = propose(str(tmp_path / "*.nc"))
    assert guess.notes == [] and [one["column"] for one in guess.block["variables"]] == ["t"]
    guessed = FilesConfig.model_validate(guess.block | keys | {"data_path": tmp_path / "guessed", "settle": 0})
    expected = [(station, lat, lon, DAY + timedelta(minutes=minute), t) for station, lat, lon, minute, t in rows]
    for one in (made, Files("guessed", guessed)):
        assert one.problems() == []
        done = [canonicalise(batch, one.metadata) for batch in one.fetch(WHOLE)]
        found = pl.concat([part.rows for part in done])
        columns = ["station_id", "lat", "lon", "datetime", "air_temperature__degC__2.0__point__PT0S"]
        assert sorted(found.select(columns).rows()) == expected


@pytest.mark.parametrize("feature", ["profile", "timeSeriesProfile", "trajectoryProfile"])
def test_heights_are_refused_by_the_name_of_their_dimension(tmp_path, feature):
    def fill(file):
        file.createDimension("time", 2)
        file.createDimension("z", 3)
        named(file, (), "A")
        along = ("time",) if feature == "trajectoryProfile" else ()
        for name in ("lat", "lon"):
            variable(file, name, along, [45.0] * (2 if along else 1))
        variables(file, ("time",), ONE, ("time",))
        variable(file, "t", ("time", "z"), range(6))

    assert "lies along 'z' (3 values)" in " ".join(source(tmp_path, fill, feature).problems())
    with pytest.raises(SourceError, match=r"lies along 'z' \(3 values\)"):
        propose(str(tmp_path))
