"""Rows that nobody can use, in both formats for forecast centres: a reason in the report, never a failed window."""

import json
from datetime import UTC, datetime, timedelta

import codc
import numpy as np
import pdbufr
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from publishing import published_export

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.quality.plan import quality_fields
from ionbeam_dagster.exporters.bufr import BufrExporter
from ionbeam_dagster.exporters.bufr.settings import BufrService, BufrSettings
from ionbeam_dagster.exporters.odb import OdbExporter

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
T, P = "air_temperature__degC__2.0__point__PT0S", "surface_air_pressure__hPa__0.0__point__PT0S"
RH, DD = "relative_humidity__%__2.0__point__PT0S", "wind_from_direction__degree__10.0__mean__PT10M"
VARIABLES = (T, P, RH, DD)
GOOD = {T: 20.0, P: 1000.0, RH: 50.0, DD: 90.0, "lat": 50.0, "lon": 7.0, "station_id": "good", "altitude": "100"}
NOTHING = dict.fromkeys(VARIABLES)


def dataset(folder, rows, flags=None):
    ingestion = DataIngestionMap(
        canonical_variables=[CanonicalVariable.from_canonical_name(name) for name in VARIABLES],
        metadata_variables=[MetadataVariable(column="station_id"), MetadataVariable(column="altitude")],
    )
    schema = canonical_schema([IngestionMetadata(dataset=DatasetMetadata(name="crowd"), ingestion_map=ingestion)])
    about = {"window_start": NOON.isoformat(), "window_end": (NOON + timedelta(hours=1)).isoformat(), "revision": 1}
    rows = [{"datetime": NOON + timedelta(minutes=n)} | GOOD | row for n, row in enumerate(rows)]
    table = pa.table({f.name: pa.array([row[f.name] for row in rows], f.type) for f in schema}, schema=schema)
    for name in VARIABLES if flags else ():
        table = table.append_column(quality_fields(name)[0], pa.array([flags] * len(rows), pa.uint8()))
    path = folder / "window.parquet"
    pq.write_table(table.replace_schema_metadata({b"ionbeam": json.dumps(about).encode()}), path)
    return path


def both(folder, rows, flags=None):
    """The rows of the ODB file, the subsets of the BUFR file, and the two reports."""
    source = dataset(folder, rows, flags)
    odb, bufr = folder / "window.odb", folder / "window.bufr"
    sender = BufrService(settings=BufrSettings(wigos_issuer=276))
    reports = [published_export(*one) for one in ((OdbExporter(), source, odb), (BufrExporter(sender), source, bufr))]
    of_odb = pl.from_pandas(codc.read_odb(str(odb), single=True)) if odb.exists() else None
    keys = ("latitude", "longitude", "longStationName", "airTemperature", "heightOfStationGroundAboveMeanSeaLevel")
    of_bufr = None
    if bufr.exists():
        of_bufr = pl.from_pandas(pdbufr.read_bufr(bufr, columns=keys, required_columns=["longStationName"]))
    return of_odb, of_bufr, *reports


@pytest.mark.parametrize(
    ("row", "in_bufr"),
    [
        ({T: 900.0}, "not in"),
        ({T: -1e9}, "not in"),
        ({P: 1e300}, "not in"),
        ({RH: 180.0}, "not in 0 to 110 %"),
        ({DD: 400.0}, "not in 0 to 360"),
        ({"altitude": "99999999"}, "heightOfStation"),
        ({T: float("inf")}, "not in"),
    ],
)
def test_a_value_that_cannot_be_carried_is_missing_and_counted(tmp_path, row, in_bufr):
    of_odb, of_bufr, _, report = both(tmp_path, [{}, row, {}])
    assert np.isfinite(of_odb["obsvalue@body"].to_numpy()).all() and len(of_bufr) == 3
    ((why, count),) = report.read_back["values left out"].items()
    assert in_bufr in why and count == 1
    assert of_bufr["airTemperature"].drop_nulls().is_between(293, 294).all()


@pytest.mark.parametrize(
    "name", ["x" * 300, "東京", "a\tb", "🌧", "70:ee:50:12:34:56", "0-20000-0-x", "", None, " ", "0-65535-0-1", "Zürich"]
)
def test_any_name_gives_an_id_that_fits(tmp_path, name):
    of_odb, of_bufr, *_ = both(tmp_path, [{"station_id": name}])
    assert len(of_odb["statid@hdr"][0]) == 8 and of_odb["statid@hdr"][0].isascii()
    assert of_odb["wigosid@hdr"][0] == (name if name == "0-20000-0-x" else "")
    assert 0 < len(of_bufr["longStationName"][0].strip() or "x") <= 40


def test_without_heights_there_are_values_without_a_vertical_coordinate(tmp_path):
    heights = [None, "", "unknown", "nan", "12 m", "-1e400", "99999999"]
    of_odb, of_bufr, report, _ = both(tmp_path, [{"altitude": height} for height in heights])
    assert of_odb["stalt@hdr"].is_null().all() or of_odb["stalt@hdr"].is_nan().all()
    assert report.read_back["heights that no station has, left out"] == 1
    assert of_bufr["heightOfStationGroundAboveMeanSeaLevel"].null_count() == len(heights)
    assert of_bufr["airTemperature"].null_count() == 0


def test_no_station_one_station_and_everything_missing(tmp_path):
    for rows in ([], [NOTHING], [NOTHING] * 3):
        of_odb, of_bufr, *reports = both(tmp_path, rows)
        assert of_odb is None and of_bufr is None and {report.rows for report in reports} == {0}
    of_odb, of_bufr, *reports = both(tmp_path, [{}])
    assert {report.stations for report in reports} == {1} and len(of_bufr) == 1
    of_odb, of_bufr, *_ = both(tmp_path, [NOTHING, {}, NOTHING])
    assert len(of_bufr) == 1 and of_odb["seqno@hdr"].n_unique() == 1


@pytest.mark.parametrize("flag", [1, 2, 3, 4, 9, 0, 255])
def test_a_window_that_is_flagged_throughout_is_exported_and_says_so(tmp_path, flag):
    of_odb, of_bufr, report, _ = both(tmp_path, [{}, {}], flag)
    status = {3: 2, 4: 4}.get(flag, 1)
    assert of_odb["datum_status@body"].unique().to_list() == of_odb["report_status@hdr"].unique().to_list() == [status]
    assert len(of_bufr) == 2 and sum(report.read_back["quality"].values()) == report.rows


def test_poles_and_the_date_line_are_where_they_are(tmp_path):
    places = [(90.0, 0.0), (-90.0, 180.0), (0.0, -180.0), (0.0, 180.0), (89.99999, 179.99999)]
    rows = [{"lat": lat, "lon": lon, "station_id": f"s{n}"} for n, (lat, lon) in enumerate(places)]
    of_odb, of_bufr, _, report = both(tmp_path, rows)
    temperatures = of_odb.filter(pl.col("varno@body") == 39)
    assert temperatures.select("lat@hdr", "lon@hdr").to_numpy() == pytest.approx(np.array(places), abs=1e-5)
    assert of_bufr.select("latitude", "longitude").to_numpy() == pytest.approx(np.array(places), abs=1e-5)
    assert report.read_back["subsets"] == {"3 07 092": 5}
