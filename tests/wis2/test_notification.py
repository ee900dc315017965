"""What stands in notifications and records, judged by WMO's own checks."""

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ionbeam_dagster.wis2.notification import MOST_BYTES, GivenFile, around, message_id, notification
from ionbeam_dagster.wis2.record import Described, discovery_record, metadata_id, widened

NOW = datetime(2026, 6, 21, 7, 3, 11, 250_000, tzinfo=UTC)
CONTENT = b"BUFR" + bytes(range(200)) * 5
FILE = GivenFile(
    data_id="de-dwd/crowd/bufr/20260621T060000_PT1H",
    href="https://data.example/wis2/crowd/20260621/crowd_20260621T060000_PT1H_r1_0a1b2c3d.bufr",
    media_type="application/bufr",
    size=len(CONTENT),
    sha512=hashlib.sha512(CONTENT).digest(),
    metadata_id=metadata_id("de-dwd", "crowd"),
    times=(datetime(2026, 6, 21, 6, tzinfo=UTC), datetime(2026, 6, 21, 7, tzinfo=UTC)),
    geometry=around(5.5, 47.25, 15.0, 55.0),
)
ID = message_id(FILE.data_id, 1, "0a1b2c3d")
ABOUT = Described(
    id=metadata_id("de-dwd", "crowd"),
    title="Crowd",
    description="What stations of many people measure.",
    policy="recommended",
    channel="origin/a/wis2/de-dwd/data/recommended/weather/experimental/crowd",
    broker="mqtts://broker.example:8883",
    files="https://data.example/wis2/crowd",
    since=datetime(2026, 1, 1, tzinfo=UTC),
    organization="Somebody",
    email="wis@data.example",
    website="https://data.example",
    keywords=("crowd",),
    rights="Observations: Somebody",
    licences=("https://creativecommons.org/licenses/by/4.0/",),
    links={"https://data.example/about": "The network"},
)


def told(file=FILE, relation="canonical", content=CONTENT):
    return json.loads(notification(file, ID, relation, NOW, content))


def test_a_notification_tells_of_a_file_what_its_receiver_can_compare(official):
    message = told()
    official.check_message(message)
    assert message["id"] == ID and message["properties"]["pubtime"] == "2026-06-21T07:03:11Z"
    assert message["properties"]["start_datetime"] == "2026-06-21T06:00:00Z"
    assert base64.b64decode(message["properties"]["integrity"]["value"]) == hashlib.sha512(CONTENT).digest()
    [link] = message["links"]
    assert link == {
        "href": FILE.href, "rel": "canonical", "type": "application/bufr", "length": len(CONTENT),
    }  # fmt: skip


def test_what_is_small_travels_along_and_what_is_not_does_not(official):
    inline = told()["properties"]["content"]
    assert base64.b64decode(inline["value"]) == CONTENT and inline["size"] == len(CONTENT)
    most = bytes(3_072)  # 4,096 bytes of base64
    message = told(content=most)
    official.check_message(message)
    assert "content" in message["properties"]
    assert "content" not in told(content=most + b"\0")["properties"]
    long = replace(FILE, href=f"https://data.example/{'x' * 3_500}")
    assert "content" not in told(long, content=most)["properties"], "the whole is too large with it"
    assert "content" not in told(content=None)["properties"]


def test_a_notification_that_would_be_too_large_is_an_error_that_says_so():
    with pytest.raises(ValueError, match=rf"has 8,\d+ bytes, and may have {MOST_BYTES:,}; shorten the addresses"):
        told(replace(FILE, href=f"https://data.example/{'x' * 7_900}"))


def test_a_deletion_says_nothing_of_a_content(official):
    message = told(relation="deletion")
    official.check_message(message)
    [link] = message["links"]
    assert link["rel"] == "deletion" and not {"integrity", "content"} & message["properties"].keys()


def test_an_update_has_the_same_data_id_and_an_id_of_its_own(official):
    message = told(relation="update")
    official.check_message(message)
    assert message["links"][0]["rel"] == "update" and message["properties"]["data_id"] == FILE.data_id
    ids = {message_id(FILE.data_id, 1, "a"), message_id(FILE.data_id, 1, "b"), message_id(FILE.data_id, 2, "a")}
    assert len(ids) == 3 and message_id(FILE.data_id, 1, "a") in ids


@pytest.mark.parametrize("geometry", [None, around(5.5, 47.25, 5.5, 47.25), around(-180, -90, 180, 90)])
def test_where_it_was_is_a_point_a_box_or_nowhere(official, geometry):
    official.check_message(told(replace(FILE, geometry=geometry)))


def test_a_file_without_a_time_of_its_own_says_so(official):
    message = told(replace(FILE, times=None, metadata_id=None))
    official.check_message(message)
    assert message["properties"]["datetime"] is None and "metadata_id" not in message["properties"]


def test_a_record_says_where_the_data_are_and_under_which_conditions(official):
    record = discovery_record(ABOUT, widened(None, (5.3, 47.2, 15.1, 55.0)), NOW, NOW)
    official.check_record(record)
    official.check_topic(ABOUT.channel)
    assert record["geometry"]["coordinates"][0][0] == [5.0, 47.0]
    links = {link["rel"]: link for link in record["links"]}
    assert links["items"]["channel"] == ABOUT.channel and links["data"]["href"] == ABOUT.files
    assert links["license"]["href"] == ABOUT.licences[0] and record["properties"]["rights"] == ABOUT.rights


def test_a_core_dataset_of_one_station_needs_no_licence(official):
    topic = "origin/a/wis2/de-dwd/data/core/weather/surface-based-observations/synop"
    plain = replace(ABOUT, policy="core", channel=topic, licences=(), keywords=(), rights="", website="", links={})
    official.check_record(discovery_record(plain, widened(None, (0.0, 0.0, 0.0, 0.0)), NOW, NOW))


def test_a_box_only_grows():
    first = widened(None, (5.3, 47.2, 15.1, 55.0))
    assert first == (5.0, 47.0, 16.0, 55.0)
    assert widened(first, (6.0, 48.0, 7.0, 49.0)) == first
    assert widened(first, (-1.5, 48.0, 7.0, 56.5)) == (-2.0, 47.0, 16.0, 57.0)
