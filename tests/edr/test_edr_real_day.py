"""The day of KNMI's stations through the service: values equal those of an independent reading of the netCDF."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import geopandas as gpd
import netCDF4
import numpy as np
import pytest
import yaml
from windows import service_of

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.edr.map_page import _shown_first
from ionbeam_dagster.edr.served import update_configuration
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "knmi.yaml"
DAY = datetime(2022, 12, 31, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = {
    "ta": "air_temperature:1.5:mean:PT1M",
    "ff": "wind_speed:10.0:mean:PT10M",
    "pp": "air_pressure_at_mean_sea_level:0.0:mean:PT1M",
}
STATIONS = ("06260", "06240", "06380")  # De Bilt, Schiphol, Maastricht


@pytest.fixture(scope="module")
def netcdf():
    """Values, places and times of the stations, read before the platform opens the file."""
    path = (ROOT / ".." / "shared" / "data" / "knmi" / "20221231.nc").resolve()
    if not path.exists():
        pytest.skip(f"real observations are not at {path}")
    with netCDF4.Dataset(path) as file:
        names = [str(name) for name in file["station"][:]]
        times = netCDF4.num2date(file["time"][:], file["time"].units, only_use_cftime_datetimes=False)
        rows = {station: names.index(station) for station in STATIONS}
        return {
            "path": path,
            "times": [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in times],
            "place": {name: (float(file["lon"][0, row]), float(file["lat"][0, row])) for name, row in rows.items()},
            "values": {
                (station, id): np.ma.filled(file[column][row].astype(float), np.nan)
                for station, row in rows.items()
                for column, id in IDS.items()
            },
        }


@pytest.fixture(scope="module")
def platform(netcdf, tmp_path_factory):
    """The example's own configuration, its day exported for PyGeoAPI."""
    folder = tmp_path_factory.mktemp("knmi")
    written = yaml.safe_load(EXAMPLE.read_text())
    written["sources"]["knmi"] |= {"path": str(netcdf["path"]), "data_path": str(folder / "raw")}
    written["dataset_aggregator"]["data_path"] = str(folder / "data")
    written["state_path"] = str(folder / "state")
    for service in written["projections"].values():
        service["output_path"] = str(folder / "projections")
    (folder / "knmi.yaml").write_text(yaml.safe_dump(written))
    platform = open_platform(IonbeamConfig.load(folder / "knmi.yaml"))
    for hour in range(24):
        window = Window(DAY + timedelta(hours=hour), DAY + timedelta(hours=hour + 1))
        collect(platform, platform.source("knmi"), window, NOW)
        ingest(platform, platform.source("knmi"), window)
        build(platform, platform.dataset("knmi"), window, NOW)
        export(platform, platform.dataset("knmi"), platform.config.window_exporters["pygeoapi"], window)
    return platform


def folder_of(platform):
    return Path(platform.config.sections.projections.pygeoapi_service.output_path) / "pygeoapi" / "knmi"


@pytest.mark.parametrize("query", ["position", "locations", "area", "cube", "radius"])
def test_three_stations_have_the_values_of_the_netcdf(netcdf, platform, query):
    service = service_of(folder_of(platform))
    for station, (lon, lat) in netcdf["place"].items():
        west, south, east, north = lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01
        ring = f"{west} {south},{east} {south},{east} {north},{west} {north},{west} {south}"
        asked = {
            "position": {"coords": f"POINT({lon} {lat})"},
            "area": {"coords": f"POLYGON(({ring}))"},
            "cube": {"bbox": f"{west},{south},{east},{north}"},
            "radius": {"coords": f"POINT({lon} {lat})", "within": "100", "within-units": "m"},
        }.get(query, {})
        asked |= {"datetime": "2022-12-31", "parameter-name": ",".join(IDS.values())}
        reply = service.answer("net", query, station if query == "locations" else None, asked)
        found = json.loads(reply.body)
        assert reply.status == 200 and found["ionbeam:location"] == station
        assert found["domain"]["axes"]["t"]["values"] == netcdf["times"]
        axes = found["domain"]["axes"]
        np.testing.assert_allclose([axes["x"]["values"][0], axes["y"]["values"][0]], [lon, lat], atol=1e-9)
        for id in IDS.values():
            ours = np.array(found["ranges"][id]["values"], float)
            np.testing.assert_allclose(ours, netcdf["values"][station, id], rtol=1e-12, equal_nan=True)
            assert found["parameters"][id]["unit"]["label"]["en"]


def test_readers_that_are_not_ours_agree_on_rows_and_extents(platform):
    validator = Path(sys.executable).with_name("geoparquet-validator")
    files = sorted(folder_of(platform).glob("*.parquet"))
    path, extents = update_configuration(platform.config)
    boxes, rows = [], 0
    for file in files:
        done = subprocess.run([validator, "check", file, "--class", "all"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        frame = gpd.read_parquet(file)
        query = "SELECT count(*), min(lon), min(lat), max(lon), max(lat) FROM read_parquet(?)"
        with duckdb.connect() as connection:
            count, *box = connection.execute(query, [str(file)]).fetchone()
        assert len(frame) == count and frame.total_bounds.tolist() == pytest.approx(box, abs=1e-12)
        assert frame.crs.to_string() == "OGC:CRS84"
        boxes.append(box)
        rows += count
    bounds = np.array(boxes)
    whole = [*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)]
    assert (extents["knmi"].files, extents["knmi"].rows) == (24, rows)
    written = yaml.safe_load(path.read_text())["resources"]["knmi"]
    assert written["extents"]["spatial"]["bbox"] == whole
    assert str(written["extents"]["temporal"]["end"]) == "2022-12-31 23:50:00+00:00"
    assert written["keywords"] == ["synop", "Netherlands", "KNMI"]


def test_the_map_first_shows_the_air_temperature_of_the_screen(platform):
    service = service_of(folder_of(platform))
    known = service.collections["net"].parameters()
    assert _shown_first(known, list(known)) == IDS["ta"]
