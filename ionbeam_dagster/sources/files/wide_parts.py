"""Parts of files that reach over many windows, as those of a file that is sorted by station: each is read once.

Belongs here: which of these wait until another window wants its rows. Does not belong here: small files, which are read
many at a time (small_files.py), how rows wait (waiting.py), and reading (readers.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files.readers import ROW, Place
from ionbeam_dagster.sources.files.times import FILED
from ionbeam_dagster.sources.files.waiting import Piece

MANY = 4
"""Windows that a part reaches over for which its rows are kept."""
ROWS_A_PIECE = 500_000
MOST_KEPT = 1 << 30
"""Bytes of rows that wait on disk; a file for which there is no room is read again for each window."""
PART = "x_part"

State = tuple[int, int]
"""A file's size and the time of its last change."""


@dataclass(slots=True)
class _Kept:
    """What waits of a file as it is: its parts by number, and their rows."""

    state: State
    numbers: dict[Place, int] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    has_room: bool = True


class KeptParts:
    """A source's rows of parts of files, each file by its name."""

    def __init__(self) -> None:
        self._files: dict[str, _Kept] = {}

    def has_any(self, name: str, state: State) -> bool:
        return bool(self._of(name, state).numbers)

    def missing(self, name: str, state: State, places: Iterable[Place]) -> list[Place]:
        """Those parts of a file that do not wait."""
        kept = self._of(name, state)
        return [place for place in places if place not in kept.numbers]

    def has_room(self, name: str, state: State) -> bool:
        """Whether parts of a file may wait: it was not found to be too large."""
        return self._of(name, state).has_room

    def keep(
        self, name: str, state: State, places: Sequence[Place], read: Iterable[tuple[Place, pl.DataFrame]]
    ) -> bool:
        """Have parts of a file wait, whose rows with ``x_filed`` are `read`; False, and nothing of them waits, where
        there is no room."""
        kept = self._of(name, state)
        numbers = {place: len(kept.numbers) + number for number, place in enumerate(places)}
        pieces: list[Piece] = []
        room = MOST_KEPT - sum(piece.size for file in self._files.values() for piece in file.pieces)
        for some in _gathered(rows.with_columns(pl.lit(numbers[place], pl.Int32).alias(PART)) for place, rows in read):
            pieces.append(Piece(some))
            room -= pieces[-1].size
            if room < 0:
                kept.has_room = False
                return False
        kept.numbers |= numbers
        kept.pieces += pieces
        return True

    def rows(self, name: str, state: State, places: Sequence[Place], window: Window) -> pl.DataFrame | None:
        """The rows of parts that are filed in `window`, part by part and in their order; None where there are none."""
        kept = self._of(name, state)
        order = np.full(len(kept.numbers), -1, np.int64)
        order[[kept.numbers[place] for place in places]] = np.arange(len(places))
        found = []
        for piece in kept.pieces:
            some = piece.within(window)
            found.append(some.with_columns(pl.Series(PART, order[some[PART].to_numpy()])).filter(pl.col(PART) >= 0))
        rows = pl.concat(found).sort(PART, ROW, maintain_order=True).drop(PART, FILED) if found else None
        return rows if rows is not None and rows.height else None

    def _of(self, name: str, state: State) -> _Kept:
        """What waits of a file; what waited of it as it was before goes."""
        if name not in self._files or self._files[name].state != state:
            self._files[name] = _Kept(state)
        return self._files[name]


def _gathered(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The rows of many frames in few, of about ROWS_A_PIECE each."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(some.height for some in waiting) >= ROWS_A_PIECE:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)
