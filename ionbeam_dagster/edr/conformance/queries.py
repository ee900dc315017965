"""EDR's queries (OGC 19-086r6), each for a place and a time at which there is something."""

from __future__ import annotations

from urllib.parse import quote

from ionbeam_dagster.edr.conformance.asking import (
    Faults,
    Sample,
    Service,
    check,
    coverage_faults,
    coverages_of,
    feature_faults,
    times_of,
)


def _query_checks(query: str) -> None:
    @check("EDR queries", f"{query}: answers are CoverageJSON as covjson-pydantic has it", query)
    def answered(service: Service, sample: Sample) -> Faults:
        if sample.point is None:
            return
        answer = service.get(f"{sample.path}/{query}", **sample.parameters_of(query))
        if answer.status_code == 204 and query == "trajectory":
            return
        if answer.status_code != 200:
            yield f"around {sample.point} it answers {answer.status_code}: {answer.text[:200]}"
            return
        yield from coverage_faults(answer)

    @check("EDR queries", f"{query}: an interval of time and a parameter are kept to", query)
    def narrowed(service: Service, sample: Sample) -> Faults:
        if sample.point is None:
            return
        whole = service.get(f"{sample.path}/{query}", **sample.parameters_of(query))
        coverages = coverages_of(whole.json()) if whole.status_code == 200 else []
        times = sorted({time for one in coverages for time in times_of(one)})
        names = [name for one in coverages for name in one["ranges"]]
        if not times or not names:
            return
        given = {**sample.parameters_of(query), "datetime": f"{times[0]}/{times[0]}", "parameter_name": names[0]}
        answer = service.get(f"{sample.path}/{query}", **given)
        if answer.status_code != 200:
            yield f"datetime={times[0]}/{times[0]} answers {answer.status_code}"
            return
        for one in coverages_of(answer.json()):
            if set(times_of(one)) != {times[0]}:
                yield f"asked for {times[0]}, it gives {times_of(one)[:3]}"
            if set(one["ranges"]) != {names[0]}:
                yield f"asked for {names[0]}, it gives {', '.join(one['ranges'])}"

    @check("EDR queries", f"{query}: coordinates, times and limits that are none are refused with 400", query)
    def refused(service: Service, sample: Sample) -> Faults:
        good = sample.parameters_of(query)
        key = "bbox" if "bbox" in good else "coords"
        attempts = [{}, {**good, key: "POINT(five 52)"}, {**good, key: ""}, {**good, "datetime": "yesterday"}]
        attempts += [{**good, "datetime": "2025-02-30T00:00:00Z"}, {**good, key: "1" * 5000}]
        for given in attempts:
            if (status := service.get(f"{sample.path}/{query}", **given).status_code) != 400:
                yield f"{str(given)[:120]} answers {status}, not 400"


@check("EDR queries", "locations: the list is GeoJSON, each of them answers", "locations")
def _locations(service: Service, sample: Sample) -> Faults:
    answer = service.get(f"{sample.path}/locations", datetime=sample.interval)
    if answer.status_code != 200:
        yield f"it answers {answer.status_code}"
        return
    yield from feature_faults(answer)
    if sample.location is not None:
        one = service.get(f"{sample.path}/locations/{quote(sample.location, safe='')}", datetime=sample.interval)
        if one.status_code != 200:
            yield f"location {sample.location} answers {one.status_code}"
        else:
            yield from coverage_faults(one)
    if (status := service.get(f"{sample.path}/locations/no-such-location").status_code) not in (400, 404):
        yield f"an unknown location answers {status}"


for _query in ("position", "radius", "area", "cube", "trajectory"):
    _query_checks(_query)
