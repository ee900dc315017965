"""What every ledger promises: records of what happened, and open work.

Belongs here: the suite that SQLite's and Redis' ledgers pass, for whoever keeps one elsewhere. Does not belong here:
what only one of them can get wrong, or any server.

    class TestMyLedger(LedgerContract):
        @pytest.fixture
        def open_ledger(self, tmp_path):
            return partial(MyLedger, tmp_path / "ledger")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Event, Thread

import pytest

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_dagster.domain.decisions import hash_of_inputs
from ionbeam_dagster.domain.records import (
    BuiltRevision,
    Claim,
    Correction,
    ExportFacts,
    ExportRecord,
    Lateness,
    RawPartition,
    Revision,
    RevisionFacts,
)
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.attempts import FIRST_WAIT, LONGEST_WAIT, Attempt, Attempts, Failure
from ionbeam_dagster.stores.ledger.corrections import KnownCorrection
from ionbeam_dagster.stores.ledger.silences import Silence

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)
NEXT = Window(NOON + HOUR, NOON + 2 * HOUR)


def metadata(unit: str = "degC") -> IngestionMetadata:
    variable = CanonicalVariable(column="T", standard_name="air_temperature", cf_unit=unit)
    return IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"), ingestion_map=DataIngestionMap(canonical_variables=[variable])
    )


def claimed(ledger: Ledger, id: str, collected: Window, *touched: Window, unit: str = "degC") -> Claim:
    claim = Claim(id, "crowd", "crowd", collected, ledger.arrival_of(id), rows=7, stray_windows=touched)
    ledger.record_claim(claim, metadata(unit), dict.fromkeys([collected, *touched], 7))
    return claim


def built(window: Window, number: int, claims: list[Claim]) -> BuiltRevision:
    revision = Revision("crowd", window, number, hash_of_inputs(claims))
    return BuiltRevision(revision, f"r{number}.parquet", NOON + HOUR, RevisionFacts(rows=7, made_by="x"))


def _claim_many(open_ledger: Callable[[], Ledger], worker: int) -> None:
    ledger = open_ledger()
    for number in range(20):
        claimed(ledger, f"{worker} {number}", WINDOW)


def _hold(open_ledger: Callable[[], Ledger], pipe: Connection) -> None:
    with open_ledger().holding("crowd", WINDOW):
        pipe.send("held")
        pipe.recv()


def arrived(ledger: Ledger, id: str, at: datetime, rows: int = 7, replaces: Sequence[str] = ()) -> Claim:
    claim = Claim(id, "crowd", "crowd", WINDOW, ledger.arrival_of(id), 7, arrived_at=at)
    ledger.record_claim(claim, metadata(), {WINDOW: rows}, replaces)
    return claim


def latest(ledger: Ledger, window: Window) -> BuiltRevision:
    found = ledger.latest_revision("crowd", window)
    assert found is not None
    return found


def work(window: Window = WINDOW, token: str = "a", product: str = "crowd", stage: str = "collect") -> Attempt:
    return Attempt(stage, product, window, token, "it is lost", 0, NOON, NOON)


class LedgerContract:
    """The suite of a `Ledger`. A subclass gives `open_ledger`, and a ledger that is new to each test."""

    @pytest.fixture
    def open_ledger(self) -> Callable[[], Ledger]:
        """What opens the test's ledger, in this process or another: it can be pickled."""
        raise NotImplementedError("a suite of a ledger has a fixture open_ledger")

    @pytest.fixture
    def silent_for(self) -> float:
        """For how long, in seconds, a holder of a window may be silent before it is taken for dead."""
        return 2.0

    @pytest.fixture
    def ledger(self, open_ledger: Callable[[], Ledger]) -> Ledger:
        return open_ledger()

    @pytest.fixture
    def attempts(self, ledger: Ledger) -> Attempts:
        return ledger.attempts

    def test_a_heartbeat_raises_its_number_until_its_holder_leaves(self, ledger: Ledger) -> None:
        workers = ledger.workers
        assert workers.present() == []
        workers.beat("b", "there 1", 7, "run of a job")
        workers.beat("a", "here", 8, "")
        workers.beat("b", "there 1", 7, "run of a job")
        a, b = workers.present()
        assert (a.holder, a.host, a.process, a.doing) == ("a", "here", 8, "")
        assert (b.holder, b.host, b.process, b.doing) == ("b", "there 1", 7, "run of a job")
        workers.beat("b", "elsewhere", 9, "another")
        after = workers.present()[1]
        assert after.beats > b.beats and (after.host, after.process, after.doing) == ("elsewhere", 9, "another")
        workers.leave("b")
        workers.leave("nobody")
        assert [worker.holder for worker in workers.present()] == ["a"]

    def test_a_lease_is_one_holders_until_he_gives_it_back_or_is_no_worker_any_longer(self, ledger: Ledger) -> None:
        leases, workers = ledger.leases, ledger.workers
        for holder in ("a", "b"):
            workers.beat(holder, "here", 1, "")
        assert leases.take(["one", "two"], "a") == ["one", "two"] == leases.take(["one", "two"], "a")
        assert leases.take(["two", "three"], "b") == ["three"]
        assert leases.held() == {"one": "a", "two": "a", "three": "b"}
        leases.give_back(["one", "three"], "a")
        assert leases.held() == {"two": "a", "three": "b"}
        workers.leave("a")
        assert leases.held() == {"three": "b"}
        assert leases.take(["one", "two"], "b") == ["one", "two"]
        workers.beat("a", "here", 1, "")
        assert leases.take(["two"], "a") == [], "he was believed dead, and finds that it is another's"
        assert leases.take([], "a") == []

    def test_a_silence_is_counted_until_it_ends(self, ledger: Ledger) -> None:
        first, later = WINDOW.start, WINDOW.end
        ledger.silences.end("crowd")
        ledger.silences.add("crowd", 1, first)
        ledger.silences.add("crowd", 2, later)
        ledger.silences.add("other", 1, later)
        assert ledger.silences.all() == {"crowd": Silence(3, first), "other": Silence(1, later)}
        ledger.silences.end("crowd")
        assert ledger.silences.all() == {"other": Silence(1, later)}

    def test_an_ingestion_keeps_its_place_in_the_order_of_arrival(self, ledger: Ledger) -> None:
        first, second = ledger.arrival_of("a"), ledger.arrival_of("b")
        assert first < second and ledger.arrival_of("a") == first

    def test_a_windows_raw_partition_is_the_last_one_recorded(self, ledger: Ledger) -> None:
        for content in ("one", "two"):
            ledger.record_raw(RawPartition(content, "crowd", WINDOW, f"{content}.parquet", 5, signature=content))
        assert ledger.raw("crowd", WINDOW) == RawPartition("two", "crowd", WINDOW, "two.parquet", 5, "two")
        kept = RawPartition("two", "crowd", WINDOW, "two.parquet", 5, "two", kept=3, beside=("one", "zero"),
                            asked_at=NOON, bytes=7, hash="ab")  # fmt: skip
        ledger.record_raw(kept)
        assert ledger.raw("crowd", WINDOW) == kept and ledger.raws("crowd", WINDOW.end) == [kept]
        assert ledger.raw("crowd", NEXT) is None

    def test_claims_are_found_by_every_window_that_they_touch_in_order_of_arrival(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        late = claimed(ledger, "late", NEXT, WINDOW, unit="K")
        assert ledger.claims("crowd", WINDOW) == [first, late]
        assert ledger.claims("crowd", NEXT) == [late]
        assert ledger.claims("other", WINDOW) == []
        assert ledger.metadata_of([first, late, first]) == [metadata("degC"), metadata("K")]

    def test_a_window_is_due_from_its_claim_to_its_revision(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        assert ledger.due("crowd") == [WINDOW]
        ledger.record_revision(built(WINDOW, 1, [first]), [first])
        assert ledger.due("crowd") == []
        claimed(ledger, "first", WINDOW)
        assert ledger.due("crowd") == [], "a claim that is known already makes nothing due"
        claimed(ledger, "late", NEXT, WINDOW)
        assert ledger.due("crowd") == [WINDOW, NEXT]

    def test_a_claim_that_arrives_while_a_window_is_built_leaves_it_due(self, ledger: Ledger) -> None:
        seen = [claimed(ledger, "first", WINDOW)]
        claimed(ledger, "meanwhile", WINDOW)
        ledger.record_revision(built(WINDOW, 1, seen), seen)
        assert ledger.due("crowd") == [WINDOW]

    def test_a_withdrawn_claim_leaves_its_windows_due_and_their_revisions_not_intact(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        ledger.record_revision(built(WINDOW, 1, [first]), [first])
        ledger.withdraw_claim("first")
        assert ledger.claims("crowd", WINDOW) == [] and ledger.due("crowd") == [WINDOW]
        assert latest(ledger, WINDOW).revision.intact is False
        again = claimed(ledger, "first", WINDOW)
        assert again == first
        ledger.record_revision(built(WINDOW, 1, [again]), [again])
        assert latest(ledger, WINDOW).revision.intact and ledger.due("crowd") == []

    def test_the_latest_revision_of_each_window_is_remembered_with_its_facts(self, ledger: Ledger) -> None:
        first, second, other = built(WINDOW, 1, []), built(WINDOW, 2, []), built(NEXT, 1, [])
        for revision in (first, second, other):
            ledger.record_revision(revision, [])
        assert ledger.latest_revision("crowd", WINDOW) == second
        assert ledger.revisions("crowd", NOON, NOON + 2 * HOUR) == [second, other]
        assert ledger.revisions("crowd", NOON + HOUR, NOON + 2 * HOUR) == [other]
        assert ledger.latest_revision("other", WINDOW) is None

    def test_an_export_is_remembered_also_when_it_has_no_file(self, ledger: Ledger) -> None:
        full = ExportRecord(
            "crowd", WINDOW, "odb", 2, "x.odb", ExportFacts(rows=12, holds={"a": 3}, afterwards=True), made_by="odb 1"
        )
        empty = ExportRecord("crowd", WINDOW, "pygeoapi", 2, None)
        for record in (full, empty):
            ledger.record_export(record)
        assert ledger.export("crowd", WINDOW, "odb") == full
        assert ledger.export("crowd", WINDOW, "pygeoapi") == empty
        assert ledger.export("crowd", NEXT, "odb") is None

    def test_claims_of_several_processes_are_all_kept_and_numbered_apart(
        self, open_ledger: Callable[[], Ledger]
    ) -> None:
        context = get_context("spawn")
        workers = [context.Process(target=_claim_many, args=(open_ledger, worker)) for worker in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        claims = open_ledger().claims("crowd", WINDOW)
        assert len(claims) == 60 and len({claim.arrival for claim in claims}) == 60

    def test_a_window_is_held_by_one_process_at_a_time_and_by_none_that_died(
        self, open_ledger: Callable[[], Ledger], silent_for: float
    ) -> None:
        here, there = get_context("fork").Pipe()
        process = get_context("fork").Process(target=_hold, args=(open_ledger, there))
        process.start()
        assert here.recv() == "held"
        ledger, holds = open_ledger(), Event()

        def hold() -> None:
            with ledger.holding("crowd", WINDOW):
                holds.set()

        waiting = Thread(target=hold)
        waiting.start()
        with ledger.holding("crowd", NEXT):
            assert not holds.wait(1.5 * silent_for), "longer than a holder may be silent"
        process.kill()
        assert holds.wait(10)
        waiting.join()
        process.join()

    def test_records_hold_whatever_text_and_times_there_are(self, ledger: Ledger) -> None:
        """Before 1970 and far ahead, colons and quotes in ids, no rows at all: as they were written."""
        window = Window(datetime(1931, 5, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
        claim = Claim(
            "a:b '\"{}\n\u00e9\u4e2d", "crowd", "crowd", window, ledger.arrival_of("odd"), 0, 3, (WINDOW, NEXT)
        )
        ledger.record_claim(claim, metadata(), {window: 0, WINDOW: 0})
        facts = RevisionFacts(
            rows=2**60, coverage=0.1 + 0.2, gaps=(WINDOW, NEXT), overlaps=(window,), flags={"\u00e9": {"pass": 1}},
            made_of=("a:b '\"{}\n",), software="1 'x'", why="\u4e2d",
        )  # fmt: skip
        moment = datetime(2026, 6, 21, 12, 0, 0, 123457, tzinfo=UTC)
        revision = BuiltRevision(Revision("crowd", window, 12, "i:1"), "a b/c:d.parquet", moment, facts)
        ledger.record_revision(revision, [claim])
        assert ledger.claims("crowd", window) == [claim] and ledger.due("crowd") == [WINDOW]
        assert ledger.latest_revision("crowd", window) == revision
        assert ledger.revisions("crowd", window.start, window.end) == [revision]
        assert ledger.metadata_of([]) == [] and ledger.claims("crowd", NEXT) == []

    def test_the_tenth_revision_follows_the_ninth(self, ledger: Ledger) -> None:
        for number in (9, 10, 2):
            ledger.record_revision(built(WINDOW, number, []), [])
        assert latest(ledger, WINDOW).revision.number == 10

    def test_windows_of_two_lengths_with_one_start_are_two(self, ledger: Ledger) -> None:
        day = Window(NOON, NOON + 24 * HOUR)
        claim = claimed(ledger, "first", WINDOW, day)
        for window, number in ((WINDOW, 1), (day, 3)):
            ledger.record_revision(built(window, number, [claim]), [claim])
        assert latest(ledger, day).revision.number == 3
        assert latest(ledger, WINDOW).revision.number == 1
        assert [one.revision.window for one in ledger.revisions("crowd", NOON, NOON + HOUR)] == [WINDOW, day]

    def test_withdrawing_what_was_never_claimed_changes_nothing(self, ledger: Ledger) -> None:
        ledger.withdraw_claim("unknown")
        assert ledger.due("crowd") == []

    def test_raw_partitions_take_their_places_as_they_are_recorded(self, ledger: Ledger) -> None:
        for id in ("first", "second", "first"):
            ledger.record_raw(RawPartition(id, "crowd", WINDOW, f"{id}.parquet", 5))
        assert [ledger.arrival_of(id) for id in ("second", "first")] == [2, 1]

    def test_what_was_sent_stands_beside_what_was_sent_before_in_order_of_arrival(self, ledger: Ledger) -> None:
        half = Window(NOON, NOON + HOUR / 2)
        first = RawPartition("first", "crowd", half, "first.parquet", 5, "x")
        second = RawPartition("a second", "crowd", Window(NOON, NOON + 2 * HOUR), "second.parquet", 6)
        again = RawPartition("third", "crowd", half, "third.parquet", 7)
        ledger.record_sent([(first, [WINDOW]), (second, [WINDOW, NEXT])])
        ledger.record_sent([(again, [WINDOW]), (first, [WINDOW])])
        assert ledger.sent("crowd", WINDOW) == [first, second, again]
        assert ledger.sent("crowd", NEXT) == [second]
        assert ledger.sent("crowd", half) == [] and ledger.sent("other", WINDOW) == []
        assert ledger.arrival_of("first") < ledger.arrival_of("a second") < ledger.arrival_of("third")
        assert ledger.waiting("crowd") == [WINDOW, NEXT] and ledger.waiting("other") == []
        claim = claimed(ledger, "a second", WINDOW)
        assert ledger.waiting("crowd") == [WINDOW]
        ledger.record_sent([(second, [WINDOW, NEXT])])
        assert ledger.waiting("crowd") == [WINDOW]
        ledger.withdraw_claim("a second")
        assert ledger.waiting("crowd") == [WINDOW, NEXT]
        claimed(ledger, "a second", WINDOW)
        assert ledger.claims_of(["third", "a second", "first"]) == [claim]
        assert ledger.claims_of([]) == []

    def test_the_feed_tells_new_claims_and_every_revision_in_order(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        made = built(WINDOW, 1, [first])
        ledger.record_revision(made, [first])
        claimed(ledger, "first", WINDOW)
        second = claimed(ledger, "second", NEXT)
        withdrawn = claimed(ledger, "withdrawn", NEXT)
        ledger.withdraw_claim(withdrawn.id)
        ledger.record_revision(built(NEXT, 1, [second]), [second])
        changes = ledger.changes(0, 10)
        assert [change.claim for change in changes] == [first, None, second, None, None]
        assert [change.built for change in changes] == [None, made, None, None, built(NEXT, 1, [second])]
        numbers = [change.number for change in changes]
        assert numbers == sorted(set(numbers))
        assert ledger.changes(numbers[1], 2) == changes[2:4]
        assert ledger.changes(numbers[-1], 10) == []

    def test_a_raw_file_that_was_purged_is_told_from_one_that_is_kept_until_it_is_recorded_again(
        self, ledger: Ledger
    ) -> None:
        collected = RawPartition("one", "crowd", WINDOW, "one.parquet", 5, "s")
        later = RawPartition("two", "crowd", NEXT, "two.parquet", 6)
        sent = RawPartition("sent: x", "crowd", Window(NOON, NOON + HOUR / 2), "sent.parquet", 7)
        ledger.record_raw(later)
        ledger.record_raw(collected)
        ledger.record_sent([(sent, [WINDOW])])
        assert ledger.raws("crowd", NEXT.end) == [sent, collected, later]
        assert ledger.raws("crowd", WINDOW.end) == [sent, collected] and ledger.raws("other", NEXT.end) == []
        for raw in (collected, sent):
            ledger.record_purged(raw, NOON)
        assert ledger.raws("crowd", NEXT.end) == [later]
        purged, kept = ledger.raw("crowd", WINDOW), ledger.raw("crowd", NEXT)
        assert purged and purged.purged == NOON and kept and kept.purged is None
        assert [raw.purged for raw in ledger.sent("crowd", WINDOW)] == [NOON]
        ledger.record_raw(collected)
        ledger.record_sent([(sent, [WINDOW])])
        assert ledger.raw("crowd", WINDOW) == collected and ledger.sent("crowd", WINDOW) == [sent]
        assert ledger.raws("crowd", NEXT.end) == [sent, collected, later]

    def test_the_claims_of_a_range_are_those_that_touch_its_windows_each_once(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        late = claimed(ledger, "late", NEXT, WINDOW)
        ledger.record_revision(built(WINDOW, 1, [first, late]), [first, late])
        assert ledger.claims_between("crowd", NOON - 87_600 * HOUR, NOON + 87_600 * HOUR) == [first, late]
        assert ledger.claims_between("crowd", NOON + HOUR, NOON + 2 * HOUR) == [late]
        assert ledger.claims_between("crowd", NOON + 2 * HOUR, NOON + 3 * HOUR) == []
        assert ledger.claims_between("other", NOON, NOON + HOUR) == []

    def test_a_window_tells_all_of_its_revisions(self, ledger: Ledger) -> None:
        first, second = (
            BuiltRevision(Revision("crowd", WINDOW, number, str(number)), f"r{number}", NOON + number * HOUR)
            for number in (1, 2)
        )
        for one in (first, second, built(NEXT, 1, [])):
            ledger.record_revision(one, [])
        assert ledger.revisions_of("crowd", WINDOW) == [first, second]
        assert ledger.revisions_of("other", WINDOW) == []
        ledger.forget_revision(first.revision)
        assert ledger.revisions_of("crowd", WINDOW) == [second]

    def test_superseded_revisions_can_be_forgotten_and_the_latest_cannot(self, ledger: Ledger) -> None:
        old, middle, latest = (
            BuiltRevision(Revision("crowd", WINDOW, number, str(number)), f"r{number}", NOON + number * HOUR)
            for number in (1, 2, 3)
        )
        for one in (old, middle, latest, built(NEXT, 1, [])):
            ledger.record_revision(one, [])
        assert ledger.superseded("crowd", NOON + 2 * HOUR) == [old]
        assert ledger.superseded("crowd", NOON + 9 * HOUR) == [old, middle]
        for one in (old, latest):
            ledger.forget_revision(one.revision)
        assert ledger.superseded("crowd", NOON + 9 * HOUR) == [middle]
        assert ledger.latest_revision("crowd", WINDOW) == latest
        assert [change.built for change in ledger.changes(0, 10)][:3] == [None, middle, latest]

    def test_a_sealed_window_is_sealed_until_it_is_opened_again_and_then_due(self, ledger: Ledger) -> None:
        ledger.seal("crowd", [WINDOW], NOON)
        ledger.seal("crowd", [WINDOW, NEXT], NOON + HOUR)
        assert ledger.sealed("crowd", WINDOW) == NOON and ledger.sealed("crowd", NEXT) == NOON + HOUR
        assert ledger.sealed("other", WINDOW) is None and ledger.due("crowd") == []
        ledger.unseal("crowd", [WINDOW, Window(NOON + 5 * HOUR, NOON + 6 * HOUR)])
        assert ledger.sealed("crowd", WINDOW) is None and ledger.sealed("crowd", NEXT) == NOON + HOUR
        assert ledger.due("crowd") == [WINDOW]

    def test_a_window_that_is_postponed_is_due_again_when_its_time_comes_or_its_claims_change(
        self, ledger: Ledger
    ) -> None:
        first, other = claimed(ledger, "first", WINDOW), claimed(ledger, "other", NEXT)
        later = NOON + 5 * HOUR
        ledger.postpone("crowd", WINDOW, [first], later)
        ledger.postpone("crowd", NEXT, [other], None)
        assert ledger.due("crowd") == [WINDOW, NEXT], "without a time, all that are due"
        assert ledger.due("crowd", later - timedelta(microseconds=1)) == []
        assert ledger.due("crowd", later) == [WINDOW]
        claimed(ledger, "first", WINDOW)
        assert ledger.due("crowd", NOON) == [], "what is known already wakes nothing"
        second = claimed(ledger, "second", WINDOW)
        ledger.postpone("crowd", WINDOW, [first], None)
        assert ledger.due("crowd", NOON) == [WINDOW], "an answer to what it was made of before does not hold"
        ledger.postpone("crowd", WINDOW, [first, second], None)
        ledger.withdraw_claim("second")
        ledger.seal("crowd", [NEXT], NOON)
        ledger.unseal("crowd", [NEXT])
        assert ledger.due("crowd", NOON) == [WINDOW, NEXT]
        ledger.record_revision(built(WINDOW, 1, [first]), [first])
        ledger.postpone("crowd", WINDOW, [first], later)
        assert ledger.due("crowd") == [NEXT], "what is not due is not postponed"

    def test_how_late_data_come_is_counted_once_an_ingestion_by_the_hour_of_arrival(self, ledger: Ledger) -> None:
        minute = timedelta(minutes=1)
        arrived(ledger, "soon", WINDOW.end + minute)
        arrived(ledger, "as soon", WINDOW.end + minute)
        arrived(ledger, "soon", WINDOW.end + 50 * minute)
        arrived(ledger, "early", WINDOW.end - minute)
        arrived(ledger, "late", WINDOW.end + 125 * minute)
        claimed(ledger, "nobody knows when", WINDOW)
        first, third = WINDOW.end, WINDOW.end + 2 * HOUR
        on_time, late = Lateness(NOON, timedelta(0), 1), Lateness(third, timedelta(minutes=125), 1)
        assert ledger.lateness("crowd", NOON, third + HOUR) == [on_time, Lateness(first, minute, 2), late]
        assert ledger.lateness("crowd", first, third) == [Lateness(first, minute, 2)]
        assert ledger.lateness("other", NOON, third + HOUR) == []
        [claim] = ledger.claims_of(["late"])
        assert claim.arrived_at == WINDOW.end + 125 * minute

    def test_how_long_a_datasets_windows_are_is_known_by_what_was_touched_last_in_time(self, ledger: Ledger) -> None:
        assert ledger.span_of("crowd") is None
        first = claimed(ledger, "first", WINDOW)
        ledger.record_revision(built(WINDOW, 1, [first]), [first])
        assert ledger.span_of("crowd") == WINDOW.span and ledger.span_of("other") is None
        claimed(ledger, "longer", Window(WINDOW.end, WINDOW.end + 3 * HOUR))
        assert ledger.span_of("crowd") == 3 * HOUR

    def test_a_claim_that_replaces_others_leaves_nothing_of_them(self, ledger: Ledger) -> None:
        old = arrived(ledger, "old", NOON + HOUR, rows=4)
        sent = RawPartition("sent", "crowd", WINDOW, "sent.parquet", 5)
        ledger.record_sent([(sent, [WINDOW])])
        also_old = arrived(ledger, "sent", NOON + HOUR)
        ledger.record_revision(built(WINDOW, 1, [old, also_old]), [old, also_old])
        ledger.record_sent([(RawPartition("not ingested", "crowd", WINDOW, "waiting.parquet", 5), [WINDOW])])
        replaces = ["old", "sent", "not ingested", "unheard of"]
        new = arrived(ledger, "new", NOON + 2 * HOUR, rows=3, replaces=replaces)
        assert ledger.claims("crowd", WINDOW) == [new] and ledger.rows_in("crowd", WINDOW) == 3
        assert ledger.due("crowd") == [WINDOW]
        assert ledger.waiting("crowd") == [] and ledger.sent("crowd", WINDOW) == []
        assert ledger.arrival_of("old") > new.arrival, "what comes back has arrived again"

    def test_a_windows_rows_are_counted_wherever_their_ingestions_reach(self, ledger: Ledger) -> None:
        both = Window(NOON, NOON + 2 * HOUR)
        wide = Claim("wide", "crowd", "crowd", both, ledger.arrival_of("wide"), 7)
        ledger.record_claim(wide, metadata(), {WINDOW: 5, NEXT: 2})
        arrived(ledger, "narrow", NOON + HOUR, rows=6)
        assert [ledger.rows_in("crowd", window) for window in (WINDOW, NEXT, both)] == [11, 2, 0]
        ledger.withdraw_claim("wide")
        assert [ledger.rows_in("crowd", window) for window in (WINDOW, NEXT)] == [6, 0]

    def test_the_first_metadata_of_each_version_is_remembered(self, ledger: Ledger) -> None:
        claim = claimed(ledger, "first", WINDOW, unit="degC")
        claimed(ledger, "second", NEXT, unit="K")
        ledger.record_claim(claim, metadata("K").model_copy(update={"version": 2}), {WINDOW: 7})
        assert ledger.metadata_of_version("crowd", 1) == metadata("degC")
        second = ledger.metadata_of_version("crowd", 2)
        assert second and second.version == 2
        assert ledger.metadata_of_version("crowd", 3) is None and ledger.metadata_of_version("other", 1) is None

    def test_nothing_is_open_at_first(self, attempts: Attempts) -> None:
        assert attempts.open() == [] and attempts.open("collect", "crowd") == []
        attempts.note([])
        attempts.begin([], NOON)
        attempts.settle("collect", "crowd", {}, NOON)
        attempts.settle("collect", "crowd", {WINDOW: "a"}, NOON)
        attempts.fail("collect", "crowd", {WINDOW: Failure("no")}, NOON)
        assert attempts.open() == []

    def test_what_is_noted_is_open_until_it_is_settled(self, attempts: Attempts) -> None:
        attempts.note([work(NEXT), work(), work(stage="export", product="crowd/odb")])
        assert attempts.open("collect", "crowd") == [work(), work(NEXT)]
        assert attempts.open() == [work(), work(NEXT), work(stage="export", product="crowd/odb")]
        assert attempts.open("export") == attempts.open(product="crowd/odb") == attempts.open()[2:]
        attempts.settle("collect", "crowd", {WINDOW: "a"}, NOON)
        assert attempts.open("collect", "crowd") == [work(NEXT)]
        attempts.settle("collect", "crowd", {NEXT: "a"}, NOON)
        assert [one.product for one in attempts.open()] == ["crowd/odb"]

    def test_a_try_waits_ten_seconds_and_twice_as_long_each_time_up_to_ten_minutes(self, attempts: Attempts) -> None:
        now, waits = NOON, list[timedelta]()
        for number in range(1, 12):
            attempts.begin([work()], now)
            [one] = attempts.open()
            assert (one.tries, one.since) == (number, NOON)
            assert not one.may_begin(one.next - timedelta(seconds=1)) and one.may_begin(one.next)
            waits.append(one.next - now)
            now = one.next
        assert waits[0] == FIRST_WAIT and waits[-1] == LONGEST_WAIT == max(waits)
        assert all(after == min(2 * before, LONGEST_WAIT) for before, after in pairwise(waits))

    def test_what_failed_says_why_and_waits_from_then_on(self, attempts: Attempts) -> None:
        attempts.begin([work(), work(NEXT)], NOON)
        why = {WINDOW: Failure("no answer"), Window(NOON - HOUR, NOON): Failure("not open")}
        attempts.fail("collect", "crowd", why, NOON + HOUR)
        failed, other = attempts.open()
        assert (failed.error, failed.tries, failed.next) == ("no answer", 1, NOON + HOUR + FIRST_WAIT)
        assert (other.error, other.next) == ("", NOON + FIRST_WAIT)
        attempts.begin([work()], NOON + 2 * HOUR)
        assert attempts.open()[0].error == "no answer"

    def test_work_of_another_token_begins_anew_and_its_window_fails_since_it_first_did(
        self, attempts: Attempts
    ) -> None:
        for _ in range(5):
            attempts.begin([work()], NOON)
        attempts.fail("collect", "crowd", {WINDOW: Failure("no answer", was_tried=False)}, NOON)
        attempts.note([work()])
        assert attempts.open()[0].tries == 5, "what is known keeps its tries"
        attempts.begin([work(token="b")], NOON + HOUR)
        [one] = attempts.open()
        assert (one.token, one.tries, one.next) == ("b", 1, NOON + HOUR + FIRST_WAIT)
        assert (one.since, one.failures, one.error, one.was_tried) == (NOON, 6, "no answer", False)
        attempts.note([replace(work(token="c"), since=NOON + 2 * HOUR)])
        [one] = attempts.open()
        assert (one.token, one.tries, one.since, one.failures) == ("c", 0, NOON, 6)
        attempts.settle("collect", "crowd", {WINDOW: "c"}, NOON + 3 * HOUR)
        attempts.begin([work(token="d")], NOON + 3 * HOUR)
        [one] = attempts.open()
        assert (one.since, one.failures, one.error, one.was_tried) == (NOON + 3 * HOUR, 1, "", True)

    def test_what_is_noted_while_work_is_done_stays_open_as_work_that_never_failed(self, attempts: Attempts) -> None:
        attempts.begin([work(token="a")], NOON)
        attempts.note([work(token="b")])
        attempts.settle("collect", "crowd", {WINDOW: "a"}, NOON + HOUR)
        [one] = attempts.open()
        assert (one.token, one.tries, one.failures, one.since) == ("b", 0, 0, NOON + HOUR) and one.may_begin(NOON)

    def test_what_is_open_is_left_as_it_is_by_who_notes_the_rest(self, attempts: Attempts) -> None:
        attempts.begin([work(token="a")], NOON)
        assert attempts.note_unless_open([]) == []
        noted = attempts.note_unless_open([work(token="b"), work(NEXT), work(stage="export", product="crowd/odb")])
        assert noted == [work(NEXT), work(stage="export", product="crowd/odb")]
        assert [(one.token, one.tries) for one in attempts.open()] == [("a", 1), ("a", 0), ("a", 0)]

    def test_what_is_noted_for_later_may_begin_as_soon_as_somebody_says_so(self, attempts: Attempts) -> None:
        later = Attempt("export", "crowd", WINDOW, "a", "", 0, NOON, NOON + 7 * HOUR)
        attempts.note([later])
        assert attempts.open() == [later]
        assert not later.may_begin(NOON) and not later.may_begin(NOON - 7 * HOUR) and later.may_begin(later.next)
        sooner = Attempt("export", "crowd", WINDOW, "a", "", 0, NOON, NOON + HOUR)
        attempts.note([sooner])
        attempts.note([later])
        assert attempts.open()[0].next == sooner.next

    def test_a_clock_that_went_back_keeps_nothing_waiting(self, attempts: Attempts) -> None:
        attempts.begin([work()], NOON + HOUR)
        [one] = attempts.open()
        assert one.may_begin(NOON) and not one.may_begin(one.next - timedelta(seconds=1))

    def test_many_at_once(self, attempts: Attempts) -> None:
        many = [Window(NOON + n * HOUR, NOON + (n + 1) * HOUR) for n in range(2500)]
        attempts.note([work(window) for window in many])
        attempts.begin([work(window) for window in many], NOON)
        attempts.fail("collect", "crowd", dict.fromkeys(many, Failure("no")), NOON)
        assert [(one.window, one.tries, one.error) for one in attempts.open()] == [(window, 1, "no") for window in many]
        attempts.settle("collect", "crowd", dict.fromkeys(many, "a"), NOON)
        assert attempts.open() == []

    def test_a_correction_is_open_until_it_is_closed_and_has_a_number(self, ledger: Ledger) -> None:
        memory = ledger.corrections
        one, other = Correction("9/1", WINDOW, "an override"), Correction("10/2", NEXT, "a deletion")
        assert memory.open("crowd") == memory.closed("crowd") == []
        memory.see("crowd", [], NOON)
        memory.see("crowd", [one], NOON)
        memory.see("crowd", [one, other], NOON + HOUR)
        memory.see("other", [one], NOON)
        first, second = memory.open("crowd")
        assert first == KnownCorrection(one, first.number, NOON) and first.number > 0
        assert second == KnownCorrection(other, second.number, NOON + HOUR) and second.number > first.number
        partly = replace(first, remaining=(WINDOW, NEXT), looked_until=NOON, by="somebody")
        assert memory.change("crowd", partly) and memory.open("crowd") == [partly, second]
        done = [replace(second, remaining=(), closed=NOON), replace(partly, closed=NOON + HOUR)]
        assert all(memory.change("crowd", one) for one in done)
        assert memory.open("crowd") == [] and memory.closed("crowd") == done[::-1]
        memory.see("crowd", [one, other], NOON + 2 * HOUR)
        assert memory.open("crowd") == [], "it is the same one"
        assert memory.change("crowd", replace(done[0], closed=None)) and len(memory.open("crowd")) == 1
        assert len(memory.open("other")) == 1

    def test_a_correction_that_changed_is_another_one(self, ledger: Ledger) -> None:
        memory = ledger.corrections
        memory.see("crowd", [Correction("1", WINDOW, "an override")], NOON)
        [before] = memory.open("crowd")
        wider = Correction("1", Window(NOON, NOON + 2 * HOUR), "an override")
        memory.see("crowd", [wider], NOON + HOUR)
        [known] = memory.open("crowd")
        assert known == KnownCorrection(wider, known.number, NOON + HOUR) and known.number > before.number
        assert not memory.change("crowd", replace(before, closed=NOON)) and memory.open("crowd") == [known]

    def test_of_closed_corrections_the_latest_are_remembered(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ionbeam_dagster.stores.ledger.corrections.MOST_CLOSED", 2)
        memory = ledger.corrections
        memory.see("crowd", [Correction(str(n), WINDOW, "") for n in range(4)], NOON)
        for n, known in enumerate(memory.open("crowd")[:3]):
            memory.change("crowd", replace(known, closed=NOON + n * HOUR))
        assert [one.correction.id for one in memory.closed("crowd")] == ["2", "1"]
        assert [one.correction.id for one in memory.open("crowd")] == ["3"]

    def test_a_raw_partition_remembers_which_correction_was_known(self, ledger: Ledger) -> None:
        ledger.record_raw(RawPartition("a", "crowd", WINDOW, "a.parquet", 7, knows=12))
        found = ledger.raw("crowd", WINDOW)
        assert found is not None and found.knows == 12 and ledger.raws("crowd", NOON + HOUR) == [found]

    def test_it_is_remembered_when_files_were_last_compared_and_how_far_their_contents(self, ledger: Ledger) -> None:
        comparisons = ledger.reconciliations
        assert comparisons.last() is None and comparisons.reached() == ""
        comparisons.note(NOON)
        comparisons.note(NOON + HOUR)
        comparisons.reach("crowd 7")
        assert comparisons.last() == NOON + HOUR and comparisons.reached() == "crowd 7"

    def test_a_file_that_is_to_go_is_pending_once_no_raw_partition_has_it(self, ledger: Ledger) -> None:
        removals = ledger.removals
        collected = RawPartition("one", "crowd", WINDOW, "one.parquet", 5)
        sent = RawPartition("sent: x", "crowd", Window(NOON, NOON + HOUR / 2), "sent.parquet", 7)
        replaced = RawPartition("old", "crowd", WINDOW, "old.parquet", 7)
        ledger.record_raw(collected)
        ledger.record_sent([(sent, [WINDOW]), (replaced, [WINDOW])])
        removals.intend([collected, sent, replaced])
        assert removals.pending() == []
        ledger.record_purged(collected, NOON)
        arrived(ledger, "new", NOON, replaces=["old"])
        assert removals.pending() == ["old.parquet", "one.parquet"]
        ledger.record_purged(sent, NOON)
        assert removals.pending() == ["old.parquet", "one.parquet", "sent.parquet"]
        ledger.record_raw(collected)
        removals.done(["old.parquet"])
        assert removals.pending() == ["sent.parquet"]
