"""Sends one day of one station, once: `python basic_ingestion.py`."""

import asyncio
from datetime import datetime, timezone
import pyarrow as pa
from ionbeam_client import IonbeamClient, IonbeamClientConfig
from ionbeam_client.models import IngestionMetadata, DatasetMetadata, DataIngestionMap, TimeAxis, LatitudeAxis, LongitudeAxis, CanonicalVariable

config = IonbeamClientConfig(
    amqp_url="amqp://localhost:5672/",
    arrow_store_path="./data/raw/"
)

metadata = IngestionMetadata(
    dataset=DatasetMetadata(
        name="example_weather",
        description="Example weather data",
        source_links=[],
        keywords=["weather"]
    ),
    ingestion_map=DataIngestionMap(
        datetime=TimeAxis(),
        lat=LatitudeAxis(standard_name="latitude", cf_unit="degrees_north"),
        lon=LongitudeAxis(standard_name="longitude", cf_unit="degrees_east"),
        canonical_variables=[
            CanonicalVariable(
                column="air_temperature__degC__2__point__PT0S",
                standard_name="air_temperature",
                cf_unit="degC",
                level=2.0
            )
        ],
        metadata_variables=[]
    )
)

async def generate_batches():
    """Generate sample Arrow RecordBatches."""
    schema = pa.schema([
        ("datetime", pa.timestamp("ns", tz="UTC")),
        ("lat", pa.float64()),
        ("lon", pa.float64()),
        ("air_temperature__degC__2__point__PT0S", pa.float64())
    ])
    
    data = {
        "datetime": [datetime(2024, 1, 1, i, tzinfo=timezone.utc) for i in range(24)],
        "lat": [52.5] * 24,
        "lon": [13.4] * 24,
        "air_temperature__degC__2__point__PT0S": [20.0 + i * 0.5 for i in range(24)]
    }
    
    batch = pa.RecordBatch.from_pydict(data, schema=schema)
    yield batch

async def main():
    async with IonbeamClient(config) as client:
        await client.ingest(
            batch_stream=generate_batches(),
            metadata=metadata,
            start_time=datetime(2024, 1, 1, tzinfo=timezone.utc),
            end_time=datetime(2024, 1, 2, tzinfo=timezone.utc)
        )

asyncio.run(main())
