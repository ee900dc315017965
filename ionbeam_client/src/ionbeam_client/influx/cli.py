"""The command `eht-influx-client`: the configuration, how it stands with the log, and files to and from servers.

Belongs here: the command line and what it prints. Does not belong here: anything that a program should call.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from signal import SIGINT, SIGTERM, signal
from threading import Event

from ionbeam_client.errors import IonbeamError
from ionbeam_client.influx import times
from ionbeam_client.influx.config import EXAMPLE, Config, Server, make_config, read_config_file
from ionbeam_client.influx.errors import InfluxError
from ionbeam_client.influx.export import export, files_of
from ionbeam_client.influx.log import Log
from ionbeam_client.influx.own_files import refuse_own_files
from ionbeam_client.influx.replay import File, must_be_a_file, replay
from ionbeam_client.influx.sender import status_of
from ionbeam_client.influx.state import State
from ionbeam_client.influx.targets import Done, InfluxServer, Refused
from ionbeam_client.influx.verify import verify

CONFIG = "influx_config.ini"


def main(args: list[str] | None = None) -> int:
    """Run a command line; gives the exit status (0: done, 1: it could not be done, 2: not understood)."""
    options = _parser().parse_args(args)
    try:
        status = _run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads, `head` say, has enough; Python would complain of it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (IonbeamError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "print-config":
        print(EXAMPLE, end="")
        return 0
    config = make_config(read_config_file(options.config), options.config)
    return int(options.run(config, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("eht-influx-client", description="A station's log, and the servers it goes to.")
    parser.add_argument("--config", default=CONFIG, help=f"the INI file (default: {CONFIG} in this folder)")
    parser.add_argument("--version", action="version", version=f"eht-influx-client {version('ionbeam-client')}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    commands.add_parser("print-config", help="an INI file with every key explained, to begin with")
    check = commands.add_parser(
        "check", help="whether the INI file is right, the log can be kept, and servers take rows"
    )
    check.set_defaults(run=_check)
    commands.add_parser("status", help="what each server has, refused, and waits for").set_defaults(run=_status)

    again = commands.add_parser(
        "replay", help="bring a file (JSON lines, annotated CSV, *.lp; *.gz of these) into servers; resumable"
    )
    again.add_argument("file", type=Path)
    again.set_defaults(run=_replay)
    out = commands.add_parser("export", help="write what a server has into a file of JSON lines; resumable")
    out.add_argument("file", type=Path, metavar="OUT.jsonl")
    out.set_defaults(run=_export)
    for command in (again, out):
        command.add_argument(
            "--from",
            dest="start",
            type=_time,
            help="only from this time on (ISO 8601, UTC without an offset; or ns since 1970)",
        )
        command.add_argument("--to", dest="stop", type=_time, help="only before this time")
    look = commands.add_parser(
        "verify", help="look up every row of the log, or of a file of JSON lines, on the servers"
    )
    look.add_argument("file", type=Path, nargs="*", help="default: the log with its rotated files")
    look.set_defaults(run=_verify)
    for command in (again, out, look):
        command.add_argument(
            "--target",
            type=int,
            metavar="N",
            help="only the Nth server of the INI file (default: all; export: the first)",
        )
    for command in commands.choices.values():  # before the command or behind it
        command.add_argument("--config", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _time(text: str) -> int:
    try:
        return times.to_nanoseconds(int(text) if text.lstrip("-").isdecimal() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _servers(config: Config, number: int | None) -> list[Server]:
    if number is None:
        return list(config.servers)
    if not 1 <= number <= len(config.servers):
        raise IonbeamError(f"--target {number}: the INI file has {len(config.servers)} servers, from 1 on")
    return [config.servers[number - 1]]


def _check(config: Config, options: argparse.Namespace) -> int:
    Log(config.jsonlogfile).close()
    print(f"good: the log can be kept at {config.jsonlogfile}")
    failed = 0
    others = {
        "csvlogfile": config.csvlogfile,
        "errorlogfile": config.errorlogfile,
        "refusedlogfile": config.refused_path,
    }
    for key, path in others.items():
        if path is not None and (reason := _why_not_written(path)):
            print(f"BAD:  {key} {path} cannot be written: {reason}; name a file in a folder of your own")
            failed += 1
    for server in config.servers:
        target = InfluxServer(server, config.timeout)
        answer = target.send([b"# eht-influx-client check"])
        target.close()
        takes = isinstance(answer, Done | Refused)  # it came to the rows, of which there are none
        failed += not takes
        print(f"good: {server.name} takes rows" if takes else f"BAD:  {server.name}: {getattr(answer, 'reason', '')}")
    return 1 if failed else 0


def _why_not_written(path: Path) -> str | None:
    """Why a file cannot be added to, or made; it is not made here, since a program may do so at the same moment."""
    try:
        if path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _must_be_in_order(options: argparse.Namespace) -> None:
    if options.start is not None and options.stop is not None and options.start >= options.stop:
        raise IonbeamError("--from is not before --to: there is no time between them")


def _status(config: Config, options: argparse.Namespace) -> int:
    log = Log(config.jsonlogfile)
    state = State(log.folder / "cursors.sqlite")
    for one in status_of(log, state, config):
        print(f"{one.target}\n  delivered {one.delivered} rows, refused {one.refused}, {one.waiting_bytes} bytes wait")
        if one.last_success is not None:
            print(f"  took rows last at {times.to_rfc3339(int(one.last_success) * times.SECOND)}")
        if one.error is not None and one.failing_since is not None:
            print(f"  FAILS since {times.to_rfc3339(int(one.failing_since) * times.SECOND)}: {one.error}")
        if one.refused:
            print(f"  refused rows, with their reasons: {config.refused_path}")
    state.close()
    log.close()
    return 0


def _replay(config: Config, options: argparse.Namespace) -> int:
    must_be_a_file(options.file)
    _must_be_in_order(options)
    file = File(options.file, options.start, options.stop)
    remedy = f"the refused rows of {options.file} would go there: copy it to another place, and replay that"
    refuse_own_files(config, options.config, [file.refused_path], remedy, but=config.refused_path)
    stop, log = Event(), Log(config.jsonlogfile)
    state = State(log.folder / "cursors.sqlite")
    before = [signal(number, lambda *_: stop.set()) for number in (SIGINT, SIGTERM)]
    try:
        results = replay(file, _servers(config, options.target), config, state, _tell, stop)
    finally:
        for number, handler in zip((SIGINT, SIGTERM), before, strict=True):
            signal(number, handler)
        state.close()
        log.close()
    for one in results:
        resumed = f" (and {one.resumed_at} rows of the file before)" if one.resumed_at else ""
        print(f"{one.target}: {one.delivered} rows delivered, {one.refused} refused{resumed}")
        if one.refused:
            print(f"  refused rows, with their reasons: {file.refused_path}")
        if one.failure:
            print(f"  {one.failure}")
        elif not one.complete:
            print("  interrupted; the same command goes on from here")
    return 0 if all(one.complete and not one.refused for one in results) else 1


def _export(config: Config, options: argparse.Namespace) -> int:
    (server,) = _servers(config, options.target or 1)
    _must_be_in_order(options)
    if options.file.is_dir():
        raise IonbeamError(f"{options.file}: this is a folder; name a file in it")
    if not options.file.parent.is_dir():
        raise IonbeamError(f"{options.file}: there is no folder {options.file.parent}; make it first")
    refuse_own_files(config, options.config, files_of(options.file), "give the export a file of its own")
    target = InfluxServer(server, max(config.timeout, 60.0))
    start = times.EARLIEST if options.start is None else options.start
    stop = times.LATEST if options.stop is None else options.stop
    rows = export(target, start, stop, options.file, _tell)
    target.close()
    print(f"{rows} rows of {server.name} are in {options.file}")
    return 0


def _verify(config: Config, options: argparse.Namespace) -> int:
    log = config.jsonlogfile
    rotated = (path for path in log.parent.glob(f"{log.name}.*") if path.name.removeprefix(f"{log.name}.").isdecimal())
    files = options.file or [*sorted(rotated), log]
    for file in files:
        must_be_a_file(file)
    missing = 0
    for server in _servers(config, options.target):
        target = InfluxServer(server, max(config.timeout, 60.0))
        for file in files:
            try:
                found = verify(file, target)
            except InfluxError as error:  # the other servers can be asked
                print(error, file=sys.stderr)
                missing += 1
                break
            missing += found.missing
            print(
                f"{server.name}, {file}: {found.values} values, {found.missing} missing, {found.other} other, "
                f"{found.unreadable} unreadable rows"
            )
            for example in found.examples:
                print(f"  {example}")
            if found.failure:
                print(f"  {found.failure}")
                missing += 1
        target.close()
    return 1 if missing else 0


def _tell(message: str) -> None:
    print(" ".join(message.split()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
