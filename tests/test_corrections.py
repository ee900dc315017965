"""A source whose past is corrected: collected anew, published, and only then confirmed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from corrected import HOURS, SOURCE, begun, celsius, configuration, opened, published, temperatures, work
from restream_weather import START, RestreamWeather, event
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.domain.windows import HOUR
from ionbeam_dagster.errors import PipelineError, SourceError
from ionbeam_dagster.health.work import failing
from ionbeam_dagster.pipeline import corrections
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.testing.service import Reply, status

SECOND = timedelta(seconds=1)


@pytest.fixture
def service():
    with RestreamWeather() as running:
        yield running


@pytest.fixture
def platform(service, tmp_path, monkeypatch):
    """Three hours of three sites, collected, built and exported."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(configuration(service))
    platform = opened()
    begun(platform)
    return platform


def look(platform):
    return corrections.look(platform, platform.source(SOURCE), platform.now())


def open_ids(platform):
    return [known.correction.id for known in platform.ledger.corrections.open(SOURCE)]


def test_an_override_and_a_deletion_are_published_and_then_confirmed(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start + HOUR / 2, 70.0)
    service.correct(2, 982, HOURS[0].end, HOURS[1].end + HOUR / 2, None)
    assert look(platform).noted == 3 and service.confirmed == []
    work(platform, ("collect",))
    assert look(platform).lacking.popitem()[1]["to be ingested"] == 2
    work(platform, ("ingest",))
    work(platform, ("build",))
    assert look(platform).confirmed == [] and service.confirmed == []
    work(platform)
    found = look(platform)
    assert [known.correction.id for known in found.confirmed] == ["981/1", "982/2"]
    assert service.confirmed == [1, 2] and open_ids(platform) == []
    assert temperatures(platform, HOURS[0])["981"] == [celsius(70.0)] * 4 + [celsius(54.0), celsius(55.0)]
    assert "982" not in temperatures(platform, HOURS[1]), "what was deleted goes"
    assert len(temperatures(platform, HOURS[2])["982"]) == 2
    asked = len(service.seen)
    assert look(platform).confirmed == [] and [one.method for one in service.seen[asked:]] == ["GET", "GET"]


def test_a_correction_without_consequence_is_confirmed_without_a_revision(platform, service):
    service.events.append(event(5, 983, HOURS[1].start, HOURS[1].start))
    assert look(platform).noted == 1
    work(platform)
    assert service.confirmed == [] and len(look(platform).confirmed) == 1 and service.confirmed == [5]
    assert platform.ledger.latest_revision(SOURCE, HOURS[1]).revision.number == 1


