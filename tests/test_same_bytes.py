"""What is written stays the same, whatever moves in the code: the demo's files and those of KNMI's day.

fixtures/make_bytes.py says what is compared, and how it is made again where it changed on purpose.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fixtures"))

from make_bytes import PARTS, PLACE, RUNS, libraries, made

KEPT = json.loads(PLACE.read_text())


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("runs", [PARTS, pytest.param(RUNS, marks=pytest.mark.soak)], ids=["a part", "all of it"])
def test_the_same_files_are_written_as_before(runs, name, tmp_path, request, monkeypatch, no_pictures):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    if name == "knmi":
        request.getfixturevalue("real_data")
    found, expected = made(tmp_path, name, runs[name]), KEPT[name]
    assert len(found) == len(expected) if runs is RUNS else 4 <= len(found) < len(expected)
    same = ["rows", "bytes"] if libraries() == KEPT["libraries"] else ["rows"]
    for what in same:
        other = [path for path in found if found[path][what] != expected[path][what]]
        assert not other, f"other {what} than before; where that is meant, make bytes.json again (make_bytes.py)"
