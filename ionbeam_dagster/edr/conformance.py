"""Does a service keep to OGC API EDR, OGC API Features and the EUMETNET metocean profile?

Belongs here: the checks, which ask any service over HTTP and know nothing of ours. Does not belong here: how they are
shown (cli/conformance.py). Answers are read with covjson-pydantic and edr-pydantic; the tests of our own service run
the same checks.

The checks follow the abstract test suites of OGC 19-086r6 (EDR 1.0 and 1.1) and 17-069r4 (Features, core), and the
rules of the RODEO/EUMETNET profile of in-situ observations. Checks of a query that is not offered are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

if TYPE_CHECKING:
    import httpx

METHODS = (
    "point", "sum", "maximum", "median", "mid_range", "minimum", "mean", "mode", "range", "standard_deviation",
    "variance",
)  # fmt: skip
PARAMETER_ID = re.compile(r"^[A-Za-z0-9_]+:-?\d+(\.\d+)?:[a-z_]+:P[0-9TYMWDHS.]+$")
RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
COVJSON = ("application/vnd.cov+json", "application/prs.coverage+json")
GEOJSON = ("application/geo+json", "application/vnd.geo+json")
CORE = re.compile(r"^https?://www\.opengis\.net/spec/ogcapi-edr-1/1\.[0-9]/conf/core$")


@dataclass(frozen=True, slots=True)
class Result:
    """One check: of which document, what it looks at, and what is wrong (nothing: it passed)."""

    suite: str
    name: str
    faults: tuple[str, ...]
    collection: str = ""


Faults = Iterator[str]
_CHECKS: list[tuple[str, str, str, Callable[..., Faults]]] = []


def _check(suite: str, name: str, of: str = "service") -> Callable[[Callable[..., Faults]], Callable[..., Faults]]:
    def kept(function: Callable[..., Faults]) -> Callable[..., Faults]:
        _CHECKS.append((suite, name, of, function))
        return function

    return kept


class Service:
    """What is asked: a client and an address."""

    def __init__(self, client: httpx.Client, base: str) -> None:
        self._client = client
        self.base = base.rstrip("/") + "/"

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        named = {name.replace("_", "-"): str(value) for name, value in parameters.items() if value is not None}
        headers = {"Accept": "application/json, application/geo+json, application/vnd.cov+json;q=0.9, */*;q=0.1"}
        return self._client.get(urljoin(self.base, path.lstrip("/")), params=named or None, headers=headers)

    def json(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        answer.raise_for_status()
        return answer.json()


@dataclass(slots=True)
class Sample:
    """A collection and something that is in it: a station's place and id, and an interval with observations."""

    id: str
    document: dict[str, Any]
    point: tuple[float, float] | None = None
    location: str | None = None
    interval: str | None = None
    queries: set[str] = field(default_factory=set)

    @property
    def path(self) -> str:
        return f"collections/{quote(self.id, safe='')}"

    @property
    def box(self) -> tuple[float, float, float, float]:
        lon, lat = self.point or (0.0, 0.0)
        return max(lon - 0.5, -180), max(lat - 0.5, -90), min(lon + 0.5, 180), min(lat + 0.5, 90)

    def asked(self, query: str) -> dict[str, str]:
        """Parameters of a query around the station."""
        lon, lat = self.point or (0.0, 0.0)
        west, south, east, north = self.box
        ring = f"{west} {south},{east} {south},{east} {north},{west} {north},{west} {south}"
        place = {
            "position": {"coords": f"POINT({lon} {lat})"},
            "radius": {"coords": f"POINT({lon} {lat})", "within": "10", "within_units": "km"},
            "area": {"coords": f"POLYGON(({ring}))"},
            "cube": {"bbox": f"{west},{south},{east},{north}"},
            "trajectory": {"coords": f"LINESTRING({lon - 0.1} {lat},{lon + 0.1} {lat})"},
        }
        return place.get(query, {}) | ({"datetime": self.interval} if self.interval else {})


def examine(client: httpx.Client, base: str, most: int = 3) -> Iterator[Result]:
    """Run every check on a service and on its first collections, at most `most` of them."""
    service = Service(client, base)
    samples: list[Sample] = []
    try:
        documents = service.json("collections").get("collections", [])
        samples = [_sample(service, one) for one in documents[:most]]
    except Exception as error:
        yield Result("EDR core", "collections can be read", (f"{type(error).__name__}: {error}",))
    for suite, name, of, function in _CHECKS:
        if of == "service":
            yield Result(suite, name, _faults(function, service))
            continue
        for sample in samples:
            if of in ("collection", "observed") or of in sample.queries:
                if of == "observed" and sample.point is None:
                    continue
                yield Result(suite, name, _faults(function, service, sample), sample.id)


