"""The models that clients and the platform share: what they accept, refuse and write."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestDataCommand,
    IngestionMetadata,
    LatitudeAxis,
    MetadataVariable,
    StartSourceCommand,
    TimeAxis,
    format_duration,
    parse_duration,
)

TEMPERATURE = CanonicalVariable(column="T", standard_name="air_temperature", cf_unit="degC", level=2.0)


def metadata(**changes: object) -> IngestionMetadata:
    ingestion_map = DataIngestionMap(canonical_variables=[TEMPERATURE])
    return IngestionMetadata(dataset=DatasetMetadata(name="example_weather"), ingestion_map=ingestion_map, **changes)


def test_defaults_are_those_of_the_specification():
    variable = CanonicalVariable(column="x", standard_name="wind_speed", cf_unit="m s-1")
    assert (variable.level, variable.method, variable.period, variable.dtype) == (0.0, "point", "PT0S", "float64")
    assert MetadataVariable(column="station_id").dtype == "string"
    assert TimeAxis().from_col is None
    assert LatitudeAxis(standard_name="latitude", cf_unit="degrees_north").column == "lat"
    assert metadata().dataset.aggregation_span == timedelta(days=1)
    assert metadata().dataset.subject_to_change_window == timedelta(0)
    assert metadata().version == 1


def test_a_canonical_name_is_written_with_a_decimal_level_and_read_with_or_without():
    name = "air_temperature__degC__2.0__point__PT0S"
    assert TEMPERATURE.to_canonical_name() == name
    assert CanonicalVariable.from_canonical_name("air_temperature__degC__2__point__PT0S").to_canonical_name() == name
    with pytest.raises(ValueError, match="is not a canonical name"):
        CanonicalVariable.from_canonical_name("air_temperature__degC")


@given(
    st.floats(-500, 50_000, allow_nan=False),
    st.sampled_from(["point", "mean", "sum", "maximum"]),
    st.sampled_from(["PT0S", "PT5M", "PT1H", "P1D"]),
    st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters=" -/%"), min_size=1),
)
def test_a_canonical_name_comes_back_as_the_variable_it_was_made_of(level, method, period, unit):
    made = CanonicalVariable(
        column="c", standard_name="air_temperature", cf_unit=unit, level=level, method=method, period=period
    )
    assert CanonicalVariable.from_canonical_name(made.to_canonical_name(), column="c") == made


@pytest.mark.parametrize("wrong", ["object", "float", "<f8", ""])
def test_a_dtype_that_no_column_can_have_is_refused(wrong):
    with pytest.raises(ValidationError, match="float64"):
        CanonicalVariable(column="x", standard_name="wind_speed", cf_unit="m s-1", dtype=wrong)


def test_naive_times_are_refused_and_others_kept_in_utc():
    with pytest.raises(ValidationError, match="timezone"):
        StartSourceCommand(source_name="a", start_time=datetime(2024, 1, 1), end_time=datetime(2024, 1, 2, tzinfo=UTC))
    command = StartSourceCommand(
        source_name="a", start_time="2024-01-01T02:00:00+02:00", end_time=datetime(2024, 1, 2, tzinfo=UTC)
    )
    assert command.start_time == datetime(2024, 1, 1, tzinfo=UTC) and command.start_time.tzinfo is UTC


def test_a_range_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValidationError, match="must be later than"):
        StartSourceCommand(source_name="a", start_time="2024-01-02T00:00Z", end_time="2024-01-01T00:00Z")


def test_an_older_clients_json_is_read_and_only_there_are_unknown_fields_ignored():
    written = {
        "id": str(uuid4()),
        "metadata": metadata().model_dump(mode="json") | {"retention": "P7D"},
        "payload_location": "raw/example.parquet",
        "start_time": "2024-01-01T00:00:00Z",
        "end_time": "2024-01-02T00:00:00Z",
        "hops": 3,
    }
    command = IngestDataCommand.from_wire(json.dumps(written))
    assert command.payload_location == Path("raw/example.parquet")
    assert IngestDataCommand.from_wire(command.model_dump_json()) == command
    with pytest.raises(ValidationError, match="hops"):
        IngestDataCommand.model_validate(written)
    with pytest.raises(ValidationError, match="retention"):
        metadata(retention="P7D")


def test_two_columns_of_one_canonical_name_are_refused():
    with pytest.raises(ValidationError, match=r"air_temperature__degC__2\.0__point__PT0S"):
        DataIngestionMap(canonical_variables=[TEMPERATURE, TEMPERATURE.model_copy(update={"column": "T2"})])


@pytest.mark.parametrize("name", ["../etc", "a b", "", "9lives", "netatmo:raw"])
def test_a_name_that_could_not_be_part_of_a_path_is_refused(name):
    with pytest.raises(ValidationError):
        DatasetMetadata(name=name)


def test_durations_are_iso_8601():
    assert parse_duration("PT05M") == timedelta(minutes=5)
    assert [format_duration(parse_duration(text)) for text in ("PT5M", "PT1H", "P1D", "P7D")] == [
        "PT5M", "PT1H", "P1D", "P7D",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="right would be"):
        parse_duration("5 minutes")
