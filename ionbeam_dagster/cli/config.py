"""`ionbeam config`: the configuration, and what follows from it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_client.models import format_duration
from ionbeam_dagster.cli.terminal import console, load_config

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline.platform import Platform

app = typer.Typer(help="The configuration: what it means.", no_args_is_help=True)


@app.command("check")
def config_check() -> None:
    """Check the configuration, and say what follows from it.

    What is collected, in which windows; which export each variable goes to; what is left out or not tested, and why.
    """
    from ionbeam_dagster.config.exporting import find_exporters
    from ionbeam_dagster.pipeline.agenda import misfits, other_lengths, unfed
    from ionbeam_dagster.pipeline.recovery import open_platform
    from ionbeam_dagster.pipeline.stations import faults as faults_of_stations

    platform = open_platform(load_config())
    console.print(f"[bold]{platform.config.path}[/bold]: every key is understood", highlight=False)
    for note in platform.config.notes(platform.now()):
        console.print(f"  note: {note}", style="yellow", highlight=False, markup=False)
    for name, why in find_exporters().broken.items():
        told = f"the exporter {name} cannot be used: {why}"
        console.print(f"  note: {told}", style="yellow", highlight=False, markup=False)
    for fault in faults_of_stations(platform):
        console.print(f"  {fault}", style="yellow", highlight=False, markup=False)
    for note in [*other_lengths(platform), *unfed(platform)]:
        console.print(f"  {note}", style="yellow", highlight=False, markup=False)
    unfit = misfits(platform)
    for misfit in unfit:
        console.print(f"  {misfit}", style="red", highlight=False, markup=False)
    faults = [name for name in platform.config.sources if not _describe_source(platform, name)]
    apart = [name for name in platform.config.datasets if not _agree(platform, name)]
    if faults or unfit or apart:
        raise typer.Exit(1)


@app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the YAML, with the sources and exporters that are installed.

    Editors complete and check by it: `ionbeam config schema > ionbeam.schema.json`, and
    `# yaml-language-server: $schema=ionbeam.schema.json` in the first line of the YAML.
    """
    from ionbeam_dagster.config.schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))


def _agree(platform: Platform, dataset: str) -> bool:
    """Print where sources of a dataset contradict each other; False when something about it is wrong."""
    from ionbeam_client.cf import check_together
    from ionbeam_dagster.errors import SourceError

    told = {}
    for name in platform.dataset(dataset).sources:
        with suppress(SourceError):  # what is wrong with a source alone is told by then
            told[name] = platform.sources[name].metadata
    problems = check_together(told)
    for problem in problems:
        console.print(f"  {problem}", style="yellow", highlight=False, markup=False)
    return not any(problem.severity == "error" for problem in problems)


def _describe_source(platform: Platform, name: str) -> bool:
    """Print what becomes of a source's variables; False when something about them is wrong."""
    from ionbeam_client.cf import check_metadata
    from ionbeam_dagster.domain.canonical import canonical_schema
    from ionbeam_dagster.domain.quality.coverage import not_tested
    from ionbeam_dagster.errors import SourceError

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
    if settings.kind == "door" and not getattr(settings.config, "variables", ()):
        console.print(
            f"  written to the door; nothing of it is mapped (`ionbeam source accept {name}`)", highlight=False
        )
        return True
    try:
        metadata = source.metadata
    except SourceError as error:
        console.print(f"  {error}", style="red", highlight=False, markup=False)
        return False
    schema = canonical_schema([metadata])
    plans = platform.plans(dataset, schema)
    table = Table("column", "canonical variable", *plans)
    for variable in metadata.ingestion_map.canonical_variables:
        canonical = variable.to_canonical_name()
        fates = [plan.mapped.get(canonical) or f"no: {plan.left_out[canonical]}" for plan in plans.values()]
        table.add_row(*map(escape, (variable.column, canonical, *fates)))
    console.print(table)
    for column, why in not_tested(schema, dataset.limits):
        console.print(f"  quality: {column}: {why}", style="dim", highlight=False, markup=False, soft_wrap=True)
    problems = check_metadata(metadata)
    for problem in problems:
        console.print(f"  {problem}", style="yellow", highlight=False, markup=False)
    for trouble in [*settings.left_out(source.extent(), platform.now()), *source.problems()]:
        console.print(f"  {trouble}", style="yellow", highlight=False, markup=False)
    return not any(problem.severity == "error" for problem in problems)
