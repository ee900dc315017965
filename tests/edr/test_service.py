"""The service over HTTP: conformance, hostile requests, a configuration that changes, pages in a browser."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from browser import picture
from PIL import Image
from pygeoapi.plugin import load_plugin
from serving import Serving
from shapely import from_wkt
from typer.testing import CliRunner
from windows import PLACES, TEMPERATURE, write_window

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.edr.conformance import examine
from ionbeam_dagster.edr.served import update_configuration
from ionbeam_dagster.errors import ServiceError
from ionbeam_dagster.pipeline.recovery import open_platform


def test_the_service_conforms(served):
    with httpx.Client(timeout=30) as client:
        results = list(examine(client, served.url))
    assert len(results) > 28
    assert [result for result in results if result.faults] == []
    assert {result.suite for result in results} == {
        "EDR core", "EDR collections", "EDR queries", "Features core", "EUMETNET profile"
    }  # fmt: skip
    classes = httpx.get(f"{served.url}/conformance").json()["conformsTo"]
    for name in ("edr-1/1.1/conf/core", "edr-1/1.0/conf/core", "features-1/1.0/conf/core", "rodeo-edr-profile/1"):
        assert any(name in one for one in classes), name


class Spoiling(httpx.HTTPTransport):
    """Asks the real service, and spoils its answers in one way, or keeps a parameter from it."""

    def __init__(self, spoil) -> None:
        super().__init__()
        self._spoil = spoil

    def handle_request(self, request):
        if isinstance(self._spoil, str):
            request.url = request.url.copy_remove_param(self._spoil)
            return super().handle_request(request)
        answer = super().handle_request(request)
        body = answer.read()
        kept = {"content-type": answer.headers["content-type"]}
        status, headers, body = self._spoil(request.url.path, answer.status_code, kept, body)
        return httpx.Response(status, headers=headers, content=body)


def replaced(old: bytes, new: bytes, where: str = ""):
    return lambda path, status, headers, body: (status, headers, body.replace(old, new) if where in path else body)


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (replaced(b"service-d", b"x-d"), "landing page"),
        (replaced(b"ogcapi-edr-1/1", b"ogcapi-edr-9/1"), "conformance document"),
        (replaced(b'"parameter_names"', b'"names"'), "collection is as edr-pydantic"),
        (replaced(b'"metocean:level"', b'"level"', "/collections"), "tell standard name"),
        (replaced(b'"OGC:CRS84"', b'"EPSG:4326"', "/area"), "CRS84"),
        (replaced(b'"shape":[18,', b'"shape":[19,', "/position"), "position: answers"),
        ("datetime", "cube: an interval"),
        ("parameter-name", "area: an interval"),
        (replaced(b'"id":"2025', b'"id":"2026', "/items/"), "one item by its id"),
        (replaced(b'"rel":"next"', b'"rel":"more"'), "items: GeoJSON"),
        (lambda p, s, h, b: (200 if s == 400 else s, h, b), "refused with 400"),
        (lambda p, s, h, b: (s, {"content-type": "application/json"} if "/radius" in p else h, b), "radius: answers"),
        (lambda p, s, h, b: (500 if "/trajectory" in p else s, h, b), "trajectory: answers"),
    ],
)
def test_a_service_that_does_not_conform_is_told_so(served, spoil, name):
    with httpx.Client(transport=Spoiling(spoil), timeout=30) as client:
        failed = [result.name for result in examine(client, served.url) if result.faults]
    assert any(name in one for one in failed), failed


def test_the_command_prints_what_fails(served):
    runner = CliRunner()
    done = runner.invoke(app, ["conformance", served.url, "-v"])
    assert done.exit_code == 0 and "0 fail" in done.output and "EUMETNET profile" in done.output
    nowhere = runner.invoke(app, ["conformance", "http://127.0.0.1:9"])
    assert nowhere.exit_code == 1 and "cannot be reached" in nowhere.output


def hostile(url: str, seconds: int, folder: Path) -> str:
    """What schemathesis says after that long."""
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi", "--continue-on-failure"]
    command += ["--max-time", str(seconds), "--phases", "examples,coverage,fuzzing", "--seed", "1"]
    command += ["-c", "not_a_server_error,status_code_conformance,content_type_conformance"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def test_the_openapi_document_has_what_followers_ask(served):
    paths = httpx.get(f"{served.url}/openapi?f=json").json()["paths"]
    assert {*paths["/collections/{collectionId}/changes"]} == {"get", "post"}
    assert "200" in paths["/collections/{collectionId}/windows/{window}"]["get"]["responses"]


def test_no_request_of_the_openapi_document_makes_a_fault(served, tmp_path):
    assert re.search(r"(\d+) generated, \1 passed", hostile(served.url, 3, tmp_path))
    assert "a request failed" not in served.log()


@pytest.mark.soak
def test_no_request_makes_a_fault_in_minutes(served, tmp_path):
    hostile(served.url, 300, tmp_path)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/collections/..%2f..%2fetc%2fpasswd/items", 404),
        ("/collections/net/locations/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/collections/net/items/%00", 404),
        ("/collections/net/position/more?coords=POINT(5%2052)", 404),
        ("/collections/net%27;drop/area", 404),
        ("/collections/net/items?limit=999999999", 200),
        ("/map/stations?collection=nothing", 404),
        ("/map/stations?parameter=nothing", 400),
        ("/collections/x%0A9/position?coords=POINT(5%2052)", 404),
        ("/collections/s/locations/1?f=html", 404),
        ("/nothing?f=html", 404),
        ("/collections/net/instances", 404),
        ("/collections/net/instances/a/position?coords=POINT(5%2052)", 404),
        ("/collections/net/corridor?coords=LINESTRING(5%2052,6%2053)", 404),
        ("/collections/net/coverage", 404),
        ("/collections/net/queryables", 200),
        ("/collections/net/cube?bbox=4,51,6,53&bbox=1,2,3,4", 400),
        ("/collections?f=%3Cscript%3E", 400),
        ("/collections/net?f=x", 400),
    ],
)
def test_paths(served, path, status):
    answer = httpx.get(served.url + path)
    assert answer.status_code == status
    if status != 200:
        assert len(answer.json()["description"]) > 10


def test_answers_are_cached_and_compressed_as_a_proxy_likes_it(served):
    url = f"{served.url}/collections/net/items"
    answer = httpx.get(url)
    assert answer.headers["content-encoding"] == "gzip" and "max-age" in answer.headers["cache-control"]
    again = httpx.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert httpx.head(url).status_code == 200 and httpx.post(url).status_code == 405
    assert httpx.put(f"{served.url}/conformance").json()["code"] == "InvalidMethod"


def test_the_map_has_the_newest_value_of_every_station_and_its_flag(served):
    told = httpx.get(f"{served.url}/map/stations").json()
    assert told["parameter"] == TEMPERATURE and told["window"][0] == "2025-01-01T02:00:00Z"
    assert [(one["id"], one["value"], one["flag"]) for one in told["stations"]] == [
        (f"s{number}", pytest.approx(number + 0.02), 4 if number == 0 else 1) for number in range(len(PLACES))
    ]
    page = httpx.get(f"{served.url}/map").text
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)  # nothing from outside
    assert len(httpx.get(f"{served.url}/map/coastline").json()["land"]) > 500


def test_pages_need_nothing_from_outside(served):
    for path in ("/?f=html", "/collections?f=html", "/collections/net?f=html", "/collections/net/items?f=html",
                 "/collections/net/area?f=html&coords=POLYGON((4 51,7 51,7 53,4 53,4 51))"):  # fmt: skip
        page = httpx.get(served.url + path)
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        loaded = re.findall(
            r"""<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)=["'](https?://[^"']+)""", page.text
        )
        assert [one for one in loaded if not one.startswith(served.url)] == [], path


