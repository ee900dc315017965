"""BUFR edition 4: one file a window, one subset a report, in compressed messages of many subsets.

Belongs here: which variable becomes which element, identifiers and names, the packing of messages and the reading back.
Does not belong here: templates and tables (templates.py), quality control, or when an export is made.

Messages are packed here, from whole NumPy columns; they are read back by eccodes, ECMWF's decoder, before the file is
published. The packing follows regulation 94.6.3 of WMO-No. 306, Volume I.2.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ionbeam_client.models import CanonicalVariable, format_duration, parse_duration
from ionbeam_dagster.domain import cf
from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION, columns_of, quality_column, variable_of
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.exporters import ExportError, ExportPlan, ExportReport
from ionbeam_dagster.exporters.bufr.templates import (
    AIR,
    ASSOCIATED_BITS,
    ASSOCIATED_FIELD,
    AVERAGED,
    CONSTITUENT,
    ECCODES,
    FIXED,
    MASTER_TABLES,
    MOBILE,
    PERIODS,
    QUALITY_OF,
    SENSOR_HEIGHT,
    SIGNIFICANCE,
    TEMPLATES,
    TIME_SIGNIFICANCE,
    TWO_BITS_OF_QUALITY,
    WIND,
    Element,
    Place,
    Slot,
    Template,
    eccodes,
    expansion,
)
from ionbeam_dagster.exporters.stations import WIGOS_ID, fitting, numbers_in, position_ids
from ionbeam_dagster.stores.publish import published

ROWS_PER_BATCH = 65_536
MOVED = 100.0  # m: a station that goes farther within a window is a mobile one
EARTH_RADIUS = 6_371_000.0  # m
MOBILE_COLUMN = "mobile"  # a metadata column that says ``true`` of a mobile station, even one that stands still
WMO_STATIONS = 20000  # the WIGOS issuer whose ids are WMO's station numbers
LONGEST_NAME, LONGEST_LOCAL_ID, LONGEST_MOBILE_ID = 40, 16, 9
MOST_ROUNDS = 62  # of all replications together: their presence is a bit each
MISSING = -1

Integers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
Columns = dict[Place, npt.NDArray[Any]]


def _not_of_wmo(issuer: int) -> int:
    if issuer == WMO_STATIONS:
        raise ValueError(f"issuer {WMO_STATIONS} belongs to WMO's station numbers; take your own (an ISO 3166 number)")
    return issuer


Heading = Annotated[str, StringConstraints(pattern=r"^[A-Z]{4}[0-9]{2}$")]


class BufrSettings(BaseModel):
    """Who sends, under which names, and how large a message may be.

    `centre` is the operator's number in table C-11 (65535: none). Without a `wigos_issuer`, stations that have no WIGOS
    id get none; with one they are ``0-<issuer>-<issue number>-<local id>``. `cccc` is the operator's location
    indicator, `ttaaii` the heading of the bulletins (ISA 30-59: observations of n minutes; X: the whole globe), and
    `headings` are those of datasets, by name, that have one of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    centre: int = Field(default=65535, ge=0, le=65535)
    sub_centre: int = Field(default=0, ge=0, le=65535)
    wigos_issuer: Annotated[int, AfterValidator(_not_of_wmo)] | None = Field(default=None, ge=0, le=65534)
    wigos_issue_number: int = Field(default=0, ge=0, le=65534)
    cccc: str | None = Field(default=None, pattern=r"^[A-Z]{4}$")
    ttaaii: Heading = "ISAX30"
    headings: dict[str, Heading] = {}
    subsets_per_message: int = Field(default=1000, ge=1, le=65534)
    bytes_per_message: int = Field(default=499_999, ge=2_000, le=499_999)

    def heading_of(self, dataset: str) -> str:
        """TTAAii of a dataset's bulletins."""
        return self.headings.get(dataset, self.ttaaii)


def correction(revision: int) -> str:
    """The indicator BBB of a revision: none for the first, then CCA to CCX, which all later ones share."""
    return "" if revision <= 1 else f"CC{chr(ord('A') + min(revision - 2, 23))}"


def bulletin_heading(settings: BufrSettings, dataset: str, window_start: datetime, revision: int) -> str:
    """``TTAAii CCCC YYGGgg [BBB]``; raises ValueError when the settings have no `cccc`."""
    if settings.cccc is None:
        raise ValueError("a bulletin needs the location indicator of its sender: set cccc")
    parts = settings.heading_of(dataset), settings.cccc, f"{window_start:%d%H%M}", correction(revision)
    return " ".join(part for part in parts if part)


def gts_file_name(settings: BufrSettings, dataset: str, window_start: datetime, revision: int) -> str:
    """The name under which the GTS takes the file of a window; raises ValueError when the settings have no `cccc`.

    Both times in it are the window's start, so that the name follows from the content.
    """
    heading = bulletin_heading(settings, dataset, window_start, revision).replace(" ", "")
    return f"A_{heading}_C_{settings.cccc}_{window_start:%Y%m%d%H%M%S}.bin"


