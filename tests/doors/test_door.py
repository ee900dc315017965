"""The HTTP door: what stations write and devices report becomes windows, once, whatever happens in between."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest
import yaml
from door_samples import (
    GARDEN,
    HOUR,
    OTHER,
    SOURCES,
    TEMPERATURE,
    TOKEN,
    bring_up_to_date,
    nanoseconds,
    opened,
    points,
    raws_that_wait,
    wait_for,
    write,
)
from servers import free_port
from typer.testing import CliRunner
from werkzeug.test import Client

from ionbeam_client.cf import check_metadata
from ionbeam_dagster import matters
from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.canonical import canonical_schema, columns_of
from ionbeam_dagster.domain.windows import FOREVER, window_of
from ionbeam_dagster.doors.http import app as app_of_the_door
from ionbeam_dagster.doors.http.leftovers import door_leftovers
from ionbeam_dagster.doors.http.serving import OpenDoor
from ionbeam_dagster.doors.http.status import door_status
from ionbeam_dagster.edr.served import update_configuration
from ionbeam_dagster.edr.service import Service
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.retention import purge
from ionbeam_dagster.stores.publish import file_hash


def test_what_was_written_becomes_a_window(platform_of):
    platform = platform_of(SOURCES)
    then = datetime.now(UTC) - 3 * HOUR
    body = f"weather,station=roof temperature=50,pressure=1013.25 {nanoseconds(then)}\n# a comment\n\n"
    with opened(platform) as (door, url):
        assert write(url, body).status_code == 204
        assert write(url, gzip.compress(body.encode()), headers={"Content-Encoding": "gzip"}).status_code == 204
        door.flush.run()
        assert list(door.journal.closed()) == []
    [raw] = [raw for raw in platform.ledger.raws("garden", FOREVER) if raw.rows]
    assert (raw.bytes, raw.hash) == (Path(raw.path).stat().st_size, file_hash(Path(raw.path)))
    bring_up_to_date(platform)
    rows = points(platform, window_of(then, HOUR))
    assert rows[TEMPERATURE].to_list() == [pytest.approx(10.0)] and rows["station_id"].to_list() == ["roof"]
    assert rows.select("lat", "lon", "altitude").row(0) == (52.1, 5.2, "12")
    [claim] = platform.ledger.claims("garden", window_of(datetime.now(UTC), HOUR))
    assert (claim.rows, claim.quarantined, claim.stray_windows) == (1, 0, (window_of(then, HOUR),))


def test_rows_of_three_weeks_ago_make_revisions_of_their_own_windows(platform_of):
    """Through the door to what the web service answers."""
    platform = platform_of(SOURCES.replace("2026-06-01", "2020-01-01"))
    window = window_of(datetime.now(UTC) - timedelta(days=21), HOUR)
    old = window.start + timedelta(minutes=10)

    def revised(fahrenheit, seconds):
        line = f"weather,station=roof temperature={fahrenheit} {nanoseconds(old + timedelta(seconds=seconds))}"
        with opened(platform) as (door, url):
            assert write(url, line).status_code == 204
            door.flush.run()
        bring_up_to_date(platform)
        dataset, exporter = platform.dataset("garden"), platform.config.window_exporters["pygeoapi"]
        made = build(platform, dataset, window, datetime.now(UTC)).revision
        return made.revision.number, export(platform, dataset, exporter, window).number, answered(platform, old)

    assert revised(32, 0) == (1, 1, [0.0])
    assert revised(33.8, 1) == (2, 2, [0.0, 1.0])


def answered(platform, moment):
    """The temperatures around a moment that the web service gives."""
    path, _ = update_configuration(platform.config)
    service = Service(yaml.safe_load(path.read_text()), "http://service.test")
    about = f"{moment - HOUR:%Y-%m-%dT%H:%M:%SZ}/{moment + HOUR:%Y-%m-%dT%H:%M:%SZ}"
    reply = service.answer("garden", "position", None, {"coords": "POINT(5.2 52.1)", "datetime": about, "f": "csv"})
    assert reply.status == 200, reply.body
    rows = pl.read_csv(reply.body)
    return rows[next(name for name in rows.columns if name.startswith("air_temperature"))].round(6).to_list()


@pytest.mark.parametrize(
    "place",
    [
        "stores.ledger.commands.SqliteCommands.take",
        "doors.http.memory.Memory.taken",
        "doors.http.flush.remove",
        "doors.http.memory.Memory.removed",
        "doors.http.parked.published",
    ],
)
def test_a_flush_that_dies_anywhere_is_done_once_by_the_next(platform_of, monkeypatch, place):
    two = SOURCES + GARDEN.replace("garden:", "valley:").replace(TOKEN, OTHER)
    platform = platform_of(two)
    then = datetime.now(UTC) - 3 * HOUR
    lines = f"weather,station=roof temperature=50 {nanoseconds(then)}\ncpu,host=a usage=1 {nanoseconds(then)}"
    failed = []

    class Killed(BaseException):
        pass

    def dies(*_, **__):
        failed.append(place)
        raise Killed

    door = OpenDoor(platform, "127.0.0.1", free_port())  # not run: nobody else takes in
    client = Client(door.application)

    def written(text, token):
        return client.post("/write", data=text, headers={"Authorization": f"Token {token}"}).status_code == 204

    assert written(lines, TOKEN) and written(lines, OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(f"ionbeam_dagster.{place}", dies)
        with pytest.raises(Killed):
            door.flush.run()
    assert written(lines.replace("=50", "=32"), TOKEN)
    door.flush.run()
    assert failed and door.journal.closed() == []
    assert sum(one.lines for one in door.memory.parked("garden")) == 2
    assert sum(one.lines for one in door.memory.parked("valley")) == 1
    door.stop()
    door.run()
    for source, expected in (("garden", [1, 1]), ("valley", [1])):
        sent = {raw.path: raw.rows for w in platform.ledger.waiting(source) for raw in platform.ledger.sent(source, w)}
        assert [rows for rows in sent.values() if rows] == expected


# --- what is not taken in ---------------------------------------------------------------------------------------------


def test_what_nobody_mapped_is_parked_with_its_reason(platform_of):
    platform = platform_of(SOURCES)
    then = datetime.now(UTC) - 3 * HOUR
    lines = [
        f"weather,station=roof temperature=50,uptime=7i {nanoseconds(then)}",
        f"cpu,host=a usage=1.5 {nanoseconds(then)}",
        f"weather,station=shed temperature=50 {nanoseconds(then)}",
        "weather,station=roof temperature=50 4070908800000000000",  # 2099
        f"weather,station=roof temperature=50 {nanoseconds(datetime(2020, 1, 1, tzinfo=UTC))}",
        f'weather,station=roof temperature="warm" {nanoseconds(then)}',
        f"weather temperature=50 {nanoseconds(then)}",
        f"../../../etc/passwd,station=roof x=1 {nanoseconds(then)}",
    ]
    with opened(platform) as (door, url):
        assert write(url, "\n".join(lines)).status_code == 204
        door.flush.run()
        reasons = {one.reason for one in door.memory.parked("garden")}
        assert sum(one.lines for one in door.memory.parked()) == 8
    assert reasons == {
        "no variable of sources.garden takes uptime",
        "no variable of sources.garden takes usage",
        "no variable of sources.garden takes x",
        "station shed has no place; add it to sources.garden.stations, or give it one by `ionbeam stations import`",
        "is from the future; check the station's clock, or set sources.garden.future_tolerance",
        "is from before the source's start; set sources.garden.start (now 2026-06-01T00:00Z)",
        "has a text where a number should be",
        "has no tag 'station'; set sources.garden.station",
    }
    told = "\n".join(door_status(platform))
    assert "garden: 1 lines of 'cpu' are parked" in told
    accepted = [line for line in told.split("\n") if "`ionbeam source accept garden`" in line]
    assert len(accepted) == 5 and not [line for line in accepted if "is from" in line or "has a text" in line]
    assert told.count("(once that is set, start `ionbeam receive` again") == 2
    assert told.count("(correct what the station sends") == 1
    [kept] = (platform.config.sections.state_path / "door" / "parked").rglob("*.parquet")
    assert pl.read_parquet(kept).height == 8 and kept.parent.name == "garden"
    bring_up_to_date(platform)
    assert points(platform, window_of(then, HOUR))[TEMPERATURE].to_list() == [pytest.approx(10.0)]


def parked_lines(platform, source="garden"):
    """(line, received) of what is parked, in the order of lines."""
    kept = sorted((platform.config.sections.state_path / "door" / "parked" / source).glob("*.parquet"))
    return pl.concat([pl.read_parquet(one, columns=["line", "received"]) for one in kept]).sort("line").rows()


def test_what_is_no_number_is_parked_as_it_came_and_can_be_sent_again(platform_of):
    flag = (
        "variables:\n      - {field: wet, standard_name: x_wet, definition: Whether it rains, cf_unit: '1', flag: true}"
    )
    platform = platform_of(SOURCES.replace("variables:", flag))
    moment = nanoseconds(datetime.now(UTC) - 3 * HOUR)
    lines = [
        rf'my\ notes,station=r\,oof text="a \"b\", c=d\\",n=5i,u=5u,x=1.50,t=T {moment}',
        f'weather,station=roof temperature="21.5" {moment}',
        f"weather,station=roof temperature=hot {moment}".replace("hot", '"hot"'),
        f"weather,station=roof temperature=true {moment}",
    ]
    with opened(platform) as (door, url):
        assert write(url, "\n".join(lines)).status_code == 204
        assert write(url, f"weather,station=roof temperature=1,temperature=50,wet=t {moment}").status_code == 204
        door.flush.run()
        assert [line for line, _ in parked_lines(platform)] == lines
        reasons = {one.reason for one in door.memory.parked()}
        assert "has a text where a number should be" in reasons
        assert (
            "has true or false where a number should be; where that is meant, set flag of sources.garden.variables"
            in reasons
        )
        assert "no variable of sources.garden takes text, n, u, x, t" in reasons
        assert write(url, "\n".join(line for line, _ in parked_lines(platform))).status_code == 204
        door.flush.run()
        assert [line for line, _ in parked_lines(platform)] == sorted(2 * lines)
    bring_up_to_date(platform)
    [row] = points(platform, window_of(datetime.fromtimestamp(moment / 1e9, UTC), HOUR)).to_dicts()
    assert row[TEMPERATURE] == pytest.approx(10.0) and row["x_wet__1__0.0__point__PT0S"] == 1.0


def test_a_yaml_that_was_corrected_takes_in_what_was_parked_and_the_rest_stays_as_old_as_it_is(platform_of, tmp_path):
    platform = platform_of(SOURCES)
    then = datetime.now(UTC) - 3 * HOUR
    with opened(platform) as (door, url):
        assert write(url, f"weather,station=shed temperature=50 {nanoseconds(then)}\ncpu,host=a x=1").status_code == 204
        door.flush.run()
        before = {(one.measurement, one.last) for one in door.memory.parked()}
    [(_, came), _] = parked_lines(platform)
    with opened(platform) as (door, _):  # nothing has changed
        wait_for(lambda: door.memory.looked_at("garden"))
        door.flush.run()
        assert {(one.measurement, one.last) for one in door.memory.parked()} == before
    with opened(platform) as (door, _):
        door.flush.run()
        assert {(one.measurement, one.last) for one in door.memory.parked()} == before
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("stations:", "stations:\n      shed: {latitude: 52.2, longitude: 5.3}"))
    platform = open_platform(IonbeamConfig.load(path))
    with opened(platform) as (door, _):
        wait_for(lambda: {one.measurement for one in door.memory.parked()} == {"cpu"})
        assert {(one.measurement, one.last) for one in door.memory.parked()} == {
            one for one in before if one[0] == "cpu"
        }
    [(line, received)] = parked_lines(platform)
    assert line.startswith("cpu,host=a x=1 ") and received == came
    [file] = (platform.config.sections.state_path / "door" / "parked").rglob("*.parquet")
    assert file.stat().st_mtime_ns == came
    bring_up_to_date(platform)
    assert points(platform, window_of(then, HOUR))["station_id"].to_list() == ["shed"]


BARE = f"""
  # what my loggers write
  garden: {{kind: door, token: {TOKEN}, start: 2026-06-01, aggregation_span: PT1H, exports: [pygeoapi]}}
