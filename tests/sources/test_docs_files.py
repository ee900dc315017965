"""docs/files.md: every block reads the piece of a file above it, as an independent reading of that gives it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files import Files, FilesConfig

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
KINDS = re.findall(
    r"^## ([^\n]+)\n(?:[^#`]|`[^`\n]+`)*```text\n(.*?)```\n(?:```csv\n(.*?)```\n)?```yaml\n(.*?)```",
    PAGE,
    re.MULTILINE | re.DOTALL,
)
DAYS = Window(datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC))


def minutes(*numbers: int) -> list[datetime]:
    return [datetime(2024, 3, 1, tzinfo=UTC) + timedelta(minutes=number) for number in numbers]


EXPECTED = {
    "A Campbell": (minutes(-60, -50), "air_temperature", [1.5, None], ["a1"] * 2),
    "Columns that blanks": (minutes(50, 110), "air_temperature", [10.5, 10.4], ["a1"] * 2),
    "Hourly files": (minutes(0, 60), "air_temperature", [1.5, None], ["44"] * 2),
    "A list of": (minutes(60, 1440), "air_temperature", [6.2, None], ["260", "00270"]),
    "One column": (
        minutes(0, 0, 0, 1440, 1440),
        "air_temperature",
        [1.5, 2.5, None, 2.6, None],
        ["Nord", "Sued", "Nord", "Sued", "Nord"],
    ),
    "Value and code": (minutes(0, 60), "air_temperature", [5.0, None], ["06260099999"] * 2),
    "Columns divided by bars": (minutes(0), "air_temperature", [5.0], ["NLM00006260"]),
    "A console's export": (minutes(420, 1380), "air_temperature", [5.0, None], ["a1"] * 2),
    "The archive of weewx": (minutes(0, 5), "air_temperature", [5.0, None], ["a1"] * 2),
    "Two lines above": (minutes(0, 1), "air_temperature", [4.2, None], ["bon"] * 2),
    "What R": (minutes(0), "air_temperature", [1.5], ["mast"]),
    "One value": (minutes(420, 420, 480), "air_temperature", [15.5, None, 14.5], ["2178", "2178", "2179"]),
    "What pandas": (minutes(0, 20), "air_temperature", [1.5, 2.5], ["6260", "6270"]),
    "Date and clock": (minutes(425, 430), "thickness_of_rainfall_amount", [1.2, 0.0], ["console"] * 2),
    "The log of": (minutes(0, 10), "air_temperature", [1.5, 1.6], ["mast"] * 2),
    "The other log": (minutes(0, 10), "air_temperature", [1.5, 1.6], ["mast"] * 2),
    "How good each": (minutes(0, 10), "air_temperature", [4.1, 19.0], ["A"] * 2),
    "Day of the year": (minutes(-55, 510), "air_temperature", [1.5, 2.5], ["a1"] * 2),
    "Times as numbers": (minutes(0, 10), "air_temperature", [1.5, 1.6], ["A"] * 2),
}


def test_the_page_has_every_kind_that_is_expected():
    assert len(KINDS) == len(EXPECTED)


@pytest.mark.parametrize(("title", "text", "listed", "block"), KINDS, ids=[title for title, *_ in KINDS])
def test_a_block_reads_the_file_above_it(title, text, listed, block, tmp_path):
    said = yaml.safe_load(block)
    path = tmp_path / said["path"].replace("*", "a1")
    path.parent.mkdir()
    path.write_text(text)
    keys = said | {"path": str(tmp_path / said["path"]), "data_path": tmp_path / "raw", "settle": 0}
    if listed:
        (tmp_path / "stations.csv").write_text(listed)
        keys["stations"] = said["stations"] | {"path": str(tmp_path / "stations.csv")}
    source = Files("s", FilesConfig.model_validate(keys))
    assert source.problems() == []
    done = [canonicalise(batch, source.metadata) for batch in source.fetch(DAYS)]
    assert [one.rejected.height for one in done] == [0] * len(done)
    rows = pl.concat([one.rows for one in done])
    times, name, values, stations = next(value for key, value in EXPECTED.items() if title.startswith(key))
    column, *flag = [column for column in rows.columns if column.startswith(f"{name}__")]
    assert [rows[one].to_list()[0] for one in flag] == [1] * ("quality:" in block)
    assert not title.startswith("How good") or [rows[one].to_list() for one in flag] == [[1, 3]]
    assert rows["datetime"].to_list() == times
    assert rows[column].to_list() == [None if value is None else pytest.approx(value) for value in values]
    assert rows["station_id"].to_list() == stations
    if listed or "unit: ft" in block:
        feet = [6.2, 3.9] if listed else [1000, 1000]
        assert [float(text) for text in rows["altitude"]] == pytest.approx([0.3048 * one for one in feet])
