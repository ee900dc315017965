"""`ionbeam report`: the daily report, as Markdown or HTML.

Belongs here: which day, and where it goes. Does not belong here: what it says (health/report.py).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ionbeam_dagster.cli.terminal import console, fail, load_config
from ionbeam_dagster.domain.times import parse_moment


def report(
    day: Annotated[str | None, typer.Option(help="The day (UTC), as 2026-06-21; by default the last one.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a page of HTML there, with pictures.")] = None,
) -> None:
    """Tell what came in a day, what is late, silent, doubted or set aside, what fails, and how full the disks are.

    Prints Markdown. What came is of that day; what is silent, fails or is full is so now.

    Example: `ionbeam report --day 2026-06-21 --html report.html`
    """
    from ionbeam_dagster.domain.windows import DAY, window_of
    from ionbeam_dagster.health.report import day_of
    from ionbeam_dagster.health.report import report as report_of
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    now = platform.now()
    asked = day_of(now) if day is None else window_of(_moment(day), DAY)
    if asked.start > now:
        fail(f"{asked.start:%Y-%m-%d} is still to come")
    made = report_of(platform, asked, now)
    if html is None:
        console.out(made.markdown, highlight=False, end="")
        return
    try:
        html.write_text(made.html, encoding="utf-8")
    except OSError as error:
        fail(f"{html}: cannot be written ({error.strerror}); name another place")
    console.print(f"{html} is written", highlight=False, markup=False)


def _moment(day: str) -> datetime:
    try:
        return parse_moment(day)
    except ValueError as error:
        fail(str(error))
