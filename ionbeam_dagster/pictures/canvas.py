"""A canvas for the pictures that are drawn with every window: a map of places, boxes, lines and words.

Drawn by Pillow at three times the size and reduced, it costs a quarter of what a figure of matplotlib does, whose axes,
ticks and texts are objects each. Belongs here: how things are drawn. Does not belong here: what is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ionbeam_client.text import visible
from ionbeam_dagster.pictures.ground import DPI, FAINT, HEIGHT, LAND, SEA, WIDTH, Extent, degrees, rings

_LONGEST = 200
_FINER = 3
"""So many times as large as the picture is that from which it is reduced: edges become smooth."""
_EDGE = 2.5
"""How many of its pixels the edge of a dot is wide."""
_GROUND = (SEA, LAND, "#8b97a5", "#c3c0b5", "#d3dae2")
_SEA, _LAND, _COAST, _BORDER, _GRATICULE = range(len(_GROUND))
Box = tuple[float, float, float, float]
"""Left, bottom, width and height, as parts of the picture's."""
Points = npt.NDArray[np.float64]
Colours = npt.NDArray[np.uint8]


class Canvas:
    """A white picture of 900 x 420; places in it are parts of its width and height, from the lower left corner."""

    def __init__(self) -> None:
        self.words: list[str] = []
        """All that is written in it."""
        self._image = Image.new("RGB", (WIDTH * _FINER, HEIGHT * _FINER), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._texts: list[tuple[float, float, str, str, str, ImageFont.FreeTypeFont]] = []

    def write(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 7.5,
        colour: str = FAINT,
        anchor: str = "ls",
        bold: bool = False,
    ) -> None:
        """Write `words`, of `size` points, in one line; `anchor` is Pillow's: which point of them is at (x, y)."""
        words = visible(words, _LONGEST)
        self.words.append(words)
        self._texts.append((x * WIDTH, (1 - y) * HEIGHT, words, colour, anchor, _font(size, bold)))

    def fill(self, left: float, bottom: float, right: float, top: float, colour: str) -> None:
        (x1, y2), (x2, y1) = self._at(left, bottom), self._at(right, top)
        if x2 > x1 and y2 > y1:
            self._draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)

    def frame(self, box: Box, colour: str = FAINT, width: float = 0.7) -> None:
        left, bottom, wide, high = box
        right, top = left + wide, bottom + high
        self.line([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)], colour, width)

    def line(self, points: Iterable[tuple[float, float]], colour: str = FAINT, width: float = 1.0) -> None:
        """A line through `points`, `width` pixels wide."""
        self._draw.line([self._at(x, y) for x, y in points], fill=colour, width=round(width * _FINER), joint="curve")

    def area(self, points: Iterable[tuple[float, float]], colour: str) -> None:
        self._draw.polygon([self._at(x, y) for x, y in points], fill=colour)

    def spots(self, points: Iterable[tuple[float, float]], colour: str, radius: float) -> None:
        """A few dots of `radius` pixels, anywhere."""
        for x, y in points:
            self._draw.circle(self._at(x, y), radius * _FINER, fill=colour)

    def hatch(self, left: float, bottom: float, right: float, top: float, ground: str, colour: str) -> None:
        (x1, y1), (x2, y2) = self._at(left, top), self._at(right, bottom)
        size = max(round(x2 - x1), 1), max(round(y2 - y1), 1)
        hatched = Image.new("RGB", size, ground)
        draw = ImageDraw.Draw(hatched)
        for x in range(-size[1], size[0], 8 * _FINER):
            draw.line([(x, size[1]), (x + size[1], 0)], fill=colour, width=_FINER)
        self._image.paste(hatched, (round(x1), round(y1)))

    def draw_map(self, box: Box, extent: Extent) -> None:
        """Land, sea and a graticule, whose degrees are written beside it."""
        left, bottom, width, height = box
        west, east, south, north = extent
        self.draw_ground(box, extent)
        for lon in ticks(west, east):
            at = left + width * (lon - west) / (east - west)
            self.write(at, bottom - 0.01, degrees((lon + 180) % 360 - 180, "E", "W"), anchor="mt")
        for lat in ticks(south, north):
            at = bottom + height * (lat - south) / (north - south)
            self.write(left - 0.004, at, degrees(lat, "N", "S"), anchor="rm")

    def draw_ground(self, box: Box, extent: Extent, graticule: bool = True) -> None:
        """Land and sea alone."""
        x1, y1, x2, y2 = self._pixels(box)
        self._image.paste(_ground(extent, (x2 - x1, y2 - y1), graticule).convert("RGB"), (x1, y1))
        self.frame(box)

    def track(self, box: Box, extent: Extent, places: Points, colour: str = FAINT) -> None:
        """Lines through `places` (n, 2) in degrees, within the map; a place that is NaN ends one."""
        pixels = self._pixels(box)
        part = self._image.crop(pixels)
        draw, (x, y) = ImageDraw.Draw(part), _on_map(part, extent, places)
        for stretch in np.split(np.c_[x, y], np.flatnonzero(np.isnan(x))):
            if len(line := stretch[~np.isnan(stretch[:, 0])]) > 1:
                draw.line(line.ravel().tolist(), fill=colour, width=_FINER - 1)
        self._image.paste(part, pixels[:2])

    def dots(
        self, box: Box, extent: Extent, places: Points, colours: str | Colours, radius: float, edge: str | None = None
    ) -> None:
        """Dots of `radius` pixels at `places` (n, 2) in degrees, those within the map, the last ones on top; of one
        colour, or of one each (n, 3)."""
        if not len(places):
            return
        pixels = self._pixels(box)
        part = self._image.crop(pixels)
        top = _topmost(part, _on_map(part, extent, places), radius * _FINER, _EDGE if edge is not None else 0.0)
        painted = np.array(part)
        if isinstance(colours, str):
            painted[top >= 0] = ImageColor.getrgb(colours)
        else:
            painted[top >= 0] = colours[top[top >= 0] // 2]
        if edge is not None:
            painted[(top >= 0) & (top % 2 == 1)] = ImageColor.getrgb(edge)
        self._image.paste(Image.fromarray(painted), pixels[:2])

    def png(self) -> bytes:
        picture = self._image.reduce(_FINER)
        draw = ImageDraw.Draw(picture)
        for x, y, words, colour, anchor, font in self._texts:
            draw.text((x, y), words, colour, font, anchor)
        file = BytesIO()
        picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, "PNG")
        return file.getvalue()

    def _pixels(self, box: Box) -> tuple[int, int, int, int]:
        left, bottom, width, height = box
        (x1, y2), (x2, y1) = self._at(left, bottom), self._at(left + width, bottom + height)
        return round(x1), round(y1), round(x2), round(y2)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * WIDTH * _FINER, (1 - y) * HEIGHT * _FINER


