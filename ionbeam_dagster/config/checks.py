"""What of a configuration that reads well cannot work: each fault as a sentence with what would be right.

Belongs here: checks that need more than one block. Does not belong here: those of one key (they stand with it).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from ionbeam_client.models import format_duration
from ionbeam_dagster.config.resolving import CYCLES, DatasetSettings, SourceSettings
from ionbeam_dagster.config.sections import Sections
from ionbeam_dagster.domain.cycles import check_nesting
from ionbeam_dagster.domain.windows import Policy, check_span
from ionbeam_dagster.stores.files import uri_of
from ionbeam_dagster.stores.settings import check_writable_location

_EXPORTS = ("odb", "bufr", "pygeoapi", CYCLES)


def faults(
    sections: Sections, sources: Mapping[str, SourceSettings], datasets: Mapping[str, DatasetSettings]
) -> list[str]:
    """All that cannot work."""
    return [
        *(fault for source in sources.values() for fault in _source_faults(source)),
        *(fault for name, dataset in datasets.items() for fault in _policy_faults(name, dataset.policy)),
        *_path_faults(sections),
        *_retention_faults(sections),
        *_cycle_faults(sections, datasets),
        *_bulletin_faults(sections, datasets),
    ]


def _source_faults(source: SourceSettings) -> list[str]:
    faults = []
    key = f"sources.{source.name}"
    if source.end is not None and source.end <= source.start:
        faults.append(f"{key}.end: {source.end} is not later than start {source.start}")
    try:
        check_span(source.config.aggregation_span or source.type.default_span)
    except ValueError as error:
        faults.append(f"{key}.aggregation_span: {error}")
    unknown = sorted(set(source.config.exports or ()) - set(_EXPORTS))
    if unknown:
        faults.append(f"{key}.exports: {', '.join(unknown)} not known; choose from {', '.join(_EXPORTS)}")
    if "bufr" in (source.config.exports or ()) and find_spec("eccodes") is None:
        faults.append(f"{key}.exports: bufr needs eccodes; pip install 'ionbeam-dagster[bufr]'")
    try:
        check_writable_location(source.config.data_path)
    except ValueError as error:
        faults.append(f"{key}.data_path: {error}")
    return faults


def _policy_faults(dataset: str, policy: Policy) -> list[str]:
    """What of a policy cannot come true: a window that is sealed before it is built, or while it is debounced."""
    if policy.revise_for is None:
        return []
    waits = {
        "subject_to_change_window": policy.subject_to_change, "lateness": policy.lateness, "debounce": policy.debounce,
    }  # fmt: skip
    name, longest = max(waits.items(), key=lambda wait: wait[1])
    if longest < policy.revise_for:
        return []
    return [
        f"dataset {dataset!r}: revise_for {format_duration(policy.revise_for)} is not longer than {name} "
        f"{format_duration(longest)}: a window would be sealed before a correction can be built; lengthen revise_for"
    ]


def _retention_faults(sections: Sections) -> list[str]:
    if sections.retention.observations is None or sections.influxdb_common is None:
        return []
    return [
        "retention.observations: observations are in InfluxDB, whose bucket has a retention of its own; set it there "
        "(influx bucket update --retention), and leave this key out"
    ]


def _cycle_faults(sections: Sections, datasets: Mapping[str, DatasetSettings]) -> list[str]:
    """Windows of which some would be in two analysis cycles, or that would all be late for theirs."""
    faults = []
    cut_off = sections.projections.odb_service.cycle_cut_off
    for name, dataset in datasets.items():
        if not dataset.cycles:
            continue
        try:
            check_nesting(dataset.span)
        except ValueError as error:
            faults.append(f"dataset {name!r}: exports has {CYCLES}, but aggregation_span {error}")
        wait = max(dataset.policy.subject_to_change, dataset.policy.lateness)
        if wait >= cut_off:
            faults.append(
                f"projections.odb_service.cycle_cut_off: {format_duration(cut_off)} is not longer than the "
                f"{format_duration(wait)} that windows of {name!r} wait for what is still to come: each cycle would "
                "lack its last windows; lengthen it"
            )
    return faults


def _bulletin_faults(sections: Sections, datasets: Mapping[str, DatasetSettings]) -> list[str]:
    """A message switch knows a bulletin by its heading and time: two datasets may not send under one heading."""
    settings = sections.projections.bufr_service.settings
    place = "projections.bufr_service.settings.headings"
    sending = [name for name, dataset in datasets.items() if "bufr" in dataset.exports]
    faults = [
        f"{place}: no dataset {name!r} writes BUFR; those that do are {', '.join(sending) or 'none'}"
        for name in settings.headings
        if name not in sending
    ]
    if settings.cccc is None:
        return faults
    under: dict[str, list[str]] = {}
    for name in sending:
        under.setdefault(settings.heading_of(name), []).append(name)
    return faults + [
        f"{place}: {' and '.join(names)} would send bulletins of the same names, {heading} {settings.cccc}; give each "
        f"dataset a heading of its own, for example {names[-1]}: {heading[:4]}{(int(heading[4:]) + 1) % 100:02}"
        for heading, names in under.items()
        if len(names) > 1
    ]


def _path_faults(sections: Sections) -> list[str]:
    written = sections.dataset_aggregator.data_path
    services = {
        "pygeoapi_service": sections.projections.pygeoapi_service.input_path,
        "odb_service": sections.projections.odb_service.input_path,
        "bufr_service": sections.projections.bufr_service.input_path,
    }
    return [
        f"projections.{name}.input_path: {path} is not where datasets are written; right would be {written} "
        "(dataset_aggregator.data_path), or leave it out"
        for name, path in services.items()
        if path is not None and uri_of(path) != uri_of(written)
    ]
