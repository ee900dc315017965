"""The rules of the RODEO/EUMETNET profile of in-situ observations."""

from __future__ import annotations

import re

from ionbeam_dagster.edr.conformance.asking import (
    COVJSON,
    Faults,
    Sample,
    Service,
    check,
    coverages_of,
)

METHODS = (
    "point", "sum", "maximum", "median", "mid_range", "minimum", "mean", "mode", "range", "standard_deviation",
    "variance",
)  # fmt: skip
PARAMETER_ID = re.compile(r"^[A-Za-z0-9_]+:-?\d+(\.\d+)?:[a-z_]+:P[0-9TYMWDHS.]+$")


@check("EUMETNET profile", "radius, area and locations are offered", "collection")
def _required_queries(service: Service, sample: Sample) -> Faults:
    for query in ("radius", "area", "locations"):
        if query not in sample.queries:
            yield f"{query} is not offered"


@check(
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


@check("EUMETNET profile", "extent.custom has standard_names and levels", "collection")
def _custom(service: Service, sample: Sample) -> Faults:
    custom = {one.get("id"): one for one in (sample.document.get("extent") or {}).get("custom") or ()}
    names, levels = custom.get("standard_names", {}), custom.get("levels", {})
    if not str(names.get("reference", "")).startswith("https://vocab.nerc.ac.uk/standard_name"):
        yield "no standard_names with a reference to https://vocab.nerc.ac.uk/standard_name/"
    if levels.get("reference") != "Height of measurement above ground level in meters":
        yield "no levels with the reference 'Height of measurement above ground level in meters'"


@check("EUMETNET profile", "CoverageJSON: media type, CRS84, and what is told of parameters", "observed")
def _profile_coverages(service: Service, sample: Sample) -> Faults:
    if "area" not in sample.queries:
        return
    answer = service.get(f"{sample.path}/area", **sample.parameters_of("area"))
    if answer.headers.get("content-type") != COVJSON[0]:
        yield f"the content type is {answer.headers.get('content-type')}, not {COVJSON[0]}"
    for one in coverages_of(answer.json()):
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
