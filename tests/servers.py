"""Real servers for tests: each on its own free loopback port and in its own temporary folder.

Belongs here: starting, stopping and killing servers that the tests need. Does not belong here: any test.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

import pytest

_RABBITMQ = Path(os.environ.get("RABBITMQ_SERVER", "/usr/lib/rabbitmq/bin/rabbitmq-server"))
"""Beside its `rabbitmqctl`; another one of another version."""


def _ports() -> list[int]:
    """Those of this process, in the order in which it hands them out; processes that test side by side share none."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = range(20_000, 32_000)[worker::workers]
    first = os.getpid() % len(mine)
    return [*mine[first:], *mine[:first]]


# Each port is handed out once: a server that is starting, or starts again, holds none that can be seen.
_PORTS = itertools.cycle(_ports())


def free_port() -> int:
    """A free port below the ephemeral range: a client that polls a closed port there may connect to itself."""
    for port in itertools.islice(_PORTS, 12_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port below 32000")


def why_no_rabbitmq() -> str | None:
    """Why RabbitMQ cannot be started here; None when it can."""
    if not _RABBITMQ.exists() or shutil.which("erl") is None:
        return "RabbitMQ is not installed (apt-get install rabbitmq-server)"
    return None


class Line:
    """A line to a broker that swallows both ways, without an end of the connection, while `hole` is set."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.hole = False

    @asynccontextmanager
    async def open(self):
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _connected(self, reader, writer):
        lost = [self.hole]
        if self.hole:
            while await reader.read(65_536):
                pass
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def pump(source, target):
            with suppress(OSError):
                while data := await source.read(65_536):
                    lost[0] = lost[0] or self.hole
                    if not lost[0]:
                        target.write(data)
                        await target.drain()
            if not lost[0]:
                target.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))


class RabbitMQ:
    """A broker that may be stopped, killed and started again with what it had on disk."""

    def __init__(self, folder: Path, *settings: str) -> None:
        """`settings` are further lines of its `rabbitmq.conf`."""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port, distribution, mapper = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text("\n".join(["loopback_users.guest = false", *settings, ""]))

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [_RABBITMQ], env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        for _ in range(600):
            if self._process.poll() is not None:
                raise RuntimeError(f"RabbitMQ ended at once: {(self._folder / 'output').read_text()[-2000:]}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
                probe.sendall(b"AMQP\0\0\x09\x01")
                if probe.recv(8):
                    return
            time.sleep(0.1)
        raise RuntimeError("RabbitMQ did not start within a minute")

    def stop(self) -> None:
        """Stop it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self._end(signal.SIGKILL)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` says of it."""
        command = [_RABBITMQ.with_name("rabbitmqctl"), "-n", self._environment["RABBITMQ_NODENAME"], *arguments]
        done = subprocess.run(
            command, env=self._environment, check=True, capture_output=True, timeout=60, text=True
        )  # fmt: skip
        return done.stdout

    @property
    def down(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        """Stop it with its port mapper."""
        if not self.down:
            self._end(signal.SIGKILL)
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                ["epmd", "-port", self._environment["ERL_EPMD_PORT"], "-kill"],
                env=self._environment, capture_output=True, timeout=10,
            )  # fmt: skip

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)
        self._process.wait(timeout=30)
        for _ in range(100):  # the node's children may hold the port for a moment
            with socket.socket() as probe, suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", self.port))
                return
            time.sleep(0.1)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory):
    """A running RabbitMQ; its `url` is the address. Skips where it is not installed."""
    if reason := why_no_rabbitmq():
        pytest.skip(reason)
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def at_port_5672(url):
    """The broker's own port, at which the programs of the specification expect it; one test of a machine has it."""
    with (Path(gettempdir()) / "ionbeam-tests-5672.lock").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        async with _forwarded_from_port_5672(url):
            yield


@asynccontextmanager
async def _forwarded_from_port_5672(url):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 5672)) == 0:
            pytest.skip("something else listens on port 5672")
    port = int(re.search(r":(\d+)/", url)[1])

    async def forward(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source, target):
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    server = await asyncio.start_server(forward, ["127.0.0.1", "::1"], 5672)
    yield
    server.close()
