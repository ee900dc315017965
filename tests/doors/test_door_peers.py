"""Real clients write to the HTTP door: InfluxDB's own for Python, its CLI, the station's logger; and hostile ones."""

from __future__ import annotations

import gzip
import random
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest
from door_samples import (
    HOUR,
    SOURCES,
    TEMPERATURE,
    TOKEN,
    Receiving,
    bring_up_to_date,
    nanoseconds,
    opened,
    points,
    wait_for,
    write,
)
from influxdb_client import InfluxDBClient, Point
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from oracles import python_with

from ionbeam_client.influx import EHTInfluxDBClient
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.pipeline.build import build

THEN = window_of(datetime.now(UTC) - 3 * HOUR, HOUR).start
BUILT = Path.home() / ".cache" / "ionbeam" / "servers" / "bin"
INFLUX, TELEGRAF = BUILT / "influx", BUILT / "telegraf"


def test_the_official_client_and_the_cli_write_to_the_door(platform_of, tmp_path):
    platform = platform_of(SOURCES)
    with opened(platform) as (door, url):
        with InfluxDBClient(url=url, token=TOKEN, org="any") as client:
            assert client.ping() and client.health().status == "pass"
            api = client.write_api(write_options=SYNCHRONOUS)
            for minute in range(5):
                point = Point("weather").tag("station", "roof").field("temperature", 32 + minute)
                api.write(bucket="any", record=point.time(THEN + timedelta(minutes=minute)))
            with pytest.raises(ApiException, match="line 1"):
                api.write(bucket="any", record="weather station=roof=x")
        with InfluxDBClient(url=url, token="stolen-token", org="any") as client, pytest.raises(ApiException) as refused:
            client.write_api(write_options=SYNCHRONOUS).write(bucket="any", record="weather temperature=1")
        assert refused.value.status == 401
        written = 5
        if INFLUX.exists():
            lines = tmp_path / "lines.txt"
            lines.write_text(f"weather,station=roof temperature=41 {nanoseconds(THEN + timedelta(minutes=30))}\n")
            command = [INFLUX, "write", "--host", url, "-t", TOKEN, "-o", "any", "-b", "any", "-f", lines]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path)})
            assert done.returncode == 0, done.stderr
            written += 1
        door.flush.run()
    bring_up_to_date(platform)
    assert points(platform, window_of(THEN, HOUR)).height == written


