"""The intake behind every door: what a source takes, and how what was brought becomes the platform's.

Belongs here: what holds whatever the transport. The order is always the same: durable (a raw file), then remembered
(the ledger's record of commands), then answered; a crash between two of these is put right by its being brought again
under the same id. Does not belong here: a transport, or how its messages are read (amqp/, http/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import pyarrow as pa

from ionbeam_client.models import DatasetMetadata, format_duration
from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.forgotten import NOBODY, Forgotten, Left
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.sources.external import ExternalConfig
from ionbeam_dagster.stores.raw import RawStore

MOST_WINDOWS = 10_000
"""Windows of its source, and of its dataset, that one ingestion may touch."""


class OutOfRange(ValueError):
    """A range has no windows in a source's time; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class SourceRange:
    """The windows of a source: they begin at `start`, and end before `end` if there is one. `finest` is the length of
    the shortest windows that an ingestion touches, of the source or of its dataset."""

    source: str
    window_size: timedelta
    finest: timedelta
    start: datetime
    end: datetime | None

    def windows(self, start: datetime, end: datetime, now: datetime) -> list[Window]:
        """The source's windows that [start, end) touches; raises OutOfRange when there are none, or too many."""
        if end <= self.start:
            raise OutOfRange(
                f"the range ends at {end:%Y-%m-%dT%H:%MZ}, before source {self.source!r} begins; set "
                f"sources.{self.source}.start (now {self.start:%Y-%m-%dT%H:%MZ}) in the platform's YAML, then requeue"
            )
        if self.end is not None and start >= self.end:
            raise OutOfRange(
                f"the range begins at {start:%Y-%m-%dT%H:%MZ}, after source {self.source!r} has ended; set "
                f"sources.{self.source}.end (now {self.end:%Y-%m-%dT%H:%MZ}) in the platform's YAML, then requeue"
            )
        if start > now:
            raise OutOfRange(
                f"the range begins at {start:%Y-%m-%dT%H:%MZ}, in the future (here it is {now:%Y-%m-%dT%H:%MZ}); check "
                "the clocks, or requeue it when the time has come"
            )
        first, last = max(start, self.start), min(end, self.end or end)
        if (last - first) // self.finest > MOST_WINDOWS:
            raise OutOfRange(
                f"the range touches more than {MOST_WINDOWS} windows of source {self.source!r} or its dataset "
                f"({format_duration(self.finest)} each); send shorter ranges, at most {MOST_WINDOWS * self.finest} each"
            )
        return list(windows_between(first, last, self.window_size))


@dataclass(frozen=True, slots=True)
class Feed:
    """A source that clients send: these users of the broker, or (None) all. Stations that are `forgotten` stay out."""

    range: SourceRange
    dataset: DatasetMetadata
    raws: RawStore
    senders: frozenset[str] | None = None
    forgotten: Callable[[], Forgotten] = lambda: NOBODY

    def left(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Batches that were sent, without rows of stations that are forgotten, which are counted in the log."""
        left = Left(self.forgotten())
        yield from left.of(batches)
        left.tell(self.source)

    @property
    def source(self) -> str:
        return self.range.source


def feed_of(platform: Platform, source: SourceSettings) -> Feed:
    """What a door has to know of a source."""
    senders = source.config.senders if isinstance(source.config, ExternalConfig) else None
    return Feed(
        range_of(platform, source),
        described(platform, source.dataset),
        platform.raws(source),
        None if senders is None else frozenset(senders),
        partial(platform.privacy.forgotten, source.name),
    )


def range_of(platform: Platform, source: SourceSettings) -> SourceRange:
    """The windows that a source has by the configuration."""
    first, _ = platform.range_of(source)
    span = platform.dataset(source.dataset).span
    finest = min(source.window_size, span) if source.sent else source.window_size
    return SourceRange(source.name, source.window_size, finest, first, source.end)


def described(platform: Platform, dataset: str) -> DatasetMetadata:
    """What events and refusals say of a dataset."""
    settings = platform.dataset(dataset)
    return DatasetMetadata(
        name=dataset,
        aggregation_span=settings.span,
        subject_to_change_window=settings.policy.subject_to_change,
    )
