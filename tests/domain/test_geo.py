"""Distances beside those of another library, and where formulas go wrong: poles, date line, antipodes, one place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from ionbeam_dagster.domain.geo import MEAN_RADIUS, TEST_RADIUS, chord, great_circle, unit_vectors

LAT, LON = st.floats(-90, 90), st.floats(-180, 180)


@given(LAT, LON, LAT, LON)
def test_distances_are_those_of_a_sphere(lat, lon, other_lat, other_lon):
    _, _, right = Geod(a=MEAN_RADIUS, b=MEAN_RADIUS).inv(lon, lat, other_lon, other_lat)
    found = great_circle(np.array([lat]), np.array([lon]), other_lat, other_lon)[0]
    assert abs(found - right) < 0.5  # near the antipode, where the haversine loses digits
    straight = chord(*(np.array([angle]) for angle in (lat, lon, other_lat, other_lon)))[0]
    assert abs(straight - 2 * TEST_RADIUS * np.sin(right / MEAN_RADIUS / 2)) < 0.5


def test_known_distances():
    """A quarter of a meridian, a hundredth of a degree over the date line, and no way at all."""
    found = great_circle(np.array([90.0, 0.0, 52.0]), np.array([0.0, 179.995, 5.0]), np.array([0.0, 0.0, 52.0]),
                         np.array([77.0, -179.995, 5.0]))  # fmt: skip
    np.testing.assert_allclose(found, [np.pi / 2 * MEAN_RADIUS, np.radians(0.01) * MEAN_RADIUS, 0.0], atol=1e-3)
    np.testing.assert_allclose(unit_vectors(np.array([0.0, 90.0]), np.array([180.0, 12.0])), [[-1, 0, 0], [0, 0, 1]],
                               atol=1e-15)  # fmt: skip
