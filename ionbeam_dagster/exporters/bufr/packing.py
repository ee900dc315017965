"""How a column becomes bits, by regulation 94.6.3 of WMO-No. 306, Volume I.2.

Of each element stand the least value, in how many bits the differences to it are (six bits tell), and the differences.
Where all subsets agree there are none; all bits set are a missing value.

Belongs here: the compression of one column. Does not belong here: which columns a message has (messages.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.exporters.bufr.templates import MISSING, Integers

Bits = npt.NDArray[np.uint8]


def _bits(number: int, width: int) -> Bits:
    padded = np.frombuffer((number << -width % 8).to_bytes(-(-width // 8)), np.uint8)
    return np.unpackbits(padded, count=width)


def the_same(number: int, width: int) -> Bits:
    """An element that has one value in all subsets."""
    return np.concatenate([_bits((1 << width) - 1 if number == MISSING else number, width), _bits(0, 6)])


def packed_integers(column: Integers, width: int) -> list[Bits]:
    """Integers of at most `width` bits, `MISSING` included."""
    least, most = int(column.min()), int(column.max())
    if least == most:
        return [the_same(least, width)]
    given = None
    if least == MISSING:
        given = column != MISSING
        least = int(column[given].min())
    size = (most - least + 1).bit_length()  # room for all bits set, even where nothing is missing
    differences = (column - least).astype(">u4")
    if given is not None:
        differences[~given] = (1 << size) - 1
    each = np.unpackbits(differences.view(np.uint8)).reshape(-1, 32)[:, 32 - size :]
    return [_bits(least, width), _bits(size, 6), each.ravel()]


def packed_quality(column: Integers, width: int) -> list[Bits]:
    """Associated fields. Readers do not look for missing ones among differences: these take the whole width."""
    least, most = int(column.min()), int(column.max())
    if least != MISSING or least == most:
        return packed_integers(column, width)
    each = np.unpackbits(column.astype(">u4").view(np.uint8)).reshape(-1, 32)[:, 32 - width :]
    return [_bits(0, width), _bits(width, 6), each.ravel()]


def packed_texts(column: npt.NDArray[np.bytes_], width: int) -> list[Bits]:
    """Texts are padded with blanks; no text is all bits set."""
    octets = max(1, int(np.char.str_len(column).max()))
    if (column == column[0]).all():
        text = bytes(column[0]).ljust(width // 8) if column[0] else b"\xff" * (width // 8)
        return [the_same(int.from_bytes(text), width)]
    padded = np.char.ljust(column, octets).astype(f"S{octets}").view(np.uint8).reshape(-1, octets).copy()
    padded[column == b""] = 0xFF
    return [_bits(0, width), _bits(octets, 6), np.unpackbits(padded)]
