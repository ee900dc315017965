"""Windows that are due, postponed or sealed."""

from __future__ import annotations

from datetime import timedelta

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.testing.ledger.samples import (
    HOUR,
    NEXT,
    NOON,
    WINDOW,
    Suite,
    built,
    claimed,
    latest,
)


class WindowsContract(Suite):
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

    def test_a_sealed_window_is_sealed_until_it_is_opened_again_and_then_due(self, ledger: Ledger) -> None:
        ledger.seal("crowd", [WINDOW], NOON)
        ledger.seal("crowd", [WINDOW, NEXT], NOON + HOUR)
        assert ledger.sealed("crowd", WINDOW) == NOON and ledger.sealed("crowd", NEXT) == NOON + HOUR
        assert ledger.sealed("other", WINDOW) is None and ledger.due("crowd") == []
        ledger.unseal("crowd", [WINDOW, Window(NOON + 5 * HOUR, NOON + 6 * HOUR)])
        assert ledger.sealed("crowd", WINDOW) is None and ledger.sealed("crowd", NEXT) == NOON + HOUR
        assert ledger.due("crowd") == [WINDOW]

    def test_how_long_a_datasets_windows_are_is_known_by_what_was_touched_last_in_time(self, ledger: Ledger) -> None:
        assert ledger.span_of("crowd") is None
        first = claimed(ledger, "first", WINDOW)
        ledger.record_revision(built(WINDOW, 1, [first]), [first])
        assert ledger.span_of("crowd") == WINDOW.span and ledger.span_of("other") is None
        claimed(ledger, "longer", Window(WINDOW.end, WINDOW.end + 3 * HOUR))
        assert ledger.span_of("crowd") == 3 * HOUR
