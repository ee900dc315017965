"""Windows to ask questions of: GeoParquet files as the exporter writes them, of a small network with known values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_client.models import MetadataVariable as Described
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.edr.service import EDR_PLUGIN, Service
from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter
from ionbeam_dagster.stores.publish import published

START = datetime(2025, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TEMPERATURE = "air_temperature:2.0:point:PT0S"
WIND = "wind_speed:10.0:mean:PT10M"
RAIN = "precipitation_amount:0.0:sum:PT5M"
# Around the date line, a pole, the null meridian; a station's number is its place in this list.
PLACES = [(5.0, 52.0), (5.1, 52.1), (6.0, 51.0), (179.9, -17.0), (-179.9, -17.1), (0.0, 89.9), (-70.0, -33.0)]


def schema_of(unit: str = "degC", flags: bool = False, described: tuple[str, ...] = ("station_id", "station_name")):
    variables = [
        CanonicalVariable(column="t", standard_name="air_temperature", cf_unit=unit, level=2),
        CanonicalVariable(
            column="w", standard_name="wind_speed", cf_unit="m s-1", level=10, method="mean", period="PT10M"
        ),
        CanonicalVariable(
            column="r", standard_name="precipitation_amount", cf_unit="kg m-2", method="sum", period="PT5M"
        ),
    ]
    schema = canonical_schema(
        [
            IngestionMetadata(
                dataset=DatasetMetadata(name="net"),
                ingestion_map=DataIngestionMap(
                    canonical_variables=variables, metadata_variables=[Described(column=name) for name in described]
                ),
            )
        ]
    )
    if not flags:
        return schema
    of = next(name for name in schema.names if name.startswith("air_temperature"))
    about = {"role": "quality", "of": of, "kind": "flag"}
    return schema.append(pa.field(f"{of}__flag", pa.uint8(), metadata=about))


def write_window(
    folder: Path,
    hour: int,
    *,
    add: float = 0.0,
    unit: str = "degC",
    flags: bool = False,
    places: list[tuple[float, float]] = PLACES,
    described: tuple[str, ...] = ("station_id", "station_name"),
    times: int = 6,
    move: float = 0.0,
) -> Path:
    """The window of the `hour`-th hour: each station every ten minutes. A temperature is station + hour/100 + `add`."""
    window = Window(START + hour * HOUR, START + (hour + 1) * HOUR)
    schema = schema_of(unit, flags, described)
    station = np.repeat(np.arange(len(places)), times)
    step = np.tile(np.arange(times), len(places))
    lon, lat = (np.array(side)[station] for side in zip(*places, strict=True))
    columns = {
        "datetime": np.datetime64(window.start.replace(tzinfo=None), "us") + step * np.timedelta64(600, "s"),
        "lon": lon + move * step,
        "lat": lat,
        "air_temperature": station + hour / 100 + add,
        "wind_speed": np.where(station % 2, station * 1.0, np.nan),
        "precipitation_amount": np.full(len(station), np.nan),
        "station_id": np.array([f"s{number}" for number in station]),
        "station_name": np.array([f"Station {number}" for number in station]),
        "wigos_id": np.array([f"0-276-0-S{number}" for number in station]),
    }
    arrays = [
        pa.array(np.where(station == 0, 4, 1), pa.uint8())
        if field.name.endswith("__flag")
        else pa.array(columns[field.name.split("__")[0]], field.type, from_pandas=True)
        for field in schema
    ]
    source = folder.parent / f".source-{hour}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), source)
    target = folder / f"net_{window.label}.parquet"
    with published(target) as draft:
        GeoParquetExporter().export(source, draft)
    source.unlink()
    return target


def service_of(folder: Path, **resource) -> Service:
    provider = {"type": "edr", "name": EDR_PLUGIN, "data": str(folder)}
    resource |= {"type": "collection", "providers": [provider]}
    return Service({"resources": {"net": resource}}, "http://service.test")
