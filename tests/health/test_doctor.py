"""Installations that are broken, one by one: `ionbeam doctor` names what is wrong, and what fixes it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import namedtuple
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import rmtree
from threading import Thread

import dagster as dg
import pytest
from installations import AN_HOUR, LONG_AGO, NETWORK, START, doctor, platform, wrong, yaml_with
from servers import free_port
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.cli.dev import _dagster_told
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import window_of, windows_between
from ionbeam_dagster.doors.http.counters import Counter
from ionbeam_dagster.doors.http.memory import Listened, Memory, door_folder
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.orchestration import doctor as of_dagster
from ionbeam_dagster.orchestration.home import ensure_stores
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.heard import up_to_date
from ionbeam_dagster.stores.ledger.attempts import Failure


def test_all_is_well_and_nothing_is_made(installation):
    before = sorted(path for path in Path().rglob("*") if "dagster" not in path.parts)
    status, found = doctor("--files")
    told = [one["words"] for one in found if one["severity"] != "well"]
    assert told == ["automation is off (automation.enabled): nothing is done by itself"] and status == 0
    assert {one["subject"] for one in found} >= {"configuration", "ledger", "files", "disk", "clock", "dagster"}
    assert any("6 files were read" in one["words"] for one in found)
    assert sorted(path for path in Path().rglob("*") if "dagster" not in path.parts) == before


def test_a_dataset_whose_source_was_renamed_is_told_with_what_to_do_until_it_is_removed(installation):
    renamed = NETWORK.replace("source_name: ioncannon", "source_name: balcony")
    renamed = renamed.replace("ioncannon: {", "balcony: {type: ioncannon, ")
    kept = ["data/ioncannon", "state/segments/ioncannon", "data-projections/odb/ioncannon"]

    def told() -> list[str]:
        [*notes] = [f"{one['words']}; {one['remedy']}" for one in doctor()[1] if "ioncannon" in one["words"]]
        done = [CliRunner().invoke(app, command) for command in (["status"], ["config", "check"])]
        shown = [one.output.replace("\n", " ") for one in done]
        assert all(("dataset ioncannon: no source" in one) == bool(notes) for one in shown), shown
        return notes

    Path("network.yaml").write_text(renamed)
    [note] = told()
    assert "no source of network.yaml feeds it, and 2026-06-21 06:00-07:00 of it stays" in note
    assert ", ".join(kept) in note and "`dataset: ioncannon` in the new one's block" in note
    Path("network.yaml").write_text(renamed.replace("balcony: {", "balcony: {dataset: ioncannon, "))
    assert told() == []
    Path("network.yaml").write_text(renamed)
    for folder in kept:
        rmtree(folder)
    assert told() == []


def test_a_new_installation_is_well_and_stays_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv(CONFIG_VARIABLE, "network.yaml")
    Path("network.yaml").write_text(NETWORK)
    status, _ = doctor("--files")
    assert status == 0 and [path.name for path in Path().iterdir()] == ["network.yaml"]


def test_the_table_names_what_to_do(installation, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.cli.doctor.console.width", 200)
    yaml_with(f"\nredis: {{redis_url: 'redis://127.0.0.1:{free_port()}/0'}}\n")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 2
    assert "does not answer" in done.stdout and "start it, or correct redis.redis_url" in done.stdout
    assert "1 to be looked at: 1 errors" in done.stdout, done.stdout


# --- one by one -------------------------------------------------------------------------------------------------------


def test_a_key_that_is_misspelt(installation):
    yaml_with("\nautomatoin: {enabled: true}\n")
    assert wrong() == (2, wrong()[1]) and "automatoin" in wrong()[1] and "network.yaml" in wrong()[1]


def test_a_folder_that_is_a_file(installation):
    yaml_with("\nscratch_path: network.yaml/scratch\n")
    status, told = wrong()
    assert status == 2 and "scratch_path" in told and "a folder is needed" in told


def test_a_ledger_that_is_damaged(installation):
    Path("state/ledger.sqlite").write_bytes(b"what a disk that fails leaves" * 1000)
    for ending in ("-wal", "-shm"):
        Path(f"state/ledger.sqlite{ending}").unlink(missing_ok=True)
    status, told = wrong()
    assert status == 2 and told.startswith("ledger: state/ledger.sqlite: ") and told.count("\n") == 0, told
    assert "move it away, and it is made again from the stores" in told


def test_a_text_of_the_ledger_that_is_damaged(installation):
    with closing(sqlite3.connect("state/ledger.sqlite")) as db, db:
        db.execute("UPDATE readings SET metadata = CAST(x'ff00ff' AS TEXT)")
    status, told = wrong()
    assert status == 2 and told.startswith("ledger: state/ledger.sqlite: ") and told.count("\n") == 0, told
    assert "move it away, and it is made again from the stores" in told


@pytest.mark.parametrize(
    ("section", "named", "remedy"),
    [
        (
            "redis: {redis_url: 'redis://127.0.0.1:PORT/0'}",
            "Redis at 127.0.0.1:PORT/0 does not",
            "start it, or correct",
        ),
        (
            "influxdb_common: {influxdb_org: o, influxdb_url: 'http://127.0.0.1:PORT', influxdb_token: t, "
            "influxdb_bucket: b}",
            "InfluxDB at http://127.0.0.1:PORT",
            "start it",
        ),
        (
            "s3: {endpoint: 'http://127.0.0.1:PORT', access_key: a, secret_key: s}\nquarantine_path: s3://away/q",
            "S3 at http://127.0.0.1:PORT does not answer",
            "start it, or correct s3.endpoint",
        ),
        ("broker: {url: 'amqp://u:secret@127.0.0.1:PORT/'}", "the broker at 127.0.0.1:PORT", "start it, or correct"),
    ],
    ids=["redis", "influxdb", "s3", "broker"],
)
def test_a_server_that_is_away(installation, section, named, remedy):
    port = str(free_port())
    yaml_with("\n" + section.replace("PORT", port) + "\n")
    status, told = wrong()
    assert status == 2 and named.replace("PORT", port) in told and remedy in told, told
    assert "secret" not in told


def test_a_disk_that_is_full(installation, monkeypatch):
    real = os.statvfs(".")
    full = namedtuple("stat", "f_blocks f_bfree f_bavail f_frsize f_files f_ffree f_favail f_flag")
    monkeypatch.setattr(os, "statvfs", lambda path: full(1000, 30, 30, real.f_frsize, 1000, 900, 900, 0))
    status, told = wrong()
    assert status == 2 and "97.0% full" in told and "ionbeam purge --dry-run" in told


def test_files_that_this_user_may_not_write(installation, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "ledger" not in str(path) and access(path, mode))
    status, told = wrong()
    assert status == 2 and "state/ledger" in told and "chmod -R u+rwX state" in told


def test_a_file_that_goes_while_it_is_looked_at_is_not_another_users(installation, monkeypatch):
    access, passing = os.access, Path("state/a-draft")
    passing.touch()

    def finished(path, mode):
        if Path(path).name == passing.name:
            passing.unlink(missing_ok=True)
        return access(path, mode)

    monkeypatch.setattr(os, "access", finished)
    assert wrong() == (0, "") and not passing.exists()


def test_a_package_of_another_version(installation, monkeypatch):
    from ionbeam_dagster.health import versions

    installed = versions.version
    monkeypatch.setattr(versions, "version", lambda name: "0.1" if name == "polars" else installed(name))
    status, told = wrong()
    assert status == 2 and "needs polars>=" in told and "pip install 'polars>=" in told


def test_a_door_without_its_libraries(installation, monkeypatch):
    yaml_with("  garden: {kind: door, token: a-token-of-the-garden}\n")
    monkeypatch.setattr("ionbeam_dagster.doors.http.lacking", lambda: "waitress: pip install 'ionbeam-dagster[door]'")
    status, told = wrong()
    assert status == 2 and "need waitress" in told and "pip install 'ionbeam-dagster[door]'" in told


def test_a_clock_that_was_ahead(installation):
    ours = platform()
    tomorrow = window_of(datetime.now(UTC) + timedelta(hours=20), timedelta(hours=1))
    claim = Claim("ahead", "ioncannon", "ioncannon", tomorrow, ours.ledger.arrival_of("ahead"), 1)
    ours.ledger.record_claim(claim, ours.sources["ioncannon"].metadata, {tomorrow: 1})
    status, told = wrong()
    assert status == 1 and "1 ingestions are from the future" in told and "set the clock" in told


def test_a_server_whose_clock_is_an_hour_ahead(installation):
    class Ahead(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response_only(204)
            later = datetime.now(UTC) + timedelta(hours=1)
            self.send_header("Date", later.strftime("%a, %d %b %Y %H:%M:%S GMT"))
            self.end_headers()

        do_GET = do_HEAD

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ahead)
    Thread(target=server.serve_forever, daemon=True).start()
    yaml_with(
        "\ninfluxdb_common: {influxdb_org: o, influxdb_bucket: b, influxdb_token: t, "
        f"influxdb_url: 'http://127.0.0.1:{server.server_port}'}}\n"
    )
    told = wrong()[1]
    server.shutdown()
    assert "this host's clock is 1 h" in told or "this host's clock is 59 min" in told
    assert "behind that of InfluxDB" in told and "NTP" in told


def test_another_length_of_windows(installation):
    Path("network.yaml").write_text(NETWORK.replace("PT1H", "PT30M"))
    status, told = wrong()
    assert status == 2 and "aggregation_span" in told and "let it be as it was" in told


def test_other_columns_under_the_same_version(installation, monkeypatch):
    source = platform().sources["ioncannon"]
    first, *others = source.metadata.ingestion_map.canonical_variables
    variables = [first.model_copy(update={"level": 12.5}), *others]
    changed = source.metadata.ingestion_map.model_copy(update={"canonical_variables": variables})
    other = source.metadata.model_copy(update={"ingestion_map": changed})
    monkeypatch.setattr(type(source), "metadata", other)
    [fault] = [one for one in doctor()[1] if "its columns changed" in one["words"]]
    assert fault["words"].endswith("is new") and fault["remedy"].startswith("let them be as they were"), fault


def test_a_run_whose_process_is_gone(installation, monkeypatch):
    monkeypatch.setattr(of_dagster, "_YOUNG", timedelta(0))
    with dg.DagsterInstance.from_config(str(installation / "dagster")) as instance:
        run = instance.create_run_for_job(_job)
        instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, "a_job"), run_id=run.run_id
        )
    status, told = wrong()
    assert status == 2 and run.run_id in told and "end them in the UI" in told


@dg.job(name="a_job")
def _job():
    pass


def _two_versions(database: Path) -> None:
    """As two processes leave it that make it at once."""
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("INSERT INTO alembic_version VALUES ('5771160a95ad')")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("history/runs.db", _two_versions),
        ("schedules/schedules.db", lambda path: path.write_bytes(b"no database" * 1000)),
    ],
    ids=["two versions", "damaged"],
)
def test_a_database_of_dagster_that_nobody_can_open(installation, name, spoil, capsys):
    home, database = installation / "dagster", installation / "dagster" / name
    folder = home / name.partition("/")[0]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        spoil(database)
        assert "history rebuild" in next(of_dagster.history(instance)).remedy
    status, told = wrong()
    remedy = f"remove {folder}, start them again, then `ionbeam history rebuild`"
    assert status == 2 and str(database) in told and remedy in told and told.count("\n") == 0, told
    for command in (["run", "ioncannon", "--from", "2026-06-21T06:00Z", "--to", "2026-06-21T07:00Z"], ["dev"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 1 and str(database) in done.output and remedy in done.output, done.output
    look = _dagster_told(home)
    look(), look()
    assert capsys.readouterr().err.count(remedy) == 1
    rmtree(folder)
    assert wrong("--files") == (0, "")


def test_one_process_makes_the_databases_of_dagster_also_where_they_were_removed(installation):
    home = installation / "dagster"
    (home / "ionbeam-stores").touch()  # as an earlier version noted that it made them
    rmtree(home / "history")
    ensure_stores(home, home / "log")
    made = (home / "ionbeam-stores").stat().st_mtime_ns
    assert (home / "history/runs.db").exists() and (home / "history/runs/index.db").exists()
    ensure_stores(home, home / "log")
    assert (home / "ionbeam-stores").stat().st_mtime_ns == made
    (home / "history/runs.db").unlink()
    ensure_stores(home, home / "log")
    assert (home / "history/runs.db").exists()


def test_a_database_of_dagster_that_is_lost_while_it_is_used(installation, monkeypatch):
    with dg.DagsterInstance.from_config(str(installation / "dagster")) as instance:
        assert [one.severity for one in of_dagster.history(instance)] == ["well"]
        (installation / "dagster").rename(installation / "away")
        watch = Watch(platform(), further={of_dagster.SUBJECT: lambda: of_dagster.history(instance)})
        watch.look()
        [told] = [one for one in watch.findings() if one.subject == of_dagster.SUBJECT]
        assert told.severity == "error" and "Dagster's database cannot be used" in told.words
        assert "`ionbeam history rebuild`" in told.remedy and watch.answer(in_full=False)[0] == 503
        monkeypatch.delenv("DAGSTER_HOME")
        [seen] = of_dagster.dagster(platform())
        assert seen.severity == "warning" and "though windows were collected" in seen.words
        (installation / "away").rename(installation / "dagster")
        assert [one.severity for one in of_dagster.history(instance)] == ["well"]


def test_nobody_does_the_work(installation):
    lookback = (datetime.now(UTC) - START).days + 2
    Path("network.yaml").write_text(NETWORK.replace("enabled: false", f"lookback: P{lookback}D"))
    status, told = wrong()
    assert status == 2 and "neither a worker nor Dagster's daemon is alive" in told and "start `ionbeam worker`" in told


def test_what_fails_for_long(installation):
    ours, begun = platform(), datetime.now(UTC) - timedelta(hours=3)
    work = agenda.Work("export", "ioncannon/odb", AN_HOUR, "r1", "")
    agenda.begin(ours, [work], begun)
    agenda.in_hand(ours, "export", "ioncannon/odb").settle([], {AN_HOUR: Failure("the disk is on fire")}, begun)
    status, told = wrong()
    assert (
        status == 1 and "the disk is on fire" in told and "`ionbeam rebuild ioncannon --from 2026-06-21T06:00Z" in told
    )


def test_files_that_are_damaged_or_gone(installation):
    ours = platform()
    [dataset] = ours.ledger.revisions("ioncannon", START, AN_HOUR.end)
    first, second, *_ = windows_between(START, AN_HOUR.end, timedelta(minutes=15))
    export, raw, gone = (
        Path(one.path)
        for one in (
            ours.ledger.export("ioncannon", AN_HOUR, "odb"),
            ours.ledger.raw("ioncannon", first),
            ours.ledger.raw("ioncannon", second),
        )
    )
    for path in (export, raw):
        held = path.read_bytes()
        path.write_bytes(held[:150] + bytes(byte ^ 255 for byte in held[150:160]) + held[160:])
        os.utime(path, LONG_AGO)
    gone.unlink()
    assert doctor()[0] == 0  # it does not read files unless it is asked to
    status, told = wrong("--files")
    assert status == 1, told
    assert "its raw file is gone" in told and told.count("does not hold what was written") == 2
    again = wrong("--files")[1]  # what is lost is told until it is made again
    assert all(f"{path} is not there" in again for path in (gone, export, raw))
    assert f"{gone} is not there" in told and f"kept as {export}.damaged" in told and f"kept as {raw}.damaged" in told
    assert "`ionbeam run ioncannon --from 2026-06-21T06:00Z" in told and "`ionbeam rebuild ioncannon" in told
    assert Path(dataset.path).exists()
    for command in (["run", "ioncannon"], ["rebuild", "ioncannon"]):
        given = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T07:00Z"]
        assert CliRunner().invoke(app, [*command, *given]).exit_code == 0
    assert export.exists() and raw.exists() and gone.exists() and doctor("--files")[0] == 0


def test_rebuild_makes_a_damaged_dataset_file_again_and_a_lost_ledger_is_made_again_past_it(installation):
    [dataset] = platform().ledger.revisions("ioncannon", START, AN_HOUR.end)
    path, held = Path(dataset.path), Path(dataset.path).read_bytes()
    at = held.rindex(b"ARROW:schema") + 200  # in its footer

    def damage() -> None:
        path.write_bytes(held[:at] + bytes(byte ^ 255 for byte in held[at : at + 20]) + held[at + 20 :])

    given = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T07:00Z"]
    damage()
    assert "1 that were written, or changed, a moment ago" in "\n".join(one["words"] for one in doctor("--files")[1])
    done = CliRunner().invoke(app, ["rebuild", "ioncannon", *given])
    assert done.exit_code == 0 and path.read_bytes() == held, done.output
    assert path.with_name(f"{path.name}.damaged").exists()
    damage()
    for ledger in Path("state").glob("ledger.sqlite*"):
        ledger.unlink()
    told = CliRunner().invoke(app, ["status"])
    assert told.exit_code == 0 and f"{path} cannot be read" in told.output.replace("\n", ""), told.output
    assert CliRunner().invoke(app, ["run", "ioncannon", *given]).exit_code == 0
    assert platform().ledger.latest_revision("ioncannon", AN_HOUR).facts.rows == dataset.facts.rows


def test_a_segment_that_is_damaged_is_set_aside_and_ingested_again(installation):
    [built] = platform().ledger.revisions("ioncannon", START, AN_HOUR.end)
    path = min(Path("state/segments/ioncannon").glob("*T*/*.parquet"))
    path.write_bytes(path.read_bytes()[:-50] + bytes(50))
    status, told = wrong("--files")
    assert status == 1 and f"segment {path} cannot be read" in told and f"kept as {path.name}.damaged" in told, told
    given = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T07:00Z"]
    assert CliRunner().invoke(app, ["rebuild", "ioncannon", "--force", *given]).exit_code == 0
    assert platform().ledger.latest_revision("ioncannon", AN_HOUR).facts.rows == built.facts.rows
    assert doctor("--files")[0] == 0


def test_the_shipped_configuration_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    status, found = doctor()
    assert status == 0 and any("no configuration is named" in one["words"] for one in found)


def test_a_dataset_file_that_is_gone_and_an_export_that_was_never_made(installation):
    ours = platform()
    [dataset] = ours.ledger.revisions("ioncannon", START, AN_HOUR.end)
    Path(dataset.path).unlink()
    told = wrong("--files")[1]
    assert f"{dataset.path} is not there" in told and "`ionbeam rebuild ioncannon --from 2026-06-21T06:00Z" in told
    yaml = NETWORK.replace("exports: [odb]", "exports: [odb, pygeoapi]")
    given = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T07:00Z"]
    assert CliRunner().invoke(app, ["rebuild", "ioncannon", *given]).exit_code == 0
    Path("network.yaml").write_text(yaml)
    assert doctor("--files")[0] == 0  # work, and no fault


def test_what_the_door_could_not_take_and_does_not_take(installation):
    yaml_with("  garden: {kind: door, token: a-token-of-the-garden}\n")
    folder = door_folder(platform())
    journal = folder / "journal" / "1.journal"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"." * 5_000)
    os.utime(journal, LONG_AGO)
    (folder / "parked" / "garden").mkdir(parents=True)
    (folder / "parked" / "garden" / "0.parquet").touch()
    parked = [("shed", "no variable is mapped", 7, 1_750_000_000_000_000_000, "shed t=1")]
    anew = Counter().anew(1_750_000_000_000_000_000, time.time_ns())
    Memory(folder).taken("garden", "0", Listened(0, 1), {(7, 0x100): anew}, parked)
    status, told = wrong()
    assert "garden: its counter began anew: d--0000-0000-0000-0007, streamer 0x100" in told
    assert status == 2 and "wait in the journal of the door" in told and "start `ionbeam receive`" in told
    assert "7 lines of 'shed' are parked: no variable is mapped" in told and "`ionbeam source accept garden`" in told


def test_heard_names_who_fell_silent(installation):
    told = CliRunner().invoke(app, ["heard"])
    assert told.exit_code == 0 and "12 stations heard in a week, 0 of them fell silent" in told.stdout
    assert "rows of a day; 0 set aside, whole or a value of them" in told.stdout
    every = CliRunner().invoke(app, ["heard", "ioncannon", "--every", "--most", "3"]).stdout
    assert "5 min" in every and "... and 9 more" in every


def test_a_flipped_byte_anywhere_in_a_window_hides_no_other(installation):
    ours = platform()
    [path] = (one.path for one in ours.ledger.revisions("ioncannon", START, START + timedelta(hours=1)))
    file = next(installation.rglob(Path(path).name))
    whole, unread = file.read_bytes(), 0
    for at in range(5, len(whole), len(whole) // 100):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        rmtree(ours.config.sections.state_path / "heard", ignore_errors=True)
        assert up_to_date(ours, "ioncannon").heard == 12
        unread += ours.heard.week("ioncannon").missed
    assert unread > 5
