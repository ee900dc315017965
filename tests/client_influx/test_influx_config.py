"""The INI file, and the mistakes that people make in it."""

from __future__ import annotations

import configparser
import re

import pytest

from ionbeam_client.influx import ConfigurationError, EHTInfluxDBClient, read_config_file
from ionbeam_client.influx.config import EXAMPLE, make_config

GOOD = """[eht_influx]
url: "http://localhost:8086/"
org: 'eht'
bucket: "vlbimon_test"
token: "abc=="
jsonlogfile: $EHT_FOLDER/log.jsonl
"""


@pytest.fixture
def ini(tmp_path, monkeypatch):
    monkeypatch.setenv("EHT_FOLDER", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    def write(text: str) -> str:
        (tmp_path / "influx.ini").write_text(text)
        return "~/influx.ini"

    return write


def test_the_example_is_read_and_every_key_has_a_comment(ini):
    """The second of the three tests that the package of the specification has."""
    values = read_config_file(ini(EXAMPLE))
    config = make_config(values)
    assert [server.bucket for server in config.servers] == ["vlbimon_test", "vlbimon_test"]
    assert make_config({"jsonlogfile": "x", **{k: v for k, v in values.items() if k[-1:] != "2"}}).batch_rows == 5000
    blocks = EXAMPLE.split("\n\n")
    keys = {match[1] for line in EXAMPLE.splitlines() if (match := re.match(r"(\w+):", line))}
    assert all(block.lstrip("[eht_influx]\n").startswith("#") for block in blocks)
    assert keys == set(make_config.__globals__["_PATHS"]) | set(make_config.__globals__["_NUMBERS"]) | {
        f"{key}{number}" for key in ("url", "org", "bucket", "token") for number in ("", "2")
    }


def test_home_variables_and_quotes(ini, tmp_path):
    config = make_config(read_config_file(ini(GOOD)))
    (server,) = config.servers
    assert (server.url, server.org, server.token) == ("http://localhost:8086", "eht", "abc==")
    assert config.jsonlogfile == tmp_path / "log.jsonl"
    assert "abc" not in repr(config)


def test_a_keyword_beats_the_file_and_says_so(ini, caplog):
    values = read_config_file(ini(GOOD), bucket="other_test")
    assert values["bucket"] == "other_test"
    assert "keyword bucket is used" in caplog.text


def test_more_servers(ini):
    more = GOOD + "url3: https://example.org\norg3: o\nbucket3: b_test\ntoken3: t\nurl2:\n"
    assert [server.url for server in make_config(read_config_file(ini(more))).servers] == [
        "http://localhost:8086", "https://example.org",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("[eht_influx]", "[influx2]"), r"influx.ini: there is no section \[eht_influx\]"),
        (lambda text: text.replace('/"', '/" # here'), r"url has a # .* lines of their own"),
        (lambda text: text.replace("'eht'", "eht ; mine"), r"org has a # or ;"),
        (lambda text: re.sub("bucket.*\n", "", text), r"influx.ini: bucket is missing"),
        (lambda text: text.replace("vlbimon_test", "vlbimon_prod"), r"bucket is 'vlbimon_prod'; under pytest .* _test"),
        (lambda text: text + "bukket2: x\n", r"no key bukket2; did you mean bucket"),
        (lambda text: text + "batch_rows: many\n", r"batch_rows is 'many'; it has to be a number, 1 or more"),
        (lambda text: text + "timeout: -1\n", r"timeout is '-1'"),
        (lambda text: text + "timeout:\n", r"timeout has no value"),
        (lambda text: text + "url2: http://other\n", r"org2 is missing"),
        (lambda text: text.replace("http://localhost:8086/", "localhost:8086"), r"has to look like http"),
        (lambda text: text.replace("$EHT_FOLDER", "$EHT_NOTHING"), r"jsonlogfile names \$EHT_NOTHING, which is not"),
        (lambda text: re.sub("jsonlogfile.*\n", "", text), r"jsonlogfile is missing"),
        (lambda text: text + "url2: http://localhost:8086\norg2: eht\nbucket2: vlbimon_test\ntoken2: y\n", "the same"),
        (lambda text: text + "csvlogfile: $EHT_FOLDER/./log.jsonl\n", r"jsonlogfile and csvlogfile are both"),
        (lambda text: text + "errorlogfile: $EHT_FOLDER/log.jsonl\n", r"jsonlogfile and errorlogfile are both"),
        (lambda text: text + "csvlogfile: $EHT_FOLDER/log.jsonl.refused.jsonl\n", "csvlogfile and refusedlogfile are"),
        (lambda text: text + "url: http://x\n", r"influx.ini: .*already exists"),
        (lambda text: "no ini at all\n", r"influx.ini: File contains no section headers"),
    ],
)  # fmt: skip
def test_mistakes_name_file_key_and_remedy(ini, change, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        EHTInfluxDBClient.from_config_file(ini(change(GOOD)))
    assert isinstance(caught.value, ValueError)
    assert "influx.ini" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nothing.ini: there is no such file; make one with"):
        EHTInfluxDBClient.from_config_file(tmp_path / "nothing.ini")


def test_without_pytest_any_bucket_will_do(ini, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    prod = GOOD.replace("_test", "_prod")
    assert make_config(read_config_file(ini(prod))).servers[0].bucket == "vlbimon_prod"


def test_the_example_is_plain_ini():
    parser = configparser.ConfigParser()
    parser.read_string(EXAMPLE)
    assert parser.sections() == ["eht_influx"]
