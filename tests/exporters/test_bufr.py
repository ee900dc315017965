"""BUFR files against decoders that are not ours (eccodes, pybufrkit, pdbufr, bufr_dump), real data and bad input."""

import json
import math
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import published_export
from pydantic import ValidationError

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.quality.plan import quality_fields
from ionbeam_dagster.errors import ExportError
from ionbeam_dagster.exporters.bufr import BufrExporter
from ionbeam_dagster.exporters.bufr.packing import packed_integers
from ionbeam_dagster.exporters.bufr.reading import describe_bufr
from ionbeam_dagster.exporters.bufr.settings import BufrService, BufrSettings, bulletin_heading, gts_file_name
from ionbeam_dagster.exporters.bufr.templates import AIR, FIXED, MOBILE, TEMPLATES, expansion
from ionbeam_dagster.exporters.stations import fitting

eccodes = pytest.importorskip("eccodes", reason="BUFR needs the extra `bufr`")

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
ABOUT = {
    "dataset": "crowd",
    "window_start": "2026-06-21T12:00:00Z",
    "window_end": "2026-06-21T13:00:00Z",
    "revision": 1,
}
KNMI = Path(__file__).parents[2] / "../shared/data/knmi/20221231.nc"

T2M, T10CM = "air_temperature__degC__2.0__point__PT0S", "air_temperature__degC__0.1__point__PT0S"
TD2M, RH2M = "dew_point_temperature__degC__2.0__point__PT0S", "relative_humidity__%__2.0__point__PT0S"
PS, PMSL = "surface_air_pressure__hPa__0.0__point__PT0S", "air_pressure_at_mean_sea_level__hPa__0.0__mean__PT1M"
RAIN, RAIN5 = "precipitation_amount__mm__0.0__sum__PT1H", "precipitation_amount__mm__0.0__sum__PT5M"
FF, DD = "wind_speed__km h-1__10.0__mean__PT10M", "wind_from_direction__degree__10.0__mean__PT10M"
FX = "wind_speed_of_gust__m s-1__10.0__maximum__PT10M"
FX1H = "wind_speed_of_gust__m s-1__10.0__maximum__PT1H"
SUN = "surface_downwelling_shortwave_flux_in_air__W m-2__0.0__mean__PT10M"
CLOUD, VISIBILITY = "cloud_area_fraction__%__0.0__point__PT0S", "visibility_in_air__m__0.0__mean__PT10M"
SUNSHINE = "duration_of_sunshine__min__0.0__sum__PT10M"
PM25 = "mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air__ug m-3__2.0__mean__PT5M"
PM10 = "mass_concentration_of_pm10_ambient_aerosol_in_air__ug m-3__2.0__mean__PT5M"  # CF's old name


def schema_of(names, described=("station_id", "altitude"), dtypes=None):
    variables = [CanonicalVariable.from_canonical_name(n, dtype=(dtypes or {}).get(n, "float64")) for n in names]
    ingestion = DataIngestionMap(
        canonical_variables=variables, metadata_variables=[MetadataVariable(column=column) for column in described]
    )
    return canonical_schema([IngestionMetadata(dataset=DatasetMetadata(name="crowd"), ingestion_map=ingestion)])


def dataset(folder, columns, about=ABOUT):
    """A dataset file with these columns; those of every dataset have defaults (one station in Cologne)."""
    rows = len(next(iter(columns.values())))
    described = [column for column in columns if "__" not in column and column not in ("datetime", "lat", "lon")]
    schema = schema_of([column for column in columns if "__" in column], described)
    filled = {"datetime": [NOON + timedelta(minutes=5 * row) for row in range(rows)]} | columns
    filled = {"lat": [50.94] * rows, "lon": [6.96] * rows} | filled
    table = pa.table({field.name: pa.array(filled[field.name], field.type) for field in schema}, schema=schema)
    path = folder / "window.parquet"
    pq.write_table(table.replace_schema_metadata({b"ionbeam": json.dumps(about).encode()}), path)
    return path


def exported(folder, columns, about=ABOUT, **options):
    target = folder / "out" / "window.bufr"
    exporter = BufrExporter(BufrService(settings=BufrSettings(**options), output_path=str(folder / "out")))
    return target, published_export(exporter, dataset(folder, columns, about), target)


def gts_name(report):
    return report.copies["for the GTS"].rpartition("/")[2]


def messages(path):
    """Handles of eccodes, unpacked."""
    with path.open("rb") as file:
        while (handle := eccodes.codes_bufr_new_from_file(file)) is not None:
            eccodes.codes_set(handle, "unpack", 1)
            yield handle
            eccodes.codes_release(handle)


def column(handle, key):
    """The values of a key in all subsets; None where it is missing, or not there at all."""
    number = eccodes.codes_get(handle, "numberOfSubsets")
    if not eccodes.codes_is_defined(handle, key):
        return [None] * number
    if eccodes.codes_get_native_type(handle, key) is str:
        texts = [text.strip() for text in eccodes.codes_get_string_array(handle, key)]
        found = [None if not text or "\xff" in text else text for text in texts]
    else:
        missing = eccodes.CODES_MISSING_DOUBLE
        found = [None if v == missing else v for v in eccodes.codes_get_double_array(handle, key).tolist()]
    return found * number if len(found) == 1 else found


def read(path, template, *keys):
    """The subsets of a template, as dicts of `keys` and the name and time."""
    rows = []
    for handle in messages(path):
        if tuple(eccodes.codes_get_array(handle, "unexpandedDescriptors").tolist()) == template.descriptors:
            rows += [dict(zip(keys, row, strict=True)) for row in zip(*(column(handle, k) for k in keys), strict=True)]
    return rows


def headers(path, *keys):
    return [tuple(eccodes.codes_get(handle, key) for key in keys) for handle in messages(path)]


def values(path, template, key):
    return [row[key] for row in read(path, template, key)]


