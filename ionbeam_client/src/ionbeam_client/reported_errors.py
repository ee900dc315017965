"""Errors that a service reports in the place of what it was asked for, under a status that says that all is well.

Belongs here: how they are known, for the client of the Restream service and for the source that collects from it. Does
not belong here: what is done about one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ionbeam_client.text import visible

_NAMES = frozenset(("detail", "error", "errors", "message"))
"""What a service calls it."""
_SHOWN = 200


def reported_error(objects: Iterable[dict[str, Any]], key: str) -> str | None:
    """How the first of `objects` begins that is an error, or None. Whatever is none has `key`."""
    found = next((one for one in objects if key not in one and not _NAMES.isdisjoint(one)), None)
    return None if found is None else shown(found)


def shown(value: Any) -> str:
    """How a value begins that came as JSON, for a message."""
    return visible(json.dumps(value, ensure_ascii=False), _SHOWN)
