"""`ionbeam history` and `ionbeam prune`: what Dagster remembers of the platform."""

from __future__ import annotations

import typer

from ionbeam_dagster.cli.terminal import console, dagster_instance, load_config

app = typer.Typer(help="Dagster's history of the platform: runs, events, what is there.", no_args_is_help=True)


@app.command()
def rebuild() -> None:
    """Tell Dagster of every window that is there and that it does not know: after DAGSTER_HOME, or its PostgreSQL, was
    lost, so that its pages show as missing only what is.

    What is there is what the ledger knows: raw partitions, observations, datasets, exports. Runs and logs do not come
    back, and nothing is made again. What Dagster knows is left alone; doing it twice tells nothing twice.

    Example: `ionbeam history rebuild`
    """
    from rich.progress import Progress

    from ionbeam_dagster.orchestration.history import rebuild as rebuild_history
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    with dagster_instance(platform.config) as instance, Progress(console=console, transient=True) as bars:
        task = bars.add_task("windows told to Dagster", total=None)
        told = rebuild_history(platform, instance, lambda asset: bars.advance(task))
    for asset, count in sorted(told.items()):
        console.print(f"{asset}: {count} windows", highlight=False, markup=False)
    console.print(f"{told.total()} windows were told to Dagster" if told else "Dagster knows all that is there")


def prune() -> None:
    """Remove what is old of Dagster's history: runs with their logs, ticks, evaluations of automation.

    How long each is kept is said by `history:` in the YAML (30, 3 and 2 days by default). What pages of assets show of
    their windows stays, and so do all data: those go with `ionbeam purge`. The Dagster asset `history` does the same
    every hour. A file of SQLite keeps its size; what was freed is used again.

    Example: `ionbeam prune`
    """
    from ionbeam_dagster.orchestration.history import prune as prune_history
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    with dagster_instance(platform.config) as instance:
        pruned = prune_history(instance, platform.config.sections.history, platform.now())
    console.print(f"{pruned} were removed", highlight=False)