"""


def test_what_nobody_mapped_is_refused_where_the_block_says_so(platform_of):
    platform = platform_of(SOURCES.replace("token:", "ignore: [weather.note]\n    unmapped: refused\n    token:"))
    good = f"weather,station=roof temperature=50,note=7 {nanoseconds(datetime.now(UTC) - 3 * HOUR)}"
    with opened(platform) as (door, url):
        for line, what in (
            (f"{good}\ncpu,host=a usage=1,b\\ c=2", "usage, b c of cpu"),
            ("weather,station=roof temperature=50,uptime=7i", "uptime of weather"),
            ("\n".join([good] * 2_000) + "\nweather,station=x y=1", "y of weather"),
        ):
            answer = write(url, line)
            assert answer.status_code == 400
            assert answer.json()["message"].startswith(f"no variable of sources.garden takes {what}; nothing of the")
        assert door.journal.lines == 0
        assert write(url, good).status_code == 204
        assert write(url, "# nothing").status_code == 204
        door.flush.run()
        assert door.memory.parked() == []
    [raw] = raws_that_wait(platform)
    assert raw.rows == 1


def test_accepting_without_the_doors_packages_says_what_is_missing(platform_of, tmp_path, monkeypatch):
    platform_of(BARE)
    monkeypatch.setattr("ionbeam_dagster.doors.http.find_spec", lambda name: None if name == "waitress" else name)
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "config.yaml"), "source", "accept", "garden"])
    assert done.exit_code == 1 and "needs waitress: pip install 'ionbeam-dagster[door]'" in " ".join(
        done.output.split()
    )


def test_what_was_parked_is_accepted_and_taken_in(platform_of, tmp_path):
    platform = platform_of(BARE)
    then = datetime.now(UTC) - 3 * HOUR
    line = "weather,host=roof,lat=52.1,lon=5.2 outTemp_F=50,outHumidity=40,pressure=1013.2,uptime=7i"
    with opened(platform) as (door, url):
        assert write(url, f"{line} {nanoseconds(then)}").status_code == 204
        door.flush.run()
    assert platform.ledger.waiting("garden") == []
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "config.yaml"), "source", "accept", "garden"])
    assert done.exit_code == 0, done.output
    assert "weather.outTemp_F is air_temperature in degF at 2 m" in done.output
    assert "weather.uptime: what it is cannot be told" in done.output
    assert "# what my loggers write" in (tmp_path / "config.yaml").read_text()
    platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
    block = platform.sources["garden"].config
    assert (block.station, block.latitude, block.longitude) == ("host", "lat", "lon")
    with opened(platform) as (door, _):
        wait_for(lambda: door.memory.looked_at("garden"))
        door.flush.run()
        [left] = door.memory.parked()
        assert left.reason == "no variable of sources.garden takes uptime"
    bring_up_to_date(platform)
    [row] = points(platform, window_of(then, HOUR)).to_dicts()
    assert row[TEMPERATURE] == pytest.approx(10.0) and row["station_id"] == "roof" and row["lat"] == 52.1


def test_what_is_parked_goes_when_the_quarantine_does(platform_of):
    platform = platform_of(SOURCES, retention="{quarantine: P1D}")
    with opened(platform) as (door, url):
        assert write(url, "cpu,host=a usage=1.5").status_code == 204
        door.flush.run()
    now = datetime.now(UTC)
    assert not purge(platform, now, dry_run=False, also=[door_leftovers]).gone
    gone = purge(platform, now + timedelta(days=2), dry_run=False, also=[door_leftovers]).gone
    assert [(one.kind, one.of) for one in gone] == [("quarantine", "garden")]
    assert door_status(platform)[0].endswith("; 0 lines parked")


# --- who may, and what cannot be --------------------------------------------------------------------------------------


def test_a_token_is_one_sources(platform_of, caplog):
    two = SOURCES + GARDEN.replace("garden:", "valley:").replace(TOKEN, OTHER)
    platform = platform_of(two)
    line = f"weather,station=roof temperature=50 {nanoseconds(datetime.now(UTC))}"
    with opened(platform) as (door, url):
        for token in ("x", "wrong-token-3", TOKEN[:-1], TOKEN + "x"):
            answer = write(url, line, token)
            assert answer.status_code == 401 and "token" in answer.json()["message"]
        assert httpx.post(f"{url}/write?db=x", content=line, auth=("anybody", TOKEN)).status_code == 204
        assert httpx.post(f"{url}/write", params={"p": OTHER}, content=line).status_code == 204
        assert write(url, line, OTHER).status_code == 204
        door.flush.run()
    assert TOKEN not in caplog.text and OTHER not in caplog.text and TOKEN not in repr(platform.config)
    rows = {name: sum(one.rows for w in platform.ledger.waiting(name) for one in platform.ledger.sent(name, w))
            for name in ("garden", "valley")}  # fmt: skip
    assert rows == {"garden": 1, "valley": 1}  # two lines of one station and time are one point


def test_no_head_of_a_request_is_a_fault_of_the_door(platform_of, caplog):
    heads = {
        b"POST /write HTTP/1.1\r\nAuthorization: Basic \xe9": 401,
        b"POST /write HTTP/1.1\r\nAuthorization: Token \xe9": 401,
        b"POST /write?precision=\xe9 HTTP/1.1\r\nAuthorization: Token " + TOKEN.encode(): 400,
        b"POST /write?p=\xff HTTP/1.1\r\nX: y": 400,
        b"POST /\xff HTTP/1.1\r\nX: y": 400,
    }
    with opened(platform_of(SOURCES)) as (door, url):
        place = httpx.URL(url)
        for head, status in heads.items():
            with socket.create_connection((place.host, place.port), 20) as one:
                one.sendall(head + b"\r\nContent-Length: 35\r\n\r\n" + GOOD.encode())
                assert f" {status} ".encode() in one.recv(4096).splitlines()[0], head
        assert door.journal.lines == 0
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_no_password_is_a_fault_of_the_door(platform_of, caplog):
    with opened(platform_of(SOURCES)) as (_, url):
        for password in ("\ud800", "\u0000", "x" * 9_000, 5, None, [], {"a": 1}, True):
            answer = httpx.post(f"{url}/api/v1/auth/login/", content=json.dumps({"password": password}))
            assert answer.status_code == 401, (password, answer.text)
        for body in ("", "[", "[]", "[" * 9_000, '"x"', b"\xff", "{}"):
            assert httpx.post(f"{url}/api/v1/auth/login/", content=body).status_code in (400, 401)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_lines_that_call_themselves_a_form_are_taken_as_lines(platform_of):
    """As weewx's extension sends them, after it asked in vain for a database."""
    line = f"weather,binding=archive,station=roof temperature=50.0 {nanoseconds(datetime.now(UTC) - 3 * HOUR)}"
    with opened(platform_of(SOURCES)) as (door, url), httpx.Client(base_url=url, auth=("any", TOKEN)) as weewx:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert weewx.post("/query", params={"q": "CREATE DATABASE any"}, content="None", headers=headers).is_error
        answer = weewx.post("/write", params={"db": "any"}, content=line, headers=headers)
        assert (answer.status_code, answer.content, door.journal.lines) == (204, b"", 1)
        door.flush.run()
        assert door.memory.parked() == []


