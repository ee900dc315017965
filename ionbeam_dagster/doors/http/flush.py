"""Taking the journal in: every file of it becomes at most one ingestion of each source, and parked lines.

Belongs here: the order of writes, such that a crash between any two is put right by the next flush. All that is written
of a file follows from it and from the mapping: the second time it is the same, and by another mapping it has another
name. Does not belong here: requests, or what a line means (mapping.py).

    <state>/door/journal/...                            what is not taken in yet
    <state>/door/parked/<source>/<journal file>.parquet lines that could not be taken in, or not wholly
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PanicException

from ionbeam_dagster.domain.windows import EPOCH, Window, window_of
from ionbeam_dagster.doors.http.counters import Counter
from ionbeam_dagster.doors.http.journal import Frame, Journal, frames
from ionbeam_dagster.doors.http.lines import shown
from ionbeam_dagster.doors.http.mapping import Mapped, Mapping, timed
from ionbeam_dagster.doors.http.memory import Listened, Memory, door_folder
from ionbeam_dagster.doors.http.parked import Parking, parking, read_parked
from ionbeam_dagster.doors.http.reports import taken
from ionbeam_dagster.doors.intake import Feed, OutOfRange, feed_of, range_of
from ionbeam_dagster.errors import IonbeamError
from ionbeam_dagster.matters import Matter
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.sources.door import Door
from ionbeam_dagster.stores.ledger.commands import Taken
from ionbeam_dagster.stores.publish import remove

log = logging.getLogger(__name__)

_INGESTIONS = UUID("b2b1f5f8-7c11-4a63-9d7c-2f4a3c0f8f0a")
_BREAK = 1_000_000_000  # ns between two files of the journal in which the door was not closed
_CHUNK_LINES = 200_000
_AGAIN_LINES = 50_000  # parked lines after which the next file of the journal is begun
_DAY = 86_400 * 10**9  # ns
_FIRST_WAIT, _LONGEST_WAIT = 60.0, 600.0  # s until what failed is tried again


def door_sources(platform: Platform) -> dict[str, Door]:
    """The sources that are written to the HTTP door, by name."""
    return {name: source for name, source in platform.sources.items() if isinstance(source, Door)}


def mapping_of(platform: Platform, source: Door) -> Mapping:
    """The mapping of a source, with what the registry says of its stations now."""
    told = platform.stations.entries().of(source.name)
    return Mapping(source.name, source.config, *platform.range_of(platform.source(source.name)), told)


def strict_mappings(platform: Platform) -> dict[str, Callable[[], Mapping]]:
    """The mappings, as they are when it is asked, of those sources that refuse what they do not map."""
    return {
        name: partial(mapping_of, platform, source)
        for name, source in door_sources(platform).items()
        if source.config.unmapped == "refused"
    }


class Flush:
    """Takes the journal of a platform's HTTP door in. One process at a time has one: it holds the journal."""

    def __init__(self, platform: Platform, journal: Journal, memory: Memory) -> None:
        self._platform = platform
        self._journal = journal
        self._memory = memory
        self._parked = door_folder(platform) / "parked"
        self._one_at_a_time = threading.Lock()
        self._summaries: dict[str, _Summary] = {}
        self._failed: dict[tuple[str, str], _Failed] = {}
        self._matters: dict[str, Matter] = {}

    def run(self) -> int:
        """Close the journal's file and take in all that are closed; returns how many lines they had.

        What cannot be taken in stays in the journal, is told with its reason, and is tried again. It holds up no other
        source, and later portions of its own only where the fault is no portion's: a store, or the configuration.
        """
        try:
            self._journal.rotate()
        except OSError as error:  # what is closed may be taken in all the same, which makes room
            self._matter("").goes_wrong(error.errno, f"the next file of the journal cannot be begun: {error}")
        else:
            self._matter("").goes_well("files of the journal can be begun again")
        return self.catch_up()

    def catch_up(self) -> int:
        """Take in the files that are closed."""
        with self._one_at_a_time:
            return self._catch_up()

    def _catch_up(self) -> int:
        self._platform.ledger.recovered()  # a ledger that is new looks for raw files before ours are among them
        lines, held = 0, set[str]()
        for path in self._journal.closed():
            summary = self._summary(path)
            if summary is None:
                continue
            sources = sorted({*door_sources(self._platform), *summary.sources})
            if [source for source in sources if not self._try(source, path, summary, held)]:
                continue
            remove(path)
            self._memory.removed(path.stem)
            del self._summaries[path.stem]
            lines += summary.lines
        return lines

    def _summary(self, path: Path) -> _Summary | None:
        """What a file is about, read once; None of one that cannot be read."""
        if path.stem not in self._summaries:
            if self._waits("", path):
                return None
            try:
                self._summaries[path.stem] = _summary(path)
            except (Exception, PanicException) as error:
                self._note("", path, error)
                return None
        return self._summaries[path.stem]

    def _try(self, source: str, path: Path, summary: _Summary, held: set[str]) -> bool:
        """Take a file in as far as it is of `source`, if it is due; returns whether it is taken in.

        A source whose later portions have to wait is `held` then: claims follow one another.
        """
        if source in held or self._waits(source, path):
            return False
        try:
            self._take(source, path, summary)
        except (IonbeamError, OSError, sqlite3.Error) as error:
            words = f"{source}: what was written stays in the journal {path}: {error}"
            self._matter(source).goes_wrong(str(error), words)
            self._tell(source, path, str(error))
            held.add(source)
            return False
        except (Exception, PanicException) as error:
            self._note(source, path, error)
            return False
        self._failed.pop((source, path.stem), None)
        self._matter(source).goes_well(f"{source}: what was written is taken in again")
        return True

    def _waits(self, source: str, path: Path) -> bool:
        failed = self._failed.get((source, path.stem))
        return failed is not None and time.monotonic() < failed.until

    def _matter(self, source: str) -> Matter:
        return self._matters.setdefault(source, Matter(log))

    def _note(self, source: str, path: Path, error: BaseException) -> None:
        """Remember what failed, such that it is tried again after a while, each time a longer one."""
        log.exception("%s: a portion is set aside in the journal: %s", source or "door", path)
        before = self._failed.get((source, path.stem))
        wait = min(2 * before.wait, _LONGEST_WAIT) if before else _FIRST_WAIT
        self._failed[source, path.stem] = _Failed(wait, time.monotonic() + wait)
        reason = str(error) if isinstance(error, IonbeamError) else f"{type(error).__name__}: {error}"
        self._tell(source, path, reason)

    def _tell(self, source: str, path: Path, reason: str) -> None:
        with suppress(sqlite3.Error):  # the memory itself may be what fails; the log has it
            self._memory.failed(source, path.stem, reason)

    def look_again(self) -> int:
        """Put the parked lines of sources whose mapping has changed since into the journal again; returns how many.

        What cannot be read stays parked, and is told. A crash in between brings lines of one file twice, which makes no
        second point. A source of which it fails holds up no other, and is looked at again the next time.
        """
        lines = 0
        with self._one_at_a_time:
            for source in door_sources(self._platform).values():
                try:
                    lines += self._look_again(source)
                except (Exception, PanicException) as error:
                    words = f"{source.name}: what is parked could not be looked at again"
                    self._matter(source.name).goes_wrong(("parked", str(error)), words, error)
        return lines

    def _look_again(self, source: Door) -> int:
        mapping = mapping_of(self._platform, source).digest()
        if self._memory.looked_at(source.name) == mapping:
            return 0
        lines, day, unread = 0, -1, dict[Path, BaseException]()
        for path in sorted((self._parked / source.name).glob("*.parquet")):
            try:
                read = list(read_parked(path))
            except (Exception, PanicException) as error:
                log.exception("%s: these parked lines cannot be read", path)
                unread[path] = error
                continue
            for some in read:
                before, day = day, int(some["received"].to_numpy().max()) // _DAY
                if self._journal.lines >= _AGAIN_LINES or (before != day and self._journal.lines):
                    self._journal.rotate()  # what is parked of a file is as old as the newest of its lines
                body = some["received"].to_numpy().astype("<i8").tobytes() + "\n".join(some["line"].to_list()).encode()
                self._journal.add(Frame(source.name, time.time_ns(), some.height, again=True, body=body))
                lines += some.height
            remove(path)
        if lines:
            self._journal.rotate()
        self._memory.taken_again(source.name, mapping, unread)
        return lines

    # -- one file, one source ------------------------------------------------------------------------------------

    def _take(self, source: str, path: Path, summary: _Summary) -> None:
        if self._memory.is_done(source, path.stem):
            return  # something came between this source and the next
        counters: dict[tuple[int, int], Counter] = {}
        chunks = _chunks(path, source, counters, self._memory)
        block = self._platform.sources.get(source)
        listened, ended = self._listened(source, summary)
        durable: list[Taken] = []
        with parking(self._parked / source / f"{path.stem}.parquet") as parked:
            if not isinstance(block, Door):
                parked.add_all(_strange(chunk, source) for chunk in chunks)
            else:
                mapping = mapping_of(self._platform, block)
                mapped = map(mapping.apply, chunks)
                if not block.config.variables:
                    parked.add_all(one.parked for one in mapped)
                else:
                    if ended is not None:
                        durable += self._empty(source, f"{path.stem} ended", ended)
                    if source in summary.sources:
                        name = str(uuid5(_INGESTIONS, f"{source} {path.stem} {mapping.digest()}"))
                        durable += self._written(source, name, _range(listened), _batches(mapped, parked))
                        listened = Listened(summary.until, summary.until)
                    elif (edge := self._last_edge(source, summary.until)) > listened.since:
                        durable += self._empty(source, path.stem, Listened(listened.since, edge))
                        listened = Listened(edge, summary.until)
        self._platform.ledger.commands.take(durable, self._platform.now())
        self._memory.taken(source, path.stem, self._latest(source, listened), counters, parked.summary())

    def _listened(self, source: str, summary: _Summary) -> tuple[Listened, Listened | None]:
        """What no claim tells of yet: with a file of the journal, and before the door was closed, if it was."""
        before, itself = self._before(source), Listened(summary.since, summary.until)
        if before is None or _is_ahead(itself):
            return itself, None
        if before.until > summary.since + _BREAK:  # it failed, and what came later did not
            return itself, None
        if before.until >= summary.since - _BREAK:
            return Listened(before.since, summary.until), None
        return itself, before

    def _before(self, source: str) -> Listened | None:
        """What is remembered of a source; None of what a clock said that was ahead."""
        before = self._memory.listened(source)
        return None if before is None or _is_ahead(before) else before

    def _latest(self, source: str, listened: Listened) -> Listened | None:
        """What is to be remembered of a source after a file of the journal, if anything can be."""
        known = [one for one in (listened, self._before(source)) if one is not None and not _is_ahead(one)]
        return max(known, key=lambda one: one.until, default=None)

    def _last_edge(self, source: str, until: int) -> int:
        """The end, in ns, of the last window of a source that ended by `until`: so long nobody waits for a claim."""
        edge = window_of(_moment(until), self._platform.source(source).window_size).start
        return (edge - EPOCH) // timedelta(microseconds=1) * 1_000

    def _empty(self, source: str, name: str, listened: Listened) -> list[Taken]:
        """The claim that nothing came while the door listened."""
        if listened.until <= listened.since:
            return []
        name = str(uuid5(_INGESTIONS, f"{source} {name} empty"))
        collected, range = _range(listened), range_of(self._platform, self._platform.source(source))
        try:
            range.windows(collected.start, collected.end, self._platform.now())
        except OutOfRange:
            return []  # nothing came in a time that is none of the source's
        return self._written(source, name, collected, iter(()))

    def _written(self, source: str, name: str, collected: Window, batches: Iterator[pa.RecordBatch]) -> list[Taken]:
        settings = self._platform.source(source)
        feed = feed_of(self._platform, settings)
        collected, windows = self._claimed(feed, name, collected)
        metadata = self._platform.metadata(settings)
        return [Taken(feed.raws.write_sent(source, name, collected, metadata, feed.left(batches)), windows)]

    def _claimed(self, feed: Feed, name: str, listened: Window) -> tuple[Window, list[Window]]:
        """What can be claimed of the time that the door listened, and its windows: of a clock that was wrong next to
        nothing, so that what came by it is taken in all the same. Raises OutOfRange where the clock still is."""
        now = self._platform.now()
        try:
            return listened, feed.range.windows(listened.start, listened.end, now)
        except OutOfRange as error:
            log.warning("%s: what came is taken in, and not the time in which: %s", feed.source, error)
        claimed = self._next_to_nothing(feed, name, now)
        return claimed, feed.range.windows(claimed.start, claimed.end, now)

    def _next_to_nothing(self, feed: Feed, name: str, now: datetime) -> Window:
        """The shortest time there is: that of the file in which an ingestion was written before, if one was, so that
        this one takes its place."""
        if (path := feed.raws.sent_as(feed.source, name)) is not None:
            before = feed.raws.window_of(feed.source, path, timedelta.resolution)
            if before.end <= now:  # or the clock was ahead then, too
                return before
        last = min(now, feed.range.end or now) - timedelta.resolution
        start = last.replace(microsecond=0)  # as it stands in the name of a file
        return Window(start, start + timedelta.resolution)


