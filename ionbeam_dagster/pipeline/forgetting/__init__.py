"""Forgetting a station: it goes from all that the platform keeps, and does not come back.

    kept.py       raw partitions, quarantine, what sources remember, observations
    made.py       datasets as new revisions, and their exports
    known.py      the registry, what was heard, what a person said

Belongs here: the order of the steps, and what is told of them. Does not belong here: who is forgotten
(stores/privacy.py), or what rooms above this one keep (doors, Dagster), which bring steps of their own.

First it is remembered, by a mark without the id, that the station is forgotten: from then on nothing of it is taken in.
Then each step looks for what there is of it and removes that, whatever the steps before it did, so that a process that
is killed leaves nothing but work for the next one. What another process has in its hands when a round begins, who may
have read of the station before, is let end first, so that the round finds what it made; and it has ended when a round
finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.forgetting import kept, known, made
from ionbeam_dagster.pipeline.forgetting.who import NOBODY_ELSE, Others, Removed, Step, Who, who_is
from ionbeam_dagster.pipeline.platform import Platform

__all__ = ["Forgot", "Others", "Removed", "Step", "Who", "forget", "who_is"]

_STEPS: tuple[Step, ...] = (
    kept.quarantined, kept.remembered, kept.observations, made.datasets, made.exports, known.registry,
    known.heard, known.entries,
)  # fmt: skip
_ROUNDS = 5


@dataclass(slots=True)
class Forgot:
    """What was removed of a station, or in a dry run would be; and in a sentence each what the platform cannot
    remove."""

    removed: list[Removed] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def forget(
    platform: Platform,
    who: Who,
    dry_run: bool = False,
    also: Sequence[Step] = (),
    others: Others = NOBODY_ELSE,
) -> Forgot:
    """Remove a station from all that there is; before each round `others` who are at work then are let end.

    Doing it again removes what is left, if anything is. Raises PipelineError where something comes in all the time.
    """
    found = Forgot(left=[one for room in (known, kept, made) for one in room.left_elsewhere(platform, who)])
    steps: list[Step] = [partial(kept.raws, others), *_STEPS, *also]
    if dry_run:
        found.removed += _round(platform, who, True, steps)
        return found
    job = platform.ledger.job("forgetting")  # windows of datasets share their locks: none of these is held with another
    if not job.acquire():
        raise PipelineError("another station is being forgotten at this moment; run the same command again later")
    try:
        _until_nothing_is_left(platform, who, steps, others, found)
    finally:
        job.close()
    return found


def _until_nothing_is_left(platform: Platform, who: Who, steps: Sequence[Step], others: Others, found: Forgot) -> None:
    for source, station in who.names:
        platform.privacy.begin(source.name, station, platform.now(), known.when_heard(platform, source, station))
    for _ in range(_ROUNDS):
        others.let_end()
        removed = list(_round(platform, who, False, steps))
        found.removed += removed
        if not removed:
            break
    else:
        raise PipelineError(
            f"of {who} something is still found after {_ROUNDS} rounds: what is collected at this moment had begun "
            "before; run the same command again"
        )
    for source, station in who.names:
        platform.privacy.end(source.name, station, platform.now())


def _round(platform: Platform, who: Who, dry_run: bool, steps: Sequence[Step]) -> Iterator[Removed]:
    for step in steps:
        yield from step(platform, who, dry_run)
