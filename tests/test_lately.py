"""How much of a day was collected: one number wherever it is told, from a source's first window on."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest
from crowd import crowd as block
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import DAY, Window
from ionbeam_dagster.health.alerts import Alerting
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.pages import pages
from ionbeam_dagster.health.report import report
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.freshness import source_is_late
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.lately import lately
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt, Failure

HOUR = timedelta(hours=1)
MORNING = datetime(2026, 6, 21, tzinfo=UTC)
NOW = MORNING + 6 * HOUR
CROWD = block("[]", "{station_id: s}", start="2026-06-01")


@pytest.fixture
def crowd(platform_of, tmp_path, monkeypatch) -> Callable[..., Platform]:
    """A platform at six in the morning, with a row of a station in each of these hours of the day."""

    def made(hours: Iterable[int]) -> Platform:
        (tmp_path / "in").mkdir()
        rows = [f"{MORNING + number * HOUR:%Y-%m-%dT%H:%M:%SZ},a,52.0,5.0,20.0" for number in hours]
        (tmp_path / "in" / "all.csv").write_text("\n".join(["t,s,lat,lon,warm", *rows, ""]))
        alerts = "{after: PT0S, silence: P365D, completeness: 0.9}"
        platform = platform_of(CROWD, automation="{enabled: false}", alerts=alerts)
        monkeypatch.setattr(Platform, "now", lambda self: NOW)
        platform.ledger.alerts.looked_since("crowd", NOW - 2 * DAY)
        return platform

    return made


def hour(number: int) -> Window:
    return Window(MORNING + number * HOUR, MORNING + (number + 1) * HOUR)


def take_in(platform: Platform, *numbers: int) -> None:
    for number in numbers:
        collect(platform, platform.source("crowd"), hour(number), NOW)
        ingest(platform, platform.source("crowd"), hour(number))


class Seen:
    def findings(self) -> list[Finding]:
        return [Finding("files", "well", "it was looked at")]


def told_everywhere(platform: Platform, *of_gaps: str) -> set[str]:
    """How much was collected, as the commands, pages, the report and the asset say it."""

    def said(*command: str) -> str:
        done = CliRunner().invoke(app, ["--config", "config.yaml", *command])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    page = pages(platform, Watch(platform), True)
    figures = page["/metrics"]()[2].decode()
    [event] = (
        build_definitions(WatchedPlatform(platform)).resolve_job_def("heard").execute_in_process()
    ).get_asset_materialization_events()
    of_the_asset = event.materialization.metadata["share of a day that was collected"].value
    [of_the_day] = report(platform, Window(MORNING, MORNING + DAY), NOW).sections[0].rows
    told = {
        "gaps": re.search(r"(\S+%) collected", said("gaps", "crowd", *of_gaps)),
        "heard": re.search(r"(\S+%) of a day was collected", said("heard")),
        "page": re.search(r"(\S+%) of it was collected", page["/heard"]()[2].decode()),
        "report": re.search(r"(\S+%)", of_the_day[3]),
    }
    assert all(told.values()), told
    shares = [re.search(r'ionbeam_collected_ratio\{source="crowd"\} (\S+)', figures)[1], of_the_asset]
    return {one[1] for one in told.values()} | {f"{float(share):.1%}".replace("100.0%", "100%") for share in shares}


def alerts_on(platform: Platform) -> list[str]:
    sent = []
    Alerting(platform, platform.config.sections.alerts, Seen(), [sent.append]).look()
    return [one.text for one in sent]


def test_a_source_that_is_new_is_complete_from_its_first_window_on_wherever_it_is_told(crowd):
    platform = crowd(range(6))
    take_in(platform, 2, 3, 4, 5)
    assert told_everywhere(platform) == {"100%"} and alerts_on(platform) == []


def test_what_it_lacks_since_its_first_window_is_the_same_number_wherever_it_is_told(crowd):
    platform = crowd(range(6))
    take_in(platform, 2, 3, 5)
    assert told_everywhere(platform) == {"75.0%"}
    [alert] = alerts_on(platform)
    assert "75.0% of a day of crowd was collected" in alert


def test_where_a_source_has_nothing_is_no_gap_of_its_day(crowd):
    platform = crowd([-9 * 24, 3, 4, 5])
    take_in(platform, -9 * 24, 3, 5)
    since_yesterday = "--from", f"{NOW - DAY:%Y-%m-%dT%H:%MZ}", "--to", f"{NOW:%Y-%m-%dT%H:%MZ}"
    assert told_everywhere(platform, *since_yesterday) == {"66.7%"}


def test_a_window_that_fails_before_the_first_one_that_was_collected_is_a_gap(crowd):
    platform = crowd(range(6))
    take_in(platform, 4, 5)
    attempt = Attempt("collect", "crowd", hour(2), "x", "why", 0, NOW, NOW)
    platform.ledger.attempts.begin([attempt], NOW)
    platform.ledger.attempts.fail("collect", "crowd", {hour(2): Failure("it answers 500")}, NOW)
    assert told_everywhere(platform) == {"50.0%"}


def test_of_a_source_that_never_gave_anything_nothing_was_collected(crowd):
    platform = crowd(range(6))
    found = lately(platform, platform.source("crowd"), NOW)
    assert (found.completeness, found.is_to_give) == (0.0, True)
    assert "no row is newer" in source_is_late(platform, platform.source("crowd"), NOW)


def test_of_a_day_before_a_source_began_nothing_was_to_be_collected(crowd):
    platform = crowd(range(6))
    take_in(platform, 4, 5)
    assert lately(platform, platform.source("crowd"), MORNING).completeness is None


def test_a_folder_whose_files_end_is_late_although_nothing_is_to_be_collected_of_it(crowd):
    platform = crowd([-9 * 24])
    take_in(platform, -9 * 24)
    found = lately(platform, platform.source("crowd"), NOW)
    assert (found.completeness, found.is_to_give) == (None, True)
    assert "no row is newer" in source_is_late(platform, platform.source("crowd"), NOW)
