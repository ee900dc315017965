"""Files in zips, and Excel: the values that were written, by the block of docs/files.md."""

import re
import zipfile
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter
import yaml

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
DAY = datetime(2024, 3, 1, tzinfo=UTC)
WHOLE = Window(DAY - timedelta(days=1), DAY + timedelta(days=2))
T = "air_temperature__degC__2.0__point__PT0S"
WRITTEN = [(number, 0.1 * number - 3) for number in range(72)]


def block(title, folder, **keys):
    section = re.split(r"(?m)^## ", PAGE)
    found = next(part for part in section if part.startswith(title))
    said = yaml.safe_load(re.search(r"```yaml\n(.*?)```", found, re.DOTALL)[1])
    given = said | keys | {"data_path": folder / "raw", "settle": 0}
    return Files("s", FilesConfig.model_validate(given | {"path": str(folder / given["path"].rpartition("/")[2])}))


def taken(made):
    assert made.problems() == []
    done = [canonicalise(batch, made.metadata) for batch in made.fetch(WHOLE)]
    assert [one.rejected.height for one in done] == [0] * len(done)
    return pl.concat([one.rows for one in done]).select("datetime", "station_id", T)


def book(path, sheets=("Data",), names=("Day", "Clock", "Station", "Temp")):
    with xlsxwriter.Workbook(path) as made:
        day, clock = (made.add_format({"num_format": form}) for form in ("dd/mm/yyyy", "hh:mm"))
        for sheet in [made.add_worksheet(name) for name in sheets]:
            sheet.write(0, 0, "Weather of March")
            sheet.write_row(1, 0, names)
            for number, value in WRITTEN:
                sheet.write_datetime(number + 2, 0, datetime(2024, 3, 1), day)
                sheet.write_datetime(number + 2, 1, time(number // 6, number % 6 * 10), clock)
                sheet.write_number(number + 2, 2, 6260)
                sheet.write_number(number + 2, 3, value) if number != 5 else sheet.write_string(number + 2, 3, "NA")


def test_a_workbook_gives_the_values_that_were_written(tmp_path):
    book(tmp_path / "a.xlsx", ("Notes", "Data"))
    rows = taken(block("Excel", tmp_path))
    expected = [(DAY + timedelta(minutes=10 * number), "6260", value) for number, value in WRITTEN if number != 5]
    assert rows.select("datetime", "station_id").rows() == [row[:2] for row in expected]
    assert rows[T].to_list() == pytest.approx([row[2] for row in expected])


@pytest.mark.parametrize(
    ("make", "keys", "told"),
    [
        ({"sheets": ("Data", "B")}, {"sheet": None}, "has the sheets 'Data', 'B'; name the right one"),
        ({"sheets": ("B",)}, {}, "has no sheet 'Data'; it has 'B'"),
        ({"names": ("Day", "Clock", "Station", "Temperature")}, {}, "has no column 'Temp'"),
        ({}, {"csv": {"header": 1000}}, "has no row 1000"),
    ],
)
def test_a_workbook_that_does_not_fit_is_told(tmp_path, make, keys, told):
    book(tmp_path / "a.xlsx", **make)
    assert told in " ".join(block("Excel", tmp_path, **keys).problems())


def test_a_workbook_that_is_none_is_told(tmp_path):
    (tmp_path / "a.xlsx").write_text("no workbook")
    made = block("Excel", tmp_path)
    assert "put an intact copy in its place" in made.problems()[0]
    with pytest.raises(SourceError, match="cannot be read"):
        list(made.fetch(WHOLE))


PRODUCT = "STATIONS_ID;MESS_DATUM;QN_9;TT_TU;RF_TU;eor\n44;2024030100;3;1.5;80.0;eor\n44;2024030101;3;-999;81.0;eor\n"


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)


def test_one_member_of_a_zip_is_read(tmp_path):
    packed(tmp_path / "stundenwerte_TU_44.zip", {"Metadaten_Geraete.txt": "x;y\n", "produkt_tu_44.txt": PRODUCT})
    made = block("Hourly files", tmp_path, path="dwd/stundenwerte_TU_*.zip", member="produkt_*.txt")
    assert taken(made).rows() == [(DAY, "44", 1.5), (DAY + timedelta(hours=1), "44", None)]


def test_the_only_member_needs_no_name_and_the_stem_is_that_of_the_file(tmp_path):
    packed(tmp_path / "mast.csv.zip", {"whatever.txt": PRODUCT})
    made = block("Hourly files", tmp_path, path="dwd/*.csv.zip", metadata={}, constants={"station_id": "{stem}"})
    assert taken(made)["station_id"].to_list() == ["mast", "mast"]


def test_a_zip_that_leaves_open_what_is_meant_or_is_cut_is_told(tmp_path):
    packed(tmp_path / "a.zip", {"a.txt": PRODUCT, "b.txt": PRODUCT})
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:100])
    told = " ".join(block("Hourly files", tmp_path, path="dwd/*.zip").problems())
    assert "has 2 members, not one; it has 'a.txt', 'b.txt'; state which with `member`" in told
    assert "b.zip: cannot be unpacked" in told
