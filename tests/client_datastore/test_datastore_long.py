"""Much data over a connection that breaks twenty times: none lost, none doubled, and memory that does not grow."""

import json
import os
import random
import subprocess
import sys

import pytest
from long_service import LongService
from restream_service import TOKEN

READ = """
import asyncio, json, sys
from datetime import datetime, timedelta
from ionbeam_client.datastore import Site

def checked(items):
    count, last = 0, ""
    for item in items:
        assert item["time"] > last, (count, last, item)
        count, last = count + 1, item["time"]
    return count, last

async def awaited():
    count, last = 0, ""
    async for item in (await Site(id=1).aget_data()).data_fetcher:
        assert item["time"] > last, (count, last, item)
        count, last = count + 1, item["time"]
    return count, last

def saved():
    Site(id=1).get_data().save("data.csv")
    with open("data.csv") as file:
        next(file)
        return checked({"time": line.partition(",")[0]} for line in file)

ways = {"blocking": lambda: checked(Site(id=1).get_data().data_fetcher), "asyncio": lambda: asyncio.run(awaited()),
        "csv": saved}
count, last = ways[sys.argv[1]]()
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps([count, last, peak]))
"""


@pytest.mark.parametrize("way", ["blocking", "asyncio", "csv"])
@pytest.mark.parametrize(
    ("count", "last"),
    [
        (100_000, "2025-01-02T03:46:39Z"),
        pytest.param(10_000_000, "2025-04-26T17:46:39Z", marks=pytest.mark.soak),
    ],
)
def test_twenty_cuts_lose_nothing_and_double_nothing(tmp_path, count, last, way):
    cuts = tuple(random.Random(7).sample(range(count), 20))
    with LongService(count, cuts) as service:
        environment = os.environ | {"RESTREAM_HOST": service.url, "TALLY_AUTH_TOKEN": TOKEN}
        done = subprocess.run([sys.executable, "-c", READ, way], cwd=tmp_path, env=environment, check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    had, had_last, peak_megabytes = json.loads(done.stdout)
    assert (had, had_last) == (
        count,
        last,
    )  # seconds in strict order, as many as there are between the two: all of them
    assert service.requests == 21
    assert peak_megabytes < 100