class BufrExporter:
    """Writes dataset windows as BUFR.

    Fixed stations go into 3 07 092, mobile ones into 3 07 090 (both from 3 01 150 on), particulate matter and gases of
    either into a list of their own. The typical time of a message is the start of its window, the time of a subset that
    of its row, to the minute.
    """

    format: ClassVar[str] = "bufr"
    extension: ClassVar[str] = "bufr"

    def __init__(self, settings: BufrSettings | None = None) -> None:
        self._settings = settings or BufrSettings()

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """The descriptors of each variable column of `schema`, or why it has none; needs eccodes (ExportError)."""
        return _plan(schema, _forms(schema))

    def export(self, dataset_file: Path, target: Path) -> ExportReport:
        """Write `target` from a dataset file; see `exporters.Exporter`. `seen` is what eccodes read in the new file."""
        library = eccodes()
        try:
            with pq.ParquetFile(dataset_file, pre_buffer=False, buffer_size=1 << 18) as source:
                schema = source.schema_arrow
                forms = _forms(schema)
                plan = _plan(schema, forms)
                about = _about(schema)
                with published(target) as draft:
                    written = _write(source, forms, about, self._settings, draft)
                    if not written.messages:
                        draft.unlink(missing_ok=True)
                        target.unlink(missing_ok=True)
                        return ExportReport(rows=0, bytes=0, stations=0, plan=plan, seen=written.facts())
                    read = _read_back(draft, written)
                    size = draft.stat().st_size
        except (OSError, pa.ArrowException, library.CodesInternalError, BufrError) as error:
            raise ExportError(f"{target} was not written from {dataset_file}: {error}") from error
        return ExportReport(
            rows=written.subsets.total(),
            bytes=size,
            stations=written.stations,
            plan=plan,
            seen=read | written.facts(),
            gts_name=self._gts_name(about),
        )

    def _gts_name(self, about: _About) -> str | None:
        if self._settings.cccc is None:
            return None
        return gts_file_name(self._settings, about.dataset, about.start, about.revision)


class BufrError(Exception):
    """A dataset cannot become BUFR, or a file holds something else than what was written."""


@dataclass(frozen=True, slots=True)
class _About:
    """What the messages of a window, and their names, say of it."""

    dataset: str
    start: datetime
    revision: int


def _about(schema: pa.Schema) -> _About:
    told = json.loads((schema.metadata or {}).get(b"ionbeam", b"{}"))
    if "window_start" not in told:
        raise BufrError("it does not tell the start of its window, which every dataset file does; build it again")
    start = datetime.fromisoformat(told["window_start"]).astimezone(UTC)
    return _About(told.get("dataset", ""), start, int(told.get("revision", 1)))


# The mapping: each variable finds a place in a template that agrees with what is already there.


@dataclass(frozen=True, slots=True)
class _Target:
    """A column that goes to `place` as `element`, by scale and offset, as far as it is within `limits` (its unit).

    `flag` is the column of its quality flags, and `quality` where they go.
    """

    column: str
    place: Place
    element: Element
    scale: float
    offset: float
    limits: tuple[float, float]
    flag: str | None = None
    quality: Place | None = None

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.column, self.flag) if name]


