"""Open work."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.attempts import FIRST_WAIT, LONGEST_WAIT, Attempt, Attempts, Failure
from ionbeam_dagster.testing.ledger.samples import (
    HOUR,
    NEXT,
    NOON,
    WINDOW,
    Suite,
    work,
)


class AttemptsContract(Suite):
    @pytest.fixture
    def attempts(self, ledger: Ledger) -> Attempts:
        return ledger.attempts

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
