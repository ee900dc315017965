"""Real Redis, InfluxDB 2, S3, Mosquitto and PostgreSQL for tests: each in a place of its own.

Belongs here: starting and stopping the servers under the stores (deployments/servers/install brings them onto the
machine). Does not belong here: the broker (servers.py), or any test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import pytest
from pyarrow import fs
from servers import free_port

BUILT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ionbeam" / "servers" / "bin"
_PATIENCE = 60.0  # seconds until a server that is started must answer


class Process:
    """A server that may be stopped, killed and started again with what it had on disk."""

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        healthy: Callable[[], bool],
        user: str | None = None,
        **environment: str,
    ) -> None:
        """`user` is whom it runs as, where that is not this one."""
        self._command = command
        self._user = user
        self._output = folder / "output"
        self._healthy = healthy
        self._environment = os.environ | environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=output, user=self._user, process_group=0
            )
        waited_until = time.monotonic() + _PATIENCE
        while time.monotonic() < waited_until:
            if self._process.poll() is not None:
                break
            with suppress(OSError):
                if self._healthy():
                    return
            time.sleep(0.05)
        self.stop(signal.SIGKILL)
        raise RuntimeError(f"{self._command[0]} does not answer: {self._output.read_text()[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it in good order, or, with SIGKILL, as a power cut would."""
        if self._process is not None:
            self.send(how)
            self._process.wait(timeout=30)

    def send(self, signal_: signal.Signals) -> None:
        """Send a signal to it and all that it started."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal_)


class Redis(NamedTuple):
    process: Process
    url: str


class InfluxDB(NamedTuple):
    process: Process
    url: str
    org: str
    bucket: str
    token: str


class S3(NamedTuple):
    process: Process
    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def bucket(self, name: str) -> str:
        """Make a bucket; gives its address."""
        address = self.endpoint.partition("//")[2]
        fs.S3FileSystem(
            access_key=self.access_key, secret_key=self.secret_key, endpoint_override=address, scheme="http",
            region=self.region, allow_bucket_creation=True,
        ).create_dir(name)  # fmt: skip
        return f"s3://{name}"

    def section(self) -> dict[str, str]:
        """The platform's `s3:` section."""
        keys = {"access_key": self.access_key, "secret_key": self.secret_key}
        return {"endpoint": self.endpoint, "region": self.region} | keys


class Mosquitto(NamedTuple):
    process: Process
    port: int


class PostgreSQL(NamedTuple):
    process: Process
    port: int
    createdb: Path

    def database(self, name: str) -> str:
        """Make a database of the user ``dagster``; gives its host, port and name: ``127.0.0.1:5432/name``."""
        at = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "dagster"]
        subprocess.run([self.createdb, *at, name], check=True, capture_output=True)
        return f"127.0.0.1:{self.port}/{name}"


@dataclass(frozen=True)
class Missing(Exception):
    """A server is not on this machine."""

    reason: str


def start_redis(folder: Path) -> Redis:
    binary, port = _installed("redis-server"), free_port()
    options = f"--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync always".split()

    def healthy() -> bool:
        answer = subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True, text=True)
        return answer.stdout.strip() == "PONG"

    process = Process([binary, *options, "--save", "", "--dir", folder], folder, healthy)
    process.start()
    return Redis(process, f"redis://127.0.0.1:{port}/0")


def start_influxdb(folder: Path) -> InfluxDB:
    binary, port = _installed("influxd"), free_port()
    url = f"http://127.0.0.1:{port}"
    places = ["--bolt-path", folder / "bolt", "--sqlite-path", folder / "sqlite", "--engine-path", folder / "engine"]
    options = ["--http-bind-address", f"127.0.0.1:{port}", "--reporting-disabled", "--log-level", "error"]
    process = Process([binary, *places, *options], folder, lambda: _answers(f"{url}/health"))
    process.start()
    made = {"username": "tests", "password": "tests-tests", "org": "ionbeam", "bucket": "first", "token": "secret"}
    setup = urllib.request.Request(f"{url}/api/v2/setup", json.dumps(made).encode(), method="POST")
    with urllib.request.urlopen(setup, timeout=30):
        return InfluxDB(process, url, made["org"], made["bucket"], made["token"])


