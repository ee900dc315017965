"""Makes ionbeam_dagster/domain/tables/coastline.npz (land, and the borders between countries) from Natural Earth's
1:50m data: ``.venv/bin/python tools/coastline.py countries-50m.json``.

Natural Earth (https://www.naturalearthdata.com) is in the public domain; the TopoJSON file is in the npm package
``world-atlas`` (2.0.2: Natural Earth 4.1.0).

Either kind of line is stored as ``<kind>_steps`` (int32, 2 x points: longitude and latitude as steps of `scale` from
the point before, the first one from `origin`; the running sum gives the places) and ``<kind>_starts`` (the index of
each line's first point). Lines of land are closed rings, outer ones clockwise, inland seas anticlockwise. No line jumps
at the antimeridian: it goes on beyond 180 degrees, and who draws it may have to draw it a turn to the east or west too.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TABLE = Path(__file__).parents[1] / "ionbeam_dagster" / "domain" / "tables" / "coastline.npz"

Line = npt.NDArray[np.int32]


def coastline(topology: dict[str, Any]) -> dict[str, Any]:
    """The arrays of the table, from the TopoJSON; the same topology gives the same arrays."""
    arcs = [np.cumsum(np.array(arc, np.int32), axis=0, dtype=np.int32) for arc in topology["arcs"]]
    rings = list(_rings(topology["objects"]["land"]))
    countries = _rings(topology["objects"]["countries"])
    uses = Counter(arc if arc >= 0 else ~arc for ring in countries for arc in ring)
    turn = round(360 / topology["transform"]["scale"][0])
    land = [_joined([arcs[arc] if arc >= 0 else arcs[~arc][::-1] for arc in ring]) for ring in rings]
    lines = {
        "land": [_closed(_unwrapped(ring, turn)) for ring in land if np.ptp(ring[:, 1])],
        "borders": [_unwrapped(arcs[arc], turn) for arc, number in sorted(uses.items()) if number > 1],
    }
    table: dict[str, Any] = {
        "scale": np.array(topology["transform"]["scale"]),
        "origin": np.array(topology["transform"]["translate"]),
    }
    for kind, found in lines.items():
        points = np.concatenate(found).T
        table[f"{kind}_steps"] = np.diff(points, axis=1, prepend=np.int32(0)).astype(np.int32)
        table[f"{kind}_starts"] = np.cumsum([0, *(len(line) for line in found[:-1])]).astype(np.int32)
    return table


def _rings(shape: dict[str, Any]) -> Iterator[list[int]]:
    if shape["type"] == "GeometryCollection":
        for member in shape["geometries"]:
            yield from _rings(member)
    elif shape["type"] == "MultiPolygon":
        for polygon in shape["arcs"]:
            yield from polygon
    else:
        yield from shape["arcs"]


def _joined(arcs: list[Line]) -> Line:
    """Arcs that follow each other: the last point of one is the first of the next."""
    return np.concatenate([arcs[0], *(arc[1:] for arc in arcs[1:])])


def _unwrapped(line: Line, turn: int) -> Line:
    return np.column_stack([np.unwrap(line[:, 0], period=turn), line[:, 1]]).astype(np.int32)


def _closed(ring: Line) -> Line:
    """The ring, by way of the South Pole if it goes around it (Antarctica)."""
    if (ring[0] == ring[-1]).all():
        return ring
    return np.concatenate([ring, [[ring[-1, 0], 0], [ring[0, 0], 0], ring[0]]]).astype(np.int32)


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    np.savez_compressed(TABLE, **coastline(json.loads(Path(arguments[0]).read_text(encoding="utf-8"))))
    print(f"{TABLE}: {TABLE.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
