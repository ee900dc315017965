"""A source whose past is corrected, and the platform's work on it, without Dagster; also killed at every step of it.

    python corrected.py FOLDER FIRST STEP

Belongs here: what tests/test_corrections.py and the program of its kills share. The program has the loopback service in
its own process, and in forks of it the platform: one is killed before its n-th write, or request, the next one goes on.
It prints what is wrong with what came of each, and how many such places there are.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from shutil import copytree

import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).parent / "sources"))

from killed import Counter, forked
from restream_weather import START, RestreamWeather, block_of, measured

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import HOUR, Window, windows_between
from ionbeam_dagster.errors import IonbeamError
from ionbeam_dagster.pipeline import agenda, corrections
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.stores.ledger.attempts import Failure

SOURCE = "restream"
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
HOURS = list(windows_between(START, START + 3 * HOUR, HOUR))


def configuration(service: RestreamWeather, **keys: object) -> str:
    block = block_of(service) | {"exports": ["pygeoapi"], "allow_incomplete": "always", "max_retries": 0} | keys
    return yaml.safe_dump({"sources": {SOURCE: block}, "state_path": "state"})


def opened() -> Platform:
    return open_platform(IonbeamConfig.load(Path("config.yaml")))


def work(platform: Platform, stages: tuple[str, ...] = ("collect", "ingest", "build", "export")) -> list[str]:
    """Do all of the agenda that may be done, as runs do; what failed is given back, and stays on it."""
    failures = []
    for stage, of in agenda.products(platform):
        now = platform.now()
        for line in agenda.due_of(platform, stage, of, now) if stage in stages else []:
            agenda.begin(platform, [line], now)
            in_hand = agenda.in_hand(platform, stage, line.of)
            failed = {}
            name, _, format = line.of.partition("/")
            try:
                match stage:
                    case "collect":
                        collect(platform, platform.source(name), line.window, now)
                    case "ingest":
                        ingest(platform, platform.source(name), line.window)
                    case "build":
                        build(platform, platform.dataset(name), line.window, now)
                    case "export":
                        export(platform, platform.dataset(name), platform.config.window_exporters[format], line.window)
            except IonbeamError as error:
                failed = {line.window: Failure(str(error))}
                failures.append(str(error))
            in_hand.settle([] if failed else [line.window], failed, now)
    return failures


def begun(platform: Platform) -> None:
    """Collect, build and export what there is before anything is corrected."""
    reconcile(platform, platform.now())
    assert work(platform) == []


def published(platform: Platform, window: Window) -> dict[tuple[str, datetime], float]:
    """What is published of a window, in degrees Celsius by station and time, in order of time."""
    made = platform.ledger.export(SOURCE, window, "pygeoapi")
    assert made is not None
    if made.path is None:  # a window without rows has no file
        return {}
    columns = ["station_id", "datetime", TEMPERATURE]
    with platform.files.fetched(made.path) as path:
        rows = pq.read_table(path, columns=columns, use_threads=False).to_pylist()  # polars' threads survive no fork
    found = {(row["station_id"], row["datetime"]): round(row[TEMPERATURE], 3) for row in rows}
    assert len(found) == len(rows), "a station has two values of one moment"
    return dict(sorted(found.items(), key=lambda one: one[0][1]))


def temperatures(platform: Platform, window: Window) -> dict[str, list[float]]:
    """`published`, by station alone."""
    found: dict[str, list[float]] = {}
    for (station, _), value in published(platform, window).items():
        found.setdefault(station, []).append(value)
    return found


def celsius(fahrenheit: float) -> float:
    return round((fahrenheit - 32) / 1.8, 3)


# --- killed -----------------------------------------------------------------------------------------------------------


def corrected(platform: Platform) -> None:
    """Ticks until nothing is open, at most twenty, and a minute between two: what was begun and killed waits."""
    began = platform.now()
    for minute in range(20):
        platform.now = lambda passed=timedelta(minutes=minute): began + passed  # type: ignore[method-assign, misc]
        found = corrections.look(platform, platform.source(SOURCE), platform.now())
        reconcile(platform, platform.now())
        failures = work(platform)
        assert failures == [], failures
        if not found.noted and not platform.ledger.corrections.open(SOURCE):
            return
    raise AssertionError(f"it comes to no end: {found}, {platform.ledger.attempts.open()}")


class Watched(RestreamWeather):
    """Looks, whenever something is confirmed, whether what is published holds it."""

    def begin(self) -> None:
        """Two corrections, of which nothing is confirmed."""
        self.data, self.events, self.confirmed, self.wrong = measured(hours=3), [], [], []
        self.correct(1, 981, HOURS[0].start + HOUR / 2, HOURS[0].end, 70.0)
        self.correct(2, 982, HOURS[1].start, HOURS[1].end - timedelta(seconds=1), None)

    def _confirm(self, change_log):
        told = [one["id"] for one in change_log if any(event["id"] == one["id"] for event in self.events)]
        platform = opened()
        first, second = (temperatures(platform, hour) for hour in HOURS[:2])
        if 1 in told and first["981"][3:] != [celsius(70.0)] * 3:
            self.wrong.append("an override was confirmed before it was published")
        if 2 in told and "982" in second:
            self.wrong.append("a deletion was confirmed before it was published")
        super()._confirm(change_log)


def attempt(service: Watched, folder: Path, number: int | None) -> list[str]:
    """What is wrong after a process that was killed before its n-th write, and one that went on."""
    copytree(folder.parent / "before", folder)
    os.chdir(folder)  # where the service looks, too
    service.begin()

    def killed() -> None:
        counter = Counter(number)
        counter.watch()
        corrected(opened())
        Path("writes").write_text(str(counter.seen))

    status = forked(folder, killed)
    if number is not None and status != -signal.SIGKILL:
        service.wrong.append(f"it was not killed but ended with {status}")
    if forked(folder, lambda: corrected(opened())) != 0:
        service.wrong.append("it was not mended")
    if sorted(service.confirmed) != [1, 2] or service.events:
        service.wrong.append(f"confirmed were {service.confirmed}")
    by = {known.by for known in opened().ledger.corrections.closed(SOURCE)}
    if by != {corrections.PUBLISHED}:
        service.wrong.append(f"confirmed were they by {by}")
    return [f"before write {number}: {one}" for one in service.wrong]


def main(root: Path, first: int, step: int) -> None:
    before = root / "before"
    before.mkdir()
    with Watched() as service:
        (before / "config.yaml").write_text(configuration(service))
        assert forked(before, lambda: begun(opened())) == 0
        wrong = attempt(service, root / "whole", None)
        writes = int(Path("writes").read_text())
        for number in range(first, writes + 1, step):
            wrong += attempt(service, root / f"killed{number}", number)
    print(*wrong, f"writes: {writes}", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]), int(sys.argv[3]))
