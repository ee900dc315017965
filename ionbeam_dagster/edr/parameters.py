"""Columns of a window's file as the parameters of the service.

Belongs here: the ids of parameters (``standard_name:level:method:period``, as in the EUMETNET metocean profile), what
is told of them, and which columns of a file hold them. Does not belong here: values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa

from ionbeam_client.cf import LOCAL_PREFIX, is_local
from ionbeam_client.models import CanonicalVariable
from ionbeam_dagster.domain.canonical import columns_of

VOCABULARY = "https://vocab.nerc.ac.uk/standard_name/"
# QARTOD's flags, as quality control writes them.
FLAG_MEANINGS = {1: "pass", 2: "not evaluated", 3: "suspect", 4: "fail", 9: "missing"}
FLAG_SUFFIX = "_quality_flag"
NUMBER, TEXT, TRUTH, OTHER = "number", "text", "truth", "other"
"""What values may be; of other ones no answer can be made."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a collection; `is_flag` says that it is the quality flag of the one named without the suffix.

    `definition` says what it is, where CF has no name for it.
    """

    standard_name: str
    unit: str
    level: float
    method: str
    period: str
    is_flag: bool = False
    definition: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}:{self.level}:{self.method}:{self.period}"

    @property
    def name(self) -> str:
        return self.standard_name + (FLAG_SUFFIX if self.is_flag else "")

    @property
    def label(self) -> str:
        words = (self.name.removeprefix(LOCAL_PREFIX) if self.is_local else self.name).replace("_", " ")
        return words[:1].upper() + words[1:]

    @property
    def description(self) -> str:
        spread = f"{self.method} over {self.period}" if self.period != "PT0S" else self.method
        what = self.label if self.is_flag else self.definition or self.label
        return f"{what} at {self.level:g} m, {spread}"

    @property
    def is_local(self) -> bool:
        """Whether its name is the dataset's own, so that no vocabulary has it."""
        return is_local(self.standard_name)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of one file and the parameter that it holds, in the unit of that file."""

    name: str
    parameter: Parameter
    kind: str = NUMBER

    @property
    def is_answerable(self) -> bool:
        """Whether an answer can be made of its values; a text is no quantity with a unit."""
        return self.kind in (NUMBER, TRUTH) or (self.kind == TEXT and self.parameter.unit in ("", "1"))


@dataclass(frozen=True, slots=True)
class Layout:
    """What a query needs to know of one file's columns."""

    columns: tuple[Column, ...]
    described: tuple[str, ...]  # the metadata columns
    fit: bool


def layout_of(schema: pa.Schema) -> Layout:
    """The layout of a window's file; `fit` is False where it lacks time or place, or has them in other types."""
    fit = {"datetime", "lat", "lon"} <= set(schema.names)
    fit = fit and pa.types.is_timestamp(schema.field("datetime").type)
    fit = fit and all(pa.types.is_floating(schema.field(name).type) for name in ("lat", "lon"))
    columns = [
        Column(name, replace(found, definition=_definition(schema, name)), _kind(schema.field(name).type))
        for name in columns_of(schema, "variable")
        if (found := _parameter(name))
    ]
    for name in columns_of(schema, "quality"):
        about = schema.field(name).metadata
        found = _parameter(about.get(b"of", b"").decode(), True) if about.get(b"kind") == b"flag" else None
        if found:
            columns.append(Column(name, found, _kind(schema.field(name).type)))
    return Layout(tuple(columns), tuple(columns_of(schema, "metadata")), fit)


def _definition(schema: pa.Schema, column: str) -> str:
    return str(schema.field(column).metadata.get(b"definition", b"").decode())


def _kind(type: pa.DataType) -> str:
    if pa.types.is_dictionary(type):
        type = type.value_type
    if pa.types.is_floating(type) or pa.types.is_integer(type):
        return NUMBER
    if pa.types.is_string(type) or pa.types.is_large_string(type):
        return TEXT
    return TRUTH if pa.types.is_boolean(type) else OTHER


@lru_cache(maxsize=4096)
def _parameter(column: str, is_flag: bool = False) -> Parameter | None:
    try:
        variable = CanonicalVariable.from_canonical_name(column)
    except ValueError:
        return None
    unit = "1" if is_flag else variable.cf_unit
    return Parameter(variable.standard_name, unit, variable.level, variable.method, variable.period, is_flag)


@lru_cache(maxsize=4096)
def parameter_from(id: str, unit: str, definition: str = "") -> Parameter:
    """The parameter of an id, as `Parameter.id` writes it; raises ValueError for any other text."""
    name, level, method, period = id.split(":")
    is_flag = name.endswith(FLAG_SUFFIX)
    return Parameter(name.removesuffix(FLAG_SUFFIX), unit, float(level), method, period, is_flag, definition)
