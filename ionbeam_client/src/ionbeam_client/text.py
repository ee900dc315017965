"""Names, units, reasons and whatever else comes from outside, as text wherever a person looks at it.

Belongs here: one function for each place where something in a text could be more than text. Does not belong here: what
is shown there. (HTML has `html.escape`.)
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[\w .,:;+%()='\"/-]*")
_LINK = re.compile(r"://|www\.", re.IGNORECASE)  # Dagster's UI makes links of these
_TICKS = re.compile(r"`+")


def visible(text: str, longest: int | None = None) -> str:
    """`text` in one line for logs and terminals: what does not print, or changes how the rest is read, is spelled out
    (an escape character as ``\\x1b``). Of one with more than `longest` characters so many are left, and dots."""
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def markdown(text: str) -> str:
    """`text` for a line or a table's cell of Markdown, where it stays text: as code, if anything in it could be more.

    A ``|`` becomes ``¦``: in a table even code ends there.
    """
    shown = visible(text)
    if _PLAIN.fullmatch(shown) and not _LINK.search(shown):
        return shown
    fence = "`" * (1 + max((len(ticks) for ticks in _TICKS.findall(shown)), default=0))
    return f"{fence} {shown.replace('|', '¦')} {fence}"
