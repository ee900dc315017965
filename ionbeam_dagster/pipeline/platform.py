"""The platform: a configuration, and the stores, sources and exporters that follow from it.

Belongs here: which implementation of each is meant, and what is asked of the configuration as a whole. Does not belong
here: what is done with a window (collect.py, ingest.py, build.py, export.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial

import pyarrow as pa

from ionbeam_client.cf import check_metadata
from ionbeam_client.models import IngestionMetadata, format_duration
from ionbeam_dagster.config import DatasetSettings, IonbeamConfig, SourceSettings
from ionbeam_dagster.domain.canonical import schema_refusal
from ionbeam_dagster.domain.decisions import Policy
from ionbeam_dagster.domain.lateness import usual_lateness
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import HOUR, WEEK, Window, window_of, windows_between
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.exporters import ExportPlan
from ionbeam_dagster.sources import Source
from ionbeam_dagster.stores.datasets import DatasetStore
from ionbeam_dagster.stores.files import Files, within
from ionbeam_dagster.stores.heard import HeardStore
from ionbeam_dagster.stores.ledger import Ledger, RedisLedger, SqliteLedger
from ionbeam_dagster.stores.privacy import PrivacyStore
from ionbeam_dagster.stores.quarantine import QuarantineStore
from ionbeam_dagster.stores.raw import RawStore
from ionbeam_dagster.stores.stations import StationStore
from ionbeam_dagster.stores.timeseries import TimeSeriesStore
from ionbeam_dagster.stores.timeseries.segments import SegmentStore


class Platform:
    """A configuration and the stores, sources and exporters that follow from it. Making one opens nothing.

    `recover` puts into a ledger that is new what the other stores hold of the past, and `take_over` what an earlier
    version kept beside it (`recovery.open_platform` gives both).
    """

    def __init__(
        self,
        config: IonbeamConfig,
        recover: Callable[[Platform], object],
        take_over: Callable[[Platform], object] = lambda platform: None,
    ) -> None:
        self.config = config
        self._past = partial(recover, self), partial(take_over, self)
        self._sound: dict[str, IngestionMetadata] = {}
        self._versions: dict[tuple[str, int], IngestionMetadata] = {}
        self._lateness: dict[str, tuple[datetime, timedelta]] = {}
        self._spans_checked: set[str] = set()
        self.ledger = self._ledger()
        self.files = Files(config.sections.scratch_folder / "drafts", config.sections.s3)
        self.quarantine = QuarantineStore(self.files, config.sections.quarantine_root)
        self.privacy = PrivacyStore(self.files, config.sections.state_path)
        self.stations = StationStore(self.files, config.sections.state_path, config.sections.stations)
        self.heard = HeardStore(self.files, config.sections.state_path)
        self.series = self._series()
        self.datasets = DatasetStore(self.files, config.sections.dataset_aggregator.data_path)

    def _ledger(self) -> Ledger:
        redis = self.config.sections.redis
        if redis is None:
            return SqliteLedger(self.config.sections.state_path / "ledger.sqlite", *self._past)
        return RedisLedger(redis.address, *self._past)

    def _series(self) -> TimeSeriesStore:
        influx = self.config.sections.influxdb_common
        if influx is None:
            return SegmentStore(self.config.sections.state_path / "segments")
        from ionbeam_dagster.stores.timeseries.influxdb.store import InfluxStore

        return InfluxStore(
            influx.influxdb_url,
            influx.influxdb_org,
            influx.influxdb_bucket,
            influx.influxdb_token.get_secret_value(),
            revise_for=self.longest_revising(),
            scratch=self.files.scratch,
            tls=influx,
        )

    def longest_revising(self) -> timedelta | None:
        """For how long windows of any dataset are built again (None: for ever)."""
        revised = [dataset.policy.revise_for for dataset in self.config.datasets.values()]
        return None if None in revised else max((one for one in revised if one is not None), default=None)

    def now(self) -> datetime:
        """The clock by which windows are open, settled and sealed."""
        return datetime.now(UTC)

    def policy(self, dataset: DatasetSettings, now: datetime) -> Policy:
        """The policy of a dataset; where its lateness is measured, that of the week before the current hour.

        It changes once an hour, and is the same whoever asks.
        """
        policy = dataset.policy
        if not policy.lateness_measured:
            return policy
        return replace(policy, lateness=max(self._usual_lateness(source, now) for source in policy.sources))

    def _usual_lateness(self, source: str, now: datetime) -> timedelta:
        hour = window_of(now, HOUR).start
        known = self._lateness.get(source)
        if known is None or known[0] != hour:
            known = self._lateness[source] = hour, usual_lateness(self.ledger.lateness(source, hour - WEEK, hour))
        return known[1]

    @cached_property
    def sources(self) -> dict[str, Source]:
        made = {name: settings.type(name, settings.config) for name, settings in self.config.sources.items()}
        for name, source in made.items():
            source.forgotten = partial(self.privacy.forgotten, name)
        return made

    def range_of(self, source: SourceSettings) -> tuple[datetime, datetime | None]:
        """From where to where a source has windows: from its start on, where its dataset's windows are whole."""
        size, span = source.window_size, self.dataset(source.dataset).span
        last = None if source.end is None else window_of(source.end - timedelta.resolution, size).end
        return window_of(source.start, max(size, span)).start, last

    def reach(self, source: SourceSettings, range: Window) -> Window | None:
        """The part of a range in which a source has windows; None: it has none there. Anybody may say any range."""
        first, last = self.range_of(source)
        start, end = max(range.start, first), min(range.end, last or range.end)
        return Window(start, end) if start < end else None

    def touched(self, claim: Claim) -> list[Window]:
        """The dataset windows that a claim touches, in order; of what a client says it collected, only what counts."""
        source = self.source(claim.source)
        reach = self.reach(source, claim.collected) if source.sent else claim.collected
        windows = windows_between(reach.start, reach.end, self.dataset(claim.dataset).span) if reach else ()
        return sorted({*windows, *claim.stray_windows})

    def feed(self, source: SourceSettings, use_cache: bool) -> Source:
        """The source to fetch from, told to use its cache where it would not by its configuration."""
        configured = self.sources[source.name]
        return configured.using_cache() if use_cache else configured

    def raws(self, source: SourceSettings) -> RawStore:
        return RawStore(self.files, source.config.data_path)

    def export_path(self, dataset: str, format: str, window: Window) -> str:
        """Where the file of a window, or of a cycle, stands."""
        exporter = self.config.exporters[format]
        name = f"{dataset}_{window.label}.{exporter.extension}"
        return within(exporter.settings.output_path, format, dataset, name)

    def plans(self, dataset: DatasetSettings, schema: pa.Schema) -> dict[str, ExportPlan]:
        """What each format in which a dataset is exported makes of `schema`; formats of one section make the same."""
        plans: dict[str, ExportPlan] = {}
        sections = set()
        for format in dataset.formats:
            exporter = self.config.exporters[format]
            if exporter.section() not in sections:
                sections.add(exporter.section())
                plans[format] = exporter.plan(schema)
        return plans

    def metadata(self, source: SourceSettings) -> IngestionMetadata:
        """How a source's columns are to be read. Raises PipelineError where a name or unit in it is wrong."""
        found = self.described(source)
        if self._sound.get(source.name) != found:
            errors = [str(problem) for problem in check_metadata(found) if problem.severity == "error"]
            if errors:
                raise PipelineError(f"{source.name} cannot be collected: {'; '.join(errors)}")
            self.check_schema(source, found)
            self._sound[source.name] = found
        return found

    def described(self, source: SourceSettings) -> IngestionMetadata:
        """How a source and the configuration say that its columns are to be read, whether it is right or wrong."""
        found = self.sources[source.name].metadata
        version = source.config.version
        return found if version is None else found.model_copy(update={"version": version})

    def check_schema(self, source: SourceSettings, metadata: IngestionMetadata) -> None:
        """Refuse, with a PipelineError, other columns than those that came first under the same version."""
        key = source.name, metadata.version
        first = self._versions.get(key) or self.ledger.metadata_of_version(*key)
        if first is None:
            return
        self._versions[key] = first
        if refusal := schema_refusal(first, metadata):
            key_of = f" (sources.{source.name}.version)" if source.kind != "external" else ""
            raise PipelineError(f"{source.name}: {refusal}{key_of}")

    def check_span(self, dataset: DatasetSettings) -> None:
        """Refuse, with a PipelineError, to work on a store that has windows of another length of a dataset.

        Another platform would not find in its own windows what is claimed for those of this one.
        """
        if dataset.name in self._spans_checked:
            return
        ours, theirs = dataset.span, self.ledger.span_of(dataset.name)
        if theirs is not None and theirs != ours:
            raise PipelineError(
                f"{dataset.name}: {self.config.path} says aggregation_span {format_duration(ours)}, but what is there "
                f"was collected for windows of {format_duration(theirs)}, by another platform or an earlier "
                "configuration; let it be as it was, or give the dataset another name (sources.<source>.dataset), or "
                "this platform stores of its own (state_path)"
            )
        if theirs is not None:
            self._spans_checked.add(dataset.name)

    def source(self, name: str) -> SourceSettings:
        if name not in self.config.sources:
            raise PipelineError(
                f"{self.config.path} has no source {name!r}; it has {', '.join(self.config.sources) or 'none'}"
            )
        return self.config.sources[name]

    def dataset(self, name: str) -> DatasetSettings:
        if name not in self.config.datasets:
            raise PipelineError(
                f"{self.config.path} has no dataset {name!r}; it has {', '.join(self.config.datasets) or 'none'}"
            )
        return self.config.datasets[name]


@contextmanager
def written_to(place: str) -> Iterator[None]:
    """Say which file could not be written: a full disk, a folder without permission, something else in its place."""
    try:
        yield
    except OSError as error:
        raise PipelineError(
            f"{place}: cannot be written ({error}); what stood there before is untouched. "
            f"{remedy_of(error)}, and materialise the window again"
        ) from error


def remedy_of(error: OSError) -> str:
    """What helps where something cannot be written."""
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return "Move away what stands there: a folder is needed where a file is, or a file where a folder is"
    return "Make room, or give permission"
