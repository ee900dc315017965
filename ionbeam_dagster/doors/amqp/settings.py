"""What the bus has to know of the configuration.

Belongs here: plain records that follow from the YAML, and how they follow. Does not belong here: the YAML (config), or
any connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ionbeam_client.models import DatasetMetadata, format_duration
from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.windows import Window, window_of, windows_between
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import Files
from ionbeam_dagster.stores.raw import RawStore

MOST_WINDOWS = 10_000
"""Windows of its source, and of its dataset, that one command may touch."""


class OutOfRange(ValueError):
    """A range has no windows in a source's time; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class SourceRange:
    """The windows of a source: they begin at `start`, and end before `end` if there is one. `finest` is the length of
    the shortest windows that a command touches, of the source or of its dataset."""

    source: str
    window_size: timedelta
    finest: timedelta
    start: datetime
    end: datetime | None

    def windows(self, start: datetime, end: datetime, now: datetime) -> list[Window]:
        """The source's windows that [start, end) touches; raises OutOfRange when there are none, or too many."""
        if end <= self.start:
            raise OutOfRange(
                f"the range ends at {end:%Y-%m-%dT%H:%MZ}, before source {self.source!r} begins; set "
                f"sources.{self.source}.start (now {self.start:%Y-%m-%dT%H:%MZ}) in the platform's YAML, then requeue"
            )
        if self.end is not None and start >= self.end:
            raise OutOfRange(
                f"the range begins at {start:%Y-%m-%dT%H:%MZ}, after source {self.source!r} has ended; set "
                f"sources.{self.source}.end (now {self.end:%Y-%m-%dT%H:%MZ}) in the platform's YAML, then requeue"
            )
        if start > now:
            raise OutOfRange(
                f"the range begins at {start:%Y-%m-%dT%H:%MZ}, in the future (here it is {now:%Y-%m-%dT%H:%MZ}); check "
                "the clocks, or requeue it when the time has come"
            )
        first, last = max(start, self.start), min(end, self.end or end)
        if (last - first) // self.finest > MOST_WINDOWS:
            raise OutOfRange(
                f"the range touches more than {MOST_WINDOWS} windows of source {self.source!r} or its dataset "
                f"({format_duration(self.finest)} each); send shorter ranges, at most {MOST_WINDOWS * self.finest} each"
            )
        return list(windows_between(first, last, self.window_size))


@dataclass(frozen=True, slots=True)
class Feed:
    """A source that clients send."""

    range: SourceRange
    dataset: DatasetMetadata
    raws: RawStore

    @property
    def source(self) -> str:
        return self.range.source


@dataclass(frozen=True, slots=True)
class BusSettings:
    """The broker's address, the folder of the bus's own state, all files, the payload store, and who there is.

    `feeds` are the external sources by name, `pulled` the sources that the platform collects itself by name, and
    `datasets` what events say of each dataset.
    """

    url: str
    folder: Path
    files: Files
    payloads: str | Path
    config: Path
    feeds: dict[str, Feed]
    pulled: dict[str, SourceRange]
    datasets: dict[str, DatasetMetadata]

    def first_start(self, dataset: str, moment: datetime) -> datetime:
        """The start of the first window of `dataset` that ends after `moment`."""
        return window_of(moment, self.datasets[dataset].aggregation_span).start


def bus_settings(platform: Platform) -> BusSettings:
    """What the bus is to know of a platform; raises PipelineError when its configuration has no message broker."""
    config, broker = platform.config, platform.config.sections.broker
    if broker is None:
        raise PipelineError(f"{config.path} has no message broker; add 'broker: {{url: amqp://...}}'")
    state, sources = config.sections.state_path, config.sources
    return BusSettings(
        url=broker.url,
        folder=state / "bus",
        files=platform.files,
        payloads=broker.payload_path or state / "payloads",
        config=config.path,
        feeds={
            name: Feed(_range(platform, source), _described(platform, source.dataset), platform.raws(name))
            for name, source in sources.items()
            if source.kind == "external"
        },
        pulled={name: _range(platform, source) for name, source in sources.items() if source.kind == "pull"},
        datasets={name: _described(platform, name) for name in config.datasets},
    )


def _range(platform: Platform, source: SourceSettings) -> SourceRange:
    first, _ = platform.range_of(source.name)
    span = platform.dataset(source.dataset).span
    finest = min(source.window_size, span) if source.kind == "external" else source.window_size
    return SourceRange(source.name, source.window_size, finest, first, source.end)


def _described(platform: Platform, dataset: str) -> DatasetMetadata:
    settings = platform.dataset(dataset)
    return DatasetMetadata(
        name=dataset,
        aggregation_span=settings.span,
        subject_to_change_window=settings.policy.subject_to_change,
    )
