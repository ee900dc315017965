"""ODB-2: one file a window, one row an observed value, as ECMWF and its members read it.

Belongs here: which variable becomes which varno, and the writing and reading back of the file. Does not belong here:
the tables of numbers and names (tables.py), quality control, or when an export is made.

The file is encoded by ECMWF's own library, odc, through its C interface, from whole NumPy columns, a frame at a time.
It is read back by the `odc` command.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ionbeam_client.models import CanonicalVariable, NamePart, Period, format_duration, parse_duration
from ionbeam_dagster.domain import cf
from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION, columns_of, quality_column, variable_of
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.exporters import ExportError, ExportPlan, ExportReport
from ionbeam_dagster.exporters.odb.tables import (
    ACTIVE,
    COLUMNS,
    DEFAULT_RULES,
    DIRECTION,
    EASTWARD,
    GEOPOTENTIAL,
    HEIGHT_OF_COMPONENTS,
    HIGHEST,
    LOWEST,
    NORTHWARD,
    PASSIVE,
    PERIOD_OF_RAIN,
    PRESETS,
    RAIN,
    REJECTED,
    REPORT_TYPES,
    SPEED,
    STANDARD_GRAVITY,
    STATION_ID_WIDTH,
    STATUS_BITS,
    STATUS_OF,
    VARNOS,
    WIGOS_ID_WIDTH,
    Column,
    Rule,
    Varno,
)
from ionbeam_dagster.exporters.stations import fitting, is_wigos_id, numbers_in, position_ids
from ionbeam_dagster.stores.publish import published

ROWS_PER_FRAME = 10_000
VALUES_PER_BATCH = 500_000
PROPERTIES = ("dataset", "window_start", "window_end", "revision", "inputs", "software")

Arrays = dict[str, npt.NDArray[Any]]


def _writable_varno(number: int) -> int:
    if number == PERIOD_OF_RAIN:
        raise ValueError(f"varno {PERIOD_OF_RAIN} is written by itself with {RAIN}, whose period it tells")
    if number not in VARNOS:
        known = ", ".join(f"{varno.number} {varno.name}" for varno in VARNOS.values())
        raise ValueError(f"varno {number} has no known unit; choose from {known}")
    return number


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


class MappedFrom(_Strict):
    """A canonical variable by everything but its unit: any unit that can be converted to the varno's will do."""

    standard_name: NamePart
    level: float = Field(allow_inf_nan=False)
    method: NamePart
    period: Period


class VariableMapping(_Strict):
    """The variables that become `varno`; of several in one dataset, the first in the list. None: it is not written."""

    varno: Annotated[int, AfterValidator(_writable_varno)]
    mapped_from: list[MappedFrom]


class OdbCodes(_Strict):
    """The codes that stand in every row: MARS's (`class`, `type`, `stream`, `expver`) and those of the kind of report.

    `preset` gives the codes of the kind of report, which each may be changed: ``ecmwf_crowd`` (the default), ``synop``
    (automatic land stations) or ``dwd`` (DWD's code of citizens' weather stations). A crowd station must not come in as
    an automatic SYNOP, which assimilation takes by default. `stream` is the one
    whose analyses are six hours apart, as `andate` and `antime` are. `type` is an observation without feedback.
    """

    preset: Literal["ecmwf_crowd", "synop", "dwd"] = "ecmwf_crowd"
    class_: int = Field(default=2, alias="class")
    stream: int = 1025
    type: int = 264
    expver: str = Field(default="xxxx", pattern=r"^[0-9A-Za-z]{4}$")
    reportype: int = 16090
    groupid: int = 17
    obstype: int = 1
    codetype: int = 179

    @model_validator(mode="before")
    @classmethod
    def _of_the_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return PRESETS.get(str(given.get("preset", "ecmwf_crowd")), {}) | given

    @model_validator(mode="after")
    def _codes_agree(self) -> Self:
        kind = REPORT_TYPES.get(self.reportype)
        if kind is None:
            return self
        right = {"groupid": (kind.groupid,), "obstype": (kind.obstype,), "codetype": kind.codetypes}
        for code, allowed in right.items():
            if getattr(self, code) not in allowed:
                raise ValueError(
                    f"reportype {self.reportype} ({kind.meaning}) goes with {code} {' or '.join(map(str, allowed))}, "
                    f"not {getattr(self, code)}"
                )
        return self


