"""Variables as the YAML and the files together describe them.

Belongs here: which of the two says what, and whether it can be. Does not belong here: reading files (readers.py), and
their rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from ionbeam_client.cf import UnitError, check_variable, conversion, lookup, suggest_unit
from ionbeam_client.models import CanonicalVariable
from ionbeam_dagster.sources.files.config import FileVariable
from ionbeam_dagster.sources.files.levels import Heights
from ionbeam_dagster.sources.files.readers import Described, Layout

MOST_HEIGHTS = 100
_DIFFERENCES = ("range", "standard_deviation")


def completed(stated: FileVariable, said: Described) -> tuple[CanonicalVariable, str]:
    """A variable from what the YAML states and what a file says of it, and the unit in the file.

    Raises ValueError when neither says it, or CF or UDUNITS refuse it.
    """
    name = stated.standard_name or said.standard_name
    if not name:
        raise ValueError("has no standard_name in the file; state `standard_name` (x_... for what CF has no name for)")
    if stated.unit_codes and not stated.cf_unit:
        raise ValueError("state `cf_unit`: its rows are in several units")
    own = stated.unit if isinstance(stated.unit, str) else None
    unit = stated.cf_unit if stated.unit_codes else _meant(own or said.unit) or stated.cf_unit
    if not unit:
        raise ValueError("has no units in the file; state `unit` ('1' for a quantity without one)")
    method = stated.method or said.method or "point"
    variable = CanonicalVariable(
        column=stated.column,
        standard_name=_current(name),
        cf_unit=stated.cf_unit or unit,
        level=next((level for level in (stated.level, said.level) if isinstance(level, int | float)), 0.0),
        method=method,
        period=stated.period or (said.period if method != "point" else None) or "PT0S",
        dtype=stated.dtype,
        definition=stated.definition,
        flag_column=stated.flag_column,
    )
    errors = [problem.text for problem in check_variable(variable) if problem.severity == "error"]
    if errors:
        raise ValueError("; ".join(errors))
    if not is_text(variable):
        for one in stated.unit_codes.units.values() if stated.unit_codes else filter(None, [own]):
            _refuse_other_kind(_meant(one) or one, variable)
    return variable, unit


def raised(stated: FileVariable, known: Mapping[str, Sequence[float]]) -> list[FileVariable]:
    """The variables that one of the block stands for: one a height, where its level is a column of heights. `known`
    are the heights that a file tells, in m, by column. Raises ValueError where none are known, or very many."""
    if not isinstance(stated.level, Heights):
        return [stated]
    where, heights = stated.level, [*(stated.level.heights or known.get(stated.level.column, ()))]
    example = f"level: {{column: {where.column}, heights: [2, 10, 50]}}, in m"
    if not heights:
        raise ValueError(f"state which heights in {where.column!r} are read: {example}")
    if len(heights) > MOST_HEIGHTS:
        raise ValueError(f"has {len(heights):,} heights in {where.column!r}; state which of them are read: {example}")
    return [
        stated.model_copy(
            update={"column": f"{stated.column}@{height:.12g}m", "read_from": stated.stands_in, "level": height}
        )
        for height in heights
    ]


def twice(variables: dict[str, CanonicalVariable], key: str) -> list[str]:
    """A fault for each two columns that would be one quantity of a station."""
    first: dict[str, str] = {}
    faults = []
    for column, variable in variables.items():
        name = variable.to_canonical_name()
        if name in first:
            faults.append(
                f"{key}: {first[name]!r} and {column!r} are both {name}, of which there is one a station; give them "
                "different levels or methods, or make a source of each (one column a station: `wide`)"
            )
        first.setdefault(name, column)
    return faults


def _current(name: str) -> str:
    """What CF calls today what it once called `name`."""
    found = lookup(name)
    return found.current[0] if found.kind == "alias" and len(found.current) == 1 else name


def _meant(unit: str | None) -> str | None:
    """What people mean by the name of a unit that UDUNITS misunderstands, such as "degrees Celsius"."""
    return (suggest_unit(unit) or unit) if unit else None


def _refuse_other_kind(unit: str, variable: CanonicalVariable) -> None:
    try:
        factors(unit, variable)
    except UnitError as error:
        raise UnitError(f"{error}; correct `unit` or `cf_unit`") from error


def factors(unit: str, variable: CanonicalVariable) -> tuple[float, float]:
    """Scale and offset from the file's unit to the dataset's; raises UnitError."""
    try:
        scale, offset = conversion(_meant(unit) or unit, variable.cf_unit)
    except UnitError as error:
        raise UnitError(f"its values are in {unit!r}, which cannot become {variable.cf_unit!r} ({error})") from error
    is_difference = variable.method in _DIFFERENCES or lookup(variable.standard_name).is_difference
    return scale, 0.0 if is_difference else offset


def is_text(variable: CanonicalVariable) -> bool:
    return variable.dtype in ("string", "bool")


def flags(layout: Layout) -> tuple[str, ...]:
    """The columns of quality flags that the files name for the variables and the YAML does not."""
    flags = dict.fromkeys(flag for said in layout.described.values() for flag in said.flags)
    return tuple(flag for flag in flags if flag not in layout.metadata and flag not in layout.described)


def reason(error: ValueError) -> str:
    return error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
