"""`ionbeam`, the command line: what the Dagster UI shows and does, from a shell.

Belongs here: commands, and how things look in a terminal. Does not belong here: what they do (pipeline, orchestration).
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, NoReturn, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ionbeam_client.models import format_duration
from ionbeam_dagster.config import CONFIG_VARIABLE, ConfigError, DatasetSettings, IonbeamConfig
from ionbeam_dagster.domain.windows import Window, window_of, windows_between

if TYPE_CHECKING:  # the platform takes a second to import, and --help should not wait for it
    import polars as pl
    from dagster import DagsterInstance

    from ionbeam_dagster.orchestration.runs import WindowResult
    from ionbeam_dagster.pipeline import Platform
    from ionbeam_dagster.stores.ledger import BuiltRevision

app = typer.Typer(
    help="Crowd-sourced and IoT weather observations as canonical datasets, ODB-2 and GeoParquet, window by window.\n\n"
    "Begin with `ionbeam config check`, then `ionbeam run SOURCE --from ... --to ...`, then `ionbeam dev` for the UI.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The configuration: what it means.", no_args_is_help=True)
export_app = typer.Typer(help="Files that the platform wrote.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(export_app, name="export")
console = Console(width=None if sys.stdout.isatty() else 120)

SOURCES = typer.Argument(help="Sources to run, by their names in the configuration; all of them when none is named.")
DATASETS = typer.Argument(help="Datasets to show; all of them when none is named.")
FROM = typer.Option("--from", help="Start of the range, ISO 8601, UTC unless it says otherwise: 2026-06-21T06:00Z")
TO = typer.Option("--to", help="End of the range (not included).")


@app.callback()
def main(
    config: Annotated[
        Path | None,
        typer.Option(help=f"The platform's YAML. Default: ${CONFIG_VARIABLE}, else one that needs no server."),
    ] = None,
) -> None:
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)


@app.command()
def run(
    sources: Annotated[list[str] | None, SOURCES] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Where to put the map of the run. Default: DATASET.png beside the state folder.")
    ] = None,
) -> None:
    """Collect, build and export a range of windows, through Dagster in this process.

    Every step is a run that `ionbeam dev` shows afterwards. What is there already, and would come out the same, is not
    made again. Without --from and --to a source of files is taken whole.

    Example: `ionbeam run ioncannon --from 2026-06-21T06:00Z --to 2026-06-21T12:00Z`
    """
    from ionbeam_dagster.orchestration.runs import run_range
    from ionbeam_dagster.pipeline import PipelineError, Platform
    from ionbeam_dagster.sources import SourceError
    from ionbeam_dagster.stores import StoreError

    platform = Platform(_config())
    begun = perf_counter()
    pulled = [name for name, settings in platform.config.sources.items() if settings.kind == "pull"]
    with _refused_as_message(PipelineError, SourceError, StoreError):
        ranges = {name: _range(platform, name, start, end) for name in sources or pulled}
        with _dagster_instance(platform.config) as instance, _Watch(platform) as watch:
            done = [
                result
                for name, wanted in ranges.items()
                for result in run_range(platform, name, wanted.start, wanted.end, instance, watch.done, watch.planned)
            ]
    _report(platform, ranges, done, watch, perf_counter() - begun, picture)


@app.command()
def dev(port: Annotated[int, typer.Option(help="Where the UI listens, on this machine only.")] = 3000) -> None:
    """Start `dagster dev` with this configuration: the UI, its sensors and its automation. Ctrl-C stops it."""
    config = _config()
    home = _dagster_home(config)
    os.environ |= {CONFIG_VARIABLE: str(config.path.absolute()), "DAGSTER_HOME": str(home)}
    dagster = Path(sys.executable).with_name("dagster")
    os.execv(dagster, [str(dagster), "dev", "-m", "ionbeam_dagster.definitions", "--port", str(port)])


@app.command()
def bridge() -> None:
    """Take in what clients send, and announce what is built, as it happens. Ctrl-C stops it.

    `ionbeam dev` does the same every few seconds; both may run side by side. What arrives is ingested and built by
    Dagster, which is told of it when DAGSTER_HOME is set.
    """
    from ionbeam_dagster.pipeline import PipelineError, Platform

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with _refused_as_message(PipelineError):
        served = Platform(_config()).bridge
    if not os.environ.get("DAGSTER_HOME"):
        served.run_forever()
        return
    from dagster import DagsterInstance

    from ionbeam_dagster.orchestration.reports import report_arrivals

    with DagsterInstance.get() as instance:
        served.run_forever(lambda: report_arrivals(served.inbox, instance, 1.0))


@app.command()
def status(
    datasets: Annotated[list[str] | None, DATASETS] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
    last: Annotated[int, typer.Option(help="How many of the newest windows to show when no range is given.")] = 24,
) -> None:
    """Show a table of dataset windows: their state and why, rows, stations, coverage, revision, exports."""
    from ionbeam_dagster.pipeline import PipelineError, Platform
    from ionbeam_dagster.stores import StoreError

    platform = Platform(_config())
    with _refused_as_message(PipelineError, StoreError):
        for name in datasets or platform.config.datasets:
            dataset = platform.dataset(name)
            known = _known_windows(platform, dataset, _moment(start, "--from"), _moment(end, "--to"))
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


@config_app.command("check")
def config_check() -> None:
    """Check the configuration, and say what follows from it.

    What is collected, in which windows; which export each variable goes to; what is left out and why.
    """
    from ionbeam_dagster.pipeline import Platform

    platform = Platform(_config())
    console.print(f"[bold]{platform.config.path}[/bold]: every key is understood", highlight=False)
    for note in platform.config.notes():
        console.print(f"  note: {note}", style="yellow", highlight=False)
    faults = [name for name in platform.config.sources if not _describe_source(platform, name)]
    if faults:
        raise typer.Exit(1)


@export_app.command("show")
def export_show(file: Annotated[Path, typer.Argument(help="Any file that the platform wrote.")]) -> None:
    """Show what is inside a file: raw partition, quarantine, dataset window, ODB-2 or GeoParquet."""
    from ionbeam_dagster.show import NotOurs, contents

    with _refused_as_message(NotOurs):
        found = contents(file)
    console.print(f"[bold]{file.name}[/bold]: {found.kind}", highlight=False)
    for fact, value in found.facts.items():
        console.print(f"  {fact}: {value}", highlight=False)
    for frame in (found.columns, found.head):
        if frame.width:
            console.print(_frame_table(frame))


def _config() -> IonbeamConfig:
    try:
        return IonbeamConfig.load()
    except ConfigError as error:
        _fail(str(error))


def _range(platform: Platform, source: str, start: str | None, end: str | None) -> Window:
    """What was asked for, else all that the source has."""
    settings = platform.source(source)
    first, last = _moment(start, "--from"), _moment(end, "--to")
    if first is None or last is None:
        whole = platform.sources[source].extent()
        if whole is None:
            _fail(f"{source} has no end of its own; say which range with --from and --to")
        first = first or window_of(whole.start, settings.window_size).start
        last = last or whole.end
    if last <= first:
        _fail(f"--to {last:%Y-%m-%dT%H:%MZ} must be later than --from {first:%Y-%m-%dT%H:%MZ}")
    return Window(first, last)


def _dagster_home(config: IonbeamConfig) -> Path:
    from ionbeam_dagster.orchestration.home import ensure_home

    home = Path(os.environ.get("DAGSTER_HOME") or config.sections.state_path / "dagster").absolute()
    ensure_home(home)
    return home


@contextmanager
def _dagster_instance(config: IonbeamConfig) -> Iterator[DagsterInstance]:
    from dagster import DagsterInstance

    os.environ["DAGSTER_HOME"] = str(_dagster_home(config))
    with DagsterInstance.get() as instance:
        yield instance


class _Watch:
    """Progress bars, one an asset, and how long each dataset window took."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._tasks: dict[str, TaskID] = {}
        self._last = perf_counter()
        self.seconds: Counter[tuple[str, Window]] = Counter()

    def __enter__(self) -> Self:
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

    def done(self, asset: str, window: Window, failure: str | None) -> None:
        self._bars.advance(self._tasks[asset])
        if failure:
            self._bars.console.print(f"[red]{asset} {window}[/red]: {failure}", highlight=False)
        name = asset.split("/")[0]
        settings = self._platform.config.sources.get(name)
        dataset = self._platform.config.datasets.get(settings.dataset if settings else name)
        now = perf_counter()
        if dataset:
            self.seconds[dataset.name, window_of(window.start, dataset.span)] += now - self._last
        self._last = now


