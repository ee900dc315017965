"""The scenarios, twice: through `decide` on claims told by plain Python, and through Dagster on real stores.

Both are looked at whenever anything happens in any scenario, window by window, and must say the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import dagster as dg
import pytest
from scenarios import SCENARIOS, Scenario
from told import Told, points_as_batch

from ionbeam_client.models import parse_duration
from ionbeam_dagster.domain.decisions import (
    Build,
    Decision,
    Policy,
    Sealed,
    Unchanged,
    Wait,
    build_regardless,
    decide,
    hash_of_inputs,
)
from ionbeam_dagster.domain.lateness import lateness_of, usual_lateness
from ionbeam_dagster.domain.records import Claim, Lateness, Revision
from ionbeam_dagster.domain.windows import HOUR, WEEK, Window, window_of, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.agenda import assess
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

MONDAY = datetime(2026, 6, 15, tzinfo=UTC)


def moment(text: str) -> datetime:
    days, _, clock = text.rpartition("d")
    hours, minutes = map(int, clock.split(":"))
    return MONDAY + timedelta(days=int(days or 0), hours=hours, minutes=minutes)


@dataclass(frozen=True)
class Event:
    """What happens, and to which range (of one moment: its window) of which source."""

    kind: str
    start: datetime
    end: datetime | None
    source: str

    @classmethod
    def read(cls, text: str, scenario: Scenario) -> Event:
        told, _, source = text.partition(" of ")
        kind, *times = re.split(r" (?=\d)", told)
        start, *end = map(moment, times)
        return cls(kind, start, end[0] if end else None, source or next(iter(scenario.sources)))


def events(scenario: Scenario, now: datetime) -> list[Event]:
    texts = [text.strip() for at, happens, _ in scenario.steps if moment(at) == now for text in happens.split(";")]
    return [Event.read(text, scenario) for text in texts if text and text != "restart"]


def expectations(scenario: Scenario, now: datetime) -> Iterator[tuple[Window, str, str]]:
    """What is to be said of which window, and the file's words for it."""
    for at, _, said in scenario.steps:
        for text in said.split(" / ") if said and moment(at) == now else []:
            start, expected = text.split(" ", 1)
            yield window_of(moment(start), parse_duration(scenario.span)), expected, f"{at}: {text}"


def meets(decision: Decision, expected: str) -> bool:
    match decision:
        case Build(number, _, missing):
            gaps = f", {len(missing)} gap{'s' * (len(missing) != 1)}" if missing else ""
            return expected == f"build {number}{gaps}"
        case Wait(reason) | Sealed(_, reason):
            kind = "wait: " if isinstance(decision, Wait) else "sealed: "
            return expected.startswith(kind) and expected.removeprefix(kind) in reason
        case Unchanged():
            return expected == "unchanged"


TIMES = sorted({moment(at) for scenario in SCENARIOS for at, _, _ in scenario.steps})


