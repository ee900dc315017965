"""Readings and reports: their bytes are the vendor's, what cannot be sent is refused, and what comes is read."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import dateutil.tz
import msgpack
import numpy as np
import pandas as pd
import pytest
from archfx_vectors import FILE, REPORTS, SPECIFIED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ionbeam_client.archfx.reports.exceptions import DataError
from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from ionbeam_client.archfx.reports.report import ArchFXDataPoint

NOON = datetime(2021, 1, 20, 12, tzinfo=UTC)


def ours(points: list[dict], **arguments: object) -> ArchFXFlexibleDictionaryReport:
    return ArchFXFlexibleDictionaryReport.FromReadings(data=[ArchFXDataPoint(**point) for point in points], **arguments)


def reading(**changes: object) -> ArchFXDataPoint:
    return ArchFXDataPoint(**{"timestamp": NOON, "stream": "0001-5090", "value": 1.0, "reading_id": 1} | changes)


def report(*readings: ArchFXDataPoint, **changes: object) -> ArchFXFlexibleDictionaryReport:
    return ArchFXFlexibleDictionaryReport.FromReadings(**{"device": "d--1", "data": list(readings)} | changes)


@pytest.mark.parametrize("name", REPORTS)
def test_the_bytes_are_those_that_the_vendors_package_made(name):
    points, arguments = REPORTS[name]
    assert ours(points, **arguments).encode().hex() == json.loads(FILE.read_text())[name]


OFFSETS = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=-11)), timezone(timedelta(minutes=330)), dateutil.tz.UTC]
)
ZONES = OFFSETS | st.sampled_from(["UTC", "Europe/Rome", "America/New_York"]).map(ZoneInfo)
FIRST, LAST = datetime(1, 1, 3), datetime(9999, 12, 29)
TIMES = st.datetimes(FIRST, LAST, timezones=ZONES)
TEXTS = st.datetimes(FIRST, LAST, timezones=OFFSETS).map(datetime.isoformat)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=33)
    | st.binary(max_size=33)
    | TIMES
)
KEYS = st.text(max_size=20).filter(lambda key: key != "value")
DATA = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
    ),
    max_size=3,
)
VARIABLES = st.integers(0, 2**32 - 1) | st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
POINTS = st.fixed_dictionaries(
    {
        "timestamp": TIMES | TEXTS,
        "stream": VARIABLES | st.sampled_from(["0001-5090", "5090", "15090"]),
        "value": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60) | st.booleans(),
    },
    optional={
        "summary_data": st.none() | DATA,
        "raw_data": st.none() | DATA,
        "reading_id": st.none() | st.integers(0, 2**64 - 1),
    },
)
NUMBERS = st.integers(0, 2**64 - 1)
BUSY = settings(suppress_health_check=[HealthCheck.too_slow])  # says how busy the machine is
ARGUMENTS = st.fixed_dictionaries(
    {"device": NUMBERS | st.sampled_from(["d--1234", "m--0001", "12", "d--0000-0001-0000-0001"])},
    optional={
        "report_id": NUMBERS,
        "selector": NUMBERS,
        "streamer": NUMBERS,
        "sent_timestamp": st.none() | TIMES,
    },
)


@BUSY
@given(st.lists(POINTS, max_size=4), ARGUMENTS)
def test_the_vendors_bytes_are_the_same(vendor, points, arguments):
    assert ours(points, **arguments).encode() == vendor("report", points, **arguments)


@BUSY
@given(st.lists(POINTS, max_size=4), ARGUMENTS)
def test_what_was_encoded_is_read_as_the_vendors_package_reads_it(vendor, points, arguments):
    made = ours(points, **arguments)
    head, readings = vendor("decoded", made.encode())
    for found in (made, ArchFXFlexibleDictionaryReport(made.encode())):
        assert head == [
            found.origin, found.report_id, found.sent_timestamp, found.origin_streamer, found.streamer_selector,
            found.lowest_id, found.highest_id,
        ]  # fmt: skip
        assert len(found.visible_data) == len(readings)
        for point, (stream, number, moment, value, extra, raw) in zip(found.visible_data, readings, strict=True):
            assert (point.stream, point.reading_id, point.value) == (stream, number, value)
            assert point.timestamp == datetime.fromisoformat(moment)
            assert (point.summary_data, point.raw_data) == (extra, raw)


def test_times_of_pandas_and_numbers_of_numpy_are_taken():
    made = report(reading(timestamp=pd.Timestamp(NOON), value=np.float32(0.5), reading_id=np.int64(7)))
    assert made.encode() == report(reading(value=0.5, reading_id=7)).encode()


def test_readings_may_come_from_an_iterator():
    made = ArchFXFlexibleDictionaryReport.FromReadings("d--1", (reading(reading_id=number) for number in (5, 3)))
    assert (made.lowest_id, made.highest_id, len(made.visible_data)) == (3, 5, 2)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"value": math.nan}, "value has to be a finite number, not nan"),
        ({"value": -math.inf}, "finite"),
        ({"value": 10**400}, "0x15090|0001-5090"),
        ({"value": None}, "0001-5090"),
        ({"value": "warm"}, "warm"),
        ({"timestamp": np.datetime64("1000000-01-01T00:00:00")}, "has to be a datetime"),
        ({"timestamp": "1000000-01-01T00:00:00Z"}, "1 to 9999"),
        ({"timestamp": 31556889864403199}, "has to be a datetime"),
        ({"timestamp": pd.NaT}, "has to be a datetime"),
        ({"timestamp": "yesterday"}, "ISO 8601"),
        ({"timestamp": "10"}, "ISO 8601"),  # today or the tenth, to others
        ({"timestamp": "2021-W03-3"}, "ISO 8601"),  # not known to others
        ({"timestamp": None}, "timestamp has to be"),
        ({"stream": "no id"}, "no id"),
        ({"stream": 2**32}, "2\\^32"),
        ({"stream": True}, "True"),
        ({"stream": [1]}, "\\[1\\]"),
        ({"reading_id": -1}, "reading_id has to be at least 0"),
        ({"reading_id": 2**64}, "reading_id .* 2\\^64"),
        ({"reading_id": 1.0}, "reading_id has to be a whole number"),
        ({"reading_id": True}, "reading_id has to be a whole number"),
        ({"reading_id": "7"}, "reading_id has to be a whole number"),
        ({"summary_data": {"value": 1}}, "'value'"),
        ({"summary_data": [1]}, "dictionary"),
    ],
)
def test_a_reading_that_is_none_is_refused_when_it_is_made(wrong, reason):
    with pytest.raises(DataError, match=reason):
        reading(**wrong)


def circular() -> dict:
    made: dict = {}
    made["itself"] = [made, made]
    return made


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"mean": math.nan}, "reading 1 .*nan"),
        ({"deep": [{"er": (1.0, -math.inf)}]}, "reading 1 .*-inf"),
        ({1: 2}, "reading 1 .*keys"),
        ({"deep": [{2.5: 1}]}, "reading 1 .*keys"),
        ({"set": {1}}, "reading 1 .*set"),
        ({"big": 2**64}, "reading 1 "),
        ({"text": "\ud800"}, "reading 1 "),
        (circular(), "reading 1 "),
        ({"far": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "reading 1 "),
    ],
)
@pytest.mark.parametrize("where", ["summary_data", "raw_data"])
def test_what_cannot_be_sent_is_refused_with_the_readings_place(data, reason, where):
    with pytest.raises(DataError, match=reason):
        report(reading(), reading(**{where: data}))


def test_what_was_changed_after_it_was_made_is_looked_at_again():
    for name, wrong in [("value", math.nan), ("timestamp", 5), ("timestamp", None), ("reading_id", -1)]:
        changed = reading()
        setattr(changed, name, wrong)
        with pytest.raises(DataError):
            report(changed)
    with pytest.raises(DataError, match="reading 0"):
        report(reading(timestamp=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))))


def test_bytes_that_look_like_nan_are_none():
    assert report(reading(raw_data={"picture": b"\xcb\x7f\xf8\x00\x00"})).visible_data[0].raw_data


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "d--xyz"}, {"device": -1}, {"device": 2**64}, {"device": None}, {"report_id": -1},
        {"report_id": "1"}, {"streamer": 1.5}, {"selector": 2**64}, {"sent_timestamp": 5},
        {"sent_timestamp": "1000000-01-01"}, {"sent_timestamp": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
    ],
)  # fmt: skip
def test_a_report_of_nobody_is_refused(wrong):
    with pytest.raises(DataError):
        report(reading(), **wrong)


def test_readings_that_share_an_id_are_told(caplog):
    report(reading(), reading(), reading(reading_id=0), reading(reading_id=0))
    assert "share a reading_id" in caplog.text


GOOD = msgpack.unpackb(ours(SPECIFIED, device=1).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"no msgpack",
        msgpack.packb([1, 2]),
        msgpack.packb({}),
        msgpack.packb(GOOD | {"format": "v100"}),
        msgpack.packb({key: GOOD[key] for key in GOOD if key != "device"}),
        msgpack.packb(GOOD)[:-1],
        msgpack.packb(GOOD) + b"\x00",
        b"\x81\xa6events" + b"\x91" * 100_000,
        b"\x81\xa6device" + b"\x91" * 100_000,
        b"\x82\xa6device\x01\xa6events\xdd\xff\xff\xff\xff",
        b"\x82\xa6device\x01\xa6events\xdb\xff\xff\xff\xff",
        b"\x81\x91\x01\x01",
        b"\xdf\xff\xff\xff\xff\xa6device\x01",
    ],
)
def test_bytes_that_are_no_report_are_refused(raw):
    with pytest.raises(DataError):
        ArchFXFlexibleDictionaryReport(raw)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_a_damaged_report_is_read_or_refused(damage, place):
    raw = ours(SPECIFIED, device=1).encode()
    try:
        for point in ArchFXFlexibleDictionaryReport(raw[:place] + damage + raw[place + len(damage) :]).visible_data:
            assert math.isfinite(point.value)
    except DataError:
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": "1000000-01-01T00:00:00+00:00"},
        {"timestamp": None},
        {"timestamp": "no time"},
        {"value": math.nan},
        {"value": None},
        {"stream": "?"},
        {"dev_seqid": -1},
        {"extra_data": 5},
    ],
)
def test_a_reading_of_a_report_that_is_none_is_refused_when_it_is_asked_for(changes):
    raw = msgpack.packb(GOOD | {"events": [GOOD["events"][0] | changes]})
    made = ArchFXFlexibleDictionaryReport(raw)
    with pytest.raises(DataError):
        made.visible_data  # noqa: B018
    with pytest.raises(DataError):
        ArchFXFlexibleDictionaryReport(msgpack.packb(GOOD | {"events": [5]})).decode()


def test_a_report_is_written_to_a_file_as_it_is(tmp_path):
    made = ours(SPECIFIED, device=1)
    made.save(tmp_path / "report.mp")
    assert (tmp_path / "report.mp").read_bytes() == made.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["report.mp"]
    assert ArchFXFlexibleDictionaryReport((tmp_path / "report.mp").read_bytes()).asdict() == GOOD


def test_nothing_is_decoded_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(ArchFXDataPoint, "FromDict", lambda event: pytest.fail("a reading was decoded"))
    made = ours(SPECIFIED, device=1)
    assert (made.lowest_id, made.highest_id) == (1000, 1001)
