"""Every query over windows of known values: what is found, in which form, and what is said when it cannot be."""

import csv
import io
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from covjson_pydantic.coverage import Coverage, CoverageCollection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from windows import PLACES, RAIN, START, TEMPERATURE, WIND, service_of, write_window

from ionbeam_dagster.domain.geo import great_circle
from ionbeam_dagster.edr import reading as engine
from ionbeam_dagster.edr.files import LocalFiles, window_of_name
from ionbeam_dagster.edr.refusals import BadRequest
from ionbeam_dagster.edr.regions import Box, Circles, Paths, Shapes
from ionbeam_dagster.edr.requests import QUERIES, interval
from ionbeam_dagster.exporters import geoparquet

HOURS = 5
ALL = "POLYGON((-180 -90,180 -90,180 90,-180 90,-180 -90))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("windows") / "net"
    for hour in range(HOURS):
        write_window(place, hour)
    return place


@pytest.fixture(scope="module")
def ask(folder):
    return asker(folder)


def asker(folder):
    service = service_of(folder)

    def ask(kind, id=None, status=200, **given):
        named = {name.replace("_", "-"): str(value) for name, value in given.items()}
        reply = service.answer("net", kind, id, named)
        assert reply.status == status, reply.body
        if reply.type.startswith("text/csv"):
            return list(csv.DictReader(io.StringIO(reply.body.decode())))
        document = json.loads(reply.body)
        if reply.type == "application/vnd.cov+json":
            model = Coverage if document["type"] == "Coverage" else CoverageCollection
            model.model_validate_json(reply.body)
        return document

    return ask


def without_links(document):
    """Links to next pages name the file that they go on in."""
    return {name: value for name, value in document.items() if name != "links"}


def stations(document):
    found = document["coverages"] if document["type"] == "CoverageCollection" else [document]
    return {one["ionbeam:location"]: one for one in found}


def series(coverage, id):
    return coverage["ranges"][id]["values"]


def test_a_station_whose_id_is_another_has_its_wigos_id_beside_it(tmp_path):
    write_window(tmp_path / "net", 0, described=("station_id", "station_name", "wigos_id"))
    ask = asker(tmp_path / "net")
    one = ask("position", coords="POINT(5.004 52.0)")
    assert (one["ionbeam:location"], one["metocean:wigosId"]) == ("s0", "0-276-0-S0")
    listed = {place["id"]: place["properties"]["metocean:wigosId"] for place in ask("locations")["features"]}
    assert listed["s3"] == "0-276-0-S3"


