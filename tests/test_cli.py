"""The command line as a person uses it: a small network run twice, looked at, and told off."""

import runpy
import shutil
import sys
import time
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ionbeam_dagster.cli import app, processes
from ionbeam_dagster.cli.terminal import of_the_disk
from ionbeam_dagster.config import CONFIG_VARIABLE, IonbeamConfig
from ionbeam_dagster.errors import UnknownFile
from ionbeam_dagster.exporters import installed_exporters
from ionbeam_dagster.pipeline.show import contents

NETWORK = """
state_path: state
sources:
  scheduler: {windows: [{source_name: ioncannon, window_size: PT15M}]}
  ioncannon: {num_stations: 12, start: 2026-06-21, aggregation_span: PT1H}
"""
RANGE = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T07:00Z"]
PART = ["--from", "2026-06-21T06:20Z", "--to", "2026-06-21T06:40Z"]


@pytest.fixture
def ionbeam(tmp_path, monkeypatch, no_pictures):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv(CONFIG_VARIABLE, "")
    Path("network.yaml").write_text(NETWORK)

    def run(*arguments: str, config: str = "network.yaml"):
        return CliRunner().invoke(app, ["--config", config, *arguments])

    return run


@pytest.fixture(scope="module")
def an_hour(tmp_path_factory) -> Path:
    """A folder in which RANGE was run."""
    folder = tmp_path_factory.mktemp("an_hour")
    (folder / "network.yaml").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patched, chdir(folder):
        patched.setenv("DAGSTER_HOME", str(folder / "dagster"))
        patched.setattr("ionbeam_dagster.orchestration.metadata.import_module", lambda name: None)
        done = CliRunner().invoke(app, ["--config", "network.yaml", "run", "ioncannon", *RANGE])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def ionbeam_after_an_hour(an_hour, tmp_path, ionbeam):
    shutil.copytree(an_hour, tmp_path, dirs_exist_ok=True)
    return ionbeam


