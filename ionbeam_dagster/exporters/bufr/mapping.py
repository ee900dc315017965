"""Which variable becomes which element: each finds a place in a template that agrees with what is already there.

Belongs here: how the columns of a dataset fill a template, what is told beside their values (heights, periods,
constituents), the plan, and the reason for what stays behind. Does not belong here: the templates and which variables
they take (templates.py), or values (reports.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from ionbeam_client import cf
from ionbeam_client.models import CanonicalVariable, format_duration, parse_duration
from ionbeam_dagster.domain.canonical import columns_of, quality_column, variable_of
from ionbeam_dagster.exporters import ExportPlan
from ionbeam_dagster.exporters.bufr.templates import (
    AVERAGED,
    CONSTITUENT,
    FIXED,
    MISSING,
    MOBILE,
    PERIODS,
    SENSOR_HEIGHT,
    SIGNIFICANCE,
    STATION_PRESSURE,
    TEMPLATES,
    TIME_SIGNIFICANCE,
    TWO_BITS_OF_QUALITY,
    Element,
    Place,
    Slot,
    Template,
    expansion,
)

MOST_ROUNDS = 62  # of all replications together: their presence is a bit each


@dataclass(frozen=True, slots=True)
class Target:
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
class Form:
    """A template filled in: where the columns go, and what is the same in every subset (heights, periods).

    The `barometer` is so many metres above the ground.
    """

    template: Template
    targets: list[Target] = field(default_factory=list)
    fixed: dict[Place, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    barometer: float = 0.0

    @property
    def columns(self) -> set[str]:
        """The variables that it takes."""
        return {target.column for target in self.targets}

    @property
    def rounds(self) -> list[Place]:
        """The rounds of replications that are used: (block, round)."""
        blocks = expansion(self.template).blocks
        return sorted({(blocks[node], turn) for node, turn in (target.place for target in self.targets)} - {(0, 0)})


class _Unfit(Exception):
    """The reason for which a variable does not go into a template."""


def forms_of(schema: pa.Schema) -> list[Form]:
    """Every template, filled in for the columns of `schema`; needs eccodes (ExportError)."""
    return [_form(template, schema) for template in TEMPLATES]


def _form(template: Template, schema: pa.Schema) -> Form:
    form = Form(template)
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
        raise _Unfit(f"{variable.standard_name} is no name of CF; no descriptor stands for it")
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
    form: Form, taken: dict[Place, str], column: str, variable: CanonicalVariable, slot: Slot, flag: str | None
) -> None:
    """Take the first round of the slot's replication that is free, or that says the same of what it holds."""
    expanded = expansion(form.template)
    nodes = [node for code in slot.codes if (node := expanded.node(code)) is not None]
    if not nodes:
        raise _Unfit(f"{form.template.name} has no {slot.codes[0]:06d}")
    block = expanded.blocks[nodes[0]]
    companions = _companions(form.template, nodes[0], variable, slot)
    for turn in range(expanded.rounds[block]):
        about = {(node, turn if expanded.blocks[node] == block else 0): value for node, value in companions.items()}
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
    if slot.codes == (STATION_PRESSURE,):
        form.barometer = variable.level
    form.fixed |= about
    taken.update(dict.fromkeys([*about, *(target.place for target in targets)], column))


def _with_quality(form: Form, target: Target, flag: str) -> Target:
    """`target` with its flags, and what they mean beside them, where the template has room for that."""
    expanded = expansion(form.template)
    node, turn = target.place
    associated, significance = expanded.quality(node), expanded.before(node, [SIGNIFICANCE])
    if associated is None or significance is None:
        return replace(target, flag=flag)
    form.fixed[significance, turn] = TWO_BITS_OF_QUALITY
    return replace(target, flag=flag, quality=(associated, turn))


def _companions(template: Template, node: int, variable: CanonicalVariable, slot: Slot) -> dict[int, int]:
    """What stands beside a value, by node: the height of the sensor, the period, and which constituent it is."""
    expanded = expansion(template)
    values = {}
    height, significance, constituent = (
        expanded.before(node, [code]) for code in (SENSOR_HEIGHT, TIME_SIGNIFICANCE, CONSTITUENT)
    )
    if slot.has_height and height is not None:
        level = variable.level
        values[height] = int(expanded.elements[height].coded(np.float64(level))) if level else MISSING
    if slot.has_period:
        number = expanded.before(node, list(PERIODS))
        assert number is not None
        unit, period = PERIODS[expanded.codes[number]], parse_duration(variable.period)
        if period % unit:
            raise _Unfit(
                f"{template.name} tells its period in {format_duration(unit)}, but it covers {variable.period}"
            )
        # A period ends when the observation is made; an instant has none.
        values[number] = -(period // unit) - expanded.elements[number].reference if period else MISSING
    if slot.is_averaged and significance is not None:
        values[significance] = AVERAGED if variable.method == "mean" else MISSING
    if slot.constituent is not None and constituent is not None:
        values[constituent] = slot.constituent
    return values


def _target(column: str, variable: CanonicalVariable, slot: Slot, place: Place, element: Element) -> Target:
    seconds = parse_duration(variable.period).total_seconds() if slot.integrated else 1.0
    try:
        scale, offset = cf.conversion(variable.cf_unit, "W m-2" if slot.integrated else element.udunit)
    except cf.UnitError as error:
        raise _Unfit(f"{element.descriptor} ({element.name}, {element.unit}) cannot be made of it: {error}") from error
    return Target(column, place, element, scale * seconds, offset * seconds, slot.limits)


def plan_of(schema: pa.Schema, forms: list[Form]) -> ExportPlan:
    """What became of each variable column of `schema` in its `forms`."""
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