@dataclass
class Told_:
    """A scenario in plain Python: what was collected, what is built, without a store."""

    scenario: Scenario
    claims: list[Claim] = field(default_factory=list)
    revisions: dict[Window, Revision] = field(default_factory=dict)
    measured: list[tuple[str, Lateness]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    values: dict[tuple[str, datetime], dict[str, object]] = field(default_factory=dict)

    @property
    def span(self) -> timedelta:
        return parse_duration(self.scenario.span)

    def policy(self, now: datetime) -> Policy:
        said = self.scenario.policy
        durations = {
            "subject_to_change": said.get("subject_to_change_window"), "revise_for": said.get("revise_for"),
            "debounce": said.get("debounce"), "lateness": said.get("lateness"),
            "allow_incomplete": said.get("allow_incomplete"),
        }  # fmt: skip
        given = {
            name: text if text in ("never", "always") else parse_duration(text)
            for name, text in durations.items()
            if text and text != "p95"
        }
        policy = Policy(tuple(sorted(self.scenario.sources)), **given)
        if said.get("lateness") != "p95":
            return policy
        hour = window_of(now, HOUR).start
        late = [
            usual_lateness(one for of, one in self.measured if of == source and hour - WEEK <= one.hour < hour)
            for source in policy.sources
        ]
        return replace(policy, lateness=max(late), lateness_measured=True)

    def touching(self, window: Window) -> list[Claim]:
        return [c for c in self.claims if c.collected.overlaps(window) or window in c.stray_windows]

    def windows(self) -> set[Window]:
        collected = (windows_between(claim.collected.start, claim.collected.end, self.span) for claim in self.claims)
        return {w for some in collected for w in some} | {w for claim in self.claims for w in claim.stray_windows}

    def decide(self, window: Window, now: datetime) -> Decision:
        return decide(window, self.touching(window), self.revisions.get(window), now, self.policy(now))

    def built(self, window: Window, build: Build) -> None:
        claims = self.touching(window)
        made_of = frozenset(claim.id for claim in claims)
        self.revisions[window] = Revision("d", window, build.number, hash_of_inputs(claims), made_of=made_of)

    def happen(self, event: Event, now: datetime) -> None:
        size = self.scenario.sources[event.source]
        match event.kind:
            case "give" | "warmer" | "fewer" | "empty":
                for raw in windows_between(event.start, event.end, parse_duration(size)):
                    self._collected(event, Window(raw.start, min(raw.end, now)), event.kind, now)
            case "stray":
                raw = window_of(event.start, parse_duration(size))
                self._collected(event, raw, f"stray {event.end}", now, window_of(event.end, self.span))
            case "resend":
                collected = Window(event.start, event.end)
                self._taken_back(event, collected)
                self._claimed(f"sent {next(self.numbers)}", event, collected, 2, now)
            case "send" | "hush":
                rows = 2 if event.kind == "send" else 0
                self._claimed(f"sent {next(self.numbers)}", event, Window(event.start, event.end), rows, now)
            case "miss":
                pass
            case _:
                self._done_to(event.kind, window_of(event.start, self.span), now)

    def _done_to(self, kind: str, window: Window, now: datetime) -> None:
        revision = self.revisions.get(window)
        if kind == "lose":
            self.revisions[window] = replace(revision, intact=False)
        elif kind in ("seal", "unseal"):
            self.revisions[window] = replace(revision, sealed_at=now if kind == "seal" else None)
        elif kind == "by hand":
            decision = self.decide(window, now)
            if isinstance(decision, Wait):
                decision = build_regardless(window, self.touching(window), revision, self.policy(now))
            if isinstance(decision, Build):
                self.built(window, decision)

    def _collected(self, event: Event, collected: Window, content: str, now: datetime, *strays: Window) -> None:
        given = {"empty": {}, "fewer": {"a": 10}, "warmer": {"a": 13, "b": 11}}.get(content, {"a": 10, "b": 11})
        given |= {"c": content} if content.startswith("stray") else {}
        values = self.values.setdefault((event.source, collected.start), {})
        values |= given  # what is not given again stays
        id = f"{event.source} {collected} {collected.end} {values}"
        if any(claim.id == id for claim in self.claims):
            return
        self._taken_back(event, collected)
        self._claimed(id, event, collected, len(values), now, *strays)

    def _taken_back(self, event: Event, collected: Window) -> None:
        self.claims = [c for c in self.claims if not (c.source == event.source and collected.covers(c.collected))]

    def _claimed(self, id: str, event: Event, collected: Window, rows: int, now: datetime, *strays: Window) -> None:
        claim = Claim(id, event.source, "d", collected, next(self.numbers), rows, 0, strays, arrived_at=now)
        self.claims.append(claim)
        late = Lateness(window_of(now, HOUR).start, lateness_of(claim), 1)
        self.measured.append((event.source, late))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_is_decided(scenario):
    told = Told_(scenario)
    for now in TIMES:
        for event in events(scenario, now):
            told.happen(event, now)
        for window, expected, words in expectations(scenario, now):
            assert meets(told.decide(window, now), expected), (words, told.decide(window, now))
        for window in told.windows():
            if isinstance(decision := told.decide(window, now), Build):
                told.built(window, decision)


class Real:
    """All scenarios in one platform, each a dataset, with one Dagster instance and a clock that a test sets."""

    def __init__(self, platform_with, instance: dg.DagsterInstance, monkeypatch) -> None:
        self.instance = instance
        self.clock = MONDAY
        monkeypatch.setattr(Platform, "now", lambda platform: self.clock)
        self._open = partial(platform_with, "\n".join(_yaml()), automation="{enabled: true}")
        self._sent = count()
        self.start()

    def start(self) -> None:
        """A new process: nothing is known but what the stores and Dagster's instance know, not even a cursor."""
        self.platform = self._open()
        self._defs = build_definitions(WatchedPlatform(self.platform))
        self._assets = {key: asset for asset in self._defs.assets or [] for key in getattr(asset, "keys", [])}
        self._cursor = None

    def happen(self, dataset: str, event: Event) -> None:
        source = self.source(dataset, event.source)
        span = self.platform.dataset(dataset).span
        match event.kind:
            case "give" | "warmer" | "fewer" | "empty" | "miss" | "stray":
                size = self.platform.source(source).window_size
                end = event.start + size if event.kind == "stray" else event.end
                for raw in windows_between(event.start, end, size):
                    self._collect(source, raw, event)
            case "send" | "hush" | "resend":
                self._send(dataset, source, event)
            case "lose":
                latest = self.platform.ledger.latest_revision(dataset, window_of(event.start, span))
                self.platform.files.delete(latest.path)
            case "by hand":
                self.materialise([dataset], window_of(event.start, span).key)
            case "seal":
                self.platform.ledger.seal(dataset, [window_of(event.start, span)], self.clock)
            case "unseal":
                self.platform.ledger.unseal(dataset, [window_of(event.start, span)])

    def source(self, dataset: str, name: str) -> str:
        [found] = [one for one in self.platform.dataset(dataset).sources if one.endswith(f"_{name}")]
        return found

    def _collect(self, name: str, raw: Window, event: Event) -> None:
        source: Told = self.platform.sources[name]
        source.warmer = {raw.key: 3.0} if event.kind == "warmer" else {}
        source.lacking = {raw.key} if event.kind == "fewer" else set()
        source.empty = {raw.key} if event.kind == "empty" else set()
        source.stray = {raw.key: event.end} if event.kind == "stray" else {}
        source.failing = {raw.key} if event.kind == "miss" else set()
        try:
            collect(self.platform, self.platform.source(name), raw, self.clock)
        except SourceError:
            assert event.kind == "miss"
        else:
            ingest(self.platform, self.platform.source(name), raw)

    def _send(self, dataset: str, source: str, event: Event) -> None:
        collected, ingestion = Window(event.start, event.end), f"{dataset} {next(self._sent)}"
        points = [(event.start, "a", 10.0, 52.0), (event.start, "b", 11.0, 53.0)]
        batches = [points_as_batch(points)] if event.kind != "hush" else []
        metadata = Told.metadata.fget(self.platform.sources[source])
        raw = self.platform.raws(self.platform.source(source)).write_sent(
            source, ingestion, collected, metadata, batches, replaces=event.kind == "resend"
        )
        size = self.platform.source(source).window_size
        self.platform.ledger.record_sent([(raw, list(windows_between(collected.start, collected.end, size)))])
        ingest(self.platform, self.platform.source(source), window_of(collected.start, size))

    def tick(self, datasets: list[str]) -> dict[str, set[str]]:
        """The partitions of the datasets that automation asks for now."""
        told = dg.evaluate_automation_conditions(
            self._defs,
            self.instance,
            asset_selection=dg.AssetSelection.assets(*([name, "dataset"] for name in datasets)),
            evaluation_time=self.clock,
            cursor=self._cursor,
        )
        self._cursor = told.cursor
        return {name: set(told.get_requested_partitions(dg.AssetKey([name, "dataset"]))) for name in datasets}

    def perform(self, requested: dict[str, set[str]]) -> None:
        together = defaultdict(list)
        for name, keys in requested.items():
            for key in keys:
                together[self.platform.dataset(name).span, key].append(name)
        for (_, key), names in together.items():
            self.materialise(names, key, {"dagster/from_automation_condition": "true"})

    def materialise(self, datasets: list[str], key: str, tags: dict[str, str] | None = None) -> None:
        dg.materialize(
            [self._assets[dg.AssetKey([name, "dataset"])] for name in datasets],
            partition_key=key,
            instance=self.instance,
            resources={"ionbeam": WatchedPlatform(self.platform)},
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def _yaml() -> Iterator[str]:
    scheduled = []
    for place, scenario in enumerate(SCENARIOS):
        policy = "".join(f", {key}: {value}" for key, value in scenario.policy.items())
        for source, size in scenario.sources.items():
            name = f"d{place}_{source}"
            if size:
                scheduled.append(f"{{source_name: {name}, window_size: {size}}}")
            kind = "type: told" if size else "type: told, kind: external"
            yield (
                f"  {name}: {{{kind}, dataset: d{place}, aggregation_span: {scenario.span}, start: 2026-06-15, "
                f"exports: [], station_prefix: ''{policy}}}"
            )
    yield f"  scheduler: {{windows: [{', '.join(scheduled)}]}}"


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.soak, id="all"), pytest.param(4, id="a fourth")])
def test_dagster_asks_for_the_windows_that_are_to_be_built_and_for_no_others(
    platform_with, instance, monkeypatch, every
):
    monkeypatch.setitem(globals(), "SCENARIOS", SCENARIOS[::every])
    times = sorted({moment(at) for scenario in SCENARIOS for at, _, _ in scenario.steps})
    real = Real(platform_with, instance, monkeypatch)
    scenarios = {f"d{place}": Told_(scenario) for place, scenario in enumerate(SCENARIOS)}
    wrong: list[str] = []
    for now in times:
        real.clock = now
        if any("restart" in happens for s in SCENARIOS for at, happens, _ in s.steps if moment(at) == now):
            real.start()
        for dataset, told in scenarios.items():
            for event in events(told.scenario, now):
                told.happen(event, now)
                real.happen(dataset, event)
        decided = {name: {w: told.decide(w, now) for w in told.windows()} for name, told in scenarios.items()}
        for name, told in scenarios.items():
            expected = {window: words for window, _, words in expectations(told.scenario, now)}
            for window in expected | decided[name]:
                ours, theirs = told.decide(window, now), assess(real.platform, real.platform.dataset(name), window, now)
                if not _alike(ours, theirs):
                    wrong.append(f"{told.scenario.name}, {now} {window}: {ours} in Python, {theirs} on the ledger")
        requested = real.tick(list(scenarios))
        for name, told in scenarios.items():
            builds = {window: found for window, found in decided[name].items() if isinstance(found, Build)}
            if (wanted := {window.key for window in builds}) != requested[name]:
                wrong.append(f"{told.scenario.name}, {now}: decided {wanted}, requested {requested[name]}")
            for window, build in builds.items():
                told.built(window, build)
        real.perform(requested)
        files = real.platform.files
        for name, told in scenarios.items():
            for window, revision in told.revisions.items():
                latest = real.platform.ledger.latest_revision(name, window)
                if latest is None or latest.revision.number != revision.number or not files.exists(latest.path):
                    wrong.append(f"{told.scenario.name}, {now} {window}: revision {revision.number}, not {latest}")
    assert not wrong, "\n".join(wrong[:10])


def _alike(ours: Decision, theirs: Decision) -> bool:
    """The same decision, though its ingestions have other ids."""
    match ours, theirs:
        case Build(), Build():
            return (ours.number, ours.missing) == (theirs.number, theirs.missing)
        case Wait(), Wait():
            return ours == replace(theirs, reason=re.sub(r"\bd\d+_", "", theirs.reason))
        case Sealed(), Sealed():
            return ours.reason == theirs.reason and len(ours.late) == len(theirs.late)
        case Unchanged(), Unchanged():
            return ours.revision.number == theirs.revision.number
    return False