def test_a_range_is_run_once_shown_and_not_made_again(ionbeam):
    first = ionbeam("run", "ioncannon", *RANGE)
    assert first.exit_code == 0, first.output
    assert "2026-06-21 06:00-07:00" in first.output and "144" in first.output
    (odb,) = Path("data-projections/odb").rglob("*.odb")
    (geoparquet,) = Path("data-projections/pygeoapi").rglob("*.parquet")
    (dataset,) = Path("data").rglob("*.parquet")
    assert "the Dagster UI on these windows" in first.output and "make demo" not in first.output
    assert Path("ioncannon.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.stat().st_mtime_ns for path in (odb, geoparquet, dataset)}

    second = ionbeam("run", "ioncannon", *RANGE)
    assert second.exit_code == 0 and "Nothing to do" in second.output
    assert {path: path.stat().st_mtime_ns for path in before} == before

    shown = ionbeam("status").output
    assert "built" in shown and "odb, pygeoapi" in shown

    assert "air_temperature" in ionbeam("export", "show", str(dataset)).output
    assert "varno 39" in ionbeam("export", "show", str(odb)).output
    assert "GeoParquet export" in ionbeam("export", "show", str(geoparquet)).output
    raw = next(Path("data-raw").rglob("*.parquet"))
    assert "raw partition" in ionbeam("export", "show", str(raw)).output


def test_a_gap_is_shown_with_the_command_that_fills_it_and_is_filled_by_it(ionbeam_after_an_hour):
    ionbeam = ionbeam_after_an_hour
    ionbeam("run", "ioncannon", "--from", "2026-06-21T08:00Z", "--to", "2026-06-21T08:30Z")
    shown = ionbeam("gaps").output
    assert "06:00 .. 2026-06-21 08:30: 60.0% collected, 1 gap" in shown and "█" in shown and "·" in shown
    assert "--from 2026-06-21T07:00Z --to 2026-06-21T08:00Z" in " ".join(shown.replace("│", " ").split())
    decade = ionbeam("gaps", "ioncannon", "--from", "2016-01-01", "--to", "2126-01-01").output
    assert "% collected, 3 gaps" in decade
    told = ionbeam("status", "--from", "2016-01-01", "--to", "2126-01-01").output
    assert "windows, until" in told and len(told.splitlines()) < 60
    filled = ionbeam("reingest", "ioncannon", "--from", "2026-06-21T07:00Z", "--to", "2026-06-21T08:00Z")
    assert filled.exit_code == 0, filled.output
    assert "100% collected, no gap" in ionbeam("gaps").output


def test_a_sealed_window_stays_until_it_is_forced_or_opened_again(ionbeam_after_an_hour, monkeypatch):
    ionbeam = ionbeam_after_an_hour
    monkeypatch.setattr("ionbeam_dagster.stores.timeseries.segments.CROWD", 4)
    assert "1 window sealed" in ionbeam("seal", "ioncannon", *PART).output
    assert "sealed by a person on" in " ".join(ionbeam("status").output.replace("│", " ").split())
    assert ionbeam("rebuild", "ioncannon", *RANGE).exit_code == 0
    assert len(list(Path("data").rglob("*_r*.parquet"))) == 1
    forced = ionbeam("rebuild", "ioncannon", *RANGE, "--force")
    assert forced.exit_code == 0, forced.output
    assert [path.name[-11:] for path in sorted(Path("data").rglob("*_r*.parquet"))] == ["_r1.parquet", "_r2.parquet"]
    assert "small segments of ioncannon" in ionbeam("purge").output
    assert "Nothing may go" in ionbeam("purge", "--dry-run").output
    Path("network.yaml").write_text(NETWORK + "dataset_aggregator: {delete_after_export: true}\n")
    assert "raw partitions of ioncannon" in ionbeam("purge", "--dry-run").output
    assert ionbeam("sweep").exit_code == 0 and not list(Path("data-raw").rglob("*.parquet"))
    assert "1 window opened again" in ionbeam("unseal", "ioncannon", *PART).output
    assert "0 windows opened again" in ionbeam("unseal", "ioncannon", *RANGE).output


def test_late_data_of_a_sealed_window_is_told_also_when_the_window_is_not_shown(ionbeam):
    half = ["--from", "2026-06-21T06:00Z", "--to", "2026-06-21T06:30Z"]
    ionbeam("run", "ioncannon", *half)
    ionbeam("run", "ioncannon", "--from", "2026-06-21T07:00Z", "--to", "2026-06-21T08:00Z")
    ionbeam("seal", "ioncannon", *RANGE)
    assert "late data" not in ionbeam("status", "--last", "1").output, "nothing came late yet"
    ionbeam("run", "ioncannon", *RANGE)
    told = " ".join(ionbeam("status", "--last", "1").output.split())
    assert "ioncannon: 1 sealed window has late data, before those shown; the oldest is 2026-06-21 06:00" in told
    assert "see `ionbeam status ioncannon --from 2026-06-21T06:00Z`" in told
    assert "late data" not in ionbeam("status").output, "the table tells it"
    [file] = Path().rglob("ioncannon_20260621T060000_PT1H_r1.parquet")
    file.write_bytes(file.read_bytes()[:-300] + bytes(296) + b"PAR1")
    told = " ".join(ionbeam("rebuild", "ioncannon", *RANGE).output.split())
    assert "does not hold what was written" in told and "`ionbeam rebuild ioncannon --force" in told, told
    assert file.exists(), "it is what its readers have"


def test_a_ledger_that_was_deleted_is_made_again_and_that_is_said(ionbeam_after_an_hour):
    ionbeam = ionbeam_after_an_hour
    assert "lacks nothing" in ionbeam("ledger", "rebuild").output
    for path in Path("state").glob("ledger.sqlite*"):
        path.unlink()
    shown = ionbeam("status").output
    assert "built" in shown and "ledger: made again on" in shown and "1 revisions" in shown.replace("\n", " ")
    assert "lacks nothing" in ionbeam("ledger", "rebuild").output


def test_what_was_found_lost_is_told_until_it_is_made_again(ionbeam_after_an_hour):
    ionbeam = ionbeam_after_an_hour
    (odb,) = Path("data-projections/odb").rglob("*.odb")
    odb.unlink()
    looks = [" ".join(ionbeam("status", "--check-files").output.split()) for _ in range(2)]
    assert "files: 1 windows are to be made again (0 of them since an earlier look), 0 are for a person" in looks[0]
    assert "files: 1 windows are to be made again (1 of them since an earlier look), 0 are for a person" in looks[1]
    assert all("ioncannon/odb 2026-06-21 06:00-07:00" in told for told in looks)
    ionbeam("rebuild", "ioncannon", *RANGE)
    assert "files: 0 windows are to be made again, 0 are for" in ionbeam("status", "--check-files").output


def test_config_check_says_where_variables_go_and_why_some_do_not(ionbeam):
    told = ionbeam("config", "check")
    assert told.exit_code == 0, told.output
    assert "odb varno 39" in told.output


def test_an_exporter_that_cannot_be_imported_is_told_by_config_check_and_not_by_commands_that_do_without(
    ionbeam, monkeypatch, caplog
):
    broken = EntryPoint("absent", "absent_package:Exporter", "ionbeam.exporters")
    exporters = {**installed_exporters(), "absent": broken}
    monkeypatch.setattr("ionbeam_dagster.config.exporting.installed_exporters", lambda: exporters)
    assert "absent" not in ionbeam("status").output + caplog.text
    told = " ".join(ionbeam("config", "check").output.split())
    assert "note: the exporter absent cannot be used: absent_package:Exporter cannot be imported" in told


@pytest.mark.parametrize(
    ("variable", "told", "code"),
    [
        ("cf_unit: degC, method: mean", "warning", 0),
        ("cf_unit: furlong", "cannot be in 'furlong'; CF has it in 'K'", 1),
        ("cf_unit: degC, unit: hPa", "its values are in 'hPa', which cannot become 'degC'", 1),
    ],
)
def test_config_check_tells_what_is_wrong_with_a_variable(ionbeam, variable, told, code):
    Path("day.csv").write_text("time,lat,lon,T\n2026-06-21T06:00Z,52,5,20\n")
    Path("faulty.yaml").write_text(
        "sources:\n  day: {type: files, path: day.csv, time: time, start: 2026-06-21, "
        f"variables: [{{column: T, standard_name: air_temperature, level: 2.0, {variable}}}]}}\n"
    )
    result = ionbeam("config", "check", config="faulty.yaml")
    assert told in result.output and result.exit_code == code, result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "ioncannon"], "say which range with --from and --to"),
        (["run", "ioncannon", "--from", "yesterday"], "--from 'yesterday' is not an ISO 8601 time"),
        (["run", "nobody", *RANGE], "has no source 'nobody'; it has ioncannon"),
        (["run", "ioncannon", "--from", "2026-06-22", "--to", "2026-06-21"], "must be later than"),
        (["status", "--from", "2026-06-22", "--to", "2026-06-21"], "must be later than"),
        (["gaps", "--from", "2026-06-22", "--to", "2026-06-21"], "must be later than"),
        (["quarantine", "list", "--from", "2026-06-22", "--to", "2026-06-21"], "must be later than"),
        (["source", "accept", "ioncannon"], "is a source of type ioncannon, which the platform asks itself"),
        (["rebuild", "ioncannon", *RANGE], "nothing of ioncannon was collected in this range"),
        (["reingest", "nobody", *RANGE], "has no source 'nobody'; it has ioncannon"),
        (["seal", "nothing", *RANGE], "has no dataset 'nothing'; it has ioncannon"),
        (["gaps", "nobody"], "has no dataset 'nobody'"),
        (["export", "show", "network.yaml"], "no file of the platform; known are Parquet"),
        (["export", "show", "absent.odb"], "No such file"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(ionbeam, arguments, told):
    result = ionbeam(*arguments)
    assert result.exit_code == 1 and told in result.stderr
    assert "Traceback" not in result.output


def test_a_source_that_cannot_be_read_does_not_keep_the_others_from_being_run(ionbeam):
    Path("day.csv").write_text("never,lat,lon,T\n")
    day = (
        "day: {type: files, path: day.csv, time: time, start: 2026-06-21, end: 2026-06-22, settle: PT0S, variables: [{"
    )
    day += "column: T, standard_name: air_temperature, cf_unit: degC, level: 2.0}]}"
    bounded = NETWORK.replace("start: 2026-06-21,", "start: 2026-06-21, end: 2026-06-21T00:30Z,")
    Path("two.yaml").write_text(bounded.replace("  ioncannon:", f"  {day}\n  ioncannon:"))
    result = ionbeam("run", config="two.yaml")
    assert result.exit_code == 1 and "day: day.csv: line 1 has no column 'time'" in result.stderr
    assert result.stderr.splitlines()[-1] == "ionbeam: not run: day; the reasons stand above"
    assert "no end of its own" not in result.output and "ioncannon, windows of PT1H" in result.output, result.output
    result = ionbeam("run", "day", config="two.yaml")
    assert result.exit_code == 1 and "day: day.csv: line 1 has no column 'time'" in result.stderr


def test_a_faulty_configuration_is_told_with_its_key(ionbeam):
    Path("faulty.yaml").write_text("ioncannon: {num_statoins: 3}\n")
    result = ionbeam("status", config="faulty.yaml")
    assert result.exit_code == 1 and "ioncannon.num_statoins: this key is not known" in result.stderr


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--from", "2126-06-21T06:00Z", "--to", "2126-06-21T07:00Z"], "has not begun yet; `ionbeam dev` collects it"),
        (
            ["--from", "1926-06-21T06:00Z", "--to", "1926-06-21T07:00Z"],
            "ends before the start of ioncannon, 2026-06-21",
        ),
        (["--from", "2026-07-21T06:00Z", "--to", "2026-07-21T07:00Z"], "begins after the end of ioncannon, 2026-07-01"),
    ],
)
def test_a_range_that_has_no_windows_is_told_as_such(ionbeam, asked, told):
    if "after the end" in told:
        Path("network.yaml").write_text(NETWORK.replace("start: 2026-06-21,", "start: 2026-06-21, end: 2026-07-01,"))
    for command, code in (("run", 0), ("reingest", 0), ("gaps", 0), ("status", 0), ("rebuild", 1)):
        result = ionbeam(command, "ioncannon", *asked)
        said = " ".join(result.output.replace("ionbeam: ", "").split())
        assert result.exit_code == code and told in said, (command, said)
        assert "Nothing to do" not in said and "coverage" not in said, (command, said)


