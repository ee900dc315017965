"""What formats make of a station: an identifier that fits, a name for a place without one, its height.

Belongs here: what ODB and BUFR have to agree on, so that a station has one id in both. Does not belong here: a format.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.station_entries import WIGOS_ID

POSITION_ID_WIDTH = 16

WIGOS_COLUMN = "wigos_id"
"""A metadata column with the WIGOS id of a station whose own id is another one."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def fitting(name: str, width: int, plain: bool = False) -> str:
    """`name` in at most `width` (up to 64) characters of ASCII; letters and digits alone where it must be `plain`.

    What is too long loses its separators; what is then still no good becomes the last `width` digits of its SHA-256
    as a number to the base 36: of 100,000 stations with such ids of 8 characters, two share one once in 500 times.
    """
    letters = unicodedata.normalize("NFKD", name)
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    if plain or len(text) > width:
        text = text.translate({ord(separator): None for separator in ":-_ "})
    if 0 < len(text) <= width and text.isascii() and (text.isalnum() if plain else text.isprintable()):
        return text
    number = int.from_bytes(hashlib.sha256(name.encode()).digest())
    made = []
    for _ in range(width):
        number, digit = divmod(number, 36)
        made.append(_DIGITS[digit])
    return "".join(reversed(made))


def wigos_ids_of(batch: pa.RecordBatch) -> pa.Array | None:
    """The WIGOS ids that a dataset says of its rows' stations beside their own ids, if it has any."""
    return batch.column(WIGOS_COLUMN) if WIGOS_COLUMN in batch.schema.names else None


def is_wigos_id(name: str) -> bool:
    """Whether `name` is a WIGOS station identifier (WMO-No. 1160): ``0-<issuer>-<issue number>-<local id>``."""
    return re.match(WIGOS_ID, name) is not None


def position_ids(lat: npt.NDArray[np.float64], lon: npt.NDArray[np.float64]) -> npt.NDArray[np.bytes_]:
    """16 digits that name a place to about a metre: 8 of the latitude, 8 of the longitude."""
    north, east = np.rint((lat + 90) * 1e5).astype(np.int64), np.rint((lon + 180) * 1e5).astype(np.int64)
    powers = 10 ** np.arange(POSITION_ID_WIDTH - 1, -1, -1)
    digits = (north * 10**8 + east)[:, None] // powers % 10 + ord("0")
    return np.asarray(digits.astype(np.uint8).view(f"S{POSITION_ID_WIDTH}").ravel())


def numbers_in(texts: pa.Array) -> npt.NDArray[np.float64]:
    """The numbers that `texts` hold, NaN where they hold none."""
    series = pl.from_arrow(texts)
    assert isinstance(series, pl.Series)
    numbers = series.cast(pl.Float64, strict=False).to_numpy()
    return np.where(np.isfinite(numbers), numbers, np.nan)
