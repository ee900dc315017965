"""What the service tells of itself: collections and the OpenAPI document.

Belongs here: documents that are made from a collection and its entry in PyGeoAPI's configuration, after OGC API EDR 1.1
and the EUMETNET metocean profile. Does not belong here: the configuration's upkeep (configuration.py).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ionbeam_client.windows.feed import NAMES
from ionbeam_dagster import __version__
from ionbeam_dagster.edr import answers, changes, requests
from ionbeam_dagster.edr.collection import Collection, stamp
from ionbeam_dagster.edr.crs import OFFERED, Crs
from ionbeam_dagster.edr.parameters import VOCABULARY, Parameter

CORE = "http://www.opengis.net/spec/ogcapi-edr-1"
CONFORMANCE = [
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-common-2/1.0/conf/collections",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
    *(f"{CORE}/1.0/conf/{part}" for part in ("core", "collections", "json", "geojson", "covjson", "oas30")),
    *(f"{CORE}/1.1/conf/{part}" for part in ("core", "collections", "json", "geojson", "covjson", "oas30", "queries")),
    *(f"{CORE}/1.1/conf/{kind}" for kind in requests.QUERIES),
    "http://rodeo-project.eu/spec/rodeo-edr-profile/1/req/insitu-observations",
]
WORLD = [-180.0, -90.0, 180.0, 90.0]
TRS = 'TIMECRS["DateTime",TDATUM["Gregorian Calendar"],CS[TemporalDateTime,1],AXIS["Time (T)",future]]'
LENGTHS = ["m", "km", "mi", "nm"]


def collection_document(
    collection: Collection, resource: dict[str, Any], base: str, span: tuple[int, int] | None
) -> dict[str, Any]:
    """One collection as EDR 1.1 tells of it; `base` is the service's address, `resource` its configuration."""
    own = f"{base}/collections/{quote(collection.name, safe='')}"
    parameters = collection.parameters()
    spatial = resource.get("extents", {}).get("spatial", {}).get("bbox") or WORLD
    extent: dict[str, Any] = {
        "spatial": {"bbox": [spatial], "crs": "OGC:CRS84"},
        "custom": _dimensions(parameters),
    }
    if levels := sorted({parameter.level for parameter in parameters.values()}):
        extent["vertical"] = {
            "interval": [[f"{levels[0]:g}", f"{levels[-1]:g}"]],
            "values": [f"{level:g}" for level in levels],
            "vrs": "Height above ground in meters",
        }
    if span is not None:
        begin, end = stamp(span[0]), stamp(span[1])
        extent["temporal"] = {"interval": [[begin, end]], "values": [f"{begin}/{end}"], "trs": TRS}
    links = [
        _link(own, "self", "application/json", "This collection"),
        _link(f"{own}?f=html", "alternate", "text/html", "This collection as a page"),
        _link(f"{own}/items", "items", "application/geo+json", "Observations as features"),
        _link(f"{own}/locations", "data", "application/geo+json", "Stations"),
        _link(f"{base}/map?collection={quote(collection.name)}", "related", "text/html", "The newest window on a map"),
    ]
    links += [{**_link("", "related", "text/html", ""), **link} for link in resource.get("links") or ()]
    return {
        "id": collection.name,
        "title": _plain(resource.get("title")) or collection.name,
        "description": _plain(resource.get("description")) or collection.name,
        "keywords": [str(word) for word in _plain(resource.get("keywords")) or ()],
        **({"attribution": _plain(resource["attribution"])} if resource.get("attribution") else {}),
        "links": links,
        "extent": extent,
        "data_queries": {kind: _query(kind, own, collection.offered_crs) for kind in requests.QUERIES},
        "crs": list(collection.offered_crs),
        "output_formats": ["CoverageJSON", "GeoJSON", "CSV"],
        "parameter_names": {id: _parameter(parameter) for id, parameter in parameters.items()},
        "distanceunits": LENGTHS,
    }


def _plain(value: Any) -> Any:
    """A text of the configuration, of the first language where there are several."""
    return next(iter(value.values()), None) if isinstance(value, dict) else value


def _link(href: str, rel: str, type: str, title: str) -> dict[str, Any]:
    return {"href": href, "rel": rel, "type": type, "title": title}


