"""Raw partitions that are read again: the file of a claim, opened, and held to be what was written.

Belongs here: what is said of one that is gone or damaged, whoever meets it. Does not belong here: what its rows become
(ingest.py), or looking for damage that no step met (contents.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.records import Claim, RawPartition
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline import damage
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.leases import is_held
from ionbeam_dagster.stores.raw import RawFile


def raw_of(platform: Platform, source: SourceSettings, claim: Claim) -> RawPartition | None:
    """The raw partition that a claim of a source was made of, if it is still the one of its window."""
    window = window_of(claim.collected.start, source.window_size)
    if source.sent:
        candidates = platform.ledger.sent(source.name, window)
    else:
        known = platform.ledger.raw(source.name, window)
        candidates = [known] if known else []
    return next((raw for raw in candidates if raw.ingestion == claim.id), None)


def opened(platform: Platform, source: SourceSettings, raw: RawPartition) -> RawFile:
    """What a raw partition tells of itself; raises PipelineError where it is gone, purged or damaged."""
    try:
        return platform.raws(source).open(raw.path)
    except (OSError, pa.ArrowInvalid) as error:
        if damage.is_damaged(platform, raw.path, raw.hash):
            raise PipelineError(
                _damaged(platform, source, raw, f"the raw partition cannot be read ({error})")
            ) from error
        again = {
            "pull": f"materialise {source.name}/raw for {raw.window.key} first",
            "external": f"materialise {source.name}/request for {raw.window.key} first",
            "door": "let who sent it send it again",
        }[source.kind]
        if raw.purged is not None:
            why = f"was purged by retention on {raw.purged:%Y-%m-%d %H:%M}"
        else:
            why = f"cannot be read ({error})"
        raise PipelineError(f"{raw.path}: the raw partition {why}; {again}") from error


@contextmanager
def whole(platform: Platform, source: SourceSettings, raw: RawPartition) -> Iterator[RawFile]:
    """The file of a raw partition, which holds what was written, byte by byte, as long as the block lasts.

    Raises PipelineError where it does not: one that can be collected again is out of its place then, so that it is.
    """
    with damage.checked(platform, raw.path, raw.hash, lambda fault: _damaged(platform, source, raw, fault)) as local:
        yield replace(platform.raws(source).open(raw.path), path=str(local))


def _damaged(platform: Platform, source: SourceSettings, raw: RawPartition, fault: str) -> str:
    """What is to be said of a raw partition that is damaged; one that can be collected again is out of its place."""
    if source.sent:
        return damage.not_ours(source, raw, fault)
    # Asked for first: whoever collected until then has noted what was written, which `known` is.
    at_work = is_held(platform.ledger.leases.held(), "collect", source.name, raw.window)
    known = platform.ledger.raw(source.name, raw.window)
    is_other = known is not None and known.ingestion != raw.ingestion
    if at_work or is_other or damage.is_newer(platform, raw):
        return f"{source.name} {raw.window}: it is collected again at this moment; materialise it once that is done"
    return damage.set_aside(platform, raw.path, fault, f"materialise {source.name}/raw for {raw.window.key} first")
