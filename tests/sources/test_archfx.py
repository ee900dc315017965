"""Streams of ArchFX Cloud over real HTTP: pages, accounts, places and faults."""

import re
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from archfx_cloud_service import Cloud

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.archfx.config import ArchFxConfig
from ionbeam_dagster.sources.archfx.source import ArchFx
from ionbeam_dagster.testing.service import empty, html, not_utf8, slow, status, truncated

SEVEN = datetime(2026, 6, 21, 7, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(SEVEN, SEVEN + HOUR)
TEMPERATURE, LOAD = "0000-5001", "0000-5002"
HEAT = "sl--0000-0001--0000-0000-0000-0007--0000-5001"
WORK = "sl--0000-0001--0000-0000-0000-0007--0000-5002"
AREA = "sa--0000-0003--0000-0000-0000-0000--0000-5001"
OTHER = "sl--0000-0002--0000-0000-0000-0008--0000-5001"
UNKNOWN = "sl--0000-0001--0000-0000-0000-0007--0000-5999"
VARIABLES = [
    {"variable": "5001", "standard_name": "air_temperature", "unit": "degF", "cf_unit": "degC", "level": 2.0},
    {"variable": "0000-5002", "standard_name": "x_spindle_load", "cf_unit": "%", "definition": "Load of the spindle"},
]
SLOW = slow(1)
STATIONS = {"d--7": {"latitude": 52.1, "longitude": 5.2, "altitude": 12.0}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", lambda seconds: None)


def every(seconds, value=50.0, start=SEVEN - timedelta(minutes=10), hours=2):
    steps = int(hours * 3600 / seconds)
    return [(start + timedelta(seconds=seconds * n), value + n / 10) for n in range(steps)]


@pytest.fixture
def service():
    data = {HEAT: every(10), WORK: every(20), AREA: every(60), OTHER: every(60), UNKNOWN: every(60)}
    with Cloud(data) as running:
        yield running


def source(service, folder, **keys):
    account = {} if "token" in keys else {"email": Cloud.email, "password": Cloud.password}
    given = account | {"variables": VARIABLES, "stations": STATIONS, "timeout_seconds": 10, "max_retries": 2} | keys
    return ArchFx("plant", ArchFxConfig(base_url=service.url, data_path=folder, **given))


def waits_for(fault):
    """Seconds: only where slowness is the fault may the speed of the machine decide."""
    return 0.5 if fault is SLOW else 10


def fetched(feed, window=WINDOW):
    batches = list(feed.fetch(window))
    return pl.concat([pl.from_arrow(batch) for batch in batches]) if batches else pl.DataFrame()


def test_a_window_has_every_reading_of_the_streams_that_are_named(service, tmp_path):
    rows = fetched(source(service, tmp_path, streams=[HEAT, WORK]))
    assert rows.height == 360 and rows["time"].is_sorted() and rows["time"][0] == SEVEN  # its very first moment, too
    assert rows[LOAD].count() == 180 and rows[TEMPERATURE].count() == 360
    assert rows[TEMPERATURE][0] == pytest.approx((56.0 - 32) / 1.8)
    place = rows.select("lat", "lon", "altitude", "station_id", "parent", "device").unique().rows()
    assert place == [(52.1, 5.2, 12.0, "d--0000-0000-0000-0007", "pl--0000-0001", "d--0000-0000-0000-0007")]


def test_windows_side_by_side_have_every_reading_once(service, tmp_path):
    feed = source(service, tmp_path, streams=[HEAT])
    windows = [Window(SEVEN + n * HOUR / 6, SEVEN + (n + 1) * HOUR / 6) for n in range(6)]
    parts = pl.concat([fetched(feed, window) for window in windows])
    assert parts.equals(fetched(feed)) and not parts["time"].is_duplicated().any()


def test_streams_are_found_by_a_filter_and_what_is_left_out_is_told(service, tmp_path):
    feed = source(service, tmp_path, filter={"line": "pl--0000-0001"})
    assert set(fetched(feed)["station_id"]) == {"d--0000-0000-0000-0007"}
    assert feed.problems() == ["1 streams of variable 0000-5999 are left out: nobody mapped it"]
    feed = source(service, tmp_path)
    rows = fetched(feed)
    assert set(rows["station_id"]) == {"d--0000-0000-0000-0007", "d--0000-0000-0000-0008", "pa--0000-0003"}
    assert "pa--0000-0003 has no place, so that its rows are set aside: add it to stations" in feed.problems()
    done = canonicalise(rows, feed.metadata)
    assert done.rows.height == 360 and set(done.rejected["reason"]) == {"no latitude; no longitude"}
    everywhere = source(service, tmp_path, latitude=52.0, longitude=5.0)
    assert canonicalise(fetched(everywhere), feed.metadata).rejected.height == 0


def test_a_block_that_finds_nothing_is_a_fault_and_no_empty_window(service, tmp_path):
    with pytest.raises(SourceError, match=r"has no stream for {'line': 'pl--0000-0009'}"):
        fetched(source(service, tmp_path, filter={"line": "pl--0000-0009"}))
    with pytest.raises(SourceError, match="none of 1 streams is of a variable in its block"):
        fetched(source(service, tmp_path, streams=[UNKNOWN]))
    with pytest.raises(SourceError, match=r"stream/sl--.*0009--0000-5001/data/.*: 404 Not Found"):
        fetched(source(service, tmp_path, streams=["sl--1--9--5001"]))
    later = Window(SEVEN + 10 * HOUR, SEVEN + 11 * HOUR)
    assert fetched(source(service, tmp_path, streams=[HEAT]), later).height == 0


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"streams": ["sl--1--2"]}, "is no stream"),
        ({"stations": {"x--1": {"latitude": 1, "longitude": 2}}}, "no type of a device"),
        ({"variables": [VARIABLES[0], VARIABLES[0]]}, "the variable 0000-5001 is given twice"),
        ({"variables": []}, "at least 1 item"),
        ({"variables": [VARIABLES[0] | {"unit": "hPa"}]}, "air_temperature: .* measure different things"),
        ({"streams": [HEAT], "filter": {"line": "x"}}, "streams and filter both say"),
        ({"base_url": "arch.archfx.io"}, "pattern"),
    ],
)
def test_a_block_that_cannot_be_is_refused(service, tmp_path, keys, reason):
    with pytest.raises(ValueError, match=reason):
        ArchFxConfig.model_validate({"variables": VARIABLES} | keys)