@dataclass(frozen=True, slots=True)
class _Failed:
    """A portion that failed, and is left alone `until` a moment of the monotonic clock, for `wait` s."""

    wait: float
    until: float


@dataclass(frozen=True, slots=True)
class _Summary:
    """What a file of the journal is about: [since, until) in ns, and the sources that have lines in it."""

    since: int
    until: int
    sources: frozenset[str]
    lines: int


def _summary(path: Path) -> _Summary:
    since = until = int(path.stem)
    sources, lines = set(), 0
    for frame in frames(path):
        until = max(until, frame.received)
        lines += frame.lines
        if frame.source:
            sources.add(frame.source)
    return _Summary(since, until, frozenset(sources), lines)


def _chunks(
    path: Path, source: str, counters: dict[tuple[int, int], Counter], memory: Memory
) -> Iterator[pl.DataFrame]:
    """The lines of a source in a file, some at a time: ``line``, ``time`` and ``received``, both in ns.

    Readings that were taken already are left out; `counters` have then all that came.
    """
    waiting: list[pl.DataFrame] = []
    lines = 0
    for frame in frames(path):
        if frame.source != source:
            continue
        some = _lines(frame, counters, memory)
        waiting.append(some)
        lines += some.height
        if lines >= _CHUNK_LINES:
            yield _timed(pl.concat(waiting))
            waiting, lines = [], 0
    if waiting:
        yield _timed(pl.concat(waiting))


