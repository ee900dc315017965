"""The example of docs/writing-an-exporter.md as a third party's package: installed beside the platform, used by it."""

import copy
import csv
import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from pages import blocks, entry_points, install

from ionbeam_dagster.cli.status import status_table
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import ConfigError, ExportError
from ionbeam_dagster.exporters import installed_exporters
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.cycles import export_cycle
from ionbeam_dagster.pipeline.export import export, is_of_another_exporter
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.show import contents

START = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOUR = Window(START, START + timedelta(hours=1))
LATER = START + timedelta(days=1)
CYCLES = """

from ionbeam_dagster.exporters import CycleExporter


class Whole(CycleExporter):
    format, title, extension, version = "whole_cycles", "a line a cycle", "txt", "1"

    def plan(self, schema):
        return ExportPlan({})

    @classmethod
    def describe(cls, path):
        return None

    def export(self, dataset_files, draft, about):
        draft.write_text(f"{about['dataset']} {about['analysis']} {len(dataset_files)}")
        return ExportReport(rows=len(dataset_files), stations=1, plan=ExportPlan({}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page's Python and TOML, installed by pip into a folder of their own."""
    page = blocks("writing-an-exporter.md")
    points = entry_points(page["toml"][0])
    points["ionbeam.exporters"] |= {"whole_cycles": "csv_of_mine:Whole", "broken": "absent_package:Exporter"}
    modules = {"csv_of_mine": page["python"][0] + CYCLES}
    return install(tmp_path_factory.mktemp("package"), "csv_of_mine", modules, points)


@pytest.fixture
def package(site, monkeypatch):
    """The page's package beside the platform; gives the page's YAML."""
    monkeypatch.syspath_prepend(site)
    yield yaml.safe_load(blocks("writing-an-exporter.md")["yaml"][0])
    sys.modules.pop("csv_of_mine", None)


@pytest.fixture
def written(package, tmp_path, monkeypatch):
    """Write the page's YAML, changed."""
    monkeypatch.chdir(tmp_path)

    def write(exports=("csv_of_mine",), span="PT1H", **section):
        config = copy.deepcopy(package) | {"state_path": "state"}
        config["sources"]["ioncannon"] |= {"start": START, "aggregation_span": span, "exports": list(exports)}
        config["sources"]["scheduler"] = {"windows": [{"source_name": "ioncannon", "window_size": "PT1H"}]}
        config["projections"]["csv_of_mine_service"] |= section
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


def platform_at(path):
    """The platform of a YAML, with one built hour of the synthetic network."""
    platform = open_platform(IonbeamConfig.load(path))
    collect(platform, platform.source("ioncannon"), HOUR, LATER)
    ingest(platform, platform.source("ioncannon"), HOUR)
    build(platform, platform.dataset("ioncannon"), HOUR, LATER, insist=True)
    return platform


def test_a_format_of_a_third_party_is_found_configured_written_and_told(written):
    assert {"csv_of_mine", "odb"} <= installed_exporters().keys()
    platform = platform_at(written())
    made = export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["csv_of_mine"], HOUR)
    assert made.path == "spreadsheets/csv_of_mine/ioncannon/ioncannon_20260621T060000_PT1H.csv"
    with Path(made.path).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    dataset = pl.read_parquet(platform.ledger.latest_revision("ioncannon", HOUR).path)
    assert len(rows) == dataset.height == made.report.rows
    assert [float(row["lat"]) for row in rows] == dataset["lat"].to_list()
    assert platform.ledger.export("ioncannon", HOUR, "csv_of_mine").path == made.path
    told = contents(Path(made.path))
    assert told.kind == "CSV export" and told.columns["values"].max() == dataset.height

    definitions = build_definitions(WatchedPlatform(platform))
    asset = definitions.resolve_asset_graph().get(dg.AssetKey(["ioncannon", "csv_of_mine"]))
    assert "CSV, for spreadsheets" in asset.description and {"csv"} <= asset.kinds
    assert asset.code_version == platform.config.exporters["csv_of_mine"].fingerprint