@dataclass(slots=True)
class _Form:
    """A template filled in: where the columns go, and what is the same in every subset (heights, periods)."""

    template: Template
    targets: list[_Target] = field(default_factory=list)
    fixed: dict[Place, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def rounds(self) -> list[Place]:
        """The rounds of replications that are used: (block, round)."""
        blocks = expansion(self.template).blocks
        return sorted({(blocks[node], turn) for node, turn in (target.place for target in self.targets)} - {(0, 0)})


class _Unfit(Exception):
    """The reason for which a variable does not go into a template."""


def _forms(schema: pa.Schema) -> list[_Form]:
    return [_form(template, schema) for template in TEMPLATES]


def _form(template: Template, schema: pa.Schema) -> _Form:
    form = _Form(template)
    taken: dict[Place, str] = {}
    candidates: list[tuple[tuple[Any, ...], str, CanonicalVariable, Slot]] = []
    for column in columns_of(schema, "variable"):
        variable = variable_of(schema.field(column))
        try:
            order, slot = _slot_of(template, variable, schema.field(column).type)
        except _Unfit as reason:
            form.left_out[column] = str(reason)
        else:
            # Readers take the first: that of the usual height, then at a point in time, then of the shortest period.
            apart = abs(variable.level - slot.usual_level)
            rank = order, apart, variable.method != "point", parse_duration(variable.period), len(candidates)
            candidates.append((rank, column, variable, slot))
    for _, column, variable, slot in sorted(candidates, key=lambda one: one[0]):
        try:
            _place(form, taken, column, variable, slot, quality_column(schema, column, "flag"))
        except _Unfit as reason:
            form.left_out[column] = str(reason)
    return form


def _slot_of(template: Template, variable: CanonicalVariable, dtype: pa.DataType) -> tuple[int, Slot]:
    if cf.is_local(variable.standard_name):
        raise _Unfit(f"{variable.standard_name} is a name of this platform; no descriptor stands for it")
    if not (pa.types.is_floating(dtype) or pa.types.is_integer(dtype)):
        raise _Unfit(f"its values are {dtype}, not numbers")
    name = cf.lookup(variable.standard_name).current[0]
    named = [(order, slot) for order, slot in enumerate(template.slots) if name in slot.names]
    if not named:
        raise _Unfit(f"no descriptor of {template.name} is mapped from {variable.standard_name}")
    for order, slot in named:
        wrong = _mismatches(slot, variable)
        if not wrong:
            return order, slot
    raise _Unfit(f"{slot.codes[0]:06d} of {template.name} is {'; '.join(wrong)}")


def _mismatches(slot: Slot, variable: CanonicalVariable) -> list[str]:
    wrong = []
    if not slot.levels[0] <= variable.level <= slot.levels[1]:
        wrong.append(f"mapped for level {slot.levels[0]:g} to {slot.levels[1]:g}, but this one is at {variable.level}")
    if variable.method not in slot.methods:
        wrong.append(f"mapped for method {' or '.join(slot.methods)}, but this one is {variable.method}")
    period = parse_duration(variable.period)
    if not slot.periods[0] <= period <= slot.periods[1]:
        low, high = map(format_duration, slot.periods)
        wrong.append(f"mapped for period {low} to {high}, but this one is {variable.period}")
    elif slot.has_period and period % timedelta(minutes=1):
        wrong.append(f"mapped for whole minutes, but this one covers {variable.period}")
    return wrong


def _place(
    form: _Form, taken: dict[Place, str], column: str, variable: CanonicalVariable, slot: Slot, flag: str | None
) -> None:
    """Take the first round of the slot's replication that is free, or that says the same of what it holds."""
    expanded = expansion(form.template)
    nodes = [node for code in slot.codes if (node := expanded.node(code)) is not None]
    if not nodes:
        raise _Unfit(f"{form.template.name} has no {slot.codes[0]:06d}")
    block = expanded.blocks[nodes[0]]
    said = _said(form.template, nodes[0], variable, slot)
    for turn in range(expanded.rounds[block]):
        about = {(node, turn if expanded.blocks[node] == block else 0): value for node, value in said.items()}
        clashes = [(node, turn) for node in nodes if (node, turn) in taken]
        clashes += [place for place, value in about.items() if form.fixed.get(place, value) != value]
        if not clashes:
            break
    else:
        raise _Unfit(f"the place of {slot.codes[0]:06d} in {form.template.name} is taken by {taken[clashes[0]]}")
    if len({*form.rounds, (block, turn)}) > MOST_ROUNDS:
        raise _Unfit(f"{form.template.name} is full")
    targets = [_target(column, variable, slot, (node, turn), expanded.elements[node]) for node in nodes]
    if flag:
        targets = [_with_quality(form, target, flag) for target in targets]
    form.targets += targets
    form.fixed |= about
    taken.update(dict.fromkeys([*about, *(target.place for target in targets)], column))


def _with_quality(form: _Form, target: _Target, flag: str) -> _Target:
    """`target` with its flags, and what they mean beside them, where the template has room for that."""
    expanded = expansion(form.template)
    node, turn = target.place
    associated, significance = expanded.quality(node), expanded.before(node, [SIGNIFICANCE])
    if associated is None or significance is None:
        return replace(target, flag=flag)
    form.fixed[significance, turn] = TWO_BITS_OF_QUALITY
    return replace(target, flag=flag, quality=(associated, turn))


def _said(template: Template, node: int, variable: CanonicalVariable, slot: Slot) -> dict[int, int]:
    """What stands beside a value, by node: the height of the sensor, the period, and which constituent it is."""
    expanded = expansion(template)
    said = {}
    height, significance, constituent = (
        expanded.before(node, [code]) for code in (SENSOR_HEIGHT, TIME_SIGNIFICANCE, CONSTITUENT)
    )
    if slot.has_height and height is not None:
        level = variable.level
        said[height] = int(_coded(np.float64(level), expanded.elements[height])) if level else MISSING
    if slot.has_period:
        number = expanded.before(node, list(PERIODS))
        assert number is not None
        unit, period = PERIODS[expanded.codes[number]], parse_duration(variable.period)
        if period % unit:
            raise _Unfit(
                f"{template.name} tells its period in {format_duration(unit)}, but it covers {variable.period}"
            )
        # A period ends when the observation is made; an instant has none.
        said[number] = -(period // unit) - expanded.elements[number].reference if period else MISSING
    if slot.is_averaged and significance is not None:
        said[significance] = AVERAGED if variable.method == "mean" else MISSING
    if slot.constituent is not None and constituent is not None:
        said[constituent] = slot.constituent
    return said


def _target(column: str, variable: CanonicalVariable, slot: Slot, place: Place, element: Element) -> _Target:
    seconds = parse_duration(variable.period).total_seconds() if slot.integrated else 1.0
    try:
        scale, offset = cf.conversion(variable.cf_unit, "W m-2" if slot.integrated else element.udunit)
    except cf.UnitError as error:
        raise _Unfit(f"{element.descriptor} ({element.name}, {element.unit}) cannot be made of it: {error}") from error
    return _Target(column, place, element, scale * seconds, offset * seconds, slot.limits)


def _plan(schema: pa.Schema, forms: list[_Form]) -> ExportPlan:
    mapped: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for column in columns_of(schema, "variable"):
        taking = [form for form in forms if column not in form.left_out]
        if taking:
            found = [target.element for target in taking[0].targets if target.column == column]
            codes = ", ".join(element.descriptor for element in found)
            only: dict[tuple[Template, ...], str] = {
                (FIXED,): ", fixed stations only",
                (MOBILE,): ", mobile stations only",
            }
            where = only.get(tuple(form.template for form in taking), "")
            mapped[column] = f"bufr {codes} {found[0].name} ({found[0].unit}){where}"
        else:
            # The template that knows the variable has the most to say.
            reasons = [form.left_out[column] for form in forms]
            left_out[column] = next((reason for reason in reasons if "is mapped from" not in reason), reasons[0])
    return ExportPlan(mapped, left_out)


# Reports: a batch of rows becomes columns of integers, as they are packed, without a loop over rows.


@dataclass(slots=True)
class _Tally:
    """How many values of an element there are, their sum, their bounds, and the step between two, in its unit."""

    step: float = 0.0
    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @property
    def told(self) -> tuple[float, float, float]:
        return self.total, self.low, self.high

    def add(self, count: int, total: float, low: float, high: float) -> None:
        self.count += count
        self.total += total
        self.low, self.high = min(self.low, low), max(self.high, high)


@dataclass(slots=True)
class _Written:
    """What went into a file: by element, and what had to be changed or left out."""

    identifiers: _Identifiers
    tallies: dict[str, _Tally] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)
    subsets: Counter[str] = field(default_factory=Counter)
    quality: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    stations: int = 0

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = {"subsets": dict(self.subsets)} | self.identifiers.facts()
        facts |= {"quality": dict(+self.quality)} if self.quality else {}
        return facts | ({"values left out": dict(self.beyond)} if self.beyond else {})

    def tally(self, element: Element, coded: Integers) -> None:
        present = coded[coded != MISSING] if len(coded) and coded.min() == MISSING else coded
        tally = self.tallies.setdefault(element.name, _Tally(10.0**-element.scale))
        if len(present):
            sums = int(present.sum()) + len(present) * element.reference
            low, high = int(present.min()) + element.reference, int(present.max()) + element.reference
            tally.add(len(present), *(number / 10.0**element.scale for number in (sums, low, high)))


def _write(source: pq.ParquetFile, forms: list[_Form], about: _About, settings: BufrSettings, draft: Path) -> _Written:
    written = _Written(_Identifiers(settings))
    writers = [_Writer(form, about, settings) for form in forms if form.targets]
    if not writers:
        return written
    schema = source.schema_arrow
    described = columns_of(schema, "metadata")
    height = next((name for name in HEIGHT_COLUMNS if name in described), None)
    about_stations = [name for name in (STATION, MOBILE_COLUMN, height) if name in described]
    values = sorted({column for writer in writers for target in writer.form.targets for column in target.columns})
    moved = _moved(source) if STATION in described else pa.array([], pa.string())
    last: str | None = ""
    with draft.open("wb") as file:
        for batch in source.iter_batches(ROWS_PER_BATCH, columns=["datetime", "lat", "lon", *about_stations, *values]):
            is_mobile = _is_mobile(batch, moved)
            header = _header(batch, height, is_mobile, written)
            told = np.zeros(batch.num_rows, bool)
            for writer in writers:
                stations = {"fixed": ~is_mobile, "mobile": is_mobile}.get(writer.form.template.stations)
                rows = np.arange(batch.num_rows) if stations is None else np.flatnonzero(stations)
                told[writer.write(batch, rows, header, written, file)] = True
            last = _count_stations(header[_NAME][told], last, written)
    return written


def _count_stations(names: npt.NDArray[Any], last: Any, written: _Written) -> Any:
    """Count the changes of name in rows that are ordered by station."""
    if not len(names):
        return last
    written.stations += int(np.count_nonzero(names[1:] != names[:-1])) + int(names[0] != last)
    return names[-1]


def _moved(source: pq.ParquetFile) -> pa.Array:
    """The ids of the stations that go farther than `MOVED` from where they are first."""
    found: list[pa.Array] = []
    last: tuple[Any, npt.NDArray[np.float64]] | None = None
    for batch in source.iter_batches(ROWS_PER_BATCH, columns=[STATION, "lat", "lon"]):
        names = batch.column(STATION).cast(pa.string())
        lat, lon = batch.column("lat").to_numpy(), batch.column("lon").to_numpy()
        if not len(lat):
            continue
        begins = np.ones(len(lat), bool)
        begins[1:] = pc.fill_null(pc.not_equal(names[1:], names[:-1]), True)
        starts = np.flatnonzero(begins)
        first = np.column_stack([lat[starts], lon[starts]])
        if last is not None and last[0] == names[0].as_py():
            first[0] = last[1]
        last = names[-1].as_py(), first[-1]
        station = np.cumsum(begins) - 1
        elsewhere = np.flatnonzero((lat != first[station, 0]) | (lon != first[station, 1]))
        far = _distance(first[station[elsewhere]], np.column_stack([lat[elsewhere], lon[elsewhere]])) > MOVED
        found.append(pc.unique(names.take(pa.array(elsewhere[far]))))
    return pc.unique(pa.concat_arrays([pa.array([], pa.string()), *found])).drop_null()


def _distance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The chord in m between places (lat, lon), which knows neither poles nor a date line."""
    lat, lon = np.radians([one, other]).transpose(2, 0, 1)
    points = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    chord: npt.NDArray[np.float64] = EARTH_RADIUS * np.sqrt(((points[:, 0] - points[:, 1]) ** 2).sum(axis=0))
    return chord


def _is_mobile(batch: pa.RecordBatch, moved: pa.Array) -> npt.NDArray[np.bool_]:
    mobile = np.zeros(batch.num_rows, bool)
    if STATION in batch.schema.names and len(moved):
        mobile |= pc.is_in(batch.column(STATION).cast(pa.string()), moved).to_numpy(zero_copy_only=False)
    if MOBILE_COLUMN in batch.schema.names:
        said = pc.utf8_lower(batch.column(MOBILE_COLUMN).cast(pa.string()))
        mobile |= pc.fill_null(pc.equal(said, "true"), False).to_numpy(zero_copy_only=False)
    return mobile


_NAME, _MOBILE_ID, _LOCAL_ID = 1019, 1011, 1128
_YEAR, _MONTH, _DAY, _HOUR, _MINUTE, _SECOND = range(4001, 4007)
_LATITUDE, _LONGITUDE, _HEIGHT = 5001, 6001, 7030
_SERIES, _ISSUER, _ISSUE, _BLOCK, _STATION_NUMBER = 1125, 1126, 1127, 1001, 1002
_STATION_TYPE, _AUTOMATIC = 2001, 0


def _header(
    batch: pa.RecordBatch, height: str | None, is_mobile: npt.NDArray[np.bool_], written: _Written
) -> dict[int, npt.NDArray[Any]]:
    """What every template says of a report, by descriptor: identifiers as bytes, all else as packed integers."""
    numbers = {_LATITUDE: batch.column("lat").to_numpy(), _LONGITUDE: batch.column("lon").to_numpy()}
    numbers[_HEIGHT] = numbers_in(batch.column(height)) if height else np.full(batch.num_rows, np.nan)
    header = _clock(batch.column("datetime"))
    for code, values in numbers.items():
        element = _element_of(code)
        header[code], beyond = _packable(values, element, (-math.inf, math.inf))
        written.beyond.update({f"{element.descriptor} {element.name}: {why}": n for why, n in beyond.items()})
    names = batch.column(STATION) if STATION in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
    return header | written.identifiers.of(names, numbers[_LATITUDE], numbers[_LONGITUDE], is_mobile)


def _element_of(code: int) -> Element:
    """The element of a descriptor that is the same in every template that has it."""
    expansions = map(expansion, TEMPLATES)
    return next(found.elements[node] for found in expansions if (node := found.node(code)) is not None)


def _clock(moments: pa.Array) -> dict[int, npt.NDArray[Any]]:
    times = moments.cast(pa.timestamp("s", "UTC"), safe=False).cast(pa.int64()).to_numpy().astype("M8[s]")
    years, months, days = (times.astype(f"M8[{unit}]") for unit in "YMD")
    seconds = (times - days).astype(np.int64)
    return {
        _YEAR: years.astype(np.int64) + 1970,
        _MONTH: (months - years).astype(np.int64) + 1,
        _DAY: (days - months).astype(np.int64) + 1,
        _HOUR: seconds // 3600,
        _MINUTE: seconds // 60 % 60,
        _SECOND: seconds % 60,
    }


def _coded(values: npt.NDArray[np.float64] | np.float64, element: Element) -> npt.NDArray[np.float64]:
    """Values in the element's unit as the whole numbers that stand for them."""
    return np.asarray(np.rint(values * 10.0**element.scale) - element.reference)


def _packable(
    values: npt.NDArray[np.float64], element: Element, limits: tuple[float, float]
) -> tuple[Integers, dict[str, int]]:
    """Values as they are packed, `MISSING` where there is none or none that can be carried; and why how many cannot."""
    coded = _coded(values, element)
    given = ~np.isnan(values)
    carried = (coded >= 0) & (coded <= 2**element.width - 2)  # all bits set mean that there is no value
    sensible = (values >= limits[0]) & (values <= limits[1])
    integers = np.full(len(values), MISSING)
    np.copyto(integers, coded, where=given & carried & sensible, casting="unsafe")
    low, high = (bound / 10.0**element.scale for bound in (element.reference, 2**element.width - 2 + element.reference))
    low, high = max(low, limits[0]), min(high, limits[1])
    outside = int(np.count_nonzero(given & ~(carried & sensible)))
    return integers, {f"not in {low:g} to {high:g} {element.unit}": outside} if outside else {}


class _Identifiers:
    """What stations are called: the same in every window.

    A WIGOS id is given to a station whose id is one, and to the others only under the operator's own issuer; the local
    id of those is the id without separators, or else 16 characters of its SHA-256 (see `fitting`). The long name is the
    station's own id, where no WIGOS id tells that already. A mobile station's 9 characters are made in the same way. A
    station without an id is called by its position, in units of 1e-5 degrees from the south pole and the date line.
    """

    def __init__(self, settings: BufrSettings) -> None:
        self._settings = settings
        self._changed: dict[tuple[int, str], str] = {}
        self._unnamed = False

    def of(
        self, names: pa.Array, lat: npt.NDArray[np.float64], lon: npt.NDArray[np.float64], mobile: npt.NDArray[np.bool_]
    ) -> dict[int, npt.NDArray[Any]]:
        """The identifiers by descriptor, for an array of ids, nulls included."""
        names = names.cast(pa.string())
        absent = pc.fill_null(pc.equal(names, ""), True).to_numpy(zero_copy_only=False)
        if absent.any():
            self._unnamed = True
            names = pc.replace_with_mask(
                names, pa.array(absent), pa.array(position_ids(lat[absent], lon[absent]).astype(str))
            )
        encoded = pc.dictionary_encode(names)
        number = encoded.indices.to_numpy()
        by_name = self._wigos(encoded.dictionary)
        by_name[_NAME] = self._fitted(encoded.dictionary, LONGEST_NAME)
        told = pc.match_substring_regex(encoded.dictionary, WIGOS_ID).to_numpy(zero_copy_only=False)
        by_name[_NAME][told | (by_name[_NAME] == by_name[_LOCAL_ID])] = b""
        identifiers = {code: column[number] for code, column in by_name.items()}
        identifiers[_MOBILE_ID] = np.zeros(len(names), f"S{LONGEST_MOBILE_ID}")
        if mobile.any():
            moving = pc.dictionary_encode(names.filter(pa.array(mobile)))
            short = self._fitted(moving.dictionary, LONGEST_MOBILE_ID)
            identifiers[_MOBILE_ID][mobile] = short[moving.indices.to_numpy()]
        return identifiers

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = {}
        for width, what in (
            (LONGEST_NAME, "station names"),
            (LONGEST_LOCAL_ID, "WIGOS local ids"),
            (LONGEST_MOBILE_ID, "mobile ids"),
        ):
            made = [new for (of_width, _), new in self._changed.items() if of_width == width]
            facts |= {f"{what} changed": len(made)} if made else {}
            shared = len(made) - len(set(made))
            facts |= {f"{what} shared by several stations": shared} if shared else {}
        return facts | ({"stations without an id": "called by their position"} if self._unnamed else {})

    def _wigos(self, names: pa.Array) -> dict[int, npt.NDArray[Any]]:
        """Series, issuer, issue number and local id, and WMO's block and station number, as far as there are any."""
        parts = {code: np.full(len(names), MISSING) for code in (_SERIES, _ISSUER, _ISSUE, _BLOCK, _STATION_NUMBER)}
        local = np.zeros(len(names), f"S{LONGEST_LOCAL_ID}")
        own = pc.match_substring_regex(names, WIGOS_ID).to_numpy(zero_copy_only=False)
        if self._settings.wigos_issuer is not None:
            minted = ~own
            parts[_SERIES][minted] = 0
            parts[_ISSUER][minted] = self._settings.wigos_issuer
            parts[_ISSUE][minted] = self._settings.wigos_issue_number
            local[minted] = self._fitted(names.filter(pa.array(minted)), LONGEST_LOCAL_ID, plain=True)
        for place in np.flatnonzero(own).tolist():
            series, issuer, issue, text = names[place].as_py().split("-")
            parts[_SERIES][place], parts[_ISSUER][place], parts[_ISSUE][place] = int(series), int(issuer), int(issue)
            local[place] = text.encode()
            if int(issuer) == WMO_STATIONS and int(issue) == 0 and re.fullmatch(r"[0-9]{5}", text):
                parts[_BLOCK][place], parts[_STATION_NUMBER][place] = int(text[:2]), int(text[2:])
        return {**parts, _LOCAL_ID: local}

    def _fitted(self, names: pa.Array, width: int, plain: bool = False) -> npt.NDArray[np.bytes_]:
        """Names in `width` characters (see `fitting`). Most fit as they are, and cost no loop."""
        printable = pc.ascii_is_alnum(names) if plain else pc.ascii_is_printable(names)
        fits = pc.and_(printable, pc.less_equal(pc.binary_length(names), width)).to_numpy(zero_copy_only=False)
        fitted = np.zeros(len(names), f"S{width}")
        fitted[fits] = names.filter(pa.array(fits)).to_numpy(zero_copy_only=False).astype(f"S{width}")
        for place in np.flatnonzero(~fits).tolist():
            name = names[place].as_py()
            fitted[place] = self._changed.setdefault((width, name), fitting(name, width, plain)).encode()
        return fitted


# Messages.


class _Writer:
    """Packs the reports of one template into messages."""

    def __init__(self, form: _Form, about: _About, settings: BufrSettings) -> None:
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
        written: _Written,
        file: BinaryIO,
    ) -> npt.NDArray[np.int64]:
        """Append the messages of `rows`; returns those rows that had a value to tell."""
        if not len(rows):
            return rows
        columns = self._values(batch, rows, written)
        present = {place: column != MISSING for place, column in columns.items()}
        shapes = self._shapes(present, len(rows))
        columns |= self._quality(batch, rows, present, shapes, written)
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

    def _values(self, batch: pa.RecordBatch, rows: npt.NDArray[np.int64], written: _Written) -> Columns:
        columns: Columns = {}
        counted: set[str] = set()
        for target in self.form.targets:
            raw = batch.column(target.column).to_numpy(zero_copy_only=False).astype(np.float64, copy=False)[rows]
            converted = raw * target.scale + target.offset
            columns[target.place], beyond = _packable(converted, target.element, target.limits)
            if target.flag and target.quality is None:
                # Nothing in this template could warn of it.
                bad = (_flags(batch, target.flag)[rows] == Flag.FAIL) & (columns[target.place] != MISSING)
                columns[target.place][bad] = MISSING
                why = f"bad, which {self.form.template.name} cannot tell"
                beyond |= {why: int(np.count_nonzero(bad))} if bad.any() else {}
            if target.column not in counted:  # once, where it goes to two descriptors
                counted.add(target.column)
                written.beyond.update({f"{target.column}: {why}": n for why, n in beyond.items()})
        for place, column in columns.items():
            speed_node = self._expansion.node(WIND.get(self._expansion.codes[place[0]], 0))
            if speed_node is not None:
                # 0 is the direction of a calm; wind from the north has 360.
                speed = columns.get((speed_node, place[1]), np.full(len(rows), MISSING))
                column[(column == 0) & (speed != 0)] = 360
                column[(column != MISSING) & (speed == 0)] = 0
        return columns

    def _quality(
        self,
        batch: pa.RecordBatch,
        rows: npt.NDArray[np.int64],
        present: Mapping[Place, npt.NDArray[np.bool_]],
        shapes: Integers,
        written: _Written,
    ) -> Columns:
        """The associated fields of the values that are `present`, and in the same round those of absent ones."""
        columns: Columns = {}
        counted: set[str] = set()
        for target in self.form.targets:
            if target.flag and target.quality:
                flags = _flags(batch, target.flag)[rows]
                there = present[target.place]
                coded = _ASSOCIATED[np.minimum(flags, len(_ASSOCIATED) - 1)]
                for flag in QUALITY_OF if target.column not in counted else ():
                    written.quality[flag.name.lower()] += int(np.count_nonzero(flags[there] == flag))
                counted.add(target.column)
                where = self._expansion.blocks[target.place[0]], target.place[1]
                in_message = shapes >> self._rounds.index(where) & 1 == 1
                # Beside a missing value stands what packs best: it says nothing.
                columns[target.quality] = np.where(there, coded, np.where(in_message, 0, MISSING))
        return columns

    def _shapes(self, present: Mapping[Place, npt.NDArray[np.bool_]], rows: int) -> Integers:
        """For each row, which rounds of replications have a value: a bit each."""
        shapes = np.zeros(rows, np.int64)
        for place, there in present.items():
            where = self._expansion.blocks[place[0]], place[1]
            if where in self._rounds:
                shapes |= there.astype(np.int64) << self._rounds.index(where)
        return shapes

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


