"""The ledger: one ingestion event with ever more claims behind it, in SQLite and in Redis. It should not get slower.

An event is what the platform does for an ingestion: its place in the order of arrival, the raw partition, the claim,
and what its window then has. The claims behind it are those of one source, a window of 5 minutes each, in datasets of
an hour. The alternative, on the same Redis, is to look through all records at every event.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measure import peak_megabytes

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_dagster.domain.records import Claim, RawPartition
from ionbeam_dagster.domain.windows import Window, window_of
from ionbeam_dagster.stores.ledger import Ledger

START = datetime(2016, 1, 1, tzinfo=UTC)
FIVE_MINUTES, HOUR = timedelta(minutes=5), timedelta(hours=1)
EVENTS = 200
METADATA = IngestionMetadata(
    dataset=DatasetMetadata(name="crowd"),
    ingestion_map=DataIngestionMap(
        canonical_variables=[CanonicalVariable(column="T", standard_name="air_temperature", cf_unit="degC")]
    ),
)


def event(ledger: Ledger, number: int) -> None:
    collected = Window(START + number * FIVE_MINUTES, START + (number + 1) * FIVE_MINUTES)
    window, id = window_of(collected.start, HOUR), f"ingestion-{number:08d}"
    arrival = ledger.arrival_of(id)
    ledger.record_raw(RawPartition(id, "crowd", collected, f"raw/{id}.parquet", 1000))
    ledger.record_claim(Claim(id, "crowd", "crowd", collected, arrival, 1000), METADATA, {window: 1000})
    assert ledger.claims("crowd", window)[-1].id == id
    ledger.latest_revision("crowd", window)


def timed(ledger: Ledger, first: int) -> list[float]:
    event(ledger, first)
    assert ledger.claims("crowd", window_of(START, HOUR))[0].id == "ingestion-00000000", "those behind it are there"
    seconds = []
    for number in range(first + 1, first + 1 + EVENTS):
        begun = time.perf_counter()
        event(ledger, number)
        seconds.append(time.perf_counter() - begun)
    return seconds


def sqlite(claims: int, folder: Path) -> list[float]:
    from ionbeam_dagster.stores.ledger import SqliteLedger

    ledger = SqliteLedger(folder / "ledger.sqlite")
    with ledger._file.writing() as db:  # as a million events leave it, but in one transaction
        rows = list(history(claims))
        db.executemany("INSERT INTO arrivals VALUES (?, ?)", [(arrival, id) for arrival, id, *_ in rows])
        db.executemany(
            "INSERT INTO raw (source, start, end, ingestion, path, rows, signature) "
            "VALUES ('crowd', ?, ?, ?, 'p', 1000, '')",
            [(s, e, id) for _, id, s, e, *_ in rows],
        )
        db.execute("INSERT INTO readings VALUES ('h', ?)", (METADATA.model_dump_json(),))
        db.executemany(
            "INSERT INTO claims VALUES (?, 'crowd', 'crowd', ?, ?, ?, 1000, 0, '[]', 'h', NULL)",
            [(id, s, e, arrival) for arrival, id, s, e, *_ in rows],
        )
        db.executemany(
            "INSERT INTO touched VALUES ('crowd', ?, ?, ?, 1000)", [(ws, we, id) for _, id, _, _, ws, we in rows]
        )
    return timed(ledger, claims)


def redis(claims: int, folder: Path) -> list[float]:
    from backends import start_redis

    from ionbeam_dagster.stores.ledger import RedisLedger

    server = start_redis(folder)
    try:
        ledger = RedisLedger(server.url)
        ledger.workers.present()  # marks it as whole: records without a mark are what is left of a ledger
        fill_redis(server.url, claims)
        return timed(ledger, claims)
    finally:
        server.process.stop()


def scan(claims: int, folder: Path) -> list[float]:
    """All records of a source are found by KEYS, read by MGET and looked through, as each event comes."""
    from backends import start_redis
    from redis import Redis

    server = start_redis(folder)
    try:
        with Redis.from_url(server.url) as client:
            record = METADATA.model_dump_json()
            for some in batches(history(claims)):
                client.mset({f"record:{id}": json.dumps([id, s, e, record]) for _, id, s, e, *_ in some})
            seconds = []
            for number in range(3):
                begun = time.perf_counter()
                start = START + (claims + number) * FIVE_MINUTES
                client.set(f"record:new-{number}", json.dumps([f"new-{number}", start.timestamp() * 1e6, 0, record]))
                found = [json.loads(text) for some in batches(client.keys("record:*")) for text in client.mget(some)]
                assert sum(one[1] >= start.timestamp() * 1e6 for one in found) == 1
                seconds.append(time.perf_counter() - begun)
            return seconds
    finally:
        server.process.stop()


def fill_redis(url: str, claims: int) -> None:
    from redis import Redis

    with Redis.from_url(url) as client:
        client.hset("ionbeam:readings", "h", METADATA.model_dump_json())
        for some in batches(history(claims)):
            pipe = client.pipeline(transaction=False)
            pipe.hset("ionbeam:arrivals", mapping={id: arrival for arrival, id, *_ in some})
            for arrival, id, s, e, ws, we in some:
                record = json.dumps([id, "crowd", "crowd", f"{s}:{e}", arrival, 1000, 0, []])
                pipe.hset(f"ionbeam:claim:{id}", mapping={"record": record, "dataset": "crowd", "reading": "h"})
                pipe.hset(
                    f"ionbeam:raw:crowd:{s}:{e}", mapping={"ingestion": id, "path": "p", "rows": 1, "signature": ""}
                )
                pipe.zadd(f"ionbeam:touching:crowd:{ws}:{we}", {id: arrival})
                pipe.sadd(f"ionbeam:touched:{id}", f"{ws}:{we}")
            pipe.execute()
        client.set("ionbeam:arrival", claims)


def history(claims: int) -> Iterator[tuple[int, str, int, int, int, int]]:
    """Of each earlier claim: arrival, id, start and end of its own window and of the dataset's, in microseconds."""
    start, span, hour = (int(x) for x in (START.timestamp() * 1e6, 300e6, 3600e6))
    for number in range(claims):
        collected = start + number * span
        window = collected - collected % hour
        yield number + 1, f"ingestion-{number:08d}", collected, collected + span, window, window + hour


