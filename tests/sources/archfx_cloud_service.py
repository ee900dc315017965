"""ArchFX Cloud on the loopback interface: login, streams, and their readings in pages, as far as a source sees them."""

from __future__ import annotations

import math
from datetime import datetime
from urllib.parse import urlencode

from ionbeam_dagster.testing.service import Reply, Request, Service


class Cloud(Service):
    """Readings of streams: `data` has lists of (time, value) by the stream's id. Whoever asks logs in as `email` with
    `password`; a token is good for `token_uses` requests. `lines` says which stream belongs to which line."""

    email, password = "fleet@example.com", "pa55word"

    def __init__(self, data: dict[str, list[tuple[datetime, object]]], most_a_page: int = 100, port: int = 0) -> None:
        super().__init__(port)
        self.data = data
        self.most_a_page = most_a_page
        self.token_uses = math.inf
        self.fixed = {"token one-that-stays"}
        self.logins = self.refreshed = self._uses = 0

    def answer(self, request: Request) -> Reply:
        path = request.path.removeprefix("/api/v1/").strip("/").split("/")
        match path:
            case ["auth", "login"]:
                if request.json != {"email": self.email, "password": self.password}:
                    return Reply.of_json({"non_field_errors": [f"no account has {request.json['password']}"]}, 400)
                self.logins += 1
                return Reply.of_json({"username": "fleet", "jwt_refresh_token": "again", "jwt": self._new_token()})
            case ["auth", "api-jwt-refresh"]:
                self.refreshed += 1
                return Reply.of_json({"access": self._new_token()})
        if not self._is_known(request):
            return Reply.of_json({"detail": "Signature has expired."}, 401)
        match path:
            case ["stream"]:
                line = request.query.get("line")
                slugs = [slug for slug in self.data if line is None or slug.split("--")[1] == line.removeprefix("pl--")]
                return self._page(request, [{"slug": slug, "enabled": True} for slug in slugs])
            case ["stream", slug, "data"] if slug in self.data:
                return self._page(request, [*self._readings(slug, request.query)])
        return Reply.of_json({"detail": "Not found."}, 404)

    def _new_token(self) -> str:
        self._uses = 0
        return f"jwt-{self.logins}-{self.refreshed}"

    def _is_known(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        self._uses += 1
        return given in self.fixed or (
            self.logins > 0 and given == f"jwt jwt-{self.logins}-{self.refreshed}" and self._uses <= self.token_uses
        )

    def _readings(self, slug: str, query: dict[str, str]):
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        for number, (time, value) in enumerate(self.data[slug], 1):
            if isinstance(time, str) or start < time <= end:  # whether the edges belong to it, the vendor does not say
                text = time if isinstance(time, str) else time.isoformat().replace("+00:00", "Z")
                yield {"type": "ITR", "timestamp": text, "value": value, "streamer_local_id": number}

    def _page(self, request: Request, things: list[dict]) -> Reply:
        size = min(int(request.query.get("page_size", self.most_a_page)), self.most_a_page)
        page = int(request.query.get("page", "1"))
        more = urlencode({**request.query, "page": page + 1})
        following = f"http://inner.invalid{request.path}?{more}" if page * size < len(things) else None
        results = things[(page - 1) * size : page * size]
        return Reply.of_json({"count": len(things), "next": following, "previous": None, "results": results})
