"""Times to and from texts, exact to the nanosecond."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_client.influx import times


@given(st.integers(times.EARLIEST, times.LATEST))
def test_every_nanosecond_survives_its_text(time):
    assert times.from_rfc3339(times.to_rfc3339(time)) == time
    assert times.from_iso8601(times.to_rfc3339(time)) == time
    assert str(pd.Timestamp(time, tz="UTC").value) == str(time) == str(pd.Timestamp(times.to_rfc3339(time)).value)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2024-02-29T12:00:00.5+05:30", 1709188200_500_000_000),
        ("2000-02-29 00:00:00z", 951782400_000_000_000),
        ("2021-04-06T01:29:09.204824064Z", 1617672549204824064),
    ],
)
def test_rfc3339_is_read(text, time):
    assert times.from_rfc3339(text) == time


@pytest.mark.parametrize(
    "text",
    ["2023-02-29T00:00:00Z", "2026-06-30T23:59:60Z", "2026-11-30T05:45:00", "2026-11-30", "2026-W48-1T00:00Z", "",
     "2026-11-30T05:45:00.1234567891Z", "2026-11-30T05:45:00+25:00", "20261130T054500Z"],
)  # fmt: skip
def test_what_is_not_rfc3339_is_said(text):
    with pytest.raises(ValueError, match=r"RFC 3339|calendar|nanosecond|offset"):
        times.from_rfc3339(text)


def test_iso8601_has_more_forms_and_needs_a_zone_where_there_is_no_offset():
    expected = times.from_rfc3339("2026-11-30T05:45:00.25Z")
    for text in ("20261130T054500.25Z", "2026-W49-1T05:45:00,25+00:00", "2026-11-30 06:45:00.25+01:00"):
        assert times.from_iso8601(text) == expected
    with pytest.raises(ValueError, match="no offset"):
        times.from_iso8601("2026-11-30T05:45")
    assert times.from_iso8601("2026-11-30T06:45:00.25", timezone(timedelta(hours=1))) == expected
    assert times.from_iso8601("2026-11-30", UTC) == times.from_rfc3339("2026-11-30T00:00:00Z")


@pytest.mark.parametrize(
    ("given", "precision", "time"),
    [
        (1617672549, "s", 1617672549_000_000_000),
        (1617672549.25, "s", 1617672549_250_000_000),
        (Decimal("1617672549.204824064"), "s", 1617672549204824064),
        (1617672549204, "ms", 1617672549204_000_000),
        (np.int64(1617672549204824064), "ns", 1617672549204824064),
        (np.datetime64("2021-04-06T01:29:09.204824064"), "ns", 1617672549204824064),
        (pd.Timestamp("2021-04-06T01:29:09.204824064Z"), "ns", 1617672549204824064),
        (datetime(2021, 4, 6, 1, 29, 9, 204824), "s", 1617672549204824000),
        (date(1970, 1, 2), "ns", 86400_000_000_000),
        ("2021-04-06T01:29:09.204824064", "ns", 1617672549204824064),
    ],
)
def test_what_programs_have_as_times(given, precision, time):
    assert times.to_nanoseconds(given, precision) == time


@pytest.mark.parametrize(
    "given",
    [None, True, "soon", float("nan"), pd.NaT, np.datetime64("NaT"), 2**63, object(), 1617672549204824064 * 1000],
)
def test_what_is_no_time_is_said(given):
    with pytest.raises(ValueError, match=r"not a|stores|ISO"):
        times.to_nanoseconds(given)


@pytest.mark.parametrize(
    ("given", "precision"),
    [(1617672549.25, "ns"), (np.float64(1617672549.5), "ns"), (Decimal("1.0000000001"), "s"), (Decimal("0.5"), "ns")],
)
def test_what_is_finer_than_a_nanosecond_is_said(given, precision):
    with pytest.raises(ValueError, match="finer than a nanosecond: is the unit right"):
        times.to_nanoseconds(given, precision)
    assert times.to_nanoseconds(0.1 + 0.2, "s") == 300_000_000  # no float is exact


def test_a_datetime_comes_back():
    moment = datetime(2026, 11, 30, 5, 45, 0, 123456, tzinfo=UTC)
    assert times.to_datetime(times.from_datetime(moment)) == moment
