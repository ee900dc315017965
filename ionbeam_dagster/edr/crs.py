"""Coordinate reference systems that a request may name: its coordinates are read, and the answer written, in that one.

Belongs here: names of systems, and positions from and to longitude and latitude. Does not belong here: regions
(regions.py), or the forms of answers (answers.py).

Coordinates in text stand in the order of the system's own axes: EPSG:4326 has latitude first, OGC:CRS84 longitude.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

Floats = npt.NDArray[np.float64]

_URI = re.compile(r"^https?://www\.opengis\.net/def/crs/(\w+)/[\w.]+/(\w+)$|^urn:ogc:def:crs:(\w+):[\w.]*:(\w+)$", re.I)
_BARE = {"crs84": "OGC:CRS84", "wgs84": "OGC:CRS84"}
OFFERED = ("OGC:CRS84", "EPSG:4326", "EPSG:3857")
"""What every collection offers; a collection's configuration may name more."""


@dataclass(frozen=True, slots=True)
class Crs:
    """A system by its id, such as ``EPSG:3857``. x runs east (degrees or metres), y north, whatever comes first."""

    id: str

    @property
    def uri(self) -> str:
        authority, code = self.id.split(":")
        version = "1.3" if authority == "OGC" else "0"
        return f"http://www.opengis.net/def/crs/{authority}/{version}/{code}"

    @property
    def is_geographic(self) -> bool:
        return bool(_known(self.id).is_geographic)

    @property
    def north_first(self) -> bool:
        return bool(_known(self.id).axis_info[0].direction.lower() == "north")

    @property
    def wkt(self) -> str:
        return str(_known(self.id).to_wkt("WKT1_GDAL" if self.is_geographic else "WKT2_2019"))

    def xy(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """Longitudes and latitudes as x and y."""
        if self.is_geographic and _is_wgs84(self.id):
            return lon, lat
        x, y = _between("OGC:CRS84", self.id).transform(lon, lat)
        return np.asarray(x), np.asarray(y)

    def lon_lat(self, points: Floats) -> Floats:
        """Points (n, 2) in the order of the system's axes as longitude and latitude; infinite where there is no such
        place."""
        x, y = (points[:, 1], points[:, 0]) if self.north_first else (points[:, 0], points[:, 1])
        if not _is_wgs84(self.id):
            x, y = _between(self.id, "OGC:CRS84").transform(x, y)
        return np.column_stack([x, y])

    def shape_in_lon_lat(self, shape: shapely.Geometry) -> shapely.Geometry:
        """A shape in the order of the system's axes, its edges straight there, in longitude and latitude."""
        if self == CRS84:
            return shape
        if not _is_wgs84(self.id):  # a straight edge there is none here
            west, south, east, north = shape.bounds
            longest = max(east - west, north - south) / 50
            shape = shapely.segmentize(shape, longest) if longest > 0 else shape
        heights = shapely.get_coordinates(shape, include_z=True)[:, 2] if shapely.has_z(shape) else None
        points = self.lon_lat(shapely.get_coordinates(shape))
        if heights is None:
            return shapely.set_coordinates(shapely.force_2d(shape), points)
        return shapely.set_coordinates(shape, np.column_stack([points, heights]))


CRS84 = Crs("OGC:CRS84")


def crs_of(text: str | None, offered: tuple[str, ...] = OFFERED) -> Crs | None:
    """The system of a name, a CURIE, an address or a URN; without a text CRS84. None: it is not among the `offered`."""
    if not text:
        return CRS84
    bare = text.strip().strip("[]<>")
    matched = _URI.match(bare)
    if matched:
        bare = f"{matched[1] or matched[3]}:{matched[2] or matched[4]}"
    named = _BARE.get(bare.lower(), f"EPSG:{bare}" if bare.isdecimal() else bare.upper())
    return Crs(named) if named in offered else None


@cache
def _known(id: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(id)


@cache
def _is_wgs84(id: str) -> bool:
    return id in ("OGC:CRS84", "EPSG:4326")


@cache
def _between(one: str, other: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(_known(one), _known(other), always_xy=True)
