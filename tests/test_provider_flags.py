"""What a provider says of its values travels from its files to every product, and excuses no failed test."""

from datetime import UTC, datetime, timedelta

import codc
import polars as pl
import pytest

from ionbeam_dagster.domain.quality import Flag, Test
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

NOON = Window(datetime(2026, 6, 21, 12, tzinfo=UTC), datetime(2026, 6, 21, 13, tzinfo=UTC))
LATER = NOON.end + timedelta(days=1)
NAME = "air_temperature__degC__2.0__point__PT0S"
SOURCES = """
  crowd:
    type: files
    path: "{path}"
    settle: PT0S
    start: 2026-06-21
    aggregation_span: PT1H
    exports: [odb, bufr]
    time: time
    latitude: lat
    longitude: lon
    metadata: {{station_id: id}}
    variables:
      - column: t
        standard_name: air_temperature
        cf_unit: degC
        level: 2.0
        quality: {{column: qc, good: [1, V], poor: [3, N]}}
"""
ROWS = pl.DataFrame(
    {
        "time": ["2026-06-21T12:00:00Z"] * 5,
        "lat": [50.0, 51.0, 52.0, 53.0, 54.0],
        "lon": [7.0] * 5,
        "id": ["good", "poor", "broken", "unsaid", "odd"],
        "t": [20.0, 20.0, 400.0, 20.0, 20.0],
        "qc": ["1", "3", "1", None, "?"],
    }
)
FLAGS = {"good": Flag.PASS, "poor": Flag.SUSPECT, "broken": Flag.FAIL, "unsaid": Flag.PASS, "odd": Flag.PASS}


def made(platform_of, path):
    platform = platform_of(SOURCES.format(path=path))
    collect(platform, platform.source("crowd"), NOON, LATER)
    ingest(platform, platform.source("crowd"), NOON)
    return platform, build(platform, platform.dataset("crowd"), NOON, LATER, insist=True).revision


@pytest.mark.parametrize("form", ["csv", "parquet with numbers"])
def test_what_files_say_of_their_values_is_in_every_product(platform_of, tmp_path, form):
    if form == "csv":
        ROWS.with_columns(pl.col("qc").replace({"1": "V", "3": "N"})).write_csv(tmp_path / "a.csv")
    else:
        ROWS.with_columns(pl.col("qc").cast(pl.Float64, strict=False)).write_parquet(tmp_path / "a.parquet")
    platform, revision = made(platform_of, tmp_path / "a.*")
    rows = pl.read_parquet(revision.path).rows_by_key("station_id", named=True, unique=True)
    assert {station: row[f"{NAME}__flag"] for station, row in rows.items()} == FLAGS
    said = {station: row[f"{NAME}__provider_flag"] for station, row in rows.items()}
    assert said == {"good": 1, "poor": 3, "broken": 1, "unsaid": None, "odd": 0 if form == "csv" else None}
    assert rows["poor"][f"{NAME}__tests_failed"] & Test.PROVIDER
    assert not rows["unsaid"][f"{NAME}__tests_applied"] & Test.PROVIDER
    odb = codc.read_odb(
        str(export(platform, platform.dataset("crowd"), platform.config.window_exporters["odb"], NOON).path),
        single=True,
    )
    odb = odb.set_index(odb["statid@hdr"].str.strip())
    assert odb["quality@body"].to_dict() == {station: int(flag) for station, flag in FLAGS.items()}
    states = odb["datum_status@body"].to_dict()
    assert states["good"] == states["unsaid"] and len({states["good"], states["poor"], states["broken"]}) == 3


def test_a_file_without_the_column_of_codes_is_told(platform_of, tmp_path):
    ROWS.drop("qc").write_csv(tmp_path / "a.csv")
    with pytest.raises(SourceError, match="no column 'qc'"):
        made(platform_of, tmp_path / "a.csv")
