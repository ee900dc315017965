"""Installations that are broken from outside: disks, locks, other versions, other people's processes and switches."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from installations import NETWORK, mounted, platform, wrong, yaml_with

from ionbeam_dagster.health import stores
from ionbeam_dagster.orchestration import doctor as of_dagster
from ionbeam_dagster.orchestration.holders import worker_with
from ionbeam_dagster.sources.netatmo.journal import Journal, Writer

HOLDS = """
import sqlite3, sys, time
db = sqlite3.connect("state/ledger.sqlite", isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(60)
"""
RECENT = f"start: {datetime.now(UTC) - timedelta(hours=2):%Y-%m-%dT%H:00Z}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(of_dagster, "_LOOKED_FOR", 0.5)
    monkeypatch.setattr(stores, "_PATIENCE", 0.5)


def test_a_ledger_that_another_process_keeps_locked(installation):
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        status, told = wrong()
        process.kill()
    assert status == 2 and f"process {process.pid} (python" in told and "kept it locked" in told, told
    assert "end that process" in told and "no answer" not in told


def test_a_ledger_that_a_newer_version_wrote(installation):
    with closing(sqlite3.connect("state/ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 7")
    status, told = wrong()
    assert status == 2 and "written by a newer version" in told and "form 7" in told
    assert "install that version again" in told


def test_a_disk_without_inodes(installation, small_disk):
    shutil.copytree("state", small_disk / "state")
    Path("network.yaml").write_text(NETWORK.replace("state_path: state", f"state_path: {small_disk}/state"))
    with pytest.raises(OSError, match="No space"):
        for number in range(1000):
            (small_disk / str(number)).touch()
    status, told = wrong()
    assert status == 2 and "% out of inodes" in told and "make room" in told, told


def test_a_disk_that_became_read_only(installation):
    mounted(Path("disk"), "size=50m")
    try:
        shutil.copytree("state", "disk/state")
        subprocess.run(["mount", "-o", "remount,ro", "disk"], check=True)
        Path("network.yaml").write_text(NETWORK.replace("state_path: state", "state_path: disk/state"))
        status, told = wrong()
    finally:
        subprocess.run(["umount", "-l", "disk"], check=True)
    assert status == 2 and "state_path" in told and "mounted read-only" in told and "mount -o remount,rw" in told, told


def test_a_folder_that_is_mounted_read_only_on_the_disk_that_it_lies_on(installation):
    if subprocess.run(["mount", "--bind", "state", "state"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here (root alone may)")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", "state"], check=True)
        status, told = wrong()
    finally:
        subprocess.run(["umount", "-l", "state"], check=True)
    remedy = told.partition(" -> ")[2]
    assert status == 2 and f"`mount -o remount,rw {Path('state').absolute()}`, or choose another folder" in remedy, told


def _by_somebody_else(*options: str) -> tuple[int, list[dict[str, str]]]:
    """What doctor says to a user who may not do everything: root without the right to pass over permissions."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("root and setpriv are needed to be somebody else")
    program = [str(Path(sys.executable).with_name("ionbeam")), "doctor", "--json", *options]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *program], capture_output=True, text=True
    )
    return done.returncode, json.loads(done.stdout)


def test_files_that_somebody_else_made(installation):
    for path in Path("state/segments").rglob("*"):
        os.chown(path, 12345, 12345)
        path.chmod(0o600 if path.is_file() else 0o700)
    status, found = _by_somebody_else()
    [told] = [one for one in found if one["subject"] == "permissions" and one["severity"] == "error"]
    assert status == 2 and "state/segments" in told["words"] and f"chown -R {os.getuid()} state" in told["remedy"]


def test_files_that_nobody_may_read_are_told_and_hold_up_the_check_of_no_other(installation):
    raws = sorted(Path("data-raw/ioncannon").iterdir())
    shut = [
        raws[0], *Path("data/ioncannon").iterdir(), *Path("data-projections/odb/ioncannon").iterdir(),
        min(Path("state/segments/ioncannon").glob("*T*/*.parquet")),
    ]  # fmt: skip
    for path in shut:
        path.chmod(0)
    raws[1].unlink()
    status, found = _by_somebody_else("--files")
    told = [f"{one['words']} -> {one['remedy']}" for one in found if one["severity"] in ("warning", "error")]
    for path in shut:
        files = [one for one in told if f"{path}" in one and "give this user permission to read it" in one]
        folders = [one for one in told if f"the first is {path}" in one and "-> chmod -R u+rwX " in one]
        assert (len(files), len(folders)) == (1, 1), told
    assert status == 2 and any(f"{raws[1]} is not there" in one for one in told), told


