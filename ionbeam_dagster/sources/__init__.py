"""Sources: each yields the observations of a time window. One module a source, all of one shape.

Belongs here: `Source`, the base of them all, how they are found (entry points), and one module for each. Does not
belong here: what happens to observations afterwards. A third party adds a source by registering a `Source` subclass
under the entry-point group ``ionbeam.sources``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import AfterValidator, Field

from ionbeam_client.models import DatasetMetadata, IngestionMetadata, Link, Name
from ionbeam_dagster.domain.quality.limits import limits_with
from ionbeam_dagster.domain.times import Moment, NonNegativeDuration, duration_or
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.stores.files import Location, is_address

ENTRY_POINTS = "ionbeam.sources"
DEFAULT_START = datetime(2026, 1, 1, tzinfo=UTC)


def _possible_limits(given: Literal[False] | dict[str, Any]) -> Literal[False] | dict[str, Any]:
    if given is not False:
        limits_with(given)
    return given


Patience = Annotated[Literal["never", "always"] | NonNegativeDuration, duration_or("never", "always")]
Usual = Annotated[Literal["p95"] | NonNegativeDuration, duration_or("p95")]
Quality = Annotated[Literal[False] | dict[str, Literal[False] | dict[str, Any]], AfterValidator(_possible_limits)]
"""Off, or by standard name off or the limits that differ from the defaults."""


class SourceConfig(Settings):
    """The keys that every source's block in the YAML may have. A source adds its own in a subclass.

    `start` is the first moment that has partitions. `dataset` is the source's name unless it feeds another one.
    `aggregation_span`, `exports` and the policy of its windows describe that dataset: `subject_to_change_window`,
    `lateness`, `allow_incomplete`, `debounce` and `revise_for` (docs/windows.md says what each of them does), and
    `quality`, the limits of its quality control where they differ from the defaults (docs/quality.md).
    """

    type: str | None = None
    kind: Literal["pull", "external"] = "pull"
    data_path: Location = "data-raw"
    start: Moment = DEFAULT_START
    end: Moment | None = None
    dataset: Name | None = None
    aggregation_span: timedelta | None = None
    subject_to_change_window: NonNegativeDuration | None = None
    lateness: Usual | None = None
    allow_incomplete: Patience = timedelta(days=1)
    debounce: NonNegativeDuration | None = None
    revise_for: NonNegativeDuration | None = None
    version: int | None = Field(default=None, ge=1, description="of the columns; raise it when they change")
    exports: tuple[str, ...] | None = None
    quality: Quality | None = None
    use_cache: bool = Field(default=False, description="use what an earlier run downloaded, where a source keeps it")

    @property
    def cache_path(self) -> Path:
        """The local folder for what a source itself remembers: beside its raw partitions, unless these are in S3."""
        return Path("data-raw" if is_address(self.data_path) else self.data_path)


class LookedAtAgain(SourceConfig):
    """The block of a source whose past windows may change, and whose `signature` is a matter of one or two requests.

    For `look_again_for` after a window could first be collected, the platform looks again now and then, and collects
    the window again when it has changed.
    """

    look_again_for: NonNegativeDuration = timedelta(days=3)


class CollectedAgain(SourceConfig):
    """The block of a source that gets observations late, and can tell whether it did only by giving all of them.

    The platform collects each window again, so long after it could first be collected (``[PT3H, PT18H]``: twice). What
    comes back the same changes nothing that is made of it.
    """

    collect_again_after: tuple[NonNegativeDuration, ...]


NOT_KNOWN = "not known"
"""How the signature begins of a source that could not be asked for it."""

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and how much there is."""


def _nobody(what: str, done: int, of: int) -> None:
    pass


class Source(ABC):
    """One source of observations, made from its block in the YAML. Making one connects to nothing and reads nothing."""

    Config: ClassVar[type[SourceConfig]] = SourceConfig
    default_window: ClassVar[timedelta] = timedelta(hours=1)
    default_span: ClassVar[timedelta] = timedelta(hours=1)
    default_lag: ClassVar[timedelta] = timedelta(0)
    """How long after its end a window can be collected, unless the scheduler says otherwise."""

    def __init__(self, name: str, config: SourceConfig) -> None:
        self.name = name
        self.config = config
        self.progress: Progress = _nobody
        """Is told how far a long `fetch` is; whoever watches puts a function of their own here."""

    @property
    @abstractmethod
    def metadata(self) -> IngestionMetadata:
        """How this source's columns are to be read; may look at the source's own files, and raise SourceError."""

    def described(self, description: str, links: Iterable[Link] = (), keywords: Iterable[str] = ()) -> DatasetMetadata:
        """The dataset that this source feeds, as the YAML's block has it, in words for people: a part of `metadata`."""
        config = self.config
        return DatasetMetadata(
            name=config.dataset or self.name,
            description=description,
            source_links=list(links),
            keywords=list(keywords),
            aggregation_span=config.aggregation_span or self.default_span,
            subject_to_change_window=config.subject_to_change_window or timedelta(0),
        )

    @abstractmethod
    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The observations of `window`, as they come, in batches of one schema.

        The columns are those that `metadata` names (times as timestamps or ISO 8601 text). No batch at all means that
        the window really is empty. Raises SourceError when it cannot be known.
        """

    def sample(self, window: Window) -> Iterator[pa.RecordBatch]:
        """Enough of `window` to see what the source gives: all of it, unless a part is much cheaper."""
        return self.fetch(window)

    def signature(self, window: Window) -> str:
        """What `fetch` would give, told without fetching: when it differs from last time, the window is due again."""
        return ""

    def extent(self) -> Window | None:
        """The range that the source has observations for, where it is finite and known."""
        return None

    def problems(self) -> list[str]:
        """What a person should look at: inputs that could not be read, each with its place and reason."""
        return []


def installed_sources() -> dict[str, EntryPoint]:
    """The source types that are installed, by name; one that is not used is not imported."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
