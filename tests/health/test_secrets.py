"""Secrets are nowhere but in the environment: not in logs, runs, metadata, process lists or the archive for support."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from servers import free_port

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.config.secrets import secrets_of, struck_out
from ionbeam_dagster.health import logs

IONBEAM = str(Path(sys.executable).with_name("ionbeam"))
NAMES = (
    "BROKER", "REDIS", "INFLUX", "S3_KEY", "S3_SECRET", "WEBHOOK", "MAIL", "DOOR", "NETATMO", "MQTT", "ACRONET",
    "ACRONET_CLIENT", "ARCHFX", "RESTREAM", "METEOTRACKER",
)  # fmt: skip
PLANTED = {f"{name}_SECRET": f"pl@nted-{name.lower()}/{number:03d}" for number, name in enumerate(NAMES)}


def network(port: int) -> str:
    """Every setting that holds a secret, and nobody who answers."""
    given = {name.removesuffix("_SECRET"): f"${{{name}}}" for name in PLANTED}
    escaped = {name: f"${{{name}_SECRET_IN_URL}}" for name in ("BROKER", "REDIS")}
    http = f"http://127.0.0.1:{port}"
    account = {"username": "somebody"}
    return yaml.safe_dump(
        {
            "state_path": "state",
            "broker": {"url": f"amqp://ionbeam:{escaped['BROKER']}@127.0.0.1:{port}/"},
            "s3": {"endpoint": http, "access_key": given["S3_KEY"], "secret_key": given["S3_SECRET"]},
            "quarantine_path": "s3://away/quarantine",
            "alerts": {
                "after": "PT0S",
                "webhook": f"{http}/{given['WEBHOOK']}",
                "email": {
                    "server": "127.0.0.1", "port": port, "starttls": False, "user": "u", "password": given["MAIL"],
                    "sender": "a@example.org", "to": ["b@example.org"],
                },
            },
            "sources": {
                "garden": {"kind": "door", "token": given["DOOR"]},
                "netatmo": {"base_url": http, **account, "password": given["NETATMO"], "max_retries": 0},
                "netatmo_mqtt": {"host": "127.0.0.1", "port": port, **account, "password": given["MQTT"]},
                "acronet": {
                    "base_url": http, "token_endpoint": f"{http}/login", "max_retries": 0, **account,
                    "password": given["ACRONET"], "client_secret": given["ACRONET_CLIENT"],
                },
                "meteotracker": {"base_url": http, **account, "password": given["METEOTRACKER"], "max_retries": 0},
                "archfx": {
                    "base_url": http, "email": "somebody", "password": given["ARCHFX"], "max_retries": 0,
                    "latitude": 52, "longitude": 5,
                    "variables": [{"variable": "0000-5001", "standard_name": "air_temperature", "cf_unit": "degC"}],
                },
                "restream": {
                    "base_url": http, "token": given["RESTREAM"], "sites": [1], "max_retries": 0,
                    "variables": [{"field": "t", "standard_name": "air_temperature", "cf_unit": "degC"}],
                },
            },
        }
    )  # fmt: skip


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A folder with a platform that has a secret in every setting; gives where none of them may be found."""
    for name, secret in PLANTED.items():
        monkeypatch.setenv(name, secret)
    for name in ("BROKER", "REDIS"):
        monkeypatch.setenv(f"{name}_SECRET_IN_URL", quote(PLANTED[f"{name}_SECRET"], safe=""))
    monkeypatch.setenv("IONBEAM_CONFIG_PATH", "network.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.chdir(tmp_path)
    port = free_port()
    Path("network.yaml").write_text(network(port))
    redis = {"redis_url": f"redis://:${{REDIS_SECRET_IN_URL}}@127.0.0.1:{port}/0"}
    influx = {"influxdb_org": "o", "influxdb_url": f"http://127.0.0.1:{port}", "influxdb_bucket": "b"}
    influx["influxdb_token"] = "${INFLUX_SECRET}"
    servers = yaml.safe_load(network(port)) | {"redis": redis, "influxdb_common": influx}
    Path("redis.yaml").write_text(yaml.safe_dump(servers))
    return tmp_path


def forms_of(secret: str) -> set[bytes]:
    """A secret as it may stand somewhere: as it is, in an address, in JSON, in the header of a password."""
    texts = {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1]}
    headers = {base64.b64encode(f"{user}:{secret}".encode()) for user in ("somebody", "u", "ionbeam")}
    return {text.encode() for text in texts} | headers


def assert_without_secrets(what: str, held: bytes) -> None:
    for name, secret in PLANTED.items():
        for form in forms_of(secret):
            assert form not in held, (
                f"{name} is in {what}: {held[max(held.find(form) - 200, 0) : held.find(form) + 80]!r}"
            )