def test_a_position_gives_the_nearest_station_with_all_of_its_values(ask):
    one = ask("position", coords="POINT(5.004 52.0)")
    assert (one["type"], one["domain"]["domainType"], one["ionbeam:location"]) == ("Coverage", "PointSeries", "s0")
    assert series(one, TEMPERATURE) == pytest.approx([hour / 100 for hour in range(HOURS) for _ in range(6)])
    assert one["domain"]["axes"]["t"]["values"][:2] == ["2025-01-01T00:00:00Z", "2025-01-01T00:10:00Z"]
    assert len(one["domain"]["axes"]["t"]["values"]) == 6 * HOURS
    assert WIND not in one["ranges"] and RAIN not in one["ranges"]  # s0 has no wind, nobody has rain
    assert set(stations(ask("position", coords="MULTIPOINT((5 52),(6 51))"))) == {"s0", "s2"}
    assert ask("position", coords="POINT(30 30)")["coverages"] == []


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("area", {"coords": "POLYGON((4 51.5,7 51.5,7 53,4 53,4 51.5))"}, {"s0", "s1"}),
        ("area", {"coords": "POLYGON((4 51,7 51,7 53,4 53,4 51),(4.9 51.9,5.05 51.9,5.05 52.05,4.9 52.05,4.9 51.9))"},
         {"s1", "s2"}),
        ("area", {"coords": "MULTIPOLYGON(((4 51.5,5.05 51.5,5.05 53,4 51.5)),((-71 -34,-69 -34,-69 -32,-71 -34)))"},
         {"s0", "s6"}),
        ("area", {"coords": "POLYGON((179 -18,181 -18,181 -16,179 -16,179 -18))"}, {"s3", "s4"}),
        ("area", {"coords": "POLYGON((-181 -18,-179 -18,-179 -16,-181 -16,-181 -18))"}, {"s3", "s4"}),
        ("area", {"coords": ALL}, {f"s{number}" for number in range(len(PLACES))}),
        ("cube", {"bbox": "179,-18,-179,-16"}, {"s3", "s4"}),
        ("cube", {"bbox": "4,51.5,0,6,53,100"}, {"s0", "s1"}),
        ("cube", {"bbox": "-180,-90,180,90"}, {f"s{number}" for number in range(len(PLACES))}),
        ("radius", {"coords": "POINT(5 52)", "within": 14, "within-units": "km"}, {"s0", "s1"}),
        ("radius", {"coords": "POINT(5 52)", "within": 12_000}, {"s0"}),
        ("radius", {"coords": "POINT(180 -17)", "within": 20, "within-units": "km"}, {"s3", "s4"}),
        ("radius", {"coords": "POINT(180 89.95)", "within": 20, "within-units": "km"}, {"s5"}),
        ("trajectory", {"coords": "LINESTRING(4.9 51.9,5.2 52.2)"}, {"s0", "s1"}),
        ("trajectory", {"coords": "LINESTRING(179.8 -16.95,180.2 -17.15)"}, {"s3", "s4"}),
        ("trajectory", {"coords": "MULTILINESTRING((4.9 52,5.2 52),(5.9 51,6.1 51))"}, {"s0", "s2"}),
    ],
)  # fmt: skip
def test_places(ask, kind, given, expected):
    assert set(stations(ask(kind, **given))) == expected


def test_a_path_with_times_meets_a_station_when_it_passes(ask):
    begun = START.timestamp()
    path = f"LINESTRING M(4.9 51.9 {begun},5.0 52.0 {begun + 1200},5.5 52.5 {begun + 2400})"
    found = stations(ask("trajectory", coords=path))
    assert found["s0"]["domain"]["axes"]["t"]["values"] == [
        f"2025-01-01T00:{minute}:00Z" for minute in ("00", "10", "20", "30", "40")
    ]
    assert found["s1"]["domain"]["axes"]["t"]["values"] == [f"2025-01-01T00:{minute}:00Z" for minute in (20, 30, 40)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("2025-01-01T01:10:00Z", 1),
        ("2025-01-01T01:10", 1),
        ("2025-01-01T02:10:00+01:00", 1),
        ("2025-01-01T02:10:00 01:00", 1),
        ("2025-01-01", 6 * HOURS),
        ("2025-01-01T00:50Z/2025-01-01T01:00Z", 2),
        ("2025-01-01T03:50:00/..", 7),
        ("../2025-01-01T00:09:59Z", 1),
        ("/2025-01-01T00:10Z", 2),
        ("2024-01-01/2024-12-31", 0),
        ("..", 6 * HOURS),
    ],
)
def test_times(ask, text, rows):
    found = ask("cube", bbox="4.95,51.95,5.05,52.05", datetime=text)
    assert len(found["domain"]["axes"]["t"]["values"] if rows else found["coverages"]) == rows


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"parameter_name": TEMPERATURE}, {TEMPERATURE}),
        ({"parameter_name": "air*,wind_speed"}, {TEMPERATURE, WIND}),
        ({"standard_name": "wind_speed"}, {WIND}),
        ({"level": "10"}, {WIND}),
        ({"level": "1/5"}, {TEMPERATURE}),
        ({"z": "2.0,10"}, {TEMPERATURE, WIND}),
        ({"method": "point"}, {TEMPERATURE}),
        ({"period": "PT10M"}, {WIND}),
        ({"standard_name": "air_temperature,wind_speed", "method": "mean"}, {WIND}),
    ],
)
def test_filters(ask, filters, expected):
    found = ask("position", coords="POINT(5.1 52.1)", **filters)
    assert set(found["ranges"]) == set(found["parameters"]) == expected
    about = found["parameters"][next(iter(expected))]
    assert about["metocean:standard_name"] in ("air_temperature", "wind_speed")
    assert about["metocean:measurementType"].keys() >= {"method", "duration"}