def test_two_sources_cannot_have_one_token(platform_of):
    with pytest.raises(ConfigError, match=r"sources.valley.token: is the token of garden, too"):
        platform_of(SOURCES + GARDEN.replace("garden:", "valley:"))


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("seven77", "has 7 characters, and needs at least 8; make a new one, such as by `openssl rand -hex 16`"),
        ("''", "has 0 characters"),
        ('"garden-token-1\\n"', "has a blank, a line break, a colon or another character than those of ASCII"),
        ("garden token", "has a blank"),
        ("garden:token", "has a blank"),
        ("gärtentoken", "has a blank"),
    ],
)
def test_a_token_that_clients_cannot_send_is_refused_with_what_to_do(platform_of, token, told):
    with pytest.raises(ConfigError, match=re.escape(f"sources.garden.token: {told}")) as refused:
        platform_of(SOURCES.replace(TOKEN, token))
    assert "garden-token-1" not in str(refused.value)


def test_the_shortest_token_of_all_signs_is_sent_by_every_scheme(platform_of):
    for token in ("a_b~!'#9", "()+,-./;<=>?@A[Z]^`{|}$&*%"):
        with opened(platform_of(SOURCES.replace(TOKEN, json.dumps(token)))) as (_, url):
            for scheme in ("Token", "Bearer"):
                headers = {"Authorization": f"{scheme} {token}"}
                assert httpx.post(f"{url}/write", content=GOOD, headers=headers).status_code == 204
            assert httpx.post(f"{url}/write", content=GOOD, auth=("any", token)).status_code == 204
            assert httpx.post(f"{url}/write", content=GOOD, params={"u": "any", "p": token}).status_code == 204