def test_real_clients_see_why_they_are_refused_although_the_door_takes_no_byte_of_their_bodies(platform_of, tmp_path):
    """With no token, and with more than may be sent at once: lines of 12 MB, and a limit of 10."""
    lines = tmp_path / "lines.txt"
    text = "".join(f"weather,station=roof temperature=41 {nanoseconds(THEN) + second}\n" for second in range(210_000))
    lines.write_text(text)
    environment = {"HOME": str(tmp_path)}

    def ran(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        return done.stdout + done.stderr

    with opened(platform_of(SOURCES)) as (door, url):
        for token, status, told in (
            ("stolen-token", 401, "no source has this token"),
            (TOKEN, 413, "the request has more than 10000000 bytes"),
        ):
            with InfluxDBClient(url=url, token=token, org="any") as client, pytest.raises(ApiException) as refused:
                client.write_api(write_options=SYNCHRONOUS).write(bucket="any", record=text)
            assert refused.value.status == status and told in str(refused.value.body)
            assert write(url, text, token).status_code == status
            chunks = (text[begin : begin + 100_000].encode() for begin in range(0, len(text), 100_000))
            assert write(url, chunks, token).status_code == status
            for more in ([], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"], ["--http1.0"]):
                curl = "curl", "-sS", "-H", f"Authorization: Token {token}", "--data-binary", f"@{lines}", *more
                assert told in ran(*curl, f"{url}/api/v2/write")
        if INFLUX.exists():
            command = INFLUX, "write", "--host", url, "-t", "stolen-token", "-o", "any", "-b", "any", "-f", lines
            assert "401 UNAUTHORIZED" in (said := ran(*command)) and "no source has this token" in said
        assert door.journal.lines == 0


PAGE = (Path(__file__).parents[2] / "docs" / "stations.md").read_text()


def test_telegraf_writes_to_the_door_as_the_page_says(platform_of, tmp_path):
    """The real program, with the block of the page, and the source's block below it."""
    if not TELEGRAF.exists():
        pytest.skip("telegraf is not on this machine; deployments/servers/install builds it")
    output, block = re.findall(
        r"^## Telegraf\n+```toml\n(.*?)```\n+```yaml\nsources:\n(.*?)```", PAGE, re.DOTALL | re.M
    )[0]
    station = "    station: host\n    start: 2026-06-01\n    aggregation_span: PT1H\n    exports: [pygeoapi]\n"
    block = block.replace("${GARDEN_TOKEN}", TOKEN).replace("    station: host\n", station)
    platform = platform_of(block + "  scheduler: {windows: [{source_name: garden, window_size: PT1H}]}\n")
    (tmp_path / "measured").write_text(f"weather temperature=20.5,humidity=55i {nanoseconds(THEN)}\nload,cpu=a x=1\n")
    with opened(platform) as (door, url):
        config = tmp_path / "telegraf.conf"
        config.write_text(
            f'[agent]\n  hostname = "raspberry"\n{output.replace("https://door.example.org", url)}'
            f'[[inputs.file]]\n  files = ["{tmp_path}/measured"]\n  data_format = "influx"\n'
        )
        command = [TELEGRAF, "--config", config, "--once"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path), "GARDEN_TOKEN": TOKEN}
        )
        assert done.returncode == 0 and " E! " not in done.stderr, done.stderr
        door.flush.run()
        assert [(one.measurement, one.lines) for one in door.memory.parked()] == [("load", 1)]
    bring_up_to_date(platform)
    [row] = points(platform, window_of(THEN, HOUR)).to_dicts()
    assert (row["station_id"], row[TEMPERATURE]) == ("raspberry", 20.5)


HOME = """
homeassistant: {name: Roof, latitude: 52.1, longitude: 5.18, elevation: 12, unit_system: metric, time_zone: UTC}
input_number:
  temperature: {min: -50, max: 50, initial: 20.5, step: 0.1}
  humidity: {min: 0, max: 100, initial: 55, step: 1}
template:
  - sensor:
      - {name: Roof temperature, unit_of_measurement: "°C", device_class: temperature,
         state: "{{ states('input_number.temperature') }}"}
      - {name: Roof humidity, unit_of_measurement: "%", device_class: humidity,
         state: "{{ states('input_number.humidity') }}"}
      - {name: Cellar humidity, unit_of_measurement: "%", device_class: humidity, state: "{{ 99 }}"}
"""


@pytest.mark.soak
def test_home_assistant_writes_to_the_door_as_the_page_says(platform_of, tmp_path):
    """The real program, with sensors as ESPHome's devices are for it, and both blocks of the page."""
    python = python_with("homeassistant==2024.3.3", "homeassistant.core", "influxdb==5.3.1", "influxdb-client==1.24.0")
    [(output, block)] = re.findall(
        r"^```yaml-homeassistant\n(.*?)```\n+```yaml\nsources:\n(.*?)```", PAGE, re.DOTALL | re.M
    )
    block = block.replace("${GARDEN_TOKEN}", TOKEN) + "    start: 2026-06-01\n    aggregation_span: PT1H\n"
    platform = platform_of(f"{block}  scheduler: {{windows: [{{source_name: garden, window_size: PT1H}}]}}\n")
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "secrets.yaml").write_text(f"garden_token: {TOKEN}\n")
    begun = datetime.now(UTC)
    with opened(platform) as (door, _):
        here = output.replace("door.example.org", "127.0.0.1").replace("443", str(door.port)).replace("true", "false")
        (folder / "configuration.yaml").write_text(HOME + here)
        with (folder / "output").open("wb") as said:
            home = subprocess.Popen([python, "-m", "homeassistant", "-c", folder], stdout=said, stderr=said)
        try:
            wait_for(lambda: door.journal.lines >= 2 or home.poll() is not None, 900)  # at first it installs more
        finally:
            home.terminate()
            home.wait(60)
        assert door.journal.lines >= 2, (folder / "output").read_text()
        door.flush.run()
        assert door.memory.parked() == []
    bring_up_to_date(platform)
    windows = {window_of(moment, HOUR) for moment in (begun, datetime.now(UTC))}  # it may be a full hour meanwhile
    later = datetime.now(UTC) + 2 * HOUR  # when they are over
    made = [build(platform, platform.dataset("garden"), window, later).revision for window in windows]
    rows = pl.concat([pl.read_parquet(one.path) for one in made if one])
    assert set(rows["station_id"]) == {"sensor"}
    assert rows[TEMPERATURE].drop_nulls().unique().to_list() == [20.5]
    assert rows["relative_humidity__percent__2.0__point__PT0S"].drop_nulls().unique().to_list() == [55.0]


