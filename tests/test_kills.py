"""Processes that are killed at every write: no half file, no lost claim, revisions without holes, the same bytes."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed.py")


def kill(folder: Path, first: int, step: int, sections: str = "", seconds: int = 120) -> tuple[int, str]:
    """Kill before write `first`, and every `step` after it; the number of writes, and what is wrong."""
    command = [sys.executable, str(PROGRAM), str(folder), str(first), str(step), sections]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    *wrong, writes = done.stdout.splitlines()
    return int(writes.removeprefix("writes: ")), "\n".join(wrong)


def test_the_next_run_mends_what_a_kill_left(tmp_path):
    writes, wrong = kill(tmp_path, first=9, step=61)
    assert writes > 100 and wrong == ""


@pytest.mark.soak
def test_the_next_run_mends_what_a_kill_left_at_every_write(tmp_path):
    _, wrong = kill(tmp_path, first=1, step=1, seconds=3600)
    assert wrong == ""


@pytest.mark.soak
def test_the_next_run_mends_what_a_kill_left_on_redis_and_influxdb(tmp_path, redis, influxdb):
    sections = (
        f"redis: {{redis_url: '{redis.url}'}}\n"
        f"influxdb_common: {{influxdb_url: '{influxdb.url}', influxdb_org: {influxdb.org}, "
        f"influxdb_bucket: NAME, influxdb_token: {influxdb.token}}}\n"
    )
    writes, wrong = kill(tmp_path, first=1, step=5, sections=sections, seconds=3600)
    assert writes > 100 and wrong == ""
