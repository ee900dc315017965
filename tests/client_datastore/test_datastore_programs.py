"""The programs of the specification, run as they stand against the service."""

import json
import sys
import time

import pytest
from pages import blocks
from programs import ALIAS, SPECIFICATION, programs

import ionbeam_client.datastore

PROGRAMS = programs()


@pytest.fixture
def alias(monkeypatch):
    monkeypatch.syspath_prepend(ALIAS)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("datastore_sdk"):
            del sys.modules[name]


@pytest.mark.skipif(not PROGRAMS, reason=f"{SPECIFICATION} is not here")
def test_the_specification_has_all_its_programs():
    assert len(PROGRAMS) == 20


@pytest.mark.filterwarnings("ignore:.*no aggregations for site 990")
@pytest.mark.parametrize(("line", "program"), PROGRAMS, ids=[f"line {line}" for line, _ in PROGRAMS])
def test_a_program_of_the_specification_runs(line, program, service, alias, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    exec(compile(program, f"{SPECIFICATION.name}, line {line}", "exec"), {"__name__": "program"})
    assert service.asked or ("get_data(" in program and "data_fetcher" not in program)
    assert capsys.readouterr().out or "print" not in program
    assert waits == [60, 60, 60] * ("time.sleep(60)" in program)
    assert all(asked[1].startswith("/external/thirdparty/v1/") for asked in service.asked)
    for saved in tmp_path.glob("data/*.json"):
        assert json.loads(saved.read_bytes())
    assert {path.name for path in tmp_path.glob("data/*")} <= {
        "data.json", "data.csv", "data_changes.json", "data_changes.csv"
    }  # fmt: skip


def test_the_program_of_our_own_page_runs(service, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [program] = blocks("datastore-sdk.md")["python"]
    exec(compile(program, "datastore-sdk.md", "exec"), {"__name__": "program"})
    assert "Site 982" in capsys.readouterr().out
    assert len((tmp_path / "data" / "day.csv").read_text().splitlines()) == 91
    assert json.loads((tmp_path / "data" / "changes.json").read_text())
    assert service.confirmed == [1, 2], "those of the pad's site"


def test_the_alias_is_the_same_package(alias):
    import datastore_sdk
    from datastore_sdk import DataChange, DataChanges, Pad, Site, StageNameFilters, State
    from datastore_sdk.constants import StageNameFilters as Filters
    from datastore_sdk.errors import AuthError

    ours = ionbeam_client.datastore
    assert datastore_sdk is ours
    assert (Pad, Site, State, DataChange, AuthError) == (
        ours.Pad,
        ours.Site,
        ours.State,
        ours.DataChange,
        ours.AuthError,
    )
    assert DataChanges is DataChange
    assert Filters is StageNameFilters is ours.StageNameFilters