class OdbExporter:
    """Writes dataset windows as ODB-2.

    `variable_map` replaces the default mapping of the varnos that it names; a variable that it maps goes where it says
    and nowhere else. Heights come from the first of `HEIGHT_COLUMNS` that the dataset has.
    """

    format: ClassVar[str] = "odb"
    extension: ClassVar[str] = "odb"

    def __init__(self, variable_map: Sequence[VariableMapping] = (), codes: OdbCodes | None = None) -> None:
        self._codes = codes or OdbCodes()
        self._named = tuple(_rule(mapping.varno, source) for mapping in variable_map for source in mapping.mapped_from)
        named = {mapping.varno for mapping in variable_map}
        self._defaults = tuple(rule for rule in DEFAULT_RULES if rule.varno not in named)

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """The varno of each variable column of `schema`, or why it has none."""
        targets, left_out = self._targets(schema)
        mapped: dict[str, str] = {}
        for target in targets:
            mapped[target.column] = "; ".join(filter(None, (mapped.get(target.column), str(target))))
        return ExportPlan(mapped, left_out)

    def export(self, dataset_file: Path, target: Path) -> ExportReport:
        """Write `target` from a dataset file; see `exporters.Exporter`.

        `seen` tells the rows and the mean of each varno as they were read in the new file, and the bounds of what was
        written; what had to be changed or left out; and who read it.
        """
        return self.export_all([dataset_file], target)

    def export_all(
        self, dataset_files: Sequence[Path], target: Path, about: Mapping[str, str] | None = None
    ) -> ExportReport:
        """The same from several files, in their order, in one `target`; a variable may be missing in some of them.

        `about` stands in the file's properties; without it, what the first of them says of itself.
        """
        from codc import ODCException

        try:
            schema = _united([pq.read_schema(file) for file in dataset_files])
            plan = self.plan(schema)
            targets, _ = self._targets(schema)
            with published(target) as draft:
                written = _write(dataset_files, schema, targets, self._codes, about or _told_by(schema), draft)
                if written.rows == 0:
                    draft.unlink(missing_ok=True)
                    target.unlink(missing_ok=True)
                    return ExportReport(rows=0, bytes=0, stations=0, plan=plan)
                seen = _read_back(draft, written)
                _compare(written, seen)
                size = draft.stat().st_size
        except (OSError, pa.ArrowException, ODCException, OdbError) as error:
            of = ", ".join(map(str, dataset_files))
            raise ExportError(f"{target} was not written from {of}: {error}") from error
        return ExportReport(
            rows=written.rows,
            bytes=size,
            stations=written.station_ids.count,
            plan=plan,
            seen=seen.facts() | written.facts(),
        )

    def _targets(self, schema: pa.Schema) -> tuple[list[_Target], dict[str, str]]:
        """The columns that are written, by varno, and why the others are not."""
        candidates: dict[int, list[tuple[Any, _Target]]] = {}
        left_out: dict[str, str] = {}
        for place, name in enumerate(columns_of(schema, "variable")):
            variable = variable_of(schema.field(name))
            try:
                for order, rule in self._rules_for(variable, schema.field(name).type):
                    target = _target(name, variable, VARNOS[rule.varno], quality_column(schema, name, "flag"))
                    rank = order, variable.method != "point", parse_duration(variable.period), place
                    candidates.setdefault(rule.varno, []).append((rank, target))
            except _NotMapped as reason:
                left_out[name] = str(reason)
        chosen = []
        for number, found in sorted(candidates.items()):
            (best, winner), *others = sorted(found, key=lambda one: one[0])
            chosen.append(winner)
            for rank, loser in others:
                left_out[loser.column] = f"varno {number} is taken by {winner.column}, {_why_better(best, rank)}"
        for target in chosen:
            left_out.pop(target.column, None)
        return self._with_components(chosen), left_out

    def _with_components(self, targets: list[_Target]) -> list[_Target]:
        """`targets`, and the wind's components where only its speed and direction are told, both at 10 m."""
        of = {target.varno.number: target for target in targets}
        by_default = {rule.varno for rule in self._defaults} >= {EASTWARD, NORTHWARD}
        if not by_default or EASTWARD in of or NORTHWARD in of or not of.keys() >= {SPEED, DIRECTION}:
            return targets
        speed, direction = of[SPEED], of[DIRECTION]
        if not speed.height == direction.height == HEIGHT_OF_COMPONENTS or speed.period != direction.period:
            return targets
        made = [replace(speed, varno=VARNOS[number], direction=direction) for number in (EASTWARD, NORTHWARD)]
        return sorted([*targets, *made], key=lambda target: target.varno.number)

    def _rules_for(self, variable: CanonicalVariable, dtype: pa.DataType) -> list[tuple[int, Rule]]:
        """The rules that `variable` meets, each with its place in the variable map; raises _NotMapped with a reason."""
        if cf.is_local(variable.standard_name):
            raise _NotMapped(f"{variable.standard_name} is a name of this platform; no varno stands for it")
        if not (pa.types.is_floating(dtype) or pa.types.is_integer(dtype)):
            raise _NotMapped(f"its values are {dtype}, not numbers")
        named = [(place, rule, _mismatches(rule, variable)) for place, rule in enumerate(self._named)]
        default = [(0, rule, _mismatches(rule, variable)) for rule in self._defaults]
        met = [(place, rule) for place, rule, wrong in named if wrong == []]
        met = met or [(place, rule) for place, rule, wrong in default if wrong == []]
        if met:
            return met
        near = [(rule, wrong) for _, rule, wrong in (*named, *default) if wrong is not None]
        if not near:
            raise _NotMapped(f"no varno is mapped from {variable.standard_name}")
        rule, wrong = min(near, key=lambda one: len(one[1]))
        varno = f"varno {rule.varno} ({VARNOS[rule.varno].name})"
        raise _NotMapped(f"{varno} is {'; '.join(wrong)}; name it under variable_map to write it all the same")


