"""Folders that cannot be written: each step says which, what stood there is untouched, and the next run goes on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.errors import StoreError

platform = open_platform(IonbeamConfig.load(Path("config.yaml")))
morning = datetime(2026, 6, 21, 6, tzinfo=UTC)
hour, later = Window(morning, morning + timedelta(hours=1)), morning + timedelta(days=3)
source, dataset = platform.source("ioncannon"), platform.dataset("ioncannon")
odb = platform.config.window_exporters["odb"]
steps = [
    ("data-raw", lambda: collect(platform, source, hour, later)),
    ("state/segments", lambda: ingest(platform, source, hour)),
    ("data", lambda: build(platform, dataset, hour, later)),
    ("data-projections", lambda: export(platform, dataset, odb, hour)),
]
for folder, step in steps:
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder).chmod(0o555)
    try:
        step()
    except (PipelineError, StoreError) as error:
        print(folder, "|", error)
    Path(folder).chmod(0o755)
    step()
print(platform.ledger.export("ioncannon", hour, "odb").facts.stations)
"""
NETWORK = """
state_path: state
sources:
  scheduler: {windows: [{source_name: ioncannon, window_size: PT1H}]}
  ioncannon: {num_stations: 3, start: 2026-06-21, aggregation_span: PT1H}
"""


def test_a_folder_that_is_read_only_is_named_and_the_next_try_goes_on(tmp_path):
    program = [sys.executable, "-c", PROGRAM]
    if os.geteuid() == 0:  # who may write anywhere
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not on this machine: root cannot be kept from writing")
        program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *program]
    (tmp_path / "config.yaml").write_text(NETWORK)
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *told, stations = done.stdout.splitlines()
    assert [line.split(" | ")[0] for line in told] == ["data-raw", "state/segments", "data", "data-projections"]
    for line in told:
        folder, reason = line.split(" | ")
        assert folder in reason and "ermission" in reason and "materialise" in reason, line
    assert stations == "3" and not list(Path(tmp_path).rglob(".*parquet*"))
