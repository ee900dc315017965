"""What a request asks for, checked: its path and parameters become a `Query`.

Belongs here: the reading of every parameter that the service takes, each fault with a sentence that says what would be
right. Does not belong here: answering.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

import numpy as np
import shapely

from ionbeam_dagster.domain import cf
from ionbeam_dagster.domain.times import parse_moment
from ionbeam_dagster.edr.crs import CRS84, Crs, crs_of
from ionbeam_dagster.edr.parameters import Parameter
from ionbeam_dagster.edr.query import Bounds, Collection, Query
from ionbeam_dagster.edr.regions import Box, Circles, Paths, Region, Shapes

QUERIES = ("position", "radius", "area", "cube", "trajectory", "locations", "items")
NEAR = 1_000.0  # m: how far a station may be from a position or a path that is asked for
FARTHEST = 1_000_000.0  # m, of a radius
MOST_ITEMS, USUAL_ITEMS = 10_000, 100
MOST_ROWS = 100_000
LONGEST_TEXT = 50_000
MOST_POINTS = 1_000
FORMATS = {
    "covjson": "application/vnd.cov+json",
    "geojson": "application/geo+json",
    "csv": "text/csv; charset=utf-8",
}
FORMAT_NAMES = {
    "coveragejson": "covjson",
    "covjson": "covjson",
    "application/vnd.cov+json": "covjson",
    "application/prs.coverage+json": "covjson",
    "geojson": "geojson",
    "application/geo+json": "geojson",
    "csv": "csv",
    "text/csv": "csv",
}
_SHARED = {"datetime", "f", "crs"}
_FILTERS = {"parameter-name", "standard-name", "level", "method", "period", "z", "limit"}
_ALSO = {"parameter_name": "parameter-name", "standard_name": "standard-name", "standard-names": "standard-name",
         "standard_names": "standard-name", "levels": "level", "methods": "method", "periods": "period",
         "parameter-names": "parameter-name", "within_units": "within-units"}  # fmt: skip
KNOWN = {
    "position": {"coords"} | _SHARED | _FILTERS,
    "area": {"coords"} | _SHARED | _FILTERS,
    "radius": {"coords", "within", "within-units"} | _SHARED | _FILTERS,
    "cube": {"bbox"} | _SHARED | _FILTERS,
    "trajectory": {"coords"} | _SHARED | _FILTERS,
    "locations": {"bbox"} | _SHARED | _FILTERS,
    "items": {"bbox", "offset", "after", "id"} | _SHARED | _FILTERS,
}
_KINDS = {
    "position": ("POINT", "MULTIPOINT"),
    "radius": ("POINT", "MULTIPOINT"),
    "area": ("POLYGON", "MULTIPOLYGON"),
    "trajectory": ("LINESTRING", "MULTILINESTRING"),
}
_EXAMPLE = {
    "position": "POINT(5.18 52.1)",
    "radius": "POINT(5.18 52.1)",
    "area": "POLYGON((4 51,6 51,6 53,4 53,4 51))",
    "trajectory": "LINESTRING(4 52,6 52.5)",
}
_WKT = re.compile(r"^\s*(?:SRID=4326;)?\s*([A-Za-z]+)\s*(ZM|Z|M)?\s*[(]", re.IGNORECASE)
_TOKEN = re.compile(r"^\d{1,18}\.\d{1,12}(\.[0-9a-f]{8}\.\d{1,10}\.[0-9TZ.]{16,24}-[0-9a-f]{16})?$")
_UNITS_OF_LENGTH = {"": "m", "m": "m", "km": "km", "mi": "mile", "miles": "mile", "nm": "nautical_mile"}


class BadRequest(ValueError):
    """A request that cannot be answered; the message is a sentence for the person who asked."""


class NotFound(LookupError):
    """What was asked for does not exist."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be answered. `limit`, `offset` and `after` count items, or locations."""

    kind: str
    query: Query
    format: str
    location: str | None = None
    item: str | None = None
    limit: int = USUAL_ITEMS
    offset: int = 0
    after: str | None = None
    crs: Crs = CRS84


