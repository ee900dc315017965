"""Commands that do something to windows: build them again, collect them again, seal them, remove what is not needed.

Belongs here: commands that take a range of time. Does not belong here: what they do (orchestration/runs.py), which is
what the UI does, too; or what is known of windows (status.py, gaps.py).
"""

from __future__ import annotations

from time import perf_counter
from typing import Annotated

import typer
from rich.table import Table

from ionbeam_dagster.cli.holes import all_out_of_time
from ionbeam_dagster.cli.run import Watch, report
from ionbeam_dagster.cli.status import status_table
from ionbeam_dagster.cli.terminal import (
    FROM,
    TO,
    asked_range,
    console,
    dagster_instance,
    fail,
    load_config,
    number,
    size,
)
from ionbeam_dagster.domain.windows import Window

ONE_DATASET = typer.Argument(help="A dataset, by its name.", show_default=False)
ONE_SOURCE = typer.Argument(help="A source, by its name in the configuration.", show_default=False)


def rebuild(
    dataset: Annotated[str, ONE_DATASET],
    start: Annotated[str, FROM],
    end: Annotated[str, TO],
    force: Annotated[bool, typer.Option(help="Also what is unchanged or sealed gets a new revision.")] = False,
    outdated: Annotated[
        bool,
        typer.Option(help="Only what an older exporter, quality plan or mapping made."),
    ] = False,
) -> None:
    """Build windows of a dataset from what was ingested, even with gaps, and export them.

    As in the UI: what holds everything that arrived, or is sealed, is left as it is.

    A window of which the range holds a part is taken whole.

    Example: `ionbeam rebuild ioncannon --from 2026-06-21T06:00Z --to 2026-06-21T12:00Z --force`
    """
    from ionbeam_dagster.orchestration.runs import rebuild_outdated, rebuild_range
    from ionbeam_dagster.pipeline.recovery import open_platform

    if force and outdated:
        fail("--force and --outdated are two ways: everything again, or what is outdated")
    platform, wanted, begun = open_platform(load_config()), _range_of(start, end), perf_counter()
    settings = platform.dataset(dataset)
    with dagster_instance(platform.config) as instance, Watch(platform) as watch:
        given = (platform, dataset, wanted.start, wanted.end, instance, watch.done, watch.planned)
        done = rebuild_outdated(*given) if outdated else rebuild_range(*given, force)
    if not done and outdated:
        console.print(f"{dataset}: nothing in this range is outdated", highlight=False)
        return
    if not done:
        if outside := all_out_of_time(platform, settings.sources, wanted.start, wanted.end):
            fail("\n".join(outside))
        if settings.policy.only_at_door:
            fail(
                f"nothing of {dataset} was heard at the door in this range; let its clients write what they still have"
            )
        fail(f"nothing of {dataset} was collected in this range; begin with `ionbeam reingest {settings.sources[0]}`")
    report(platform, {settings.sources[0]: wanted}, done, watch, perf_counter() - begun)


def reingest(
    source: Annotated[str, ONE_SOURCE],
    start: Annotated[str, FROM],
    end: Annotated[str, TO],
    use_cache: Annotated[bool, typer.Option(help="Let the source use what it downloaded before.")] = False,
    replace: Annotated[
        bool, typer.Option(help="What the source gives takes the place of what it gave before, also what it lacks.")
    ] = False,
) -> None:
    """Fetch windows of a source again, and build and export what came out differently.

    What it gave before and no longer gives stays and is counted; with --replace it goes.

    A window of which the range holds a part is taken whole.

    The client of an external source is asked for the range: what it sends is built when it arrives.

    Example: `ionbeam reingest netatmo --from 2026-06-21T06:00Z --to 2026-06-21T12:00Z`
    """
    from ionbeam_dagster.orchestration.runs import reingest_range
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform, wanted, begun = open_platform(load_config()), _range_of(start, end), perf_counter()
    external = platform.source(source).kind == "external"
    with dagster_instance(platform.config) as instance, Watch(platform) as watch:
        done = reingest_range(
            platform, source, wanted.start, wanted.end, instance, watch.done, watch.planned, use_cache, replace
        )  # fmt: skip
    if not external:
        report(platform, {source: wanted}, done, watch, perf_counter() - begun)
        return
    failed = [result for result in done if result.failure]
    console.print(
        f"{source}: its client was asked for {len(done) - len(failed)} windows; what it sends is built as it arrives "
        f"(`ionbeam gaps {source}`, `ionbeam status`)",
        highlight=False,
    )
    if failed:
        fail(f"{source}: {len(failed)} windows could not be asked for: {failed[0].failure}")


