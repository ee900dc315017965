"""A sensor's CSV as rows.

Belongs here: splitting the archive's CSV, whether of one sensor's day or of a month of all. Does not belong here: where
it comes from (archive.py, months.py).
"""

from __future__ import annotations

from io import BytesIO

import polars as pl

FIRST_COLUMNS = b"sensor_id;sensor_type;location;lat;lon;timestamp"
_NAMES = {"sensor_id": "platform_id", "location": "location_id", "altitude": "station_height"}


def read_rows(header: bytes, text: bytes) -> pl.DataFrame:
    """The rows of `text` (which has no header itself), all as text, with our names for the columns.

    Raises polars' ComputeError for what is no text.
    """
    names = header.decode().split(";")
    rows = pl.read_csv(
        BytesIO(text),
        separator=";",
        has_header=False,
        schema=dict.fromkeys(names, pl.String()),
        quote_char=None,
        truncate_ragged_lines=True,  # rows of another firmware, with a field too many
    ).filter(pl.col("sensor_id").is_not_null())
    return rows.rename({old: new for old, new in _NAMES.items() if old in names})