GOOD = "weather,station=roof temperature=50"
BAD = {
    "no line": (b"weather", {}, 400, "line 1"),
    "the second": (GOOD.encode() + b"\nweather x=", {}, 400, "line 2"),
    "no text": (b"\xff\xfe x=1", {}, 400, "UTF-8"),
    "far time": (GOOD.encode() + b" 99999999999999999999", {}, 400, "line 1"),
    "far seconds": (GOOD.encode() + b" 99999999999", {"precision": "s"}, 400, "out of range"),
    "precision": (GOOD.encode(), {"precision": "hh"}, 400, "'hh' is not known; use ns, n, us, u, ms, s, m, h"),
    "a tag twice": (b"weather,a=1,a=2 x=1", {}, 400, "line 1: "),
    "a long name": (b"weather,a=" + b"x" * 256 + b" x=1", {}, 400, "a name or a tag of more than 255 characters"),
    "long line": (b"weather,station=" + b"x" * 70_000 + b" x=1", {}, 400, "longer than 65536"),
    "many tags": (b"weather" + b"".join(b",t%d=1" % i for i in range(65)) + b" x=1", {}, 400, "64 tags"),
    "not a number": (b"weather x=nan", {}, 400, "line 1"),
}


def test_what_cannot_be_is_refused_with_its_reason_and_nothing_of_it_is_taken(platform_of, monkeypatch):
    platform = platform_of(SOURCES, receive="{most_bytes: 100000, most_unpacked_bytes: 200000}")
    bomb = gzip.compress(b"weather,station=roof temperature=50\n" * 3_000_000)
    packed = {"Content-Encoding": "gzip"}
    monkeypatch.setattr(app_of_the_door, "_MOST_LINES", 150_000)
    with opened(platform) as (door, url):
        before = door.journal.lines
        for name, (body, query, status, reason) in BAD.items():
            answer = write(url, body, params=query)
            assert (answer.status_code, reason in answer.json()["message"]) == (status, True), (name, answer.text)
        for body, headers, status in (
            (b"x" * 200_000, {}, 413), (bomb[:99_000], packed, 413), (b"no gzip", packed, 400),
            (gzip.compress(GOOD.encode())[:-5], packed, 400),
            (gzip.compress(b"\n" * 199_999), packed, 413),
            (gzip.compress(b"") * 2_000, packed, 413), (GOOD.encode(), {"Content-Encoding": "br"}, 415),
        ):  # fmt: skip
            assert write(url, body, headers=headers).status_code == status
        assert httpx.get(f"{url}/api/v2/write").status_code == 405
        assert httpx.get(f"{url}/../../etc/passwd").status_code == 404
        assert door.journal.lines == before == 0
        assert httpx.get(f"{url}/ping").status_code == 204 and httpx.get(f"{url}/health").json()["status"] == "pass"
        assert write(url, b"").status_code == 204
        assert write(url, GOOD).status_code == 204 and door.journal.lines == 1


