"""The contents of files, compared with what the ledger knows of them: some in each pass, and in the end all.

Belongs here: damage that neither a file's size nor its footer tells. Does not belong here: files that are gone or of
another size, which each pass finds (reconciliation.py).

Where a pass ends the ledger remembers, so that the next one goes on there, whichever process does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.records import BuiltRevision, ExportRecord, RawPartition
from ionbeam_dagster.domain.windows import EPOCH, FOREVER
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import LOST, Step, Steps, Work
from ionbeam_dagster.pipeline.damage import not_ours
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import Found
from ionbeam_dagster.stores.publish import file_hash

MOST_FILES = 500
MOST_BYTES = 256 << 20
"""What is looked at in one pass, of all sources and datasets together."""
_SETTLED = timedelta(minutes=5)
"""A file that was written since may just be taking the place of another one."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file that the ledger knows: its kind, its SHA-256 (empty: not noted), and what is to do where it is damaged."""

    kind: str
    path: str
    hash: str
    damaged: Callable[[str], Step]


def looked_at(platform: Platform, now: datetime, told: list[str]) -> Steps:
    """Look at the next files, and give what is to be done; `told` is what only a person can do."""
    files, size = 0, 0
    reached = platform.ledger.reconciliations.reached()
    for place, file in _from(platform, now, told, reached):
        found = platform.files.found(file.path)
        if found is None or now - found.modified < _SETTLED:
            continue
        step = _step_of(platform, file, found)
        platform.ledger.reconciliations.reach(place)
        yield step
        files, size = files + 1, size + found.size
        if files >= MOST_FILES or size >= MOST_BYTES:
            return
    platform.ledger.reconciliations.reach("")


def looked_at_all(platform: Platform, now: datetime, told: list[str]) -> Steps:
    """The same of every file, however many there are, and without a note of how far it came."""
    for _, file in _from(platform, now, told, ""):
        found = platform.files.found(file.path)
        if found is not None and now - found.modified >= _SETTLED:
            yield _step_of(platform, file, found)


def _step_of(platform: Platform, file: _File, found: Found) -> Step:
    fault = _fault_of(platform, file)
    was_replaced = fault is not None and platform.files.found(file.path) != found  # what came may be whole
    return [] if fault is None or was_replaced else file.damaged(fault)


def _from(platform: Platform, now: datetime, told: list[str], reached: str) -> Iterator[tuple[str, _File]]:
    """The files behind the place `reached`, in order, each with its own place."""
    of: dict[str, Callable[[], list[_File]]] = {}
    for name, dataset in platform.config.datasets.items():
        of[f"dataset {name}"] = lambda name=name: _of_dataset(platform, name, now)  # type: ignore[misc]
        for format in dataset.exports:
            of[f"export {name}/{format}"] = lambda name=name, format=format: _of_exports(platform, name, format)  # type: ignore[misc]
    for name, source in platform.config.sources.items():
        of[f"raw {name}"] = lambda source=source: _of_raws(platform, source, told)  # type: ignore[misc]
    group_reached = reached.partition("\n")[0]
    for group in sorted(of):
        if group >= group_reached:
            for file in sorted(of[group](), key=lambda file: file.path):
                place = f"{group}\n{file.path}"
                if place > reached:
                    yield place, file


def _fault_of(platform: Platform, file: _File) -> str | None:
    try:
        if file.path.endswith(".parquet") and not can_be_read(platform, file.path):
            return f"its {file.kind} is damaged"
        with platform.files.fetched(file.path) as local:
            if file.hash and file_hash(local) != file.hash:
                return f"its {file.kind} does not hold what was written: the disk, or somebody, changed it"
    except FileNotFoundError:
        pass
    return None


def can_be_read(platform: Platform, path: str) -> bool:
    """Whether the footer of a Parquet file can be read."""
    try:
        with platform.files.parquet(path):
            return True
    except pa.ArrowInvalid:
        return False


# --- raw partitions ---------------------------------------------------------------------------------------------------


def _of_raws(platform: Platform, source: SourceSettings, told: list[str]) -> list[_File]:
    def damaged(raw: RawPartition, fault: str) -> Step:
        if source.sent:
            if (sentence := not_ours(source, raw, fault)) not in told:
                told.append(sentence)
            return []
        known = platform.ledger.raw(source.name, raw.window)
        if known is None or known.hash != raw.hash or raw.window.span != source.window_size:
            return []
        kept = platform.files.set_aside(raw.path)
        why = f"{fault} (kept as {kept})"
        return [(Work("collect", source.name, raw.window, f"{LOST} {raw.ingestion}", why), None)]

    raws = platform.ledger.raws(source.name, FOREVER)
    return [_File("raw file", raw.path, raw.hash, lambda fault, raw=raw: damaged(raw, fault)) for raw in raws]  # type: ignore[misc]


# --- datasets ---------------------------------------------------------------------------------------------------------


def _of_dataset(platform: Platform, dataset: str, now: datetime) -> list[_File]:
    def damaged(built: BuiltRevision, fault: str) -> Step:
        revision = built.revision
        known = platform.ledger.latest_revision(dataset, revision.window)
        if known is None or (known.revision.number, known.facts.hash) != (revision.number, built.facts.hash):
            return []
        kept = platform.files.set_aside(built.path)
        work = agenda.to_build(platform, dataset, revision.window, now)
        why = f"{fault} (kept as {kept})"
        return [(Work("build", dataset, revision.window, work.token, why), None)] if work else []

    latest = platform.ledger.revisions(dataset, EPOCH, FOREVER)
    return [_File("file", one.path, one.facts.hash, lambda fault, one=one: damaged(one, fault)) for one in latest]  # type: ignore[misc]


# --- exports ----------------------------------------------------------------------------------------------------------


def _of_exports(platform: Platform, dataset: str, format: str) -> list[_File]:
    """The exports of windows, as far as their hashes were noted."""

    def damaged(made: ExportRecord, fault: str) -> Step:
        if platform.ledger.export(dataset, made.window, format) != made or made.path is None:
            return []
        kept = platform.files.set_aside(made.path)
        work = agenda.to_export(platform, f"{dataset}/{format}", made.window)
        why = f"{fault} (kept as {kept})"
        return [(Work("export", f"{dataset}/{format}", made.window, work.token, why), None)] if work else []

    windows = (built.revision.window for built in platform.ledger.revisions(dataset, EPOCH, FOREVER))
    made = (platform.ledger.export(dataset, window, format) for window in windows)
    return [
        _File("export", one.path, one.facts.hash, lambda fault, one=one: damaged(one, fault))  # type: ignore[misc]
        for one in made
        if one is not None and one.path is not None and one.facts.hash
    ]
