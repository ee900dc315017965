"""Whether the configuration fits what is there, and whether its sources can say what they give.

Belongs here: what can be told without asking anybody outside. Does not belong here: faults of the YAML itself, with
which there is no platform (config).
"""

from __future__ import annotations

from collections.abc import Iterator

from ionbeam_client.cf import check_metadata
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.health.findings import Finding, of_error
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.stations import faults

SUBJECT, STATIONS = "configuration", "stations"
_SHOWN = 5


def configuration(platform: Platform) -> Iterator[Finding]:
    """What of the configuration does not fit, and what of its sources cannot be used."""
    path = platform.config.path
    for misfit in agenda.misfits(platform) if can_ask_ledger(platform) else ():
        words, _, remedy = misfit.rpartition("; ")
        yield Finding(SUBJECT, "error", words, remedy)
    for unfed in agenda.unfed(platform) if can_ask_ledger(platform) else ():
        words, _, remedy = unfed.partition("; ")
        yield Finding(SUBJECT, "note", words, remedy)
    for note in platform.config.notes(platform.now()):
        yield Finding(SUBJECT, "note", note)
    for name, source in platform.config.sources.items():
        if source.kind == "pull":
            yield from _of_source(platform, name)
    yield Finding(SUBJECT, "well", f"{path}: every key is understood; sources: {len(platform.config.sources)}")


def stations(platform: Platform) -> Iterator[Finding]:
    """What a person should put right of what is told of stations. Raises StationsError where none of it can be used."""
    told = faults(platform)
    for fault in told[:_SHOWN]:
        words, _, remedy = fault.rpartition("; ")
        is_unused = fault == platform.stations.trouble
        remedy = "correct the file; until then what it said before holds" if is_unused or not words else remedy
        yield Finding(STATIONS, "error" if is_unused else "warning", words or fault, remedy)
    if len(told) > _SHOWN:
        more = f"{len(told) - _SHOWN:,} further faults of what is told of stations"
        yield Finding(STATIONS, "warning", more, "`ionbeam stations list` shows all of them")
    yield Finding(STATIONS, "well", f"what is told of stations ({platform.stations.place}) can be used")


def _of_source(platform: Platform, name: str) -> Iterator[Finding]:
    subject = f"source {name}"
    try:
        problems = check_metadata(platform.sources[name].metadata)
    except SourceError as error:
        yield of_error(subject, error)
        return
    for problem in problems:
        if problem.severity == "error":
            yield Finding(subject, "error", str(problem), f"correct sources.{name}; `ionbeam config check`")
    troubles = platform.sources[name].problems()
    for trouble in troubles[:_SHOWN]:
        yield Finding(subject, "warning", trouble, f"fix it, or correct sources.{name}; `ionbeam config check`")
    if len(troubles) > _SHOWN:
        more = f"{len(troubles) - _SHOWN:,} further inputs of it have trouble"
        yield Finding(subject, "warning", more, "`ionbeam config check` shows all of them")
