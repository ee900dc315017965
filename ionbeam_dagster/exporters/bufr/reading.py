"""Files are read back, with eccodes: a decoder that is not ours.

Belongs here: the reading of messages, the comparison with what was written, and what a person is told of a file. Does
not belong here: what is counted while a file is written (tally.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ionbeam_dagster.exporters.bufr.messages import BufrError
from ionbeam_dagster.exporters.bufr.tally import BufrCounts, Tally
from ionbeam_dagster.exporters.bufr.templates import (
    AIR,
    ASSOCIATED_BITS,
    ECCODES,
    FIXED,
    LATITUDE,
    LONGITUDE,
    MOBILE,
    STATION_HEIGHT,
    TEMPLATES,
    Element,
    Template,
    eccodes,
    expansion,
)

_TEMPLATE_NAMES = {template.descriptors: template.name for template in (FIXED, MOBILE, AIR)}


@dataclass(slots=True)
class _ReadBack:
    """What eccodes reads in a file: subsets by template, update sequence numbers, values by element."""

    tallies: dict[str, Tally]
    messages: int = 0
    subsets: Counter[str] = field(default_factory=Counter)
    updates: set[int] = field(default_factory=set)


def read_back(path: Path, written: BufrCounts) -> dict[str, object]:
    """What eccodes reads in a file; raises BufrError where that is something else than what was `written`."""
    read = _read(path, written.tallies)
    _compare(written, read)
    return {
        "read by": f"eccodes {eccodes().codes_get_api_version()}",
        "messages": read.messages,
        "elements": {
            name: {"values": tally.count, "minimum": tally.low, "maximum": tally.high}
            for name, tally in sorted(read.tallies.items())
            if tally.count
        },
    }


def describe_bufr(path: Path) -> tuple[dict[str, str], pl.DataFrame]:
    """What is inside a BUFR file: facts about it, and a row (column, unit, values, minimum, maximum) for each element.

    Raises BufrError where eccodes cannot read it.
    """
    elements = {target: element for template in TEMPLATES for target, element in _filled_elements(template).items()}
    try:
        read = _read(path, elements)
    except eccodes().CodesInternalError as error:
        raise BufrError(f"eccodes cannot read {path}: {error}") from error
    rows = [
        (f"{elements[name].descriptor} {name}", elements[name].unit, tally.count, f"{tally.low:g}", f"{tally.high:g}")
        for name, tally in read.tallies.items()
        if tally.count
    ]
    facts = {
        "messages": f"{read.messages:,}",
        "subsets": ", ".join(f"{count:,} of {name}" for name, count in read.subsets.items()),
        "update sequence number": ", ".join(map(str, sorted(read.updates))),
    }
    return facts, pl.DataFrame(rows, ["column", "unit", "values", "minimum", "maximum"], orient="row")


def _read(path: Path, names: Iterable[str]) -> _ReadBack:
    library, read = eccodes(), _ReadBack({name: Tally() for name in names})
    with ECCODES, path.open("rb") as file:
        while (handle := library.codes_bufr_new_from_file(file)) is not None:
            try:
                read.messages += 1
                number = library.codes_get(handle, "numberOfSubsets")
                read.updates.add(library.codes_get(handle, "updateSequenceNumber"))
                descriptors = tuple(library.codes_get_array(handle, "unexpandedDescriptors").tolist())
                read.subsets[_TEMPLATE_NAMES.get(descriptors, str(descriptors))] += number
                library.codes_set(handle, "skipExtraKeyAttributes", 1)  # units and widths, which would take time
                library.codes_set(handle, "unpack", 1)
                for name, tally in read.tallies.items():
                    _read_values(library, handle, name, number, tally)
            finally:
                library.codes_release(handle)
    return read


def _filled_elements(template: Template) -> dict[str, Element]:
    """The elements of a template that exports fill, and the associated field of each."""
    expanded = expansion(template)
    nodes = [expanded.node(code) for code in (LATITUDE, LONGITUDE, STATION_HEIGHT)]
    for slot in template.slots:
        for node in (expanded.node(code) for code in slot.codes):
            nodes += [node] if node is None else [node, expanded.quality(node)]
    return {expanded.elements[node].name: expanded.elements[node] for node in nodes if node is not None}


def _read_values(library: Any, handle: int, name: str, subsets: int, tally: Tally) -> None:
    """Add the values of an element, wherever in the message they stand; what all subsets share is told once."""
    element = name.split("->")[0]
    rank = 0
    while library.codes_is_defined(handle, f"#{(rank := rank + 1)}#{element}"):
        if name != element and not library.codes_is_defined(handle, f"#{rank}#{name}"):
            continue
        values = library.codes_get_double_array(handle, f"#{rank}#{name}")
        one_for_all = len(values) == 1
        # eccodes knows no missing associated field: it tells that all bits are set.
        missing = library.CODES_MISSING_DOUBLE if name == element else 2.0**ASSOCIATED_BITS - 1
        if missing in (values.min(), values.max()):
            values = values[values != missing]
        if len(values):
            alike = subsets if one_for_all else 1
            tally.add(len(values) * alike, float(values.sum()) * alike, float(values.min()), float(values.max()))


def _compare(written: BufrCounts, reading: _ReadBack) -> None:
    if (reading.messages, reading.subsets) != (written.messages, +written.subsets):
        raise BufrError(
            f"eccodes reads {reading.messages} messages with {dict(reading.subsets)} subsets, but "
            f"{written.messages} with {dict(written.subsets)} were written"
        )
    for name, tally in written.tallies.items():
        read = reading.tallies[name]
        if read.count != tally.count:
            raise BufrError(f"eccodes reads {read.count} values of {name}, but {tally.count} were written")
        sums = read.sum_and_bounds, tally.sum_and_bounds
        if tally.count and not np.allclose(*sums, rtol=1e-12, atol=tally.step / 100):
            raise BufrError(f"eccodes reads {name} with sum, minimum and maximum {sums[0]}, but {sums[1]} were written")
