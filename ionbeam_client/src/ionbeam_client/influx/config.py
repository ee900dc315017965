"""The INI file of a station: its servers, its logs, and how long to try.

Belongs here: the keys, their meaning, reading and checking them, and the example that `print-config` prints. Does not
belong here: what is done with them.
"""

from __future__ import annotations

import configparser
import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ionbeam_client.influx.errors import ConfigurationError

SECTION = "eht_influx"
_SERVER_KEYS = ("url", "org", "bucket", "token")
_SERVER_KEY = re.compile(r"(url|org|bucket|token)(\d*)", re.ASCII)
_logger = logging.getLogger("ionbeam_client.influx")

EXAMPLE = f"""\
[{SECTION}]
# Comments stand on lines of their own; quotes around values are optional.
# $NAME is replaced by the environment's variable, ~ by the home folder.

# The first server, for example the station's own: address, organisation, bucket and token.
# No https on localhost; everywhere else it is wanted.
url: "http://localhost:8086"
org: "eht"
bucket: "vlbimon_test"
token: "FILL_ME_IN"

# Further servers end in 2, 3, ...: each gets everything, at its own pace. A server that is away holds up no other.
url2: "https://influx.example.org"
org2: "eht"
bucket2: "vlbimon_test"
token2: "FILL_ME_IN"

# The log, one JSON object a line. It is also the queue: what is in it is sent, whatever happens. It has to be on a disk
# of this machine, not on a network file system.
jsonlogfile: ./influx_log.jsonl

# The same rows as annotated CSV, which `influx write -f` takes. Empty: no such log.
csvlogfile: ./influx_log.csv

# What went wrong, one line each. Empty: only to Python's logging.
errorlogfile: ./influx_errors.log

# Rows that a server refused, with its reason; `eht-influx-client replay` takes this file. Empty: beside jsonlogfile.
refusedlogfile:

# Both logs are renamed, with a number at the end, when they have grown to this many megabytes.
rotate_megabytes: 100

# Renamed logs are removed after this many days, once everything in them is delivered. Empty: they stay forever.
keep_days:

# Rows of one request.
batch_rows: 5000

# Seconds until a request that is not answered is repeated.
timeout: 10

# Seconds between two tries: the longest of them. The first is a second, each further one twice as long.
retry_wait_max: 60

# After how many seconds of failing the rows that are due count as refused. Empty: it is tried forever.
retry_deadline:

# Seconds for which close() waits for what is not delivered yet. What is left is sent by the next program.
close_timeout: 5
"""


@dataclass(frozen=True)
class Server:
    """One InfluxDB, and where in it the rows go."""

    url: str
    org: str
    bucket: str
    token: str

    @property
    def name(self) -> str:
        """What stands for it in messages and cursors; without the token, which may change."""
        return f"{self.url}/{self.org}/{self.bucket}"

    def __repr__(self) -> str:
        return f"Server({self.name})"


@dataclass(frozen=True)
class Config:
    """What an INI file says, checked."""

    servers: tuple[Server, ...]
    jsonlogfile: Path
    csvlogfile: Path | None = None
    errorlogfile: Path | None = None
    refusedlogfile: Path | None = None
    rotate_megabytes: float = 100.0
    keep_days: float | None = None
    batch_rows: int = 5000
    timeout: float = 10.0
    retry_wait_max: float = 60.0
    retry_deadline: float | None = None
    close_timeout: float = 5.0

    @property
    def refused_path(self) -> Path:
        return self.refusedlogfile or self.jsonlogfile.with_name(f"{self.jsonlogfile.name}.refused.jsonl")


_PATHS = ("jsonlogfile", "csvlogfile", "errorlogfile", "refusedlogfile")
_NUMBERS = {
    "rotate_megabytes": 0.001, "keep_days": 0.0, "batch_rows": 1.0, "timeout": 0.01, "retry_wait_max": 0.0,
    "retry_deadline": 0.0, "close_timeout": 0.0,
}  # fmt: skip  # each with the smallest value it may have
_MAY_BE_EMPTY = ("keep_days", "retry_deadline")


