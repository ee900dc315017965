"""`ionbeam doctor`: what is wrong with an installation, and what is to be done about each.

Belongs here: how findings look in a terminal, and the exit status. Does not belong here: the checks (health,
orchestration/doctor.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_client.text import visible
from ionbeam_dagster.cli.terminal import console, load_config
from ionbeam_dagster.config import CONFIG_VARIABLE, IonbeamConfig
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.health.findings import SEVERITIES, Finding, worst

_STATUS = {"well": 0, "note": 0, "warning": 1, "error": 2}
_COLOURS = {"well": "green", "note": "cyan", "warning": "yellow", "error": "red"}
_A_DAY = 86_400.0  # seconds


def doctor(
    files: Annotated[
        bool, typer.Option("--files", help="Also read every file, and compare it with what was written. Takes long.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also write an archive for support, a zip file: all that is known, without secrets."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON, for programs.")] = False,
) -> None:
    """Look whether everything is well, and say of each thing that is not what to do.

    Configuration, stores, broker, disks, clocks, versions, permissions, Dagster's daemons and runs, work that fails or
    stands still, what waits or is parked at the doors. Nothing is changed; with --files, what is lost or damaged is put
    on the agenda, so that it is made again.

    Exit status: 0 all is well, 1 a person should look, 2 the platform cannot do its work, or does not.
    """
    try:
        config, found = load_config(), list[Finding]()
    except (ConfigError, OSError) as error:
        config, found = None, list(_of_the_yaml(error))
    if config is not None:
        found += _found(config, files)
    if as_json:
        print(json.dumps([one.to_json() for one in found], ensure_ascii=False, indent=2))
    else:
        _show(found)
    if bundle is not None:
        from ionbeam_dagster.orchestration.bundle import write_bundle

        many = write_bundle(bundle, config, found)
        told = f"{bundle}: {many} files; secrets are struck out, names and places are not: look through it first"
        print(told, file=sys.stderr)
    raise typer.Exit(_STATUS[worst(found)])


def _of_the_yaml(error: Exception) -> Iterator[Finding]:
    remedy = f"correct it in {os.environ.get(CONFIG_VARIABLE, 'the YAML')}; docs/configuration.md has every key"
    for line in str(error).splitlines():
        words, _, what = line.strip().partition("; ")
        yield Finding("configuration", "error", words, f"{what}; {remedy}" if what else remedy)


def _found(config: IonbeamConfig, files: bool) -> Iterator[Finding]:
    from ionbeam_dagster.health.examination import Examination
    from ionbeam_dagster.orchestration.doctor import checks_of_doctor, checks_of_files
    from ionbeam_dagster.pipeline.recovery import open_platform

    if not os.environ.get(CONFIG_VARIABLE):
        words = f"no configuration is named: this is about {config.path}, which is shipped"
        yield Finding("configuration", "note", words, f"name yours with --config, or in {CONFIG_VARIABLE}")
    platform = open_platform(config)
    yield from Examination(checks_of_doctor(platform)).look()
    if files:
        yield from Examination(checks_of_files(platform), _A_DAY).look()


def _show(found: list[Finding]) -> None:
    table = Table("", "subject", "found", "what to do", show_lines=False, title_justify="left")
    for severity in reversed(SEVERITIES):
        for one in found:
            if one.severity == severity:
                mark = f"[{_COLOURS[severity]}]{severity}[/{_COLOURS[severity]}]"
                table.add_row(mark, *(escape(visible(text)) for text in (one.subject, one.words, one.remedy)))
    console.print(table)
    counts = Counter(one.severity for one in found)
    if wrong := counts["error"] + counts["warning"]:
        console.print(f"{wrong} to be looked at: {counts['error']} errors, {counts['warning']} warnings")
    elif notes := counts["note"]:
        console.print(f"nothing has to be done; {notes} notes tell what is worth knowing")
    else:
        console.print("all is well")
