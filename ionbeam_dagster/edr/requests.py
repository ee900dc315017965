"""What a request asks for, checked: its path and parameters become an `EdrRequest`.

Belongs here: which parameters each query takes, times, pages and forms, each fault with a sentence that says what would
be right. Does not belong here: coordinates (coordinates.py), filters (filters.py), or answering.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ionbeam_dagster.domain.times import parse_moment
from ionbeam_dagster.edr.collection import Collection
from ionbeam_dagster.edr.coordinates import region_of, system_of
from ionbeam_dagster.edr.crs import CRS84, Crs
from ionbeam_dagster.edr.filters import chosen_parameters
from ionbeam_dagster.edr.query import Before, Bounds, Query
from ionbeam_dagster.edr.refusals import BadRequest

QUERIES = ("position", "radius", "area", "cube", "trajectory", "locations", "items")
MOST_ITEMS, USUAL_ITEMS = 10_000, 100
MOST_ROWS = 100_000
LONGEST_TEXT = 50_000
FORMATS = {
    "covjson": "application/vnd.cov+json",
    "geojson": "application/geo+json",
    "csv": "text/csv; charset=utf-8",
}
FORMAT_NAMES = {
    "coveragejson": "covjson",
    "covjson": "covjson",
    "application/vnd.cov+json": "covjson",
    "application/prs.coverage+json": "covjson",
    "geojson": "geojson",
    "application/geo+json": "geojson",
    "csv": "csv",
    "text/csv": "csv",
}
_SHARED = {"datetime", "f", "crs"}
_FILTERS = {"parameter-name", "standard-name", "level", "method", "period", "z", "limit", "after"}
_ALSO = {"parameter_name": "parameter-name", "standard_name": "standard-name", "standard-names": "standard-name",
         "standard_names": "standard-name", "levels": "level", "methods": "method", "periods": "period",
         "parameter-names": "parameter-name", "within_units": "within-units"}  # fmt: skip
KNOWN = {
    "position": {"coords"} | _SHARED | _FILTERS,
    "area": {"coords"} | _SHARED | _FILTERS,
    "radius": {"coords", "within", "within-units"} | _SHARED | _FILTERS,
    "cube": {"bbox"} | _SHARED | _FILTERS,
    "trajectory": {"coords"} | _SHARED | _FILTERS,
    "locations": {"bbox"} | _SHARED | _FILTERS,
    "items": {"bbox", "offset", "id"} | _SHARED | _FILTERS,
}
_TOKEN_OF_ITEMS = re.compile(r"^\d{1,18}\.\d{1,12}(\.[0-9a-f]{8}\.\d{1,10}\.[0-9TZ.]{16,24}-[0-9a-f]{16})?$")
_TOKEN = re.compile(r"^\d{1,18}(\.[\w-]*)?$", re.ASCII)
_MADE_UP = "after is taken from the link `next` of the page before, and cannot be made up"


@dataclass(frozen=True, slots=True)
class EdrRequest:
    """A request that can be answered. `limit`, `offset` and `after` count items, or locations: `after` is where a page
    of items goes on, or the last location that was given."""

    kind: str
    query: Query
    format: str
    location: str | None = None
    item: str | None = None
    limit: int = USUAL_ITEMS
    offset: int = 0
    after: str | None = None
    crs: Crs = CRS84


def read_request(
    collection: Collection, kind: str, given: Mapping[str, str], id: str | None = None, format: str | None = None
) -> EdrRequest:
    """What a request for `kind` (of `QUERIES`; `id` names one location or item) with the parameters `given` asks for.

    Raises BadRequest with a sentence.
    """
    parameters = _named(kind, given)
    start, end = interval(parameters.get("datetime"))
    crs = system_of(parameters.get("crs"), collection.offered_crs)
    known = collection.parameters()
    region, heights = region_of(kind, parameters, crs)
    if heights is not None:
        if "z" in parameters:
            raise BadRequest(
                f"heights stand in z and in {'bbox' if 'bbox' in parameters else 'coords'}; give them once"
            )
        parameters["z"] = heights
    chosen = chosen_parameters(known, parameters)
    limit, rows = _limit(kind, parameters.get("limit"), id)
    offset, after = _place_of_page(kind, parameters)
    before = None
    if after is not None and kind == "locations" and id is None:
        after = goes_on(after).location
    elif after is not None and kind != "items":
        before = goes_on(after)
        last = before.moment if before.location is not None else before.moment - 1
        end = last if end is None else min(end, last)
    query = Query(
        start,
        end,
        region,
        (id,) if kind == "locations" and id is not None else None,
        chosen,
        nearest=kind == "position",
        described=kind == "items",
        newest_day=kind != "items" and not parameters.get("datetime") and before is None,
        before=before,
        bounds=Bounds(rows=rows),
    )
    if id is not None and len(id) > LONGEST_TEXT:
        raise BadRequest("the id is no id of this collection: it is too long")
    return EdrRequest(
        kind,
        query,
        _format(kind, parameters.get("f") if format is None else format, id),
        id if kind == "locations" else None,
        id if kind == "items" else None,
        limit,
        offset,
        after,
        crs,
    )


def _named(kind: str, given: Mapping[str, str]) -> dict[str, str]:
    """Parameters under one spelling; refuses those that are not known, so that no filter is lost in silence."""
    named: dict[str, str] = {}
    for name, value in given.items():
        own = _ALSO.get(name, name)
        if own not in KNOWN[kind] and name not in ("lang", "skipGeometry"):
            raise BadRequest(f"parameter {name[:60]!r} is not known here; known are {', '.join(sorted(KNOWN[kind]))}")
        if "\x00" in value or len(value) > LONGEST_TEXT:
            raise BadRequest(f"{own} is longer than {LONGEST_TEXT:,} characters, or has characters that no value has")
        named[own] = value.strip()
    return named


# Time.


def interval(text: str | None) -> tuple[int | None, int | None]:
    """The first and last microsecond of a ``datetime`` parameter (OGC API: an instant, ``a/b``, ``../b``, ``a/..``).

    A date is all of that day; a time without a zone is UTC. An instant to the second is that second.
    """
    if text is None or text in ("", "..", "../..", "/"):
        return None, None
    parts = text.split("/")
    if len(parts) > 2:
        raise BadRequest(
            f"datetime {text[:80]!r} has more than one '/'; right would be 2026-06-21T06:00Z/2026-06-21T12:00Z"
        )
    if len(parts) == 1:
        return _moments(parts[0])
    start = None if parts[0] in ("", "..") else _moments(parts[0])[0]
    end = None if parts[1] in ("", "..") else _moments(parts[1])[1]
    if start is not None and end is not None and end < start:
        raise BadRequest(f"datetime {text[:80]!r} ends before it starts")
    return start, end


def _moments(text: str) -> tuple[int, int]:
    wrong = BadRequest(
        f"datetime {text[:60]!r} is not RFC 3339; right would be 2026-06-21T06:00:00Z, 2026-06-21, or an interval "
        "2026-06-21T06:00Z/.."
    )
    if not text.isascii() or not re.match(r"^\d{4}-", text):
        raise wrong
    text = text.upper()  # RFC 3339 has t and z, too
    # A '+' in a query string is a blank, so an offset of +02:00 arrives as ' 02:00'.
    text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text)
    try:
        first = int((parse_moment(text) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
    except (ValueError, OverflowError):
        raise wrong from None
    if re.match(r"^\d{4}-\d\d-\d\d$", text):
        return first, first + 24 * 3600 * 1_000_000 - 1
    return first, first if "." in text else first + 999_999


# Place.


# Parameters.


# The answer's form.


def _limit(kind: str, text: str | None, id: str | None) -> tuple[int, int]:
    """The items or locations of a page, and the rows of any other answer."""
    if text is None or text == "":
        return (USUAL_ITEMS if kind == "items" else MOST_ROWS), MOST_ROWS
    if not re.match(r"^\d{1,9}$", text) or not text.isascii() or int(text) < 1:
        raise BadRequest(f"limit {text[:30]!r} is no number from 1 on")
    most = MOST_ITEMS if kind == "items" else MOST_ROWS
    of_rows = kind != "items" and (kind != "locations" or id is not None)
    return min(int(text), most), min(int(text), MOST_ROWS) if of_rows else MOST_ROWS


def token_of(more: Before) -> str:
    """Where an answer goes on, as its link `next` has it: ``<moment>`` or ``<moment>.<location in base64>``."""
    if more.location is None:
        return str(more.moment)
    return f"{more.moment}.{base64.urlsafe_b64encode(more.location.encode()).decode().rstrip('=')}"


def goes_on(token: str) -> Before:
    """What `token_of` made a token of."""
    moment, behind, text = token.partition(".")
    try:
        location = base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True).decode()
    except ValueError:
        raise BadRequest(_MADE_UP) from None
    return Before(int(moment), location if behind else None)


def _place_of_page(kind: str, parameters: Mapping[str, str]) -> tuple[int, str | None]:
    offset, after = parameters.get("offset", "0") or "0", parameters.get("after")
    if not re.match(r"^\d{1,15}$", offset) or not offset.isascii():
        raise BadRequest(f"offset {offset[:30]!r} is no number from 0 on")
    if after is not None and not (_TOKEN_OF_ITEMS if kind == "items" else _TOKEN).match(after):
        raise BadRequest(_MADE_UP)
    return int(offset), after


def _format(kind: str, text: str | None, id: str | None) -> str:
    listing = kind == "items" or (kind == "locations" and id is None)
    if not text or text.lower() in ("json", "application/json", "*/*"):
        return "geojson" if listing else "covjson"
    found = FORMAT_NAMES.get(text.lower())
    if found is None or (listing and found == "covjson"):
        offered = [name for name in FORMATS if not (listing and name == "covjson")]
        raise BadRequest(f"f={text[:40]!r} is not offered here; offered are {', '.join(offered)} and html")
    return found
