"""What is kept although its source no longer gives it: the lines in which commands tell of it.

Belongs here: rows that a source gave before, and inputs that are gone. Does not belong here: what was set aside
(quarantine.py), or that it is kept (pipeline/keeping.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ionbeam_dagster.cli.terminal import counted
from ionbeam_dagster.domain.windows import FOREVER, Window

if TYPE_CHECKING:
    from ionbeam_dagster.domain.records import RawPartition
    from ionbeam_dagster.pipeline.platform import Platform


def no_longer_given(platform: Platform, source: str, range: Window | None = None) -> Iterator[str]:
    """Lines about the rows of a source, of a range alone where one is given, that are kept and that it no longer gives,
    or that stand beside fewer rows now: how many, since when, and how they go."""
    settings = platform.source(source)
    if settings.sent:
        return
    raws = platform.ledger.raws(source, FOREVER if range is None else range.end + settings.window_size)
    raws = [raw for raw in raws if range is None or raw.window.overlaps(range)]
    yield from _fewer(platform, source, [raw for raw in raws if raw.beside])
    kept = [raw for raw in raws if raw.kept]
    if not kept:
        return
    whole = _around(kept)
    asked = min((raw.asked_at for raw in kept if raw.asked_at is not None), default=None)
    since = f" (the first since {asked:%Y-%m-%d %H:%M})" if asked else ""
    yield (
        f"{source}: {counted(sum(raw.kept for raw in kept), 'row')} kept that the source no longer gives, in "
        f"{counted(len(kept), 'window')}{since}; `ionbeam reingest {source} {whole.as_options} --replace` lets them go"
    )


def _fewer(platform: Platform, source: str, raws: Sequence[RawPartition]) -> Iterator[str]:
    """A line about windows of which an earlier ingestion, which could not be brought into what there is now, has more
    rows than that. How many of its points are given again is not known."""
    rows = {claim.id: claim.rows for claim in platform.ledger.claims_of([one for raw in raws for one in raw.beside])}
    lacking = {raw: max(rows.get(one, 0) for one in raw.beside) - raw.rows for raw in raws}
    fewer = [raw for raw, lacks in lacking.items() if lacks > 0]
    if fewer:
        yield (
            f"{source}: {counted(sum(lacking[raw] for raw in fewer), 'row')} fewer than were collected before, in "
            f"{counted(len(fewer), 'window')} whose columns were others then, or whose raw partition is no longer "
            "there; the earlier rows stay beside the new ones; "
            f"`ionbeam reingest {source} {_around(fewer).as_options} --replace` lets them go"
        )


def _around(raws: Sequence[RawPartition]) -> Window:
    return Window(min(raw.window.start for raw in raws), max(raw.window.end for raw in raws))


def gone(platform: Platform, source: str) -> list[str]:
    """A line about the inputs of a source that were there before."""
    return [] if platform.source(source).sent else [f"{source}: {line}" for line in platform.sources[source].gone()]
