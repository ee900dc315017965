"""The lines of a proposed block, each with how sure it is and why.

Belongs here: how a line looks as YAML. Does not belong here: what is said (the modules beside it).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from ionbeam_client.text import visible

Sureness = Literal["sure", "likely", "a guess"]
_WIDEST = 60


@dataclass(frozen=True, slots=True)
class Statement:
    """A key and its value, or the statements below it, in whose place an `item` of a list has no key."""

    key: str
    value: Any = None
    sureness: Sureness | None = None
    why: str = ""
    inner: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What no file tells, in words that say what to write; `left_out` are the lines that wait for the answer."""

    text: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be known, and needs no answer; `left_out` are lines that may be wanted."""

    text: str
    left_out: tuple[str, ...] = ()


Line = Statement | Question | Remark


def below(key: str, statements: Iterable[Line]) -> list[Line]:
    """The statements under one key; none where there are none."""
    inner = tuple(statements)
    return [Statement(key, inner=inner)] if inner else []


def as_yaml(lines: Iterable[Line], indent: int) -> Iterator[str]:
    """The lines as they are written, `indent` blanks from the left."""
    margin = " " * indent
    for line in lines:
        if not isinstance(line, Statement):
            start = f"{margin}# " + ("TODO: " if isinstance(line, Question) else "")
            yield from textwrap.wrap(visible(line.text), 118, initial_indent=start, subsequent_indent=f"{margin}#   ",
                                     break_long_words=False, break_on_hyphens=False)  # fmt: skip
            yield from (f"{margin}# {key}" for key in line.left_out)
        elif line.inner:
            yield f"{margin}{_with_comment(f'{line.key}:', line)}"
            yield from as_yaml(line.inner, indent + 2)
        else:
            start = f"{line.key}: " if line.key != ITEM else "- "
            yield f"{margin}{_with_comment(start + in_yaml(line.value), line)}"


ITEM = "-"


def as_data(lines: Sequence[Line]) -> dict[str, Any]:
    """What the lines say, as whoever reads the YAML will have it."""
    return yaml.safe_load("\n".join(as_yaml(lines, 0))) or {}


def in_yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=100_000)
    return text.removesuffix("...\n").strip()


def _with_comment(text: str, line: Statement) -> str:
    if not line.why:
        return text
    told = f"{line.sureness}: {line.why}" if line.sureness else line.why
    return f"{text.ljust(_WIDEST)}  # {visible(' '.join(told.split()))}"