def asked(
    collection: Collection, kind: str, given: Mapping[str, str], id: str | None = None, format: str | None = None
) -> Asked:
    """What a request for `kind` (of `QUERIES`; `id` names one location or item) with the parameters `given` asks for.

    Raises BadRequest with a sentence.
    """
    parameters = _named(kind, given)
    start, end = interval(parameters.get("datetime"))
    crs = _crs(parameters.get("crs"), collection.offered_crs)
    known = collection.parameters()
    region, heights = _region(kind, parameters, crs)
    if heights is not None:
        if "z" in parameters:
            raise BadRequest(
                f"heights stand in z and in {'bbox' if 'bbox' in parameters else 'coords'}; give them once"
            )
        parameters["z"] = heights
    chosen = _parameters(known, parameters)
    limit, rows = _limit(kind, parameters.get("limit"))
    query = Query(
        start,
        end,
        region,
        (id,) if kind == "locations" and id is not None else None,
        chosen,
        nearest=kind == "position",
        described=kind == "items",
        bounds=Bounds(rows=rows),
    )
    offset, after = _place_of_page(parameters)
    if id is not None and (len(id) > 200 or not id.isprintable()):
        raise BadRequest("the id is no id of this collection: it is too long, or has characters that none has")
    return Asked(
        kind,
        query,
        _format(kind, parameters.get("f") if format is None else format, id),
        id if kind == "locations" else None,
        id if kind == "items" else None,
        limit,
        offset,
        after,
        crs,
    )


def _named(kind: str, given: Mapping[str, str]) -> dict[str, str]:
    """Parameters under one spelling; refuses those that are not known, so that no filter is lost in silence."""
    named: dict[str, str] = {}
    for name, value in given.items():
        own = _ALSO.get(name, name)
        if own not in KNOWN[kind] and name not in ("lang", "skipGeometry"):
            raise BadRequest(f"parameter {name[:60]!r} is not known here; known are {', '.join(sorted(KNOWN[kind]))}")
        if "\x00" in value or len(value) > LONGEST_TEXT:
            raise BadRequest(f"{own} is longer than {LONGEST_TEXT:,} characters, or has characters that no value has")
        named[own] = value.strip()
    return named


# Time.


def interval(text: str | None) -> tuple[int | None, int | None]:
    """The first and last microsecond of a ``datetime`` parameter (OGC API: an instant, ``a/b``, ``../b``, ``a/..``).

    A date is all of that day; a time without a zone is UTC. An instant to the second is that second.
    """
    if text is None or text in ("", "..", "../..", "/"):
        return None, None
    parts = text.split("/")
    if len(parts) > 2:
        raise BadRequest(
            f"datetime {text[:80]!r} has more than one '/'; right would be 2026-06-21T06:00Z/2026-06-21T12:00Z"
        )
    if len(parts) == 1:
        return _moments(parts[0])
    start = None if parts[0] in ("", "..") else _moments(parts[0])[0]
    end = None if parts[1] in ("", "..") else _moments(parts[1])[1]
    if start is not None and end is not None and end < start:
        raise BadRequest(f"datetime {text[:80]!r} ends before it starts")
    return start, end


