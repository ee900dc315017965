"""What pictures share: land and sea under a map, its frame, and how a figure becomes a PNG.

Belongs here: what knows nothing of observations. Nothing global is touched (no pyplot), so that threads may draw at
once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

WIDTH, HEIGHT, DPI = 900, 420, 100
SMALLEST_MAP = 0.02
Extent = tuple[float, float, float, float]  # west, east, south, north in degrees; east may be beyond 180
COASTLINE = Path(__file__).parents[1] / "domain" / "tables" / "coastline.npz"
INK, FAINT, SEA, LAND = "#1f2937", "#6b7280", "#e8f0f6", "#fbfaf6"

rcParams["text.parse_math"] = False  # names and units are text, and no formula


def bulk(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> Extent:
    """Where places are, or nearly all of them when a few far ones (an overseas station) would make dots of the rest."""
    (west, east), (south, north) = np.quantile(lon, [0.1, 0.9]), np.quantile(lat, [0.1, 0.9])
    wide, high = max(east - west, 1.0), max(north - south, 1.0)
    near = (np.abs(lon - (west + east) / 2) <= 1.5 * wide) & (np.abs(lat - (south + north) / 2) <= 1.5 * high)
    if np.ptp(lon) < 9 * wide and np.ptp(lat) < 9 * high:
        near[:] = True
    lon, lat = lon[near], lat[near]
    return float(lon.min()), float(lon.max()), float(lat.min()), float(lat.max())


def framed(extent: Extent, aspect: float) -> Extent:
    """`extent` with a margin, widened to a frame of `aspect` (width / height) at its latitude."""
    west, east, south, north = extent
    middle_lon, middle_lat = (west + east) / 2, (south + north) / 2
    stretched = stretch(middle_lat)
    high = max((north - south) * 1.14, (east - west) * 1.14 / (aspect * stretched), SMALLEST_MAP)
    if east == west and north == south:
        high = 4.0
    wide = min(high * aspect * stretched, 360.0)
    high = min(high, 180.0)
    middle_lat = min(max(middle_lat, high / 2 - 90), 90 - high / 2)
    return middle_lon - wide / 2, middle_lon + wide / 2, middle_lat - high / 2, middle_lat + high / 2


def stretch(latitude: float) -> float:
    """How many degrees of longitude are as long as one of latitude."""
    return 1 / math.cos(math.radians(min(abs(latitude), 75.0)))


def draw_ground(axes: Axes, extent: Extent) -> None:
    west, east, south, north = extent
    axes.set_facecolor(SEA)
    land, borders = _outlines("land", extent), _outlines("borders", extent)
    # add_artist, as add_patch would walk along every coast to find the limits that are set here anyway
    axes.add_artist(PathPatch(land, facecolor=LAND, edgecolor="none", zorder=1))
    axes.add_artist(PathPatch(borders, facecolor="none", edgecolor="#c3c0b5", linewidth=0.7, zorder=1.5))
    axes.add_artist(PathPatch(land, facecolor="none", edgecolor="#8b97a5", linewidth=0.7, zorder=2))
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(stretch((south + north) / 2), adjustable="box", anchor="W")
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def draw_graticule(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: degrees((value + 180) % 360 - 180, "E", "W")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: degrees(value, "N", "S")))
    axes.tick_params(labelsize=7.5, length=0, colors=FAINT, pad=2)
    axes.grid(color="#aab4c0", linewidth=0.35, alpha=0.6, zorder=2.5)
    axes.set_axisbelow(False)


def degrees(value: float, positive: str, negative: str) -> str:
    value = round(value, 6)
    return f"{abs(value):g}°{positive if value > 0 else negative if value < 0 else ''}"


@cache
def _coastline() -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]]:
    """For land and borders: the points (n, 2) in degrees, and where each line starts."""
    with np.load(COASTLINE) as table:
        scale, origin = table["scale"], table["origin"]
        return {
            kind: (np.cumsum(table[f"{kind}_steps"], axis=1).T * scale + origin, table[f"{kind}_starts"])
            for kind in ("land", "borders")
        }


def rings(kind: str, extent: Extent) -> Iterator[npt.NDArray[np.float64]]:
    """The lines (n, 2) in degrees that meet `extent`; those a turn away to the east or west are brought along."""
    points, starts = _coastline()[kind]
    ends = np.append(starts[1:], len(points))
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    west, east, south, north = extent
    for turn in (-360.0, 0.0, 360.0):
        meets = (low[:, 0] + turn <= east) & (high[:, 0] + turn >= west) & (low[:, 1] <= north) & (high[:, 1] >= south)
        for start, end in zip(starts[meets], ends[meets], strict=True):
            yield points[start:end] + np.array([turn, 0.0])


def _outlines(kind: str, extent: Extent) -> Outline:
    """The lines that meet `extent`, as one path."""
    vertices, codes = [np.empty((0, 2))], [np.empty(0, np.uint8)]
    for ring in rings(kind, extent):
        vertices.append(ring)
        codes.append(np.r_[Outline.MOVETO, np.full(len(ring) - 1, Outline.LINETO)].astype(np.uint8))
    return Outline(np.concatenate(vertices), np.concatenate(codes))


def write_above(axes: Axes, text: str) -> None:
    axes.annotate(text, (0, 1), (0, 3), "axes fraction", "offset points", fontsize=8.5, color=INK)


def png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    file = BytesIO()
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()