@pytest.mark.soak
def test_weewx_writes_to_the_door_as_the_page_says(platform_of, tmp_path):
    """The real program with its simulator, which begins four hours ago, and the upload service of the page."""
    python = python_with("weewx==5.5.2", "weewx")
    [(service, output, block)] = re.findall(
        r"^```python\n(import queue.*?)```\n+```ini\n(.*?)```\n+```yaml\nsources:\n(.*?)```", PAGE, re.DOTALL | re.M
    )
    block = block.replace("${GARDEN_TOKEN}", TOKEN) + "    start: 2026-06-01\n    aggregation_span: PT1H\n"
    platform = platform_of(f"{block}  scheduler: {{windows: [{{source_name: garden, window_size: PT1H}}]}}\n")
    folder = tmp_path / "weewx"
    make = [python.with_name("weectl"), "station", "create", folder, "--no-prompt", "--driver=weewx.drivers.simulator"]
    subprocess.run(make, check=True, capture_output=True, timeout=120)
    (folder / "bin" / "user" / "ionbeam.py").write_text(service)
    with opened(platform) as (door, url):
        here = output.replace("https://door.example.org", url).replace("...", TOKEN)
        wanted = (folder / "weewx.conf").read_text().replace("[StdRESTful]\n", here, 1)
        begun = f"start = {(THEN - HOUR).astimezone():%Y-%m-%dT%H:%M}"
        wanted = wanted.replace("    mode = simulator", f"    mode = generator\n    {begun}")
        wanted = wanted.replace("record_generation = hardware", "record_generation = software")
        wanted = re.sub(r"(?m)^( *restful_services = ).*$", r"\1user.ionbeam.Ionbeam", wanted)
        wanted = re.sub(r"(?m)^( *report_services = ).*$", r"\1", wanted)
        (folder / "weewx.conf").write_text(wanted)
        with (folder / "output").open("wb") as said:
            command = [python.with_name("weewxd"), folder / "weewx.conf"]
            weewx = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            wait_for(lambda: door.journal.lines >= 24 or weewx.poll() is not None, 120)
        finally:
            weewx.terminate()
            weewx.wait(60)
        assert door.journal.lines >= 24, (folder / "output").read_text()
        door.flush.run()
        assert door.memory.parked() == []
    bring_up_to_date(platform)
    rows = points(platform, window_of(THEN, HOUR))
    assert len(rows) == 12 and set(rows["station_id"]) == {"roof"}  # a record every five minutes
    assert rows[TEMPERATURE].is_between(-40, 50).all()
    assert rows["air_pressure__hPa__0.0__point__PT0S"].is_between(900, 1_100).all()


INI = """[eht_influx]
url = {url}
org = any
bucket = weather_test
token = {token}
url2 = {door}
org2 = any
bucket2 = weather_test
token2 = {token}
jsonlogfile = {folder}/log.jsonl
"""


def test_a_stations_logger_has_the_door_as_its_second_server(platform_of, tmp_path):
    platform = platform_of(SOURCES)
    with opened(platform) as (door, url):
        ini = tmp_path / "influx_config.ini"
        # The first server is away: the door is not held up by that.
        ini.write_text(INI.format(url="http://127.0.0.1:9", door=url, token=TOKEN, folder=tmp_path))
        client = EHTInfluxDBClient.from_config_file(ini)
        api = client.write_api()
        times = [THEN + timedelta(minutes=i) for i in range(10)]
        api.write(record=[{"measurement": "weather", "tags": {"station": "roof"}, "fields": {"temperature": 32.0 + i},
                           "time": time} for i, time in enumerate(times)])  # fmt: skip
        wait_for(lambda: door.journal.lines >= 10, 30)
        api.close()
        client.close()
        door.flush.run()
    bring_up_to_date(platform)
    assert points(platform, window_of(THEN, HOUR)).height == 10


