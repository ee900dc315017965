"""CoverageJSON to rows: E-SOH's samples value for value, every form of axes, and what is no CoverageJSON."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam_dagster.sources.coverage_json import CoverageError, read_coverages

MIDNIGHT = datetime(2022, 12, 31, tzinfo=UTC)
TEMPERATURE = "air_temperature:2.0:point:PT0S"


def rows(document: object) -> list[dict]:
    return read_coverages(json.dumps(document).encode()).rows.to_pylist()


def coverage(axes: dict, ranges: dict, **more: object) -> dict:
    return {"type": "Coverage", "domain": {"axes": axes}, "ranges": ranges, **more}


def of(values: list, *axes: str, shape: list[int] | None = None) -> dict:
    return {"type": "NdArray", "axisNames": list(axes), "shape": shape or [len(values)], "values": values}


@pytest.mark.parametrize("name", ["test_single_covjson", "test_multiple_covjson", "test_coverages_covjson"])
def test_the_samples_of_e_soh_value_for_value(name, real_data):
    document = json.loads((real_data / "esoh" / f"{name}.json").read_text())
    expected = []
    for one in document.get("coverages", [document]):
        axes = one["domain"]["axes"]
        for place, time in enumerate(axes["t"]["values"]):
            expected.append(
                {
                    "datetime": datetime.fromisoformat(time),
                    "lat": axes["y"]["values"][0],
                    "lon": axes["x"]["values"][0],
                    "station_id": one["rodeo:wigosId"],
                    **{parameter: found["values"][place] for parameter, found in one["ranges"].items()},
                }
            )
    assert rows(document) == expected and len(expected) in (2, 3, 7)
    found = read_coverages(json.dumps(document).encode())
    assert found.units.get("air_temperature:2.0:mean:PT1M", "degrees Celsius") == "degrees Celsius"


series = st.lists(st.one_of(st.none(), st.floats(-80, 60), st.integers(-5, 5)), min_size=1, max_size=4)
stations = st.fixed_dictionaries(
    {},
    optional={
        "air_temperature:2.0:point:PT0S": st.just("t"),
        "relative_humidity:2.0:point:PT0S": st.just("h"),
    },
)


@settings(max_examples=60)
@given(st.lists(st.tuples(series, stations, st.booleans(), st.sampled_from(["rodeo", "metocean", None])), max_size=6))
def test_every_value_stands_where_its_station_and_time_are(given_stations):
    coverages, expected = [], []
    for number, (values, names, as_text, key) in enumerate(given_stations):
        times = [
            (MIDNIGHT + timedelta(minutes=place)).isoformat().replace("+00:00", "Z") for place in range(len(values))
        ]
        written = [str(value) if as_text and value is not None else value for value in values]
        axes = {"x": {"values": [5.0 + number]}, "y": {"values": [50.0]}, "t": {"values": times}}
        named = {} if key is None else {f"{key}:wigosId": f"s{number}"}
        coverages.append(coverage(axes, {name: of(written, "t") for name in names}, **named))
        for place, value in enumerate(values):
            known = {name: None if value is None else float(value) for name in names}
            expected.append((f"s{number}" if key else None, MIDNIGHT + timedelta(minutes=place), 5.0 + number, known))
    found = rows({"type": "CoverageCollection", "coverages": coverages})
    assert len(found) == len(expected)
    for row, (station, time, lon, known) in zip(found, expected, strict=True):
        assert (row["station_id"], row["datetime"], row["lon"], row["lat"]) == (station, time, lon, 50.0)
        values = {name: row[name] for name in row if ":" in name and row[name] is not None}
        assert values == {name: value for name, value in known.items() if value is not None}


def test_grids_composite_and_regular_axes_in_any_order():
    times = ["2022-12-31T00:00:00Z", "2022-12-31T01:00:00Z"]
    grid = {"t": {"values": times}, "x": {"start": 1, "stop": 3, "num": 3}, "y": {"values": [10, 20]}}
    values = list(range(12))
    by_place = {(t, x, y): None for t in range(2) for x in range(3) for y in range(2)}
    for number, (y, t, x) in enumerate(itertools.product(range(2), range(2), range(3))):
        by_place[t, x, y] = float(number)
    found = rows(coverage(grid, {TEMPERATURE: of(values, "y", "t", "x", shape=[2, 2, 3])}))
    assert [(row["datetime"].hour, row["lon"], row["lat"], row[TEMPERATURE]) for row in found] == [
        (t, 1.0 + x, 10.0 + 10 * y, by_place[t, x, y]) for t in range(2) for x in range(3) for y in range(2)
    ]
    path = {"composite": {"dataType": "tuple", "coordinates": ["t", "x", "y"],
                          "values": [[times[0], 1, 10], [times[1], 2, 20]]}}  # fmt: skip
    found = rows(coverage(path, {TEMPERATURE: of([1.5, None], "composite")}))
    assert [(row["datetime"].hour, row["lon"], row["lat"], row[TEMPERATURE]) for row in found] == [
        (0, 1.0, 10.0, 1.5), (1, 2.0, 20.0, None)
    ]  # fmt: skip
    points = {"t": {"values": times[:1]}, "composite": {"dataType": "tuple", "coordinates": ["x", "y", "z"],
              "values": [[1, 10, 2], [2, 20, 2]]}}  # fmt: skip
    found = rows(coverage(points, {TEMPERATURE: of([1, 2], "t", "composite", shape=[1, 2])}))
    assert [(row["lon"], row[TEMPERATURE]) for row in found] == [(1.0, 1.0), (2.0, 2.0)]
    single = {"t": {"values": times[:1]}, "x": {"values": [1]}, "y": {"values": [2]}, "z": {"values": [2]}}
    assert rows(coverage(single, {TEMPERATURE: {"type": "NdArray", "values": [7]}}))[0][TEMPERATURE] == 7.0


def test_a_value_that_is_no_number_is_counted_and_not_made_one_up():
    axes = {"x": {"values": [1]}, "y": {"values": [2]}, "t": {"values": ["2022-12-31T00:00Z", "2022-12-31T00:10Z"]}}
    found = read_coverages(json.dumps(coverage(axes, {TEMPERATURE: of(["warm", "1.5"], "t")})).encode())
    assert found.rows[TEMPERATURE].to_pylist() == [None, 1.5]
    assert found.unreadable == {TEMPERATURE: (1, "warm")}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"<html>down</html>", "is no JSON .*it begins with b'<html>"),
        (b"", "is no JSON"),
        (b"[1]", "is no Coverage or CoverageCollection, but 'list'"),
        (b'{"type": "FeatureCollection"}', "but 'FeatureCollection'"),
        (b'{"type": "Coverage", "ranges": {}}', "coverage 0 has no 'domain'"),
        (json.dumps(coverage({"x": {"values": [1]}, "y": {"values": [2]}}, {})).encode(), "has no axis t"),
        (
            json.dumps(coverage({"x": {"values": [1]}, "y": {"values": [2]}, "t": {"values": ["2022-12-31T00:00Z"]}},
                                {"a": of([1, 2], "t")})).encode(),
            "coverage 0 has 2 values of 'a' for 1 times",
        ),
        (
            json.dumps(coverage({"x": {"values": [1]}, "y": {"values": [2]},
                                 "t": {"values": ["yesterday"]}}, {})).encode(),
            "axis t holds no times",
        ),
    ],
)  # fmt: skip
def test_what_is_no_coverage_is_told(document, told):
    with pytest.raises(CoverageError, match=told):
        read_coverages(document)
