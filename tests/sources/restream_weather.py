"""The Restream service on the loopback interface, whose sites measure the weather: what a source is made of.

Belongs here: the items of these sites, how their past is corrected, and the block of a source that collects them. Does
not belong here: what the service answers (restream_service.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from restream_service import TOKEN, RestreamService

START = datetime(2025, 9, 9, tzinfo=UTC)
SITES = (981, 982, 983)


def item(moment: datetime, site: int, degrees: object) -> dict[str, object]:
    """What a site measured at one moment; `degrees` Fahrenheit, or what the service writes for them."""
    return {"time": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "site": site, "ambient_temperature": degrees, "battery": 12.5}


def event(number: int, site: int, start: datetime, end: datetime, kind: str = "override", **fields: object):
    """A change of the past; both ends belong to it."""
    named = {"modification_type": "transaction", "modification_subtype": kind, "update_received": False}
    ends = {"start_date": f"{start:%Y-%m-%dT%H:%M:%SZ}", "end_date": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
    return {"id": number, "site": site, "created_at": "2025-10-17T11:39:43.688700Z"} | named | ends | fields


def measured(hours: int) -> dict[int, list[dict[str, object]]]:
    """The items of all sites, one every ten minutes."""
    moments = [START + n * timedelta(minutes=10) for n in range(6 * hours)]
    return {site: [item(moment, site, 50.0 + n) for n, moment in enumerate(moments)] for site in SITES}


class RestreamWeather(RestreamService):
    """Sites with weather, of which nothing was corrected yet."""

    def __init__(self, hours: int = 3) -> None:
        super().__init__()
        self.data = measured(hours)
        self.events = []

    def correct(self, number: int, site: int, start: datetime, end: datetime, degrees: float | None) -> None:
        """Other temperatures from `start` to `end`, or none at all, and the event that tells of it."""
        first, last = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (start, end))
        kept = [one for one in self.data[site] if not first <= one["time"] <= last]
        changed = [one | {"ambient_temperature": degrees} for one in self.data[site] if first <= one["time"] <= last]
        self.data[site] = kept if degrees is None else sorted(kept + changed, key=lambda one: one["time"])
        self.events.append(event(number, site, start, end, "delete" if degrees is None else "override"))


def block_of(service: RestreamWeather) -> dict[str, object]:
    """The block of a source of two pads, one of them by its site, until the third hour."""
    temperature = {
        "field": "ambient_temperature", "standard_name": "air_temperature", "unit": "degF", "cf_unit": "degC",
        "level": 2.0,
    }  # fmt: skip
    return {
        "base_url": service.url, "token": TOKEN, "sites": [981], "pads": [681], "variables": [temperature],
        "start": START, "end": START + timedelta(hours=3),
    }  # fmt: skip
