"""Which column of a dataset becomes which varno, and why the others become none.

Belongs here: rules against variables, the choice where several columns want one varno, and how values come into its
unit. Does not belong here: the rules themselves (tables.py, settings.py), or the values (rows.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa

from ionbeam_client import cf
from ionbeam_client.models import CanonicalVariable, format_duration, parse_duration
from ionbeam_dagster.domain.canonical import columns_of, quality_column, variable_of
from ionbeam_dagster.exporters.odb.settings import MappedFrom, VariableMapping
from ionbeam_dagster.exporters.odb.tables import (
    AT_SEA_LEVEL,
    DEFAULT_RULES,
    DIRECTION,
    EASTWARD,
    HEIGHT_OF_COMPONENTS,
    NORTHWARD,
    PERIOD_OF_RAIN,
    RAIN,
    SPEED,
    SURFACE_PRESSURE,
    VARNOS,
    Rule,
    Varno,
)


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A value that every report may have once: a varno, and whether it is valid at sea level or at the station."""

    varno: Varno
    at_sea_level: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A column that becomes `varno` by scale and offset, with the column of its quality flags.

    With a `direction` it is a wind speed that becomes the component `varno`. `hours`: the period to write with a rain
    amount. `at_sea_level`: a pressure that is valid there, and not where the station is.
    """

    column: str
    varno: Varno
    scale: float
    offset: float
    flag: str | None
    height: float
    period: timedelta
    hours: float | None = None
    direction: Target | None = None
    at_sea_level: bool = False

    @property
    def entry(self) -> Entry:
        return Entry(self.varno, self.at_sea_level)

    def __str__(self) -> str:
        where = " at sea level" if self.at_sea_level and self.varno.number == SURFACE_PRESSURE else ""
        pair = f", its {self.hours:.3g} h as varno {VARNOS[PERIOD_OF_RAIN]}" if self.hours else ""
        pair += f" with {self.direction.column}" if self.direction else ""
        return f"odb varno {self.varno}{where}{pair}"

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.column, self.flag) if name]


class _NotMapped(Exception):
    """The reason for which a variable has no varno."""


class VarnoMap:
    """The rules of `variable_map` for the varnos that it names, and DEFAULT_RULES for the others."""

    def __init__(self, variable_map: Sequence[VariableMapping]) -> None:
        self._named = tuple(_rule(mapping.varno, source) for mapping in variable_map for source in mapping.mapped_from)
        named = {mapping.varno for mapping in variable_map}
        self._defaults = tuple(rule for rule in DEFAULT_RULES if rule.varno not in named)

    def targets(self, schema: pa.Schema) -> tuple[list[Target], dict[str, str]]:
        """The columns that are written, by varno, and why the others are not."""
        candidates: dict[Entry, list[tuple[Any, Target]]] = {}
        left_out: dict[str, str] = {}
        for place, name in enumerate(columns_of(schema, "variable")):
            variable = variable_of(schema.field(name))
            try:
                for order, rule in self._rules_for(variable, schema.field(name).type):
                    target = _target(name, variable, VARNOS[rule.varno], quality_column(schema, name, "flag"))
                    rank = order, variable.method != "point", parse_duration(variable.period), place
                    candidates.setdefault(target.entry, []).append((rank, target))
            except _NotMapped as reason:
                left_out[name] = str(reason)
        chosen = []
        for entry, found in sorted(candidates.items()):
            (best, winner), *others = sorted(found, key=lambda one: one[0])
            chosen.append(winner)
            for rank, loser in others:
                left_out[loser.column] = (
                    f"varno {entry.varno.number} is taken by {winner.column}, {_why_better(best, rank)}"
                )
        for target in chosen:
            left_out.pop(target.column, None)
        return self._with_components(chosen), left_out

    def _with_components(self, targets: list[Target]) -> list[Target]:
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
            raise _NotMapped(f"{variable.standard_name} is no name of CF; no varno stands for it")
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


def entries_of(targets: list[Target]) -> list[Entry]:
    """What comes of `targets`, in the order of varnos; with a rain amount comes its period."""
    entries = {target.entry for target in targets}
    if any(target.hours for target in targets):
        entries.add(Entry(VARNOS[PERIOD_OF_RAIN]))
    return sorted(entries)


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


def _target(column: str, variable: CanonicalVariable, varno: Varno, flag: str | None) -> Target:
    try:
        scale, offset = cf.conversion(variable.cf_unit, varno.unit)
    except cf.UnitError as error:
        raise _NotMapped(f"varno {varno} cannot be made of it: {error}") from error
    period = parse_duration(variable.period)
    hours = period / timedelta(hours=1) if varno.number == RAIN else None
    at_sea_level = _current_name(variable.standard_name) == AT_SEA_LEVEL
    return Target(column, varno, scale, offset, flag, variable.level, period, hours or None, at_sea_level=at_sea_level)


def _why_better(best: tuple[Any, ...], rank: tuple[Any, ...]) -> str:
    differs = next(place for place, (one, other) in enumerate(zip(best, rank, strict=True)) if one != other)
    return (
        "which stands first in variable_map",
        "which is a value at a point in time",
        "which covers a shorter period",
        "which comes first",
    )[differs]
