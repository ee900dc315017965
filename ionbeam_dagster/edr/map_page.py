"""The map: its page, the stations of the newest window, and the lines of coasts and borders.

Belongs here: what the map page asks for. Does not belong here: the page's own script (map.html).
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ionbeam_dagster.edr import answers
from ionbeam_dagster.edr.collection import LOCATION, NAMES, stamp
from ionbeam_dagster.edr.lane import Busy
from ionbeam_dagster.edr.parameters import Parameter
from ionbeam_dagster.edr.query import Bounds, Query
from ionbeam_dagster.edr.refusals import BadRequest
from ionbeam_dagster.edr.requests import read_request
from ionbeam_dagster.edr.search import run
from ionbeam_dagster.edr.service import Reply, Service, busy, refusal

HERE = Path(__file__).parent
COASTLINE = HERE.parent / "domain" / "tables" / "coastline.npz"


def page() -> str:
    return (HERE / "map.html").read_text(encoding="utf-8")


@cache
def script() -> str:
    """The page's script as a source of a Content-Security-Policy: its hash."""
    [own] = re.findall(r"<script>(.*?)</script>", page(), re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"


def stations(service: Service, given: dict[str, str]) -> Reply:
    """The newest value of one parameter at every station of the newest window, and its flag."""
    listed = {name: list(one.parameters()) for name, one in service.collections.items()}
    name = given.get("collection") or next(iter(listed), "")
    if name not in service.collections:
        return (
            refusal(404, f"there is no collection {name[:60]!r}")
            if name
            else Reply(200, "application/json", answers.as_json({"collections": [], "stations": []}))
        )
    collection = service.collections[name]
    known = collection.parameters()
    shown = [id for id, one in known.items() if not one.is_flag]
    wanted = given.get("parameter") or _shown_first(known, shown)
    document: dict[str, Any] = {
        "collections": list(listed),
        "collection": name,
        "parameters": [{"id": id, "label": known[id].description, "unit": known[id].unit} for id in shown],
        "parameter": wanted,
        "stations": [],
        "notes": [],
    }
    windows = collection.files.windows()
    if not windows or not shown:
        return Reply(200, "application/json", answers.as_json(document))
    try:
        read_request(collection, "cube", {"parameter-name": wanted, "bbox": "-180,-90,180,90"})
    except BadRequest as error:
        return refusal(400, str(error))
    flag = next(
        (id for id, one in known.items() if one.is_flag and id.replace(one.name, one.standard_name) == wanted), None
    )
    ids = (wanted, flag) if flag else (wanted,)
    newest = windows[-1]
    query = Query(newest.start, newest.end, parameters=ids, described=True, bounds=Bounds(rows=1_000_000))
    turn = service.turn()
    try:
        found = run(collection, query, turn.take)
        document["stations"] = _newest(found.table, wanted, flag)
    except Busy:
        return busy()
    finally:
        turn.end()
    document["window"] = [stamp(newest.start), stamp(newest.end)]
    document["notes"] = found.notes
    return Reply(200, "application/json", answers.as_json(document), {"Cache-Control": "public, max-age=15"})


def _shown_first(known: dict[str, Parameter], shown: list[str]) -> str:
    """The air temperature at a screen's height, as it is rather than its extremes, where there is one."""

    def strangeness(id: str) -> tuple[bool, bool, float]:
        one = known[id]
        return one.standard_name != "air_temperature", one.method not in ("point", "mean"), abs(one.level - 2)

    return min(shown, key=strangeness, default="")


def _newest(table: Any, parameter: str, flag: str | None) -> list[dict[str, Any]]:
    import polars as pl

    if parameter not in table.column_names:
        return []
    frame = pl.DataFrame(pl.from_arrow(table)).filter(pl.col(parameter).is_not_null())
    last = frame.unique(LOCATION, keep="last", maintain_order=True)  # rows are in the order of location and time
    name = next((column for column in NAMES if column in last.columns), LOCATION)
    columns = [
        pl.col(LOCATION).alias("id"),
        pl.col(name).alias("name"),
        pl.col("lon").round(5),
        pl.col("lat").round(5),
        pl.col("datetime").cast(pl.Datetime("us", "UTC")).dt.strftime("%Y-%m-%dT%H:%M:%SZ").alias("time"),
        pl.col(parameter).alias("value"),
        (pl.col(flag) if flag and flag in last.columns else pl.lit(None)).alias("flag"),
    ]
    return last.select(columns).to_dicts()


@cache
def coastline() -> bytes:
    """Land and borders as lists of flat lines in hundredths of a degree, thinned to what a small map shows."""
    with np.load(COASTLINE) as table:
        drawn = {}
        for kind in ("land", "borders"):
            places = table["origin"][:, None] + np.cumsum(table[f"{kind}_steps"], axis=1) * table["scale"][:, None]
            starts = [*table[f"{kind}_starts"].tolist(), places.shape[1]]
            drawn[kind] = [line for start, end in pairwise(starts) if (line := _thinned(places[:, start:end]))]
    return answers.as_json(drawn)


def _thinned(line: Any) -> list[int]:
    whole = np.rint(line * 100).astype(np.int64)
    changed = np.ones(whole.shape[1], bool)
    changed[1:] = (np.abs(np.diff(whole, axis=1)) > 0).any(axis=0)
    kept = whole[:, changed]
    return kept.T.ravel().tolist() if kept.shape[1] > 3 else []
