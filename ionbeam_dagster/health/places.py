"""Where the platform keeps things: its folders and prefixes, and the key of the YAML that says so.

Belongs here: the list. Does not belong here: whether they are well (stores.py, disks.py).
"""

from __future__ import annotations

from pathlib import Path

from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import is_address


def places(platform: Platform) -> dict[str, str]:
    """Every folder, or s3://bucket/prefix, that is written to, with its key in the YAML."""
    config, sections = platform.config, platform.config.sections
    found = {str(sections.state_path): "state_path"}
    found.setdefault(str(sections.scratch_folder), "scratch_path")
    found.setdefault(sections.quarantine_root, "quarantine_path")
    found.setdefault(sections.dataset_aggregator.data_path, "dataset_aggregator.data_path")
    for name, source in config.sources.items():
        found.setdefault(source.config.data_path, f"sources.{name}.data_path")
    for dataset in config.datasets.values():
        for format in dataset.formats:
            exporter = config.exporters[format]
            found.setdefault(str(exporter.settings.output_path), f"projections.{exporter.section()}.output_path")
    return found


def nearest(folder: str) -> Path:
    """A local folder, or the nearest one above it that is there already."""
    path = Path(folder).absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def local_places(platform: Platform) -> dict[Path, str]:
    """Those of `places` that are folders of this host, as far as they are there already."""
    return {nearest(place): key for place, key in reversed(places(platform).items()) if not is_address(place)}
