"""Whatever is done to both ledgers, in whatever order and by whatever clock, they give the same answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from redis import Redis

from ionbeam_dagster.domain.records import BuiltRevision, Claim, ExportFacts, ExportRecord, RawPartition, Revision
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger, RedisLedger, SqliteLedger
from ionbeam_dagster.stores.ledger.attempts import Attempt, Failure
from ionbeam_dagster.stores.ledger.commands import Taken
from ionbeam_dagster.stores.ledger.parts import Part
from ionbeam_dagster.stores.ledger.refusals import Refusal
from ionbeam_dagster.stores.ledger.sqlite_file import SqliteFile
from ionbeam_dagster.testing.ledger.samples import HOUR, NEXT, NOON, WINDOW, metadata

FAR = NOON + 1000 * HOUR
DAY = Window(NOON, NOON + 24 * HOUR)
IDS = st.sampled_from(["a", "b", "c: d"])
SOURCES = st.sampled_from(["crowd", "a source"])
WINDOWS = st.sampled_from([WINDOW, NEXT, DAY])
TIMES = st.sampled_from([NOON - HOUR, NOON, NOON + timedelta(minutes=59), NOON + 800 * HOUR])
BROUGHT = {"a": (WINDOW, [WINDOW]), "b": (DAY, [WINDOW, NEXT]), "c: d": (NEXT, [])}
"""What an ingestion collected and the windows that it touches: its id follows from both."""
SOME_WINDOWS = st.lists(WINDOWS, max_size=3, unique=True)


class Both(RuleBasedStateMachine):
    file = Path()
    url = ""

    def __init__(self) -> None:
        super().__init__()
        with Redis.from_url(self.url) as client:
            client.flushdb()
        self.ledgers: list[Ledger] = [SqliteLedger(self.file), RedisLedger(self.url)]
        self.ledgers[0].due("crowd")
        with closing(sqlite3.connect(self.file, isolation_level=None)) as db:
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            db.executescript(f"BEGIN;{''.join(f'DELETE FROM {table};' for table in tables)}COMMIT;")

    def alike(self, ask: Callable[[Ledger], object]) -> None:
        one, other = map(ask, self.ledgers)
        assert one == other

    # -- what is done ----------------------------------------------------------------------------------------------

    @rule(id=IDS, replaces=st.lists(IDS, max_size=2), at=st.none() | TIMES)
    def claim(self, id, replaces, at):
        collected, touched = BROUGHT[id]

        def record(ledger: Ledger) -> None:
            claim = Claim(id, "crowd", "crowd", collected, ledger.arrival_of(id), 7, arrived_at=at)
            ledger.record_claim(claim, metadata(), dict.fromkeys(touched, 3), [one for one in replaces if one != id])

        self.alike(record)

    @rule(id=IDS)
    def withdraw(self, id):
        self.alike(lambda ledger: ledger.withdraw_claim(id))

    @rule(places=st.dictionaries(IDS, st.integers(1, 9), max_size=3))
    def restore(self, places):
        self.alike(lambda ledger: ledger.restore_arrivals(places))

    @rule(id=IDS)
    def arrive(self, id):
        self.alike(lambda ledger: ledger.arrival_of(id))

    @rule(window=WINDOWS, number=st.integers(1, 11), at=TIMES, of_all=st.booleans())
    def revision(self, window, number, at, of_all):
        built = BuiltRevision(Revision("crowd", window, number, "inputs"), f"r{number}", at)
        self.alike(
            lambda ledger: ledger.record_revision(built, ledger.claims("crowd", window) if of_all else []),
        )

    @rule(window=WINDOWS, number=st.integers(1, 11))
    def forget(self, window, number):
        self.alike(lambda ledger: ledger.forget_revision(Revision("crowd", window, number, "inputs")))

    @rule(ids=st.lists(IDS, max_size=3), window=WINDOWS, touched=SOME_WINDOWS, source=SOURCES)
    def sent(self, ids, window, touched, source):
        raws = [(RawPartition(f"{source} {window} {id}", source, window, id, 5), touched) for id in ids]
        self.alike(lambda ledger: ledger.record_sent(raws))

    @rule(id=IDS, window=WINDOWS)
    def raw(self, id, window):
        self.alike(
            lambda ledger: ledger.record_raw(RawPartition(f"raw {id} {window}", "crowd", window, id, 5, beside=("x",)))
        )

    @rule(id=IDS, window=WINDOWS, at=TIMES)
    def purge(self, id, window, at):
        self.alike(
            lambda ledger: ledger.record_purged(RawPartition(f"raw {id} {window}", "crowd", window, id, 5), at),
        )

    @rule(window=WINDOWS, at=TIMES, until=st.none() | TIMES, seen=st.booleans())
    def seal_and_postpone(self, window, at, until, seen):
        self.alike(lambda ledger: ledger.seal("crowd", [window, NEXT], at))
        self.alike(
            lambda ledger: ledger.postpone("crowd", window, ledger.claims("crowd", window) if seen else [], until)
        )

    @rule(windows=SOME_WINDOWS)
    def unseal(self, windows):
        self.alike(lambda ledger: ledger.unseal("crowd", windows))

    @rule(window=WINDOWS, number=st.integers(1, 3), path=st.none() | st.just("x"))
    def export(self, window, number, path):
        self.alike(
            lambda ledger: ledger.record_export(
                ExportRecord("crowd", window, "odb", number, path, ExportFacts(rows=number))
            )
        )

    @rule(
        windows=SOME_WINDOWS, product=SOURCES, token=st.sampled_from("xy"), at=TIMES,
        how=st.sampled_from(["note", "begin", "fail", "settle"]),
    )  # fmt: skip
    def attempt(self, windows, product, token, at, how):
        works = [Attempt("collect", product, window, token, "why", 0, at, at) for window in windows]
        done: dict[str, Callable[[Ledger], object]] = {
            "note": lambda ledger: ledger.attempts.note(works),
            "begin": lambda ledger: ledger.attempts.begin(works, at),
            "fail": lambda ledger: ledger.attempts.fail("collect", product, dict.fromkeys(windows, Failure("no")), at),
            "settle": lambda ledger: ledger.attempts.settle("collect", product, dict.fromkeys(windows, token), at),
        }
        self.alike(done[how])

    @rule(ids=st.lists(IDS, max_size=3), source=SOURCES, collected=WINDOWS, windows=SOME_WINDOWS, at=TIMES)
    def take(self, ids, source, collected, windows, at):
        names = [f"{source} {collected} {id}" for id in ids]  # a command that is known is not taken for anything else
        taken = [
            Taken(RawPartition(name, source, collected, id, 7), windows, payload=id)
            for name, id in zip(names, ids, strict=True)
        ]
        self.alike(lambda ledger: ledger.commands.take(taken, at))
        self.alike(lambda ledger: ledger.commands.note_again(f"{source} {collected} a", at))

    @rule(keep=st.integers(1, 3))
    def report(self, keep):
        self.alike(lambda ledger: ledger.commands.note_reported(ledger.commands.unreported(keep)))

    @rule(id=IDS, numbers=st.lists(st.integers(1, 3), max_size=3), source=SOURCES, gone=st.integers(0, 3))
    def parts(self, id, numbers, source, gone):
        self.alike(lambda ledger: ledger.parts.add([Part(id, number, 3, "x", "crowd", id) for number in numbers]))
        self.alike(lambda ledger: ledger.parts.forget(id, gone))

    @rule(id=IDS, source=SOURCES, window=WINDOWS, at=TIMES)
    def request(self, id, source, window, at):
        self.alike(lambda ledger: ledger.requests.note(source, window, at))
        self.alike(lambda ledger: ledger.requests.add(id, source, window, False, at))
        self.alike(lambda ledger: ledger.commands.forget_payload(id))

    @rule(id=IDS, at=TIMES, sent=st.integers(0, 9), done=st.booleans(), source=SOURCES)
    def tell(self, id, at, sent, done, source):
        self.alike(lambda ledger: ledger.announcements.add_replay(id, id, at))
        self.alike(lambda ledger: ledger.announcements.note_replayed(id, sent, done))
        self.alike(lambda ledger: ledger.announcements.note_announced(sent))
        self.alike(lambda ledger: ledger.refusals.add([Refusal("q", id, "why", at)] * (sent % 3)))
        self.alike(lambda ledger: ledger.refusals.note_stranger(source, id, at))
        self.alike(lambda ledger: ledger.refusals.note_too_early(source, at, NOON))
        self.alike(lambda ledger: ledger.alerts.looked_since(source, at))

    @rule(ids=st.lists(IDS, max_size=2))
    def mend(self, ids):
        self.alike(lambda ledger: ledger.refusals.forget(ids))

    # -- what is known of it ---------------------------------------------------------------------------------------

    def teardown(self):
        self.records_are_alike()
        self.doors_are_alike()

    def records_are_alike(self):
        for window in (WINDOW, NEXT, DAY):
            self.alike(lambda ledger, at=window: ledger.claims("crowd", at))
            self.alike(lambda ledger, at=window: ledger.rows_in("crowd", at))
            self.alike(lambda ledger, at=window: ledger.latest_revision("crowd", at))
            self.alike(lambda ledger, at=window: ledger.revisions_of("crowd", at))
            self.alike(lambda ledger, at=window: ledger.sealed("crowd", at))
            self.alike(lambda ledger, at=window: ledger.export("crowd", at, "odb"))
            self.alike(lambda ledger, at=window: ledger.raw("crowd", at))
            self.alike(lambda ledger, at=window: ledger.sent("crowd", at))
            self.alike(lambda ledger, at=window: ledger.requests.last("crowd", at))
        self.alike(lambda ledger: sorted(ledger.due("crowd")))
        self.alike(lambda ledger: sorted(ledger.due("crowd", NOON)))
        self.alike(lambda ledger: ledger.claims_between("crowd", NOON, FAR))
        self.alike(lambda ledger: ledger.claims_of(["a", "b", "c: d"]))
        self.alike(lambda ledger: ledger.lateness("crowd", NOON - HOUR, FAR))
        self.alike(lambda ledger: [ledger.begun(source) for source in ("crowd", "a source")])
        self.alike(lambda ledger: ledger.revisions("crowd", NOON, FAR))
        self.alike(lambda ledger: [ledger.superseded("crowd", at) for at in (NOON - HOUR, NOON, FAR)])
        self.alike(lambda ledger: [(one.claim, one.built) for one in ledger.changes(0, 100)])
        self.alike(
            lambda ledger: sorted(
                ((raw.window, raw.ingestion), raw) for raw in ledger.raws("crowd", FAR)
            )
        )  # fmt: skip
        self.alike(lambda ledger: [ledger.waiting(source) for source in ("crowd", "a source")])
        self.alike(lambda ledger: ledger.attempts.open())

    def doors_are_alike(self):
        names = [
            f"{source} {window} {id}" for source in ("crowd", "a source") for window in (WINDOW, DAY) for id in "ab"
        ]
        self.alike(lambda ledger: [ledger.commands.knows(id, 2) for id in ("a", "b", "c: d", "e", *names)])
        self.alike(lambda ledger: (ledger.commands.count(), ledger.commands.unreported(9)))
        self.alike(lambda ledger: ledger.commands.payloads(FAR))
        self.alike(lambda ledger: (ledger.parts.of("a"), ledger.parts.files(), ledger.parts.unfinished()))
        self.alike(lambda ledger: (ledger.requests.unanswered(9), ledger.requests.after(0, 9)))
        self.alike(lambda ledger: (ledger.announcements.announced(), ledger.announcements.next_replay()))
        self.alike(lambda ledger: (ledger.refusals.newest(9), ledger.refusals.strangers(9)))
        self.alike(lambda ledger: ledger.refusals.too_early())


@pytest.mark.soak  # other examples at each run; what it finds becomes a test of the ledger's suite
def test_both_ledgers_answer_alike(redis, tmp_path, monkeypatch):
    def opened(file: SqliteFile) -> sqlite3.Connection:
        db = waiting(file)
        db.execute("PRAGMA synchronous=OFF")
        return db

    waiting = SqliteFile._open
    monkeypatch.setattr(SqliteFile, "_open", opened)  # without waiting for the disk
    machine = type("Both", (Both,), {"url": redis.url, "file": tmp_path / "ledger.sqlite"})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # to make a failure small would take minutes
        ),
    )
