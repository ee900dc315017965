"""E-SOH's EDR service on the loopback interface: areas, intervals of time, parameters, and its refusals.

Belongs here: what the service answers. Does not belong here: faults that any service may have (testing.service).
"""

from __future__ import annotations

import base64
import copy
import math
import re
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

from ionbeam_dagster.testing.service import Reply, Request, Service

PATH = "/collections/observations/area"
PARAMETERS = {
    "air_temperature:2.0:point:PT0S": "degC",
    "relative_humidity:2.0:point:PT0S": "%",
    "surface_air_pressure:2.0:point:PT0S": "hPa",
    "wind_from_direction:2.0:mean:PT5M": "degree",
    "wind_speed:2.0:mean:PT5M": "m s-1",
    "wind_speed_of_gust:2.0:mean:PT5M": "m s-1",
    "precipitation_amount:2.0:sum:PT1M": "kg m-2",
}
EVERY = timedelta(minutes=10)


def coverage(station: str, lon: float, lat: float, ranges: dict[str, list[Any]], times: list[str]) -> dict[str, Any]:
    """A PointSeries of one station."""
    return {
        "type": "Coverage",
        "domain": {
            "type": "Domain",
            "domainType": "PointSeries",
            "axes": {"x": {"values": [lon]}, "y": {"values": [lat]}, "t": {"values": times}},
        },
        "parameters": {
            name: {"type": "Parameter", "unit": {"label": {"en": PARAMETERS.get(name, "1")}}} for name in ranges
        },
        "ranges": {
            name: {"type": "NdArray", "dataType": "float", "axisNames": ["t", "y", "x"],
                   "shape": [len(values), 1, 1], "values": values}
            for name, values in ranges.items()
        },
        "rodeo:wigosId": station,
    }  # fmt: skip


class Esoh(Service):
    """Gives what `coverages` has of an area and an interval, its ends included.

    `most` coverages are too much for one answer (413). With `username`, to those alone who have the password. Only
    parameters of `known` may be named, as far as it is not empty.
    """

    username, password = "", ""
    most = 10**9

    def __init__(self, coverages: list[dict[str, Any]] | None = None, port: int = 0) -> None:
        super().__init__(port)
        self.coverages = coverages or []
        self.known: set[str] = set()

    def answer(self, request: Request) -> Reply:
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if self.username and request.headers.get("authorization") != f"Basic {expected}":
            return Reply.of_json({"detail": "Unauthorized"}, 401)
        if request.path != PATH:
            return Reply.of_json({"detail": "Not Found"}, 404)
        corners = re.findall(r"(-?[\d.]+) (-?[\d.]+)", request.query.get("coords", ""))
        if len(corners) < 4:
            return Reply.of_json({"detail": {"coords": "Invalid or unparseable wkt provided: ..."}}, 400)
        asked = set(filter(None, request.query.get("parameter-name", "").split(",")))
        if self.known and asked - self.known:
            return Reply.of_json({"detail": {"parameter-name": f"unknown: {', '.join(asked - self.known)}"}}, 400)
        lons, lats = zip(*((float(lon), float(lat)) for lon, lat in corners), strict=True)
        start, end = (datetime.fromisoformat(text) for text in request.query["datetime"].split("/"))
        inside = [
            found
            for one in self.stations(start, end)
            if min(lons) <= one["domain"]["axes"]["x"]["values"][0] <= max(lons)
            and min(lats) <= one["domain"]["axes"]["y"]["values"][0] <= max(lats)
            and (found := _cut(one, start, end, asked))
        ]
        if not inside:
            return Reply.of_json({"detail": "Query did not return any time series."}, 404)
        if len(inside) > self.most:
            return Reply.of_json({"detail": "Too much data"}, 413)
        if len(inside) == 1:
            return Reply.of_json(inside[0])
        return Reply.of_json({"type": "CoverageCollection", "coverages": inside})

    def stations(self, start: datetime, end: datetime) -> list[dict[str, Any]]:
        return self.coverages


class Weather(Esoh):
    """A network of invented stations around Oslo, each with a value every ten minutes, for the demonstration."""

    count = 200

    def stations(self, start: datetime, end: datetime) -> list[dict[str, Any]]:
        first = datetime.fromtimestamp(-(-start.timestamp() // EVERY.total_seconds()) * EVERY.total_seconds(), UTC)
        moments = [first + EVERY * step for step in range(int((end - first) / EVERY) + 1)]
        times = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in moments if moment <= datetime.now(UTC)]
        return [self._station(number, times, moments) for number in range(self.count)]

    def _station(self, number: int, times: list[str], moments: list[datetime]) -> dict[str, Any]:
        chance = zlib.crc32(str(number).encode()) / 2**32
        lon, lat = 10.2 + (number % 20) * 0.06, 59.6 + (number // 20) * 0.05
        hours = [moment.hour + moment.minute / 60 for moment in moments[: len(times)]]
        warm = [round(8 + 6 * math.sin((hour - 9) / 24 * 2 * math.pi) + chance * 2, 1) for hour in hours]
        ranges = {
            "air_temperature:2.0:point:PT0S": warm,
            "relative_humidity:2.0:point:PT0S": [round(95 - 2.5 * one, 0) for one in warm],
            "surface_air_pressure:2.0:point:PT0S": [round(1003 + 5 * chance + hour / 10, 1) for hour in hours],
            "wind_speed:2.0:mean:PT5M": [round(1.5 + chance + hour / 24, 1) for hour in hours],
            "precipitation_amount:2.0:sum:PT1M": [0.1 if number % 7 == 0 and hour < 6 else 0.0 for hour in hours],
        }
        return coverage(f"0-578-5-{number:04d}", lon, lat, ranges, times)


def _cut(one: dict[str, Any], start: datetime, end: datetime, asked: set[str]) -> dict[str, Any] | None:
    """What a coverage has of an interval and of the parameters that are asked for (none: all)."""
    times = one["domain"]["axes"]["t"]["values"]
    kept = [place for place, text in enumerate(times) if start <= datetime.fromisoformat(text) <= end]
    names = [name for name in one["ranges"] if not asked or name in asked]
    if not kept or not names:
        return None
    found = copy.deepcopy(one)
    found["domain"]["axes"]["t"]["values"] = [times[place] for place in kept]
    found["ranges"] = {name: found["ranges"][name] for name in names}
    for values in found["ranges"].values():
        values["values"] = [values["values"][place] for place in kept]
        values["shape"] = [len(kept), 1, 1]
    return found
