"""Sources: each yields the observations of a time window. One module a source, all of one shape.

Belongs here: `Source`, the base of them all, how they are found (entry points), and one module for each. Does not
belong here: what happens to observations afterwards. A third party adds a source by registering a `Source` subclass
under the entry-point group ``ionbeam.sources``.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

import pyarrow as pa
from pydantic import AfterValidator, Field

from ionbeam_client.models import DatasetMetadata, IngestionMetadata, Link, Name
from ionbeam_dagster.domain.forgotten import NOBODY, Forgotten
from ionbeam_dagster.domain.privacy import Privacy
from ionbeam_dagster.domain.quality.limits import limits_with
from ionbeam_dagster.domain.records import Correction
from ionbeam_dagster.domain.times import Moment, NonNegativeDuration, duration_or
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.stores.files import Location, is_address

ENTRY_POINTS = "ionbeam.sources"
SENT_KINDS = ("external", "door")
"""The kinds of sources that clients send; each is also the name of their type."""
DEFAULT_START = datetime(2026, 1, 1, tzinfo=UTC)


def _possible_limits(given: Literal[False] | dict[str, Any]) -> Literal[False] | dict[str, Any]:
    if given is not False:
        limits_with(given)
    return given


def _web_address(given: str) -> str:
    if not given.startswith(("https://", "http://")):
        raise ValueError(f"{given!r} is not the address of a page; right would be https://...")
    return given


def _a_second_or_more(given: timedelta) -> timedelta:
    if given < timedelta(seconds=1):
        raise ValueError("is too short for any answer; right would be PT1M")
    return given


Deadline = Annotated[timedelta, AfterValidator(_a_second_or_more)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Patience = Annotated[Literal["never", "always"] | NonNegativeDuration, duration_or("never", "always")]
Usual = Annotated[Literal["p95"] | NonNegativeDuration, duration_or("p95")]
Quality = Annotated[Literal[False] | dict[str, Literal[False] | dict[str, Any]], AfterValidator(_possible_limits)]
"""Off, or by standard name off or the limits that differ from the defaults."""


class SourceConfig(Settings):
    """The keys that every source's block in the YAML may have. A source adds its own in a subclass.

    `aggregation_span`, `exports`, `quality` and the policy of its windows (docs/windows.md) describe the dataset that
    it feeds: sources of one dataset must agree on them.
    """

    type: str | None = Field(
        default=None,
        description="Type of the source; without it the block's own name is its type.",
        examples=["ioncannon"],
    )
    kind: Literal["pull", "external", "door"] = Field(
        default="pull",
        description="Whether the platform collects it (pull), or clients send it: over the broker (external), or over "
        "HTTP (door).",
    )
    data_path: Location = Field(
        default="data-raw",
        description="Folder, or s3://bucket/prefix, of its raw partitions.",
        examples=["s3://ionbeam/raw"],
    )
    start: Moment = Field(
        default=DEFAULT_START,
        description="First moment that has windows; UTC unless it says otherwise. Without it, of files the day of "
        "their first time.",
        examples=["2026-06-21", "2026-06-21T06:00Z"],
    )
    end: Moment | None = Field(
        default=None, description="Moment from which on there are no windows.", examples=["2026-06-22"]
    )
    dataset: Name | None = Field(
        default=None, description="Dataset that it feeds; without it one of its own name.", examples=["crowd"]
    )
    station_prefix: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._:-]{0,32}$",
        description="Text before the ids of its stations in the dataset, by which they are told from those of other "
        "networks that feed it; an empty one says that its stations are theirs. Where several networks feed a dataset, "
        "all but one need it; set it before anything is collected, or ingest again (docs/registry.md).",
        examples=["knmi-"],
    )
    aggregation_span: timedelta | None = Field(
        default=None,
        description="Length of the dataset's windows; without it what is usual for the source.",
        examples=["PT1H"],
    )
    subject_to_change_window: NonNegativeDuration | None = Field(
        default=None,
        description="How long after its end data of a dataset window may still be corrected, so that it waits.",
        examples=["PT1H"],
    )
    lateness: Usual | None = Field(
        default=None,
        description="How late observations usually come, for which a dataset window waits: a duration, or p95 (what "
        "was measured in the last week).",
        examples=["PT10M", "p95"],
    )
    allow_incomplete: Patience = Field(
        default=timedelta(days=1),
        description="When a dataset window is built although some of its time was not collected: after this time, "
        "never, or always (at once).",
        examples=["PT6H", "never", "always"],
    )
    debounce: NonNegativeDuration | None = Field(
        default=None,
        description="How long after the last news of a dataset window it is built; a storm of corrections makes one "
        "revision.",
        examples=["PT10M"],
    )
    revise_for: NonNegativeDuration | None = Field(
        default=None,
        description="How long after its end a dataset window is built again for late data; it is sealed then. Without "
        "it: for ever.",
        examples=["P7D"],
    )
    version: int | None = Field(
        default=None, ge=1, description="Version of its columns; raise it when they change.", examples=[2]
    )
    title: str = Field(
        default="", max_length=50, description="Its dataset in a few words.", examples=["Weather stations of Oslo"]
    )
    description: str = Field(
        default="",
        description="Its dataset in some sentences; without it what the source says of itself.",
        examples=["What loggers in my valley measure, every ten minutes."],
    )
    keywords: tuple[str, ...] = Field(
        default=(), description="Words by which its dataset is found, beside the source's own.", examples=[["crowd"]]
    )
    licence: WebAddress | None = Field(
        default=None,
        description="Address of the licence of its observations.",
        examples=["https://creativecommons.org/licenses/by/4.0/"],
    )
    attribution: str = Field(
        default="", description="Whom users of the observations are to name.", examples=["Observations: Oslo kommune"]
    )
    source_links: tuple[Link, ...] = Field(
        default=(),
        description="Pages about its dataset, beside the source's own.",
        examples=[[{"href": "https://weather.example", "title": "The network"}]],
    )
    exports: tuple[str, ...] | None = Field(
        default=None,
        description="Formats in which the dataset is exported; without it odb and pygeoapi.",
        examples=[["odb", "bufr", "pygeoapi"]],
    )
    quality: Quality | None = Field(
        default=None,
        description="Limits of quality control where they differ from the defaults, by standard name; false turns it "
        "off (docs/quality.md).",
        examples=[False],
    )
    privacy: Privacy | None = Field(
        default=None,
        description="What others see of the dataset (docs/security.md); without it all, as it is.",
        examples=[{"position": 1000, "station_id": "pseudonym", "drop": ["author"]}],
    )
    redistribution: bool = Field(
        default=True,
        description="Whether its licence allows that others are given its observations; where not, its dataset is not "
        "served on the web nor given away by WIS2, and pygeoapi may not be among its exports.",
    )
    use_cache: bool = Field(
        default=False, description="Whether it uses what an earlier run downloaded, where it keeps that."
    )
    deadline: Deadline | None = Field(
        default=None,
        description="How long the collection of one window may take, before it fails and is tried again later; without "
        "it as long as the window is, 5 minutes at most, and an hour for sources that read files or an archive.",
        examples=["PT15M"],
    )
    future_tolerance: NonNegativeDuration = Field(
        default=timedelta(days=1),
        description="How far in the future an observation's time may be when it arrives; what is later goes to the "
        "quarantine, and so does what is before `start` or after `end`.",
        examples=["PT1H"],
    )
    look_again_for: NonNegativeDuration = Field(
        default=timedelta(0),
        description="How long after a window could first be collected it is asked, once an hour, whether the window "
        "changed, which is then collected again. For sources whose signature costs one or two requests.",
        examples=["P3D"],
    )
    collect_again_after: tuple[NonNegativeDuration, ...] = Field(
        default=(),
        description="How long after a window could first be collected it is collected again, each of these times. For "
        "sources that get observations late, and cannot tell cheaply whether they did.",
        examples=[["PT3H", "PT18H"]],
    )

    @property
    def cache_path(self) -> Path:
        """The local folder for what a source itself remembers: beside its raw partitions, unless these are in S3."""
        return Path("data-raw" if is_address(self.data_path) else self.data_path)


Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and how much there is."""