def _lines(frame: Frame, counters: dict[tuple[int, int], Counter], memory: Memory) -> pl.DataFrame:
    body = frame.body
    received = pl.lit(frame.received, pl.Int64)
    if frame.again:
        received = pl.lit(pl.Series(np.frombuffer(body[: 8 * frame.lines], "<i8"), dtype=pl.Int64))
        body = body[8 * frame.lines :]
    if frame.device is None:
        texts = pl.Series("line", body.decode().split("\n") if body else [], pl.String)
    else:
        key = frame.device, frame.streamer
        texts, counters[key] = taken(frame, counters.get(key) or memory.counter(frame.source, *key))
    return texts.to_frame().with_columns(scale=pl.lit(frame.scale, pl.Int64), received=received)


def _timed(lines: pl.DataFrame) -> pl.DataFrame:
    time = pl.col("line").str.extract(r" (-?[0-9]+)$").cast(pl.Int64) * pl.col("scale")
    return lines.select("line", time.fill_null(pl.col("received")).alias("time"), "received")


def _strange(chunk: pl.DataFrame, source: str) -> pl.DataFrame:
    """The lines of a source that the configuration no longer has, to be parked."""
    return chunk.select(
        timed(),
        "received",
        shown(pl.col("line").str.extract("^([^, ]*)")).alias("measurement"),
        pl.lit(f"the configuration has no sources.{source} of kind door any longer").alias("reason"),
    )


def _batches(chunks: Iterator[Mapped], parked: Parking) -> Iterator[pa.RecordBatch]:
    for mapped in chunks:
        parked.add(mapped.parked)
        yield from mapped.rows.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()


def _is_ahead(listened: Listened) -> bool:
    """Whether a clock said so that was ahead of what it says now."""
    return listened.until > time.time_ns() + _BREAK


def _moment(nanoseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=nanoseconds // 1_000)


def _range(listened: Listened) -> Window:
    start = _moment(listened.since)
    return Window(start, max(_moment(listened.until), start + timedelta(microseconds=1)))
