"""`ionbeam status`: the state of dataset windows and why, what fails, and what a person should know.

Belongs here: how it is shown. Does not belong here: what is decided of a window (the agenda), or what was not collected
(gaps.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ionbeam_client.models import format_duration
from ionbeam_dagster.cli.export import not_exported
from ionbeam_dagster.cli.holes import all_out_of_time, told_of_holes
from ionbeam_dagster.cli.kept import gone, no_longer_given
from ionbeam_dagster.cli.quarantine import clock_lines, left_out, lines_about, merged
from ionbeam_dagster.cli.terminal import (
    DATASETS,
    FROM,
    TO,
    asked_range,
    console,
    load_config,
    number,
)
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.cycles import analysis_of, cycle_of
from ionbeam_dagster.domain.decisions import Sealed
from ionbeam_dagster.domain.windows import EPOCH, Window, window_of, windows_between
from ionbeam_dagster.stores.files import folder_of

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline.platform import Platform
    from ionbeam_dagster.stores.ledger.attempts import Attempt

_LISTED = 20
"""Lines of one kind that are shown; of the others only how many they are."""


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
    from ionbeam_dagster.pipeline.agenda import holes
    from ionbeam_dagster.pipeline.recovery import open_platform

    asked = asked_range(start, end)
    platform = open_platform(load_config())
    if check_files:
        _check_files(platform)
    for name in datasets or platform.config.datasets:
        dataset = platform.dataset(name)
        known = _known_windows(platform, dataset, *asked)
        if not known:
            nothing = f"{name}: {_nothing_known(platform, dataset, start is not None or end is not None)}"
            for line in all_out_of_time(platform, dataset.sources, *asked) or [nothing]:
                console.print(line, highlight=False, markup=False)
            continue
        shown = known if start or end else known[-last:]
        whole = Window(shown[0].start, shown[-1].end)
        empty = {source: holes(platform, platform.source(source), whole) for source in dataset.sources}
        console.print(status_table(platform, dataset, shown, [hole for some in empty.values() for hole in some]))
        for line in merged(name, platform.ledger.revisions(name, shown[0].start, shown[-1].end)):
            console.print(line, style="yellow", highlight=False, markup=False)
        for source in dataset.sources:
            windows = [one for one in shown if one.span == dataset.span]
            for line in [
                *told_of_holes(source, empty[source]),
                *lines_about(platform, source, windows),
                *no_longer_given(platform, source),
                *gone(platform, source),
                *clock_lines(platform, source),
                *left_out(platform, source),
            ]:
                console.print(line, style="yellow", highlight=False, markup=False)
        for line in [] if check_files else _lost(platform, dataset, shown):
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

    from ionbeam_dagster.health.wis2 import wis2

    for found in (one for one in wis2(platform) if one.severity != "well"):
        console.print(f"wis2: {found.words}; {found.remedy}", highlight=False, markup=False)

    from ionbeam_dagster.doors.http import lacking

    if lacking() is None:
        from ionbeam_dagster.doors.http.status import door_status

        for line in door_status(platform, sources_of(platform, datasets) if datasets else None):
            console.print(f"door: {line}", highlight=False, markup=False)


def _check_files(platform: Platform) -> None:
    """Compare all files with the ledger; what is lost is made again by automation, or by `ionbeam run`."""
    from ionbeam_dagster.pipeline.reconciliation import reconcile

    found = reconcile(platform, platform.now())
    before = f" ({len(found.all_work) - len(found.work)} of them since an earlier look)" if found.all_work else ""
    again = f"{len(found.all_work)} windows are to be made again{before}"
    console.print(f"files: {again}, {len(found.for_a_person)} are for a person to look at", highlight=False)
    for work in found.all_work[:_LISTED]:
        console.print(f"  {work.of} {work.window}: {work.reason}; to {work.stage}", highlight=False, markup=False)
    for told in found.for_a_person[:_LISTED]:
        console.print(f"  {told}", highlight=False, markup=False)


def _print_outdated(platform: Platform, dataset: DatasetSettings) -> None:
    """Which windows another exporter, quality plan or mapping made than today's, and how they are made again."""
    from ionbeam_dagster.pipeline.agenda import outdated

    found = outdated(platform, dataset, EPOCH, platform.now())
    if found:
        again = f"`ionbeam rebuild {dataset.name} --outdated {Window(found[0].start, found[-1].end).as_options}`"
        many = f"{len(found)} windows were" if len(found) > 1 else "1 window was"
        told = f"{dataset.name}: {many} made by an older exporter, quality plan or mapping, or with other settings"
        console.print(f"{told}; {again} makes what is outdated again", highlight=False)


