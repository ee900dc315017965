"""What the bus has to know of the configuration.

Belongs here: plain records that follow from the YAML, and how they follow. Does not belong here: the YAML (config), or
any connection.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ionbeam_client.config import IonbeamClientConfig
from ionbeam_client.models import DatasetMetadata
from ionbeam_dagster.config.sections import BrokerSettings
from ionbeam_dagster.domain.privacy import BUS
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.doors.intake import Feed, SourceRange, described, feed_of, range_of
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.shown import Shown, shown
from ionbeam_dagster.stores.files import Files


@dataclass(frozen=True, slots=True)
class BusSettings:
    """How the platform is a client of the broker, and who are operators there; the platform's state folder, which all
    machines share, this machine's own scratch folder, files, the payload store, who there is.

    `feeds` are the external sources by name, `pulled` the sources that the platform collects itself by name,
    `datasets` what events say of each dataset. `shown` gives a dataset's file as clients may see it.
    """

    client: IonbeamClientConfig
    operators: frozenset[str]
    state: Path
    scratch: Path
    files: Files
    payloads: str | Path
    config: Path
    feeds: dict[str, Feed]
    pulled: dict[str, SourceRange]
    datasets: dict[str, DatasetMetadata]
    shown: Callable[[str, Path], AbstractContextManager[Shown]]

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
        client=client_config(broker),
        operators=frozenset(broker.operators),
        state=state,
        scratch=config.sections.scratch_folder / "bus",
        files=platform.files,
        payloads=broker.payload_path or state / "payloads",
        config=config.path,
        feeds={name: feed_of(platform, source) for name, source in sources.items() if source.kind == "external"},
        pulled={name: range_of(platform, source) for name, source in sources.items() if source.kind == "pull"},
        datasets={name: described(platform, name) for name in config.datasets},
        shown=lambda name, file: shown(platform, platform.dataset(name), BUS, file),
    )


def client_config(broker: BrokerSettings) -> IonbeamClientConfig:
    """The platform as a client of the broker; raises ConfigError for a certificate that cannot be used."""
    if broker.has_files:
        broker.context("broker.")
    files = {"tls_ca_file": broker.ca_file, "tls_cert_file": broker.cert_file, "tls_key_file": broker.key_file}
    given: dict[str, Any] = {name: file for name, file in files.items() if file is not None}
    return IonbeamClientConfig(amqp_url=broker.url, queues=broker.queues, **given)
