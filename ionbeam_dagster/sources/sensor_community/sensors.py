"""What Sensor.Community's sensors measure, and how a sensor is told from another.

Belongs here: the quantities by their names in the network's files, and the columns that every row has. Does not belong
here: where rows come from (archive.py, live.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    LatitudeAxis,
    Link,
    LongitudeAxis,
    MetadataVariable,
    TimeAxis,
)
from ionbeam_dagster.sources import Source

_PM = "mass_concentration_of_{}_ambient_aerosol_particles_in_air"
_COUNT = "number_concentration_of_{}_aerosol_particles_in_air"
_HEIGHT = 2.0  # the network asks for boxes between 1.5 and 4 m above the street, and does not say where one hangs

QUANTITIES: dict[str, tuple[str, str, float]] = {
    "temperature": ("air_temperature", "degC", _HEIGHT),
    "humidity": ("relative_humidity", "%", _HEIGHT),
    "pressure": ("surface_air_pressure", "Pa", 0.0),
    "pressure_sealevel": ("air_pressure_at_mean_sea_level", "Pa", 0.0),
    "P1": (_PM.format("pm10"), "ug m-3", _HEIGHT),
    "P2": (_PM.format("pm2p5"), "ug m-3", _HEIGHT),
    "P0": (_PM.format("pm1"), "ug m-3", _HEIGHT),
    "P4": ("x_" + _PM.format("pm4"), "ug m-3", _HEIGHT),
    "N10": (_COUNT.format("pm10"), "cm-3", _HEIGHT),
    "N25": (_COUNT.format("pm2p5"), "cm-3", _HEIGHT),
    "N4": ("x_" + _COUNT.format("pm4"), "cm-3", _HEIGHT),
    "N1": ("x_" + _COUNT.format("pm1"), "cm-3", _HEIGHT),
    "N05": ("x_" + _COUNT.format("pm0p5"), "cm-3", _HEIGHT),
    "TS": ("x_typical_particle_size", "um", _HEIGHT),
}
"""CF name (or a local one), unit and height in m of each quantity, by its name in the archive."""

SENSOR_TYPES = frozenset(
    {
        "sds011", "sds021", "ppd42ns", "pms1003", "pms3003", "pms5003", "pms6003", "pms7003", "hpm", "sps30",
        "dht11", "dht22", "htu21d", "sht10", "sht11", "sht15", "sht30", "sht31", "sht35", "sht85", "ds18b20",
        "bmp180", "bmp280", "bme280",
    }
)  # fmt: skip
"""The types whose columns are known, as they stand in the names of files."""

DESCRIBED = ("station_id", "platform_id", "mobility", "station_height", "indoor", "sensor_type", "location_id")

SCHEMA = dict.fromkeys(["timestamp", "lat", "lon", *QUANTITIES, *DESCRIBED], pl.String())
"""The columns of every batch, all as text, as the network writes them."""


def metadata(source: Source) -> IngestionMetadata:
    """How the rows of either source are to be read; ``station_id`` is a sensor's number after ``SC``."""
    return IngestionMetadata(
        dataset=source.described(
            "Dust and climate sensors of the citizens' network Sensor.Community",
            [Link(href="https://sensor.community", title="Sensor.Community")],
            ["Sensor.Community", "crowd-sourced", "air quality", "particulate matter"],
        ),
        ingestion_map=DataIngestionMap(
            datetime=TimeAxis(from_col="timestamp"),
            lat=LatitudeAxis(from_col="lat"),
            lon=LongitudeAxis(from_col="lon"),
            canonical_variables=[
                CanonicalVariable(column=column, standard_name=name, cf_unit=unit, level=level)
                for column, (name, unit, level) in QUANTITIES.items()
            ],
            metadata_variables=[MetadataVariable(column=column) for column in DESCRIBED],
        ),
    )


def shaped(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows`, with the columns ``platform_id``, ``indoor`` and those that there are of SCHEMA, in all columns of it."""
    identity = {"station_id": "SC" + pl.col("platform_id"), "mobility": pl.lit("fixed")}
    missing = {name: pl.lit(None, pl.String()) for name in SCHEMA if name not in rows.columns and name not in identity}
    return rows.with_columns(**identity, **missing).select(*SCHEMA)


def batches(rows: pl.DataFrame) -> Iterator[pa.RecordBatch]:
    """`rows` as Arrow: one batch, however the threads of Polars cut them, so that the same rows give the same file."""
    yield from rows.rechunk().to_arrow().combine_chunks().to_batches()
