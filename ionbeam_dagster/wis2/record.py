"""The record by which a dataset is found in WIS2: WMO Core Metadata Profile 2 (WCMP2).

Belongs here: what stands in a record, from what sources and the configuration say. Does not belong here: when
there is to be another one (describing.py). Source: https://github.com/wmo-im/wcmp2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ionbeam_dagster.wis2.notification import around, utc

CONFORMS_TO = "http://wis.wmo.int/spec/wcmp/2/conf/core"
DISCIPLINES = "https://codes.wmo.int/wis/topic-hierarchy/earth-system-discipline"
MEDIA_TYPE = "application/geo+json"

Box = tuple[float, float, float, float]
"""West, south, east and north, in degrees."""


@dataclass(frozen=True, slots=True)
class Described:
    """A dataset as its record tells of it.

    `channel` is the topic of its notifications, `broker` and `files` are the addresses at which others get these and
    the files. `licences` and `links` are addresses, the latter with their titles; `since` is when its first window
    begins.
    """

    id: str
    title: str
    description: str
    policy: str
    channel: str
    broker: str
    files: str
    since: datetime
    organization: str
    email: str
    website: str = ""
    keywords: tuple[str, ...] = ()
    rights: str = ""
    licences: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)


def metadata_id(centre: str, local: str) -> str:
    """The identifier of a record: ``urn:wmo:md:<centre>:<local>``."""
    return f"urn:wmo:md:{centre}:{local}"


def discovery_record(about: Described, box: Box, created: datetime, updated: datetime) -> dict[str, Any]:
    """The record of a dataset whose places lie within `box`, made first at `created` and changed last at `updated`."""
    discipline = about.channel.split("/")[6]
    properties: dict[str, Any] = {
        "type": "dataset",
        "title": about.title,
        "description": about.description,
        "themes": [{"concepts": [{"id": discipline, "url": f"{DISCIPLINES}/{discipline}"}], "scheme": DISCIPLINES}],
        "contacts": [_contact(about)],
        "created": utc(created),
        "updated": utc(updated),
        "wmo:dataPolicy": about.policy,
    }
    if about.keywords:
        properties["keywords"] = list(about.keywords)
    if about.rights:
        properties["rights"] = about.rights
    return {
        "id": about.id,
        "conformsTo": [CONFORMS_TO],
        "type": "Feature",
        "geometry": around(*box),
        "time": {"interval": [utc(about.since), ".."]},
        "properties": properties,
        "links": _links(about),
    }


def _contact(about: Described) -> dict[str, Any]:
    contact: dict[str, Any] = {
        "organization": about.organization, "emails": [{"value": about.email}], "roles": ["host"],
    }  # fmt: skip
    if about.website:
        contact["links"] = [{"rel": "about", "type": "text/html", "href": about.website}]
    return contact


def _links(about: Described) -> list[dict[str, Any]]:
    return [
        {"rel": "items", "href": about.broker, "channel": about.channel, "type": MEDIA_TYPE,
         "title": "Notifications of new files"},
        {"rel": "data", "href": about.files, "title": "The files"},
        *({"rel": "license", "href": one, "title": "Licence", "type": "text/html"} for one in about.licences),
        *({"rel": "about", "href": one, "title": title, "type": "text/html"} for one, title in about.links.items()),
    ]  # fmt: skip


def widened(box: Box | None, other: Box) -> Box:
    """A box in whole degrees around both: it tells where a dataset is, and seldom has to be told again."""
    west, south, east, north = (math.floor(other[0]), math.floor(other[1]), math.ceil(other[2]), math.ceil(other[3]))
    if box is not None:
        west, south = min(west, math.floor(box[0])), min(south, math.floor(box[1]))
        east, north = max(east, math.ceil(box[2])), max(north, math.ceil(box[3]))
    return float(west), float(south), float(east), float(north)
