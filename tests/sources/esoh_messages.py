"""Messages as E-SOH publishes them, for the tests of MQTT and of archives.

Belongs here: making one. The shape is that of e-soh-message-spec.json, version v4.0; the values are ours.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

TEMPERATURE = "air_temperature:2.0:point:PT0S"
_UNITS = {"air_temperature": "degC", "relative_humidity": "%", "surface_air_pressure": "hPa", "wind_speed": "m s-1"}


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def message(
    platform: str,
    moment: datetime,
    value: object,
    published: datetime,
    parameter: str = TEMPERATURE,
    code: int | None = None,
    place: tuple[object, object] = ("59.91", 10.75),
    unit: str | None = None,
) -> dict[str, Any]:
    name, level, method, period = parameter.split(":")
    written = str(value)
    return {
        "id": f"{platform}/{text(moment)}/{parameter}/{code}",
        "version": "v4.0",
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": {"lat": place[0], "lon": place[1]}},
        "properties": {
            "platform": platform,
            "datetime": text(moment),
            "pubtime": text(published),
            "level": level,
            "function": method,
            "period": period,
            "naming_authority": "com.netatmo",
            **({} if code is None else {"quality_code": code}),
            "content": {
                "encoding": "utf-8",
                "standard_name": name,
                "unit": unit or _UNITS[name],
                "size": len(written),
                "value": written,
            },
        },
        "links": [{"href": "https://example.org", "rel": "about"}],
    }
