"""Commands about windows: what state they are in and why, what is missing, and how they are put right.

Belongs here: commands that take a range of time, and how they show it. Does not belong here: what they do
(orchestration/runs.py), which is what the UI does, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ionbeam_client.models import format_duration
from ionbeam_dagster.cli.export import not_exported
from ionbeam_dagster.cli.quarantine import clock_lines, lines_about, merged, set_aside
from ionbeam_dagster.cli.run import Watch, report
from ionbeam_dagster.cli.terminal import (
    DATASETS,
    FROM,
    TO,
    console,
    dagster_instance,
    fail,
    load_config,
    moment,
    number,
    size,
)
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.cycles import analysis_of, cycle_of
from ionbeam_dagster.domain.decisions import Sealed, coverage
from ionbeam_dagster.domain.windows import EPOCH, Window, merge, window_of, windows_between
from ionbeam_dagster.domain.windows import gaps as gaps_of

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline.platform import Platform
    from ionbeam_dagster.stores.ledger.attempts import Attempt

ONE_DATASET = typer.Argument(help="A dataset, by its name.", show_default=False)
ONE_SOURCE = typer.Argument(help="A source, by its name in the configuration.", show_default=False)
SOURCES_OR_DATASETS = typer.Argument(help="Sources, or datasets (their sources are shown); all when none is named.")

_LISTED = 20
"""Gaps that are listed one by one; the strip shows all of them."""


def status(
    datasets: Annotated[list[str] | None, DATASETS] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
    last: Annotated[int, typer.Option(help="How many of the newest windows to show when no range is given.")] = 24,
    check_files: Annotated[bool, typer.Option(help="First compare all files with the ledger, as `dev` does.")] = False,
) -> None:
    """Show a table of dataset windows: their state and why, rows, stations, coverage, revision, exports.

    A stretch of many windows of which nothing is known is one line. Below it stands what fails for long, what an older
    version made, and what of the configuration does not fit what is there.
    """
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    if check_files:
        _check_files(platform)
    for name in datasets or platform.config.datasets:
        dataset = platform.dataset(name)
        known = _known_windows(platform, dataset, moment(start, "--from"), moment(end, "--to"))
        if not known:
            first = platform.source(dataset.sources[0])
            begin = "its client" if first.sent else f"`ionbeam run {first.name}`"
            console.print(f"{name}: nothing was collected yet; begin with {begin}")
            continue
        shown = known if start or end else known[-last:]
        console.print(_status_table(platform, dataset, shown))
        for line in merged(name, platform.ledger.revisions(name, shown[0].start, shown[-1].end)):
            console.print(line, style="yellow", highlight=False, markup=False)
        for source in dataset.sources:
            windows = [one for one in shown if one.span == dataset.span]
            for line in [*lines_about(platform, source, windows), *clock_lines(platform, source)]:
                console.print(line, style="yellow", highlight=False, markup=False)
        for line in not_exported(platform, dataset, [one for one in shown if one.span == dataset.span]):
            console.print(line, highlight=False, markup=False)
        for format in dataset.cycle_exports:
            console.print(_cycles_table(platform, dataset, format, shown))
        if late := _late_before(platform, dataset, shown[0].start):
            many = f"{len(late)} sealed windows have" if len(late) > 1 else "1 sealed window has"
            oldest = f"{late[0].start:%Y-%m-%d %H:%M}"
            see = f"`ionbeam status {name} --from {late[0].start:%Y-%m-%dT%H:%MZ}`"
            told = f"{name}: {many} late data, before those shown; the oldest is {oldest}; see {see}"
            console.print(told, highlight=False)
        _print_outdated(platform, dataset)
    _print_what_fails(platform)
    if recovered := platform.ledger.recovered():
        console.print(
            f"ledger: made again on {recovered[0]:%Y-%m-%d %H:%M}: {recovered[1]}", highlight=False, markup=False
        )
    if platform.config.sections.broker is not None:
        from ionbeam_dagster.doors.amqp.status import bus_status

        for line in bus_status(platform.ledger).lines():
            console.print(f"bus: {line}", highlight=False, markup=False)

    from ionbeam_dagster.doors.http import lacking

    if lacking() is None:
        from ionbeam_dagster.doors.http.status import door_status

        for line in door_status(platform, _sources_of(platform, datasets) if datasets else None):
            console.print(f"door: {line}", highlight=False, markup=False)


def gaps(
    names: Annotated[list[str] | None, SOURCES_OR_DATASETS] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
) -> None:
    """Show what of a range was collected and what is missing: a strip of time, and each gap with how to fill it.

    Without --from and --to: from the first to the last moment of which anything was collected.

    Example: `ionbeam gaps netatmo --from 2026-06-01 --to 2026-07-01`
    """
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    asked = moment(start, "--from"), moment(end, "--to")
    for source in _sources_of(platform, names or list(platform.config.datasets)):
        _show_gaps(platform, source, *asked)


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

    Example: `ionbeam seal ioncannon --from 2026-06-01 --to 2026-07-01`
    """
    _seal(dataset, _range_of(start, end), unseal=False)


