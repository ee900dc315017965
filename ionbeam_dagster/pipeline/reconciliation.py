"""Reconciliation: files, sources and ledger compared, and what does not agree put on the agenda.

Belongs here: what is lost, damaged or from the future, and what the ledger has no index of. Does not belong here: the
work itself, or whether it is due now (agenda looks at each again before it gives it out).

Folders are listed once each. What a listing lacks, or has in another size, is asked for by its name before it is
believed to be lost or damaged: it may have been written since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.records import BuiltRevision, Claim, RawPartition
from ionbeam_dagster.domain.windows import EPOCH, FOREVER, Window, window_of, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline import agenda, contents, removals
from ionbeam_dagster.pipeline.agenda import SKEW, Changed, Lost, Step, Steps, Work
from ionbeam_dagster.pipeline.damage import not_ours
from ionbeam_dagster.pipeline.export import is_of_another_exporter, shows_otherwise
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.damage import is_of_one_file
from ionbeam_dagster.stores.files import Found, folder_of, within

_T = TypeVar("_T")
Look = Callable[[Platform, datetime, list[str]], Iterator[Step | None]]
"""Reads files, and gives what is to be done, a step a file; None where it looked for files and read none."""

_AT_ONCE = 200
_OPENED = 200
"""Raw files of a source that are opened in one pass, the newest of those written since the last one. The others are
come to in their turn (contents.py)."""


@dataclass(slots=True)
class Reconciled:
    """What was found: the work that was put on the agenda, all that is to be done, also what stood there before, and
    what a person has to know or to do; `contents` counts the files that were read."""

    work: list[Work] = field(default_factory=list)
    all_work: list[Work] = field(default_factory=list)
    for_a_person: list[str] = field(default_factory=list)
    contents: int = 0


def reconcile(platform: Platform, now: datetime, look: Look = contents.looked_at) -> Reconciled:
    """Compare everything, and put on the agenda what is to be done; `look` reads the contents of some files, or all."""
    found = Reconciled()
    for _ in reconciling(platform, now, found, look):
        pass
    return found


def reconciling(
    platform: Platform, now: datetime, found: Reconciled, look: Look = contents.looked_at
) -> Iterator[None]:
    """The same step by step, each a fraction of a second's worth of work but for the listing of a folder.

    What is found is on the agenda, and in `found`, after each step; the ledger remembers when the last one was done.
    """
    since = platform.ledger.reconciliations.last()
    for source in platform.config.sources.values():
        yield from _noting(platform, now, found, _of_raws(platform, source, now, since, found))
        if source.kind == "pull" and source.tells_changes:
            yield from _noting(platform, now, found, _of_changes(platform, source, now, found))
    for dataset in platform.config.datasets.values():
        yield from _noting(platform, now, found, _of_dataset(platform, dataset, now, found))
    for step in look(platform, now, found.for_a_person):
        found.contents += step is not None
        yield from _noting(platform, now, found, iter([step or []]))
    for path in platform.ledger.removals.pending():
        removals.remove_pending(platform, path)
    _forget_what_is_not_configured(platform, now)
    platform.ledger.reconciliations.note(now)


def _noting(platform: Platform, now: datetime, found: Reconciled, steps: Steps) -> Iterator[None]:
    for step in steps:
        found.work += agenda.note_unless_open(platform, step, now)  # what is being tried keeps its tries
        found.all_work += [work for work, _ in step]
        yield


def _forget_what_is_not_configured(platform: Platform, now: datetime) -> None:
    known = set(agenda.products(platform)) | {("collect", name) for name in platform.config.sources}
    for one in platform.ledger.attempts.open():
        if (one.stage, one.product) not in known:
            platform.ledger.attempts.settle(one.stage, one.product, {one.window: one.token}, now)


# --- raw partitions ---------------------------------------------------------------------------------------------------


def _of_raws(
    platform: Platform, source: SourceSettings, now: datetime, since: datetime | None, found: Reconciled
) -> Steps:
    listed = platform.files.listed(within(source.config.data_path, source.name))
    known = platform.ledger.raws(source.name, FOREVER)
    ours = (raw for raw in known if source.sent or raw.window.span == source.window_size)  # others nobody can collect
    raws = sorted(ours, key=lambda raw: raw.window, reverse=True)
    opened = 0
    for some in _portions(raws):
        claims = {claim.id: claim for claim in platform.ledger.claims_of([raw.ingestion for raw in some])}
        step = []
        for raw in some:
            file = listed.get(raw.path)
            if file is None or file.size != (raw.bytes or file.size):
                file = platform.files.found(raw.path)
            new = file is not None and (since is None or file.modified >= since - SKEW)
            damage, clock = _damage_of(raw, file), _clock_fault_of(source, raw, file, claims.get(raw.ingestion), now)
            if damage is None and clock is None and new and opened < _OPENED:
                opened += 1
                damage = "its raw file is damaged" if _is_damaged(platform, raw.path) else None
            passed = raw.window.end + source.window_lag
            not_before = passed if passed > now else None
            if damage is not None and source.sent:
                found.for_a_person.append(not_ours(source, raw, damage))
            elif damage is not None:
                step.append((Work("collect", source.name, raw.window, str(Lost(raw.ingestion)), damage), not_before))
            elif clock is not None:
                step.append((agenda.replacing(platform, source.name, raw.window, clock), not_before))
            elif raw.ingestion not in claims and (work := agenda.to_ingest(platform, source.name, raw.window)):
                step.append((work, None))
        yield step


def _damage_of(raw: RawPartition, file: Found | None) -> str | None:
    if file is None:
        return "its raw file is gone"
    if file.size != (raw.bytes or file.size):
        return f"its raw file is not as it was noted: it has {file.size} bytes instead of {raw.bytes}"
    return None


def _clock_fault_of(
    source: SourceSettings, raw: RawPartition, file: Found | None, claim: Claim | None, now: datetime
) -> str | None:
    """Why what was collected is not what the source has for the window."""
    if file is None or source.sent:  # clients may say of what is to come that nothing does
        return None
    if file.modified > now + SKEW:
        return "its raw file is from the future: a clock was ahead"
    if claim is not None and claim.collected.end > file.modified + SKEW:
        return "it was collected before it had passed: a clock was ahead"
    return None


def _is_damaged(platform: Platform, path: str) -> bool:
    """Whether the footer of a raw file says nothing; of a file that cannot be read at all contents.py tells."""
    try:
        return not contents.can_be_read(platform, path)
    except OSError as error:
        if not is_of_one_file(error):
            raise
        return False


def _of_changes(platform: Platform, source: SourceSettings, now: datetime, found: Reconciled) -> Steps:
    """The windows of a source that tells what changed which are not collected as they are now."""
    feed = platform.sources[source.name]
    try:
        ranges, _ = feed.changes(None)
        collected = agenda.collected_of(platform, source, Window(EPOCH, now))
        for some in _portions(_ended(platform, source, [*ranges, *collected], now)):
            needed = [window for window in some if agenda.needs_collecting(platform, source.name, window)]
            yield [
                (Work("collect", source.name, window, str(Changed(feed.signature(window))), "it changed"), None)
                for window in needed
            ]
    except SourceError as error:
        found.for_a_person.append(f"{source.name}: {error}")


def _ended(platform: Platform, source: SourceSettings, ranges: Iterable[Window], now: datetime) -> Sequence[Window]:
    first, last = platform.range_of(source)
    until = min(last or FOREVER, window_of(now - source.window_lag, source.window_size).start)
    parts = (
        Window(max(one.start, first), min(one.end, until)) for one in ranges if one.start < until and one.end > first
    )
    stretches = agenda.without_holes(platform, source, parts)
    windows = {window for one in stretches for window in windows_between(one.start, one.end, source.window_size)}
    return sorted(windows, reverse=True)


# --- datasets and exports ---------------------------------------------------------------------------------------------


def _of_dataset(platform: Platform, dataset: DatasetSettings, now: datetime, found: Reconciled) -> Steps:
    name = dataset.name
    built = list(reversed(platform.ledger.revisions(name, EPOCH, FOREVER)))
    renew = platform.config.automation.remake_outdated
    postponed = set(platform.ledger.due(name)) - set(platform.ledger.due(name, now))
    for due in _portions(sorted(postponed, reverse=True)):
        works = (agenda.to_build(platform, name, window, now) for window in due)
        yield [(work, None) for work in works if work]
    if not built:
        return
    listed = {folder: platform.files.listed(folder) for folder in _folders(platform, dataset, built[0])}
    for some in _portions(built):
        faults = {one.path: _fault_of_file(platform, listed, one.path, one.facts.bytes) for one in some}
        whole = [one for one in some if faults[one.path] is None]
        again = [one for one in some if faults[one.path] or (renew and _is_outdated(platform, one))]
        builds = [_built_again(platform, one, faults[one.path], now) for one in again]
        built_anew = {work.window for work in builds if work}
        for one, anew in zip(again, builds, strict=True):
            if anew is None and (fault := faults[one.path]):
                found.for_a_person += contents.not_built_again(platform, one, fault, now)
        exports = [
            agenda.to_export(platform, f"{name}/{format}", one.revision.window, renew)
            for format in dataset.exports
            for one in whole
            if not _is_exported(platform, listed, one, format) and one.revision.window not in built_anew
        ]
        yield [(work, None) for work in (*builds, *exports) if work]
    for format in dataset.cycle_exports:
        for cycles in _portions(sorted({cycle_of(one.revision.window.start) for one in built}, reverse=True)):
            work = (agenda.to_export_cycle(platform, f"{name}/{format}", cycle, now, renew) for cycle in cycles)
            yield [(one, None) for one in work if one]


def _is_outdated(platform: Platform, built: BuiltRevision) -> bool:
    return agenda.is_outdated(platform, platform.dataset(built.revision.dataset), built.revision.window)


def _folders(platform: Platform, dataset: DatasetSettings, one: BuiltRevision) -> set[str]:
    exports = (platform.export_path(dataset.name, format, one.revision.window) for format in dataset.exports)
    return {folder_of(one.path), *map(folder_of, exports)}


def _is_exported(
    platform: Platform, listed: Mapping[str, Mapping[str, Found]], built: BuiltRevision, format: str
) -> bool:
    made = platform.ledger.export(built.revision.dataset, built.revision.window, format)
    if made is None or made.number != built.revision.number:
        return False
    if shows_otherwise(platform, made):
        return False
    renew = platform.config.automation.remake_outdated
    if renew and is_of_another_exporter(platform, made.dataset, format, made.window):
        return False
    return made.path is None or _fault_of_file(platform, listed, made.path, made.facts.bytes) is None


def _built_again(platform: Platform, built: BuiltRevision, fault: str | None, now: datetime) -> Work | None:
    renew = platform.config.automation.remake_outdated
    work = agenda.to_build(platform, built.revision.dataset, built.revision.window, now, renew=renew)
    return replace(work, reason=f"{built.path}: {fault}") if work and fault else work


def _fault_of_file(platform: Platform, listed: Mapping[str, Mapping[str, Found]], path: str, size: int) -> str | None:
    """Why a file is not there, of the size that the ledger remembers, if it does; None where it is."""
    known = listed.get(folder_of(path), {}).get(path)
    if known is not None and size in (0, known.size):
        return None
    file = platform.files.found(path)
    if file is None:
        return "it is gone"
    return None if size in (0, file.size) else f"it is damaged: it has {file.size} bytes instead of {size}"


def _portions(given: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(given), _AT_ONCE):
        yield given[start : start + _AT_ONCE]