def batches(items, size: int = 20_000) -> Iterator[list]:
    some = []
    for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


SIDES = {"sqlite": sqlite, "redis": redis, "redis, KEYS and MGET": scan}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000], help="earlier claims")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        with TemporaryDirectory() as folder:
            seconds = SIDES[asked.side](asked.rows[0], Path(folder))
        peak = peak_megabytes()
        print(json.dumps([statistics.median(seconds), sorted(seconds)[int(len(seconds) * 0.95)], peak]))
        return
    print("ledger: milliseconds of one ingestion event, median (95 %)")
    print("  earlier claims" + "".join(f"{side:>26}" for side in SIDES))
    for claims in asked.rows:
        cells, medians = [], {}
        for side in SIDES:
            if side == "redis, KEYS and MGET" and claims > 100_000:
                cells.append("not tried")
                continue
            command = [sys.executable, __file__, "--rows", str(claims), "--side", side]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            median, most, _ = json.loads(done.stdout.splitlines()[-1])
            medians[side] = median
            cells.append(f"{median * 1000:8.2f} ({most * 1000:8.2f})")
        ratio = medians.get("redis, KEYS and MGET", 0) / medians["redis"]
        print(
            f"  {claims:<14,}" + "".join(f"{cell:>26}" for cell in cells) + (f"  {ratio:,.0f} times" if ratio else "")
        )


if __name__ == "__main__":
    main()
