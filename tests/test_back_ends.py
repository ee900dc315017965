"""The whole chain on every combination of back ends: the dataset files hold the same rows with the same values."""

from datetime import UTC, datetime, timedelta
from itertools import product

import polars as pl
import pytest
from backends import influxdb, redis  # noqa: F401
from polars.testing import assert_frame_equal

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline import Platform, build, collect, export, ingest

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOURS = [Window(MORNING + timedelta(hours=h), MORNING + timedelta(hours=h + 1)) for h in range(2)]
LATER = MORNING + timedelta(days=3)
NETWORK = """
state_path: state
sources:
  scheduler: {windows: [{source_name: ioncannon, window_size: PT10M}]}
  ioncannon: {num_stations: 20, start: 2026-06-21, aggregation_span: PT1H, seed: 7, gap_fraction: 0.1,
    duplicate_fraction: 0.1, late_fraction: 0.1, late_by: PT30M, correction_fraction: 0.1, bad_value_fraction: 0.1}
"""


def datasets(folder, sections: str) -> list[tuple[int, pl.DataFrame]]:
    folder.mkdir()
    (folder / "config.yaml").write_text(NETWORK + sections)
    platform = Platform(IonbeamConfig.load(folder / "config.yaml"))
    for window in windows_between(HOURS[0].start, HOURS[-1].end, timedelta(minutes=10)):
        collect(platform, "ioncannon", window, LATER)
        ingest(platform, "ioncannon", window)
        if window.end == HOURS[0].end:  # before its late rows and corrections arrive
            build(platform, "ioncannon", HOURS[0], LATER)
    built = [build(platform, "ioncannon", hour, LATER).revision for hour in HOURS]
    for hour, format in product(HOURS, ("odb", "pygeoapi")):
        export(platform, "ioncannon", format, hour)
    return [(one.revision.number, pl.read_parquet(one.path)) for one in built]


@pytest.mark.parametrize("ledger", ["sqlite", "redis"])
@pytest.mark.parametrize("series", ["segments", "influxdb"])
def test_the_files_are_the_same_on_every_back_end(ledger, series, tmp_path, monkeypatch, request):
    sections = ""
    if ledger == "redis":
        sections += f"redis: {{redis_url: '{request.getfixturevalue('redis').url}'}}\n"
    if series == "influxdb":
        server = request.getfixturevalue("influxdb")
        sections += (
            f"influxdb_common: {{influxdb_url: '{server.url}', influxdb_org: {server.org}, "
            f"influxdb_bucket: chain_{ledger}, influxdb_token: {server.token}}}\n"
        )
    for name, chosen in (("embedded", ""), ("chosen", sections)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found = datasets(tmp_path / name / "run", chosen)
        if name == "embedded":
            expected = found
    assert [number for number, _ in found] == [number for number, _ in expected] == [2, 1]
    for (_, rows), (_, right) in zip(found, expected, strict=True):
        assert right.height > 100
        assert_frame_equal(rows, right, check_exact=True)
