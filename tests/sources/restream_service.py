"""The Restream service on the loopback interface: pads, sites, stages, data, and changes that can be confirmed.

Belongs here: what it answers. Does not belong here: its faults (`loopback`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from ionbeam_dagster.testing.service import Reply, Request, Service

TOKEN = "your token"  # as the specification's first program has it
CLIENT_SECRET = "not to be shown"
API = "/external/thirdparty/v1"
PADS = {668: [981], 681: [982, 983]}
STATES = {981: "frac_frac", 982: "wl_run", 983: "standby"}


def seconds(start: str, count: int, **fields):
    """One-second items from `start` on."""
    first = datetime.fromisoformat(start).replace(tzinfo=UTC)
    return [
        {
            "time": f"{first + timedelta(seconds=i):%Y-%m-%dT%H:%M:%SZ}",
            "slurry_flow": i / 4,
            "proppant": 3 + i,
            **fields,
        }
        for i in range(count)
    ]


class RestreamService(Service):
    """`data` are the items of each site, `events` the changes that nobody has confirmed; `asked` is what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.data = {site: seconds("2025-09-09", 90, site=site) for site in (981, 982, 983)}
        self.events = [
            _event(1, 981, "2025-09-09T00:00:05Z", "2025-09-09T00:00:20Z"),
            _event(2, 981, "2025-09-09T00:00:15.250000Z", "2025-09-09T00:00:30Z"),
            _event(3, 982, "2025-09-09T00:01:00Z", "2025-09-09T00:01:05Z"),
        ]
        self.confirmed: list[int] = []
        self.grants: list[dict[str, str]] = []
        self.token_seconds = 3600
        self.asked: list[tuple[str, str, list[tuple[str, str]], object]] = []
        """Method, path, query in order of names, and body."""

    def reply(self, request, address):
        query = sorted(parse_qsl(urlsplit(address).query, keep_blank_values=True))
        is_json = request.headers.get("content-type") == "application/json"
        body = json.loads(request.body) if is_json else request.form
        self.asked.append((request.method, request.path, query, body or None))
        self._repeated = query
        return super().reply(request, address)

    def answer(self, request: Request) -> Reply:
        if request.path == "/o/token/":
            self.grants.append(request.form)
            if request.form["client_secret"] != CLIENT_SECRET:
                return Reply.of_json({"error": "invalid_client"}, 401)
            return Reply.of_json({"access_token": TOKEN, "expires_in": self.token_seconds, "token_type": "Bearer"})
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Reply.of_json({"detail": "Invalid token."}, 401)
        match request.path.removeprefix(API).strip("/").split("/"):
            case ["pads"]:
                return Reply.of_json([_pad(pad) for pad in PADS])
            case ["pads", pad] if pad.isdigit() and int(pad) in PADS:
                return Reply.of_json(_pad(int(pad)))
            case ["sites"]:
                return Reply.of_json([_site(site) for site in _sites_of(request.query.get("pad__id"))])
            case ["sites", site] if site.isdigit() and int(site) in STATES:
                return Reply.of_json(_site(int(site)))
            case ["states"]:
                return Reply.of_json(self._states(request.query))
            case ["states", state]:
                return Reply.of_json(_state(int(state) - 5000))
            case [kind, owner, what]:
                return self._below(kind, int(owner), what, request)
        return Reply.of_json({"detail": "Not found."}, 404)

    def _states(self, query):
        site, wanted = query.get("site__id"), query.get("current_state_search", "")
        sites = [int(site)] if site else _sites_of(query.get("pad__id"))
        return [_state(site) for site in sites if wanted in STATES.get(site, "none")]

    def _below(self, kind, owner, what, request):
        sites = PADS.get(owner, []) if kind == "pads" else [owner]
        match what:
            case "fields":
                return Reply.of_json([{"name": "slurry_flow", "units": "bpm"}, {"name": "proppant", "units": "lb"}])
            case "history":
                wanted = request.query.get("state", "")
                return Reply.of_json([one for one in _stages(sites) if wanted in one["state"]])
            case "aggregations":
                asked = [int(value) for name, value in self._repeated if name == "histories"]
                found = {
                    str(site): [{"id": i, "slurry_flow_max": i / 2} for i in asked if i // 10 == site] for site in sites
                }
                return Reply.of_json(found | {"990": "No data was found"})
            case "data":
                return Reply.of_json(self._items(sites, request.query))
            case "data_changes":
                if request.method == "POST":
                    self._confirm(request.json["change_log"])
                return Reply.of_json({"change_log": [event for event in self.events if event["site"] in sites]})
        return Reply.of_json({"detail": "Not found."}, 404)

    def _items(self, sites, query):
        first, last = (query.get(name, "").replace(" ", "T") for name in ("start_datetime", "end_datetime"))
        found = [
            item
            for site in sites
            for item in self.data[site]
            if first <= item["time"][:19] and (not last or item["time"][:19] <= last)
        ]
        if query.get("routed") != "true" and len(sites) > 1:
            found = [item for item in found if item["site"] == sites[0]]
        return found

    def _confirm(self, change_log):
        for one in change_log:
            if any(event["id"] == one["id"] for event in self.events):
                self.confirmed.append(one["id"])
        self.events = [event for event in self.events if event["id"] not in self.confirmed]


def _sites_of(pad):
    return PADS.get(int(pad), []) if pad else list(STATES)


def _event(number, site, start, end):
    return {"id": number, "created_at": "2025-10-17T11:39:43.688700Z", "modification_type": "transaction",
            "modification_subtype": "delete" if number == 3 else "override", "start_date": start, "end_date": end,
            "site": site}  # fmt: skip


def _pad(pad):
    sources = {"frac": [{"id": 7, "name": "M1", "attached_sites": PADS[pad][:1]},
                        {"id": 8, "name": "M2", "attached_sites": PADS[pad][1:]}], "wl": []}  # fmt: skip
    return {"id": pad, "name": f"Pad {pad}", "lease_name": "Lease", "customer_name": "Customer",
            "simops_config": {"measurement_sources": sources}, "completion_date": None,
            "wireline_enabled": True}  # fmt: skip


def _site(site):
    pad = next(pad for pad, sites in PADS.items() if site in sites)
    return {"id": site, "name": f"Site {site}", "date_created": "2024-05-01T10:00:00.123456Z", "latitude": 31.5,
            "longitude": -102.25, "metadata": {"first_timestamp": "2024-05-01T10:00:00Z"}, "pad_id": pad,
            "well_api": "42-317", "stage_total": 40, "timezone": "US/Central",
            "commissioned": "2024-05-02T00:00:00+02:00"}  # fmt: skip


def _state(site):
    return {"id": 5000 + site, "current_state": STATES.get(site, ""), "calculated_stage_number": 12,
            "last_state_update": "2025-09-09T00:00:00Z", "site": {"id": site}, "site_name": f"Site {site}"}  # fmt: skip


def _stages(sites):
    return [
        {"id": 10 * site + i, "state": state, "stage_number": i, "start": f"2025-09-17T0{i}:00:00Z", "site": site}
        for site in sites
        for i, state in ((1, "frac_frac"), (2, "wl_run"), (3, "frac_frac"))
    ]