def _query(kind: str, own: str, offered_crs: tuple[str, ...]) -> dict[str, Any]:
    listing = kind in ("items", "locations")
    formats = ["GeoJSON", "CSV"] if kind == "items" else ["CoverageJSON", "GeoJSON", "CSV"]
    variables: dict[str, Any] = {
        "query_type": kind,
        "output_formats": formats,
        "default_output_format": "GeoJSON" if listing else "CoverageJSON",
        "crs_details": [{"crs": id, "wkt": Crs(id).wkt} for id in offered_crs],
    }
    if kind == "radius":
        variables["within_units"] = LENGTHS
    if kind == "cube":
        variables["height_units"] = ["m"]
    return {
        "link": {
            **_link(f"{own}/{kind}", "data", "", f"Query by {kind}"),
            "type": ("application/geo+json" if listing else "application/vnd.cov+json"),
            "variables": variables,
        }
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    """A parameter as EDR tells of it: texts are plain, other than in CoverageJSON."""
    about = answers.observed_property(parameter)
    observed: dict[str, Any] = {"id": about["id"]} if "id" in about else {}
    observed["label"] = parameter.label
    if "description" in about:
        observed["description"] = about["description"]["en"]
    document: dict[str, Any] = {
        "type": "Parameter",
        "id": parameter.id,
        "label": parameter.label,
        "description": parameter.description,
        "observedProperty": observed,
        "measurementType": {"method": parameter.method, "duration": parameter.period},
        "metocean:standard_name": parameter.name,
        "metocean:level": parameter.level,
    }
    if parameter.is_flag:
        observed["categories"] = [{"id": one["id"], "label": one["label"]["en"]} for one in about["categories"]]
    else:
        unit = answers.unit_object(parameter.unit)
        document["unit"] = {"label": parameter.unit, "symbol": unit["symbol"]}
    return document


def _dimensions(parameters: dict[str, Parameter]) -> list[dict[str, Any]]:
    names = sorted({parameter.name for parameter in parameters.values()})
    levels = sorted({parameter.level for parameter in parameters.values()})
    methods = sorted({parameter.method for parameter in parameters.values()})
    periods = sorted({parameter.period for parameter in parameters.values()})
    told: list[tuple[str, list[str] | list[float], str]] = [
        ("standard_names", names, VOCABULARY),
        ("levels", levels, "Height of measurement above ground level in meters"),
        ("methods", methods, "CF cell methods, https://cfconventions.org"),
        ("periods", periods, "Durations of ISO 8601"),
    ]
    return [
        {"id": id, "interval": [[values[0], values[-1]]], "values": values, "reference": reference}
        for id, values, reference in told
        if values
    ]


def openapi(title: str, description: str, base: str, collections: list[str]) -> dict[str, Any]:
    """The OpenAPI 3.0 document: one set of paths for all collections, so that it does not grow with them."""
    id = {"name": "collectionId", "in": "path", "required": True, "description": "Which collection",
          "schema": {"type": "string", **({"enum": collections} if collections else {})}}  # fmt: skip
    paths: dict[str, Any] = {
        "/": _get("The landing page", [_F_PAGE]),
        "/conformance": _get("What the service conforms to", [_F_PAGE]),
        "/openapi": _get("This document", [_F_PAGE]),
        "/collections": _get("All collections", [_F_PAGE]),
        "/collections/{collectionId}": _get("One collection", [id, _F_PAGE], missing=True),
    }
    for kind in requests.QUERIES:
        own = [_PARAMETERS[name] for name in _OF_KIND.get(kind, ()) if name not in _PER_KIND]
        own += [_coords(kind)] if "coords" in requests.KNOWN[kind] else []
        shared = [_PARAMETERS[name] for name in _SHARED]
        media = "application/geo+json" if kind in ("items", "locations") else "application/vnd.cov+json"
        paths[f"/collections/{{collectionId}}/{kind}"] = _get(
            f"Query by {kind}", [id, *own, *shared, _format(kind)], media, missing=True
        )
    one_location = {**_TEXT, "name": "locationId", "in": "path", "required": True, "example": "06260"}
    paths["/collections/{collectionId}/locations/{locationId}"] = _get(
        "One station's series", [id, one_location, *(_PARAMETERS[n] for n in _SHARED), _format("position")],
        "application/vnd.cov+json", missing=True,
    )  # fmt: skip
    one_item = {**_TEXT, "name": "featureId", "in": "path", "required": True}
    paths["/collections/{collectionId}/items/{featureId}"] = _get(
        "One observation", [id, one_item, _F_ITEM], "application/geo+json", missing=True
    )
    paths |= _for_followers(id)
    for path, item in paths.items():
        for method, operation in item.items():
            operation["operationId"] = method + ("".join(c for c in path.title() if c.isalnum()) or "Root")
    return {
        "openapi": "3.0.3",
        "info": {"title": title, "description": description, "version": __version__},
        "servers": [{"url": base}],
        "paths": paths,
        "components": {"schemas": {"exception": _EXCEPTION}},
    }


def _for_followers(id: dict[str, Any]) -> dict[str, Any]:
    """What `ionbeam_client.windows` asks (changes.py)."""
    window = {**_TEXT, "name": "window", "in": "path", "required": True, "example": "20260621T060000_PT1H"}
    versions = {"type": "object", "additionalProperties": {"type": "string", "nullable": True}}
    confirmation = {
        "type": "object",
        "required": ["client", "windows"],
        "properties": {"client": {"type": "string", "pattern": f"^{NAMES.pattern}$"}, "windows": versions},
        "example": {"client": "anna", "windows": {"20260621T060000_PT1H": "1782021600000000000-4711"}},
    }
    refused = {"400": "It cannot be used; the description says why", "404": "There is no such collection",
               "503": "What clients have cannot be read or written now"}  # fmt: skip
    told = {
        "summary": "The windows that a client lacks as they are now; without a client all windows",
        "parameters": [id, _parameter_of("client", "A name that the client chose", example="anna")],
        "responses": _responses([_JSON], refused),
    }
    confirmed = {
        "summary": "Remember the versions of windows that a client has; null for a window that is gone",
        "parameters": [id],
        "requestBody": {"required": True, "content": {_JSON: {"schema": confirmation}}},
        "responses": _responses([_JSON], refused | {"413": "Too many at once"}),
    }
    fetched = {
        "summary": "A window as a GeoParquet file",
        "parameters": [id, window],
        "responses": _responses([changes.PARQUET], {"404": "There is no such window any longer"}),
    }
    return {
        "/collections/{collectionId}/changes": {"get": told, "post": confirmed},
        "/collections/{collectionId}/windows/{window}": {"get": fetched},
    }


_JSON = "application/json"
_EXCEPTION = {
    "type": "object",
    "required": ["code", "description"],
    "properties": {"code": {"type": "string"}, "type": {"type": "string"}, "description": {"type": "string"}},
}
_TEXT: dict[str, Any] = {"schema": {"type": "string"}}


def _parameter_of(name: str, description: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}, **more}


