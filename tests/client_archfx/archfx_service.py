"""A service of ArchFX's kind on loopback, over real HTTP or HTTPS, with the faults that such services have.

Belongs here: log-in, any resource, reports that count once. Does not belong here: any test.
"""

from __future__ import annotations

import itertools
import json
import ssl
from collections import defaultdict
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgpack
from servers import free_port
from werkzeug.wrappers import Request

EMAIL, PASSWORD = "user@example.com", 'my.pass "wörd"'


class Service:
    """What it knows, who may ask, and what was asked.

    `faults` are used up one a request: a status; `lost` (done, but not answered), `held` (the same, after `release` is
    set), `cut` (the answer breaks off), `html` and `deep` (answers that are no JSON, or endless), `away` (nothing is
    done or answered).
    """

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.things: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.taken: dict[int, set[int]] = defaultdict(set)  # device -> ids of readings
        self.unnumbered = 0
        self.access: set[str] = set()
        self.refresh: set[str] = set()
        self.faults: list[int | str] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.release = Event()
        self._numbers = itertools.count(1)
        self._http = ThreadingHTTPServer(("127.0.0.1", free_port()), _Handler)
        self._http.service = self
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.domain = f"{'https' if certificate else 'http'}://localhost:{self._http.server_port}"

    def __enter__(self) -> Service:
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def new_token(self) -> str:
        token = f"token-{next(self._numbers)}-secret"
        self.access.add(token)
        return token

    def answer(self, method: str, path: str, parameters: dict[str, str], request: Request) -> tuple[int, Any]:
        parts = path.removeprefix("/api/v1/").strip("/").split("/")
        if not path.startswith("/api/v1/") or not path.endswith("/"):
            return 404, {"detail": "no such page"}
        known = request.headers.get("Authorization", "").split(" ")[-1]
        if parts[0] == "auth":
            return self._auth(parts[1], known, request.get_json(silent=True))
        if known not in self.access:
            return 401, {"detail": f"{known} has expired"}
        if parts == ["streamer", "report"]:
            return self._report(request)
        if len(parts) == 3:
            return 200, self._page(f"{parts[0]}/{parts[2]}", {**parameters, parts[0]: parts[1]})
        return self._thing(method, parts[0], parts[1] if len(parts) > 1 else None, parameters, request)

    def _auth(self, action: str, known: str, body: Any) -> tuple[int, Any]:
        if action == "login":
            if known:
                return 401, {"detail": "a token that has expired is not looked at, and neither is the password"}
            if body != {"email": EMAIL, "password": PASSWORD}:
                return 400, {"non_field_errors": [f"no user has the password {body['password']}"]}
            token = self.new_token()
            self.refresh.add(f"refresh-{token}")
            return 200, {"username": "user", "jwt": token, "jwt_refresh_token": f"refresh-{token}"}
        if action == "api-jwt-refresh":
            if body.get("refresh") not in self.refresh:
                return 401, {"detail": f"{body} has expired"}
            return 200, {"access": self.new_token()}
        if known not in self.access:
            return 401, {"detail": f"{known} has expired"}
        if action == "user-info":
            return 200, {"email": EMAIL}
        self.access.discard(known)
        return 204, None

    def _thing(self, method: str, kind: str, slug: str | None, parameters: Any, request: Request) -> tuple[int, Any]:
        things = self.things[kind]
        body = request.get_json(silent=True)
        if slug is None and method == "GET":
            return 200, self._page(kind, parameters)
        if slug is None:
            slug = f"{kind}-{next(self._numbers)}"
            things[slug] = {**body, "slug": slug}
            return 201, things[slug]
        if slug not in things:
            return 404, {"detail": "not found"}
        if method == "DELETE":
            del things[slug]
            return 204, None
        if method in ("PUT", "PATCH"):
            things[slug] |= body
        return 200, things[slug]

    def _page(self, kind: str, parameters: dict[str, str]) -> dict[str, Any]:
        """Two at a time; the next page's address has the name that a proxy hides."""
        wanted = {name: value for name, value in parameters.items() if name not in ("page", "page_size")}
        found = [
            thing
            for thing in self.things[kind].values()
            if all(str(thing.get(name)) == value for name, value in wanted.items())
        ]
        page = int(parameters.get("page", "1"))
        more = len(found) > page * 2
        following = f"http://inner.invalid/api/v1/{kind}/?{urlencode({**parameters, 'page': page + 1})}"
        return {
            "count": len(found),
            "next": following if more else None,
            "results": found[page * 2 - 2 : page * 2],
        }

    def _report(self, request: Request) -> tuple[int, Any]:
        file = request.files["file"]
        assert file.filename == "report.mp"
        report = msgpack.unpackb(file.stream.read())
        taken, new = self.taken[report["device"]], 0
        for event in report["events"]:
            number = event["dev_seqid"]
            if number not in taken:
                new += 1
            if number:
                taken.add(number)
            else:
                self.unnumbered += 1
        return 201, {"count": new}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet: the second would wait for the first to be acknowledged

    def log_message(self, *_: object) -> None:
        pass

    def _do(self) -> None:
        service: Service = self.server.service
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        service.asked.append((self.command, self.path, dict(self.headers), body))
        fault = service.faults.pop(0) if service.faults else None
        if fault == "away":
            self.close_connection = True
            return
        address = urlsplit(self.path)
        request = Request(
            {
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_AUTHORIZATION": self.headers.get("Authorization", ""),
                "wsgi.input": BytesIO(body),
            }
        )
        if isinstance(fault, int):
            status, content = fault, {"detail": "a fault"}
        else:
            status, content = service.answer(self.command, address.path, dict(parse_qsl(address.query)), request)
        if fault == "held":
            service.release.wait(20)
        if fault in ("lost", "held"):
            self.close_connection = True
            return
        text = b"" if content is None else json.dumps(content).encode()
        if fault in ("html", "deep"):
            status, text = 200, {"html": b"<html>please log in</html>", "deep": b"[" * 200_000}[fault]
        self.send_response(status)
        if 300 <= status <= 399:
            self.send_header("Location", "http://127.0.0.1:1/")
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        with suppress(BrokenPipeError):  # whoever asked did not wait
            self.end_headers()
            self.wfile.write(text[: len(text) // 2] if fault == "cut" else text)
        self.close_connection = self.close_connection or fault == "cut"

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do