class OdbError(Exception):
    """An ODB file could not be read, or holds something else than what was written."""


# The mapping.


@dataclass(frozen=True, slots=True)
class _Target:
    """A column that becomes `varno` by scale and offset, with the column of its quality flags.

    With a `direction` it is a wind speed that becomes the component `varno`. `hours`: the period to write with a rain
    amount.
    """

    column: str
    varno: Varno
    scale: float
    offset: float
    flag: str | None
    height: float
    period: timedelta
    hours: float | None = None
    direction: _Target | None = None

    def __str__(self) -> str:
        pair = f", its {self.hours:.3g} h as varno {VARNOS[PERIOD_OF_RAIN]}" if self.hours else ""
        pair += f" with {self.direction.column}" if self.direction else ""
        return f"odb varno {self.varno}{pair}"

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.column, self.flag) if name]


class _NotMapped(Exception):
    """The reason for which a variable has no varno."""


def _rule(varno: int, source: MappedFrom) -> Rule:
    period = parse_duration(source.period)
    return Rule(varno, (source.standard_name,), (source.level, source.level), (source.method,), (period, period))


def _current_name(standard_name: str) -> str:
    return cf.lookup(standard_name).current[0]


def _mismatches(rule: Rule, variable: CanonicalVariable) -> list[str] | None:
    """What keeps `variable` from meeting `rule`: nothing ([]), some properties, or (None) its name."""
    if _current_name(variable.standard_name) not in map(_current_name, rule.standard_names):
        return None
    wrong = []
    if not rule.levels[0] <= variable.level <= rule.levels[1]:
        wrong.append(f"mapped for level {_span(*rule.levels)}, but this one is at {variable.level}")
    if variable.method not in rule.methods:
        wrong.append(f"mapped for method {' or '.join(rule.methods)}, but this one is {variable.method}")
    if not rule.periods[0] <= parse_duration(variable.period) <= rule.periods[1]:
        periods = _span(*map(format_duration, rule.periods))
        wrong.append(f"mapped for period {periods}, but this one is {variable.period}")
    return wrong


def _span(low: object, high: object) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _target(column: str, variable: CanonicalVariable, varno: Varno, flag: str | None) -> _Target:
    try:
        scale, offset = cf.conversion(variable.cf_unit, varno.unit)
    except cf.UnitError as error:
        raise _NotMapped(f"varno {varno} cannot be made of it: {error}") from error
    period = parse_duration(variable.period)
    hours = period / timedelta(hours=1) if varno.number == RAIN else None
    return _Target(column, varno, scale, offset, flag, variable.level, period, hours or None)


def _why_better(best: tuple[Any, ...], rank: tuple[Any, ...]) -> str:
    differs = next(place for place, (one, other) in enumerate(zip(best, rank, strict=True)) if one != other)
    return (
        "which stands first in variable_map",
        "which is a value at a point in time",
        "which covers a shorter period",
        "which comes first",
    )[differs]


# What stations are called.


