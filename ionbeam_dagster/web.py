"""The windows on the web: which of the platform's datasets PyGeoAPI serves, and from where.

Belongs here: what the asset `pygeoapi_config` and `ionbeam serve` have in common. Does not belong here: how PyGeoAPI's
YAML is kept (exporters/pygeoapi/configuration.py). It needs neither Dagster nor the platform's stores, so that the
service starts at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ionbeam_dagster.config import DatasetSettings, IonbeamConfig
from ionbeam_dagster.exporters.pygeoapi.configuration import ConfigurationError, Extent, Served, update
from ionbeam_dagster.stores.files import is_address

LOG = logging.getLogger(__name__)
FORMAT = "pygeoapi"


def served(config: IonbeamConfig) -> list[str]:
    """The datasets that are exported for PyGeoAPI."""
    return [name for name, dataset in config.datasets.items() if FORMAT in dataset.exports]


def update_configuration(
    config: IonbeamConfig, tell: Callable[[str], None] = LOG.info
) -> tuple[Path, dict[str, Extent]]:
    """Bring PyGeoAPI's configuration up to date; gives its place, and what each dataset's files hold.

    `tell` is given a line every few seconds while files are looked at.

    Raises ConfigurationError.
    """
    service = config.sections.projections.pygeoapi_service
    state = config.sections.state_path / FORMAT
    path = service.config_path or state / "config.yml"
    if is_address(service.output_path):
        raise ConfigurationError(
            f"projections.pygeoapi_service.output_path is {service.output_path}, but PyGeoAPI serves files of a local "
            "folder only; name a folder there"
        )
    folder = Path(service.output_path) / FORMAT
    datasets = [_described(config, config.datasets[name], folder) for name in served(config)]
    return path, update(path, state, datasets, tell)


def _described(config: IonbeamConfig, dataset: DatasetSettings, folder: Path) -> Served:
    feeding = config.sources[dataset.sources[0]].config
    return Served(
        dataset.name,
        folder / dataset.name,
        getattr(feeding, "description", "") or "",
        tuple(getattr(feeding, "keywords", ()) or ()),
        tuple(
            {"href": str(link.href), "title": link.title or str(link.href), "rel": link.rel}
            for link in getattr(feeding, "source_links", ()) or ()
        ),
    )
