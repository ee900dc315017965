"""From a source that corrects its past at random to the copies that readers keep: what it has in the end, all have."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import yaml
from corrected import SOURCE, begun, celsius, configuration, opened, published, work
from kept import akeep, contents, keep
from restream_weather import SITES, START, RestreamWeather, item
from serving import Served

from ionbeam_client.windows import Dataset
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.domain.windows import HOUR, windows_between
from ionbeam_dagster.pipeline import corrections
from ionbeam_dagster.pipeline.platform import Platform

HOURS = list(windows_between(START, START + 4 * HOUR, HOUR))
STEP = timedelta(minutes=5)
"""Between two moments of which a site may have an item; at first it has every second one."""
PATIENCE = 300.0  # s

Values = dict[tuple[str, datetime], float]


class CorrectsItself(RestreamWeather):
    """Changes, deletes and adds at random, and says so; an event that is open may become another one.

    Whenever something is confirmed it looks whether what is published holds it: what it had when it told of the event,
    or later. `wrong` is what was not, `told` how often each event was confirmed.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__(hours=len(HOURS))
        self.chance = chance
        self.platform: Platform | None = None
        self.wrong: list[str] = []
        self.told: Counter[int] = Counter()
        self._past = [self.truth()]
        self._when: dict[int, int] = {}
        self._one_at_a_time = threading.RLock()

    def truth(self) -> Values:
        return {
            (str(site), datetime.fromisoformat(one["time"])): celsius(one["ambient_temperature"])
            for site in SITES
            for one in self.data[site]
        }

    def answer(self, request):
        with self._one_at_a_time:
            return super().answer(request)

    def correct_something(self, number: int) -> None:
        with self._one_at_a_time:
            site, start = self.chance.choice(SITES), HOURS[0].start + self.chance.randrange(12 * len(HOURS)) * STEP
            end = min(start + self.chance.choice([0, 1, 5, 17]) * STEP, HOURS[-1].end - STEP)
            again = self.chance.choice(self.events) if self.events and self.chance.random() < 0.3 else None
            if again is not None:
                number, site = again["id"], again["site"]
                start = min(start, datetime.fromisoformat(again["start_date"]))
                end = max(end, datetime.fromisoformat(again["end_date"]))
                self.events.remove(again)
            degrees = self.chance.choice([None, round(self.chance.uniform(0, 100), 1)])
            if degrees is not None and self.chance.random() < 0.5:
                has = {one["time"] for one in self.data[site]}
                moments = (start + n * STEP for n in range((end - start) // STEP + 1))
                self.data[site] += [one for at in moments if (one := item(at, site, degrees))["time"] not in has]
            self.correct(number, site, start, end, degrees)
            self.events[-1]["created_at"] = f"2025-11-01T00:00:00.{len(self._past):06}Z"
            self._when[number] = len(self._past)
            self._past.append(self.truth())

    def _confirm(self, change_log):
        for number in {one["id"] for one in change_log}:
            self.told[number] += 1
            of = next((one for one in self.events if one["id"] == number), None)
            if of is None:
                self.wrong.append(f"{number} was confirmed, which is not open")
                continue
            first, last = (datetime.fromisoformat(of[name]) for name in ("start_date", "end_date"))
            there = all_published(self.platform)
            known = {moment for values in self._past for moment in values} | there.keys()
            for moment in (one for one in known if one[0] == str(of["site"]) and first <= one[1] <= last):
                may_be = {values.get(moment) for values in self._past[self._when[number] :]}
                if there.get(moment) not in may_be:
                    self.wrong.append(f"{number} was confirmed, but {moment} is {there.get(moment)}, not {may_be}")
        super()._confirm(change_log)


def all_published(platform: Platform) -> Values:
    return {moment: value for hour in HOURS for moment, value in published(platform, hour).items()}


def files_of(platform: Platform) -> dict[str, bytes]:
    """The platform's files, by their windows."""
    found = {}
    for hour in HOURS:
        made = platform.ledger.export(SOURCE, hour, "pygeoapi")
        if made.path is None:  # it has no rows
            continue
        with platform.files.fetched(made.path) as path:
            found[made.path.rpartition("/")[2].removeprefix(f"{SOURCE}_")] = path.read_bytes()
    return found


class Reader:
    """Keeps a copy, and now and then dies on the way. Who `lags` is told of a window some seconds after it is there."""

    def __init__(self, name: str, address: str, *, twin: bool = False, lags: bool = False) -> None:
        self.dataset = Dataset(SOURCE, address, client=name)
        self.copy = Path("copies", name)
        self.lags = lags
        self._twin = twin

    def keep(self) -> int:
        return asyncio.run(akeep(self.dataset, self.copy)) if self._twin else keep(self.dataset, self.copy)

    def die_on_the_way(self, chance: random.Random) -> None:
        events, _ = self.dataset.get_data_changes()
        some = events[: chance.randrange(len(events) + 1)]
        for one in (one for one in some if not one.is_removed):
            one.get_data().save(self.copy / f"{one.window}.parquet", overwrite=True)

    def has(self) -> dict[str, bytes]:
        return contents(self.copy, SOURCE)


def correct_and_compare(
    platform: Platform, service: CorrectsItself, readers: list[Reader], number: int, do: Callable[[], object]
) -> None:
    """Correct the source `number` times while the platform works and readers read; `do` is what happens meanwhile."""
    source = platform.source(SOURCE)
    for one in range(1, number + 1):
        service.correct_something(one)
        if service.chance.random() < 0.7:
            corrections.look(platform, source, platform.now())
        do()
        reader = service.chance.choice(readers)
        if service.chance.random() < 0.3:
            reader.die_on_the_way(service.chance)
        else:
            before = files_of(platform)
            reader.keep()
            if not reader.lags and before == files_of(platform):
                assert reader.has() == before
        if one % 10 == 0:
            come_to_rest(platform, service, readers, do)
    assert max(service.told.values()) == 1 and sorted(service.told) == sorted(service.confirmed)
    assert {known.by for known in platform.ledger.corrections.closed(SOURCE)} == {corrections.PUBLISHED}


def come_to_rest(platform: Platform, service: CorrectsItself, readers: list[Reader], do: Callable[[], object]) -> None:
    """Work until the source has nothing to tell: then it, what is published, and all copies are the same."""
    until = time.monotonic() + PATIENCE
    while True:
        found = corrections.look(platform, platform.source(SOURCE), platform.now())
        assert service.wrong == []
        if not service.events and not platform.ledger.corrections.open(SOURCE):
            break
        assert time.monotonic() < until, f"it comes to no end: {found}"
        do()
    assert all_published(platform) == service.truth()
    files = files_of(platform)
    for reader in readers:
        while reader.keep() or reader.has() != files:
            assert time.monotonic() < until, f"{reader.copy} does not become what is published"
            do()


@pytest.fixture
def service() -> Iterator[CorrectsItself]:
    with CorrectsItself(random.Random(5)) as running:
        yield running


def started(service: CorrectsItself, **sections: object) -> Platform:
    """All hours collected, built and exported."""
    block = yaml.safe_load(configuration(service, end=HOURS[-1].end))
    Path("config.yaml").write_text(yaml.safe_dump(block | sections))
    service.platform = platform = opened()
    begun(platform)
    assert len(files_of(platform)) == len(HOURS), platform.ledger.attempts.open()
    return platform


def work_in_part(platform: Platform, chance: random.Random) -> None:
    """So that events are looked at while what is made of them is at any stage."""
    stages = ("collect", "ingest", "build", "export")
    assert work(platform, stages[: chance.randint(1, len(stages))]) == []


@contextmanager
def worker() -> Iterator[None]:
    with Path("worker.log").open("wb") as log:
        command = [Path(sys.executable).with_name("ionbeam"), "worker"]
        process = subprocess.Popen(command, env=os.environ | {CONFIG_VARIABLE: "config.yaml"}, stdout=log, stderr=log)
    try:
        yield
        assert process.poll() is None, Path("worker.log").read_text()
    finally:
        process.terminate()
        process.wait(30)


def test_copies_are_what_the_source_has(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    platform = started(service)
    with Served(tmp_path / "config.yaml") as web:
        readers = [Reader("anna", web.url, twin=True), Reader("berta", "data-projections/pygeoapi")]
        correct_and_compare(platform, service, readers, 10, partial(work_in_part, platform, service.chance))


@pytest.mark.soak
@pytest.mark.parametrize("kept", ["folder", "s3"])
def test_copies_are_what_the_source_has_while_a_worker_works(kept, service, s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sections, place = {}, "data-projections/pygeoapi"
    if kept == "s3":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
        bucket = s3.bucket("corrected")
        sections = {"s3": s3.section(), "projections": {"pygeoapi_service": {"output_path": bucket}}}
        host = s3.endpoint.partition("//")[2]
        place = f"{bucket}/pygeoapi?scheme=http&endpoint_override={host}&region={s3.region}"
    platform, lags = started(service, **sections), kept == "s3"
    with worker(), Served(tmp_path / "config.yaml") as web:
        readers = [
            Reader("anna", web.url, lags=lags),
            Reader("berta", place, lags=lags),
            Reader("clara", web.url, twin=True, lags=lags),
            Reader("dora", place, twin=True, lags=lags),
        ]
        correct_and_compare(platform, service, readers, 100, lambda: time.sleep(service.chance.uniform(0, 3)))
