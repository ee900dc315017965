"""Quality control of every quantity in one field of stations: what is wrong is flagged and explained, and no more."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import canonical_schema, point_key
from ionbeam_dagster.domain.quality import Test, coverage
from ionbeam_dagster.domain.quality.fields import at_sea_level
from ionbeam_dagster.domain.quality.limits import DEFAULTS
from ionbeam_dagster.domain.quality.plan import Plan
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import quality_control as qc
from ionbeam_dagster.pipeline.explained import explained

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATIONS, REPORTS = 15, 18
MOMENTS = [NOON - timedelta(hours=2) + number * timedelta(minutes=10) for number in range(REPORTS)]
WINDOW = Window(NOON, NOON + timedelta(hours=1))
HEIGHTS = 10.0 + np.arange(STATIONS)


def variable(name, unit, level=0.0, method="point", period="PT0S"):
    return CanonicalVariable(column=name, standard_name=name, cf_unit=unit, level=level, method=method, period=period)


def network(told, heights=HEIGHTS, prefix="s", lat=52.0):
    """A schema and rows of stations a kilometre apart; `told` has for each variable (stations x reports)."""
    described = [MetadataVariable(column="station_id"), MetadataVariable(column="altitude")]
    metadata = IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"),
        ingestion_map=DataIngestionMap(canonical_variables=list(told), metadata_variables=described),
    )
    schema = canonical_schema([metadata])
    size = len(heights)
    columns = {
        "datetime": MOMENTS * size,
        "lat": np.repeat(lat + 0.01 * np.arange(size), REPORTS),
        "lon": np.full(size * REPORTS, 5.0),
        "station_id": [f"{prefix}{number:02d}" for number in range(size) for _ in MOMENTS],
        "altitude": [None if np.isnan(height) else f"{height:g}" for height in heights for _ in MOMENTS],
        **{v.to_canonical_name(): np.asarray(values, float).ravel() for v, values in told.items()},
    }
    return schema, pa.table([pa.array(columns[one.name], one.type) for one in schema], schema=schema)


def checked(schema, rows, others=()):
    plan = Plan.of(schema, DEFAULTS)
    other = [qc.Network(Plan.of(s, DEFAULTS), point_key(s), r.to_batches()) for s, r in others]
    found = qc.checked(qc.Network(plan, point_key(schema), rows.to_batches()), other, WINDOW, schema)
    return pa.Table.from_batches(found, plan.schema(schema))


def flagged(found, one, least=3):
    """The stations of which every value of the window is flagged, and those of which any is."""
    flags = (
        pl.DataFrame(pl.from_arrow(found))
        .group_by("station_id")
        .agg((pl.col(f"{one.to_canonical_name()}__flag") >= least).alias("flags"))
    )
    every = {row["station_id"] for row in flags.to_dicts() if all(row["flags"])}
    return every, {row["station_id"] for row in flags.to_dicts() if any(row["flags"])}


def reasons_of(found, one, station, tmp_path):
    """The words of the tests that a station's value at noon failed."""
    pq.write_table(found, tmp_path / "found.parquet")
    told = explained(tmp_path / "found.parquet", station, NOON, DEFAULTS)
    return {reason.test: reason.words for reason, failed in told.reasons if failed and reason.column == one}


def of_field(value, bias, noise, seed=1):
    random = np.random.default_rng(seed)
    return value + random.normal(0, bias, (STATIONS, 1)) + random.normal(0, noise, (STATIONS, REPORTS))


PRESSURE = variable("surface_air_pressure", "hPa")


