"""The InfluxDB client of stations: durable writes, frames to line protocol, and a backlog that drains into influxd.

The import; write() of one row, beside append + fdatasync alone in the same run; rows of a data frame to the lines that
are sent, with and without polars, beside influxdb-client's DataframeSerializer; a backlog into influxd, beside what the
server alone takes, with the memory of it. Each side runs in a process of its own. Every figure is given by the
processor, which other programs on the machine hardly change, and by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measure import peak_megabytes

T0 = 1617672549_000_000_000


def frame(rows: int):
    """A tag, and a field of each of the three common types."""
    import numpy as np
    import pandas as pd

    place = np.arange(rows)
    return pd.DataFrame(
        {
            "timestamp": T0 + place * 1000, "station": [f"Kp {number % 50}" for number in range(rows)],
            "pps_offset": place % 77, "temperature": (place * 7919 % 100_003 / 1000).round(3), "locked": place % 3 == 0,
        }
    )  # fmt: skip


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Gives the seconds that its block takes: `seconds` of the processor, and `clock`."""
    found: dict[str, float] = {}
    begun, clock = time.process_time(), time.perf_counter()
    yield found
    found |= {"seconds": time.process_time() - begun, "clock": time.perf_counter() - clock}


def imported(rows: int, folder: Path) -> dict[str, float]:
    with timed() as found:
        import ionbeam_client.influx.client  # noqa: F401
    return found


def percentiles(times: list[float], found: dict[str, float]) -> dict[str, float]:
    cut = statistics.quantiles(times, n=100)
    return found | {"p50": cut[49] * 1000, "p99": cut[98] * 1000, "each": found["seconds"] / len(times) * 1000}