def test_forms_agree(ask):
    box = {"bbox": "4,51.5,7,53", "datetime": "2025-01-01T01:00Z/2025-01-01T01:20Z"}
    coverages = stations(ask("cube", **box))
    rows = ask("cube", f="CSV", **box)
    features = ask("cube", f="GeoJSON", **box)["features"]
    assert len(rows) == len(features) == 6
    for row, feature in zip(rows, features, strict=True):
        at = coverages[row["location"]]["domain"]["axes"]["t"]["values"].index(row["datetime"].replace(".000", ""))
        value = series(coverages[row["location"]], TEMPERATURE)[at]
        assert float(row[TEMPERATURE]) == feature["properties"][TEMPERATURE] == pytest.approx(value)
        assert row["station_name"] == feature["properties"]["station_name"]
        assert feature["geometry"]["coordinates"] == [float(row["lon"]), float(row["lat"])]


def test_locations(ask):
    listed = ask("locations")
    assert [one["id"] for one in listed["features"]] == [f"s{number}" for number in range(len(PLACES))]
    assert listed["features"][1]["properties"]["name"] == "Station 1"
    assert [one["id"] for one in ask("locations", bbox="4,51.5,7,53")["features"]] == ["s0", "s1"]
    one = ask("locations", "s1", parameter_name=TEMPERATURE, datetime="2025-01-01T04:00Z/..")
    assert series(one, TEMPERATURE) == pytest.approx([1.04] * 6)
    assert "no observation of a location" in ask("locations", "nobody", 404)["description"]


def test_a_dataset_without_stations_has_places_and_a_moving_one_tracks(tmp_path):
    write_window(tmp_path / "net", 0, described=(), places=PLACES[:2])
    ask = asker(tmp_path / "net")
    (first, second) = ask("locations")["features"]
    assert len(first["id"]) == 16 and first["id"] != second["id"]
    assert series(ask("locations", first["id"]), TEMPERATURE) == [0.0] * 6
    write_window(tmp_path / "drive", 0, places=PLACES[:1], move=0.01)
    track = asker(tmp_path / "drive")("radius", coords="POINT(5 52)", within=100_000)
    assert track["domain"]["domainType"] == "Trajectory"
    assert track["domain"]["axes"]["composite"]["values"][1] == ["2025-01-01T00:10:00Z", 5.01, 52.0]


def test_flags_are_parameters_of_their_own(tmp_path):
    write_window(tmp_path / "net", 0, flags=True)
    ask = asker(tmp_path / "net")
    flag = "air_temperature_quality_flag:2.0:point:PT0S"
    found = stations(ask("area", coords=ALL, standard_name="air_temperature*"))
    assert series(found["s0"], flag) == [4] * 6 and series(found["s1"], flag) == [1] * 6
    about = ask("area", coords=ALL, parameter_name=flag)["parameters"][flag]
    assert "unit" not in about and len(about["observedProperty"]["categories"]) == 5


# Items.