class _StationIds:
    """What stations are called: the same in every window.

    `statid` has 8 characters, to the right as in IFS's files. A longer id loses its separators (``ab-12-cd-34`` is
    ``ab12cd34``), and where that is not enough, or it has letters that ASCII has nothing for, it becomes 8 letters and
    digits of its SHA-256 (see `fitting`). WMO's ``0-20000-0-06260`` is ``06260``. A station without an id is called by
    its position in the same way. `wigosid` is the id of a station whose id is a WIGOS one.
    """

    def __init__(self) -> None:
        self._fitted: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._places: set[str] = set()

    def of(
        self, names: pa.Array, lat: npt.NDArray[np.float64], lon: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.bytes_]]:
        """`statid` and `wigosid` for an array of names, nulls included."""
        names = names.cast(pa.string())
        absent = pc.fill_null(pc.equal(names, ""), True).to_numpy(zero_copy_only=False)
        if absent.any():
            places = pa.array(position_ids(lat[absent], lon[absent]).astype(str))
            self._places.update(pc.unique(places).to_pylist())
            names = pc.replace_with_mask(names, pa.array(absent), places)
        encoded = pc.dictionary_encode(names)
        known, number = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        statid = np.array([self._fit(name) for name in known], f"S{STATION_ID_WIDTH}")
        wigosid = np.array([name if is_wigos_id(name) else "" for name in known], f"S{WIGOS_ID_WIDTH}")
        return statid[number], wigosid[number]

    @property
    def count(self) -> int:
        return len(self._fitted)

    def facts(self) -> dict[str, object]:
        shared = len(self._fitted) - len(set(self._fitted.values()))
        facts: dict[str, object] = {"station ids changed": len(self._changed - self._places)}
        facts |= {"station ids shared by several stations": shared} if shared else {}
        return facts | ({"stations without an id": "called by their position"} if self._places else {})

    def _fit(self, name: str) -> bytes:
        if name not in self._fitted:
            name_of_wmo = re.fullmatch(r"0-20000-0-([0-9]{5})", name)
            as_it_is = len(name) <= STATION_ID_WIDTH and name.isascii() and name.isprintable()
            if not as_it_is:
                self._changed.add(name)
            short = name_of_wmo[1] if name_of_wmo else name
            fitted = name if as_it_is else fitting(short, STATION_ID_WIDTH)
            self._fitted[name] = fitted.rjust(STATION_ID_WIDTH).encode()
        return self._fitted[name]


# Rows: a batch of reports (one a station and time) becomes rows (one a value) without a loop over either.


@dataclass(slots=True)
class _Tally:
    """How many values there are, their sum, and their bounds, as they are in REAL."""

    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: npt.NDArray[np.float32]) -> None:
        if len(values):
            self.count += len(values)
            self.total += float(values.sum(dtype=np.float64))
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))


@dataclass(slots=True)
class _Written:
    """What went into a file: by varno, by place, and what had to be changed."""

    tallies: dict[int, _Tally] = field(default_factory=dict)
    lat: _Tally = field(default_factory=_Tally)
    lon: _Tally = field(default_factory=_Tally)
    beyond: int = 0
    heights: int = 0
    flags: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(max(Flag) + 1, np.int64))
    station_ids: _StationIds = field(default_factory=_StationIds)

    @property
    def rows(self) -> int:
        return sum(tally.count for tally in self.tallies.values())

    def facts(self) -> dict[str, object]:
        bounds = {_label(number): [tally.low, tally.high] for number, tally in sorted(self.tallies.items())}
        facts: dict[str, object] = {"reports": self.lat.count, "bounds": bounds} | self.station_ids.facts()
        facts["quality"] = {flag.name.lower(): int(self.flags[flag]) for flag in STATUS_OF if self.flags[flag]}
        facts |= {"heights that no station has, left out": self.heights} if self.heights else {}
        return facts | ({"values beyond REAL": self.beyond} if self.beyond else {})


@dataclass(frozen=True, slots=True)
class _Reports:
    """`values`: float32, a row a report and a column a varno, NaN where there is none; `flags`: of each, its quality.

    `header`: an array a column.
    """

    values: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]
    header: Arrays


