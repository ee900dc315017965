"""`ionbeam run`: a range of windows from source to export, watched as it goes on, and told at its end."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ionbeam_client.models import format_duration
from ionbeam_dagster.cli.holes import nothing_there, out_of_time
from ionbeam_dagster.cli.kept import no_longer_given
from ionbeam_dagster.cli.quarantine import left_out, lines_about, merged
from ionbeam_dagster.cli.terminal import (
    FROM,
    SOURCES,
    TO,
    asked_range,
    console,
    dagster_instance,
    fail,
    in_order,
    load_config,
    number,
    print_errors,
    size,
)
from ionbeam_dagster.config import CONFIG_VARIABLE, DatasetSettings
from ionbeam_dagster.domain.windows import EPOCH, Window, window_of
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.stores.files import folder_of

if TYPE_CHECKING:  # the platform takes a second to import, and --help should not wait for it
    from ionbeam_dagster.domain.records import BuiltRevision
    from ionbeam_dagster.orchestration.runs import WindowResult
    from ionbeam_dagster.pipeline.platform import Platform

_DEMO = Path("examples/demo.yaml")  # what `make` takes where nothing else is named


def run(
    sources: Annotated[list[str] | None, SOURCES] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Where to put the map of the run. Default: beside the state folder, by the name of the dataset (of "
            "several: of the configuration)."
        ),
    ] = None,
) -> None:
    """Collect, build and export a range of windows, through Dagster in this process.

    Every step is a run that `ionbeam dev` shows afterwards. What is there already, and would come out the same, is not
    made again. A window of which the range holds a part is taken whole. Without --from and
    --to a source of files is taken whole, any other from `start` to `end` of its block. A source of which no range is
    known, as it cannot be read, is told and left out.

    Example: `ionbeam run ioncannon --from 2026-06-21T06:00Z --to 2026-06-21T12:00Z`
    """
    from ionbeam_dagster.orchestration.runs import run_range
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    begun = perf_counter()
    pulled = [name for name, settings in platform.config.sources.items() if settings.kind == "pull"]
    if any(_begins_earlier(platform, name) for name in sources or pulled):
        platform = open_platform(load_config())
    ranges, unknown = _ranges(platform, sources or pulled, start, end)
    for line in unknown.values():
        print_errors(line)
    if unknown and not ranges:
        raise typer.Exit(1)
    with dagster_instance(platform.config) as instance, Watch(platform) as watch:
        done = [
            result
            for name, wanted in ranges.items()
            for result in run_range(platform, name, wanted.start, wanted.end, instance, watch.done, watch.planned)
        ]
    report(platform, ranges, done, watch, perf_counter() - begun, picture)
    if unknown:
        fail(f"not run: {', '.join(unknown)}; the reasons stand above")


def _begins_earlier(platform: Platform, source: str) -> bool:
    """Whether a source whose start is that of its first observation has earlier ones now."""
    settings = platform.source(source)
    if settings.first_time is None:
        return False
    try:
        extent = platform.sources[source].extent()
    except SourceError:
        return False  # its problems tell
    return extent is not None and extent.start < settings.first_time


def _ranges(
    platform: Platform, sources: list[str], start: str | None, end: str | None
) -> tuple[dict[str, Window], dict[str, str]]:
    """The range of each source, and why others have none: they do not keep these from being run."""
    ranges: dict[str, Window] = {}
    unknown: dict[str, str] = {}
    for name in sources:
        try:
            ranges[name] = _range(platform, name, start, end)
        except SourceError as error:
            unknown[name] = "\n".join(f"{name}: {line}" for line in str(error).splitlines())
    return ranges, unknown


def _range(platform: Platform, source: str, start: str | None, end: str | None) -> Window:
    """What was asked for, else all that the source has, and what was collected of it, which it may have no longer.

    Raises SourceError where that is not known.
    """
    from ionbeam_dagster.pipeline.agenda import collected_of

    settings = platform.source(source)
    first, last = asked_range(start, end)
    if first is None or last is None:
        if (whole := platform.sources[source].extent()) is None:
            return _stated(platform, source, first, last)
        collected = collected_of(platform, settings, Window(EPOCH, platform.now()))
        begins = window_of(whole.start, settings.window_size).start
        ends = platform.sources[source].last_time() or whole.end
        first = first or min([begins, *(window.start for window in collected)])
        last = last or max([ends, *(window.end for window in collected)])
    in_order(first, last)
    return Window(first, last)


def _stated(platform: Platform, source: str, first: datetime | None, last: datetime | None) -> Window:
    """The range of a source that does not know its own: where none was asked for, what the YAML says."""
    settings = platform.source(source)
    # of a source that subscribes they are of what was sent, and no reason
    if not settings.type.subscribes and (problems := platform.sources[source].problems()):
        raise SourceError("\n".join(problems))
    first = first or (settings.start if "start" in settings.config.model_fields_set else None)
    last = last or settings.end
    if first is None or last is None:
        raise SourceError(
            "has no end of its own; say which range with --from and --to, or with start and end in the YAML"
        )
    in_order(first, last)
    return Window(first, last)


class Watch:
    """Progress bars, one an asset, and how long each dataset window took."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._tasks: dict[str, TaskID] = {}
        self._last = perf_counter()
        self.seconds: defaultdict[tuple[str, Window], float] = defaultdict(float)

    def __enter__(self) -> Self:
        for source in self._platform.sources.values():
            source.progress = self.inside
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def planned(self, asset: str, windows: int) -> None:
        self._last = perf_counter()
        if asset in self._tasks:
            known = self._bars.tasks[self._tasks[asset]]
            self._bars.update(known.id, total=(known.total or 0) + windows)
        else:
            self._tasks[asset] = self._bars.add_task(asset, total=windows)

    def inside(self, what: str, done: int, of: int) -> None:
        """How far a source is within one window: a bar that goes away when it is done."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=of)
        self._bars.update(self._tasks[what], completed=done, visible=done < of)

    def done(self, asset: str, window: Window, failure: str | None) -> None:
        self._bars.advance(self._tasks[asset])
        if failure:
            self._bars.console.print(f"[red]{asset} {window}[/red]: {escape(failure)}", highlight=False)
        name = asset.split("/")[0]
        settings = self._platform.config.sources.get(name)
        dataset = self._platform.config.datasets.get(settings.dataset if settings else name)
        now = perf_counter()
        if dataset:
            self.seconds[dataset.name, window_of(window.start, dataset.span)] += now - self._last
        self._last = now


def report(
    platform: Platform,
    ranges: dict[str, Window],
    done: list[WindowResult],
    watch: Watch,
    seconds: float,
    picture: Path | None = None,
) -> None:
    """Tell what became of a range of each source: a table and a map of the windows, what failed, what to do next."""
    failed = [result for result in done if result.failure]
    outside = [line for name, one in ranges.items() if (line := out_of_time(platform, name, one.start, one.end))]
    for line in outside:
        console.print(line, style="yellow", highlight=False, markup=False)
    if not done and len(outside) < len(ranges):
        console.print("Nothing to do: every window is collected, built and exported, and would come out the same.")
    names = sorted({platform.source(name).dataset for name in ranges})
    built = {name: _revisions_of_ranges(platform, name, ranges) for name in names}
    if any(built.values()):
        console.print(_made_table(platform, built, watch))
    _draw(platform, names, [one for windows in built.values() for one in windows], picture)
    for name, windows in built.items():
        for line in merged(name, windows):
            console.print(line, style="yellow", highlight=False, markup=False)
    for name, wanted in ranges.items():
        collected = [one.window for one in done if one.asset == f"{name}/raw"] or [wanted]
        there = [*nothing_there(platform, name, wanted), *left_out(platform, name)]
        for line in [*lines_about(platform, name, collected), *no_longer_given(platform, name, wanted), *there]:
            console.print(line, style="yellow", highlight=False, markup=False)
        for problem in platform.sources[name].problems():
            console.print(f"{name}: {problem}", style="yellow", highlight=False, markup=False)
    steps = f"{len(done)} partitions in {seconds:.1f} s" if done else ""
    console.print(f"{steps}; {len(failed)} failed" if failed else steps, highlight=False)
    _print_what_next(platform)
    if failed:
        raise typer.Exit(1)


def _revisions_of_ranges(platform: Platform, dataset: str, ranges: dict[str, Window]) -> list[BuiltRevision]:
    span = platform.dataset(dataset).span
    asked = [wanted for name, wanted in ranges.items() if platform.source(name).dataset == dataset]
    start = window_of(min(wanted.start for wanted in asked), span).start
    return platform.ledger.revisions(dataset, start, max(wanted.end for wanted in asked))


def _made_table(platform: Platform, built: dict[str, list[BuiltRevision]], watch: Watch) -> Table:
    """The windows of one dataset, or of several, one under the other."""
    datasets = [platform.dataset(name) for name in built]
    several = len(datasets) > 1
    title = f"{len(datasets)} datasets" if several else _title(datasets[0])
    table = Table(title=title, title_justify="left", caption_justify="left")
    formats = list(dict.fromkeys(format for dataset in datasets for format in dataset.exports))
    table.add_column("window", no_wrap=True)
    for column in ("rows", "stations", "coverage", "revision", "dataset", *formats, "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for dataset in datasets:
        if several:
            table.add_row(f"[bold]{dataset.name}[/bold]" + ("" if built[dataset.name] else ": none"))
        for one in built[dataset.name]:
            took = watch.seconds[dataset.name, one.revision.window]
            table.add_row(*_cells(platform, dataset, one, formats, took))
        table.add_section()
    folders = [place for dataset in datasets for place in _folders(platform, dataset, built[dataset.name])]
    places = dict.fromkeys(folder_of(place) if several else place for place in folders)
    table.caption = f"dataset files and exports: {', '.join(places) or 'none'}"
    return table


def _title(dataset: DatasetSettings) -> str:
    return f"{dataset.name}, windows of {format_duration(dataset.span)}"


def _cells(
    platform: Platform, dataset: DatasetSettings, one: BuiltRevision, formats: list[str], took: float
) -> list[str]:
    window, facts = one.revision.window, one.facts
    exports = [platform.ledger.export(dataset.name, window, format) for format in formats]
    return [
        str(window), number(facts.rows), number(facts.stations), f"{facts.coverage:.0%}",
        str(one.revision.number), size(facts.bytes),
        *[size(e.facts.bytes) if e and e.path else "none" for e in exports],
        f"{took:.2f}" if took else "",
    ]  # fmt: skip


def _folders(platform: Platform, dataset: DatasetSettings, built: list[BuiltRevision]) -> list[str]:
    if not built:
        return []
    window = built[0].revision.window
    exports = [folder_of(platform.export_path(dataset.name, format, window)) for format in dataset.formats]
    return [folder_of(built[0].path), *exports]


def _draw(platform: Platform, datasets: list[str], built: list[BuiltRevision], picture: Path | None) -> None:
    from ionbeam_dagster.pictures.window import map_of_windows
    from ionbeam_dagster.stores.damage import UNREADABLE
    from ionbeam_dagster.stores.publish import published

    there = [one for one in built if platform.files.exists(one.path)]
    if len(there) < len(built):
        console.print(f"not on the map: {len(built) - len(there)} windows whose dataset file is gone", style="yellow")
    if not there:
        return
    name = datasets[0] if len(datasets) == 1 else platform.config.path.stem
    path = picture or platform.config.sections.state_path.parent / f"{name}.png"
    try:
        with ExitStack() as open_files, published(path) as draft:
            files = [open_files.enter_context(platform.files.fetched(one.path)) for one in there]
            draft.write_bytes(map_of_windows(files))
    except UNREADABLE as error:
        console.print(f"no map was drawn: {error}", style="yellow", highlight=False, markup=False)
        return
    console.print(f"a map of them: [bold]{path}[/bold]", highlight=False)


def _print_what_next(platform: Platform) -> None:
    asked = f" --config {platform.config.path}" if CONFIG_VARIABLE in os.environ else ""
    made = " (after `make demo`: make dev)" if platform.config.path.resolve() == _DEMO.resolve() else ""
    console.print(
        "\nNext:\n"
        f"  ionbeam{asked} dev            the Dagster UI on these windows{made}\n"
        f"  ionbeam{asked} status         every window, its state and why\n"
        f"  ionbeam{asked} config check   where each variable goes, and what is left out\n"
        f"  ionbeam export show FILE      what is inside one of the files",
        highlight=False,
    )
