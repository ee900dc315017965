"""Whose rows go, what a step tells of what it removed, and who else is at work meanwhile.

Belongs here: under which ids a station stands in which source and dataset, and going on behind what cannot be read.
Does not belong here: any step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from ionbeam_client.errors import PayloadError
from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.raw_values import CanonicalError, as_text
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_one_file

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Who:
    """A station of `dataset`: its id there, and `names`, its sources with its id in each."""

    dataset: DatasetSettings
    id: str
    names: tuple[tuple[SourceSettings, str], ...]

    @property
    def works(self) -> frozenset[str]:
        """What is worked on that may hold it: its dataset and its sources."""
        return frozenset({self.dataset.name, *(source.name for source, _ in self.names)})

    def __str__(self) -> str:
        return f"station {self.id!r} of {self.dataset.name}"


@dataclass(frozen=True, slots=True)
class Removed:
    """Something of a station that went, or in a dry run would go: of which kind, where it was, and its rows, where
    they are counted."""

    kind: str
    what: str
    rows: int = 0


Step = Callable[[Platform, Who, bool], Iterator[Removed]]
"""Removes one kind of things, each as it is found; with True it only tells of them."""


class Others:
    """Who else works on what a station is taken out of; here nobody does."""

    def let_end(self) -> None:
        """Wait until all that is at work now on its sources and dataset has ended."""

    def kept_from(self, source: str, windows: Sequence[Window]) -> AbstractContextManager[None]:
        """Keep others from collecting and ingesting these windows of a source; waits for those who do."""
        return nullcontext()


NOBODY_ELSE = Others()


def who_is(platform: Platform, source: str, station: str) -> Who:
    """The station that a source calls `station`, in all sources that feed the dataset under the same id."""
    given = platform.source(source)
    dataset = platform.dataset(given.dataset)
    id = f"{given.station_prefix}{station}"
    feeders = (platform.source(name) for name in dataset.sources)
    same = {
        feeder.name: (feeder, id.removeprefix(feeder.station_prefix))
        for feeder in feeders
        if id.startswith(feeder.station_prefix)
    }
    return Who(dataset, id, tuple(same.values()))


def without(station: str, rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that are not a station's."""
    return rows.filter((~is_of(rows, station)).to_arrow())


@contextmanager
def telling_unread(location: str) -> Iterator[None]:
    """Go on behind a file that cannot be read, and say so where it is there: nobody knows whether it holds the station.
    Raises what is not of that file alone."""
    try:
        yield
    except (*UNREADABLE, CanonicalError, PayloadError) as error:
        if not is_of_one_file((isinstance(error, PayloadError) and error.__cause__) or error):
            raise
        if not isinstance(error, FileNotFoundError):
            _LOG.warning("%s cannot be read (%s): whether it holds the station is not known", location, error)


def is_of(rows: pl.DataFrame | pa.RecordBatch, station: str) -> pl.Series:
    """Which rows are a station's."""
    column = rows[STATION] if isinstance(rows, pl.DataFrame) else pl.Series(STATION, rows.column(STATION))
    return (as_text(column) == station).fill_null(False)
