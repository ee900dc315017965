"""What became of the windows of a collection since a client took them: the feed that `ionbeam_client.windows` follows.

Belongs here: its three requests. Does not belong here: which windows somebody lacks (ionbeam_client/windows/feed.py).

    GET  /collections/{name}/changes?client=anna     what a client lacks; without a client all windows
    GET  /collections/{name}/windows/{window}        a window's file
    POST /collections/{name}/changes                 {"client": "anna", "windows": {"20260621T060000_PT1H": "version"}}

What clients confirmed is written beside the windows, and is all that this service ever writes. It is no secret, and
decides nothing but what is told to the client of that name.
"""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.fs as fs

from ionbeam_client.windows import feed
from ionbeam_dagster.edr import answers
from ionbeam_dagster.edr.collection import Collection
from ionbeam_dagster.edr.refusals import BadRequest, NotFound

CHANGES = re.compile(r"^/collections/([^/]+)/changes$")
WINDOW = re.compile(r"^/collections/([^/]+)/windows/([^/]+)$")
MOST_CLIENTS = 200
"""Of one collection: whoever asks may give itself a name."""
MOST_GONE = 100_000
"""Windows that a client may have said to have and that are not there: they were removed since, or never were."""
LARGEST_BODY = 8 << 20
_FILES = fs.LocalFileSystem()
_WRITING = threading.Lock()


def told(collection: Collection, client: str | None) -> bytes:
    """What a client lacks, as JSON. Raises BadRequest, and WindowsError where it cannot be known."""
    root, name = _place(collection)
    there = feed.versions_in(_FILES, root, name)
    has = _confirmed(root, name, client) if client is not None else {}
    found = [{"window": one.window, "version": one.version, "kind": one.kind} for one in feed.changes(there, has)]
    return answers.as_json({"dataset": name, "client": client, "windows": len(there), "changes": found})


def file_of(collection: Collection, window: str) -> Path:
    """The file of a window. Raises NotFound."""
    root, name = _place(collection)
    path = Path(root, name, feed.file_of(name, window))
    try:
        feed.times_of(window)
    except ValueError as error:
        raise NotFound(str(error)) from error
    if not path.is_file():
        raise NotFound(f"there is no window {window} of {name} any longer")
    return path


def confirmed(collection: Collection, body: bytes) -> bytes:
    """Remember what a client has, and tell how many it lacks now. Raises BadRequest, WindowsError."""
    root, name = _place(collection)
    try:
        given: Any = json.loads(body)
        client, windows = feed.checked_client(given["client"]), given["windows"]
        if not all(isinstance(one, str) or one is None for one in windows.values()):
            raise TypeError("versions are texts, or null of a window that is gone")
        with _WRITING:
            known = feed.clients_of(_FILES, root, name)
            if client not in known and len(known) >= MOST_CLIENTS:
                raise BadRequest(f"{name} has {MOST_CLIENTS} clients already; the operator may remove some")
            there = feed.versions_in(_FILES, root, name)
            has = feed.confirmed_by(_FILES, root, name, client).versions
            unseen = {window for window, version in windows.items() if version is not None} - there.keys() - has.keys()
            if unseen and len((unseen | has.keys()) - there.keys()) > MOST_GONE:
                raise BadRequest(f"more than {MOST_GONE} windows that {name} does not have; confirm what was told")
            feed.confirm(_FILES, root, name, client, windows, datetime.now(UTC))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadRequest):
            raise
        right = '{"client": "anna", "windows": {"20260621T060000_PT1H": "version"}}'
        raise BadRequest(f"that is no confirmation ({error}); right would be {right}") from error
    lacking = sum(1 for _ in feed.changes(there, _confirmed(root, name, client)))
    return answers.as_json({"dataset": name, "client": client, "lacking": lacking})


def _confirmed(root: str, name: str, client: str) -> dict[str, str]:
    try:
        return feed.confirmed_by(_FILES, root, name, client).versions
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _place(collection: Collection) -> tuple[str, str]:
    folder = Path(collection.files.path("")).absolute()
    return str(folder.parent), folder.name
