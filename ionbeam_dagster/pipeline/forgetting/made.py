"""What is made of observations: datasets, each window's as its next revision, and exports.

Belongs here: writing them without a station; nothing is judged anew, so that it can be done of windows whose
observations are gone, too. Does not belong here: how a revision is built otherwise (build.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.records import BuiltRevision, Provenance
from ionbeam_dagster.domain.windows import EPOCH, FOREVER, Window
from ionbeam_dagster.exporters import CycleExporter
from ionbeam_dagster.pipeline.agenda import export_is_current
from ionbeam_dagster.pipeline.cycles import export_cycle, holds_what_is_there, outlook_of
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.forgetting.who import Removed, Who, is_of, telling_unread, without
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.quality_control import flags_in
from ionbeam_dagster.pipeline.shown import from_when
from ionbeam_dagster.stores.datasets import PROVENANCE
from ionbeam_dagster.stores.files import folder_of, name_of, within

_TIME = re.compile(r"(?<!\d)\d{14}(?!\d)")
_WHY = "a station is forgotten; nothing else changed"


def datasets(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Windows get a next revision without its rows, which the change feed tells; the earlier revisions go."""
    name = who.dataset.name
    for built in platform.ledger.revisions(name, EPOCH, FOREVER):
        if dry_run:
            if rows := _rows_of(platform, built.path, who.id):
                yield Removed("dataset windows", built.path, rows)
            continue
        with platform.ledger.holding(name, built.revision.window):
            yield from _window(platform, who, built.revision.window)
    yield from _unknown(platform, who, dry_run)


def _window(platform: Platform, who: Who, window: Window) -> Iterator[Removed]:
    latest = platform.ledger.latest_revision(who.dataset.name, window)
    if latest is not None and (rows := _rows_of(platform, latest.path, who.id)):
        _next_without(platform, who, latest)
        yield Removed("dataset windows", latest.path, rows)
    for old in platform.ledger.revisions_of(who.dataset.name, window)[:-1]:
        if _rows_of(platform, old.path, who.id):
            platform.files.delete(old.path)
            platform.ledger.forget_revision(old.revision)
            yield Removed("superseded revisions", old.path)


def _next_without(platform: Platform, who: Who, before: BuiltRevision) -> None:
    revision = replace(before.revision, number=before.revision.number + 1)
    with platform.files.parquet(before.path) as file:
        schema = file.schema_arrow
        provenance = Provenance.from_json(json.loads(schema.metadata[PROVENANCE]))
        left = (without(who.id, batch) for batch in file.iter_batches())
        written = platform.datasets.write(
            schema.remove_metadata(), (batch.replace_schema_metadata(None) for batch in left),
            replace(provenance, dataset=revision.dataset, number=revision.number),
        )  # fmt: skip
    with platform.files.fetched(written.path) as local:
        flags = flags_in(local, before.facts.flags)
    facts = replace(
        before.facts, rows=written.rows, stations=written.stations, bytes=written.bytes, hash=written.hash,
        flags=flags, why=_WHY,
    )  # fmt: skip
    claims = platform.ledger.claims_of([*(before.facts.made_of or ())])
    # As old as the one before: it takes its place, also in files of cycles that are past their cut-off.
    built = BuiltRevision(revision, written.path, before.built_at, facts)
    platform.ledger.record_revision(built, claims)


