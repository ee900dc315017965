"""What libraries make of the rows: polars, pandas, Arrow, DuckDB; each library is loaded when it is asked for.

Belongs here: one function a form. Does not belong here: xarray's, which has a layout of its own (ragged.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ionbeam_client.opening.errors import OpenError
from ionbeam_client.opening.provenance import Provenance
from ionbeam_client.opening.rows import Reading

if TYPE_CHECKING:
    import polars as pl

ABOUT = "ionbeam"
"""The key under which the provenance stands, as JSON in Arrow's schema."""


def library(name: str) -> Any:
    """A module of an extra; raises OpenError, which says how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        extra = "open" if name == "polars" else name
        raise OpenError(f"as_={name!r} needs {name} ({error}): pip install 'ionbeam-client[{extra}]'") from error


def as_arrow(reading: Reading, provenance: Provenance) -> pa.Table:
    """A table in memory."""
    schema = reading.schema.with_metadata({ABOUT: provenance.to_json()})
    return pa.concat_tables([one.cast(schema) for one in reading.tables()] or [schema.empty_table()])


def as_pandas(reading: Reading, provenance: Provenance) -> Any:
    """A frame in memory."""
    pandas = library("pandas")
    frame = as_arrow(reading, provenance).replace_schema_metadata(None).to_pandas(self_destruct=True)
    assert isinstance(frame, pandas.DataFrame)
    frame.attrs[ABOUT] = provenance.to_json()
    return frame


def as_polars(reading: Reading) -> pl.LazyFrame:
    """A frame that reads when it is collected: the columns that are needed, and no more windows than rows are."""
    polars: Any = library("polars")
    from polars.io.plugins import register_io_source

    def read(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        lacking = n_rows
        for table in reading.tables(with_columns):
            frame: pl.DataFrame = polars.from_arrow(table)
            if with_columns is not None:
                frame = frame.select(with_columns)
            if lacking is not None:
                frame = frame.head(lacking)
                lacking -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if lacking == 0:
                return

    empty: Any = polars.from_arrow(reading.schema.empty_table())
    register: Callable[..., pl.LazyFrame] = register_io_source
    return register(read, schema=empty.schema)


def as_duckdb(reading: Reading) -> Any:
    """A relation of a connection of its own that reads when it is asked, only the columns that are needed."""
    connection = library("duckdb").connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("observations", as_polars(reading))
    return connection.table("observations")