def test_a_fixed_station_arrives_in_3_07_092(tmp_path):
    target, report = exported(
        tmp_path,
        {
            T2M: [20.1, -0.3],
            RH2M: [57.0, 58.44],
            PS: [1000.2, 1000.1],
            PMSL: [1013.2, None],
            RAIN: [0.2, 1.4],
            FF: [36.0, 18.0],
            DD: [270.0, 90.0],
            FX: [15.21, 7.0],
            FX1H: [20.0, 21.0],
            SUN: [500.0, 600.0],
            "station_id": ["aws-1", "aws-1"],
            "altitude": ["146.5", "146.5"],
        },
    )
    expected = {
        "longStationName": ["aws-1"] * 2,
        "wigosIdentifierSeries": [None] * 2,
        "year": [2026] * 2,
        "hour": [12, 12],
        "minute": [0, 5],
        "latitude": [50.94] * 2,
        "heightOfStationGroundAboveMeanSeaLevel": [146.5] * 2,
        "airTemperature": [293.25, 272.85],
        "#1#heightOfSensorAboveLocalGroundOrDeckOfMarinePlatform": [2, 2],
        "#1#relativeHumidity": [57, 58.4],
        "#2#relativeHumidity": [57, 58.4],
        "nonCoordinatePressure": [100020, 100010],
        "pressureReducedToMeanSeaLevel": [101320, None],
        "#1#timePeriod": [-60, -60],
        "totalPrecipitationOrTotalWaterEquivalent": [0.2, 1.4],
        "#3#heightOfSensorAboveLocalGroundOrDeckOfMarinePlatform": [10, 10],
        "#1#timeSignificance": [2, 2],
        "#2#timePeriod": [-10, -10],
        "#1#windSpeed": [10, 5],
        "#1#windDirection": [270, 90],
        "#1#maximumWindGustSpeed": [15.2, 7],
        "#3#timeSignificance": [None, None],
        "#3#timePeriod": [-60, -60],
        "#2#windSpeed": [None, None],
        "#2#maximumWindGustSpeed": [20, 21],
        "#4#timePeriod": [-10, -10],
        "globalSolarRadiationIntegratedOverPeriodSpecified": [300_000, 360_000],
        # Nothing is said of the values' quality.
        "airTemperature->associatedField->associatedFieldSignificance": [None, None],
    }
    rows = read(target, FIXED, *expected)
    for key, wanted in expected.items():
        got = [row[key] for row in rows]
        assert got == (wanted if None in wanted or isinstance(wanted[0], str) else pytest.approx(wanted)), key
    about = headers(target, "edition", "dataCategory", "internationalDataSubCategory", "typicalDate", "typicalTime")
    assert about == [(4, 0, 7, "20260621", "120000")]
    assert headers(target, "observedData", "compressedData", "masterTablesVersionNumber") == [(1, 1, 39)]
    assert (report.rows, report.stations) == (2, 1)
    assert report.read_back["subsets"] == {"3 07 092": 2} and report.read_back["read by"].startswith("eccodes")
    assert report.read_back["elements"]["airTemperature"] == {"values": 2, "minimum": 272.85, "maximum": 293.25}
    assert report.plan.left_out == {} and "values left out" not in report.read_back
    assert report.plan.mapped[T2M] == "bufr 012101 airTemperature (K)"
    assert report.plan.mapped[RH2M] == "bufr 013003, 013009 relativeHumidity (%)"


def flagged(folder, columns, flags, about=ABOUT):
    """A dataset file as quality control leaves it: `flags` by variable column."""
    path = dataset(folder, columns, about)
    table = pq.read_table(path)
    for name, told in flags.items():
        table = table.append_column(quality_fields(name)[0], pa.array(told, pa.uint8()))
    pq.write_table(table, path)
    return path


def test_flags_become_associated_fields(tmp_path):
    source = flagged(
        tmp_path,
        {T2M: [1.0, 2.0, 3.0, 4.0, None], RH2M: [50.0] * 5, PS: [1000.0] * 5, PM25: [7.0, 8.0, 9.0, 10.0, 11.0]},
        {T2M: [1, 3, 4, 2, 9], RH2M: [3, 3, 3, 3, 3], PM25: [4, 3, 1, None, 2]},
    )
    target = tmp_path / "window.bufr"
    report = BufrExporter().export(source, target)
    told = "->associatedField", "->associatedField->associatedFieldSignificance"
    keys = [f"{name}{what}" for what in told for name in ("airTemperature", "#2#relativeHumidity", "#1#pressure")]
    rows = read(target, FIXED, "airTemperature", *keys)
    unsaid = 2**18 - 1  # which is how eccodes tells a missing associated field
    assert [row[keys[0]] for row in rows] == [0, 1, 3, unsaid, 0]
    assert [row[keys[1]] for row in rows] == [1] * 5 and {row[keys[2]] for row in rows} <= {None, unsaid}
    assert {(row[keys[3]], row[keys[4]]) for row in rows} == {(2, 2)}
    assert len([row for row in rows if row["airTemperature"] is not None]) == 4  # a flagged value stays
    name = "massConcentrationOfPollutant"
    rows = read(target, AIR, *(f"{name}{what}" for what in told))
    assert [tuple(row.values()) for row in rows] == [(3, 2), (1, 2), (0, 2), (unsaid, 2), (unsaid, 2)]
    assert report.read_back["quality"] == {"pass": 2, "suspect": 7, "fail": 2}
    facts, elements = describe_bufr(target)
    assert facts["subsets"] == "5 of 3 07 092, 5 of list of air constituents"
    assert ("012101 airTemperature", "K", 4, "274.15", "277.15") in elements.rows()
    assert ("999999 airTemperature->associatedField", 4, "0", "3") in elements.drop("unit").rows()
    assert report.read_back["elements"]["airTemperature->associatedField"] == {"values": 4, "minimum": 0, "maximum": 3}


