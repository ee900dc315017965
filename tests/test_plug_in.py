"""A third party's package with a source and an exporter of its own: it passes the shipped suites, and runs."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import blocks, entry_points, install

from ionbeam_dagster.testing.service import Reply, Service

PYTEST = ("pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis")
SOURCE, EXPORTER = "writing-a-source.md", "writing-an-exporter.md"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a process that has the package of both pages installed beside the platform."""
    source, exporter = blocks(SOURCE), blocks(EXPORTER)
    modules = {"weather_of_mine": source["python"][0], "csv_of_mine": exporter["python"][0]}
    points = entry_points(source["toml"][0]) | entry_points(exporter["toml"][0])
    site = install(tmp_path_factory.mktemp("plug-in"), "weather_plug_in", modules, points)
    return os.environ | {"PYTHONPATH": str(site), "WEATHER_PASSWORD": "pa55word"}


class Town(Service):
    """The town's stations, each with a value at seven and at half past."""

    def answer(self, request):
        if request.path == "/stations":
            return Reply.of_json([{"id": number, "lat": 60.0 + number, "lon": 10.0} for number in range(3)])
        return Reply.of_json([{"t": request.query["from"], "temp": 18.2, "rh": 61}])


def ran(folder: Path, environment: dict[str, str], *command: str) -> str:
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", [SOURCE, EXPORTER])
def test_it_passes_the_suite_of_its_page(environment, tmp_path, page):
    (tmp_path / "test_own.py").write_text(blocks(page)["python"][1])
    told = ran(tmp_path, environment, *PYTEST, "test_own.py")
    assert int(re.search(r"(\d+) passed", told)[1]) > 15 and "skipped" not in told


@pytest.mark.parametrize(
    ("page", "right", "wrong", "told"),
    [
        (SOURCE, 'cf_unit="degC"', 'cf_unit="kg"', "test_its_names_and_units_are_those_of_cf"),
        (SOURCE, "in self._client.side_by_side(stations, work)", "in ()", "test_a_failure_is_never_an_empty_window"),
        (
            EXPORTER,
            "rows.sink_csv(draft,",
            "draft.with_name('x').touch(); rows.sink_csv(draft,",
            "nothing_else_is_left",
        ),
    ],
)
def test_what_breaks_a_rule_fails_the_suite(tmp_path, page, right, wrong, told):
    [module] = entry_points(blocks(page)["toml"][0]).values()
    own, suite = blocks(page)["python"]
    broken = own.replace(right, wrong)
    assert broken != own
    site = install(tmp_path, "broken", {next(iter(module)): broken}, entry_points(blocks(page)["toml"][0]))
    (tmp_path / "test_own.py").write_text(suite)
    command = [Path(sys.executable).with_name(PYTEST[0]), *PYTEST[1:], "test_own.py", "-k", told]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True)
    assert done.returncode == 1 and b"1 failed" in done.stdout, done.stdout.decode()


def test_it_runs(environment, tmp_path):
    with Town() as town:
        config = yaml.safe_load(blocks(SOURCE)["yaml"][0]) | {"state_path": "state"}
        config["projections"] = yaml.safe_load(blocks(EXPORTER)["yaml"][0])["projections"]
        config["sources"]["weather_of_mine"] |= {"base_url": town.url, "exports": ["csv_of_mine"]}
        (tmp_path / "ionbeam.yaml").write_text(yaml.safe_dump(config))
        command = ["ionbeam", "--config", "ionbeam.yaml", "run", "weather_of_mine"]
        ran(tmp_path, environment, *command, "--from", "2026-06-21T07:00Z", "--to", "2026-06-21T08:00Z")
    [path] = (tmp_path / "spreadsheets").rglob("*.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert path.name == "weather_of_mine_20260621T070000_PT1H.csv"
    assert {row["station_id"] for row in rows} == {"town-0", "town-1", "town-2"} and len(rows) == 6
