"""Sends what the platform asks for: `python scheduled_ingestion.py`."""

import asyncio
from datetime import timedelta

import pyarrow as pa
from ionbeam_client import IonbeamClient, IonbeamClientConfig
from ionbeam_client.models import IngestionMetadata, DatasetMetadata, DataIngestionMap, TimeAxis, LatitudeAxis, LongitudeAxis, CanonicalVariable

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


async def fetch_from_api(start_time, end_time):
    """Stands for your own source: one value every ten minutes."""
    times = [start_time + timedelta(minutes=10) * i for i in range((end_time - start_time) // timedelta(minutes=10))]
    return {
        "datetime": times,
        "lat": [52.5] * len(times),
        "lon": [13.4] * len(times),
        "air_temperature__degC__2__point__PT0S": [20.0 + time.hour * 0.5 for time in times],
    }


from datetime import datetime

config = IonbeamClientConfig(
    amqp_url="amqp://localhost:5672/",
    arrow_store_path="./data/raw/"
)

client = IonbeamClient(config)

async def fetch_and_ingest(start_time: datetime, end_time: datetime):
    """Handler invoked by ionbeam scheduler with the time window to fetch."""
    async def generate_batches():
        schema = pa.schema([
            ("datetime", pa.timestamp("ns", tz="UTC")),
            ("lat", pa.float64()),
            ("lon", pa.float64()),
            ("air_temperature__degC__2__point__PT0S", pa.float64())
        ])
        
        # Fetch data for the requested time window
        data = await fetch_from_api(start_time, end_time)
        batch = pa.RecordBatch.from_pydict(data, schema=schema)
        yield batch
    
    await client.ingest(
        batch_stream=generate_batches(),
        metadata=metadata,
        start_time=start_time,
        end_time=end_time
    )

# Register handler - source_name must match ionbeam config
client.register_trigger_handler("my_source", fetch_and_ingest)

async def main():
    async with client:
        await asyncio.Event().wait()

asyncio.run(main())
