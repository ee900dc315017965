"""What the doors took in survives a ledger that is lost: it is told from the files, and nothing is taken twice."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from bus_samples import HOUR, SOURCES, START, body, command, rows
from redis import Redis

from ionbeam_client.models import StartSourceCommand
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.doors.amqp.status import bus_status
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.stores.ledger.parts import Unfinished

FIRST = Window(START, START + 6 * HOUR)


@pytest.fixture(params=["sqlite", "redis"])
def kept_in(request, platform_of) -> Platform:
    sections = {"broker": "{url: 'amqp://127.0.0.1:1'}"}
    if request.param == "redis":
        url = request.getfixturevalue("redis").url
        with Redis.from_url(url) as client:
            client.flushdb()
        sections["redis"] = f"{{redis_url: '{url}'}}"
    return platform_of(SOURCES, **sections)


def lose(platform: Platform) -> Platform:
    """The platform with a ledger that was lost, as another process opens it."""
    server = platform.config.sections.redis
    if server is None:
        for path in platform.config.sections.state_path.glob("ledger.sqlite*"):
            path.unlink()
    else:
        with Redis.from_url(server.redis_url) as client:
            client.flushdb()
    return open_platform(IonbeamConfig.load(platform.config.path))


def test_a_command_whose_first_part_came_before_the_ledger_was_lost_is_whole_with_its_last(kept_in):
    id, table = uuid4(), rows(24)
    first, second, last = (
        body(command(id=id, part=part, parts=3), table.slice(8 * (part - 1), 8)) for part in (1, 2, 3)
    )
    assert bridge_of(kept_in).intake.ingestions([first, second]) == [None, None]
    after = lose(kept_in)
    assert after.ledger.parts.unfinished() == [Unfinished(str(id), "my_source", 2, 3)]
    assert "2 parts of ingestions wait for the others" in after.ledger.recovered()[1]
    take = bridge_of(after).intake.ingestions
    assert take([first]) == [None]
    [reason] = take([body(command(id=id, part=3, parts=4), table)])
    assert "says other things" in reason
    assert take([last]) == [None]
    [raw] = after.ledger.sent("my_source", FIRST)
    assert pq.read_table(raw.path)["t"].to_pylist() == table["t"].to_pylist()
    assert after.ledger.parts.unfinished() == [] and not list(Path("ionbeam-state/bus/parts").rglob("*.parquet"))
    again = lose(after)
    assert bridge_of(again).intake.ingestions([first, second, last]) == [None] * 3
    assert again.ledger.sent("my_source", FIRST) == [raw] and again.ledger.parts.unfinished() == []


def test_a_command_that_was_taken_in_before_the_ledger_was_lost_is_not_taken_in_twice(kept_in):
    built, waits = (body(command()) for _ in range(2))
    assert bridge_of(kept_in).intake.ingestions([built]) == [None]
    ingest(kept_in, kept_in.source("my_source"), FIRST)
    assert bridge_of(kept_in).intake.ingestions([waits]) == [None]
    before = [raw.ingestion for raw in kept_in.ledger.sent("my_source", FIRST)]
    written = {path: path.stat().st_mtime_ns for path in Path().rglob("my_source_*.parquet")}
    after = lose(kept_in)
    assert bridge_of(after).intake.ingestions([waits, built]) == [None, None]
    assert sorted(raw.ingestion for raw in after.ledger.sent("my_source", FIRST)) == sorted(before)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("my_source_*.parquet")} == written
    assert all(one.commands <= 2 for one in after.ledger.commands.unreported(10))


def test_what_clients_want_after_the_loss_is_seen_by_a_sensor_that_stands_where_it_stood_before(kept_in):
    def wants(platform: Platform) -> int:
        asked = StartSourceCommand(source_name="ioncannon", start_time=START, end_time=START + HOUR)
        text = asked.model_dump_json().encode()
        assert bridge_of(platform).intake.start_commands("ioncannon", [text]) == [None]
        return platform.ledger.requests.after(0, 10)[-1].number

    cursor = wants(kept_in)
    assert wants(lose(kept_in)) > cursor
    assert "0 commands taken in within 30 days" in bus_status(kept_in.ledger).lines()[0]