@pytest.mark.soak
def test_no_secret_is_written_anywhere(planted):
    given = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T06:10Z"]
    said = b""
    pulled = ("netatmo", "acronet", "meteotracker", "netatmo_mqtt", "archfx", "restream")
    for command in (
        ["config", "check"], *(["run", name, *given] for name in pulled), ["status"], ["source", "check", "netatmo"],
        ["doctor", "--bundle", "support.zip"], ["doctor", "--json"],
    ):  # fmt: skip
        done = subprocess.run([IONBEAM, *command], capture_output=True, timeout=120)
        said += done.stdout + done.stderr
    assert b"Traceback" not in said, said[said.find(b"Traceback") :][:3000].decode()
    for command in (["status"], ["doctor"]):
        done = subprocess.run([IONBEAM, "--config", "redis.yaml", *command], capture_output=True, timeout=120)
        said += done.stdout + done.stderr
    assert b"Redis at 127.0.0.1" in said
    environment = os.environ | {"IONBEAM_LOG": "json", "IONBEAM_LOG_LEVEL": "debug"}
    with subprocess.Popen(
        [IONBEAM, "worker", "--port", str(free_port())], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    ) as worker:  # fmt: skip
        time.sleep(15)
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True).stdout
        worker.terminate()
        logged = worker.communicate(timeout=60)[0]
    assert_without_secrets("what was said", said)
    assert_without_secrets("the list of processes", listed)
    assert_without_secrets("the worker's log", logged)
    lines = logged.decode().splitlines()
    assert lines and all({"time", "level", "logger", "message"} <= json.loads(line).keys() for line in lines)
    written = [path for path in planted.rglob("*") if path.is_file() and path.name != "support.zip"]
    assert any("runs" in path.parts or "storage" in path.parts for path in written)
    for path in written:
        assert_without_secrets(str(path), path.read_bytes())
    assert Path("support.zip").stat().st_mode & 0o077 == 0
    with zipfile.ZipFile("support.zip") as archive:
        names = set(archive.namelist())
        assert names >= {"findings.json", "versions.txt", "configuration.yaml", "status.txt", "gaps.txt", "README.txt"}
        assert "netatmo" in archive.read("failed-runs.txt").decode()
        kept = yaml.safe_load(archive.read("configuration.yaml"))
        assert kept["sources"]["netatmo"] == kept["sources"]["netatmo"] | {"username": "somebody", "password": "*" * 10}
        for name in names:
            assert_without_secrets(name, archive.read(name))


def test_a_configuration_that_cannot_be_used_makes_an_archive_without_it(planted):
    text = Path("network.yaml").read_text().replace("client_secret:", "client_secrt:").replace("username:", "usr:")
    Path("network.yaml").write_text(text)
    done = subprocess.run([IONBEAM, "doctor", "--bundle", "support.zip"], capture_output=True)
    assert done.returncode == 2 and b"client_secrt" in done.stdout
    assert_without_secrets("what was said", done.stdout + done.stderr)
    with zipfile.ZipFile("support.zip") as archive:
        assert set(archive.namelist()) == {"README.txt", "findings.json", "versions.txt"}
        for name in archive.namelist():
            assert_without_secrets(name, archive.read(name))


def test_every_secret_of_a_configuration_is_known(planted):
    found = secrets_of(IonbeamConfig.load(Path("redis.yaml")))
    lacking = PLANTED.keys() - {"WEBHOOK_SECRET"}
    assert {PLANTED[name] for name in lacking} <= set(found)
    assert any(PLANTED["WEBHOOK_SECRET"] in one for one in found)
    assert struck_out("see amqp://somebody:else@host/", ()) == "see amqp://somebody:**********@host/"


@pytest.fixture
def logged(planted, monkeypatch, capsys):
    """What the root logger, set up anew, writes of a message."""

    def write(form: str, level: str = "") -> str:
        monkeypatch.setenv(logs.FORM, form)
        monkeypatch.setenv(logs.LEVEL, level)
        root = logging.getLogger()
        before, level_before, root.handlers = root.handlers, root.level, []
        ours = logging.getLogger("ionbeam_dagster.tests")
        try:
            logs.log_to_stderr(IonbeamConfig.load(Path("network.yaml")))
            ours.debug("a detail")
            ours.info("two\nlines of %s", "garden")
            try:
                raise ValueError(f"refused: {PLANTED['DOOR_SECRET']}")
            except ValueError:
                ours.exception("it failed")
        finally:
            root.handlers = before
            root.setLevel(level_before)
            for name in ("ionbeam_dagster", "ionbeam_client"):
                logging.getLogger(name).setLevel(logging.NOTSET)
        return capsys.readouterr().err

    return write


def test_logs_are_lines_of_json_where_that_is_asked_for(logged):
    told = [json.loads(line) for line in logged("json").splitlines()]
    assert [(one["level"], one["message"]) for one in told] == [
        ("info", "two\nlines of garden"),
        ("error", "it failed"),
    ]
    assert told[1]["error"].endswith(f"ValueError: refused: {'*' * 10}") and told[0]["time"].endswith("+00:00")


def test_logs_are_text_a_line_a_matter_from_the_level_that_a_person_sets(logged):
    told = logged("").splitlines()
    assert told[0].endswith("INFO two\\nlines of garden") and told[-1] == f"ValueError: refused: {'*' * 10}"
    assert "DEBUG a detail" in logged("text", "debug")
    assert "INFO" not in logged("text", "error")


def test_a_form_of_logs_that_is_none_is_a_sentence(planted):
    environment = os.environ | {"IONBEAM_LOG": "xml"}
    done = subprocess.run([IONBEAM, "worker"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("ionbeam: IONBEAM_LOG='xml' is none of text, json")
