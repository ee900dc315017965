"""The platform in figures, for Prometheus.

Belongs here: which figures there are, and where they come from: the ledger, and what the process has seen. Does not
belong here: alerts on them (deployments/monitoring), or the pages (pages.py).

Figures are of the platform, whichever process is asked; only those of the process itself differ. What is counted over
days is counted once a minute.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ionbeam_dagster.domain.windows import DAY
from ionbeam_dagster.doors.http.memory import door_folder
from ionbeam_dagster.health import disks
from ionbeam_dagster.health.findings import SEVERITIES
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.lately import lately
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt

log = logging.getLogger(__name__)
_AGAIN = 60.0  # seconds


def gauge(name: str, told: str, labels: Iterable[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ionbeam_{name}", told, labels=tuple(labels))


def process_figures(registry: CollectorRegistry) -> None:
    """Memory, processor and files of the process itself."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)


_TOLD_AGAIN = 3600.0
"""Seconds until what keeps figures from being taken is logged again: they are asked for several times a minute."""
_told: dict[str, float] = {}


def given(part: Callable[[], Iterable[Metric]]) -> list[Metric]:
    """The figures of a part; none where it fails, so that the page has the others: the findings tell of most causes."""
    try:
        return list(part())
    except Exception as error:
        words, now = f"({type(error).__name__}): {error}", time.monotonic()
        if now - _told.get(words, -_TOLD_AGAIN) >= _TOLD_AGAIN:
            _told[words] = now
            log.warning("not all figures can be given %s", words)
        return []


