"""Writes every window of every dataset to a Parquet file in ./exported: `python export.py`."""

import asyncio
from pathlib import Path


async def write_to_parquet(df, name):
    """Stands for your own target."""
    Path("exported").mkdir(exist_ok=True)
    df.to_parquet(f"exported/{name}_{df['datetime'].min():%Y%m%dT%H%M%S}.parquet")


import pyarrow as pa
from ionbeam_client import IonbeamClient, IonbeamClientConfig
from ionbeam_client.models import DataSetAvailableEvent

config = IonbeamClientConfig(
    amqp_url="amqp://localhost:5672/",
    arrow_store_path="./data/raw/"
)

async def export_handler(event: DataSetAvailableEvent, batch_stream):
    """Process aggregated dataset batches from ionbeam."""
    async for batch in batch_stream:
        df = batch.to_pandas()
        print(f"Received {len(df)} rows from {event.metadata.name}")
        print(f"Time window: {event.start_time} to {event.end_time}")
        # Export to your target system
        await write_to_parquet(df, event.metadata.name)

client = IonbeamClient(config)
client.register_export_handler(
    exporter_name="my_exporter",
    handler=export_handler
)

async def main():
    async with client:
        await asyncio.Event().wait()

asyncio.run(main())
