"""Both ledgers pass the suite that is shipped for them; and what only one of them can get wrong."""

import json
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGKILL
from subprocess import PIPE

import pytest
from backends import Missing, start_redis
from redis import Redis

from ionbeam_dagster.domain.records import Correction, RawPartition
from ionbeam_dagster.stores.ledger import LedgerError, RedisLedger, SqliteLedger
from ionbeam_dagster.stores.ledger.alerts import Alert
from ionbeam_dagster.stores.ledger.keys import place_of
from ionbeam_dagster.testing.ledger import LedgerContract
from ionbeam_dagster.testing.ledger.samples import HOUR, NEXT, NOON, WINDOW, arrived, built, claimed


class Replacing(LedgerContract):
    def test_what_a_claim_replaced_is_missed_by_nobody(self, ledger):
        old = arrived(ledger, "old", NOON + HOUR)
        for name in ("sent", "not ingested"):
            ledger.record_sent([(RawPartition(name, "crowd", WINDOW, f"{name}.parquet", 5), [WINDOW])])
        arrived(ledger, "sent", NOON + HOUR)
        arrived(ledger, "new", NOON + 2 * HOUR, replaces=["old", "sent", "not ingested"])
        assert ledger.raws("crowd", NOON + 2 * HOUR) == []
        ledger.withdraw_claim("sent")
        assert ledger.waiting("crowd") == []
        with pytest.raises(LedgerError, match="the claim old was replaced or withdrawn meanwhile; try again"):
            ledger.metadata_of([old])


class TestSqliteLedger(Replacing):
    @pytest.fixture
    def open_ledger(self, tmp_path):
        return partial(SqliteLedger, tmp_path / "state" / "ledger.sqlite")


class TestRedisLedger(Replacing):
    @pytest.fixture
    def open_ledger(self, redis):
        with Redis.from_url(redis.url) as client:
            client.flushdb()
        return partial(RedisLedger, redis.url)

    @pytest.fixture
    def silent_for(self, monkeypatch):
        monkeypatch.setattr("ionbeam_dagster.stores.ledger.holding.HELD_FOR", 2.0)
        return 2.0

    def test_a_job_that_redis_no_longer_knows_is_not_ours_when_it_is_renewed(self, redis, open_ledger, monkeypatch):
        monkeypatch.setattr("ionbeam_dagster.stores.ledger.holding.HELD_FOR", 8.0)
        job, until = open_ledger().job("outbox"), time.monotonic() + 6
        assert job.acquire()
        with Redis.from_url(redis.url) as client:
            client.delete("ionbeam:job:outbox")
        while job.is_ours:
            assert time.monotonic() < until, "it would be ours for as long as it was taken"
            time.sleep(0.05)
        job.close()

    def test_corrections_are_open_and_have_later_numbers_when_any_key_of_theirs_is_gone(self, redis, open_ledger):
        memory = open_ledger().corrections
        told = [Correction(str(n), WINDOW, "an override") for n in range(3)]
        memory.see("crowd", told, NOON)
        with Redis.from_url(redis.url, decode_responses=True) as client:
            for n, key in enumerate(sorted(client.keys("ionbeam:corrections*")), 1):
                last = memory.open("crowd")[-1].number
                client.delete(key)
                memory.see("crowd", [*told, Correction("new", WINDOW, str(n))], NOON + n * HOUR)
                known = memory.open("crowd")
                assert len(known) == 4 and known[-1].number > last, key

    def test_corrections_of_an_earlier_version_are_read(self, redis, open_ledger):
        memory = open_ledger().corrections
        place = place_of(WINDOW)
        with Redis.from_url(redis.url, decode_responses=True) as client:
            for id, number, closed in (("9/1", 1, None), ("9/2", 2, NOON.isoformat())):
                state = json.dumps([NOON.isoformat(), None, None, "", closed])
                record = json.dumps([json.dumps([place, "an override"]), number, state])
                client.hset("ionbeam:corrections:crowd", id, record)
            client.sadd("ionbeam:corrections_open:crowd", "9/1")
            client.set("ionbeam:corrections_last", 2)
        [known], [closed] = memory.open("crowd"), memory.closed("crowd")
        assert (known.correction.id, known.number, closed.correction.id) == ("9/1", 1, "9/2")
        memory.see("crowd", [known.correction, Correction("9/3", NEXT, "")], NOON)
        assert [one.correction.id for one in memory.open("crowd")] == ["9/1", "9/3"]
        assert memory.change("crowd", replace(known, closed=NOON)) and len(memory.open("crowd")) == 1


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database" * 1000)
    ledger, before = SqliteLedger(path), len(list(OPEN.iterdir()))
    for _ in range(3):
        with pytest.raises(LedgerError, match=r"ledger\.sqlite: .*move it away, and it is made again") as told:
            ledger.due("crowd")
    assert len(list(OPEN.iterdir())) == before, told  # whose traceback would keep what is open


