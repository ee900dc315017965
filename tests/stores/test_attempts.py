"""What every ledger promises of open work. An implementation joins by adding itself to `attempts`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from redis import Redis

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import RedisLedger, SqliteLedger
from ionbeam_dagster.stores.ledger.attempts import FIRST_WAIT, LONGEST_WAIT, Attempt, Attempts

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
WINDOW, NEXT = Window(NOON, NOON + HOUR), Window(NOON + HOUR, NOON + 2 * HOUR)


@pytest.fixture(params=["sqlite", "redis"])
def attempts(request, tmp_path) -> Attempts:
    if request.param == "sqlite":
        return SqliteLedger(tmp_path / "state" / "ledger.sqlite").attempts
    url = request.getfixturevalue("redis").url
    with Redis.from_url(url) as client:
        client.flushdb()
    return RedisLedger(url).attempts


def work(window: Window = WINDOW, token: str = "a", product: str = "crowd", stage: str = "collect") -> Attempt:
    return Attempt(stage, product, window, token, "it is lost", 0, NOON, NOON)


def test_nothing_is_open_at_first(attempts):
    assert attempts.open() == [] and attempts.open("collect", "crowd") == [] and attempts.reconciled() is None
    attempts.note([])
    attempts.begin([], NOON)
    attempts.settle("collect", "crowd", [])
    attempts.settle("collect", "crowd", [WINDOW])
    attempts.fail("collect", "crowd", {WINDOW: "no"}, NOON)
    assert attempts.open() == []


def test_what_is_noted_is_open_until_it_is_settled(attempts):
    attempts.note([work(NEXT), work(), work(stage="export", product="crowd/odb")])
    assert attempts.open("collect", "crowd") == [work(), work(NEXT)]
    assert attempts.open() == [work(), work(NEXT), work(stage="export", product="crowd/odb")]
    assert attempts.open("export") == attempts.open(product="crowd/odb") == attempts.open()[2:]
    attempts.settle("collect", "crowd", [WINDOW])
    assert attempts.open("collect", "crowd") == [work(NEXT)]
    attempts.settle("collect", "crowd", [NEXT])
    assert [one.product for one in attempts.open()] == ["crowd/odb"]


def test_a_try_waits_ten_seconds_and_twice_as_long_each_time_up_to_ten_minutes(attempts):
    now, waits = NOON, []
    for number in range(1, 12):
        attempts.begin([work()], now)
        [one] = attempts.open()
        assert (one.tries, one.since) == (number, NOON)
        assert not one.may_begin(one.next - SECOND) and one.may_begin(one.next)
        waits.append(one.next - now)
        now = one.next
    assert waits[0] == FIRST_WAIT and waits[-1] == LONGEST_WAIT == max(waits)
    assert all(after == min(2 * before, LONGEST_WAIT) for before, after in pairwise(waits))


def test_what_failed_says_why_and_waits_from_then_on(attempts):
    attempts.begin([work(), work(NEXT)], NOON)
    attempts.fail("collect", "crowd", {WINDOW: "no answer", Window(NOON - HOUR, NOON): "not open"}, NOON + HOUR)
    failed, other = attempts.open()
    assert (failed.error, failed.tries, failed.next) == ("no answer", 1, NOON + HOUR + FIRST_WAIT)
    assert (other.error, other.next) == ("", NOON + FIRST_WAIT)
    attempts.begin([work()], NOON + 2 * HOUR)
    assert attempts.open()[0].error == "no answer"


def test_work_of_another_token_begins_anew(attempts):
    for _ in range(5):
        attempts.begin([work()], NOON)
    attempts.fail("collect", "crowd", {WINDOW: "no answer"}, NOON)
    attempts.note([work()])
    assert attempts.open()[0].tries == 5, "what is known keeps its tries"
    attempts.begin([work(token="b")], NOON + HOUR)
    [one] = attempts.open()
    assert (one.token, one.tries, one.since, one.error) == ("b", 1, NOON + HOUR, "")
    attempts.note([work(token="c")])
    assert attempts.open() == [work(token="c")]


def test_what_is_noted_for_later_may_begin_as_soon_as_somebody_says_so(attempts):
    later = Attempt("export", "crowd", WINDOW, "a", "", 0, NOON, NOON + 7 * HOUR)
    attempts.note([later])
    assert attempts.open() == [later]
    assert not later.may_begin(NOON) and not later.may_begin(NOON - 7 * HOUR) and later.may_begin(later.next)
    sooner = Attempt("export", "crowd", WINDOW, "a", "", 0, NOON, NOON + HOUR)
    attempts.note([sooner])
    attempts.note([later])
    assert attempts.open()[0].next == sooner.next


def test_a_clock_that_went_back_keeps_nothing_waiting(attempts):
    attempts.begin([work()], NOON + HOUR)
    [one] = attempts.open()
    assert one.may_begin(NOON) and not one.may_begin(one.next - SECOND)


def test_many_at_once(attempts):
    many = [Window(NOON + n * HOUR, NOON + (n + 1) * HOUR) for n in range(2500)]
    attempts.note([work(window) for window in many])
    attempts.begin([work(window) for window in many], NOON)
    attempts.fail("collect", "crowd", dict.fromkeys(many, "no"), NOON)
    assert [(one.window, one.tries, one.error) for one in attempts.open()] == [(window, 1, "no") for window in many]
    attempts.settle("collect", "crowd", iter(many))
    assert attempts.open() == []


def test_it_is_remembered_when_files_were_last_compared(attempts):
    attempts.note_reconciled(NOON)
    attempts.note_reconciled(NOON + HOUR)
    assert attempts.reconciled() == NOON + HOUR
