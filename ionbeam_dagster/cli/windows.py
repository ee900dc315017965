"""Commands about windows: what state they are in, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ionbeam_client.models import format_duration
from ionbeam_dagster.cli.terminal import (
    DATASETS,
    FROM,
    TO,
    console,
    load_config,
    moment,
    number,
    refused_as_message,
)
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.windows import Window, windows_between

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline import Platform


def status(
    datasets: Annotated[list[str] | None, DATASETS] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
    last: Annotated[int, typer.Option(help="How many of the newest windows to show when no range is given.")] = 24,
) -> None:
    """Show a table of dataset windows: their state and why, rows, stations, coverage, revision, exports."""
    from ionbeam_dagster.pipeline import PipelineError, Platform
    from ionbeam_dagster.stores import StoreError

    platform = Platform(load_config())
    with refused_as_message(PipelineError, StoreError):
        for name in datasets or platform.config.datasets:
            dataset = platform.dataset(name)
            known = _known_windows(platform, dataset, moment(start, "--from"), moment(end, "--to"))
            if not known:
                first = platform.source(dataset.sources[0])
                begin = "its client" if first.kind == "external" else f"`ionbeam run {first.name}`"
                console.print(f"{name}: nothing was collected yet; begin with {begin}")
                continue
            shown = known if start or end else known[-last:]
            console.print(_status_table(platform, dataset, shown))
    if platform.config.sections.broker is not None:
        from ionbeam_dagster.bus.status import bus_status

        for line in bus_status(platform.bridge.inbox, platform.ledger).lines():
            console.print(f"bus: {line}", highlight=False, markup=False)


def _known_windows(
    platform: Platform, dataset: DatasetSettings, start: datetime | None, end: datetime | None
) -> list[Window]:
    """Every window from the first to the last of which anything is known, within [start, end)."""
    latest = end or datetime.now(UTC)
    built = [b.revision.window for b in platform.ledger.revisions(dataset.name, start or dataset.start, latest)]
    due = [w for w in platform.ledger.due(dataset.name) if (start or w.start) <= w.start < latest]
    if not built + due:
        return []
    first, last = min(built + due), max(built + due)
    return list(windows_between(start or first.start, end or last.end, dataset.span))


def _status_table(platform: Platform, dataset: DatasetSettings, windows: list[Window]) -> Table:
    from ionbeam_dagster.pipeline import assess, describe, export_is_current

    table = Table(title=f"{dataset.name}, windows of {format_duration(dataset.span)}", title_justify="left")
    for column, justify in (
        ("window", "left"), ("state", "left"), ("rows", "right"), ("stations", "right"), ("coverage", "right"),
        ("revision", "right"), ("exports", "left"), ("why", "left"),
    ):  # fmt: skip
        table.add_column(column, justify=justify, no_wrap=column != "why")  # type: ignore[arg-type]
    now = datetime.now(UTC)
    for window in windows:
        state, reason = describe(assess(platform, dataset.name, window, now))
        latest = platform.ledger.latest_revision(dataset.name, window)
        exports = [f for f in dataset.exports if export_is_current(platform, dataset.name, f, window)]
        facts = latest.facts if latest else {}
        table.add_row(
            str(window), state, number(facts.get("rows")), number(facts.get("stations")),
            f"{facts['coverage']:.0%}" if facts else "", str(latest.revision.number) if latest else "",
            ", ".join(exports), reason,
        )  # fmt: skip
    return table
