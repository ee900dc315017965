"""Every call on the service, once, as a generator that either driver of `http` runs.

Belongs here: what is asked, in which order, and what shape an answer must have. Does not belong here: HTTP, objects
made of answers, files, or how a stream goes on after it broke.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from ionbeam_client.datastore import constants
from ionbeam_client.datastore.constants import (
    DataAggregations,
    DataFillMethods,
    DataResolutions,
    StageNameFilters,
)
from ionbeam_client.datastore.errors import APICompatibilityError
from ionbeam_client.datastore.http import Call, Request
from ionbeam_client.reported_errors import reported_error, shown

Fields = dict[str, Any]
Query = dict[str, str | list[str]]


def one(endpoint: str, id: int | str, token: str | None, filters: Mapping[str, Any]) -> Call[Fields]:
    """The fields of one object."""
    request = Request(endpoint, id, token, query(filters))
    return checked_object((yield request), request.path)


def many(
    endpoint: str, token: str | None, filters: Mapping[str, Any], id: int | str | None = None
) -> Call[list[Fields]]:
    """The fields of all objects of an endpoint."""
    request = Request(endpoint, id, token, query(filters))
    return _checked_list((yield request), request.path)


def stages(
    kind: str, id: int | str, token: str | None, filters: Mapping[str, Any], with_aggregations: bool
) -> Call[list[Fields]]:
    """Past stages of a pad or a site; with their aggregations, which the service keeps elsewhere."""
    found = yield from many(f"{kind}/{{id}}/history/", token, filters, id)
    if not with_aggregations:
        return found
    numbers = [str(stage["id"]) for stage in found if stage.get("id") is not None]
    aggregations: dict[Any, Fields] = {}
    for first in range(0, len(numbers), constants.STAGES_AT_ONCE):
        some = numbers[first : first + constants.STAGES_AT_ONCE]
        request = Request(f"{kind}/{{id}}/aggregations/", id, token, {"histories": some})
        by_site = checked_object((yield request), request.path)
        aggregations |= _aggregations_by_stage(by_site, request.path)
    return [{**stage, "aggregations": aggregations.get(stage.get("id"))} for stage in found]


def _aggregations_by_stage(by_site: Fields, path: str) -> dict[Any, Fields]:
    found = {}
    for site, some in by_site.items():
        if isinstance(some, str):
            warnings.warn(f"{path}: no aggregations for site {site}: {some}", RuntimeWarning, stacklevel=2)
            continue
        for fields in _checked_list(some, path):
            found[fields.get("id")] = {name: value for name, value in fields.items() if name != "id"}
    return found


def changes(kind: str, id: int | str, token: str | None, filters: Mapping[str, Any]) -> Call[list[Fields]]:
    """The events that have not been confirmed."""
    request = Request(f"{kind}/{{id}}/data_changes/", id, token, query(filters))
    return _change_log((yield request), request.path)


def confirm(site: int | str, id: int, token: str | None) -> Call[list[Fields]]:
    """Say that an event was received; gives those that have not been confirmed then.

    It does no harm to ask twice, so an answer that was lost is asked for again.
    """
    body = {"change_log": [{"id": id, "update_received": True}]}
    request = Request("sites/{id}/data_changes/", site, token, json=body)
    return _change_log((yield request), request.path)


def _change_log(answer: Any, path: str) -> list[Fields]:
    answer = checked_object(answer, path)
    if "change_log" not in answer:
        raise APICompatibilityError(f"{path}: the answer has no change_log, but is {shown(answer)}")
    events = _checked_list(answer["change_log"], path)
    if error := reported_error(events, "id"):
        raise APICompatibilityError(f"{path}: the service reports an error among its change events: {error}")
    return events


def checked_object(answer: Any, where: str) -> Fields:
    if not isinstance(answer, dict):
        raise APICompatibilityError(f"{where}: an object was expected, and not {str(answer)[:200]!r}")
    return answer


def _checked_list(answer: Any, where: str) -> list[Fields]:
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise APICompatibilityError(f"{where}: a list of objects was expected, and not {str(answer)[:200]!r}")
    return answer


# Ranges of changes


@dataclass(frozen=True, order=True)
class Range:
    """A stretch of a site's data; both ends belong to it."""

    site: int
    start: datetime
    end: datetime


def merged(events: Iterable[Fields]) -> list[Range]:
    """What the events changed, by site and in order of time; what several changed stands there once."""
    by_site: defaultdict[int, list[Range]] = defaultdict(list)
    for one in sorted(map(range_of, events)):
        known = by_site[one.site]
        if known and one.start <= known[-1].end:
            known[-1] = Range(one.site, known[-1].start, max(known[-1].end, one.end))
        else:
            known.append(one)
    return [one for site in sorted(by_site) for one in by_site[site]]


