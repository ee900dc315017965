"""Keeps the windows of two datasets in a small database: `python filtered_export.py`."""

import asyncio
import sqlite3

from ionbeam_client import IonbeamClient, IonbeamClientConfig
from ionbeam_client.models import DataSetAvailableEvent

client = IonbeamClient(IonbeamClientConfig(amqp_url="amqp://localhost:5672/", arrow_store_path="./data/raw/"))


async def write_to_database(df):
    """Stands for your own target."""
    with sqlite3.connect("exported.sqlite") as database:
        df.to_sql("observations", database, if_exists="append", index=False)


async def export_netatmo(event: DataSetAvailableEvent, batch_stream):
    """Only processes netatmo datasets."""
    async for batch in batch_stream:
        df = batch.to_pandas()
        await write_to_database(df)

client.register_export_handler(
    exporter_name="netatmo_exporter",
    handler=export_netatmo,
    dataset_filter={"netatmo", "netatmo_mqtt"}
)


async def main():
    async with client:
        await asyncio.Event().wait()

asyncio.run(main())