def test_the_block_of_the_page_is_one(platform_of, monkeypatch):
    monkeypatch.setenv("ARCHFX_PASSWORD", "secret")
    page = (Path(__file__).parents[2] / "docs" / "archfx-cloud.md").read_text()
    [block] = re.findall(r"```yaml\nsources:\n(.*?)```", page, re.DOTALL)
    plant = platform_of(block).sources["plant"]
    assert [one.unit for one in plant.config.variables] == ["degF", None]
    assert [one.column for one in plant.metadata.ingestion_map.canonical_variables] == [TEMPERATURE, LOAD]


def test_a_token_that_expires_in_the_middle_costs_nothing_and_doubles_nothing(service, tmp_path):
    whole = fetched(source(service, tmp_path, latitude=1, longitude=2))
    service.token_uses = 3
    service.logins = 0
    assert fetched(source(service, tmp_path, latitude=1, longitude=2, concurrency=1)).equals(whole)
    assert service.refreshed > 1 and service.logins == 1
    service.break_("api-jwt-refresh", status(401), times=999)  # a refresh that is refused: it logs in again
    assert fetched(source(service, tmp_path, latitude=1, longitude=2, concurrency=1)).equals(whole)
    assert service.logins > 2


def test_a_token_may_be_given_instead_of_an_account(service, tmp_path):
    assert fetched(source(service, tmp_path, streams=[HEAT], token="one-that-stays")).height == 360
    assert service.logins == 0
    with pytest.raises(SourceError, match="401 Unauthorized; check the token") as failure:
        fetched(source(service, tmp_path, token="one-that-went", token_type="jwt"))
    assert "one-that-went" not in str(failure.value)


def test_an_account_that_is_refused_or_missing_is_told_without_the_password(service, tmp_path):
    with pytest.raises(SourceError, match=r"400 Bad Request: .*no account has") as failure:
        fetched(source(service, tmp_path, password="wr0ng-one"))
    assert "wr0ng-one" not in str(failure.value)
    with pytest.raises(SourceError, match="neither email and password nor a token"):
        fetched(source(service, tmp_path, email=""))
    service.break_("auth/login", html, times=999)
    with pytest.raises(SourceError, match=r"is not JSON .* text/html"):
        fetched(source(service, tmp_path))