def unseal(dataset: Annotated[str, ONE_DATASET], start: Annotated[str, FROM], end: Annotated[str, TO]) -> None:
    """Open windows again that `seal` closed: what arrived meanwhile is built.

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
    console.print(f"{dataset}: {len(changed)} windows {what}; {others}", highlight=False)
    if changed:
        settings = platform.dataset(dataset)
        console.print(_status_table(platform, settings, changed))


def _range_of(start: str, end: str) -> Window:
    first, last = moment(start, "--from"), moment(end, "--to")
    assert first is not None and last is not None
    if last <= first:
        fail(f"--to {last:%Y-%m-%dT%H:%MZ} must be later than --from {first:%Y-%m-%dT%H:%MZ}")
    return Window(first, last)


# --- states -----------------------------------------------------------------------------------------------------------


def _check_files(platform: Platform) -> None:
    """Compare all files with the ledger; what is lost is made again by automation, or by `ionbeam run`."""
    from ionbeam_dagster.pipeline.reconciliation import reconcile

    found = reconcile(platform, platform.now())
    console.print(
        f"files: {len(found.work)} windows are to be made again, {len(found.for_a_person)} are for a person to look at",
        highlight=False,
    )
    for work in found.work[:_LISTED]:
        console.print(f"  {work.of} {work.window}: {work.reason}; to {work.stage}", highlight=False, markup=False)
    for told in found.for_a_person[:_LISTED]:
        console.print(f"  {told}", highlight=False, markup=False)


def _print_outdated(platform: Platform, dataset: DatasetSettings) -> None:
    """Which windows another exporter, quality plan or mapping made than today's, and how they are made again."""
    from ionbeam_dagster.pipeline.agenda import outdated

    found = outdated(platform, dataset, EPOCH, platform.now())
    if found:
        first, last = found[0].start, found[-1].end
        again = (
            f"`ionbeam rebuild {dataset.name} --outdated --from {first:%Y-%m-%dT%H:%MZ} --to {last:%Y-%m-%dT%H:%MZ}`"
        )
        many = f"{len(found)} windows were" if len(found) > 1 else "1 window was"
        told = f"{dataset.name}: {many} made by an older exporter, quality plan or mapping, or with other settings"
        console.print(f"{told}; {again} makes what is outdated again", highlight=False)


