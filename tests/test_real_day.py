"""A real day of 55 Dutch stations through the whole chain, against an independent reading of its netCDF."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import codc
import duckdb
import netCDF4
import numpy as np
import pytest
import yaml
from decoders import check_bufr, check_odb

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT / ".." / "shared" / "data"
EXAMPLE = ROOT / "examples" / "knmi.yaml"
DAY = datetime(2022, 12, 31, tzinfo=UTC)
HOURS = [Window(DAY + timedelta(hours=h), DAY + timedelta(hours=h + 1)) for h in range(24)]
FORMATS = ("odb", "bufr", "pygeoapi")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NetCDF:
    path: Path
    stations: list[str]
    times: list[datetime]
    values: dict[str, np.ma.MaskedArray]
    units: dict[str, str]


@pytest.fixture(scope="module")
def netcdf() -> NetCDF:
    """The file, read whole and closed before the platform opens it: the library does not take two handles well."""
    path = REAL_DATA / "knmi" / "20221231.nc"
    if not path.exists():
        pytest.skip(f"real observations are not at {path}")
    with netCDF4.Dataset(path) as file:
        times = netCDF4.num2date(file["time"][:], file["time"].units, only_use_cftime_datetimes=False)
        return NetCDF(
            path=path.resolve(),
            stations=[str(name) for name in file["station"][:]],
            times=list(times),
            values={name: file[name][:] for name in ("ta", "pp", "rh")},
            units={name: file[name].units for name in ("ta", "pp", "rh")},
        )


@pytest.fixture(scope="module")
def exported(netcdf, tmp_path_factory):
    """The example's own configuration with paths of the test; every hour of the day exported."""
    folder = tmp_path_factory.mktemp("knmi")
    written = yaml.safe_load(EXAMPLE.read_text())
    written["sources"]["knmi"] |= {"path": str(netcdf.path), "data_path": str(folder / "raw"), "exports": list(FORMATS)}
    written["dataset_aggregator"]["data_path"] = str(folder / "data")
    written["state_path"] = str(folder / "state")
    for service in written["projections"].values():
        service["output_path"] = str(folder / "projections")
    (folder / "knmi.yaml").write_text(yaml.safe_dump(written))
    platform = open_platform(IonbeamConfig.load(folder / "knmi.yaml"))
    for hour in HOURS:
        collect(platform, platform.source("knmi"), hour, NOW)
        ingest(platform, platform.source("knmi"), hour)
        build(platform, platform.dataset("knmi"), hour, NOW)
    made = {
        format: [
            export(platform, platform.dataset("knmi"), platform.config.window_exporters[format], hour).path
            for hour in HOURS
        ]
        for format in FORMATS
    }
    return made | {"dataset": [platform.ledger.latest_revision("knmi", hour).path for hour in HOURS]}


@pytest.fixture(scope="module")
def odb(exported):
    columns = ["statid@hdr", "date@hdr", "time@hdr", "varno@body", "obsvalue@body"]
    frames = [codc.read_odb(str(path), columns=columns, single=True) for path in exported["odb"]]
    return {name: np.concatenate([frame[name].to_numpy() for frame in frames]) for name in columns}


def test_both_exports_have_every_station_and_every_temperature(netcdf, exported, odb):
    files = [str(path) for path in exported["pygeoapi"]]
    stations, temperatures = duckdb.sql(
        f'select count(distinct station_id), count("air_temperature__degC__1.5__mean__PT1M") from read_parquet({files})'
    ).fetchall()[0]
    not_null = int(np.ma.count(netcdf.values["ta"]))
    assert stations == len(netcdf.stations) == 55
    assert temperatures == not_null
    assert int((odb["varno@body"] == 39).sum()) == not_null
    assert len(set(odb["statid@hdr"])) == 55


def test_values_are_those_of_the_netcdf_in_kelvin_and_pascal(netcdf, odb):
    stamps = [int(f"{moment:%Y%m%d%H%M%S}") for moment in netcdf.times]
    found = {
        (statid.strip(), int(date) * 1_000_000 + int(time), int(varno)): value
        for statid, date, time, varno, value in zip(*odb.values(), strict=True)
    }
    assert netcdf.units == {"ta": "degrees Celsius", "pp": "hPa", "rh": "%"}
    for varno, variable, scale, offset in ((39, "ta", 1.0, 273.15), (108, "pp", 100.0, 0.0), (58, "rh", 0.01, 0.0)):
        values = netcdf.values[variable]
        compared = 0
        for station, step in product(range(0, 55, 6), range(0, 144, 7)):
            key = (netcdf.stations[station], stamps[step], varno)
            if np.ma.is_masked(values[station, step]):
                assert key not in found
            else:
                assert found[key] == pytest.approx(values[station, step] * scale + offset, rel=1e-6)
                compared += 1
        assert compared > 50


def test_every_file_of_the_day_says_the_same_to_decoders_that_are_not_ours(exported):
    odb = [check_odb(*files) for files in zip(exported["dataset"], exported["odb"], strict=True)]
    bufr = [check_bufr(*files) for files in zip(exported["dataset"], exported["bufr"], strict=True)]
    assert min(odb) > 1000 and min(bufr) > 500