def test_a_bad_value_of_a_mobile_station_is_not_sent(tmp_path):
    moving = {"lat": [50.0, 50.1, 50.2], "lon": [7.0] * 3, "station_id": ["car"] * 3, T2M: [1.0, 2.0, 3.0]}
    target = tmp_path / "window.bufr"
    report = BufrExporter().export(flagged(tmp_path, moving | {FF: [9.0] * 3}, {T2M: [1, 4, 3]}), target)
    assert values(target, MOBILE, "airTemperature") == pytest.approx([274.15, None, 276.15])
    assert report.read_back["values left out"] == {f"{T2M}: bad, which 3 07 090 cannot tell": 1}


def test_a_station_that_moves_arrives_in_3_07_090(tmp_path):
    track = {"lat": [45.0, 45.001, 45.01], "lon": [7.0, 7.0, 7.01], "station_id": ["62a1b0c9d8e7f6a5b4c3d2e1"] * 3}
    target, report = exported(
        tmp_path,
        track | {T2M: [1.0, 2.0, 3.0], PS: [990.0, 991.0, 992.0], FF: [3.6] * 3, RAIN: [0.1] * 3, RAIN5: [9.0] * 3},
    )
    keys = "shipOrMobileLandStationIdentifier", "latitude", "longitude", "airTemperature", "nonCoordinatePressure"
    rows = read(target, MOBILE, *keys, "windSpeed", "#1#totalPrecipitationOrTotalWaterEquivalent", "stationType")
    assert [row["latitude"] for row in rows] == pytest.approx(track["lat"])
    assert [row["longitude"] for row in rows] == pytest.approx(track["lon"])
    assert [row["airTemperature"] for row in rows] == pytest.approx([274.15, 275.15, 276.15])
    assert [row["nonCoordinatePressure"] for row in rows] == [99000, 99100, 99200]
    assert {row["windSpeed"] for row in rows} == {1.0} and {row["stationType"] for row in rows} == {0}
    # The template tells the period of rain in hours: five minutes cannot be said.
    assert {row["#1#totalPrecipitationOrTotalWaterEquivalent"] for row in rows} == {0.1}
    (short,) = {row["shipOrMobileLandStationIdentifier"] for row in rows}
    assert re.fullmatch("[0-9a-z]{9}", short) and report.read_back["mobile ids changed"] == 1
    assert headers(target, "dataCategory", "internationalDataSubCategory") == [(0, 3)]
    assert report.read_back["subsets"] == {"3 07 090": 3}
    assert (
        report.plan.mapped[RAIN]
        == "bufr 013011 totalPrecipitationOrTotalWaterEquivalent (kg m-2), mobile stations only"
    )
    assert report.plan.mapped[RAIN5].endswith(", fixed stations only")


def test_what_a_template_has_no_place_for_is_counted(tmp_path):
    columns = {"lat": [45.0, 45.1, 50.0], "lon": [7.0, 7.0, 7.0], "station_id": ["car", "car", "home"]}
    columns |= {T2M: [1.0, 2.0, 3.0], RAIN5: [0.1, None, 0.3], RAIN: [None, 1.0, 2.0]}
    _, report = exported(tmp_path, columns)
    assert report.read_back["values left out"] == {
        f"{RAIN5} of mobile stations: 3 07 090 tells its period in PT1H, but it covers PT5M": 1,
        f"{RAIN} of fixed stations: the place of 013011 in 3 07 092 is taken by {RAIN5}": 1,
    }


def test_reports_of_a_drive_within_a_minute_are_told_apart(tmp_path):
    moments = [NOON + timedelta(seconds=10 * n) for n in range(8)]
    track = {"station_id": ["car"] * 8, "lat": [50 + n / 100 for n in range(8)], "lon": [7.0] * 8, "datetime": moments}
    target, _ = exported(tmp_path, track | {T2M: [float(n) for n in range(8)]})
    rows = read(target, MOBILE, "shipOrMobileLandStationIdentifier", "hour", "minute", "second", "airTemperature")
    assert len({tuple(row.values())[:4] for row in rows}) == 8
    assert [(row["minute"], row["second"]) for row in rows] == [divmod(10 * n, 60) for n in range(8)]
    pdbufr = pytest.importorskip("pdbufr", reason="pdbufr is a test's decoder")
    times = pdbufr.read_bufr(str(target), ("data_datetime", "airTemperature"))["data_datetime"]
    assert sorted(times) == [moment.replace(tzinfo=None) for moment in moments]


def test_a_barometer_stands_at_the_height_of_its_pressure(tmp_path):
    at_two = "air_pressure__hPa__2.0__point__PT0S"
    columns = {"station_id": ["a", "b", "c"], "altitude": ["100", None, "30.5"], at_two: [990.0, 991.0, None]}
    target, _ = exported(tmp_path, columns | {T2M: [1.0, 2.0, 3.0]})
    rows = read(target, FIXED, "longStationName", "heightOfBarometerAboveMeanSeaLevel")
    assert {row["longStationName"]: row["heightOfBarometerAboveMeanSeaLevel"] for row in rows} == {
        "a": 102.0, "b": None, "c": None
    }  # fmt: skip
    driving = {"station_id": ["car"] * 2, "lat": [50.0, 50.1], "lon": [7.0] * 2, "altitude": ["20", "30"]}
    target, _ = exported(tmp_path, driving | {PS: [990.0, 1e9], T2M: [1.0, 2.0]})
    assert values(target, MOBILE, "heightOfBarometerAboveMeanSeaLevel") == [20.0, None]


def test_one_report_a_message_is_taken_by_whoever_takes_messages_apart(tmp_path):
    columns = {"station_id": [f"s{n}" for n in range(5)], T2M: [float(n) for n in range(5)], PS: [990.0] * 5}
    target, _ = exported(tmp_path, columns, subsets_per_message=1)
    assert headers(target, "numberOfSubsets") == [(1,)] * 5
    assert values(target, FIXED, "longStationName") == columns["station_id"]
    assert values(target, FIXED, "airTemperature") == pytest.approx([273.15 + n for n in range(5)])


