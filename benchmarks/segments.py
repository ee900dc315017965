"""The store of Parquet segments: rows in, windows out, and memory.

``python benchmarks/segments.py`` writes 1, 5 and 20 million rows of one hour as one ingestion and reads them back as
one window, each in a process of its own; the alternative, in the same run, reads the same segments whole into memory
with Polars and makes the points unique there. Then it takes an hour of a usual network, which came in twelve windows:
144k rows of 6 variables. Then an hour that came in 200 small segments, before and after they became one file. Our
seconds of writing include the durable files; those of making rows are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from measure import peak_megabytes

from ionbeam_client.models import CanonicalVariable, DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam_client.models import MetadataVariable as Described
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.timeseries.segments import SegmentStore

HOUR = Window(datetime(2026, 6, 21, 12, tzinfo=UTC), datetime(2026, 6, 21, 13, tzinfo=UTC))
FRAME_ROWS = 200_000
KEY = ["station_id"]
NAMES = ("air_temperature", "dew_point_temperature", "x_a", "x_b", "x_c", "x_d")
SCHEMA = canonical_schema(
    [
        IngestionMetadata(
            dataset=DatasetMetadata(name="benchmark"),
            ingestion_map=DataIngestionMap(
                canonical_variables=[
                    CanonicalVariable(column=name, standard_name=name, cf_unit="degC", level=2) for name in NAMES
                ],
                metadata_variables=[Described(column="station_id"), Described(column="altitude")],
            ),
        )
    ]
)
POLARS_SCHEMA = pl.DataFrame(SCHEMA.empty_table()).schema


def frames(window: Window, stations: int, times: int) -> Iterator[pl.DataFrame]:
    """Rows as a network sends them: all stations at one time, then at the next."""
    ids = pl.Series([f"SYNTH_{number:06d}" for number in range(stations)])
    heights = pl.Series([f"{number % 977}" for number in range(stations)])
    random = np.random.default_rng(1)
    at_once = max(1, FRAME_ROWS // stations)
    for first in range(0, times, at_once):
        count = min(at_once, times - first)
        place = np.tile(np.arange(stations), count)
        step = window.span // times // timedelta(microseconds=1)
        moments = int(window.start.timestamp()) * 1_000_000 + (first + np.repeat(np.arange(count), stations)) * step
        values = {name: random.normal(12, 4, place.size).round(1) for name in POLARS_SCHEMA if "__" in name}
        columns = {"datetime": moments, "lat": 47 + place * 1e-6, "lon": 5 + place * 1e-6, **values}
        texts = {"station_id": ids.gather(place), "altitude": heights.gather(place)}
        yield pl.DataFrame({**columns, **texts}).select(pl.col(n).cast(t) for n, t in POLARS_SCHEMA.items())


class Timed:
    """Passes frames on, and knows how long they took to be made."""

    def __init__(self, source: Iterable[pl.DataFrame]) -> None:
        self.source = iter(source)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[pl.DataFrame]:
        while True:
            begun = time.perf_counter()
            frame = next(self.source, None)
            self.seconds += time.perf_counter() - begun
            if frame is None:
                return
            yield frame


def write(store: SegmentStore, rows: int) -> tuple[int, float]:
    made = Timed(frames(HOUR, rows // 60, 60))
    begun = time.perf_counter()
    written = store.write("benchmark", "one", 1, made, KEY)
    return written, time.perf_counter() - begun - made.seconds


def read(store: SegmentStore, rows: int) -> tuple[int, float]:
    begun = time.perf_counter()
    found = sum(batch.num_rows for batch in store.read("benchmark", HOUR, SCHEMA, KEY))
    return found, time.perf_counter() - begun


def in_memory(store: SegmentStore, rows: int) -> tuple[int, float]:
    begun = time.perf_counter()
    parts = [pl.read_parquet(path) for path in sorted(store.root.glob("benchmark/2*/*.parquet"))]
    points = pl.concat(parts).unique([*KEY, "datetime"], keep="last", maintain_order=True).sort(*KEY, "datetime")
    return points.to_arrow().num_rows, time.perf_counter() - begun


STEPS = {"write": write, "read": read, "in memory": in_memory}


def rows_in(root: Path, rows: int = 1_000_000) -> None:
    """Rows that are made already, into the store and into one file by Polars, which sorts them but syncs nothing.

    Time of the processor is told, too: on a machine that is busy with other things it is what can be compared.
    """
    made = list(frames(HOUR, rows // 60, 60))
    written = sum(frame.height for frame in made)

    def ours() -> None:
        SegmentStore(root).write("benchmark", "one", 1, made, KEY)

    def theirs() -> None:
        pl.concat(made).sort(*KEY, "datetime").write_parquet(root / "theirs.parquet", compression_level=1)

    best = {}
    for name, way in {"ours": ours, "Polars": theirs}.items():
        found = []
        for _ in range(3):
            begun = time.perf_counter(), time.process_time()
            way()
            found.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        best[name] = [min(one) for one in zip(*found, strict=True)]
        seconds, processor = best[name]
        told = f"{written / seconds:10,.0f} rows/s, {written / processor:10,.0f} rows a second of one processor"
        print(f"  in: {written:,} rows, {name:<6}  {told}")
    print(f"  ours takes {best['ours'][1] / best['Polars'][1]:.2f} of the processor time of Polars alone")


def windows(store: SegmentStore) -> None:
    """A network of 2,400 stations, a time each minute, in windows of five minutes."""
    seconds = []
    for number in range(12):
        start = HOUR.start + number * timedelta(minutes=5)
        rows = list(frames(Window(start, start + timedelta(minutes=5)), 2400, 5))
        begun = time.perf_counter()
        store.write("benchmark", f"window-{number}", number + 1, rows, KEY)
        seconds.append(time.perf_counter() - begun)
    print(f"  in: each of 12 windows of 12,000 rows (median)      {sorted(seconds)[6] * 1000:8.1f} ms")
    small = next(iter(frames(HOUR, 1000, 1)))
    seconds = []
    for number in range(50):
        begun = time.perf_counter()
        store.write("small", f"window-{number}", number + 1, [small], KEY)
        seconds.append(time.perf_counter() - begun)
    print(f"  in: each of 50 windows of 1,000 rows (median)       {sorted(seconds)[25] * 1000:8.1f} ms")
    ours = [read(store, 144_000) for _ in range(10)]
    theirs = [in_memory(store, 144_000) for _ in range(10)]
    assert ours[0][0] == theirs[0][0] == 144_000
    fast, slow = min(seconds for _, seconds in ours), min(seconds for _, seconds in theirs)
    print(f"  out: the hour, 144,000 rows x 6 variables (best)    {fast * 1000:8.1f} ms")
    print(f"  out: the same, Polars concat and unique (best)      {slow * 1000:8.1f} ms   ours takes {fast / slow:.2f}")


def compaction(store: SegmentStore, segments: int = 200) -> None:
    """An hour that came in many segments of 1,000 rows, read before and after they became one file."""
    pieces = (piece for frame in frames(HOUR, 1000, segments) for piece in frame.iter_slices(1000))
    for number, piece in enumerate(pieces):
        store.write("benchmark", f"i{number}", number + 1, [piece], KEY)
    files = list(store.root.glob("benchmark/2*/*"))
    size = sum(path.stat().st_size for path in files)
    apart = min(read(store, segments * 1000) for _ in range(5))
    begun = time.perf_counter()
    store.compact("benchmark", HOUR)
    took = time.perf_counter() - begun
    together = min(read(store, segments * 1000) for _ in range(5))
    assert apart[0] == together[0] == segments * 1000
    begun = time.perf_counter()
    store.withdraw("benchmark", "i7")
    withdrawn = time.perf_counter() - begun
    (bundle,) = store.root.glob("benchmark/2*/*")
    before, after = apart[1], together[1]
    print(f"  out: an hour of {segments} segments of 1,000 rows (best)    {before * 1000:8.1f} ms")
    faster = f"{before / after:.1f} times as fast"
    print(f"  out: the same after compaction (best)               {after * 1000:8.1f} ms   {faster}")
    print(
        f"  compaction {took:.2f} s: {len(files)} files of {size / 1e6:.1f} MB became one of "
        f"{bundle.stat().st_size / 1e6:.1f} MB; an ingestion withdrawn from it in {withdrawn:.2f} s"
    )


def _keep_writing(root: Path, worker: int, ingestions: int) -> None:
    store = SegmentStore(root)
    for number in range(ingestions):
        rows = list(frames(HOUR, 2400, 20))
        store.write("benchmark", f"{worker}-{number}", 2 * number + worker + 1, rows, KEY)


def _keep_reading(root: Path, going: Event, told: Queue) -> None:
    store, seconds = SegmentStore(root), []
    while going.is_set():
        rows, took = read(store, 48_000)
        assert rows in (0, 48_000), rows
        seconds.append(took)
    told.put(seconds)


def busy(root: Path, ingestions: int = 10) -> None:
    """Two processes correct the same 48,000 points again and again while two read them."""
    context = get_context("spawn")
    going, told = context.Event(), context.Queue()
    going.set()
    writers = [context.Process(target=_keep_writing, args=(root, worker, ingestions)) for worker in range(2)]
    readers = [context.Process(target=_keep_reading, args=(root, going, told)) for _ in range(2)]
    begun = time.perf_counter()
    for process in [*writers, *readers]:
        process.start()
    for writer in writers:
        writer.join()
    took = time.perf_counter() - begun
    going.clear()
    seconds = sorted(told.get() + told.get())
    for reader in readers:
        reader.join()
    assert [process.exitcode for process in [*writers, *readers]] == [0, 0, 0, 0]
    print(
        f"  two write while two read: {2 * ingestions * 48_000 / took:,.0f} rows/s in (with making them); "
        f"{len(seconds)} windows out, none of them half of an ingestion, median {seconds[len(seconds) // 2]:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    if given.step:
        rows, seconds = STEPS[given.step](SegmentStore(given.root), given.rows[0])
        print(json.dumps([rows, seconds, peak_megabytes()]))
        return
    print("segments: rows of one hour in one ingestion; rows/s and peak MB, a process each")
    for rows in given.rows:
        with TemporaryDirectory() as folder:
            found = {}
            for step in STEPS:
                command = [sys.executable, __file__, "--rows", str(rows), "--step", step, "--root", folder]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[step] = json.loads(done.stdout.splitlines()[-1])
            cells = [f"{step} {n / s:>10,.0f} rows/s {peak:6.0f} MB" for step, (n, s, peak) in found.items()]
            ratio = found["read"][1] / found["in memory"][1]
            print(f"  {rows:<11,}" + "   ".join(cells) + f"   ours takes {ratio:.2f} of the time in memory", flush=True)
    with TemporaryDirectory() as folder:
        rows_in(Path(folder))
    print("segments: a usual network")
    with TemporaryDirectory() as folder:
        windows(SegmentStore(Path(folder)))
    with TemporaryDirectory() as folder:
        compaction(SegmentStore(Path(folder)))
    with TemporaryDirectory() as folder:
        busy(Path(folder))


if __name__ == "__main__":
    main()
