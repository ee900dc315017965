"""The daily report: what a chief reads in a minute, as Markdown and as HTML.

Belongs here: what it says, of which day, and both forms. Does not belong here: how each is reckoned
(pipeline/lately.py, domain/silence.py, pipeline/agenda), or who gets it (orchestration/assets/report.py).

Everything that comes from outside is text in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ionbeam_client.text import markdown
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.silence import Told
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import DAY, Window, window_of
from ionbeam_dagster.health import disks
from ionbeam_dagster.health.heard_page import page, picture, table, text
from ionbeam_dagster.health.heard_words import doubted, named, percent
from ionbeam_dagster.pictures.words import counted
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.freshness import dataset_is_late, source_is_late
from ionbeam_dagster.pipeline.heard import up_to_date
from ionbeam_dagster.pipeline.lately import Lately, lately
from ionbeam_dagster.pipeline.platform import Platform

_LOOKED_AT = ("Stations that fell silent", "What fails, or is late", "Disks")
_NAMED = 20
_FAILING = 10
_ENOUGH = 0.9
_SOURCES = ("source", "rows", "set aside", "collected", "late (95 %)", "stations", "silent", "doubted")
_DATASETS = ("dataset", "windows built", "of them incomplete", "values", "suspect", "bad", "exported")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, lines, and a table (headings and rows), which may be empty."""

    heading: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to say of a day: `verdict` in one sentence, then the sections; `heard` is of now, by source."""

    day: Window
    verdict: str
    sections: tuple[Section, ...]
    heard: dict[str, Told]

    @property
    def title(self) -> str:
        return f"Ionbeam: report of {self.day.start:%Y-%m-%d}"

    @property
    def markdown(self) -> str:
        return "\n\n".join([f"# {self.title}", markdown(self.verdict), *map(_in_markdown, self.sections)]) + "\n"

    @property
    def text(self) -> str:
        """For a chat: the verdict, and what is to be looked at."""
        told = [line for section in self.sections if section.heading in _LOOKED_AT for line in section.lines]
        counted = [dict(zip(_SOURCES, row, strict=True)) for row in self.sections[0].rows]
        rows = [
            f"{one['source']}: {one['rows']} rows; {one['set aside']} set aside, whole or a value of them"
            for one in counted
        ]
        return "\n".join([self.verdict, *rows, *told])

    @property
    def html(self) -> str:
        parts = [f"<p><b>{text(self.verdict)}</b></p>"]
        for section in self.sections:
            parts.append(f"<h2>{text(section.heading)}</h2>")
            parts += [f"<p>{text(line)}</p>" for line in section.lines]
            if section.rows:
                parts.append(table(section.columns, section.rows))
        parts += [picture(source, told) for source, told in self.heard.items()]
        return page(self.title, parts)


def report(platform: Platform, day: Window, now: datetime) -> Report:
    """The report of a day; of one that is not over, until `now`. What is silent, fails or is full is so now."""
    at = min(day.end, now)
    sources = {name: lately(platform, one, at) for name, one in platform.config.sources.items()}
    heard = {name: found for name in sources if (found := up_to_date(platform, name)) is not None}
    troubles = [*_late(platform, now), *_silent_sources(platform)]
    lacking = list(_lacking(platform, sources.values()))
    refused = {name: rows for name in platform.config.datasets if (rows := _refused(platform, name, at))}
    sections = (
        Section("Sources", (), _SOURCES, tuple(_of_source(one, heard.get(name)) for name, one in sources.items())),
        Section("Datasets", (), _DATASETS, tuple(_of_dataset(platform, one, Window(day.start, at))
                for one in platform.config.datasets.values() if at > day.start)),
        Section("Stations that fell silent", tuple(_silent_stations(heard)) or ("None.",)),
        Section("Rows that were set aside",
                (*_aside(heard), *_refused_in_words(refused)) or ("None in the last day.",)),
        Section("Values that are doubted", tuple(_doubted(heard)) or ("None was judged in the last day.",)),
        Section("What fails, or is late", (*troubles, *lacking, *_failing(platform, now)) or ("Nothing.",)),
        Section("Disks", tuple(_disks(platform)) or ("None of this machine is written to.",)),
    )  # fmt: skip
    silent = sum(one.silent.height for one in heard.values())
    failing = len(agenda.overdue(platform, now))
    wrong = [
        *([counted(len(troubles), "late source or dataset")] if troubles else []),
        *([counted(len(lacking), "incomplete source")] if lacking else []),
        *([counted(sum(refused.values()), "refused row")] if refused else []),
        *([counted(failing, "failing window")] if failing else []),
        *([counted(silent, "silent station")] if silent else []),
    ]
    rows = sum(one.rows for one in sources.values())
    verdict = f"{rows:,} rows came. " + (
        f"To look at: {'; '.join(wrong)}." if wrong else "Everything is as it should be."
    )
    return Report(day, verdict, sections, heard)


def day_of(now: datetime) -> Window:
    """The day that ended last."""
    return window_of(now - DAY, DAY)


def _of_source(one: Lately, found: Told | None) -> tuple[str, ...]:
    stations = ("", "", "") if found is None else (
        f"{found.heard:,}", f"{found.silent.height:,}", doubted(found)
    )  # fmt: skip
    return (
        one.source,
        f"{one.rows:,}",
        f"{one.set_aside:,}",
        "" if one.completeness is None else percent(one.completeness),
        "" if one.latest is None else in_short(one.latest),
        *stations,
    )


def _of_dataset(platform: Platform, dataset: DatasetSettings, day: Window) -> tuple[str, ...]:
    built = {one.revision.window: one for one in platform.ledger.revisions(dataset.name, day.start, day.end)}
    flags: Counter[str] = Counter()
    for one in built.values():
        for counts in one.facts.flags.values():
            flags.update(counts)
    made = platform.ledger.exports(dataset.name, list(built), list(dataset.exports))
    current = sum(one.number == built[one.window].revision.number for one in made)
    expected = len(built) * len(dataset.exports)
    judged = flags["pass"] + flags["suspect"] + flags["fail"]
    return (
        dataset.name,
        f"{len(built):,} of {-(-day.span // dataset.span):,}",
        f"{sum(not one.facts.complete for one in built.values()):,}",
        f"{judged:,}",
        *(f"{flags[kind] / max(judged, 1):.1%}" for kind in ("suspect", "fail")),
        f"{current / expected:.1%}" if expected else "",
    )


def _silent_stations(heard: dict[str, Told]) -> Iterator[str]:
    for source, found in heard.items():
        silent = found.silent
        if silent.height:
            first = silent.head(_NAMED).select("station", "last").iter_rows()
            told = ", ".join(f"{station} ({last:%m-%d %H:%M})" for station, last in first)
            more = f" and {silent.height - _NAMED:,} more" if silent.height > _NAMED else ""
            yield f"{source}, {silent.height:,} of {found.heard:,} (last heard): {told}{more}"


def _aside(heard: dict[str, Told]) -> Iterator[str]:
    return (f"{source}{named(one.aside)}" for source, one in heard.items() if one.aside.height)


def _refused(platform: Platform, dataset: str, at: datetime) -> int:
    return platform.quarantine.refused_since(dataset, at - DAY)


def _refused_in_words(refused: dict[str, int]) -> Iterator[str]:
    for dataset, rows in refused.items():
        yield (
            f"{dataset}: {counted(rows, 'row')} refused by the time-series server; `ionbeam quarantine list` tells of "
            "which windows, and why"
        )


def _lacking(platform: Platform, sources: Iterable[Lately]) -> Iterator[str]:
    """Sources of whose day less was collected than is told in alerts, or than nine tenths."""
    alerts = platform.config.sections.alerts
    wanted = _ENOUGH if alerts is None or alerts.completeness is None else alerts.completeness
    for one in sources:
        if one.completeness is not None and one.completeness < wanted:
            yield (
                f"{one.source}: {percent(one.completeness)} of the day was collected; `ionbeam gaps {one.source}` "
                "shows each gap, and how it is filled"
            )


def _doubted(heard: dict[str, Told]) -> Iterator[str]:
    for source, one in heard.items():
        if one.judged:
            yield f"{source}, {doubted(one)} of {one.judged:,} values{named(one.tests)}"


def _late(platform: Platform, now: datetime) -> Iterator[str]:
    late = {name: source_is_late(platform, one, now) for name, one in platform.config.sources.items()}
    yield from (f"{name}: {why}" for name, why in late.items() if why is not None)
    for dataset in platform.config.datasets.values():
        why = dataset_is_late(platform, dataset, now)
        if why is not None and not any(why == f"{name}: {source}" for name, source in late.items()):
            yield f"{dataset.name}: {why}"


def _silent_sources(platform: Platform) -> Iterator[str]:
    for source, silence in agenda.silent(platform).items():
        yield f"{source} does not answer since {silence.since:%Y-%m-%d %H:%M}"


def _failing(platform: Platform, now: datetime) -> Iterator[str]:
    overdue = agenda.alike(agenda.overdue(platform, now))
    yield from (agenda.in_words(platform, alike) for alike in overdue[:_FAILING])
    if len(overdue) > _FAILING:
        yield f"and {sum(map(len, overdue[_FAILING:])):,} more windows: `ionbeam status`"


def _disks(platform: Platform) -> Iterator[str]:
    for disk in disks.disks(platform):
        full = " - nearly full" if max(disk.used, disk.inodes) > disks.NEARLY else ""
        yield f"{disk.folder}: {disk.used:.0%} used, {disk.free / 1e9:,.1f} GB free{full}"


def _in_markdown(section: Section) -> str:
    lines = [f"## {section.heading}", *(f"- {markdown(line)}" for line in section.lines)]
    if section.rows:
        lines += ["", *_table_in_markdown(section.columns, section.rows)]
    return "\n".join(lines)


def _table_in_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for line in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(markdown(cell) for cell in line) + " |"