def test_pages_of_items_hold_every_row_once_by_link_and_by_offset(ask, folder):
    expected = [
        row
        for file in sorted(folder.iterdir())
        for row in duckdb.sql(f"SELECT id FROM '{file}'").fetchall()  # in the order of the file
    ]
    for filters in ({}, {"bbox": "4,51.5,7,53"}, {"datetime": "2025-01-01T00:30Z/2025-01-01T03:30Z"}):
        seen, after = [], {}
        while True:
            page = ask("items", limit=11, **after, **filters)
            seen += [one["id"] for one in page["features"]]
            on = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
            if on is None:
                break
            after = {"after": parse_qs(urlsplit(on).query)["after"][0]}
        assert len(seen) == len(set(seen))
        if not filters:
            assert seen == [id for (id,) in expected] and page["numberMatched"] == len(seen)
        again = [
            one["id"] for offset in range(0, len(seen), 11)
            for one in ask("items", limit=11, offset=offset, **filters)["features"]
        ]  # fmt: skip
        assert again == seen
        assert ask("items", limit=11, offset=10**9, **filters)["features"] == []
    one = ask("items", seen[0])
    assert one["id"] == seen[0] and one["type"] == "Feature"
    for wrong in ("20250101T000000Z-0000000000000000", "nonsense", "99999999T999999Z-0"):
        ask("items", wrong, 404)


def test_a_window_of_many_row_groups_is_read_in_parts_that_make_the_same_whole(tmp_path, monkeypatch):
    whole = tmp_path / "whole" / "net"
    write_window(whole, 0)
    write_window(whole, 1)
    monkeypatch.setattr(geoparquet, "ROWS_PER_GROUP", (5, 5))
    parted = tmp_path / "parted" / "net"
    write_window(parted, 0)
    write_window(parted, 1)
    questions = [
        ("area", None, {"coords": ALL}),
        ("locations", None, {}),
        ("locations", "s4", {}),
        ("items", None, {"limit": 13, "offset": 50}),
        ("items", None, {"limit": 7, "after": "1735689600000000.17"}),
        ("items", None, {"limit": 9, "offset": 3, "datetime": "2025-01-01T00:30Z/2025-01-01T01:20Z"}),
    ]
    expected = [without_links(asker(whole)(kind, id, **given)) for kind, id, given in questions]
    monkeypatch.setattr(engine, "ROWS_IN_PART", 7)
    monkeypatch.setattr(engine, "ROWS_AT_ONCE", 3)
    assert [without_links(asker(parted)(kind, id, **given)) for kind, id, given in questions] == expected
    newest = asker(parted)("area", coords=ALL, datetime="2025-01-01T00:00Z/2025-01-01T00:59Z", limit=len(PLACES))
    assert {time for one in newest["coverages"] for time in one["domain"]["axes"]["t"]["values"]} == {
        "2025-01-01T00:50:00Z"
    }
    assert "bounded at 7 rows" in newest["ionbeam:notes"][0]


# What is wrong with files, and what changes meanwhile.


def test_what_cannot_be_read_is_left_out_and_said(tmp_path):
    place = tmp_path / "net"
    files = [write_window(place, hour) for hour in range(4)]
    files[1].write_bytes(files[1].read_bytes()[:-50])
    files[2].write_bytes(b"")
    write_window(place, 4, unit="K", add=273.15)
    (place / f".{files[0].name}.tmp").write_bytes(b"half")
    (place / "notes.txt").write_text("mine")
    duckdb.sql(f"COPY (SELECT 1 AS x) TO '{place}/net_20250101T050000_PT1H.parquet'")
    found = asker(place)("position", coords="POINT(5 52)", parameter_name=TEMPERATURE)
    # In the unit of the newest window that can be read, Kelvin.
    assert series(found, TEMPERATURE) == pytest.approx([273.15] * 6 + [273.18] * 6 + [273.19] * 6)
    assert len([note for note in found["ionbeam:notes"] if "cannot be read" in note]) == 3
    for filters in ({}, {"bbox": "-180,-90,180,90"}, {"datetime": "2025-01-01/2025-01-02"}):
        items = asker(place)("items", limit=1000, **filters)
        assert len(items["features"]) == 3 * 6 * len(PLACES)
        assert len([note for note in items["notes"] if "cannot be read" in note]) == 3, filters
        assert items.get("numberMatched", 3 * 6 * len(PLACES)) == 3 * 6 * len(PLACES)
    assert asker(tmp_path / "nowhere")("locations")["features"] == []


