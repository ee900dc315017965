"""The Earth's radius, distances between places, and places as vectors, for the whole platform.

Belongs here: what takes degrees and gives metres. Does not belong here: regions that a query asks for (edr/regions.py),
or height above the sea.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MEAN_RADIUS = 6_371_008.8
"""m: the mean radius (2a + b) / 3 of WGS 84's ellipsoid, for distances that people ask for."""

TEST_RADIUS = 6_371_000.0
"""m: as titanlib has it. Quality control, and exports that tell moving stations apart, keep it, so that flags and files
stay the same bit for bit."""

KM_PER_DEGREE = 111.2
"""Of latitude, as the weather of the synthetic network has it, whose rows are the same for ever."""


def unit_vectors(lat: Floats, lon: Floats) -> Floats:
    """Places (degrees, n each) as vectors of length 1 from the Earth's centre, (n, 3): poles and date line are places
    like others."""
    lat, lon = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def chord(lat: Floats, lon: Floats, other_lat: Floats, other_lon: Floats) -> Floats:
    """Metres straight through the Earth between places, on `TEST_RADIUS`; 2.6 m short of the arc in 20 km."""
    apart = unit_vectors(lat, lon) - unit_vectors(other_lat, other_lon)
    return np.asarray(TEST_RADIUS * np.sqrt((apart**2).sum(axis=1)))


def great_circle(lat: Floats, lon: Floats, other_lat: Floats | float, other_lon: Floats | float) -> Floats:
    """Metres along the great circle between places (haversine formula), on `MEAN_RADIUS`."""
    here, there = np.radians(lat), np.radians(other_lat)
    half = np.sin((here - there) / 2) ** 2
    half += np.cos(here) * np.cos(there) * np.sin(np.radians(lon - other_lon) / 2) ** 2
    return np.asarray(2 * MEAN_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0, 1))))
