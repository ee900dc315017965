"""Means over exact time bins."""

from __future__ import annotations

import ast
import math
import sys
from itertools import pairwise
from types import ModuleType

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from influx_faults import ALIAS

from ionbeam_client.influx.timebin import TimeBin


def test_a_bin_is_the_mean_over_its_time_filled_from_its_beginning():
    """This and the next: the third of the three tests that the package of the specification has."""
    bins, t = TimeBin(), 1234567890.0
    bins.point(t + 0.1, 100.0)
    assert bins.value == pytest.approx(10)
    bins.point(t + 0.6, 200)
    assert bins.value == pytest.approx(110)
    assert bins.gettuples() == []
    bins.point(t + 1.1, 100)
    assert bins.value == pytest.approx(10)
    ((path, (time, value)),) = bins.gettuples("a path")
    assert (path, time) == ("a path", t)
    assert value == pytest.approx(150)
    assert bins.gettuples() == []


def test_a_point_far_away_fills_the_bins_between():
    bins, t = TimeBin(30.0), 1234567890.0
    bins.point(t + 7.5, 100.0)
    bins.point(t + 75, 200.0)
    assert bins.value == pytest.approx(100)
    assert bins.gettuples() == [(t, pytest.approx(175)), (t + 30, pytest.approx(200))]


@pytest.mark.parametrize("begin", [-1.0, 0.0, -1617672549.0, 1617672549.0])
def test_labels_of_tenths_are_exact(begin):
    bins = TimeBin(0.1)
    for tenth in range(25):
        bins.point(float(f"{begin + tenth / 10:.1f}"), 1.0)
    assert [repr(time) for time, _ in bins.gettuples()] == [
        repr(float(f"{begin + tenth / 10:.1f}")) for tenth in range(24)
    ]


@pytest.mark.parametrize(
    ("time", "said"), [(4.9, "earlier"), (math.nan, "finite"), (math.inf, "finite"), (1.8e9, "clock was set")]
)
def test_a_wrong_time_is_refused_and_changes_nothing(time, said):
    bins = TimeBin(1.0)
    bins.point(5.0, 1.0)
    with pytest.raises(ValueError, match=said):
        bins.point(time, 9.0)
    bins.point(6.0, 1.0)
    assert bins.gettuples() == [(5.0, 1.0)]


@pytest.mark.parametrize("interval", [0, -1.0, math.nan, math.inf])
def test_an_interval_is_a_positive_number(interval):
    with pytest.raises(ValueError, match="positive"):
        TimeBin(interval)


@given(
    st.floats(-1e5, 1e5), st.lists(st.tuples(st.floats(0, 50), st.floats(-1e6, 1e6)), min_size=1, max_size=30),
    st.sampled_from([0.1, 0.25, 1.0, 7.0, 60.0]),
)  # fmt: skip
def test_no_value_is_lost_between_bins(start, steps, interval):
    assume(abs(start / interval - round(start / interval)) > 1e-6)  # a start at an edge but for rounding is at it
    bins, time, points = TimeBin(interval), start, []
    for step, value in steps:
        time += step
        bins.point(time, value)
        points.append((time, value))
    found = bins.gettuples()
    assert all(b[0] > a[0] for a, b in pairwise(found))
    assert [round(label / interval) * interval for label, _ in found] == pytest.approx([label for label, _ in found])
    integral = sum(value * interval for _, value in found) + bins.value * interval
    begin = math.floor(points[0][0] / interval) * interval
    expected = (points[0][0] - begin) * points[0][1]
    expected += sum((b[0] - a[0]) * b[1] for a, b in pairwise(points))
    assert integral == pytest.approx(expected, rel=1e-6, abs=max(1.0, interval) * 1e-3)


def test_the_program_of_the_specification_prints_exact_bins(capsys):
    """With a clock and dice of its own, because it never ends."""
    text = """
import time
import random
from eht_influx_client.timebin import TimeBin

tb = TimeBin(1.0)  # 1.0 second bins is the default

while True:
    datapoint = random.randint(1,10)
    tb.point(time.time(), datapoint)
    tuples = tb.gettuples()
    if tuples:
       print(tuples)  # [(t, value)] where times are exactly 1.0s apart
    time.sleep(1.0 + datapoint*0.01)
"""
    now, ends = [1617672549.3], 50

    class Clock(ModuleType):
        time = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(seconds):
            nonlocal ends
            now[0], ends = now[0] + seconds, ends - 1
            if not ends:
                raise KeyboardInterrupt

    before = dict(sys.modules), list(sys.path)
    sys.modules["time"] = Clock("time")
    sys.path.insert(0, str(ALIAS))
    try:
        with pytest.raises(KeyboardInterrupt):
            exec(text, {})
    finally:
        sys.modules["time"] = before[0]["time"]
        sys.path[:] = before[1]
    labels = [label for line in capsys.readouterr().out.splitlines() for label, _ in ast.literal_eval(line)]
    assert labels == [1617672549.0 + number for number in range(len(labels))]
    assert len(labels) > 45
