"""PyGeoAPI's configuration and the OpenAPI document, kept up to date.

Belongs here: one entry a dataset with its true extents and its parameters, written into a YAML that a person may edit.
Does not belong here: what the service answers (service.py, documents.py).

Our entries stand between two marks under ``resources:``; the text outside is left as it is, comments and all. Of an
entry between the marks ours are ``type``, ``extents`` and the providers of this package; whatever else a person wrote
stays.

What each file's footer told is remembered beside the platform's state, so that only files that are new or replaced are
opened: a run costs a listing of the folders that changed, and one small file is written for all datasets.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ionbeam_dagster.edr import documents
from ionbeam_dagster.edr.files import LocalFiles, window_of_name
from ionbeam_dagster.edr.parameters import Layout, layout_of
from ionbeam_dagster.edr.service import EDR_PLUGIN, FEATURES_PLUGIN
from ionbeam_dagster.errors import ServiceError
from ionbeam_dagster.stores.publish import published

LOG = logging.getLogger(__name__)
TOLD_EVERY = 5.0  # s
BEGIN = "# ionbeam: begin (written by the platform; texts and links that you change in here are kept, comments are not)"
END = "# ionbeam: end"
DEFAULT_URL = "http://localhost:5000"
_EARLIER_PACKAGE = "ionbeam_dagster.exporters.pygeoapi.provider."
_OWN = ("type", "extents", "providers")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True)
class About:
    """What people are told of a collection; what is empty, nobody said. `links` have href, title and rel."""

    title: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    licence: str = ""
    attribution: str = ""
    links: tuple[dict[str, str], ...] = ()

    def joined(self, other: About) -> About:
        """With what `other` says beside it; where both say one thing, this holds."""
        told = {link["href"] for link in self.links}
        return About(
            self.title or other.title,
            self.description or other.description,
            tuple(dict.fromkeys((*self.keywords, *other.keywords))),
            self.licence or other.licence,
            self.attribution or other.attribution,
            (*self.links, *(link for link in other.links if link["href"] not in told)),
        )


@dataclass(frozen=True, slots=True)
class Served:
    """A dataset to be served, and what the configuration says of it."""

    name: str
    folder: Path
    about: About = About()


@dataclass(slots=True)
class Extent:
    """What the files of a dataset hold together; `bbox` and `times` (microseconds) are None without rows."""

    files: int = 0
    rows: int = 0
    bbox: list[float] | None = None
    times: tuple[int, int] | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    about: About = About()
    """What its sources say of themselves, by the newest window."""


def update(
    config_path: Path, state: Path, served: Sequence[Served], tell: Callable[[str], None] = LOG.info
) -> dict[str, Extent]:
    """Bring the YAML at `config_path` and the OpenAPI document beside it up to date.

    What does not change is not written. `state` is a folder for what is remembered; `tell` is given a line every few
    seconds while files are looked at. Raises ServiceError.
    """
    extents = _extents(served, state / "extents.arrow", tell)
    text = config_path.read_text(encoding="utf-8") if config_path.exists() else _new()
    entries = {one.name: _entry(one, extents[one.name]) for one in served if extents[one.name].files}
    renewed = with_entries(text, entries, config_path, _texts_before(state / "texts.json"))
    _write(config_path, renewed)
    _write(state / "texts.json", json.dumps({name: _texts(entry) for name, entry in entries.items()}, indent=1))
    config = yaml.load(renewed, _LOADER)
    told = config["metadata"]["identification"]
    names = [name for name, one in config["resources"].items() if _is_ours(one)]
    document = documents.openapi(
        _plain(told.get("title", "")), _plain(told.get("description", "")), config["server"]["url"], names
    )
    _write(openapi_path(config_path), json.dumps(document, indent=1, ensure_ascii=False))
    return extents


def openapi_path(config_path: Path) -> Path:
    return config_path.with_name(f"{config_path.stem}.openapi.json")


def with_entries(text: str, entries: dict[str, Any], place: Path, written: dict[str, dict[str, Any]]) -> str:
    """`text` (YAML) with `entries` between the marks; a resource of the same name outside of them is a person's own.

    `written` are the texts of each entry as they were written last: others are a person's, and stay.
    """
    text = text.replace(_EARLIER_PACKAGE, f"{__package__}.provider.")
    try:
        config = yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        raise ServiceError(f"{place} is not YAML ({error}); mend it, it was left as it is") from error
    lacking = [key for key in ("server", "metadata") if not isinstance(config, dict) or key not in config]
    if lacking:
        raise ServiceError(f"{place} has no {' and no '.join(lacking)}; PyGeoAPI needs them: mend or remove it")
    outside = _without_block(text)
    theirs = set((yaml.load(outside, _LOADER) or {}).get("resources") or {})
    before = config.get("resources") or {}
    block = {
        name: _merged(before.get(name) or {}, entry, written.get(name) or _texts_of_earlier_versions(name))
        for name, entry in entries.items()
        if name not in theirs
    }
    return _with_block(outside, block)


def _merged(before: dict[str, Any], entry: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    texts = _texts(before)
    theirs = {key: value for key, value in texts.items() if key not in written or written[key] != value}
    others = [one for one in before.get("providers") or () if not str(one.get("name")).startswith(__package__)]
    return {**entry, **theirs, "providers": [*entry["providers"], *others]}


def _texts(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _OWN}


def _texts_of_earlier_versions(name: str) -> dict[str, Any]:
    """What was written of a collection, when nobody said anything of it, by versions that did not remember it."""
    told = {"title": name, "description": f"Observations of {name}", "keywords": ["observations"]}
    return {**told, "links": []}


def _texts_before(place: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _without_block(text: str) -> str:
    return re.sub(r"^[ \t]*# ionbeam: begin[^\n]*\n.*?^[ \t]*# ionbeam: end[^\n]*\n", "", text, flags=re.M | re.S)


def _with_block(text: str, block: dict[str, Any]) -> str:
    lines = text.splitlines()
    text = "\n".join(lines) + "\n"
    written = yaml.dump(block, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=1000) if block else ""
    found = re.search(r"^resources:[ \t]*(\{\s*\}|null|~)?[ \t]*(#[^\n]*)?$\n?", text, flags=re.M)
    if found is None:
        text, found_end = f"{text}\nresources:\n", None
        head, tail = text, ""
    else:
        found_end = found.end()
        comment = f"  {found[2]}" if found[2] else ""
        head, tail = f"{text[: found.start()]}resources:{comment}\n", text[found_end:]
    first = re.search(r"^([ ]+)[^\s#]", tail, flags=re.M) if not re.match(r"^\S", tail) else None
    indent = first[1] if first else "    "
    inner = "".join(f"{indent}{line}\n" for line in [BEGIN, *written.splitlines(), END])
    if not block and first is None:
        head = head[: head.rindex("resources:")] + "resources: {}\n"
    return head + inner + tail


def _entry(one: Served, extent: Extent) -> dict[str, Any]:
    folder = str(one.folder.absolute())
    begin, end = extent.times or (0, 0)
    about = one.about.joined(extent.about)
    licence = [{"href": about.licence, "title": "Licence", "rel": "license"}] if about.licence else []
    return {
        "type": "collection",
        "title": about.title or one.name,
        "description": about.description or f"Observations of {one.name}",
        "keywords": list(about.keywords) or ["observations"],
        **({"attribution": about.attribution} if about.attribution else {}),
        "links": [
            {"type": "text/html", "rel": link.get("rel") or "about", "title": link["title"], "href": link["href"]}
            for link in (*licence, *about.links)
        ],
        "extents": {
            "spatial": {"bbox": extent.bbox, "crs": "http://www.opengis.net/def/crs/OGC/1.3/CRS84"},
            "temporal": {"begin": _moment(begin), "end": _moment(end)},
        },
        "providers": [
            {
                "type": "edr",
                "name": EDR_PLUGIN,
                "data": folder,
                "options": {"parameters": dict(sorted(extent.parameters.items()))},
            },
            {"type": "feature", "name": FEATURES_PLUGIN, "data": folder, "id_field": "id", "time_field": "datetime"},
        ],
    }


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(tzinfo=UTC)


def _is_ours(resource: dict[str, Any]) -> bool:
    return any(one.get("name") == EDR_PLUGIN for one in resource.get("providers") or ())


def _plain(value: Any) -> str:
    return str(next(iter(value.values()), "")) if isinstance(value, dict) else str(value)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with published(path) as draft:
            draft.write_text(text, encoding="utf-8")


def _new() -> str:
    config = {
        "server": {
            "bind": {"host": "127.0.0.1", "port": 5000},
            "url": DEFAULT_URL,
            "mimetype": "application/json; charset=UTF-8",
            "encoding": "utf-8",
            "gzip": False,
            "languages": ["en-GB"],
            "pretty_print": False,
            "limits": {"default_items": 100, "max_items": 10000},
            "map": {"url": "", "attribution": ""},
        },
        "logging": {"level": "ERROR"},
        "metadata": {
            "identification": {
                "title": "Ionbeam",
                "description": "Observations of weather by crowd-sourced and IoT stations",
                "keywords": ["observations", "weather", "crowd-sourced", "EDR"],
                "keywords_type": "theme",
                "terms_of_service": "",
                "url": DEFAULT_URL,
            },
            "license": {"name": "see each collection", "url": DEFAULT_URL},
            "provider": {"name": "Ionbeam", "url": DEFAULT_URL},
            "contact": {"name": "", "email": "", "url": DEFAULT_URL},
        },
        "resources": {},
    }
    head = (
        "# PyGeoAPI's configuration. Yours to edit; server.url is the address under which people reach the service.\n"
    )
    return head + yaml.dump(config, Dumper=_DUMPER, sort_keys=False)


# Extents, remembered file by file.

_SIDES = ("west", "south", "east", "north", "first", "last")
_KEPT = pa.schema(
    [("name", pa.string()), ("version", pa.int64()), ("rows", pa.int64())]
    + [(side, pa.float64()) for side in _SIDES[:4]]
    + [(moment, pa.int64()) for moment in _SIDES[4:]]
)


@dataclass(slots=True)
class _Known:
    """What is remembered of a dataset: a row a window, and of all of them what they share."""

    windows: pa.RecordBatch = field(default_factory=lambda: pa.RecordBatch.from_pylist([], _KEPT))
    listed_at: int | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    about: dict[str, Any] | None = None  # as the newest window has it


def _extents(served: Sequence[Served], memory: Path, tell: Callable[[str], None]) -> dict[str, Extent]:
    """The extent of each dataset. What is known is taken from the file `memory`, and kept there."""
    before = _remembered(memory)
    now: dict[str, _Known] = {}
    for one in served:
        known, files = before.get(one.name, _Known()), LocalFiles(one.folder)
        listed_at = files.listed_at()
        same = listed_at is not None and listed_at == known.listed_at and known.about is not None
        now[one.name] = known if same else _renewed(files, known, listed_at, one.name, tell)
    if now != before:
        _remember(memory, now)
    return {name: _extent(known) for name, known in now.items()}


def _extent(known: _Known) -> Extent:
    columns = {name: known.windows.column(name).to_numpy() for name in ("rows", *_SIDES)}
    some = columns["rows"] > 0
    extent = Extent(
        int(some.sum()),
        int(columns["rows"].sum()),
        parameters=known.parameters,
        unreadable=known.unreadable,
        about=about_of(known.about or {}),
    )
    if extent.rows:
        west, south, east, north, first, last = (columns[side][some] for side in _SIDES)
        extent.bbox = [float(west.min()), float(south.min()), float(east.max()), float(north.max())]
        extent.times = int(first.min()), int(last.max())
    return extent


def _remembered(memory: Path) -> dict[str, _Known]:
    try:
        with pa.memory_map(str(memory)) as file, pa.ipc.open_file(file) as stored:
            told = json.loads((stored.schema.metadata or {}).get(b"datasets", b"{}"))
            if stored.schema.equals(_KEPT):
                return {name: _Known(stored.get_batch(at), *about) for at, (name, about) in enumerate(told.items())}
    except (OSError, pa.ArrowException, ValueError, TypeError):
        pass
    return {}


def _remember(memory: Path, known: dict[str, _Known]) -> None:
    told = {name: (one.listed_at, one.parameters, one.unreadable, one.about) for name, one in known.items()}
    described = _KEPT.with_metadata({b"datasets": json.dumps(told).encode()})
    with published(memory) as draft, pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, described) as writer:
        for one in known.values():
            writer.write_batch(one.windows.replace_schema_metadata(described.metadata))


def _renewed(
    files: LocalFiles, known: _Known, listed_at: int | None, dataset: str, tell: Callable[[str], None]
) -> _Known:
    """What is known after a look at what is new, replaced or gone."""
    names, versions = (known.windows.column(name).to_pylist() for name in ("name", "version"))
    before = dict(zip(names, versions, strict=True))
    now = files.versions(before)
    fresh = [name for name, version in now.items() if before.get(name) != version]
    stale = {name for name in names if now.get(name) != before[name]}
    parameters = dict(known.parameters)
    unreadable = [name for name in known.unreadable if name in now and name not in stale]
    layouts: dict[tuple[str, ...], Layout] = {}
    looked: list[tuple[Any, ...]] = []
    told_at = time.monotonic()
    for name in fresh:
        try:
            with files.open(name) as handle:
                metadata = pq.read_metadata(handle)
            columns = tuple(metadata.schema.names)
            if columns not in layouts:
                layouts[columns] = layout_of(metadata.schema.to_arrow_schema())
            looked.append((name, now[name], *_told(metadata)))
        except (OSError, pa.ArrowException, KeyError):
            looked.append((name, now[name], 0, *[np.nan] * 4, 0, 0))
            unreadable.append(name)
        if time.monotonic() - told_at > TOLD_EVERY:
            told_at = time.monotonic()
            tell(f"{dataset}: {len(looked):,} of {len(fresh):,} new windows are looked at")
    for layout in layouts.values():
        parameters |= {column.parameter.id: column.parameter.unit for column in layout.columns}
    kept = known.windows
    if stale:
        kept = kept.filter(pa.array([name not in stale for name in names], pa.bool_()))
    if looked:
        added = [pa.array(values, one.type) for values, one in zip(zip(*looked, strict=True), _KEPT, strict=True)]
        both = zip(kept.columns, added, strict=True)
        kept = pa.RecordBatch.from_arrays([pa.concat_arrays(pair) for pair in both], schema=_KEPT)
    about = _newest_about(files, [name for name in now if name not in unreadable])
    return _Known(kept, listed_at, parameters, unreadable, about)


def _newest_about(files: LocalFiles, names: Sequence[str]) -> dict[str, Any]:
    """What the sources of the newest window say of themselves, by source."""
    newest = max(names, key=lambda name: window_of_name(name) or (0, 0, ""), default=None)
    if newest is None:
        return {}
    try:
        with files.open(newest) as handle:
            footer = json.loads((pq.read_metadata(handle).metadata or {}).get(b"ionbeam", b"{}"))
    except (OSError, pa.ArrowException, ValueError):
        return {}
    return {source: one.get("dataset", {}) for source, one in (footer.get("metadata") or {}).items()}


def about_of(sources: dict[str, Any]) -> About:
    """What sources say of themselves (`DatasetMetadata` as JSON, by source), as one."""
    about = About()
    for told in sources.values():
        links = tuple(
            {"href": link["href"], "title": link.get("title") or link["href"], "rel": link.get("rel") or "about"}
            for link in told.get("source_links") or ()
            if str(link.get("href", "")).startswith(("https://", "http://"))  # a script is no page
        )
        about = about.joined(
            About(description=told.get("description") or "", keywords=tuple(told.get("keywords") or ()), links=links)
        )
    return about


def _told(metadata: pq.FileMetaData) -> tuple[Any, ...]:
    """Rows, west, south, east, north, first and last moment of a file, from its footer."""
    place = {name: number for number, name in enumerate(metadata.schema.names) if name in ("lon", "lat", "datetime")}
    found = {
        name: [
            statistics
            for number in range(metadata.num_row_groups)
            if (statistics := metadata.row_group(number).column(place[name]).statistics) is not None
        ]
        for name in ("lon", "lat", "datetime")
    }
    if not metadata.num_rows or not all(found.values()):
        return 0, *[np.nan] * 4, 0, 0
    low = {name: min(one.min for one in statistics) for name, statistics in found.items()}
    high = {name: max(one.max for one in statistics) for name, statistics in found.items()}
    first, last = (int(one["datetime"].timestamp()) * 1_000_000 for one in (low, high))
    return metadata.num_rows, low["lon"], low["lat"], high["lon"], high["lat"], first, last
