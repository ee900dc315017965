"""The notification message of one file: WIS2 Notification Message (WNM) 1.3.

Belongs here: what stands in a message, from what is known of its file. Does not belong here: the file, when it is told
(giving.py), or to whom (broker.py). Source: https://github.com/wmo-im/wis2-notification-message.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid5

import orjson

CONFORMS_TO = "http://wis.wmo.int/spec/wnm/1/conf/core"
MOST_BYTES = 8_192
"""Of a whole message."""
MOST_INLINE = 4_096
"""Bytes of a file that travels in its message, as it is encoded there."""

Relation = Literal["canonical", "update", "deletion"]
"""What a message says of its `data_id`: it is new, it is another now, or it is withdrawn."""
Geometry = dict[str, Any]
"""A Point or Polygon of GeoJSON, in degrees east and north."""
_IDS = UUID("6f0c4c8e-5d0b-4f0e-9a5b-9f5d3f6f6c1e")


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file as its message tells of it.

    `data_id` names it among all of its centre, whatever its revision. `times` are the start and end of what was
    observed, in UTC (None: it has no time of its own), `geometry` where (None: nowhere), `href` the file's address,
    `size` its bytes and `sha512` its hash.
    """

    data_id: str
    href: str
    media_type: str
    size: int
    sha512: bytes
    metadata_id: str | None = None
    times: tuple[datetime, datetime] | None = None
    geometry: Geometry | None = None


def message_id(data_id: str, number: int, hash: str) -> str:
    """The UUID of the message on revision `number` of `data_id`, a file of that hash: the same however often it is
    made, so that who gets it twice knows."""
    return str(uuid5(_IDS, f"{data_id} r{number} {hash}"))


def notification(file: GivenFile, id: str, relation: Relation, now: datetime, content: bytes | None = None) -> bytes:
    """The message as JSON. `content` are the bytes of the file: they travel along where they fit.

    Raises ValueError where the message is too large without them.
    """
    message = _message(file, id, relation, now)
    if relation == "deletion":
        return _checked(orjson.dumps(message), file)
    message["properties"]["integrity"] = {"method": "sha512", "value": base64.b64encode(file.sha512).decode()}
    if content is not None and len(inline := base64.b64encode(content)) <= MOST_INLINE:
        with_content = {"encoding": "base64", "value": inline.decode(), "size": len(content)}
        properties = message["properties"] | {"content": with_content}
        if len(whole := orjson.dumps(message | {"properties": properties})) <= MOST_BYTES:
            return whole
    return _checked(orjson.dumps(message), file)


def _message(file: GivenFile, id: str, relation: Relation, now: datetime) -> dict[str, Any]:
    link: dict[str, Any] = {"href": file.href, "rel": relation, "type": file.media_type}
    if relation != "deletion":
        link["length"] = file.size
    properties: dict[str, Any] = {"pubtime": utc(now), "data_id": file.data_id, **_times(file)}
    if file.metadata_id is not None:
        properties["metadata_id"] = file.metadata_id
    return {
        "id": id,
        "conformsTo": [CONFORMS_TO],
        "type": "Feature",
        "geometry": file.geometry,
        "properties": properties,
        "links": [link],
    }


def _times(file: GivenFile) -> dict[str, str | None]:
    if file.times is None:
        return {"datetime": None}
    start, end = file.times
    return {"start_datetime": utc(start), "end_datetime": utc(end)}


def _checked(message: bytes, file: GivenFile) -> bytes:
    if len(message) > MOST_BYTES:
        raise ValueError(
            f"the notification of {file.data_id} has {len(message):,} bytes, and may have {MOST_BYTES:,}; "
            "shorten the addresses that stand in it (wis2.url)"
        )
    return message


def utc(moment: datetime) -> str:
    """A moment in UTC as RFC 3339 has it, to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def around(west: float, south: float, east: float, north: float) -> Geometry:
    """The geometry of all places in a box, in degrees: a point, where it is one."""
    if (west, south) == (east, north):
        return {"type": "Point", "coordinates": [west, south]}
    return {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    }
