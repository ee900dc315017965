"""The columns of a dataset's windows, together, and those of them that are asked for.

Belongs here: which column is a variable, which tells of the quality of which, and what names people may give them. Does
not belong here: the files that they are in.

A column says in its metadata what it is (``role``): time, latitude, longitude, metadata of its station, a variable, or
the quality of one (``of``, ``kind``). What says nothing (the geometry, the box, the id of a feature) is left out: it
tells nothing that lat, lon, time and station do not.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pyarrow as pa

from ionbeam_client.models import CanonicalVariable
from ionbeam_client.opening.errors import OpenError

NEEDED = ("datetime", "lat", "lon")
MOST_NAMES = 12
"""That an error tells."""


@dataclass(frozen=True, slots=True)
class Columns:
    """`schema` has all that may be read, in the order in which it is given: time, place, station, variables by name,
    each followed by what tells of its quality."""

    schema: pa.Schema
    variables: tuple[str, ...]

    def flag_of(self, variable: str) -> str | None:
        """The column of a variable's aggregate flag; None where it was never tested."""
        return next((one.name for one in self._quality(variable) if _said(one, b"kind") == "flag"), None)

    def of(self, variables: Sequence[str]) -> Columns:
        """Only these variables, with what tells of time, place and station."""
        chosen = dict.fromkeys(sorted(variables))
        fields = [one for one in self.schema if _said(one, b"role") not in ("variable", "quality")]
        for name in chosen:
            fields += [self.schema.field(name), *self._quality(name)]
        return Columns(pa.schema(fields), tuple(chosen))

    def chosen(self, named: Sequence[str]) -> list[str]:
        """The variables that have the names: of a column, a standard name, or as in the service
        ``standard_name:level:method:period``, with ``*`` for any text. Raises OpenError, which tells the near names."""
        found: dict[str, None] = {}
        for name in named:
            fitting = [column for column in self.variables if _fits(column, name)]
            if not fitting:
                raise OpenError(f"there is no variable {name!r}{self._near(name)}")
            found |= dict.fromkeys(fitting)
        return list(found)

    def _near(self, name: str) -> str:
        names = sorted({standard for column in self.variables for standard in names_of(column)[1:]})
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.5) or [one for one in names if name in one][:5]
        if near:
            return f"; near are {', '.join(near)}"
        standard = sorted({names_of(column)[1] for column in self.variables})
        more = f" and {len(standard) - MOST_NAMES} more" if len(standard) > MOST_NAMES else ""
        return f"; there are {', '.join(standard[:MOST_NAMES])}{more}" if standard else "; there is none at all"

    def _quality(self, variable: str) -> list[pa.Field]:
        return [one for one in self.schema if _said(one, b"role") == "quality" and _said(one, b"of") == variable]


def columns_of(schemas: Iterable[pa.Schema]) -> Columns:
    """Those of all windows. Raises OpenError where one column is of types that do not fit together."""
    known = [pa.schema([one for one in schema if _said(one, b"role")]) for schema in schemas]
    try:
        whole = pa.unify_schemas(known, promote_options="permissive")
    except pa.ArrowException as error:
        raise OpenError(f"the windows do not fit together ({error}); ask for a shorter time") from error
    if lacking := [name for name in NEEDED if name not in whole.names]:
        raise OpenError(f"its files lack {', '.join(lacking)}: they are no windows of observations")
    fields = [whole.field(name) for name in NEEDED]
    fields += sorted((one for one in whole if _said(one, b"role") == "metadata"), key=_station_first)
    rest = [one for one in whole if _said(one, b"role") in ("variable", "quality")]
    variables = sorted(one.name for one in rest if _said(one, b"role") == "variable")
    return Columns(pa.schema(fields + rest), tuple(variables)).of(variables)


def names_of(column: str) -> tuple[str, ...]:
    """What a variable may be called: by its column, its standard name, its id in the service."""
    try:
        found = CanonicalVariable.from_canonical_name(column)
    except ValueError:
        return column, column
    id = f"{found.standard_name}:{found.level}:{found.method}:{found.period}"
    return column, found.standard_name, id


def _fits(column: str, name: str) -> bool:
    return any(one == name or ("*" in name and fnmatchcase(one, name)) for one in names_of(column))


def _station_first(field: pa.Field) -> tuple[bool, str]:
    return not field.name.startswith("station_id"), field.name


def _said(field: pa.Field, key: bytes) -> str:
    return str((field.metadata or {}).get(key, b"").decode())