def _united(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The columns of all `schemas`, each as it comes first."""
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for each in schema:
            fields.setdefault(each.name, each)
    return pa.schema(fields.values(), schemas[0].metadata)


def _told_by(schema: pa.Schema) -> dict[str, str]:
    about = json.loads((schema.metadata or {}).get(b"ionbeam", b"{}"))
    return {key: str(about[key]) for key in PROPERTIES if key in about}


def _write(
    files: Sequence[Path],
    schema: pa.Schema,
    targets: list[_Target],
    codes: OdbCodes,
    properties: Mapping[str, str],
    draft: Path,
) -> _Written:
    written = _Written()
    if not targets:
        return written
    height = next((name for name in HEIGHT_COLUMNS if name in columns_of(schema, "metadata")), None)
    columns = [name for name in ("datetime", "lat", "lon", STATION, height) if name in schema.names]
    columns += sorted({column for target in targets for column in target.columns})
    varnos = _varnos_of(targets)
    encoder = _Encoder(_layout(varnos), _constants(codes), properties)
    batch_rows = max(ROWS_PER_FRAME // 2, VALUES_PER_BATCH // len(varnos))
    wanted = pa.schema([schema.field(name) for name in columns])
    with draft.open("wb") as file:
        for batch in _batches(files, wanted, batch_rows):
            reports = _reports(batch, targets, varnos, height, written)
            for frame in _frames(reports, varnos):
                encoder.write(frame, file)
    return written


def _batches(files: Sequence[Path], wanted: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The columns `wanted` of each file, null where it has none of that name."""
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 18) as source:
            there = [name for name in wanted.names if name in source.schema_arrow.names]
            for batch in source.iter_batches(rows, columns=there):
                for name in set(wanted.names).difference(there):
                    batch = batch.append_column(name, pa.nulls(batch.num_rows, wanted.field(name).type))
                yield batch


def _varnos_of(targets: list[_Target]) -> list[Varno]:
    varnos = {target.varno.number: target.varno for target in targets}
    if any(target.hours for target in targets):
        varnos[PERIOD_OF_RAIN] = VARNOS[PERIOD_OF_RAIN]
    return [varnos[number] for number in sorted(varnos)]


def _layout(varnos: list[Varno]) -> list[Column]:
    if all(varno.at == "station" for varno in varnos):
        return list(COLUMNS)
    vertical = [column for column in COLUMNS if column[0].startswith("vertco")]
    others = [column for column in COLUMNS if column not in vertical]
    entry = others.index(("entryno@body", "INTEGER"))
    return others[:entry] + vertical + others[entry:]


def _constants(codes: OdbCodes) -> dict[str, int | bytes]:
    return {
        "type": codes.type,
        "class": codes.class_,
        "stream": codes.stream,
        "expver": codes.expver.rjust(8).encode(),  # as IFS writes it
        "reportype": codes.reportype,
        "groupid@hdr": codes.groupid,
        "obstype@hdr": codes.obstype,
        "codetype@hdr": codes.codetype,
    }


def _reports(
    batch: pa.RecordBatch, targets: list[_Target], varnos: list[Varno], height: str | None, written: _Written
) -> _Reports:
    """The rows of `batch` that have at least one value, in the units of their varnos."""
    values = np.full((batch.num_rows, len(varnos)), np.nan, np.float32)
    flags = np.full(values.shape, Flag.NOT_EVALUATED, np.uint8)
    place = {varno.number: number for number, varno in enumerate(varnos)}
    for target in targets:
        number = place[target.varno.number]
        values[:, number], flags[:, number] = _converted(batch, target, written)
        _tally(written, target.varno.number, values[:, number])
        if target.hours:
            period = place[PERIOD_OF_RAIN]
            values[:, period] = np.where(np.isnan(values[:, number]), np.nan, np.float32(target.hours))
            flags[:, period] = flags[:, number]
            _tally(written, PERIOD_OF_RAIN, values[:, period])
    absent = np.isnan(values)
    written.flags += np.bincount(flags[~absent], minlength=len(written.flags))
    some = ~absent.all(axis=1)
    if not some.all():
        batch, values, flags, absent = batch.filter(pa.array(some)), values[some], flags[some], absent[some]
    header = _header(batch, height, written)
    # A report is as good as its best value.
    header["report_status@hdr"] = np.where(absent, REJECTED, _STATUS[flags]).min(axis=1)
    return _Reports(values, flags, header)


_STATUS = np.zeros(max(Flag) + 1, np.int64)
_STATUS[list(STATUS_OF)] = list(STATUS_OF.values())
_STATUSES = ACTIVE, PASSIVE, REJECTED


