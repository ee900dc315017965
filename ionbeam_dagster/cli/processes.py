"""Commands that stay until stopped, but for `dev`: the bridge, the HTTP door, what listens to MQTT, the web service."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ionbeam_dagster.cli.terminal import PORTS, dagster_instance, fail, load_config
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from ionbeam_dagster.health.examination import Check
    from ionbeam_dagster.health.pages import Page
    from ionbeam_dagster.orchestration.arrivals import Arrivals
    from ionbeam_dagster.pipeline.platform import Platform
    from ionbeam_dagster.sources import Subscriber


def _watched_config() -> IonbeamConfig:
    """The configuration of a process that stays, which logs, and says when its file says something else."""
    from ionbeam_dagster.health.logs import log_to_stderr

    config = load_config()
    log_to_stderr(config)
    watch(config)
    return config


def watch(config: IonbeamConfig, every: float = 10.0) -> threading.Event:
    """Log it, once for each change, when the YAML is another one than `config`, until the event that is given back is
    set. It is looked at every `every` seconds."""
    stop, seen = threading.Event(), config.path.read_bytes()

    def look(seen: bytes) -> None:
        while not stop.wait(every):
            with suppress(OSError):
                now = config.path.read_bytes()
                if now != seen:
                    _warn_of_a_change(config)
                seen = now

    threading.Thread(target=look, args=(seen,), name="ionbeam-watch", daemon=True).start()
    return stop


def _warn_of_a_change(config: IonbeamConfig) -> None:
    goes_on = "this process goes on with what it read before"
    try:
        if IonbeamConfig.load(config.path) != config:
            logging.warning("%s was changed, and %s: start it again to have the new one", config.path, goes_on)
    except ConfigError as error:
        logging.warning("%s was changed and cannot be used, so that %s: %s", config.path, goes_on, error)


def bridge() -> None:
    """Take in what clients send, ingest, build and export it, and announce it, as it happens. Ctrl-C stops it.

    `ionbeam worker`, and so `ionbeam dev`, does the same; this is for who wants it alone, and all may run side by side.
    With `automation: {enabled: false}` in the YAML this takes in and announces, and leaves the rest to you.
    """
    from ionbeam_dagster.doors.amqp.bridge import bridge_of
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(_watched_config())
    with _working(platform) as work:
        bridge_of(platform).run_forever(work)


_LOOKS = 8
_NAMED = 5  # files


@contextmanager
def _working(platform: Platform) -> Iterator[Callable[[], object]]:
    """What brings up to date what was taken in, whenever it is called."""
    with ExitStack() as stack:

        @cache  # importing Dagster takes seconds, in which something is taken in already
        def arrivals() -> Arrivals:
            from ionbeam_dagster.orchestration.arrivals import Arrivals

            return Arrivals(platform, stack.enter_context(dagster_instance(platform.config)))

        yield lambda: arrivals().bring_up_to_date()


def worker(
    at_once: Annotated[
        int | None,
        typer.Option(min=1, help="Sources and datasets that are worked on at once. Default: one a processor, 2 to 4."),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Only say whether a worker is alive (exit status 1: none is), for health checks.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(**PORTS, help="Where /health and /metrics are answered; without it nowhere.")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 to be asked from other machines.")] = "127.0.0.1",
) -> None:
    """Do what is due of all sources and datasets within seconds: collect, ingest, build, export. Ctrl-C stops it.

    Every piece of work is a Dagster run that `ionbeam dev` shows. While a worker is alive, Dagster's automation leaves
    the work to it; a minute after the last one ended, automation does it again. Any number of workers may run, on any
    host that shares the stores: no window is worked on twice at a time, and what a dead worker had begun is free within
    a minute. A service that does not answer takes nobody else's place, and is asked for one window at a time.

    With a broker in the YAML it also does what `ionbeam bridge` does; with `automation: {enabled: false}` only that.
    `ionbeam dev` starts one by itself.
    """
    from ionbeam_dagster.pipeline.recovery import open_platform

    if check:
        _check_worker(open_platform(load_config()))
        return
    from ionbeam_dagster.orchestration.arrivals import bridging
    from ionbeam_dagster.orchestration.worker import Worker

    platform = open_platform(_watched_config())
    with dagster_instance(platform.config) as instance, bridging(platform, instance), ExitStack() as stack:
        from ionbeam_dagster.health.pages import served
        from ionbeam_dagster.orchestration.doctor import SUBJECT, Runs, history

        checks = {SUBJECT: lambda: history(instance)}
        pages = _pages(platform, True, Runs(instance), checks=checks)
        if port is not None:
            stack.enter_context(served(pages, host, port))
        working = Worker(platform, instance, at_once or min(max(os.cpu_count() or 2, 2), 4))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: working.stop())
        working.run()


def daemon(
    workspace: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Dagster's file that says where the code server is.")
    ] = Path("workspace.yaml"),
) -> None:
    """Run Dagster's daemon, of which one may work at a time: any others stand by, and take over when it is gone.

    For more than one machine; `ionbeam dev` has its own. Two of Dagster's daemons launch each queued run twice. Here a
    lease in the ledger keeps them apart: on Redis another one works 15 seconds after the last sign of life.
    """
    from ionbeam_dagster.orchestration.internals import run_daemon
    from ionbeam_dagster.orchestration.standby import alone
    from ionbeam_dagster.pipeline.recovery import open_platform

    config = load_config()
    watch(config)
    with alone(open_platform(config), lambda told: print(f"ionbeam: {told}", file=sys.stderr, flush=True)):
        run_daemon(["--workspace", str(workspace)])


def _pages(
    platform: Platform,
    in_full: bool,
    *further: Collector,
    fatal: Set[str] | None = None,
    checks: Mapping[str, Check] | None = None,
) -> dict[str, Page]:
    """The pages /health and /metrics of a process, which looks after the platform's health from now on, and tells of
    troubles the log, and whom the YAML names."""
    from ionbeam_dagster.health.alerts import Alerting
    from ionbeam_dagster.health.messages import ways
    from ionbeam_dagster.health.pages import pages
    from ionbeam_dagster.health.watch import Watch

    watch = Watch(platform, further=checks).start()
    if (alerts := platform.config.sections.alerts) is not None:
        Alerting(platform, alerts, watch, list(ways(alerts))).start()
    return pages(platform, watch, in_full, *further, fatal=fatal)


def _check_worker(platform: Platform) -> None:
    """Say which worker's heart beats; it is looked at for some seconds."""
    from ionbeam_dagster.orchestration.holders import workers_beats

    before = workers_beats(platform)
    for _ in range(_LOOKS):
        time.sleep(1)
        alive = [holder for holder, beats in workers_beats(platform).items() if beats != before.get(holder, beats)]
        if alive:
            print(f"{', '.join(alive)}: alive")
            return
    fail("no worker is alive; start one with `ionbeam worker`")