def test_lines_are_counted_and_not_their_breaks(platform_of, monkeypatch):
    monkeypatch.setattr(app_of_the_door, "_MOST_LINES", 3)
    with opened(platform_of(SOURCES)) as (_, url):
        for lines, end, status in ((3, "", 204), (3, "\n", 204), (3, "\n\n", 413), (4, "", 413), (4, "\n", 413)):
            assert write(url, "\n".join([GOOD] * lines) + end).status_code == status, (lines, end)


def test_small_requests_wait_for_no_large_ones_and_of_those_few_wait(platform_of, monkeypatch):
    monkeypatch.setattr(app_of_the_door, "_LARGE_WAITING", 1)
    packed = {"Content-Encoding": "gzip"}
    small, large = gzip.compress(GOOD.encode()), gzip.compress((GOOD + "\n").encode() * 100_000)
    with opened(platform_of(SOURCES)) as (door, url), ThreadPoolExecutor(1) as others:
        room = door.application._large
        assert room.acquire() and room.acquire()  # as large as is read at once
        waiting = others.submit(write, url, large, headers=packed)
        wait_for(lambda: not door.application._waiting._value)
        assert write(url, small, headers=packed).status_code == 204
        assert write(url, GOOD).status_code == 204
        for body, headers in ((large, packed), ((GOOD + "\n") * 100_000, {})):
            answer = write(url, body, headers=headers)
            assert answer.status_code == 503 and answer.headers["Retry-After"]
        room.release()
        room.release()
        assert waiting.result(30).status_code == 204
        assert write(url, gzip.compress(small) + small, headers=packed).status_code == 400
        assert door.journal.lines == 100_002


