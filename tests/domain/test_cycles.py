"""Analysis cycles: their bounds, and what belongs into the file of one."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_dagster.domain.cycles import (
    CYCLE,
    Made,
    Numbered,
    analysis_of,
    check_nesting,
    cycle_of,
    cycles_between,
    look_at,
    windows_in,
)
from ionbeam_dagster.domain.windows import HOUR, Window

DAY = datetime(2026, 6, 21, tzinfo=UTC)
MORNING = Window(DAY + 3 * HOUR, DAY + 9 * HOUR)
WINDOWS = windows_in(MORNING, HOUR, DAY, None)
CLOSES = MORNING.end + HOUR


def looked_at(known, now, made=None):
    return look_at(MORNING, WINDOWS, known, made, now, HOUR)


def built(hours, at=MORNING.end, number=1):
    """The windows that begin so many hours into the cycle, each built once."""
    return {WINDOWS[hour]: [Numbered(number, at)] for hour in hours}


@given(st.datetimes(datetime(1960, 1, 1), datetime(2060, 1, 1)))
def test_every_moment_lies_in_the_cycle_of_the_analysis_that_is_nearest(naive):
    moment = naive.replace(tzinfo=UTC)
    cycle = cycle_of(moment)
    assert cycle.start <= moment < cycle.end and cycle.span == CYCLE
    assert analysis_of(cycle).hour in (0, 6, 12, 18) and analysis_of(cycle).minute == 0
    assert abs(moment - analysis_of(cycle)) <= 3 * HOUR


def test_cycles_of_a_day_and_of_a_dataset_that_begins_within_one():
    found = list(cycles_between(DAY, DAY + 24 * HOUR))
    assert [analysis_of(cycle).hour for cycle in found] == [0, 6, 12, 18, 0]
    first = windows_in(found[0], HOUR, DAY, DAY + 2 * HOUR)
    assert [window.start.hour for window in first] == [0, 1]


@pytest.mark.parametrize("hours", [2, 4, 6, 24])
def test_windows_that_reach_beyond_a_cycle_are_refused(hours):
    with pytest.raises(ValueError, match="does not divide three hours"):
        check_nesting(hours * HOUR)


def test_a_cycle_waits_for_its_windows_until_the_cut_off_and_then_goes_without_them():
    five, six = built(range(5)), built(range(6))
    assert not looked_at(six, MORNING.end - timedelta(minutes=1)).due
    assert looked_at(six, MORNING.end).due
    waiting = looked_at(five, CLOSES - timedelta(minutes=1))
    assert not waiting.due and "5 of 6 windows" in waiting.reason and "10:00" in waiting.reason
    without = looked_at(five, CLOSES)
    assert without.due and without.lacking == (WINDOWS[5],) and len(without.holds) == 5


def test_what_is_built_anew_is_taken_until_the_cut_off_and_is_late_after_it():
    made = Made(dict.fromkeys(WINDOWS, 1), afterwards=False, intact=True)
    again = built(range(6))
    assert not looked_at(again, CLOSES + HOUR, made).due
    again[WINDOWS[2]] = [*again[WINDOWS[2]], Numbered(2, CLOSES - timedelta(seconds=1))]
    in_time = looked_at(again, CLOSES + HOUR, made)
    assert in_time.due and in_time.holds[WINDOWS[2]] == 2 and not in_time.late
    again[WINDOWS[2]] = [*again[WINDOWS[2]], Numbered(3, CLOSES)]
    late = looked_at(again, CLOSES + HOUR, made)
    assert late.holds[WINDOWS[2]] == 2 and late.late == {WINDOWS[2]: 3} and "late, kept out" in late.reason


def test_a_window_that_is_there_for_the_first_time_after_the_cut_off_is_late():
    known = built(range(5)) | built([5], at=CLOSES + HOUR)
    outlook = looked_at(known, CLOSES + HOUR)
    assert outlook.due and outlook.lacking == (WINDOWS[5],) and outlook.late == {WINDOWS[5]: 1}


def test_a_cycle_of_which_nothing_was_built_in_time_takes_all_that_comes():
    known = built([0], at=CLOSES + 24 * HOUR)
    first = looked_at(known, CLOSES + 24 * HOUR)
    assert first.due and first.afterwards and not first.late
    made = Made(first.holds, first.afterwards, intact=True)
    known |= built(range(1, 6), at=CLOSES + 48 * HOUR)
    known[WINDOWS[0]] = [*known[WINDOWS[0]], Numbered(2, CLOSES + 48 * HOUR)]
    second = looked_at(known, CLOSES + 48 * HOUR, made)
    assert second.due and len(second.holds) == 6 and second.holds[WINDOWS[0]] == 2 and not second.late


def test_a_revision_that_was_lost_and_written_again_after_the_cut_off_stays_in_the_cycle():
    made = Made(dict.fromkeys(WINDOWS, 1), afterwards=False, intact=True)
    outlook = looked_at(built(range(6), at=CLOSES + 5 * HOUR), CLOSES + 6 * HOUR, made)
    assert not outlook.due and not outlook.lacking and not outlook.late


def test_a_file_that_is_gone_is_made_again():
    made = Made(dict.fromkeys(WINDOWS, 1), afterwards=False, intact=False)
    assert looked_at(built(range(6)), CLOSES + HOUR, made).due
