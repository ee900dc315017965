"""What a person has to know: what fails for long, what is outdated, what does not fit, and what a wrong clock made.

Belongs here: questions that pages and the command line ask. Does not belong here: how they show the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from ionbeam_client.models import format_duration
from ionbeam_client.text import visible
from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.canonical import STATION, canonical_schema, point_key
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import DAY, EPOCH, FOREVER, Window
from ionbeam_dagster.errors import PipelineError, SourceError, StoreError
from ionbeam_dagster.pipeline.agenda.building import is_outdated
from ionbeam_dagster.pipeline.agenda.now import products
from ionbeam_dagster.pipeline.export import is_of_another_exporter
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import within
from ionbeam_dagster.stores.ledger.attempts import Attempt
from ionbeam_dagster.stores.ledger.leases import lease_of

SKEW = timedelta(minutes=1)
"""How far the clocks of hosts and stores may be apart."""
_CLEARLY_AHEAD = timedelta(minutes=15)
"""How far ahead a window has to be for its rows to be told of: a station's clock may be off by some minutes."""
_STARTED_WITHIN = timedelta(minutes=2)
"""A run is a process of its own where no worker is alive, and waits in Dagster's queue before it is started."""
_NAMED = 5
_NUMBERS = re.compile(r"\d+")
OVERDUE_AFTER = timedelta(hours=1)
"""What fails for so long is a warning, and no note any longer; it is told from its first failure on."""


def failing(platform: Platform, now: datetime, since: timedelta = timedelta(0)) -> list[Attempt]:
    """Open work of windows that fail `since` so long, the longest first; it goes on being tried.

    A try counts when it is asked for: the first one of a window, of which nothing was heard yet, may be going on, or
    wait to be started.
    """
    known = set(products(platform))
    tried = [one for one in platform.ledger.attempts.open() if one.failures and now - one.since >= since]
    held = platform.ledger.leases.held() if tried else {}
    found = [
        one
        for one in tried
        if one.error or one.failures > 1 or (now - one.since >= _STARTED_WITHIN and not _leases_of([one]) & held.keys())
    ]
    return sorted((one for one in found if (one.stage, one.product) in known), key=lambda one: one.since)


def _leases_of(tried: Iterable[Attempt]) -> set[str]:
    return {lease_of(one.stage, one.product, one.window) for one in tried}


def overdue(platform: Platform, now: datetime) -> list[Attempt]:
    """What fails since OVERDUE_AFTER or longer."""
    return failing(platform, now, OVERDUE_AFTER)


def kind_of(one: Attempt) -> tuple[str, str, str]:
    """What fails alike has in common: the product, and the reason but for its numbers, which are the window's."""
    return one.stage, one.product, _NUMBERS.sub("#", one.error)


def alike(found: Iterable[Attempt]) -> list[list[Attempt]]:
    """What fails of one product for one reason, together."""
    together: dict[tuple[str, str, str], list[Attempt]] = {}
    for one in found:
        together.setdefault(kind_of(one), []).append(one)
    return list(together.values())


def in_words(platform: Platform, failing: Sequence[Attempt]) -> str:
    """What fails, alike, since when, how often, why, and the command that tries it now and shows more."""
    one = failing[0]
    of, _, format = one.product.partition("/")
    what = {
        "collect": f"{of} cannot be collected",
        "ingest": f"what was collected of {of} cannot be ingested",
        "build": f"{of} cannot be built",
    }.get(one.stage, f"{of} cannot be exported as {format}")
    window = Window(min(each.window.start for each in failing), max(each.window.end for each in failing))
    windows = f"{len(failing):,} windows of {window}" if len(failing) > 1 else f"{window}"
    tries = max(each.failures for each in failing)
    times = f"{tries} tries" if tries > 1 else "1 try"
    since = f"since {min(each.since for each in failing):%Y-%m-%d %H:%M}, {times}"
    is_tried = platform.now() < one.next or _leases_of(failing) & platform.ledger.leases.held().keys()
    silent = "it is tried again now" if is_tried else "its runs end without a word: were they killed?"
    why = one.error or silent
    command = "rebuild" if one.stage in ("build", "export", "export_cycle") else "run"
    if command == "run" and platform.source(of).kind == "external":
        command = "reingest"
    return (
        f"{what} ({windows}; {since}): {why}; `ionbeam {command} {of} {window.as_options}` tries it now and shows more"
    )


def outdated(platform: Platform, dataset: DatasetSettings, start: datetime, end: datetime) -> list[Window]:
    """The windows of [start, end) whose revision, or an export of it, an older version or other settings made."""
    windows = [one.revision.window for one in platform.ledger.revisions(dataset.name, start, end)]
    return [
        window
        for window in windows
        if is_outdated(platform, dataset, window)
        or any(is_of_another_exporter(platform, dataset.name, format, window) for format in dataset.exports)
    ]