def test_half_a_request_takes_nothing_and_holds_up_nobody(platform_of):
    """More of them than the door has places."""
    with opened(platform_of(SOURCES)) as (door, url), ExitStack() as halves, httpx.Client(base_url=url) as before:
        assert before.get("/ping").status_code == 204
        place = httpx.URL(url)
        for _ in range(1_100):
            half = halves.enter_context(socket.create_connection((place.host, place.port), 20))
            half.sendall(b"POST /api/v2/write HTTP/1.1\r\nHost: x\r\nAuthorization: Token " + TOKEN.encode()
                         + b"\r\nContent-Length: 500\r\n\r\n" + GOOD.encode())  # fmt: skip
        assert write(url, GOOD).status_code == 204 and before.get("/ping").status_code == 204
        halves.close()
        assert write(url, GOOD).status_code == 204
        assert door.journal.lines == 2


def test_a_length_beside_chunks_is_refused(platform_of):
    with opened(platform_of(SOURCES)) as (door, url):
        place = httpx.URL(url)
        request = f"POST /write HTTP/1.1\r\nHost: x\r\nAuthorization: Token {TOKEN}\r\nTransfer-Encoding: chunked\r\n"
        chunk = f"{len(GOOD):x}\r\n{GOOD}\r\n0\r\n\r\n"
        for more, status in (("Content-Length: 4\r\n", b" 400 "), ("", b" 204 ")):
            with socket.create_connection((place.host, place.port), 20) as one:
                one.sendall(f"{request}{more}\r\n{chunk}".encode())
                assert status in one.recv(4096).splitlines()[0]
        assert door.journal.lines == 1