def _unknown(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Files of the dataset that the ledger does not know any longer, or that were set aside."""
    name = who.dataset.name
    latest = platform.ledger.revisions(name, EPOCH, FOREVER)
    known = {one.path for built in latest for one in platform.ledger.revisions_of(name, built.revision.window)}
    folder = platform.datasets.folder(name)
    for location in platform.files.under(folder):
        if location not in known and location.endswith(".parquet") and _rows_of(platform, location, who.id):
            if not dry_run:
                platform.files.delete(location)
            yield Removed("superseded revisions", location)
    for location in sorted(platform.files.aside(folder)):
        if not dry_run:
            platform.files.delete(location)
        yield Removed("damaged files", location)


def exports(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Exports of windows that have another revision now are made again."""
    if dry_run:
        return
    dataset = who.dataset
    latest = platform.ledger.revisions(dataset.name, EPOCH, FOREVER)
    windows = [built.revision.window for built in latest]
    for window in windows:
        for format in dataset.exports:
            if _is_older(platform, dataset.name, format, window):
                yield from _again(platform, dataset, format, window)
    for cycle in sorted({cycle_of(window.start) for window in windows}) if dataset.cycle_exports else ():
        for format in dataset.cycle_exports:
            yield from _cycle(platform, dataset, platform.config.cycle_exporters[format], cycle)
    remade = [built for built in latest if built.facts.why == _WHY]
    for format in dataset.exports if remade else ():
        yield from _older_copies(platform, dataset.name, format, remade)


def _cycle(platform: Platform, dataset: DatasetSettings, exporter: CycleExporter, cycle: Window) -> Iterator[Removed]:
    """Make the file of a cycle again that holds other revisions than it is to, or revisions that are gone: it may have
    been made of them while the station was there. It stays where a dataset file is lost."""
    known = platform.ledger.export(dataset.name, cycle, exporter.format)
    outlook = outlook_of(platform, dataset, exporter, cycle, platform.now())
    latest = [platform.ledger.latest_revision(dataset.name, window) for window in outlook.holds]
    is_lost = any(one is None or not platform.files.exists(one.path) for one in latest)
    if known is None or known.path is None or not latest or is_lost:
        return
    is_whole = holds_what_is_there(platform, dataset.name, outlook)
    if not is_whole:  # of a file that is gone, a revision that is gone is taken in its next one
        platform.files.delete(known.path)
    if not is_whole or known.facts.holds != {window.key: number for window, number in outlook.holds.items()}:
        yield from _again(platform, dataset, exporter.format, cycle)


def _again(platform: Platform, dataset: DatasetSettings, format: str, window: Window) -> Iterator[Removed]:
    """Make the export of a window or cycle again; one that is not to be shown yet goes until its time comes."""
    place, now = platform.export_path(dataset.name, format, window), platform.now()
    begins = from_when(dataset, format, window)
    if begins is not None and now < begins:
        if platform.files.exists(place):
            platform.files.delete(place)
            yield Removed("exports, not to be shown yet", place)
        return
    if format in platform.config.cycle_exporters:
        export_cycle(platform, dataset, platform.config.cycle_exporters[format], window, now)
    else:
        export(platform, dataset, platform.config.window_exporters[format], window)
    yield Removed("exports, made again", place)


def _older_copies(platform: Platform, dataset: str, format: str, remade: Sequence[BuiltRevision]) -> Iterator[Removed]:
    """Copies of exports of earlier revisions, whose names (of the GTS) have the time of the window and a number."""
    built = {f"{one.revision.window.start:%Y%m%d%H%M%S}": one for one in remade}
    for location, found in platform.files.listed(platform.config.exporters[format].settings.output_path).items():
        times = _TIME.findall(name_of(location)) if name_of(folder_of(location)) == dataset else ()
        of = next((built[time] for time in times if time in built), None)
        if of is not None and found.modified < platform.files.written_at(of.path):
            platform.files.delete(location)
            yield Removed("copies of earlier exports", location)


def left_elsewhere(platform: Platform, who: Who) -> Iterator[str]:
    """Exports that are not made again: in formats in which the dataset is exported no longer, and of windows whose
    dataset file is lost."""
    for format, exporter in platform.config.exporters.items():
        folder = within(exporter.settings.output_path, format, who.dataset.name)
        if format not in who.dataset.formats and platform.files.under(folder):
            yield f"{folder} has files of a format in which {who.dataset.name} is exported no longer; remove them"
    there = {*platform.files.under(platform.datasets.folder(who.dataset.name))}
    for built in platform.ledger.revisions(who.dataset.name, EPOCH, FOREVER):
        if built.path not in there:
            yield from _of_lost(platform, who.dataset, built)


def _of_lost(platform: Platform, dataset: DatasetSettings, built: BuiltRevision) -> Iterator[str]:
    window = built.revision.window
    of_window = [(format, window) for format in dataset.exports]
    for format, shown in (*of_window, *((format, cycle_of(window.start)) for format in dataset.cycle_exports)):
        made = platform.ledger.export(dataset.name, shown, format)
        if made is not None and made.path is not None and platform.files.exists(made.path):
            yield (
                f"{made.path} may have it: a dataset file that it was made of is lost ({built.path}), and so it is not "
                f"made again; `ionbeam rebuild {dataset.name} --force {window.as_options}` may make both, or remove it"
            )


def _is_older(platform: Platform, dataset: str, format: str, window: Window) -> bool:
    """Whether there is an export of an earlier revision; one that was never made is the worker's."""
    known = platform.ledger.export(dataset, window, format)
    return known is not None and not export_is_current(platform, dataset, format, window)


def _rows_of(platform: Platform, location: str, station: str) -> int:
    with telling_unread(location), platform.files.parquet(location) as file:
        if STATION in file.schema_arrow.names:
            return sum(int(is_of(batch, station).sum()) for batch in file.iter_batches(columns=[STATION]))
    return 0
