"""What may be given to write(), and what becomes of it in the log."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pytest
from influx_faults import T0
from influxdb_client import Point
from influxdb_client.client.write.dataframe_serializer import data_frame_to_list_of_points
from influxdb_client.client.write_api import PointSettings

from ionbeam_client.influx import RecordError, frames
from ionbeam_client.influx.fast_lines import Converter
from ionbeam_client.influx.records import encode
from ionbeam_client.influx.rows import How

FRAME = How(data_frame_measurement_name="m", data_frame_tag_columns=("station",))


def lines(record, how=FRAME):
    encoded = encode(record, how)
    schema = {name: dict.fromkeys(fields, "unsigned") for name, fields in encoded.unsigned.items()}
    raw = [line + b"\n" for line in b"".join(encoded.data).splitlines()]
    assert len(raw) == encoded.rows
    assert all(line.startswith(b'{"timestamp":') for line in raw)
    made, reasons = Converter(schema).convert(raw)
    assert not reasons
    return [line.decode() for line in made]


@pytest.fixture(params=["by rows", "by columns", "without polars"])
def way(request, monkeypatch):
    """A frame is taken by its rows, by its columns, or by its rows because there is no polars."""
    monkeypatch.setattr(frames, "FEW", 0 if request.param != "by rows" else 10**9)
    if request.param == "without polars":
        monkeypatch.setattr(frames, "find_spec", lambda name: None)
    return request.param


@pytest.fixture(params=["pandas", "polars"])
def frame(request):
    """Makes a frame of columns."""
    return pd.DataFrame if request.param == "pandas" else lambda data: pl.DataFrame(data, strict=False)


def test_the_first_frame_of_the_specification(frame, way):
    given = frame({"station": ["Kp"], "pps_offset": [-3], "timestamp": [1617672549204824064]})
    how = How(data_frame_measurement_name="pps_offset", data_frame_tag_columns=("station",))
    assert lines(given, how) == ["pps_offset,station=Kp pps_offset=-3i 1617672549204824064"]


def test_all_types_and_what_is_missing(frame, way):
    given = frame(
        {
            "timestamp": [T0, T0 + 1, T0 + 2],
            "station": ["a b", "", None],
            "f": [1.0, None, 1e22],
            "i": np.array([1, 2, -3]),
            "u": np.array([1, 2**64 - 1, 0], "uint64"),
            "b": [True, False, True],
            "s": ['te"xt', "", "ä\n,= "],
            "f32": np.array([0.1, np.nan, 2], "float32"),
            "number": [1, 2, 3],
        }
    )
    how = dataclasses.replace(FRAME, data_frame_tag_columns=("station", "number"))
    assert [line.replace("1e+22", "1e22") for line in lines(given, how)] == [
        f'm,number=1,station=a\\ b f=1.0,i=1i,u=1u,b=true,s="te\\"xt",f32=0.1 {T0}',
        f'm,number=2 i=2i,u=18446744073709551615u,b=false,s="" {T0 + 1}',
        f'm,number=3 f=1e22,i=-3i,u=0u,b=true,s="ä\n,= ",f32=2.0 {T0 + 2}',
    ]


def test_times_of_frames(frame, way):
    moments = [datetime(2021, 4, 6, 1, 29, 9, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]
    for given in (moments, [moment.isoformat() for moment in moments], [1617672549_000_000_000, -1_000_000_000]):
        assert [line.split()[-1] for line in lines(frame({"timestamp": given, "station": "a", "f": [1, 2]}))] == [
            "1617672549000000000", "-1000000000",
        ]  # fmt: skip
    how = dataclasses.replace(FRAME, data_frame_timestamp_column="when", write_precision="s")
    given = frame({"when": [1617672549, 5], "station": ["a", "b"], "f": [1, 2]})
    assert [line.split()[-1] for line in lines(given, how)] == ["1617672549000000000", "5000000000"]
    how = dataclasses.replace(FRAME, data_frame_timestamp_timezone="Europe/Berlin")
    given = frame({"timestamp": [datetime(2021, 7, 1, 12), datetime(2021, 1, 1, 12)], "station": "a", "f": [1, 2]})
    assert [line.split()[-1] for line in lines(given, how)] == ["1625133600000000000", "1609498800000000000"]


def test_the_index_of_pandas_is_a_time_only_when_it_is_one(way):
    index = pd.DatetimeIndex(["2021-04-06T01:29:09Z"])
    assert lines(pd.DataFrame({"station": ["a"], "f": [1.5]}, index=index)) == [f"m,station=a f=1.5 {T0}"]
    index = pd.period_range("2021-04", periods=1, freq="M")
    assert lines(pd.DataFrame({"station": ["a"], "f": [1.5]}, index=index)) == ["m,station=a f=1.5 1617235200000000000"]
    with pytest.raises(RecordError, match="no time: give it a column 'timestamp'"):
        encode(pd.DataFrame({"station": ["a"], "f": [1.5]}), FRAME)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data_frame_measurement_name": None}, "data_frame_measurement_name= is missing"),
        ({"data_frame_tag_columns": ("nothing",)}, "no column 'nothing'"),
        ({"data_frame_timestamp_column": "nothing"}, "no column 'nothing'"),
        ({"data_frame_measurement_name": "#m"}, "begins with #"),
        ({"data_frame_timestamp_timezone": "Nowhere/Land"}, "not a time zone"),
    ],
)
def test_wrong_keywords_of_frames_are_said(frame, change, says):
    with pytest.raises(RecordError, match=says):
        encode(frame({"timestamp": [1], "station": ["a"], "f": [1]}), dataclasses.replace(FRAME, **change))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"timestamp": [1, None]}, "row 1|row 1: "),
        ({"timestamp": ["2021-04-06T01:29:09Z", "soon"]}, "row 1: 'soon'"),
        ({"f": [datetime(2021, 1, 1), datetime(2021, 1, 2)]}, "InfluxDB knows numbers"),
        ({"_field": [1, 2]}, "keeps for itself"),
        ({"station": ["a", "b\\"]}, "backslash before"),
        ({"station": ["a", "b\\,c"]}, "backslash before"),
        ({"a\\": [1, 2]}, "backslash before"),
        ({"station": ["a", "b\nc"]}, r"tag 'station' is 'b\\nc', with a line break"),
        ({"station": ["a", "b\r"]}, "with a line break"),
        ({"a\nb": [1, 2]}, "has a line break"),
        ({"timestamp": [1.0, 2.5]}, "row 1: 2.5 is finer than a nanosecond: is the unit right"),
        ({" ": [1, 2]}, "empty name"),
    ],
)
def test_what_a_frame_cannot_have_is_said(frame, way, columns, says):
    given = {"timestamp": [1, 2], "station": ["a", "b"], "f": [1.0, 2.0]} | columns
    with pytest.raises(RecordError, match=says):
        encode(frame(given), FRAME)


def test_rows_without_a_value_and_infinite_values_are_counted(frame, way):
    given = frame({"timestamp": [1, 2, 3], "station": "a", "f": [np.nan, np.inf, 1.0], "g": [None, 1.0, -np.inf]})
    encoded = encode(given, FRAME)
    assert (encoded.rows, encoded.without_value, encoded.infinite) == (2, 1, 2)


def test_columns_of_several_types_and_odd_tags(way):
    given = pd.DataFrame({"timestamp": [1, 2, 3], "station": ["a\tb", "c d", 5], "x": [1, "two", True]})
    assert lines(given) == ["m,station=a\tb x=1i 1", r'm,station=c\ d x="two" 2', "m,station=5 x=true 3"]


def test_default_tags_and_field_types(frame, way):
    how = dataclasses.replace(
        FRAME, default_tags={"site": "Mauna Kea", "station": "no"}, field_types={"i": "float", "u": "uint"}
    )
    given = frame({"timestamp": [1], "station": ["a"], "i": [1], "u": [2]})
    assert lines(given, how) == [r"m,site=Mauna\ Kea,station=a i=1.0,u=2u 1"]


def test_an_empty_frame_is_nothing(frame, way):
    assert encode(frame({"timestamp": [], "station": [], "f": []}), FRAME).rows == 0


def test_frames_come_out_as_from_influxdbs_own_client(way):
    """Where that one does the right thing: with a DatetimeIndex."""
    rng = np.random.default_rng(5)
    index = pd.date_range("2021-04-06", periods=300, freq="s", tz="UTC")
    given = pd.DataFrame(
        {
            "station": rng.choice(["K p", "A=A", "S,M"], 300), "f": rng.normal(size=300).round(3),
            "i": rng.integers(-9, 9, 300),
            "b": rng.random(300) < 0.5, "s": rng.choice(['a"b', "c\\d", "e f"], 300),
        }, index=index,
    )  # fmt: skip
    given.loc[given["f"] > 1, "f"] = np.nan
    theirs = data_frame_to_list_of_points(
        given, PointSettings(), data_frame_measurement_name="m", data_frame_tag_columns=["station"]
    )
    from ionbeam_client.influx.lines import row_of

    assert [row_of(line) for line in lines(given)] == [row_of(line) for line in theirs]


# -- everything that is no frame ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Reading:
    name: str
    place: str
    value: float
    at: int


def test_records_of_all_kinds_in_one_list():
    how = How(
        record_measurement_key="name",
        record_time_key="at",
        record_tag_keys=("place",),
        record_field_keys=("value", "no"),
    )
    one = Reading("m", "Kp", 1.5, 7)
    given = [one, namedtuple("Reading", "name place value at")("m", "Kp", 1.5, 7), dataclasses.asdict(one)]
    given += [
        "m,place=Kp value=1.5 7",
        b"m,place=Kp value=1.5 7",
        Point("m").tag("place", "Kp").field("value", 1.5).time(7),
    ]
    assert lines(given, how) == ["m,place=Kp value=1.5 7"] * 6
    assert lines(iter([given, (one,)]), how) == ["m,place=Kp value=1.5 7"] * 7


def test_dicts_as_influxdbs_own_client_takes_them():
    record = {
        "measurement": "h2o", "tags": {"b": 1, "a": "x y", "none": None, "empty": ""},
        "fields": {
            "f": 1.0, "i": 3, "u": np.uint64(4), "n": np.int16(5), "d": Decimal("1.25"), "t": True, "s": 'a"b\\c',
            "none": None, "nan": float("nan"), "f32": np.float32(0.1), "big": 2**63,
        },
        "time": "2021-04-06T01:29:09Z",
    }  # fmt: skip
    assert lines(record) == [
        f'h2o,a=x\\ y,b=1 f=1.0,i=3i,u=4u,n=5i,d=1.25,t=true,s="a\\"b\\\\c",f32=0.1,big={2**63}u {T0}'
    ]
    assert lines(record | {"time": T0 // 10**9, "fields": {"i": 1}}, How(write_precision="s")) == [
        f"h2o,a=x\\ y,b=1 i=1i {T0}"
    ]
    typed = {"measurement": "m", "fields": {"a": 1, "b": 2}, "timestamp": 1, "field_types": {"a": "uint", "b": "float"}}
    assert lines(typed) == ["m a=1u,b=2.0 1"]


def test_points_keep_their_own_precision():
    assert lines(Point("m").field("f", 1).time(1617672549, write_precision="s")) == [f"m f=1i {T0}"]
    assert encode(Point("m").field("f", None).time(1), How()).without_value == 1


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"measurement": "m", "fields": {"f": 1}}, "there is no time: give it under the key 'time' or 'timestamp'"),
        ({"fields": {"f": 1}, "time": 1}, "no key 'measurement'"),
        ({"measurement": "m", "time": 1}, "no key 'fields'"),
        ({"measurement": "m", "time": 1, "fields": {"f": object()}}, "field 'f' is .*InfluxDB knows"),
        ({"measurement": "m", "time": 1, "fields": {"f": 2**64}}, "does not fit 64 bits"),
        ({"measurement": "m", "time": 1, "fields": {"f": -(2**63) - 1}}, "does not fit 64 bits"),
        ({"measurement": "m", "time": 1617672549204824064, "fields": {"f": 1}}, None),
        ("m f=1", r"it has no time: 'm f=1'"),
        ("m f=1 1\nnonsense", r"nonsense"),
        (5, "int cannot be written"),
        (None, "NoneType cannot be written"),
        ([{"measurement": "m", "fields": {"f": 1}, "time": 1}, 5], "record 1: int cannot be written"),
        (b"\xff", "utf-8|decode"),
        (r"m\"x f=1 1", "backslash before"),
        (r"m a\"b=1 1", "backslash before"),
        ({"measurement": 'm\\"', "time": 1, "fields": {"f": 1}}, "backslash before"),
        ("m _time=1 1", "keeps for itself"),
        ("m time=1,f=2 1", "field 'time' has a name that InfluxDB keeps for itself; rename it"),
        ({"measurement": "m", "tags": {"time": "x"}, "fields": {"f": 1}, "time": 1}, "tag 'time' has a name"),
        ({"measurement": "m\n", "time": 1, "fields": {"f": 1}}, "measurement .* has a line break"),
        ({"measurement": "\tm", "time": 1, "fields": {"f": 1}}, "a tab at its begin"),
        ({"measurement": "m", "time": 1, "fields": {"f\r": 1}}, "field .* has a line break"),
        ({"measurement": "m", "time": 1, "tags": {"a\nb": 1}, "fields": {"f": 1}}, "tag .* has a line break"),
        ({"measurement": "m", "time": 1, "tags": {"a": "b\n"}, "fields": {"f": 1}}, "with a line break"),
        ({"measurement": "m", "time": 1790000000.25, "fields": {"f": 1}}, "finer than a nanosecond: is the unit right"),
        ([{"measurement": "m", "time": 1, "fields": {"f": "\ud83d"}}], "record 0: field 'f' is .*lone surrogate"),
        ({"measurement": "m", "time": 1, "tags": {"t": "\udfff"}, "fields": {"f": 1}}, "tag 't' is .*lone surrogate"),
        ({"measurement": "\ud83d", "time": 1, "fields": {"f": 1}}, "measurement .* has .*lone surrogate"),
        (f"m f={2**64}i 1", "field 'f' is 18446744073709551616, which does not fit 64 bits"),
        (Point("m").field("f", 1).time(1, write_precision="seconds"), "'seconds'; it has to be one of ns, us, ms, s"),
    ],
)
def test_what_is_no_record_is_said_with_its_place(record, says):
    if says is None:
        assert encode(record, How()).rows == 1
        return
    with pytest.raises(RecordError, match=says):
        encode(record, How())


@pytest.mark.parametrize(
    "moments",
    [[T0, T0 + 1], np.array([0, 2**64 - 1], "uint64"), [datetime(2021, 1, 1), datetime(9000, 1, 1)]],
    ids=["ns as s", "unsigned", "year 9000"],
)
def test_times_of_a_frame_do_not_overflow(frame, way, moments):
    given = frame({"timestamp": moments, "station": ["a", "b"], "f": [1, 2]})
    with pytest.raises(RecordError, match="outside of what InfluxDB stores"):
        encode(given, dataclasses.replace(FRAME, write_precision="s"))


def test_tags_of_a_column_that_are_equal_in_python_are_not_the_same(way):
    given = pd.DataFrame({"timestamp": [1, 2, 3], "station": pd.Series([1, True, 1.0], dtype=object), "f": [1, 2, 3]})
    assert [line.split()[0] for line in lines(given)] == ["m,station=1", "m,station=True", "m,station=1.0"]


def test_the_wrong_unit_is_noticed():
    with pytest.raises(RecordError, match=r"outside of what InfluxDB stores.*is the unit right\? \(s\)"):
        encode({"measurement": "m", "fields": {"f": 1}, "time": T0}, How(write_precision="s"))


def test_half_of_a_character_is_said_with_its_column(way):
    """A lone surrogate, which pandas keeps in a column of objects."""
    for column in ("station", "s"):
        given = pd.DataFrame({"timestamp": [T0, T0 + 1], "station": ["a", "b"], "s": ["a", "b"], "f": [1, 2]})
        given[column] = pd.Series(["a", "\ud83d"], dtype=object)
        with pytest.raises(RecordError, match=f"'{column}' is .*lone surrogate"):
            encode(given, FRAME)
    given = pd.DataFrame({"timestamp": [T0], "f": [1]})
    for how, says in [
        (How(data_frame_measurement_name="\ud83d"), r"measurement .* has .*lone surrogate"),
        (How(data_frame_measurement_name="m", default_tags={"site": "\ud83d"}), r"tag 'site' is .*lone surrogate"),
    ]:
        with pytest.raises(RecordError, match=says):
            encode(given, how)


def test_times_near_to_1970_are_counted(frame, way):
    """As of a program that gives seconds, milliseconds or microseconds for nanoseconds."""
    for wrong in (10**9, 10**6, 10**3):
        given = frame({"timestamp": [T0 // wrong, T0], "station": ["a", "b"], "f": [1, 2]})
        assert encode(given, FRAME).long_ago == 1
    assert encode([f"m f=1 {T0 // 10**9}", {"measurement": "m", "fields": {"f": 1}, "time": T0}], How()).long_ago == 1


def test_the_log_sorts_by_time():
    given = pd.DataFrame({"timestamp": [T0 + 5, T0, T0 + 3], "station": "a", "f": [1.0, 2.0, 3.0]})
    raw = b"".join(encode(given, FRAME).data).splitlines()
    assert [orjson.loads(line)["timestamp"] for line in sorted(raw)] == [T0, T0 + 3, T0 + 5]
