"""`ionbeam source check`: one small window of a source that is served on the loopback interface."""

import os
from datetime import UTC, date, datetime

import pytest
from meteotracker_service import MeteoTrackers, synthetic_drive
from netatmo_feed import write_archive
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.testing.service import html


@pytest.fixture
def service():
    drive = synthetic_drive("aa1", "me", datetime(2026, 6, 21, 7, 30, tzinfo=UTC), 40, 44.4, 8.9)
    drive["points"][0]["lo"] = None
    with MeteoTrackers([drive]) as running:
        yield running


@pytest.fixture
def asked(service, tmp_path, monkeypatch):
    place = tmp_path / "ionbeam.yaml"
    place.write_text(
        f"sources:\n  meteotracker: {{base_url: '{service.url}', username: somebody, password: pa55word}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, CONFIG_VARIABLE, str(place))
    return lambda *words: CliRunner().invoke(app, ["source", "check", *words])


def test_it_says_what_was_found_kept_dropped_and_exported_and_stores_nothing(asked, tmp_path):
    done = asked("meteotracker", "--at", "2026-06-21T07:45Z")
    assert done.exit_code == 0, done.output
    assert "is asked for 2026-06-21 07:00-08:00" in done.output
    assert "800 rows" in done.output and "799 would be kept" in done.output
    assert "1 would go to the quarantine: no latitude; no longitude" in done.output
    assert "200 rows belong to other windows" in done.output
    assert "days old" in done.output
    assert "odb varno 39" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["ionbeam.yaml"]


def test_it_says_that_there_is_nothing(asked):
    done = asked("meteotracker", "--at", "2026-06-20")
    assert done.exit_code == 0
    assert "0 rows" in done.output


def test_it_ends_with_the_reason_where_the_source_cannot_be_asked(asked, service):
    service.break_("/api/sessions", html, times=9)
    done = asked("meteotracker", "--at", "2026-06-21T07:45Z")
    assert done.exit_code == 1
    assert "is not JSON" in done.output + done.stderr
    assert "has no source 'other'" in asked("other").stderr


def test_of_a_source_that_ended_the_last_window_is_asked_for(tmp_path, monkeypatch):
    write_archive(tmp_path / "archives", date(2026, 6, 21), range(6, 9))
    place = tmp_path / "ionbeam.yaml"
    place.write_text("sources:\n  netatmo_archive: {path: archives, start: 2026-06-21, end: 2026-06-21T09:00:00Z}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, CONFIG_VARIABLE, str(place))
    done = CliRunner().invoke(app, ["source", "check", "netatmo_archive"])
    assert done.exit_code == 0, done.output
    assert "is asked for 2026-06-21 08:00-09:00" in done.output and "360 would be kept" in done.output
    assert "air_temperature__degC__2.0__point__PT0S" in done.output
    beyond = CliRunner().invoke(app, ["source", "check", "netatmo_archive", "--at", "2026-06-21T09:30Z"])
    assert beyond.exit_code == 1 and "has a member for 2026-06-21T09Z; add it" in beyond.stderr