def test_a_range_whose_first_window_is_still_open_is_told_as_such(ionbeam):
    now = datetime.now(UTC)
    asked = ["--from", f"{now:%Y-%m-%dT%H:%M}Z", "--to", f"{now + timedelta(days=1):%Y-%m-%dT%H:%M}Z"]
    assert "no window of this range has ended yet; the first one does" in " ".join(
        ionbeam("run", *asked).output.split()
    )


@pytest.mark.parametrize("command", [["status"], ["gaps"], ["seal", "ioncannon", *RANGE], ["ledger", "rebuild"]])
def test_an_error_of_the_platform_is_a_message_whichever_command_meets_it(ionbeam, command):
    Path("network.yaml").write_text(NETWORK + "redis: {redis_url: redis://127.0.0.1:9/0}\n")
    result = ionbeam(*command)
    assert result.exit_code == 1 and "127.0.0.1:9" in result.stderr
    assert "Traceback" not in result.output and all(line.startswith("ionbeam: ") for line in result.stderr.splitlines())


def test_observations_outside_of_start_and_end_are_told_by_config_check(ionbeam):
    Path("day[1].csv").write_text("time,lat,lon,T [degC]\n2024-03-01T22:30Z,52,5,20\n2026-06-22T01:00Z,52,5,20\n")
    Path("early.yaml").write_text(
        "sources:\n  day: {type: files, path: 'day[[]1].csv', time: time, start: 2026-06-21, end: 2026-06-22, "
        "settle: PT0S, variables: [{column: 'T [degC]', standard_name: air_temperature, cf_unit: degC, level: 2.0}]}\n"
    )
    checked = ionbeam("config", "check", config="early.yaml")
    told = " ".join(checked.output.split())
    assert checked.exit_code == 0 and "T [degC]" in told, "a name that looks like markup is text"
    assert "has observations from 2024-03-01 22:30 on, and those before its start 2026-06-21 00:00 are left out" in told
    assert "those after its end 2026-06-22 00:00 are left out; a later sources.day.end takes them" in told


