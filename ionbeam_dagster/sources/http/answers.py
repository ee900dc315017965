"""A complete answer of a web service, and the error of a request that failed for good.

Does not belong here: sending (client.py).
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ionbeam_dagster.errors import SourceError

_EXCERPT = 200


class HttpError(SourceError):
    """A request that failed for good. `status` is the service's last answer, None when there was none; `body` is how
    that answer begins."""

    def __init__(self, message: str, status: int | None = None, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: `url` is without secrets, `headers` are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    def text(self, encoding: str | None = None) -> str:
        """The body as text, in `encoding`, else the declared one, else UTF-8. A gzip file is unpacked.

        Raises HttpError when the body is empty, or is not what it claims to be.
        """
        content = self.unpacked()
        if not content:
            raise self.wrong("is empty")
        declared = re.search(r"charset=\"?([\w.:-]+)", self.headers.get("content-type", ""))
        chosen = encoding or (declared[1] if declared else "utf-8")
        try:
            return content.decode(chosen)
        except (UnicodeDecodeError, LookupError) as error:
            raise self.wrong(f"is not {chosen} text ({error})") from error

    def json(self) -> Any:
        """The body as JSON; raises HttpError, with how the body begins, when it is none."""
        text = self.text("utf-8")
        try:
            return json.loads(text)
        except ValueError as error:
            raise self.wrong(f"is not JSON ({error}), but {_kind(self.headers)}: {excerpt(text)}") from error

    def unpacked(self) -> bytes:
        """The body, unpacked where the address ends in ``.gz``; raises HttpError when it is then no whole gzip file."""
        if not self.url.partition("?")[0].endswith(".gz"):
            return self.content
        try:
            return gzip.decompress(self.content)
        except (OSError, EOFError, zlib.error) as error:
            raise self.wrong(f"is not a whole gzip file ({error})") from error

    def wrong(self, reason: str) -> HttpError:
        """An error that says `reason` of this answer, for the caller to raise."""
        return HttpError(f"{self.url}: the answer {reason}", self.status)


def _kind(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "no declared type").partition(";")[0]


def excerpt(text: str) -> str:
    """How a text begins, in one line."""
    plain = " ".join(text.split())
    return plain if len(plain) <= _EXCERPT else plain[:_EXCERPT] + "..."
