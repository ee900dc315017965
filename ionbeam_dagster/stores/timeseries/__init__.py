"""The time-series store: canonical points, keyed by dataset, station and time.

Belongs here: the interface and its implementations. A point may arrive many times; of each of its variables the latest
value that is not null wins, in order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.windows import Window

TIME = "datetime"
"""The column of a point's time."""

Refused = Callable[[pl.DataFrame], None]
"""Takes canonical rows that a store would not take, with their ``reason``."""


class TimeSeriesStore(Protocol):
    """Keeps canonical points. Every method may be called from many processes at once."""

    def write(
        self,
        dataset: str,
        ingestion: str,
        arrival: int,
        frames: Iterable[pl.DataFrame],
        key: Sequence[str],
        refused: Refused | None = None,
    ) -> int:
        """Store canonical rows durably; returns how many. Those that a server will not take, and only those, go to
        `refused`; without it they are logged.

        `frames` have ``datetime`` (UTC, microseconds), ``lat``, ``lon`` and the canonical and metadata columns.
        `key` names the columns that tell stations apart. Writing the same `ingestion` again replaces it. Nothing of an
        ingestion is seen unless all of `frames` was taken.
        """
        ...

    def read(self, dataset: str, window: Window, schema: pa.Schema, key: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The points of `window`, one row each, with the columns of `schema`, ordered by `key` and time.

        Memory does not grow with the window. Raises LostPoints, also while they are read.
        """
        ...

    def withdraw(self, dataset: str, ingestion: str) -> None:
        """Forget what `ingestion` brought. Unknown ingestions are no error."""
        ...

    def of_station(self, dataset: str, station: str, remove: bool) -> int:
        """How many points of the station `station` there are of any ingestion, those too that others replaced; and
        `remove` them for good. The ingestions themselves stay as they are."""
        ...

    def lacking(self, dataset: str, ingestions: Sequence[str]) -> list[str]:
        """Those of `ingestions` that are not there as they were written: lost, or withdrawn.

        A server keeps what it has, but not where somebody removes all of it, or it is older than it keeps anything.
        """
        ...

    def damaged(self, dataset: str, window: Window) -> frozenset[str]:
        """What was set aside of the hours of a window since it was damaged: who reads now may lack rows that are
        `lacking`. A server keeps what it has."""
        ...

    def read_through(self, dataset: str) -> list[str]:
        """Read all that there is of a dataset, and set aside what is damaged: why, of each. A server looks after its
        own files."""
        ...

    def arrivals(self, dataset: str) -> dict[str, int]:
        """The ingestions of which there are points, each with its place in the order of arrival."""
        ...

    def held(self, dataset: str) -> dict[str, int]:
        """The ingestions that are removed by withdrawing them, each with its bytes.

        A server that removes by itself what is old (a bucket's retention) names none.
        """
        ...

    def crowded(self, dataset: str) -> Iterator[tuple[Window, int]]:
        """Hours whose points lie in many small files, with their number; none where they do not lie in files."""
        ...

    def compact(self, dataset: str, hour: Window) -> int:
        """Make one file of the small ones of an hour; no point is lost. Says of how many it is made."""
        ...