def seal(dataset: Annotated[str, ONE_DATASET], start: Annotated[str, FROM], end: Annotated[str, TO]) -> None:
    """Close the built windows of a range for good: what arrives later is kept and counted, not built.

    A window of which the range holds a part is taken whole.

    Example: `ionbeam seal ioncannon --from 2026-06-01 --to 2026-07-01`
    """
    _seal(dataset, _range_of(start, end), unseal=False)


def unseal(dataset: Annotated[str, ONE_DATASET], start: Annotated[str, FROM], end: Annotated[str, TO]) -> None:
    """Open windows again that `seal` closed: what arrived meanwhile is built.

    A window of which the range holds a part is taken whole.

    Windows that the dataset's `revise_for` closed are built with `rebuild --force`.
    """
    _seal(dataset, _range_of(start, end), unseal=True)


def purge(
    dry_run: Annotated[bool, typer.Option(help="Tell what would go, and how many bytes; remove nothing.")] = False,
) -> None:
    """Remove what the configuration allows to go: raw partitions, old revisions, observations, quarantine.

    What may go is said by `retention:` and `dataset_aggregator.delete_after_export` in the YAML; what a rebuild of an
    open window needs never does. Many small segments of an hour whose windows are built become one file; no row of
    them goes. The Dagster asset `retention` does the same on its schedule.

    Example: `ionbeam purge --dry-run`
    """
    from ionbeam_dagster.doors.amqp.leftovers import bus_leftovers
    from ionbeam_dagster.doors.http.leftovers import door_leftovers
    from ionbeam_dagster.orchestration.runs import purge_now
    from ionbeam_dagster.pipeline.recovery import open_platform
    from ionbeam_dagster.pipeline.retention import KINDS
    from ionbeam_dagster.pipeline.retention import purge as purge_platform

    platform = open_platform(load_config())
    purged = purge_platform(platform, platform.now(), dry_run=True, also=[bus_leftovers, door_leftovers])
    if not dry_run and purged.gone:
        with dagster_instance(platform.config) as instance:
            purge_now(platform, instance)
    table = Table("kind", "number", "size", "why", title="would go" if dry_run else "purged", title_justify="left")
    for kind in KINDS:
        if found := purged.of_kind(kind):
            whose = ", ".join(sorted({one.of for one in found}))
            table.add_row(f"{kind} of {whose}", number(len(found)), size(sum(o.bytes for o in found)), found[0].why)
    if purged.gone:
        console.print(table)
    else:
        console.print("Nothing may go: all of it is needed, or the YAML has no `retention:` for it.")


def _seal(dataset: str, wanted: Window, unseal: bool) -> None:
    from ionbeam_dagster.orchestration.runs import seal_windows
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    with dagster_instance(platform.config) as instance:
        changed = seal_windows(platform, dataset, wanted.start, wanted.end, instance, unseal)
    what = "opened again" if unseal else "sealed"
    others = "the others were not sealed" if unseal else "the others were so before, or were never built"
    console.print(f"{dataset}: {len(changed)} window{'s' * (len(changed) != 1)} {what}; {others}", highlight=False)
    if changed:
        settings = platform.dataset(dataset)
        console.print(status_table(platform, settings, changed))


def _range_of(start: str, end: str) -> Window:
    first, last = asked_range(start, end)
    assert first is not None and last is not None
    return Window(first, last)