class Figures(Collector):
    """The figures of a platform, taken when they are asked for; what costs much, once a minute."""

    def __init__(self, platform: Platform, watch: Watch) -> None:
        self._platform, self._watch = platform, watch
        self._counted: list[Metric] = []
        self._counted_at = -_AGAIN

    def describe(self) -> list[Metric]:
        """Nothing: a registry would otherwise ask for all figures when it is made."""
        return []

    def collect(self) -> Iterator[Metric]:
        parts: list[Callable[[], Iterable[Metric]]] = [self._of_health, self._of_work, self._of_queues, self._of_sizes]
        if can_ask_ledger(self._platform):
            parts += [self._of_failures, self._counted_once_a_minute]
        for part in parts:
            yield from given(part)

    # -- what the process has seen -------------------------------------------------------------------------------

    def _of_health(self) -> Iterator[Metric]:
        findings = gauge("findings", "What `ionbeam doctor` and /health find, by subject", ("subject", "severity"))
        found = self._watch.findings()
        counts = Counter((one.subject, one.severity) for one in found)
        for subject in sorted({one.subject for one in found}):
            for severity in SEVERITIES[1:]:
                findings.add_metric([subject, severity], counts[subject, severity])
        yield findings

    def _of_work(self) -> Iterator[Metric]:
        progress, now = self._watch.progress, self._platform.now()
        due = gauge("due_windows", "Windows that may be worked on now", ("stage", "product"))
        oldest = gauge("due_oldest_age_seconds", "Time since the oldest of them ended", ("stage", "product"))
        counts = Counter((one.stage, one.of) for one in progress.due)
        ages = {(one.stage, one.of): now - one.window.end for one in reversed(progress.due)}
        for (stage, of), count in sorted(counts.items()):
            due.add_metric([stage, of], count)
            oldest.add_metric(
                [stage, of], max(ages[stage, of].total_seconds(), 0)
            )  # what is sent may be of an open one
        still = gauge("work_still_seconds", "Time for which work was due and nobody began any")
        still.add_metric([], progress.still)
        yield from (due, oldest, still)

    def _of_queues(self) -> Iterator[Metric]:
        waiting = gauge("queue_messages", "Messages that wait in a queue of the bus", ("queue",))
        parked = gauge("dead_queue_messages", "Messages that are parked in a dead queue", ("queue",))
        for queue in self._watch.growth.queues:
            (parked if queue.is_dead else waiting).add_metric([queue.name], queue.messages)
        yield from (waiting, parked)

    def _of_sizes(self) -> Iterator[Metric]:
        used = gauge("disk_used_ratio", "Share of a disk that is used", ("folder",))
        free = gauge("disk_free_bytes", "Bytes of a disk that are free", ("folder",))
        for disk in disks.disks(self._platform):
            used.add_metric([str(disk.folder)], max(disk.used, disk.inodes))
            free.add_metric([str(disk.folder)], disk.free)
        sizes = gauge("store_bytes", "Size of what the platform keeps for itself", ("store",))
        state = self._platform.config.sections.state_path
        journal = door_folder(self._platform) / "journal"
        for store, paths in (("ledger", state.glob("ledger.sqlite*")), ("door_journal", journal.glob("*.journal"))):
            sizes.add_metric([store], sum(stat.st_size for stat in disks.stats(paths)))
        yield from (used, free, sizes)

    # -- what the ledger says ------------------------------------------------------------------------------------

    def _of_failures(self) -> Iterator[Metric]:
        failing = gauge("failing_windows", "Windows whose last try failed", ("stage", "product"))
        longest = gauge("failing_longest_seconds", "Time for which the first of them fails", ("stage", "product"))
        now, found = self._platform.now(), dict[tuple[str, str], list[Attempt]]()
        for one in agenda.failing(self._platform, now):
            found.setdefault((one.stage, one.product), []).append(one)
        for key, attempts in found.items():
            failing.add_metric(key, len(attempts))
            longest.add_metric(key, (now - min(one.since for one in attempts)).total_seconds())
        silent = gauge("silent_source_seconds", "Time for which a source has not answered", ("source",))
        for source, silence in self._platform.ledger.silences.all().items():
            silent.add_metric([source], (now - silence.since).total_seconds())
        yield from (failing, longest, silent)
        if (compared := self._platform.ledger.reconciliations.last()) is not None:
            age = gauge("files_compared_age_seconds", "Time since all files were compared with the ledger")
            age.add_metric([], (now - compared).total_seconds())
            yield age

    def _counted_once_a_minute(self) -> Iterable[Metric]:
        if time.monotonic() - self._counted_at >= _AGAIN:
            self._counted = [*self._of_sources(), *self._of_datasets()]
            self._counted_at = time.monotonic()
        return self._counted

    def _of_sources(self) -> Iterator[Metric]:
        rows = gauge("rows", "Rows that arrived for windows of the last 24 h", ("source",))
        aside = gauge("rows_set_aside", "Rows of them that could not be used", ("source",))
        share = gauge(
            "collected_ratio", "Share that was collected of the day that ended with the window due last", ("source",)
        )
        newest = gauge(
            "collected_age_seconds", "Time since the end of the newest with a row, at most 24 h", ("source",)
        )
        late = gauge("lateness_seconds", "How late ingestions of a week came, of hours alike", ("source", "quantile"))
        for name, source in self._platform.config.sources.items():
            found = lately(self._platform, source, self._platform.now())
            rows.add_metric([name], found.rows)
            aside.add_metric([name], found.set_aside)
            if found.completeness is not None:
                share.add_metric([name], found.completeness)
            if found.is_to_give:
                newest.add_metric([name], min(found.silent_for, DAY).total_seconds())
            for quantile, seconds in ((0.5, found.late), (0.95, found.latest)):
                if seconds is not None:
                    late.add_metric([name, str(quantile)], seconds.total_seconds())
        return iter((rows, aside, share, newest, late))

    def _of_datasets(self) -> Iterator[Metric]:
        windows = gauge("windows", "Windows of the last 24 h by state", ("dataset", "state"))
        age = gauge("built_age_seconds", "Time since the end of the newest window that is built", ("dataset",))
        latency = gauge("build_latency_seconds", "From the end of the newest window until it was built", ("dataset",))
        rows = gauge("window_rows", "Rows of the newest window", ("dataset",))
        stations = gauge("window_stations", "Stations of the newest window", ("dataset",))
        whole = gauge("window_coverage_ratio", "Share of the newest window that was collected", ("dataset",))
        flags = gauge("window_flags", "Values of the newest window by flag", ("dataset", "variable", "flag"))
        exported = gauge("exported_ratio", "Share of built windows of the last 24 h that are exported", ("export",))
        ledger, now = self._platform.ledger, self._platform.now()
        for name, dataset in self._platform.config.datasets.items():
            built = ledger.revisions(name, now - DAY, now)
            done = {one.revision.window for one in built}
            states = {
                "complete": sum(one.facts.complete for one in built),
                "incomplete": sum(not one.facts.complete for one in built),
                "sealed": sum(one.revision.sealed_at is not None for one in built),
                "due": len([one for one in ledger.due(name, now) if one.end > now - DAY]),
                "waiting": len([one for one in ledger.due(name) if one.end > now - DAY and one not in done]),
            }
            for state, count in states.items():
                windows.add_metric([name, state], count)
            numbers = {one.revision.window: one.revision.number for one in built}
            made = ledger.exports(name, list(numbers), list(dataset.exports))
            current = Counter(one.format for one in made if one.number == numbers[one.window])
            for format in dataset.exports if built else ():
                exported.add_metric([f"{name}/{format}"], current[format] / len(built))
            if built:
                last = max(built, key=lambda one: one.revision.window)
                end = last.revision.window.end
                age.add_metric([name], (now - end).total_seconds())
                latency.add_metric([name], (last.built_at - end).total_seconds())
                rows.add_metric([name], last.facts.rows)
                stations.add_metric([name], last.facts.stations)
                whole.add_metric([name], last.facts.coverage)
                for variable, counts in last.facts.flags.items():
                    for flag, count in counts.items():
                        flags.add_metric([name, variable, flag], count)
        return iter((windows, age, latency, rows, stations, whole, flags, exported))
