"""What Dagster's pages and logs tell of a station that is to be forgotten: previews, reports, log lines, pictures.

Belongs here: what of an event tells of it, and what stands there instead. Does not belong here: how Dagster keeps
events (internals.py), or what else is forgotten (pipeline/forgetting).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg

from ionbeam_client.text import markdown
from ionbeam_dagster.domain.windows import KEY_FORMAT, WEEK
from ionbeam_dagster.orchestration.internals import Told, rewrite_events
from ionbeam_dagster.pipeline.forgetting import Removed, Who
from ionbeam_dagster.pipeline.platform import Platform

_GONE = "this told of a station that is forgotten"
_PICTURE = "data:image/png"
_PARTITION = re.compile('"partition": "([^"]*)"')


def pages(instance: dg.DagsterInstance, platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Texts of the source's and dataset's events and logs in which it stands, and pictures of the windows in which it
    was heard."""
    names = {name for _, station in who.names for name in (station, markdown(station))} | {who.id, markdown(who.id)}
    ours = {who.dataset.name, *(source.name for source, _ in who.names)}
    heard = [one for source, station in who.names if (one := platform.privacy.was_heard(source.name, station))]
    ranges = [((one.start - WEEK).strftime(KEY_FORMAT), one.end.strftime(KEY_FORMAT)) for one in heard]
    changed = partial(_changed, re.compile("|".join(map(_alone, sorted(names)))), ours, ranges)
    if number := rewrite_events(instance, [*names, _PICTURE], changed, dry_run):
        yield Removed("texts and pictures on Dagster's pages", "events and logs", number)


def _changed(mentioned: re.Pattern[str], ours: set[str], ranges: list[tuple[str, str]], told: Told) -> str | None:
    """An event without what tells of the station; None where nothing does."""
    is_ours = bool(told.asset) and json.loads(told.asset)[0] in ours
    partition = told.partition or "".join(_PARTITION.findall(told.event)[:1])
    in_time = any(first <= partition <= last for first, last in ranges)

    def tells(text: str) -> bool:
        if is_ours and in_time and _PICTURE in text:
            return True
        return bool(mentioned.search(text)) and (is_ours or any(name in text for name in ours))

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: one if key in ("__class__", "path") else without(one) for key, one in value.items()}
        if isinstance(value, list):
            return [without(one) for one in value]
        return _GONE if isinstance(value, str) and tells(value) else value

    before = json.loads(told.event)
    after = without(before)
    return None if after == before else json.dumps(after)


def _alone(name: str) -> str:
    """A pattern that finds a name where it is no part of another word."""
    return rf"(?<![\w.-]){re.escape(name)}(?![\w.-])"
