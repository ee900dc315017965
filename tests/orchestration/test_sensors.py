"""The sensor of sources that tell what changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from told import HOUR, QUARTER, START, key, window

from ionbeam_dagster.domain.windows import DAY, Window, window_of
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.sensors.files import RUNS_A_TICK

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

SOURCE = "  told_changes: {start: 2026-06-21T00:00:00Z}"


class Sensed:
    """A platform's sensor, ticked by hand with the cursor that it left."""

    def __init__(self, platform, instance) -> None:
        self.source = platform.sources["told_changes"]
        self.repository = build_definitions(WatchedPlatform(platform)).get_repository_def()
        self.sensor = self.repository.get_sensor_def("told_changes__changes")
        self.instance = instance
        self.cursor = None

    def tick(self) -> list[tuple[str, str]]:
        """The first and last window of each run that is requested."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=self.repository, sensor_name=self.sensor.name
        )
        result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor
        self.skipped = result.skip_message
        for request in result.run_requests:
            assert {asset.to_user_string() for asset in request.asset_selection} == {
                "told_changes/raw", "told_changes/observations"
            }  # fmt: skip
        return [_ends(request.tags) for request in result.run_requests]


def test_what_changed_is_requested_once_as_contiguous_runs(platform_with, instance):
    sensed = Sensed(platform_with(SOURCE), instance)
    assert sensed.tick() == []
    assert sensed.skipped == "nothing of told_changes changed"

    minute = timedelta(minutes=1)
    sensed.source.changed = [
        Window(window("03:00").start + minute, window("03:45").start + minute),
        Window(START - DAY, START + minute),
        window("05:00"),
    ]
    assert sensed.tick() == [(key("00:00"), key("00:00")), (key("03:00"), key("03:45")), (key("05:00"), key("05:00"))]
    assert sensed.tick() == []

    sensed.source.changed.append(window("03:15"))
    assert sensed.tick() == [(key("03:15"), key("03:15"))]


def test_a_tick_requests_a_bounded_number_of_runs_and_the_next_ones_the_rest(platform_with, instance):
    sensed = Sensed(platform_with(SOURCE), instance)
    sensed.source.changed = [Window(START, START + (RUNS_A_TICK + 2) * DAY - 3 * HOUR)]
    first, second = sensed.tick(), sensed.tick()
    assert len(first) == RUNS_A_TICK
    assert first[0] == (key("00:00"), key("23:45"))
    assert [run[0] for run in second] == ["20260701T000000", "20260702T000000"]
    assert second[-1][1] == "20260702T204500"
    assert sensed.tick() == []


def test_a_change_in_a_window_that_has_not_ended_waits_for_its_end(platform_with, instance):
    sensed = Sensed(platform_with(SOURCE), instance)
    now = datetime.now(UTC)
    begun = window_of(now, QUARTER)
    sensed.source.changed = [Window(now - QUARTER, now), Window(now, now + timedelta(days=40_000))]
    assert sensed.tick() == [(window_of(now - QUARTER, QUARTER).key,) * 2]
    assert sensed.tick() == []
    with partition_loading_context(begun.end + timedelta(seconds=1)):
        assert sensed.tick() == [(begun.key, begun.key)]


def test_what_a_sensor_requests_runs_in_the_collect_job(platform_with, instance):
    sensed = Sensed(platform_with(SOURCE), instance)
    sensed.source.changed = [window("00:15")]
    ((first, last),) = sensed.tick()
    result = self_run(sensed, first, last)
    assert result.success
    assert sensed.source.fetched == [key("00:15")]


def _ends(tags) -> tuple[str, str]:
    single = tags.get("dagster/partition")
    first, last = tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end")
    return (single, single) if single else (first, last)


def self_run(sensed: Sensed, first: str, last: str) -> dg.ExecuteInProcessResult:
    return sensed.repository.get_job("told_changes__collect").execute_in_process(
        tags=partition_tags(first, last),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=sensed.instance,
    )
