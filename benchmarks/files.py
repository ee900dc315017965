"""The whole chain with its files in S3 against a local folder, and memory as the files grow.

A network of stations every 5 minutes is collected, ingested, built and exported as ODB-2 and GeoParquet, twice in one
run: in a folder, and in a real S3 server on the loopback interface (versitygw). Then files of growing size are
published to S3, streamed back in row groups and copied. Each side is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from backends import Missing, start_s3
from measure import peak_megabytes

START = datetime(2026, 6, 21, tzinfo=UTC)
NOW = datetime(2026, 7, 1, tzinfo=UTC)
CONFIG = """
sources:
  scheduler: {{windows: [{{source_name: ioncannon, window_size: PT5M}}]}}
  ioncannon: {{num_stations: {stations}, start: 2026-06-21, aggregation_span: PT1H, data_path: {root}/raw}}
dataset_aggregator: {{data_path: {root}/data}}
projections: {{odb_service: {{output_path: {root}/out}}, pygeoapi_service: {{output_path: {root}/out}}}}
s3: {s3}
"""


def chain(root: str, s3: str, stations: int, hours: int) -> None:
    from ionbeam_dagster.config import IonbeamConfig
    from ionbeam_dagster.domain.windows import windows_between
    from ionbeam_dagster.pipeline.build import build
    from ionbeam_dagster.pipeline.collect import collect
    from ionbeam_dagster.pipeline.export import export
    from ionbeam_dagster.pipeline.ingest import ingest
    from ionbeam_dagster.pipeline.recovery import open_platform

    Path("config.yaml").write_text(CONFIG.format(stations=stations, root=root, s3=s3))
    platform, end = open_platform(IonbeamConfig.load(Path("config.yaml"))), START + timedelta(hours=hours)
    begun = time.perf_counter()
    for window in windows_between(START, end, timedelta(minutes=5)):
        collect(platform, platform.source("ioncannon"), window, NOW)
        ingest(platform, platform.source("ioncannon"), window)
    for window in windows_between(START, end, timedelta(hours=1)):
        build(platform, platform.dataset("ioncannon"), window, NOW)
        for format in ("odb", "pygeoapi"):
            export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], window)
    print(json.dumps([time.perf_counter() - begun, peak_megabytes()]))


def streamed(root: str, s3: str, rows: int) -> None:
    """Publish, stream and copy one Parquet file of 6 columns that compress badly."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ionbeam_dagster.stores.files import Files, S3Settings

    files, location = Files(Path("scratch"), S3Settings.model_validate_json(s3)), f"{root}/large.parquet"
    schema = pa.schema([(name, pa.float64()) for name in "abcdef"])
    random = np.random.default_rng(7)
    begun = time.perf_counter()
    with files.published(location) as draft, pq.ParquetWriter(draft, schema) as writer:
        for _ in range(rows // 100_000):
            writer.write_table(pa.table({name: random.random(100_000) for name in schema.names}, schema))
    with files.parquet(location) as file:
        assert sum(batch.num_rows for batch in file.iter_batches()) == rows
    with files.fetched(location) as path:
        assert pq.read_metadata(path).num_rows == rows
    print(json.dumps([time.perf_counter() - begun, peak_megabytes()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stations", type=int, default=1000)
    parser.add_argument("--hours", type=int, default=6)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 10_000_000])
    parser.add_argument("--side", nargs=2, metavar=("ROOT", "S3"))
    parser.add_argument("--size", type=int, help="of the side: rows of one file; without it the chain")
    given = parser.parse_args()
    if given.side and given.size:
        streamed(*given.side, given.size)
    elif given.side:
        chain(*given.side, given.stations, given.hours)
    else:
        compare(given)


def compare(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            server = start_s3(Path(folder))
        except Missing as missing:
            print(f"files: left out, {missing.reason}")
            return
        try:
            root, s3 = server.bucket("benchmark"), json.dumps(server.section())
            print(f"files: {given.stations} stations x 5 minutes x {given.hours} h through the whole chain")
            size = ["--stations", str(given.stations), "--hours", str(given.hours)]
            local, _ = _side("folder", ["files", "{}"], size)
            remote, _ = _side("S3", [root, s3], size)
            print(f"  S3 takes {remote / local:.2f} times as long as a folder")
            print("files: one file published to S3, streamed and copied")
            for rows in given.rows:
                _side(f"{rows:,} rows", [root, s3], ["--size", str(rows)])
        finally:
            server.process.stop()


def _side(name: str, place: list[str], options: list[str]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--side", *place, *options]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    print(f"  {name:18} {seconds:7.1f} s  peak {peak:6.0f} MB", flush=True)
    return seconds, peak


if __name__ == "__main__":
    main()
