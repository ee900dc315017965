"""Where rows come from: which revision of each window, which sources, under which licence.

Belongs here: reading that from the footers of files, and from what a service says. Does not belong here: rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Source:
    """A source of observations. `licence` is the address of its text; what nobody said is empty."""

    name: str
    description: str = ""
    licence: str = ""
    attribution: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WindowRead:
    """A window that holds moments that were asked for. `revision` is 0 where its file does not tell."""

    window: str
    revision: int
    sources: tuple[str, ...]
    coverage: float | None
    """The share of the window that its sources collected, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the rows of a question come from, as their windows told when the dataset was opened."""

    dataset: str
    sources: tuple[Source, ...]
    windows: tuple[WindowRead, ...]
    software: tuple[str, ...] = ()

    @property
    def licences(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.licence for one in self.sources if one.licence))

    @property
    def attributions(self) -> tuple[str, ...]:
        """Whom to name: what a source says of itself for that, or else its description, or its name."""
        return tuple(dict.fromkeys(one.attribution or one.description or one.name for one in self.sources))

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def provenance_of(dataset: str, footers: Iterable[tuple[str, pa.Schema]], about: dict[str, Any]) -> Provenance:
    """From the schemas of windows by their names, and the service's document `about` the dataset, if there is one."""
    sources: dict[str, Source] = {}
    software: dict[str, None] = {}
    windows = []
    for window, schema in footers:
        told = _told(schema)
        for name, described in (told.get("metadata") or {}).items():
            sources[name] = _source(name, described.get("dataset") or {}, about)
        software |= {str(told["software"]): None} if told.get("software") else {}
        names = tuple(sorted(told.get("metadata") or ()))
        windows.append(WindowRead(window, int(told.get("revision") or 0), names, told.get("coverage")))
    return Provenance(dataset, tuple(sources[name] for name in sorted(sources)), tuple(windows), tuple(software))


def _told(schema: pa.Schema) -> dict[str, Any]:
    try:
        told = json.loads((schema.metadata or {}).get(b"ionbeam", b"{}"))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _source(name: str, described: dict[str, Any], about: dict[str, Any]) -> Source:
    links = described.get("source_links") or []
    return Source(
        name,
        str(described.get("description") or ""),
        _licence(links) or _licence(about.get("links") or []),
        str(about.get("attribution") or ""),
        tuple(str(one["href"]) for one in links if one.get("rel") != "license" and one.get("href")),
    )


def _licence(links: list[dict[str, Any]]) -> str:
    return next((str(one["href"]) for one in links if one.get("rel") == "license" and one.get("href")), "")
