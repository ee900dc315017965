"""What influxdb-client's own serializer does with data frames, case by case: ours does the same, and where it does not,
it is told why.

Each case goes through the serializer that is installed, so that a later version of it that does otherwise is noticed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from influx_faults import T0, of
from influxdb_client.client.write.dataframe_serializer import data_frame_to_list_of_points
from influxdb_client.client.write_api import PointSettings

from ionbeam_client.influx import RecordError, WriteApi, frames
from ionbeam_client.influx.fast_lines import Converter
from ionbeam_client.influx.lines import row_of
from ionbeam_client.influx.records import encode
from ionbeam_client.influx.rows import How
from ionbeam_client.influx.times import PRECISIONS

TIMES = pd.date_range("2026-03-29 00:30", periods=4, freq="30min", tz="UTC")


@pytest.fixture(params=["by rows", "by columns", "without polars"], autouse=True)
def way(request, monkeypatch):
    monkeypatch.setattr(frames, "FEW", 0 if request.param != "by rows" else 10**9)
    if request.param == "without polars":
        monkeypatch.setattr(frames, "find_spec", lambda name: None)


def ours(frame, default_tags=None, **how):
    encoded = encode(frame, How(default_tags=default_tags or {}, **how))
    made, reasons = Converter(encoded_schema(encoded)).convert(
        [line + b"\n" for line in b"".join(encoded.data).splitlines()]
    )
    assert not reasons
    return [row_of(line.decode()) for line in made]


def encoded_schema(encoded):
    return {name: dict.fromkeys(fields, "unsigned") for name, fields in encoded.unsigned.items()}


def theirs(frame, default_tags=None, write_precision="ns", **how):
    lines = data_frame_to_list_of_points(frame, PointSettings(**(default_tags or {})), write_precision, **how)
    return [row_of(line, PRECISIONS[write_precision]) for line in lines]


def indexed(columns, index=TIMES):
    return pd.DataFrame(columns, index=index[: len(next(iter(columns.values())))])


STATION = {"data_frame_tag_columns": ["station"]}
CASES = {
    "integers of numpy": (indexed({"station": ["a", "b"], "level": [np.int64(7), np.int64(-8)]}), STATION),
    "floats of numpy": (
        indexed({f"f{size}": np.array([15.5, -0.25], f"float{size}") for size in (16, 32, 64)}), {},
    ),
    "a value that is missing, and a row of none": (
        indexed({"x": [1.5, np.nan, np.nan, 2.0], "y": [np.nan, np.nan, 3.25, 4.0]}), {},
    ),
    "a tag that is empty or missing": (indexed({"station": ["", np.nan, None, "a"], "x": [1.0, 2, 3, 4]}), STATION),
    "a text that is missing": (indexed({"note": ["good", np.nan], "n": [1, 2]}), {}),
    "columns of types that know a missing value": (
        indexed({"b": pd.array([True, None, False, None], "boolean"), "i": pd.array([None, 1, 2, None], "Int64"),
                 "f": pd.array([1.0, 2.0, None, None], "Float64"), "s": pd.array(["a", "b", None, None], "string")},
                pd.Index(TIMES)), {},
    ),
    "truth": (indexed({"up": [True, False]}), {}),
    "a measurement with a blank": (indexed({"x": [1]}), {"data_frame_measurement_name": "a b"}),
    "a measurement with a comma": (indexed({"x": [1]}), {"data_frame_measurement_name": "a,b"}),
    "a column named as a tag that is not there is a field": (indexed({"place": ["a"], "x": [1]}), {}),
    "names and tags with blanks, commas and equals signs": (
        indexed({"the, station =": ["a, b=c"], "a = x, y": [2.5]}), {"data_frame_tag_columns": ["the, station ="]},
    ),
    "tags in the order of their names": (
        indexed({"c": ["1"], "a": ["2"], "b": ["3"], "x": [4]}), {"data_frame_tag_columns": ["c", "a", "b"]},
    ),
    "tags as a set": (indexed({"c": ["1"], "a": ["2"], "x": [4]}), {"data_frame_tag_columns": {"c", "a"}}),
    "texts with blanks, commas, quotes and backslashes": (
        indexed({"station": ["a b", "c d"], "note": ["hello, world", 'a "b" \\ c']}), STATION,
    ),
    "default tags": (indexed({"station": ["a", "b"], "x": [1, 2]}), {"default_tags": {"site": "hill"}, **STATION}),
    "a column beats a default tag": (
        indexed({"station": ["a", "b"], "x": [1, 2]}), {"default_tags": {"station": "c"}, **STATION},
    ),
    "an index of periods": (indexed({"x": [1, 2]}, pd.period_range("2026-03-29 01:00", periods=2, freq="h")), {}),
    "the time in a column": (
        pd.DataFrame({"when": ["2026-03-29", "2026-05-01"], "x": [1, 2]}, index=["A", "B"]),
        {"data_frame_timestamp_column": "when"},
    ),
    "a zone for a column": (
        pd.DataFrame({"when": ["2026-03-29 01:00", "2026-03-29 03:30"], "x": [1, 2]}),
        {"data_frame_timestamp_column": "when", "data_frame_timestamp_timezone": "Europe/Berlin"},
    ),
    "a zone for an index": (
        indexed({"x": [1, 2]}, pd.DatetimeIndex(["2026-03-29 01:00", "2026-10-25 04:00"])),
        {"data_frame_timestamp_timezone": "Europe/Berlin"},
    ),
    "a zone for an index of periods": (
        indexed({"x": [1, 2]}, pd.period_range("2026-05-24 10:00", periods=2, freq="h")),
        {"data_frame_timestamp_timezone": "Europe/Berlin"},
    ),
    "names that begin with digits, and values that are missing": (
        indexed({"1st": [np.nan, 30.0, np.nan], "2nd": [30.0, np.nan, np.nan], "last": [30.0, 30.0, 30.0]}), {},
    ),
}  # fmt: skip
TEXTS = ["2026-10-26", "2026-10-26 10:00", "2026-10-26 10:00:00-05:00", "2026-10-26T11:00:00+00:00",
         "2026-10-26 12:00:00+00:00", "2026-10-26T16:00:00-01:00"]  # fmt: skip
CASES |= {
    f"the time as {text}": (
        pd.DataFrame({"when": [text], "x": [1]}), {"data_frame_timestamp_column": "when"},
    )
    for text in TEXTS
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_frame_becomes_what_influxdbs_own_client_makes_of_it(name):
    frame, how = CASES[name]
    before, how = frame.copy(), {"data_frame_measurement_name": "m"} | how
    rows = ours(frame, **how)
    assert rows and rows == theirs(frame, **how)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("unit", PRECISIONS)
def test_a_unit_of_time_is_that_of_numbers_and_no_moment_changes(unit):
    """Their lines are in the unit that the request names; ours are always in nanoseconds."""
    how = {"data_frame_measurement_name": "m", "write_precision": unit}
    assert ours(indexed({"x": [15, 16]}), **how) == theirs(indexed({"x": [15, 16]}), **how)
    numbers = pd.DataFrame({"timestamp": [T0 // PRECISIONS[unit]], "x": [15]})
    by_index = theirs(numbers.set_index("timestamp"), **how)
    assert ours(numbers, **how) == by_index
    assert by_index[0].timestamp == T0


def test_numbers_that_only_count_rows_are_no_times():
    """Theirs puts such rows into 1970, in silence."""
    frame = pd.DataFrame({"x": [1, 2]})
    assert [row.timestamp for row in theirs(frame, data_frame_measurement_name="m")] == [0, 1]
    with pytest.raises(RecordError, match="no time: give it a column 'timestamp'"):
        ours(frame, data_frame_measurement_name="m")


@pytest.mark.parametrize(("rows", "parts"), [(2, [2, 2]), (10, [4]), (3, [3, 1])])
def test_a_frame_is_sent_in_parts(faulty, client, rows, parts):
    """What theirs calls chunks."""
    server = faulty()
    api: WriteApi = client(of(server), batch_rows=rows).write_api()
    frame = pd.DataFrame({"timestamp": [T0 + n for n in range(4)], "station": list("abcd"), "x": [1, 2, 3, 4]})
    api.write(record=frame, data_frame_measurement_name="m", **STATION).get(20)
    assert server.requests == parts
    assert server.lines == [f"m,station={name} x={n}i {T0 + n - 1}" for n, name in enumerate("abcd", 1)]
