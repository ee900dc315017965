"""What Dagster's pages and logs tell of a station that is to be forgotten: previews, reports, log lines, pictures.

Belongs here: what of a text tells of it, and what stands there instead. Does not belong here: how Dagster keeps events
and logs (internals.py), or what else is forgotten (pipeline/forgetting).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import dagster as dg

from ionbeam_client.text import markdown, visible
from ionbeam_dagster.domain.windows import KEY_FORMAT, WEEK
from ionbeam_dagster.orchestration.internals import Told, blank_logs, rewrite_events
from ionbeam_dagster.pipeline.forgetting import Removed, Who
from ionbeam_dagster.pipeline.platform import Platform

_GONE = "this told of a station that is forgotten"
_PICTURE = "data:image/png"
_PARTITION = re.compile('"partition": "([^"]*)"')
_NUMBER = re.compile(r"[\d\W_]*")
_HEADINGS = {"station", "station_id", "platform", "platform_id"}

Mentions = Callable[[str], bool]


def pages(instance: dg.DagsterInstance, platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Texts of the source's and dataset's events and logs in which it stands, and pictures of the windows in which it
    was heard."""
    ids = [*(station for _, station in who.names), who.id]
    names = sorted({form for id in ids for form in (id, markdown(id), visible(id)) if form.strip()})
    ours = {who.dataset.name, *(source.name for source, _ in who.names)}
    heard = [one for source, station in who.names if (one := platform.privacy.was_heard(source.name, station))]
    ranges = [((one.start - WEEK).strftime(KEY_FORMAT), one.end.strftime(KEY_FORMAT)) for one in heard]
    mentions = mentions_of(names)
    changed = partial(_changed, mentions, ours, ranges)
    if number := rewrite_events(instance, [*names, _PICTURE], changed, dry_run):
        yield Removed("texts and pictures on Dagster's pages", "events and logs", number)
    for path, lines in blank_logs(instance, mentions, _GONE, dry_run):
        yield Removed("lines of the logs of runs", str(path), lines)


def _changed(mentions: Mentions, ours: set[str], ranges: list[tuple[str, str]], told: Told) -> str | None:
    """An event without what tells of the station; None where nothing does."""
    is_ours = bool(told.asset) and json.loads(told.asset)[0] in ours
    partition = told.partition or "".join(_PARTITION.findall(told.event)[:1])
    in_time = any(first <= partition <= last for first, last in ranges)

    def tells(text: str) -> bool:
        if is_ours and in_time and _PICTURE in text:
            return True
        return mentions(text) and (is_ours or any(name in text for name in ours))

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: one if key in ("__class__", "path") else without(one) for key, one in value.items()}
        if isinstance(value, list):
            return [without(one) for one in value]
        return _GONE if isinstance(value, str) and tells(value) else value

    before = json.loads(told.event)
    after = without(before)
    return None if after == before else json.dumps(after)


def mentions_of(names: Iterable[str]) -> Mentions:
    """Whether a text tells of a station of one of these names.

    What has no letter may be any number: it counts where a station stands, in quotes, behind the word, or in the column
    of a table that is headed so.
    """
    numbers = {name for name in names if _NUMBER.fullmatch(name)}
    patterns = [_alone(name) for name in names if name not in numbers] + [_as_station(name) for name in numbers]
    pattern = re.compile("|".join(patterns) or "(?!)")

    def mentions(text: str) -> bool:
        return bool(pattern.search(text)) or (bool(numbers) and not numbers.isdisjoint(_stations_in_tables(text)))

    return mentions


def _alone(name: str) -> str:
    """A pattern that finds a name where it is no part of another word."""
    return rf"(?<![\w-])(?<!\w\.){re.escape(name)}(?![\w-]|\.\w)"


def _as_station(number: str) -> str:
    quoted = "|".join(f"{quote}{re.escape(number)}{quote}" for quote in ("'", '"', "`"))
    return rf"{quoted}|\b(?:stations?|station_id|platform(?:_id)?)[ :=]+{_alone(number)}"


def _stations_in_tables(text: str) -> Iterator[str]:
    """The cells of a Markdown text's tables that stand below a heading of stations."""
    columns: list[int] = []
    for line in text.split("\n") if "|" in text else ():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if headed := [at for at, cell in enumerate(cells) if cell in _HEADINGS]:
            columns = headed
        elif "|" not in line:
            columns = []
        yield from (cells[at] for at in columns if at < len(cells))
