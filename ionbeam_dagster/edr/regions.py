"""Parts of the globe that a query may ask for, and which places lie in them.

Belongs here: boxes, circles, shapes and paths, as bounds (to leave files and row groups out) and as a test of whole
columns. Does not belong here: the reading of WKT (coordinates.py).

Longitudes of observations are in [-180, 180]. Those of a region may go beyond, up to 540: it then crosses the date
line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import shapely

from ionbeam_dagster.domain.geo import MEAN_RADIUS, great_circle

Degrees = npt.NDArray[np.float64]
Bounds = tuple[float, float, float, float]  # west, south, east, north, in degrees; west <= east, within [-180, 180]


class Region(Protocol):
    @property
    def bounds(self) -> tuple[Bounds, ...]:
        """Boxes that together hold the region."""
        ...

    def holds(self, lon: Degrees, lat: Degrees, time: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which rows lie in it; `time` in microseconds since 1970."""
        ...


@dataclass(frozen=True)
class Box:
    """All places between two meridians and two parallels; west of 170 and east of -170 crosses the date line."""

    west: float
    south: float
    east: float
    north: float

    @cached_property
    def bounds(self) -> tuple[Bounds, ...]:
        east = self.east if self.east >= self.west else self.east + 360
        return _wrapped(self.west, self.south, east, self.north)

    def holds(self, lon: Degrees, lat: Degrees, time: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return inside(self.bounds, lon, lat)


@dataclass(frozen=True)
class Circles:
    """All places at most `radius` metres from one of `centres` (lon, lat)."""

    centres: tuple[tuple[float, float], ...]
    radius: float

    @cached_property
    def bounds(self) -> tuple[Bounds, ...]:
        return tuple(box for centre in self.centres for box in _around(*centre, self.radius))

    def holds(self, lon: Degrees, lat: Degrees, time: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        held = np.zeros(len(lon), bool)
        for east, north in self.centres:
            held |= great_circle(lat, lon, north, east) <= self.radius
        return held


@dataclass(frozen=True)
class Shapes:
    """Polygons on the plane of longitude and latitude, their edges included."""

    polygons: tuple[shapely.Polygon, ...]

    @cached_property
    def bounds(self) -> tuple[Bounds, ...]:
        return tuple(box for polygon in self.polygons for box in _wrapped(*polygon.bounds))

    def holds(self, lon: Degrees, lat: Degrees, time: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        held = np.zeros(len(lon), bool)
        for polygon in self.polygons:
            west, _, east, _ = polygon.bounds
            for turn in (-360.0, 0.0, 360.0):
                if west <= 180 + turn and east >= -180 + turn:
                    held |= shapely.intersects_xy(polygon, lon + turn, lat)
        return held


@dataclass(frozen=True)
class Paths:
    """All places at most `radius` metres from a line, and of its times, where its points have one, in between."""

    lines: tuple[tuple[tuple[float, float], ...], ...]
    radius: float
    times: tuple[tuple[int, ...], ...] = field(default=())  # microseconds since 1970, one a point, or nothing at all

    @cached_property
    def bounds(self) -> tuple[Bounds, ...]:
        boxes = []
        for line in self.lines:
            for (west, south), (east, north) in pairwise(line):
                corners = [*_around(west, south, self.radius), *_around(east, north, self.radius)]
                crosses = abs(east - west) > 180 or max(abs(west), abs(east)) > 180
                sides = (-180.0, 180.0) if crosses else (min(c[0] for c in corners), max(c[2] for c in corners))
                boxes.append((sides[0], min(c[1] for c in corners), sides[1], max(c[3] for c in corners)))
        return tuple(boxes)

    def holds(self, lon: Degrees, lat: Degrees, time: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        held = np.zeros(len(lon), bool)
        for number, line in enumerate(self.lines):
            for leg, (start, end) in enumerate(pairwise(line)):
                near = _distance_to_leg(lon, lat, start, end) <= self.radius
                if self.times:
                    begun, ended = sorted(self.times[number][leg : leg + 2])
                    near &= (time >= begun) & (time <= ended)
                held |= near
        return held


def inside(bounds: tuple[Bounds, ...], lon: Degrees, lat: Degrees) -> npt.NDArray[np.bool_]:
    held = np.zeros(len(lon), bool)
    for west, south, east, north in bounds:
        held |= (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    return held


def touches(bounds: tuple[Bounds, ...], box: Bounds) -> bool:
    """Whether any of `bounds` has a place in common with `box`."""
    west, south, east, north = box
    return any(w <= east and e >= west and s <= north and n >= south for w, s, e, n in bounds)


def _distance_to_leg(lon: Degrees, lat: Degrees, start: tuple[float, float], end: tuple[float, float]) -> Degrees:
    """Metres to the nearest place of a straight leg; the leg is cut at that place on a plane around each row."""
    step = end[0] - start[0], end[1] - start[1]
    narrowing = np.cos(np.radians(np.clip(lat, -89.9, 89.9)))
    offset = (lon - start[0] + 180) % 360 - 180
    along = offset * step[0] * narrowing**2 + (lat - start[1]) * step[1]
    length = step[0] ** 2 * narrowing**2 + step[1] ** 2
    part = np.clip(along / np.where(length > 0, length, 1), 0, 1)
    east, north = start[0] + part * step[0], start[1] + part * step[1]
    return great_circle(lat, lon, north, east)


def _around(lon: float, lat: float, radius: float) -> tuple[Bounds, ...]:
    """Boxes that hold a circle; one that reaches a pole holds all longitudes."""
    angle = radius / MEAN_RADIUS * 1.000001 + 1e-9
    south, north = lat - np.degrees(angle), lat + np.degrees(angle)
    if south <= -90 or north >= 90:
        return ((-180.0, max(float(south), -90.0), 180.0, min(float(north), 90.0)),)
    across = float(np.degrees(np.arcsin(min(1.0, np.sin(angle) / np.cos(np.radians(lat))))))
    return _wrapped(lon - across, float(south), lon + across, float(north))


def _wrapped(west: float, south: float, east: float, north: float) -> tuple[Bounds, ...]:
    """The same box in pieces within [-180, 180]."""
    if east - west >= 360:
        return ((-180.0, south, 180.0, north),)
    boxes = []
    for turn in (-720.0, -360.0, 0.0, 360.0, 720.0):
        left, right = max(west + turn, -180.0), min(east + turn, 180.0)
        if left <= right:
            boxes.append((left, south, right, north))
    return tuple(boxes)
