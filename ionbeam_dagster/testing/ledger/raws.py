"""Raw partitions, and the order of arrival."""

from __future__ import annotations

from ionbeam_dagster.domain.records import (
    RawPartition,
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
    claimed,
)


class RawsContract(Suite):
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

    def test_raw_partitions_take_their_places_as_they_are_recorded(self, ledger: Ledger) -> None:
        for id in ("first", "second", "first"):
            ledger.record_raw(RawPartition(id, "crowd", WINDOW, f"{id}.parquet", 5))
        assert [ledger.arrival_of(id) for id in ("second", "first")] == [2, 1]

    def test_what_was_sent_stands_beside_what_was_sent_before_in_order_of_arrival(self, ledger: Ledger) -> None:
        half = Window(NOON, NOON + HOUR / 2)
        first = RawPartition("first", "crowd", half, "first.parquet", 5, "x")
        second = RawPartition("a second", "crowd", Window(NOON, NOON + 2 * HOUR), "second.parquet", 6, sender="oslo")
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

    def test_a_raw_partition_remembers_which_correction_was_known(self, ledger: Ledger) -> None:
        ledger.record_raw(RawPartition("a", "crowd", WINDOW, "a.parquet", 7, knows=12))
        found = ledger.raw("crowd", WINDOW)
        assert found is not None and found.knows == 12 and ledger.raws("crowd", NOON + HOUR) == [found]

    def test_a_file_that_is_to_go_is_pending_once_no_raw_partition_has_it(self, ledger: Ledger) -> None:
        removals = ledger.removals
        collected = RawPartition("one", "crowd", WINDOW, "one.parquet", 5)
        sent = RawPartition("sent: x", "crowd", Window(NOON, NOON + HOUR / 2), "sent.parquet", 7)
        replaced = RawPartition("old", "crowd", WINDOW, "old.parquet", 7)
        ledger.record_raw(collected)
        ledger.record_sent([(sent, [WINDOW]), (replaced, [WINDOW])])
        removals.intend([(collected, "5 bytes"), (sent, ""), (replaced, "7 bytes")])
        assert removals.pending() == []
        ledger.record_purged(collected, NOON)
        arrived(ledger, "new", NOON, replaces=["old"])
        assert removals.pending() == ["old.parquet", "one.parquet"]
        ledger.record_purged(sent, NOON)
        assert removals.pending() == ["old.parquet", "one.parquet", "sent.parquet"]
        assert (removals.intended("one.parquet"), removals.intended("sent.parquet")) == ("5 bytes", "")
        ledger.record_raw(collected)
        assert removals.intended("one.parquet") is None and removals.intended("unknown.parquet") is None
        removals.done(["old.parquet"])
        assert removals.pending() == ["sent.parquet"]