def test_a_token_that_brings_too_much_is_told_when_to_come_again(platform_of):
    platform = platform_of(SOURCES, receive="{lines_a_second: 10}")
    with opened(platform) as (door, url):
        assert write(url, "\n".join([GOOD] * 590)).status_code == 204
        answer = write(url, "\n".join([GOOD] * 100))
        assert answer.status_code == 429 and 1 <= int(answer.headers["Retry-After"]) <= 10
        assert door.journal.lines == 590


@pytest.fixture
def small_journal(tmp_path, request):
    """A disk of 3 MiB where the journal is."""
    folder = tmp_path / "ionbeam-state" / "door" / "journal"
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", folder], check=True))
    return folder


def test_what_is_on_a_full_disk_is_taken_in_and_its_matter_is_told_once(
    platform_of, small_journal, caplog, monkeypatch
):
    platform = platform_of(SOURCES)
    then = nanoseconds(datetime.now(UTC) - 3 * HOUR)
    lines = "\n".join(f"{GOOD} {then + 1_000 * number}" for number in range(5_000))
    with opened(platform) as (door, url):
        answers = [write(url, lines).status_code for _ in range(20)]
        assert answers == sorted(answers) and {*answers} == {204, 503} and answers.count(503) > 8
        told = [one.getMessage() for one in caplog.records if "full but for" in one.getMessage()]
        assert len(told) == 1 and "make room there: 'ionbeam-state/door/journal'" in told[0]
        door.flush.run()
        assert door.journal.closed() == [] and len(list(small_journal.glob("*.journal"))) == 1
        monkeypatch.setattr(matters, "QUIET", 0)
        assert write(url, GOOD).status_code == 204
        over = [one.getMessage() for one in caplog.records if "are taken again" in one.getMessage()]
        assert over == [f"lines and reports are taken again; it went wrong {answers.count(503)} times"]
        filled = small_journal / "filled"  # by somebody else, to the last byte
        with suppress(OSError), filled.open("wb") as file:
            while True:
                file.write(b"x" * 4_096)
        for _ in range(3):
            door.flush.run()
            assert write(url, GOOD).status_code == 503
        assert not [path for path in small_journal.glob("*.journal") if not path.stat().st_size]
        filled.unlink()
        assert write(url, GOOD).status_code == 204
        door.flush.run()
        assert door.journal.closed() == []
    assert sum(raw.rows for raw in raws_that_wait(platform)) == 5_000 + 2  # of each time one