def test_an_exporters_own_checks_are_those_of_its_asset(written, monkeypatch):
    platform = platform_at(written())
    definitions = build_definitions(WatchedPlatform(platform))
    check = dg.AssetCheckKey(dg.AssetKey(["ioncannon", "csv_of_mine"]), "fits")
    for most, passed in ((1_048_575, True), (3, False)):
        monkeypatch.setattr(sys.modules["csv_of_mine"], "MOST_ROWS", most)
        with dg.DagsterInstance.ephemeral() as instance:
            job = definitions.resolve_implicit_global_asset_job_def()
            tags = partition_tags(HOUR.key, HOUR.key)
            assert job.execute_in_process(asset_selection=[check.asset_key], tags=tags, instance=instance).success
            [record] = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        told = record.event.dagster_event.asset_check_evaluation_data
        assert told.passed is passed and (passed or "a spreadsheet shows 3" in told.description)


def test_a_file_that_does_not_read_back_leaves_its_predecessor(written, monkeypatch):
    platform = platform_at(written())
    path = Path(
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["csv_of_mine"], HOUR).path
    )
    before = path.read_bytes()
    monkeypatch.setattr(pl.LazyFrame, "sink_csv", lambda rows, draft, separator: draft.write_text("lat\n1\n"))
    with pytest.raises(ExportError, match=r"ioncannon_20260621T060000_PT1H.csv: was not .* csv reads 1 rows, but"):
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["csv_of_mine"], HOUR)
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_cycle_of_a_third_party_is_made_of_its_windows(written):
    platform = platform_at(written(["whole_cycles"]))
    cycle = Window(START.replace(hour=3), START.replace(hour=9))
    made = export_cycle(
        platform, platform.dataset("ioncannon"), platform.config.cycle_exporters["whole_cycles"], cycle, LATER
    ).made
    assert made.path == "data-projections/whole_cycles/ioncannon/ioncannon_20260621T030000_PT6H.txt"
    assert Path(made.path).read_text() == "ioncannon 2026-06-21T06:00:00+00:00 1"


@pytest.mark.parametrize(
    ("exports", "section", "told"),
    [
        (None, {"separator": ";;"}, "projections.csv_of_mine_service.separator: "),
        (
            None,
            {"delimiter": ";"},
            "delimiter: this key is not known; known are input_path, most_days",
        ),
        (
            None,
            {"input_path": "elsewhere"},
            "input_path: elsewhere is not where datasets are written",
        ),
        (["broken"], {}, r"sources.ioncannon.exports: absent_package:Exporter cannot be imported"),
        (["whole_cycles"], {"span": "P2D"}, "exports has whole_cycles, but aggregation_span P2D does not divide"),
        (None, {"span": "P2D"}, "most_days: windows of 'ioncannon' are longer than 1 days"),
    ],
)
def test_what_does_not_fit_is_told_when_the_yaml_is_read(written, exports, section, told, caplog):
    path = written(*([exports] if exports else []), **section)
    with caplog.at_level(logging.ERROR), pytest.raises(ConfigError, match=told):
        IonbeamConfig.load(path)


def test_an_exporter_that_cannot_be_imported_harms_nobody_who_does_not_use_it(written):
    path = Path(written())
    given = yaml.safe_load(path.read_text())
    given["projections"]["broken_service"] = {"its_own_key": 7}
    path.write_text(yaml.safe_dump(given))
    assert "csv_of_mine" in IonbeamConfig.load(path).exporters


def test_the_fingerprint_follows_the_version_and_the_settings_that_files_depend_on(written):
    def exporter(**section):
        return IonbeamConfig.load(written(**section)).exporters["csv_of_mine"]

    first = exporter()
    assert exporter(output_path="elsewhere").fingerprint == first.fingerprint
    assert exporter(separator="|").fingerprint != exporter(separator=";").fingerprint == first.fingerprint
    newer = type("Newer", (type(first),), {"version": "2"})(first.settings)
    assert newer.fingerprint != first.fingerprint


def test_what_another_version_made_is_told_until_it_is_made_again(written):
    platform = platform_at(written())
    exporter = platform.config.exporters["csv_of_mine"]
    export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["csv_of_mine"], HOUR)
    assert platform.ledger.export("ioncannon", HOUR, "csv_of_mine").made_by == exporter.fingerprint
    assert "other version" not in _status(platform)
    type(exporter).version = "2"
    assert is_of_another_exporter(platform, "ioncannon", "csv_of_mine", HOUR) and "other version" in _status(platform)
    export(platform, platform.dataset("ioncannon"), platform.config.window_exporters["csv_of_mine"], HOUR)
    assert "other version" not in _status(platform)


def _status(platform):
    table = status_table(platform, platform.dataset("ioncannon"), [HOUR])
    return " ".join(cell for column in table.columns for cell in column._cells)