def test_a_process_that_stays_says_that_its_configuration_was_changed(ionbeam, caplog):
    path, before = Path("network.yaml"), NETWORK
    stop = processes.watch(IonbeamConfig.load(path), every=0.05)

    def told_after(text):
        caplog.clear()
        path.write_text(text)
        deadline = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.02)
        return caplog.text

    try:
        assert "goes on with what it read before: start it again" in told_after(before.replace("12", "13"))
        assert "cannot be used" in told_after(before + "\nnonsense: 1\n")
        caplog.clear()
        path.write_text(before + "# a comment\n")
        time.sleep(0.5)
        assert caplog.text == ""
    finally:
        stop.set()


def test_a_configuration_that_is_not_there_is_named_with_both_ways_to_name_one(ionbeam):
    result = ionbeam("status", config="nope.yaml")
    assert result.exit_code == 1 and "nope.yaml: cannot be read" in result.stderr
    assert "name your YAML with --config, or in IONBEAM_CONFIG_PATH" in result.stderr


@pytest.mark.parametrize("command", ["run", "rebuild", "reingest"])
def test_another_span_than_what_is_there_is_refused_before_anything_is_done(ionbeam_after_an_hour, command):
    Path("network.yaml").write_text(NETWORK.replace("PT1H", "PT30M"))
    result = ionbeam_after_an_hour(command, "ioncannon", *RANGE)
    assert result.exit_code == 1 and "says aggregation_span PT30M" in result.stderr
    assert "Next:" not in result.output and "windows of" not in result.stdout


