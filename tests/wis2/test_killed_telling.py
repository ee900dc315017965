"""Processes that are killed between file and message, at every write: each revision is told, under one id."""

import subprocess
import sys
from pathlib import Path

import paho.mqtt.publish as mqtt
import pytest
from given import CHANNEL, Listener

PROGRAM = Path(__file__).with_name("killed_telling.py")
MARK = "origin/a/wis2/mark"
FIRST = {("00", "canonical"), ("01", "canonical"), ("02", "canonical")}


class Killer:
    def __init__(self, folder, port):
        self._port = port
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, str(port)], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "prepared"
        self.listener = Listener(port, folder / "now" / "given")

    def _answer(self):
        lines = iter(self._process.stdout.readline, "")
        return next(line for line in lines if line.startswith(("prepared", "killed", "whole", "not", "ended"))).strip()

    def kill(self, base, number):
        """What became of it, and what was heard."""
        self.listener.heard.clear()
        self._process.stdin.write(f"{base} {number}\n")
        self._process.stdin.flush()
        status = self._answer()
        message = '{"links": [{"rel": "deletion", "href": "https://data.example/wis2/none"}]}'
        mqtt.single(MARK, message, qos=1, port=self._port)
        self.listener.messages(MARK, at_least=1)
        return status, self.listener.messages(CHANNEL)

    def close(self):
        self.listener.close()
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture
def killer(tmp_path, mosquitto):
    found = Killer(tmp_path, mosquitto.port)
    yield found
    found.close()


def mended(killer, base, expected, first, step):
    number = first
    while True:
        status, heard = killer.kill(base, number)
        assert status in ("killed", "whole"), f"before write {number}: {status}"
        told = {(one["properties"]["start_datetime"][11:13], one["links"][0]["rel"]) for one in heard}
        assert told == expected, f"before write {number}"
        assert len({one["id"] for one in heard}) == len(expected), f"before write {number}: a revision has two ids"
        assert killer.listener.wrong == [], f"before write {number}"
        if status == "whole":
            return number
        number += step


def test_a_kill_between_file_and_message_loses_nothing_and_doubles_no_id(killer):
    assert mended(killer, "first", FIRST, first=5, step=31) > 40
    assert mended(killer, "next", {("00", "update")}, first=4, step=11) > 10


@pytest.mark.soak
def test_a_kill_at_every_write_loses_nothing_and_doubles_no_id(killer):
    mended(killer, "first", FIRST, first=1, step=1)
    mended(killer, "next", {("00", "update")}, first=1, step=1)
