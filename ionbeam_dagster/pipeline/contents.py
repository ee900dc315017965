"""The contents of files, compared with what the ledger knows of them: some in each pass, and in the end all.

Belongs here: damage that neither a file's size nor its footer tells. Does not belong here: files that are gone or of
another size, which each pass finds (reconciliation.py).

Where a pass ends the ledger remembers, so that the next one goes on there, whichever process does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import pyarrow as pa

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.decisions import Build, Sealed, Wait
from ionbeam_dagster.domain.records import BuiltRevision, ExportRecord, RawPartition
from ionbeam_dagster.domain.windows import EPOCH, FOREVER, Window
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import Lost, Step, Work
from ionbeam_dagster.pipeline.damage import is_newer, not_ours
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.damage import is_of_one_file, remedy_of
from ionbeam_dagster.stores.files import Found
from ionbeam_dagster.stores.publish import file_hash

MOST_FILES = 500
MOST_BYTES = 256 << 20
"""What is looked at in one pass, of all sources and datasets together."""
_AT_ONCE = 200
"""Windows whose exports the ledger is asked for in one step."""
_SETTLED = timedelta(minutes=5)
"""A file that was written since may just be taking the place of another one."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file that the ledger knows: its kind, its SHA-256 (empty: not noted), and what is to do where it is damaged."""

    kind: str
    path: str
    hash: str
    damaged: Callable[[str], Step]


_Placed = tuple[str, _File | None]
"""A file with its place among those of its group; None: of many places, up to this one, there are none to look at."""


def looked_at(platform: Platform, now: datetime, told: list[str]) -> Iterator[Step | None]:
    """Look at the next files, and give what is to be done, None where none was read; `told` is what only a person can
    do."""
    files, size = 0, 0
    reached = platform.ledger.reconciliations.reached()
    for place, file in _from(platform, now, told, reached):
        if file is None:
            platform.ledger.reconciliations.reach(place)
            yield None
            continue
        found = platform.files.found(file.path)
        if found is None or now - found.modified < _SETTLED:
            continue
        step = _step_of(platform, file, found, told)
        platform.ledger.reconciliations.reach(place)
        yield step
        files, size = files + 1, size + found.size
        if files >= MOST_FILES or size >= MOST_BYTES:
            return
    platform.ledger.reconciliations.reach("")


def looked_at_all(
    platform: Platform, now: datetime, told: list[str], young: list[str] | None = None
) -> Iterator[Step | None]:
    """The same of every file, however many there are, and without a note of how far it came. Those that are too `young`
    to be judged are named there."""
    for _, file in _from(platform, now, told, ""):
        if file is None:
            yield None
            continue
        found = platform.files.found(file.path)
        if found is not None and now - found.modified >= _SETTLED:
            yield _step_of(platform, file, found, told)
        elif found is not None and young is not None:
            young.append(file.path)


def _step_of(platform: Platform, file: _File, found: Found, told: list[str]) -> Step:
    try:
        fault = _fault_of(platform, file)
    except OSError as error:
        if not is_of_one_file(error):
            raise
        told.append(f"{file.path}: its {file.kind} cannot be read ({error}); {remedy_of(error)}")
        return []
    was_replaced = fault is not None and platform.files.found(file.path) != found  # what came may be whole
    return [] if fault is None or was_replaced else file.damaged(fault)


def _from(platform: Platform, now: datetime, told: list[str], reached: str) -> Iterator[_Placed]:
    """The files behind the place `reached`, in order, each with its own place."""
    of: dict[str, Callable[[str], Iterable[_Placed]]] = {}
    for name, dataset in platform.config.datasets.items():
        of[f"dataset {name}"] = lambda _, name=name: _by_path(_of_dataset(platform, name, now, told))  # type: ignore[misc]
        for format in dataset.exports:
            of[f"export {name}/{format}"] = partial(_of_exports, platform, name, format, told)
        for format in dataset.cycle_exports:
            of[f"export {name}/{format}"] = partial(_of_cycles, platform, name, format, now, told)
    for name, source in platform.config.sources.items():
        of[f"raw {name}"] = lambda _, source=source: _by_path(_of_raws(platform, source, told))  # type: ignore[misc]
    group_reached, _, reached_there = reached.partition("\n")
    for group in sorted(of):
        if group >= group_reached:
            after = reached_there if group == group_reached else ""
            for place, file in of[group](after):
                if place > after:
                    yield f"{group}\n{place}", file


def _by_path(files: list[_File]) -> list[_Placed]:
    return [(file.path, file) for file in sorted(files, key=lambda file: file.path)]


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
        if is_newer(platform, raw):
            why = "its raw file is newer than what was noted of it: its writer was killed"
        else:
            why = f"{fault} (kept as {platform.files.set_aside(raw.path)})"
        return [(Work("collect", source.name, raw.window, str(Lost(raw.ingestion)), why), None)]

    raws = platform.ledger.raws(source.name, FOREVER)
    return [_File("raw file", raw.path, raw.hash, lambda fault, raw=raw: damaged(raw, fault)) for raw in raws]  # type: ignore[misc]


# --- datasets ---------------------------------------------------------------------------------------------------------


