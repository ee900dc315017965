"""Claims, and what is counted of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

from ionbeam_dagster.domain.records import (
    BuiltRevision,
    Claim,
    Lateness,
    RawPartition,
    Revision,
    RevisionFacts,
)
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.testing.ledger.samples import (
    HOUR,
    NEXT,
    NOON,
    WINDOW,
    Suite,
    arrived,
    built,
    claimed,
    metadata,
)


def _claim_many(open_ledger: Callable[[], Ledger], worker: int) -> None:
    ledger = open_ledger()
    for number in range(20):
        claimed(ledger, f"{worker} {number}", WINDOW)


class ClaimsContract(Suite):
    def test_claims_are_found_by_every_window_that_they_touch_in_order_of_arrival(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        late = claimed(ledger, "late", NEXT, WINDOW, unit="K")
        assert ledger.claims("crowd", WINDOW) == [first, late]
        assert ledger.claims("crowd", NEXT) == [late]
        assert ledger.claims("other", WINDOW) == []
        assert ledger.metadata_of([first, late, first]) == [metadata("degC"), metadata("K")]

    def test_a_source_begins_with_the_earliest_range_that_was_ever_collected_of_it(self, ledger: Ledger) -> None:
        assert ledger.begun("crowd") is None
        claimed(ledger, "first", NEXT)
        assert ledger.begun("crowd") == NEXT.start
        claimed(ledger, "earlier", WINDOW, NEXT)
        claimed(ledger, "last", NEXT)
        ledger.withdraw_claim("earlier")
        assert ledger.begun("crowd") == WINDOW.start and ledger.begun("other") is None

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

    def test_the_claims_of_a_range_are_those_that_touch_its_windows_each_once(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        late = claimed(ledger, "late", NEXT, WINDOW)
        ledger.record_revision(built(WINDOW, 1, [first, late]), [first, late])
        assert ledger.claims_between("crowd", NOON - 87_600 * HOUR, NOON + 87_600 * HOUR) == [first, late]
        assert ledger.claims_between("crowd", NOON + HOUR, NOON + 2 * HOUR) == [late]
        assert ledger.claims_between("crowd", NOON + 2 * HOUR, NOON + 3 * HOUR) == []
        assert ledger.claims_between("other", NOON, NOON + HOUR) == []

    def test_withdrawing_what_was_never_claimed_changes_nothing(self, ledger: Ledger) -> None:
        ledger.withdraw_claim("unknown")
        assert ledger.due("crowd") == []

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
        assert ledger.rows_by_window("wide") == {WINDOW: 5, NEXT: 2}
        ledger.withdraw_claim("wide")
        assert ledger.rows_by_window("wide") == ledger.rows_by_window("unheard of") == {}
        assert [ledger.rows_in("crowd", window) for window in (WINDOW, NEXT)] == [6, 0]

    def test_the_first_metadata_of_each_version_is_remembered(self, ledger: Ledger) -> None:
        claim = claimed(ledger, "first", WINDOW, unit="degC")
        claimed(ledger, "second", NEXT, unit="K")
        ledger.record_claim(claim, metadata("K").model_copy(update={"version": 2}), {WINDOW: 7})
        assert ledger.metadata_of_version("crowd", 1) == metadata("degC")
        second = ledger.metadata_of_version("crowd", 2)
        assert second and second.version == 2
        assert ledger.metadata_of_version("crowd", 3) is None and ledger.metadata_of_version("other", 1) is None

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