def test_a_file_that_is_too_large_for_the_gts_is_told(tmp_path, monkeypatch):
    columns = {"station_id": [f"s{n}" for n in range(5)], T2M: [float(n) for n in range(5)]}
    assert not exported(tmp_path, columns, cccc="EDZW")[1].not_passed
    monkeypatch.setattr("ionbeam_dagster.exporters.bufr.MOST_BYTES_OF_A_BULLETIN", 100)
    assert not exported(tmp_path, columns)[1].not_passed
    told = exported(tmp_path, columns, cccc="EDZW")[1].not_passed
    assert told.keys() == {"gts_size"} and "a bulletin may have 100" in told["gts_size"]


@pytest.mark.parametrize(
    ("lat", "lon", "template"),
    [
        ([52.0, 52.0005], [5.0, 5.0], FIXED),  # 56 m: a better fix of its place
        ([52.0, 52.002], [5.0, 5.0], MOBILE),
        ([0.0, 0.0], [179.9998, -179.9998], FIXED),  # 44 m across the date line
        ([0.0, 0.0], [180.0, -180.0], FIXED),
        ([89.9999, 89.9999], [-120.0, 60.0], FIXED),  # 22 m across the pole
        ([-90.0, -90.0], [-180.0, 180.0], FIXED),
        ([-89.9, -89.9], [0.0, 180.0], MOBILE),
    ],
)
def test_what_is_mobile_is_decided_by_distance_also_at_poles_and_date_line(tmp_path, lat, lon, template):
    target, report = exported(tmp_path, {"lat": lat, "lon": lon, T2M: [1.0, 2.0], "station_id": ["s", "s"]})
    assert report.read_back["subsets"] == {template.name: 2}
    rows = read(target, template, "latitude", "longitude")
    assert [row["latitude"] for row in rows] == pytest.approx(lat)
    assert [row["longitude"] for row in rows] == pytest.approx(lon)


def test_a_station_that_is_said_to_be_fixed_is_fixed_although_its_position_was_corrected(tmp_path):
    columns = {"station_id": ["home"] * 2, "lat": [48.550, 48.551], "lon": [-3.388] * 2, T2M: [1.0, 2.0]}
    for said, fixed in ((["false"] * 2, 2), ([None] * 2, 0)):
        target, _ = exported(tmp_path, columns | {"mobile": said})
        assert len(read(target, FIXED, "latitude")) == fixed


def test_a_column_may_say_that_a_station_is_mobile_and_places_without_an_id_never_are(tmp_path):
    parked = {"station_id": ["car", "home"], "mobile": ["True", None], T2M: [1.0, 2.0]}
    assert exported(tmp_path, parked)[1].read_back["subsets"] == {"3 07 092": 1, "3 07 090": 1}
    unnamed = {"station_id": [None, None], "lat": [-50.0, 50.94], "lon": [6.0, 6.96], T2M: [1.0, 2.0]}
    target, report = exported(tmp_path, unnamed)
    assert values(target, FIXED, "longStationName") == ["0400000018600000", "1409400018696000"]
    assert report.read_back["stations without an id"] == "called by their position" and report.stations == 2


def test_particulate_matter_goes_into_a_list_of_its_own(tmp_path):
    columns = {"station_id": ["p"] * 3, PM25: [9.76437, None, 0.0], PM10: [10_485.73, 20.0, 10_485.76]}
    target, report = exported(tmp_path, columns | {T2M: [None, 7.0, None]})
    keys = "#1#massConcentrationOfPollutant", "#2#massConcentrationOfPollutant", "#1#atmosphericChemical"
    rows = read(target, AIR, "longStationName", "second", "timePeriod", *keys, "#2#atmosphericChemical")
    by_constituent = sorted(
        (row[f"#{n}#atmosphericChemical"], round(row[f"#{n}#massConcentrationOfPollutant"] * 1e9, 6))
        for row in rows
        for n in (1, 2)
        if row[f"#{n}#massConcentrationOfPollutant"] is not None
    )
    assert by_constituent == [(26, 0.0), (26, 9.76), (27, 20.0), (27, 10_485.73)]
    assert {row["timePeriod"] for row in rows} == {-5} and {row["longStationName"] for row in rows} == {"p"}
    assert report.read_back["values left out"] == {f"{PM10}: not in 0 to 1.04857e-05 kg m-3": 1}
    assert headers(target, "dataCategory", "internationalDataSubCategory").count((8, 0)) == 3
    assert report.read_back["subsets"] == {"3 07 092": 1, "list of air constituents": 3}


def test_what_a_descriptor_cannot_carry_is_missing_and_counted(tmp_path):
    columns = {
        T2M: [-300.0, 382.2, 382.19, float("nan"), 1e300],
        RH2M: [180.0, -1.0, 100.4, 55.0, None],
        DD: [361.0, -1.0, 360.0, 5.0, 1.0],
        RAIN: [-0.1, 1638.2, 1638.1, 0.04, 0.0],
        PS: [-1.0, 1638.3, 1638.2, 500.0, 1000.0],
        "altitude": ["20000", "unknown", None, "-400", "-400.2"],
    }
    target, report = exported(tmp_path, columns)
    keys = {
        "airTemperature": [None, None, 655.34, None, None],
        "#1#relativeHumidity": [None, None, 100.4, 55, None],
        "windDirection": [None, None, 360, 5, 1],
        "totalPrecipitationOrTotalWaterEquivalent": [None, None, 1638.1, 0, 0],
        "nonCoordinatePressure": [None, None, 163_820, 50_000, 100_000],
        "heightOfStationGroundAboveMeanSeaLevel": [None, None, None, -400, None],
    }
    subsets = {row["minute"]: row for row in read(target, FIXED, "minute", *keys)}
    for key, wanted in keys.items():
        got = [subsets.get(5 * row, {}).get(key) for row in range(5)]
        assert got == [None if value is None else pytest.approx(value) for value in wanted], key
    # The first two rows have nothing left to tell.
    assert report.rows == 3 and sorted(subsets) == [10, 15, 20]
    assert report.read_back["values left out"] == {
        "007030 heightOfStationGroundAboveMeanSeaLevel: not in -400 to 12707 m": 2,
        f"{T2M}: not in 0 to 655.34 K": 3,
        f"{RH2M}: not in 0 to 110 %": 2,
        f"{DD}: not in 0 to 360 deg": 2,
        f"{RAIN}: not in 0 to 1638.1 kg m-2": 2,
        f"{PS}: not in 0 to 163820 Pa": 2,
    }