def _of_dataset(platform: Platform, dataset: str, now: datetime, told: list[str]) -> list[_File]:
    def damaged(built: BuiltRevision, fault: str) -> Step:
        revision = built.revision
        known = platform.ledger.latest_revision(dataset, revision.window)
        if known is None or (known.revision.number, known.facts.hash) != (revision.number, built.facts.hash):
            return []
        why = f"{fault} (kept as {platform.files.set_aside(built.path)})"
        work = agenda.to_build(platform, dataset, revision.window, now)
        if work is None:
            told.extend(not_built_again(platform, built, why, now))
            return []
        return [(Work("build", dataset, revision.window, work.token, why), None)]

    latest = platform.ledger.revisions(dataset, EPOCH, FOREVER)
    return [_File("file", one.path, one.facts.hash, lambda fault, one=one: damaged(one, fault)) for one in latest]  # type: ignore[misc]


def not_built_again(platform: Platform, built: BuiltRevision, fault: str, now: datetime) -> list[str]:
    """What is to be said of a lost file of a dataset that nobody makes again: its window is closed, waits for what does
    not come by itself, or is of rows that are gone."""
    dataset, window = platform.dataset(built.revision.dataset), built.revision.window
    decision = agenda.assess(platform, dataset, window, now)
    is_purged = isinstance(decision, Build) and agenda.is_of_purged_rows(platform, dataset, window, decision)
    if is_purged:
        because = "is of rows that retention removed, or that were lost with their raw partition"
    elif isinstance(decision, Wait) and decision.until is None:
        because = f"waits: {decision.reason}"
    elif isinstance(decision, Sealed):
        because = f"is {decision.reason}"
    else:
        return []
    if platform.ledger.claims(dataset.name, window) and not is_purged:
        remedy = f"`ionbeam rebuild {dataset.name} --force {window.as_options}` makes a revision with all that arrived"
    else:
        asked = ", ".join(f"`ionbeam reingest {source} {window.as_options}`" for source in dataset.sources)
        remedy = f"put a copy of it back, or let its sources give the window again ({asked})"
        if is_purged:
            remedy += "; where one gives other rows now, with `--replace`"
    return [
        f"{built.path}: {fault}, and is not made again by itself, since {dataset.name} {window} {because}; {remedy}"
    ]


# --- exports ----------------------------------------------------------------------------------------------------------


def _of_exports(platform: Platform, dataset: str, format: str, told: list[str], after: str) -> Iterator[_Placed]:
    """The exports of windows behind the place `after`; a window is a place."""

    def work_of(made: ExportRecord) -> Work | None:
        latest = platform.ledger.latest_revision(dataset, made.window)
        work = agenda.to_export(platform, f"{dataset}/{format}", made.window, is_damaged=True)
        return work if latest is not None and _can_be_exported(platform, [latest]) else None

    windows = {one.revision.window for one in platform.ledger.revisions(dataset, EPOCH, FOREVER)}
    return _made(platform, dataset, format, windows, partial(_damaged_export, platform, work_of, told), after)


def _of_cycles(
    platform: Platform, dataset: str, format: str, now: datetime, told: list[str], after: str
) -> Iterator[_Placed]:
    """The same of the files of analysis cycles."""

    def work_of(made: ExportRecord) -> Work | None:
        work = agenda.to_export_cycle(platform, f"{dataset}/{format}", made.window, now, is_damaged=True)
        inside = platform.ledger.revisions(dataset, made.window.start, made.window.end)
        return work if _can_be_exported(platform, inside) else None

    cycles = {cycle_of(one.revision.window.start) for one in platform.ledger.revisions(dataset, EPOCH, FOREVER)}
    return _made(platform, dataset, format, cycles, partial(_damaged_export, platform, work_of, told), after)


def _made(
    platform: Platform,
    dataset: str,
    format: str,
    windows: Iterable[Window],
    damaged: Callable[[ExportRecord, str], Step],
    after: str,
) -> Iterator[_Placed]:
    """The exports of `windows`, as far as their hashes were noted."""
    places = {window.label: window for window in windows if window.label > after}
    for number, place in enumerate(sorted(places), start=1):
        one = platform.ledger.export(dataset, places[place], format)
        if one is not None and one.path is not None and one.facts.hash:
            yield place, _File("export", one.path, one.facts.hash, partial(damaged, one))
        elif number % _AT_ONCE == 0:
            yield place, None


def _can_be_exported(platform: Platform, built: Iterable[BuiltRevision]) -> bool:
    """Whether the files of these revisions are there, and can be read."""
    return all(platform.files.exists(one.path) and can_be_read(platform, one.path) for one in built)


def _damaged_export(
    platform: Platform,
    work_of: Callable[[ExportRecord], Work | None],
    told: list[str],
    made: ExportRecord,
    fault: str,
) -> Step:
    if platform.ledger.export(made.dataset, made.window, made.format) != made or made.path is None:
        return []
    work = work_of(made)
    if work is None:
        told.append(
            f"{made.path}: {fault}; it stays, since the file of {made.dataset} that it was made of is lost, too: "
            f"`ionbeam rebuild {made.dataset} --force {made.window.as_options}` makes both again"
        )
        return []
    why = f"{fault} (kept as {platform.files.set_aside(made.path)})"
    return [(Work(work.stage, work.of, made.window, work.token, why), None)]
