"""The sensor that confirms what a source corrected of its past, and what people see of it."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from corrected import HOURS, SOURCE, begun, configuration, opened, work
from restream_weather import RestreamWeather
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.domain.windows import HOUR
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.testing.service import status

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]


class Ticked:
    """A sensor, ticked by hand with the cursor that it left."""

    def __init__(self, platform, instance, name) -> None:
        self.instance = instance
        self.repository = build_definitions(WatchedPlatform(platform)).get_repository_def()
        self.sensor = self.repository.get_sensor_def(name)
        self.cursor = None

    def tick(self):
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=self.repository, sensor_name=self.sensor.name
        )
        result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return result


@pytest.fixture
def service():
    with RestreamWeather() as running:
        yield running


@pytest.fixture
def platform(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.yaml"))
    Path("config.yaml").write_text(configuration(service))
    platform = opened()
    begun(platform)
    return platform


def states_on(page):
    return [record.data["state"] for record in page.metadata["corrections"].records]


def told(*command):
    done = CliRunner().invoke(app, ["source", *command])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_it_has_corrections_published_and_confirms_them_and_its_page_says_so(platform, service, instance):
    ticked = Ticked(platform, instance, f"{SOURCE}__confirmations")
    known = told("changes", SOURCE)
    assert (
        "no correction is known" in known and f"the sensor {SOURCE}__confirmations" in known and "0 open" not in known
    )
    [page] = ticked.tick().asset_events
    assert page.passed and states_on(page) == []
    service.correct(1, 981, HOURS[0].start, HOURS[1].start, 70.0)
    result = ticked.tick()
    assert result.skip_message == "0 confirmed, 1 open; 2 windows to be collected"
    [page] = result.asset_events
    assert page.asset_key == dg.AssetKey([SOURCE, "raw"]) and page.passed
    assert states_on(page) == ["rebuilding: of 2 windows that remain 2 to be collected"]
    assert "2 to be collected" in told("changes", SOURCE)
    assert ticked.tick().asset_events == [], "there is no news"
    work(platform)
    result = ticked.tick()
    assert result.skip_message == "1 confirmed, 0 open; 0 windows to be collected" and service.confirmed == [1]
    assert states_on(result.asset_events[0])[0].startswith("confirmed, published: ")
    assert "confirmed, published" in told("changes", SOURCE)


def test_what_a_sealed_window_holds_waits_for_a_person(platform, service, instance):
    platform.ledger.seal(SOURCE, [HOURS[0]], platform.now())
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    ticked = Ticked(platform, instance, f"{SOURCE}__confirmations")
    ticked.tick()
    work(platform)
    [page] = ticked.tick().asset_events
    assert not page.passed and page.severity == dg.AssetCheckSeverity.WARN
    assert page.description.startswith("981/1 is held: 1 sealed: restream 2025-09-09 00:00-01:00")
    assert "held: 1 sealed" in told("changes", SOURCE)
    looked = told("confirm", SOURCE, "981/1", "--by", "anna")
    assert "confirmed, anna" in looked and "1 windows of it are not published" in looked
    assert service.confirmed == [1] and "confirmed, anna" in told("changes", SOURCE)


def test_a_person_may_look_at_any_time(platform, service, instance):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    Ticked(platform, instance, f"{SOURCE}__confirmations").tick()
    check = next(iter(build_definitions(WatchedPlatform(platform)).asset_checks))
    job = dg.define_asset_job("looked", selection=dg.AssetSelection.checks(check))
    definitions = dg.Definitions.merge(build_definitions(WatchedPlatform(platform)), dg.Definitions(jobs=[job]))
    done = definitions.resolve_job_def("looked").execute_in_process(instance=instance)
    [evaluation] = done.get_asset_check_evaluations()
    assert evaluation.passed and states_on(evaluation)[0].startswith("rebuilding")


def test_a_service_that_is_away_is_told_and_nothing_is_forgotten(platform, service, instance):
    ticked = Ticked(platform, instance, f"{SOURCE}__confirmations")
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    ticked.tick()
    cursor = ticked.cursor
    service.break_("data_changes", status(503), times=9)
    assert "503" in ticked.tick().skip_message and ticked.cursor == cursor
    service.repair()
    work(platform)
    assert ticked.tick().skip_message.startswith("1 confirmed")


def test_what_the_changes_sensor_has_collected_was_seen_before(platform, service, instance):
    changes = Ticked(platform, instance, f"{SOURCE}__changes")
    changes.tick()
    work(platform)
    service.correct(1, 981, HOURS[1].start, HOURS[1].start + HOUR / 2, 70.0)
    assert changes.tick().skip_message == "1 windows changed"
    work(platform)
    assert len(Ticked(platform, instance, f"{SOURCE}__confirmations").tick().skip_message.split("1 confirmed")) == 2


def test_other_sources_have_none(platform, instance):
    result = CliRunner().invoke(app, ["source", "changes", "nowhere"])
    assert result.exit_code == 1 and "has no source 'nowhere'" in result.output