def test_a_hundred_clients_at_once_lose_nothing(platform_of):
    platform = platform_of(SOURCES)

    def write_some(client):
        with httpx.Client(headers={"Authorization": f"Token {TOKEN}"}, timeout=60) as http:
            for batch in range(3):
                first = nanoseconds(THEN) + (client * 3 + batch) * 10**9
                lines = [f"weather,station=roof temperature={client} {first + i * 10**6}" for i in range(5)]
                assert http.post(f"{url}/api/v2/write", content="\n".join(lines)).status_code == 204

    with opened(platform) as (door, url):
        with ThreadPoolExecutor(100) as pool:
            list(pool.map(write_some, range(100)))
        door.flush.run()
    bring_up_to_date(platform)
    assert points(platform, window_of(THEN, HOUR)).height == 1_500


@pytest.mark.parametrize("bodies", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_hostile_bodies_are_answered_and_block_nobody(platform_of, bodies):
    random.seed(5)
    good = b'weather,station=roof,model=a\\ b temperature=50.5,pressure=1013i,note="x" 1780000000000000000\n'
    signs = b' ,="\\\n\r\t\0#' + bytes([0xFF, 0xC0, 0x80]) + "é\u2028\ue000".encode() + b"0123456789eEiu+-.tTfF"
    platform = platform_of(SOURCES, receive="{most_bytes: 100000, most_unpacked_bytes: 200000}")

    def hostile():
        body = bytearray(good * random.choice([1, 1, 2, 200]))
        for _ in range(random.choice([1, 2, 5])):
            at = random.randrange(len(body) + 1)
            cut = random.choice([0, 0, 1, 3, len(body)])
            body[at : at + cut] = bytes(random.choices(signs, k=random.choice([0, 1, 2, 20])))
        return bytes(body)

    with opened(platform) as (door, url):
        from werkzeug.test import Client

        client = Client(door.application)  # the server is not what is tried here
        statuses = set()
        for place in range(bodies):
            body = hostile()
            headers = {"Authorization": f"Token {TOKEN}"}
            if place % 10 == 0:
                body, headers["Content-Encoding"] = gzip.compress(body)[: random.choice([None, -1, 12])], "gzip"
            answer = client.post("/api/v2/write", data=body, headers=headers)
            statuses.add(answer.status_code)
            assert answer.status_code in (204, 400), (answer.status_code, body[:300])
            assert answer.status_code == 204 or answer.get_json()["message"]
        assert statuses == {204, 400}
        marker = f"weather,station=roof temperature=77 {nanoseconds(THEN)}"
        assert write(url, marker).status_code == 204
        door.flush.run()
        assert door.journal.closed() == []
    bring_up_to_date(platform)
    assert points(platform, window_of(THEN, HOUR))[TEMPERATURE].to_list() == [pytest.approx(25.0)]


def test_receive_takes_in_builds_and_exports_by_itself(platform_of, tmp_path, monkeypatch):
    monkeypatch.setenv("GARDEN_TOKEN", TOKEN)
    platform_of(SOURCES.replace(TOKEN, '"${GARDEN_TOKEN}"'), automation="{interval: 5}")
    with Receiving(tmp_path) as door:
        line = f"weather,station=roof temperature=50 {nanoseconds(THEN)}"
        assert write(door.url, "\n".join([line] * 50_000)).status_code == 204  # so many are taken in at once
        wait_for(lambda: any(tmp_path.rglob(f"pygeoapi/**/*{THEN:%Y%m%dT%H}*.parquet")), 100)
    [file] = [path for path in tmp_path.rglob("*.parquet") if "pygeoapi" in path.parts]
    assert pl.read_parquet(file, columns=[TEMPERATURE])[TEMPERATURE].to_list() == [pytest.approx(10.0)]
    assert TOKEN not in door.log()
