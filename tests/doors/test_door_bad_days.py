"""The HTTP door when something of what came cannot be taken in: it holds up nothing else, is kept, told and retried."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from subprocess import PIPE

import httpx
import pytest
from door_samples import (
    GARDEN,
    HOUR,
    OTHER,
    SOURCES,
    TOKEN,
    Receiving,
    bring_up_to_date,
    nanoseconds,
    opened,
    points,
    wait_for,
    write,
)
from polars.exceptions import PanicException
from servers import free_port
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.doors.http.flush import Flush
from ionbeam_dagster.doors.http.journal import Frame, Journal
from ionbeam_dagster.doors.http.mapping import Mapping
from ionbeam_dagster.doors.http.memory import Memory, door_folder
from ionbeam_dagster.doors.http.serving import OpenDoor
from ionbeam_dagster.doors.http.status import door_status
from ionbeam_dagster.errors import PipelineError, StoreError
from ionbeam_dagster.health import queues
from ionbeam_dagster.orchestration.runs import reingest_range
from ionbeam_dagster.pipeline.recovery import open_platform

TWO = SOURCES + GARDEN.replace("garden:", "valley:").replace(TOKEN, OTHER)


def taken_in(platform, source):
    """How many rows of a source are taken in."""
    raws = {raw.path: raw.rows for w in platform.ledger.waiting(source) for raw in platform.ledger.sent(source, w)}
    return sum(raws.values())


def test_lines_of_different_precisions_are_taken_in_together(platform_of):
    platform = platform_of(SOURCES)
    then = datetime.now(UTC) - 3 * HOUR
    with opened(platform) as (door, url):
        for number, (precision, scale) in enumerate((("ns", 1), ("ms", 10**6), ("s", 10**9), ("m", 60 * 10**9))):
            moment = nanoseconds(then.replace(minute=number, second=0)) // scale
            line = f"weather,station=roof temperature=50 {moment}"
            assert write(url, line, params={"precision": precision}).status_code == 204
        hours = nanoseconds(then) // (3600 * 10**9) - 1
        line = f"weather,station=roof temperature=50 {hours}"
        assert write(url, line, params={"precision": "h"}).status_code == 204
        door.flush.run()
        assert door.journal.closed() == []
    assert taken_in(platform, "garden") == 5


def test_a_panic_ends_no_request_without_an_answer(platform_of, monkeypatch):
    def panics(*_):
        raise PanicException("a fault that nobody thought of")

    with opened(platform_of(SOURCES)) as (_, url):
        with monkeypatch.context() as patch:
            patch.setattr("ionbeam_dagster.doors.http.app.read_lines", panics)
            assert write(url, "weather,station=roof temperature=50").status_code == 500
        assert write(url, "weather,station=roof temperature=50").status_code == 204


@pytest.fixture(params=[RuntimeError, PanicException])
def poisoned(monkeypatch, request):
    """Lines in which the word poison stands cannot be mapped, for as long as the list is not empty."""
    real, fails = Mapping.apply, [True]

    def apply(self, lines):
        if fails and lines["line"].str.contains("poison").any():
            raise request.param("a fault that nobody thought of")
        return real(self, lines)

    monkeypatch.setattr(Mapping, "apply", apply)
    return fails


def test_a_portion_that_cannot_be_taken_in_holds_up_no_other_and_is_told_and_retried(platform_of, poisoned, caplog):
    platform = platform_of(TWO)
    then = datetime.now(UTC) - 3 * HOUR
    good = f"weather,station=roof temperature=50 {nanoseconds(then)}"
    with opened(platform) as (door, url):
        poison = f"weather,station=roof,note=poison temperature=50 {nanoseconds(then) + 10**9}"
        assert write(url, f"{good}\n{poison}").status_code == 204
        assert write(url, good, OTHER).status_code == 204
        door.flush.run()
        assert taken_in(platform, "valley") == 1 and taken_in(platform, "garden") == 0
        later = f"weather,station=roof temperature=51 {nanoseconds(then) + 2 * 10**9}"
        assert write(url, later).status_code == 204
        door.flush.run()
        assert taken_in(platform, "garden") == 1
        assert len(door.journal.closed()) == 1
        [told] = [line for line in door_status(platform) if "a fault that nobody thought of" in line]
        assert told.startswith("garden: ") and str(door.journal.closed()[0]) in told
        [red] = [one for one in queues.door(platform) if one.severity == "error"]
        assert "a fault that nobody thought of" in red.words and red.remedy
        assert "a fault that nobody thought of" in caplog.text
        poisoned.clear()
        door.flush.run()
        assert taken_in(platform, "garden") == 1  # it is not looked at twice a minute for ever
    with opened(platform) as (door, url):
        wait_for(lambda: door.journal.closed() == [])
        assert taken_in(platform, "garden") == 3
        assert not [one for one in queues.door(platform) if one.severity == "error"]
        assert not [line for line in door_status(platform) if "a fault" in line]
    windows = platform.ledger.waiting("garden")
    claimed = {raw.path: raw.window for w in windows for raw in platform.ledger.sent("garden", w)}
    assert all(collected.start < collected.end for collected in claimed.values())


@pytest.mark.parametrize("hours", [-1, 1, 400 * 24])
def test_whatever_the_clock_of_the_door_is_set_to_what_came_is_taken_in_and_no_more_claimed_than_it_listened(
    platform_of, monkeypatch, hours
):
    platform, real, ahead = platform_of(SOURCES), time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead[0])
    then = nanoseconds(datetime.now(UTC) - 3 * HOUR)
    begun = datetime.now(UTC)
    with opened(platform) as (door, url):
        for number, ahead[0] in enumerate((0, hours * 3600 * 10**9, 0, hours * 3600 * 10**9, 0)):
            for part in (0, 1):  # in the portion before, and in one of its own
                line = f"weather,station=roof temperature=50 {then + (2 * number + part) * 10**9}"
                assert write(url, line).status_code == 204
                if not part:
                    door.flush.run()
    assert door.journal.closed() == [] and not door.memory.parked()
    windows = platform.ledger.waiting("garden")
    claimed = {raw.window for window in windows for raw in platform.ledger.sent("garden", window)}
    assert sum((one.span for one in claimed), timedelta(0)) <= (datetime.now(UTC) - begun) * 2
    bring_up_to_date(platform)
    assert points(platform, window_of(datetime.fromtimestamp(then / 1e9, UTC), HOUR)).height == 10


@pytest.mark.parametrize("taken_in_when", ["it was set", "it was ahead"])
def test_after_a_clock_that_was_ahead_all_the_time_that_the_door_listens_is_claimed(
    platform_of, monkeypatch, taken_in_when
):
    platform, real, ahead = platform_of(SOURCES), time.time_ns, [400 * 86_400 * 10**9]
    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead[0])
    monkeypatch.setattr(type(platform), "now", lambda _: datetime.fromtimestamp(time.time_ns() / 1e9, UTC))
    then = nanoseconds(datetime.now(UTC) - 3 * HOUR)
    with opened(platform) as (door, url):
        assert write(url, f"weather,station=roof temperature=50 {then}").status_code == 204
        if taken_in_when == "it was ahead":
            door.flush.run()
            assert write(url, f"weather,station=roof temperature=50 {then + 10**9}").status_code == 204
        ahead[0] = 0
        begun = datetime.now(UTC)
        for number in range(2, 5):
            assert write(url, f"weather,station=roof temperature=50 {then + number * 10**9}").status_code == 204
            door.flush.run()
        assert door.journal.closed() == []
        assert door.memory.listened("garden").until <= time.time_ns()
    windows = platform.ledger.waiting("garden")
    sent = {raw.window for window in windows for raw in platform.ledger.sent("garden", window)}
    since = [one for one in sent if begun <= one.start and one.end <= datetime.now(UTC)]
    claims = [one for one in since if one.span > timedelta.resolution]
    assert len(claims) == 3
    assert all(before.end == after.start for before, after in pairwise(sorted(claims, key=lambda one: one.start)))


@pytest.mark.parametrize("place", ["stores.ledger.commands.SqliteCommands.take", "doors.http.memory.Memory.taken"])
def test_a_portion_by_a_clock_that_was_ahead_is_written_once_however_often_it_is_tried(platform_of, monkeypatch, place):
    def fails(*_, **__):
        raise sqlite3.OperationalError("database is locked")

    platform, real, ahead = platform_of(SOURCES), time.time_ns, [400 * 86_400 * 10**9]
    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead[0])
    monkeypatch.setattr(type(platform), "now", lambda _: datetime.fromtimestamp(time.time_ns() / 1e9, UTC))
    with opened(platform) as (door, url):
        line = f"weather,station=roof temperature=50 {nanoseconds(datetime.now(UTC) - 3 * HOUR)}"
        assert write(url, line).status_code == 204
        with monkeypatch.context() as patch:
            patch.setattr(f"ionbeam_dagster.{place}", fails)
            for ahead[0] in (0, 3 * 10**9):
                door.flush.run()
        ahead[0] = 6 * 10**9
        door.flush.run()
        assert door.journal.closed() == []
    raws = platform.raws(platform.source("garden"))
    [written] = [path for path in raws.files("garden") if raws.open(path).rows]
    sent = {raw for window in platform.ledger.waiting("garden") for raw in platform.ledger.sent("garden", window)}
    [known] = [raw for raw in sent if raw.rows]
    assert known == raws.sent("garden", written)


def test_a_damaged_file_of_the_journal_holds_up_no_other(platform_of, tmp_path):
    platform = platform_of(SOURCES)
    good = f"weather,station=roof temperature=50 {nanoseconds(datetime.now(UTC) - 3 * HOUR)}"
    folder = platform.config.sections.state_path / "door" / "journal"
    journal = Journal(folder)
    journal.add(Frame("garden", 1, 1, body=good.encode()))
    journal.close()
    [damaged] = folder.glob("*.journal")
    damaged.write_bytes(damaged.read_bytes().replace(b"=50", b"=51"))
    with opened(platform) as (door, url):
        assert write(url, good).status_code == 204
        door.flush.run()
        assert taken_in(platform, "garden") == 1
        assert door.journal.closed() == [damaged]
    assert any(str(damaged) in line and "is damaged at byte" in line for line in door_status(platform))
    [red] = [one for one in queues.door(platform) if one.severity == "error" and "is damaged" in one.words]
    assert red.remedy.startswith("stop `ionbeam receive`, move the file out")
    damaged.rename(tmp_path / "taken-away.journal")
    assert not any("is damaged" in line for line in door_status(platform))
    assert not any(one.severity == "error" for one in queues.door(platform))


def test_a_damaged_file_of_parked_lines_holds_up_no_other(platform_of):
    platform = platform_of(SOURCES)
    folder = platform.config.sections.state_path / "door" / "parked" / "garden"
    with opened(platform) as (door, url):
        wait_for(lambda: door.memory.looked_at("garden"))
        for line in ("cpu,host=a x=1", "cpu,host=a y=1"):
            assert write(url, line).status_code == 204
            door.flush.run()
        door.memory.accept("garden")
    damaged, _ = sorted(folder.glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    for _ in range(2):
        with opened(platform) as (door, url):
            wait_for(lambda: door.memory.looked_at("garden") and "takes y" in "".join(door_status(platform)))
            assert len(list(folder.glob("*.parquet"))) == 2 and damaged.exists()
            [told] = [line for line in door_status(platform) if f"{damaged} cannot be read" in line]
            assert told.endswith(
                "(stop `ionbeam receive`, move the file out of that folder and keep it, and start it again)"
            )
            assert sum(one.lines for one in door.memory.parked() if "takes y" in one.reason) == 1
            door.memory.accept("garden")
    damaged.unlink()
    assert not any("cannot be read" in line for line in door_status(platform))


def test_a_memory_that_fails_holds_its_source_and_rows_of_a_registry_that_changed_meanwhile_come(
    platform_of, tmp_path, monkeypatch
):
    platform = platform_of(SOURCES)
    then = nanoseconds(datetime.now(UTC) - 3 * HOUR)
    door = OpenDoor(platform, "127.0.0.1", free_port())  # not run: nobody else takes in
    for number, name in enumerate(("shed", "roof")):
        line = f"weather,station={name} temperature=50 {then + number * 10**9}"
        door.journal.add(Frame("garden", then + number, 1, body=f"{line}\n{line.replace(name, 'roof')}".encode()))
        door.journal.rotate()

    def fails(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "taken", fails)
        patch.setattr(Memory, "failed", fails)
        door.flush.run()
    first = taken_in(platform, "garden")
    assert first == 1  # the later portion did not overtake
    bring_up_to_date(platform)
    (tmp_path / "told.csv").write_text("source,station,latitude,longitude\ngarden,shed,52.2,5.3\n")
    assert ionbeam(tmp_path, "stations", "import", str(tmp_path / "told.csv"))[0] == 0
    door.flush.run()
    assert door.journal.closed() == [] and not door.memory.parked()
    bring_up_to_date(platform)
    rows = points(platform, window_of(datetime.fromtimestamp(then / 1e9, UTC), HOUR))
    assert sorted(rows["station_id"].to_list()) == ["roof", "roof", "shed"]
    door.stop()
    door.run()


def test_what_is_parked_is_looked_at_again_while_the_door_is_open_one_source_by_itself_in_few_files(
    platform_of, tmp_path, monkeypatch
):
    platform = platform_of(TWO)
    parked = platform.config.sections.state_path / "door" / "parked"
    then = nanoseconds(datetime.now(UTC) - 3 * HOUR)
    with opened(platform) as (door, url):
        wait_for(lambda: door.memory.looked_at("valley"))
        for number in range(4):
            for token in (TOKEN, OTHER):
                line = f"weather,station=shed temperature=50 {then + number * 10**9}\ncpu,host=a x=1"
                assert write(url, line, token).status_code == 204
            door.flush.run()
        assert len(list(parked.rglob("*.parquet"))) == 8
        (tmp_path / "told.csv").write_text("source,station,latitude,longitude\nvalley,shed,52.2,5.3\n")
        assert ionbeam(tmp_path, "stations", "import", str(tmp_path / "told.csv"))[0] == 0
        real = Memory.looked_at

        def looked_at(self, source):
            if source == "garden":
                raise sqlite3.OperationalError("database is locked")
            return real(self, source)

        with monkeypatch.context() as patch:
            patch.setattr(Memory, "looked_at", looked_at)
            assert door.flush.look_again() == 8
        door.flush.run()
        assert taken_in(platform, "valley") == 4
        assert len(list((parked / "valley").iterdir())) == 1 and len(list((parked / "garden").iterdir())) == 4
        assert sum(one.lines for one in door.memory.parked("valley")) == 4
        assert door.flush.look_again() == 0


def test_no_other_door_opens_before_the_last_portion_is_taken_in(platform_of, monkeypatch):
    platform = platform_of(SOURCES)
    folder = platform.config.sections.state_path / "door" / "journal"
    good = f"weather,station=roof temperature=50 {nanoseconds(datetime.now(UTC) - 3 * HOUR)}"
    real, tried = Flush._take, []

    def take(self, *of):
        with pytest.raises(BlockingIOError):
            Journal(folder)
        tried.append(of)
        return real(self, *of)

    with opened(platform) as (door, url):
        wait_for(lambda: door.memory.looked_at("garden"))
        assert write(url, good).status_code == 204
        monkeypatch.setattr(Flush, "_take", take)
    assert tried and taken_in(platform, "garden") == 1
    with pytest.raises(OSError, match="the door is closed"):
        door.journal.add(Frame("garden", 1, 1, body=good.encode()))
    Journal(folder).close()


# --- what people are told ---------------------------------------------------------------------------------------------


def ionbeam(tmp_path, *words):
    """Exit status and output, in one line, of a command."""
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "config.yaml"), *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_a_variable_that_was_added_without_raising_the_version_is_told_everywhere(platform_of, tmp_path):
    platform = platform_of(TWO)
    then = datetime.now(UTC) - 3 * HOUR
    line = f"weather,station=roof temperature=50 {nanoseconds(then)}"
    with opened(platform) as (door, url):
        assert write(url, line).status_code == 204
        door.flush.run()
    bring_up_to_date(platform)
    path = tmp_path / "config.yaml"
    more = "{field: humidity, standard_name: relative_humidity, cf_unit: percent}\n      - {field: temp"
    path.write_text(path.read_text().replace("{field: temp", more, 1))
    told = "raise the version to 2, which keeps both readable (sources.garden.version)"
    for words in (("config", "check"), ("status",)):
        code, output = ionbeam(tmp_path, *words)
        assert told in output and code == (words[0] == "config")
    with Receiving(tmp_path) as receiving:
        wait_for(lambda: told in " ".join(receiving.log().split()), 60)
    platform = open_platform(IonbeamConfig.load(path))
    with opened(platform) as (door, url):
        assert write(url, line).status_code == 204 and write(url, line, OTHER).status_code == 204
        door.flush.run()
        assert any(one.severity == "error" and told in one.words for one in queues.door(platform))
        assert taken_in(platform, "valley") == 1
    path.write_text(path.read_text().replace("garden:\n    kind: door", "garden:\n    version: 2\n    kind: door"))
    assert ionbeam(tmp_path, "config", "check")[0] == 0
    platform = open_platform(IonbeamConfig.load(path))
    with opened(platform) as (door, url):
        wait_for(lambda: door.journal.closed() == [])
    assert not [one for one in queues.door(platform) if one.severity == "error"]


def test_what_was_written_is_built_and_exported_by_hand(platform_of, tmp_path):
    platform = platform_of(SOURCES)
    then = datetime.now(UTC) - 3 * HOUR
    with opened(platform) as (door, url):
        assert write(url, f"weather,station=roof temperature=50 {nanoseconds(then)}").status_code == 204
        assert (
            "garden: nothing was heard at the door yet; begin with `ionbeam receive`" in ionbeam(tmp_path, "status")[1]
        )
        door.flush.run()
    assert "garden: what came of garden waits to be ingested; `ionbeam worker`" in ionbeam(tmp_path, "status")[1]
    window = window_of(then, HOUR)
    range = ("--from", f"{window.start:%Y-%m-%dT%H:%MZ}", "--to", f"{window.end:%Y-%m-%dT%H:%MZ}")
    code, output = ionbeam(tmp_path, "run", "garden", *range)
    assert code == 0, output
    [built] = platform.ledger.revisions("garden", window.start, window.end)
    assert built.facts.rows == 1 and platform.ledger.export("garden", window, "pygeoapi")
    with pytest.raises(PipelineError, match="`ionbeam run garden` builds and exports what they wrote"):
        reingest_range(platform, "garden", window.start, window.end, None)


def test_what_status_says_of_the_door_is_short_plain_and_of_the_source_that_was_asked_for(platform_of, tmp_path):
    platform = platform_of(TWO)
    strange = [f"weather,station=\u202e\x9b31m{number}{'n' * 200} temperature=50" for number in range(13)]
    with opened(platform) as (door, url):
        assert write(url, "\n".join(strange)).status_code == 204
        assert write(url, "cpu,host=a x=1", OTHER).status_code == 204
        door.flush.run()
    _, output = ionbeam(tmp_path, "status", "garden")
    assert "\u202e" not in output and "\x9b" not in output and "\\u202e" in output
    assert "and 3 more reasons, of 3 lines" in output and "valley" not in output
    _, output = ionbeam(tmp_path, "status", "valley")
    assert "valley: 1 lines of 'cpu' are parked" in output and "garden" not in output
    door.memory.taken("garden", "x", door.memory.listened("garden"), {}, [("m" * 60_000, "r" * 60_000, 1, 1, "")])
    assert len(ionbeam(tmp_path, "status", "garden")[1]) < 10_000


def test_requests_that_were_refused_are_counted_and_told_with_what_helps(platform_of, tmp_path):
    platform = platform_of(TWO, receive="{most_bytes: 1000}")
    for _ in range(2):  # two doors: the counts go on
        with opened(platform, every=0.1) as (door, url):
            for body, token in (
                ("x", TOKEN),
                ("weather\x1b x=", TOKEN),
                ("y" * 2_000, OTHER),
                ("m x=1", "stolen-token"),
            ):
                assert write(url, body, token).status_code in (400, 401, 413)
            assert httpx.get(f"{url}/wp-admin").status_code == 404
            wait_for(lambda: len(door.memory.refused()) == 3)
            assert write(url, "x").status_code == 400  # kept as the door closes
    told = {(one.source, one.status): one.requests for one in Memory(door_folder(platform)).refused()}
    assert told == {("garden", 400): 6, ("valley", 413): 2, ("", 401): 2}
    found = {one.words.split(", the last")[0]: (one.severity, one.remedy) for one in queues.door(platform)}
    assert found["garden: 6 requests were refused with 400"] == ("warning", "correct what its clients send")
    assert "receive" in found["valley: 2 requests were refused with 413"][1]
    assert found["2 requests were refused with 401"][0] == "note"
    _, output = ionbeam(tmp_path, "status", "valley")
    assert "valley: 2 requests were refused with 413" in output and "garden" not in output and "stolen" not in output


def test_the_log_has_a_line_of_refused_requests_as_they_begin_and_their_number_now_and_then(
    platform_of, caplog, monkeypatch
):
    platform = platform_of(TWO)
    with opened(platform, every=0.1) as (door, url):
        for _ in range(5):
            assert write(url, "m x=1", "stolen-token").status_code == 401
            assert write(url, "weather x=\x1b", TOKEN).status_code == 400
        assert httpx.get(f"{url}/wp-admin").status_code == 404
        wait_for(lambda: len(door.memory.refused()) == 2)
        told = [one.getMessage() for one in caplog.records if "refused" in one.getMessage()]
        assert [one.partition(": ")[0] for one in told] == ["requests are refused with 401", "garden"]
        assert told[0].endswith("a station that should write needs the token of its source (sources.<name>.token))")
        assert "requests are refused with 400: unable to parse" in told[1] and "\x1b" not in told[1]
        caplog.clear()
        monkeypatch.setattr("ionbeam_dagster.doors.http.refusals.AGAIN", 0.0)
        wait_for(lambda: caplog.text.count("again ") == 2)
        assert "again 4 requests were refused with 401, the last at" in caplog.text
        wait_for(lambda: door.application.refusals._told == {})  # over: the next one begins anew
        assert write(url, "m x=1", "stolen-token").status_code == 401
        assert "requests are refused with 401: " in caplog.text
    assert TOKEN not in caplog.text and "stolen" not in caplog.text


def test_a_memory_that_is_damaged_is_told_put_aside_and_begun_anew(platform_of, tmp_path, caplog):
    platform = platform_of(SOURCES)
    place = door_folder(platform) / "door.sqlite"
    with opened(platform) as (door, url):
        assert write(url, "cpu,host=a x=1").status_code == 204
        door.flush.run()
    door.memory._database.close()  # with its journal
    place.write_bytes(place.read_bytes()[:100] + b"\xff" * 10_000)
    [told] = door_status(platform)
    assert "is damaged" in told and "start `ionbeam receive` again, which puts it aside" in told
    with pytest.raises(StoreError, match=r"door\.sqlite is damaged"):
        list(queues.door(platform))
    code, output = ionbeam(tmp_path, "source", "accept", "garden")
    assert code == 1 and "door.sqlite is damaged" in output
    with opened(platform) as (door, url):
        wait_for(lambda: door.memory.looked_at("garden") and door.memory.parked())
        assert [(one.measurement, one.lines) for one in door.memory.parked()] == [("cpu", 1)]
        assert "was damaged" in caplog.text and "door.sqlite.damaged" in caplog.text
        assert any("door.sqlite.damaged" in one.words for one in queues.door(platform))


OPENS = """
import sys
from pathlib import Path
from ionbeam_dagster.doors.http.memory import Memory
memory = Memory(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_memory_that_is_removed_under_the_door_is_told_and_begun_anew(platform_of):
    platform = platform_of(SOURCES)
    folder = door_folder(platform)
    with subprocess.Popen([sys.executable, "-c", OPENS, folder], stdin=PIPE, stdout=PIPE) as door:
        door.stdout.readline()
        (folder / "door.sqlite").unlink()
        [told] = door_status(platform)
        assert "door.sqlite was removed from beside its -wal" in told and "start `ionbeam receive` again" in told
        with pytest.raises(StoreError, match="removed from beside"):
            list(queues.door(platform))
        door.kill()
    assert Memory(folder).listened("garden") is None


def test_what_is_left_of_a_source_that_is_gone_is_told_with_what_helps_until_it_is_taken_away(platform_of, tmp_path):
    platform = platform_of(SOURCES)
    with opened(platform) as (door, url):
        assert write(url, "cpu,host=a x=1").status_code == 204
        door.flush.run()
    parked = door_folder(platform) / "parked" / "garden"
    platform = platform_of("  ioncannon: {start: 2026-06-01}\n")
    [told] = [one for one in queues.door(platform) if one.severity == "warning"]
    assert told.remedy == f"put sources.garden of kind door back, or remove {parked}"
    shutil.rmtree(parked)
    assert not [one for one in queues.door(platform) if one.severity == "warning"]
    assert door_status(platform)[0].endswith("; 0 lines parked")


def test_a_source_that_is_not_there_cannot_be_accepted(platform_of, tmp_path):
    platform_of(SOURCES)
    code, output = ionbeam(tmp_path, "source", "accept", "nope")
    assert code == 1 and "has no source 'nope'; it has garden" in output


def test_the_door_opens_while_the_ledger_is_away(platform_of, tmp_path):
    platform_of(SOURCES, redis=f"{{redis_url: 'redis://127.0.0.1:{free_port()}/0'}}")
    with Receiving(tmp_path) as receiving:
        assert (
            write(receiving.url, f"weather,station=roof temperature=50 {nanoseconds(datetime.now(UTC))}").status_code
            == 204
        )
        wait_for(lambda: "cannot be seen now" in receiving.log(), 60)
        receiving.kill()