def receive(
    port: Annotated[int, typer.Option(**PORTS, help="Where the door listens.")] = 8086,
    host: Annotated[str, typer.Option(help="0.0.0.0 to be reached from other machines.")] = "127.0.0.1",
) -> None:
    """Take in what stations write over HTTP, as to InfluxDB, and what devices report; ingest, build and export it.

    For sources of kind door (docs/stations.md). What a client was told is taken is on disk: kill this when you like.
    Let a proxy stand in front that has a certificate. With `automation: {enabled: false}` in the YAML this takes in,
    and leaves the rest to you. Ctrl-C stops it.
    """
    from ionbeam_dagster.doors import http

    if lacking := http.lacking():
        fail(f"receive needs {lacking}")
    from ionbeam_dagster.doors.http.serving import OpenDoor
    from ionbeam_dagster.health.watch import DOORS
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(_watched_config())
    door = OpenDoor(platform, host, port, pages=_pages(platform, in_full=False, fatal=DOORS))
    threading.Thread(target=_log_misfits, args=(platform,), name="misfits", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: door.stop())
    print(
        f"lines: http://{host}:{port}/api/v2/write, reports: http://{host}:{port}/api/v1/streamer/report/", flush=True
    )
    with _working(platform) as work:
        door.run(work)


def _log_misfits(platform: Platform) -> None:
    """Say what of the configuration does not fit what is stored, in a thread of its own: the ledger may be away."""
    from ionbeam_dagster.pipeline.agenda import misfits

    try:
        for misfit in misfits(platform):
            logging.error(misfit)
    except Exception as error:  # the door takes in all the same
        logging.warning("whether the configuration fits what is stored cannot be seen now: %s", error)


