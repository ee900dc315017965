"""The records of datasets that are given away: each is told before the first window of its dataset.

Belongs here: what a record says of a dataset, and when there is to be another one. Does not belong here: its form
(record.py), or telling (telling.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

import orjson

from ionbeam_dagster.config.wis2 import Wis2Settings
from ionbeam_dagster.domain.records import Json
from ionbeam_dagster.edr.about import About, about_in, about_of
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.notices import Notice
from ionbeam_dagster.wis2.giving import put, read_json
from ionbeam_dagster.wis2.notification import Geometry, GivenFile, Relation, message_id, notification
from ionbeam_dagster.wis2.places import MESSAGE, RECORD, address_of, place_of_record, record_id, revision_in
from ionbeam_dagster.wis2.record import (
    MEDIA_TYPE,
    Box,
    Described,
    discovery_record,
    metadata_id,
    widened,
)


def described(platform: Platform, wis2: Wis2Settings, name: str) -> Described:
    """What the configuration and its sources say of a dataset."""
    dataset, given = platform.dataset(name), wis2.datasets[name]
    about = _about(platform, name)
    return Described(
        id=metadata_id(wis2.centre_id, name),
        title=about.title or name,
        description=about.description or f"Observations of {name}",
        policy=given.policy,
        channel=wis2.channel(name),
        broker=wis2.broker.public_url or wis2.broker.url,
        files=f"{wis2.url.rstrip('/')}/{name}/",
        since=max(given.start, dataset.start),
        organization=wis2.contact.organization,
        email=wis2.contact.email,
        website=wis2.contact.url or "",
        keywords=about.keywords,
        rights=about.attribution,
        licences=tuple(
            dict.fromkeys(
                licence for one in dataset.sources if (licence := platform.source(one).config.licence) is not None
            )
        ),
        links={link["href"]: link["title"] for link in about.links},
    )


def _about(platform: Platform, name: str) -> About:
    sources = [platform.source(one) for one in platform.dataset(name).sources]
    own = about_of({one.name: platform.described(one).dataset.model_dump(mode="json") for one in sources})
    return about_in(one.config for one in sources).joined(own)


def record_due(platform: Platform, wis2: Wis2Settings, name: str, where: Iterable[Geometry]) -> Notice | None:
    """The notice on a new record of a dataset, some windows of which are `where`; None where the latest says it all,
    or is still to be told."""
    files, id, place = platform.files, record_id(wis2, name), place_of_record(wis2, name)
    before = platform.ledger.notices.on([id]).get(id)
    if before is not None and before.told is None:
        return None
    known = [one for one in files.under(place.folder) if not one.endswith(MESSAGE)]
    latest = max(known, key=revision_in, default="")
    earlier = read_json(files, latest) if latest else None
    box = _box(earlier, where)
    if box is None:
        return None
    now, last = platform.now(), revision_in(latest)[0]
    created = now if earlier is None else datetime.fromisoformat(earlier["properties"]["created"])
    record = discovery_record(described(platform, wis2, name), box, created, now)
    is_told = before is not None and before.number == last
    if earlier is not None and is_told and _but_for_its_time(record) == _but_for_its_time(earlier):
        return None
    number = max(last, before.number if before is not None else 0) + 1
    return _put(platform, wis2, name, record, number, "canonical" if before is None else "update")


def _put(platform: Platform, wis2: Wis2Settings, name: str, record: Json, number: int, relation: Relation) -> Notice:
    files, id, now = platform.files, record_id(wis2, name), platform.now()
    content = orjson.dumps(record, option=orjson.OPT_INDENT_2)
    hash = hashlib.sha256(content).hexdigest()
    target = place_of_record(wis2, name).file(number, hash)
    put(files, target, content)
    file = GivenFile(
        id, address_of(wis2, target), MEDIA_TYPE, len(content), hashlib.sha512(content).digest(), record["id"],
        geometry=record["geometry"],
    )  # fmt: skip
    told = message_id(id, number, hash)
    put(files, target + MESSAGE, notification(file, told, relation, now, content))
    notice = Notice(id, f"{name}/{RECORD}", told, number, hash, relation, target + MESSAGE, now)
    platform.ledger.notices.keep(notice)
    return notice


def _box(earlier: Json | None, where: Iterable[Geometry]) -> Box | None:
    """The box of an earlier record, and of what was added since."""
    box: Box | None = None
    for geometry in [*([earlier["geometry"]] if earlier else []), *where]:
        corners = geometry["coordinates"][0] if geometry["type"] == "Polygon" else [geometry["coordinates"]]
        lon, lat = [corner[0] for corner in corners], [corner[1] for corner in corners]
        box = widened(box, (min(lon), min(lat), max(lon), max(lat)))
    return box


def _but_for_its_time(record: Json) -> Json:
    return {**record, "properties": {**record["properties"], "updated": None}}