def _moments(text: str) -> tuple[int, int]:
    wrong = BadRequest(
        f"datetime {text[:60]!r} is not RFC 3339; right would be 2026-06-21T06:00:00Z, 2026-06-21, or an interval "
        "2026-06-21T06:00Z/.."
    )
    if not text.isascii() or not re.match(r"^\d{4}-", text):
        raise wrong
    # A '+' in a query string is a blank, so an offset of +02:00 arrives as ' 02:00'.
    text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text)
    try:
        first = int((parse_moment(text) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
    except (ValueError, OverflowError):
        raise wrong from None
    if re.match(r"^\d{4}-\d\d-\d\d$", text):
        return first, first + 24 * 3600 * 1_000_000 - 1
    return first, first if "." in text else first + 999_999


# Place.


def _region(kind: str, parameters: Mapping[str, str], crs: Crs) -> tuple[Region | None, str | None]:
    """The region that is asked for, and the heights that stand in its coordinates, as `z` would have them."""
    if "bbox" in KNOWN[kind]:
        if parameters.get("bbox"):
            return _box(parameters["bbox"], crs)
        if kind == "cube":
            raise BadRequest("cube needs bbox=west,south,east,north, in degrees")
        return None, None
    shape = _shape(kind, parameters.get("coords"), crs)
    height = _height(kind, shape)
    if kind == "area":
        return Shapes(tuple(shapely.get_parts(shape))), height
    if kind == "trajectory":
        return _path(shape, crs), height
    centres = tuple((_turned(point.x), float(point.y)) for point in shapely.get_parts(shape))
    return Circles(centres, NEAR if kind == "position" else _within(parameters)), height


def _height(kind: str, shape: shapely.Geometry) -> str | None:
    """The one height (m above ground) that the coordinates of a shape have; a path through several is none of ours."""
    if not shapely.has_z(shape):
        return None
    heights = set(shapely.get_coordinates(shape, include_z=True)[:, 2].tolist())
    if len(heights) > 1 or not all(map(math.isfinite, heights)):
        raise BadRequest(f"coords have several heights; a {kind} query takes one, or a range as z=0/10")
    return f"{heights.pop():g}"


def _box(text: str, crs: Crs) -> tuple[Region, str | None]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (4, 6) or not all(math.isfinite(number) for number in numbers):
        raise BadRequest(f"bbox {text[:80]!r} is not west,south,east,north; right would be 4.5,51,6.5,53")
    heights = None
    if len(numbers) == 6:
        low, high = numbers[2], numbers[5]
        if low > high:
            raise BadRequest(f"bbox {text[:80]!r}: the low {low:g} is above the high {high:g}")
        numbers, heights = [*numbers[:2], *numbers[3:5]], f"{low:g}/{high:g}"
    west, south, east, north = (numbers[place] for place in ((1, 0, 3, 2) if crs.north_first else (0, 1, 2, 3)))
    if south > north:
        raise BadRequest(f"bbox {text[:80]!r}: the south {south:g} is north of the north {north:g}")
    if not crs.is_geographic:
        if west > east:
            raise BadRequest(f"bbox {text[:80]!r}: the west {west:g} is east of the east {east:g}")
        box = shapely.box(*((south, west, north, east) if crs.north_first else (west, south, east, north)))
        return Shapes((_placed(crs.shape_in_lon_lat(box)),)), heights
    if max(abs(west), abs(east)) > 180 or max(abs(south), abs(north)) > 90:
        raise BadRequest(
            f"bbox {text[:80]!r} leaves the globe: longitudes are within -180 and 180 (west greater than east crosses "
            "the date line), latitudes within -90 and 90"
        )
    return Box(west, south, east, north), heights


def _placed(shape: shapely.Geometry) -> shapely.Geometry:
    """The shape, if all of its points are places."""
    points = shapely.get_coordinates(shape)
    if not (np.isfinite(points).all() and (abs(points[:, 0]) <= 540).all() and (abs(points[:, 1]) <= 90).all()):
        raise BadRequest(
            "coords leave the globe: they are longitude and latitude, in this order, in degrees, unless crs says "
            "otherwise (EPSG:4326 has latitude first)"
        )
    return shape


def _shape(kind: str, text: str | None, crs: Crs) -> shapely.Geometry:
    """The shape in longitude and latitude; a path stays in `crs`, with its times."""
    right = f"right would be coords={_EXAMPLE[kind]}"
    if not text:
        raise BadRequest(f"{kind} needs coords, in well-known text; {right}")
    head = _WKT.match(text)
    kinds = _KINDS[kind]
    # Looked at before it is parsed: nested collections would use up the parser's stack.
    if head is None or head[1].upper().removesuffix("ZM").removesuffix("Z").removesuffix("M") not in kinds:
        raise BadRequest(f"coords of {kind} are {' or '.join(kinds)}, in well-known text; {right}")
    try:
        shape = shapely.from_wkt(re.sub(r"^\s*SRID=4326;", "", text, flags=re.IGNORECASE))
    except (shapely.errors.ShapelyError, ValueError) as error:
        raise BadRequest(f"coords are not well-known text ({str(error)[:120]}); {right}") from None
    if shape is None or shape.is_empty or any(part.is_empty for part in shapely.get_parts(shape)):
        raise BadRequest(f"coords are empty; {right}")
    points = shapely.get_coordinates(shape)
    if len(points) > MOST_POINTS:
        raise BadRequest(f"coords have {len(points):,} points; at most {MOST_POINTS:,} are taken: simplify the shape")
    if kind in ("position", "radius") and len(points) > 100:
        raise BadRequest(f"coords have {len(points):,} points; a {kind} query takes at most 100")
    if kind == "trajectory":
        _placed(crs.shape_in_lon_lat(shapely.force_2d(shape)))
        return shape
    shape = _placed(crs.shape_in_lon_lat(shape))
    if kind == "area" and not shape.is_valid:
        raise BadRequest(f"coords are no proper polygon: {shapely.is_valid_reason(shape)}")
    return shape


def _path(shape: shapely.Geometry, crs: Crs) -> Paths:
    lines, times = [], []
    for line in shapely.get_parts(shape):
        points = crs.lon_lat(shapely.get_coordinates(line))
        if (abs(points[1:, 0] - points[:-1, 0]) > 180).any():
            raise BadRequest(
                "coords have a leg of more than half a turn; to cross the date line go on beyond 180 degrees"
            )
        lines.append(tuple((float(lon), float(lat)) for lon, lat in points))
        if shapely.has_m(line):
            seconds = shapely.get_coordinates(line, include_m=True)[:, -1]
            if not (abs(seconds) < 1e11).all():
                raise BadRequest("the M of coords is no time: it is seconds since 1970, UTC")
            times.append(tuple(int(second * 1e6) for second in seconds))
    return Paths(tuple(lines), NEAR, tuple(times) if len(times) == len(lines) else ())


def _within(parameters: Mapping[str, str]) -> float:
    text, unit = parameters.get("within", ""), parameters.get("within-units", "")
    right = "right would be within=10&within-units=km"
    try:
        number = float(text)
        scale, _ = cf.conversion(_UNITS_OF_LENGTH.get(unit.lower(), unit), "m")
    except ValueError:  # UnitError is one
        raise BadRequest(f"within {text[:30]!r} {unit[:30]!r} is no distance; {right}") from None
    metres = number * scale
    if not 0 < metres <= FARTHEST:
        raise BadRequest(
            f"within is {metres:g} m; it must be more than 0 and at most {FARTHEST / 1000:,.0f} km; {right}"
        )
    return metres


def _turned(lon: float) -> float:
    return float((lon + 180) % 360 - 180) if abs(lon) > 180 else float(lon)


def _crs(text: str | None, offered: tuple[str, ...]) -> Crs:
    crs = crs_of(text, offered)
    if crs is None:
        raise BadRequest(f"crs {str(text)[:80]!r} is not offered here; offered are {', '.join(offered)}")
    return crs


# Parameters.


def _parameters(known: dict[str, Parameter], asked: Mapping[str, str]) -> tuple[str, ...] | None:
    """The ids that fit every filter; None where there is no filter. A part may have ``*`` and ``?``."""
    filters: dict[str, Callable[[Parameter, str], bool]] = {
        "parameter-name": lambda p, want: fnmatchcase(p.id, want) or p.name == want,
        "standard-name": lambda p, want: fnmatchcase(p.name, want),
        "level": lambda p, want: _on_level(p.level, want),
        "z": lambda p, want: _on_level(p.level, want),
        "method": lambda p, want: fnmatchcase(p.method, want),
        "period": lambda p, want: fnmatchcase(p.period, want),
    }
    chosen: tuple[str, ...] | None = None
    for name, fits in filters.items():
        if name not in asked:
            continue
        wanted = [part.strip() for part in asked[name].split(",")]
        if not any(wanted):
            raise BadRequest(f"{name} is empty; leave it out, or name one of {_some(known, name)}")
        if len(wanted) > 200 or any(len(part) > 200 for part in wanted):
            raise BadRequest(f"{name} names too much; at most 200 names of 200 characters are taken")
        for part in wanted:
            if not any(fits(parameter, part) for parameter in known.values()):
                raise BadRequest(
                    f"{name} {part[:80]!r} fits no parameter of this collection; there are {_some(known, name)}"
                )
        before = known if chosen is None else chosen
        chosen = tuple(id for id in before if any(fits(known[id], part) for part in wanted))
    if chosen == ():
        raise BadRequest("no parameter of this collection fits all of the filters together; ask for less")
    return chosen


def _on_level(level: float, text: str) -> bool:
    """Whether a level (m) is ``2``, in ``0/10``, not below it in ``0/..``, or one of the 5 in ``R5/0/2``: 0, 2, ..."""
    low, between, high = text.partition("/")
    try:
        if repeated := re.match(r"^R(\d{1,4})/([^/]+)/([^/]+)$", text):
            number, first, step = int(repeated[1]), float(repeated[2]), float(repeated[3])
            return any(math.isclose(level, first + place * step, abs_tol=1e-9) for place in range(number))
        if not between:
            return math.isclose(level, float(low))
        return (low == ".." or level >= float(low)) and (high == ".." or level <= float(high))
    except ValueError:
        raise BadRequest(
            f"level {text[:60]!r} is no height; right would be 2, 2,10 or 0/10, in metres above ground"
        ) from None


def _some(known: dict[str, Parameter], name: str) -> str:
    parts: dict[str, Callable[[Parameter], str]] = {
        "parameter-name": lambda p: p.id,
        "standard-name": lambda p: p.name,
        "level": lambda p: f"{p.level:g}",
        "z": lambda p: f"{p.level:g}",
        "method": lambda p: p.method,
        "period": lambda p: p.period,
    }
    values = list(dict.fromkeys(map(parts[name], known.values())))
    return ", ".join(values[:12]) + (f" and {len(values) - 12} more" if len(values) > 12 else "") or "none yet"


# The answer's form.


def _limit(kind: str, text: str | None) -> tuple[int, int]:
    """The items or locations of a page, and the rows of any other answer."""
    if text is None or text == "":
        return (USUAL_ITEMS if kind == "items" else MOST_ROWS), MOST_ROWS
    if not re.match(r"^\d{1,9}$", text) or not text.isascii() or int(text) < 1:
        raise BadRequest(f"limit {text[:30]!r} is no number from 1 on")
    most = MOST_ITEMS if kind == "items" else MOST_ROWS
    return min(int(text), most), min(int(text), MOST_ROWS) if kind not in ("items", "locations") else MOST_ROWS


def _place_of_page(parameters: Mapping[str, str]) -> tuple[int, str | None]:
    offset, after = parameters.get("offset", "0") or "0", parameters.get("after")
    if not re.match(r"^\d{1,15}$", offset) or not offset.isascii():
        raise BadRequest(f"offset {offset[:30]!r} is no number from 0 on")
    if after is not None and not _TOKEN.match(after):
        raise BadRequest("after is taken from the link `next` of the page before, and cannot be made up")
    return int(offset), after


def _format(kind: str, text: str | None, id: str | None) -> str:
    listing = kind == "items" or (kind == "locations" and id is None)
    if not text or text.lower() in ("json", "application/json", "*/*"):
        return "geojson" if listing else "covjson"
    found = FORMAT_NAMES.get(text.lower())
    if found is None or (listing and found == "covjson"):
        offered = [name for name in FORMATS if not (listing and name == "covjson")]
        raise BadRequest(f"f={text[:40]!r} is not offered here; offered are {', '.join(offered)} and html")
    return found
