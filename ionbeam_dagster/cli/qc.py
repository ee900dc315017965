"""`ionbeam qc`: what quality control made of the observations, and why."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ionbeam_dagster.cli.terminal import console, fail, load_config, moment
from ionbeam_dagster.domain.quality import TELLS_NOTHING_OF_THE_VALUE, Test
from ionbeam_dagster.domain.windows import window_of

app = typer.Typer(help="Quality control: what is tested, and why a value has its flag.", no_args_is_help=True)


@app.callback()
def qc() -> None:
    """Quality control."""


@app.command()
def tests(
    dataset: Annotated[str | None, typer.Argument(help="The dataset; without it all.")] = None,
) -> None:
    """Say what is tested of each variable of a dataset's latest window, and what is not, and why.

    Example: `ionbeam qc tests netatmo`
    """
    import pyarrow.parquet as pq

    from ionbeam_dagster.domain.canonical import EARLIEST, LATEST
    from ionbeam_dagster.domain.quality.coverage import not_tested, tested
    from ionbeam_dagster.domain.quality.plan import COMPARABLE, Plan
    from ionbeam_dagster.pipeline.damage import readable
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    for settings in [platform.dataset(dataset)] if dataset else map(platform.dataset, platform.config.datasets):
        revisions = platform.ledger.revisions(settings.name, EARLIEST, LATEST)
        if not revisions:
            console.print(f"{settings.name}: no window was built yet; `ionbeam config check` tells what can be told")
            continue
        with readable(platform, revisions[-1]) as file:
            schema = pq.read_schema(file)
        plan, lacking = Plan.of(schema, settings.limits), dict(not_tested(schema, settings.limits))
        table = Table("variable", "tested", "not tested, and why", title=settings.name)
        for name in dict.fromkeys([*plan.tested, *lacking]):
            done = ", ".join(tested(plan.tested[name])) if name in plan.tested else ""
            table.add_row(name, done, lacking.get(name, ""))
        console.print(table)
    console.print(COMPARABLE, highlight=False)


@app.command()
def explain(
    station: Annotated[str, typer.Argument(help="The station, as `station_id` names it in the dataset.")],
    time: Annotated[str, typer.Argument(help="When, ISO 8601; the station's report nearest to it is told.")],
    dataset: Annotated[str | None, typer.Option(help="The dataset, where there are several.")] = None,
) -> None:
    """Say of each value of a report which tests were applied to it, with the numbers that decided.

    Example: `ionbeam qc explain SYNTH_0042 2026-06-21T06:35Z`
    """
    from ionbeam_dagster.pipeline.damage import readable
    from ionbeam_dagster.pipeline.explained import explained
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    at = moment(time, "TIME")
    assert at is not None
    names = [dataset] if dataset else list(platform.config.datasets)
    if len(names) != 1:
        fail(f"there are several datasets; say which with --dataset: {', '.join(names)}")
    settings = platform.dataset(names[0])
    window = window_of(at, settings.span)
    latest = platform.ledger.latest_revision(settings.name, window)
    if latest is None:
        fail(f"{settings.name} {window} was not built; see `ionbeam status {settings.name}`")
    with readable(platform, latest) as file:
        found = explained(file, station, at, settings.limits)
    console.print(f"[bold]{station}[/bold] at {found.time:%Y-%m-%d %H:%M:%S} UTC, {found.place}", highlight=False)
    table = Table("variable", "value", "flag", "test", "", "why")
    for name, value, flag in found.values:
        reasons = [(reason, failed) for reason, failed in found.reasons if reason.column == name]
        first = (name, "none" if value is None else f"{value:.6g}", flag.name.lower().replace("_", " "))
        for place, (reason, failed) in enumerate(reasons or [(None, False)]):
            verdict = "" if reason is None else _verdict(reason.test, failed)
            words = (str(reason.test.name).lower().replace("_", " "), verdict, reason.words) if reason else ("", "", "")
            table.add_row(*(first if place == 0 else ("", "", "")), *words)
        table.add_section()
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", style="dim", highlight=False)


def _verdict(test: Test, failed: bool) -> str:
    if test == TELLS_NOTHING_OF_THE_VALUE:
        return "alone" if failed else "in company"
    return "[red]failed[/red]" if failed else "passed"
