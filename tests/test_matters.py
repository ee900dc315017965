"""Matters are told as they begin and end, however often they go wrong."""

from __future__ import annotations

import logging

from ionbeam_dagster import matters
from ionbeam_dagster.matters import Matter


def test_a_matter_is_told_once_for_each_kind_and_when_it_has_been_quiet_for_a_while(caplog, monkeypatch):
    matter = Matter(logging.getLogger("test"))
    matter.goes_well("all is well")
    for _ in range(50):
        matter.goes_wrong(28, "the disk is full")
        matter.goes_wrong(5, "the disk is broken")
        matter.goes_well("all is well")
    monkeypatch.setattr(matters, "QUIET", 0)
    matter.goes_well("all is well")
    matter.goes_well("all is well")
    matter.goes_wrong(28, "the disk is full")
    assert [one.getMessage() for one in caplog.records] == [
        "the disk is full", "the disk is broken", "all is well; it went wrong 100 times", "the disk is full"
    ]  # fmt: skip


def test_a_matter_that_is_another_one_each_time_does_not_fill_the_log(caplog):
    matter = Matter(logging.getLogger("test"))
    for number in range(1_000):
        matter.goes_wrong(number, f"reason {number}")
    assert len(caplog.records) == 20
