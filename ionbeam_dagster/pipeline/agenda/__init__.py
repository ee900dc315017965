"""The agenda: what there is to do, of which window, and why. It alone decides that.

A module a stage says what is work of it (collecting, ingesting, building, exporting); `work` has the line and what the
ledger remembers of open work; `tokens` why a window is to be collected; `now` puts together what may begin now;
`outcomes` settles what a run did; `silence` has the sources that do not answer; `attention` is what a person has to
know. Nothing asks anybody else: automation, `ionbeam run`, the worker, the bridge, `ionbeam status` and retention ask
here. Does not belong here: the comparison of files with the ledger (reconciliation.py), when a window can be built
(domain/decisions.py decides), or the doing.

Work is derived from what there is: it is due while what there is was not made from its token. What the ledger has no
index of (a raw partition without a claim, a revision without its exports, what reconciliation found) is noted in the
ledger as open, and is looked at again before it is given out: a note is no opinion. Noting may fail between two writes;
reconciliation then finds what was not noted.
"""

from ionbeam_dagster.pipeline.agenda.attention import (
    OVERDUE_AFTER,
    SKEW,
    alike,
    failing,
    from_the_future,
    in_words,
    kind_of,
    misfits,
    other_lengths,
    outdated,
    overdue,
    to_come,
    unfed,
)
from ionbeam_dagster.pipeline.agenda.building import assess, is_of_purged_rows, is_outdated, outlook, to_build
from ionbeam_dagster.pipeline.agenda.collecting import (
    collected_of,
    has_window,
    holes,
    is_lost,
    last_trigger,
    needs_collecting,
    replacing,
    windows_in_lookback,
    without_holes,
)
from ionbeam_dagster.pipeline.agenda.exporting import export_is_current, is_broken, stays, to_export, to_export_cycle
from ionbeam_dagster.pipeline.agenda.ingesting import to_ingest
from ionbeam_dagster.pipeline.agenda.now import MOST, due, due_of, products, ready
from ionbeam_dagster.pipeline.agenda.outcomes import InHand, in_hand
from ionbeam_dagster.pipeline.agenda.silence import end_silence, note_silence, probed, silent
from ionbeam_dagster.pipeline.agenda.tokens import Changed, Lost, Replaces, Triggered, read_token
from ionbeam_dagster.pipeline.agenda.work import (
    Stage,
    Step,
    Steps,
    Work,
    begin,
    note,
    note_unless_open,
)

__all__ = [
    "MOST", "OVERDUE_AFTER", "SKEW", "Changed", "InHand", "Lost", "Replaces", "Stage", "Step", "Steps", "Triggered",
    "Work", "alike", "assess", "begin", "collected_of", "due", "due_of", "end_silence", "export_is_current", "failing",
    "from_the_future", "has_window", "holes", "in_hand", "in_words", "is_broken", "is_lost",
    "is_of_purged_rows", "is_outdated", "kind_of",
    "last_trigger", "misfits", "needs_collecting", "note", "note_silence", "note_unless_open",
    "other_lengths", "outdated", "outlook", "overdue", "probed", "products", "read_token", "ready", "replacing",
    "silent", "stays", "to_build", "to_come", "to_export", "to_export_cycle", "to_ingest", "unfed",
    "windows_in_lookback", "without_holes",
]  # fmt: skip
