"""Windows, coverage and the decision to build: interval arithmetic against a plain model, and a table of decisions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_dagster.domain.decisions import Build, Policy, Sealed, Unchanged, Wait, coverage, decide, hash_of_inputs
from ionbeam_dagster.domain.lateness import lateness_of, usual_lateness
from ionbeam_dagster.domain.records import Claim, Lateness, Revision
from ionbeam_dagster.domain.times import parse_moment
from ionbeam_dagster.domain.windows import (
    Window,
    check_span,
    common,
    gaps,
    merge,
    overlaps,
    window_from_key,
    window_of,
    windows_between,
)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + HOUR)
LATER = NOON + timedelta(hours=3)


def minutes(first: int, last: int) -> Window:
    return Window(NOON + first * MINUTE, NOON + last * MINUTE)


def claim(first: int, last: int, id: str | None = None, source: str = "crowd", arrival: int = 1) -> Claim:
    return Claim(id or f"{source} {first}-{last}", source, "crowd", minutes(first, last), arrival, rows=10)


intervals = st.lists(
    st.tuples(st.integers(-30, 89), st.integers(1, 40)).map(lambda pair: minutes(pair[0], pair[0] + pair[1])),
    max_size=8,
)


def covered_minutes(windows: list[Window]) -> set[int]:
    return {minute for w in windows for minute in range((w.start - NOON) // MINUTE, (w.end - NOON) // MINUTE)}


@given(intervals)
def test_merging_keeps_exactly_the_minutes_that_were_there(found):
    merged = merge(found)
    assert covered_minutes(merged) == covered_minutes(found)
    assert all(first.end < second.start for first, second in pairwise(merged))


@given(intervals)
def test_gaps_and_what_was_collected_make_up_the_window(found):
    missing = gaps(WINDOW, found)
    assert covered_minutes(missing) == set(range(60)) - covered_minutes(found)
    assert coverage(WINDOW, missing) == pytest.approx(len(set(range(60)) & covered_minutes(found)) / 60)


@given(intervals, intervals)
def test_what_is_told_bit_by_bit_is_what_is_told_at_once(first, then):
    assert merge([*merge(first), *then]) == merge([*first, *then]) == merge(reversed([*then, *first]))
    assert [gap for before in gaps(WINDOW, first) for gap in gaps(before, then)] == gaps(WINDOW, [*first, *then])


@given(intervals, intervals)
def test_what_is_common_are_the_minutes_of_both(first, second):
    both = common(first, second)
    assert covered_minutes(both) == covered_minutes(first) & covered_minutes(second)
    assert all(one.end < other.start for one, other in pairwise(merge(both)))


@given(intervals)
def test_overlaps_are_the_minutes_that_were_collected_more_than_once(found):
    collected = [minute for interval in found for minute in covered_minutes([interval])]
    twice = {minute for minute in range(60) if collected.count(minute) > 1}
    assert covered_minutes(overlaps(WINDOW, found)) == twice


@given(
    st.datetimes(datetime(1965, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    st.sampled_from([5 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY]),
)
def test_a_window_holds_its_moment_is_aligned_and_comes_back_from_its_key(moment, span):
    window = window_of(moment, span)
    assert window.start <= moment < window.end and window.span == span
    assert window_of(window.start, span) == window and window_of(window.end, span).start == window.end
    assert window_from_key(window.key, span) == window
    if span == 7 * DAY:
        assert window.start.weekday() == 0 and window.start.hour == 0


def test_windows_between_are_those_that_overlap():
    found = list(windows_between(NOON + 7 * MINUTE, NOON + 20 * MINUTE, 5 * MINUTE))
    assert found == [minutes(5, 10), minutes(10, 15), minutes(15, 20)]


def test_a_label_is_what_stands_in_file_names():
    assert WINDOW.label == "20260621T120000_PT1H"


@pytest.mark.parametrize("span", [7 * MINUTE, 90 * MINUTE, 5 * HOUR, 2 * DAY, timedelta(0), timedelta(seconds=30)])
def test_a_span_that_cannot_be_a_partition_is_refused(span):
    with pytest.raises(ValueError, match="PT5M"):
        check_span(span)


CROWD = Policy(sources=("crowd",), subject_to_change=30 * MINUTE, allow_incomplete=6 * HOUR, revise_for=7 * DAY)
DOOR = Policy(("crowd",), at_door=frozenset({"crowd"}))
WHOLE = [claim(0, 30), claim(30, 60, arrival=2)]
HALF = [claim(0, 30)]
FIRST = Revision("crowd", WINDOW, 1, hash_of_inputs(WHOLE))
LATE = [*WHOLE, claim(10, 20, id="late", arrival=3)]


@pytest.mark.parametrize(
    ("claims", "revision", "now", "policy", "expected"),
    [
        pytest.param([], None, LATER, CROWD, (Wait, "nothing has been collected", None), id="nothing collected"),
        pytest.param(WHOLE, None, NOON + 59 * MINUTE, CROWD, (Wait, "open until", WINDOW.end), id="open"),
        pytest.param(
            WHOLE, None, WINDOW.end, CROWD, (Wait, "may still change", WINDOW.end + 30 * MINUTE), id="subject to change"
        ),
        pytest.param(WHOLE, None, WINDOW.end + 30 * MINUTE, CROWD, (Build, 1, 0), id="settled and whole"),
        pytest.param(
            HALF, None, LATER, CROWD, (Wait, "crowd has not collected 12:30-13:00", WINDOW.end + 6 * HOUR), id="a gap"
        ),
        pytest.param(HALF, None, WINDOW.end + 6 * HOUR, CROWD, (Build, 1, 1), id="patience is over"),
        pytest.param([], None, LATER, DOOR, (Wait, "nothing was heard at the door", None), id="nothing heard"),
        pytest.param(
            HALF, None, LATER, DOOR, (Wait, "the door did not listen to crowd 12:30-13:00", WINDOW.end + DAY),
            id="the door was closed",
        ),
        pytest.param(
            HALF, None, LATER + DAY, Policy(("crowd",), allow_incomplete="never"), (Wait, "not collected", None),
            id="never incomplete",
        ),
        pytest.param(
            HALF, None, WINDOW.end, Policy(("crowd",), allow_incomplete="always"), (Build, 1, 1), id="always incomplete"
        ),
        pytest.param(
            WHOLE, None, LATER, Policy(("crowd", "other")),
            (Wait, "other has not collected 12:00-13:00", WINDOW.end + DAY), id="one of two sources",
        ),
        pytest.param(WHOLE, FIRST, LATER, CROWD, (Unchanged, 1, None), id="nothing new"),
        pytest.param(LATE, FIRST, LATER, CROWD, (Build, 2, 0), id="late data"),
        pytest.param(LATE, FIRST, WINDOW.end + 7 * DAY, CROWD, (Sealed, "sealed since", None), id="sealed"),
        pytest.param(
            WHOLE, Revision("crowd", WINDOW, 1, FIRST.inputs, intact=False), LATER, CROWD, (Build, 1, 0), id="lost"
        ),
        pytest.param(
            LATE, Revision("crowd", WINDOW, 3, "", intact=False), WINDOW.end + 7 * DAY, CROWD, (Build, 4, 0),
            id="lost with its ledger",
        ),
    ],
)  # fmt: skip
def test_decide(claims, revision, now, policy, expected):
    decision = decide(WINDOW, claims, revision, now, policy)
    kind, *rest = expected
    assert type(decision) is kind
    match decision:
        case Build(number, inputs, missing):
            assert [number, len(missing)] == rest and inputs == hash_of_inputs(claims)
        case Wait(reason, until):
            assert rest[0] in reason and until == rest[1]
        case Unchanged(found):
            assert found.number == rest[0]
        case Sealed(_, reason):
            assert rest[0] in reason


@given(st.permutations(LATE))
def test_the_order_in_which_claims_are_listed_does_not_change_a_decision(listed):
    assert decide(WINDOW, listed, FIRST, LATER, CROWD) == decide(WINDOW, LATE, FIRST, LATER, CROWD)


spans = st.sampled_from([timedelta(0), 10 * MINUTE, HOUR, 3 * HOUR, DAY])
policies = st.builds(
    Policy,
    sources=st.sampled_from([("crowd",), ("crowd", "other")]),
    subject_to_change=spans,
    allow_incomplete=st.one_of(st.sampled_from(["never", "always"]), spans),
    revise_for=st.one_of(st.none(), spans),
    lateness=spans,
    debounce=spans,
)
moments = st.integers(-120, 3 * 24 * 60).map(lambda minute: NOON + minute * MINUTE)
arrived = st.builds(
    lambda number, collected, source, at: Claim(f"c{number}", source, "crowd", collected, number, 10, arrived_at=at),
    st.integers(0, 30),
    st.tuples(st.integers(-30, 59), st.integers(1, 90)).map(lambda pair: minutes(pair[0], pair[0] + pair[1])),
    st.sampled_from(["crowd", "other"]),
    moments,
)


@st.composite
def situations(draw):
    claims = draw(st.lists(arrived, max_size=6, unique_by=lambda claim: claim.id))
    known = draw(st.none() | st.lists(st.sampled_from(claims), unique=True) if claims else st.none())
    revision = known and Revision(
        "crowd", WINDOW, 3, hash_of_inputs(known), draw(st.booleans()), frozenset(one.id for one in known)
    )
    return claims, revision or None, draw(moments), draw(policies)


@given(situations(), st.integers(0, 10 * 24 * 60))
def test_an_answer_holds_until_it_says_it_will_change(situation, later):
    claims, revision, now, policy = situation
    decision = decide(WINDOW, claims, revision, now, policy)
    if isinstance(decision, Build):
        return
    until = decision.until if isinstance(decision, Wait) else None
    then = now + later * MINUTE
    if until is not None:
        assert now < until and decide(WINDOW, claims, revision, until, policy) != decision
        then = min(then, until - timedelta(microseconds=1))
    assert not isinstance(decide(WINDOW, claims, revision, then, policy), Build)


@given(situations())
def test_no_window_waits_for_ever_for_time_alone(situation):
    claims, revision, now, policy = situation
    for _ in range(6):
        decision = decide(WINDOW, claims, revision, now, policy)
        if not isinstance(decision, Wait) or decision.until is None:
            break
        now = decision.until
    if isinstance(decision, Wait):
        assert not claims or (decision.missing and policy.allow_incomplete == "never")


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4000), st.integers(1, 5)), max_size=40))
def test_the_usual_lateness_is_not_exceeded_by_most_and_is_a_measured_one(found):
    measured = [Lateness(NOON + hour * HOUR, late * MINUTE, count) for hour, late, count in found]
    usual = usual_lateness(measured)
    live = [one for one in measured if one.late <= DAY]
    assert usual in {one.late for one in live} | {timedelta(0)}

    def share(limit: timedelta) -> float:
        hours = {one.hour for one in live}
        of_each = [[(one.late <= limit, one.count) for one in live if one.hour == hour] for hour in hours]
        return sum(sum(n for met, n in some if met) / sum(n for _, n in some) for some in of_each) / len(hours)

    if live:
        assert share(usual) >= 0.95 - 1e-6
        assert all(share(one.late) < 0.95 for one in live if one.late < usual)


def test_a_backfill_does_not_change_the_usual_lateness():
    live = [Lateness(NOON + hour * HOUR, 2 * MINUTE, 12) for hour in range(100)]
    backfill = [Lateness(NOON + 99 * HOUR, hours * HOUR, 12) for hours in range(1, 24)]
    long_ago = [Lateness(NOON + hour * HOUR, 9 * DAY, 500) for hour in range(100)]
    assert usual_lateness(live + backfill + long_ago) == 2 * MINUTE
    assert usual_lateness([]) == timedelta(0)


@pytest.mark.parametrize(
    ("seconds", "told"), [(-30, 0), (0, 0), (0.2, 1), (59.5, 60), (99, 99), (101, 110), (3601, 3700), (86400, 87000)]
)
def test_lateness_is_rounded_up_to_two_digits(seconds, told):
    late = replace(claim(0, 60), arrived_at=WINDOW.end + timedelta(seconds=seconds))
    assert lateness_of(late) == timedelta(seconds=told)


def test_a_range_is_told_as_commands_take_it_to_the_instant():
    start = datetime(2026, 6, 21, 6, tzinfo=UTC)
    assert Window(start, start + timedelta(hours=1)).as_options == "--from 2026-06-21T06:00Z --to 2026-06-21T07:00Z"
    odd = Window(start + timedelta(seconds=7), start + timedelta(microseconds=7_500_000))
    assert odd.as_options == "--from 2026-06-21T06:00:07Z --to 2026-06-21T06:00:07.500000Z"
    assert Window(*map(parse_moment, odd.as_options.split()[1::2])) == odd
