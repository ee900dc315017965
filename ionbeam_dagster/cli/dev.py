"""`ionbeam dev`: the whole platform on this machine, kept going by one process.

Belongs here: which processes there are, and how each is asked whether it is well. Does not belong here: how they are
watched (orchestration/supervision.py).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Annotated

import typer
import yaml

from ionbeam_client.text import visible
from ionbeam_dagster.cli.terminal import PORTS, dagster_home, fail, load_config
from ionbeam_dagster.config import CONFIG_VARIABLE, IonbeamConfig
from ionbeam_dagster.errors import ConfigError, StoreError
from ionbeam_dagster.health.logs import as_json
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.orchestration.home import LOG, SETTINGS, check_databases, ensure_stores
from ionbeam_dagster.orchestration.supervision import Child, Supervisor, awoken, processor_used
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.stores.locks import JobLock
from ionbeam_dagster.stores.publish import published

_LOCATION = "ionbeam_dagster.definitions"
_HOST = "127.0.0.1"
_LOOKED_EVERY = 20.0
"""Seconds from one look at the platform's health to the next; what processes that stay say of it is in the log."""
_LONGEST = 1_000
_ANSWERED_WITHIN = 3.0
_THREADS = 32
"""Of the code server: a sensor that hangs holds one for a minute, and none of the others may wait for it."""
_MOST_LOGGED = 20_000_000
_DAEMON_HANGS_AFTER = "300"
"""Seconds after which Dagster's daemon ends itself when one of its threads hangs."""