def mqtt(
    name: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Needed where there are several.")] = None,
) -> None:
    """Take in what is published over MQTT, for sources such as `netatmo_mqtt`. Ctrl-C stops it.

    Every message is on disk before the broker hears that it has arrived: kill it when you like, and start it again. Let
    a supervisor (systemd, a container) do so. Windows are made of the journal by Dagster, or by `ionbeam run`.
    """
    from ionbeam_dagster.pipeline.recovery import open_platform

    sources = open_platform(_watched_config()).sources
    listening = {each: source for each, source in sources.items() if source.subscribes}
    if name is None and len(listening) == 1:
        [name] = listening
    if name not in listening:
        fail(f"name one of the sources that listen to MQTT: {', '.join(listening) or 'none is configured'}")
    subscriber = listening[name].subscriber()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: subscriber.stop())
    threading.Thread(target=_log_counts, args=(name, subscriber), daemon=True).start()
    subscriber.run()
    logging.info("%s: stopped with %d messages journaled", name, subscriber.taken)


def _log_counts(name: str, subscriber: Subscriber) -> None:
    """A line a minute."""
    logged = 0
    while True:
        time.sleep(60)
        journaled = subscriber.taken
        logging.info("%s: %d messages journaled, %d in the last minute", name, journaled, journaled - logged)
        logged = journaled


def serve(
    port: Annotated[int, typer.Option(**PORTS, help="Where the service listens.")] = 5000,
    host: Annotated[str, typer.Option(help="0.0.0.0 to be reached from other machines.")] = "127.0.0.1",
    url: Annotated[
        str | None,
        typer.Option(help="The address that people use, e.g. https://example.org/edr, where a proxy stands in front."),
    ] = None,
) -> None:
    """Serve the exported windows: OGC API - EDR and Features, and a map at /map. Ctrl-C stops it.

    Its configuration is made when it is missing; a change of it is taken up within seconds. docs/edr.md tells where it
    is, and how exports in S3 are served. Needs `pip install 'ionbeam-dagster[edr]'`.
    """
    from ionbeam_dagster import edr

    if lacking := edr.lacking():
        fail(f"serve needs {lacking}")
    from ionbeam_dagster.edr.served import follow, origins, update_configuration
    from ionbeam_dagster.edr.server import serve as serve_forever
    from ionbeam_dagster.pipeline.recovery import open_platform

    config = _watched_config()
    path, extents = update_configuration(config)
    follow(config)

    address = url or f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"  # noqa: S104 (says what was configured)
    windows = sum(extent.files for extent in extents.values())
    served = sum(1 for extent in extents.values() if extent.files)
    line = f"{served} collections, {windows:,} windows: {address}/ (map: {address}/map); configuration: {path}"
    print(line, flush=True)
    for name, extent in extents.items():
        if extent.unreadable:
            print(f"{name}: {_not_served(extent.unreadable)}", flush=True)
    serve_forever(path, host, port, address, origins(config), _pages(open_platform(config), in_full=False))


def _not_served(unreadable: list[str]) -> str:
    shown = ", ".join(unreadable[:_NAMED]) + (", ..." if len(unreadable) > _NAMED else "")
    many = f"{len(unreadable):,} files cannot" if len(unreadable) > 1 else "1 file cannot"
    again = "`ionbeam status --check-files` sets aside what is damaged, so that it is exported again"
    return f"{many} be read, not served: {shown}; {again}"
