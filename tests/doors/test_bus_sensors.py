"""The bus in Dagster: ticks that take in, report, ask and announce, and the conditions that follow."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from bus_samples import DAY, HOUR, START, body, command, heard, listen, rows, send, waiting

from ionbeam_client import wire
from ionbeam_client.models import StartSourceCommand
from ionbeam_dagster.domain.windows import Window, window_of
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.orchestration.arrivals import Arrivals
from ionbeam_dagster.orchestration.assets.request import request_key
from ionbeam_dagster.orchestration.assets.source import observations_key, raw_key
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.heartbeats import this_host
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.stores.ledger.leases import lease_of

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


class Sensed:
    """A platform's sensors, ticked by hand with the cursors that they left."""

    def __init__(self, platform, instance) -> None:
        self.definitions = build_definitions(WatchedPlatform(platform))
        self.repository = self.definitions.get_repository_def()
        self.instance = instance
        self.cursors = {}

    def tick(self, name: str):
        sensor = self.repository.get_sensor_def(name)
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursors.get(name), repository_def=self.repository, sensor_name=name
        )
        result = sensor.evaluate_tick(context)
        self.cursors[name] = result.cursor
        return result

    def reported(self, source: str) -> list[str]:
        filter = dg.AssetRecordsFilter(asset_key=raw_key(source))
        records = self.instance.fetch_materializations(filter, limit=100).records
        return sorted(record.asset_materialization.partition for record in records)

    def materialise(self, key: dg.AssetKey, first: str, last: str) -> dg.ExecuteInProcessResult:
        return self.repository.get_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[key], tags=partition_tags(first, last), instance=self.instance, raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )  # fmt: skip


def test_ticks_report_what_came_build_it_by_automation_and_announce_it(platform, broker, instance):
    sensed = Sensed(platform, instance)
    listen(broker)
    send(broker, body(command(end_time=START + 12 * HOUR)), b"garbage", body(command(), rows(first=5.0)))
    result = sensed.tick("bridge")
    assert "2 from ionbeam.ingestion.ingestV1" in result.skip_message and "1 parked: neither" in result.skip_message
    keys = [f"20240101T{hour:02}0000" for hour in (0, 6, 12, 18)]
    assert sensed.reported("my_source") == keys
    assert "reported" not in (sensed.tick("bridge").skip_message or "")

    asked = dg.evaluate_automation_conditions(defs=sensed.definitions, instance=instance)
    assert asked.get_requested_partitions(observations_key("my_source")) == set(keys)
    assert sensed.materialise(observations_key("my_source"), keys[0], keys[-1]).success
    asked = dg.evaluate_automation_conditions(defs=sensed.definitions, instance=instance, cursor=asked.cursor)
    assert asked.get_requested_partitions(observations_key("my_source")) == set()
    assert asked.get_requested_partitions(dg.AssetKey(["example_weather", "dataset"])) == {keys[0]}
    assert sensed.materialise(dg.AssetKey(["example_weather", "dataset"]), keys[0], keys[0]).success
    assert sensed.tick("outbox").skip_message == "3 changes announced, 0 revisions replayed"
    [event] = heard(broker)
    assert (event.start_time, event.metadata.name) == (START, "example_weather")


def test_a_backfill_of_the_request_asks_for_every_window(platform, broker, instance):
    sensed = Sensed(platform, instance)
    assert sensed.materialise(request_key("my_source"), "20240101T000000", "20240101T180000").success
    sent = [wire.decode(StartSourceCommand, d.body).message for d in waiting(broker, wire.source_queue("my_source"))]
    assert [(one.source_name, one.start_time) for one in sent] == [
        ("my_source", START + hours * HOUR) for hours in (0, 6, 12, 18)
    ]
    assert len(platform.ledger.requests.unanswered(10)) == 4
    filter = dg.AssetRecordsFilter(asset_key=request_key("my_source"))
    told = instance.fetch_materializations(filter, limit=1).records[0].asset_materialization.metadata
    assert told["not answered in all"].md_str.count("2024-01-01") == 4


def test_a_window_is_asked_for_at_its_trigger_once_more_and_not_when_it_came(platform, broker, instance):
    sensed, span = Sensed(platform, instance), 6 * HOUR
    last = window_of(datetime.now(UTC) - span, span)
    key, moment, cursor = request_key("my_source"), last.end + timedelta(minutes=1), None

    def evaluate(after: timedelta) -> set[str]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(
            defs=sensed.definitions, instance=instance, cursor=cursor, evaluation_time=moment + after,
            asset_selection=dg.AssetSelection.assets(key),
        )  # fmt: skip
        cursor = result.cursor
        return result.get_requested_partitions(key)

    asked = [evaluate(timedelta(seconds=seconds)) for seconds in (0, 5, 15, 25)]
    assert asked == [{last.key}, set(), {last.key}, set()], "what was not sent, as the runs did not come, is sent again"
    assert sensed.materialise(key, last.key, last.key).success
    moment = datetime.now(UTC)
    assert [evaluate(timedelta(minutes=minutes)) for minutes in (0, 9, 11)] == [set(), set(), {last.key}]
    given = command(start_time=last.start, end_time=last.end)
    assert bridge_of(platform).intake.ingestions([body(given, rows(0))]) == [None]
    cursor = None
    assert evaluate(timedelta(0)) == set()