def test_a_window_with_a_text_that_is_none_is_left_out_and_said(tmp_path):
    place = tmp_path / "net"
    files = [write_window(place, hour) for hour in range(2)]
    rows = pq.read_table(files[1])
    at = rows.schema.names.index("station_id")
    damaged = pa.array([f"{id}".encode() + b"\xff" for id in rows.column(at).to_pylist()])
    texts = pa.Array.from_buffers(pa.string(), len(damaged), damaged.buffers())
    pq.write_table(rows.set_column(at, rows.schema.field(at), texts), files[1])
    ask = asker(place)
    for kind, asked in [("items", {"limit": 1000}), ("locations", {}), ("position", {"coords": "POINT(5 52)"})]:
        found = ask(kind, **asked)
        notes = found.get("ionbeam:notes", found.get("notes", []))
        assert len([note for note in notes if "cannot be read" in note]) == 1, (kind, found)
    assert len(ask("items", limit=1000)["features"]) == 6 * len(PLACES)


def test_a_window_whose_column_has_another_type_is_left_out_and_named(tmp_path):
    place = tmp_path / "net"
    files = [write_window(place, hour) for hour in range(3)]
    for number, column in ((0, "air_temperature"), (1, "lat")):
        table = pq.read_table(files[number])
        at = next(at for at, name in enumerate(table.column_names) if name.split("__")[0] == column)
        field = pa.field(table.schema.field(at).name, pa.string(), metadata=table.schema.field(at).metadata)
        pq.write_table(table.set_column(at, field, pa.array(["a"] * len(table))), files[number])
    for kind, asked in (
        ("position", {"coords": "POINT(5 52)"}),
        ("cube", {"bbox": "-180,-90,180,90"}),
        ("items", {}),
    ):
        found = asker(place)(kind, **asked)
        notes = found.get("notes") or found["ionbeam:notes"]
        left_out = [note for note in notes if "is left out" in note]
        assert [note.split()[2].split("/")[0] for note in sorted(left_out)] == [
            "2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z"
        ], kind  # fmt: skip
    # The odd one may be the newest.
    (place / files[2].name).unlink()
    write_window(place, 1)
    latest = write_window(place, 5)
    table = pq.read_table(latest)
    at = next(at for at, name in enumerate(table.column_names) if name.startswith("air_temperature"))
    field = pa.field(table.column_names[at], pa.string(), metadata=table.schema.field(at).metadata)
    pq.write_table(table.set_column(at, field, pa.array(["a"] * len(table))), latest)
    found = asker(place)("position", coords="POINT(5 52)")
    assert series(found, TEMPERATURE) == pytest.approx([0.01] * 6)


