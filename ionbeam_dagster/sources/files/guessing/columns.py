"""The columns that are measured, in tables of every form: one column a quantity, one a station, or one value a row.

Belongs here: which columns are read, what stands for no value, and what is not recognised. Does not belong here: what
one column measures (quantities.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import polars as pl

from ionbeam_dagster.domain.raw_values import NO_VALUE
from ionbeam_dagster.domain.usual_names import method_called, told_by, words_of
from ionbeam_dagster.sources.files.guessing.isd import MISSING, of_cells
from ionbeam_dagster.sources.files.guessing.quantities import Guess, Told, differs, judged
from ionbeam_dagster.sources.files.guessing.sample import Sample
from ionbeam_dagster.sources.files.guessing.statements import (
    ITEM,
    Line,
    Question,
    Remark,
    Statement,
    below,
    in_yaml,
)
from ionbeam_dagster.sources.files.readers import Unreadable
from ionbeam_dagster.sources.files.unit_codes import WEEWX, weewx_units

_NINES = re.compile(r"-9{2,6}(\.[09]+)?|-?9{3,7}(\.[09]+)?|-?[67]999(\.0+)?")
_SHORTEST, _SHOWN = 12, 4
_QUALITY = re.compile(r"(?i)(^|[ _.-])(q|qc|qn|qf|flag|flags|quality_?code|quality|qa)([ _.-]?\d*)($|[ _.-])")
_LONG = {
    "variable": ("parameter", "variable", "element", "quantity", "measurand", "observed property", "property",
                 "sensor type", "measurement", "type", "name", "field"),
    "value": ("value", "val", "result", "messwert", "wert", "data value", "valore"),
    "unit": ("unit", "units", "uom", "einheit"),
}  # fmt: skip
_DIVIDERS = {" - ": 2, ": ": 2, "__": 2, "_": 3, "/": 3, ".": 3, " ": 3}
"""What may stand between a station and a quantity, and how many stations there must be for that to be believed."""
_NO_STATIONS = {"in", "out", "indoor", "outdoor", "inside", "outside", "qc", "flag"}


@dataclass(slots=True)
class Wide:
    """Columns that are of a station and a quantity each: the pattern, and which columns are of which quantity."""

    pattern: str
    quantities: dict[str, list[str]] = field(default_factory=dict)


def long_columns(sample: Sample, taken: Sequence[str]) -> dict[str, str] | None:
    """Which columns name the quantity, hold the value and its unit, in a table with one value a row."""
    by_words = {" ".join(words_of(name)): name for name in sample.rows.columns if name not in taken}
    found = {key: next((by_words[word] for word in words if word in by_words), None) for key, words in _LONG.items()}
    variable, value = found["variable"], found["value"]
    if (
        variable is None
        or value is None
        or sample.rows[variable].cast(pl.String).cast(pl.Float64, strict=False).count()
    ):
        return None
    return {key: name for key, name in found.items() if name is not None}


def wide_columns(sample: Sample, taken: Sequence[str]) -> Wide | None:
    """The pattern of columns that are of a station each."""
    names = [name for name in sample.rows.columns if name not in taken]
    for divider, least in _DIVIDERS.items():
        parts = [name.split(divider) for name in names]
        if len(names) < 2 or any(len(part) != 2 or not all(part) for part in parts):
            continue
        for of_variable in (1, 0):
            quantities: dict[str, list[str]] = {}
            for name, part in zip(names, parts, strict=True):
                quantities.setdefault(part[of_variable], []).append(name)
            known = all(told_by(one).usual is not None for one in quantities)
            stations = {part[1 - of_variable] for part in parts}
            if (
                known
                and len(stations) >= least
                and len(names) > len(quantities)
                and all(map(_may_be_station, stations))
            ):
                groups = ["(?P<station_id>.+)", "(?P<variable>.+)"]
                return Wide(
                    re.sub(r"\\([ -])", r"\1", re.escape(divider)).join(groups[:: 1 if of_variable else -1]), quantities
                )
    return None


def _may_be_station(text: str) -> bool:
    return text.lower() not in _NO_STATIONS and method_called(text) is None and told_by(text).usual is None


def measured(
    sample: Sample,
    taken: Sequence[str],
    american: bool,
    step: timedelta | None,
    wide: Wide | None,
    long: dict[str, str] | None,
) -> list[Line]:
    """What is measured in the columns that are not `taken`."""
    rows = sample.rows
    free = [name for name in rows.columns if name not in taken]
    if long is not None:
        return _long(sample, long, american, step)
    if cells := of_cells(rows):
        why = "what ISD writes where there is no value"
        first = Statement("missing", MISSING, "sure", why)
        return [first, Statement("variables", inner=tuple(cells))]
    numeric = {name: numbers for name in free if (numbers := _numbers(rows[name], sample.decimal)) is not None}
    missing = _missing(rows, numeric)
    numeric = {name: _without(numbers, missing) for name, numbers in numeric.items()}
    numeric |= {name: pl.Series([], dtype=pl.Float64) for name in free if _holds_only(rows[name], missing)}
    if wide is not None:
        columns = {one: pl.concat([numeric.get(name, pl.Series([], dtype=pl.Float64)).alias("x") for name in names])
                   for one, names in wide.quantities.items()}  # fmt: skip
        found = _variables(sample, columns, american, step, {})
        first = Statement("wide", wide.pattern, "likely", "each column names a station and a quantity")
        return [*_missing_line(missing), first, *found]
    codes = _quality_columns(free)
    found = _variables(sample, {name: one for name, one in numeric.items() if name not in codes}, american, step, codes)
    left = [name for name in free if name not in numeric and not codes.get(name)]
    return [*_missing_line(missing), *found, *_left(left)]


def _variables(
    sample: Sample, columns: dict[str, pl.Series], american: bool, step: timedelta | None, codes: dict[str, str]
) -> list[Line]:
    entries: list[dict[str, Any]] = []
    items: list[Line] = []
    unknown: list[tuple[str, Guess]] = []
    heights, assumed = False, list[str]()
    american = american or any(_is_inches_of_mercury(name, values) for name, values in columns.items())
    for name, values in columns.items():
        guess = judged(name, values, _told(sample, name), american, step)
        if guess.entry is None or guess.implausible:
            unknown.append((name, guess))
        elif not differs(guess.entry, list(entries)):
            guess.why = (
                f"is {guess.entry['standard_name']} as another column is; give it a level or a method of its own"
            )
            unknown.append((name, guess))
        else:
            guess.entry |= {"optional": True} if name in sample.lacking else {}
            entries.append(guess.entry)
            assumed += [name] if guess.assumed_unit else []
            heights |= guess.assumed_level
            items.append(Statement(ITEM, guess.entry, guess.sureness, guess.why))
            items += _question_of_quality(name, codes, sample)
    _as_other_winds(items)
    if assumed:
        which = ", ".join(map(repr, assumed))
        text = "what is written as cf_unit is assumed; where it is another, add it, such as unit: degF or unit: km h-1"
        items.insert(0, Question(f"the files do not say the unit of {which}: {text}"))
    if heights:
        items.insert(
            0, Question("the files do not say how high the sensors are: `level` is what is usual, in m above ground")
        )
    if not items:
        items = [Question("no quantity was recognised by its name. Say what one of the columns below is:")]
    items += [_unrecognised(name, guess) for name, guess in unknown]
    if not entries:
        first = next(iter(columns), "COLUMN")
        items.append(Question("at least one is needed, for example:", (_example(first),)))
        return [Question("what is measured", ("variables:",)), *items]
    return [Statement("variables", inner=tuple(items))]


def _as_other_winds(items: list[Line]) -> None:
    """Put winds of which no unit is said into that of the others, where one is said or their values show one."""
    winds = {
        place: one for place, one in enumerate(items) if isinstance(one, Statement) and one.value["cf_unit"] == "m s-1"
    }
    by_file = [one.value["unit"] for one in winds.values() if "unit" in one.value and "the file says" in one.why]
    said = next(iter([*by_file, *(one.value["unit"] for one in winds.values() if "unit" in one.value)]), None)
    for place, one in winds.items():
        if said not in (None, one.value.get("unit")) and "the file says" not in one.why:
            first = {key: one.value.get(key) for key in ("column", "standard_name", "unit")}
            why = f"{one.value['column']!r} is usually that; in {said} as another wind of the file"
            items[place] = replace(one, value={**first, **one.value, "unit": said}, why=why)


def _example(name: str) -> str:
    entry = {"column": name, "standard_name": "air_temperature", "cf_unit": "degC", "level": 2}
    return f"- {in_yaml(entry)}"


def _unrecognised(name: str, guess: Guess) -> Remark:
    entry = guess.entry or {"column": name, "standard_name": "...", "cf_unit": "..."}
    return Remark(f"{name!r} is left out: {guess.why}. To read it, complete this and take the # away:",
                  (f"- {in_yaml(entry)}",))  # fmt: skip


def _left(names: Sequence[str]) -> Iterator[Line]:
    if names:
        shown = ", ".join(repr(name) for name in names[:_SHORTEST])
        yield Remark(f"columns of texts that are left out: {shown}; those that describe a station may go to `metadata`")


def _told(sample: Sample, name: str) -> Told:
    about = next((found[1] for line in sample.around
                  if (found := re.match(rf"^[#%!\s]*{re.escape(name)}\s*[:=]\s*(.+)$", line))), "")  # fmt: skip
    return Told(sample.units.get(name) or _unit_of_system(sample, name), sample.methods.get(name), about.strip())


def _question_of_quality(name: str, codes: dict[str, str], sample: Sample) -> Iterator[Line]:
    column = next((code for code, of in codes.items() if of == name), None)
    if column is None:
        return
    found = sample.rows[column].cast(pl.String).str.strip_chars().drop_nulls()
    seen = [one for one in found.unique().sort().to_list() if one][:_SHORTEST]
    entry = f"quality: {in_yaml({'column': column, 'good': [], 'poor': ['...']})}"
    yield Remark(f"{column!r} seems to say how good {name!r} is (its codes here: {', '.join(seen)}). Where that is so, "
                   f"add to the line above which codes are poor, and which good: {entry}")  # fmt: skip


def _quality_columns(names: Sequence[str]) -> dict[str, str]:
    """Columns of codes that say how good another column is, each with that column."""
    found: dict[str, str] = {}
    for place, name in enumerate(names):
        if not _QUALITY.search(name) or told_by(name).usual is not None:
            continue
        plain = _QUALITY.sub(" ", name).strip(" _.-")
        of = next((other for other in names if other != name and other == plain), None)
        if of is None and place + 1 < len(names) and not plain:
            of = names[place + 1]
        found[name] = of or ""
    return found


def _numbers(given: pl.Series, decimal: str) -> pl.Series | None:
    """The numbers of a column; None where it has other things."""
    if given.dtype.is_numeric():
        return given.cast(pl.Float64).fill_nan(None)
    if given.dtype != pl.String:
        return None
    texts = given.str.strip_chars()
    texts = texts.str.replace(",", ".", literal=True) if decimal == "," else texts
    absent = texts.str.to_lowercase().is_in(NO_VALUE)
    numbers = texts.set(absent, None).cast(pl.Float64, strict=False)
    there = len(texts) - int(absent.sum()) - texts.null_count()
    return numbers if not there or numbers.count() >= 0.5 * there else None


def _missing(rows: pl.DataFrame, numeric: dict[str, pl.Series]) -> list[str | float]:
    """Texts and numbers that stand for no value in the columns of numbers."""
    texts: dict[str, None] = {}
    numbers: dict[float, None] = {}
    for name, values in numeric.items():
        if rows[name].dtype == pl.String:
            cells = rows[name].str.strip_chars()
            none = cells.filter(values.is_null() & ~cells.str.to_lowercase().is_in(NO_VALUE)).drop_nulls()
            texts |= dict.fromkeys(
                text
                for text in none.unique(maintain_order=True).to_list()[:_SHOWN]
                if len(text) <= 6 and not re.search(r"\d", text)  # what has digits is a value that is written otherwise
            )
        for value in values.drop_nulls().unique().to_list():
            if _NINES.fullmatch(f"{value:g}") and _stands_apart(value, values):
                numbers[value] = None
    whole = [int(value) if value == int(value) else value for value in numbers]
    return [*texts, *whole]


def _stands_apart(value: float, values: pl.Series) -> bool:
    """Whether a number is far from all others of its column, as one is that stands for no value."""
    if value <= -900:
        return True
    others = values.filter(values != value).drop_nulls()
    others = others.filter(others.abs() < abs(value))
    if others.is_empty():
        return value < 0
    low, high = float(others.min()), float(others.max())  # type: ignore[arg-type]
    return value > high + 2 * max(high - low, 1.0) or value < low - 2 * max(high - low, 1.0)


def _without(numbers: pl.Series, missing: Sequence[str | float]) -> pl.Series:
    stand_for_none = [float(one) for one in missing if not isinstance(one, str)]
    return numbers.set(numbers.is_in(stand_for_none).fill_null(False), None) if stand_for_none else numbers


def _holds_only(given: pl.Series, missing: Sequence[str | float]) -> bool:
    """Whether all cells of a column are texts that stand for no value in others."""
    if given.dtype != pl.String or not missing:
        return False
    cells = given.str.strip_chars().drop_nulls()
    return bool(cells.is_in([one for one in missing if isinstance(one, str)]).all())


def _missing_line(missing: Sequence[str | float]) -> list[Line]:
    if not missing:
        return []
    return [Statement("missing", list(missing), "likely", "stands where there is no number, or far from all others")]


def _unit_of_system(sample: Sample, name: str) -> str | None:
    """The unit of a column of weewx's archive, whose column of unit systems says it of all others.

    Raises Unreadable where it says several, as nothing in a block tells rows of one from those of another.
    """
    units = weewx_units(name)
    if not units or WEEWX not in sample.rows.columns:
        return None
    systems = sample.rows[WEEWX].cast(pl.String).str.strip_chars().drop_nulls().unique().to_list()
    if len(systems) > 1:
        raise Unreadable(
            f"its rows are in several systems of units ({WEEWX} is {' and '.join(sorted(systems))}), which is not "
            "guessed; have weewx write it in one (weectl database reconfigure), or guess the rows of one, and state of "
            f"each variable what the codes mean (unit: {{column: {WEEWX}, units: {{1: degF, 16: degC}}}})"
        )
    return units.get(systems[0]) if systems else None


def _is_inches_of_mercury(name: str, values: pl.Series) -> bool:
    usual, known = told_by(name).usual, values.drop_nulls()
    return usual is not None and usual.unit == "hPa" and len(known) > 0 and bool(known.is_between(25, 32).all())


def _long(sample: Sample, long: dict[str, str], american: bool, step: timedelta | None) -> list[Line]:
    rows = sample.rows
    values = _numbers(rows[long["value"]], sample.decimal)
    if values is None:
        return [Question(f"the values in {long['value']!r} are no numbers: name the column that has them under `long`")]
    missing = _missing(rows, {long["value"]: values})
    values = _without(values, missing)
    names = rows[long["variable"]].cast(pl.String).str.strip_chars()
    columns = {name: values.filter(names == name) for name in names.unique(maintain_order=True).drop_nulls().to_list()}
    told = Sample(sample.path, sample.format, rows, around=sample.around, units=_units_of(rows, names, long, columns))
    found = _variables(told, columns, american, step, {})
    first = below("long", [Statement(key, name, "sure", "its name") for key, name in long.items()])
    for line in found:
        if isinstance(line, Statement) and "unit" in long:
            for entry in (one.value for one in line.inner if isinstance(one, Statement)):
                entry.pop("unit", None)
    return [*_missing_line(missing), *first, *found]


def _units_of(rows: pl.DataFrame, names: pl.Series, long: dict[str, str], columns: dict[str, Any]) -> dict[str, str]:
    if "unit" not in long:
        return {}
    units = rows[long["unit"]].cast(pl.String).str.strip_chars()
    return {name: str(unit) for name in columns if (unit := units.filter(names == name).drop_nulls().first())}
