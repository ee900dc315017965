"""What is kept although its source no longer gives it: the lines in which commands tell of it.

Belongs here: rows that a source gave before, and inputs that are gone. Does not belong here: what was set aside
(quarantine.py), or that it is kept (pipeline/keeping.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ionbeam_dagster.cli.terminal import counted
from ionbeam_dagster.domain.windows import FOREVER, Window

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline.platform import Platform


def no_longer_given(platform: Platform, source: str, range: Window | None = None) -> Iterator[str]:
    """A line about the rows of a source, of a range alone where one is given, that are kept and that it no longer
    gives: how many, since when, and how they go."""
    settings = platform.source(source)
    if settings.sent:
        return
    raws = platform.ledger.raws(source, FOREVER if range is None else range.end + settings.window_size)
    kept = [raw for raw in raws if raw.kept and (range is None or raw.window.overlaps(range))]
    if not kept:
        return
    whole = Window(min(raw.window.start for raw in kept), max(raw.window.end for raw in kept))
    asked = min((raw.asked_at for raw in kept if raw.asked_at is not None), default=None)
    since = f" (the first since {asked:%Y-%m-%d %H:%M})" if asked else ""
    yield (
        f"{source}: {counted(sum(raw.kept for raw in kept), 'row')} kept that the source no longer gives, in "
        f"{counted(len(kept), 'window')}{since}; `ionbeam reingest {source} {whole.as_options} --replace` lets them go"
    )


def gone(platform: Platform, source: str) -> list[str]:
    """A line about the inputs of a source that were there before."""
    return [] if platform.source(source).sent else [f"{source}: {line}" for line in platform.sources[source].gone()]
