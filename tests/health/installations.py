"""An installation that has worked for an hour, to be broken, and what `ionbeam doctor` says of it.

Belongs here: what several tests of health share. Does not belong here: any test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import CONFIG_VARIABLE, IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.recovery import open_platform

NETWORK = """
state_path: state
automation: {enabled: false}
sources:
  scheduler: {windows: [{source_name: ioncannon, window_size: PT15M}]}
  ioncannon: {num_stations: 12, start: 2026-06-21, aggregation_span: PT1H, exports: [odb]}
"""
START = datetime(2026, 6, 21, 6, tzinfo=UTC)
AN_HOUR = Window(START, START + timedelta(hours=1))
LONG_AGO = ((START + timedelta(days=1)).timestamp(),) * 2


@pytest.fixture(scope="session")
def a_day_at_work(tmp_path_factory) -> Path:
    """A folder in which an hour was collected, built and exported some time ago."""
    folder = tmp_path_factory.mktemp("well")
    (folder / "network.yaml").write_text(NETWORK)
    given = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T07:00Z"]
    with pytest.MonkeyPatch.context() as patched, chdir(folder):
        patched.setenv("DAGSTER_HOME", str(folder / "dagster"))
        patched.setattr("ionbeam_dagster.orchestration.metadata.import_module", lambda name: None)
        done = CliRunner().invoke(app, ["--config", "network.yaml", "run", "ioncannon", *given])
    assert done.exit_code == 0, done.output
    for path in [*folder.rglob("*.parquet"), *folder.rglob("*.odb")]:
        os.utime(path, LONG_AGO)
    return folder


@pytest.fixture
def installation(a_day_at_work, tmp_path, monkeypatch) -> Path:
    """The same, to be broken."""
    shutil.copytree(a_day_at_work, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv(CONFIG_VARIABLE, "network.yaml")
    return tmp_path


def doctor(*options: str) -> tuple[int, list[dict[str, str]]]:
    done = CliRunner().invoke(app, ["doctor", "--json", *options])
    return done.exit_code, json.loads(done.stdout)


def wrong(*options: str) -> tuple[int, str]:
    """The exit status, and what is wrong with its remedies."""
    status, found = doctor(*options)
    bad = [one for one in found if one["severity"] in ("warning", "error")]
    assert all(one["remedy"] for one in bad), bad
    return status, "\n".join(f"{one['subject']}: {one['words']} -> {one['remedy']}" for one in bad)


def yaml_with(text: str, **replaced: str) -> None:
    yaml = NETWORK
    for old, new in replaced.items():
        yaml = yaml.replace(f"{old}:", f"{new}:")
    Path("network.yaml").write_text(yaml + text)


def platform():
    return open_platform(IonbeamConfig.load(Path("network.yaml")))


def mounted(folder: Path, options: str) -> None:
    """Mount a small disk at a folder, which is made; skips where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("no small disk can be mounted here (root alone may)")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 50 MB with 500 inodes."""
    folder = tmp_path / "small"
    mounted(folder, "size=50m,nr_inodes=500")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
