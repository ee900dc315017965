"""What was looked at of a file, as columns.

Belongs here: the record that all guesses are made from. Does not belong here: looking (looking.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ionbeam_dagster.sources.files.guessing.statements import Line, as_data

ROWS = 2000


@dataclass(slots=True)
class Sample:
    """What was looked at of a file: columns of texts, or of the format's own types.

    `statements` say how it is written; `units` and `methods` are what lines above the rows say of columns; `around` are
    comments and lines above the rows. `knows_times` of formats that say themselves where these are, `moments` are
    these; `tags` are the columns that can only describe a station, `lacking` those that other files of the shape lack.
    """

    path: Path
    format: str
    rows: pl.DataFrame
    statements: list[Line] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    around: list[str] = field(default_factory=list)
    decimal: str = "."
    names_are_invented: bool = False
    knows_times: bool = False
    moments: pl.Series | None = None
    tags: tuple[str, ...] = ()
    lacking: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[str, str]:
        """Files of one shape have the same: their format, and how they are written."""
        written = as_data(self.statements)
        return self.format, repr({key: value for key, value in written.get("csv", {}).items() if key != "names"})
