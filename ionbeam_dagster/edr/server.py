"""`ionbeam serve`: PyGeoAPI with our queries and the map page, as one WSGI application.

Belongs here: the routes, what is taken to another form on the way out (compression, caching), and the reloading of a
changed configuration. Does not belong here: what is answered (service.py).

Queries and the documents of collections are answered before PyGeoAPI's own routes are asked: those leave out parameters
(standard-name, level, method, period), label every form alike, and refuse times outside of the extents that they were
started with. Landing page, conformance, the pages of collections and everything that is not ours are PyGeoAPI's.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ionbeam_client.windows import WindowsError
from ionbeam_dagster.edr import answers, api_page, changes, documents, map_page, streams
from ionbeam_dagster.edr.configuration import DEFAULT_URL, openapi_path
from ionbeam_dagster.edr.lane import Lane
from ionbeam_dagster.edr.refusals import BadRequest, NotFound
from ionbeam_dagster.edr.requests import FORMAT_NAMES, QUERIES
from ionbeam_dagster.edr.service import Reply, Service, refusal

LOG = logging.getLogger(__name__)
Pages = Mapping[str, Callable[[], tuple[int, str, bytes]]]
HERE = Path(__file__).parent
LOOKED_EVERY = 1.0  # s
THREADS = 12
"""More than may make large answers or wait for that (lane.py), so that small ones have some of their own."""
COMPRESSION = 5
SMALLEST_COMPRESSED = 1000
READING = ("GET", "HEAD", "OPTIONS")
EXPOSED = "Link, Ionbeam-Notes, Content-Crs, Retry-After, Repr-Digest, ETag, Accept-Ranges, Content-Range"
"""What scripts of other origins may read."""
ABSENT = ("processes", "job-list", "tiling-schemes")
_QUERY = re.compile(rf"^/collections/([^/]+)/({'|'.join(QUERIES)})(?:/(.*))?$", re.DOTALL)
_BELOW = re.compile(r"^/collections/([^/]+)/([^/]+)", re.DOTALL)
_COLLECTION = re.compile(r"^/collections/([^/]+)$")


class _Current:
    """The service of the configuration as it stands; looks once a second whether it changed."""

    def __init__(self, config_path: Path, url: str | None, flask_app: Any) -> None:
        self._path = config_path
        self._url = url
        self._flask_app = flask_app
        self._lock = threading.Lock()
        self._lane = Lane()  # of the process: answers under way keep their places when a configuration is taken up
        self._looked, self._seen = 0.0, self._stamp()
        self.service = self._load()

    def __call__(self) -> Service:
        if time.monotonic() - self._looked > LOOKED_EVERY:
            with self._lock:
                self._looked = time.monotonic()
                stamp = self._stamp()
                if stamp != self._seen:
                    try:
                        self.service = self._load()
                        LOG.info("%s changed and is in use", self._path)
                    except Exception as error:  # whatever is wrong with it: the one before goes on serving
                        LOG.error("%s changed, but cannot be used (%s); the one before stays in use", self._path, error)
                    self._seen = stamp
        return self.service

    def _stamp(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in (self._path, openapi_path(self._path)) if path.exists())

    def _load(self) -> Service:
        from pygeoapi.api import API
        from pygeoapi.util import yaml_load

        with self._path.open(encoding="utf-8") as file:
            config = yaml_load(file)
        if self._url is not None and config["server"]["url"].rstrip("/") in (DEFAULT_URL, ""):
            config["server"]["url"] = self._url
        url = config["server"]["url"].rstrip("/")
        for part in config["metadata"].values():
            if isinstance(part, dict) and part.get("url") == DEFAULT_URL:
                part["url"] = url
        config["server"].setdefault("templates", {"path": str(HERE / "templates")})
        document = json.loads(openapi_path(self._path).read_text(encoding="utf-8"))
        document["servers"] = [{"url": url}]
        _without_scripts(config)
        self._flask_app.api_ = API(config, json.dumps(document))
        self.openapi = document
        return Service(config, url, self._lane)


def _without_scripts(config: dict[str, Any]) -> None:
    """Takes away links that lead to no page, such as ``javascript:``, which run where somebody follows them."""
    for name, resource in (config.get("resources") or {}).items():
        links = resource.get("links") or []
        kept = [link for link in links if str(link.get("href", "")).lower().startswith(("https://", "http://"))]
        if len(kept) < len(links):
            LOG.warning("%s: %d links are left out, which are no http or https", name, len(links) - len(kept))
            resource["links"] = kept


def application(
    config_path: Path,
    url: str | None = None,
    origins: changes.Origins = MappingProxyType({}),
    pages: Pages = MappingProxyType({}),
) -> Any:
    """The WSGI application of the PyGeoAPI configuration at `config_path`; one in a process, as PyGeoAPI has it.

    `url` is the address to write into links where the configuration still has the one that it was made with; `origins`
    tells of folders that are copies where their windows are kept, and `pages` are further ones by their paths, each
    giving status, type and body.
    """
    logging.getLogger("pygeoapi").setLevel(logging.ERROR)
    os.environ |= {"PYGEOAPI_CONFIG": str(config_path), "PYGEOAPI_OPENAPI": str(openapi_path(config_path))}
    import flask
    from pygeoapi import flask_app
    from pygeoapi.api import environmental_data_retrieval as edr

    edr.CONFORMANCE_CLASSES = sorted({*edr.CONFORMANCE_CLASSES, *documents.CONFORMANCE})
    app: flask.Flask = flask_app.APP
    current = _Current(config_path, url, flask_app)

    @app.before_request
    def ours() -> Any:
        if flask.request.method == "OPTIONS" and _is_only_read(flask.request.path, pages):
            return _response(flask, Reply(200, "text/plain", b"", {"Allow": ", ".join(READING)}))
        if flask.request.method not in READING and _is_only_read(flask.request.path, pages):
            return _response(flask, _not_offered(flask.request.method))
        if flask.request.path == "/openapi" and _wants_page(flask.request):
            page = api_page.page_of(current.openapi, current().base)
            return _response(flask, Reply(200, "text/html; charset=utf-8", page.encode()))
        if flask.request.path in pages:
            status, type, body = pages[flask.request.path]()
            return _response(flask, Reply(status, type, body, {"Cache-Control": "no-store"}))
        if found := _of_changes(current(), flask, origins):
            return found
        reply = _reply(current(), flask.request)
        return None if reply is None else _response(flask, reply)

    @app.after_request
    def finished(response: Any) -> Any:
        if flask.request.path == "/" and response.headers.get("Content-Type", "").startswith("application/json"):
            _without_what_is_not_here(response)
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Content-Security-Policy", _policy(flask.request.path))
        if response.status_code == 200 and response.is_streamed and not response.direct_passthrough:
            _compressed_in_pieces(response, flask.request)
        elif (
            response.status_code == 200 and not response.direct_passthrough and flask.request.method in ("GET", "HEAD")
        ):
            _compressed(response, flask.request)
            response.add_etag()
            response.make_conditional(flask.request)
        return response

    @app.errorhandler(404)
    @app.errorhandler(405)
    def nowhere(error: Any) -> Any:
        reply = refusal(error.code, f"there is no such thing here; {current().base} tells what there is")
        allowed = {"Allow": ", ".join(sorted(error.valid_methods))} if getattr(error, "valid_methods", None) else {}
        return _response(flask, replace(reply, headers=allowed))

    @app.errorhandler(500)
    def failed(error: Exception) -> Any:
        LOG.exception("a request failed: %s", flask.request.url)
        reply = refusal(500, "this is a fault of the service; it was written to its log")
        return _response(flask, reply)

    return app


def serve(config_path: Path, host: str, port: int, address: str, origins: changes.Origins, pages: Pages) -> None:
    """Serve until stopped, for people who reach it at `address`."""
    from ionbeam_dagster.http_server import HttpServer

    served = application(config_path, address, origins, pages)
    server = HttpServer(served, host, port, THREADS, lambda environ: changes.LARGEST_BODY)
    try:
        while True:
            server.turn(1)
    except (KeyboardInterrupt, SystemExit):
        server.close(5)


def _of_changes(service: Service, flask: Any, origins: changes.Origins) -> Any:
    """The answer to a request of whoever follows windows; None where it is another one."""
    request = flask.request
    matched = changes.CHANGES.match(request.path) or changes.WINDOW.match(request.path)
    if matched is None or matched[1] not in service.collections:
        return None
    collection = service.collections[matched[1]]
    try:
        if matched.re is changes.WINDOW and request.method in ("GET", "HEAD"):
            return _window(changes.file_of(collection, matched[2]), flask)
        if matched.re is changes.CHANGES and request.method in ("GET", "HEAD"):
            body = changes.told(collection, request.args.get("client"), origins)
            return _response(flask, Reply(200, "application/json", body, {"Cache-Control": "no-store"}))
        if matched.re is changes.CHANGES and request.method == "POST":
            if (request.content_length or 0) > changes.LARGEST_BODY:
                return _response(flask, refusal(413, f"at most {changes.LARGEST_BODY:,} bytes; confirm fewer at once"))
            body = changes.confirmed(collection, request.get_data(), origins)
            return _response(flask, Reply(200, "application/json", body))
    except BadRequest as error:
        return _response(flask, refusal(400, str(error)))
    except NotFound as error:
        return _response(flask, refusal(404, str(error)))
    except WindowsError as error:
        LOG.error("%s", error)
        return _response(flask, refusal(503, "what clients have cannot be read or written now; the log tells why"))
    return None


def _window(file: BufferedReader, flask: Any) -> Any:
    """A window's file, or the part of it that is asked for (RFC 9110, ``Range``), of this version (``If-Match``)."""
    from werkzeug.exceptions import RequestedRangeNotSatisfiable

    request, found = flask.request, os.fstat(file.fileno())
    answer = flask.send_file(file, changes.PARQUET, conditional=False, etag=False)
    answer.content_length = found.st_size
    answer.accept_ranges = "bytes"
    answer.set_etag(f"{found.st_mtime_ns}-{found.st_size}")
    if request.if_match and not request.if_match.contains(answer.get_etag()[0]):
        answer.close()
        return _response(flask, refusal(412, "the window is of another version by now; read it from its beginning"))
    if request.range is None or _asks_for_all(request.range, found.st_size):
        answer.headers["Repr-Digest"] = changes.digest_of(file)
        return answer
    try:
        return answer.make_conditional(request, accept_ranges=True, complete_length=found.st_size)
    except RequestedRangeNotSatisfiable:
        answer.close()
        return _response(flask, refusal(416, f"the window has {found.st_size:,} bytes; ask for one range of them"))