def png(canvas: Canvas) -> bytes:
    return canvas.png()


@lru_cache(16)
def _ground(extent: Extent, size: tuple[int, int], graticule: bool) -> Image.Image:
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
    for lon in ticks(west, east) if graticule else ():
        draw.line([((lon - west) * scale[0], 0), ((lon - west) * scale[0], size[1])], fill=_GRATICULE, width=1)
    for lat in ticks(south, north) if graticule else ():
        draw.line([(0, (lat - north) * scale[1]), (size[0], (lat - north) * scale[1])], fill=_GRATICULE, width=1)
    return image


def _turns_left(ring: Points) -> bool:
    """Whether a ring, whose rows are counted downwards, goes the other way round than land does."""
    (x, y), (next_x, next_y) = ring[:-1].T, ring[1:].T
    return bool(np.sum(x * next_y - next_x * y) < 0)


def ticks(low: float, high: float, most: int = 5) -> Sequence[float]:
    """Round numbers between two."""
    values = MaxNLocator(most, steps=[1, 2, 3, 5, 10]).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


def _on_map(part: Image.Image, extent: Extent, places: Points) -> tuple[Points, Points]:
    """Columns and rows of places, of the pixels of a map."""
    west, east, south, north = extent
    x = (places[:, 0] - west) / (east - west) * part.width
    return x, (north - places[:, 1]) / (north - south) * part.height


def _topmost(part: Image.Image, at: tuple[Points, Points], radius: float, edge: float) -> npt.NDArray[np.int64]:
    """For each pixel, twice the number of the last dot that covers it, and one more on its edge; -1 where none does.

    All dots are stamped at once, one pixel of theirs after the other.
    """
    reach = math.ceil(radius)
    margin = reach + 1
    top = np.full((part.height + 2 * margin, part.width + 2 * margin), -1, np.int64)
    x, y = (np.rint(values).astype(np.int64) + margin for values in at)
    within = (x >= margin) & (x < part.width + margin) & (y >= margin) & (y < part.height + margin)
    number, x, y = 2 * np.flatnonzero(within), x[within], y[within]
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            away = math.hypot(row, column)
            if away <= radius:
                place = y + row, x + column
                top[place] = np.maximum(top[place], number + (away > radius - edge))
    return top[margin:-margin, margin:-margin]


@cache
def _font(points: float, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", name), points * DPI / 72)