def test_wind_from_the_north_is_360_and_a_calm_is_0(tmp_path):
    target, _ = exported(tmp_path, {DD: [0.0, 0.4, 123.0, 359.6, 0.0, None], FF: [5.0, 5.0, 0.1, 5.0, None, 0.0]})
    assert values(target, FIXED, "windDirection") == [360, 360, 0, 360, 360, None]
    assert values(target, FIXED, "windSpeed") == pytest.approx([1.4, 1.4, 0, 1.4, None, 0], nan_ok=True)


def test_messages_have_one_shape_each(tmp_path):
    columns = {T2M: [1.0, None, 3.0, None], T10CM: [None, None, 3.5, None], RAIN: [0.0, 0.1, None, None]}
    target, report = exported(tmp_path, columns)
    sensors = "#1#heightOfSensorAboveLocalGroundOrDeckOfMarinePlatform"
    rows = read(target, FIXED, "minute", "#1#airTemperature", "#2#airTemperature", sensors, "#1#timePeriod")
    assert report.read_back["messages"] == 3 and report.rows == 3
    by_minute = {row["minute"]: row for row in rows}
    assert by_minute[0]["#1#airTemperature"] == pytest.approx(274.15) and by_minute[0]["#2#airTemperature"] is None
    assert (by_minute[0][sensors], by_minute[0]["#1#timePeriod"]) == (2.0, -60)
    assert by_minute[5]["#1#airTemperature"] is None and by_minute[5]["#1#timePeriod"] == -60
    assert (by_minute[10]["#1#airTemperature"], by_minute[10]["#2#airTemperature"]) == pytest.approx((276.15, 276.65))
    assert by_minute[10][sensors] == 2.0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wind_speed__m s-1__0.0__mean__PT10M", "level 0.01 to 655, but this one is at 0.0"),
        ("air_temperature__degC__2.0__mean__PT1H", "period PT0S to PT10M, but this one is PT1H"),
        ("air_temperature__degC__2.0__minimum__PT10M", "method point or mean, but this one is minimum"),
        ("air_temperature__ppb__2.0__point__PT0S", "012101 (airTemperature, K) cannot be made of it: 'ppb' and 'K'"),
        ("mole_fraction_of_ozone_in_air__ppb__2.0__point__PT0S", "no descriptor of 3 07 092 is mapped from mole_frac"),
        ("precipitation_amount__mm__0.0__sum__PT90S", "whole minutes, but this one covers PT90S"),
        ("x_battery_level__V__0.0__point__PT0S", "x_battery_level is no name of CF; no descriptor stands for it"),
    ],
)
def test_what_is_left_out_says_why(name, why):
    plan = BufrExporter().plan(schema_of([name, RH2M]))
    assert list(plan.mapped) == [RH2M] and list(plan.left_out) == [name] and why in plan.left_out[name]


def test_of_several_for_one_place_the_shortest_period_wins_and_texts_stay_behind():
    hours = [f"precipitation_amount__mm__0.0__sum__PT{n}H" for n in (6, 1, 12)]
    plan = BufrExporter().plan(schema_of([*hours, T2M], dtypes={T2M: "string"}))
    assert list(plan.mapped) == [hours[1]]
    taken = f"the place of 013011 in 3 07 092 is taken by {hours[1]}"
    assert plan.left_out == {hours[0]: taken, hours[2]: taken, T2M: "its values are string, not numbers"}


def test_wigos_ids_are_kept_where_there_are_any_and_minted_only_under_the_own_issuer(tmp_path):
    names = ["0-20000-0-06260", "0-276-7-X1", "0-99999-0-1", "70:ee:50:12:34:56", "münchen-süd", "é" * 50, "plain7"]
    columns = {"station_id": names, "lat": [50.0 + n for n in range(7)], T2M: [1.0] * 7}
    keys = "wigosIssuerOfIdentifier", "wigosIssueNumber", "wigosLocalIdentifierCharacter", "stationNumber"

    def told(path):
        return {
            round(row["latitude"]) - 50: (row["longStationName"], *(row[key] for key in keys))
            for row in read(path, FIXED, "latitude", "longStationName", *keys)
        }

    plain, report = exported(tmp_path, columns)
    assert told(plain) == {
        0: (None, 20000, 0, "06260", 260),
        1: (None, 276, 7, "X1", None),
        2: (names[2], None, None, None, None),
        3: (names[3], None, None, None, None),
        4: ("munchen-sud", None, None, None, None),
        5: (fitting(names[5], 40), None, None, None, None),
        6: ("plain7", None, None, None, None),
    }
    assert report.read_back["station names changed"] == 2
    minted, report = exported(tmp_path, columns, wigos_issuer=56, wigos_issue_number=3)
    found = told(minted)
    assert {place: row[1:3] for place, row in found.items()} == {0: (20000, 0), 1: (276, 7)} | dict.fromkeys(
        range(2, 7), (56, 3)
    )
    assert [found[place][3] for place in range(7)] == [
        "06260", "X1", "0999990" + "1", "70ee50123456", "munchensud", fitting(names[5], 16, plain=True), "plain7"
    ]  # fmt: skip
    # a name that is no more than the WIGOS id is not sent twice
    assert [place for place in range(7) if found[place][0] is None] == [0, 1, 6]
    assert report.read_back["WIGOS local ids changed"] == 4


