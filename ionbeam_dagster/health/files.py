"""Whether every file is there, and holds what was written into it.

Belongs here: one look at all of them, whatever it takes. Does not belong here: how damage is found, and what becomes of
it (pipeline/reconciliation.py, pipeline/contents.py), or the same bit by bit, which the sensor `reconciliation` does.
"""

from __future__ import annotations

from collections.abc import Iterator

from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline import contents
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
    found = reconcile(platform, now, contents.looked_at_all)
    for work in found.work[:_SHOWN]:
        of = work.of.partition("/")[0]
        range = f"--from {work.window.start:%Y-%m-%dT%H:%MZ} --to {work.window.end:%Y-%m-%dT%H:%MZ}"
        words = f"{work.of} {work.window}: {work.reason}"
        remedy = f"the worker makes it again; `ionbeam {_AGAIN[work.stage]} {of} {range}` does it now"
        yield Finding(SUBJECT, "warning", words, remedy)
    if len(found.work) > _SHOWN:
        more = f"{len(found.work) - _SHOWN:,} further windows are to be made again"
        yield Finding(SUBJECT, "warning", more, "the worker makes them again")
    for told in found.for_a_person[:_SHOWN]:
        words, _, remedy = told.rpartition("; ")
        yield Finding(SUBJECT, "error", words, remedy)
    if len(found.for_a_person) > _SHOWN:
        more = f"{len(found.for_a_person) - _SHOWN:,} further files are for a person to look at"
        yield Finding(SUBJECT, "error", more, "`ionbeam doctor --files` shows them once these are fixed")
    yield Finding(SUBJECT, "well", f"{found.contents:,} files were read and compared with what was written")