def dev(port: Annotated[int, typer.Option(**PORTS, help="Where the UI listens, on this machine only.")] = 3000) -> None:
    """Start the whole platform: the UI, its sensors and its automation. Ctrl-C stops it.

    The web server, Dagster's daemon, the code server and the worker (`ionbeam worker`) are watched: what ends or hangs
    is started again, and a line says so; work goes on within a minute. All of them end with this command, however it
    ends. A changed YAML is taken up by itself; one that cannot be used is told, and the one before stays.

    Data stay where the YAML says; Dagster's history in $DAGSTER_HOME, else in `dagster` under `state_path`.
    """
    config = load_config()
    home = dagster_home(config)
    os.environ |= {
        CONFIG_VARIABLE: str(config.path.absolute()),
        "DAGSTER_HOME": str(home),
        "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE": _DAEMON_HANGS_AFTER,
    }
    alone = JobLock(home / "ionbeam-dev.lock")
    if not alone.acquire():
        fail(f"another `ionbeam dev` runs with {home}; stop it, or give this one a DAGSTER_HOME of its own")
    if not _is_free(port):
        fail(f"port {port} is taken; choose another one with --port")
    code_port = _code_port(home)
    workspace = _workspace(home, code_port)
    log = home / LOG
    form = ["--log-format", "json"] if as_json() else []
    check_databases(home)
    ensure_stores(home, log)
    code = Child("the code server", [*_code_command(code_port), *form], log, _answers_health(code_port))
    web = Child(
        "the web server",
        [*_program("dagster-webserver"), "--port", str(port), "--workspace", str(workspace),
         "--dagster-log-level", "warning", *form],
        log,
        _answers_http(f"http://{_HOST}:{port}/server_info"),
    )  # fmt: skip
    daemon = Child(
        "the daemon",
        [*_program("dagster-daemon"), "run", "--workspace", str(workspace), "--log-level", "warning", *form],
        log,
        _works(),
    )
    worker = Child("the worker", [*_program("ionbeam"), "worker"], log, _works())
    working = [worker] if config.automation.enabled else []
    health = _Health(config)

    def ready() -> None:
        print(f"ionbeam: http://{_HOST}:{port}   (what its processes say: {log})", flush=True)

    supervisor = Supervisor(
        [code, *working, web, daemon],
        _say,
        [ready, health.begin],  # health not before: while the worker starts, work stands still
        [_following(health, [code, *working, daemon]), _dagster_told(home), lambda: _bounded(log)],
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run()


def _say(told: str) -> None:
    print(f"ionbeam: {time.strftime('%H:%M:%S')} {told}", file=sys.stderr, flush=True)


def _bounded(log: Path) -> None:
    """Keep of a log no more than twice _MOST_LOGGED bytes; those who write into it go on at its end."""
    if log.exists() and log.stat().st_size > _MOST_LOGGED:
        with suppress(OSError):  # on a full disk the new lines are worth more than the old ones
            copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


@dataclass(slots=True)
class _Health:
    """Looks whether all is well, and says here what is not, and when it is again."""

    config: IonbeamConfig
    _watch: Watch | None = None

    def begin(self) -> None:
        watch = Watch(
            open_platform(self.config), every=_LOOKED_EVERY, tell=lambda _, told: _say(visible(told, _LONGEST))
        )
        self._watch = watch.start()

    def follow(self, config: IonbeamConfig) -> None:
        """Look at another configuration from now on."""
        self.config = config
        if self._watch is not None:
            self._watch.stop()
            self.begin()


def _following(health: _Health, children: list[Child]) -> Callable[[], None]:
    """Has `children` started again, and `health` follow, when the YAML says something else that can be used."""
    config = health.config
    seen = config.path.read_bytes()

    def look() -> None:
        nonlocal seen, config
        try:
            now = config.path.read_bytes()
        except OSError:  # it is being written
            return
        if now == seen:
            return
        seen = now
        try:
            changed = IonbeamConfig.load(config.path)
        except ConfigError as error:
            _say(f"{config.path} was changed and cannot be used; the platform goes on with the one before: {error}")
            return
        if changed != config:
            config = changed
            _say(f"{config.path} was changed, and is taken up")
            for child in children:
                child.restart()
            health.follow(config)

    return look


def _dagster_told(home: Path) -> Callable[[], None]:
    """Says once what is wrong with Dagster's folder: the log, in which others would tell of it, is in it."""
    before = ""

    def look() -> None:
        nonlocal before
        now = _fault_of(home)
        if now and now != before:
            _say(now)
        before = now

    return look


def _fault_of(home: Path) -> str:
    if not (home / SETTINGS).exists():
        return (
            f"{home} is gone, and no work is done; bring it back, or stop this and start it again, which makes it "
            "anew, then `ionbeam history rebuild`"
        )
    try:
        check_databases(home)
    except StoreError as error:
        return str(error)
    return ""


# --- the processes ----------------------------------------------------------------------------------------------------


def _program(name: str) -> list[str]:
    return [str(Path(sys.executable).with_name(name))]


def _code_command(port: int) -> list[str]:
    place = ["--host", _HOST, "--port", str(port), "--max-workers", str(_THREADS)]
    named = ["--module-name", _LOCATION, "--location-name", _LOCATION, "--log-level", "warning"]
    return [*_program("dagster"), "api", "grpc", *place, *named, "--use-python-environment-entry-point"]


def _workspace(home: Path, port: int) -> Path:
    path = home / "ionbeam-dev.yaml"
    server = {"host": _HOST, "port": port, "location_name": _LOCATION}
    with published(path) as draft:
        draft.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return path


def _code_port(home: Path) -> int:
    """Where the code server listens: where it did the last time, for Dagster knows its sensors' past by that."""
    path = home / "ionbeam-dev.yaml"
    if path.exists():
        known = int(yaml.safe_load(path.read_text())["load_from"][0]["grpc_server"]["port"])
        if _is_free(known):
            return known
        _say(f"port {known}, where the code server was, is taken; another one is used, and earlier ticks are not shown")
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


# --- whether they are well --------------------------------------------------------------------------------------------


def _answers_http(url: str) -> Callable[[int], bool]:
    def answers(process: int) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=_ANSWERED_WITHIN) as answer:  # noqa: S310 (our own address)
                return bool(answer.status == 200)
        except OSError:
            return False

    return answers


def _answers_health(port: int) -> Callable[[int], bool]:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    def answers(process: int) -> bool:
        try:
            with grpc.insecure_channel(f"{_HOST}:{port}") as channel:
                asked = health_pb2.HealthCheckRequest(service="DagsterApi")
                told = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=_ANSWERED_WITHIN)
        except grpc.RpcError:
            return False
        return bool(told.status == health_pb2.HealthCheckResponse.SERVING)

    return answers


def _works() -> Callable[[int], bool]:
    """Whether a process that never rests for long has used the processor, or awoken, since it was last asked."""
    known: dict[int, tuple[int | None, int | None]] = {}

    def answers(process: int) -> bool:
        before, now = known.get(process), (processor_used(process), awoken(process))
        known.clear()
        known[process] = now
        return now == (None, None) or now != before

    return answers
