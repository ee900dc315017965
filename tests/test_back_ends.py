"""The whole chain on every combination of back ends: the dataset files hold the same rows with the same values."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from redis import Redis

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.decisions import Unchanged
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline.agenda import assess, needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOURS = [Window(MORNING + timedelta(hours=h), MORNING + timedelta(hours=h + 1)) for h in range(2)]
LATER = MORNING + timedelta(days=3)
NETWORK = """
state_path: state
sources:
  scheduler: {windows: [{source_name: ioncannon, window_size: PT10M}]}
  ioncannon: {num_stations: 20, start: 2026-06-21, data_path: ROOT/raw, aggregation_span: PT1H, seed: 7,
    gap_fraction: 0.1, duplicate_fraction: 0.1, late_fraction: 0.1, late_by: PT30M, correction_fraction: 0.1,
    bad_value_fraction: 0.1}
dataset_aggregator: {data_path: ROOT/data}
projections: {odb_service: {output_path: ROOT/out}, pygeoapi_service: {output_path: ROOT/out}}
"""


def datasets(folder, root: str, sections: str) -> list[tuple[int, pl.DataFrame, list[int]]]:
    """Of each hour the revision's number, its rows, and the rows of its exports."""
    folder.mkdir()
    (folder / "config.yaml").write_text(NETWORK.replace("ROOT", root) + sections)
    platform = open_platform(IonbeamConfig.load(folder / "config.yaml"))
    for window in windows_between(HOURS[0].start, HOURS[-1].end, timedelta(minutes=10)):
        collect(platform, platform.source("ioncannon"), window, LATER)
        ingest(platform, platform.source("ioncannon"), window)
        if window.end == HOURS[0].end:  # before its late rows and corrections arrive
            build(platform, platform.dataset("ioncannon"), HOURS[0], LATER)
    told = []
    for hour in HOURS:
        built = build(platform, platform.dataset("ioncannon"), hour, LATER).revision
        exports = [
            export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], hour)
            for format in ("odb", "pygeoapi")
        ]
        assert all(
            one.path.startswith(root) and platform.files.size(one.path) == one.published.bytes for one in exports
        )
        assert not needs_collecting(platform, "ioncannon", Window(hour.start, hour.start + timedelta(minutes=10)))
        assert isinstance(assess(platform, platform.dataset("ioncannon"), hour, LATER), Unchanged)
        with platform.files.parquet(built.path) as file:
            rows = pl.DataFrame(pl.from_arrow(file.read()))
        told.append((built.revision.number, rows, [one.report.rows for one in exports]))
    return told


@pytest.mark.parametrize(
    ("ledger", "series", "kept"),
    [
        ("sqlite", "segments", "s3"), ("redis", "segments", "folder"),
        ("sqlite", "influxdb", "folder"), ("redis", "influxdb", "s3"),
    ],
)  # fmt: skip
def test_the_files_are_the_same_on_every_back_end(ledger, series, kept, tmp_path, monkeypatch, request):
    sections, root = "", "files"
    if kept == "s3":
        server = request.getfixturevalue("s3")
        root = f"{server.bucket(f'chain-{ledger}')}/a prefix"
        monkeypatch.setenv("S3_SECRET", server.secret_key)
        section = server.section() | {"secret_key": "${S3_SECRET}"}
        sections += f"s3: {json.dumps(section)}\n"
    if ledger == "redis":
        url = request.getfixturevalue("redis").url
        with Redis.from_url(url) as client:
            client.flushall()  # what the other chain noted there
        sections += f"redis: {{redis_url: '{url}'}}\n"
    if series == "influxdb":
        server = request.getfixturevalue("influxdb")
        sections += (
            f"influxdb_common: {{influxdb_url: '{server.url}', influxdb_org: {server.org}, "
            f"influxdb_bucket: chain_{ledger}, influxdb_token: {server.token}}}\n"
        )
    for name, place, chosen in (("embedded", "files", ""), ("chosen", root, sections)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found = datasets(tmp_path / name / "run", place, chosen)
        if name == "embedded":
            expected = found
    assert [number for number, *_ in found] == [number for number, *_ in expected] == [2, 1]
    assert [exported for *_, exported in found] == [exported for *_, exported in expected]
    for (_, rows, _), (_, right, _) in zip(found, expected, strict=True):
        assert right.height > 100
        assert_frame_equal(rows, right, check_exact=True)