def _print_what_fails(platform: Platform) -> None:
    """What fails for long, what of the configuration does not fit, and when the files were last compared."""
    from ionbeam_dagster.pipeline.agenda import misfits, overdue, silent

    now = platform.now()
    for misfit in misfits(platform):
        console.print(misfit, style="red", highlight=False, markup=False)
    for source, silence in silent(platform).items():
        told = f"{source} does not answer since {silence.since:%Y-%m-%d %H:%M}: {silence.windows} windows in a row took"
        again = "longer than they may; it is asked for one window at a time until it does"
        console.print(f"{told} {again}", style="yellow", highlight=False, markup=False)
    _print_overdue(platform, overdue(platform, now))
    if reconciled := platform.ledger.reconciliations.last():
        ago = max((now - reconciled) // timedelta(seconds=1), 0)
        console.print(f"files: last compared with the ledger {ago} s ago", highlight=False)


def _print_overdue(platform: Platform, failing: Sequence[Attempt]) -> None:
    """What fails for long, the longest first."""
    from ionbeam_dagster.pipeline.agenda import in_words

    for one in failing[:_LISTED]:
        console.print(in_words(platform, one), style="yellow", highlight=False, markup=False, soft_wrap=True)
    if len(failing) > _LISTED:
        console.print(f"... and {len(failing) - _LISTED} more that fail for an hour or longer", style="yellow")


def _known_windows(
    platform: Platform, dataset: DatasetSettings, start: datetime | None, end: datetime | None
) -> list[Window]:
    """The windows of which anything is known, within [start, end), and what lies between them.

    Up to three windows between two are given one by one; more are one window of all their time.
    """
    span, latest = dataset.span, end or datetime.now(UTC)
    first = window_of(start, span).start if start else None
    built = [b.revision.window for b in platform.ledger.revisions(dataset.name, first or dataset.start, latest)]
    due = [w for w in platform.ledger.due(dataset.name) if (first or w.start) <= w.start < latest]
    known = sorted({*built, *due})
    if not known:
        return []
    shown: list[Window] = []
    reached = first or known[0].start
    for window in known:
        shown += _between(reached, window.start, span)
        shown.append(window)
        reached = window.end
    ended = window_of(min(latest, datetime.now(UTC)), span).start
    return [*shown, *_between(reached, ended, span)] if end else shown


def _late_before(platform: Platform, dataset: DatasetSettings, start: datetime) -> list[Window]:
    """The sealed windows that start before `start` and for which data arrived that they do not hold."""
    from ionbeam_dagster.pipeline.agenda import assess

    due = [window for window in platform.ledger.due(dataset.name) if window.start < start]
    if not due:
        return []
    built = {one.revision.window for one in platform.ledger.revisions(dataset.name, due[0].start, start)}
    decisions = {window: assess(platform, dataset, window, datetime.now(UTC)) for window in due if window in built}
    return [window for window, decision in decisions.items() if isinstance(decision, Sealed) and decision.late]


def _between(start: datetime, end: datetime, span: timedelta) -> Iterator[Window]:
    if end - start > 3 * span:
        yield Window(start, end)
    elif end > start:
        yield from windows_between(start, end, span)


def _status_table(platform: Platform, dataset: DatasetSettings, windows: Sequence[Window]) -> Table:
    from ionbeam_dagster.pipeline.agenda import assess, export_is_current
    from ionbeam_dagster.pipeline.build import describe
    from ionbeam_dagster.pipeline.export import is_of_another_exporter

    table = Table(title=f"{dataset.name}, windows of {format_duration(dataset.span)}", title_justify="left")
    numbers = ("rows", "stations", "coverage", "revision")
    for column in ("window", "state", *numbers, "exports", "why"):
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=column != "why")
    now = datetime.now(UTC)
    for window in windows:
        if window.span > dataset.span:
            many = f"{window.span // dataset.span:,} windows, until {window.end:%Y-%m-%d %H:%M}"
            table.add_row(f"{window.start:%Y-%m-%d %H:%M} ...", "missing", *[""] * 5, f"{many}: nothing was collected")
            continue
        state, reason = describe(assess(platform, dataset, window, now))
        if (sealed := platform.ledger.sealed(dataset.name, window)) and state == "built":
            state, reason = "sealed", f"{reason}; sealed by a person on {sealed:%Y-%m-%d %H:%M}"
        latest = platform.ledger.latest_revision(dataset.name, window)
        exports = [
            f"{format} (other version)" if is_of_another_exporter(platform, dataset.name, format, window) else format
            for format in dataset.exports
            if export_is_current(platform, dataset.name, format, window)
        ]
        facts = latest.facts if latest else None
        table.add_row(
            str(window), state, number(facts and facts.rows), number(facts and facts.stations),
            f"{facts.coverage:.0%}" if facts else "", str(latest.revision.number) if latest else "",
            ", ".join(exports), reason,
        )  # fmt: skip
    return table


def _cycles_table(platform: Platform, dataset: DatasetSettings, format: str, windows: Sequence[Window]) -> Table:
    """The analysis cycles in which `windows` lie."""
    from ionbeam_dagster.pipeline.cycles import outlook_of

    table = Table(title=f"{dataset.name}, analysis cycles ({format})", title_justify="left")
    for column in ("analysis", "state", "windows", "late", "rows", "revision", "why"):
        right = column in ("windows", "late", "rows", "revision")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "why")
    for cycle in sorted({cycle_of(window.start) for window in windows if window.span == dataset.span}):
        outlook = outlook_of(platform, dataset, platform.config.cycle_exporters[format], cycle, platform.now())
        made = platform.ledger.export(dataset.name, cycle, format)
        state = "ready" if outlook.due else "made" if made else "waiting"
        table.add_row(
            f"{analysis_of(cycle):%Y-%m-%d %H}", state,
            f"{len(outlook.holds)} of {len(outlook.holds) + len(outlook.lacking)}", str(len(outlook.late) or ""),
            number(made.facts.rows) if made else "", str(made.number) if made else "", outlook.reason,
        )  # fmt: skip
    return table


# --- gaps -------------------------------------------------------------------------------------------------------------


def _sources_of(platform: Platform, names: Sequence[str]) -> list[str]:
    """The sources that `names` mean: sources themselves, and those of datasets."""
    found: dict[str, None] = {}
    for name in names:
        if name in platform.config.sources:
            found[name] = None
        else:
            found |= dict.fromkeys(platform.dataset(name).sources)
    return list(found)


