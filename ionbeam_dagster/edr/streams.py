"""Large answers piece by piece, the same bytes as whole ones (answers.py) have, in the memory of one piece.

Belongs here: where an answer is cut. Does not belong here: what it looks like (answers.py).

A piece is small enough that other requests have their turn between two of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ionbeam_dagster.edr import answers
from ionbeam_dagster.edr.collection import LOCATION
from ionbeam_dagster.edr.query import Rows

ROWS_AT_ONCE = 1_000


def _part(found: Rows, start: int, end: int) -> Rows:
    return replace(found, table=found.table.slice(start, end - start))


def csv(found: Rows) -> Iterator[bytes]:
    for start in range(0, found.table.num_rows, ROWS_AT_ONCE):
        yield answers.csv(_part(found, start, start + ROWS_AT_ONCE), head=start == 0)


def features(found: Rows, links: list[dict[str, str]] | None = None, matched: int | None = None) -> Iterator[bytes]:
    rows = found.table.num_rows
    around = answers.features(_part(found, 0, 0), links, matched)
    yield b'{"type":"FeatureCollection","features":['
    for start in range(0, rows, ROWS_AT_ONCE):
        part = answers.features(_part(found, start, start + ROWS_AT_ONCE))["features"]
        yield (b"," if start else b"") + answers.as_json(part)[1:-1]
    del around["type"], around["features"]
    yield b"]," + answers.as_json(around | {"numberReturned": rows})[1:]


def covjson(found: Rows, links: list[dict[str, str]] | None = None) -> Iterator[bytes]:
    runs = answers.runs(found.table.column(LOCATION))
    used, are_fixed, coverages = _looked_through(found, runs)
    if coverages < 2:
        yield answers.as_json(answers.covjson(found, links))
        return
    around = answers.collection_of(found, [], used, are_fixed, links)
    keys = list(around)
    behind = {key: around[key] for key in keys[keys.index("coverages") + 1 :]}
    before = {key: around[key] for key in keys[: keys.index("coverages")]}
    yield answers.as_json(before)[:-1] + b',"coverages":['
    first = True
    for start, end in _of_whole_runs(runs):
        if part := answers.as_json(answers.coverages(_part(found, start, end)))[1:-1]:
            yield (b"" if first else b",") + part
            first = False
    yield b"]" + (b"," + answers.as_json(behind)[1:] if behind else b"}")


def _looked_through(found: Rows, runs: list[tuple[int, int]]) -> tuple[set[str], bool, int]:
    """Which parameters have a value, whether no station moves, and how many stations have a value of any."""
    starts = np.array([start for start, _ in runs])
    lengths = np.array([end - start for start, end in runs])
    held = np.zeros(len(runs), bool)
    used = set()
    for id in found.parameters:
        values = answers.values_of(found.table.column(id))
        has = (
            np.ones(len(runs), bool) if values.dtype.kind != "f" else np.logical_or.reduceat(~np.isnan(values), starts)
        )
        held |= has
        used |= {id} if has.any() else set()
    fixed = np.ones(len(runs), bool)
    for name in ("lon", "lat"):
        place = found.table.column(name).to_numpy()
        fixed &= np.logical_and.reduceat(place == np.repeat(place[starts], lengths), starts)
    return used, bool(fixed[held].all()), int(held.sum())


def _of_whole_runs(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs in a row, together as long as a piece has rows, or one that is longer."""
    begin = 0
    for start, end in runs:
        if end - begin > ROWS_AT_ONCE and start > begin:
            yield begin, start
            begin = start
    yield begin, runs[-1][1]


def compressed(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    """The pieces as gzip."""
    packer: Any = zlib.compressobj(level, wbits=31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
