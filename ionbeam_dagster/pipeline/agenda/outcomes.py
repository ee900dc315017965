"""What became of work that a run had in hand, and what follows from it.

Belongs here: settling what is done, and what failed. Does not belong here: the run (orchestration).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline.agenda.building import to_build
from ionbeam_dagster.pipeline.agenda.collecting import needs_collecting
from ionbeam_dagster.pipeline.agenda.exporting import to_export
from ionbeam_dagster.pipeline.agenda.ingesting import to_ingest
from ionbeam_dagster.pipeline.agenda.now import derived, still_due
from ionbeam_dagster.pipeline.agenda.tokens import Changed, Replaces, read_token
from ionbeam_dagster.pipeline.agenda.work import Stage, Work, begin, note
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt, Failure


@dataclass(frozen=True, slots=True)
class InHand:
    """One product's work as a run found it when it began. What is noted while the run goes on stays open after it."""

    platform: Platform
    stage: Stage
    of: str
    opened: Mapping[Window, Attempt]

    @property
    def failed_before(self) -> set[Window]:
        """The open windows that failed themselves the last time, and were not only given up with others."""
        return {window for window, one in self.opened.items() if one.error and one.was_tried}

    def settle_replaced(self, window: Window, now: datetime) -> None:
        """Settle at once a window that was to be replaced: its note alone tells of that, so that others would be given
        it while the run goes on."""
        opened = self.opened.get(window) if self.stage == "collect" else None
        if opened is not None and isinstance(read_token(opened.token), Replaces):
            self.settle([window], {}, now)

    def settle(self, done: Collection[Window], failed: Mapping[Window, Failure], now: datetime) -> None:
        """Remember what became of windows, and note what follows from those that are done.

        What failed stays due, whoever tried it, unless a person asked for what the platform would not have done by
        itself.
        """
        attempts = self.platform.ledger.attempts
        if failed:
            opened = {one.window for one in attempts.open(self.stage, self.of)}
            begin(self.platform, _derived_of(self.platform, self.stage, self.of, failed.keys() - opened, now), now)
            attempts.fail(self.stage, self.of, failed, now)
        if self.stage in ("export", "export_cycle"):
            note(self.platform, list(_lost_by(self.platform, self.of, failed, now)), now)
        note(self.platform, list(_following(self.platform, self.stage, self.of, [*done, *failed])), now)
        if self.stage == "build":
            note(self.platform, list(_cycles_of(self.platform, self.of, done)), now)
        begun = {window: self.opened[window].token if window in self.opened else "" for window in done}
        attempts.settle(self.stage, self.of, begun, now)


def in_hand(platform: Platform, stage: Stage, of: str) -> InHand:
    """To be called by a run before it does any work of a product."""
    return InHand(platform, stage, of, {one.window: one for one in platform.ledger.attempts.open(stage, of)})


def _cycles_of(platform: Platform, dataset: str, built: Collection[Window]) -> Iterator[Work]:
    for format in platform.dataset(dataset).cycle_exports:
        for cycle in {cycle_of(window.start) for window in built}:
            yield Work("export_cycle", f"{dataset}/{format}", cycle, "a window of it was built", "")


def _derived_of(platform: Platform, stage: Stage, of: str, windows: Collection[Window], now: datetime) -> list[Work]:
    if stage == "collect" and platform.source(of).kind == "pull" and platform.source(of).tells_changes:
        changed = [window for window in windows if needs_collecting(platform, of, window)]
        return [Work("collect", of, window, str(Changed(None)), "it changed") for window in changed]
    if stage == "collect":
        return [work for work in derived(platform, stage, of, now, False) if work.window in windows] if windows else []
    asked = (still_due(platform, stage, of, Attempt(stage, of, window, "", "", 0, now, now), now) for window in windows)
    return [work for work in asked if work]


def _lost_by(platform: Platform, of: str, failed: Collection[Window], now: datetime) -> Iterator[Work]:
    """The builds of dataset files that exports did not find, or found damaged and set aside."""
    dataset = platform.dataset(of.partition("/")[0])
    held = {one for window in failed for one in windows_between(window.start, window.end, dataset.span)}
    for window in sorted(held):
        latest = platform.ledger.latest_revision(dataset.name, window)
        if latest is not None and not platform.files.exists(latest.path):
            work = to_build(platform, dataset.name, window, now)
            yield from [work] if work else []


def _following(platform: Platform, stage: Stage, of: str, tried: Iterable[Window]) -> Iterator[Work]:
    """What is to be done of windows now that `stage` is, but for what the ledger itself tells of.

    Also of those that failed: it may have been what followed the work, and not the work.
    """
    follow: list[Callable[[Window], Work | None]] = []
    if stage == "collect":
        follow = [lambda window: to_ingest(platform, of, window)]
    elif stage == "build":
        formats = platform.dataset(of).exports
        follow = [lambda window, format=format: to_export(platform, f"{of}/{format}", window) for format in formats]  # type: ignore[misc]
    yield from (work for window in tried for look in follow if (work := look(window)))
