"""What follows from the YAML: the sources and datasets that it describes, with their windows and policies.

Belongs here: which block is which source, which sources feed which dataset, and what holds where the YAML says nothing.
Does not belong here: whether what follows can work (checks.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ionbeam_client.models import Name, format_duration
from ionbeam_dagster.config.sections import Sections
from ionbeam_dagster.config.validation import validated
from ionbeam_dagster.domain.decisions import Policy
from ionbeam_dagster.domain.privacy import Privacy
from ionbeam_dagster.domain.quality.limits import Limits, limits_with
from ionbeam_dagster.domain.windows import Window, window_of
from ionbeam_dagster.exporters import BY_DEFAULT, WEB
from ionbeam_dagster.sources import SENT_KINDS, Source, SourceConfig, installed_sources

_OF_THE_DATASET = (
    "aggregation_span", "subject_to_change_window", "lateness", "allow_incomplete", "debounce", "revise_for", "exports",
    "quality", "privacy",
)  # fmt: skip
"""Keys that describe a dataset, and on which its sources must agree."""

USUAL_DEADLINE = timedelta(minutes=5)
"""A window that is longer than this has so long to be collected, unless its source says otherwise."""


_NAME = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One source as the YAML and the scheduler's windows describe it."""

    name: str
    type: type[Source]
    config: SourceConfig
    window_size: timedelta
    trigger_interval: timedelta
    window_lag: timedelta
    first_time: datetime | None = None
    """The time of its first observation, where the YAML has no `start` and the source knows it."""

    @property
    def dataset(self) -> str:
        return self.config.dataset or self.name

    @property
    def network(self) -> str:
        """Whose ids its stations have: sources of one network name a station alike."""
        return self.type.network or self.name

    @property
    def station_prefix(self) -> str:
        return self.config.station_prefix or ""

    @property
    def kind(self) -> Literal["pull", "external", "door"]:
        return self.config.kind

    @property
    def sent(self) -> bool:
        """Whether its observations are brought to the platform, over the broker or at a door."""
        return self.config.kind != "pull"

    @property
    def deadline(self) -> timedelta:
        """How long the collection of one window may take."""
        return self.config.deadline or self.type.default_deadline or min(self.window_size, USUAL_DEADLINE)

    @property
    def tells_changes(self) -> bool:
        return self.type.tells_changes

    @property
    def corrects(self) -> bool:
        return self.type.corrects

    @property
    def start(self) -> datetime:
        return self.first_time or self.config.start

    @property
    def end(self) -> datetime | None:
        return self.config.end

    def left_out(self, extent: Window | None, now: datetime) -> list[str]:
        """What of the source's `extent` lies before `start` or after `end`, and is therefore never collected; and what
        lies so far in the future that it is set aside."""
        lines = []
        if extent is not None and extent.start < self.start:
            takes = f"an earlier sources.{self.name}.start takes them"
            if self.first_time is not None:
                takes = (
                    "they are taken once the configuration is read again, or, where they stand alone a year before all "
                    f"others as those of a clock that was not set, by sources.{self.name}.start"
                )
            lines.append(
                f"has observations from {extent.start:%Y-%m-%d %H:%M} on, and those before its start "
                f"{self.start:%Y-%m-%d %H:%M} are left out; {takes}"
            )
        if extent is not None and self.end is not None and extent.end > self.end:
            lines.append(
                f"has observations until {extent.end:%Y-%m-%d %H:%M}, and those after its end "
                f"{self.end:%Y-%m-%d %H:%M} are left out; a later sources.{self.name}.end takes them"
            )
        elif extent is not None and extent.end > now + self.config.future_tolerance:
            lines.append(
                f"has observations until {extent.end:%Y-%m-%d %H:%M}; those further in the future than "
                f"{format_duration(self.config.future_tolerance)} (sources.{self.name}.future_tolerance) are set aside "
                f"beside their neighbours: correct the clock that wrote them; `ionbeam quarantine show {self.name}` "
                "shows them"
            )
        return lines


