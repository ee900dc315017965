"""Windows are given away: each revision once, after its file, over a real broker."""

import json
import os
import shutil
import time
from pathlib import Path

import polars as pl
import pytest
from given import (
    CENTRE,
    CHANNEL,
    DAY,
    HOUR,
    RECORDS,
    SOURCES,
    WINDOWS,
    Listener,
    brought_up_to_date,
    file_of,
    section,
    write_rows,
)
from redis import Redis
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.forgetting import forget, who_is
from ionbeam_dagster.wis2.broker import NotTold
from ionbeam_dagster.wis2.giving import read_bytes, read_json, settings_of
from ionbeam_dagster.wis2.telling import ToldElsewhere, notices_on, publish, tell_again


@pytest.fixture
def giving(platform_of, tmp_path, mosquitto):
    """A platform that gives its crowd's windows away."""
    write_rows(tmp_path / "in")
    return platform_of(SOURCES, wis2=section(mosquitto.port))


@pytest.fixture
def listener(mosquitto, tmp_path):
    found = Listener(mosquitto.port, tmp_path / "given")
    yield found
    found.close()
    assert found.wrong == []


def relations(messages):
    return [(told["properties"]["start_datetime"][11:13], told["links"][0]["rel"]) for told in messages]


def test_each_window_is_told_once_and_its_next_revision_as_an_update(giving, listener, tmp_path, official):
    brought_up_to_date(giving)
    turn = publish(giving)
    assert turn.told == 4 and turn.failed == {}, "a record and three windows"
    messages = listener.messages(at_least=3)
    assert relations(messages) == [("00", "canonical"), ("01", "canonical"), ("02", "canonical")]
    for told in messages:
        official.check_message(told)
        assert told["properties"]["metadata_id"] == f"urn:wmo:md:{CENTRE}:crowd"
        assert told["geometry"]["coordinates"][0][0] == [4.75, 51.5] and told["links"][0]["type"] == "application/bufr"
    [record] = listener.messages(RECORDS)
    official.check_message(record)
    official.check_record(json.loads(file_of(tmp_path / "given", record).read_text()))
    assert listener.heard[0][0] == RECORDS, "a record comes before what it describes"
    official.check_topic(CHANNEL)
    official.check_topic(RECORDS)
    assert publish(giving).told == 0, "once"

    write_rows(tmp_path / "in", warm=21.5)
    brought_up_to_date(giving, WINDOWS[1:2])
    assert publish(giving).told == 1
    update = listener.messages(at_least=4)[3]
    official.check_message(update)
    assert (
        relations([update]) == [("01", "update")]
        and update["properties"]["data_id"] == messages[1]["properties"]["data_id"]
    )
    assert update["id"] != messages[1]["id"]
    assert not file_of(tmp_path / "given", messages[1]).exists(), "what was replaced is gone"
    assert len(listener.messages(RECORDS)) == 1


def test_a_window_that_is_withdrawn_is_told_as_a_deletion_and_may_come_again(giving, listener, tmp_path, official):
    brought_up_to_date(giving)
    publish(giving)
    write_rows(tmp_path / "in", hours=(0, 2))
    brought_up_to_date(giving, WINDOWS[1:2])
    assert publish(giving).told == 1
    deletion = listener.messages(at_least=4)[3]
    official.check_message(deletion)
    assert relations([deletion]) == [("01", "deletion")]
    assert publish(giving).told == 0
    write_rows(tmp_path / "in", warm=19.0)
    brought_up_to_date(giving, WINDOWS[1:2])
    assert publish(giving).told == 1
    assert relations(listener.messages(at_least=5)[4:]) == [("01", "canonical")]


def test_a_window_that_never_had_a_row_is_told_to_nobody(giving, listener, tmp_path):
    write_rows(tmp_path / "in", hours=(0, 2))
    brought_up_to_date(giving)
    assert publish(giving).told == 3
    assert relations(listener.messages(at_least=2)) == [("00", "canonical"), ("02", "canonical")]