OWN = """
    # mine
    own:
        type: collection
        title: Own
        description: by hand
        keywords: [x]
        links: []
        extents: {spatial: {bbox: [0, 0, 1, 1]}}
        providers: [{type: feature, name: GeoJSON, data: FILE, id_field: id}]
"""


def test_a_configuration_is_kept_up_to_date_and_taken_up(tmp_path):
    serving = Serving(tmp_path, ["net", "other"])
    write_window(serving.windows / "net", 0)
    file = tmp_path / "own.json"
    file.write_text('{"type": "FeatureCollection", "features": []}')
    with serving:
        written = serving.config.read_text()
        assert list(yaml.safe_load(written)["resources"]) == ["net"]
        edited = written.replace("title: net", "title: My network").replace("server:\n", "# by hand\nserver:\n", 1)
        serving.config.write_text(edited.replace("resources:\n", f"resources:{OWN.replace('FILE', str(file))}", 1))
        write_window(serving.windows / "other", 5)
        write_window(serving.windows / "net", 3)
        platform = open_platform(IonbeamConfig.load(serving.yaml))
        path, extents = update_configuration(platform.config)
        after = path.read_text()
        assert "# by hand" in after and "# mine" in after
        config = yaml.safe_load(after)
        assert set(config["resources"]) == {"own", "net", "other"}
        net = config["resources"]["net"]
        assert net["title"] == "My network"
        assert str(net["extents"]["temporal"]["begin"]) == "2025-01-01 00:00:00+00:00"
        assert str(net["extents"]["temporal"]["end"]) == "2025-01-01 03:50:00+00:00"
        lon, lat = zip(*PLACES, strict=True)
        assert net["extents"]["spatial"]["bbox"] == [min(lon), min(lat), max(lon), max(lat)]
        assert extents["net"].rows == 2 * 6 * len(PLACES)
        before = path.stat().st_mtime_ns
        update_configuration(platform.config)
        assert path.stat().st_mtime_ns == before
        for _ in range(100):
            listed = httpx.get(f"{serving.url}/collections").json()["collections"]
            if len(listed) == 3:
                break
            time.sleep(0.1)
        assert {one["id"]: one["title"] for one in listed} == {"own": "Own", "net": "My network", "other": "other"}
        serving.config.write_text("resources: [")
        time.sleep(1.5)
        assert len(httpx.get(f"{serving.url}/collections").json()["collections"]) == 3
    assert "stays in use" in serving.log()
    with pytest.raises(ServiceError, match="is not YAML"):
        update_configuration(platform.config)
    assert serving.config.read_text() == "resources: ["


