"""A request answered: from path and parameters to a body, whatever web framework is around it.

Belongs here: `Service`, which holds the collections of one configuration. Does not belong here: Flask (server.py) or
PyGeoAPI's plugins (provider.py).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ionbeam_dagster.edr import answers, documents, streams
from ionbeam_dagster.edr.collection import Collection, stamp
from ionbeam_dagster.edr.crs import OFFERED
from ionbeam_dagster.edr.files import LocalFiles
from ionbeam_dagster.edr.lane import Busy, Lane, Turn
from ionbeam_dagster.edr.pages import item, page
from ionbeam_dagster.edr.parameters import Parameter, parameter_from
from ionbeam_dagster.edr.query import Rows
from ionbeam_dagster.edr.refusals import BadRequest, NotFound
from ionbeam_dagster.edr.requests import FORMATS, EdrRequest, read_request, token_of
from ionbeam_dagster.edr.search import LARGE, listed, places, run

EDR_PLUGIN = "ionbeam_dagster.edr.provider.WindowsEDR"
FEATURES_PLUGIN = "ionbeam_dagster.edr.provider.WindowsFeatures"
ROWS_ON_A_PAGE = 200
RETRY_AFTER = 5  # s
LONGEST_NOTES = 2_000  # characters, in a header
_OF_AN_ADDRESS = ":/?#[]@!$&'()*+,;=%~"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    type: str
    body: bytes | Iterator[bytes]
    headers: dict[str, str] = field(default_factory=dict)
    end: Callable[[], None] = lambda: None
    """To be called once it is sent, or will not be."""


class Service:
    """The collections of a PyGeoAPI configuration that are windows of ours, under one address.

    `lane` is where its large answers are made; services that follow each other in one process share it.
    """

    def __init__(self, config: dict[str, Any], base: str, lane: Lane | None = None) -> None:
        self.base = base.rstrip("/")
        self.resources: dict[str, dict[str, Any]] = {}
        self.collections: dict[str, Collection] = {}
        for name, resource in (config.get("resources") or {}).items():
            own = next((p for p in resource.get("providers") or () if p.get("name") == EDR_PLUGIN), None)
            if own is not None:
                self.resources[name] = resource
                self.collections[name] = collection_of(name, own, resource.get("crs") or ())
        self._lane = lane or Lane()
        self.others = set(config.get("resources") or {}) - set(self.collections)

    def about(self, name: str) -> dict[str, Any]:
        """The document of one collection."""
        collection = self.collections[name]
        return documents.collection_document(collection, self.resources[name], self.base, self._span(name))

    def _span(self, name: str) -> tuple[int, int] | None:
        """The first and last observation as the configuration has them, and what windows came since."""
        windows = self.collections[name].files.windows()
        told = self.resources[name].get("extents", {}).get("temporal", {})
        moments = [int(one.timestamp() * 1e6) for key in ("begin", "end") if isinstance(one := told.get(key), datetime)]
        moments += [windows[0].start, windows[-1].start] if windows else []
        return (min(moments), max(moments)) if moments else None

    def turn(self) -> Turn:
        """The way of one request that may turn out to be large; to be ended in any case."""
        return Turn(self._lane)

    def answer(self, name: str, kind: str, id: str | None, given: Mapping[str, str], as_page: bool = False) -> Reply:
        """The answer to a query of a collection; one that cannot be given says why, with its status."""
        turn = self.turn()
        reply = None
        try:
            request = read_request(self.collections[name], kind, given, id, format="geojson" if as_page else None)
            reply = self._licensed(name, self._answered(name, request, given, as_page, turn))
        except BadRequest as error:
            return refusal(400, str(error))
        except NotFound as error:
            return refusal(404, str(error))
        except Busy:
            return busy()
        finally:
            if reply is None or isinstance(reply.body, bytes):
                turn.end()
        return reply if isinstance(reply.body, bytes) else replace(reply, end=turn.end)

    def _licensed(self, name: str, reply: Reply) -> Reply:
        """The answer with a link to the licence under which it is given (RFC 4946)."""
        known = [link["href"] for link in self.resources[name].get("links") or () if link.get("rel") == "license"]
        if not known:
            return reply
        links = [f'<{quote(one, safe=_OF_AN_ADDRESS)}>; rel="license"' for one in known]
        links = [*filter(None, [reply.headers.get("Link")]), *links]
        return replace(reply, headers={**reply.headers, "Link": ", ".join(links)})

    def _answered(self, name: str, request: EdrRequest, given: Mapping[str, str], as_page: bool, turn: Turn) -> Reply:
        collection = self.collections[name]
        own = f"{self.base}/collections/{quote(name, safe='')}/{request.kind}"
        if request.kind == "locations" and request.location is None:
            return self._locations(collection, request, given, own, as_page, turn)
        if request.kind == "items" and request.item is not None:
            one = item(collection, request.item)
            if not one.table.num_rows:
                raise NotFound(_with_notes(f"there is no observation {request.item[:80]!r} in {name!r}", one.notes))
            return self._item(replace(one, crs=request.crs), request, own, as_page)
        if request.kind == "items":
            if request.limit > LARGE:
                turn.take()
            return self._page(collection, request, given, own, as_page)
        if request.format in ("csv", "geojson"):
            request = replace(request, query=replace(request.query, described=True))
        found = replace(run(collection, request.query, turn.take), crs=request.crs)
        if request.location is not None and not found.table.num_rows:
            told = (
                f"there is no observation of a location {request.location[:80]!r} in the time that was asked for; "
                f"{own} lists the locations of the newest 24 hours, or those of a datetime"
            )
            raise NotFound(_with_notes(told, found.notes))
        if request.location is not None:
            own = f"{own}/{quote(request.location, safe='')}"
        next = _next(found, request, given, own)
        links = [next] if next else None
        if found.table.num_rows > LARGE and not as_page:
            return self._reply(found, request, _streamed(found, request.format, links), next=next)
        if request.format == "csv":
            return self._reply(found, request, answers.csv(found), next=next)
        document = answers.covjson(found, links) if request.format == "covjson" else answers.features(found, links)
        return self._reply(found, request, document, as_page, next)

    def _locations(
        self, collection: Collection, request: EdrRequest, given: Mapping[str, str], own: str, as_page: bool, turn: Turn
    ) -> Reply:
        found = replace(places(collection, request.query, turn.take), crs=request.crs)
        matched = found.table.num_rows
        found = listed(found, request.after, request.limit)
        next = _next(found, request, given, own)
        if request.format == "csv":
            return self._reply(found, request, answers.csv(found), next=next)
        links = [{"href": own, "rel": "self", "type": FORMATS["geojson"], "title": "These locations"}]
        document = answers.locations(found, own, [*links, *([next] if next else [])], matched)
        return self._reply(found, request, document, as_page, next)

    def _item(self, found: Rows, request: EdrRequest, own: str, as_page: bool) -> Reply:
        if request.format == "csv":
            return self._reply(found, request, answers.csv(found))
        links = [
            {"href": f"{own}/{quote(request.item or '', safe='')}", "rel": "self", "type": FORMATS["geojson"]},
            {"href": own.removesuffix("/items"), "rel": "collection", "type": "application/json"},
        ]
        collected = answers.features(found)
        document = {**collected["features"][0], "links": links}
        return self._reply(found, request, collected if as_page else document, as_page)

    def _page(
        self, collection: Collection, request: EdrRequest, given: Mapping[str, str], own: str, as_page: bool
    ) -> Reply:
        given = {name: value for name, value in given.items() if value is not None}
        one = page(collection, request.query, request.limit, request.offset, request.after)
        one.found.crs = request.crs
        links = [
            {"href": f"{own}?{urlencode(given)}", "rel": "self", "type": FORMATS["geojson"], "title": "This page"},
            {"href": f"{own}?{urlencode({**given, 'f': 'html'})}", "rel": "alternate", "type": "text/html",
             "title": "This page to look at"},
        ]  # fmt: skip
        if one.after is not None:
            links.append(_link_to_next(given, own, one.after, request))
        if one.found.table.num_rows > LARGE and not as_page:
            body = _streamed(one.found, request.format, links, one.matched)
            return self._reply(one.found, request, body, next=links[-1] if one.after else None)
        if request.format == "csv":
            return self._reply(one.found, request, answers.csv(one.found), next=links[-1] if one.after else None)
        document = answers.features(one.found, links, one.matched)
        return self._reply(one.found, request, document, as_page, next=links[-1] if one.after else None)

    def _reply(
        self,
        found: Rows,
        request: EdrRequest,
        document: dict[str, Any] | bytes | Iterator[bytes],
        as_page: bool = False,
        next: dict[str, str] | None = None,
    ) -> Reply:
        headers = {
            "Cache-Control": "public, max-age=30",
            "Content-Crs": f"<{request.crs.uri}>",
        }
        if found.notes:
            headers["Ionbeam-Notes"] = _in_a_header(found.notes)
        if next is not None:
            headers["Link"] = f'<{next["href"]}>; rel="next"; type="{next["type"]}"'
        if as_page and isinstance(document, dict):
            return Reply(200, "text/html; charset=utf-8", _page_of(request, document, found.notes).encode(), headers)
        body = answers.as_json(document) if isinstance(document, dict) else document
        return Reply(200, FORMATS[request.format], body, headers)


def _streamed(
    found: Rows, format: str, links: list[dict[str, str]] | None, matched: int | None = None
) -> Iterator[bytes]:
    if format == "csv":
        return streams.csv(found)
    return streams.covjson(found, links) if format == "covjson" else streams.features(found, links, matched)


def _next(found: Rows, request: EdrRequest, given: Mapping[str, str], own: str) -> dict[str, str] | None:
    """The link to what a bound left out. Where no time was asked for, it keeps to the same newest 24 hours."""
    if found.more is None:
        return None
    day = {} if found.since is None else {"datetime": f"{stamp(found.since)}/.."}
    return _link_to_next({**given, **day}, own, token_of(found.more), request)


def _link_to_next(given: Mapping[str, str], own: str, after: str, request: EdrRequest) -> dict[str, str]:
    on = {name: value for name, value in given.items() if name != "offset"} | {"after": after}
    return {"href": f"{own}?{urlencode(on)}", "rel": "next", "type": FORMATS[request.format], "title": "The next page"}


def _with_notes(told: str, notes: list[str]) -> str:
    return "; ".join([told, *notes])


def _in_a_header(notes: list[str]) -> str:
    """The notes as far as they have room, and how many have none."""
    text = ""
    for number, note in enumerate(notes):
        if number and len(text) + len(note) > LONGEST_NOTES:
            text += f"; and {len(notes) - number:,} more, which f=GeoJSON has all"
            break
        text += ("; " if number else "") + note[:LONGEST_NOTES]
    return text.encode("ascii", "replace").decode()


def collection_of(name: str, provider: dict[str, Any], more_crs: Iterable[str] = ()) -> Collection:
    """The collection of a provider's entry in PyGeoAPI's configuration, which offers `more_crs` than is usual."""
    options = provider.get("options") or {}
    told, definitions = options.get("parameters") or {}, options.get("definitions") or {}
    ever: dict[str, Parameter] = {}
    for id, unit in told.items():
        try:
            ever[id] = parameter_from(str(id), str(unit), str(definitions.get(id, "")))
        except ValueError:
            continue
    offered = tuple(dict.fromkeys((*OFFERED, *more_crs)))
    return Collection(name, LocalFiles(Path(str(provider["data"]))), ever, offered)


def refusal(status: int, sentence: str) -> Reply:
    code = {400: "InvalidParameterValue", 404: "NotFound", 405: "InvalidMethod"}.get(status, "NoApplicableCode")
    return Reply(status, "application/json", answers.as_json({"code": code, "type": code, "description": sentence}))


def busy() -> Reply:
    told = "the service makes as many large answers as it can; ask again in a moment, or for less"
    return replace(refusal(503, told), headers={"Retry-After": str(RETRY_AFTER)})


def _page_of(request: EdrRequest, document: dict[str, Any], notes: list[str]) -> str:
    """A table for a person who follows a link with a browser."""
    shown = document["features"][:ROWS_ON_A_PAGE]
    columns = list(dict.fromkeys(name for one in shown for name in one["properties"]))
    axes = ("lon", "lat") if request.crs.is_geographic else ("x", "y")
    axes = axes[::-1] if request.crs.north_first else axes
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("id", *axes, *columns))
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{'' if value is None else html.escape(str(value))}</td>"
            for value in (one["id"], *one["geometry"]["coordinates"], *(one["properties"].get(c) for c in columns))
        )
        + "</tr>"
        for one in shown
    )
    links = "".join(
        f'<a rel="{link["rel"]}" href="{html.escape(link["href"])}">{html.escape(link.get("title", link["rel"]))}</a> '
        for link in document.get("links", ())
    )
    told = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    total = document.get("numberMatched", document.get("numberReturned"))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{request.kind}</title><style>body{{font:15px system-ui,sans-serif;margin:1.5em;color:#1f2937}}"
        "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.25em .6em;text-align:left;"
        "border-bottom:1px solid #e5e7eb;white-space:nowrap}a{margin-right:1em}</style>"
        f"<h1>{request.kind}</h1><p>{len(shown):,} of {total:,} rows</p>{told}<p>{links}</p>"
        f"<table><tr>{head}</tr>{rows}</table></html>"
    )