OPEN = Path("/proc/self/fd")
HOLDS = """
import sys
from pathlib import Path
from ionbeam_dagster.stores.ledger import SqliteLedger
ledger = SqliteLedger(Path("ledger.sqlite"), lambda: print("recovers", flush=True))
for line in sys.stdin:
    for number in range(100):  # so that its log is longer than a new one
        ledger.workers.beat(f"{number}", "here", number, line * 100)
    print(len(ledger.workers.present()), flush=True)
"""


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.rename("kept.sqlite")], ids=["removed", "moved"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["used", "killed"])
def test_a_file_that_goes_from_beside_its_log_is_made_again(lose, is_killed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recovered: list[int] = []
    ledger, path = SqliteLedger(Path("ledger.sqlite"), lambda: recovered.append(1)), Path("ledger.sqlite")
    claimed(ledger, "first", WINDOW)
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdin=PIPE, stdout=PIPE, text=True) as holder:

        def held() -> str:
            holder.stdin.write("on\n")
            holder.stdin.flush()
            return holder.stdout.readline()

        assert held() == "100\n"
        if is_killed:
            holder.kill()
            holder.wait()
        lose(path)
        assert ledger.claims("crowd", WINDOW) == [] and len(recovered) == 2
        second = claimed(ledger, "second", WINDOW)
        assert is_killed or held() == "100\n"
        assert SqliteLedger(path).claims("crowd", WINDOW) == ledger.claims("crowd", WINDOW) == [second]
        assert Path("ledger.sqlite.damaged-wal").stat().st_size > 0  # what was not yet in a file that was moved
        holder.kill()


KEEPS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from ionbeam_dagster.stores.ledger import SqliteLedger
from ionbeam_dagster.stores.ledger.alerts import Alert
for subject in sys.argv[1:]:
    SqliteLedger(Path("ledger.sqlite")).alerts.keep(Alert(subject, datetime(2026, 6, 21, tzinfo=UTC), "elsewhere"))
