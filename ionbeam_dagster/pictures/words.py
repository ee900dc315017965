"""Words and units of pictures, as people who read weather maps expect them.

Belongs here: labels, units and what is said of times and numbers. Does not belong here: where they are drawn.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import polars as pl

from ionbeam_client.models import CanonicalVariable, parse_duration

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shown(variable: CanonicalVariable) -> tuple[str, float, float]:
    """The unit that is shown, and the factor and offset that lead to it."""
    name, unit = variable.standard_name, variable.cf_unit
    if unit in ("K", "kelvin") and name.endswith("temperature"):
        return "°C", 1.0, -273.15
    if unit in ("degC", "celsius", "Celsius", "degrees Celsius", "degree_Celsius"):
        return "°C", 1.0, 0.0
    if unit == "Pa":
        return "hPa", 0.01, 0.0
    if unit == "1" and name == "relative_humidity":
        return "%", 100.0, 0.0
    raised = re.sub(r"(?<=[A-Za-z])-?\d", lambda power: power.group().translate(SUPERSCRIPT), unit)
    return ("" if unit == "1" else raised), 1.0, 0.0


def shown_values(variable: CanonicalVariable) -> pl.Expr:
    _, factor, offset = shown(variable)
    values = pl.col(variable.to_canonical_name()).cast(pl.Float64)
    return pl.when(values.is_finite()).then(values * factor + offset)


def label_of(variable: CanonicalVariable) -> str:
    unit, _, _ = shown(variable)
    words = [variable.standard_name.replace("_", " ")]
    if variable.level:
        words.append(f"{variable.level:g} m")
    if variable.method != "point":
        words.append(variable.method)
    if seconds := parse_duration(variable.period).total_seconds():
        words.append(f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min")
    return ", ".join(words) + (f" [{unit}]" if unit else "")


def counted(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def period_of(start: datetime, end: datetime) -> str:
    if end - start == timedelta(days=1) and start.time() == end.time() == datetime.min.time():
        return f"{start:%Y-%m-%d} UTC"
    same_day = (end - timedelta(microseconds=1)).date() == start.date()
    until = ("24:00" if end.date() > start.date() else f"{end:%H:%M}") if same_day else f"{end:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d %H:%M} – {until} UTC"