def test_what_the_broker_did_not_take_is_told_later_in_order(platform_of, tmp_path, mosquitto, listener):
    write_rows(tmp_path / "in")
    away = platform_of(SOURCES, wis2=section(1))
    brought_up_to_date(away)
    with pytest.raises(NotTold, match=r"MQTT broker 127.0.0.1:1 does not answer \(.*refused\); start it, or correct"):
        publish(away)
    write_rows(tmp_path / "in", warm=21.5)
    platform = platform_of(SOURCES, wis2=section(mosquitto.port))
    brought_up_to_date(platform, WINDOWS[:1])
    publish(platform)
    messages = listener.messages(at_least=4)
    first = [told for told in messages if told["properties"]["start_datetime"][11:13] == "00"]
    assert relations(first) == [("00", "canonical"), ("00", "update")]
    assert len({told["id"] for told in messages}) == len(messages) == 4


def test_a_lost_ledger_tells_nothing_under_another_id(giving, platform_of, listener, tmp_path, mosquitto):
    brought_up_to_date(giving)
    publish(giving)
    shutil.rmtree(tmp_path / "ionbeam-state")
    again = platform_of(SOURCES, wis2=section(mosquitto.port))
    brought_up_to_date(again)
    assert publish(again).told == 4
    ids = [told["id"] for told in listener.messages(at_least=6)]
    assert ids[:3] == ids[3:]
    assert publish(again).told == 0


def test_files_that_somebody_removed_are_given_anew(giving, listener, tmp_path):
    brought_up_to_date(giving)
    publish(giving)
    shutil.rmtree(tmp_path / "given" / "crowd" / "bufr")
    assert tell_again(giving, "crowd", WINDOWS[0]) == 2, "a window and the record"
    turn = publish(giving)
    assert turn.told == 2 and turn.failed == {}
    again = listener.messages(at_least=4)[3]
    assert relations([again]) == [("00", "update")]


def test_what_was_given_long_ago_goes_without_a_word(giving, platform_of, listener, tmp_path, mosquitto):
    brought_up_to_date(giving)
    publish(giving)
    files = set((tmp_path / "given" / "crowd" / "bufr").rglob("*.*"))
    assert len(files) == 6
    long_ago = time.time() - 8 * 86_400
    for path in [path for path in files if "T01" not in path.name]:
        os.utime(path, (long_ago, long_ago))
    keeps = platform_of(SOURCES, wis2=section(mosquitto.port).replace("{\n", "{keep_for: P7D,\n", 1))
    turn = publish(keeps)
    assert turn.told == 0 and turn.failed == {}
    assert {path.name[:24] for path in files if path.exists()} == {"crowd_20260621T010000_PT"}
    assert publish(keeps).told == 0 and len(listener.messages()) == 3


def test_several_formats_of_a_window_are_several_files(platform_of, tmp_path, mosquitto, listener):
    write_rows(tmp_path / "in", hours=(0,))
    alone = "{bufr_service: {settings: {subsets_per_message: 1}}}"
    platform = platform_of(SOURCES, wis2=section(mosquitto.port, formats="[bufr, pygeoapi]"), projections=alone)
    brought_up_to_date(platform, WINDOWS[:1])
    assert publish(platform).told == 3
    types = {told["links"][0]["type"]: told for told in listener.messages(at_least=2)}
    assert types.keys() == {"application/bufr", "application/vnd.apache.parquet"}
    assert len({told["properties"]["data_id"] for told in types.values()}) == 2
    window = types["application/bufr"]
    assert "content" in window["properties"], "twelve reports travel along"
    content = file_of(tmp_path / "given", window).read_bytes()
    assert content.count(b"BUFR") == content.count(b"7777") == 12, "a message a report"
    assert "content" not in types["application/vnd.apache.parquet"]["properties"]