def _faults(function: Callable[..., Faults], *given: Any) -> tuple[str, ...]:
    try:
        return tuple(function(*given))
    except Exception as error:
        return (f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",)


def _sample(service: Service, document: dict[str, Any]) -> Sample:
    sample = Sample(str(document["id"]), document, queries=set(document.get("data_queries") or ()))
    interval = ((document.get("extent") or {}).get("temporal") or {}).get("interval") or [[None, None]]
    if interval[0][1]:
        sample.interval = f"{interval[0][1][:10]}/.."
    for path in ("locations", "items"):
        answer = service.get(f"{sample.path}/{path}", datetime=sample.interval, limit=5 if path == "items" else None)
        features = answer.json().get("features") if answer.status_code == 200 else None
        if features:
            first = features[0]
            lon, lat = first["geometry"]["coordinates"][:2]
            sample.point, sample.location = (lon, lat), str(first["id"]) if path == "locations" else None
            break
    return sample


def _links(document: dict[str, Any]) -> set[str]:
    return {str(link.get("rel")) for link in document.get("links") or ()}


# The service.


@_check("EDR core", "the landing page links to the service's description, conformance and collections")
def _landing(service: Service) -> Faults:
    answer = service.get("")
    if answer.status_code != 200:
        yield f"GET / answers {answer.status_code}, not 200"
        return
    rels = _links(answer.json())
    for what, allowed in {
        "service description": {"service-desc", "service-doc"},
        "conformance": {"conformance", "http://www.opengis.net/def/rel/ogc/1.0/conformance"},
        "collections": {"data", "http://www.opengis.net/def/rel/ogc/1.0/data"},
    }.items():
        if not rels & allowed:
            yield f"the landing page has no link to the {what} (rel {' or '.join(sorted(allowed))})"


@_check("EDR core", "the conformance document names EDR core")
def _conformance(service: Service) -> Faults:
    classes = service.json("conformance").get("conformsTo")
    if not isinstance(classes, list):
        yield "conformsTo is no list"
    elif not any(CORE.match(name) for name in classes):
        yield "conformsTo names no http://www.opengis.net/spec/ogcapi-edr-1/1.x/conf/core"


@_check("EDR core", "the API definition is an OpenAPI document that has the paths of the collections")
def _api(service: Service) -> Faults:
    landing = service.json("")
    link = next((one for one in landing.get("links", ()) if one.get("rel") == "service-desc"), None)
    if link is None:
        yield "no link service-desc on the landing page"
        return
    answer = service.get(link["href"])
    document = answer.json()
    if not str(document.get("openapi", "")).startswith("3."):
        yield "it does not say openapi: 3.x"
    if not any(path.startswith("/collections") for path in document.get("paths", {})):
        yield "it has no path /collections"
    if "openapi" not in answer.headers.get("content-type", "") and "json" not in answer.headers.get("content-type", ""):
        yield f"its content type is {answer.headers.get('content-type')}"


@_check("EDR core", "the collections document is as edr-pydantic has it, and links to itself")
def _collections(service: Service) -> Faults:
    from edr_pydantic.collections import Collections
    from pydantic import ValidationError

    answer = service.get("collections")
    document = answer.json()
    if "self" not in _links(document):
        yield "no link with rel self"
    if not document.get("collections"):
        yield "it lists no collection"
    try:
        Collections.model_validate_json(answer.content)
    except ValidationError as error:
        yield from _told(error)


@_check("EDR core", "what is not there answers 404, what cannot be understood 400, and neither 500")
def _refusals(service: Service) -> Faults:
    if (status := service.get("collections/this-is-no-collection").status_code) != 404:
        yield f"an unknown collection answers {status}, not 404"
    if (status := service.get("this-is-no-path").status_code) != 404:
        yield f"an unknown path answers {status}, not 404"


def _told(error: Any) -> Faults:
    for one in error.errors()[:5]:
        yield f"{'.'.join(map(str, one['loc']))}: {one['msg']}"


# A collection.


@_check("EDR collections", "the collection is as edr-pydantic has it, and the same as in the list", "collection")
def _collection(service: Service, sample: Sample) -> Faults:
    from edr_pydantic.collections import Collection
    from pydantic import ValidationError

    answer = service.get(sample.path)
    if answer.status_code != 200:
        yield f"it answers {answer.status_code}"
        return
    document = answer.json()
    if document.get("id") != sample.id:
        yield f"its id is {document.get('id')!r}"
    if document.get("data_queries", {}).keys() != (sample.document.get("data_queries") or {}).keys():
        yield "its data_queries differ from those in the list"
    try:
        Collection.model_validate_json(answer.content)
    except ValidationError as error:
        yield from _told(error)


@_check("EDR collections", "extent, parameters and links are told", "collection")
def _extent(service: Service, sample: Sample) -> Faults:
    document = sample.document
    bbox = ((document.get("extent") or {}).get("spatial") or {}).get("bbox") or [[]]
    if len(bbox[0]) not in (4, 6):
        yield "extent.spatial.bbox does not hold a box of 4 or 6 numbers"
    elif not (-90 <= bbox[0][1] <= bbox[0][len(bbox[0]) // 2 + 1] <= 90):
        yield f"extent.spatial.bbox {bbox[0]} is no box"
    for moment in ((document.get("extent") or {}).get("temporal") or {}).get("interval", [[]])[0]:
        if moment not in (None, "..") and not RFC3339.match(str(moment)):
            yield f"extent.temporal.interval has {moment!r}, which is not RFC 3339"
    if not document.get("parameter_names"):
        yield "parameter_names is missing or empty"
    for query, one in (document.get("data_queries") or {}).items():
        link = one.get("link") or {}
        if not link.get("href"):
            yield f"data_queries.{query} has no link"
        elif "{" not in link["href"] and f"/{query}" not in link["href"]:
            yield f"data_queries.{query} links to {link['href']}"


@_check("EDR queries", "a parameter that is not known is refused with 400", "observed")
def _unknown_parameter(service: Service, sample: Sample) -> Faults:
    query = next((one for one in ("position", "area", "cube") if one in sample.queries), None)
    if query is None:
        return
    given = {**sample.asked(query), "parameter_name": "no_such_parameter"}
    if (status := service.get(f"{sample.path}/{query}", **given).status_code) not in (400, 404):
        yield f"it answers {status}"


# Queries.


def _query_checks(query: str) -> None:
    @_check("EDR queries", f"{query}: answers are CoverageJSON as covjson-pydantic has it", query)
    def answered(service: Service, sample: Sample) -> Faults:
        if sample.point is None:
            return
        answer = service.get(f"{sample.path}/{query}", **sample.asked(query))
        if answer.status_code == 204 and query == "trajectory":
            return
        if answer.status_code != 200:
            yield f"around {sample.point} it answers {answer.status_code}: {answer.text[:200]}"
            return
        yield from _coverage_faults(answer)

    @_check("EDR queries", f"{query}: an interval of time and a parameter are kept to", query)
    def narrowed(service: Service, sample: Sample) -> Faults:
        if sample.point is None:
            return
        whole = service.get(f"{sample.path}/{query}", **sample.asked(query))
        coverages = _coverages(whole.json()) if whole.status_code == 200 else []
        times = sorted({time for one in coverages for time in _times(one)})
        names = [name for one in coverages for name in one["ranges"]]
        if not times or not names:
            return
        given = {**sample.asked(query), "datetime": f"{times[0]}/{times[0]}", "parameter_name": names[0]}
        answer = service.get(f"{sample.path}/{query}", **given)
        if answer.status_code != 200:
            yield f"datetime={times[0]}/{times[0]} answers {answer.status_code}"
            return
        for one in _coverages(answer.json()):
            if set(_times(one)) != {times[0]}:
                yield f"asked for {times[0]}, it gives {_times(one)[:3]}"
            if set(one["ranges"]) != {names[0]}:
                yield f"asked for {names[0]}, it gives {', '.join(one['ranges'])}"

    @_check("EDR queries", f"{query}: coordinates, times and limits that are none are refused with 400", query)
    def refused(service: Service, sample: Sample) -> Faults:
        good = sample.asked(query)
        key = "bbox" if "bbox" in good else "coords"
        attempts = [{}, {**good, key: "POINT(five 52)"}, {**good, key: ""}, {**good, "datetime": "yesterday"}]
        attempts += [{**good, "datetime": "2025-02-30T00:00:00Z"}, {**good, key: "1" * 5000}]
        for given in attempts:
            if (status := service.get(f"{sample.path}/{query}", **given).status_code) != 400:
                yield f"{str(given)[:120]} answers {status}, not 400"


for _query in ("position", "radius", "area", "cube", "trajectory"):
    _query_checks(_query)


@_check("EDR queries", "locations: the list is GeoJSON, each of them answers", "locations")
def _locations(service: Service, sample: Sample) -> Faults:
    answer = service.get(f"{sample.path}/locations", datetime=sample.interval)
    if answer.status_code != 200:
        yield f"it answers {answer.status_code}"
        return
    yield from _feature_faults(answer)
    if sample.location is not None:
        one = service.get(f"{sample.path}/locations/{quote(sample.location, safe='')}", datetime=sample.interval)
        if one.status_code != 200:
            yield f"location {sample.location} answers {one.status_code}"
        else:
            yield from _coverage_faults(one)
    if (status := service.get(f"{sample.path}/locations/no-such-location").status_code) not in (400, 404):
        yield f"an unknown location answers {status}"


def _coverages(document: dict[str, Any]) -> list[dict[str, Any]]:
    if document.get("type") == "Coverage":
        return [document]
    shared: dict[str, Any] = {key: document[key] for key in ("parameters", "referencing") if key in document}
    return [{**shared, **one} for one in document.get("coverages", [])]


def _times(coverage: dict[str, Any]) -> list[str]:
    axes = coverage["domain"]["axes"]
    if "t" in axes:
        return list(axes["t"]["values"])
    return [value[0] for value in axes.get("composite", {}).get("values", ())]


def _coverage_faults(answer: httpx.Response) -> Faults:
    from covjson_pydantic.coverage import Coverage, CoverageCollection
    from pydantic import ValidationError

    if answer.headers.get("content-type", "").split(";")[0] not in COVJSON:
        yield f"its content type is {answer.headers.get('content-type')}, not {COVJSON[0]}"
    document = answer.json()
    try:
        model = Coverage if document.get("type") == "Coverage" else CoverageCollection
        model.model_validate_json(answer.content)
    except ValidationError as error:
        yield from _told(error)
        return
    coverages = _coverages(document)
    if not coverages:
        yield "it holds no coverage, although there are observations"
    for one in coverages:
        if missing := set(one["ranges"]) - set(one.get("parameters") or ()):
            yield f"ranges without a parameter: {', '.join(sorted(missing))}"
        for name, array in one["ranges"].items():
            size = 1
            for side in array.get("shape", ()):
                size *= side
            if "values" in array and len(array["values"]) != size:
                yield f"{name} has {len(array['values'])} values, its shape tells {size}"
        if any(not RFC3339.match(str(time)) for time in _times(one)):
            yield "a time is not RFC 3339 with a zone"


# Features.


def _feature_faults(answer: httpx.Response) -> Faults:
    if answer.headers.get("content-type", "").split(";")[0] not in GEOJSON:
        yield f"its content type is {answer.headers.get('content-type')}, not {GEOJSON[0]}"
    document = answer.json()
    if document.get("type") != "FeatureCollection":
        yield f"its type is {document.get('type')}"
    for one in document.get("features", ())[:50]:
        if one.get("type") != "Feature" or "geometry" not in one or "properties" not in one or one.get("id") is None:
            yield "a feature lacks type, id, geometry or properties"
            break


@_check("Features core", "items: GeoJSON, numberReturned, limit, self and next", "items")
def _items(service: Service, sample: Sample) -> Faults:
    answer = service.get(f"{sample.path}/items", limit=2)
    if answer.status_code != 200:
        yield f"it answers {answer.status_code}"
        return
    yield from _feature_faults(answer)
    document = answer.json()
    if len(document["features"]) > 2:
        yield "limit=2 gives more than 2 features"
    if document.get("numberReturned", len(document["features"])) != len(document["features"]):
        yield "numberReturned is not the number of features"
    if "self" not in _links(document):
        yield "no link with rel self"
    on = next((link["href"] for link in document.get("links", ()) if link.get("rel") == "next"), None)
    if on is not None:
        second = service.get(on).json()
        if {one["id"] for one in document["features"]} & {one["id"] for one in second["features"]}:
            yield "the next page repeats features of the first"
    elif document.get("numberMatched", 0) > 2:
        yield "there are more features, but no link with rel next"
    for given in ({"limit": 0}, {"limit": "many"}, {"bbox": "1,2,3"}, {"datetime": "yesterday"}):
        if (status := service.get(f"{sample.path}/items", **given).status_code) != 400:
            yield f"{given} answers {status}, not 400"
    if (status := service.get(f"{sample.path}/items", no_such_parameter=1).status_code) != 400:
        yield f"a parameter that is not known answers {status}, not 400"


@_check("Features core", "one item by its id; an unknown one answers 404", "items")
def _item(service: Service, sample: Sample) -> Faults:
    features = service.json(f"{sample.path}/items", limit=1)["features"]
    if features:
        answer = service.get(f"{sample.path}/items/{quote(str(features[0]['id']), safe='')}")
        if answer.status_code != 200 or answer.json().get("id") != features[0]["id"]:
            yield f"item {features[0]['id']} answers {answer.status_code}"
        elif answer.json().get("geometry") != features[0]["geometry"]:
            yield "it is not the same as in the list"
    if (status := service.get(f"{sample.path}/items/no-such-item").status_code) != 404:
        yield f"an unknown item answers {status}, not 404"


@_check("Features core", "items of a box lie in it, those of an interval in that", "items")
def _selected(service: Service, sample: Sample) -> Faults:
    if sample.point is None:
        return
    west, south, east, north = sample.box
    found = service.json(f"{sample.path}/items", bbox=f"{west},{south},{east},{north}", limit=50)["features"]
    for one in found:
        lon, lat = one["geometry"]["coordinates"][:2]
        if not (west <= lon <= east and south <= lat <= north):
            yield f"item {one['id']} at {lon}, {lat} lies outside"
            break
    if not found:
        yield "it gives nothing around a place where there are observations"


# The EUMETNET profile.


@_check("EUMETNET profile", "radius, area and locations are offered", "collection")
def _required_queries(service: Service, sample: Sample) -> Faults:
    for query in ("radius", "area", "locations"):
        if query not in sample.queries:
            yield f"{query} is not offered"


@_check(
    "EUMETNET profile",
    "parameter_names tell standard name, level and method, as their ids do",
    "collection",
)
def _parameter_names(service: Service, sample: Sample) -> Faults:
    for id, one in (sample.document.get("parameter_names") or {}).items():
        lacking = [key for key in ("metocean:standard_name", "metocean:level", "measurementType") if key not in one]
        if lacking:
            yield f"{id} has no {', '.join(lacking)}"
            continue
        if one["measurementType"].get("method") not in METHODS:
            yield f"{id}: method {one['measurementType'].get('method')!r} is no CF cell method"
        if not PARAMETER_ID.match(id):
            yield f"{id} is not standard_name:level:method:period"
        elif id.split(":")[0] != one["metocean:standard_name"] or float(id.split(":")[1]) != one["metocean:level"]:
            yield f"{id} says other than its metocean:standard_name and metocean:level"


@_check("EUMETNET profile", "extent.custom has standard_names and levels", "collection")
def _custom(service: Service, sample: Sample) -> Faults:
    custom = {one.get("id"): one for one in (sample.document.get("extent") or {}).get("custom") or ()}
    names, levels = custom.get("standard_names", {}), custom.get("levels", {})
    if not str(names.get("reference", "")).startswith("https://vocab.nerc.ac.uk/standard_name"):
        yield "no standard_names with a reference to https://vocab.nerc.ac.uk/standard_name/"
    if levels.get("reference") != "Height of measurement above ground level in meters":
        yield "no levels with the reference 'Height of measurement above ground level in meters'"


@_check("EUMETNET profile", "CoverageJSON: media type, CRS84, and what is told of parameters", "observed")
def _profile_coverages(service: Service, sample: Sample) -> Faults:
    if "area" not in sample.queries:
        return
    answer = service.get(f"{sample.path}/area", **sample.asked("area"))
    if answer.headers.get("content-type") != COVJSON[0]:
        yield f"the content type is {answer.headers.get('content-type')}, not {COVJSON[0]}"
    for one in _coverages(answer.json()):
        for id, parameter in (one.get("parameters") or {}).items():
            lacking = [
                key
                for key in ("metocean:standard_name", "metocean:level", "metocean:measurementType")
                if key not in parameter
            ]
            if lacking:
                yield f"{id} has no {', '.join(lacking)}"
            elif not {"method", "duration"} <= parameter["metocean:measurementType"].keys():
                yield f"{id}: metocean:measurementType has no method or no duration"
        referencing = one["domain"].get("referencing") or one.get("referencing") or ()
        systems = [each["system"] for each in referencing if each["system"].get("type") == "GeographicCRS"]
        if [system.get("id") for system in systems] != ["OGC:CRS84"]:
            yield f"its GeographicCRS is {[system.get('id') for system in systems]}, not OGC:CRS84"
        return
