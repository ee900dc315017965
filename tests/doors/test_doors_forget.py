"""What doors keep of a station that is forgotten: parked lines, payloads, parts, and what clients send of it later."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from bus_samples import SOURCES, body, command, rows

from ionbeam_client import wire
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.doors.forgetting import bus, parked
from ionbeam_dagster.doors.http.memory import Memory
from ionbeam_dagster.doors.http.parked import parking
from ionbeam_dagster.pipeline.forgetting import forget, who_is

DOOR = """
  scheduler: {windows: [{source_name: garden, window_size: PT1H}]}
  garden:
    kind: door
    token: garden-token-1
    start: 2026-06-01
    variables: [{measurement: weather, field: t, standard_name: air_temperature, cf_unit: degC, level: 2.0}]
"""


def test_parked_lines_and_their_samples_go(platform_of):
    platform = platform_of(DOOR)
    folder = platform.config.sections.state_path / "door"
    place = folder / "parked" / "garden" / "1.parquet"
    place.parent.mkdir(parents=True)
    (place.parent / "0.parquet").write_bytes(b"PAR1 and nothing else PAR1")  # which holds up nothing
    lines = ["cpu,station=roof idle=1 17", "cpu,station=roof\\ 2 idle=1 18", "cpu,host=roof,station=hut idle=1 19"]
    reasons = ["one", "two", "three"]
    table = pl.DataFrame({"line": lines, "received": [1, 2, 3], "measurement": "cpu", "reason": reasons})
    with parking(place) as kept:
        kept.add(table)
    memory = Memory(folder)
    memory.taken("garden", "1", None, {}, kept.summary())
    found = forget(platform, who_is(platform, "garden", "roof"), also=(parked, bus))
    assert [(one.kind, one.rows) for one in found.removed] == [("parked lines", 1)] * 2
    assert pl.read_parquet(place)["line"].to_list() == lines[1:]
    assert sorted(one.sample for one in memory.parked("garden")) == ["", *sorted(lines[1:])]
    forget(platform, who_is(platform, "garden", "roof 2"), also=(parked, bus))
    forget(platform, who_is(platform, "garden", "hut"), also=(parked, bus))
    assert not place.exists()


def test_payloads_and_parts_lose_it_and_what_is_sent_later_is_taken_without_it(platform_of):
    platform = platform_of(SOURCES, broker="{url: 'amqp://127.0.0.1:9/'}")
    intake, store = bridge_of(platform).intake, Path("ionbeam-state/payloads")
    pq.write_table(rows(), store / "its.parquet")
    pq.write_table(rows(station="hut"), store / "others.parquet")
    both = pa.concat_tables([rows(2), rows(2, station="hut")])
    bodies = [
        wire.json_body(command(payload_location=Path("its.parquet"))),
        wire.json_body(command(payload_location=Path("others.parquet"))),
        body(command(id=UUID(int=1), part=1, parts=2), both),
    ]
    assert intake.ingestions(bodies) == [None] * 3
    found = forget(platform, who_is(platform, "my_source", "roof"), also=(parked, bus))
    assert {one.kind: one.rows for one in found.removed} == {
        "raw partitions": 24, "payloads": 24, "parts that wait for others": 2
    }  # fmt: skip
    assert sorted(path.name for path in store.glob("*.parquet")) == ["others.parquet"]
    assert intake.ingestions([body(command(id=UUID(int=1), part=2, parts=2), both)]) == [None]
    raws = [raw for raw in platform.ledger.raws("my_source", platform.now()) if raw.rows]
    assert sorted(raw.rows for raw in raws) == [4, 24]
    for raw in raws:
        assert pq.read_table(raw.path)["station_id"].unique().to_pylist() == ["hut"]
        assert platform.raws(platform.source("my_source")).measured(raw.path) == (raw.rows, raw.bytes, raw.hash)


def test_a_damaged_payload_or_part_is_told_and_holds_up_nothing(platform_of, caplog):
    platform = platform_of(SOURCES, broker="{url: 'amqp://127.0.0.1:9/'}")
    intake, store = bridge_of(platform).intake, Path("ionbeam-state/payloads")
    both = pa.concat_tables([rows(2), rows(2, station="hut")])
    pq.write_table(rows(), store / "its.parquet")
    bodies = [
        wire.json_body(command(payload_location=Path("its.parquet"))),
        body(command(id=UUID(int=1), part=1, parts=3), both),
        body(command(id=UUID(int=1), part=2, parts=3), both),
    ]
    assert intake.ingestions(bodies) == [None] * 3
    part, _ = parts = sorted(intake.parts.folder.rglob("*.parquet"))
    for damaged in (store / "its.parquet", part):
        damaged.write_bytes(b"PAR1 and nothing else PAR1")
    found = forget(platform, who_is(platform, "my_source", "roof"), also=(parked, bus))
    assert [one.rows for one in found.removed if one.kind == "parts that wait for others"] == [2], parts
    told = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert {name for name in ("its.parquet", part.name) if any(name in line for line in told)} == {
        "its.parquet", part.name
    }, told  # fmt: skip
