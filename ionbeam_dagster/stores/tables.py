"""Small tables that the platform keeps for itself, each with what is said of it: written and read such that damage is
an error.

Belongs here: their form. Does not belong here: where they lie, and what is in them (stations.py, heard.py).

Arrow reads them, and not polars, which ends the whole process at some damaged files (it asks for exabytes of memory).
Pages have checksums; those of earlier versions have none, and are read all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.stores.damage import UNREADABLE, is_of_the_file

_KEY = b"ionbeam"


def write_table(place: Path, table: pl.DataFrame, about: Mapping[str, Any]) -> None:
    said = table.to_arrow().replace_schema_metadata({_KEY: json.dumps(about).encode()})
    pq.write_table(said, place, compression="zstd", write_page_checksum=True)


def read_table(place: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table, and what is said of it. Raises pyarrow.ArrowInvalid where the file is damaged."""
    try:
        with pq.ParquetFile(place, page_checksum_verification=True) as file:
            found = file.read()
        found.validate(full=True)
        about = json.loads((found.schema.metadata or {}).get(_KEY, b"{}"))
        return pl.DataFrame(pl.from_arrow(found)), dict(about)
    except (*UNREADABLE, ValueError, TypeError) as error:
        if not is_of_the_file(error):
            raise
        raise pa.ArrowInvalid(f"{place} is damaged ({error})") from error
