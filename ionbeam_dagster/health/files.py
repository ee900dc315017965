"""Whether every file is there, and holds what was written into it.

Belongs here: one look at all of them, whatever it takes. Does not belong here: how damage is found, and what becomes of
it (pipeline/reconciliation.py, pipeline/contents.py), or the same bit by bit, which the sensor `reconciliation` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline import agenda, contents
from ionbeam_dagster.pipeline.agenda import Work
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.reconciliation import reconcile

SUBJECT = "files"
_SHOWN = 20
_AGAIN = {
    "collect": "run", "ingest": "run", "build": "rebuild", "export": "rebuild", "export_cycle": "rebuild",
}  # fmt: skip


def all_files(platform: Platform) -> Iterator[Finding]:
    """What is lost or damaged. It is on the agenda then, so that whoever does the work makes it again."""
    if not can_ask_ledger(platform):
        return
    now = platform.now()
    young: list[str] = []
    found = reconcile(platform, now, partial(contents.looked_at_all, young=young))
    lost = [(work, path) for work in found.all_work if (path := _lost(platform, work)) is not None]
    for work, path in lost[:_SHOWN]:
        of = work.of.partition("/")[0]
        fault = "is not as it was written" if platform.files.exists(path) else "is not there"
        words = f"{work.of} {work.window}: {path} {fault} ({work.reason})"
        remedy = f"the worker makes it again; `ionbeam {_AGAIN[work.stage]} {of} {work.window.as_options}` does it now"
        yield Finding(SUBJECT, "warning", words, remedy)
    if len(lost) > _SHOWN:
        yield Finding(
            SUBJECT, "warning", f"{len(lost) - _SHOWN:,} further files are lost", "the worker makes them again"
        )
    for dataset in platform.config.datasets:
        for told in platform.series.read_through(dataset)[:_SHOWN]:
            words, _, remedy = told.rpartition("; ")
            yield Finding(SUBJECT, "warning", words, remedy)
    for told in found.for_a_person[:_SHOWN]:
        words, _, remedy = told.rpartition("; ")
        yield Finding(SUBJECT, "error", words, remedy)
    if len(found.for_a_person) > _SHOWN:
        more = f"{len(found.for_a_person) - _SHOWN:,} further files are for a person to look at"
        yield Finding(SUBJECT, "error", more, "`ionbeam doctor --files` shows them once these are fixed")
    later = f"; {len(young):,} that were written, or changed, a moment ago are for the next time" if young else ""
    yield Finding(SUBJECT, "well", f"{found.contents:,} files were read and compared with what was written{later}")


def _lost(platform: Platform, work: Work) -> str | None:
    """The file that work makes again because it is lost or damaged; None where there is another reason for the work."""
    dataset, _, format = work.of.partition("/")
    if work.stage == "collect":
        raw = platform.ledger.raw(work.of, work.window)
        of_its_file = isinstance(agenda.read_token(work.token), agenda.Lost | agenda.Replaces)
        return raw.path if raw is not None and of_its_file else None
    if work.stage == "build":
        built = platform.ledger.latest_revision(dataset, work.window)
        path, size = (built.path, built.facts.bytes) if built is not None else (None, 0)
    else:
        made = platform.ledger.export(dataset, work.window, format)
        path, size = (made.path, made.facts.bytes) if made is not None else (None, 0)
    if path is None:
        return None
    found = platform.files.found(path)
    return path if found is None or size not in (0, found.size) else None