@pytest.mark.parametrize("place", ["/stream/\\?", "/stream/$", "page=2", "start="])
@pytest.mark.parametrize("fault", [status(401), status(429, retry_after="1"), status(503), truncated, SLOW])
def test_what_passes_costs_no_reading(service, tmp_path, place, fault):
    service.break_(place, fault)
    rows = fetched(source(service, tmp_path, latitude=1, longitude=2, timeout_seconds=waits_for(fault)))
    assert rows.height == 480 and not rows.select("station_id", "time").is_duplicated().any()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(401), "401 Unauthorized; check the user name and the password"),
        (status(403), "403 Forbidden"),
        (status(404), "404 Not Found"),
        (status(429, retry_after="4000"), "429 Too Many Requests"),
        (status(500), r"500 Internal Server Error.*\(3 tries\)"),
        (html, "is not JSON .* but text/html: <!DOCTYPE html>"),
        (empty, "is empty"),
        (truncated, r"broke off .*\(3 tries\)"),
        (not_utf8, "is not utf-8 text"),
        (SLOW, r"no data within the time-out \(3 tries\)"),
    ],
)
def test_what_stays_is_a_fault_with_its_place_and_never_fewer_rows(service, tmp_path, fault, reason):
    service.break_("page=2", fault, times=999)
    with pytest.raises(SourceError, match=reason) as failure:
        fetched(source(service, tmp_path, timeout_seconds=waits_for(fault)))
    assert f"{service.url}/api/v1/stream/sl--" in str(failure.value)
    assert Cloud.password not in str(failure.value) and "jwt-1" not in str(failure.value)


@pytest.mark.parametrize("page", [b'{"results": 3}', b"[1, 2]", b'{"results": [3]}', b"null", b'{"detail": "no"}'])
def test_what_is_no_page_is_a_fault(service, tmp_path, page):
    service.break_("start=", lambda reply: type(reply)(page, 200, "application/json"), times=999)
    with pytest.raises(SourceError, match="is no page with a list of results"):
        fetched(source(service, tmp_path))


def test_a_stream_without_an_id_is_a_fault(service, tmp_path):
    nameless = lambda reply: type(reply)(b'{"results": [{"slug": null}]}', 200, "application/json")  # noqa: E731
    service.break_("stream/$", nameless, times=9)
    with pytest.raises(SourceError, match="list of streams has what is none: 'None' is no stream"):
        fetched(source(service, tmp_path))


def test_readings_that_come_while_pages_are_turned_are_not_lost(service, tmp_path):
    late = [(SEVEN + timedelta(seconds=5), 0.0)]
    service.break_("page=2", lambda reply: service.data[HEAT].__setitem__(slice(0, 0), late) or reply)
    rows = fetched(source(service, tmp_path, streams=[HEAT]))
    assert rows.height == 361 and not rows["time"].is_duplicated().any()
    grow = lambda reply: service.data[HEAT].insert(0, (SEVEN + timedelta(seconds=7), 1.0)) or reply  # noqa: E731
    service.break_("page=2", grow, times=999)
    with pytest.raises(SourceError, match="do not have as many things together as they say, 5 times"):
        fetched(source(service, tmp_path, streams=[HEAT]))


def test_pages_that_go_in_circles_end(service, tmp_path):
    same = b'{"results": [], "next": "http://x/?start=2026-06-21T07:00Z&end=2026-06-21T08:00Z&page=2"}'
    service.break_("start=|page=2", lambda reply: type(reply)(same, 200, "application/json"), times=999)
    with pytest.raises(SourceError, match="the next page is one that came before"):
        fetched(source(service, tmp_path))


def test_readings_that_cannot_be_are_told(service, tmp_path):
    odd = [(SEVEN, "warm"), ("yesterday", 1.0), ("+1000000-01-01T00:00:00Z", 2.0), (SEVEN, float("nan")), (SEVEN, {})]
    service.data = {HEAT: [*odd, (SEVEN, 50.0), (SEVEN, 59.0), (SEVEN + timedelta(microseconds=5), 68.0)]}
    feed = source(service, tmp_path)
    rows = fetched(feed)
    assert rows["time"].to_list() == [SEVEN, SEVEN + timedelta(microseconds=5), None, None]
    assert rows[TEMPERATURE].to_list() == pytest.approx([15.0, 20.0, (1 - 32) / 1.8, (2 - 32) / 1.8])
    assert canonicalise(rows, feed.metadata).rejected.height == 2
    assert feed.problems() == [
        f"{HEAT}: 1 readings are of the time of another one; the last counts",
        f"{HEAT}: 2 readings have no time, and are set aside",
        f"{HEAT}: 3 readings without a number were left out",
    ]


def test_a_server_that_cannot_be_verified_gets_no_password_and_is_told_at_once(tmp_path, certificate):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        feed = ArchFx(
            "plant",
            ArchFxConfig(
                base_url=f"https://127.0.0.1:{server.server_port}", email="a@example.com", password="pa55word",
                variables=VARIABLES, data_path=str(tmp_path),
            ),
        )  # fmt: skip
        with pytest.raises(
            SourceError, match=r"certificate is not trusted .*SSL_CERT_FILE.* nothing was sent"
        ) as failure:
            fetched(feed)
    finally:
        server.shutdown()
        server.server_close()
    assert "tries" not in str(failure.value) and asked == []
