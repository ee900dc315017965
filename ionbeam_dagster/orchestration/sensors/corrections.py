"""The sensor that confirms corrections of a source's past, once everything that was made of it is published anew.

Belongs here: when it looks, what it says, and how corrections look on the page of the source's asset. Does not belong
here: when a correction is published (pipeline/corrections.py), or the work, which automation does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.orchestration.internals import ResultOfAll
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline import corrections
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.sources.deadline import within

ANSWERED_WITHIN = timedelta(seconds=40)
"""A tick takes no longer; Dagster gives it up after 60 s, and what it asked would go on."""
CHECK = "corrections"
_SHOWN = 50
_COLUMNS = ("correction", "what", "range (UTC)", "first seen", "state")


def confirmations_sensor(ionbeam: PlatformResource | WatchedPlatform, source: SourceSettings) -> dg.SensorDefinition:
    """``<source>__confirmations``. It remembers nothing but what it showed last; the ledger has the rest."""
    settings = ionbeam.platform.config.automation

    @dg.sensor(
        name=f"{source.name}__confirmations",
        minimum_interval_seconds=settings.interval,
        default_status=dg.DefaultSensorStatus.RUNNING if settings.enabled else dg.DefaultSensorStatus.STOPPED,
        description=f"Has what {source.name} corrected of its past collected, and confirms it once it is published.",
    )
    def confirmations(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        platform = ionbeam.platform
        now = platform.now()
        try:
            with within(ANSWERED_WITHIN):
                found = corrections.look(platform, source, now)
        except SourceError as error:
            context.log.error(str(error))
            return dg.SensorResult(skip_reason=dg.SkipReason(str(error)), cursor=context.cursor)
        for line in found.problems:
            context.log.warning(line)
        page = _page(platform, source, found.lacking)
        mark = sha256(str(page).encode()).hexdigest()
        told = f"{len(found.confirmed)} confirmed, {page.open} open; {found.noted} windows to be collected"
        news = [] if mark == context.cursor else [_evaluation(source.name, page)]
        return dg.SensorResult(skip_reason=dg.SkipReason(told), cursor=mark, asset_events=news)

    return confirmations


def corrections_check(source: SourceSettings) -> dg.AssetChecksDefinition:
    """``corrections`` of ``<source>/raw``, which the sensor evaluates whenever there is news, and a person at will."""

    @dg.asset_check(
        asset=dg.AssetKey([source.name, "raw"]),
        name=CHECK,
        description="What the source corrected of its past is collected anew, published, and confirmed to it.",
    )
    def check(ionbeam: PlatformResource) -> dg.AssetCheckResult:
        platform = ionbeam.platform
        known = platform.ledger.corrections.open(source.name)
        lacking = {one.number: corrections.standing(platform, source, one, platform.now()) for one in known}
        page = _page(platform, source, lacking)
        return ResultOfAll(
            passed=not page.held,
            severity=dg.AssetCheckSeverity.WARN,
            description=page.description,
            metadata=page.metadata,
        )

    return check


@dataclass(frozen=True, slots=True)
class _Page:
    """What the check shows: rows of a table, and those corrections that wait for a person."""

    open: int
    rows: tuple[tuple[str, ...], ...]
    held: tuple[str, ...]

    @property
    def description(self) -> str:
        return "; ".join(self.held) or "No correction waits for a person"

    @property
    def metadata(self) -> dict[str, dg.MetadataValue[Any]]:
        records = [dg.TableRecord(dict(zip(_COLUMNS, row, strict=True))) for row in self.rows]
        schema = dg.TableSchema([dg.TableColumn(column) for column in _COLUMNS])
        return {
            "open": dg.MetadataValue.int(self.open),
            "held": dg.MetadataValue.int(len(self.held)),
            "corrections": dg.MetadataValue.table(records, schema=schema),
        }


def _page(platform: Platform, source: SourceSettings, lacking: Mapping[int, Counter[str]]) -> _Page:
    """Those that are open, and the latest that were closed."""
    rows, held = [], []
    memory = platform.ledger.corrections
    still = memory.open(source.name)
    for known in [*still, *memory.closed(source.name)][:_SHOWN]:
        state = corrections.state_of(platform, source, known, lacking.get(known.number, Counter()))
        one = known.correction
        rows.append((one.id, one.what, corrections.range_of(one.range), f"{known.seen:%Y-%m-%d %H:%M}", state))
        if state.startswith(corrections.HELD):
            held.append(f"{one.id} is {state}")
    return _Page(len(still), tuple(rows), tuple(held))


def _evaluation(source: str, page: _Page) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey([source, "raw"]),
        check_name=CHECK,
        passed=not page.held,
        severity=dg.AssetCheckSeverity.WARN,
        description=page.description,
        metadata=page.metadata,
    )
