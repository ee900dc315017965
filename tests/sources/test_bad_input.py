"""Every address that a source asks for, with every fault that a service may have: what comes is right, or nothing is.

Belongs here: what holds for all sources that ask a web service. Does not belong here: what one of them says of a fault
of its own (its own test).
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from acronet_service import LOGIN, Webdrops
from meteotracker_service import MeteoTrackers, synthetic_drive
from netatmo_service import Esoh, coverage
from sensor_community_service import Archive, LiveDocument, file, record

from ionbeam_client.models import format_duration
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources import Source
from ionbeam_dagster.sources.acronet import Acronet
from ionbeam_dagster.sources.meteotracker import MeteoTracker
from ionbeam_dagster.sources.netatmo.edr import NetatmoEdr
from ionbeam_dagster.sources.sensor_community import archive, live
from ionbeam_dagster.testing.service import (
    Fault,
    Reply,
    Request,
    Service,
    empty,
    html,
    latin1,
    mislabelled,
    not_utf8,
    redirected,
    slow,
    status,
    truncated,
    utf16,
)

GZIP = b"\x1f\x8b"
HOUR = timedelta(hours=1)
NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
RECENT = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 2 * HOUR


@dataclass(frozen=True, slots=True)
class Asked:
    """A service, the source that asks it and its settings, and a window of which the service has something."""

    service: Service
    kind: type[Source]
    settings: dict[str, Any]
    window: Window

    def new(self, folder: Path) -> Source:
        return self.kind("one", self.kind.Config(data_path=folder, max_retries=1, **self.settings))

    def rows(self, source: Source) -> pl.DataFrame:
        batches = list(source.fetch(self.window))
        return pl.concat([pl.from_arrow(batch) for batch in batches]) if batches else pl.DataFrame()


@contextmanager
def sensor_community() -> Iterator[Asked]:
    day = "2026-06-21"
    files = file(day, "dht22", 93, [f"42;48.800;9.003;{day}T13:02:47;11.10;68.90"], ".csv.gz")
    files |= file(day, "sds011", 92, [f"42;48.800;9.003;{day}T13:02:46;7.71;;;5.03;;"])
    with Archive({day: files}) as service:
        settings = {"base_url": service.url, "timeout_seconds": 0.1, "concurrency": 1}
        yield Asked(service, archive.Archive, settings, Window(NOON - 12 * HOUR, NOON + 12 * HOUR))


@contextmanager
def sensor_community_live() -> Iterator[Asked]:
    records = [record(n, n, "2026-06-21 11:57:00", temperature="20.00") for n in range(1, 9)]
    with LiveDocument(records) as service:
        settings = {"base_url": f"{service.url}/data.json", "timeout_seconds": 0.1}
        yield Asked(service, live.Live, settings, Window(NOON - HOUR / 12, NOON))


@contextmanager
def meteotracker() -> Iterator[Asked]:
    drives = [synthetic_drive(f"aa{n}", "Città LL1", NOON + n * HOUR / 6, 2, 44.4, 8.9) for n in range(2)]
    with MeteoTrackers(drives, points_a_page=25) as service:
        account = {"username": service.user, "password": service.password}
        settings = account | {"base_url": service.url, "timeout": 0.1, "concurrency": 1}
        yield Asked(service, MeteoTracker, settings, Window(NOON, NOON + HOUR))


@contextmanager
def netatmo() -> Iterator[Asked]:
    at = f"{RECENT + HOUR / 6:%Y-%m-%dT%H:%M:%SZ}"
    ranges = {"air_temperature:2.0:point:PT0S": [1.5]}
    with Esoh([coverage(f"s{n}", 4.5 + n, 50.5, ranges, [at]) for n in range(3)]) as service:
        service.username, service.password = "somebody", "pa55word"
        where = {"countries": (), "areas": {"box": (4.0, 50.0, 7.0, 53.0)}, "tiles": 2}
        account = {"username": service.username, "password": service.password}
        settings = where | account | {"base_url": service.url, "timeout_seconds": 0.1, "concurrency": 1}
        yield Asked(service, NetatmoEdr, settings, Window(RECENT, RECENT + HOUR))


@contextmanager
def acronet() -> Iterator[Asked]:
    with Webdrops() as service:
        for n, (kind, unit) in enumerate((("TERMOMETRO", "°C"), ("IGROMETRO", "%"))):
            service.add(kind, f"-19_{n}", "Forlì", (43.9, 7.7), unit, {NOON: 20.5, NOON + HOUR / 6: 21.0})
        account = {"username": service.username, "password": service.password, "client_secret": service.secret}
        where = {"base_url": f"{service.url}/app/", "token_endpoint": f"{service.url}{LOGIN}"}
        settings = account | where | {"timeout_seconds": 0.1, "concurrency": 1}
        yield Asked(service, Acronet, settings, Window(NOON, NOON + HOUR))


SOURCES = {made.__name__: made for made in (sensor_community, sensor_community_live, meteotracker, netatmo, acronet)}


def as_text(broken: Fault) -> Fault:
    """The fault of texts alone: a gzip file is left as it is."""
    return lambda reply: reply if reply.body[:2] == GZIP else broken(reply)


PASSING = {
    "500": status(500),
    "429": status(429, retry_after="1"),
    "truncated": truncated,
}
"""Once these are over, the source must have all that there is."""

LASTING = {
    "401": status(401),
    "500": status(500),
    "429": status(429, retry_after="1"),
    "truncated": truncated,
    "slow": slow(0.25),
    "empty": empty,
    "html": html,
    "not utf-8": not_utf8,
    "latin-1": as_text(latin1),
    "utf-16": as_text(utf16),
    "mislabelled": mislabelled,
    "half of it": lambda reply: Reply(reply.body[: len(reply.body) // 2], type=reply.type),
    "another type": lambda reply: Reply(b'{"error": "none"}', type="application/json"),
    "a dead host": redirected("http://127.0.0.1:9/elsewhere"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", lambda seconds: None)
    monkeypatch.setattr(archive, "_now", lambda: datetime(2026, 6, 30, tzinfo=UTC))


def addresses(asked: Asked, folder: Path) -> tuple[pl.DataFrame, list[str]]:
    """What a source gives when all is well, and a pattern of each address that it asks for."""
    seen: list[str] = []
    reply = asked.service.reply
    asked.service.reply = lambda request, address: seen.append(address) or reply(request, address)
    rows = asked.rows(asked.new(folder))
    assert rows.height
    return rows, [f"^{re.escape(one)}$" for one in dict.fromkeys(seen)]


@pytest.mark.parametrize("name", SOURCES)
def test_what_passes_costs_nothing(name, tmp_path):
    renewable = {"401": status(401)} if name in ("meteotracker", "acronet") else {}
    with SOURCES[name]() as asked:
        right, asked_for = addresses(asked, tmp_path / "right")
        for place, address in enumerate(asked_for):
            for fault, broken in (PASSING | renewable).items():
                if fault == "401" and ("token" in address or "login" in address):
                    continue  # who is refused at the door has a wrong password
                source = asked.new(tmp_path / f"{place} {fault}")
                asked.service.break_(address, broken, times=1)
                if (name, fault) == ("sensor_community_live", "truncated"):  # a part was read: the next try is a run
                    with pytest.raises(SourceError, match="broke off"):
                        asked.rows(source)
                assert asked.rows(source).equals(right), (address, fault)


@pytest.mark.parametrize("name", SOURCES)
def test_what_lasts_fails_the_window_with_its_reason_or_changes_nothing(name, tmp_path):
    failed = set()
    with SOURCES[name]() as asked:
        right, asked_for = addresses(asked, tmp_path / "right")
        for place, address in enumerate(asked_for):
            for fault, broken in LASTING.items():
                source = asked.new(tmp_path / f"{place} {fault}")
                asked.service.break_(address, broken, times=99)
                try:
                    assert asked.rows(source).equals(right), (address, fault)
                except SourceError as error:
                    failed.add(fault)
                    assert str(error).strip(), (address, fault)
                    assert "pa55word" not in str(error) and "very-secret" not in str(error)
                asked.service.repair()
                assert asked.rows(source).equals(right), (address, fault)  # nothing that was half done stays
    completes = {"latin-1", "mislabelled"} | ({"slow"} if name == "netatmo" else set())  # which then asks in pieces
    assert failed >= LASTING.keys() - completes
    assert "latin-1" in failed or name not in ("meteotracker", "acronet")  # the others have no letter beyond ASCII


class Elsewhere(Service):
    """Knows nobody."""

    def answer(self, request: Request) -> Reply:
        return Reply(b"who are you?", 401)


@pytest.mark.parametrize("name", SOURCES)
def test_no_credential_follows_a_redirect_to_another_host(name, tmp_path):
    with SOURCES[name]() as asked, Elsewhere() as other:
        right, asked_for = addresses(asked, tmp_path / "right")
        for place, address in enumerate(asked_for):
            asked.service.break_(address, redirected(f"{other.url}/elsewhere"), times=99)
            source = asked.new(tmp_path / str(place))
            with pytest.raises(SourceError):
                asked.rows(source)
            asked.service.repair()
            assert asked.rows(source).equals(right)
        told = " ".join(f"{request.path} {request.query} {request.headers} {request.body!r}" for request in other.seen)
        assert "pa55word" not in told and "secret" not in told and "authorization" not in told.lower()


def of_json(change: Callable[[Any], Any]) -> Fault:
    return lambda reply: Reply.of_json(change(json.loads(reply.body))) if reply.status == 200 else reply


def twice_and_otherwise(records: list[dict[str, Any]], time: str, otherwise: dict[str, Any]):
    """Records, of which the first is there again, then with another value, then with clocks of 1970 and 2036."""
    first = records[0]
    wrong = [first | {time: f"{year}{first[time][4:]}"} for year in (1970, 2036)]
    return [*records, first, first | otherwise, *wrong]


def _warmer_coverage(collection: dict[str, Any]) -> dict[str, Any]:
    """A coverage that is there again, and once more with another value and a moment in 2036 beside its own."""
    first = collection if collection["type"] == "Coverage" else collection["coverages"][0]
    other = json.loads(json.dumps(first))
    times = other["domain"]["axes"]["t"]["values"]
    times.append(f"2036{times[0][4:]}")
    for found in other["ranges"].values():
        found |= {"values": [9.9, 9.9], "shape": [2, 1, 1]}
    rest = [] if collection is first else collection["coverages"][1:]
    return {"type": "CoverageCollection", "coverages": [first, first, other, *rest]}


def _warmer_series(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    time = answers[0]["timeline"][0]
    more = {"timeline": [time, time, f"2036{time[4:]}"], "values": [answers[0]["values"][0], 9.9, 9.9]}
    return [*answers, answers[0] | more]


def _warmer_file(body: bytes) -> bytes:
    row = body.splitlines()[1]
    others = (row, row.replace(b"11.10", b"9.9"), row.replace(b"2026-", b"1970-"), row.replace(b"2026-", b"2036-"))
    return body + b"\n".join(others) + b"\n"


_AS_ANOTHER = {"id": 99, "sensordatavalues": [{"value": "9.9", "value_type": "temperature"}]}
CONTRADICTIONS = {
    "sensor_community": ("dht22", lambda reply: Reply(gzip.compress(_warmer_file(gzip.decompress(reply.body)))), 9.9),
    "sensor_community_live": (
        "data.json",
        of_json(lambda records: twice_and_otherwise(records, "timestamp", _AS_ANOTHER)),
        9.9,
    ),
    "meteotracker": ("points.*page=1", of_json(lambda points: twice_and_otherwise(points, "time", {"T0": 9.9})), 9.9),
    "netatmo": ("area", of_json(_warmer_coverage), 9.9),
    "acronet": ("data/TERMOMETRO", of_json(_warmer_series), 20.5),
}
"""Where a service contradicts itself, how, and what counts then: the last, but with Acronet the first."""


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_told_twice_and_otherwise_is_one_value_and_wrong_clocks_are_in_no_window(name, platform_of):
    place, contradicts, counts = CONTRADICTIONS[name]
    with SOURCES[name]() as asked:
        span = format_duration(asked.window.span)
        settings = asked.settings | {"start": f"{asked.window.start:%Y-%m-%d}", "aggregation_span": span, "exports": []}
        scheduled = f"  scheduler: {{windows: [{{source_name: {name}, window_size: {span}}}]}}"
        platform = platform_of(f"  {name}: {json.dumps(settings)}\n{scheduled}")
        asked.service.break_(place, contradicts, times=99)
        now = datetime.now(UTC)
        first = collect(platform, platform.source(name), asked.window, now)
        ingested = ingest(platform, platform.source(name), asked.window)
        left_out = "outside" in " ".join(first.problems)  # told in either case
        assert left_out or {"in the future when it arrived", "before the source's start"} & ingested.reasons.keys()
        assert {window.start.year for window in ingested.claim.stray_windows} <= {asked.window.start.year}
        rows = pl.read_parquet(build(platform, platform.dataset(name), asked.window, now).revision.path)
        assert rows.select("station_id", "datetime").is_unique().all()
        assert rows["datetime"].is_between(asked.window.start, asked.window.end, closed="left").all()
        temperature = next(column for column in rows.columns if column.startswith("air_temperature__"))
        assert (rows[temperature] == counts).any()
        assert (rows[temperature] == 9.9).any() == (counts == 9.9)
        if name != "sensor_community_live":  # what was seen is not new
            assert not collect(platform, platform.source(name), asked.window, now).changed and first.changed
