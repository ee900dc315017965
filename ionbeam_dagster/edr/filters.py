"""The filters of a request: which parameters of a collection are given for.

Belongs here: the reading of names, levels, methods and periods. Does not belong here: the parameters (parameters.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from ionbeam_dagster.edr.parameters import Parameter
from ionbeam_dagster.edr.refusals import BadRequest


def chosen_parameters(known: dict[str, Parameter], given: Mapping[str, str]) -> tuple[str, ...] | None:
    """The ids that fit every filter; None where there is no filter. A part may have ``*`` and ``?``."""
    filters: dict[str, Callable[[Parameter, str], bool]] = {
        "parameter-name": lambda p, want: fnmatchcase(p.id, want) or p.name == want,
        "standard-name": lambda p, want: fnmatchcase(p.name, want),
        "level": lambda p, want: _on_level(p.level, want),
        "z": lambda p, want: _on_level(p.level, want),
        "method": lambda p, want: fnmatchcase(p.method, want),
        "period": lambda p, want: fnmatchcase(p.period, want),
    }
    chosen: tuple[str, ...] | None = None
    for name, fits in filters.items():
        if name not in given:
            continue
        wanted = [part.strip() for part in given[name].split(",")]
        if not any(wanted):
            raise BadRequest(f"{name} is empty; leave it out, or name one of {_some(known, name)}")
        if len(wanted) > 200 or any(len(part) > 200 for part in wanted):
            raise BadRequest(f"{name} names too much; at most 200 names of 200 characters are taken")
        for part in wanted:
            if not any(fits(parameter, part) for parameter in known.values()):
                raise BadRequest(
                    f"{name} {part[:80]!r} fits no parameter of this collection; there are {_some(known, name)}"
                )
        before = known if chosen is None else chosen
        chosen = tuple(id for id in before if any(fits(known[id], part) for part in wanted))
    if chosen == ():
        raise BadRequest("no parameter of this collection fits all of the filters together; ask for less")
    return chosen


def _on_level(level: float, text: str) -> bool:
    """Whether a level (m) is ``2``, in ``0/10``, not below it in ``0/..``, or one of the 5 in ``R5/0/2``: 0, 2, ..."""
    low, between, high = text.partition("/")
    try:
        if repeated := re.match(r"^R(\d{1,4})/([^/]+)/([^/]+)$", text):
            number, first, step = int(repeated[1]), float(repeated[2]), float(repeated[3])
            return any(math.isclose(level, first + place * step, abs_tol=1e-9) for place in range(number))
        if not between:
            return math.isclose(level, float(low))
        return (low == ".." or level >= float(low)) and (high == ".." or level <= float(high))
    except ValueError:
        raise BadRequest(
            f"level {text[:60]!r} is no height; right would be 2, 2,10 or 0/10, in metres above ground"
        ) from None


def _some(known: dict[str, Parameter], name: str) -> str:
    parts: dict[str, Callable[[Parameter], str]] = {
        "parameter-name": lambda p: p.id,
        "standard-name": lambda p: p.name,
        "level": lambda p: f"{p.level:g}",
        "z": lambda p: f"{p.level:g}",
        "method": lambda p: p.method,
        "period": lambda p: p.period,
    }
    values = list(dict.fromkeys(map(parts[name], known.values())))
    return ", ".join(values[:12]) + (f" and {len(values) - 12} more" if len(values) > 12 else "") or "none yet"
