"""What became of the windows of a collection since a client took them: the feed that `ionbeam_client.windows` follows.

Belongs here: its three requests. Does not belong here: which windows somebody lacks (ionbeam_client/windows/feed.py).

    GET  /collections/{name}/changes?client=anna     what a client lacks; without a client all windows
    GET  /collections/{name}/windows/{window}        a window's file, and its Repr-Digest
    POST /collections/{name}/changes                 {"client": "anna", "windows": {"20260621T060000_PT1H": "version"}}

What clients confirmed is written beside the windows, and is all that this service ever writes: beside those in S3 where
it serves a copy of them, so that it is the same for every machine, and for who follows the bucket. It is no secret, and
decides nothing but what is told to the client of that name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow.fs as fs

from ionbeam_client.windows import feed
from ionbeam_dagster.edr import answers
from ionbeam_dagster.edr.collection import Collection
from ionbeam_dagster.edr.refusals import BadRequest, NotFound

CHANGES = re.compile(r"^/collections/([^/]+)/changes$")
WINDOW = re.compile(r"^/collections/([^/]+)/windows/([^/]+)$")
PARQUET = "application/vnd.apache.parquet"
MOST_CLIENTS = 200
"""Of one collection: whoever asks may give itself a name."""
MOST_GONE = 100_000
"""Windows that a client may have said to have and that are not there: they were removed since, or never were."""
LARGEST_BODY = 8 << 20
Origins = Mapping[str, feed.Root]
"""Of folders that are copies: where their windows are kept, and what clients confirmed of them."""
_FILES = fs.LocalFileSystem()
_WRITING = threading.Lock()


def told(collection: Collection, client: str | None, origins: Origins) -> bytes:
    """What a client lacks, as JSON. Raises BadRequest, and WindowsError where it cannot be known."""
    here, kept, name = _places(collection, origins)
    there = feed.versions_in(*here, name)
    has = _confirmed(kept, name, client) if client is not None else {}
    found = [{"window": one.window, "version": one.version, "kind": one.kind} for one in feed.changes(there, has)]
    return answers.as_json({"dataset": name, "client": client, "windows": len(there), "changes": found})


def file_of(collection: Collection, window: str) -> BufferedReader:
    """The file of a window, opened: what is read of it is one version, also while it is replaced. Raises NotFound."""
    folder = Path(collection.files.path(""))
    path = folder / feed.file_of(folder.name, window)
    try:
        feed.times_of(window)
    except ValueError as error:
        raise NotFound(str(error)) from error
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no window {window} of {folder.name} any longer") from None


def digest_of(file: BufferedReader) -> str:
    """What its receiver can compare (RFC 9530, ``Repr-Digest``); the file stands at its beginning again."""
    found = base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()
    file.seek(0)
    return f"sha-256=:{found}:"


def confirmed(collection: Collection, body: bytes, origins: Origins) -> bytes:
    """Remember what a client has, and tell how many it lacks now. Raises BadRequest, WindowsError."""
    here, kept, name = _places(collection, origins)
    try:
        given: Any = json.loads(body)
        client, windows = feed.checked_client(given["client"]), given["windows"]
        if not all(isinstance(one, str) or one is None for one in windows.values()):
            raise TypeError("versions are texts, or null of a window that is gone")
        with _WRITING:
            known = feed.clients_of(*kept, name)
            if client not in known and len(known) >= MOST_CLIENTS:
                raise BadRequest(f"{name} has {MOST_CLIENTS} clients already; the operator may remove some")
            there = feed.versions_in(*here, name)
            has = feed.confirmed_by(*kept, name, client).versions
            unseen = {window for window, version in windows.items() if version is not None} - there.keys() - has.keys()
            if unseen and len((unseen | has.keys()) - there.keys()) > MOST_GONE:
                raise BadRequest(f"more than {MOST_GONE} windows that {name} does not have; confirm what was told")
            feed.confirm(*kept, name, client, windows, datetime.now(UTC))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadRequest):
            raise
        right = '{"client": "anna", "windows": {"20260621T060000_PT1H": "version"}}'
        raise BadRequest(f"that is no confirmation ({error}); right would be {right}") from error
    lacking = sum(1 for _ in feed.changes(there, _confirmed(kept, name, client)))
    return answers.as_json({"dataset": name, "client": client, "lacking": lacking})


def _confirmed(kept: feed.Root, name: str, client: str) -> dict[str, str]:
    try:
        return feed.confirmed_by(*kept, name, client).versions
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _places(collection: Collection, origins: Origins) -> tuple[feed.Root, feed.Root, str]:
    """Where windows are served from, where confirmations of them are kept, and the dataset."""
    folder = Path(collection.files.path("")).absolute()
    here = str(folder.parent)
    return (_FILES, here), origins.get(here, (_FILES, here)), folder.name