def test_an_export_that_is_damaged_is_not_given_and_holds_up_no_other(giving, listener, tmp_path):
    brought_up_to_date(giving)
    export = Path(giving.ledger.export("crowd", WINDOWS[1], "bufr").path)
    content = export.read_bytes()
    export.write_bytes(content[:-9] + b"x" + content[-8:])
    turn = publish(giving)
    [(what, why)] = turn.failed.items()
    assert what == f"{CENTRE}/crowd/bufr/20260621T010000_PT1H" and "`ionbeam rebuild crowd --force" in why
    assert relations(listener.messages(at_least=2)) == [("00", "canonical"), ("02", "canonical")]
    export.write_bytes(content)
    assert publish(giving).told == 1


def test_what_is_shown_coarsely_has_coarse_places_in_messages_and_record(platform_of, tmp_path, mosquitto, listener):
    write_rows(tmp_path / "in", hours=(0,))
    hidden = SOURCES + "    privacy: {position: 10000, station_id: pseudonym}\n"
    platform = platform_of(hidden, wis2=section(mosquitto.port))
    brought_up_to_date(platform, WINDOWS[:1])
    publish(platform)
    [told] = listener.messages(at_least=1)
    corner = told["geometry"]["coordinates"][0][0]
    assert corner != [4.75, 51.5] and abs(corner[0] - 4.75) < 0.2 and abs(corner[1] - 51.5) < 0.2


def test_a_station_that_is_forgotten_is_in_no_file_that_is_given_away(platform_of, tmp_path, mosquitto, listener):
    write_rows(tmp_path / "in", hours=(0,))
    platform = platform_of(SOURCES, wis2=section(mosquitto.port, formats="[pygeoapi]"))
    brought_up_to_date(platform, WINDOWS[:1])
    publish(platform)
    forget(platform, who_is(platform, "crowd", "b"))
    assert publish(platform).told == 1
    assert relations(listener.messages(at_least=2)) == [("00", "canonical"), ("00", "update")]
    [given] = (tmp_path / "given").rglob("*.parquet")
    assert set(pl.read_parquet(given)["station_id"]) == {"a"}


def test_one_process_tells_at_a_time_and_what_is_to_be_told_again_is_left_to_it(giving, listener):
    brought_up_to_date(giving)
    publish(giving)
    job = giving.ledger.job("wis2")
    assert job.acquire()
    try:
        with pytest.raises(ToldElsewhere, match="another process tells what is given away"):
            publish(giving)
        done = CliRunner().invoke(app, ["--config", "config.yaml", "wis2", "republish", "crowd"])
        assert done.exit_code == 0 and done.stdout == "4 notifications are told again by the process that follows.\n"
    finally:
        job.close()
    assert publish(giving).told == 4 and len(listener.messages(at_least=6)) == 6


def test_files_in_s3_are_given_away_by_a_ledger_in_redis(platform_of, tmp_path, mosquitto, s3, redis):
    with Redis.from_url(redis.url) as client:
        client.flushdb()
    write_rows(tmp_path / "in")
    root = f"{s3.bucket('wis2-given')}/given"
    wis2 = section(mosquitto.port).replace("output_path: given", f"output_path: '{root}'")
    places = {"redis": f"{{redis_url: '{redis.url}'}}", "s3": json.dumps(s3.section())}
    platform = platform_of(SOURCES, wis2=wis2, **places)
    brought_up_to_date(platform)
    assert publish(platform).told == 4 and publish(platform).told == 0
    assert len(platform.files.under(root)) == 8, "a record and three files, each with its message"
    write_rows(tmp_path / "in", warm=21.5, hours=(0, 2))
    brought_up_to_date(platform, WINDOWS[:2])
    assert publish(platform).told == 2
    found = notices_on(platform, settings_of(platform), "crowd", Window(DAY, DAY + 2 * HOUR))
    assert [notice.relation for notice in found] == ["canonical", "update", "deletion"]
    assert len(platform.files.under(root)) == 7
    told = read_json(platform.files, found[1].place)
    [link] = told["links"]
    content = read_bytes(platform.files, root + link["href"].removeprefix("https://data.example/wis2"))
    assert len(content) == link["length"]
    assert platform.ledger.notices.tally("crowd/bufr").told == 3