def _asks_for_all(asked: Any, size: int) -> bool:
    """Whether the last bytes are asked for, and that many are all; werkzeug takes that for none."""
    return len(asked.ranges) == 1 and asked.ranges[0][0] < 0 and -asked.ranges[0][0] >= size


def _reply(service: Service, request: Any) -> Reply | None:
    """Our answer to a request, None where PyGeoAPI is to answer it."""
    path = request.path
    if path in ("/map", "/map/"):
        return Reply(
            200, "text/html; charset=utf-8", map_page.page().encode(), {"Cache-Control": "public, max-age=300"}
        )
    if path == "/map/coastline":
        return Reply(200, "application/json", map_page.coastline(), {"Cache-Control": "public, max-age=86400"})
    if path == "/map/stations":
        return map_page.stations(service, request.args.to_dict())
    matched = _QUERY.match(path) or _COLLECTION.match(path) or _BELOW.match(path)
    if path == "/collections" and not _wants_page(request):
        return _collections(service, request)
    if matched is None or matched[1] in service.others:
        return None
    if matched[1] not in service.collections:
        return refusal(
            404, f"there is no collection {matched[1][:60]!r}; {service.base}/collections lists what there is"
        )
    if request.method not in ("GET", "HEAD"):
        return None if request.method == "OPTIONS" else _not_offered(request.method)
    if matched.re is _BELOW:
        if matched[2] in ("queryables", "schema"):
            return None
        offered = ", ".join(QUERIES)
        return refusal(
            404, f"a collection has no {matched[2][:40]!r} here; offered are {offered}, queryables and schema"
        )
    if matched.re is _COLLECTION:
        return _collection(service, matched[1], request)
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        return refusal(400, f"parameter {twice[0][:40]!r} is given twice; give it once, several values with commas")
    given = request.args.to_dict()
    as_page = _wants_page(request)
    if as_page:
        given.pop("f", None)
    elif "f" not in given and (form := _accepted(matched[2], request)):
        given["f"] = form
    id = matched[3] if matched[3] not in (None, "") else None
    if id is not None and matched[2] not in ("locations", "items"):
        return refusal(404, f"there is nothing below {matched[2]}")
    return service.answer(matched[1], matched[2], id, given, as_page)


