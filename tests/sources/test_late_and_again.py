"""What comes late or is published again, through Dagster on an instance of its own: noticed, collected, built anew."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from acronet_service import LOGIN, Webdrops
from netatmo_service import Esoh, coverage
from sensor_community_service import Archive, file

from ionbeam_dagster.domain.windows import Window, window_of
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import run_range
from ionbeam_dagster.sources.sensor_community import archive

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

HOUR = timedelta(hours=1)
TEMPERATURE = "air_temperature__degC__2.0__{}"


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


class Working:
    """A platform of one source whose sensor and automation are ticked when a test says so, at the time that it says."""

    def __init__(self, platform, instance, monkeypatch) -> None:
        self.platform, self.instance = platform, instance
        [self.name] = platform.config.sources
        self.now = datetime.now(UTC)
        monkeypatch.setattr(type(platform), "now", lambda platform: self.now)
        self._defs = build_definitions(WatchedPlatform(platform))
        self._repository = self._defs.get_repository_def()
        self._sensor = self._repository.get_sensor_def(f"{self.name}__changes")
        self._seen, self._automation = None, None

    def collected_again(self) -> list[str]:
        """What the sensor puts on the agenda now, which is collected at once: the windows."""
        context = dg.build_sensor_context(self.instance, self._seen, repository_def=self._repository)
        self._seen = self._sensor.evaluate_tick(context).cursor
        noted = self.platform.ledger.attempts.open("collect", self.name)
        keys = [work.window.key for work in noted if work.reason == "its content changed"]
        for key in keys:
            self._run("collect", [f"{self.name}/raw", f"{self.name}/observations"], partition_tags(key, key))
        return keys

    def automated(self) -> dict[str, list[str]]:
        """What automation asks for now of the dataset and its exports, which is run at once."""
        told = dg.evaluate_automation_conditions(
            self._defs, self.instance, evaluation_time=self.now, cursor=self._automation
        )
        self._automation = told.cursor
        assets = {stage: dg.AssetKey([self.name, stage]) for stage in ("dataset", "pygeoapi")}
        asked = {stage: sorted(told.get_requested_partitions(key) or ()) for stage, key in assets.items()}
        asked = {stage: keys for stage, keys in asked.items() if keys}
        if asked:
            keys = asked["dataset"]
            self._run("build", [f"{self.name}/{stage}" for stage in asked], partition_tags(keys[0], keys[-1]))
        return asked

    def revision(self, window: Window) -> tuple[int, pl.DataFrame]:
        latest = self.platform.ledger.latest_revision(self.name, window)
        return latest.revision.number, pl.read_parquet(latest.path)

    def _run(self, job: str, assets: list[str], tags: dict[str, str]) -> None:
        done = self._defs.resolve_job_def(f"{self.name}__{job}").execute_in_process(
            asset_selection=[dg.AssetKey(asset.split("/")) for asset in assets],
            tags=tags | {"dagster/from_automation_condition": "true"},
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert done.success


def test_a_day_that_is_published_again_becomes_revision_2_of_the_hour_that_changed(platform_of, instance, monkeypatch):
    day = Window(datetime(2026, 6, 21, tzinfo=UTC), datetime(2026, 6, 22, tzinfo=UTC))
    before, noon = (Window(day.start + hour * HOUR, day.start + (hour + 1) * HOUR) for hour in (11, 12))
    name = "2026-06-21_dht22_sensor_93.csv"
    first = ["42;48.8;9.0;2026-06-21T11:30:00;10.10;60.00", "42;48.8;9.0;2026-06-21T12:30:00;11.10;60.00"]
    with Archive({"2026-06-21": file("2026-06-21", "dht22", 93, first)}) as service:
        platform = platform_of(
            f"  sensor_community: {{base_url: '{service.url}', start: 2026-06-21, exports: [pygeoapi]}}"
        )
        working = Working(platform, instance, monkeypatch)
        working.now = datetime(2026, 6, 22, 12, tzinfo=UTC)
        monkeypatch.setattr(archive, "_now", lambda: working.now)
        assert not any(one.failure for one in run_range(platform, "sensor_community", day.start, day.end, instance))
        assert working.collected_again() == [] and working.automated() == {}

        service.days["2026-06-21"] |= file("2026-06-21", "dht22", 93, [first[0], first[1].replace("11.10", "19.90")])
        service.changed[name] = "2026-06-22 12:20"
        working.now += HOUR + timedelta(minutes=1)
        platform.sources["sensor_community"]._listed.clear()  # a minute has passed
        assert working.collected_again() == [day.key]
        asked = working.automated()
        assert noon.key in asked["dataset"] and noon.key in asked["pygeoapi"]

        number, rows = working.revision(noon)
        assert (number, rows[TEMPERATURE.format("point__PT0S")].to_list()) == (2, [19.9])
        assert working.revision(before)[1][TEMPERATURE.format("point__PT0S")].to_list() == [10.1]
        exported = pl.read_parquet(platform.ledger.export("sensor_community", noon, "pygeoapi").path)
        assert 19.9 in exported.select(pl.selectors.float()).row(0)
        working.now += 2 * HOUR
        platform.sources["sensor_community"]._listed.clear()
        assert working.collected_again() == [] and working.automated() == {}


@pytest.fixture(params=["netatmo", "acronet"])
def slow_stations(request, platform_of):
    """A source that cannot tell what is new, a window of it, how a late value comes, and that value's column."""
    if request.param == "netatmo":
        window = window_of(datetime.now(UTC) - HOUR, HOUR)
        with Esoh() as service:

            def comes(station, value):
                at = (window.start + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
                ranges = {"air_temperature:2.0:point:PT0S": [value]}
                service.coverages.append(coverage(station, 4.5, 50.5, ranges, [at]))

            comes("s1", 1.5)
            block = f"netatmo: {{base_url: '{service.url}', countries: [], areas: {{box: [4, 50, 7, 53]}}, start: %s}}"
            yield platform_of(f"  {block % window.start.date()}"), window, comes, "point__PT0S"
        return
    window = Window(datetime(2026, 6, 21, 12, tzinfo=UTC), datetime(2026, 6, 21, 13, tzinfo=UTC))
    with Webdrops() as service:

        def comes(station, value):
            service.add("TERMOMETRO", f"{station}_1", station, (43.9, 7.7), "°C", {window.start + HOUR / 6: value})

        comes("s1", 1.5)
        block = (
            f"acronet: {{base_url: '{service.url}/app/', token_endpoint: '{service.url}{LOGIN}', username: someone, "
            "password: very-secret, client_secret: client-secret, start: 2026-06-21}"
        )
        yield platform_of(f"  {block}"), window, comes, "mean__PT10M"


def test_what_comes_late_to_a_source_that_cannot_tell_is_collected_again(slow_stations, instance, monkeypatch):
    platform, window, comes, column = slow_stations
    working = Working(platform, instance, monkeypatch)
    [source] = platform.config.sources.values()
    first, second = (source.window_lag + after for after in source.config.collect_again_after)

    def collected(after):
        """Time goes on; what was collected at it has its time."""
        working.now = window.end + after
        again = working.collected_again()
        if again:
            at = working.now.timestamp()
            os.utime(platform.ledger.raw(working.name, window).path, (at, at))
        return again

    assert not any(one.failure for one in run_range(platform, working.name, window.start, window.end, instance))
    raw = Path(platform.ledger.raw(working.name, window).path)
    os.utime(raw, (window.end.timestamp(), window.end.timestamp()))
    minute = timedelta(minutes=1)
    comes("s2", 2.5)
    assert collected(first - HOUR) == [] and working.automated() == {}
    assert collected(first + minute) == [window.key]
    assert working.automated()["dataset"] == [window.key]
    number, rows = working.revision(window)
    assert (number, rows[TEMPERATURE.format(column)].to_list()) == (2, [1.5, 2.5])
    assert collected(first + 2 * HOUR) == []
    assert collected(second + minute) == [window.key]
    assert working.automated() == {}  # it came back the same
    assert working.revision(window)[0] == 2
    assert collected(second + 2 * HOUR) == []
