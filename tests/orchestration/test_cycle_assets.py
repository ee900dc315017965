"""ODB files of analysis cycles, through automation on a real instance, read back by decoders that are not ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import codc
import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decoders import check_odb
from test_automation import Automated, fine
from told import HOUR, key, window
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.cycles import cycle_of, windows_in
from ionbeam_dagster.exporters.odb.reading import odc_command
from ionbeam_dagster.orchestration.partitions import cycle_partitions
from ionbeam_dagster.orchestration.runs import rebuild_range, run_range
from ionbeam_dagster.pipeline.agenda import to_export_cycle
from ionbeam_dagster.pipeline.cycles import export_cycle

pytestmark = [pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")]

CYCLES = "  told: {start: 2026-06-21T00:00:00Z, exports: [odb_cycle]}"
FORMAT = "odb_cycle"
MORNING = cycle_of(window("06:00").start)
ASKED = {"told/odb_cycle": [key("03:00")]}


class OnTheClock(Automated):
    @property
    def cycle(self):
        return self.platform.ledger.export("told", MORNING, FORMAT)

    def dataset_files(self):
        windows = windows_in(MORNING, HOUR, MORNING.start, None)
        latest = [self.platform.ledger.latest_revision("told", each) for each in windows]
        return [one.path for one in latest if one]

    def in_time(self) -> bool:
        """The latest result of that check of the cycle."""
        check = dg.AssetCheckKey(dg.AssetKey(["told", "odb_cycle"]), "in_time")
        record = self.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)[0]
        told = record.event.dagster_event.asset_check_evaluation_data
        assert told.partition == key("03:00")
        return told.passed


@pytest.fixture
def automated(no_pictures, platform_with, instance):
    return OnTheClock(platform_with(CYCLES, automation="{lookback: PT6H}"), instance)


def told_by_odc(path):
    select = "select count(*), min(time), max(time), min(antime), max(antime), min(andate), max(andate)"
    command = [odc_command(), "sql", "-T", "--no_alignment", "-delimiter", ",", "-i", path, select]
    return [int(float(cell)) for cell in subprocess.run(command, capture_output=True, text=True).stdout.split(",")]


def properties(path):
    return codc.Reader(path).frames[0].properties


def test_a_cycle_is_made_when_its_windows_are_and_again_when_one_is_built_anew_in_time(automated):
    automated.on("09:02")
    assert automated.on("09:03")["told/dataset"][-1] == key("08:00") and automated.cycle is None
    assert automated.on("09:04") == ASKED
    assert automated.on("09:05") == {}
    path = automated.cycle.path
    assert path == automated.platform.export_path("told", FORMAT, MORNING)
    assert told_by_odc(path) == [48, 30000, 84500, 0, 60000, 20260621, 20260621]
    first = properties(path)
    assert (first["revision"], first["lacking"], first["analysis"]) == ("1", "none", "2026-06-21T06:00:00+00:00")
    assert first["windows"].startswith("20260621T030000_PT1H r1, 20260621T040000_PT1H r1")
    assert (automated.cycle.facts.rows, automated.cycle.facts.stations) == (48, 2)
    assert automated.in_time()

    automated.platform.sources["told"].warmer = {key("05:15"): 3.0}
    automated.perform(fine([key("05:15")]), by_hand=True)
    assert automated.on("09:30")["told/dataset"] == [key("05:00")]
    assert automated.on("09:31") == ASKED
    assert automated.on("09:32") == {}
    second = properties(path)
    assert second["revision"] == "2" and "20260621T050000_PT1H r2" in second["windows"]
    values = codc.read_odb(path, columns=["obsvalue@body"], single=True)["obsvalue@body"]
    assert max(values) == pytest.approx(273.15 + 13.0)


def test_after_the_cut_off_a_cycle_goes_without_a_window_which_is_told_when_it_comes(automated):
    source = automated.platform.sources["told"]
    source.failing = {key("08:45")}
    automated.on("09:02")
    automated.on("09:03")
    automated.on("09:04")
    assert len(automated.dataset_files()) == 5 and automated.cycle is None
    assert "told/odb_cycle" not in automated.tick("09:59")
    assert automated.on("10:00")["told/odb_cycle"] == [key("03:00")]
    assert automated.cycle.number == 1 and automated.in_time()
    before = Path(automated.cycle.path).read_bytes()
    assert properties(automated.cycle.path)["lacking"] == "20260621T080000_PT1H"

    source.failing = set()
    automated.perform(fine([key("08:45")]), by_hand=True)
    assert key("08:00") in automated.on("10:16")["told/dataset"]
    assert not automated.in_time()
    assert "told/odb_cycle" not in automated.tick("10:17")
    assert "told/odb_cycle" not in automated.tick("12:00")
    # a person who makes it again gets the same file
    again = export_cycle(
        automated.platform,
        automated.platform.dataset("told"),
        automated.platform.config.cycle_exporters[FORMAT],
        MORNING,
        automated.platform.now(),
    )
    assert Path(again.made.path).read_bytes() == before and again.made.number == 1
    assert list(again.outlook.late) == [window("08:00", HOUR)]


def test_a_backfill_makes_the_cycles_of_its_range_and_a_rebuild_makes_them_again(platform_with, instance, tmp_path):
    platform = platform_with(CYCLES)
    done = run_range(platform, "told", window("01:00").start, window("09:00").start, instance)
    made = [result for result in done if result.asset == "told/odb_cycle"]
    assert [result.window.key for result in made] == ["20260620T210000", key("03:00")]
    assert not any(result.failure for result in done)
    path = platform.ledger.export("told", MORNING, FORMAT).path
    windows = windows_in(MORNING, HOUR, MORNING.start, None)
    files = [pq.read_table(platform.ledger.latest_revision("told", each).path) for each in windows]
    pq.write_table(pa.concat_tables(files), tmp_path / "all.parquet")
    assert check_odb(tmp_path / "all.parquet", path) == 48 and properties(path)["lacking"] == "none"
    page = instance.get_latest_materialization_event(dg.AssetKey(["told", "odb_cycle"])).asset_materialization
    assert page.metadata["windows in it"].value == 6 and page.metadata["windows late"].value == 0
    assert page.metadata["picture"].value.startswith("![")
    rebuilt = rebuild_range(platform, "told", window("05:00").start, window("06:00").start, instance, force=True)
    assert [r.asset for r in rebuilt] == ["told/dataset", "told/odb_cycle"]
    assert platform.ledger.export("told", MORNING, FORMAT).number == 2
    Path(path).unlink()
    rebuild_range(platform, "told", window("05:00").start, window("06:00").start, instance)
    assert properties(path)["revision"] == "2", "a file that was lost is the same again"


@pytest.mark.usefixtures("no_pictures")
def test_a_cycle_without_a_value_has_no_file_and_status_tells_of_each(platform_with, instance, tmp_path, monkeypatch):
    platform = platform_with(CYCLES)
    platform.sources["told"].empty = {key(f"{hour:02}:{minute:02}") for hour in range(3) for minute in (0, 15, 30, 45)}
    done = run_range(platform, "told", window("00:00").start, window("05:00").start, instance)
    assert not any(result.failure for result in done)
    night = platform.ledger.export("told", cycle_of(window("00:00").start), FORMAT)
    assert (night.path, night.facts.rows, len(night.facts.holds)) == (None, 0, 3)
    assert not run_range(platform, "told", window("00:00").start, window("05:00").start, instance), "nothing is left"
    monkeypatch.setenv("IONBEAM_CONFIG_PATH", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["status", "told"]).output
    assert (
        "analysis cycles (odb_cycle)" in shown
        and "made of all 3 windows" in shown
        and "made of 2 of 6 windows" in shown
    )


def test_partitions_are_the_cycles(platform_with):
    partitions = cycle_partitions(platform_with(CYCLES).dataset("told"))
    keys = partitions.get_partition_keys(current_time=window("21:30").start)
    assert keys == ["20260620T210000", key("03:00"), key("09:00"), key("15:00")]


def test_a_lost_cycle_file_comes_back_after_a_revision_that_it_held_was_purged(automated):
    platform = automated.platform
    automated.on("09:02")
    automated.on("09:03")
    automated.on("09:04")
    platform.sources["told"].warmer = {key("05:15"): 3.0}
    automated.perform(fine([key("05:15")]), by_hand=True)
    automated.on("10:16")  # after the cut-off: revision 2 is late
    assert [one.revision.number for one in platform.ledger.revisions_of("told", window("05:00", HOUR))] == [1, 2]
    for old in platform.ledger.superseded("told", platform.now()):
        platform.files.delete(old.path)
        platform.ledger.forget_revision(old.revision)
    assert to_export_cycle(platform, "told/odb_cycle", MORNING, platform.now()) is None
    Path(automated.cycle.path).unlink()
    work = to_export_cycle(platform, "told/odb_cycle", MORNING, platform.now())
    assert "1 of them in a later revision than its file held, as the earlier one is gone" in work.reason
    again = export_cycle(
        platform, platform.dataset("told"), platform.config.cycle_exporters[FORMAT], MORNING, platform.now()
    )
    assert again.made.number == 2 and "20260621T050000_PT1H r2" in properties(again.made.path)["windows"]
    assert to_export_cycle(platform, "told/odb_cycle", MORNING, platform.now()) is None
