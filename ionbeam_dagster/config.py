"""The platform's YAML: what it says, what it leaves to defaults, and what is refused.

Belongs here: the file's structure, its checks and what follows from it (settings of sources and datasets). Does not
belong here: anything that connects, and the keys of one source (they stand with the source).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from ionbeam_client.models import Name, format_duration
from ionbeam_dagster.domain.cycles import check_nesting
from ionbeam_dagster.domain.quality.limits import Limits, limits_with
from ionbeam_dagster.domain.windows import Policy, check_span, window_of
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.exporters.bufr.settings import BufrSettings
from ionbeam_dagster.exporters.odb.settings import OdbCodes, VariableMapping
from ionbeam_dagster.sources import Source, SourceConfig, installed_sources
from ionbeam_dagster.stores.files import Location, S3Settings, is_address, uri_of

CONFIG_VARIABLE = "IONBEAM_CONFIG_PATH"
_SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_EXPORTS = ("odb", "bufr", "pygeoapi")
_CYCLES = "odb_cycle"
_DEFAULT_EXPORTS = ("odb", "pygeoapi")
_OF_THE_DATASET = (
    "aggregation_span", "subject_to_change_window", "lateness", "allow_incomplete", "debounce", "revise_for", "exports",
    "quality",
)  # fmt: skip
"""Keys that describe a dataset, and on which its sources must agree."""


def _partition(span: timedelta) -> timedelta:
    check_span(span)
    return span


def _writable(path: Path) -> Path:
    nearest = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ValueError(f"{path} is, or lies below, a file; a folder is needed")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"{path} cannot be written (no permission on {nearest}); choose a folder that can")
    return path


def _not_negative(age: timedelta) -> timedelta:
    if age < timedelta(0):
        raise ValueError(f"{format_duration(age)} is negative; right would be, for example, P30D")
    return age


def _writable_place(location: str) -> str:
    if not is_address(location):
        _writable(Path(location))
    return location


Age = Annotated[timedelta, AfterValidator(_not_negative)]
PartitionSpan = Annotated[timedelta, AfterValidator(_partition)]
Folder = Annotated[Path, AfterValidator(_writable)]
Place = Annotated[Location, AfterValidator(_writable_place)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Broker(_Section):
    """The message broker that clients share with the platform.

    `payload_path` is the folder, or ``s3://bucket/prefix``, where clients that share it may put rows too many for a
    message; a folder under `state_path` when it is not given.
    """

    url: str
    payload_path: str | None = None


class Redis(_Section):
    redis_url: str


class InfluxDB(_Section):
    influxdb_org: str
    influxdb_url: str
    influxdb_token: SecretStr
    influxdb_bucket: str


class DatasetAggregator(_Section):
    data_path: Place = "data"
    delete_after_export: bool = False


class SchedulerWindow(_Section):
    source_name: Name
    window_size: PartitionSpan
    trigger_interval: timedelta | None = None
    window_lag: timedelta | None = None


class Scheduler(_Section):
    windows: list[SchedulerWindow] = []


class PyGeoApiService(_Section):
    input_path: Location | None = None
    output_path: Place = "data-projections"
    config_path: Path | None = None


class OdbService(_Section):
    """`cycle_cut_off` is for datasets whose `exports` name ``odb_cycle``: how long after its end a cycle waits for its
    windows, and takes what is built anew."""

    input_path: Location | None = None
    output_path: Place = "data-projections"
    variable_map: list[VariableMapping] = []
    codes: OdbCodes = OdbCodes()
    cycle_cut_off: Age = timedelta(hours=1)


class BufrService(_Section):
    """BUFR is written for datasets whose `exports` name it; it needs the extra ``ionbeam-dagster[bufr]``."""

    input_path: Location | None = None
    output_path: Place = "data-projections"
    settings: BufrSettings = BufrSettings()


class Projections(_Section):
    pygeoapi_service: PyGeoApiService = PyGeoApiService()
    odb_service: OdbService = OdbService()
    bufr_service: BufrService = BufrService()


class Automation(_Section):
    """Whether and how often the platform looks for work by itself.

    `lookback` bounds how old a window may be that is collected without a person asking for it.
    """

    enabled: bool = True
    interval: int = Field(default=15, ge=5, description="seconds between two looks; Dagster's own loop takes five")
    lookback: timedelta = timedelta(hours=2)


class Retention(_Section):
    """How long what is not needed any more is kept; what is left out is kept for ever (docs/retention.md).

    `raw` and `observations` count from when their windows were sealed, `superseded` from when a newer revision took
    the place, `quarantine` from when rows came into it, `payloads` from when their rows became a raw partition. `every`
    is how often it is swept.
    """

    raw: Age | None = None
    observations: Age | None = None
    superseded: Age | None = None
    quarantine: Age | None = None
    payloads: Age | None = None
    every: PartitionSpan = timedelta(days=1)

    @field_validator("superseded")
    @classmethod
    def _readers_are_given_time(cls, age: timedelta | None) -> timedelta | None:
        if age is not None and age < timedelta(hours=1):
            raise ValueError(f"{format_duration(age)} is too short: somebody may still read the file; PT1H or longer")
        return age


class Sections(_Section):
    """The YAML without its source blocks."""

    broker: Broker | None = None
    redis: Redis | None = None
    influxdb_common: InfluxDB | None = None
    s3: S3Settings = S3Settings()
    dataset_aggregator: DatasetAggregator = DatasetAggregator()
    scheduler: Scheduler = Scheduler()
    projections: Projections = Projections()
    automation: Automation = Automation()
    retention: Retention = Retention()
    state_path: Folder = Path("ionbeam-state")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One source as the YAML and the scheduler's windows describe it."""

    name: str
    type: type[Source]
    config: SourceConfig
    window_size: timedelta
    trigger_interval: timedelta
    window_lag: timedelta

    @property
    def dataset(self) -> str:
        return self.config.dataset or self.name

    @property
    def kind(self) -> Literal["pull", "external"]:
        return self.config.kind

    @property
    def start(self) -> datetime:
        return self.config.start

    @property
    def end(self) -> datetime | None:
        return self.config.end


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
    cycles: bool = False
    """Whether there is also a file an analysis cycle."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Of quality control, by standard name; empty when it is off."""

    @property
    def encodings(self) -> tuple[str, ...]:
        """The formats in which there are files, a window or a cycle each."""
        return self.exports if "odb" in self.exports or not self.cycles else (*self.exports, "odb")


