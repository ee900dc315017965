"""MeteoTracker on the loopback interface: login, sessions and points, as far as a client sees them."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ionbeam_dagster.testing.service import Reply, Request, Service

CODES = {
    "Temp[°C]": "T0", "Press[mbar]": "P", "Hum[%]": "H", "Alt[m]": "a", "DP[°C]": "td", "HDX[°C]": "HDX",
    "Grad[°C/100m]": "i", "Speed[km/h]": "s", "Solar[]": "L",
}  # fmt: skip
"""The service's codes of the columns of a drive that was downloaded as CSV."""


class MeteoTrackers(Service):
    """Drives by their session; each is ``{"_id", "by", "startTime", "endTime", "points"}``. Whoever asks logs in as
    `user` with `password`; a token is good for `token_uses` requests."""

    user, password = "somebody", "pa55word"

    def __init__(self, drives: list[dict], port: int = 0, points_a_page: int = 1000) -> None:
        super().__init__(port)
        self.drives = drives
        self.points_a_page = points_a_page
        self.ignores_pages = False
        self.token_uses = math.inf
        self.logins = 0
        self._uses = 0

    def answer(self, request: Request) -> Reply:
        if request.path == "/auth/login/api":
            if request.json != {"email": self.user, "password": self.password}:
                return Reply(b"Unauthorized", 401)
            return self._token()
        if request.path == "/auth/refreshtoken":
            known = request.form.get("refreshToken") == f"refresh{self.logins}"
            return self._token() if known else Reply(b"Unauthorized", 401)
        if request.headers.get("authorization") != f"Bearer token{self.logins}" or self._uses >= self.token_uses:
            return Reply(b"Unauthorized", 401)
        self._uses += 1
        if request.path == "/api/sessions":
            return Reply.of_json(self._sessions(request.query))
        if request.path == "/api/points/session" and any(one["_id"] == request.query["id"] for one in self.drives):
            return Reply.of_json(self._points(request.query))
        return Reply(b"not found", 404)

    def _token(self) -> Reply:
        self.logins += 1
        self._uses = 0
        return Reply.of_json({"accessToken": f"token{self.logins}", "refreshToken": f"refresh{self.logins}"})

    def _sessions(self, query: dict[str, str]) -> list[dict]:
        asked = json.loads(query["startTime"])
        assert " " not in query["startTime"]
        found = [
            {key: value for key, value in drive.items() if key != "points"}
            | {"nPoints": len(drive["points"]), "offsetTZ": 120, "T0": {"avgVal": 20, "minVal": 10, "maxVal": 30}}
            for drive in self.drives
            if asked["$gte"] <= datetime.fromisoformat(drive["startTime"]).timestamp() <= asked["$lte"]
            and query.get("by", drive["by"]) == drive["by"]
        ]
        items, page = int(query["items"]), int(query["page"])
        return found[page * items : (page + 1) * items]

    def _points(self, query: dict[str, str]) -> list[dict]:
        points = next(drive["points"] for drive in self.drives if drive["_id"] == query["id"])
        asked = query["data"].split(" ")
        chosen = [{key: value for key, value in point.items() if key in asked} for point in points]
        page = 0 if self.ignores_pages else int(query.get("page", 0))
        return chosen[page * self.points_a_page : (page + 1) * self.points_a_page]


def drive_of_csv(path: Path, session: str, author: str) -> dict:
    """A drive from the CSV that the service's own page gives of one."""
    with path.open(encoding="utf-8") as lines:
        points = [
            {"time": row["time"], "lo": [float(row["lon"]), float(row["lat"])]}
            | {code: float(row[name]) for name, code in CODES.items() if row[name] != "NaN"}
            for row in csv.DictReader(lines)
        ]
    return drive(session, author, points)


def drive(session: str, author: str, points: list[dict], ended: bool = True) -> dict:
    whole = {"_id": session, "by": author, "startTime": points[0]["time"], "points": points}
    return whole | {"endTime": points[-1]["time"]} if ended else whole


def synthetic_drive(session: str, author: str, begin: datetime, minutes: int, lat: float, lon: float) -> dict:
    """A drive in a growing spiral around a place, a point every three seconds."""
    points = []
    for i in range(minutes * 20):
        turn, reach = i / 60, 0.02 + i / 20_000
        points.append(
            {
                "time": f"{begin.astimezone(UTC) + timedelta(seconds=3 * i):%Y-%m-%dT%H:%M:%S}.000Z",
                "lo": [round(lon + reach * math.cos(turn), 6), round(lat + reach * math.sin(turn), 6)],
                "a": round(60 + 20 * math.sin(turn), 1),
                "T0": round(21 + 2 * math.sin(turn / 3), 1),
                "H": round(55 - 5 * math.sin(turn / 3), 1),
                "P": 1008.0,
                "s": 31,
            }
        )
    return drive(session, author, points)