def _converted(
    batch: pa.RecordBatch, target: _Target, written: _Written
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A column's values in the unit of its varno, as REAL keeps them, NaN where there is none; and their flags."""
    values, flags = _scaled(batch, target), _flags(batch, target)
    if target.direction:
        values, flags = _component(values, flags, batch, target)
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32)
    beyond = np.isinf(converted)
    written.beyond += int(np.count_nonzero(beyond))
    converted[beyond] = np.nan
    return converted, flags


def _component(
    speed: npt.NDArray[np.float64], flags: npt.NDArray[np.uint8], batch: pa.RecordBatch, target: _Target
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """The component of a wind along `target.varno`, as good as the worse of speed and direction. A calm has none."""
    assert target.direction is not None
    direction = np.radians(_scaled(batch, target.direction))
    turn = np.sin if target.varno.number == EASTWARD else np.cos
    calm = speed == 0
    flags = np.where(calm, flags, np.maximum(flags, _flags(batch, target.direction)))
    return np.where(calm, 0.0, -speed * turn(direction)), flags


def _scaled(batch: pa.RecordBatch, target: _Target) -> npt.NDArray[np.float64]:
    raw = batch.column(target.column).to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return np.asarray(raw * target.scale + target.offset)


def _flags(batch: pa.RecordBatch, target: _Target) -> npt.NDArray[np.uint8]:
    """The quality flags of a column; what has none, or one that is not known, was not evaluated."""
    if target.flag is None:
        return np.full(batch.num_rows, Flag.NOT_EVALUATED, np.uint8)
    flags = batch.column(target.flag).fill_null(int(Flag.NOT_EVALUATED)).to_numpy(zero_copy_only=False)
    known = np.isin(flags, np.array([int(flag) for flag in STATUS_OF], np.uint8))
    return np.where(known, flags, Flag.NOT_EVALUATED).astype(np.uint8)


def _tally(written: _Written, number: int, values: npt.NDArray[np.float32]) -> None:
    written.tallies.setdefault(number, _Tally()).add(values[~np.isnan(values)])


def _header(batch: pa.RecordBatch, height: str | None, written: _Written) -> Arrays:
    seconds = batch.column("datetime").cast(pa.timestamp("s", "UTC"), safe=False).cast(pa.int64()).to_numpy()
    date, time = _calendar(seconds)
    # The analyses of 00, 06, 12 and 18 take what was observed from three hours before to three hours after.
    andate, antime = _calendar((seconds + 3 * 3600) // (6 * 3600) * (6 * 3600))
    lat, lon = batch.column("lat").to_numpy(), batch.column("lon").to_numpy()
    altitude = numbers_in(batch.column(height)) if height else np.full(batch.num_rows, np.nan)
    impossible = (altitude < LOWEST) | (altitude > HIGHEST)
    written.heights += int(np.count_nonzero(impossible))
    altitude[impossible] = np.nan
    names = batch.column(STATION) if STATION in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
    statid, wigosid = written.station_ids.of(names, lat, lon)
    seqno = np.arange(written.lat.count + 1, written.lat.count + batch.num_rows + 1)
    written.lat.add(lat.astype(np.float32))
    written.lon.add(lon.astype(np.float32))
    return {
        "andate": andate,
        "antime": antime,
        "statid@hdr": statid,
        "wigosid@hdr": wigosid,
        "stalt@hdr": altitude,
        "lat@hdr": lat,
        "lon@hdr": lon,
        "date@hdr": date,
        "time@hdr": time,
        "seqno@hdr": seqno,
    }


def _calendar(seconds: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """YYYYMMDD and HHMMSS, as integers, of seconds since 1970."""
    days, second = np.divmod(seconds, 86_400)
    first, last = (days.min(), days.max()) if len(days) else (0, 0)
    dates = np.arange(first, last + 1).astype("datetime64[D]").astype(str)
    of_day = np.char.replace(dates, "-", "").astype(np.int64)
    return of_day[days - first], second // 3600 * 10_000 + second // 60 % 60 * 100 + second % 60


def _frames(reports: _Reports, varnos: list[Varno]) -> Iterator[Arrays]:
    """The rows of `reports`, in the order of reports and then varnos, a frame at a time."""
    numbers = np.array([varno.number for varno in varnos])
    at_sea_level = np.array([varno.at == "sea level" for varno in varnos])
    geopotential = reports.header["stalt@hdr"] * STANDARD_GRAVITY
    values, flags = reports.values.ravel(), reports.flags.ravel()
    present = np.flatnonzero(~np.isnan(values))
    for start in range(0, len(present), ROWS_PER_FRAME):
        taken = present[start : start + ROWS_PER_FRAME]
        report, entry = np.divmod(taken, len(varnos))
        reference = np.where(at_sea_level[entry], 0.0, geopotential[report])
        yield {name: column[report] for name, column in reports.header.items()} | {
            # IFS takes a surface value as one at the station's height; a reduced pressure as one at height 0.
            "vertco_type@body": np.where(np.isnan(reference), np.nan, GEOPOTENTIAL),
            "vertco_reference_1@body": reference,
            "entryno@body": entry + 1,
            "varno@body": numbers[entry],
            "obsvalue@body": values[taken],
            "datum_status@body": _STATUS[flags[taken]],
            "quality@body": flags[taken],
        }


# odc's C interface.


class _Encoder:
    """Encodes frames whose `constants` and `properties` are the same. It belongs to the thread that made it."""

    def __init__(self, columns: list[Column], constants: dict[str, int | bytes], properties: Mapping[str, str]) -> None:
        from codc.lib import ffi, lib

        self._ffi, self._lib, self._columns = ffi, lib, columns
        # A thread that has not been told otherwise takes integers for doubles, and writes each as 0.
        lib.odc_integer_behaviour(lib.ODC_INTEGERS_AS_LONGS)
        self._missing = {
            "INTEGER": _told(lib.odc_missing_integer, "long"),
            "REAL": _told(lib.odc_missing_double, "double"),
        }
        # The library takes a stride of 0 for "contiguous", so that a constant has to be there in every row.
        self._constants = {name: np.full(ROWS_PER_FRAME, value) for name, value in constants.items()}
        self._encoder = self._new(properties)
        self._buffer = ffi.new("char[]", 8 * ROWS_PER_FRAME * (len(columns) + 16))

    def _new(self, properties: Mapping[str, str]) -> Any:
        handle = self._ffi.new("odc_encoder_t**")
        self._lib.odc_new_encoder(handle)
        encoder = self._ffi.gc(handle[0], self._lib.odc_free_encoder)
        for number, (name, kind) in enumerate(self._columns):
            self._lib.odc_encoder_add_column(encoder, name.encode(), getattr(self._lib, f"ODC_{kind}"))
            for bit in STATUS_BITS if kind == "BITFIELD" else ():
                self._lib.odc_encoder_column_add_bitfield(encoder, number, bit.encode(), 1)
        for key, value in properties.items():
            self._lib.odc_encoder_add_property(encoder, key.encode(), value.encode())
        return encoder

    def write(self, frame: Arrays, file: BinaryIO) -> None:
        """Append a frame of at most `ROWS_PER_FRAME` rows, all of whose columns that are not constant are given."""
        rows = len(frame["varno@body"])
        self._lib.odc_encoder_set_row_count(self._encoder, rows)
        self._lib.odc_encoder_set_rows_per_frame(self._encoder, rows)
        alive = []
        for number, (name, kind) in enumerate(self._columns):
            column = self._constants[name] if name in self._constants else self._in_64_bits(frame[name], kind)
            alive.append(column)
            self._lib.odc_encoder_column_set_data_array(
                self._encoder, number, column.itemsize, column.itemsize, self._ffi.cast("void*", column.ctypes.data)
            )
        size = self._ffi.new("long*")
        self._lib.odc_encode_to_buffer(self._encoder, self._buffer, len(self._buffer), size)
        file.write(self._ffi.buffer(self._buffer, size[0]))

    def _in_64_bits(self, column: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
        """`column` as the library takes it."""
        if kind == "STRING":
            return np.ascontiguousarray(column)
        if kind == "REAL":
            # The library keeps the doubles of a column that does not change: round them as it rounds all others.
            column = column.astype(np.float32).astype(np.float64)
        if column.dtype.kind == "f":
            column[np.isnan(column)] = self._missing[kind]
        return np.ascontiguousarray(column, np.float64 if kind == "REAL" else np.int64)


def _told(question: Any, kind: str) -> Any:
    """What a function of the library answers through a pointer to `kind`."""
    from codc.lib import ffi

    answer = ffi.new(f"{kind}*")
    question(answer)
    return answer[0]


# Reading back, with a decoder that is not ours.


@dataclass(frozen=True, slots=True)
class _Seen:
    """What `reader` found: all rows, those of each varno and the sum of their values, and the bounds of lat and lon.

    `quality`: how many values are active, passive and rejected, and the sum of all flags.
    """

    reader: str
    rows: int
    varnos: dict[int, tuple[int, float]]
    place: tuple[float, ...]
    quality: tuple[int, ...]

    def facts(self) -> dict[str, object]:
        varnos = {_label(number): {"rows": rows, "mean": total / rows} for number, (rows, total) in self.varnos.items()}
        return {"read by": self.reader, "varnos": varnos}


def _label(number: int) -> str:
    return f"{number} {VARNOS[number].name}" if number in VARNOS else str(number)


def _read_back(path: Path, written: _Written) -> _Seen:
    """Read what can be compared with `written`, preferably in a process of its own."""
    numbers = [number for number, tally in sorted(written.tallies.items()) if tally.count]
    command = _odc_command()
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
    return _Seen("odc sql", int(rows), varnos, tuple(found[:4]), tuple(map(int, (active, passive, rejected, flags))))


def _read_by_library(path: Path, numbers: list[int]) -> _Seen:
    import codc
    from codc.lib import lib

    lib.odc_integer_behaviour(lib.ODC_INTEGERS_AS_LONGS)
    columns = ["varno@body", "obsvalue@body", "lat@hdr", "lon@hdr", "datum_status@body", "quality@body"]
    reader = codc.Reader(str(path), aggregated=False)  # its frames do not outlive it
    table = pl.concat(pl.from_pandas(frame.dataframe(columns)).select(columns) for frame in reader.frames)
    varno, value, lat, lon, status, flags = (table[name].to_numpy() for name in columns)
    varnos = {n: (int(np.count_nonzero(varno == n)), float(value[varno == n].sum())) for n in numbers}
    place = lat.min(), lat.max(), lon.min(), lon.max()
    of_status = (int(np.count_nonzero(status == code)) for code in _STATUSES)
    return _Seen("codc", len(table), varnos, place, (*of_status, int(flags.sum())))


def _odc_command() -> str | None:
    """The command that the wheel of odc brings, or else one that is installed on the machine."""
    package = find_spec("odclib")
    folders = [f"{folder}/bin" for folder in (package and package.submodule_search_locations) or ()]
    return shutil.which("odc", path=os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]))


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


def _compare(written: _Written, seen: _Seen) -> None:
    if seen.rows != written.rows:
        raise OdbError(f"{seen.reader} reads {seen.rows} rows, but {written.rows} were written")
    for number, (rows, total) in seen.varnos.items():
        tally = written.tallies[number]
        rounding = 1e-8 * tally.count * max(abs(tally.low), abs(tally.high)) + _LAST_DECIMAL
        if rows != tally.count or not math.isclose(total, tally.total, rel_tol=0, abs_tol=rounding):
            raise OdbError(
                f"{seen.reader} reads {rows} values of varno {number} with the sum {total}, "
                f"but {tally.count} with the sum {tally.total} were written"
            )
    of_status = (int(written.flags[code == _STATUS].sum()) for code in _STATUSES)
    quality = (*of_status, int(written.flags @ np.arange(len(_STATUS))))
    if seen.quality != quality:
        raise OdbError(
            f"{seen.reader} reads {seen.quality} active, passive and rejected values and the sum of their flags, "
            f"but {quality} were written"
        )
    place = written.lat.low, written.lat.high, written.lon.low, written.lon.high
    if not np.allclose(seen.place, place, rtol=0, atol=1e-5):
        raise OdbError(f"{seen.reader} reads places between {seen.place}, but {place} were written")


def describe_odb(path: Path) -> tuple[dict[str, str], pl.DataFrame]:
    """What is inside an ODB-2 file: facts about it, and a row (column, unit, values, minimum, maximum) for each varno.

    Raises OdbError where it cannot be read, or the `odc` command is missing.
    """
    import codc

    command = _odc_command()
    if command is None:
        raise OdbError("the odc command is missing; it comes with the package odclib")
    rows = []
    for number, count, low, high in _select(command, path, "select varno, count(*), min(obsvalue), max(obsvalue)"):
        unit = VARNOS[int(number)].unit if int(number) in VARNOS else ""
        rows.append((f"varno {_label(int(number))}", unit, int(count), f"{low:g}", f"{high:g}"))
    columns = pl.DataFrame(rows, ["column", "unit", "values", "minimum", "maximum"], orient="row")
    facts = {"rows": f"{columns['values'].sum():,}"}
    reader = codc.Reader(str(path), aggregated=False)  # its frames do not outlive it
    return facts | reader.frames[0].properties, columns
