"""Observations and metadata for the client's tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from ionbeam_client import wire
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DataSetAvailableEvent,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
METADATA = IngestionMetadata(
    dataset=DatasetMetadata(name="example_weather", aggregation_span=timedelta(hours=1)),
    ingestion_map=DataIngestionMap(
        canonical_variables=[
            CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC", level=2.0),
            CanonicalVariable(column="n", standard_name="number_of_observations", cf_unit="1", dtype="int32"),
        ],
        metadata_variables=[MetadataVariable(column="station_id"), MetadataVariable(column="indoor", dtype="bool")],
    ),
)
SCHEMA = wire.declared_schema(METADATA)


def rows(count: int = 24, *, first: float = 20.0, start: datetime = START) -> pa.Table:
    """One row a minute; the temperatures are `first`, `first` + 0.5, ..."""
    return pa.table(
        {
            "datetime": pa.array([start + timedelta(minutes=i) for i in range(count)], wire.TIME),
            "lat": [52.5] * count,
            "lon": [13.4] * count,
            "t": [None if i % 10 == 9 else first + i * 0.5 for i in range(count)],
            "n": list(range(count)),
            "station_id": [f"s{i % 7}" for i in range(count)],
            "indoor": [i % 2 == 0 for i in range(count)],
        },
        schema=SCHEMA,
    )


def event(revision: int = 1, hour: int = 0, dataset: str = "example_weather", **more: object) -> DataSetAvailableEvent:
    start = START + timedelta(hours=hour)
    return DataSetAvailableEvent(
        metadata=DatasetMetadata(name=dataset),
        dataset_location="in-the-message",
        start_time=start,
        end_time=start + timedelta(hours=1),
        revision=revision,
        **more,
    )


async def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Wait for a condition; fails when it does not come true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
