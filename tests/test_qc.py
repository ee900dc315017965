"""Quality control of whole windows: the same flags however rows come, in bounded memory, and what they depend on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

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
from ionbeam_dagster.domain.canonical import canonical_schema, columns_of, point_key
from ionbeam_dagster.domain.quality import Test
from ionbeam_dagster.domain.quality.limits import DEFAULTS
from ionbeam_dagster.domain.quality.plan import Plan
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline import quality_control as qc
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.explained import explained
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources.ioncannon import IonCannon, IonCannonConfig

START = datetime(2026, 6, 21, 10, tzinfo=UTC)
HOUR = Window(START, START + timedelta(hours=1))
LATER = START + timedelta(days=2)
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"


def rows_of(stations: int, seed: int = 0) -> tuple[pa.Schema, pl.DataFrame]:
    """Three hours of a network in the order of a store, and its schema."""
    source = IonCannon("crowd", IonCannonConfig(num_stations=stations, seed=seed, max_lat=48, max_lon=6.5))
    schema = canonical_schema([source.metadata])
    raw = pl.concat(pl.DataFrame(pl.from_arrow(b)) for b in source.fetch(Window(START - timedelta(hours=2), HOUR.end)))
    names = {v.column: v.to_canonical_name() for v in source.metadata.ingestion_map.canonical_variables}
    return schema, raw.rename(names).select(schema.names).sort("station_id", "datetime")


def checked(schema, rows, cut=10_000, others=()):
    plan = Plan.of(schema, DEFAULTS)
    batches = rows.to_arrow().cast(schema).to_batches(max_chunksize=cut)
    found = qc.checked(qc.Network(plan, point_key(schema), batches), others, HOUR, schema)
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(found, plan.schema(schema))))


def failed(found, column=TEMPERATURE):
    return found.filter(pl.col(f"{column}__flag").is_in([3, 4])).select("station_id", "datetime")


@pytest.fixture(scope="module")
def network():
    schema, rows = rows_of(200)
    warm = (pl.col("station_id") == "SYNTH_0007") & (pl.col("datetime") == START + timedelta(minutes=30))
    return schema, rows.with_columns(pl.when(warm).then(45.0).otherwise(pl.col(TEMPERATURE)).alias(TEMPERATURE))


def test_every_row_comes_out_once_in_order_with_its_values_and_an_error_is_found(network):
    schema, rows = network
    found = checked(schema, rows)
    assert found.select(schema.names).equals(rows.filter(pl.col("datetime") >= START))
    bad = found.filter(pl.col(f"{TEMPERATURE}__flag") == 4).select("station_id", "datetime")
    assert bad.rows() == [("SYNTH_0007", START + timedelta(minutes=30))]
    assert failed(found).height < 0.01 * found.height
    (mask,) = found.filter(pl.col(f"{TEMPERATURE}__flag") == 4)[f"{TEMPERATURE}__tests_failed"]
    assert mask & Test.SPIKE and mask & Test.BUDDY and not mask & Test.STEP


@pytest.mark.parametrize("cut", [7, 1000])
def test_flags_do_not_depend_on_how_rows_are_cut(network, cut, monkeypatch):
    schema, rows = network
    whole = checked(schema, rows)
    monkeypatch.setattr(qc, "_BLOCK", 500)
    monkeypatch.setattr(qc, "_PART", 30)  # of the 400 in a slice
    assert checked(schema, rows, cut).equals(whole)


def test_the_hours_before_the_window_count(network):
    schema, rows = network
    stuck = rows.with_columns(
        pl.when(pl.col("station_id") == "SYNTH_0003").then(21.3).otherwise(pl.col(TEMPERATURE)).alias(TEMPERATURE)
    )
    by_persistence = pl.col(f"{TEMPERATURE}__tests_failed") & int(Test.PERSISTENCE) > 0
    found = checked(schema, stuck).filter(by_persistence)
    assert set(found["station_id"]) == {"SYNTH_0003"} and found.height == 12
    alone = checked(schema, stuck.filter(pl.col("datetime") >= START)).filter(by_persistence)
    assert alone.height == 0


def test_neighbours_of_other_datasets_are_listened_to(network):
    schema, rows = network
    few = rows.filter(pl.col("station_id") == "SYNTH_0007")
    lonely = checked(schema, few)
    masks = lonely[f"{TEMPERATURE}__tests_failed"].to_numpy()
    assert not (masks & Test.BUDDY).any() and (masks & Test.ISOLATION).all()
    others = rows.filter((pl.col("station_id") != "SYNTH_0007") & (pl.col("datetime") >= START))
    batches = others.to_arrow().cast(schema).to_batches()
    found = checked(schema, few, others=[qc.Network(Plan.of(schema, DEFAULTS), point_key(schema), batches)])
    assert found.height == 12 and failed(found.filter(pl.col(f"{TEMPERATURE}__flag") == 4)).height == 1


@pytest.mark.parametrize("value", [None, 400.0])
def test_a_window_without_a_usable_value_is_flagged_all_the_same(network, value):
    schema, rows = network
    found = checked(schema, rows.with_columns(pl.lit(value, pl.Float64).alias(TEMPERATURE)))
    assert found[f"{TEMPERATURE}__flag"].unique().to_list() == [9 if value is None else 4]


def test_no_row_is_no_error(network):
    schema, rows = network
    assert checked(schema, rows.clear()).height == 0


SOURCES = """
  crowd: {type: ioncannon, num_stations: 40, start: 2026-06-21, bad_value_fraction: 0.2}
  other: {type: ioncannon, num_stations: 40, seed: 5, start: 2026-06-21%s}