def test_station_pressure_is_compared_reduced_by_height_and_a_constant_offset_is_told(tmp_path):
    heights = HEIGHTS.copy()
    heights[2] = 200.0
    sea_level = of_field(1013, 0.3, 0.05)
    told = sea_level / at_sea_level(np.ones(STATIONS), heights, np.full(STATIONS, np.nan))[:, None]
    told[0], told[2] = 575.0, sea_level[2]
    told[1] -= 12
    found = checked(*network({PRESSURE: told.round(1)}, heights))
    assert flagged(found, PRESSURE) == ({"s00", "s01", "s02"},) * 2
    assert flagged(found, PRESSURE, least=4) == ({"s00", "s01", "s02"},) * 2
    name = PRESSURE.to_canonical_name()
    assert "575 hPa at 10 m would be" in reasons_of(found, name, "s00", tmp_path)[Test.IMPOSSIBLE_HERE]
    lower = reasons_of(found, name, "s01", tmp_path)[Test.RESISTANT_BUDDY]
    metres = int(lower.split("it would be right ")[1].split(" m")[0])
    assert 85 < metres < 115 and "at sea level" in lower
    assert reasons_of(found, name, "s02", tmp_path)[Test.RESISTANT_BUDDY].endswith(
        "it is sea level's pressure, told as the station's"
    )


def test_where_heights_are_unknown_pressures_are_compared_by_their_changes():
    falling = 1013 - 0.2 * np.arange(REPORTS) + of_field(0, 5, 0.03)
    falling[3] = falling[3, 0]
    found = checked(*network({PRESSURE: falling.round(1)}, np.full(STATIONS, np.nan)))
    assert flagged(found, PRESSURE) == ({"s03"}, {"s03"})
    masks = found[f"{PRESSURE.to_canonical_name()}__tests_applied"].to_numpy()
    assert (masks & Test.TENDENCY).all() and not (masks & Test.RESISTANT_BUDDY).any()


WIND, VANE = variable("wind_speed", "m s-1", 10.0), variable("wind_from_direction", "degree", 10.0)
RAIN = variable("rainfall_amount", "mm", 0.0, "sum", "PT10M")
SUN = variable("surface_downwelling_shortwave_flux_in_air", "W m-2")


@pytest.fixture(scope="module")
def field():
    wind, vane = of_field(5, 0.3, 0.3, 2), of_field(0, 4, 4, 3) % 360
    rain, sun = np.abs(of_field(1, 0.2, 0.2, 4)), of_field(400, 8, 8, 5)
    vane[0] = (vane[0] + 180) % 360
    wind[1], wind[9], wind[5] = wind[1] * 3.6, wind[9] * 1.94, 0.0
    rain[2], rain[4], sun[6] = 0.0, -0.2, 0.0
    return checked(*network({WIND: wind.round(1), VANE: vane.round(1), RAIN: rain.round(2), SUN: sun.round()}))


@pytest.mark.parametrize(
    ("one", "wrong"),
    [(WIND, {"s01", "s05", "s09"}), (VANE, {"s00"}), (RAIN, {"s02", "s04"}), (SUN, {"s06"})],
    ids=["speed", "direction", "rain", "radiation"],
)
def test_what_is_wrong_in_a_field_is_flagged_and_nothing_else(field, one, wrong):
    assert flagged(field, one) == (wrong, wrong)


@pytest.mark.parametrize(
    ("one", "station", "words"),
    [
        (WIND, "s01", "km/h told as m/s"),
        (WIND, "s09", "knots told as m/s"),
        (WIND, "s05", "its cups may be seized"),
        (VANE, "s00", "its vane is turned by 1"),
    ],
)
def test_the_likely_cause_is_told(field, one, station, words, tmp_path):
    assert words in reasons_of(field, one.to_canonical_name(), station, tmp_path)[Test.RESISTANT_BUDDY]


def test_a_network_at_another_height_of_screens_and_with_means_is_a_neighbour():
    crowd, other = variable("air_temperature", "degC", 2.0), variable("air_temperature", "K", 1.5, "mean", "PT1M")
    told = np.full((1, REPORTS), 21.0)
    theirs = network({other: of_field(283, 0.3, 0.1)}, prefix="k", lat=52.01)
    found = checked(*network({crowd: told}, HEIGHTS[:1]), others=[theirs])
    assert flagged(found, crowd) == ({"s00"}, {"s00"})
    hourly = network({other.model_copy(update={"period": "PT1H"}): of_field(283, 0.3, 0.1)}, prefix="k", lat=52.01)
    assert flagged(checked(*network({crowd: told}, HEIGHTS[:1]), others=[hourly]), crowd) == (set(), set())


