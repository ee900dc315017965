"""Collect: a window of a source into its raw partition.

Belongs here: asking a source. Does not belong here: whether it has to be asked (agenda), what its rows mean
(ingest.py), or how raw files are kept (stores/raw.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.forgotten import Left
from ionbeam_dagster.domain.raw_values import CanonicalError
from ionbeam_dagster.domain.records import Claim, RawPartition
from ionbeam_dagster.domain.windows import Window, window_of
from ionbeam_dagster.errors import NoLongerThere, PipelineError
from ionbeam_dagster.pipeline import damage
from ionbeam_dagster.pipeline.keeping import Keeping
from ionbeam_dagster.pipeline.platform import Platform, written_to
from ionbeam_dagster.sources.deadline import within
from ionbeam_dagster.stores.raw import RawFile, RawStore

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """A raw partition; `changed` is False when it holds what was there before.

    `kept` counts the rows in it that the source gave before and no longer gives, and `forgotten` those that it gave and
    that are not in it: their stations are forgotten.
    """

    source: str
    window: Window
    ingestion: str
    path: str
    rows: int
    bytes: int
    changed: bool
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    forgotten: int = 0


def collect(
    platform: Platform,
    source: SourceSettings,
    window: Window,
    now: datetime,
    use_cache: bool = False,
    replace: bool = False,
) -> Collected:
    """Fetch a window from a source into its raw partition.

    What the source gave for the window before and no longer gives stays, value by value, behind the rows that it gives
    now; unless it says that its answers are whole, or tells that it corrected something there, or `replace` says so.
    That it had observations and no longer has is an answer, but where nothing was collected yet, and where what was
    collected would not go on: its raw partition is lost, or its columns meant something else. Such a raw partition is
    not replaced by an empty one: PipelineError.

    `use_cache` lets the source use what it downloaded before, where it keeps that. Raises SourceError when the source
    failed, DeadlineExceeded when it did not answer in the time that it is given (its `deadline`), PipelineError for a
    window that has not begun. A raw partition that was lost and comes back as it was makes
    its dataset windows due again: what they were made of is proved anew. One that retention purged was not lost.
    """
    if window.start >= now:
        raise PipelineError(f"{source.name} {window}: has not begun yet")
    platform.check_span(platform.dataset(source.dataset))
    feed, raws, ledger = platform.feed(source, use_cache), platform.raws(source), platform.ledger
    before = ledger.raw(source.name, window)
    _without_damage(platform, before)
    lost = before is not None and before.purged is None and not platform.files.exists(before.path)
    metadata = platform.metadata(source)
    collected = Window(window.start, min(window.end, now))
    path = raws.path(source.name, window)
    corrections = ledger.corrections.open(source.name) if feed.corrects else []
    corrected = any(known.correction.range.overlaps(window) for known in corrections)
    adds = not (replace or corrected or feed.answers_whole(window))
    earlier = _earlier(platform, raws, before, metadata) if adds else None
    keeping = Keeping(earlier, metadata) if earlier is not None and earlier.rows else None
    with within(source.deadline):
        signature = feed.signature(window)
        left = Left(platform.privacy.forgotten(source.name))
        given = left.of(feed.fetch(window))
        if replace or _goes_on(before, earlier, adds):
            given = _or_nothing(given)
        elif before is not None and before.rows and not lost:
            given = _something(given, before)
        with written_to(path), _comparable(f"{source.name} {window}"):
            written = raws.write(
                source.name, window, collected, metadata,
                keeping.together(given) if keeping else given,
                lambda: keeping is not None and _is_as_before(keeping, earlier, path, collected, metadata),
            )  # fmt: skip
    same = before is not None and before.ingestion == written.ingestion
    if lost and same:
        ledger.withdraw_claim(written.ingestion)
    beside = _beside(platform, source, window, before, earlier) if adds else ()
    beside = tuple(other for other in beside if other != written.ingestion)
    left.tell(f"{source.name} {window}")
    kept = keeping.rows if keeping else 0
    knows = max((known.number for known in corrections), default=0)
    raw = RawPartition(
        written.ingestion, source.name, window, path, written.rows, signature, None, kept, beside, knows, now,
        written.bytes, written.hash,
    )  # fmt: skip
    ledger.record_raw(raw)
    return Collected(
        source.name, window, raw.ingestion, path, raw.rows, raw.bytes, lost or not same, kept, feed.problems(),
        left.out,
    )  # fmt: skip


def _goes_on(before: RawPartition | None, earlier: RawFile | None, adds: bool) -> bool:
    """Whether what was collected before goes on as it is to: into the new raw partition, or out, where the source says
    so. What retention purged is in the time-series store alone, and stays there."""
    return before is not None and (not adds or earlier is not None or before.purged is not None)


def _or_nothing(given: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What a source gives, also where that is nothing any longer."""
    with suppress(NoLongerThere):
        yield from given