def _wants_page(request: Any) -> bool:
    form = request.args.get("f")
    if form is not None:
        return bool(form.lower() in ("html", "text/html"))
    return bool(
        request.accept_mimetypes.best_match(["application/json", "text/html"], "application/json") == "text/html"
    )


def _accepted(kind: str, request: Any) -> str | None:
    """The form that is asked for by the header `Accept`; None for the usual one."""
    offered = ["application/json", *(form for form in FORMAT_NAMES if "/" in form)]
    if kind in ("items", "locations"):
        offered = [form for form in offered if FORMAT_NAMES.get(form) != "covjson"]
    best = request.accept_mimetypes.best_match(offered, "application/json")
    return None if best == "application/json" else str(best)


def _is_only_read(path: str, pages: Pages) -> bool:
    """Whether it is a page of ours beside those of collections."""
    return path in pages or path == "/collections" or path.partition("/map")[0] == ""


def _not_offered(method: str) -> Reply:
    told = refusal(405, f"{method[:10]} is not offered here; observations are only read")
    return replace(told, headers={"Allow": ", ".join(READING)})


def _policy(path: str) -> str:
    """What a page may load and run: nothing from outside, and no script but the map's own."""
    script = map_page.script() if path in ("/map", "/map/") else "'none'"
    return (
        f"default-src 'none'; script-src {script}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _collection(service: Service, name: str, request: Any) -> Reply | None:
    if _wants_page(request):
        return None
    if (form := request.args.get("f")) not in (None, "json", "application/json"):
        return (
            None
            if form == "jsonld"
            else refusal(400, f"f={form[:40]!r} is not offered here; offered are json and html")
        )
    return Reply(200, "application/json", answers.as_json(service.about(name)))


def _collections(service: Service, request: Any) -> Reply | None:
    """All collections: ours as we tell of them, and those that a person added as PyGeoAPI does."""
    from pygeoapi import flask_app
    from pygeoapi.api import APIRequest, describe_collections

    if (form := request.args.get("f")) not in (None, "json", "application/json"):
        return (
            None
            if form == "jsonld"
            else refusal(400, f"f={form[:40]!r} is not offered here; offered are json and html")
        )
    api = flask_app.api_
    others = [name for name, one in api.config["resources"].items() if one.get("type") == "collection"]
    others = [name for name in others if name not in service.collections]
    told = [service.about(name) for name in service.collections]
    for name in others:
        try:
            _, status, body = describe_collections(api, APIRequest.from_flask(request, api.locales), name)
        except Exception as error:  # of its own provider: it does not take the others with it
            LOG.error("collection %s cannot be told of: %s", name, error)
            continue
        told += [json.loads(body)] if status == 200 else []
    links = [
        {"href": f"{service.base}/collections", "rel": "self", "type": "application/json", "title": "This document"},
        {"href": f"{service.base}/collections?f=html", "rel": "alternate", "type": "text/html", "title": "As a page"},
    ]
    return Reply(200, "application/json", answers.as_json({"links": links, "collections": told}))


def _response(flask: Any, reply: Reply) -> Any:
    response = flask.Response(reply.body, reply.status, content_type=reply.type)
    response.headers.update(reply.headers)
    response.call_on_close(reply.end)
    return response


def _without_what_is_not_here(response: Any) -> None:
    """PyGeoAPI's landing page leads to processes, jobs and tiles in any case; there are none."""
    document = json.loads(response.get_data())
    document["links"] = [link for link in document.get("links", ()) if not link["rel"].endswith(ABSENT)]
    response.set_data(answers.as_json(document))


def _compressed(response: Any, request: Any) -> None:
    response.vary.add("Accept-Encoding")
    response.vary.add("Accept")
    body = response.get_data()
    plain = "Content-Encoding" not in response.headers
    if plain and len(body) > SMALLEST_COMPRESSED and request.accept_encodings.quality("gzip") > 0:
        response.set_data(gzip.compress(body, COMPRESSION, mtime=0))
        response.headers["Content-Encoding"] = "gzip"


def _compressed_in_pieces(response: Any, request: Any) -> None:
    response.vary.add("Accept-Encoding")
    response.vary.add("Accept")
    if request.accept_encodings.quality("gzip") > 0 and request.method == "GET":
        response.response = streams.compressed(response.response, COMPRESSION)
        response.headers["Content-Encoding"] = "gzip"
