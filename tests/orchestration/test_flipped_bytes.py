"""One byte of a file is another one, its length is the same: every kind is found, named, kept and made again."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from told import HOUR, QUARTER, START
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.cycles import export_cycle
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]
TOLD = "  told: {type: told, start: 2026-06-21, end: 2026-06-21T05:00, exports: [odb, pygeoapi, odb_cycle]}"
HOURS = list(windows_between(START, START + 5 * HOUR, HOUR))
LAST = HOURS[4]
"""Its cycle is not that of the first ones, whose file is damaged, too."""


@pytest.fixture
def platform(platform_with):
    """A platform on which all is made."""
    platform = platform_with(TOLD, automation="{lookback: P400D}")
    dataset, exporters = platform.dataset("told"), platform.config.window_exporters
    for quarter in windows_between(START, HOURS[-1].end, QUARTER):
        collect(platform, platform.source("told"), quarter, platform.now())
        ingest(platform, platform.source("told"), quarter)
    for hour in HOURS:
        build(platform, dataset, hour, platform.now())
        for format in dataset.exports:
            export(platform, dataset, exporters[format], hour)
    for cycle in (cycle_of(START), cycle_of(LAST.start)):
        export_cycle(platform, dataset, platform.config.cycle_exporters["odb_cycle"], cycle, platform.now())
    return platform


@pytest.fixture
def flipped(platform) -> dict[str, bytes]:
    """What files held, of each kind one, in which a byte is another one since."""
    ledger = platform.ledger

    def export_of(window: Window, format: str) -> str:
        return ledger.export("told", window, format).path

    raw = ledger.raws("told", START + HOUR)[0].path
    dataset, map = ledger.latest_revision("told", LAST).path, export_of(HOURS[2], "pygeoapi")
    odb, cycle = export_of(HOURS[1], "odb"), export_of(cycle_of(START), "odb_cycle")
    whole = {path: Path(path).read_bytes() for path in (raw, dataset, map, odb, cycle)}
    for path, content in whole.items():
        at = _in_a_data_page(path) if path.endswith(".parquet") else len(content) * 3 // 4
        Path(path).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        _written_long_ago(path)
    return whole


def _in_a_data_page(path: str) -> int:
    """The place of a byte in the middle of a column's values."""
    column = pq.read_metadata(path).row_group(0).column(0)
    return column.data_page_offset + column.total_compressed_size - 3


def _written_long_ago(path: str) -> None:
    before = Path(path).stat().st_mtime - timedelta(hours=1).total_seconds()
    os.utime(path, (before, before))


def _all_are_whole_again(flipped: dict[str, bytes]) -> None:
    for path, content in flipped.items():
        assert Path(path).read_bytes() == content, path
        assert Path(f"{path}.damaged").stat().st_size == len(content)


def test_doctor_finds_each_and_the_command_that_it_names_makes_it_again(flipped):
    def ran(*command: str) -> str:
        done = CliRunner().invoke(app, ["--config", "config.yaml", *command])
        assert not done.exception or isinstance(done.exception, SystemExit), done.output
        return done.output

    found = [one for one in json.loads(ran("doctor", "--files", "--json")) if one["subject"] == "files"]
    faults = [one for one in found if one["severity"] == "warning"]
    for path in flipped:
        [one] = [one for one in faults if f"kept as {path}.damaged" in one["words"]]
        assert "does not hold what was written: the disk, or somebody, changed it" in one["words"]
        command = re.search(r"`ionbeam (.+)` does it now", one["remedy"])[1]
        ran(*command.split())
    assert len(faults) == len(flipped)
    _all_are_whole_again(flipped)


def test_the_sensor_finds_each_and_the_worker_makes_it_again(platform, flipped, instance, capfd):
    sensor = build_definitions(WatchedPlatform(platform)).resolve_sensor_def("reconciliation")
    sensor(dg.build_sensor_context(instance=instance))
    logged = capfd.readouterr().err
    for path in flipped:
        assert f"does not hold what was written: the disk, or somebody, changed it (kept as {path}.damaged)" in logged
    worker = Doing(platform, instance)
    worker.source("told")
    worker.dataset("told")
    _all_are_whole_again(flipped)


def test_the_file_of_a_cycle_that_is_cut_off_is_made_again(platform, instance):
    path = platform.ledger.export("told", cycle_of(START), "odb_cycle").path
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[:-10])
    sensor = build_definitions(WatchedPlatform(platform)).resolve_sensor_def("reconciliation")
    sensor(dg.build_sensor_context(instance=instance))
    Doing(platform, instance).dataset("told")
    assert Path(path).read_bytes() == whole


def test_the_file_of_a_cycle_stays_where_what_it_was_made_of_is_lost_too(platform, instance, capfd):
    path = platform.ledger.export("told", cycle_of(START), "odb_cycle").path
    for each in (path, platform.ledger.latest_revision("told", HOURS[1]).path):
        content = Path(each).read_bytes()
        Path(each).write_bytes(content[:-6] + b"??????")
        _written_long_ago(each)
    sensor = build_definitions(WatchedPlatform(platform)).resolve_sensor_def("reconciliation")
    sensor(dg.build_sensor_context(instance=instance))
    logged = capfd.readouterr().err
    assert f"{path}: its export does not hold what was written" in logged and Path(path).exists()
    assert "`ionbeam rebuild told --force --from 2026-06-20T21:00Z --to 2026-06-21T03:00Z` makes both" in logged