def _print_what_fails(platform: Platform) -> None:
    """What fails, what of the configuration does not fit, and when the files were last compared."""
    from ionbeam_dagster.pipeline.agenda import failing, misfits, other_lengths, silent, to_come, unfed

    now = platform.now()
    for misfit in misfits(platform):
        console.print(misfit, style="red", highlight=False, markup=False)
    for note in [*other_lengths(platform), *unfed(platform), *to_come(platform, now)]:
        console.print(note, style="yellow", highlight=False, markup=False)
    for source, silence in silent(platform).items():
        told = f"{source} does not answer since {silence.since:%Y-%m-%d %H:%M}: {silence.windows} windows in a row took"
        again = "longer than they may; it is asked for one window at a time until it does"
        console.print(f"{told} {again}", style="yellow", highlight=False, markup=False)
    print_failing(platform, failing(platform, now))
    if reconciled := platform.ledger.reconciliations.last():
        ago = max((now - reconciled) // timedelta(seconds=1), 0)
        console.print(f"files: last compared with the ledger {ago} s ago", highlight=False)


def print_failing(platform: Platform, failing: Sequence[Attempt]) -> None:
    """What fails, the longest first; what fails alike in a line."""
    from ionbeam_dagster.pipeline.agenda import alike, in_words

    found = alike(failing)
    for one in found[:_LISTED]:
        console.print(in_words(platform, one), style="yellow", highlight=False, markup=False, soft_wrap=True)
    if rest := sum(map(len, found[_LISTED:])):
        console.print(f"... and {rest:,} more windows that fail", style="yellow", highlight=False)


def _nothing_known(platform: Platform, dataset: DatasetSettings, in_a_range: bool) -> str:
    """What to say of a dataset of whose windows nothing is known."""
    if waiting := [name for name in dataset.sources if platform.ledger.waiting(name)]:
        return f"what came of {', '.join(waiting)} waits to be ingested; `ionbeam worker` (or `ionbeam dev`) does it"
    files = [path for source in dataset.sources for path in platform.raws(platform.source(source)).files(source)]
    first = platform.source(dataset.sources[0])
    begin = {
        "external": "its client",
        "door": "`ionbeam receive` and its clients",
        "pull": f"`ionbeam run {first.name}`",
    }
    begin_with = begin[first.kind]
    if files:
        many = f"there are {len(files):,} raw files" if len(files) > 1 else "there is a raw file"
        known = "in this range" if in_a_range else "of what is there"
        return (
            f"no window {known} has rows, though {many} ({folder_of(files[0])}); `ionbeam ledger rebuild` tells the "
            f"ledger of those that it does not know, and {begin_with} goes on"
        )
    return f"nothing was {_came(dataset)} {'in this range' if in_a_range else 'yet'}; begin with {begin_with}"


def _came(dataset: DatasetSettings) -> str:
    """How what there is of a dataset comes."""
    return "heard at the door" if dataset.policy.only_at_door else "collected"


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


def _lost(platform: Platform, dataset: DatasetSettings, windows: Sequence[Window]) -> Iterator[str]:
    """A sentence for each window whose dataset file is gone and not made again by itself."""
    from ionbeam_dagster.pipeline.contents import not_built_again

    for built in platform.ledger.revisions(dataset.name, windows[0].start, windows[-1].end):
        if not platform.files.exists(built.path):
            yield from not_built_again(platform, built, "it is gone", platform.now())


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


def status_table(
    platform: Platform, dataset: DatasetSettings, windows: Sequence[Window], holes: Sequence[Window] = ()
) -> Table:
    """A line a window; in `holes` there is nothing to be collected."""
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
            empty = any(hole.covers(window) for hole in holes)
            state, why = ("none", "nothing is there") if empty else ("missing", f"nothing was {_came(dataset)}")
            table.add_row(f"{window.start:%Y-%m-%d %H:%M} ...", state, *[""] * 5, f"{many}: {why}")
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


def sources_of(platform: Platform, names: Sequence[str]) -> list[str]:
    """The sources that `names` mean: sources themselves, and those of datasets."""
    found: dict[str, None] = {}
    for name in names:
        if name in platform.config.sources:
            found[name] = None
        else:
            found |= dict.fromkeys(platform.dataset(name).sources)
    return list(found)