def test_what_was_collected_before_it_was_seen_does_not_count(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    collect(platform, platform.source(SOURCE), HOURS[0], platform.now())
    assert platform.ledger.raw(SOURCE, HOURS[0]).knows == 0
    assert look(platform).noted == 1 and service.confirmed == []


def test_an_error_among_items_takes_nothing_away_and_the_window_stays_due(platform, service):
    before = published(platform, HOURS[0])
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    look(platform)
    service.break_("/sites/981/data/", lambda reply: Reply.of_json([{"error": "db timeout"}]))
    [failure] = work(platform)
    assert 'an error among its items: {"error": "db timeout"}' in failure
    assert look(platform).confirmed == [] and service.confirmed == [] and published(platform, HOURS[0]) == before
    later = platform.now() + timedelta(hours=1)
    platform.now = lambda: later
    assert work(platform) == [] and len(look(platform).confirmed) == 1
    assert temperatures(platform, HOURS[0])["981"][0] == celsius(70.0)


def test_items_that_end_in_an_error_are_no_window(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(configuration(service))
    platform = opened()
    then = lambda reply: Reply.of_json([*json.loads(reply.body), {"error": "query timed out"}])  # noqa: E731
    service.break_("/sites/981/data/", then, times=99)
    reconcile(platform, platform.now())
    assert len(work(platform)) == 3
    assert all(platform.ledger.raw(SOURCE, hour) is None for hour in HOURS)
    service.repair()
    later = platform.now() + timedelta(hours=1)
    platform.now = lambda: later
    assert work(platform) == [] and len(published(platform, HOURS[0])) == 18


def test_one_that_changes_while_it_is_rebuilt_begins_anew(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    look(platform)
    work(platform)
    service.data[981] = [one | {"ambient_temperature": 90.0} for one in service.data[981]]
    service.events = [event(1, 981, HOURS[0].start, HOURS[2].start, created_at="2025-11-01T00:00:00Z")]
    found = look(platform)
    assert service.confirmed == [] and found.noted == 3, "the first hour, too"
    work(platform)
    assert len(look(platform).confirmed) == 1
    assert temperatures(platform, HOURS[1])["981"] == [celsius(90.0)] * 6


def test_one_that_changes_at_the_very_last_moment_is_not_confirmed(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    look(platform)
    work(platform)

    def changed(reply):
        service.events = [event(1, 981, HOURS[0].start, HOURS[1].start)]
        return reply

    service.break_("sites/981/data_changes", changed)
    assert look(platform).confirmed == [] and service.confirmed == []


def test_a_confirm_whose_answer_was_lost_is_no_harm(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    look(platform)
    work(platform)
    heard = type(service)._confirm

    def then_down(change_log):
        heard(service, change_log)
        service.break_("sites/981/data_changes", status(503), times=1)

    service._confirm = then_down
    with pytest.raises(SourceError, match="503"):
        look(platform)
    assert service.confirmed == [1] and open_ids(platform) == ["981/1"]
    assert look(platform).confirmed == []
    [known] = platform.ledger.corrections.closed(SOURCE)
    assert known.by == corrections.PUBLISHED and service.confirmed == [1]


def test_one_that_the_source_forgets_for_a_while_goes_on(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    look(platform)
    told, service.events = service.events, []
    look(platform)
    [known] = platform.ledger.corrections.closed(SOURCE)
    assert known.by == corrections.ELSEWHERE
    service.events = told
    work(platform)
    look(platform)
    work(platform)
    assert len(look(platform).confirmed) == 1 and service.confirmed == [1]


def test_a_source_that_nobody_asks_any_longer_is_told(platform, service, monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, str(platform.config.path))

    def told():
        found = [one for one in failing(platform) if "what it corrected" in one.words]
        return found, CliRunner().invoke(app, ["source", "changes", SOURCE]).output

    found, shown = told()
    assert found == [] and "no correction is known; the source was never asked" in shown and "daemon" in shown
    look(platform)
    found, shown = told()
    assert found == [] and "no correction is known; the source was last asked " in shown and "daemon" not in shown
    platform.ledger.corrections.see(SOURCE, [], platform.now() - 2 * HOUR)
    [found], shown = told()
    assert "was last asked 2 h" in found.words and f"{SOURCE}__confirmations" in found.remedy
    assert "was last asked 2 h" in shown and f"{SOURCE}__confirmations" in shown


def test_one_that_is_told_again_is_confirmed_again(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    told = list(service.events)
    look(platform)
    work(platform)
    look(platform)
    service.events, service.confirmed = told, []
    assert look(platform).noted == 0 and service.confirmed == [1]


def test_a_sealed_window_holds_it_and_a_person_may_confirm_it(platform, service):
    platform.ledger.seal(SOURCE, [HOURS[0]], platform.now())
    service.correct(1, 981, HOURS[0].start, HOURS[1].start, 70.0)
    for _ in range(3):
        found = look(platform)
        work(platform)
    [lacking] = found.lacking.values()
    assert [*lacking] == ["sealed: restream 2025-09-09 00:00-01:00"] and service.confirmed == []
    assert temperatures(platform, HOURS[1])["981"][0] == celsius(70.0), "the other window is rebuilt"
    with pytest.raises(PipelineError, match="no open correction '7'; open are: 981/1"):
        corrections.confirm(platform, platform.source(SOURCE), "7", "anna", platform.now())
    known = corrections.confirm(platform, platform.source(SOURCE), "981/1", "anna", platform.now())
    assert known.by == "anna" and service.confirmed == [1] and open_ids(platform) == []


def test_one_outside_of_what_is_collected_is_confirmed_at_once(platform, service):
    service.events = [event(1, 981, START - 50 * HOUR, START - SECOND), event(2, 981, START - 50 * HOUR, START)]
    assert [known.correction.id for known in look(platform).confirmed] == ["981/1"]
    assert open_ids(platform) == ["981/2"]


def test_one_that_cannot_be_read_is_told_and_holds_up_no_other(platform, service):
    service.events = [
        event(1, 981, HOURS[1].start, HOURS[0].start),
        event(2, 981, HOURS[0].start, HOURS[0].start, start_date="soon"),
        event(3, 981, HOURS[0].start, HOURS[0].start, end_date=None),
        event(4, 981, HOURS[0].start, HOURS[0].start, start_date="2025-09-09T00:00:00", something_new={"a": 1}),
    ]
    found = look(platform)
    assert open_ids(platform) == ["981/4"] and found.noted == 1
    said = [line.split(": ")[1] for line in found.problems]
    assert said == [f"change event {number} cannot be followed" for number in (1, 2, 3)]
    work(platform)
    assert len(look(platform).confirmed) == 1 and service.confirmed == [4]


def test_years_are_looked_at_a_bounded_part_at_a_time(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(configuration(service, start="2022-09-09", end="2025-09-09"))
    monkeypatch.setattr(corrections, "LOOKED_AT", 40)
    monkeypatch.setattr(corrections, "MOST_COLLECTED", 60)
    platform = opened()
    service.events = [event(1, 981, START - 26_000 * HOUR, START - SECOND), event(2, 982, START - HOUR, START)]
    found = look(platform)
    assert found.noted == 40 and service.confirmed == []
    assert look(platform).noted == 20, "no more are open at once"
    assert work(platform) == []
    look(platform)
    assert service.confirmed == [2], "a short one does not wait for it"
    for _ in range(3):
        look(platform)
    [known] = platform.ledger.corrections.open(SOURCE)
    assert corrections.left_of(platform, platform.source(SOURCE), known) == 26_000 - 60
    assert len(known.remaining) == 1


def test_a_lost_ledger_only_collects_again(platform, service):
    service.correct(1, 981, HOURS[0].start, HOURS[0].start, 70.0)
    look(platform)
    work(platform)
    for path in Path("state").glob("ledger.sqlite*"):
        path.unlink()
    again = opened()
    reconcile(again, again.now())
    assert look(again).lacking.popitem()[1] == {"to be collected": 1} and service.confirmed == []
    work(again)
    assert len(look(again).confirmed) == 1 and service.confirmed == [1]
    assert temperatures(again, HOURS[0])["981"][0] == celsius(70.0)


def kill(folder: Path, first: int, step: int, seconds: int) -> tuple[int, str]:
    program = Path(__file__).with_name("corrected.py")
    done = subprocess.run(
        [sys.executable, program, folder, str(first), str(step)], capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *wrong, writes = done.stdout.strip().splitlines()
    return int(writes.removeprefix("writes: ")), "\n".join(wrong)


def test_killed_between_change_and_confirm(tmp_path):
    writes, wrong = kill(tmp_path, first=7, step=41, seconds=120)
    assert writes > 100 and wrong == ""


@pytest.mark.soak
def test_killed_at_every_step_between_change_and_confirm(tmp_path):
    _, wrong = kill(tmp_path, first=1, step=1, seconds=3600)
    assert wrong == ""