_PARAMETERS = {
    "bbox": _parameter_of("bbox", "west,south,east,north in degrees; west greater than east crosses the date line",
                          example="4.5,51,6.5,53"),
    "within": _parameter_of("within", "How far around the point", {"type": "number", "exclusiveMinimum": True,
                            "minimum": 0}, required=True, example=20),
    "within-units": _parameter_of("within-units", "The unit of `within`; m when left out",
                                  {"type": "string", "enum": LENGTHS}),
    "datetime": _parameter_of("datetime", "RFC 3339: an instant, a date, or an interval a/b, a/.., ../b; UTC where no "
                              "zone is given. Left out, the newest 24 hours (items: all of history)",
                              example="2022-12-31T06:00Z/2022-12-31T12:00Z"),
    "parameter-name": _parameter_of("parameter-name", "Ids as in parameter_names, separated by commas; * stands for "
                                    "any text"),
    "standard-name": _parameter_of("standard-name", "CF standard names, separated by commas"),
    "level": _parameter_of("level", "Heights of measurement in m, or a range low/high"),
    "method": _parameter_of("method", "CF cell methods"),
    "period": _parameter_of("period", "ISO 8601 durations that a value stands for"),
    "crs": _parameter_of("crs", "In which coordinates are given and answered; OGC:CRS84 when left out",
                         {"type": "string", "enum": list(OFFERED)}),
    "limit": _parameter_of("limit", "The most features of a page, or rows of an answer",
                           {"type": "integer", "minimum": 1}),
    "after": _parameter_of("after", "Where the next page begins, from a link `next`"),
    "offset": _parameter_of("offset", "How many features to pass over", {"type": "integer", "minimum": 0}),
}  # fmt: skip
_SHARED = ("datetime", "parameter-name", "standard-name", "level", "method", "period", "limit", "after", "crs")
_PER_KIND = ("coords",)
_OF_KIND = {
    "radius": ("within", "within-units"),
    "cube": ("bbox",),
    "locations": ("bbox",),
    "items": ("bbox", "offset"),
}
_F_PAGE = _parameter_of("f", "The form of the answer", {"type": "string", "enum": ["json", "html"]})
_F_ITEM = _parameter_of("f", "The form of the answer", {"type": "string", "enum": ["json", "GeoJSON", "CSV", "html"]})
_COORDS = {
    "position": "POINT(5.18 52.1)",
    "radius": "POINT(5.18 52.1)",
    "area": "POLYGON((4 51,6 51,6 53,4 53,4 51))",
    "trajectory": "LINESTRING(4 52,6 52.5)",
}


def _coords(kind: str) -> dict[str, Any]:
    return _parameter_of("coords", "Well-known text, longitude and latitude in degrees", required=True,
                         example=_COORDS[kind])  # fmt: skip


def _format(kind: str) -> dict[str, Any]:
    names = ["GeoJSON", "CSV", "html"] if kind in ("items", "locations") else ["CoverageJSON", "GeoJSON", "CSV", "html"]
    return _parameter_of("f", "The form of the answer", {"type": "string", "enum": names})


def _get(summary: str, parameters: list[Any], media: str = "application/json", missing: bool = False) -> dict[str, Any]:
    forms = sorted({media, _JSON, "application/geo+json", "text/csv", "text/html"})
    refused = {"400": "A parameter cannot be used; the description says why"}
    refused |= {"404": "There is no such thing"} if missing else {}
    return {"get": {"summary": summary, "parameters": parameters, "responses": _responses(forms, refused)}}


def _responses(forms: list[str], refused: dict[str, str]) -> dict[str, Any]:
    """An answer of these media types, and what each status says that is none."""
    problem = {"content": {_JSON: {"schema": {"$ref": "#/components/schemas/exception"}}}}
    given = {"200": {"description": "The answer", "content": {form: {"schema": {}} for form in forms}}}
    return given | {status: {"description": why, **problem} for status, why in sorted(refused.items())}