def test_a_note_that_says_how_to_go_on_comes_to_an_end(tmp_path):
    for hour in range(3):
        write_window(tmp_path / "net", hour)
    ask = asker(tmp_path / "net")
    every = {(hour, step, station) for hour in range(3) for step in range(6) for station in range(len(PLACES))}
    for limit in (len(PLACES), 10, 50):
        seen, when = set(), "../.."
        for _ in range(40):
            rows = ask("cube", bbox="-180,-90,180,90", limit=limit, datetime=when, f="geojson")
            assert len(rows["features"]) <= limit
            for one in rows["features"]:
                moment = datetime.fromisoformat(one["properties"]["datetime"])
                key = (moment.hour, moment.minute // 10, int(one["properties"]["location"][1:]))
                assert key not in seen
                seen.add(key)
            if "notes" not in rows:
                break
            on = rows["notes"][-1].split("datetime=")[1]
            assert on != when
            when = on
        assert seen == every, limit
    beyond = ask("cube", bbox="-180,-90,180,90", limit=3, datetime="../..", f="geojson")
    assert len(beyond["features"]) == 3 and "alone there are more; raise limit" in beyond["notes"][-1]


def test_pages_go_on_behind_the_same_row_when_the_window_is_revised(tmp_path):
    place = tmp_path / "net"
    write_window(place, 0)
    write_window(place, 1)
    ask = asker(place)

    def pages(change, **filters):
        given, after = [], {}
        while True:
            page = ask("items", limit=10, **after, **filters)
            given += [one["id"] for one in page["features"]]
            on = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
            if on is None:
                return given
            after = {"after": parse_qs(urlsplit(on).query)["after"][0]}
            change(len(given))

    whole = pages(lambda given: None)
    assert len(whole) == len(set(whole)) == 2 * 6 * len(PLACES)
    # A revision with other values, and with stations more, in front of where the page stands and behind it.
    more = [(-120.0, -40.0), *PLACES, (100.0, 60.0)]
    shifted = pages(lambda given: write_window(place, 0, add=given))
    assert shifted == whole
    found = pages(lambda given: write_window(place, 0, places=PLACES + more[:1] + more[-1:]) if given == 20 else None)
    assert len(found) == len(set(found)) and set(whole) <= set(found)
    fewer = pages(lambda given: write_window(place, 0, places=PLACES[:2]) if given == 30 else None)
    assert len(fewer) == len(set(fewer)) and set(whole[-6 * len(PLACES):]) <= set(fewer)  # fmt: skip


def test_heights_in_coordinates_are_levels_or_are_refused(ask):
    near = {"coords": "POINT Z(5 52 10)"}
    assert set(ask("position", **near, datetime="2025-01-01")["parameters"]) <= {WIND}
    assert set(ask("position", coords="POINT(5.1 52.1)", z="10", datetime="2025-01-01")["parameters"]) == {WIND}
    of_box = ask("cube", bbox="-180,-90,1,180,90,5", datetime="2025-01-01T00:00Z")
    assert set(of_box["parameters"]) == {TEMPERATURE}
    assert set(ask("cube", bbox="-180,-90,180,90", z="R3/0/1", datetime="2025-01-01T00:00Z")["parameters"]) == {
        TEMPERATURE
    }
    for asked, says in (
        ({"kind": "position", "coords": "POINT Z(5 52 77)"}, "77' fits no parameter"),
        ({"kind": "cube", "bbox": "0,0,9,1,1,5"}, "the low 9 is above the high 5"),
        ({"kind": "cube", "bbox": "0,0,0,1,1,5", "z": "2"}, "heights stand in z and in bbox"),
        ({"kind": "trajectory", "coords": "LINESTRING Z(4 52 1,6 52 2)"}, "several heights"),
        ({"kind": "cube", "bbox": "0,0,1,1", "z": "R9/x/1"}, "is no height"),
    ):
        kind = asked.pop("kind")
        assert says in ask(kind, status=400, **asked)["description"]


def test_bounds_keep_the_newest_and_say_where_to_go_on(tmp_path, monkeypatch):
    for hour in range(30):
        write_window(tmp_path / "net", hour, places=PLACES[:2])
    ask = asker(tmp_path / "net")
    newest = ask("position", coords="POINT(5 52)")
    assert len(newest["domain"]["axes"]["t"]["values"]) == 24 * 6
    assert "newest 24 hours" in newest["ionbeam:notes"][0]
    whole = ask("position", coords="POINT(5 52)", datetime="2025-01-01/..")
    assert len(whole["domain"]["axes"]["t"]["values"]) == 30 * 6 and "ionbeam:notes" not in whole
    seen, before = [], "2025-01-02T23:00Z"
    for _ in range(20):
        part = ask("position", coords="POINT(5 52)", datetime=f"../{before}", limit=50)
        if part["type"] != "Coverage":
            break
        times = part["domain"]["axes"]["t"]["values"]
        seen = times + seen
        notes = part.get("ionbeam:notes")
        if not notes:
            break
        before = (datetime.fromisoformat(times[0]) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert seen == whole["domain"]["axes"]["t"]["values"]


def test_a_window_replaced_under_load_is_old_or_new_never_both_and_never_an_error(tmp_path):
    place = tmp_path / "net"
    write_window(place, 0)
    write_window(place, 1)
    ask, stop, wrong, answers = asker(place), threading.Event(), [], []

    def look():
        while not stop.is_set():
            try:
                found = stations(ask("area", coords=ALL, parameter_name=TEMPERATURE))
                added = {round(v - int(id[1:])) for id, one in found.items() for v in series(one, TEMPERATURE)[:6]}
                answers.append(added)
                if len(found) != len(PLACES) or len(added) != 1:
                    wrong.append(added)
                if len(ask("items", limit=1000)["features"]) != 2 * 6 * len(PLACES):
                    wrong.append("items")
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for revision in range(1, 16):
        write_window(place, 0, add=100 * revision)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len({tuple(one) for one in answers}) > 2
    final = stations(ask("area", coords=ALL, parameter_name=TEMPERATURE))
    assert series(final["s2"], TEMPERATURE)[0] == 1502.0


# Bad input.


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("position", {}, "needs coords"),
        ("position", {"coords": "POINT(5)"}, "well-known text"),
        ("position", {"coords": "POINT(nan 52)"}, "globe"),
        ("position", {"coords": "POINT EMPTY"}, "POINT"),
        ("position", {"coords": "POLYGON((4 51,6 51,6 53,4 51))"}, "POINT or MULTIPOINT"),
        ("area", {"coords": "GEOMETRYCOLLECTION(" * 2500}, "POLYGON or MULTIPOLYGON"),
        ("area", {"coords": "POLYGON((4 51,6 53,6 51,4 53,4 51))"}, "no proper polygon"),
        ("area", {"coords": f"POLYGON(({','.join(['1 1'] * 2000)}))"}, "at most 1,000"),
        ("area", {"coords": "POLYGON((4 51,6 51,6 153,4 51))"}, "leave the globe"),
        ("radius", {"coords": "POINT(5 52)"}, "within=10"),
        ("radius", {"coords": "POINT(5 52)", "within": "-3"}, "more than 0"),
        ("radius", {"coords": "POINT(5 52)", "within": "5", "within_units": "degC"}, "no distance"),
        ("radius", {"coords": "POINT(5 52)", "within": "inf"}, "at most 1,000 km"),
        ("cube", {}, "west,south,east,north"),
        ("cube", {"bbox": "1,2,3"}, "west,south,east,north"),
        ("cube", {"bbox": "4,53,6,51"}, "north of the north"),
        ("cube", {"bbox": "4,51,900,53"}, "leaves the globe"),
        ("cube", {"bbox": "4,51,6,53", "datetime": "yesterday"}, "RFC 3339"),
        ("cube", {"bbox": "4,51,6,53", "datetime": "2025-01-02/2025-01-01"}, "ends before"),
        ("cube", {"bbox": "4,51,6,53", "datetime": "2025-13-45T99:00Z"}, "RFC 3339"),
        ("cube", {"bbox": "4,51,6,53", "datetime": "1/2/3"}, "more than one"),
        ("cube", {"bbox": "4,51,6,53", "datetime": "0001-01-01T00:00:00+23:59"}, "RFC 3339"),
        ("cube", {"bbox": "4,51,6,53", "parameter_name": "snow"}, "fits no parameter"),
        ("cube", {"bbox": "4,51,6,53", "parameter_name": ","}, "is empty"),
        ("cube", {"bbox": "4,51,6,53", "level": "high"}, "no height"),
        ("cube", {"bbox": "4,51,6,53", "method": "point", "period": "PT10M"}, "all of the filters"),
        ("cube", {"bbox": "4,51,6,53", "f": "xlsx"}, "offered are covjson"),
        ("cube", {"bbox": "4,51,6,53", "crs": "EPSG:28992"}, "OGC:CRS84"),
        ("cube", {"bbox": "4,51,6,53", "limit": "0"}, "limit"),
        ("cube", {"bbox": "4,51,6,53", "paramter_name": "x"}, "is not known here"),
        ("items", {"limit": "١٢"}, "limit"),
        ("items", {"offset": "-1"}, "offset"),
        ("items", {"after": "../../etc"}, "next"),
        ("items", {"f": "covjson"}, "offered are geojson"),
        ("items", {"bbox": "\x00"}, "characters"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_sentence(ask, kind, given, says):
    assert says in ask(kind, None, 400, **given)["description"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_text_makes_a_fault(folder, data):
    kind = data.draw(st.sampled_from(QUERIES))
    texts = st.one_of(
        st.text(max_size=40), st.sampled_from(["POINT(5 52)", "4,51,6,53", "2025-01-01", "..", "1e999", "*"])
    )
    names = st.sampled_from(
        ["coords", "bbox", "datetime", "within", "parameter_name", "level", "z", "limit", "offset", "f"]
    )
    given = data.draw(st.dictionaries(names, texts, max_size=4))
    id = data.draw(st.none() | st.text(max_size=20)) if kind in ("locations", "items") else None
    named = {name.replace("_", "-"): value for name, value in given.items()}
    reply = service_of(folder).answer("net", kind, id, named)
    assert reply.status in (200, 400, 404)
    if reply.status != 200:
        assert len(json.loads(reply.body)["description"]) > 20


# The parts.


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=30), st.data())
def test_bounds_hold_what_their_region_holds(points, data):
    lon, lat = (np.array(side) for side in zip(*points, strict=True))
    longitude, latitude = st.floats(-180, 180), st.floats(-90, 90)
    x, y = data.draw(longitude), data.draw(latitude)
    u, v = data.draw(longitude), data.draw(latitude)
    radius = data.draw(st.floats(1, 2_000_000))
    regions = [
        Box(x, min(y, v), u, max(y, v)),
        Circles(((x, y),), radius),
        Shapes((shapely.box(min(x, u), min(y, v), max(x, u) + 200, max(y, v)),)),
        Paths((((x, y), (x + max(-170, min(170, u - x)), v)),), radius),
    ]
    time = np.zeros(len(lon), np.int64)
    for region in regions:
        held = region.holds(lon, lat, time)
        inside = np.zeros(len(lon), bool)
        for west, south, east, north in region.bounds:
            assert -180 <= west <= east <= 180
            inside |= (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
        if not isinstance(region, Paths):  # a path's bounds follow its straight legs
            assert inside[held].all()
    np.testing.assert_allclose(great_circle(lat, lon, lat[0], lon[0])[0], 0, atol=1e-6)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))
def test_an_instant_is_itself(moment):
    text = moment.isoformat(timespec="microseconds") + "Z"
    first, last = interval(text)
    assert (
        first
        == last
        == int((moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
    )
    with pytest.raises(BadRequest):
        interval(f"{text}/{text}/{text}")


def test_a_listing_follows_its_folder(tmp_path):
    files = LocalFiles(tmp_path / "net")
    assert files.windows() == []
    path = write_window(tmp_path / "net", 0)
    assert [one.name for one in files.windows()] == [path.name]
    write_window(tmp_path / "net", 1)
    assert len(files.windows()) == 2
    path.unlink()
    time.sleep(0.1)  # a listing is kept for ten times as long as it took
    assert len(files.windows()) == 1
    assert window_of_name("net_20250101T000000_PT1H.parquet.tmp") is None
    assert window_of_name("net_20259901T000000_PT1H.parquet") is None
    assert engine.stamp(1) == "1970-01-01T00:00:00.000001Z"