@dataclass(frozen=True, slots=True)
class IonbeamConfig:
    """A checked configuration."""

    path: Path
    sections: Sections
    sources: dict[str, SourceSettings]
    datasets: dict[str, DatasetSettings]

    @property
    def automation(self) -> Automation:
        return self.sections.automation

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read the YAML at `path`, at ``$IONBEAM_CONFIG_PATH``, or the shipped default, which needs no server.

        Raises ConfigError with every fault that was found, a line each.
        """
        place = path or _configured_path()
        blocks = _read(place)
        return cls(place, *_understand(place, blocks))

    def notes(self) -> list[str]:
        """What a person should know about this configuration although it is valid."""
        notes = self._notes_of_retention()
        service = self.sections.projections.pygeoapi_service
        if service.config_path is not None and find_spec("pygeoapi") is None:
            notes.append(
                "projections.pygeoapi_service.config_path is set, but PyGeoAPI is not installed: its "
                "configuration is not written; pip install 'ionbeam-dagster[edr]'"
            )
        return notes

    def _notes_of_retention(self) -> list[str]:
        kept = self.sections.retention
        after_sealing = [key for key in ("raw", "observations") if getattr(kept, key) is not None]
        open_ended = [name for name, dataset in self.datasets.items() if dataset.policy.revise_for is None]
        if not after_sealing or not open_ended:
            return []
        return [
            f"retention.{' and retention.'.join(after_sealing)} count from when a window is sealed, but windows of "
            f"{', '.join(open_ended)} never are by themselves: give it revise_for, or use `ionbeam seal`"
        ]


def _configured_path() -> Path:
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else Path(str(files("ionbeam_dagster") / "default.yaml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); set {CONFIG_VARIABLE} to your YAML") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: should hold sections such as 'sources:' and 'projections:'")
    missing: list[str] = []
    filled: dict[str, Any] = _fill_secrets(content, missing)
    if missing:
        raise ConfigError(
            f"{path}: the environment has no {', '.join(sorted(set(missing)))}; set it, it is used as ${{...}} there"
        )
    return filled


def _fill_secrets(value: Any, missing: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill_secrets(inner, missing) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill_secrets(inner, missing) for inner in value]
    if isinstance(value, str):
        missing += [name for name in _SECRET.findall(value) if name not in os.environ]
        return _SECRET.sub(lambda match: os.environ.get(match[1], ""), value)
    return value


def _understand(
    path: Path, content: dict[str, Any]
) -> tuple[Sections, dict[str, SourceSettings], dict[str, DatasetSettings]]:
    installed = installed_sources()
    blocks = dict(content)
    nested = dict(blocks.pop("sources", None) or {})
    if "scheduler" in nested:
        blocks["scheduler"] = nested.pop("scheduler")
    at_top = {name: blocks.pop(name) for name in list(blocks) if name in installed}
    twice = sorted(set(nested) & set(at_top))
    faults = [f"{name}: stands under 'sources:' and at the top level; keep one of them" for name in twice]
    sections, section_faults = _validated(Sections, blocks, "")
    faults += section_faults
    configs: dict[str, tuple[type[Source], SourceConfig]] = {}
    for name, block in (nested | at_top).items():
        key = f"sources.{name}" if name in nested else name
        source_type = _type_of(name, block)
        if source_type in installed:
            try:
                loaded: type[Source] = installed[source_type].load()
            except Exception as error:
                faults.append(f"{key}: the source {installed[source_type].value} cannot be imported ({error})")
                continue
            config, block_faults = _validated(loaded.Config, block or {}, key)
            faults += block_faults
            if config is not None:
                configs[name] = (loaded, config)
        else:
            faults.append(
                f"{key}: no source of type {source_type!r} is installed; known are {', '.join(sorted(installed))} "
                "(give the block a 'type:', or remove it)"
            )
    if sections is not None and not faults:
        sources, source_faults = _sources(sections, configs)
        datasets, dataset_faults = _datasets(sources)
        faults += source_faults + dataset_faults + _path_faults(sections) + _retention_faults(sections)
        faults += _cycle_faults(sections, datasets) + _bulletin_faults(sections, datasets)
    if faults or sections is None:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    return sections, sources, datasets


def _type_of(name: str, block: Any) -> str:
    """The source type of a block: what it says, else the block's own name, unless a client is to send it."""
    if not isinstance(block, dict):
        return name
    return str(block.get("type", "external" if block.get("kind") == "external" else name))