def test_mqtt_that_nobody_listens_to_and_a_journal_that_is_not_sorted(installation):
    yaml_with("  netatmo_mqtt: {host: mqtt.example, port: 1883, tls: false}\n")
    status, told = wrong()
    assert status == 2 and "nobody listens to the broker mqtt.example:1883 (never)" in told
    assert "start `ionbeam mqtt netatmo_mqtt`" in told
    journal = platform().sources["netatmo_mqtt"].journal
    writer = Writer(Journal(journal.root))
    writer.listens(same_session=False)
    assert "mqtt" not in wrong()[1]
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    (journal.root / "arrived" / f"{long_ago:%Y%m%dT%H%M%S%f}-1.lines").write_bytes(b"")
    status, told = wrong()
    assert status == 2 and "is not sorted into its windows yet" in told and "netatmo_mqtt.journal" in told


def test_sensors_and_schedules_that_a_person_switched_off(installation):
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="ionbeam_dagster.definitions"))
    repository = RemoteRepositoryOrigin(location, "__repository__")
    with dg.DagsterInstance.from_config(str(installation / "dagster")) as instance:
        for name, type, data in (
            ("arrivals", InstigatorType.SENSOR, None),
            ("retention", InstigatorType.SCHEDULE, ScheduleInstigatorData("0 * * * *")),
        ):
            origin = RemoteInstigatorOrigin(repository, name)
            instance.add_instigator_state(InstigatorState(origin, type, InstigatorStatus.STOPPED, data))
    status, told = wrong()
    assert status == 1 and "the sensor arrivals was stopped by a person" in told
    assert "the schedule retention was stopped by a person" in told and "start it in the UI" in told


@contextmanager
def worker(doing: str):
    """Somebody whose heart beats as a worker's, and who does nothing."""
    ledger, stop = platform().ledger, Event()
    ledger.workers.beat("worker here 1", "here", 1, doing)

    def beat() -> None:
        while not stop.wait(0.05):
            ledger.workers.beat("worker here 1", "here", 1, doing)

    beating = Thread(target=beat)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()


def test_two_configurations_that_share_a_state(installation, monkeypatch):
    monkeypatch.setattr(of_dagster, "_LOOKED_FOR", 3.0)
    with worker("worker with /srv/other.yaml (0123456789ab)"):
        status, told = wrong()
    assert status == 2 and "worker with /srv/other.yaml (process 1) shares this state" in told
    assert "state_path" in told


def test_a_worker_that_lives_and_does_nothing(installation, monkeypatch):
    monkeypatch.setattr(of_dagster, "_LOOKED_FOR", 3.0)
    Path("network.yaml").write_text(
        NETWORK.replace("enabled: false", "lookback: PT1H").replace("start: 2026-06-21", RECENT)
    )
    with worker(worker_with(platform().config)):
        status, told = wrong()
    assert status == 1 and "no worker that is alive began one" in told and "end one that hangs" in told, told


def test_what_is_told_of_stations_and_cannot_be_used(installation):
    yaml_with("\nstations: stations.csv\n")
    status, told = wrong()
    assert status == 2 and "stations.csv" in told and "is not there" in told and "put it back" in told
    Path("stations.csv").write_text("source,station,latitude,longitude\nioncannon,ioncannon_0001,52.0,5.0\n")
    assert "stations.csv" not in wrong()[1]
    Path("stations.csv").write_text("source,station,latitude,longitude\nioncannon,ioncannon_0001,north,5.0\n")
    status, told = wrong()
    assert status == 2 and "stations.csv cannot be used" in told and "latitude is no number" in told, told
    assert "what it said before holds" in told


def test_definitions_that_dagster_cannot_load(installation, monkeypatch):
    def of_history(*_) -> dg.Definitions:
        return dg.Definitions(jobs=[_named("twice", "a"), _named("twice", "b")])

    assert wrong() == (0, "")
    monkeypatch.setattr("ionbeam_dagster.orchestration.definitions.history_definitions", of_history)
    status, told = wrong()
    assert status == 2 and "the code location does not load" in told and "job 'twice'" in told, told


def _named(job: str, op: str) -> dg.JobDefinition:
    @dg.op(name=op)
    def does() -> None: ...

    @dg.job(name=job)
    def made() -> None:
        does()

    return made
