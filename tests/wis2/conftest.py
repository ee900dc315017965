"""WMO's own checks of what is given away: pywis-pubsub, pywcmp and pywis-topics, with their tables from a folder.

They look for schemas and tables in the home of who runs them, and would download them: they are given files instead.
"""

import shutil
from pathlib import Path

import pytest

# The code lists of WCMP2 (https://github.com/wmo-im/wcmp2-codelists) and IANA's link relations, as far as needed.
_RESOURCE_TYPES = ("dataset", "service")
_ROLES = ("host", "owner", "pointOfContact", "producer", "publisher", "distributor")
_LINK_TYPES = ("data", "stations")
_RELATIONS = ("about", "canonical", "items", "item", "license", "self", "alternate", "enclosure")


@pytest.fixture
def official(real_data, tmp_path, monkeypatch):
    """Their checks, able to read the files of WMO; each raises with what is wrong."""
    pubsub = pytest.importorskip("pywis_pubsub.ets", reason="pywis-pubsub is not installed (make)")
    pywcmp, wcmp2 = pytest.importorskip("pywcmp.util"), pytest.importorskip("pywcmp.wcmp2.ets")
    topics = pytest.importorskip("pywis_topics.topics")
    home = tmp_path / "wmo"
    _tables(real_data / "wis2", home)
    monkeypatch.setattr(pubsub, "MESSAGE_SCHEMA", real_data / "wis2" / "wis2-notification-message-bundled.json")
    for module in (pywcmp, wcmp2):
        monkeypatch.setattr(module, "get_userdir", lambda: home)
    monkeypatch.setattr(wcmp2, "WCMP2_FILES", home / "wcmp-2")
    return Official(pubsub, wcmp2, topics.TopicHierarchy(str(home)))


class Official:
    def __init__(self, pubsub, wcmp2, topics):
        self._pubsub, self._wcmp2, self._topics = pubsub, wcmp2, topics

    def check_message(self, message: dict) -> None:
        suite = self._pubsub.WNMTestSuite(message)
        report = suite.run_tests(fail_on_schema_validation=True)
        suite.raise_for_status()
        assert report["ets-report"]["summary"]["PASSED"] >= 7

    def check_record(self, record: dict) -> None:
        suite = self._wcmp2.WMOCoreMetadataProfileTestSuite2(record)
        report = suite.run_tests(fail_on_schema_validation=True)
        assert not suite.errors, suite.errors
        assert report["summary"]["PASSED"] >= 10

    def check_topic(self, topic: str) -> None:
        assert self._topics.validate(topic, strict=True, publication=True), topic


def _tables(source: Path, home: Path) -> None:
    hierarchy, lists = home / "wis2-topic-hierarchy", home / "wcmp-2" / "codelists"
    hierarchy.mkdir(parents=True)
    lists.mkdir(parents=True)
    for table in (source / "topic-hierarchy").glob("*.csv"):
        shutil.copy(table, hierarchy)
    disciplines = source / "topic-hierarchy" / "earth-system-discipline"
    levels = ["Name"]
    for index in sorted(disciplines.rglob("index*.csv")):
        above = index.parent.relative_to(disciplines).as_posix()
        names = [line.split(",")[0] for line in index.read_text().splitlines()[1:]]
        levels += [name if above == "." else f"{above}/{name}" for name in names]
    (hierarchy / "earth-system-discipline.csv").write_text("\n".join(levels) + "\n")
    shutil.copy(source / "wcmp2-bundled.json", home / "wcmp-2")
    (lists / "resource-type.csv").write_text("\n".join(_RESOURCE_TYPES))
    (lists / "contact-role.csv").write_text("\n".join(_ROLES))
    (lists / "link-type.csv").write_text("\n".join(_LINK_TYPES))
    (home / "wcmp-2" / "link-relations-1.csv").write_text("\n".join(_RELATIONS))
