"""What of a configuration that reads well cannot work: each fault as a sentence with what would be right.

Belongs here: checks that need more than one block. Does not belong here: those of one key (they stand with it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ionbeam_client.models import format_duration
from ionbeam_dagster.config.exporting import InstalledExporters, exporter_faults
from ionbeam_dagster.config.resolving import DatasetSettings, SourceSettings
from ionbeam_dagster.config.sections import Sections
from ionbeam_dagster.domain.decisions import Policy
from ionbeam_dagster.domain.privacy import BUS
from ionbeam_dagster.domain.windows import check_span
from ionbeam_dagster.exporters import WEB, Exporter
from ionbeam_dagster.sources.door import DoorConfig
from ionbeam_dagster.stores.settings import check_writable_location
from ionbeam_dagster.stores.stations import entries_in_yaml


def faults(
    sections: Sections,
    sources: Mapping[str, SourceSettings],
    datasets: Mapping[str, DatasetSettings],
    installed: InstalledExporters,
    exporters: Mapping[str, Exporter],
) -> list[str]:
    """All that cannot work."""
    return [
        *(fault for source in sources.values() for fault in _source_faults(source, installed)),
        *(fault for name, dataset in datasets.items() for fault in _policy_faults(name, dataset.policy)),
        *(fault for dataset in datasets.values() for fault in _privacy_faults(dataset, sections, exporters)),
        *(fault for dataset in datasets.values() for fault in _licence_faults(dataset, sources)),
        *_wis2_faults(sections, sources, datasets),
        *_retention_faults(sections),
        *_token_faults(sources),
        *_station_faults(sections),
        *exporter_faults(
            exporters,
            {name: (dataset, dataset.formats) for name, dataset in datasets.items()},
            sections.dataset_aggregator.data_path,
        ),
    ]


def _source_faults(source: SourceSettings, installed: InstalledExporters) -> list[str]:
    faults = []
    key = f"sources.{source.name}"
    if source.end is not None and source.end <= source.start:
        faults.append(f"{key}.end: {source.end} is not later than start {source.start}")
    try:
        check_span(source.config.aggregation_span or source.type.default_span)
    except ValueError as error:
        faults.append(f"{key}.aggregation_span: {error}")
    faults += installed.use_faults(key, source.config.exports or ())
    try:
        check_writable_location(source.config.data_path)
    except ValueError as error:
        faults.append(f"{key}.data_path: {error}")
    return faults


def _token_faults(sources: Mapping[str, SourceSettings]) -> Iterator[str]:
    """A token tells whose a request is: two sources with the same one cannot be told apart."""
    first: dict[str, str] = {}
    for name, source in sources.items():
        if isinstance(source.config, DoorConfig):
            other = first.setdefault(source.config.token.get_secret_value(), name)
            if other != name:
                yield f"sources.{name}.token: is the token of {other}, too; give each source one of its own"


def _station_faults(sections: Sections) -> list[str]:
    """What is wrong with the stations that stand in the YAML; those in a CSV file are read where they are needed."""
    given = sections.stations
    return [] if given is None or isinstance(given, str) else entries_in_yaml(given)[1]


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


def _privacy_faults(dataset: DatasetSettings, sections: Sections, exporters: Mapping[str, Exporter]) -> Iterator[str]:
    """Doors to which rules of privacy do not apply, and that are not known; and a delay that one does not keep."""
    rules, key = dataset.privacy, f"dataset {dataset.name!r}: privacy"
    if rules is None:
        return
    if unknown := sorted({*rules.exact_in} - {*exporters, BUS}):
        yield f"{key}.exact_in: {', '.join(unknown)} not known; choose from {', '.join(sorted([*exporters, BUS]))}"
    if rules.delay and sections.broker is not None and BUS not in rules.exact_in:
        yield (
            f"{key}.delay: clients of the broker are sent windows as soon as they are built; leave it out, or let them "
            f"have all as it is (exact_in: [{', '.join([*rules.exact_in, BUS])}])"
        )


def _licence_faults(dataset: DatasetSettings, sources: Mapping[str, SourceSettings]) -> Iterator[str]:
    """Exports for the web of what others may not be given."""
    for name in dataset.sources:
        if not sources[name].config.redistribution and WEB in (sources[name].config.exports or ()):
            yield (
                f"sources.{name}: redistribution is false, and exports has {WEB}, which is served on the web; "
                "leave it out"
            )


def _wis2_faults(
    sections: Sections, sources: Mapping[str, SourceSettings], datasets: Mapping[str, DatasetSettings]
) -> Iterator[str]:
    """What cannot be given away: datasets that there are not, and what others may not be given."""
    for name, given in {} if sections.wis2 is None else sections.wis2.datasets.items():
        key = f"wis2.datasets.{name}"
        if name not in datasets:
            yield f"{key}: there is no such dataset; there is {', '.join(sorted(datasets)) or 'none'}"
            continue
        dataset, feeders = datasets[name], [sources[one].config for one in datasets[name].sources]
        whose = ", ".join(dataset.sources)
        if lacking := [one for one in given.formats if one not in dataset.exports]:
            yield (
                f"{key}.formats: {', '.join(lacking)} is not among the exports of its windows, which are "
                f"{', '.join(dataset.exports) or 'none'}; add it to the exports of {whose}"
            )
        if not all(feeder.redistribution for feeder in feeders):
            yield f"{key}: what {whose} gives may not be given to others (redistribution: false); leave it out"
        if dataset.privacy is not None and (exact := sorted({*given.formats} & {*dataset.privacy.exact_in})):
            yield (
                f"{key}.formats: {', '.join(exact)} shows all as it is (privacy.exact_in), and this is given to "
                "everybody; leave it out here or there"
            )
        if given.policy == "recommended" and not any(feeder.licence for feeder in feeders):
            yield f"{key}.policy: recommended data need a licence that is told; give {whose} its licence"


def _retention_faults(sections: Sections) -> list[str]:
    if sections.retention.observations is None or sections.influxdb_common is None:
        return []
    return [
        "retention.observations: observations are in InfluxDB, whose bucket has a retention of its own; set it there "
        "(influx bucket update --retention), and leave this key out"
    ]