class Subscriber(Protocol):
    """Takes in what is published to a source. Making one may take a lock; `run` connects."""

    @property
    def taken(self) -> int:
        """How many messages are on disk so far."""

    def run(self) -> None:
        """Take messages in until `stop`. Raises SourceError when it is refused, or cannot write."""

    def stop(self) -> None:
        """End `run` in good order, from another thread or a signal."""


def _nobody(what: str, done: int, of: int) -> None:
    pass


class Source(ABC):
    """One source of observations, made from its block in the YAML. Making one connects to nothing and reads nothing.

    `metadata` and `fetch` are all that a source must have. What else it can do, it says by members that say here that
    it cannot: `tells_changes` with `changes`, `corrects` with `corrections` and `confirm`, `subscribes` with
    `subscriber` and `standstill`, `signature`, `sample`, `answers_whole`, `extent`, `nothing_in`, `gone` and
    `problems`.
    """

    Config: ClassVar[type[SourceConfig]] = SourceConfig
    network: ClassVar[str] = ""
    """Whose ids its stations have, where several types bring one network's; empty: each source is a network."""
    default_window: ClassVar[timedelta] = timedelta(hours=1)
    default_span: ClassVar[timedelta] = timedelta(hours=1)
    default_lag: ClassVar[timedelta] = timedelta(0)
    """How long after its end a window can be collected, unless the scheduler says otherwise."""
    default_deadline: ClassVar[timedelta | None] = None
    """How long the collection of a window may take; None: as long as the window is, 5 minutes at most."""
    tells_changes: ClassVar[bool] = False
    """Whether `changes` says which ranges changed; such a source is not asked by the clock."""
    corrects: ClassVar[bool] = False
    """Whether `corrections` says which parts of its past are another now, until `confirm` says that they were taken
    over. What `fetch` gives of such a range is all that there is of it: what it lacks was taken back."""
    subscribes: ClassVar[bool] = False
    """Whether observations are published to it, which `subscriber` takes in (`ionbeam mqtt`)."""

    def __init__(self, name: str, config: SourceConfig) -> None:
        self.name = name
        self.config = config
        self.progress: Progress = _nobody
        """Is told how far a long `fetch` is; whoever watches puts a function of their own here."""
        self.forgotten: Callable[[], Forgotten] = lambda: NOBODY
        """Whose rows a source is not to keep in journals of its own; the platform puts a function of its own here."""

    @property
    @abstractmethod
    def metadata(self) -> IngestionMetadata:
        """How this source's columns are to be read; may look at the source's own files, and raise SourceError."""

    def described(self, description: str, links: Iterable[Link] = (), keywords: Iterable[str] = ()) -> DatasetMetadata:
        """The dataset that this source feeds, in words for people: what the YAML's block says, then what is given here.

        A part of `metadata`.
        """
        config = self.config
        told = {link.href for link in config.source_links}
        return DatasetMetadata(
            name=config.dataset or self.name,
            description=config.description or description,
            source_links=[*config.source_links, *(link for link in links if link.href not in told)],
            keywords=list(dict.fromkeys([*config.keywords, *keywords])),
            aggregation_span=config.aggregation_span or self.default_span,
            subject_to_change_window=config.subject_to_change_window or timedelta(0),
        )

    @abstractmethod
    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The observations of `window`, as they come, in batches of one schema.

        The columns are those that `metadata` names (times as timestamps or ISO 8601 text). No batch at all means that
        the window really is empty. Raises SourceError when it cannot be known, NoLongerThere where it is known that
        there were some which are not there any longer.
        """

    def sample(self, window: Window) -> Iterator[pa.RecordBatch] | None:
        """A part of `window` that shows what the source gives; None where it is no cheaper than all of it."""
        return None

    def signature(self, window: Window) -> str:
        """A text that is another one when `fetch` would give something else; it is cheaper to have than that.

        Raises SourceError where the source cannot be asked for it now.
        """
        return ""

    def answers_whole(self, window: Window) -> bool:
        """Whether what `fetch` gives of `window` is all that there is of it, so that what it lacks was taken back.

        Otherwise what the source gave before and gives no longer stays: a service forgets, a disk is not there.
        """
        return False

    def changes(self, cursor: str | None) -> tuple[list[Window], str]:
        """The ranges that changed since `cursor` was given out (None: all there are), and a new cursor.

        Of a source that `tells_changes`. The ranges need not be aligned to anything. Raises SourceError.
        """
        raise SourceError(f"{self.name}: a source of type {type(self).__name__} does not tell what changed")

    def corrections(self) -> list[Correction]:
        """What it tells of changes of its past that were not confirmed, of a source that `corrects`.

        One that cannot be read is one of `problems`, and holds up no other. Raises SourceError.
        """
        raise SourceError(f"{self.name}: a source of type {type(self).__name__} tells of no corrections")

    def confirm(self, correction: Correction) -> None:
        """Say that a correction was taken over, of a source that `corrects`; it does no harm to say so twice.

        Raises SourceError, also when the source does not agree.
        """
        raise SourceError(f"{self.name}: a source of type {type(self).__name__} is told of nothing")

    def subscriber(self) -> Subscriber:
        """What takes in what is published to it, of a source that `subscribes`.

        Raises SourceError, also when another process does it already.
        """
        raise SourceError(f"{self.name}: nothing is published to a source of type {type(self).__name__}")

    def standstill(self, now: datetime) -> list[tuple[str, str]]:
        """What of the taking in does not go on, of a source that `subscribes`: in words, each with its remedy."""
        return []

    @classmethod
    def first_time(cls, name: str, config: SourceConfig) -> datetime | None:
        """The moment from which on a source has windows where the YAML has no `start`; None: that of all sources."""
        return None

    def using_cache(self) -> Self:
        """This source, but using what an earlier run downloaded, where it keeps that."""
        if self.config.use_cache:
            return self
        cached = type(self)(self.name, self.config.model_copy(update={"use_cache": True}))
        cached.forgotten = self.forgotten
        return cached

    def extent(self) -> Window | None:
        """The range that the source has observations for, where it is finite and known."""
        return None

    def last_time(self) -> datetime | None:
        """Where its observations end, but for those of a clock that was ahead; None: where `extent` does."""
        return None

    def nothing_in(self, range: Window) -> list[Window]:
        """The stretches, also beyond `range`, that overlap it and in which it surely has no observation; where that is
        not known for less than asking, none. No window is collected there, and it is no gap."""
        return []

    def gone(self) -> list[str]:
        """A line about inputs that were there before and are there no longer, where that is remembered; `problems` has
        it, too."""
        return []

    def problems(self) -> list[str]:
        """What a person should look at: inputs that could not be read, each with its place and reason."""
        return []


def installed_sources() -> dict[str, EntryPoint]:
    """The source types that are installed, by name; one that is not used is not imported."""
    return dict(_declared(tuple(sys.path)))


@cache  # looking through all installed packages takes longer than reading a configuration
def _declared(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
