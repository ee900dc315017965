"""What goes over the wire: rows, identity, messages, payloads, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_samples import END, METADATA, SCHEMA, START, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam_client import IonbeamClientConfig, cf, wire
from ionbeam_client.arrow import CHUNK_ROWS, Fingerprint, Rechunker, batches_of, checked_schema, coerce
from ionbeam_client.errors import DataError, MessageError, PayloadError
from ionbeam_client.models import DataSetAvailableEvent, IngestDataCommand, LatitudeAxis
from ionbeam_client.payloads import PayloadStore

COMMAND = IngestDataCommand(metadata=METADATA, start_time=START, end_time=END)


def identity(table: pa.Table, cuts: list[int]):
    """The id of an ingestion whose rows come in batches that end at `cuts`."""
    chunks, fingerprint = Rechunker(SCHEMA), Fingerprint()
    edges = [0, *sorted(cuts), table.num_rows]
    for start, end in pairwise(edges):
        for batch in table.slice(start, end - start).to_batches():
            for chunk in chunks.add(batch):
                fingerprint.add(chunk)
    for chunk in chunks.rest():
        fingerprint.add(chunk)
    return fingerprint.id(COMMAND)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40_000), max_size=6))
def test_the_id_does_not_depend_on_how_the_rows_are_cut(cuts):
    table = rows(40_000)
    assert identity(table, cuts) == identity(table, [])


def test_the_id_sees_every_value_and_no_garbage_behind_missing_ones():
    table = rows(100)
    for name in SCHEMA.names:
        other = table.set_column(
            SCHEMA.get_field_index(name), SCHEMA.field(name), pa.concat_arrays(
                [table[name].combine_chunks()[:50], table[name].combine_chunks()[:1], table[name].combine_chunks()[51:]]
            ) if name not in ("lat", "lon", "indoor") else pa.nulls(100, SCHEMA.field(name).type),
        )  # fmt: skip
        assert identity(other, []) != identity(table, []), name
    masked = [
        pa.Array.from_buffers(pa.float64(), 2, [pa.py_buffer(b"\1"), pa.py_buffer(np.array([1.0, x]))])
        for x in (7.0, 8.0)
    ]
    digests = []
    for values in masked:
        fingerprint = Fingerprint()
        fingerprint.add(pa.record_batch([values], ["t"]))
        digests.append(fingerprint.id(COMMAND))
    assert digests[0] == digests[1]


def test_parts_keep_to_the_limit_and_together_are_the_rows():
    rng = np.random.default_rng(4)
    table = rows(20_000).set_column(3, SCHEMA.field("t"), pa.array(rng.normal(size=20_000)))
    parts = list(wire.part_bodies(SCHEMA, table.to_batches(), 50_000))
    assert len(parts) > 3 and max(len(body) for body, _ in parts) <= 50_000
    assert sum(count for _, count in parts) == 20_000
    back = []
    for number, (body, _) in enumerate(parts, start=1):
        command = COMMAND.model_copy(update={"part": number, "parts": len(parts)})
        decoded = wire.decode(IngestDataCommand, wire.sealed(wire.head(command, SCHEMA), body))
        assert decoded.message == command
        back += wire.batches(decoded.rows)
    assert pa.Table.from_batches(back).equals(table)


def test_a_part_that_compresses_well_stays_within_the_bounds_of_its_reader():
    nothing = pa.RecordBatch.from_arrays([pa.nulls(1_500_000, field.type) for field in SCHEMA], schema=SCHEMA)
    chunks = [nothing.slice(start, CHUNK_ROWS) for start in range(0, 1_500_000, CHUNK_ROWS)]
    assert all(count <= wire.PART_ROWS for _, count in wire.part_bodies(SCHEMA, chunks, 10**9))


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), st.floats(0.05, 1))
def test_a_damaged_message_is_refused_and_nothing_worse(changes, kept):
    body = bytearray(wire.with_rows(COMMAND, SCHEMA, rows(500).to_batches()))
    for place, value in changes:
        body[place % len(body)] = value
    try:
        decoded = wire.decode(IngestDataCommand, bytes(body[: int(len(body) * kept)]))
        for batch in wire.batches(decoded.rows or b""):
            batch.to_pylist()
    except MessageError as error:
        assert str(error)


def test_a_bomb_is_refused_before_it_is_decompressed():
    huge = pa.record_batch([pa.array(np.zeros(4_000_000))], ["t"])
    body = wire.with_rows(COMMAND, huge.schema, [huge])
    assert len(body) < 100_000
    with pytest.raises(MessageError, match="more than 1000000 bytes"):
        list(wire.batches(body, max_bytes=1_000_000))
    with pytest.raises(MessageError, match="more than 1000 rows"):
        list(wire.batches(body, max_rows=1000))
    assert sum(batch.num_rows for batch in wire.batches(body)) == 4_000_000


def test_json_of_an_older_client_is_read_and_other_things_are_told_apart():
    old = json.loads(COMMAND.model_dump_json(exclude={"part", "parts"})) | {"payload_location": "a/b.parquet", "new": 1}
    assert wire.decode(IngestDataCommand, json.dumps(old).encode()).message.part == 1
    event = DataSetAvailableEvent(metadata=METADATA.dataset, dataset_location="x", start_time=START, end_time=END)
    older = event.model_dump_json(exclude={"part", "parts", "revision", "previous_revision"}).encode()
    assert wire.decode(DataSetAvailableEvent, older).message == event
    for body, reason in (
        (b"", "neither JSON"),
        (b"{", "Invalid JSON"),
        (b'{"id": 3}', "not a IngestDataCommand"),
        (pa.schema([]).serialize().to_pybytes(), "without its message"),
        (b'{"a": "' + b"x" * wire.MAX_JSON_BYTES + b'"}', "at most"),
    ):
        with pytest.raises(MessageError, match=reason):
            wire.decode(IngestDataCommand, body)


def test_columns_that_differ_from_the_declared_ones_are_named():
    wire.check_columns(SCHEMA, METADATA)
    with pytest.raises(MessageError, match="column 't' is float"):
        wire.check_columns(SCHEMA.set(3, pa.field("t", pa.float32())), METADATA)
    with pytest.raises(MessageError, match="declare"):
        wire.check_columns(SCHEMA.remove(0), METADATA)


def test_types_are_converted_where_no_value_changes():
    table = pa.table(
        {
            "indoor": pa.array([1, 0], pa.int8()),
            "station_id": pa.array(["a", "b"]).dictionary_encode(),
            "n": pa.array([1.0, float("nan")]),
            "t": pa.array(["1.5", None]),
            "lon": pa.array([1, 2]),
            "lat": pa.array([1.0, 2.0], pa.float32()),
            "datetime": pa.array([1_500, 2_000_000_000_500], pa.timestamp("ns", "Europe/Rome")),
        }
    )
    back = coerce(table.to_batches()[0], SCHEMA)
    assert back.schema == SCHEMA
    assert back.column("n").to_pylist() == [1, None] and back.column("t").to_pylist() == [1.5, None]
    assert back.column("datetime").cast(pa.int64()).to_pylist() == [1, 2_000_000_000]


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("n", pa.array([1.5]), "column 'n' holds double, declared is int32: .*truncated"),
        ("n", pa.array([2**40]), "column 'n' holds int64, declared is int32"),
        ("t", pa.array(["warm"]), "column 't' holds string, declared is double: .*warm"),
        ("datetime", pa.array([0], pa.timestamp("us")), "column 'datetime' .*without a time zone"),
        ("datetime", pa.array([0]), "column 'datetime' holds int64, .*not times"),
        ("datetime", pa.array(["2024-01-01 00:00"]), "column 'datetime' holds string"),
    ],
)
def test_a_column_of_the_wrong_type_is_named(column, values, told):
    batch = rows(1).to_batches()[0]
    place = SCHEMA.get_field_index(column)
    with pytest.raises(DataError, match=told):
        coerce(batch.set_column(place, column, values), SCHEMA)


def test_missing_and_undeclared_columns_are_named():
    batch = rows(1).to_batches()[0]
    with pytest.raises(DataError, match="'t' is declared"):
        coerce(batch.remove_column(3), SCHEMA)
    with pytest.raises(DataError, match="'wind' is not declared"):
        coerce(batch.append_column("wind", pa.array([1.0])), SCHEMA)


def test_tables_frames_and_iterators_are_taken_alike():
    table = rows(100)

    async def stream():
        for batch in table.to_batches(max_chunksize=33):
            yield batch

    async def everything(data):
        return [batch async for batch in batches_of(data)]

    frame = pl.from_arrow(table)
    given = [
        stream(),
        table,
        table.to_batches(),
        iter([table]),
        table.to_reader(),
        frame,
        frame.lazy(),
        table.to_pandas(),
    ]
    for data in given:
        found = [coerce(batch, SCHEMA) for batch in asyncio.run(everything(data))]
        assert pa.Table.from_batches(found).to_pylist() == table.to_pylist(), type(data)
    for wrong in ({"t": [1]}, 5, "rows", [1, 2], None):
        with pytest.raises(DataError, match="cannot be ingested"):
            asyncio.run(everything(wrong))


def with_variable(**changes):
    first, second = METADATA.ingestion_map.canonical_variables
    variables = [first.model_copy(update=changes), second]
    mapping = METADATA.ingestion_map.model_copy(update={"canonical_variables": variables})
    return METADATA.model_copy(update={"ingestion_map": mapping})


@pytest.fixture(params=["with UDUNITS", "by their spelling"])
def units(request, monkeypatch):
    """What the client has to check units with: its extra `cf`, or nothing."""
    if request.param == "by their spelling":
        monkeypatch.setattr(cf, "Unit", None)
    cf.faults.cache_clear()
    yield request.param
    cf.faults.cache_clear()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"standard_name": "Air Temperature"}, "column 't': Air Temperature is not in the CF standard name table"),
        ({"standard_name": "temperature"}, "near to it is air_temperature"),
        ({"cf_unit": "m"}, "column 't': air_temperature cannot be in 'm'; CF has it in 'K'"),
        ({"cf_unit": "C"}, "write 'degC'"),
        ({"cf_unit": "deg!"}, "column 't'"),
        ({"method": "average"}, "write 'mean'"),
        ({"column": "station_id"}, "'station_id' is declared twice"),
    ],
)
def test_names_and_units_are_checked_before_anything_is_sent(units, changes, told):
    with pytest.raises(DataError, match=re.escape(told)):
        checked_schema(with_variable(**changes))


def test_what_is_right_is_sent_with_udunits_and_without(units):
    assert checked_schema(METADATA) == SCHEMA
    for name, unit in (("air_pressure", "hPa"), ("rainfall_amount", "mm"), ("x_soil", "cbar"), ("wind_speed", "km/h")):
        assert checked_schema(with_variable(standard_name=name, cf_unit=unit)) == SCHEMA
    latitude = METADATA.ingestion_map.model_copy(update={"lat": LatitudeAxis(cf_unit="degrees_east")})
    with pytest.raises(DataError, match="column 'lat': a latitude in 'degrees_east' cannot be read"):
        checked_schema(METADATA.model_copy(update={"ingestion_map": latitude}))


def test_the_client_begins_without_cf_units():
    program = "import sys; sys.modules['cf_units'] = None; from ionbeam_client import cf; sys.exit(cf.Unit is not None)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_payload_names_lead_nowhere_else(tmp_path):
    store = PayloadStore(tmp_path / "store")
    store.mark()
    (tmp_path / "secret.parquet").write_bytes(b"")
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    assert store.path_of("a/b.parquet") == store.path_of(tmp_path / "store" / "a" / "b.parquet")
    for name in (
        "../secret.parquet", "a/../../secret.parquet", tmp_path / "secret.parquet", "/etc/passwd",
        "link/secret.parquet", "", ".", "a/.hidden", "s3://other/x", "a\\b", "a\0b", "x" * 2000,
    ):  # fmt: skip
        with pytest.raises(MessageError, match="refused"):
            store.path_of(name)


def test_payloads_are_read_back_and_trouble_is_told(tmp_path):
    store = PayloadStore(tmp_path)
    writer = store.writer(SCHEMA)
    writer.write(rows(1000).to_batches())
    assert [file for file in tmp_path.iterdir() if not file.name.startswith(".")] == []
    writer.publish("d/x.parquet")
    assert pa.Table.from_batches(store.batches("d/x.parquet", batch_size=300)).equals(rows(1000))
    assert pq.read_table(tmp_path / "d" / "x.parquet").num_rows == 1000
    with pytest.raises(MessageError, match="more than"):
        list(store.batches("d/x.parquet", max_rows=10))
    with pytest.raises(PayloadError, match=r"there is no payload d/y\.parquet"):
        list(store.batches("d/y.parquet"))
    (tmp_path / "z.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(PayloadError, match="cannot be read"):
        list(store.batches("z.parquet"))


def test_settings_come_from_code_then_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("IONBEAM_AMQP_URL", "amqps://me:secret@broker.example:5673/weather")
    monkeypatch.setenv("IONBEAM_RETRY_DELAYS", "1,2.5")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = IonbeamClientConfig()
    assert config.broker == "broker.example:5673/weather" and "secret" not in repr(config)
    assert config.retry_delays == (1, 2.5)
    assert config.state_folder == tmp_path / "ionbeam-client" / "broker.example_5673_weather"
    assert IonbeamClientConfig(amqp_url="amqp://localhost:5672/").broker == "localhost:5672/"
    for wrong in ({"amqp_uri": "amqp://x/"}, {"amqp_url": "http://x/"}, {"retry_delays": (-1,)}):
        with pytest.raises(ValueError, match=r"amqp|greater"):
            IonbeamClientConfig(**wrong)


def test_a_time_without_a_zone_is_refused():
    from ionbeam_client.client import _command

    with pytest.raises(DataError, match="start_time 2024-01-01 00:00:00 has no time zone"):
        _command(METADATA, datetime(2024, 1, 1), END)
    with pytest.raises(DataError, match="must be later"):
        _command(METADATA, END, START)
