"""Networks that cut and slow down, servers that are away, disks that are full: nothing is lost, the next try mends."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pytest
from network import loopback
from redis import Redis

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.stores.ledger import LedgerError, RedisLedger
from ionbeam_dagster.stores.timeseries.influxdb.errors import InfluxError
from ionbeam_dagster.stores.timeseries.influxdb.store import InfluxStore
from ionbeam_dagster.stores.timeseries.segments import SegmentError, SegmentStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
AFTERNOON = Window(NOON, NOON + 6 * HOUR)


def points(count: int, value: float) -> pl.DataFrame:
    station = pl.select(pl.format("S{}", pl.int_range(count).cast(pl.String).str.zfill(5)).alias("station_id"))
    time = pl.lit(NOON).dt.cast_time_unit("us").alias("datetime")
    return station.select(
        time, pl.lit(50.0).alias("lat"), pl.lit(8.0).alias("lon"), pl.lit(value).alias("T"), "station_id"
    )


def seen(store, dataset: str) -> pl.DataFrame:
    schema = points(1, 1.0).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    return pl.DataFrame(pa.Table.from_batches(list(store.read(dataset, AFTERNOON, schema, ["station_id"])), schema))


def test_an_answer_of_influxdb_that_is_cut_in_the_middle_is_asked_for_again(influxdb):
    dataset, rows = f"d{uuid4().hex}", points(3000, 1.0)
    with loopback(influxdb.url) as (proxy, url):
        store = InfluxStore(url, influxdb.org, "contract", influxdb.token, timeout=20.0)
        for cut in (10, 300):  # while it is written: within the answer's first line, and after it
            proxy.cut_after = cut
            store.write(dataset, "one", 1, [rows], ["station_id"])
        assert proxy.cuts >= 1
        proxy.cut_after = 100_000  # in the middle of the rows
        before = proxy.cuts
        assert seen(store, dataset).equals(rows)
        assert proxy.cuts == before + 1


def test_a_slow_influxdb_is_waited_for_and_one_that_is_too_slow_said_to_be(influxdb):
    dataset, rows = f"d{uuid4().hex}", points(200, 1.0)
    with loopback(influxdb.url) as (proxy, url):
        proxy.delay = 0.02
        patient = InfluxStore(url, influxdb.org, "contract", influxdb.token, timeout=20.0)
        patient.write(dataset, "one", 1, [rows], ["station_id"])
        assert seen(patient, dataset).equals(rows)
        proxy.delay = 1.0
        with pytest.raises(InfluxError, match=r"does not answer .*start it, or correct influxdb_common.influxdb_url"):
            InfluxStore(url, influxdb.org, "contract", influxdb.token, timeout=0.5).write(
                dataset, "two", 2, [points(200, 2.0)], ["station_id"]
            )
        proxy.delay = 0.0
        assert seen(patient, dataset).equals(rows), "nothing of what broke off is seen"
        patient.write(dataset, "two", 2, [points(200, 2.0)], ["station_id"])
        assert seen(patient, dataset)["T"].unique().to_list() == [2.0]


def test_connections_of_redis_that_are_cut_do_nothing_twice(redis):
    with Redis.from_url(redis.url) as client:
        client.flushdb()
    with loopback(redis.url) as (proxy, url):
        ledger = RedisLedger(url)
        for number in range(10):
            proxy.cut_after = 0 if number % 2 else None  # it was done, but the answer is lost
            ledger.record_raw(RawPartition(f"i{number}", "crowd", AFTERNOON, f"{number}.parquet", 1))
        assert proxy.cuts >= 5
        assert [ledger.arrival_of(f"i{number}") for number in range(10)] == list(range(1, 11))


def test_two_platforms_may_share_a_redis_and_a_bucket(redis, influxdb):
    with Redis.from_url(redis.url) as client:
        client.flushdb()
    dataset = f"d{uuid4().hex}"
    stores = [InfluxStore(influxdb.url, influxdb.org, "contract", influxdb.token) for _ in range(2)]
    ledgers = [RedisLedger(redis.url) for _ in range(2)]
    for number in range(6):
        arrival = ledgers[number % 2].arrival_of(f"i{number}")
        stores[number % 2].write(dataset, f"i{number}", arrival, [points(20, float(number))], ["station_id"])
    assert seen(stores[0], dataset).equals(points(20, 5.0)) and seen(stores[1], dataset).equals(points(20, 5.0))


def write_where_there_is_no_room(root: Path, dataset: str) -> None:
    """The limit of a file's size stands for the disk's."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        rows = points(20_000, 2.0).with_columns(pl.int_range(pl.len()).hash().cast(pl.Float64).alias("T"))
        SegmentStore(root).write(dataset, "one", 1, [rows], ["station_id"])
    except SegmentError as error:
        raise SystemExit(3 if "Make room" in str(error) else str(error)) from error


def test_segments_on_a_full_disk_leave_what_was_there(tmp_path):
    store, rows = SegmentStore(tmp_path), points(10, 1.0)
    store.write("crowd", "one", 1, [rows], ["station_id"])
    child = multiprocessing.get_context("spawn").Process(target=write_where_there_is_no_room, args=(tmp_path, "crowd"))
    child.start()
    child.join()
    assert child.exitcode == 3
    assert seen(store, "crowd").equals(rows)
    assert not list(tmp_path.rglob(".drafts/*/*"))
    store.write("crowd", "one", 1, [points(10, 2.0)], ["station_id"])
    assert seen(store, "crowd").equals(points(10, 2.0))


def test_a_ledger_whose_server_is_not_there_at_the_start_is_used_once_it_is(redis):
    ledger = RedisLedger(redis.url)
    redis.process.stop()
    with pytest.raises(LedgerError, match=r"does not answer .*start it"):
        ledger.due("crowd")
    redis.process.start()
    assert isinstance(ledger.arrival_of("one"), int)


@pytest.mark.parametrize("kind", ["segments", "influxdb"])
def test_far_times_and_huge_texts_come_back(kind, tmp_path, request):
    store: SegmentStore | InfluxStore = SegmentStore(tmp_path)
    if kind == "influxdb":
        server = request.getfixturevalue("influxdb")
        store = InfluxStore(server.url, server.org, "contract", server.token)
    dataset = f"d{uuid4().hex}"
    moments = [datetime(1850, 1, 1, tzinfo=UTC), NOON - timedelta(days=3650), NOON, datetime(2200, 6, 1, tzinfo=UTC)]
    text = ["", "x" * 50_000, "line\nbreak\t\x01\x7f", "ends with \\"]
    rows = pl.DataFrame(
        {"datetime": moments, "lat": 50.0, "lon": 8.0, "T": [1.0, float("nan"), float("inf"), -0.0], "note": text,
         "station_id": "S\\"}, schema_overrides={"datetime": pl.Datetime("us", "UTC")},
    )  # fmt: skip
    assert store.write(dataset, "one", 1, [rows], ["station_id"]) == 4
    schema = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    for place, moment in enumerate(moments):
        [batch] = store.read(dataset, Window(moment, moment + HOUR), schema, ["station_id"])
        [found] = batch.to_pylist()
        assert (found["datetime"], found["note"], found["station_id"]) == (moment, text[place], "S\\")
