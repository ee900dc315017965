"""The records of what was collected, claimed, built and exported, and the JSON in which ledgers and files keep them.

Belongs here: records that cross a wall between rooms, with the meaning and unit of every field, and their JSON: what
ledgers and dataset files of earlier versions hold is read (what they lack has a default, what is not known here is left
alone). Times are in UTC, ranges half-open. Does not belong here: what follows from records (domain/decisions.py), or
where they are kept (stores/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import Window

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RawPartition:
    """One raw file: what `source` gave for `window`. `ingestion` is derived from its content and range.

    `path`, as in the other records, is the file's location (stores/files.py), `rows` its number of rows, and
    `signature` how the source looked when it was asked, of one that can tell. `purged` is when retention removed the
    file: it is missed by nobody, unlike one that was lost.

    `kept` counts the rows that the source gave before and no longer gives, all or a value of each. `beside` are earlier
    ingestions of the window that could not be brought into this one, so that they stay as they are. `knows` is the
    number of the latest correction that was known, and open, when the source was asked.

    `asked_at` is when the source was asked: what it learned later is not in the file. `bytes` and `hash` (SHA-256) are
    those of the file, by which damage is found. `sender` is the user of the broker who sent it. Where they were not
    noted they are None, 0 and empty.
    """

    ingestion: str
    source: str
    window: Window
    path: str
    rows: int
    signature: str = ""
    purged: datetime | None = None
    kept: int = 0
    beside: tuple[str, ...] = ()
    knows: int = 0
    asked_at: datetime | None = None
    bytes: int = 0
    hash: str = ""
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Correction:
    """A change of its past that a source tells until somebody confirms it: what it has for `range` may be another now.

    `id` is the source's. `what` says what changed, and when that was told; under another `what` or `range` it is
    another correction.
    """

    id: str
    range: Window
    what: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A range that one ingestion of one source collected, empty or not, and what it brought.

    `arrival` counts ingestions in the order in which they were stored, and `arrived_at` is the moment of that (None
    where it was not noted). `rows` were stored, `quarantined` could not be used. `stray_windows` are dataset windows
    outside the collected range into which rows of this ingestion fell all the same (late rows).
    """

    id: str
    source: str
    dataset: str
    collected: Window
    arrival: int
    rows: int
    quarantined: int = 0
    stray_windows: tuple[Window, ...] = ()
    arrived_at: datetime | None = None

    def to_json(self) -> Json:
        """As a dataset file tells of it, from which a lost ledger is made again: what is the same each time."""
        return {
            "id": self.id,
            "source": self.source,
            "start": self.collected.start.isoformat(),
            "end": self.collected.end.isoformat(),
            "arrival": self.arrival,
            "rows": self.rows,
            "quarantined": self.quarantined,
            "strays": _ranges(self.stray_windows),
        }

    @classmethod
    def from_json(cls, dataset: str, written: Mapping[str, Any]) -> Claim:
        return cls(
            written["id"],
            written["source"],
            dataset,
            _window([written["start"], written["end"]]),
            written["arrival"],
            written["rows"],
            written.get("quarantined", 0),
            _windows(written.get("strays", ())),
        )


@dataclass(frozen=True, slots=True)
class Lateness:
    """How many ingestions, of those that arrived in the hour from `hour` on, came so `late` after the end of what they
    collected."""

    hour: datetime
    late: timedelta
    count: int


