"""The client of the storm: sends numbered batches and writes down what its handler gets; killed at any moment.

`python storm_client.py URL FOLDER BATCHES PAUSE`: a batch whose receipt is written down is never sent again, any other
is.
"""

import asyncio
import os
import sys
from pathlib import Path

from bus_samples import HOUR, START, STORM_METADATA, rows

from ionbeam_client import IonbeamClient, IonbeamClientConfig

ROWS, HOURS = 6, 5


def note(file, line: str) -> None:
    file.write(f"{line}\n")
    file.flush()
    os.fsync(file.fileno())


async def main(url: str, folder: Path, batches: int, pause: float) -> None:
    config = IonbeamClientConfig(amqp_url=url, state_path=folder / "state", retry_delays=(0.1, 0.1, 0.1), heartbeat=2)
    receipts, handled = (folder / "receipts").open("a+"), (folder / "handled").open("a")
    receipts.seek(0)
    known = len(receipts.readlines())
    client = IonbeamClient(config)

    @client.register_export_handler("storm")
    async def export(event, batch_stream):
        count = sum([batch.num_rows async for batch in batch_stream])
        note(handled, f"{event.start_time.isoformat()} {event.revision} {count}")

    async with client:
        for number in range(known, batches):
            start = START + number % HOURS * HOUR
            given = rows(ROWS, first=float(number), start=start, step=HOUR / ROWS, station=f"s{number}")
            note(receipts, str((await client.ingest(given, STORM_METADATA, start, start + HOUR)).id))
            await asyncio.sleep(pause)
        await client.run_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
