"""How a service is asked, and what its answers have in common.

Belongs here: the client, a sample of a collection, the list of checks, and faults of documents that several checks
read. Does not belong here: a check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

if TYPE_CHECKING:
    import httpx

RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
COVJSON = ("application/vnd.cov+json", "application/prs.coverage+json")
GEOJSON = ("application/geo+json", "application/vnd.geo+json")


@dataclass(frozen=True, slots=True)
class Result:
    """One check: of which document, what it looks at, and what is wrong (nothing: it passed)."""

    suite: str
    name: str
    faults: tuple[str, ...]
    collection: str = ""


Faults = Iterator[str]
CHECKS: list[tuple[str, str, str, Callable[..., Faults]]] = []


def check(suite: str, name: str, of: str = "service") -> Callable[[Callable[..., Faults]], Callable[..., Faults]]:
    def kept(function: Callable[..., Faults]) -> Callable[..., Faults]:
        CHECKS.append((suite, name, of, function))
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

    def parameters_of(self, query: str) -> dict[str, str]:
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


def faults_of(function: Callable[..., Faults], *given: Any) -> tuple[str, ...]:
    try:
        return tuple(function(*given))
    except Exception as error:
        return (f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",)


def sample_of(service: Service, document: dict[str, Any]) -> Sample:
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


def links_of(document: dict[str, Any]) -> set[str]:
    return {str(link.get("rel")) for link in document.get("links") or ()}


def document_faults(error: Any) -> Faults:
    for one in error.errors()[:5]:
        yield f"{'.'.join(map(str, one['loc']))}: {one['msg']}"


def coverages_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    if document.get("type") == "Coverage":
        return [document]
    shared: dict[str, Any] = {key: document[key] for key in ("parameters", "referencing") if key in document}
    return [{**shared, **one} for one in document.get("coverages", [])]


def times_of(coverage: dict[str, Any]) -> list[str]:
    axes = coverage["domain"]["axes"]
    if "t" in axes:
        return list(axes["t"]["values"])
    return [value[0] for value in axes.get("composite", {}).get("values", ())]


def coverage_faults(answer: httpx.Response) -> Faults:
    from covjson_pydantic.coverage import Coverage, CoverageCollection
    from pydantic import ValidationError

    if answer.headers.get("content-type", "").split(";")[0] not in COVJSON:
        yield f"its content type is {answer.headers.get('content-type')}, not {COVJSON[0]}"
    document = answer.json()
    try:
        model = Coverage if document.get("type") == "Coverage" else CoverageCollection
        model.model_validate_json(answer.content)
    except ValidationError as error:
        yield from document_faults(error)
        return
    coverages = coverages_of(document)
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
        if any(not RFC3339.match(str(time)) for time in times_of(one)):
            yield "a time is not RFC 3339 with a zone"


def feature_faults(answer: httpx.Response) -> Faults:
    if answer.headers.get("content-type", "").split(";")[0] not in GEOJSON:
        yield f"its content type is {answer.headers.get('content-type')}, not {GEOJSON[0]}"
    document = answer.json()
    if document.get("type") != "FeatureCollection":
        yield f"its type is {document.get('type')}"
    for one in document.get("features", ())[:50]:
        if one.get("type") != "Feature" or "geometry" not in one or "properties" not in one or one.get("id") is None:
            yield "a feature lacks type, id, geometry or properties"
            break