_ASSOCIATED = np.full(max(Flag) + 1, MISSING)
_ASSOCIATED[list(QUALITY_OF)] = list(QUALITY_OF.values())


def _flags(batch: pa.RecordBatch, column: str) -> npt.NDArray[np.uint8]:
    flags = batch.column(column).fill_null(int(Flag.NOT_EVALUATED))
    return np.asarray(flags.to_numpy(zero_copy_only=False), np.uint8)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The data section of a shape: bits that are always the same, and between them the columns, with their elements."""

    parts: tuple[Bits | tuple[Place, Element], ...]

    @classmethod
    def of(cls, form: _Form, rounds: Mapping[int, list[int]]) -> _Layout:
        expanded = expansion(form.template)
        columns = {target.place for target in form.targets}
        columns |= {target.quality for target in form.targets if target.quality}
        columns |= {(node, 0) for code in _HEADER_CODES if (node := expanded.node(code)) is not None}
        always = dict(form.fixed)
        always |= {(node + 1, 0): len(rounds.get(node, ())) for node in expanded.rounds if node}
        if (node := expanded.node(_STATION_TYPE)) is not None:
            always[node, 0] = _AUTOMATIC
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
                waiting.append(_the_same(always.get(place, MISSING), element.width))
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
                    bits += _packed_texts(columns[place], element.width)
                elif element.code == ASSOCIATED_FIELD:
                    bits += _packed_quality(columns[place], element.width)
                else:
                    bits += _packed_integers(columns[place], element.width)
        return np.packbits(np.concatenate(bits)).tobytes()


_HEADER_CODES = (
    *(_NAME, _MOBILE_ID, _LOCAL_ID, _YEAR, _MONTH, _DAY, _HOUR, _MINUTE, _SECOND, _LATITUDE, _LONGITUDE, _HEIGHT),
    *(_SERIES, _ISSUER, _ISSUE, _BLOCK, _STATION_NUMBER),
)


# Compression, by regulation 94.6.3: of each element the least value, in how many bits the differences to it are (six
# bits tell), and the differences. Where all subsets agree there are none; all bits set are a missing value.


def _bits(number: int, width: int) -> Bits:
    padded = np.frombuffer((number << -width % 8).to_bytes(-(-width // 8)), np.uint8)
    return np.unpackbits(padded, count=width)


def _the_same(number: int, width: int) -> Bits:
    return np.concatenate([_bits((1 << width) - 1 if number == MISSING else number, width), _bits(0, 6)])


def _packed_integers(column: Integers, width: int) -> list[Bits]:
    least, most = int(column.min()), int(column.max())
    if least == most:
        return [_the_same(least, width)]
    given = None
    if least == MISSING:
        given = column != MISSING
        least = int(column[given].min())
    size = (most - least + 1).bit_length()  # room for all bits set, even where nothing is missing
    differences = (column - least).astype(">u4")
    if given is not None:
        differences[~given] = (1 << size) - 1
    each = np.unpackbits(differences.view(np.uint8)).reshape(-1, 32)[:, 32 - size :]
    return [_bits(least, width), _bits(size, 6), each.ravel()]


def _packed_quality(column: Integers, width: int) -> list[Bits]:
    """Associated fields. Readers do not look for missing ones among differences: these take the whole width."""
    least, most = int(column.min()), int(column.max())
    if least != MISSING or least == most:
        return _packed_integers(column, width)
    each = np.unpackbits(column.astype(">u4").view(np.uint8)).reshape(-1, 32)[:, 32 - width :]
    return [_bits(0, width), _bits(width, 6), each.ravel()]


def _packed_texts(column: npt.NDArray[np.bytes_], width: int) -> list[Bits]:
    """Texts are padded with blanks; no text is all bits set."""
    octets = max(1, int(np.char.str_len(column).max()))
    if (column == column[0]).all():
        text = bytes(column[0]).ljust(width // 8) if column[0] else b"\xff" * (width // 8)
        return [_the_same(int.from_bytes(text), width)]
    padded = np.char.ljust(column, octets).astype(f"S{octets}").view(np.uint8).reshape(-1, octets).copy()
    padded[column == b""] = 0xFF
    return [_bits(0, width), _bits(octets, 6), np.unpackbits(padded)]


# Reading back, with a decoder that is not ours.


def _read_back(path: Path, written: _Written) -> dict[str, object]:
    library = eccodes()
    seen = {name: _Tally() for name in written.tallies}
    subsets: Counter[str] = Counter()
    messages = 0
    with ECCODES, path.open("rb") as file:
        while (handle := library.codes_bufr_new_from_file(file)) is not None:
            try:
                messages += 1
                number = library.codes_get(handle, "numberOfSubsets")
                descriptors = tuple(library.codes_get_array(handle, "unexpandedDescriptors").tolist())
                subsets[_TEMPLATE_NAMES.get(descriptors, str(descriptors))] += number
                library.codes_set(handle, "skipExtraKeyAttributes", 1)  # units and widths, which would take time
                library.codes_set(handle, "unpack", 1)
                for name, tally in seen.items():
                    _read_values(library, handle, name, number, tally)
            finally:
                library.codes_release(handle)
    _compare(written, messages, subsets, seen)
    return {
        "read by": f"eccodes {library.codes_get_api_version()}",
        "messages": messages,
        "elements": {
            name: {"values": tally.count, "minimum": tally.low, "maximum": tally.high}
            for name, tally in sorted(seen.items())
            if tally.count
        },
    }


_TEMPLATE_NAMES = {template.descriptors: template.name for template in (FIXED, MOBILE, AIR)}


def describe_bufr(path: Path) -> tuple[dict[str, str], pl.DataFrame]:
    """What is inside a BUFR file: facts about it, and a row (column, unit, values, minimum, maximum) for each element.

    Raises BufrError where eccodes cannot read it.
    """
    library = eccodes()
    elements = {target: element for template in TEMPLATES for target, element in _told_elements(template).items()}
    seen = {name: _Tally() for name in elements}
    subsets: Counter[str] = Counter()
    updates: set[int] = set()
    messages = 0
    try:
        with ECCODES, path.open("rb") as file:
            while (handle := library.codes_bufr_new_from_file(file)) is not None:
                messages += 1
                number = library.codes_get(handle, "numberOfSubsets")
                updates.add(library.codes_get(handle, "updateSequenceNumber"))
                descriptors = tuple(library.codes_get_array(handle, "unexpandedDescriptors").tolist())
                subsets[_TEMPLATE_NAMES.get(descriptors, str(descriptors))] += number
                library.codes_set(handle, "unpack", 1)
                for name, tally in seen.items():
                    _read_values(library, handle, name, number, tally)
                library.codes_release(handle)
    except library.CodesInternalError as error:
        raise BufrError(f"eccodes cannot read {path}: {error}") from error
    rows = [
        (f"{elements[name].descriptor} {name}", elements[name].unit, tally.count, f"{tally.low:g}", f"{tally.high:g}")
        for name, tally in seen.items()
        if tally.count
    ]
    facts = {
        "messages": f"{messages:,}",
        "subsets": ", ".join(f"{count:,} of {name}" for name, count in subsets.items()),
        "update sequence number": ", ".join(map(str, sorted(updates))),
    }
    return facts, pl.DataFrame(rows, ["column", "unit", "values", "minimum", "maximum"], orient="row")


def _told_elements(template: Template) -> dict[str, Element]:
    """The elements of a template that exports fill, and the associated field of each."""
    expanded = expansion(template)
    nodes = [expanded.node(code) for code in (_LATITUDE, _LONGITUDE, _HEIGHT)]
    for slot in template.slots:
        for node in (expanded.node(code) for code in slot.codes):
            nodes += [node] if node is None else [node, expanded.quality(node)]
    return {expanded.elements[node].name: expanded.elements[node] for node in nodes if node is not None}


def _read_values(library: Any, handle: int, name: str, subsets: int, tally: _Tally) -> None:
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


def _compare(written: _Written, messages: int, subsets: Counter[str], seen: Mapping[str, _Tally]) -> None:
    if (messages, subsets) != (written.messages, +written.subsets):
        raise BufrError(
            f"eccodes reads {messages} messages with {dict(subsets)} subsets, but {written.messages} with "
            f"{dict(written.subsets)} were written"
        )
    for name, tally in written.tallies.items():
        read = seen[name]
        if read.count != tally.count:
            raise BufrError(f"eccodes reads {read.count} values of {name}, but {tally.count} were written")
        if tally.count and not np.allclose(read.told, tally.told, rtol=1e-12, atol=tally.step / 100):
            raise BufrError(
                f"eccodes reads {name} with sum, minimum and maximum {read.told}, but {tally.told} were written"
            )