def range_of(event: Fields) -> Range:
    """What an event changed. Raises APICompatibilityError where it says no range of a site."""
    try:
        start, end = (
            moment if isinstance(moment, datetime) else timestamp(moment)
            for moment in (event["start_date"], event["end_date"])
        )
        if end < start:
            raise ValueError(f"its end {event['end_date']} is before its start {event['start_date']}")
        return Range(int(event["site"]), start, end)
    except (KeyError, TypeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise APICompatibilityError(f"change event {event.get('id')} says no range of a site: {why}") from None


# What is asked for


_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?")


def is_timestamp(text: str) -> bool:
    """Whether a text is a date with a time of day, and nothing else."""
    return _TIMESTAMP.fullmatch(text) is not None


def timestamp(text: str) -> datetime:
    """An instant from the service's text; one without a zone is UTC."""
    read = datetime.fromisoformat(text)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


def query(filters: Mapping[str, Any]) -> Query:
    """Filters as the service reads them; those that are None are left out."""
    return {name: _value(name, value) for name, value in filters.items() if value is not None}


def _value(name: str, value: Any) -> str | list[str]:
    if isinstance(value, (list, tuple, set)):
        return [str(_value(name, one)) for one in value]
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"{in_utc(name, value):%Y-%m-%dT%H:%M:%SZ}"
    return str(value)


def in_utc(name: str, moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{name}={moment.isoformat()} has no time zone: give it one, such as tzinfo=timezone.utc")
    return moment.astimezone(UTC)


def in_order(start_name: str, start: datetime | None, end_name: str, end: datetime | None) -> None:
    if start and end and in_utc(start_name, start) > in_utc(end_name, end):
        raise ValueError(f"{start_name} {start.isoformat()} is after {end_name} {end.isoformat()}")


def data_query(
    *,
    start_datetime: datetime | None = None,
    end_datetime: datetime | None = None,
    stage_number: int | None = None,
    stage_name_filter: StageNameFilters | None = None,
    resolution: DataResolutions = DataResolutions.SECOND,
    aggregation: DataAggregations | None = None,
    fields: str | list[str] | None = None,
    si_units: bool = False,
    measurement_sources_names: str | list[str] | None = None,
    is_routed: bool | None = None,
    fill_data_method: DataFillMethods | None = None,
    fill_data_limit: int | None = None,
    inside_area_only: bool = True,
) -> Query:
    """What to ask for data with. Raises ValueError for what does not go together."""
    in_order("start_datetime", start_datetime, "end_datetime", end_datetime)
    if stage_number is not None and stage_name_filter is None:
        raise ValueError("stage_number needs stage_name_filter: each kind of stage is counted by itself")
    if is_routed is False and stage_number is not None:
        raise ValueError("stage_number needs is_routed=True: the data of a whole pad have no stages")
    if fill_data_method is None:
        filling: dict[str, Any] = {}
    else:
        filling = _filling(fill_data_method, fill_data_limit, inside_area_only, resolution, aggregation)
    moments = {
        name: f"{in_utc(name, moment):%Y-%m-%d %H:%M:%S}"
        for name, moment in (("start_datetime", start_datetime), ("end_datetime", end_datetime))
        if moment is not None
    }
    return query(
        {
            "si_units": si_units,
            "resolution": resolution,
            **moments,
            "fields": _names("fields", fields),
            "stage_number": stage_number,
            "state_imatch": stage_name_filter,
            "agg": aggregation,
            "measurement_source": _names("measurement_sources_names", measurement_sources_names),
            "routed": is_routed,
            **filling,
        }
    )


def _filling(
    method: DataFillMethods, limit: int | None, inside_only: bool,
    resolution: DataResolutions, aggregation: DataAggregations | None,
) -> dict[str, Any]:  # fmt: skip
    if not isinstance(limit, int) or limit <= 0:
        raise ValueError("fill_data_method needs fill_data_limit, a positive number of seconds")
    if resolution is not DataResolutions.SECOND or aggregation is not None:
        raise ValueError("fill_data_method is for items of a second, without aggregation")
    return {"fill_data_method": method, "fill_data_limit": limit, "inside_area_only": inside_only}


def _names(what: str, names: str | list[str] | None) -> str | None:
    if names is None or isinstance(names, str):
        return names
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{what} is a name, or a list of names")
    return ",".join(names)