def appended(rows: int, folder: Path) -> dict[str, float]:
    """What any durable log has to do: one line, one fdatasync."""
    times, file = [], os.open(folder / "alone.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = b'{"timestamp":%d,"measurement":"m","tags":{"station":"Kp"},"fields":{"f":1.5}}\n'
    with timed() as found:
        for number in range(rows):
            begun = time.perf_counter()
            os.write(file, line % (T0 + number))
            os.fdatasync(file)
            times.append(time.perf_counter() - begun)
    return percentiles(times, found)


def written(rows: int, folder: Path) -> dict[str, float]:
    """With a sender that delivers to influxd at the same time."""
    client = _client(folder)
    write, times = client.write_api().write, []
    write(record="m f=1 1").get(30)
    with timed() as found:
        for number in range(rows):
            record = {"measurement": "m", "tags": {"station": "Kp"}, "fields": {"f": 1.5}, "time": T0 + number}
            begun = time.perf_counter()
            write(record=record)
            times.append(time.perf_counter() - begun)
    client.close()
    return percentiles(times, found)


def lines_ours(rows: int, folder: Path, polars: bool = True) -> dict[str, float]:
    """Both halves: frame to the lines of the log, and these, as they are read, to line protocol."""
    from ionbeam_client.influx import frames, records
    from ionbeam_client.influx.fast_lines import Converter
    from ionbeam_client.influx.rows import How

    if not polars:
        frames.find_spec = lambda name: None
    how = How(data_frame_measurement_name="pps", data_frame_tag_columns=("station",))
    converter, given = Converter({}), frame(rows)
    records.encode(given[:1000], how)
    with timed() as found:
        with timed() as logged:
            data = b"".join(records.encode(given, how).data)
        lines = data.splitlines(keepends=True)
        for place in range(0, rows, 5000):
            converter.convert(lines[place : place + 5000])
    return found | {"logged": logged["seconds"]}


def lines_without_polars(rows: int, folder: Path) -> dict[str, float]:
    return lines_ours(rows, folder, polars=False)


def lines_theirs(rows: int, folder: Path) -> dict[str, float]:
    from influxdb_client.client.write.dataframe_serializer import DataframeSerializer
    from influxdb_client.client.write_api import PointSettings

    given = frame(rows).set_index("timestamp")
    with timed() as found:
        DataframeSerializer(
            given, PointSettings(), data_frame_measurement_name="pps", data_frame_tag_columns=["station"]
        ).serialize()
    return found


def logged(rows: int, folder: Path) -> dict[str, float]:
    """A backlog, from a time without a server."""
    from ionbeam_client.influx import EHTInfluxDBClient

    away = EHTInfluxDBClient(**_keys(folder) | {"url": "http://127.0.0.1:9", "close_timeout": 0.0, "timeout": 1})
    write = away.write_api().write
    for _ in range(rows // 10_000):
        write(record=frame(10_000), data_frame_measurement_name="pps", data_frame_tag_columns=["station"])
    away.close()
    return {"bytes": (folder / "log.jsonl").stat().st_size}


def drained(rows: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", "logged", "--rows", str(rows), "--folder", folder]
    waiting = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    with timed() as found:
        client = _client(folder)
        client.flush(600)
    client.close()
    return found | {"bytes": waiting["bytes"], "peak": peak_megabytes()}


def posted(rows: int, folder: Path) -> dict[str, float]:
    """The server's share: the same lines, made beforehand, posted in the same parts."""
    from ionbeam_client.influx import records
    from ionbeam_client.influx.config import Server
    from ionbeam_client.influx.fast_lines import Converter
    from ionbeam_client.influx.rows import How
    from ionbeam_client.influx.targets import InfluxServer

    keys = _keys(folder)
    server = InfluxServer(Server(keys["url"], keys["org"], keys["bucket"], keys["token"]), 60)
    how = How(data_frame_measurement_name="pps", data_frame_tag_columns=("station",))
    raw = b"".join(records.encode(frame(10_000), how).data).splitlines(keepends=True)
    lines, _ = Converter({}).convert(raw)
    with timed() as found:
        for _ in range(rows // 10_000):
            server.send(lines[:5000])
            server.send(lines[5000:])
    return found


def _keys(folder: Path) -> dict[str, object]:
    server = json.loads(os.environ["SERVER"])
    return {"jsonlogfile": folder / "log.jsonl", "close_timeout": 60, **server}


def _client(folder: Path):
    from ionbeam_client.influx import EHTInfluxDBClient

    return EHTInfluxDBClient(**_keys(folder))


def measured(side: str, rows: int) -> dict[str, float]:
    with TemporaryDirectory(dir=Path.cwd()) as folder:  # on a disk, not in memory
        command = [sys.executable, __file__, "--side", side, "--rows", str(rows), "--folder", folder]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def report(rows: int, writes: int) -> None:
    best = min((measured("imported", 0) for _ in range(3)), key=lambda found: found["seconds"])
    processor, clock = best["seconds"] * 1000, best["clock"] * 1000
    print(f"import of the client: {processor:.0f} ms of the processor, {clock:.0f} by the clock\n")

    alone, ours = measured("appended", writes), measured("written", writes)
    print(f"{writes:,} durable writes of one row    p50      p99 by the clock   processor")
    for name, found in (("append + fdatasync alone", alone), ("write(), influxd beside it", ours)):
        print(f"  {name:27} {found['p50']:6.2f} ms {found['p99']:6.2f} ms {found['each']:17.2f} ms")
    print(f"  {ours['p99'] / alone['p99']:.1f} times p99\n")

    theirs, with_polars = measured("lines_theirs", rows // 10), measured("lines_ours", rows)
    without = measured("lines_without_polars", rows // 4)
    base = rows / 10 / theirs["seconds"]
    print(f"{rows:,} rows of a data frame to line protocol      rows/s of the processor    by the clock")
    for name, found, count in (
        ("influxdb-client's serializer", theirs, rows // 10), ("ours, with polars", with_polars, rows),
        ("ours, without polars", without, rows // 4),
    ):  # fmt: skip
        rate, logged = count / found["seconds"], found.get("logged")
        print(
            f"  {name:38} {rate:20,.0f} {count / found['clock']:20,.0f}   {rate / base:4.1f} times"
            + (f"; of it into the log {count / logged:,.0f}" if logged else "")
        )
    backlog, share = measured("drained", rows), measured("posted", rows)
    print(f"\n{rows:,} rows of backlog ({backlog['bytes'] / 2**20:.0f} MiB) into influxd, rows/s")
    for name, found in (("the server alone, lines made beforehand", share), ("ours", backlog)):
        clock, processor = rows / found["clock"], rows / found["seconds"]
        print(f"  {name:40} {clock:10,.0f} by the clock   {processor:10,.0f} of our processor")
    print(f"  {share['clock'] / backlog['clock']:.0%} of the server's share; peak {backlog['peak']:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--writes", type=int, default=2_000)
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(globals()[options.side](options.rows, options.folder)))
        return
    from backends import Missing, start_influxdb

    with TemporaryDirectory() as folder:
        try:
            server = start_influxdb(Path(folder))
        except Missing as missing:
            print(f"not measured: {missing.reason}")
            return
        os.environ["SERVER"] = json.dumps(
            {"url": server.url, "org": server.org, "bucket": server.bucket, "token": server.token}
        )
        try:
            report(options.rows, options.writes)
        finally:
            server.process.stop()


if __name__ == "__main__":
    main()
