"""What the store in InfluxDB promises besides the contract (test_timeseries.py): a server's faults, and its ways."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from signal import SIGKILL
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pytest
from backends import InfluxDB, Missing, start_influxdb
from hypothesis import example, given, settings
from hypothesis import strategies as st
from influxdb_client import BucketRetentionRules, DBRPCreate, InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.service import DBRPsService

from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.stores.timeseries.influxdb import bucket as bucket_module
from ionbeam_dagster.stores.timeseries.influxdb import store as module
from ionbeam_dagster.stores.timeseries.influxdb.errors import InfluxError
from ionbeam_dagster.stores.timeseries.influxdb.influxql import parse, whole
from ionbeam_dagster.stores.timeseries.influxdb.store import InfluxStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
AFTERNOON = Window(NOON, NOON + 6 * HOUR)


@pytest.fixture
def store(influxdb: InfluxDB) -> InfluxStore:
    return store_on(influxdb)


@pytest.fixture
def dataset() -> str:
    return f"d{uuid4().hex}"


def store_on(server: InfluxDB, **changed) -> InfluxStore:
    place = {"url": server.url, "org": server.org, "bucket": "contract", "token": server.token, "timeout": 10.0}
    return InfluxStore(**place | changed)


def stations(count: int, value: float, moment: datetime = NOON) -> pl.DataFrame:
    names = pl.select(pl.format("S{}", pl.int_range(count)).alias("station_id"))
    time = pl.lit(moment).dt.cast_time_unit("us").alias("datetime")
    return names.select(
        time, pl.lit(50.0).alias("lat"), pl.lit(8.0).alias("lon"), pl.lit(value).alias("T"), "station_id"
    )


def seen(store: InfluxStore, dataset: str, like: pl.DataFrame, window: Window = AFTERNOON) -> pl.DataFrame:
    schema = like.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    batches = list(store.read(dataset, window, schema, ["station_id"]))
    return pl.DataFrame(pa.Table.from_batches(batches, schema))


def test_every_type_comes_back_as_it_was(store, dataset) -> None:
    edges = {
        "f64": pl.Series([0.1, -0.0, 1e300, 5e-324, 1.7976931348623157e308]),
        "f32": pl.Series([0.1, 3.4e38, -0.0, 1e-45, None], dtype=pl.Float32),
        "i8": pl.Series([-128, 127, 0, None, 1], dtype=pl.Int8),
        "i64": pl.Series([-(2**63), 2**63 - 1, 2**53 + 1, 0, None]),
        "u64": pl.Series([2**64 - 1, 0, 1, None, 2**63], dtype=pl.UInt64),
        "flag": pl.Series([True, False, None, True, False]),
        "text": pl.Series(["", "nan", 'say "no"\\', "true", None]),
    }
    rows = stations(5, 1.0).with_columns(**edges)
    store.write(dataset, "one", 1, [rows], ["station_id"])
    assert seen(store, dataset, rows).equals(rows)


def test_a_variable_may_change_its_type(store, dataset) -> None:
    whole, broken, wide = stations(2, 7.0).cast({"T": pl.Int16}), stations(1, 1.5), stations(2, 7.0)
    store.write(dataset, "whole", 1, [whole], ["station_id"])
    store.write(dataset, "broken", 2, [broken], ["station_id"])
    assert seen(store, dataset, wide)["T"].to_list() == [1.5, 7.0]


def test_names_and_values_come_back_whatever_they_contain(influxdb) -> None:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    own = ["time", "_time", "_field", "_value", "result", "table", "layer", "error", "empty", "ready"]
    names = (st.sampled_from(own) | text.filter(lambda name: name and "\0" not in name)).filter(
        lambda name: (
            name not in ("datetime", "lat", "lon", "T", "station_id") and name[0] not in "*^"
        )  # Polars' patterns
    )
    store = store_on(influxdb)

    @settings(max_examples=15)
    @given(
        names=st.lists(names, min_size=2, max_size=4, unique=True),
        values=st.lists(text, min_size=1, max_size=20),
        id=text,
    )
    @example(names=["a\x85b", "c\u2028d"], values=["e\x85f"], id="\u2029")  # line breaks to some
    def holds(names: list[str], values: list[str], id: str) -> None:
        dataset = f"d{uuid4().hex}"
        columns = [pl.Series(name, values[place:] + values[:place]) for place, name in enumerate(names)]
        rows = stations(len(values), 1.0).with_columns(columns)
        schema = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        key = ["station_id", *names[:2]]
        store.write(dataset, id, 1, [rows], key)
        found = list(store.read(dataset, AFTERNOON, schema, key))
        assert pl.DataFrame(pa.Table.from_batches(found, schema)).equals(rows.sort(*key))
        store.withdraw(dataset, id)
        assert list(store.read(dataset, AFTERNOON, schema, key)) == []

    holds()


def test_rows_that_influxdb_refuses_are_given_back_and_the_others_stored(influxdb, dataset) -> None:
    given_back = []
    store = store_on(influxdb)
    rows = stations(3000, 2.5)
    bad = pl.col("station_id").is_in(["S17", "S2999"])
    too_long = rows.with_columns(
        pl.concat_str("station_id", pl.when(bad).then(pl.lit("x" * 70_000)), ignore_nulls=True)
    )
    assert store.write(dataset, "one", 1, [too_long], ["station_id"], given_back.append) == 2998
    assert seen(store, dataset, rows).height == 2998
    [refused] = given_back
    assert refused["station_id"].str.strip_chars("x").to_list() == ["S17", "S2999"]
    assert "max key length exceeded" in refused["reason"][0]


def test_rows_of_another_type_than_the_bucket_has_are_refused_together_however_many(influxdb, dataset) -> None:
    store = store_on(influxdb)
    store.write(dataset, "one", 1, [stations(1, 1.0)], ["station_id"])
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        later = int((NOON + HOUR).timestamp() * 1e9)
        client.write_api(write_options=SYNCHRONOUS).write("contract", record=f'{dataset},layer=0 wind="strong" {later}')
    rows = stations(3000, 2.5, NOON + HOUR)
    windy = rows.with_columns(pl.when(pl.col("station_id") == "S1").then(None).otherwise(3.0).alias("wind"))
    given_back = []
    assert store.write(dataset, "two", 2, [windy], ["station_id"], given_back.append) == 1
    assert sum(refused.height for refused in given_back) == 2999
    assert "field type conflict" in given_back[0]["reason"][0]
    assert seen(store, dataset, rows).height == 2


def test_rows_older_than_the_bucket_keeps_are_refused_and_take_no_other_with_them(influxdb, dataset) -> None:
    days = BucketRetentionRules(type="expire", every_seconds=3 * 86_400)
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        client.buckets_api().create_bucket(bucket_name=f"days {dataset}", org=influxdb.org, retention_rules=days)
    store = store_on(influxdb, bucket=f"days {dataset}", revise_for=timedelta(days=3))
    now = datetime.now(UTC)
    fresh, old = stations(10, 1.0, now - HOUR), stations(3000, 1.0, now - timedelta(days=4))
    edge = stations(10, 1.0, now - timedelta(days=3) + timedelta(minutes=1))
    given_back = []
    rows = pl.concat([old, edge, fresh])
    assert store.write(dataset, "one", 1, [rows], ["station_id"], given_back.append) == 10
    assert sum(refused.height for refused in given_back) == 3010
    assert "no longer keeps, or lets go of within the next (it keeps data for 3 d)" in given_back[0]["reason"][0]
    assert seen(store, dataset, fresh, Window(now - timedelta(days=5), now)).height == 10
    assert store.write(dataset, "two", 2, [old], ["station_id"], given_back.append) == 0


def test_lines_are_not_refused_one_by_one_for_ever(influxdb, dataset, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_REFUSED", 3)
    rows = stations(20, 1.0).with_columns(pl.concat_str("station_id", pl.lit("x" * 70_000)).alias("station_id"))
    with pytest.raises(InfluxError, match=r"refuses more than 3 lines of one: .*max key length"):
        store_on(influxdb).write(dataset, "one", 1, [rows], ["station_id"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"token": "wrong"}, "token is not accepted .*correct influxdb_common.influxdb_token"),
        ({"org": "nobody"}, 'organization name "nobody" not found; correct influxdb_common.influxdb_org'),
        (
            {"url": "http://127.0.0.1:1", "timeout": 0.5},
            "does not answer .*start it, or correct influxdb_common.influxdb_url",
        ),
    ],
)
def test_what_is_wrong_with_the_connection_is_said(influxdb, dataset, changed, message) -> None:
    store = store_on(influxdb, **changed)
    with pytest.raises(InfluxError, match=message):
        store.write(dataset, "one", 1, [stations(1, 1.0)], ["station_id"])
    with pytest.raises(InfluxError, match=message):
        seen(store, dataset, stations(1, 1.0))


def test_a_bucket_is_made_and_one_that_forgets_too_soon_refused(influxdb, dataset) -> None:
    store = store_on(influxdb, bucket=f"new {dataset}")
    store.write(dataset, "one", 1, [stations(1, 1.0)], ["station_id"])
    assert seen(store, dataset, stations(1, 1.0)).height == 1
    week = BucketRetentionRules(type="expire", every_seconds=7 * 86_400)
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        client.buckets_api().create_bucket(bucket_name=f"week {dataset}", org=influxdb.org, retention_rules=week)
    for revise_for in (None, timedelta(days=8)):
        with pytest.raises(InfluxError, match=r"keeps data for 7 days.*lengthen the bucket's retention"):
            store_on(influxdb, bucket=f"week {dataset}", revise_for=revise_for).withdraw(dataset, "one")
    store_on(influxdb, bucket=f"week {dataset}", revise_for=timedelta(days=7)).withdraw(dataset, "one")


def test_a_write_that_breaks_off_is_not_seen_and_mended_by_the_next(store, dataset, monkeypatch) -> None:
    old, new, other = stations(4, 1.0), stations(5, 2.0), stations(2, 3.0)
    store.write(dataset, "one", 1, [old], ["station_id"])
    with monkeypatch.context() as breaking:
        breaking.setattr(module, "REQUEST_LINES", 2)
        breaking.setattr(module, "_send", partial(_send_a_part, module._send))
        with pytest.raises(KeyboardInterrupt):
            store.write(dataset, "one", 1, [new], ["station_id"])
    assert seen(store, dataset, old).equals(old)
    store.write(dataset, "other", 2, [other], ["station_id"])
    assert seen(store, dataset, old)["T"].to_list() == [3.0, 3.0, 1.0, 1.0]
    store.write(dataset, "one", 1, [new], ["station_id"])
    assert seen(store, dataset, old)["T"].to_list() == [3.0, 3.0, 2.0, 2.0, 2.0]
    store.withdraw(dataset, "other")
    assert seen(store, dataset, new).equals(new)


def _send_a_part(send, bucket, dataset, part, frame, key, refused):
    send(bucket, dataset, part, frame[:2], key, refused)
    raise KeyboardInterrupt


def test_regular_ingestions_share_a_layer(store, dataset) -> None:
    """What overlaps in time lies apart; everything else makes no new series."""
    for number in range(4):
        store.write(
            dataset, f"i{number}", number, [stations(3, 1.0, NOON + number * timedelta(minutes=5))], ["station_id"]
        )
    store.write(dataset, "late", 9, [stations(3, 2.0)], ["station_id"])
    with store._open() as bucket:
        layers = {part.ingestion: part.layer for part in bucket.parts(dataset, AFTERNOON)}
    assert layers == {"i0": "0", "i1": "0", "i2": "0", "i3": "0", "late": "1"}


def _write_and_withdraw(server: Sequence[str], dataset: str, arrivals: range) -> None:
    store = InfluxStore(*server)
    for arrival in arrivals:
        for _ in range(2):
            store.write(dataset, f"i{arrival}", arrival, [stations(50, float(arrival))], ["station_id"])
        store.write(dataset, f"brief {arrival}", arrival, [stations(50, float(arrival))], ["station_id"])
        store.withdraw(dataset, f"brief {arrival}")


def test_two_processes_write_while_another_reads(influxdb, store, dataset) -> None:
    server = (influxdb.url, influxdb.org, "contract", influxdb.token)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_and_withdraw, args=(server, dataset, range(n, 7, 2))) for n in (1, 2)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        points = seen(store, dataset, stations(1, 1.0))
        assert points.height in (0, 50)
        assert points["T"].n_unique() <= 1
        reads += points.height > 0
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert reads > 0
    assert seen(store, dataset, stations(50, 1.0)).sort("station_id").equals(stations(50, 6.0).sort("station_id"))


def test_two_processes_that_write_the_same_ingestion_agree(influxdb, store, dataset) -> None:
    server = (influxdb.url, influxdb.org, "contract", influxdb.token)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_and_withdraw, args=(server, dataset, range(1, 4))) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen(store, dataset, stations(50, 1.0)).sort("station_id").equals(stations(50, 3.0).sort("station_id"))
    for arrival in range(1, 4):
        store.withdraw(dataset, f"i{arrival}")
    assert seen(store, dataset, stations(50, 1.0)).height == 0


def test_a_server_that_was_killed_is_waited_for_and_has_everything(tmp_path, dataset) -> None:
    try:
        server = start_influxdb(tmp_path)
    except Missing as missing:
        pytest.skip(missing.reason)
    try:
        store = store_on(server, timeout=30.0)
        rows = stations(100, 1.0).sort("station_id")
        store.write(dataset, "one", 1, [rows], ["station_id"])
        server.process.stop(SIGKILL)
        back = threading.Timer(0.5, server.process.start)
        back.start()
        store.write(dataset, "two", 2, [stations(1, 2.0, NOON + HOUR)], ["station_id"])
        back.join()
        assert seen(store, dataset, rows, Window(NOON, NOON + HOUR)).equals(rows)
        assert seen(store, dataset, rows).height == 101
    finally:
        server.process.stop()


@pytest.fixture
def busy() -> Iterator[HTTPServer]:
    """Answers 429 and 503 in turn, asking to be left alone for a while."""

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked += 1
            self.send_response(429 if server.asked % 2 else 503)
            self.send_header("Retry-After", "0.3")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Busy)
    server.asked = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_a_busy_server_is_asked_when_it_wants_to_be(busy, dataset) -> None:
    store = InfluxStore(f"http://127.0.0.1:{busy.server_port}", "org", "bucket", "token", timeout=1.0)
    with pytest.raises(InfluxError, match="does not answer"):
        store.withdraw(dataset, "one")
    assert 2 <= busy.asked <= 4


def test_an_answer_that_breaks_off_is_an_error() -> None:
    schema = pa.schema([("datetime", pa.timestamp("us", tz="UTC"))])
    rows, end = b"name,tags,time,layer,empty\ncrowd,,1782907200000001,0,\n", b"\nname,tags,name\ndatabases,,first\n"
    assert parse(whole(rows + end), schema)["datetime"].to_list() == [datetime(2026, 7, 1, 12, 0, 0, 1, UTC)]
    assert parse(whole(end[1:]), schema).height == 0
    for broken in (rows, rows[:-5], b""):
        with pytest.raises(InfluxError, match="broke off its answer"):
            whole(broken)


def test_a_query_that_fails_is_no_window_without_points(influxdb, dataset) -> None:
    """InfluxDB answers it with 200 and nothing at all."""
    rows = stations(3, 1.0)
    store_on(influxdb).write(dataset, "one", 1, [rows], ["station_id"])
    place = (influxdb.url, influxdb.org, "contract", influxdb.token, 10.0)
    with bucket_module.OpenBucket(*place) as bucket, pytest.raises(InfluxError, match="broke off"):
        bucket.points(dataset, AFTERNOON, rows.to_arrow().schema, "true; SELECT nosuch(lat) FROM nothing")


def test_a_bucket_that_influxql_does_not_know_is_refused(influxdb, dataset) -> None:
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        api = client.buckets_api()
        mine, other = (
            api.create_bucket(bucket_name=f"{name} {dataset}", org=influxdb.org) for name in ("mine", "other")
        )
        wrong = DBRPCreate(
            org_id=mine.org_id, bucket_id=other.id, database=mine.name, retention_policy="autogen", default=True
        )
        DBRPsService(client.api_client).post_dbrp(wrong)
    for bucket in (f"mine {dataset}", f"stroke/{dataset}"):
        with pytest.raises(InfluxError, match=r"is not database .* in InfluxQL"):
            store_on(influxdb, bucket=bucket).withdraw(dataset, "one")