def _report(
    platform: Platform,
    ranges: dict[str, Window],
    done: list[WindowResult],
    watch: _Watch,
    seconds: float,
    picture: Path | None,
) -> None:
    failed = [result for result in done if result.failure]
    if not done:
        console.print("Nothing to do: every window is collected, built and exported, and would come out the same.")
    for dataset in sorted({platform.source(name).dataset for name in ranges}):
        windows = _asked_for(platform, dataset, ranges)
        console.print(_made_table(platform, platform.dataset(dataset), windows, watch))
        _draw(platform, dataset, windows, picture)
    for name in ranges:
        for problem in platform.sources[name].problems():
            console.print(f"{name}: {problem}", style="yellow", highlight=False)
    steps = f"{len(done)} partitions in {seconds:.1f} s" if done else ""
    console.print(f"{steps}; {len(failed)} failed" if failed else steps, highlight=False)
    _say_what_next(platform)
    if failed:
        raise typer.Exit(1)


def _asked_for(platform: Platform, dataset: str, ranges: dict[str, Window]) -> list[BuiltRevision]:
    span = platform.dataset(dataset).span
    asked = [wanted for name, wanted in ranges.items() if platform.source(name).dataset == dataset]
    start = window_of(min(wanted.start for wanted in asked), span).start
    return platform.ledger.revisions(dataset, start, max(wanted.end for wanted in asked))