"""


def made(platform, *names):
    for name in names:
        for minutes in range(0, 60, 5):
            at = START + timedelta(minutes=minutes)
            collect(platform, platform.source(name), Window(at, at + timedelta(minutes=5)), LATER)
            ingest(platform, platform.source(name), Window(at, at + timedelta(minutes=5)))
    return [build(platform, platform.dataset(name), HOUR, LATER, insist=True).revision for name in names]


def test_a_dataset_file_has_the_flags_and_says_what_they_depend_on(platform_of):
    platform = platform_of(SOURCES % "")
    crowd, other = made(platform, "crowd", "other")
    schema = pq.read_schema(crowd.path)
    assert len([n for n in columns_of(schema, "quality") if n.endswith("__flag")]) == 8
    field = schema.field(f"{TEMPERATURE}__tests_failed")
    assert field.metadata[b"flag_meanings"].split()[0] == b"gross_range"
    assert field.metadata[b"of"].decode() == TEMPERATURE
    counted = crowd.facts.flags[TEMPERATURE]
    assert counted["fail"] > 0 and sum(counted.values()) == crowd.facts.rows
    frame = pl.read_parquet(crowd.path)
    assert frame.filter(pl.col(TEMPERATURE) < -100)[f"{TEMPERATURE}__flag"].unique().to_list() == [4]
    assert b'"neighbours": {"other"' in schema.metadata[b"ionbeam"]
    assert b'"neighbours": {"crowd"' in pq.read_schema(other.path).metadata[b"ionbeam"]
    assert np.isin(frame[f"{TEMPERATURE}__flag"].to_numpy(), [1, 2, 3, 4, 9]).all()


def test_rows_pass_through_the_folder_of_the_state_which_may_lie_on_a_larger_disk(platform_of, monkeypatch):
    platform = platform_of(SOURCES % "")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    (crowd,) = made(platform, "crowd")
    assert crowd.facts.rows and list((platform.config.sections.state_path / "drafts").iterdir())


def test_quality_control_can_be_off_or_told_otherwise(platform_of):
    platform = platform_of(SOURCES % ", quality: off")
    (plain,) = made(platform, "other")
    assert columns_of(pq.read_schema(plain.path), "quality") == []
    platform = platform_of(SOURCES % ", quality: {air_temperature: {range: [-80, -79]}, relative_humidity: off}")
    assert platform.dataset("other").limits["air_temperature"].range == (-80, -79)
    assert "relative_humidity" not in platform.dataset("other").limits


def test_every_verdict_in_the_file_is_explained_with_its_numbers(platform_of):
    platform = platform_of(SOURCES.replace("num_stations: 40", "num_stations: 400, max_lat: 48.5, max_lon: 6.5") % "")
    (crowd,) = made(platform, "crowd")
    frame = pl.read_parquet(crowd.path)
    bad = frame.filter(pl.col(TEMPERATURE) < -100).row(0, named=True)
    told = explained(Path(crowd.path), bad["station_id"], bad["datetime"], platform.dataset("crowd").limits)
    assert told.time == bad["datetime"]
    of_temperature = {
        reason.test: (reason.words, failed) for reason, failed in told.reasons if reason.column == TEMPERATURE
    }
    assert of_temperature[Test.GROSS_RANGE] == ("-146.1; possible is -80 to 60 degC", True)
    good = frame.filter((pl.col(f"{TEMPERATURE}__tests_applied") & int(Test.SPATIAL_CONSISTENCY)) > 0).row(
        5, named=True
    )
    told = explained(Path(crowd.path), good["station_id"], good["datetime"], platform.dataset("crowd").limits)
    words = {reason.test: reason.words for reason, _ in told.reasons if reason.column == TEMPERATURE}
    assert sum(words) == good[f"{TEMPERATURE}__tests_applied"] and all(words.values())
    assert "neighbours at its height is" in words[Test.BUDDY] and "score" in words[Test.SPATIAL_CONSISTENCY]
    with pytest.raises(PipelineError, match="has no station 'NOBODY'"):
        explained(Path(crowd.path), "NOBODY", good["datetime"], platform.dataset("crowd").limits)


def test_an_error_that_lasts_is_bad_and_one_box_with_many_stations_counts_once(network):
    schema, rows = network
    flags, tenth = pl.col(f"{TEMPERATURE}__flag"), pl.col("station_id").str.ends_with("5")
    warm = rows.with_columns(
        pl.when(tenth).then(pl.col(TEMPERATURE) + 8).otherwise(pl.col(TEMPERATURE)).alias(TEMPERATURE)
    )
    compared = (pl.col(f"{TEMPERATURE}__tests_applied") & int(Test.LASTING)) > 0
    found = checked(schema, warm).filter(tenth & compared)
    assert found["station_id"].n_unique() > 10 and (found[f"{TEMPERATURE}__flag"] == 4).mean() > 0.9
    box = found["station_id"][0]
    alone = rows.filter(pl.col("station_id") == box).with_columns(pl.col(TEMPERATURE) + 30)
    many = [alone.with_columns(pl.lit(f"{box}_{number}").alias("station_id")) for number in range(2)]
    together = checked(
        schema, pl.concat([rows.filter(pl.col("station_id") != box), *many]).sort("station_id", "datetime")
    )
    in_box = pl.col("station_id").str.starts_with(box)
    assert together.filter(in_box)[f"{TEMPERATURE}__flag"].min() >= 3
    assert together.filter(~in_box & (pl.col("station_id") != "SYNTH_0007") & (flags == 4)).is_empty()


@pytest.mark.parametrize(("method", "contradicted"), [("minimum", False), ("mean", True)])
def test_a_dew_point_is_held_against_the_temperature_of_its_own_method_and_period(method, contradicted):
    variables = [
        CanonicalVariable(column=name, standard_name=name, cf_unit="degC", level=1.5, method=how, period=period)
        for name, how, period in [
            ("air_temperature", method, "PT10M" if method == "minimum" else "PT1M"),
            ("dew_point_temperature", "mean", "PT1M"),
        ]
    ]
    metadata = IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"),
        ingestion_map=DataIngestionMap(
            canonical_variables=variables, metadata_variables=[MetadataVariable(column="station_id")]
        ),
    )
    schema = canonical_schema([metadata])
    values = {"air_temperature": 12.2, "dew_point_temperature": 12.9}
    named = {v.to_canonical_name(): values[v.standard_name] for v in variables}
    row = {"datetime": START, "lat": 52.0, "lon": 5.0, "station_id": "A", **named}
    found = checked(schema, pl.DataFrame([row]).select(schema.names))
    flags = [found[f"{name}__flag"][0] for name in named]
    assert flags == ([3, 3] if contradicted else [1, 1])
