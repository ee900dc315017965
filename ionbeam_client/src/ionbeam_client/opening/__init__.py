"""Open a dataset where one works: three lines in a notebook.

    from ionbeam_client import open_dataset
    crowd = open_dataset("http://localhost:5000/collections/crowd", time="2026-06-21", variables=["air_temperature"])
    print(crowd.group_by("station_id").len().collect())

Belongs here: the two functions that users import. Does not belong here: how windows are found (places.py, service.py),
read (rows.py) and given (forms.py, ragged.py).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.opening import forms
from ionbeam_client.opening.columns import Columns, columns_of
from ionbeam_client.opening.errors import OpenError, OpenWarning
from ionbeam_client.opening.places import windows_at
from ionbeam_client.opening.provenance import Provenance, Source, WindowRead, provenance_of
from ionbeam_client.opening.question import Question, Time, question_of
from ionbeam_client.opening.rows import Reading, tried
from ionbeam_client.opening.window import Window, Windows

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl
    import xarray as xr

__all__ = ["OpenError", "OpenWarning", "Provenance", "Source", "WindowRead", "open_dataset", "provenance"]

Form = Literal["polars", "pandas", "xarray", "arrow", "duckdb"]
_FORMS = ("polars", "pandas", "xarray", "arrow", "duckdb")
Where = str | os.PathLike[str]
Names = str | Sequence[str] | None


class _Asked(TypedDict, total=False):
    time: Time
    bbox: Sequence[float] | None
    variables: Names
    stations: Names
    quality: Literal["good"] | None


@overload
def open_dataset(where: Where, *, as_: Literal["polars"] = "polars", **asked: Unpack[_Asked]) -> pl.LazyFrame: ...
@overload
def open_dataset(where: Where, *, as_: Literal["pandas"], **asked: Unpack[_Asked]) -> pd.DataFrame: ...
@overload
def open_dataset(where: Where, *, as_: Literal["xarray"], **asked: Unpack[_Asked]) -> xr.Dataset: ...
@overload
def open_dataset(where: Where, *, as_: Literal["arrow"], **asked: Unpack[_Asked]) -> pa.Table: ...
@overload
def open_dataset(where: Where, *, as_: Literal["duckdb"], **asked: Unpack[_Asked]) -> duckdb.DuckDBPyRelation: ...
def open_dataset(
    where: Where,
    *,
    time: Time = None,
    bbox: Sequence[float] | None = None,
    variables: Names = None,
    stations: Names = None,
    quality: Literal["good"] | None = None,
    as_: Form = "polars",
) -> Any:
    """The observations of a dataset that answer a question, the same rows in whichever form, in the order of windows.

    Args:
        where: ``http://host:5000/collections/<dataset>`` of `ionbeam serve`, a folder of windows (exports as
            ``pygeoapi``, dataset files, or copies of them), or ``s3://bucket/prefix``. Where a service or a folder has
            one dataset alone, it need not be named.
        time: ``"2022-12-31"`` (all of that day), ``"2022-12-31T06:00Z/2022-12-31T12:00Z"``, a slice, or a pair of
            datetimes, dates, texts or None (open). Both ends count. A text without a zone is UTC.
        bbox: west, south, east, north in degrees; west greater than east crosses the date line.
        variables: names of columns, CF standard names, or ids as in the service
            (``air_temperature:2.0:point:PT0S``), ``*`` for any text. Rows where none of them has a value are left out.
        stations: their ids.
        quality: ``"good"``: a value stays where its flag is 1 (it passed quality control), every other is null, and
            rows where no value is left are left out, and so are variables that are not tested. None: all values.
        as_: ``polars`` (a LazyFrame) and ``duckdb`` (a relation) read when they are asked, and only the columns that
            are needed; ``pandas``, ``arrow`` (a Table) and ``xarray`` (CF discrete sampling geometry) are in memory.

    Returns:
        Columns ``datetime`` (UTC, microseconds), ``lat``, ``lon`` (degrees), those that describe a station, then each
        variable (``standard_name__unit__level__method__period``), followed by its flags. Of each window there is the
        newest revision, as it is when it is read. A range without data gives no rows, with the same columns.

    Raises:
        OpenError: Nothing can be opened there, or the question makes no sense; the message says what would be right.

    Warns:
        OpenWarning: A window is left out, since it went meanwhile, or is damaged.
    """
    if as_ not in _FORMS:
        raise OpenError(f"as_={as_!r} is not known; right would be {', '.join(_FORMS)}")
    question = question_of(time, bbox, stations, quality)
    looked = _looked_at(where, question)
    reading = _reading(looked, question, (variables,) if isinstance(variables, str) else variables)
    if as_ == "polars":
        return forms.as_polars(reading)
    if as_ == "duckdb":
        return forms.as_duckdb(reading)
    told = looked.provenance()
    if as_ == "arrow":
        return forms.as_arrow(reading, told)
    if as_ == "pandas":
        return forms.as_pandas(reading, told)
    from ionbeam_client.opening.ragged import as_xarray

    return as_xarray(reading, told)


def provenance(where: Where, *, time: Time = None) -> Provenance:
    """Which revisions and sources, under which licences, the rows of a time come from; arguments as in `open_dataset`.

    It is also in what is opened: ``frame.attrs["ionbeam"]`` of pandas, ``table.schema.metadata[b"ionbeam"]`` of Arrow,
    and ``ds.attrs`` of xarray.

    Raises OpenError.
    """
    return _looked_at(where, question_of(time)).provenance()


@dataclass(frozen=True, slots=True)
class _Looked:
    """The `windows` of a question, those of them that are read, and the schema of each by its name. Where there are
    none, the footer is that of the last window."""

    place: Windows
    listed: list[Window]
    windows: list[Window]
    footers: dict[str, pa.Schema]

    def provenance(self) -> Provenance:
        told = [(one.name, self.footers[one.name]) for one in self.windows]
        return provenance_of(self.place.dataset, told, self.place.about())

    def columns(self) -> Columns:
        return columns_of(self.footers.values())

    def columns_ever(self) -> Columns:
        """Those of all windows, whenever they are."""
        rest = [one for one in self.listed if one.name not in self.footers]
        return columns_of([*self.footers.values(), *_footers(self.place, rest).values()])


def _looked_at(where: Where, question: Question) -> _Looked:
    place = windows_at(os.fspath(where))
    listed = place.listed()
    windows = [one for one in listed if question.concerns(one.start, one.end)]
    footers = _footers(place, windows)
    for one in reversed(listed):
        if footers:
            break
        footers = _footers(place, [one])
    if not footers:
        raise OpenError(f"{os.fspath(where)}: {place.dataset} has no window that can be read")
    return _Looked(place, listed, [one for one in windows if one.name in footers], footers)


def _footers(place: Windows, windows: Sequence[Window]) -> dict[str, pa.Schema]:
    with ThreadPoolExecutor(place.at_once, "ionbeam-open") as workers:
        found = workers.map(lambda window: _footer(place, window), windows)
        return {window.name: schema for window, schema in zip(windows, found, strict=True) if schema is not None}


def _footer(place: Windows, window: Window) -> pa.Schema | None:
    def read() -> pa.Schema:
        with place.opened(window) as file:
            return pq.read_schema(file)

    return tried(place, window, read)


def _reading(looked: _Looked, question: Question, named: Sequence[str] | None) -> Reading:
    place, whole = looked.place, looked.columns()
    if named is not None and not _has(whole, named, question):
        whole = looked.columns_ever()
    if question.stations is not None and "station_id" not in whole.schema.names:
        raise OpenError(f"stations cannot be asked for: {place.dataset} has no column station_id")
    chosen = list(whole.variables) if named is None else whole.chosen(named)
    if question.good_only:
        chosen = _tested(whole, chosen, place.dataset, named is not None)
    return Reading(place, looked.windows, question, whole, whole.of(chosen))


def _has(columns: Columns, named: Sequence[str], question: Question) -> bool:
    """Whether all that is named is there, with flags where these are asked for."""
    try:
        chosen = columns.chosen(named)
    except OpenError:
        return False
    return not question.good_only or all(map(columns.flag_of, chosen))


def _tested(columns: Columns, chosen: list[str], dataset: str, named: bool) -> list[str]:
    """Those of `chosen` that have flags; the others are an error where they were named, and told where not."""
    untested = [one for one in chosen if columns.flag_of(one) is None]
    if untested and named:
        raise OpenError(
            f"quality='good' cannot be asked of {', '.join(untested)}, which no test was applied to: "
            "leave quality out, or the variable"
        )
    if len(untested) == len(chosen):
        raise OpenError(f"quality='good' cannot be asked of {dataset}: no test was applied to any of its variables")
    if untested:
        told = f"{dataset}: {', '.join(untested)} are left out: no test was applied to them (quality='good')"
        warnings.warn(told, OpenWarning, stacklevel=4)
    return [one for one in chosen if one not in untested]