@dataclass(frozen=True, slots=True)
class Revision:
    """What a built window was made of: the ids of its claims (None: not noted) and their hash ("": not known, since
    its file was lost with the ledger; the next revision takes its place).

    `number` counts the revisions of a window from 1. `intact` is False once a part of it was lost or withdrawn.
    `sealed_at` is when a person closed the window.
    """

    dataset: str
    window: Window
    number: int
    inputs: str
    intact: bool = True
    made_of: frozenset[str] | None = None
    sealed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """What is worth telling about a revision.

    `rows`, `stations` (different ones) and `bytes` are those of its file. `coverage` is the share of the window (0..1)
    that its sources collected; `gaps` are the parts that one of them did not, `overlaps` those that one of them
    collected more than once (neither known nor built with: empty). `duplicates` counts points that arrived again (None:
    not known), `ingestions` the claims, and `made_of` has their ids (None: not noted). `flags` counts by column and by
    flag what quality control found. `software` wrote the file, `why` says why this revision was made ("" where the
    ledger was made again from the files), `made_by` tells the quality plan and the canonical mapping apart from
    others, and `hash` is the SHA-256 of its file ("": not known).
    """

    rows: int = 0
    stations: int = 0
    bytes: int = 0
    coverage: float = 1.0
    gaps: tuple[Window, ...] = ()
    overlaps: tuple[Window, ...] = ()
    duplicates: int | None = None
    ingestions: int = 0
    flags: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    made_of: tuple[str, ...] | None = None
    software: str = ""
    why: str = ""
    made_by: str = ""
    hash: str = ""

    @property
    def complete(self) -> bool:
        return not self.gaps

    def to_json(self) -> Json:
        return {
            "rows": self.rows,
            "stations": self.stations,
            "bytes": self.bytes,
            "coverage": self.coverage,
            "gaps": _ranges(self.gaps),
            "overlaps": _ranges(self.overlaps),
            "complete": self.complete,
            "duplicates": self.duplicates,
            "ingestions": self.ingestions,
            "flags": {column: dict(counts) for column, counts in self.flags.items()},
            "made_of": None if self.made_of is None else list(self.made_of),
            "software": self.software,
            "why": self.why,
            "made_by": self.made_by,
            "hash": self.hash,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> RevisionFacts:
        made_of = written.get("made_of")
        return cls(
            rows=written.get("rows", 0),
            stations=written.get("stations", 0),
            bytes=written.get("bytes", 0),
            coverage=written.get("coverage", 1.0),
            gaps=_windows(written.get("gaps", ())),
            overlaps=_windows(written.get("overlaps", ())),
            duplicates=written.get("duplicates"),
            ingestions=written.get("ingestions", 0),
            flags=written.get("flags", {}),
            made_of=None if made_of is None else tuple(made_of),
            software=written.get("software", ""),
            why=written.get("why", ""),
            made_by=written.get("made_by", ""),
            hash=written.get("hash", ""),
        )


@dataclass(frozen=True, slots=True)
class BuiltRevision:
    """A revision with its file, the moment in which it was made, and what is worth telling about it."""

    revision: Revision
    path: str
    built_at: datetime
    facts: RevisionFacts = field(default_factory=RevisionFacts)


@dataclass(frozen=True, slots=True)
class Compared:
    """What the flags of a revision depended on beside its own rows; all empty where nothing could be tested.

    `limits` is the hash of the dataset's own limits, `before` that of the claims of the hours before the window, and
    `neighbours` has those of the other datasets that its values were compared with.
    """

    limits: str = ""
    before: str = ""
    neighbours: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        if not self.limits:
            return {}
        return {"limits": self.limits, "before": self.before, "neighbours": dict(self.neighbours)}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Compared:
        return cls(written.get("limits", ""), written.get("before", ""), written.get("neighbours", {}))


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a dataset file says of itself in its footer: the same each time for the same claims.

    `inputs` is the hash of the claims, `ingestions` their ids; files of earlier versions lack the `claims` themselves
    and the `metadata` of each source (the latest under which its claims came). `coverage` and `gaps` are those of
    `RevisionFacts`.
    """

    dataset: str
    window: Window
    number: int
    inputs: str
    ingestions: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    metadata: Mapping[str, IngestionMetadata] = field(default_factory=dict)
    coverage: float = 1.0
    gaps: tuple[Window, ...] = ()
    software: str = ""
    quality: Compared = field(default_factory=Compared)

    def to_json(self) -> Json:
        return {
            "dataset": self.dataset,
            "window_start": self.window.start.isoformat(),
            "window_end": self.window.end.isoformat(),
            "revision": self.number,
            "inputs": self.inputs,
            "ingestions": list(self.ingestions),
            "claims": [claim.to_json() for claim in self.claims],
            "metadata": {source: one.model_dump(mode="json") for source, one in self.metadata.items()},
            "coverage": self.coverage,
            "gaps": _ranges(self.gaps),
            "software": self.software,
            "quality": self.quality.to_json(),
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Provenance:
        dataset = written["dataset"]
        return cls(
            dataset=dataset,
            window=_window([written["window_start"], written["window_end"]]),
            number=written["revision"],
            inputs=written["inputs"],
            ingestions=tuple(written.get("ingestions", ())),
            claims=tuple(Claim.from_json(dataset, claim) for claim in written.get("claims", ())),
            metadata={
                source: IngestionMetadata.model_validate(one) for source, one in written.get("metadata", {}).items()
            },
            coverage=written.get("coverage", 1.0),
            gaps=_windows(written.get("gaps", ())),
            software=written.get("software", ""),
            quality=Compared.from_json(written.get("quality", {})),
        )


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """What is worth telling about an export: its rows, different stations and bytes; `hash` is the SHA-256 of its file
    ("": not noted).

    The file of a cycle `holds` revisions, by the key of their window (None: it is of one window), and was made
    `afterwards` when nothing of the cycle was built until its cut-off.
    """

    rows: int = 0
    stations: int = 0
    bytes: int = 0
    holds: Mapping[str, int] | None = None
    afterwards: bool = False
    hash: str = ""

    def to_json(self) -> Json:
        written: Json = {"rows": self.rows, "bytes": self.bytes, "stations": self.stations, "hash": self.hash}
        return written if self.holds is None else written | {"holds": dict(self.holds), "afterwards": self.afterwards}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> ExportFacts:
        return cls(
            rows=written.get("rows", 0),
            stations=written.get("stations", 0),
            bytes=written.get("bytes", 0),
            holds=written.get("holds"),
            afterwards=written.get("afterwards", False),
            hash=written.get("hash", ""),
        )


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """The current export of a dataset window or cycle in one format.

    `number` is the revision of the window that it was made of, `path` its file, None when there was no row to export,
    and `made_by` the fingerprint of the exporter and its settings ("": written by an earlier version).
    """

    dataset: str
    window: Window
    format: str
    number: int
    path: str | None
    facts: ExportFacts = field(default_factory=ExportFacts)
    made_by: str = ""


def _ranges(windows: Sequence[Window]) -> list[list[str]]:
    return [[window.start.isoformat(), window.end.isoformat()] for window in windows]


def _window(ends: Sequence[str]) -> Window:
    start, end = ends
    return Window(datetime.fromisoformat(start), datetime.fromisoformat(end))


def _windows(ranges: Sequence[Sequence[str]]) -> tuple[Window, ...]:
    return tuple(_window(ends) for ends in ranges)
