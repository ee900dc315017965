"""`ionbeam source check`: one small window of a source that is served on the loopback interface."""

import os

import pytest
from loopback import html
from meteotracker_service import MeteoTrackers, synthetic_drive
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import CONFIG_VARIABLE


@pytest.fixture
def service():
    from datetime import UTC, datetime

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