def _something(given: Iterator[pa.RecordBatch], before: RawPartition) -> Iterator[pa.RecordBatch]:
    """What a source gives, which is to take the place of rows that cannot go on; raises PipelineError for nothing."""
    rows = 0
    for batch in given:
        rows += batch.num_rows
        yield batch
    if not rows:
        raise PipelineError(
            f"{before.path}: has {before.rows:,} rows, the columns of which meant something else, and {before.source} "
            f"no longer has any of {before.window}; they stay. Give the source what it had, or let them go: "
            f"`ionbeam reingest {before.source} {before.window.as_options} --replace`"
        )


def _without_damage(platform: Platform, before: RawPartition | None) -> None:
    """Set aside what was collected before where it is damaged: it is lost, and nothing of it goes on into the new.

    A process that was killed before it had noted what it wrote leaves a file that is newer, and whole: its rows go on.
    """
    if before is None or damage.is_newer(platform, before):
        return
    if damage.is_damaged(platform, before.path, before.hash):
        fault = "it does not hold what was noted of it: the disk, or somebody, changed it"
        _LOG.warning("%s", damage.set_aside(platform, before.path, fault, "its window is collected anew"))


def _earlier(
    platform: Platform, raws: RawStore, before: RawPartition | None, metadata: IngestionMetadata
) -> RawFile | None:
    """What was collected of the window before, where that is there and its columns mean what they mean now."""
    if before is None or not platform.files.exists(before.path):
        return None
    try:
        earlier = raws.open(before.path)
    except (OSError, pa.ArrowException):
        return None
    return earlier if earlier.metadata.ingestion_map == metadata.ingestion_map else None


def _is_as_before(
    keeping: Keeping, earlier: RawFile | None, path: str, collected: Window, metadata: IngestionMetadata
) -> bool:
    """Whether the raw partition as it stands says all that the source now says, and for the same range."""
    if earlier is None or (earlier.path, earlier.collected, earlier.metadata) != (path, collected, metadata):
        return False
    return keeping.says_nothing_new


def _beside(
    platform: Platform, source: SourceSettings, window: Window, before: RawPartition | None, earlier: RawFile | None
) -> tuple[str, ...]:
    """Earlier ingestions of the window whose rows are in the time-series store alone, so that they have to stay there:
    their raw partition was purged, lost or written when its columns meant something else."""
    known = () if before is None else before.beside
    if before is None or earlier is not None:
        return known
    with_rows = [claim.id for claim in claims_within(platform, source, window) if claim.rows]
    return tuple(dict.fromkeys([*known, *with_rows]))


def claims_within(platform: Platform, source: SourceSettings, window: Window) -> list[Claim]:
    """The claims of what was collected of one window of a source."""
    dataset = platform.dataset(source.dataset)
    first = window_of(window.start, dataset.span).start
    claims = platform.ledger.claims_between(dataset.name, first, window.end)
    return [claim for claim in claims if claim.source == source.name and window.covers(claim.collected)]


@contextmanager
def _comparable(place: str) -> Iterator[None]:
    """Say that two answers of a source for one window cannot be brought together."""
    try:
        yield
    except (CanonicalError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PipelineError(
            f"{place}: what the source gives now cannot be compared with what it gave before ({error}); correct the "
            "source, or let the new answer take the place of the earlier one: `ionbeam reingest --replace`"
        ) from error
