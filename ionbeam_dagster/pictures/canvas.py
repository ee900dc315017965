"""A canvas for the pictures that are drawn with every window: a map of places, boxes, lines and words.

Drawn by Pillow at three times the size and reduced, it costs a tenth of what a figure of matplotlib does, whose axes,
ticks and texts are objects each. Belongs here: how things are drawn. Does not belong here: what is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ionbeam_dagster.pictures.ground import DPI, FAINT, HEIGHT, LAND, SEA, WIDTH, Extent, degrees, rings

_FINER = 3
"""So many times as large as the picture is that from which it is reduced: edges become smooth."""
_GROUND = (SEA, LAND, "#8b97a5", "#c3c0b5", "#d3dae2")
_SEA, _LAND, _COAST, _BORDER, _GRATICULE = range(len(_GROUND))
Box = tuple[float, float, float, float]
"""Left, bottom, width and height, as parts of the picture's."""
Points = npt.NDArray[np.float64]


class Canvas:
    """A white picture of 900 x 420; places in it are parts of its width and height, from the lower left corner."""

    def __init__(self) -> None:
        self.words: list[str] = []
        """All that is written in it."""
        self._image = Image.new("RGB", (WIDTH * _FINER, HEIGHT * _FINER), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._texts: list[tuple[float, float, str, float, str, str]] = []

    def write(self, x: float, y: float, words: str, size: float = 7.5, colour: str = FAINT, anchor: str = "ls") -> None:
        """Write `words`, of `size` points; `anchor` is Pillow's: which point of them is at (x, y)."""
        self.words.append(words)
        self._texts.append((x * WIDTH, (1 - y) * HEIGHT, words, size, colour, anchor))

    def fill(self, left: float, bottom: float, right: float, top: float, colour: str) -> None:
        (x1, y2), (x2, y1) = self._at(left, bottom), self._at(right, top)
        if x2 > x1 and y2 > y1:
            self._draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)

    def line(self, points: Iterable[tuple[float, float]], colour: str = FAINT, width: float = 1.0) -> None:
        """A line through `points`, `width` pixels wide."""
        self._draw.line([self._at(x, y) for x, y in points], fill=colour, width=round(width * _FINER))

    def draw_map(self, box: Box, extent: Extent) -> None:
        """Land, sea and a graticule."""
        left, bottom, width, height = box
        size = round(width * WIDTH) * _FINER, round(height * HEIGHT) * _FINER
        x, y = self._at(left, bottom + height)
        self._image.paste(_ground(extent, size).convert("RGB"), (round(x), round(y)))
        west, east, south, north = extent
        for lon in _ticks(west, east):
            at = left + width * (lon - west) / (east - west)
            self.write(at, bottom - 0.01, degrees((lon + 180) % 360 - 180, "E", "W"), anchor="mt")
        for lat in _ticks(south, north):
            at = bottom + height * (lat - south) / (north - south)
            self.write(left - 0.004, at, degrees(lat, "N", "S"), anchor="rm")
        corners = (left, bottom), (left + width, bottom), (left + width, bottom + height), (left, bottom + height)
        self.line([*corners, corners[0]], width=0.7)

    def dots(self, box: Box, extent: Extent, places: Points, colour: str, radius: float) -> None:
        """Dots of `radius` pixels at `places` (n, 2) in degrees, those within the map."""
        left, bottom, width, height = box
        west, east, south, north = extent
        x = (left + width * (places[:, 0] - west) / (east - west)) * WIDTH * _FINER
        y = (1 - bottom - height * (places[:, 1] - south) / (north - south)) * HEIGHT * _FINER
        (low_x, high_y), (high_x, low_y) = self._at(left, bottom), self._at(left + width, bottom + height)
        within = (x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y)
        dot = _dot(radius * _FINER)
        half = dot.width / 2
        corners = np.unique(np.rint(np.c_[x, y][within] - half).astype(int), axis=0)
        for corner in corners.tolist():  # of a map's places, which are cells of a grid: no more than it has room for
            self._image.paste(colour, tuple(corner), dot)

    def png(self) -> bytes:
        picture = self._image.reduce(_FINER)
        draw = ImageDraw.Draw(picture)
        for x, y, words, size, colour, anchor in self._texts:
            draw.text((x, y), words, colour, _font(size), anchor)
        file = BytesIO()
        picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, "PNG")
        return file.getvalue()

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * WIDTH * _FINER, (1 - y) * HEIGHT * _FINER


def png(canvas: Canvas) -> bytes:
    return canvas.png()


@lru_cache(16)
def _ground(extent: Extent, size: tuple[int, int]) -> Image.Image:
    """Land and sea of an extent: that of a dataset's stations is the same from window to window."""
    west, east, south, north = extent
    scale = np.array([size[0] / (east - west), -size[1] / (north - south)])
    image = Image.new("P", size, _SEA)  # a byte a pixel, of which there are a million
    image.putpalette([part for colour in _GROUND for part in ImageColor.getrgb(colour)])
    draw = ImageDraw.Draw(image)
    land = [(ring - (west, north)) * scale for ring in rings("land", extent)]
    land.sort(key=_turns_left)  # what lies in land, as the Caspian Sea does, is drawn after it
    for ring in land:
        draw.polygon(ring.ravel().tolist(), fill=_SEA if _turns_left(ring) else _LAND)
    for border in rings("borders", extent):
        draw.line(((border - (west, north)) * scale).ravel().tolist(), fill=_BORDER, width=_FINER - 1)
    for ring in land:
        draw.line(ring.ravel().tolist(), fill=_COAST, width=_FINER - 1)
    for lon in _ticks(west, east):
        draw.line([((lon - west) * scale[0], 0), ((lon - west) * scale[0], size[1])], fill=_GRATICULE, width=1)
    for lat in _ticks(south, north):
        draw.line([(0, (lat - north) * scale[1]), (size[0], (lat - north) * scale[1])], fill=_GRATICULE, width=1)
    return image


def _turns_left(ring: Points) -> bool:
    """Whether a ring, whose rows are counted downwards, goes the other way round than land does."""
    (x, y), (next_x, next_y) = ring[:-1].T, ring[1:].T
    return bool(np.sum(x * next_y - next_x * y) < 0)


def _ticks(low: float, high: float) -> Sequence[float]:
    values = MaxNLocator(5, steps=[1, 2, 3, 5, 10]).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


@cache
def _font(points: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), points * DPI / 72)


@cache
def _dot(radius: float) -> Image.Image:
    side = max(round(2 * radius), 1)
    dot = Image.new("L", (side, side), 0)
    ImageDraw.Draw(dot).ellipse((0, 0, side - 1, side - 1), fill=255)
    return dot
