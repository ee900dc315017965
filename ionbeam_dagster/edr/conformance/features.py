"""OGC API Features, core (17-069r4)."""

from __future__ import annotations

from urllib.parse import quote

from ionbeam_dagster.edr.conformance.asking import (
    Faults,
    Sample,
    Service,
    check,
    feature_faults,
    links_of,
)


@check("Features core", "items: GeoJSON, numberReturned, limit, self and next", "items")
def _items(service: Service, sample: Sample) -> Faults:
    answer = service.get(f"{sample.path}/items", limit=2)
    if answer.status_code != 200:
        yield f"it answers {answer.status_code}"
        return
    yield from feature_faults(answer)
    document = answer.json()
    if len(document["features"]) > 2:
        yield "limit=2 gives more than 2 features"
    if document.get("numberReturned", len(document["features"])) != len(document["features"]):
        yield "numberReturned is not the number of features"
    if "self" not in links_of(document):
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


@check("Features core", "one item by its id; an unknown one answers 404", "items")
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


@check("Features core", "items of a box lie in it, those of an interval in that", "items")
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
