"""EDR core and collections (OGC 19-086r6): what a service and its collections tell of themselves."""

from __future__ import annotations

import re

from ionbeam_dagster.edr.conformance.asking import (
    RFC3339,
    Faults,
    Sample,
    Service,
    check,
    document_faults,
    links_of,
)

CORE = re.compile(r"^https?://www\.opengis\.net/spec/ogcapi-edr-1/1\.[0-9]/conf/core$")


@check("EDR core", "the landing page links to the service's description, conformance and collections")
def _landing(service: Service) -> Faults:
    answer = service.get("")
    if answer.status_code != 200:
        yield f"GET / answers {answer.status_code}, not 200"
        return
    rels = links_of(answer.json())
    for what, allowed in {
        "service description": {"service-desc", "service-doc"},
        "conformance": {"conformance", "http://www.opengis.net/def/rel/ogc/1.0/conformance"},
        "collections": {"data", "http://www.opengis.net/def/rel/ogc/1.0/data"},
    }.items():
        if not rels & allowed:
            yield f"the landing page has no link to the {what} (rel {' or '.join(sorted(allowed))})"


@check("EDR core", "the conformance document names EDR core")
def _conformance(service: Service) -> Faults:
    classes = service.json("conformance").get("conformsTo")
    if not isinstance(classes, list):
        yield "conformsTo is no list"
    elif not any(CORE.match(name) for name in classes):
        yield "conformsTo names no http://www.opengis.net/spec/ogcapi-edr-1/1.x/conf/core"


@check("EDR core", "the API definition is an OpenAPI document that has the paths of the collections")
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


@check("EDR core", "the collections document is as edr-pydantic has it, and links to itself")
def _collections(service: Service) -> Faults:
    from edr_pydantic.collections import Collections
    from pydantic import ValidationError

    answer = service.get("collections")
    document = answer.json()
    if "self" not in links_of(document):
        yield "no link with rel self"
    if not document.get("collections"):
        yield "it lists no collection"
    try:
        Collections.model_validate_json(answer.content)
    except ValidationError as error:
        yield from document_faults(error)


@check("EDR core", "what is not there answers 404, what cannot be understood 400, and neither 500")
def _refusals(service: Service) -> Faults:
    if (status := service.get("collections/this-is-no-collection").status_code) != 404:
        yield f"an unknown collection answers {status}, not 404"
    if (status := service.get("this-is-no-path").status_code) != 404:
        yield f"an unknown path answers {status}, not 404"


@check("EDR collections", "the collection is as edr-pydantic has it, and the same as in the list", "collection")
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
        yield from document_faults(error)


@check("EDR collections", "extent, parameters and links are told", "collection")
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


@check("EDR queries", "a parameter that is not known is refused with 400", "observed")
def _unknown_parameter(service: Service, sample: Sample) -> Faults:
    query = next((one for one in ("position", "area", "cube") if one in sample.queries), None)
    if query is None:
        return
    given = {**sample.parameters_of(query), "parameter_name": "no_such_parameter"}
    if (status := service.get(f"{sample.path}/{query}", **given).status_code) not in (400, 404):
        yield f"it answers {status}"
