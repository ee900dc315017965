"""Asking the clients of an external source for windows.

Belongs here: ``<source>/request``, whose materialisation asks for a window, and when that is done by itself. Does not
belong here: what comes of it, which is reported as ``<source>/raw`` when it arrives.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.windows import Window, gaps
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration import metadata
from ionbeam_dagster.orchestration.assets import Done, Events, range_runs, window_by_window
from ionbeam_dagster.orchestration.automation import Condition, Ionbeam, in_progress
from ionbeam_dagster.orchestration.due import Due
from ionbeam_dagster.orchestration.partitions import windows_of
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import Work
from ionbeam_dagster.stores.ledger.requests import ClientRequest

_SHOWN = 20
ASKED_AGAIN_AFTER = timedelta(minutes=10)
"""A client that was asked for a window is given so long to send it."""


def request_key(source: str) -> dg.AssetKey:
    return dg.AssetKey([source, "request"])


def request_asset(
    ionbeam: Ionbeam, source: SourceSettings, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.AssetsDefinition:
    """``<name>/request``: by the clock where the scheduler has windows for the source, else when a person wants it."""
    scheduled = source.name in {window.source_name for window in ionbeam.platform.config.sections.scheduler.windows}

    @dg.asset(
        key=request_key(source.name),
        partitions_def=partitions,
        backfill_policy=range_runs(source.window_size),
        automation_condition=asks(ionbeam, source) if scheduled else None,
        group_name=source.name,
        owners=metadata.OWNERS,
        kinds={"python", "rabbitmq"},
        tags={"ionbeam/source": source.name, "ionbeam/stage": "request"},
        description=(
            f"Asks the client that sends {source.name} for a window, by a StartSourceCommand.\n\n"
            "A backfill of it is a re-ingest. A window that was asked for and did not come is asked for once more; "
            "`ionbeam status` shows those that are missing."
        ),
    )
    def request(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> Events:
        from ionbeam_dagster.doors.amqp.bridge import bridge_of

        now = datetime.now(UTC)
        begun = [window for window in windows_of(context.partition_keys, source.window_size) if window.start < now]
        parts = {window: Window(window.start, min(window.end, now)) for window in begun}
        asked = bridge_of(ionbeam.platform).ask(source.name, parts.values())
        missing = _missing(ionbeam.platform.ledger.requests.unanswered(_SHOWN, source.name))

        def work(window: Window) -> Done:
            if window not in parts:
                raise PipelineError(f"{source.name} {window}: has not begun yet")
            passed, times = parts[window], asked[parts[window]]
            told = {
                "asked from": dg.MetadataValue.timestamp(passed.start),
                "asked to": dg.MetadataValue.timestamp(passed.end),
                "times without an answer": times,
                "not answered in all": missing,
            }
            return Done(told)

        yield from window_by_window(context, ionbeam, source.window_size, work)

    return request


def _missing(unanswered: Sequence[ClientRequest]) -> dg.MarkdownMetadataValue:
    """The windows that a source's client was asked for and has not sent, as a table."""
    rows = [(str(one.window), one.times, f"{one.last:%Y-%m-%d %H:%M}") for one in unanswered]
    return dg.MetadataValue.md(metadata.table(["window", "times asked", "last"], rows) if rows else "none")


def asks(ionbeam: Ionbeam, source: SourceSettings) -> Condition:
    """A window is asked for at each of its triggers, and once more when nothing came."""
    return (~in_progress() & ToRequest(ionbeam, source)).with_label("request")


class ToRequest(Due):
    """The source's client is to be asked for the window: a trigger moment has passed, and the window is not there.

    What was asked for, and not answered, is asked for again after a while.
    """

    done_by_worker = False

    def __init__(self, ionbeam: Ionbeam, source: SourceSettings) -> None:
        super().__init__(ionbeam, "collect", source.name, "A trigger has passed, and nothing was sent since")
        self._source = source

    @property
    def name(self) -> str:
        return "to_request"

    def work(self, now: datetime) -> list[Work]:
        found = agenda.windows_in_lookback(self._ionbeam.platform, self._source, now)
        wanted = [
            Work("collect", self._source.name, window, str(agenda.Triggered(triggered)), "its client has not sent it")
            for window, triggered in found
            if self._is_wanted(window, triggered, now)
        ]
        return agenda.ready(self._ionbeam.platform, "collect", self._source.name, wanted, now)

    def _is_wanted(self, window: Window, triggered: datetime, now: datetime) -> bool:
        ledger = self._ionbeam.platform.ledger
        if not gaps(window, (raw.window for raw in ledger.sent(self._source.name, window))):
            return False
        asked = ledger.requests.last(self._source.name, window)
        if asked is None or asked.last < triggered:
            return True
        return asked.answered is None and not timedelta(0) <= now - asked.last < ASKED_AGAIN_AFTER