def test_a_full_disk_is_told_and_nothing_half_is_kept(platform_of, monkeypatch):
    def no_room(descriptor):
        raise OSError(28, "No space left on device")

    platform = platform_of(SOURCES)
    with opened(platform) as (door, url):
        assert write(url, GOOD).status_code == 204
        with monkeypatch.context() as patch:
            patch.setattr("ionbeam_dagster.doors.http.journal.os.fdatasync", no_room)
            answer = write(url, GOOD)
            assert answer.status_code == 503 and answer.headers["Retry-After"]
        assert write(url, GOOD).status_code == 204
        door.flush.run()
    assert [raw.rows for raw in raws_that_wait(platform)] == [
        1,
        1,
    ]  # a file of the journal each, none with what was not taken


# --- what docs/stations.md shows --------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "stations.md").read_text()
SHOWN = re.findall(r"```yaml\n(.*?)```(?:\n\n```lines\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.mark.parametrize(("block", "lines"), SHOWN, ids=lambda text: text[:20])
def test_each_block_of_the_page_takes_its_lines_in(tmp_path, monkeypatch, block, lines):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GARDEN_TOKEN", TOKEN)
    (tmp_path / "config.yaml").write_text(block)
    platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
    if not lines:
        assert platform.sources["garden"].config.variables == ()
        return
    with opened(platform) as (door, url):
        assert write(url, lines).status_code == 204
        door.flush.run()
        assert door.memory.parked() == []
    [raw] = raws_that_wait(platform)
    assert raw.rows == 1
    ingest(platform, platform.source("garden"), platform.ledger.waiting("garden")[0])
    [claim] = platform.ledger.claims_of([raw.ingestion])
    assert (claim.rows, claim.quarantined) == (1, 0)
    described = canonical_schema([platform.metadata(platform.source("garden"))])
    assert not [p for p in check_metadata(platform.metadata(platform.source("garden"))) if p.severity == "error"]
    assert len(columns_of(described, "variable")) == block.count("standard_name")