@dataclass(frozen=True, slots=True)
class DatasetSettings:
    """One dataset: the sources that feed it, its windows and where they go."""

    name: str
    sources: tuple[str, ...]
    span: timedelta
    start: datetime
    end: datetime | None
    policy: Policy
    exports: tuple[str, ...]
    """The formats of which there is a file a window."""
    cycle_exports: tuple[str, ...] = ()
    """The formats of which there is a file an analysis cycle."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Of quality control, by standard name; empty when it is off."""
    privacy: Privacy | None = None
    """What others see of it; None: all, as it is."""

    @property
    def formats(self) -> tuple[str, ...]:
        """All formats, of files a window and a cycle."""
        return (*self.exports, *self.cycle_exports)


def split(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The platform's own sections, the blocks of sources by the keys at which they stand, and what is wrong with them.

    A source's block stands under ``sources:`` or, where it bears the name of a source type, at the top level.
    """
    sections = dict(content)
    given = sections.pop("sources", None) or {}
    if not isinstance(given, dict):
        return sections, {}, ["sources: should hold a block for each source, by its name"]
    nested = dict(given)
    if "scheduler" in nested:
        sections["scheduler"] = nested.pop("scheduler")
    at_top = {name: sections.pop(name) for name in list(sections) if name in installed_sources()}
    twice = sorted(set(nested) & set(at_top))
    faults = [f"{name}: stands under 'sources:' and at the top level; keep one of them" for name in twice]
    return sections, {f"sources.{name}": block for name, block in nested.items()} | at_top, faults


def source_configs(blocks: Mapping[str, Any]) -> tuple[dict[str, tuple[type[Source], SourceConfig]], list[str]]:
    """The type and the settings of each source, by name; and what is wrong with the blocks."""
    installed = installed_sources()
    configs: dict[str, tuple[type[Source], SourceConfig]] = {}
    faults: list[str] = []
    for key, block in blocks.items():
        name = key.removeprefix("sources.")
        if not _is_name(name):
            faults.append(f"{key}: {name!r} cannot be a source's name; use letters, digits and '_', a letter first")
            continue
        if (source_type := _type_of(name, block)) not in installed:
            faults.append(
                f"{key}: no source of type {source_type!r} is installed; known are {', '.join(sorted(installed))} "
                "(give the block a 'type:', or remove it)"
            )
            continue
        try:
            loaded: type[Source] = installed[source_type].load()
        except Exception as error:
            faults.append(f"{key}: the source {installed[source_type].value} cannot be imported ({error})")
            continue
        config, block_faults = validated(loaded.Config, block or {}, key)
        faults += block_faults
        if config is not None:
            configs[name] = loaded, config
    return configs, faults


def _is_name(name: str) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True


def _type_of(name: str, block: Any) -> str:
    """The source type of a block: what it says, else its kind where clients send it, else the block's own name."""
    if not isinstance(block, dict):
        return name
    kind = block.get("kind")
    return str(block.get("type", kind if kind in SENT_KINDS else name))


def resolve_sources(
    sections: Sections, configs: dict[str, tuple[type[Source], SourceConfig]]
) -> tuple[dict[str, SourceSettings], list[str]]:
    """The sources with their windows, and what is wrong with the windows."""
    scheduled = {window.source_name: window for window in sections.scheduler.windows}
    faults = [
        f"sources.scheduler.windows: {name!r} has no block; add one with its settings (an empty one will do), "
        "or remove the window"
        for name in scheduled
        if name not in configs
    ]
    counted = Counter(window.source_name for window in sections.scheduler.windows)
    faults += [
        f"sources.scheduler.windows: {name!r} stands there {times} times; keep one of them"
        for name, times in counted.items()
        if times > 1
    ]
    settings: dict[str, SourceSettings] = {}
    for name, (source, config) in configs.items():
        window = scheduled.get(name)
        size = window.window_size if window else source.default_window
        interval = (window.trigger_interval if window else None) or size
        lag = window.window_lag if window and window.window_lag is not None else source.default_lag
        first = None if "start" in config.model_fields_set else source.first_time(name, config)
        settings[name] = SourceSettings(name, source, config, size, interval, lag, first)
    return settings, faults


def resolve_datasets(
    sources: dict[str, SourceSettings], of_cycles: Container[str]
) -> tuple[dict[str, DatasetSettings], list[str]]:
    """The datasets that the sources feed, and on what their sources do not agree.

    The formats `of_cycles` have a file an analysis cycle, all others one a window.
    """
    feeding: dict[str, list[SourceSettings]] = {}
    for source in sources.values():
        feeding.setdefault(source.dataset, []).append(source)
    datasets: dict[str, DatasetSettings] = {}
    faults: list[str] = []
    for name, feeders in feeding.items():
        faults += _disagreements(name, feeders)
        faults += _stations_of_one_id(name, feeders)
        span = _agreed(feeders, "aggregation_span") or feeders[0].type.default_span
        faults += [
            f"sources.{feeder.name}: its window of {format_duration(feeder.window_size)} neither divides the "
            f"aggregation_span {format_duration(span)} of dataset {name!r} nor is a multiple of it; choose another"
            for feeder in feeders
            if span % feeder.window_size and feeder.window_size % span
        ]
        may_be_given = all(feeder.config.redistribution for feeder in feeders)
        exports = BY_DEFAULT if (given := _agreed(feeders, "exports")) is None else given
        exports = tuple(format for format in exports if may_be_given or format != WEB)
        datasets[name] = DatasetSettings(
            name=name,
            sources=tuple(sorted(feeder.name for feeder in feeders)),
            span=span,
            start=window_of(min(feeder.start for feeder in feeders), span).start,
            end=_latest_end(feeders),
            policy=_policy(feeders),
            exports=tuple(format for format in exports if format not in of_cycles),
            cycle_exports=tuple(format for format in exports if format in of_cycles),
            limits={} if (quality := _agreed(feeders, "quality")) is False else limits_with(quality or {}),
            privacy=_agreed(feeders, "privacy"),
        )
    return datasets, faults


def _policy(feeders: list[SourceSettings]) -> Policy:
    lateness = _agreed(feeders, "lateness")
    given = [feeder.config for feeder in feeders if "allow_incomplete" in feeder.config.model_fields_set]
    return Policy(
        sources=tuple(sorted(feeder.name for feeder in feeders)),
        subject_to_change=_agreed(feeders, "subject_to_change_window") or timedelta(0),
        allow_incomplete=(given or [feeders[0].config])[0].allow_incomplete,
        revise_for=_agreed(feeders, "revise_for"),
        lateness=timedelta(0) if lateness in (None, "p95") else lateness,
        lateness_measured=lateness == "p95",
        debounce=_agreed(feeders, "debounce") or timedelta(0),
        at_door=frozenset(feeder.name for feeder in feeders if feeder.kind == "door"),
    )


def _agreed(feeders: list[SourceSettings], key: str) -> Any:
    return next((value for f in feeders if (value := getattr(f.config, key)) is not None), None)


def _disagreements(dataset: str, feeders: list[SourceSettings]) -> list[str]:
    faults = []
    for key in _OF_THE_DATASET:
        given = {f.name: getattr(f.config, key) for f in feeders if key in f.config.model_fields_set}
        if any(value != next(iter(given.values())) for value in given.values()):
            faults.append(f"dataset {dataset!r}: {', '.join(given)} disagree about {key}; let them say the same")
    return faults


def _stations_of_one_id(dataset: str, feeders: list[SourceSettings]) -> list[str]:
    """Of which networks nobody says whether their stations are those of others that feed the dataset."""
    unsaid: dict[str, str] = {}
    for feeder in feeders:
        if feeder.config.station_prefix is None:
            unsaid.setdefault(feeder.network, feeder.name)
    first, *others = unsaid.values() or [""]
    return [
        f"dataset {dataset!r}: {first} and {other} feed it, and a station of each may have the same id. Say in the "
        f"block of {other} that its stations are others (station_prefix: {other}-), or those of {first} "
        '(station_prefix: "")'
        for other in others
    ]


def _latest_end(feeders: list[SourceSettings]) -> datetime | None:
    ends = [feeder.end for feeder in feeders]
    return None if None in ends else max(end for end in ends if end is not None)
