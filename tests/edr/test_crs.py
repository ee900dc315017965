"""Coordinates in the system that a request names: in its own order of axes, in the question and in the answer."""

import csv
import io
import json

import pyproj
import pytest
from windows import PLACES, TEMPERATURE, service_of, write_window

from ionbeam_dagster.edr.crs import Crs, crs_of

RD = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:28992", always_xy=True)
MERCATOR = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:3857", always_xy=True)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows") / "net"
    write_window(folder, 0)
    service = service_of(folder, crs=["EPSG:28992"])

    def ask(kind, status=200, **given):
        named = {name.replace("_", "-"): str(value) for name, value in given.items()}
        reply = service.answer("net", kind, None, {"datetime": "2025-01-01T00:00Z", **named})
        assert reply.status == status, reply.body
        if "csv" in reply.type:
            return list(csv.DictReader(io.StringIO(reply.body.decode()))), reply
        return json.loads(reply.body), reply

    ask.about = service.about("net")
    return ask


def stations(document):
    found = document["coverages"] if document["type"] == "CoverageCollection" else [document]
    return {one["ionbeam:location"]: one for one in found}


@pytest.mark.parametrize(
    ("names", "id"),
    [
        ([None, "", "OGC:CRS84", "[OGC:CRS84]", "CRS84", "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
          "https://www.opengis.net/def/crs/OGC/0/CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84"], "OGC:CRS84"),
        (["EPSG:4326", "epsg:4326", "4326", "http://www.opengis.net/def/crs/EPSG/0/4326", "urn:ogc:def:crs:EPSG::4326"],
         "EPSG:4326"),
        (["EPSG:3857", "http://www.opengis.net/def/crs/EPSG/9.9.1/3857"], "EPSG:3857"),
    ],
)  # fmt: skip
def test_all_names_of_a_system_are_understood(names, id):
    assert {crs_of(name) for name in names} == {Crs(id)}
    assert crs_of("EPSG:28992") is None and crs_of("EPSG:28992", ("EPSG:28992",)) == Crs("EPSG:28992")


def test_latitude_comes_first_where_the_system_has_it_first(ask):
    plain, _ = ask("position", coords="POINT(5 52)", parameter_name=TEMPERATURE)
    turned, reply = ask("position", coords="POINT(52 5)", parameter_name=TEMPERATURE, crs="EPSG:4326")
    assert turned["ranges"] == plain["ranges"]
    assert turned["domain"]["axes"] == plain["domain"]["axes"]  # x is the longitude, whatever comes first
    reference = turned["domain"]["referencing"][0]
    assert reference == {"coordinates": ["y", "x"], "system": {"type": "GeographicCRS", "id": "EPSG:4326"}}
    assert reply.headers["Content-Crs"] == "<http://www.opengis.net/def/crs/EPSG/0/4326>"
    for kind in ("items", "locations", "cube"):
        found, _ = ask(kind, bbox="51.9,4.9,52.05,5.05", crs="EPSG:4326", f="GeoJSON")
        assert {tuple(one["geometry"]["coordinates"]) for one in found["features"]} == {(52.0, 5.0)}
    refused, _ = ask("position", 400, coords="POINT(152 5)", crs="EPSG:4326")
    assert "EPSG:4326 has latitude first" in refused["description"]


@pytest.mark.parametrize(("crs", "to"), [("EPSG:3857", MERCATOR), ("EPSG:28992", RD)])
def test_metres_are_asked_and_answered(ask, crs, to):
    x, y = to.transform(*PLACES[0])
    one, _ = ask("position", coords=f"POINT({x} {y})", parameter_name=TEMPERATURE, crs=crs)
    axes = one["domain"]["axes"]
    assert (axes["x"]["values"], axes["y"]["values"]) == (pytest.approx([x]), pytest.approx([y]))
    assert one["domain"]["referencing"][0]["system"] == {"type": "ProjectedCRS", "id": crs}
    box = f"{x - 500},{y - 500},{x + 500},{y + 500}"
    for kind in ("cube", "items", "locations"):
        found, _ = ask(kind, bbox=box, crs=crs, f="GeoJSON")
        assert [one["geometry"]["coordinates"] for one in found["features"]] == [pytest.approx([x, y])]
    ring = ",".join(f"{x + a} {y + b}" for a, b in ((-9, -9), (9, -9), (9, 9), (-9, 9), (-9, -9)))
    assert list(stations(ask("area", coords=f"POLYGON(({ring}))", crs=crs)[0])) == ["s0"]
    path = f"LINESTRING M({x - 9} {y} 1735689600,{x + 9} {y} 1735693200)"
    assert list(stations(ask("trajectory", coords=path, crs=crs)[0])) == ["s0"]
    rows, _ = ask("cube", bbox=box, crs=crs, f="CSV")
    assert (float(rows[0]["x"]), float(rows[0]["y"])) == pytest.approx((x, y))


def test_what_is_offered_is_told_and_nothing_else_is_taken(ask):
    assert ask.about["crs"] == ["OGC:CRS84", "EPSG:4326", "EPSG:3857", "EPSG:28992"]
    details = ask.about["data_queries"]["position"]["link"]["variables"]["crs_details"]
    assert [one["crs"] for one in details] == ask.about["crs"]
    assert all(pyproj.CRS.from_wkt(one["wkt"]) for one in details)
    refused, _ = ask("position", 400, coords="POINT(5 52)", crs="EPSG:25832")
    assert "offered are OGC:CRS84, EPSG:4326, EPSG:3857, EPSG:28992" in refused["description"]