@given(st.text(max_size=60), st.sampled_from([9, 16, 40]), st.booleans())
def test_a_fitting_id_always_fits(name, width, plain):
    made = fitting(name, width, plain)
    assert 0 < len(made) <= width and made.isascii() and (made.isalnum() if plain else made.isprintable())
    assert made == fitting(name, width, plain)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"wigos_issuer": 20000}, "issuer 20000 belongs to WMO"),
        ({"wigos_issuer": 65535}, "less than or equal to 65534"),
        ({"cccc": "edzw"}, "pattern"),
        ({"ttaaii": "ISA30"}, "pattern"),
        ({"headings": {"crowd": "ISA30"}}, "pattern"),
        ({"bytes_per_message": 500_000}, "less than or equal"),
        ({"center": 78}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(given, why):
    with pytest.raises(ValidationError, match=why):
        BufrSettings.model_validate(given)


def test_a_correction_raises_the_number_and_the_name(tmp_path):
    names, headings = [], []
    for revision in (1, 2, 3, 25, 26, 300):
        options = {"cccc": "EDZW", "centre": 78, "sub_centre": 255}
        target, report = exported(tmp_path, {T2M: [float(revision)]}, ABOUT | {"revision": revision}, **options)
        ((update, centre, sub_centre),) = headers(
            target, "updateSequenceNumber", "bufrHeaderCentre", "bufrHeaderSubCentre"
        )
        assert (update, centre, sub_centre) == (min(revision - 1, 254), 78, 255)
        assert values(target, FIXED, "airTemperature") == pytest.approx([revision + 273.15])
        names.append(gts_name(report))
        headings.append(bulletin_heading(BufrSettings(cccc="EDZW"), "crowd", NOON, revision))
    assert names == [
        f"A_ISAX30EDZW211200{bbb}_C_EDZW_20260621120000.bin" for bbb in ("", "CCA", "CCB", "CCX", "CCX", "CCX")
    ]
    assert headings[:2] == ["ISAX30 EDZW 211200", "ISAX30 EDZW 211200 CCA"]
    assert not exported(tmp_path, {T2M: [1.0]})[1].copies
    of_its_own = gts_name(exported(tmp_path, {T2M: [1.0]}, cccc="EDZW", headings={"crowd": "ISNX31"})[1])
    assert of_its_own == "A_ISNX31EDZW211200_C_EDZW_20260621120000.bin"
    with pytest.raises(ValueError, match="set cccc"):
        gts_file_name(BufrSettings(), "crowd", NOON, 1)


def test_chunks_and_sizes_of_messages(tmp_path):
    count = 250
    random = np.random.default_rng(1)
    columns = {"station_id": [f"station {n}" for n in range(count)], T2M: random.normal(10, 9, count).round(2)}
    columns |= {"lat": random.uniform(-90, 90, count), "lon": random.uniform(-180, 180, count)}
    expected = sorted(round(value + 273.15, 2) for value in columns[T2M])
    target, _ = exported(tmp_path, columns, subsets_per_message=100)
    assert [n for (n,) in headers(target, "numberOfSubsets")] == [100, 100, 50]
    small, _ = exported(tmp_path, columns, bytes_per_message=2_000)
    assert all(length <= 2_000 for (length,) in headers(small, "totalLength"))
    assert sum(n for (n,) in headers(small, "numberOfSubsets")) == count
    assert sorted(values(small, FIXED, "airTemperature")) == pytest.approx(expected, abs=1e-6)


def test_batches_leave_nothing_out_and_bytes_are_the_same_again(tmp_path, monkeypatch):
    count = 90
    columns = {
        "station_id": [f"s{row // 9}" for row in range(count)],
        "lat": [50 + (row % 9) / 100 if row // 9 == 4 else 50.0 + row // 9 for row in range(count)],
        "datetime": [NOON + timedelta(minutes=row % 9) for row in range(count)],
        T2M: [None if row % 7 == 0 else row / 10 for row in range(count)],
        RAIN: [None if row % 2 else row / 10 for row in range(count)],
    }
    target, report = exported(tmp_path, columns)
    before = target.read_bytes()
    assert exported(tmp_path, columns)[0].read_bytes() == before
    assert report.stations == 10 and report.read_back["subsets"]["3 07 090"] == 9  # the fifth station moves
    keys = "longStationName", "minute", "airTemperature", "totalPrecipitationOrTotalWaterEquivalent"
    whole = sorted(map(str, read(target, FIXED, *keys)))
    for module in ("messages", "reports"):
        monkeypatch.setattr(f"ionbeam_dagster.exporters.bufr.{module}.ROWS_PER_BATCH", 7)
    target, again = exported(tmp_path, columns)
    assert sorted(map(str, read(target, FIXED, *keys))) == whole
    assert (again.rows, again.stations, again.read_back["subsets"]) == (
        report.rows,
        report.stations,
        report.read_back["subsets"],
    )


@pytest.mark.parametrize("columns", [{T2M: []}, {T2M: [None, None]}, {"x_lux__1__0.0__point__PT0S": [1.0]}])
def test_without_a_value_there_is_no_file(tmp_path, columns):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "window.bufr").write_bytes(b"of an earlier revision")
    _, report = exported(tmp_path, columns)
    assert (report.rows, list((tmp_path / "out").iterdir())) == (0, [])


def test_a_message_that_reads_back_wrong_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ionbeam_dagster.exporters.bufr.messages.packed_integers",
        lambda column, width: packed_integers(column + (width == 16), width),
    )
    with pytest.raises(ExportError, match=r"window.bufr: was not written .* eccodes reads airTemperature with sum"):
        exported(tmp_path, {T2M: [1.0, 2.0]})
    assert list((tmp_path / "out").iterdir()) == []