def read_config_file(path: str | Path, **keywords: Any) -> dict[str, Any]:
    """The keys of the section [eht_influx], with `keywords` in their place where both are given.

    `~` and `$NAME` in the path and in the values are replaced, and quotes around values removed.

    Raises:
        ConfigurationError: no such file, no such section, an inline comment, a variable that is not set.
    """
    place = Path(os.path.expandvars(path)).expanduser()
    if not place.is_file():
        raise ConfigurationError(
            f"{place}: there is no such file; make one with: eht-influx-client print-config > {place.name}"
        )
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(place, encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{place}: this is no text in UTF-8; write it anew, beginning with: eht-influx-client print-config"
        ) from None
    except configparser.Error as error:
        raise ConfigurationError(f"{place}: {str(error).splitlines()[0]}") from None
    if SECTION not in parser:
        raise ConfigurationError(f"{place}: there is no section [{SECTION}]; begin the file with that line")
    found: dict[str, Any] = {}
    for key, value in parser[SECTION].items():
        if key in keywords:
            _logger.warning("%s: the keyword %s is used, and not what the file says", place, key)
        else:
            found[key] = _value(place, key, value or "")
    return found | keywords


def make_config(values: Mapping[str, Any], place: str = "configuration") -> Config:
    """A checked configuration of what a file or keywords say; `place` is named in errors.

    Raises:
        ConfigurationError: with file, key and remedy.
    """
    known = {*_PATHS, *_NUMBERS}
    for key in values:
        if key not in known and not _SERVER_KEY.fullmatch(key):
            near = difflib.get_close_matches(key, [*known, *_SERVER_KEYS], 1)
            hint = f"did you mean {near[0]}?" if near else "see eht-influx-client print-config for all keys"
            raise ConfigurationError(f"{place}: there is no key {key}; {hint}")
    given: dict[str, Any] = {key: _number(place, key, values[key]) for key in _NUMBERS if key in values}
    given |= {key: Path(os.path.expandvars(values[key])).expanduser().resolve() for key in _PATHS if values.get(key)}
    if "jsonlogfile" not in given:
        raise ConfigurationError(
            f"{place}: jsonlogfile is missing; name a file on a disk of this machine: it is the log and the queue"
        )
    given["batch_rows"] = int(given.get("batch_rows", Config.batch_rows))
    config = Config(servers=_servers(values, place), **given)
    _check_files(config, place)
    return config


def _check_files(config: Config, place: str) -> None:
    """Each file has a writer of its own, who moves aside what another wrote there."""
    named = {"jsonlogfile": config.jsonlogfile, "csvlogfile": config.csvlogfile, "errorlogfile": config.errorlogfile}
    keys: dict[Path, str] = {}
    for key, path in (named | {"refusedlogfile": config.refused_path}).items():
        if path is not None and (other := keys.setdefault(path, key)) != key:
            raise ConfigurationError(f"{place}: {other} and {key} are both {path}; give each a file of its own")


def _servers(values: Mapping[str, Any], place: str) -> tuple[Server, ...]:
    numbers = sorted({match[2] for key in values if (match := _SERVER_KEY.fullmatch(key))} | {""}, key=_in_order)
    servers = []
    for number in numbers:
        said = {key: str(values.get(f"{key}{number}") or "") for key in _SERVER_KEYS}
        if number and not any(said.values()):
            continue
        for key, value in said.items():
            if not value:
                raise ConfigurationError(
                    f"{place}: {key}{number} is missing; every server has {', '.join(_SERVER_KEYS)}"
                )
        url = urlsplit(said["url"])
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ConfigurationError(
                f"{place}: url{number} is {said['url']!r}; it has to look like http://localhost:8086"
            )
        if "PYTEST_CURRENT_TEST" in os.environ and not said["bucket"].endswith("_test"):
            raise ConfigurationError(
                f"{place}: bucket{number} is {said['bucket']!r}; under pytest the name of a bucket has to end in "
                "_test, so that no test writes among real data"
            )
        servers.append(Server(**said | {"url": said["url"].rstrip("/")}))
    names = [server.name for server in servers]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{place}: two servers are the same: {', '.join(names)}")
    return tuple(servers)


def _in_order(number: str) -> tuple[int, str]:
    return len(number), number


def _value(place: Path, key: str, value: str) -> str:
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    if quoted:
        value = value[1:-1]
    elif "#" in value or re.search(r"\s;", value):
        raise ConfigurationError(
            f"{place}: {key} has a # or ; in its value; comments have to stand on lines of their own "
            "(a value with such a character has to be in quotes)"
        )
    value = os.path.expandvars(value)
    if missing := re.search(r"\$(\w+|\{\w+\})", value):
        raise ConfigurationError(f"{place}: {key} names {missing[0]}, which is not set in the environment")
    return value


def _number(place: str, key: str, value: Any) -> float | None:
    if value in ("", None):
        if key in _MAY_BE_EMPTY:
            return None
        raise ConfigurationError(f"{place}: {key} has no value; leave the line out for the default")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number >= _NUMBERS[key]:
        raise ConfigurationError(f"{place}: {key} is {value!r}; it has to be a number, {_NUMBERS[key]:g} or more")
    return number
