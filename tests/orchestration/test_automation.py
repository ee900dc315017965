"""Automation, tick by tick on a real instance: what is asked for, and what is not asked for again."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from told import HOUR, QUARTER, START, key, put_point, window

from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import Window, window_from_key
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.agenda import MOST, last_trigger, overdue
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

TOLD = "  told: {start: 2026-06-21T00:00:00Z}"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Automated:
    """A platform whose automation is evaluated when a test says so, and whose requests are run when it says so."""

    def __init__(self, platform, instance) -> None:
        self.platform = platform
        self.instance = instance
        self._defs = build_definitions(WatchedPlatform(platform))
        self._cursor = None
        self.configured = False
        self.clock = START + timedelta(days=1)
        platform.now = lambda: self.clock

    def tick(self, time: str, days_later: int = 0) -> dict[str, list[str]]:
        """What is asked for at a time of day: the partition keys by asset. (`configured` tells of the one without.)"""
        self.clock = window(time).start + timedelta(days=days_later, seconds=1)
        told = dg.evaluate_automation_conditions(
            self._defs, self.instance, evaluation_time=self.clock, cursor=self._cursor
        )
        self._cursor = told.cursor
        assets = self._defs.resolve_asset_graph().get_all_asset_keys()
        requested = {asset.to_user_string(): told.get_requested_partitions(asset) for asset in assets}
        self.configured = bool(requested.pop("pygeoapi_config", False))
        return {asset: sorted(keys) for asset, keys in requested.items() if keys}

    def perform(self, requested: dict[str, list[str]], by_hand: bool = False) -> None:
        """Run what was asked for as Dagster would: assets of the same partitions together, a contiguous range a run."""
        together = defaultdict(list)
        for asset, keys in requested.items():
            together[tuple(keys)].append(asset)
        for keys, assets in together.items():
            for run in _contiguous(keys, QUARTER if any("raw" in a or "obs" in a for a in assets) else HOUR):
                self.run(assets, run[0], run[-1], by_hand)

    def run(self, assets: list[str], first: str, last: str, by_hand: bool = False) -> dg.ExecuteInProcessResult:
        job = "told__collect" if any("raw" in a or "obs" in a for a in assets) else "told__build"
        alone = assets == ["told/odb_cycle"]
        known = self._defs.resolve_implicit_global_asset_job_def() if alone else self._defs.resolve_job_def(job)
        asked = {} if by_hand else {"dagster/from_automation_condition": "true"}
        return known.execute_in_process(
            asset_selection=[dg.AssetKey(asset.split("/")) for asset in assets],
            tags=partition_tags(first, last) | asked,
            instance=self.instance,
            run_config=QUIET,
            raise_on_error=False,
        )

    def on(self, time: str) -> dict[str, list[str]]:
        """Tick and run what is asked for."""
        requested = self.tick(time)
        self.perform(requested)
        return requested


def _contiguous(keys, span):
    placed = [(window_from_key(k, span).start - index * span, k) for index, k in enumerate(keys)]
    return [[k for _, k in run] for _, run in groupby(placed, lambda pair: pair[0])]


def every_quarter(first: str, last: str) -> list[str]:
    start, end = window(first), window(last)
    count = (end.start - start.start) // QUARTER
    return [(start.start + n * QUARTER).strftime("%Y%m%dT%H%M%S") for n in range(count + 1)]


def fine(keys: list[str]) -> dict[str, list[str]]:
    return {"told/raw": keys, "told/observations": keys}


def exports(keys: list[str]) -> dict[str, list[str]]:
    return {"told/odb": keys, "told/pygeoapi": keys}


def hourly(keys: list[str]) -> dict[str, list[str]]:
    return {"told/dataset": keys} | exports(keys)


@pytest.fixture
def automated(platform_with, instance):
    return Automated(platform_with(TOLD), instance)


def test_what_ended_within_lookback_is_collected_then_built_then_left_alone(automated):
    assert automated.on("03:02") == fine(every_quarter("01:00", "02:45"))
    assert automated.on("03:03") == hourly([key("01:00"), key("02:00")])
    assert automated.on("03:04") == {}
    # the next window of the source is asked for when it has ended; its hour when that has
    assert automated.on("03:15") == fine([key("03:00")])
    assert automated.on("03:16") == {}
    assert automated.platform.ledger.latest_revision("told", window("02:00", HOUR)).facts.complete
    assert automated.platform.ledger.export("told", window("02:00", HOUR), "odb").number == 1


def test_the_web_configuration_is_asked_for_at_the_start_and_once_after_every_export(automated):
    """It is not run here, as if it failed: that is no reason to ask for it again."""

    def asked_at(time: str) -> bool:
        automated.on(time)
        return automated.configured

    assert asked_at("03:02"), "a service starts with what there is, be it nothing"
    assert not asked_at("03:03")
    assert asked_at("03:04"), "the exports were made at the tick before"
    assert not asked_at("03:05")
    automated.platform.sources["told"].warmer = {key("01:15"): 3.0}
    automated.perform(fine([key("01:15")]), by_hand=True)
    assert [asked_at(time) for time in ("03:06", "03:07", "03:08")] == [False, True, False]


def test_after_down_time_everything_missed_within_lookback_comes_at_once(automated):
    automated.on("02:02")
    assert automated.tick("03:31") == fine(every_quarter("02:00", "03:15")) | hourly([key("00:00"), key("01:00")])


def test_a_window_that_cannot_be_collected_stays_due_and_does_not_hold_up_the_others(automated):
    automated.on("03:02")
    automated.on("03:03")
    automated.platform.sources["told"].failing = {key("03:00")}
    tried = [time for time in ("03:15", "03:16", "03:17", "03:18", "03:19") if automated.on(time)]
    assert tried == ["03:15", "03:16", "03:17", "03:18"], "after 10, 20, 40, 80 seconds"
    assert automated.on("03:30") == fine([key("03:00"), key("03:15")])
    # that range run failed for 03:00, so the observations of 03:15 are still to be made, and only those
    assert automated.on("03:31") == {"told/observations": [key("03:15")]}
    [failing] = automated.platform.ledger.attempts.open()
    assert (failing.window, failing.tries, failing.error) == (window("03:00"), 5, f"no answer for {key('03:00')}")
    # it is tried on when it is older than `lookback`, and whoever looks is told of it
    later = automated.tick("08:00")
    assert key("03:00") in later["told/raw"]
    assert [one.window for one in overdue(automated.platform, automated.clock)] == [window("03:00")]
    automated.platform.sources["told"].failing = set()
    automated.perform(fine([key("03:00")]))
    automated.perform(fine(every_quarter("03:30", "03:45")))
    assert automated.platform.ledger.attempts.open("collect", "told")[0].window != window("03:00")
    assert hourly([key("03:00")]).items() <= automated.tick("08:01").items()


def test_late_data_makes_a_new_revision_and_the_same_data_again_does_not(automated):
    automated.on("03:02")
    automated.on("03:03")
    recollect = fine([key("01:15")])

    automated.perform(recollect, by_hand=True)
    assert automated.on("03:04") == {}

    automated.platform.sources["told"].warmer = {key("01:15"): 3.0}
    automated.perform(recollect, by_hand=True)
    assert automated.on("03:04") == hourly([key("01:00")])
    assert automated.on("03:04") == {}
    assert automated.platform.ledger.latest_revision("told", window("01:00", HOUR)).revision.number == 2
    assert automated.platform.ledger.export("told", window("01:00", HOUR), "pygeoapi").number == 2


def test_a_raw_partition_that_was_collected_alone_is_ingested(automated):
    automated.on("03:02")
    automated.on("03:03")
    automated.platform.sources["told"].warmer = {key("01:15"): 3.0}
    automated.perform({"told/raw": [key("01:15")]}, by_hand=True)
    assert automated.on("03:04") == {"told/observations": [key("01:15")]}
    assert automated.tick("03:04") == hourly([key("01:00")])


def test_a_window_that_cannot_be_built_stays_due_and_starts_anew_when_something_arrives(automated):
    automated.on("03:02")
    in_the_way = Path(automated.platform.datasets.path("told", window("01:00", HOUR), 1)).parent
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a folder should be")
    both = [key("01:00"), key("02:00")]

    assert automated.on("03:03") == hourly(both)
    tries = ["03:04", "03:05", "03:06", "03:08", "03:11"]
    assert [automated.on(time) for time in tries] == [hourly(both)] * 5
    assert "told/dataset" not in automated.tick("03:12")

    automated.platform.sources["told"].warmer = {key("01:15"): 3.0}
    automated.perform(fine([key("01:15")]), by_hand=True)
    in_the_way.unlink()
    assert automated.on("03:12")["told/dataset"] == [key("01:00")]
    assert automated.platform.ledger.latest_revision("told", window("01:00", HOUR)).revision.number == 1
    assert automated.on("03:30")["told/dataset"] == [key("02:00")], "what failed for half an hour is tried on"
    assert automated.platform.ledger.latest_revision("told", window("02:00", HOUR)).revision.number == 1


def test_an_export_that_failed_is_tried_again_without_building_or_exporting_anything_else(automated):
    automated.on("02:02")
    in_the_way = Path(automated.platform.export_path("told", "odb", window("01:00", HOUR))).parent
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a folder should be")
    automated.on("02:03")
    in_the_way.unlink()
    assert automated.on("02:04") == {"told/odb": [key("00:00"), key("01:00")]}
    assert automated.on("02:04") == {}


def test_an_export_whose_renewal_failed_is_tried_again_later(automated):
    automated.on("02:02")
    automated.on("02:03")
    exported = Path(automated.platform.export_path("told", "odb", window("01:00", HOUR))).parent
    exported.rename(exported.with_name("aside"))
    exported.write_text("a file where a folder should be")
    automated.platform.sources["told"].warmer = {key("01:15"): 3.0}
    automated.perform(fine([key("01:15")]), by_hand=True)
    renewal = {"told/odb": [key("01:00")]}

    assert automated.on("02:04") == hourly([key("01:00")])
    assert automated.on("02:05") == renewal
    assert automated.tick("02:05") == {}
    exported.unlink()
    exported.with_name("aside").rename(exported)
    assert automated.on("02:15")["told/odb"] == renewal["told/odb"]
    assert automated.platform.ledger.export("told", window("01:00", HOUR), "odb").number == 2
    assert automated.on("02:16") == {}


def test_a_broken_window_is_not_exported_until_it_is_mended(automated):
    automated.on("03:02")
    put_point(automated.platform, "03:00", "off the globe", latitude=95.0)
    automated.clock = window("04:00").start
    automated.run(["told/raw", "told/observations"], key("03:00"), key("03:45"))
    assert automated.on("04:05")["told/dataset"] == [key("01:00"), key("02:00"), key("03:00")]
    # the blocking check ended that run; its good windows are exported now, the broken one is not
    assert automated.on("04:06") == exports([key("01:00"), key("02:00")])
    assert automated.on("04:07") == {}
    put_point(automated.platform, "03:00", "corrected", latitude=52.0)
    assert automated.on("04:08") == hourly([key("03:00")])
    assert automated.platform.ledger.export("told", window("03:00", HOUR), "odb").number == 2


def test_an_export_whose_checks_an_outage_broke_is_made(automated, monkeypatch):
    """The revision is there, and its blocking checks were never evaluated."""
    automated.on("02:02")

    def broken(*given: object) -> None:
        raise OSError("the disk is away for a moment")

    with monkeypatch.context() as outage:
        outage.setattr("ionbeam_dagster.orchestration.checks.of_dataset", broken)
        automated.on("02:03")
    both = [key("00:00"), key("01:00")]
    assert automated.platform.ledger.latest_revision("told", window("01:00", HOUR)).revision.number == 1
    assert automated.on("02:04") == exports(both)
    assert automated.platform.ledger.export("told", window("01:00", HOUR), "odb").number == 1
    assert automated.on("02:05") == {}


@pytest.mark.parametrize("built", [False, True])
def test_a_fresh_dagster_instance_goes_on_from_what_the_ledger_knows(automated, built):
    for each in every_quarter("01:00", "02:45"):
        quarter = window_from_key(each, QUARTER)
        collect(automated.platform, automated.platform.source("told"), quarter, datetime.now(UTC))
        ingest(automated.platform, automated.platform.source("told"), quarter)
    if built:
        automated.run(["told/dataset"], key("01:00"), key("02:00"))
    with dg.DagsterInstance.ephemeral() as fresh:
        later = Automated(automated.platform, fresh)
        made = [key("01:00"), key("02:00")]
        assert later.on("03:02") == (exports(made) if built else hourly(made))
        assert later.on("03:03") == {}


def test_windows_of_long_ago_are_built_when_data_for_them_arrive(automated):
    automated.run(list(fine([])), key("00:00"), key("00:45"), by_hand=True)
    assert automated.tick("23:30", days_later=4)["told/dataset"] == [key("00:00")]


def test_a_person_may_build_a_window_that_automation_lets_wait(platform_with, instance):
    automated = Automated(platform_with(TOLD.replace("}", ", allow_incomplete: never}")), instance)
    automated.run(list(fine([])), key("01:00"), key("01:15"), by_hand=True)
    assert "told/dataset" not in automated.tick("03:01", days_later=30)
    assert not automated.run(["told/dataset"], key("01:00"), key("01:00")).success
    assert automated.run(["told/dataset"], key("01:00"), key("01:00"), by_hand=True).success
    latest = automated.platform.ledger.latest_revision("told", window("01:00", HOUR))
    assert [(gap.key, gap.end.hour) for gap in latest.facts.gaps] == [("20260621T013000", 2)]


def test_a_window_is_left_alone_while_observations_of_it_are_being_collected(automated):
    automated.on("03:02")
    going_on = automated.instance.create_run_for_job(
        automated._defs.resolve_job_def("told__collect"),
        tags=partition_tags(key("01:30"), key("01:45")),
        status=dg.DagsterRunStatus.STARTED,
    )
    assert automated.on("03:03") == hourly([key("02:00")])
    automated.instance.report_run_failed(going_on)
    assert automated.tick("03:04")["told/dataset"] == [key("01:00")]


def test_the_open_window_is_collected_at_every_trigger_and_a_last_time_when_it_has_ended(platform_with, instance):
    windows = "{windows: [{source_name: told, window_size: PT1H, trigger_interval: PT15M, window_lag: PT2M}]}"
    platform = platform_with(TOLD + f"\n  scheduler: {windows}", automation="{lookback: PT1H}")
    automated = Automated(platform, instance)

    def collected_at(time: str) -> dict[str, list[str]]:
        requested = automated.tick(time)
        moment = (window(time).start + timedelta(seconds=1)).timestamp()
        for each in requested.get("told/raw", []):
            automated.run(list(fine([])), each, each)
            os.utime(platform.ledger.raw("told", window_from_key(each, HOUR)).path, (moment, moment))
        return requested.get("told/raw", [])

    assert collected_at("03:01") == [key("01:00"), key("02:00")]
    assert collected_at("03:02") == [key("02:00")]
    assert collected_at("03:16") == []
    assert collected_at("03:17") == [key("03:00")]
    assert collected_at("03:18") == []
    assert collected_at("03:47") == [key("03:00")]
    assert collected_at("04:02") == [key("03:00")]
    assert collected_at("04:16") == []
    assert collected_at("04:17") == [key("04:00")]


@pytest.mark.parametrize(
    ("size", "interval", "lag", "at", "now", "triggered"),
    [
        # a trigger a window: when it has ended, and its lag passed
        (5, 5, 0, "03:00", "03:04", None),
        (5, 5, 0, "03:00", "03:05", "03:05"),
        (5, 5, 0, "03:00", "09:00", "03:05"),
        (60, 60, 30, "03:00", "04:29", None),
        (60, 60, 30, "03:00", "04:30", "04:30"),
        # triggers finer than the window: the open one again and again, a last time at its end
        (60, 15, 0, "03:00", "03:00", None),
        (60, 15, 0, "03:00", "03:15", "03:15"),
        (60, 15, 0, "03:00", "03:44", "03:30"),
        (60, 15, 0, "03:00", "07:00", "04:00"),
        (60, 25, 0, "03:00", "07:00", "04:00"),
        # coarser: at the first trigger after the window's end
        (5, 60, 0, "03:00", "03:59", None),
        (5, 60, 0, "03:00", "04:00", "04:00"),
        (5, 60, 0, "03:55", "04:00", "04:00"),
        (5, 60, 10, "03:55", "04:09", None),
    ],
)
def test_last_trigger(size, interval, lag, at, now, triggered):
    minutes = [timedelta(minutes=n) for n in (size, interval, lag)]
    source = SimpleNamespace(window_size=minutes[0], trigger_interval=minutes[1], window_lag=minutes[2])
    expected = window(triggered).start if triggered else None
    assert last_trigger(source, window(at, minutes[0]), window(now).start) == expected


def test_a_long_backlog_is_asked_for_in_portions_newest_first(automated):
    hours = [Window(START + n * HOUR, START + (n + 1) * HOUR) for n in range(MOST + 3)]
    claim = Claim("many", "told", "told", window("00:00"), automated.platform.ledger.arrival_of("many"), 1)
    automated.platform.ledger.record_claim(claim, automated.platform.sources["told"].metadata, dict.fromkeys(hours, 1))
    first = automated.tick("12:00", days_later=30)["told/dataset"]
    assert first == [hour.key for hour in hours[3:]]
    assert automated.tick("12:01", days_later=30)["told/dataset"][:3] == [hour.key for hour in hours[:3]]
