"""Reports become messages: compressed, of many subsets that have the same values, each with the sections around it.

Belongs here: the writing of a window's file, the layout of a message and its sections. Does not belong here: what the
columns of a message hold (reports.py), or how one becomes bits (packing.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION, columns_of
from ionbeam_dagster.exporters.bufr.mapping import Form
from ionbeam_dagster.exporters.bufr.packing import Bits, packed_integers, packed_quality, packed_texts, the_same
from ionbeam_dagster.exporters.bufr.reports import (
    MOBILE_COLUMN,
    ROWS_PER_BATCH,
    Columns,
    barometers_of,
    count_homeless,
    header_of,
    mobile_rows,
    moving_stations,
    quality_of,
    shapes_of,
    values_of,
)
from ionbeam_dagster.exporters.bufr.settings import BufrSettings
from ionbeam_dagster.exporters.bufr.station_ids import CALLED_BY, StationIds
from ionbeam_dagster.exporters.bufr.tally import BufrCounts
from ionbeam_dagster.exporters.bufr.templates import (
    ASSOCIATED_FIELD,
    AUTOMATIC,
    BAROMETER_HEIGHT,
    HEADER,
    MASTER_TABLES,
    MISSING,
    STATION_HEIGHT,
    STATION_TYPE,
    Element,
    Place,
    expansion,
)
from ionbeam_dagster.exporters.stations import WIGOS_COLUMN

Named = tuple[Any, ...]
"""What one station is called, by each of `CALLED_BY`."""


class BufrError(Exception):
    """A dataset cannot become BUFR, or a file holds something else than what was written."""


@dataclass(frozen=True, slots=True)
class About:
    """What the messages of a window, and their names, say of it."""

    dataset: str
    start: datetime
    revision: int

    @classmethod
    def of(cls, schema: pa.Schema) -> About:
        """Read it from the schema of a dataset file; raises BufrError where it does not tell its window."""
        told = json.loads((schema.metadata or {}).get(b"ionbeam", b"{}"))
        if "window_start" not in told:
            raise BufrError("it does not tell the start of its window, which every dataset file does; build it again")
        start = datetime.fromisoformat(told["window_start"]).astimezone(UTC)
        return cls(told.get("dataset", ""), start, int(told.get("revision", 1)))


def write_messages(
    source: pq.ParquetFile, forms: list[Form], about: About, settings: BufrSettings, draft: Path
) -> BufrCounts:
    """Write the rows of `source` to `draft`, by the `forms` that take any of its variables, if there are any."""
    written = BufrCounts(StationIds(settings))
    writers = [_Writer(form, about, settings) for form in forms if form.targets]
    if not writers:
        return written
    schema = source.schema_arrow
    described = columns_of(schema, "metadata")
    height = next((name for name in HEIGHT_COLUMNS if name in described), None)
    about_stations = [name for name in (STATION, MOBILE_COLUMN, WIGOS_COLUMN, height) if name in described]
    values = sorted({column for writer in writers for target in writer.form.targets for column in target.columns})
    moved = moving_stations(source) if STATION in described else pa.array([], pa.string())
    last: Named = ()
    with draft.open("wb") as file:
        for batch in source.iter_batches(ROWS_PER_BATCH, columns=["datetime", "lat", "lon", *about_stations, *values]):
            is_mobile = mobile_rows(batch, moved)
            header = header_of(batch, height, is_mobile, written)
            count_homeless(batch, forms, is_mobile, written)
            told = np.zeros(batch.num_rows, bool)
            for writer in writers:
                stations = {"fixed": ~is_mobile, "mobile": is_mobile}.get(writer.form.template.stations)
                rows = np.arange(batch.num_rows) if stations is None else np.flatnonzero(stations)
                told[writer.write(batch, rows, header, written, file)] = True
            last = _count_stations(header, told, last, written)
    return written


def _count_stations(
    header: Mapping[int, npt.NDArray[Any]], told: npt.NDArray[np.bool_], last: Named, written: BufrCounts
) -> Named:
    """Count the changes of what stations are called in rows that are ordered by station."""
    called = [header[code][told] for code in CALLED_BY]
    if not len(called[0]):
        return last
    changed = np.logical_or.reduce([column[1:] != column[:-1] for column in called])
    written.stations += int(np.count_nonzero(changed)) + int(tuple(column[0] for column in called) != last)
    return tuple(column[-1] for column in called)


class _Writer:
    """Packs the reports of one template into messages."""

    def __init__(self, form: Form, about: About, settings: BufrSettings) -> None:
        self.form = form
        self._about = about
        self._settings = settings
        self._expansion = expansion(form.template)
        self._rounds = form.rounds
        self._layouts: dict[int, _Layout] = {}

    def write(
        self,
        batch: pa.RecordBatch,
        rows: npt.NDArray[np.int64],
        header: Mapping[int, npt.NDArray[Any]],
        written: BufrCounts,
        file: BinaryIO,
    ) -> npt.NDArray[np.int64]:
        """Append the messages of `rows`; returns those rows that had a value to tell."""
        if not len(rows):
            return rows
        columns = values_of(self.form, batch, rows, written)
        present = {place: column != MISSING for place, column in columns.items()}
        shapes = shapes_of(self.form, present, len(rows))
        columns |= quality_of(self.form, batch, rows, present, shapes, written)
        columns |= barometers_of(self.form, present, header[STATION_HEIGHT][rows])
        some = np.logical_or.reduce(list(present.values()))
        told = rows[some]
        if not len(told):
            return told
        for place, column in columns.items():
            written.tally(self._expansion.elements[place[0]], column)
        for code, column in header.items():
            node = self._expansion.node(code)
            if node is not None:
                columns[node, 0] = column[rows]
                if column.dtype.kind == "i":
                    written.tally(self._expansion.elements[node], column[told])
        order = np.flatnonzero(some)
        order = order[np.argsort(shapes[order], kind="stable")]
        starts = np.flatnonzero(np.diff(shapes[order], prepend=MISSING)).tolist()
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            layout = self._layout(int(shapes[order[start]]))
            of_shape = {place: column[order[start:end]] for place, column in columns.items()}
            for first in range(0, end - start, self._settings.subsets_per_message):
                last = min(first + self._settings.subsets_per_message, end - start)
                chunk = {place: column[first:last] for place, column in of_shape.items()}
                for message in self._messages(layout, chunk, last - first):
                    file.write(message)
                    written.messages += 1
        written.subsets[self.form.template.name] += len(told)
        return told

    def _layout(self, shape: int) -> _Layout:
        if shape not in self._layouts:
            rounds: dict[int, list[int]] = {}
            for bit, (block, turn) in enumerate(self._rounds):
                if shape >> bit & 1:
                    rounds.setdefault(block, []).append(turn)
            self._layouts[shape] = _Layout.of(self.form, rounds)
        return self._layouts[shape]

    def _messages(self, layout: _Layout, chunk: Columns, subsets: int) -> Iterator[bytes]:
        message = self._message(layout.packed(chunk), subsets)
        if len(message) <= self._settings.bytes_per_message or subsets == 1:
            yield message
            return
        half = subsets // 2
        yield from self._messages(layout, {place: column[:half] for place, column in chunk.items()}, half)
        yield from self._messages(layout, {place: column[half:] for place, column in chunk.items()}, subsets - half)

    def _message(self, data: bytes, subsets: int) -> bytes:
        start, template = self._about.start, self.form.template
        update = min(self._about.revision - 1, 254)
        typical = start.year.to_bytes(2) + bytes([start.month, start.day, start.hour, start.minute, start.second])
        sender = self._settings.centre.to_bytes(2) + self._settings.sub_centre.to_bytes(2)
        # Master table 0; no optional section; category, international and local sub-category; table versions.
        identification = b"\0" + sender + bytes([update, 0, *template.category, 0, MASTER_TABLES, 0]) + typical
        observed_and_compressed = 0b1100_0000
        descriptors = b"".join(
            (code // 100_000 << 14 | code // 1000 % 100 << 8 | code % 1000).to_bytes(2) for code in template.descriptors
        )
        description = b"\0" + subsets.to_bytes(2) + bytes([observed_and_compressed]) + descriptors
        sections = b"".join((len(body) + 3).to_bytes(3) + body for body in (identification, description, b"\0" + data))
        return b"BUFR" + (len(sections) + 12).to_bytes(3) + b"\4" + sections + b"7777"


@dataclass(frozen=True, slots=True)
class _Layout:
    """The data section of a shape: bits that are always the same, and between them the columns, with their elements."""

    parts: tuple[Bits | tuple[Place, Element], ...]

    @classmethod
    def of(cls, form: Form, rounds: Mapping[int, list[int]]) -> _Layout:
        expanded = expansion(form.template)
        columns = {target.place for target in form.targets}
        columns |= {target.quality for target in form.targets if target.quality}
        columns |= {(node, 0) for code in (*HEADER, BAROMETER_HEIGHT) if (node := expanded.node(code)) is not None}
        always = dict(form.fixed)
        always |= {(node + 1, 0): len(rounds.get(node, ())) for node in expanded.rounds if node}
        if (node := expanded.node(STATION_TYPE)) is not None:
            always[node, 0] = AUTOMATIC
        parts: list[Any] = []
        waiting: list[Bits] = []
        for place in expanded.places(rounds):
            element = expanded.elements[place[0]]
            if place in columns:
                parts += [np.concatenate(waiting)] if waiting else []
                parts.append((place, element))
                waiting = []
            else:
                # Without flags of quality, their significance is missing as well: nothing is said about the values.
                waiting.append(the_same(always.get(place, MISSING), element.width))
        return cls((*parts, *([np.concatenate(waiting)] if waiting else [])))

    def packed(self, columns: Columns) -> bytes:
        """The data section for columns of one length."""
        bits = []
        for part in self.parts:
            if isinstance(part, np.ndarray):
                bits.append(part)
            else:
                place, element = part
                if element.is_text:
                    bits += packed_texts(columns[place], element.width)
                elif element.code == ASSOCIATED_FIELD:
                    bits += packed_quality(columns[place], element.width)
                else:
                    bits += packed_integers(columns[place], element.width)
        return np.packbits(np.concatenate(bits)).tobytes()
