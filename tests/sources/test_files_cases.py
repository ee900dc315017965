"""Every case of ../shared/cases/files as it lies there: right, or a sentence that says why not. Each stands for its
kind, which the other tests of files have in full. Skipped where the folder is absent."""

import runpy
import shutil
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic import ValidationError

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig

CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "files"
DAY = datetime(2024, 3, 1, tzinfo=UTC)
WHOLE = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))

VALUES = {
    "A01/int32": ("01 00:00, 01 01:00, 01 02:00", [0, 1, 2]),
    "A01/uint32": ("01 01:00, 01 00:00, 01 02:00", [0, 1, 2]),
    "A01/float32": ("01 00:00, 01 09:00, 01 11:40", [0, 1, 2]),
    "A02/capital": ("01 00:00, 01 00:10", [20, 21]),
    "A02/symbol": ("01 00:00", [20]),
    "A05/na": ("01 00:00, 01 00:10, 01 00:20", [5.5, 5.6, 5.7]),
    "A07/stem": ("01 00:00, 01 00:00", [1, 9], ["loggerA", "loggerB"]),
    "A07/blank": ("01 00:00, 01 00:00", [1, 2], ["45.0_7.0", "46.0_8.0"]),
    "A08/a": ("01 00:00", [1]),
    "A11/a": ("01 00:20", [5]),
    "B01/a": ("01 00:00, 01 01:00", [1, 2]),
    "B02/a": ("01 22:30", [1]),
    "B05/pandas": ("01 00:00", [1]),
    "B05/blank_first": ("01 00:00", [1]),
    "B07/a": ("01 00:00, 01 00:00", [1, 2], ["6260", "46.0_8.0"]),
    "B09/a": ("01 00:00", [1]),
}
"""Days and clocks, the values of the first variable, and the stations where they are no matter of course."""
TOLD = {
    "A02/tenths": "a multiple of a temperature whose zero is not the absolute one is no unit",
    "A03/profile": "where these are heights, name their coordinate as its level",
    "A03/two_times": "'t10' lies along 'time2' (2 values), which neither the times nor the places do",
    "A04/a": "has no clock, so that all of a day would be at midnight",
    "A06/a": "%Z, the abbreviation of a zone, says no time by itself",
    "A10/a": "right would probably be csv.separator: ';'",
    "B04/a": "'S1' and 'S2' are both air_temperature",
    "B08/a": "its lines end in carriage returns alone",
}
OTHERS = {"A05/comma", "A09/a", "A12/crowd", "A13/crowd", "B03/a", "B06/a", "B10/a"}
"""Those that have a test of their own here, or in test_files_come_and_go and test_files."""


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Gives a source of a case, in a copy of its folder, as its block is or with other keys."""
    if not CASES.is_dir():
        pytest.skip(f"the cases are not at {CASES}")

    def make(name: str, **keys) -> Files:
        folder, _, source = name.partition("/")
        [original] = CASES.glob(f"{folder}-*")
        shutil.copytree(original, tmp_path / folder, dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        block = yaml.safe_load(Path("config.yaml").read_text())["sources"][source]
        given = block | {"data_path": tmp_path / "raw", "settle": 0, "exports": []} | keys
        return Files(source, FilesConfig.model_validate(given))

    return make


def taken(made: Files) -> tuple[pl.DataFrame, list[str]]:
    done = [canonicalise(batch, made.metadata) for batch in made.fetch(WHOLE)]
    return pl.concat([one.rows for one in done]), [reason for one in done for reason in one.rejected["reason"]]


def first_values(rows: pl.DataFrame) -> list:
    return rows[next(name for name in rows.columns if "__" in name)].to_list()


def test_each_case_has_an_expectation():
    if not CASES.is_dir():
        pytest.skip(f"the cases are not at {CASES}")
    blocks = {path.parent.name[:3]: yaml.safe_load(path.read_text()) for path in CASES.glob("*/config.yaml")}
    names = {f"{case}/{source}" for case, block in blocks.items() for source in block["sources"]} - {
        f"{case}/scheduler" for case in blocks
    }
    assert names == {*VALUES, *TOLD, *OTHERS}


@pytest.mark.parametrize("name", VALUES)
def test_a_case_is_right(case, name):
    times, values, *stations = VALUES[name]
    rows, reasons = taken(case(name))
    assert reasons == []
    assert ", ".join(f"{time:%d %H:%M}" for time in rows["datetime"]) == times
    assert first_values(rows) == pytest.approx(values)
    assert not stations or rows["station_id"].to_list() == stations[0]
    assert name != "A08/a" or float(rows["altitude"][0]) == pytest.approx(304.8)


@pytest.mark.parametrize("name", TOLD)
def test_a_case_is_refused_with_the_reason(case, name):
    with pytest.raises((SourceError, ValidationError)) as refused:
        taken(case(name))
    assert TOLD[name] in str(refused.value)


def test_bad_cells_take_their_own_values_alone(case):
    rows, reasons = taken(case("A05/comma"))
    assert rows["relative_humidity__%__2.0__point__PT0S"].to_list() == [80] * 18
    assert len(reasons) == 12 and reasons[0] == "t is no float64: 0,5"


def test_a_quoted_line_break_costs_no_row(case):
    made = case("A09/a")
    runpy.run_path("make.py")
    rows, reasons = taken(made)
    assert reasons == []
    assert first_values(rows) == [row % 40 for row in range(45_000)]
    assert rows["datetime"].n_unique() == 45_000


def test_a_profile_is_levels_where_the_block_says_so(case):
    rows, _ = taken(case("A03/profile", variables=[{"column": "t", "level": "z"}]))
    assert rows.height == 4
    heights = [name for name in rows.columns if name.startswith("air_temperature")]
    assert len(heights) == 3
    assert sorted(value for name in heights for value in rows[name]) == [*range(12)]


def test_names_that_look_like_markup_are_columns(case):
    rows, _ = taken(case("B03/a"))
    assert rows["surface_air_pressure__hPa__0.0__point__PT0S"].to_list() == [1000]


def test_a_column_that_one_file_lacks_costs_neither_file(case):
    made = case("B06/a")
    assert "has no column 'rh'" in " ".join(made.problems())
    variables = yaml.safe_load(Path("config.yaml").read_text())["sources"]["a"]["variables"]
    rows, _ = taken(case("B06/a", variables=[variables[0], variables[1] | {"optional": True}]))
    assert first_values(rows) == [1, 2] and rows["station_id"].to_list() == ["a", "b"]
