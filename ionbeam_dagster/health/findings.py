"""What a check says, and what follows from many of them.

Belongs here: the record, and its forms for programs. Does not belong here: any check, or colours (cli).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from ionbeam_client.text import visible

Severity = Literal["well", "note", "warning", "error"]
_CHANGES = re.compile(r"\([^()]*\)|(?<![\w/])\d[\d.,:%-]*(?!\w)")
SEVERITIES: tuple[Severity, ...] = ("well", "note", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a `subject`, and the `remedy`.

    ``error``: the platform cannot do its work, or does not; ``warning``: something of it is lacking, and a person
    should look; ``note``: worth knowing; ``well``: it was looked at.
    """

    subject: str
    severity: Severity
    words: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return {name: visible(value) for name, value in asdict(self).items()}


def of_error(subject: str, error: BaseException, severity: Severity = "error") -> Finding:
    """An error as a finding: ours say behind the last semicolon what is to be done."""
    words, _, remedy = str(error).rpartition("; ")
    if not words:
        return Finding(subject, severity, f"{type(error).__name__}: {error}", "fix what it names, then look again")
    return Finding(subject, severity, words, remedy)


def matter_of(words: str) -> str:
    """What words tell of: they, but for what changes in them meanwhile, numbers and what stands in brackets."""
    return _CHANGES.sub("", words)


def worst(findings: Iterable[Finding]) -> Severity:
    """The gravest severity among them, ``well`` where there is none."""
    return max((one.severity for one in findings), key=SEVERITIES.index, default="well")