def test_a_window_without_its_files_is_a_sentence_of_rebuild(ionbeam_after_an_hour):
    for folder in ("data", "data-raw", "state/segments"):
        for path in Path(folder).rglob("*.parquet"):
            path.unlink()
    result = ionbeam_after_an_hour("rebuild", "ioncannon", *RANGE)
    told = " ".join(result.output.split())
    assert result.exit_code == 1 and "materialise ioncannon/raw" in told and "dataset file is gone" in told
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("damaged", [lambda whole: b"", lambda whole: whole[:40] + bytes(200) + whole[240:]])
def test_a_dataset_file_that_cannot_be_drawn_is_a_sentence(ionbeam_after_an_hour, damaged):
    (dataset,) = Path("data").rglob("*.parquet")
    dataset.write_bytes(damaged(dataset.read_bytes()))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ionbeam_dagster.orchestration.runs.run_range", lambda *_: [])
        result = ionbeam_after_an_hour("run", "ioncannon", *RANGE)
    assert "no map was drawn" in " ".join(result.output.split()), result.output


def test_a_damaged_file_is_a_sentence_whatever_it_is(ionbeam_after_an_hour, tmp_path):
    for kind in ("data-raw", "data", "data-projections/odb", "data-projections/pygeoapi"):
        path = next(one for one in Path(kind).rglob("*.*") if one.is_file())
        whole, hurt, told = path.read_bytes(), tmp_path / f"hurt{path.suffix}", 0
        cut = [b"", whole[:4], whole[: len(whole) // 2], whole[:-4] + b"????"]
        places = range(0, len(whole), len(whole) // 15)
        for content in (*cut, *(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in places)):
            hurt.write_bytes(content)
            try:
                contents(hurt)
            except UnknownFile as error:
                told += "ionbeam doctor --files" in str(error)
        assert told > 2, kind
        hurt.write_bytes(whole[: len(whole) // 2])
        said = ionbeam_after_an_hour("export", "show", str(hurt))
        assert said.exit_code == 1 and "`ionbeam doctor --files` names" in " ".join(said.output.split())
    assert "doctor" not in ionbeam_after_an_hour("export", "show", "nowhere.odb").output


def test_who_looks_at_a_dataset_file_that_cannot_be_read_is_told_so(ionbeam_after_an_hour):
    (dataset,) = Path("data").rglob("*.parquet")
    dataset.write_bytes(dataset.read_bytes()[:-4] + b"????")
    looks = {"status": 0, "qc tests": 1, "qc explain SYNTH_0001 2026-06-21T06:35Z": 1}
    for command, status in looks.items():
        result = ionbeam_after_an_hour(*command.split())
        told = " ".join(result.output.split())
        assert result.exit_code == status and f"{dataset} cannot be read" in told, (command, told, result.exception)
        assert "`ionbeam rebuild ioncannon --from 2026-06-21T06:00Z --to 2026-06-21T07:00Z` makes it again" in told
    assert ionbeam_after_an_hour("rebuild", "ioncannon", *RANGE).exit_code == 0
    assert "cannot be read" not in ionbeam_after_an_hour("status").output


def test_status_tells_of_raw_files_of_which_the_ledger_knows_no_rows(ionbeam_after_an_hour):
    ionbeam = ionbeam_after_an_hour
    elsewhere = ionbeam("status", "--from", "2026-06-22", "--to", "2026-06-23").output
    assert "nothing was collected yet" not in elsewhere
    raws = Path("data-raw").rename("kept")
    for path in [*Path("state").glob("ledger.sqlite*"), *Path("state/segments").rglob("*"), *Path("data").rglob("*")]:
        if path.is_file():
            path.unlink()
    assert "nothing was collected yet" in ionbeam("status").output
    raws.rename("data-raw")
    told = " ".join(ionbeam("status").output.split())
    assert "there are 4 raw files (data-raw/ioncannon)" in told and "`ionbeam ledger rebuild`" in told
    ionbeam("ledger", "rebuild")
    assert ionbeam("run", "ioncannon", *RANGE).exit_code == 0 and "built" in ionbeam("status").output


def test_serve_names_files_that_cannot_be_read(ionbeam_after_an_hour, monkeypatch):
    (exported,) = Path("data-projections/pygeoapi").rglob("*.parquet")
    exported.write_bytes(b"damaged")
    monkeypatch.setattr("ionbeam_dagster.edr.server.serve", lambda *_: None)
    told = " ".join(ionbeam_after_an_hour("serve").output.split())
    assert "0 windows" in told and f"ioncannon: 1 file cannot be read, not served: {exported.name}" in told


def test_a_full_disk_is_a_sentence_whoever_meets_it(tmp_path):
    """Dagster's storage meets it first, and hides it in an error of its own."""
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{tmp_path}/runs.db")
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError) as full:
        connection.execute(sa.text("PRAGMA max_page_count = 1"))
        connection.execute(sa.text("CREATE TABLE runs (id)"))
    assert "make room" in of_the_disk(full.value)
    with pytest.raises(OSError) as none_left, Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")
    assert of_the_disk(none_left.value) == "a file: No space left on device; make room, and try again"
    assert of_the_disk(sa.exc.OperationalError("SELECT x", {}, ValueError("no such column"))) is None
    assert of_the_disk(FileNotFoundError(2, "no such file")) is None


@pytest.mark.parametrize("command", ["dev", "serve", "receive", "worker"])
def test_a_port_that_cannot_be_is_refused(command):
    result = CliRunner().invoke(app, [command, "--port", "99999"])
    assert result.exit_code == 2 and "65535" in result.output


def test_the_platform_is_started_as_a_module(monkeypatch):
    called = []
    monkeypatch.setattr("ionbeam_dagster.cli.app", lambda given, prog_name: called.append((prog_name, given)))
    for arguments in ([], ["config", "check"]):
        monkeypatch.setattr(sys, "argv", ["ionbeam", *arguments])
        runpy.run_module("ionbeam", run_name="__main__")
    assert called == [("ionbeam", ["dev"]), ("ionbeam", ["config", "check"])]