def test_a_start_command_makes_the_platform_collect_the_range_once(platform, broker, instance):
    sensed = Sensed(platform, instance)
    asked = StartSourceCommand(source_name="ioncannon", start_time=START, end_time=START + DAY, use_cache=True)
    send(broker, wire.json_body(asked), queue=wire.source_queue("ioncannon"))
    result = sensed.tick("bridge")
    [request] = result.run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "20240101T000000"
    assert request.tags["dagster/asset_partition_range_end"] == "20240101T235500"
    assert str(asked.id) in request.run_key
    assert request.job_name == "ioncannon__collect" and request.tags["ionbeam/use_cache"] == "true"
    assert sensed.tick("bridge").run_requests == []


def test_sources_of_different_windows_may_be_asked_over_one_bus(platform_of):
    """One sensor for the collecting of both: Dagster has no job of assets whose partitions differ."""
    platform = platform_of(
        "  ioncannon: {start: 2024-01-01}\n  other: {type: ioncannon, start: 2025-01-01, aggregation_span: P1D}",
        broker="{url: 'amqp://127.0.0.1:1'}",
    )
    dg.Definitions.validate_loadable(build_definitions(WatchedPlatform(platform)))


def test_without_a_broker_there_is_nothing_of_the_bus(platform_of):
    platform = platform_of("  my_source: {kind: external, start: 2024-01-01}")
    repository = build_definitions(WatchedPlatform(platform)).get_repository_def()
    assert not {sensor.name for sensor in repository.sensor_defs} & {"bridge", "outbox"}
    assert request_key("my_source") not in repository.asset_graph.get_all_asset_keys()


def test_a_broker_that_is_away_fails_no_tick(platform_of, instance, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.doors.amqp.bridge.CONNECT_TIMEOUT", 0.5)
    sensed = Sensed(platform_of("  my_source: {kind: external}", broker="{url: 'amqp://127.0.0.1:9/'}"), instance)
    for name in ("bridge", "outbox"):
        assert "does not answer" in sensed.tick(name).skip_message


def test_the_open_window_is_ingested_as_it_comes(platform, instance):
    now = datetime.now(UTC)
    window = window_of(now, 6 * HOUR)
    given = Window(window.start, now)
    message = command(start_time=given.start, end_time=given.end)
    assert bridge_of(platform).intake.ingestions([body(message, rows(1, start=given.start))]) == [None]
    asked = dg.evaluate_automation_conditions(defs=Sensed(platform, instance).definitions, instance=instance)
    assert asked.get_requested_partitions(observations_key("my_source")) == {window.key}


def test_what_arrives_is_done_at_once_and_automation_finds_nothing_left(platform, instance):
    """Work that fails is due again after a while, for whoever looks first."""
    arrivals, whole = Arrivals(platform, instance), command()
    assert bridge_of(platform).intake.ingestions([body(whole)]) == [None]
    arrivals.bring_up_to_date()
    key = dg.AssetKey(["example_weather", "dataset"])
    made = {one: instance.get_materialized_partitions(dg.AssetKey(["example_weather", one])) for one in STAGES}
    assert made == {one: {"20240101T000000"} for one in STAGES}
    assert len(sensed_reports(instance)) == 4
    runs = instance.get_runs_count()
    arrivals.bring_up_to_date()
    asked = dg.evaluate_automation_conditions(defs=Sensed(platform, instance).definitions, instance=instance)
    assert instance.get_runs_count() == runs
    assert not asked.get_requested_partitions(key)
    assert not asked.get_requested_partitions(observations_key("my_source"))

    assert bridge_of(platform).intake.ingestions([body(command(), rows(first=1.0))]) == [None]
    damaged = platform.ledger.sent("my_source", Window(START, START + 6 * HOUR))[-1]
    Path(damaged.path).write_bytes(b"damaged")
    arrivals.bring_up_to_date()
    failed = instance.get_runs_count()
    arrivals.bring_up_to_date()
    assert instance.get_runs_count() == failed > runs
    later = datetime.now(UTC) + timedelta(seconds=11)
    asked = dg.evaluate_automation_conditions(
        defs=Sensed(platform, instance).definitions, instance=instance, evaluation_time=later
    )
    assert asked.get_requested_partitions(observations_key("my_source"))


def test_a_window_that_a_killed_process_held_is_free_again(platform, instance):
    """No worker is there to see it: `ionbeam receive` and `ionbeam bridge` do so themselves."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    window = Window(START, START + 6 * HOUR)
    platform.ledger.workers.beat("killed", this_host(), gone.pid, "run of my_source__collect")
    lease = lease_of("ingest", "my_source", window)
    assert platform.ledger.leases.take([lease], "killed") == [lease]
    assert bridge_of(platform).intake.ingestions([body(command())]) == [None]
    Arrivals(platform, instance).bring_up_to_date()
    assert platform.ledger.waiting("my_source") == []
    assert platform.ledger.leases.held() == {}


STAGES = ("dataset", "odb", "pygeoapi")


def sensed_reports(instance) -> list:
    return instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=raw_key("my_source")), limit=10).records