def test_columns_of_one_dataset_that_are_comparable_are_neighbours():
    point, mean = variable("air_temperature", "degC", 2.0), variable("air_temperature", "degC", 1.5, "mean", "PT1M")
    values = of_field(10, 0.3, 0.1)
    values[0] = 21.0
    first = np.arange(STATIONS)[:, None] == 0
    told = {point: np.where(first, values, np.nan), mean: np.where(first, np.nan, values)}
    found = checked(*network(told))
    assert flagged(found, point)[1] >= {"s00"}
    rows = pl.DataFrame(pl.from_arrow(found)).filter(pl.col("station_id") == "s00")
    assert (rows[f"{point.to_canonical_name()}__flag"] >= 3).all()
    assert (rows[f"{mean.to_canonical_name()}__flag"] == 9).all()


@pytest.mark.parametrize(
    ("name", "unit", "factor", "method", "period"),
    [
        ("precipitation_amount", "kg m-2", 1, "sum", "PT10M"),
        ("lwe_thickness_of_precipitation_amount", "m", 1e-3, "sum", "PT10M"),
        ("thickness_of_rainfall_amount", "mm", 1, "sum", "PT10M"),
        ("lwe_precipitation_rate", "m s-1", 1e-3 / 600, "mean", "PT10M"),
        ("rainfall_flux", "kg m-2 s-1", 1 / 600, "mean", "PT10M"),
    ],
)
def test_rain_is_rain_by_whichever_name(name, unit, factor, method, period):
    rain = np.abs(of_field(1, 0.2, 0.2, 4)) * factor
    rain[2], rain[4] = 0.0, -0.2 * factor
    one = variable(name, unit, 0.0, method, period)
    assert flagged(checked(*network({one: rain})), one) == ({"s02", "s04"},) * 2


def test_fine_particles_are_among_coarse_ones_and_drops_of_fog_are_told(tmp_path):
    fine, coarse = (
        variable(f"mass_concentration_of_{size}_ambient_aerosol_particles_in_air", "ug m-3", 2.0)
        for size in ("pm2p5", "pm10")
    )
    humid = variable("relative_humidity", "%", 2.0)
    told = {fine: of_field(12, 1, 1), coarse: of_field(20, 1, 1), humid: of_field(94, 0.5, 0.5)}
    told[fine][1] *= 10
    found = checked(*network(told))
    assert flagged(found, fine) == ({"s01"}, {"s01"})
    assert flagged(found, coarse) == ({"s01"}, {"s01"})
    words = reasons_of(found, fine.to_canonical_name(), "s01", tmp_path)
    assert "drops are counted as particles" in words[Test.RESISTANT_BUDDY] and Test.INTERNAL_CONSISTENCY in words


def test_what_is_not_tested_is_told_with_its_reason():
    speed, gust_direction = variable("wind_speed", "m s-1", 10.0), variable("wind_gust_from_direction", "degree", 10.0)
    told = [
        speed,
        gust_direction,
        PRESSURE,
        variable("soil_temperature", "degC", -0.1),
        variable("relative_humidity", "%", 2.0, "standard_deviation", "PT1H"),
        RAIN.model_copy(update={"dtype": "string"}),
        variable("snowfall_amount", "kg m-2").model_copy(update={"flag_column": "said"}),
    ]
    metadata = IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"),
        ingestion_map=DataIngestionMap(canonical_variables=told, metadata_variables=[]),
    )
    schema = canonical_schema([metadata])
    found = {column.split("__")[0]: why for column, why in coverage.not_tested(schema, DEFAULTS)}
    assert set(found) == {one.standard_name for one in told} - {"wind_speed"}
    assert "by its changes alone" in found["surface_air_pressure"]
    assert "no limits are known for soil_temperature" in found["soil_temperature"]
    assert "of a standard_deviation" in found["relative_humidity"]
    assert "no decimal numbers" in found["rainfall_amount"]
    assert "only what its provider says" in found["snowfall_amount"]
    assert "not compared with neighbours" in found["wind_gust_from_direction"]
    assert len(list(coverage.not_tested(schema, {}))) == len(told)
    plan = Plan.of(schema, DEFAULTS)
    assert coverage.tested(plan.tested[speed.to_canonical_name()]) == [
        "range",
        "step",
        "persistence",
        "neighbours (speed)",
    ]
