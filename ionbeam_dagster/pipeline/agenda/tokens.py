"""Why a window is to be collected: the tokens of that work, and their texts, which the ledger keeps.

Belongs here: the four kinds, and how each is written and read. Does not belong here: whether it is still so
(collecting.py). Tokens of the later stages are compared alone, and never read: they are texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_NEVER = "never"


@dataclass(frozen=True, slots=True)
class Triggered:
    """The clock said so, at this moment."""

    at: datetime

    def __str__(self) -> str:
        return self.at.isoformat()


@dataclass(frozen=True, slots=True)
class Lost:
    """The raw partition that this ingestion wrote is gone, or damaged."""

    ingestion: str

    def __str__(self) -> str:
        return f"lost {self.ingestion}"


@dataclass(frozen=True, slots=True)
class Changed:
    """The source would give something else now, of this signature."""

    signature: str | None

    def __str__(self) -> str:
        return f"changed {self.signature}"


@dataclass(frozen=True, slots=True)
class Replaces:
    """Whatever its raw partition holds is to be collected again: the one that was written then (None: there was none).
    Of another `mark` it is other work."""

    written: datetime | None
    mark: str = ""

    def __str__(self) -> str:
        written = self.written.isoformat() if self.written is not None else _NEVER
        return f"replaces {written} {self.mark}".strip()


Token = Triggered | Lost | Changed | Replaces


def read_token(text: str) -> Token:
    """The token of a window to be collected that the ledger keeps as `text`.

    Raises ValueError for the text of another stage.
    """
    kind, _, rest = text.partition(" ")
    match kind:
        case "lost":
            return Lost(rest)
        case "changed":
            return Changed(rest)
        case "replaces":
            written, _, mark = rest.partition(" ")
            return Replaces(None if written == _NEVER else datetime.fromisoformat(written), mark)
    return Triggered(datetime.fromisoformat(text))
