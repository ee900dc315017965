"""What a folder of windows says to whoever follows it: which windows there are, and which of them somebody lacks.

Belongs here: names of windows and their versions, what changed, and the file that remembers what a client has
confirmed. The web service answers by the same functions. Does not belong here: HTTP, or the rows of windows.

    <root>/<dataset>/<dataset>_<YYYYmmddTHHMMSS>_<span>.parquet     a window
    <root>/.confirmed/<dataset>/<client>.json                       the version of each window that a client has

Nothing has to be remembered of the past: what a client lacks is the difference between what there is and what it has
confirmed. A version is the time and the size of a window's file, which is replaced whole; another revision is another
version, and so is the same one that was written again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.fs as fs

from ionbeam_client.models import parse_duration
from ionbeam_client.windows.errors import WindowsError

CONFIRMED = ".confirmed"
NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What clients may be called."""
LOG = logging.getLogger("ionbeam_client.windows")
_WINDOW = re.compile(r"(\d{8}T\d{6})_(P[0-9TWDHMS]+)")

Root = tuple[fs.FileSystem, str]
"""A folder of windows: the file system that it is in, and its path there."""
Versions = dict[str, str]
"""The version of each window, by its name ``<YYYYmmddTHHMMSS>_<span>``."""


@dataclass(frozen=True, slots=True)
class Change:
    """One window that a client does not have as it is now; `version` is None of one that is gone."""

    window: str
    version: str | None
    kind: str
    """``new``, ``changed`` or ``removed``."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a client has, and when it last said so."""

    client: str
    versions: Versions
    at: datetime


def times_of(window: str) -> tuple[datetime, datetime]:
    """Start and end (not included) of a window, by its name; raises ValueError for what is none."""
    matched = _WINDOW.fullmatch(window)
    if matched is None:
        raise ValueError(f"{window[:60]!r} is no window; right would be 20260621T060000_PT1H")
    start = datetime.strptime(matched[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return start, start + parse_duration(matched[2])


def file_of(dataset: str, window: str) -> str:
    return f"{dataset}_{window}.parquet"


def versions_in(files: fs.FileSystem, root: str, dataset: str) -> Versions:
    """All windows of a dataset that there are now. Raises WindowsError where there is no such dataset."""
    folder = f"{root}/{dataset}"
    try:
        found = files.get_file_info(fs.FileSelector(folder))
    except FileNotFoundError:
        raise WindowsError(f"{folder}: there is no dataset {dataset!r}") from None
    except OSError as error:
        raise WindowsError(f"{folder}: cannot be listed ({error})", may_pass=True) from error
    begin, end = f"{dataset}_", ".parquet"
    named = (
        (one.base_name.removeprefix(begin).removesuffix(end), one)
        for one in found
        if one.type == fs.FileType.File and one.base_name.startswith(begin) and one.base_name.endswith(end)
    )
    return {name: version_of(one) for name, one in sorted(named, key=lambda pair: pair[0]) if _WINDOW.fullmatch(name)}


def version_of(file: fs.FileInfo) -> str:
    return f"{file.mtime_ns}-{file.size}"


def changes(there: Mapping[str, str], has: Mapping[str, str]) -> Iterator[Change]:
    """The windows that a client lacks, in order of time."""
    for window in sorted(there.keys() | has.keys()):
        if window not in there:
            yield Change(window, None, "removed")
        elif there[window] != has.get(window):
            yield Change(window, there[window], "changed" if window in has else "new")


def checked_client(client: str | None) -> str:
    """The name of a client; raises ValueError for what is none."""
    if client is None or NAMES.fullmatch(client) is None:
        raise ValueError(f"{client!r:.80} is no name of a client; letters, digits and _ . - are right: anna, garden-2")
    return client


def confirmed_by(files: fs.FileSystem, root: str, dataset: str, client: str) -> Confirmed:
    """What a client has confirmed; nothing where it never did, or where its file is damaged: it is told all again."""
    place = f"{root}/{CONFIRMED}/{dataset}/{checked_client(client)}.json"
    try:
        with files.open_input_stream(place) as file:
            written = json.loads(file.readall())
        return Confirmed(client, dict(written["windows"]), datetime.fromisoformat(written["at"]))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise WindowsError(f"{place}: cannot be read ({error})", may_pass=True) from error
    except (ValueError, KeyError, TypeError) as error:
        LOG.warning("%s: is damaged (%s); %s is told all windows again, which writes it anew", place, error, client)
    return Confirmed(client, {}, datetime.min.replace(tzinfo=UTC))


def clients_of(files: fs.FileSystem, root: str, dataset: str) -> list[str]:
    """The names of all who have confirmed windows of a dataset, sorted. Raises WindowsError."""
    folder = f"{root}/{CONFIRMED}/{dataset}"
    try:
        found = files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    except OSError as error:
        raise WindowsError(f"{folder}: cannot be listed ({error})", may_pass=True) from error
    names = sorted(one.base_name.removesuffix(".json") for one in found if one.base_name.endswith(".json"))
    return [name for name in names if NAMES.fullmatch(name)]


def confirm(
    files: fs.FileSystem, root: str, dataset: str, client: str, windows: Mapping[str, str | None], at: datetime
) -> None:
    """Remember that a client has these versions of windows; None: that it has one no longer. It may be said twice."""
    for window in windows:
        times_of(window)
    before = confirmed_by(files, root, dataset, client)
    said = {**before.versions, **windows}
    has = {name: version for name, version in said.items() if version is not None}
    folder = f"{root}/{CONFIRMED}/{dataset}"
    place = f"{folder}/{client}.json"
    text = json.dumps({"client": client, "at": at.isoformat(), "windows": has}, separators=(",", ":"))
    try:
        files.create_dir(folder)
        if isinstance(files, fs.LocalFileSystem):
            _replace(Path(place), text.encode())
        else:
            with files.open_output_stream(place) as file:  # an object is there when it is whole
                file.write(text.encode())
    except OSError as error:
        advice = f"; whoever follows windows needs permission to write below {root}/{CONFIRMED}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise WindowsError(f"{place}: cannot be written ({error}){'' if full else advice}", may_pass=True) from error


def _replace(place: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whoever else writes it."""
    beside = place.with_name(f".{place.stem}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