def test_a_pygeoapi_of_somebody_else_takes_the_providers(served):
    resource = yaml.safe_load(served.config.read_text())["resources"]["net"]
    edr, features = (load_plugin("provider", provider) for provider in resource["providers"])
    assert TEMPERATURE in edr.get_fields() and TEMPERATURE in features.get_fields()
    assert set(edr.get_query_types()) == {"position", "radius", "area", "cube", "trajectory", "locations"}
    shared = {
        "format_": "json",
        "datetime_": "2025-01-01T00:00:00Z/..",
        "select_properties": [TEMPERATURE],
        "limit": 10,
    }
    point = edr.query(query_type="position", wkt=from_wkt("POINT(5 52)"), **shared)
    assert point["ranges"][TEMPERATURE]["values"][0] == 0.0
    cube = edr.query(query_type="cube", bbox=[4, 51.5, 7, 53], **shared)
    assert len(cube["coverages"]) == 2
    assert edr.query(query_type="locations", location_id="s1", **shared)["ionbeam:location"] == "s1"
    assert len(edr.query(query_type="locations", location_id=None, **shared)["features"]) == len(PLACES)
    page = features.query(offset=3, limit=5, bbox=[], datetime_=None)
    assert len(page["features"]) == 5 and page["numberMatched"] == 3 * 6 * len(PLACES)
    assert features.get(page["features"][0]["id"])["id"] == page["features"][0]["id"]
    json.dumps(page)


# In a browser.


SEA, LAND, HEAD, CURVE, FAILED = (232, 240, 246), (251, 250, 246), (15, 42, 67), (185, 28, 28), (220, 38, 38)


@pytest.mark.parametrize(
    ("path", "size", "shown"),
    [
        pytest.param("/?f=html", "1200,800", {HEAD}, marks=pytest.mark.soak),
        pytest.param("/map", "1200,800", {HEAD, SEA, LAND, FAILED}, marks=pytest.mark.soak),
        ("/map?station=s1", "390,844", {HEAD, SEA, LAND, CURVE}),
    ],
    ids=["landing page", "map", "map on a phone with a series"],
)
def test_a_browser_shows(served, tmp_path, path, size, shown):
    pixels = np.asarray(Image.open(picture(served.url + path, size, tmp_path)).convert("RGB")).reshape(-1, 3)
    assert shown <= {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}


def test_pages_run_and_load_nothing_of_others(served):
    for path in ("/", "/map", "/openapi?f=html", "/collections/net?f=html", "/collections/net/items", "/nothing"):
        answer = httpx.get(served.url + path, headers={"Accept": "text/html"})
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'", path
        assert policy["script-src"].startswith("'sha256-") is (path == "/map")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "unpkg" not in answer.text
    requests = httpx.get(served.url + "/openapi?f=html").text
    assert "/collections/{collectionId}/cube" in requests and "west,south,east,north" in requests


def test_methods_and_forms_are_kept_to(served):
    for path in ("/", "/collections", "/collections/net", "/collections/net/items", "/map", "/map/stations", "/health"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            refused = httpx.request(method, served.url + path)
            assert refused.status_code == 405 and "GET" in refused.headers["allow"], (method, path)
    items = f"{served.url}/collections/net/items?limit=1"
    for asked, given in (
        ("text/csv", "text/csv; charset=utf-8"),
        ("application/geo+json", "application/geo+json"),
        ("*/*", "application/geo+json"),
        ("text/csv;q=0.1, application/geo+json", "application/geo+json"),
    ):
        assert httpx.get(items, headers={"Accept": asked}).headers["content-type"] == given
    one = httpx.get(f"{served.url}/collections/net/locations/s1", headers={"Accept": "application/geo+json"})
    assert one.headers["content-type"] == "application/geo+json"
    assert "Ionbeam-Notes" in one.headers["access-control-expose-headers"]


def test_links_of_a_configuration_that_would_run_are_left_out(tmp_path):
    serving = Serving(tmp_path, ["net"])
    write_window(serving.windows / "net", 0)
    with serving:
        edited = yaml.safe_load(serving.config.read_text())
        edited["resources"]["net"]["links"] = [
            {"type": "text/html", "rel": "about", "title": name, "href": href}
            for name, href in (
                ("mine", "https://example.org/"),
                ("runs", "JavaScript:alert(1)"),
                ("d", "data:text/html,x"),
            )
        ]
        serving.config.write_text(yaml.safe_dump(edited))
        for _ in range(100):
            links = [one["href"] for one in httpx.get(f"{serving.url}/collections/net").json()["links"]]
            if "https://example.org/" in links:
                break
            time.sleep(0.1)
        assert "https://example.org/" in links and all(one.startswith("http") for one in links)
        assert "alert(1)" not in httpx.get(f"{serving.url}/collections/net?f=html").text
    assert "2 links are left out" in serving.log()