def test_a_dataset_without_its_window_and_a_machine_without_eccodes_are_told(tmp_path, monkeypatch):
    with pytest.raises(ExportError, match="does not tell the start of its window"):
        exported(tmp_path, {T2M: [1.0]}, about={})
    monkeypatch.setitem(sys.modules, "eccodes", None)
    with pytest.raises(ExportError, match=r"pip install 'ionbeam-dagster\[bufr\]'"):
        BufrExporter().export(tmp_path / "window.parquet", tmp_path / "window.bufr")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            *(st.none() | st.integers(low, high) for low, high in ((-27_320, 38_225), (-60_000, 60_000), (-5, 16_390))),
            st.text("ab:é", max_size=45),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_comes_is_carried_or_missing(tmp_path, rows):
    """Temperatures in steps of 0.01 K, rain in steps of 0.1 mm: what the descriptors have as steps."""
    rows = sorted(rows, key=lambda row: row[-1])
    columns = {
        name: [None if row[place] is None else row[place] / step for row in rows]
        for place, (name, step) in enumerate({T2M: 100, T10CM: 100, RAIN: 10}.items())
    }
    target, report = exported(tmp_path, {"station_id": [row[-1] for row in rows]} | columns)

    expected = {}
    for number, (t, t_low, rain, _) in enumerate(rows):
        warmth = [None if x is None or not 0 <= x + 27_315 <= 65_534 else x + 27_315 for x in (t, t_low)]
        expected[number * 5] = (*warmth, None if rain is None or not 0 <= rain <= 16_381 else rain)
    expected = {minute: found for minute, found in expected.items() if any(value is not None for value in found)}
    sensor = "heightOfSensorAboveLocalGroundOrDeckOfMarinePlatform"
    amount = "totalPrecipitationOrTotalWaterEquivalent"
    got = {}
    if expected:
        # Each replication ends with a height as well, a missing one.
        sensors = {f"#{n}#airTemperature": f"#{2 * n - 1}#{sensor}" for n in (2, 1)}
        for row in read(target, FIXED, "minute", amount, *sensors, *sensors.values()):
            at = {row[height]: row[temperature] for temperature, height in sensors.items()}
            found = (at.get(2.0), 100), (at.get(0.1), 100), (row[amount], 10)
            got[row["minute"]] = tuple(None if value is None else round(value * step) for value, step in found)
    assert got == expected and report.rows == len(expected)


# Independent decoders, on a real day and a synthetic crowd.


def knmi_day(folder):
    if not KNMI.exists():
        pytest.skip(f"the real data are not there: {KNMI.name}")
    netcdf = pytest.importorskip("netCDF4").Dataset(KNMI)
    names = {
        "ta": "air_temperature__degC__1.5__mean__PT1M", "td": "dew_point_temperature__degC__1.5__mean__PT1M",
        "rh": "relative_humidity__%__1.5__mean__PT1M", "pp": PMSL, "ff": FF.replace("km h-1", "m s-1"),
        "dd": DD, "gff": FX, "zm": VISIBILITY, "R1H": RAIN, "qg": SUN, "ss": SUNSHINE,
    }  # fmt: skip
    seconds = np.asarray(netcdf["time"][:]).astype(np.int64)
    times = (np.datetime64("1950-01-01", "us") + seconds * np.timedelta64(1_000_000, "us")).tolist()
    stations = len(netcdf["station"])
    columns = {
        "datetime": [moment.replace(tzinfo=UTC) for moment in times] * stations,
        "lat": np.asarray(netcdf["lat"][:]).T.ravel(),
        "lon": np.asarray(netcdf["lon"][:]).T.ravel(),
        "station_id": [f"0-20000-0-{name}" for name in netcdf["station"][:] for _ in times],
        "station_height": [f"{height}" for height in np.asarray(netcdf["height"][:]).T.ravel()],
    }
    for short, name in names.items():
        columns[name] = np.ma.filled(netcdf[short][:].astype(float), np.nan).ravel()
    about = ABOUT | {"window_start": "2022-12-31T00:00:00Z", "window_end": "2023-01-01T00:00:00Z"}
    target, report = exported(folder, columns, about)
    return columns, names, target, report


STEPS = {
    "ta": ("012101", "airTemperature", 1, 273.15, 0.01),
    "td": ("012103", "dewpointTemperature", 1, 273.15, 0.01),
    "rh": ("013009", "#2#relativeHumidity", 1, 0, 0.1),
    "pp": ("010051", "pressureReducedToMeanSeaLevel", 100, 0, 10),
    "ff": ("011002", "windSpeed", 1, 0, 0.1),
    "gff": ("011041", "maximumWindGustSpeed", 1, 0, 0.1),
    "zm": ("020001", "horizontalVisibility", 1, 0, 10),
    "R1H": ("013011", "totalPrecipitationOrTotalWaterEquivalent", 1, 0, 0.1),
    "qg": ("014028", "globalSolarRadiationIntegratedOverPeriodSpecified", 600, 0, 100),
    "ss": ("014031", "totalSunshine", 1, 0, 1),
}


def test_a_day_of_knmi_reads_as_the_dataset_says(tmp_path):
    columns, names, target, report = knmi_day(tmp_path)
    keys = [key for _, key, *_ in STEPS.values()]
    rows = read(target, FIXED, "blockNumber", "stationNumber", "hour", "minute", *keys)
    found = {(row["stationNumber"], row["hour"] * 60 + row["minute"]): row for row in rows}
    assert len(found) == len(rows) == report.rows
    compared = 0
    for short, (_, key, scale, offset, step) in STEPS.items():
        for station, moment, value in zip(
            columns["station_id"], columns["datetime"], columns[names[short]], strict=True
        ):
            got = found.get((int(station[-3:]), moment.hour * 60 + moment.minute), {}).get(key)
            wanted = value * scale + offset
            if math.isnan(value) or (short == "zm" and wanted > 81_900) or wanted < 0:
                assert got is None, (short, station, moment, value)
            else:
                assert got == pytest.approx(wanted, abs=step / 2 + 1e-6), (short, station, moment)
                compared += 1
    assert compared > 30_000 and {row["blockNumber"] for row in rows} == {6, 78}
    # Two stations of the Caribbean are in WMO's block 78, the others in 06.