def _show_gaps(platform: Platform, source: str, start: datetime | None, end: datetime | None) -> None:
    from ionbeam_dagster.pipeline.agenda import from_the_future

    settings = platform.source(source)
    dataset = platform.dataset(settings.dataset)
    first = window_of(start, dataset.span).start if start else dataset.start
    now = datetime.now(UTC)  # what has not happened yet is no gap
    last = min(end or now, settings.end or now, now)
    claims = platform.ledger.claims_between(dataset.name, first, last)
    suspect = {claim.id for claim in from_the_future(platform, settings) if not settings.sent}
    collected = merge(claim.collected for claim in claims if claim.source == source and claim.id not in suspect)
    begun = max(start, settings.start) if start else (collected[0].start if collected else None)
    until = last if end else (collected[-1].end if collected else None)
    if begun is None or until is None or until <= begun:
        console.print(f"{source}: nothing was collected in this range; its start is {settings.start:%Y-%m-%d %H:%M}")
        for line in clock_lines(platform, source):
            console.print(line, style="yellow", highlight=False, markup=False)
        _print_what_fails_of(platform, source, start, last)
        return
    asked = Window(begun, until)
    missing = gaps_of(asked, collected)
    share = coverage(asked, missing)
    told = "no gap" if not missing else f"{len(missing)} gap{'s' * (len(missing) > 1)}"
    if aside := sum(one.rows for one in set_aside(platform, source, begun, until)):
        told += f", [yellow]{aside:,} row{'s' * (aside > 1)} left out[/yellow]"
    console.print(
        f"\n[bold]{source}[/bold] {begun:%Y-%m-%d %H:%M} .. {until:%Y-%m-%d %H:%M}: "
        f"{_percent(share)} collected, {told}",
        highlight=False,
    )
    console.print(_strip(asked, missing, max(10, min(console.width, 120) - 2)))
    for line in [*lines_about(platform, source, [asked]), *clock_lines(platform, source)]:
        console.print(line, style="yellow", highlight=False, markup=False)
    _print_what_fails_of(platform, source, start, last)
    if missing:
        fill = {"external": "ionbeam reingest", "door": "", "pull": "ionbeam run"}[settings.kind]
        console.print(_gaps_table(missing, dataset, fill, source))


def _print_what_fails_of(platform: Platform, source: str, start: datetime | None, end: datetime) -> None:
    """What of a source fails for long between `start` (None: whenever) and `end`."""
    from ionbeam_dagster.pipeline.agenda import overdue

    failing = [one for one in overdue(platform, platform.now()) if (one.stage, one.product) in _stages_of(source)]
    within = [one for one in failing if one.window.start < end and (start is None or one.window.end > start)]
    _print_overdue(platform, within)


def _stages_of(source: str) -> set[tuple[str, str]]:
    return {("collect", source), ("ingest", source)}


def _percent(share: float) -> str:
    """Rounded, but never to 100% or 0% where that is not so."""
    shown = f"{share:.1%}"
    if shown == "100.0%":
        return "100%" if share == 1 else ">99.9%"
    return shown if shown != "0.0%" or share == 0 else "<0.1%"


def _strip(asked: Window, missing: Sequence[Window], width: int) -> Text:
    """The range as a bar: solid where it was collected, lighter where partly, red dots where not at all."""
    strip = Text(" ")
    step = asked.span / width
    ends = [gap.end for gap in missing]
    for cell in range(width):
        slice = Window(asked.start + cell * step, asked.start + (cell + 1) * step)
        within = missing[bisect_right(ends, slice.start) : bisect_right(ends, slice.end) + 1]
        clipped = [
            Window(max(gap.start, slice.start), min(gap.end, slice.end)) for gap in within if gap.overlaps(slice)
        ]
        share = coverage(slice, clipped)
        character = "█" if share > 0.999 else "▓" if share > 0.6 else "▒" if share > 0.3 else "░" if share > 0 else "·"
        strip.append(character, style="green" if share > 0.999 else "yellow" if share > 0 else "red")
    return strip


def _gaps_table(missing: Sequence[Window], dataset: DatasetSettings, command: str, source: str) -> Table:
    table = Table("from", "to", "missing", f"windows of {dataset.name}", "fill it with")
    longest = sorted(sorted(missing, key=lambda gap: gap.span, reverse=True)[:_LISTED])
    for gap in longest:
        first, last = window_of(gap.start, dataset.span), window_of(gap.end - timedelta.resolution, dataset.span)
        asked = f"{source} --from {gap.start:%Y-%m-%dT%H:%MZ} --to {gap.end:%Y-%m-%dT%H:%MZ}"
        fill = f"{command} {asked}" if command else "what its clients still have"
        windows = (last.end - first.start) // dataset.span
        table.add_row(f"{gap.start:%Y-%m-%d %H:%M}", f"{gap.end:%Y-%m-%d %H:%M}", str(gap.span), f"{windows:,}", fill)
    if len(missing) > len(longest):
        table.caption = f"the {len(longest)} longest of {len(missing):,} gaps"
    return table