def _validated(model: type[BaseModel], block: Any, key: str) -> tuple[Any, list[str]]:
    try:
        return model.model_validate(block), []
    except ValidationError as error:
        return None, [_fault(found, key, model) for found in error.errors()]


def _fault(found: Any, key: str, model: type[BaseModel]) -> str:
    place = ".".join([key, *map(str, found["loc"])]).strip(".")
    if found["type"] == "extra_forbidden":
        allowed = _fields_at(model, found["loc"][:-1])
        return f"{place}: this key is not known" + (f"; known are {', '.join(allowed)}" if allowed else "")
    if found["type"] in ("time_delta_parsing", "time_delta_type"):
        return f"{place}: {found['input']!r} is not a duration; right would be, for example, PT5M, PT1H or P1D"
    message = str(found["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}"


def _fields_at(model: Any, place: tuple[str | int, ...]) -> list[str]:
    for step in place:
        if isinstance(step, int):
            continue
        field = getattr(model, "model_fields", {}).get(step)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return sorted(getattr(model, "model_fields", {}))


def _sources(
    sections: Sections, configs: dict[str, tuple[type[Source], SourceConfig]]
) -> tuple[dict[str, SourceSettings], list[str]]:
    scheduled = {window.source_name: window for window in sections.scheduler.windows}
    faults = [
        f"sources.scheduler.windows: {name!r} has no block; add one with its settings (an empty one will do), "
        "or remove the window"
        for name in scheduled
        if name not in configs
    ]
    settings: dict[str, SourceSettings] = {}
    for name, (source, config) in configs.items():
        window = scheduled.get(name)
        size = window.window_size if window else source.default_window
        interval = (window.trigger_interval if window else None) or size
        lag = window.window_lag if window and window.window_lag is not None else source.default_lag
        settings[name] = SourceSettings(name, source, config, size, interval, lag)
        faults += _time_faults(settings[name])
    return settings, faults


def _time_faults(source: SourceSettings) -> list[str]:
    faults = []
    key = f"sources.{source.name}"
    if source.end is not None and source.end <= source.start:
        faults.append(f"{key}.end: {source.end} is not later than start {source.start}")
    try:
        check_span(source.config.aggregation_span or source.type.default_span)
    except ValueError as error:
        faults.append(f"{key}.aggregation_span: {error}")
    unknown = sorted(set(source.config.exports or ()) - {*_EXPORTS, _CYCLES})
    if unknown:
        faults.append(f"{key}.exports: {', '.join(unknown)} not known; choose from {', '.join((*_EXPORTS, _CYCLES))}")
    if "bufr" in (source.config.exports or ()) and find_spec("eccodes") is None:
        faults.append(f"{key}.exports: bufr needs eccodes; pip install 'ionbeam-dagster[bufr]'")
    try:
        _writable_place(source.config.data_path)
    except ValueError as error:
        faults.append(f"{key}.data_path: {error}")
    return faults


def _datasets(sources: dict[str, SourceSettings]) -> tuple[dict[str, DatasetSettings], list[str]]:
    feeding: dict[str, list[SourceSettings]] = {}
    for source in sources.values():
        feeding.setdefault(source.dataset, []).append(source)
    datasets: dict[str, DatasetSettings] = {}
    faults: list[str] = []
    for name, feeders in feeding.items():
        faults += _disagreements(name, feeders)
        span = _agreed(feeders, "aggregation_span") or feeders[0].type.default_span
        faults += [
            f"sources.{feeder.name}: its window of {format_duration(feeder.window_size)} neither divides the "
            f"aggregation_span {format_duration(span)} of dataset {name!r} nor is a multiple of it; choose another"
            for feeder in feeders
            if span % feeder.window_size and feeder.window_size % span
        ]
        exports = _DEFAULT_EXPORTS if (said := _agreed(feeders, "exports")) is None else said
        datasets[name] = DatasetSettings(
            name=name,
            sources=tuple(sorted(feeder.name for feeder in feeders)),
            span=span,
            start=window_of(min(feeder.start for feeder in feeders), span).start,
            end=_latest_end(feeders),
            policy=_policy(feeders),
            exports=tuple(format for format in exports if format != _CYCLES),
            cycles=_CYCLES in exports,
            limits={} if (quality := _agreed(feeders, "quality")) is False else limits_with(quality or {}),
        )
        faults += _policy_faults(name, datasets[name].policy)
    return datasets, faults


def _policy(feeders: list[SourceSettings]) -> Policy:
    lateness = _agreed(feeders, "lateness")
    said = [feeder.config for feeder in feeders if "allow_incomplete" in feeder.config.model_fields_set]
    return Policy(
        sources=tuple(sorted(feeder.name for feeder in feeders)),
        subject_to_change=_agreed(feeders, "subject_to_change_window") or timedelta(0),
        allow_incomplete=(said or [feeders[0].config])[0].allow_incomplete,
        revise_for=_agreed(feeders, "revise_for"),
        lateness=timedelta(0) if lateness in (None, "p95") else lateness,
        lateness_measured=lateness == "p95",
        debounce=_agreed(feeders, "debounce") or timedelta(0),
    )


def _policy_faults(dataset: str, policy: Policy) -> list[str]:
    """What of a policy cannot come true: a window that is sealed before it is built, or while it is debounced."""
    if policy.revise_for is None:
        return []
    waits = {
        "subject_to_change_window": policy.subject_to_change, "lateness": policy.lateness, "debounce": policy.debounce,
    }  # fmt: skip
    name, longest = max(waits.items(), key=lambda wait: wait[1])
    if longest < policy.revise_for:
        return []
    return [
        f"dataset {dataset!r}: revise_for {format_duration(policy.revise_for)} is not longer than {name} "
        f"{format_duration(longest)}: a window would be sealed before a correction can be built; lengthen revise_for"
    ]


def _agreed(feeders: list[SourceSettings], key: str) -> Any:
    return next((value for f in feeders if (value := getattr(f.config, key)) is not None), None)


def _disagreements(dataset: str, feeders: list[SourceSettings]) -> list[str]:
    faults = []
    for key in _OF_THE_DATASET:
        said = {f.name: getattr(f.config, key) for f in feeders if key in f.config.model_fields_set}
        if any(value != next(iter(said.values())) for value in said.values()):
            faults.append(f"dataset {dataset!r}: {', '.join(said)} disagree about {key}; let them say the same")
    return faults


def _latest_end(feeders: list[SourceSettings]) -> datetime | None:
    ends = [feeder.end for feeder in feeders]
    return None if None in ends else max(end for end in ends if end is not None)


def _retention_faults(sections: Sections) -> list[str]:
    if sections.retention.observations is None or sections.influxdb_common is None:
        return []
    return [
        "retention.observations: observations are in InfluxDB, whose bucket has a retention of its own; set it there "
        "(influx bucket update --retention), and leave this key out"
    ]


def _cycle_faults(sections: Sections, datasets: dict[str, DatasetSettings]) -> list[str]:
    """Windows of which some would be in two analysis cycles, or that would all be late for theirs."""
    faults = []
    cut_off = sections.projections.odb_service.cycle_cut_off
    for name, dataset in datasets.items():
        if not dataset.cycles:
            continue
        try:
            check_nesting(dataset.span)
        except ValueError as error:
            faults.append(f"dataset {name!r}: exports has {_CYCLES}, but aggregation_span {error}")
        wait = max(dataset.policy.subject_to_change, dataset.policy.lateness)
        if wait >= cut_off:
            faults.append(
                f"projections.odb_service.cycle_cut_off: {format_duration(cut_off)} is not longer than the "
                f"{format_duration(wait)} that windows of {name!r} wait for what is still to come: each cycle would "
                "lack its last windows; lengthen it"
            )
    return faults


def _bulletin_faults(sections: Sections, datasets: Mapping[str, DatasetSettings]) -> list[str]:
    """A message switch knows a bulletin by its heading and time: two datasets may not send under one heading."""
    settings = sections.projections.bufr_service.settings
    place = "projections.bufr_service.settings.headings"
    sending = [name for name, dataset in datasets.items() if "bufr" in dataset.exports]
    faults = [
        f"{place}: no dataset {name!r} writes BUFR; those that do are {', '.join(sending) or 'none'}"
        for name in settings.headings
        if name not in sending
    ]
    if settings.cccc is None:
        return faults
    under: dict[str, list[str]] = {}
    for name in sending:
        under.setdefault(settings.heading_of(name), []).append(name)
    return faults + [
        f"{place}: {' and '.join(names)} would send bulletins of the same names, {heading} {settings.cccc}; give each "
        f"dataset a heading of its own, for example {names[-1]}: {heading[:4]}{(int(heading[4:]) + 1) % 100:02}"
        for heading, names in under.items()
        if len(names) > 1
    ]


def _path_faults(sections: Sections) -> list[str]:
    written = sections.dataset_aggregator.data_path
    services = {
        "pygeoapi_service": sections.projections.pygeoapi_service.input_path,
        "odb_service": sections.projections.odb_service.input_path,
        "bufr_service": sections.projections.bufr_service.input_path,
    }
    return [
        f"projections.{name}.input_path: {path} is not where datasets are written; right would be {written} "
        "(dataset_aggregator.data_path), or leave it out"
        for name, path in services.items()
        if path is not None and uri_of(path) != uri_of(written)
    ]
