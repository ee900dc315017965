"""The platform of deployments/compose as processes of this machine, without a container engine.

Each service of ours is started by its own command, with its own environment and health check, as the compose file has
them; only addresses and folders are those of this machine. What ends is started again, as Docker does. Belongs here:
starting, ending and asking, and what is collected meanwhile. Does not belong here: any test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

import polars as pl
import pytest
import yaml
from backends import S3, InfluxDB, PostgreSQL, Redis
from redis import Redis as RedisClient
from servers import RabbitMQ, free_port

from ionbeam_client import IonbeamClientConfig, wire
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_client.sync import SyncIonbeamClient
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.records import BuiltRevision
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform

COMPOSE = Path(__file__).parents[1] / "deployments" / "compose"
_PROGRAMS = Path(sys.executable).parent
_PORTS = ("3000", "4000", "5000", "9400")
"""Of our services: each has one."""


class Service:
    """One container's worth of processes."""

    def __init__(
        self, command: Sequence[str], check: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self._command, self._check = command, check
        self._folder, self._environment, self._log = folder, dict(environment), log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def start_again(self) -> None:
        """As `restart: unless-stopped` does; what it had started ends with it, as in a container."""
        if self._process is not None and self._process.poll() is not None:
            self.send(signal.SIGKILL)
            self.start()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def is_healthy(self, within: float = 60.0) -> bool:
        """What its health check of the compose file says."""
        try:
            done = subprocess.run(
                self._check, cwd=self._folder, env=self._environment, timeout=within,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def end(self) -> None:
        if self._process is None:
            return
        self.send(signal.SIGCONT)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self.send(signal.SIGKILL)
        self._process.wait()


class Composed:
    """All services of ours, with any number of one of them; each is `services[name]`, the second worker `worker-2`."""

    def __init__(
        self,
        folder: Path,
        sources: str,
        servers: tuple[PostgreSQL, RabbitMQ, Redis, InfluxDB, S3],
        bucket: str,
        number: Mapping[str, int],
    ) -> None:
        postgresql, rabbitmq, redis, influxdb, s3 = servers
        self.folder = folder
        for name in ("data", "dagster", "etc"):
            (folder / name).mkdir(exist_ok=True)
        loaded = yaml.safe_load(re.sub(r"\$\{\w+:\?\}", "given", (COMPOSE / "docker-compose.yml").read_text()))
        ours = {name: one for name, one in loaded["services"].items() if one["image"] == "ionbeam"}
        self._ports: dict[str, str] = {}
        given = {
            "IONBEAM_CONFIG_PATH": str(folder / "etc" / "config.yaml"),
            "DAGSTER_HOME": str(folder / "dagster"),
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://dagster:-@{postgresql.database('composed')}",
            "BROKER_URL": rabbitmq.url,
            "REDIS_URL": redis.url,
            "INFLUXDB_TOKEN": influxdb.token,
        }
        assert set(given) == set(ours["code"]["environment"]), "the compose file gives something else"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("IONBEAM")}
        self.environment |= given | {"PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
        self.services: dict[str, Service] = {}
        for name, one in ours.items():
            for n in range(number.get(name, 1)):
                self._add(name if n == 0 else f"{name}-{n + 1}", one, given)
        settings = (COMPOSE / "dagster.yaml").read_text().replace("/dagster/", f"{folder}/dagster/")
        (folder / "dagster" / "dagster.yaml").write_text(settings)
        workspace = (COMPOSE / "workspace.yaml").read_text()
        there = workspace.replace("host: code", "host: 127.0.0.1").replace("4000", self.port("code"))
        (folder / "dagster" / "workspace.yaml").write_text(there)
        (folder / "etc" / "config.yaml").write_text(_config(folder, sources, influxdb, s3, bucket))
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def _add(self, name: str, one: dict, given: Mapping[str, str]) -> None:
        known = next((port for port in _PORTS if port in one["command"]), None)
        port = self._ports[name] = str(free_port())
        own = {k: v for k, v in one["environment"].items() if k not in given and k != "<<"}

        def here(words: Sequence[str]) -> list[str]:
            said = [word.replace("0.0.0.0", "127.0.0.1").replace("localhost", "127.0.0.1") for word in words]
            said = [word.replace("/dagster/workspace", f"{self.folder}/dagster/workspace") for word in said]
            said = [re.sub(rf"\b{known}\b", port, word) for word in said] if known else said
            return [word.replace("given/edr", f"http://127.0.0.1:{port}") for word in said]

        self.services[name] = Service(
            here(one["command"]), here(one["healthcheck"]["test"][1:]), self.folder / "data",
            self.environment | own, self.folder / f"{name}.log",
        )  # fmt: skip

    def port(self, name: str) -> str:
        return self._ports[name]

    def __enter__(self) -> Composed:
        self.services["code"].start()
        self.wait(["code"], 180)
        for name, service in self.services.items():
            if name != "code":
                service.start()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._keeper.join()
        for name in reversed(self.services):
            self.services[name].end()

    def wait(self, names: Sequence[str], seconds: float) -> None:
        """Until the health checks of services are content."""
        until = time.monotonic() + seconds
        for name in names:
            while not self.services[name].is_healthy():
                assert time.monotonic() < until, f"{name} is not healthy: {self.said(name)}"
                time.sleep(1)

    def said(self, name: str, last: int = 3000) -> str:
        """The end of a service's log."""
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace")[-last:] if log.exists() else ""

    def _keep(self) -> None:
        while not self._over.wait(1.0):
            for service in self.services.values():
                service.start_again()


def _config(folder: Path, sources: str, influxdb: InfluxDB, s3: S3, bucket: str) -> str:
    """The platform's configuration of the compose file, with other sources, and what it made in S3."""
    text = (COMPOSE / "config.yaml").read_text()
    for name in ("raw", "datasets", "exports"):
        text = text.replace(f"/data/{name}", f"{bucket}/{name}")
    text = text.replace("/data/", f"{folder}/data/").replace("http://influxdb2:8086", influxdb.url)
    text = text.replace("influxdb_org: ionbeam", f"influxdb_org: {influxdb.org}")
    config = yaml.safe_load(text)
    raw = config["sources"]["ioncannon"]["data_path"]
    config |= {"s3": s3.section(), "sources": yaml.safe_load(sources)}
    for name, block in config["sources"].items():
        if name != "scheduler":
            block["data_path"] = raw
    return yaml.safe_dump(config)


# --- what is collected, and by whom -----------------------------------------------------------------------------------

MINUTE = timedelta(minutes=1)
NAMES = ["s0", "s1", "s2"]
METADATA = IngestionMetadata(
    dataset=DatasetMetadata(name="crowd", aggregation_span=MINUTE),
    ingestion_map=DataIngestionMap(
        canonical_variables=[CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC", level=2.0)],
        metadata_variables=[MetadataVariable(column="station_id")],
    ),
)
STATIONS = 50


def rows(start: datetime):
    names = [f"station-{n}" for n in range(STATIONS)]
    places = [float(n) / STATIONS for n in range(STATIONS)]
    columns = [pl.Series([start] * STATIONS), pl.Series(places) + 50, pl.Series(places) + 10, pl.Series(places), names]
    table = pl.DataFrame(dict(zip(wire.declared_schema(METADATA).names, columns, strict=True))).to_arrow()
    return table.cast(wire.declared_schema(METADATA))


@contextmanager
def sending(platform: Platform, folder: Path) -> Iterator[list[Window]]:
    """A client outside, which sends each minute as it ends; gives the windows that were sent so far."""
    sent: list[Window] = []
    over = threading.Event()
    settings = IonbeamClientConfig(
        amqp_url=platform.config.sections.broker.url, state_path=folder / "client", retry_delays=(1.0, 5.0)
    )

    def send() -> None:
        with SyncIonbeamClient(settings) as client:
            end = minute(datetime.now(UTC)) + MINUTE
            while not over.wait(max((end - datetime.now(UTC)).total_seconds(), 0)):
                client.ingest(rows(end - MINUTE), METADATA, end - MINUTE, end)
                sent.append(Window(end - MINUTE, end))
                end += MINUTE
            client.flush(60)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        over.set()
        sender.join()


def minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def sources(start: datetime, span: str) -> dict[str, dict]:
    """A network for each name, whose windows are of a minute, and a client's."""
    begins = f"{start:%Y-%m-%dT%H:%M:00Z}"
    block = {"type": "ioncannon", "num_stations": 20, "measurement_frequency_minutes": 1, "start": begins}
    sent = {"kind": "external", "start": begins, "aggregation_span": "PT1M", "exports": ["odb"]}
    windows = [{"source_name": name, "window_size": "PT1M"} for name in (*NAMES, "crowd")]
    networks = {name: {**block, "aggregation_span": span} for name in NAMES}
    return {"scheduler": {"windows": windows}, "crowd": sent} | networks


def until(what: Callable[[], object], seconds: float, why: Callable[[], str]) -> None:
    end = monotonic() + seconds
    while True:
        with suppress(Exception):  # a server is away
            if what():
                return
        assert monotonic() < end, why()
        sleep(1)


@contextmanager
def running(folder: Path, blocks: dict[str, dict], request) -> Iterator[tuple[Composed, Platform]]:
    servers = [request.getfixturevalue(name) for name in ("postgresql", "rabbitmq", "redis", "influxdb", "s3")]
    RedisClient.from_url(servers[2].url).flushdb()
    bucket = servers[4].bucket(folder.name.replace("_", "-"))
    several = {"worker": 2, "daemon": 2}
    with (
        Composed(folder, yaml.safe_dump(blocks), servers, bucket, several) as composed,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in composed.environment.items():
            patched.setenv(name, value)
        yield composed, open_platform(IonbeamConfig.load(Path(composed.environment["IONBEAM_CONFIG_PATH"])))


def built(platform: Platform, name: str, start: datetime) -> list[BuiltRevision]:
    return platform.ledger.revisions(name, start, datetime.now(UTC))


def exported(platform: Platform, name: str, wanted: list[Window]) -> bool:
    formats = platform.dataset(name).exports
    return all(platform.ledger.export(name, window, format) for window in wanted for format in formats)


def logs(composed: Composed) -> str:
    return "\n".join(f"--- {name}: {composed.said(name, 1500)}" for name in composed.services)


def done_twice(platform: Platform, name: str, start: datetime) -> list[Window]:
    return [one.revision.window for one in built(platform, name, start) if one.revision.number != 1]
