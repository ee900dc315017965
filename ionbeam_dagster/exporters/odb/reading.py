"""ODB files as a decoder that is not ours reads them: the `odc` command, or codc where that is missing.

Belongs here: reading a file back, its comparison with what was written, and what a file holds in a few words. Does not
belong here: what becomes of a file that does not read back (`OdbExporter`).
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl

from ionbeam_dagster.exporters.odb.tables import STATUS_BITS, STATUSES, VARNOS, label_of
from ionbeam_dagster.exporters.odb.tally import OdbCounts


class OdbError(Exception):
    """An ODB file could not be read, or holds something else than what was written."""


def odc_command() -> str | None:
    """The command that the wheel of odc brings, or else one that is installed on the machine."""
    package = find_spec("odclib")
    folders = [f"{folder}/bin" for folder in (package and package.submodule_search_locations) or ()]
    return shutil.which("odc", path=os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]))


@dataclass(frozen=True, slots=True)
class _ReadBack:
    """What `reader` found: all rows, those of each varno and the sum of their values, and the bounds of lat and lon.

    `quality`: how many values are active, passive and rejected, and the sum of all flags.
    """

    reader: str
    rows: int
    varnos: dict[int, tuple[int, float]]
    place: tuple[float, ...]
    quality: tuple[int, ...]

    def facts(self) -> dict[str, object]:
        varnos = {
            label_of(number): {"rows": rows, "mean": total / rows} for number, (rows, total) in self.varnos.items()
        }
        return {"read by": self.reader, "varnos": varnos}


def read_back(path: Path, written: OdbCounts) -> _ReadBack:
    """Read what can be compared with `written`, preferably in a process of its own."""
    numbers = [number for number, tally in sorted(written.tallies.items()) if tally.count]
    command = odc_command()
    if command is None:
        return _read_by_library(path, numbers)
    # Sums in one group cost odc a third of what bounds in many groups do, and no value can go astray in them.
    by_varno = (f"sum(varno={number}), sum((varno={number})*obsvalue)" for number in numbers)
    places = "min(lat), max(lat), min(lon), max(lon)"
    quality = ", ".join([*(f"sum(datum_status.{bit}=1)" for bit in STATUS_BITS[:3]), "sum(quality)"])
    select = f"select count(*), {quality}, {places}, {', '.join(by_varno)}"
    ((rows, active, passive, rejected, flags, *found),) = _select(command, path, select)
    pairs = zip(found[4::2], found[5::2], strict=True)
    varnos = {number: (int(count), total) for number, (count, total) in zip(numbers, pairs, strict=True)}
    return _ReadBack(
        "odc sql", int(rows), varnos, tuple(found[:4]), tuple(map(int, (active, passive, rejected, flags)))
    )


def _read_by_library(path: Path, numbers: list[int]) -> _ReadBack:
    import codc
    from codc.lib import lib

    lib.odc_integer_behaviour(lib.ODC_INTEGERS_AS_LONGS)
    columns = ["varno@body", "obsvalue@body", "lat@hdr", "lon@hdr", "datum_status@body", "quality@body"]
    reader = codc.Reader(str(path), aggregated=False)  # its frames do not outlive it
    table = pl.concat(pl.from_pandas(frame.dataframe(columns)).select(columns) for frame in reader.frames)
    varno, value, lat, lon, status, flags = (table[name].to_numpy() for name in columns)
    varnos = {n: (int(np.count_nonzero(varno == n)), float(value[varno == n].sum())) for n in numbers}
    place = lat.min(), lat.max(), lon.min(), lon.max()
    of_status = (int(np.count_nonzero(status == code)) for code in STATUSES)
    return _ReadBack("codc", len(table), varnos, place, (*of_status, int(flags.sum())))


def _select(command: str, path: Path, select: str) -> list[list[float]]:
    arguments = ["sql", "-T", "--full_precision", "--no_alignment", "-delimiter", ",", "-i", str(path), select]
    done = subprocess.run([command, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        told = [line.split("Exception: ", 1)[1] for line in done.stderr.splitlines() if "Exception: " in line]
        raise OdbError(f"odc cannot read {path}: {told[0] if told else 'it failed without a word'}")
    return [
        [math.nan if cell.strip() == "NULL" else float(cell) for cell in line.split(",")]
        for line in done.stdout.splitlines()
    ]


_LAST_DECIMAL = 1e-16  # of what odc prints: the v of a wind from due west, 1e-15 m s-1, loses all digits but three


def compare(written: OdbCounts, read: _ReadBack) -> None:
    """Raises OdbError where what was read is not what was written."""
    if read.rows != written.rows:
        raise OdbError(f"{read.reader} reads {read.rows} rows, but {written.rows} were written")
    for number, (rows, total) in read.varnos.items():
        tally = written.tallies[number]
        rounding = 1e-8 * tally.count * max(abs(tally.low), abs(tally.high)) + _LAST_DECIMAL
        if rows != tally.count or not math.isclose(total, tally.total, rel_tol=0, abs_tol=rounding):
            raise OdbError(
                f"{read.reader} reads {rows} values of varno {number} with the sum {total}, "
                f"but {tally.count} with the sum {tally.total} were written"
            )
    if read.quality != written.quality:
        raise OdbError(
            f"{read.reader} reads {read.quality} active, passive and rejected values and the sum of their flags, "
            f"but {written.quality} were written"
        )
    place = written.lat.low, written.lat.high, written.lon.low, written.lon.high
    if not np.allclose(read.place, place, rtol=0, atol=1e-5):
        raise OdbError(f"{read.reader} reads places between {read.place}, but {place} were written")


def describe_odb(path: Path) -> tuple[dict[str, str], pl.DataFrame]:
    """What is inside an ODB-2 file: facts about it, and a row (column, unit, values, minimum, maximum) for each varno.

    Raises OdbError where it cannot be read, or the `odc` command is missing.
    """
    import codc

    command = odc_command()
    if command is None:
        raise OdbError("the odc command is missing; it comes with the package odclib")
    rows = []
    for number, count, low, high in _select(command, path, "select varno, count(*), min(obsvalue), max(obsvalue)"):
        unit = VARNOS[int(number)].unit if int(number) in VARNOS else ""
        rows.append((f"varno {label_of(int(number))}", unit, int(count), f"{low:g}", f"{high:g}"))
    columns = pl.DataFrame(rows, ["column", "unit", "values", "minimum", "maximum"], orient="row")
    facts = {"rows": f"{columns['values'].sum():,}"}
    reader = codc.Reader(str(path), aggregated=False)  # its frames do not outlive it
    return facts | reader.frames[0].properties, columns
