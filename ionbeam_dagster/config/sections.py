"""The structure of the YAML: its sections, without what stands in the blocks of sources.

Belongs here: the sections that are the platform's own, and which settings of the rooms below stand under which name.
Does not belong here: the keys of a source, an exporter or a store (they stand with it).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator

from ionbeam_client.models import Name, format_duration
from ionbeam_dagster.config.wis2 import Wis2Settings
from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.domain.windows import check_span
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.stores.files import S3Settings, checked_location
from ionbeam_dagster.stores.settings import InfluxDBSettings, RedisSettings, WritableFolder, WritableLocation
from ionbeam_dagster.stores.stations import StationEntry
from ionbeam_dagster.tls import TlsSettings


def _partition(span: timedelta) -> timedelta:
    check_span(span)
    return span


def _csv_file(given: object) -> object:
    return checked_location(given) if isinstance(given, str) else given


PartitionSpan = Annotated[timedelta, AfterValidator(_partition)]
"""A duration that windows may have."""


class BrokerSettings(TlsSettings):
    """The message broker (AMQP) that clients share with the platform; without this section there is none.

    It stands here because the door that uses it is above the configuration.
    """

    url: str = Field(description="Address of the broker.", examples=["amqp://user:${PASSWORD}@rabbitmq.example:5672/"])
    operators: list[str] = Field(
        default=[],
        description="Users of the broker who look after parked messages and put them back in the name of their senders "
        "(docs/security.md).",
        examples=[["keeper"]],
    )
    queues: Literal["classic", "quorum"] = Field(
        default="classic",
        description="The type of the queues that the platform makes. Those that are there are used as they are "
        "(docs/clients.md).",
        examples=["quorum"],
    )
    payload_path: str | None = Field(
        default=None,
        description="Folder, or s3://bucket/prefix, where clients that share it may put rows too many for a message; "
        "without it a folder under state_path.",
        examples=["s3://ionbeam/payloads"],
    )


class ReceiveSettings(Settings):
    """What the HTTP door (`ionbeam receive`) takes from one request, and from one client."""

    most_bytes: int = Field(default=10_000_000, ge=1_000, description="Bytes of a request, as it travels.")
    most_unpacked_bytes: int = Field(default=25_000_000, ge=1_000, description="Bytes of a request, unpacked.")
    longest_line: int = Field(default=65_536, ge=100, description="Bytes of a line.")
    most_tags: int = Field(default=64, ge=1, description="Tags of a line.")
    lines_a_second: int | None = Field(
        default=None,
        ge=1,
        description="Lines, or readings, that one token may bring a second, a minute's worth at once; without it no "
        "limit.",
        examples=[10_000],
    )


class DatasetAggregator(Settings):
    """Where datasets are written."""

    data_path: WritableLocation = Field(
        default="data",
        description="Folder, or s3://bucket/prefix, of the dataset files.",
        examples=["s3://ionbeam/data"],
    )
    delete_after_export: bool = Field(
        default=False,
        description="Whether a raw partition goes once all that is made of it is exported (docs/retention.md).",
    )


class SchedulerWindow(Settings):
    """How one source is cut into windows, and when they are collected."""

    source_name: Name = Field(description="The source, by its name in the YAML.", examples=["ioncannon"])
    window_size: PartitionSpan = Field(
        description="Length of its windows: minutes that divide an hour, hours that divide a day, days, or a week.",
        examples=["PT5M"],
    )
    trigger_interval: NonNegativeDuration | None = Field(
        default=None, description="How often it is asked; without it once a window.", examples=["PT5M"]
    )

    @field_validator("trigger_interval")
    @classmethod
    def _is_an_interval(cls, given: timedelta | None) -> timedelta | None:
        if given == timedelta(0):
            raise ValueError("PT0S is no interval; leave it out, and the source is asked once a window")
        return given

    window_lag: NonNegativeDuration | None = Field(
        default=None,
        description="How long after its end a window can be collected; without it what is usual for the source.",
        examples=["PT1H"],
    )


class Scheduler(Settings):
    """How sources are cut into windows; a source that is not named has what is usual for its type."""

    windows: list[SchedulerWindow] = Field(default=[], description="One entry a source.")


class Automation(Settings):
    """Whether and how often the platform looks for work by itself."""

    enabled: bool = Field(default=True, description="Whether it does; a person can always start work.")
    interval: int = Field(default=15, ge=5, description="Seconds between two looks; Dagster's own loop takes five.")
    lookback: NonNegativeDuration = Field(
        default=timedelta(hours=2), description="How old a window may be that is collected without a person asking."
    )
    remake_outdated: bool = Field(
        default=False,
        description="Whether what an older exporter, quality plan or mapping made, or one with other settings, is made "
        "again by itself; otherwise `ionbeam status` tells of it, and `ionbeam rebuild --outdated` does it.",
    )


class Retention(Settings):
    """How long what is no longer needed is kept; what is left out is kept for ever (docs/retention.md)."""

    raw: NonNegativeDuration | None = Field(
        default=None, description="Raw partitions, counted from when their windows were sealed.", examples=["P90D"]
    )
    observations: NonNegativeDuration | None = Field(
        default=None,
        description="Observations in segments, counted from when their windows were sealed; with InfluxDB the bucket's "
        "own retention does this.",
        examples=["P90D"],
    )
    superseded: NonNegativeDuration | None = Field(
        default=None,
        description="Revisions of datasets, counted from when a newer one took their place; an hour or longer.",
        examples=["P7D"],
    )
    quarantine: NonNegativeDuration | None = Field(
        default=None,
        description="Rows and damaged files that were set aside, counted from when they were.",
        examples=["P30D"],
    )
    payloads: NonNegativeDuration | None = Field(
        default=None,
        description="Payloads of clients, counted from when their rows became a raw partition.",
        examples=["P7D"],
    )
    every: PartitionSpan = Field(default=timedelta(days=1), description="How often it is looked for what may go.")

    @field_validator("superseded")
    @classmethod
    def _readers_are_given_time(cls, age: timedelta | None) -> timedelta | None:
        if age is not None and age < timedelta(hours=1):
            raise ValueError(f"{format_duration(age)} is too short: somebody may still read the file; PT1H or longer")
        return age


class History(Settings):
    """How long Dagster's history is kept; what assets' pages show of their partitions stays (docs/deployment.md)."""

    runs: NonNegativeDuration = Field(
        default=timedelta(days=30), description="Runs with their logs, and ticks that did something, from their end."
    )
    skipped_ticks: NonNegativeDuration = Field(
        default=timedelta(days=3), description="Ticks of sensors and schedules that found nothing to do."
    )
    evaluations: NonNegativeDuration = Field(
        default=timedelta(days=2), description="What automation thought of each asset at each tick: by far the most."
    )
    every: PartitionSpan = Field(default=timedelta(hours=1), description="How often it is looked for what may go.")


class EmailSettings(Settings):
    """The mail server that sends alerts, and to whom."""

    server: str = Field(description="Its name or address.", examples=["mail.example"])
    port: int = Field(default=587, ge=1, le=65_535, description="Its port.")
    starttls: bool = Field(default=True, description="Whether the connection is encrypted, as it should be.")
    user: str | None = Field(default=None, description="Who sends; without it nobody logs in.", examples=["ionbeam"])
    password: SecretStr | None = Field(default=None, description="The password.", examples=["${MAIL_PASSWORD}"])
    sender: str = Field(description="The address that they come from.", examples=["ionbeam@example.org"])
    to: list[str] = Field(min_length=1, description="Who is told.", examples=[["duty@example.org"]])


class AlertSettings(Settings):
    """Who is told of troubles, once when each begins and once when it ends, and from when on it is one
    (docs/monitoring.md)."""

    webhook: SecretStr | None = Field(
        default=None, description="Address to which each is posted as JSON.", examples=["${ALERT_WEBHOOK}"]
    )
    email: EmailSettings | None = Field(default=None, description="The mail server, and who is told.")
    after: NonNegativeDuration = Field(
        default=timedelta(minutes=1), description="What ends within that time is not told."
    )
    silence: NonNegativeDuration = Field(
        default=timedelta(hours=2), description="How old the newest of a source that is still to give something may be."
    )
    silent_stations: float | None = Field(
        default=None, gt=0, le=1, description="Share of a source's stations that may fall silent.", examples=[0.1]
    )
    completeness: float | None = Field(
        default=None, gt=0, le=1, description="Share of a day of a source that is to be collected.", examples=[0.9]
    )
    lateness: NonNegativeDuration | None = Field(
        default=None, description="How late 95 % of what a source gives may come.", examples=["PT3H"]
    )


class Sections(Settings):
    """The YAML without its source blocks."""

    broker: BrokerSettings | None = Field(default=None, description="The message broker that clients use.")
    receive: ReceiveSettings = Field(
        default=ReceiveSettings(), description="Limits of the HTTP door, to which sources of kind door are written."
    )
    redis: RedisSettings | None = Field(default=None, description="The ledger's server, where machines share it.")
    influxdb_common: InfluxDBSettings | None = Field(default=None, description="The observations' server.")
    stations: Annotated[str, BeforeValidator(_csv_file)] | tuple[StationEntry, ...] | None = Field(
        default=None,
        description="What is to be known of stations beside what their sources tell (docs/registry.md): a CSV file, or "
        "s3://bucket/prefix/file, or the entries themselves; without it stations.csv under state_path.",
        examples=["stations.csv", [{"source": "garden", "station": "roof", "wigos_id": "0-276-0-ROOF"}]],
    )
    s3: S3Settings = Field(default=S3Settings(), description="Where S3 is, for every location s3://bucket/prefix.")
    dataset_aggregator: DatasetAggregator = Field(
        default=DatasetAggregator(), description="Where datasets are written."
    )
    scheduler: Scheduler = Field(default=Scheduler(), description="How sources are cut into windows.")
    projections: Settings = Field(
        default=Settings(), description="Where exports are written, and how; exporting.py fills in who is installed."
    )
    wis2: Wis2Settings | None = Field(
        default=None, description="What is given away by WIS2, and in whose name (docs/wis2.md); without it nothing."
    )
    automation: Automation = Field(default=Automation(), description="Whether the platform works by itself.")
    retention: Retention = Field(default=Retention(), description="How long what is no longer needed is kept.")
    history: History = Field(default=History(), description="How long Dagster's history is kept.")
    alerts: AlertSettings | None = Field(default=None, description="Who is told of troubles; without it nobody.")
    state_path: WritableFolder = Field(
        default=Path("ionbeam-state"),
        description="Folder of the platform's own memory, shared by its hosts: ledger, segments, quarantine.",
    )
    scratch_path: WritableFolder | None = Field(
        default=None,
        description="Folder of this host alone: drafts, scratch, copies of files in S3. Without it state_path.",
        examples=["/var/tmp/ionbeam"],  # noqa: S108 (an example)
    )
    quarantine_path: WritableLocation | None = Field(
        default=None,
        description="Folder, or s3://bucket/prefix, of rows that could not be used; without it one in state_path.",
        examples=["s3://ionbeam/quarantine"],
    )

    @property
    def scratch_folder(self) -> Path:
        return self.scratch_path or self.state_path

    @property
    def quarantine_root(self) -> str:
        return self.quarantine_path or str(self.state_path / "quarantine")
