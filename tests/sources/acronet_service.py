"""Acronet's web service "webdrops" on the loopback interface: login, sensor classes, stations, data.

Belongs here: what the service answers. Does not belong here: faults that any service may have (testing.service).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from ionbeam_dagster.testing.service import Reply, Request, Service

FORM = "%Y%m%d%H%M"
LOGIN = "/auth/token"
MISSING = -9998.0
LONGEST = timedelta(days=3)


class Webdrops(Service):
    """`series` has, of each class and sensor, the times and values; `sensors` the list of each class.

    Tokens are good for `uses` requests. More than three days at once are refused.
    """

    username, password, secret = "someone", "very-secret", "client-secret"
    uses = 10**9

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.sensors: dict[str, list[dict[str, Any]]] = {}
        self.series: dict[str, dict[str, dict[datetime, float]]] = {}
        self.logins = self.refreshes = 0
        self._token = ""
        self._left = 0

    def add(self, kind: str, sensor: str, name: str, place: tuple[float, float], unit: str, values: dict) -> None:
        lat, lon = place
        self.sensors.setdefault(kind, []).append({"id": sensor, "name": name, "lat": lat, "lng": lon, "mu": unit})
        self.series.setdefault(kind, {})[sensor] = values

    def answer(self, request: Request) -> Reply:
        if request.path == LOGIN:
            return self._login(request.form)
        if request.headers.get("authorization") != f"Bearer {self._token}" or self._left <= 0:
            return Reply.of_json({"error": "invalid_token"}, 401)
        self._left -= 1
        match request.path.removeprefix("/app/").split("/"):
            case ["sensors", "classes"]:
                return Reply.of_json(list(self.classes()))
            case ["sensors", "list", kind]:
                return Reply.of_json(self.sensors.get(kind, []))
            case ["sensors", "data", kind, "all"]:
                return self._data(kind, request.query)
        return Reply(b"Not Found", 404)

    def classes(self) -> list[str]:
        return list(self.sensors)

    def values(self, kind: str, sensor: str, start: datetime, end: datetime, every: timedelta) -> dict[datetime, float]:
        return {time: value for time, value in self.series[kind][sensor].items() if start <= time <= end}

    def _login(self, form: dict[str, str]) -> Reply:
        if (form.get("client_id"), form.get("client_secret")) != ("webdrops", self.secret):
            return Reply.of_json({"error": "invalid_client"}, 401)
        if form["grant_type"] == "refresh_token":
            self.refreshes += 1
            if form["refresh_token"] != f"again-{self._token}":
                return Reply.of_json({"error": "invalid_grant"}, 400)
        elif (form.get("username"), form.get("password")) != (self.username, self.password):
            return Reply.of_json({"error": "invalid_grant"}, 401)
        else:
            self.logins += 1
        self._token = f"token-{self.logins}-{self.refreshes}"
        self._left = self.uses
        return Reply.of_json({"access_token": self._token, "refresh_token": f"again-{self._token}", "expires_in": 3600})

    def _data(self, kind: str, query: dict[str, str]) -> Reply:
        start, end = (datetime.strptime(query[name], FORM).replace(tzinfo=UTC) for name in ("from", "to"))
        if end - start > LONGEST:
            return Reply(b"interval too long", 400)
        every = timedelta(seconds=int(query["aggr"]))
        answers = []
        for sensor in self.sensors.get(kind, []):
            found = self.values(kind, sensor["id"], start, end, every)
            timeline = [time.strftime(FORM) for time in found]
            answers.append({"sensorId": sensor["id"], "timeline": timeline, "values": list(found.values())})
        return Reply.of_json(answers)


class Liguria(Webdrops):
    """Invented stations on the coast of Liguria, with a value every ten minutes, for the demonstration."""

    _UNITS: ClassVar = {
        "TERMOMETRO": "°C",
        "IGROMETRO": "%",
        "BAROMETRO": "hPa",
        "PLUVIOMETRO": "mm",
        "ANEMOMETRO": "m/s",
    }

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        for number in range(20):
            place = (43.9 + 0.03 * number, 7.7 + 0.1 * number)
            for digit, (kind, unit) in enumerate(self._UNITS.items()):
                self.add(kind, f"-19371568{number:02d}_{digit}", f"Stazione {number}", place, unit, {})

    def values(self, kind: str, sensor: str, start: datetime, end: datetime, every: timedelta) -> dict[datetime, float]:
        first = math.ceil(start.timestamp() / every.total_seconds())
        steps = range(first, int(end.timestamp() // every.total_seconds()) + 1)
        times = [datetime.fromtimestamp(step * every.total_seconds(), UTC) for step in steps]
        return {time: self._value(kind, time) for time in times if time <= datetime.now(UTC)}

    def _value(self, kind: str, time: datetime) -> float:
        wave = math.sin((time.hour + time.minute / 60 - 9) / 24 * 2 * math.pi)
        if time.minute == 50:
            return MISSING
        return {
            "TERMOMETRO": round(18 + 5 * wave, 1),
            "IGROMETRO": round(70 - 15 * wave),
            "BAROMETRO": round(1013 + wave, 1),
            "PLUVIOMETRO": 0.2 if wave < -0.9 else 0.0,
            "ANEMOMETRO": round(3 + wave, 1),
        }[kind]