def misfits(platform: Platform) -> list[str]:
    """What of the configuration does not fit what is in the stores, a sentence each."""
    found = []
    for dataset in platform.config.datasets.values():
        try:
            platform.check_span(dataset)
        except PipelineError as error:
            found.append(str(error))
    for source in platform.config.sources.values():
        if source.kind == "external":
            continue  # its columns come with each message
        try:
            platform.check_schema(source, platform.described(source))
        except SourceError:
            continue  # it tells so itself
        except PipelineError as error:
            found.append(str(error))
    return found


def other_lengths(platform: Platform) -> list[str]:
    """What follows for sources that were collected in windows of another length than they have now, a sentence each."""
    found = []
    for source in platform.config.sources.values():
        if source.sent:
            continue
        spans = [raw.window.span for raw in platform.ledger.raws(source.name, FOREVER) if raw.window.span]
        other = [span for span in spans if span != source.window_size]
        if other:
            before, now = format_duration(other[-1]), format_duration(source.window_size)
            found.append(
                f"{source.name}: {len(other):,} of its {len(spans):,} raw partitions are of windows of another length "
                f"({before}) than its window_size {now}: what is collected of their time again is a raw partition of "
                f"{now} beside them, and a new revision of the dataset windows; window_size: {before} leaves them as "
                "they are"
            )
    return found


def unfed(platform: Platform) -> list[str]:
    """What is kept of datasets that no source of the configuration feeds, a sentence each."""
    config = platform.config
    roots = [config.sections.dataset_aggregator.data_path, str(config.sections.state_path / "segments")]
    roots += [within(exporter.settings.output_path, format) for format, exporter in config.exporters.items()]
    kept: dict[str, list[str]] = {}
    for root in roots:
        for name in platform.files.folders(root):
            if name not in config.datasets:
                kept.setdefault(name, []).append(within(root, name))
    found = []
    for name, folders in sorted(kept.items()):
        if windows := platform.ledger.revisions(name, EPOCH, FOREVER):
            whole = Window(windows[0].revision.window.start, windows[-1].revision.window.end)
            found.append(
                f"dataset {name}: no source of {config.path} feeds it, and {whole} of it stays as it is in "
                f"{', '.join(folders)}: nothing of it is built, exported or purged; where its source was renamed, "
                f"`dataset: {name}` in the new one's block goes on with it; where nobody needs it, remove these folders"
            )
    return found


def from_the_future(platform: Platform, source: SourceSettings) -> list[Claim]:
    """The claims of a source that a clock made which was ahead: of what has not passed, or noted at a time to come."""
    now = platform.now() + SKEW
    claims = platform.ledger.claims_between(source.dataset, now - DAY, FOREVER)
    return [
        claim
        for claim in claims
        if claim.source == source.name
        and ((claim.arrived_at or now) > now or (not source.sent and claim.collected.end > now))
    ]


def to_come(platform: Platform, now: datetime) -> list[str]:
    """Which datasets have rows of a time to come, which nobody can have observed, a sentence each."""
    found = []
    for dataset in platform.config.datasets.values():
        windows = [one for one in platform.ledger.due(dataset.name) if one.start > now + _CLEARLY_AHEAD]
        rows = {one: platform.ledger.rows_in(dataset.name, one) or 0 for one in windows}
        ahead = [one for one in windows if rows[one]]
        if ahead:
            many = f"{sum(rows.values()):,} rows of a time to come are there, until {ahead[-1].end:%Y-%m-%d %H:%M}"
            named = ", ".join(_stations(platform, dataset.name, ahead[0])) or "ask its sources"
            sources = ", ".join(f"sources.{name}.future_tolerance" for name in dataset.sources)
            found.append(
                f"{dataset.name}: {many} (stations: {named}); set their clocks, or the time zone in which their times "
                f"are read; {sources} says how far ahead a row may be, and what is beyond is set aside"
            )
    return found


def _stations(platform: Platform, dataset: str, window: Window) -> list[str]:
    """The first stations that have rows in a window, as far as they can be read."""
    schema = canonical_schema(platform.ledger.metadata_of(platform.ledger.claims(dataset, window)))
    if STATION not in schema.names:
        return []
    with suppress(StoreError, OSError):
        batches = platform.series.read(dataset, window, schema, point_key(schema))
        names = {name for batch in batches for name in batch[STATION].to_pylist() if name}
        return [visible(name) for name in sorted(names)[:_NAMED]]
    return []
