"""Ours beside `restreamsolutions` 0.1.0 from PyPI: the same requests for every program, and the same files."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ALIAS, SPECIFICATION, programs
from restream_service import TOKEN, RestreamService

RUNNER = Path(__file__).with_name("run_program.py")
PEER = "restreamsolutions==0.1.0"
PROGRAMS = programs()

pytestmark = pytest.mark.soak  # it builds an environment


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """The Python of an environment that has the other package."""
    place = tmp_path_factory.mktemp("peer")
    python = place / "bin" / "python"
    if uv := shutil.which("uv"):
        make, install = [uv, "venv", "--quiet", "--python", sys.executable, place], [uv, "pip", "install", "-p", python]
    else:
        make, install = [sys.executable, "-m", "venv", place], [python, "-m", "pip", "install"]
    subprocess.run(make, check=True)
    done = subprocess.run([*install, "--quiet", PEER], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{PEER} cannot be had: {done.stderr.strip()[-200:]}")
    return python


def run(python, side, program, folder):
    """What was asked of the service, and the files that were saved."""
    folder.mkdir()
    (folder / "program.py").write_text(program)
    with RestreamService() as service:
        environment = os.environ | {"RESTREAM_HOST": service.url, "TALLY_AUTH_TOKEN": TOKEN}
        subprocess.run([python, RUNNER, side, "program.py"], cwd=folder, env=environment, check=True, timeout=120)
    return service, {path.name: path.read_bytes() for path in folder.glob("data/*")}


@pytest.mark.skipif(not PROGRAMS, reason=f"{SPECIFICATION} is not here")
@pytest.mark.parametrize(("line", "program"), PROGRAMS, ids=[f"line {line}" for line, _ in PROGRAMS])
def test_a_program_asks_the_same_and_saves_the_same(line, program, peer, tmp_path):
    ours, our_files = run(sys.executable, str(ALIAS), program, tmp_path / "ours")
    theirs, their_files = run(peer, "peer", program, tmp_path / "theirs")
    assert ours.asked == theirs.asked
    assert ours.confirmed == theirs.confirmed
    assert our_files.keys() == their_files.keys()
    for name, content in our_files.items():
        assert read(name, content) == read(name, their_files[name])


def read(name, content):
    return json.loads(content) if name.endswith(".json") else list(csv.reader(content.decode().splitlines()))


REST = """
from datetime import datetime, timezone
from datastore_sdk import DataAggregations, DataFillMethods, DataResolutions, Pad, Site, StageNameFilters, State
start, end = (datetime(2025, 9, 9, 0, minute, tzinfo=timezone.utc) for minute in (0, 1))
site, pad = Site(id=983), Pad(id=681)
State.get_models(stage_name_filter=StageNameFilters.STANDBY)
Pad.get_models(well_api="42-317", site_pk=3)
site.get_fields_metadata()
pad.get_stages_metadata(add_aggregations=True)
list(pad.get_data(start_datetime=start, end_datetime=end, is_routed=True, stage_number=2,
                  stage_name_filter=StageNameFilters.WIRELINE, fields=["slurry_flow"],
                  measurement_sources_names=["M1", "M2"]).data_fetcher)
list(site.get_data(resolution=DataResolutions.MINUTE, aggregation=DataAggregations.MEAN, si_units=True).data_fetcher)
list(site.get_data(fill_data_method=DataFillMethods.BACKWARD_FILL, fill_data_limit=9).data_fetcher)
events, data = pad.get_data_changes()
data.save("data/all.csv")
events[0].update()
events[0].get_data().save("data/one.json")
events[0].confirm_data_received()
"""


def test_what_no_program_shows_is_asked_in_the_same_way_too(peer, tmp_path):
    ours, our_files = run(sys.executable, str(ALIAS), REST, tmp_path / "ours")
    theirs, their_files = run(peer, "peer", REST, tmp_path / "theirs")
    assert len(ours.asked) == 13
    assert ours.asked == theirs.asked
    assert our_files["all.csv"] == their_files["all.csv"]
    assert json.loads(our_files["one.json"]) == json.loads(their_files["one.json"])
