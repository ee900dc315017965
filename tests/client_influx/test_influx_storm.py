"""Programs and servers are killed at random, and a second server fails four times out of ten: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from backends import Missing, start_influxdb
from influx_faults import T0, Bucket, Faulty, configuration, ids_in_log, program, sometimes

WRITER = """
import json, os
from multiprocessing import get_context
from eht_influx_client import EHTInfluxDBClient

def rows(numbers):
    api.write(record=[{"measurement": "m", "tags": {"station": str(n % 7)}, "time": 1617672549000000000 + n,
                       "fields": {"id": n, "x": n if n % BAD == BAD - 1 else n / 4 + 0.125}} for n in numbers])

size, batches, way, BAD = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
client = EHTInfluxDBClient(**json.loads(sys.argv[1]))
api = client.write_api()
pool = get_context("fork").Pool(4) if way == "pool" else None
for batch in range(int(sys.argv[6]), batches):
    numbers = range(batch * size, (batch + 1) * size)
    if pool is None:
        rows(numbers)
    else:
        pool.map(rows, [numbers[part::4] for part in range(4)], 1)
    os.write(1, f"{batch}\\n".encode())
if pool is not None:
    pool.close()
    pool.join()
client.close()
print(json.dumps([one.waiting_bytes for one in client.__class__(**json.loads(sys.argv[1])).status()]))
"""


@pytest.fixture
def another_influxdb(tmp_path):
    """An influxd of the test's own, to be killed."""
    (tmp_path / "influxdb").mkdir()
    try:
        server = start_influxdb(tmp_path / "influxdb")
    except Missing as missing:
        pytest.skip(missing.reason)
    yield server
    server.process.stop()


def killed_at_random(process: subprocess.Popen, rng: random.Random, longest: float, acknowledged: list[int]) -> bool:
    """Let a writer run for a while, and kill it with its children; whether it was killed before it was done."""
    timer = threading.Timer(rng.uniform(0.3, longest), lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    acknowledged += [int(text) for text in process.stdout if text.strip().isdigit()]
    process.wait()
    timer.cancel()
    return process.returncode != 0


def storm(influxdb, server, folder: Path, seed: int, batches: int, size: int, kills: int, way: str, bad: int) -> None:
    rng = random.Random(seed)
    first = Bucket.made(influxdb, "first_test")
    second = Bucket.made(server, f"{folder.name[:80]}_second_test")
    for one in (first, second):
        one.write(f"m,station=-1 x=0.5 {T0}\n" + "\n".join(f"m,station={n} x=0.5 {T0 - 1}" for n in range(7)))
    url = f"{second.url}/api/v2/write?org={second.org}&bucket={second.bucket}&precision=ns"
    faulty = Faulty(sometimes(0.4, seed), forward=(url, second.token))
    servers = [first, (faulty.url, "eht", "it_test", "token")]
    keys = configuration(folder, *servers, csvlogfile=folder / "log.csv", close_timeout=120, batch_rows=500)
    said = json.dumps({key: str(value) for key, value in keys.items()})
    acknowledged: list[int] = [-1]
    ended = threading.Event()

    def kill_the_server() -> None:
        while not ended.wait(rng.uniform(1.0, 2.5)):
            influxdb.process.stop(signal.SIGKILL)
            time.sleep(0.3)
            influxdb.process.start()

    killer = threading.Thread(target=kill_the_server)
    killer.start()
    try:
        killed = 0
        while True:
            command = program(WRITER, said, size, batches, way, bad, acknowledged[-1] + 1)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
            if killed >= kills:
                break
            killed += killed_at_random(process, rng, 2.0, acknowledged)
            if process.returncode == 0:
                break
        ended.set()
        killer.join()
        process.wait(timeout=300)
    finally:
        ended.set()
        killer.join()
        faulty.close()

    logged = ids_in_log(folder)
    assert set(logged) == set(range(batches * size))
    good = {n for n in logged if n % bad != bad - 1}
    for bucket in (first, second):
        found = bucket.query(
            f'from(bucket: "{bucket.bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "id") '
            '|> group() |> keep(columns: ["_value"])'
        )
        stored = [int(row.rsplit(",", 1)[1]) for row in found.splitlines() if row.startswith(",,0,")]
        assert len(stored) == len(set(stored))
        wrong = {n for n in logged if n % bad == bad - 1}
        assert good <= set(stored) <= good | wrong
    refused = [json.loads(text) for text in (folder / "log.jsonl.refused.jsonl").read_text().splitlines()]
    told = Counter((row["refused"]["target"], row["fields"]["id"]) for row in refused if "fields" in row)
    names = {first.url: f"{first.url}/{first.org}/{first.bucket}", faulty.url: f"{faulty.url}/eht/it_test"}
    assert told == {(name, n): logged[n] for name in names.values() for n in logged if n % bad == bad - 1}
    csv = [
        row for place in folder.glob("log.csv*") for row in place.read_text().splitlines() if row[:1].isdigit()
    ]  # fmt: skip
    assert Counter(int(row.split(",")[3]) for row in csv) == logged


@pytest.mark.parametrize("way", ["plain", "pool"])
def test_a_short_storm(another_influxdb, influxdb, tmp_path, way):
    storm(another_influxdb, influxdb, tmp_path, seed=7, batches=40, size=40, kills=2, way=way, bad=400)


@pytest.mark.soak
@pytest.mark.parametrize("way", ["plain", "pool"])
def test_a_long_storm(another_influxdb, influxdb, tmp_path, way):
    storm(
        another_influxdb, influxdb, tmp_path, seed=int(time.time()), batches=500, size=80, kills=25, way=way, bad=1600
    )
