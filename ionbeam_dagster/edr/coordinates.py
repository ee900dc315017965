"""The coordinates of a request: well-known text, boxes and distances become regions.

Belongs here: the reading of ``coords``, ``bbox``, ``within`` and ``crs``, each fault with a sentence that says what
would be right. Does not belong here: which places lie in a region (regions.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import shapely

from ionbeam_client import cf
from ionbeam_dagster.edr.crs import Crs, crs_of
from ionbeam_dagster.edr.refusals import BadRequest
from ionbeam_dagster.edr.regions import Box, Circles, Paths, Region, Shapes

BY_BOX = ("cube", "locations", "items")
NEAR = 1_000.0  # m: how far a station may be from a position or a path that is asked for
FARTHEST = 1_000_000.0  # m, of a radius
MOST_POINTS = 1_000
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
_UNITS_OF_LENGTH = {"": "m", "m": "m", "km": "km", "mi": "mile", "miles": "mile", "nm": "nautical_mile"}


def region_of(kind: str, parameters: Mapping[str, str], crs: Crs) -> tuple[Region | None, str | None]:
    """The region that is asked for, and the heights that stand in its coordinates, as `z` would have them."""
    if kind in BY_BOX:
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


def system_of(text: str | None, offered: tuple[str, ...]) -> Crs:
    crs = crs_of(text, offered)
    if crs is None:
        raise BadRequest(f"crs {str(text)[:80]!r} is not offered here; offered are {', '.join(offered)}")
    return crs