"""


def test_nothing_is_lost_where_the_index_of_the_log_is_taken_away_and_it_is_told(tmp_path, monkeypatch, caplog):
    """SQLite gave each process an index of its own, by which each wrote over what the other had written."""
    monkeypatch.chdir(tmp_path)
    ledger, beside = SqliteLedger(Path("ledger.sqlite")), SqliteLedger(tmp_path / "ledger.sqlite")
    for one in (ledger, beside):
        one.alerts.keep(Alert("before", NOON, "here"))
    Path("ledger.sqlite-shm").unlink()
    subprocess.run([sys.executable, "-c", KEEPS, *(f"elsewhere {number}" for number in range(3))], check=True)
    told = []
    for one in (ledger, beside, ledger, beside):
        try:
            one.alerts.keep(Alert(f"here {len(told)}", NOON, "here"))
            told.append("")
        except LedgerError as error:
            told.append(str(error))
    assert "its -shm was taken from beside it; leave -wal and -shm alone" in told[0]  # `beside` has the old one still
    assert told[1:] == ["", "", ""] and "what others wrote since is read anew" in caplog.text
    expected = {"before", *(f"elsewhere {number}" for number in range(3)), "here 1", "here 2", "here 3"}
    for one in (ledger, beside, SqliteLedger(tmp_path / "ledger.sqlite")):
        assert {alert.subject for alert in one.alerts.all()} == expected
    assert not list(tmp_path.glob("*.kept*"))


def test_what_is_written_while_the_index_is_taken_away_is_told_to_be_in_doubt(tmp_path):
    file = SqliteLedger(tmp_path / "ledger.sqlite").alerts._file
    with (
        pytest.raises(LedgerError, match="its -shm was taken from beside it while it was written"),
        file.writing() as db,
    ):
        db.execute("INSERT INTO alerts VALUES ('a', 1, 'b', 0)")
        (tmp_path / "ledger.sqlite-shm").unlink()
    with file.writing() as db:
        assert db.execute("SELECT subject FROM alerts").fetchall() == [("a",)]


def test_what_is_told_of_a_ledger_that_several_made_again_at_once_is_what_the_first_found(tmp_path):
    place = tmp_path / "ledger.sqlite"

    def after_another() -> str:
        SqliteLedger(place, lambda: "1,000 raw files").due("crowd")
        return "1 claim"

    ledger = SqliteLedger(place, after_another)
    told = ledger.recovered()
    assert told is not None and told[1] == "1,000 raw files"


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(LedgerError, match=r"state/ledger\.sqlite: .*correct state_path"):
        SqliteLedger(tmp_path / "state" / "ledger.sqlite").due("crowd")


def test_a_full_disk_is_said_and_the_next_try_succeeds(tmp_path):
    """The limit of a file's size stands for the disk's: SQLite is told the same."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    first = claimed(ledger, "first", WINDOW)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "ledger.sqlite-wal").stat().st_size + 5000, limits[1]))
        with pytest.raises(LedgerError, match=r"ledger\.sqlite: .*(make room|try again)"):
            for number in range(100):
                claimed(ledger, f"more {number}", NEXT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert ledger.claims("crowd", WINDOW) == [first]
    assert claimed(ledger, "later", WINDOW).arrival > first.arrival


def test_a_redis_that_is_killed_comes_back_with_the_whole_ledger(tmp_path):
    server = _own_redis(tmp_path)
    try:
        ledger = RedisLedger(server.url)
        first = claimed(ledger, "first", WINDOW)
        ledger.record_revision(built(WINDOW, 1, []), [])
        server.process.stop(SIGKILL)
        with pytest.raises(LedgerError, match=r"Redis at 127\.0\.0\.1:\d+/0 does not answer .*start it"):
            ledger.claims("crowd", WINDOW)
        server.process.start()
        assert ledger.claims("crowd", WINDOW) == [first] and ledger.due("crowd") == [WINDOW]
        assert ledger.arrival_of("second") == 2
    finally:
        server.process.stop()


def test_a_redis_that_may_forget_is_said_to(tmp_path, caplog):
    server = _own_redis(tmp_path)
    try:
        with Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "everysec")
            client.config_set("maxmemory-policy", "allkeys-lru")
            RedisLedger(server.url).due("crowd")
            assert "appendfsync always" in caplog.text and "maxmemory-policy noeviction" in caplog.text
            client.config_set("appendonly", "no")
            RedisLedger(server.url).due("crowd")
            assert "appendonly yes" in caplog.text
    finally:
        server.process.stop()


def _own_redis(folder: Path):
    try:
        return start_redis(folder)
    except Missing as missing:
        pytest.skip(missing.reason)


def test_a_sqlite_ledger_of_an_earlier_version_is_brought_up_to_this_one(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path)
    claim = claimed(ledger, "first", WINDOW)
    with sqlite3.connect(path) as db:
        db.execute("DROP INDEX due_by_time")
        for table, column in (("claims", "arrived_at"), ("touched", "rows"), ("due", "until")):
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    db.close()
    again = SqliteLedger(path)
    assert again.claims("crowd", WINDOW) == [claim] and again.due("crowd", NOON) == [WINDOW]
    assert again.rows_in("crowd", WINDOW) is None
    arrived(again, "second", NOON + HOUR)
    assert again.claims("crowd", WINDOW)[-1].arrived_at == NOON + HOUR
