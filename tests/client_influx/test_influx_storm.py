"""Programs, servers and the platform's door are killed at random, and a second server fails four times out of ten:
nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from backends import Missing, start_influxdb
from door_samples import TOKEN, Receiving, bring_up_to_date, opened, points
from influx_faults import T0, Bucket, Faulty, configuration, ids_in_log, program, sometimes

from ionbeam_dagster.domain.windows import window_of

WRITER = """
import json, os
from multiprocessing import get_context
from eht_influx_client import EHTInfluxDBClient

def rows(numbers):
    api.write(record=[{"measurement": "m", "tags": {"station": str(n % 7)}, "time": 1617672549000000000 + n * 10**6,
                       "fields": {"id": n, **({"x": n, "odd": True} if n % BAD == BAD - 1 else {"x": n / 4 + 0.125})}}
                      for n in numbers])

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


DOOR = f"""
  garden:
    kind: door
    token: {TOKEN}
    start: 2021-01-01
    aggregation_span: PT1H
    latitude: 52.1
    longitude: 5.2
    unmapped: refused
    variables:
      - {{field: id, standard_name: x_id, definition: the number of a row, cf_unit: "1"}}
      - {{field: x, standard_name: x_value, definition: what was measured, cf_unit: "1"}}
"""
"""Refuses the field `odd`, which the bad rows have beside their integer."""


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


@contextmanager
def killing(
    rng: random.Random, longest: float, kill: Callable[[], None], start: Callable[[], None]
) -> Iterator[list[float]]:
    """Something is killed and started again, at random; at the end it runs. Gives when it was killed."""
    ended, deaths = threading.Event(), []

    def kill_and_start() -> None:
        while not ended.wait(rng.uniform(longest / 3, longest)):
            kill()
            deaths.append(time.monotonic())
            time.sleep(0.3)
            start()

    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill_and_start)
        try:
            yield deaths
        finally:
            ended.set()
        killer.result()


def storm(influxdb, server, folder: Path, seed: int, batches: int, size: int, kills: int, way: str, bad: int,
          door: Receiving | None = None) -> None:  # fmt: skip
    """`batches` of `size` rows, of which every `bad`th is refused, while the writer and `influxdb` are killed, and the
    door where there is one."""
    rng = random.Random(seed)
    first = Bucket.made(influxdb, "first_test")
    second = Bucket.made(server, f"{folder.name[:80]}_second_test")
    for one in (first, second):
        one.write(f"m,station=-1 x=0.5 {T0}\n" + "\n".join(f"m,station={n} x=0.5 {T0 - 1}" for n in range(7)))
    url = f"{second.url}/api/v2/write?org={second.org}&bucket={second.bucket}&precision=ns"
    faulty = Faulty(sometimes(0.4, seed), forward=(url, second.token))
    servers = [first, (faulty.url, "eht", "it_test", "token")]
    servers += [(door.url, "any", "door_test", TOKEN)] if door else []
    keys = configuration(folder, *servers, csvlogfile=folder / "log.csv", close_timeout=900, batch_rows=500)
    said = json.dumps({key: str(value) for key, value in keys.items()})
    acknowledged: list[int] = [-1]
    killed = 0
    try:
        with (
            killing(rng, 2.5, lambda: influxdb.process.stop(signal.SIGKILL), influxdb.process.start) as of_influxd,
            killing(rng, 6.0, door.kill, door.start) if door else nullcontext([0.0]) as of_door,
        ):
            while True:
                command = program(WRITER, said, size, batches, way, bad, acknowledged[-1] + 1)
                process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
                if killed >= kills:
                    break
                killed += killed_at_random(process, rng, 2.0, acknowledged)
                if process.returncode == 0:
                    break
        assert process.wait(timeout=1_000) == 0
        assert door is None or (killed and of_influxd and of_door)
    finally:
        faulty.close()

    logged = ids_in_log(folder)
    assert set(logged) == set(range(batches * size))
    wrong = {n for n in logged if n % bad == bad - 1}
    for bucket in (first, second):
        found = bucket.query(
            f'from(bucket: "{bucket.bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "id") '
            '|> group() |> keep(columns: ["_value"])'
        )
        stored = [int(row.rsplit(",", 1)[1]) for row in found.splitlines() if row.startswith(",,0,")]
        assert len(stored) == len(set(stored))
        assert logged.keys() - wrong <= set(stored) <= logged.keys()
    refused = [json.loads(text) for text in (folder / "log.jsonl.refused.jsonl").read_text().splitlines()]
    told = Counter((row["refused"]["target"], row["fields"]["id"]) for row in refused if "fields" in row)
    names = [f"{first.url}/{first.org}/{first.bucket}", f"{faulty.url}/eht/it_test"]
    names += [f"{door.url}/any/door_test"] if door else []
    assert told == {(name, n): logged[n] for name in names for n in wrong}
    csv = [
        row for place in folder.glob("log.csv*") for row in place.read_text().splitlines() if row[:1].isdigit()
    ]  # fmt: skip
    assert Counter(int(row.split(",")[3]) for row in csv) == logged


def window_of_the_door(platform) -> pl.DataFrame:
    """What became of all that the door took."""
    with opened(platform) as (door, _):
        door.flush.run()
        assert door.journal.closed() == [] and door.memory.parked() == []
    bring_up_to_date(platform)
    return points(platform, window_of(datetime.fromtimestamp(T0 / 1e9, UTC), timedelta(hours=1)))


@pytest.mark.parametrize("way", ["plain", "pool"])
def test_a_short_storm(another_influxdb, influxdb, tmp_path, way):
    storm(another_influxdb, influxdb, tmp_path, seed=7, batches=40, size=40, kills=2, way=way, bad=400)


@pytest.mark.soak
@pytest.mark.parametrize("way", ["plain", "pool"])
def test_a_long_storm(another_influxdb, influxdb, platform_of, tmp_path, way):
    batches, size, bad = 500, 80, 1_600
    platform = platform_of(DOOR, automation="{enabled: false}")
    with Receiving(tmp_path) as door:
        storm(another_influxdb, influxdb, tmp_path, int(time.time()), batches, size, 25, way, bad, door)
    rows = window_of_the_door(platform).sort("datetime")
    good = [n for n in range(batches * size) if n % bad != bad - 1]
    assert [round(one) for one in rows["x_id__1__0.0__point__PT0S"]] == good
