"""The load generator: the same rows for ever, weather that looks like weather, and faults in the number asked for."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ionbeam_client.cf import check_metadata
from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import DAY, HOUR, Window, windows_between
from ionbeam_dagster.sources import installed_sources
from ionbeam_dagster.sources.ioncannon import BATCH_ROWS, IonCannon, IonCannonConfig

MIDSUMMER = datetime(2026, 6, 21, tzinfo=UTC)
FIVE_MINUTES = timedelta(minutes=5)
MORNING = Window(MIDSUMMER + 6 * HOUR, MIDSUMMER + 7 * HOUR)
POINT = ["station_id", "datetime"]


def network(**parameters: Any) -> IonCannon:
    return IonCannon("ioncannon", IonCannonConfig(**parameters))


def rows(source: IonCannon, window: Window) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches(source.fetch(window)))
    assert isinstance(frame, pl.DataFrame)
    return frame


def days(count: int, **parameters: Any) -> pl.DataFrame:
    return rows(network(**parameters), Window(MIDSUMMER, MIDSUMMER + count * DAY))


# --- the same for ever ------------------------------------------------------------------------------------------------

fractions = st.sampled_from([0.0, 0.1, 0.4])


@settings(max_examples=25)
@given(
    knobs=st.fixed_dictionaries(
        {
            **{f"{fault}_fraction": fractions for fault in ("gap", "duplicate", "late", "correction", "bad_value")},
            "late_by": st.sampled_from([FIVE_MINUTES, timedelta(minutes=7), HOUR]),
            "seed": st.integers(0, 2**63 - 1),
            "measurement_frequency_minutes": st.sampled_from([1, 5, 7, 15]),
        }
    ),
    span=st.sampled_from([1, 5, 20, 60]).map(lambda minutes: timedelta(minutes=minutes)),
)
def test_a_window_has_the_same_rows_whether_asked_for_at_once_or_in_parts(
    knobs: dict[str, Any], span: timedelta
) -> None:
    source = network(num_stations=7, **knobs)
    whole = rows(source, MORNING)
    batches = [
        batch
        for part in windows_between(MORNING.start, MORNING.end, span)
        for batch in network(num_stations=7, **knobs).fetch(part)
    ]
    parts = pl.from_arrow(pa.Table.from_batches(batches))
    assert whole.sort(whole.columns).equals(parts.sort(whole.columns))


def hash_in_another_process(results: Any) -> None:
    results.put(rows(network(num_stations=50, seed=5), MORNING).hash_rows().to_list())


def test_another_process_gives_the_same_rows() -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=hash_in_another_process, args=(results,))
    process.start()
    theirs = results.get(timeout=60)
    process.join()
    assert theirs == rows(network(num_stations=50, seed=5), MORNING).hash_rows().to_list()


def test_a_window_has_the_rows_that_it_always_had() -> None:
    """When this fails, windows that were collected earlier cannot be collected again: raise GENERATOR_VERSION."""
    first = rows(network(), Window(MORNING.start, MORNING.start + FIVE_MINUTES)).row(7, named=True)
    assert first == {
        "datetime": MORNING.start,
        "lat": 50.42321,
        "lon": 12.74567,
        "temperature": 11.8,
        "dew_point": 10.0,
        "humidity": 89.0,
        "pressure": 979.5,
        "wind_speed": 5.8,
        "wind_direction": 323.0,
        "wind_gust": 10.5,
        "rain": 0.0,
        "station_id": "SYNTH_0007",
        "altitude": "253",
        "sensor_type": "sensor_8",
        "location_type": "location_1",
    }


def test_stations_stay_where_they_are_and_what_they_are() -> None:
    described = ["station_id", "lat", "lon", "altitude", "sensor_type", "location_type"]
    summer = rows(network(num_stations=300), MORNING).select(described).unique(maintain_order=True)
    winter = Window(MORNING.start + 180 * DAY, MORNING.end + 180 * DAY)
    assert summer.height == 300
    assert summer["station_id"].to_list() == [f"SYNTH_{number:04d}" for number in range(300)]
    assert summer.select("lat", "lon").is_unique().all()
    assert summer["sensor_type"].n_unique() == summer["location_type"].n_unique() == 10
    assert rows(network(num_stations=300), winter).select(described).unique(maintain_order=True).equals(summer)
    larger = rows(network(num_stations=1000), MORNING).select(described).unique(maintain_order=True)
    assert larger.head(300).equals(summer), "a network that grows keeps its stations"
    elsewhere = rows(network(num_stations=300, seed=1), MORNING).select(described).unique(maintain_order=True)
    assert not elsewhere.select("lat", "lon").equals(summer.select("lat", "lon"))


def test_the_parameters_are_followed() -> None:
    source = network(
        num_stations=40, min_lat=-36, max_lat=-34, min_lon=149, max_lon=151, metadata_cardinality=2,
        measurement_frequency_minutes=10,
    )  # fmt: skip
    frame = rows(source, Window(MORNING.start + timedelta(minutes=1), MORNING.end + timedelta(minutes=1)))
    assert frame["lat"].is_between(-36, -34).all() and frame["lon"].is_between(149, 151).all()
    assert frame["sensor_type"].n_unique() == 2
    assert frame["datetime"].unique(maintain_order=True).to_list() == [
        MORNING.start + number * timedelta(minutes=10) for number in range(1, 7)
    ]
    [rain] = [one for one in source.metadata.ingestion_map.canonical_variables if one.column == "rain"]
    assert rain.to_canonical_name() == "precipitation_amount__kg m-2__0.0__sum__PT10M"


def test_batches_are_bounded_however_large_the_network() -> None:
    for stations, span in ((1000, DAY / 2), (2 * BATCH_ROWS + 5, FIVE_MINUTES)):
        batches = list(network(num_stations=stations).fetch(Window(MIDSUMMER, MIDSUMMER + span)))
        assert sum(batch.num_rows for batch in batches) == stations * (span // FIVE_MINUTES)
        assert max(batch.num_rows for batch in batches) <= BATCH_ROWS


# --- weather ----------------------------------------------------------------------------------------------------------


def test_values_are_possible_and_agree_with_each_other() -> None:
    frame = days(3, num_stations=300)
    assert frame.null_count().sum_horizontal().item() == 0
    assert frame.select(pl.col(pl.Float64).is_finite().all()).row(0) == (True,) * 10
    assert frame["temperature"].is_between(-5, 38).all()
    assert (frame["dew_point"] <= frame["temperature"]).all()
    assert frame["humidity"].is_between(5, 100).all()
    vapour = {
        name: np.exp(17.62 * frame[name].to_numpy() / (243.12 + frame[name].to_numpy()))
        for name in ("temperature", "dew_point")
    }
    agreed = 100 * vapour["dew_point"] / vapour["temperature"]
    assert np.abs(frame["humidity"].to_numpy() - agreed).max() <= 0.51
    assert frame["wind_speed"].is_between(0, 40).all() and (frame["wind_gust"] >= frame["wind_speed"]).all()
    assert frame["wind_direction"].is_between(0, 359).all() and frame["wind_direction"].n_unique() > 180
    assert frame["rain"].is_between(0, 5).all()


def test_values_are_rounded_as_sensors_give_them() -> None:
    frame = rows(network(num_stations=200), MORNING)
    for name in ("temperature", "dew_point", "pressure", "wind_speed", "wind_gust", "rain"):
        assert frame[name].equals(frame[name].round(1))
    for name in ("humidity", "wind_direction"):
        assert frame[name].equals(frame[name].round(0))


def test_afternoons_are_warm_and_summers_warmer_than_winters() -> None:
    frame = days(20, num_stations=30, measurement_frequency_minutes=30)
    hour = ((pl.col("datetime").dt.hour() + pl.col("lon") / 15) % 24).floor().cast(pl.Int64)
    by_hour = frame.group_by(hour.alias("hour")).agg(pl.col("temperature").mean()).sort("temperature")["hour"]
    assert by_hour[-1] in (13, 14, 15, 16) and by_hour[0] in (1, 2, 3, 4, 5)
    winter = rows(
        network(num_stations=30, measurement_frequency_minutes=30),
        Window(MIDSUMMER + 190 * DAY, MIDSUMMER + 210 * DAY),
    )
    assert frame["temperature"].mean() - winter["temperature"].mean() > 12  # type: ignore[operator]


def test_heights_and_latitudes_are_felt() -> None:
    mean = (
        days(10, num_stations=800, measurement_frequency_minutes=180)
        .group_by("station_id", "lat", pl.col("altitude").cast(pl.Float64))
        .agg(pl.col("temperature", "pressure").mean())
    )
    known = np.column_stack([np.ones(mean.height), mean["altitude"], mean["lat"]])
    [_, lapse, northward], *_ = np.linalg.lstsq(known, mean["temperature"].to_numpy(), rcond=None)
    [_, thinning, _], *_ = np.linalg.lstsq(known, mean["pressure"].to_numpy(), rcond=None)
    assert lapse == pytest.approx(-0.0065, abs=0.001)
    assert -1.2 < northward < -0.3
    assert thinning == pytest.approx(-0.115, abs=0.01)


def test_weather_changes_slowly_and_rain_starts_and_stops() -> None:
    frame = days(3, num_stations=100).sort(POINT)
    steps = frame.select(pl.col("temperature", "pressure").diff().abs().over("station_id")).drop_nulls()
    assert steps["temperature"].max() <= 1.5 and steps["pressure"].max() <= 0.8  # type: ignore[operator]
    rainy = frame.select("station_id", wet=pl.col("rain") > 0)
    starts = rainy.select((pl.col("wet") & ~pl.col("wet").shift(1)).over("station_id")).sum().item()
    wet = int(rainy["wet"].sum())
    assert 0.01 < wet / rainy.height < 0.2
    assert starts > 50 and wet / starts > 3, "a shower lasts longer than one measurement"


# --- faults -----------------------------------------------------------------------------------------------------------

DAYTIME = Window(MIDSUMMER + 8 * HOUR, MIDSUMMER + 18 * HOUR)


def share(part: pl.DataFrame, whole: pl.DataFrame) -> float:
    return part.height / whole.height


@pytest.fixture(scope="module")
def sound() -> pl.DataFrame:
    return rows(network(num_stations=200), DAYTIME)


def test_gaps_are_rows_that_never_come(sound: pl.DataFrame) -> None:
    holey = rows(network(num_stations=200, gap_fraction=0.1, late_fraction=0.1), DAYTIME)
    missing = sound.join(holey, on=POINT, how="anti").filter(pl.col("datetime") < DAYTIME.end - HOUR)
    assert share(missing, sound.filter(pl.col("datetime") < DAYTIME.end - HOUR)) == pytest.approx(0.1, abs=0.02)


def test_duplicates_are_whole_rows_sent_twice(sound: pl.DataFrame) -> None:
    doubled = rows(network(num_stations=200, duplicate_fraction=0.2), DAYTIME)
    assert doubled.height / sound.height == pytest.approx(1.2, abs=0.02)
    assert doubled.unique(maintain_order=True).equals(sound)


def test_late_rows_come_with_a_later_window(sound: pl.DataFrame) -> None:
    late_by = timedelta(hours=2)
    source = network(num_stations=200, late_fraction=0.15, late_by=late_by)
    hour = Window(DAYTIME.start, DAYTIME.start + HOUR)
    now = rows(source, hour)
    later = rows(source, Window(hour.start + late_by, hour.end + late_by))
    ours = pl.col("datetime").is_between(hour.start, hour.end, closed="left")
    assert share(later.filter(ours), sound.filter(ours)) == pytest.approx(0.15, abs=0.02)
    assert now.filter(ours).vstack(later.filter(ours)).sort(POINT).equals(sound.filter(ours).sort(POINT))
    assert now.filter(~ours)["datetime"].is_between(hour.start - late_by, hour.end - late_by, closed="left").all()


def test_corrections_replace_a_wrong_value_later(sound: pl.DataFrame) -> None:
    source = network(num_stations=200, correction_fraction=0.1, late_by=HOUR)
    hour = Window(DAYTIME.start, DAYTIME.start + HOUR)
    ours = pl.col("datetime").is_between(hour.start, hour.end, closed="left")
    now = rows(source, hour).filter(ours)
    corrections = rows(source, Window(hour.end, hour.end + HOUR)).filter(ours)
    assert share(corrections, now) == pytest.approx(0.1, abs=0.02)
    wrong = now.join(sound, on=POINT).filter(pl.col("temperature") != pl.col("temperature_right"))
    assert wrong.sort(POINT).select(POINT).equals(corrections.sort(POINT).select(POINT))
    both = now.vstack(corrections).unique(POINT, keep="last", maintain_order=True)
    assert both.sort(POINT).equals(sound.filter(ours).sort(POINT))
    across = rows(source, Window(hour.start, hour.end + HOUR)).filter(ours)
    assert across.unique(POINT, keep="last").sort(POINT).equals(sound.filter(ours).sort(POINT))


def test_bad_values_are_of_every_kind(sound: pl.DataFrame) -> None:
    bad = rows(network(num_stations=200, bad_value_fraction=0.12), DAYTIME)
    kinds = {
        "not a number": pl.col("temperature").is_nan(),
        "far too cold": pl.col("temperature") < -100,
        "far too humid": pl.col("humidity") > 100,
        "no pressure": pl.col("pressure") <= 0,
        "no place": pl.col("lat").is_null() & pl.col("lon").is_null(),
        "impossible place": pl.col("lat") > 90,
    }
    assert bad.height == sound.height
    for condition in kinds.values():
        assert share(bad.filter(condition), bad) == pytest.approx(0.02, abs=0.005)
    assert share(bad.filter(pl.any_horizontal(kinds.values())), bad) == pytest.approx(0.12, abs=0.015)


# --- as a source ------------------------------------------------------------------------------------------------------


def test_names_and_units_are_known_and_every_row_can_be_used() -> None:
    source = network(num_stations=50)
    assert check_metadata(source.metadata) == []
    assert source.metadata.dataset.name == "ioncannon"
    for batch in source.fetch(MORNING):
        canonical = canonicalise(batch, source.metadata)
        assert canonical.rows.height == batch.num_rows == 600 and canonical.rejected.height == 0


def test_it_is_found_and_configured_by_its_entry_point() -> None:
    kind = installed_sources()["ioncannon"].load()
    source = kind("gun", kind.Config(dataset="trial", aggregation_span=DAY))
    assert source.metadata.dataset.name == "trial" and source.metadata.dataset.aggregation_span == DAY


def test_the_signature_tells_other_rows_from_other_places() -> None:
    signature = network().signature(MORNING)
    assert network(data_path=Path("elsewhere"), aggregation_span=DAY).signature(MORNING) == signature
    others = [network(seed=1), network(num_stations=2), network(late_by=2 * HOUR), network(gap_fraction=0.1)]
    assert len({signature, *(other.signature(MORNING) for other in others)}) == 5


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"min_lat": 55, "max_lat": 47}, "min_lat must be below max_lat"),
        ({"late_fraction": 0.6, "correction_fraction": 0.6}, "must not exceed 1"),
        ({"gap_fraction": 1.5}, "less than or equal to 1"),
        ({"num_stations": 0}, "greater than or equal to 1"),
        ({"late_by": timedelta(0)}, "greater than 0"),
        ({"stations": 3}, "Extra inputs"),
    ],
)
def test_a_network_that_cannot_be_is_refused(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        IonCannonConfig(**parameters)
