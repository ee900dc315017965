"""Nothing is left out in silence: what a bound, a fault or a filter leaves out is told, and can be had."""

import csv
import io
import json
import time
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from serving import Serving
from windows import PLACES, TEMPERATURE, WIND, service_of, write_window

from ionbeam_dagster.edr import service as service_module
from ionbeam_dagster.edr.configuration import Served, update
from ionbeam_dagster.edr.service import Service

WORLD = "-180,-90,180,90"
EVERY = {(hour, step, station) for hour in range(3) for step in range(6) for station in range(len(PLACES))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("left-out") / "net"
    for hour in range(3):
        write_window(place, hour)
    return place


def followed(service, kind, id=None, change=lambda n: None, **given):
    """Replies to a request and to the links `next` of it, in order."""
    replies = [service.answer("net", kind, id, given)]
    while (link := replies[-1].headers.get("Link")) is not None:
        assert replies[-1].status == 200, replies[-1].body
        assert 'rel="next"' in link and len(replies) < 200
        url = urlsplit(link[1 : link.index(">")])
        assert url.path == f"/collections/net/{kind}" + (f"/{id}" if id else "")
        change(len(replies))
        replies.append(service.answer("net", kind, id, dict(parse_qsl(url.query))))
    assert replies[-1].status == 200, replies[-1].body
    return replies


def rows_of(reply):
    """(hour, ten minutes, station) of the rows in CSV."""
    return [
        (int(one["datetime"][11:13]), int(one["datetime"][14]), int(one["location"][1:]))
        for one in csv.DictReader(io.StringIO(reply.body.decode()))
    ]


@pytest.mark.parametrize("limit", ["1", "3", "7", "10", "50", "1000"])
@pytest.mark.parametrize(
    ("kind", "id", "asked", "stations"),
    [
        ("cube", None, {"bbox": WORLD}, range(7)),
        ("cube", None, {"bbox": WORLD, "datetime": "2025-01-01T00:20Z/2025-01-01T01:30Z"}, range(7)),
        ("cube", None, {"bbox": WORLD, "datetime": "../.."}, range(7)),
        ("area", None, {"coords": "POLYGON((4 50,7 50,7 53,4 53,4 50))"}, range(3)),
        ("radius", None, {"coords": "POINT(5 52)", "within": "50", "within-units": "km"}, range(2)),
        ("locations", "s1", {}, [1]),
    ],
)
def test_who_follows_next_has_every_row_once_the_newest_first(folder, kind, id, asked, stations, limit):
    replies = followed(service_of(folder), kind, id, limit=limit, f="CSV", **asked)
    rows = [rows_of(reply) for reply in replies]
    given = [row for page in rows for row in page]
    expected = {row for row in EVERY if row[2] in stations}
    if "T00:20Z" in asked.get("datetime", ""):
        expected = {row for row in expected if (0, 2) <= row[:2] <= (1, 3)}
    assert set(given) == expected and len(given) == len(expected)
    assert all(0 < len(page) <= int(limit) for page in rows)
    assert all(max(after)[:2] <= min(before)[:2] for before, after in pairwise(rows))


def test_next_stands_in_every_form_and_its_page_keeps_to_the_same_day(folder, tmp_path):
    service = service_of(folder)
    for form, member in (("CoverageJSON", "ionbeam:links"), ("GeoJSON", "links")):
        reply = service.answer("net", "cube", None, {"bbox": WORLD, "limit": "10", "f": form})
        [link] = json.loads(reply.body)[member]
        assert f'<{link["href"]}>; rel="next"' in reply.headers["Link"] and f"f={form}" in link["href"]
    place = tmp_path / "net"
    for hour in range(26):
        write_window(place, hour, places=PLACES[:1])
    on = followed(service_of(place), "cube", bbox=WORLD, f="CSV", limit="40",
                  change=lambda n: write_window(place, 26 + n, places=PLACES[:1]))  # fmt: skip
    assert sum(len(rows_of(reply)) for reply in on) == 24 * 6  # windows that come do not move where the day begins
    whole = followed(service_of(place), "cube", bbox=WORLD, f="CSV", datetime="../..")
    assert sum(len(rows_of(reply)) for reply in whole) == (26 + len(on) - 1) * 6


def test_next_cannot_be_made_up(folder):
    for after in ("x", "1.%", "1.a", "1.2.3", "99999999999999999999", "1735689600000000.-"):
        assert service_of(folder).answer("net", "cube", None, {"bbox": WORLD, "after": after}).status == 400, after


def test_locations_go_on_and_are_those_that_have_a_value(folder):
    service = service_of(folder)
    pages = followed(service, "locations", f="CSV", limit="3")
    listed = [[one["location"] for one in csv.DictReader(io.StringIO(page.body.decode()))] for page in pages]
    assert listed == [["s0", "s1", "s2"], ["s3", "s4", "s5"], ["s6"]]
    assert "7 locations were found, 3 are given" in pages[0].headers["Ionbeam-Notes"]
    as_page = service.answer("net", "locations", None, {"limit": "3"}, as_page=True)
    assert b"7 locations were found" in as_page.body
    windy = json.loads(service.answer("net", "locations", None, {"parameter-name": WIND}).body)
    assert [one["id"] for one in windy["features"]] == ["s1", "s3", "s5"]  # the others have none of it
    rainy = json.loads(service.answer("net", "locations", None, {"standard-name": "precipitation_amount"}).body)
    assert rainy["features"] == []


def test_a_header_says_how_many_notes_have_no_room_in_it(tmp_path, monkeypatch):
    place = tmp_path / "net"
    for hour in range(12):
        write_window(place, hour, places=PLACES[:1]).write_bytes(b"damaged")
    write_window(place, 12, places=PLACES[:1])
    monkeypatch.setattr(service_module, "LONGEST_NOTES", 300)
    reply = service_of(place).answer("net", "items", None, {"f": "CSV"})
    told = reply.headers["Ionbeam-Notes"].split("; ")
    assert len(told) == 4 and told[-1] == "and 9 more, which f=GeoJSON has all"
    # What is looked for may stand in what cannot be read.
    for kind, id in (("items", "20250101T010000Z-0123456789abcdef"), ("locations", "s5")):
        gone = service_of(place).answer("net", kind, id, {})
        assert gone.status == 404 and b"cannot be read and is left out" in gone.body


TYPES = [pa.string(), pa.bool_(), pa.int64(), pa.float32(), pa.list_(pa.float64()), pa.struct([("x", pa.int8())]),
         pa.binary(), pa.timestamp("us"), pa.decimal128(9, 2), pa.dictionary(pa.int32(), pa.string()), pa.null(),
         pa.date32()]  # fmt: skip


@pytest.mark.parametrize("column", ["air_temperature", "flag", "station_id", "station_name", "id", "lat", "datetime"])
@pytest.mark.parametrize("type", TYPES, ids=str)
def test_no_type_of_a_column_takes_the_collection_with_it(tmp_path, column, type):
    place = tmp_path / "net"
    files = [write_window(place, hour, flags=True, places=PLACES[:2]) for hour in range(3)]
    for spoilt in (files[1], files[2]):
        table = pq.read_table(spoilt)
        is_it = (lambda one: one.endswith("__flag")) if column == "flag" else lambda one: one.split("__")[0] == column
        at = next(at for at, one in enumerate(table.column_names) if is_it(one))
        value = {pa.binary(): b"\xff", pa.bool_(): True, pa.int64(): 1, pa.float32(): 1.0}.get(type)
        field = table.schema.field(at).with_type(type).with_nullable(True)
        pq.write_table(table.set_column(at, field, pa.array([value] * len(table), type)), spoilt)
        for kind, id, asked in (
            ("cube", None, {"bbox": WORLD}), ("position", None, {"coords": "POINT(5 52)"}), ("locations", None, {}),
            ("locations", "s0", {}), ("items", None, {}), ("items", None, {"bbox": WORLD}),
        ):  # fmt: skip
            for form in ("GeoJSON", "CSV"):
                reply = service_of(place).answer("net", kind, id, {"f": form, **asked})
                assert reply.status == 200, (kind, form, reply.body)
                notes = reply.headers.get("Ionbeam-Notes", "")
                told = {hour for hour in range(3) if f"the window 2025-01-01T0{hour}" in notes}
                given = {hour for hour in range(3) if f"T0{hour}:".encode() in reply.body}
                assert kind in ("locations", "position") or given | told == {0, 1, 2}, (kind, form, notes)
            if kind != "items" and (kind, id) != ("locations", None):
                assert service_of(place).answer("net", kind, id, asked).status == 200


SKY = "x_sky__1__0.0__point__PT0S"


def with_sky(place, hour, values):
    """A window, and in it a column of a source that the others of the dataset lack."""
    file = write_window(place, hour, places=PLACES[:1])
    table = pq.read_table(file)
    values = pa.array([values] * len(table))
    pq.write_table(table.append_column(pa.field(SKY, values.type, metadata={"role": "variable"}), values), file)


def without_sky(place, hours):
    one = write_window(place, hours[0], places=PLACES[:1]) if hours else None
    for hour in hours[1:]:  # the rows of the first one: quicker, and of no matter here
        day, of_day = divmod(hour, 24)
        (place / f"net_202501{1 + day:02}T{of_day:02}0000_PT1H.parquet").write_bytes(one.read_bytes())


def asked_for_all(tmp_path):
    path = tmp_path / "config.yml"
    update(path, tmp_path, [Served("net", tmp_path / "net")])
    service = Service(yaml.safe_load(path.read_text()), "http://service.test")
    reply = service.answer("net", "cube", None, {"bbox": WORLD, "datetime": "../..", "f": "GeoJSON"})
    assert reply.status == 200
    body = json.loads(reply.body)
    of_sky = [one["properties"]["x_sky:0.0:point:PT0S"] for one in body["features"]
              if one["properties"].get("x_sky:0.0:point:PT0S") is not None]  # fmt: skip
    return len(body["features"]), of_sky, body.get("notes", [])


@pytest.mark.parametrize("value", ["fair", True, 1.5])
@pytest.mark.parametrize("lacking", [1, 25])
def test_what_the_newest_windows_lack_is_given_of_earlier_ones(tmp_path, value, lacking):
    for hour in range(2):
        with_sky(tmp_path / "net", hour, value)
    without_sky(tmp_path / "net", range(2, 2 + lacking))
    assert asked_for_all(tmp_path) == ((2 + lacking) * 6, [value] * 12, [])


@pytest.mark.parametrize("lacking", [0, 1, 25])
def test_where_types_differ_one_of_them_is_given_and_the_other_told(tmp_path, lacking):
    with_sky(tmp_path / "net", 0, 1.5)
    with_sky(tmp_path / "net", 1, True)
    without_sky(tmp_path / "net", range(2, 2 + lacking))
    rows, values, notes = asked_for_all(tmp_path)
    assert rows == (1 + lacking) * 6 and values in ([True] * 6, [1.5] * 6)
    assert len(notes) == 1 and "of another type than in other windows" in notes[0]


def test_a_row_that_a_revision_takes_away_doubles_no_other(tmp_path):
    place = tmp_path / "net"
    file = write_window(place, 0, places=PLACES[:2])
    table = pq.read_table(file)
    whole = table.column("id").to_pylist()

    def without(n):
        if n == 1:
            kept = table.filter(pa.array([id != whole[3] for id in whole]))
            pq.write_table(kept, file.with_name(".draft"))
            file.with_name(".draft").rename(file)

    pages = [json.loads(reply.body) for reply in followed(service_of(place), "items", limit="4", change=without)]
    assert [one["id"] for page in pages for one in page["features"]] == whole
    assert "was revised since the page before" in pages[1]["notes"][0]
    assert "notes" not in pages[2]


def test_a_page_names_coordinates_as_the_system_has_them(folder):
    for crs, heads in (("OGC:CRS84", "lon lat"), ("EPSG:4326", "lat lon"), ("EPSG:3857", "x y")):
        page = service_of(folder).answer("net", "items", None, {"limit": "1", "crs": crs}, as_page=True).body.decode()
        assert "".join(f"<th>{head}</th>" for head in heads.split()) in page, crs


def test_every_location_that_is_listed_answers(tmp_path):
    place = tmp_path / "net"
    file = write_window(place, 0, places=PLACES[:1])
    table = pq.read_table(file)
    at = table.column_names.index("station_id")
    ids = ["A" * 300, "bidi\u202eid", "line\nbreak", "a/b?c=d#e&f", "../../etc/passwd", "x%2e%00"]
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(ids)), file)
    service = service_of(place)
    listed = json.loads(service.answer("net", "locations", None, {}).body)["features"]
    assert {one["id"] for one in listed} == set(ids)
    for id in ids:
        assert service.answer("net", "locations", id, {}).status == 200, id


def test_a_dataset_is_served_as_soon_as_it_has_a_window(tmp_path):
    serving = Serving(tmp_path, ["net", "other"])
    serving.looked_every = 0.5

    def served(name):
        for _ in range(600):
            told = {one["id"]: one for one in httpx.get(f"{serving.url}/collections").json()["collections"]}
            if name in told:
                return told
            time.sleep(0.1)
        raise AssertionError(f"{name} is not served: {serving.log()}")

    with serving:
        assert httpx.get(f"{serving.url}/collections").json()["collections"] == []
        write_window(serving.windows / "net", 0)
        told = served("net")
        assert list(told) == ["net"] and TEMPERATURE in told["net"]["parameter_names"]
        assert len(httpx.get(f"{serving.url}/map/stations").json()["stations"]) == len(PLACES)
        for window in (serving.windows / "net").iterdir():
            window.unlink()
        write_window(serving.windows / "other", 0)
        assert set(served("other")) == {"net", "other"}  # the service has looked again
        assert httpx.get(f"{serving.url}/collections/net/items").json()["features"] == []
