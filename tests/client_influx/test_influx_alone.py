"""The client installed by itself, as a station has it: what comes along, and its first program."""

from __future__ import annotations

import subprocess
import sys

import pytest
from influx_faults import ALIAS, ROOT

# The AMQP client's own, which stand in the same distribution, and what this client needs beside them.
NEEDED = {"httpx", "httpcore", "h11", "certifi", "anyio", "idna", "orjson", "ionbeam-client", "eht-influx-client"}


@pytest.mark.soak
def test_the_client_alone_logs_and_its_command_is_there(tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, f"{ROOT / 'ionbeam_client'}[influx]", ALIAS], check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    assert {line.split("==")[0].lower() for line in listed.stdout.split()} >= NEEDED
    assert not {"polars", "pandas", "numpy"} & {line.split("==")[0] for line in listed.stdout.split()}
    command = venv / "bin" / "eht-influx-client"
    printed = subprocess.run([command, "print-config"], check=True, capture_output=True, text=True).stdout
    (tmp_path / "influx_config.ini").write_text(printed.replace("https://influx.example.org", "http://127.0.0.1:9"))
    program = """if True:
        from eht_influx_client import EHTInfluxDBClient
        from eht_influx_client.times import to_rfc3339
        keywords = {"close_timeout": 0.1, "url": "http://127.0.0.1:10"}
        with EHTInfluxDBClient.from_config_file("influx_config.ini", **keywords) as client:
            client.write_api().write(record={"measurement": "m", "fields": {"f": 1.5}, "time": to_rfc3339(1)})
    """
    subprocess.run([python, "-c", program], check=True, cwd=tmp_path)
    assert (
        tmp_path / "influx_log.jsonl"
    ).read_text() == '{"timestamp":1,"measurement":"m","tags":{},"fields":{"f":1.5}}\n'
    status = subprocess.run([command, "status"], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert f"delivered 0 rows, refused 0, {(tmp_path / 'influx_log.jsonl').stat().st_size} bytes wait" in status
