"""PyGeoAPI's configuration and the OpenAPI document, kept up to date.

Belongs here: one entry a dataset with its true extents and its parameters, written into a YAML that a person may edit.
Does not belong here: what the files hold (extents.py), or what the service answers (service.py, documents.py).

Our entries stand between two marks under ``resources:``; the text outside is left as it is, comments and all. Of an
entry between the marks ours are ``type``, ``extents`` and the providers of this package; whatever else a person wrote
stays.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ionbeam_dagster.edr import documents
from ionbeam_dagster.edr.about import NOBODY_SAID, About
from ionbeam_dagster.edr.extents import Extent, extents_of
from ionbeam_dagster.edr.service import EDR_PLUGIN, FEATURES_PLUGIN
from ionbeam_dagster.errors import ServiceError
from ionbeam_dagster.stores.publish import published

LOG = logging.getLogger(__name__)
BEGIN = "# ionbeam: begin (written by the platform; texts and links that you change in here are kept, comments are not)"
END = "# ionbeam: end"
DEFAULT_URL = "http://localhost:5000"
_EARLIER_PACKAGE = "ionbeam_dagster.exporters.pygeoapi.provider."
_OWN = ("type", "extents", "providers")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True)
class Served:
    """A dataset to be served, and what the configuration says of it."""

    name: str
    folder: Path
    about: About = NOBODY_SAID


def update(
    config_path: Path, state: Path, served: Sequence[Served], tell: Callable[[str], None] = LOG.info
) -> dict[str, Extent]:
    """Bring the YAML at `config_path` and the OpenAPI document beside it up to date.

    What does not change is not written. `state` is a folder for what is remembered; `tell` is given a line every few
    seconds while files are looked at. Raises ServiceError.
    """
    extents = extents_of({one.name: one.folder for one in served}, state / "extents.arrow", tell)
    text = config_path.read_text(encoding="utf-8") if config_path.exists() else _new()
    entries = {one.name: _entry(one, extents[one.name]) for one in served if extents[one.name].files}
    empty = {one.name: str(one.folder.absolute()) for one in served if not extents[one.name].files}
    renewed = with_entries(text, entries, config_path, _texts_before(state / "texts.json"), empty)
    _write(config_path, renewed)
    _write(state / "texts.json", json.dumps({name: _texts(entry) for name, entry in entries.items()}, indent=1))
    config = yaml.load(renewed, _LOADER)  # noqa: S506 (the safe loader in C)
    told = config["metadata"]["identification"]
    names = [name for name, one in config["resources"].items() if _is_ours(one)]
    document = documents.openapi(
        _plain(told.get("title", "")), _plain(told.get("description", "")), config["server"]["url"], names
    )
    _write(openapi_path(config_path), json.dumps(document, indent=1, ensure_ascii=False))
    return extents


def openapi_path(config_path: Path) -> Path:
    return config_path.with_name(f"{config_path.stem}.openapi.json")


def with_entries(
    text: str,
    entries: dict[str, Any],
    place: Path,
    written: dict[str, dict[str, Any]],
    empty: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """`text` (YAML) with `entries` between the marks; a resource of the same name outside of them is a person's own.

    `written` are the texts of each entry as they were written last: others are a person's, and stay. `empty` are the
    folders of datasets that have no window now: an entry of one stays as it is.
    """
    text = text.replace(_EARLIER_PACKAGE, f"{__package__}.provider.")
    try:
        config = yaml.load(text, _LOADER)  # noqa: S506 (the safe loader in C)
    except yaml.YAMLError as error:
        raise ServiceError(f"{place} is not YAML ({error}); correct it, it was left as it is") from error
    lacking = [key for key in ("server", "metadata") if not isinstance(config, dict) or key not in config]
    if lacking:
        raise ServiceError(f"{place} has no {' and no '.join(lacking)}; PyGeoAPI needs them: correct or remove it")
    outside = _without_block(text)
    theirs = set((yaml.load(outside, _LOADER) or {}).get("resources") or {})  # noqa: S506 (the safe loader in C)
    before = config.get("resources") or {}
    block = {
        name: _merged(before.get(name) or {}, entry, written.get(name) or _texts_of_earlier_versions(name))
        for name, entry in entries.items()
        if name not in theirs
    }
    block |= {
        name: before[name]
        for name, folder in empty.items()
        if name not in theirs and folder in [one.get("data") for one in (before.get(name) or {}).get("providers") or ()]
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
                "options": {"parameters": dict(sorted(extent.parameters.items()))}
                | ({"definitions": dict(sorted(extent.definitions.items()))} if extent.definitions else {}),
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