def start_s3(folder: Path) -> S3:
    binary, port = _installed("versitygw"), free_port()
    (folder / "files").mkdir()
    address, key, secret, region = f"127.0.0.1:{port}", "tests", "tests-secret", "us-east-1"
    process = Process(
        [binary, "--port", address, "--health", "/health", "--region", region, "posix", folder / "files"], folder,
        lambda: _answers(f"http://{address}/health"), ROOT_ACCESS_KEY=key, ROOT_SECRET_KEY=secret,
    )  # fmt: skip
    process.start()
    return S3(process, f"http://{address}", key, secret, region)


def start_mosquitto(folder: Path, *more: str) -> Mosquitto:
    """A broker that forgets nothing over a restart, and, but for its last moment, over a kill.

    As it comes it would keep 1,000 messages for a client that is away, and save its state every half hour.
    """
    binary, port = _installed("mosquitto"), free_port()
    settings = [f"listener {port} 127.0.0.1", "allow_anonymous true", "user root", "max_queued_messages 0"]
    settings += [
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_on_changes true",
        "autosave_interval 1",
    ]
    settings = [*(line for line in settings if not (more and line.startswith("allow_anonymous"))), *more]
    (folder / "mosquitto.conf").write_text("\n".join(settings) + "\n")

    def healthy() -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    process = Process([binary, "-c", folder / "mosquitto.conf"], folder, healthy)
    process.start()
    return Mosquitto(process, port)


def start_postgresql(folder: Path) -> PostgreSQL:
    """`folder` may not lie in one that others cannot enter: PostgreSQL refuses to run as root, and is another user."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise Missing("PostgreSQL is not installed (apt-get install postgresql)")
    programs, port, user = found[-1].parent, free_port(), "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"
    quiet: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user}
    subprocess.run([programs / "initdb", "-D", data, "-U", "dagster", "--auth", "trust"], check=True, **quiet)

    def healthy() -> bool:
        return subprocess.run([programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], **quiet).returncode == 0

    command = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder]
    process = Process(command, folder, healthy, user)
    process.start()
    return PostgreSQL(process, port, programs / "createdb")


def _installed(name: str) -> Path:
    found = shutil.which(name, path=os.pathsep.join([str(BUILT), os.environ["PATH"], "/usr/sbin"]))
    if found is None:
        raise Missing(f"{name} is not on this machine (make servers)")
    return Path(found)


def _answers(url: str) -> bool:
    with suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
    return False


def _served(start, name: str, folders: pytest.TempPathFactory) -> Iterator:
    try:
        server = start(folders.mktemp(name))
    except Missing as missing:
        pytest.skip(missing.reason)
    yield server
    server.process.stop()


@pytest.fixture(scope="session")
def redis(tmp_path_factory) -> Iterator[Redis]:
    yield from _served(start_redis, "redis", tmp_path_factory)


@pytest.fixture(scope="session")
def influxdb(tmp_path_factory) -> Iterator[InfluxDB]:
    yield from _served(start_influxdb, "influxdb", tmp_path_factory)


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[S3]:
    yield from _served(start_s3, "s3", tmp_path_factory)


@pytest.fixture
def mosquitto(tmp_path_factory) -> Iterator[Mosquitto]:
    yield from _served(start_mosquitto, "mosquitto", tmp_path_factory)


@pytest.fixture
def mosquitto_with_tls(tmp_path_factory) -> Iterator[tuple[Mosquitto, Path]]:
    """A broker that speaks TLS as localhost, with the certificate to trust; it knows `someone`, with `very-secret`."""
    folder = tmp_path_factory.mktemp("mosquitto_with_tls")
    if not all(map(shutil.which, ("openssl", "mosquitto_passwd"))):
        pytest.skip("openssl or mosquitto_passwd is not on this machine (make servers)")
    key, certificate, users = folder / "key.pem", folder / "certificate.pem", folder / "users"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "someone", "very-secret"], check=True, capture_output=True)
    settings = [f"certfile {certificate}", f"keyfile {key}", "allow_anonymous false", f"password_file {users}"]
    server = start_mosquitto(folder, *settings)
    yield server, certificate
    server.process.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    folder = Path(mkdtemp(prefix="ionbeam-postgresql-"))
    folder.chmod(0o755)
    try:
        server = start_postgresql(folder)
    except Missing as missing:
        shutil.rmtree(folder)
        pytest.skip(missing.reason)
    yield server
    server.process.stop(signal.SIGINT)
    shutil.rmtree(folder)
