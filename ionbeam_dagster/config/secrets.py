"""The secrets of a configuration, and texts without them.

Belongs here: which texts are secret. Does not belong here: where texts go (logs, the archive for support).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from ionbeam_dagster.config import IonbeamConfig

STRUCK_OUT = "**********"
"""What stands for a secret."""
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_SHORTEST = 4
"""Characters: one that is shorter protects nothing, and is part of many words."""


def secrets_of(config: IonbeamConfig) -> tuple[str, ...]:
    """Every password, token and key of a configuration, also within addresses, as written and as addresses have it."""
    blocks = [config.sections, *(source.config for source in config.sources.values())]
    found = {form for one in _within(blocks) for form in (one, quote(one, safe=""))}
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=lambda one: (-len(one), one)))


def struck_out(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets, the longest of which comes first, and without any password within an address."""
    for one in secrets:
        text = text.replace(one, STRUCK_OUT)
    return _PASSWORD.sub(rf"\1{STRUCK_OUT}@", text)


def _within(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _within(getattr(value, name))
    elif isinstance(value, str):
        yield from _of_address(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _within(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from _within(inner)


def _of_address(text: str) -> Iterator[str]:
    if "://" not in text:
        return
    try:
        password = urlsplit(text).password
    except ValueError:  # it is no address after all
        return
    if password:
        yield from {password, unquote(password)}