def crowd(folder):
    random = np.random.default_rng(7)
    count = 300
    moving = np.arange(count) // 10 % 10 == 0
    station = np.arange(count) // 10
    columns = {
        "station_id": [f"70:ee:50:00:{n:02x}" for n in station],
        "lat": random.uniform(-89, 89, 30)[station] + np.where(moving, np.arange(count) % 10 * 0.01, 0),
        "lon": random.uniform(-179, 179, 30)[station],
        "altitude": [None if n % 3 else f"{n * 20}" for n in station],
        "datetime": [NOON + timedelta(minutes=5 * (n % 10)) for n in range(count)],
    }
    for name, mean in {T2M: 15, RH2M: 60, PS: 980, RAIN: 1, FF: 20, FX: 9, PM25: 12, PM10: 25}.items():
        numbers = random.normal(mean, mean / 10, count)
        columns[name] = np.where(random.random(count) < 0.1, np.nan, numbers.round(2))
    return columns, *exported(folder, columns)


def sums(columns, name, scale=1.0, offset=0.0):
    numbers = np.asarray(columns[name]) * scale + offset
    return int(np.isfinite(numbers).sum()), float(np.nansum(numbers))


def test_pybufrkit_which_shares_nothing_with_eccodes_reads_the_same(tmp_path):
    decoder = pytest.importorskip("pybufrkit.decoder", reason="pybufrkit is a test's decoder")
    from pybufrkit.dataquery import DataQuerent, NodePathParser

    columns, target, report = crowd(tmp_path)
    querent = DataQuerent(NodePathParser())
    counted = dict.fromkeys(("012101", "013003", "010004", "015027", "005001"), (0, 0.0))
    names = set()
    for message in decoder.generate_bufr_message(decoder.Decoder(), target.read_bytes()):
        for code, (count, total) in counted.items():
            found = [value for _, values in querent.query(message, code).results.items() for value in flat(values)]
            found = [value for value in found if value is not None]
            counted[code] = count + len(found), total + sum(found)
        names |= {v for _, values in querent.query(message, "001019").results.items() for v in flat(values)}
    t, pm = sums(columns, T2M, 1, 273.15), (sums(columns, PM25, 1e-9), sums(columns, PM10, 1e-9))
    assert counted["012101"] == (t[0], pytest.approx(t[1], abs=0.005 * t[0]))
    p = sums(columns, PS, 100)
    assert counted["010004"] == (p[0], pytest.approx(p[1], abs=5 * p[0]))
    concentration = counted["015027"]
    assert concentration == (pm[0][0] + pm[1][0], pytest.approx(pm[0][1] + pm[1][1], abs=0.005e-9 * concentration[0]))
    assert counted["013003"][0] == sums(columns, RH2M)[0] and counted["005001"][0] == report.rows
    assert {name.decode().strip() for name in names} == set(columns["station_id"])


def flat(values):
    return [inner for value in values for inner in (flat(value) if isinstance(value, list) else [value])]


def test_bufr_dump_of_debian_reads_the_same(tmp_path):
    command = shutil.which("bufr_dump")
    if command is None:
        pytest.skip("bufr_dump is not installed: apt-get install libeccodes-tools")
    columns, target, _ = crowd(tmp_path)
    done = subprocess.run([command, "-jf", str(target)], capture_output=True, text=True, check=True)
    items = []

    def walk(node):
        if isinstance(node, dict):
            items.append(node)
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(inner)

    walk(json.loads(done.stdout))
    for key, name, scale, offset, step in (
        ("airTemperature", T2M, 1, 273.15, 0.01),
        ("nonCoordinatePressure", PS, 100, 0, 10),
        ("windSpeed", FF, 1 / 3.6, 0, 0.1),
    ):
        read_values = flat([item["value"] for item in items if item.get("key") == key])
        found = [float(value) for value in read_values if value is not None]
        count, total = sums(columns, name, scale, offset)
        # bufr_dump prints six digits.
        assert (len(found), sum(found)) == (count, pytest.approx(total, abs=step / 2 * count))


def test_pdbufr_reads_the_same(tmp_path):
    pdbufr = pytest.importorskip("pdbufr", reason="pdbufr is a test's decoder")
    columns, target, report = crowd(tmp_path)
    frame = pl.from_pandas(
        pdbufr.read_bufr(target, columns=("latitude", "airTemperature"), required_columns=["latitude"])
    )
    assert frame.height == report.rows
    found = frame["airTemperature"].drop_nulls()
    t = sums(columns, T2M, 1, 273.15)
    assert (len(found), found.sum()) == (t[0], pytest.approx(t[1], abs=0.005 * t[0]))
    synop = pl.from_pandas(pdbufr.read_bufr(target, reader="synop", columns=["stnid", "t2m", "rh2m", "wind10m_speed"]))
    assert synop["t2m"].drop_nulls().sum() == pytest.approx(t[1], abs=0.005 * t[0])
    # The humidity of 3 07 090 is a whole number, of which pdbufr gives eccodes' mark for missing ones as it is.
    assert (synop["rh2m"].drop_nulls() != eccodes.CODES_MISSING_LONG).sum() == sums(columns, RH2M)[0]
    assert len(synop["wind10m_speed"].drop_nulls()) == sums(columns, FF)[0]


def test_every_descriptor_that_we_fill_is_in_the_tables_with_a_unit_that_cf_knows():
    from cf_units import Unit

    for template in TEMPLATES:
        for slot in template.slots:
            nodes = [expansion(template).node(code) for code in slot.codes]
            for element in (expansion(template).elements[node] for node in nodes if node is not None):
                assert not Unit(element.udunit).is_unknown(), element
                assert 0 < element.width <= 32, element