def _made_table(platform: Platform, dataset: DatasetSettings, built: list[BuiltRevision], watch: _Watch) -> Table:
    table = Table(title=f"{dataset.name}, windows of {format_duration(dataset.span)}", title_justify="left")
    table.add_column("window", no_wrap=True)
    for column in ("rows", "stations", "coverage", "revision", "dataset", *dataset.exports, "seconds"):
        table.add_column(column, justify="right")
    for one in built:
        window, facts = one.revision.window, one.facts
        exports = [platform.ledger.export(dataset.name, window, format) for format in dataset.exports]
        took = watch.seconds[dataset.name, window]
        table.add_row(
            str(window), _number(facts["rows"]), _number(facts["stations"]), f"{facts['coverage']:.0%}",
            str(one.revision.number), _size(facts["bytes"]),
            *[_size(e.facts["bytes"]) if e and e.path else "none" for e in exports],
            f"{took:.2f}" if took else "",
        )  # fmt: skip
    table.caption = f"dataset files and exports: {_places(platform, dataset, built)}"
    table.caption_justify = "left"
    return table


def _places(platform: Platform, dataset: DatasetSettings, built: list[BuiltRevision]) -> str:
    if not built:
        return "none"
    window = built[0].revision.window
    folders = [built[0].path.parent]
    folders += [platform.export_path(dataset.name, format, window).parent for format in dataset.exports]
    return ", ".join(map(str, folders))


def _draw(platform: Platform, dataset: str, built: list[BuiltRevision], picture: Path | None) -> None:
    from ionbeam_dagster.pictures import map_of_windows
    from ionbeam_dagster.stores.publish import published

    if not built:
        return
    path = picture or platform.config.sections.state_path.parent / f"{dataset}.png"
    with published(path) as draft:
        draft.write_bytes(map_of_windows([one.path for one in built]))
    console.print(f"a map of them: [bold]{path}[/bold]", highlight=False)


def _say_what_next(platform: Platform) -> None:
    asked = f" --config {platform.config.path}" if CONFIG_VARIABLE in os.environ else ""
    console.print(
        "\nNext:\n"
        f"  ionbeam{asked} dev            the Dagster UI on these windows (after `make demo`: make dev)\n"
        f"  ionbeam{asked} status         every window, its state and why\n"
        f"  ionbeam{asked} config check   where each variable goes, and what is left out\n"
        f"  ionbeam export show FILE      what is inside one of the files",
        highlight=False,
    )


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        print(f"ionbeam: {line}", file=sys.stderr)
    raise typer.Exit(1)


@contextmanager
def _refused_as_message(*kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        _fail(str(error))


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _fail(f"{option} {text!r} is not an ISO 8601 time; right would be, for example, 2026-06-21T06:00Z")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


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
            str(window), state, _number(facts.get("rows")), _number(facts.get("stations")),
            f"{facts['coverage']:.0%}" if facts else "", str(latest.revision.number) if latest else "",
            ", ".join(exports), reason,
        )  # fmt: skip
    return table


def _describe_source(platform: Platform, name: str) -> bool:
    """Print what becomes of a source's variables; False when something about them is wrong."""
    from ionbeam_dagster.domain.canonical import canonical_schema
    from ionbeam_dagster.domain.cf import check_metadata
    from ionbeam_dagster.sources import SourceError

    settings, source = platform.config.sources[name], platform.sources[name]
    dataset = platform.dataset(settings.dataset)
    console.print(
        f"\n[bold]{name}[/bold]: windows of {format_duration(settings.window_size)} every "
        f"{format_duration(settings.trigger_interval)}, {format_duration(settings.window_lag)} late, into dataset "
        f"{dataset.name!r} (windows of {format_duration(dataset.span)})",
        highlight=False,
    )
    if settings.kind == "external":
        console.print("  sent by a client; what its columns are comes with each message", highlight=False)
        return True
    try:
        metadata = source.metadata
    except SourceError as error:
        console.print(f"  [red]{error}[/red]", highlight=False)
        return False
    schema = canonical_schema([metadata])
    plans = {format: platform.exporters[format].plan(schema) for format in dataset.exports}
    table = Table("column", "canonical variable", *dataset.exports)
    for variable in metadata.ingestion_map.canonical_variables:
        canonical = variable.to_canonical_name()
        fates = [plan.mapped.get(canonical) or f"no: {plan.left_out[canonical]}" for plan in plans.values()]
        table.add_row(variable.column, canonical, *fates)
    console.print(table)
    problems = check_metadata(metadata)
    for problem in problems:
        console.print(f"  {problem}", style="yellow", highlight=False)
    for trouble in source.problems():
        console.print(f"  {trouble}", style="yellow", highlight=False)
    return not any(problem.severity == "error" for problem in problems)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _frame_table(frame: pl.DataFrame) -> Table:
    table = Table(*frame.columns)
    for row in frame.iter_rows():
        table.add_row(*["" if value is None else str(value) for value in row])
    return table
