"""The windows on the web: which of the platform's datasets PyGeoAPI serves, and from where.

Belongs here: what the asset `pygeoapi_config` and `ionbeam serve` have in common. Does not belong here: how PyGeoAPI's
YAML is kept (edr/configuration.py). It needs neither Dagster nor the platform's ledger, so that the
service starts at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.fs as fs

from ionbeam_client.windows import feed
from ionbeam_dagster.config import DatasetSettings, IonbeamConfig
from ionbeam_dagster.edr.about import about_in
from ionbeam_dagster.edr.configuration import Served, update
from ionbeam_dagster.edr.extents import Extent
from ionbeam_dagster.edr.mirror import mirrored
from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter, PyGeoApiService
from ionbeam_dagster.stores.files import Files, absolute, is_address, within

LOG = logging.getLogger(__name__)
FORMAT = GeoParquetExporter.format
ASSET = "pygeoapi_config"
LOOKED_EVERY = 10.0  # s, for new windows, also in S3


def served(config: IonbeamConfig) -> list[str]:
    """The datasets that are exported for PyGeoAPI."""
    return [name for name, dataset in config.datasets.items() if FORMAT in dataset.exports]


def update_configuration(
    config: IonbeamConfig, tell: Callable[[str], None] = LOG.info
) -> tuple[Path, dict[str, Extent]]:
    """Bring PyGeoAPI's configuration up to date; gives its place, and what each dataset's files hold.

    Exports in S3 are fetched into a folder of this host first. `tell` is given a line every few seconds while files are
    fetched or looked at.

    Raises ServiceError, and FilesError when S3 cannot be used.
    """
    service = _settings(config)
    state = config.sections.state_path / FORMAT
    path = service.config_path or state / "config.yml"
    names = served(config)
    folder = folder_of(config)
    if is_address(service.output_path):
        files = Files(config.sections.scratch_folder / "drafts", config.sections.s3)
        for name in names:
            mirrored(files, within(service.output_path, FORMAT, name), folder / name, tell)
    return path, update(path, state, [_described(config, config.datasets[name], folder) for name in names], tell)


def folder_of(config: IonbeamConfig) -> Path:
    """The folder, of this host, from which windows are served."""
    output = _settings(config).output_path
    return config.sections.scratch_folder / FORMAT / "mirror" if is_address(output) else Path(output) / FORMAT


def kept_in(config: IonbeamConfig) -> feed.Root:
    """The exported windows themselves, in their folder or in S3; what clients confirm is kept beside them."""
    output = within(_settings(config).output_path, FORMAT)
    if is_address(output):
        return config.sections.s3.connected(), output.removeprefix("s3://")
    return fs.LocalFileSystem(), absolute(output)


def origins(config: IonbeamConfig) -> dict[str, feed.Root]:
    """Where the windows are kept, by the folder of this host in which they are served, if that is a copy."""
    return {absolute(str(folder_of(config))): kept_in(config)} if is_address(_settings(config).output_path) else {}


def follow(config: IonbeamConfig) -> threading.Event:
    """Keep on taking up what is exported, until the event that is given back is set: a dataset's first window, the
    extents of later ones, and what comes to S3; with the YAML as it then stands, as the asset does, too. A failure is
    told once, and tried again."""
    stop = threading.Event()

    def forever() -> None:
        current, told = config, ""
        while not stop.wait(LOOKED_EVERY):
            current, failed = _taken_up(current)
            if failed and failed != told:
                LOG.error("%s", failed)
            told = failed

    threading.Thread(target=forever, name="ionbeam-follow", daemon=True).start()
    return stop


def _taken_up(config: IonbeamConfig) -> tuple[IonbeamConfig, str]:
    """The configuration that is in use then, and what failed: S3 comes back, a YAML is corrected, and what was there
    before is served meanwhile."""
    failed = []
    try:
        config = IonbeamConfig.load(config.path)
    except Exception as error:
        failed.append(f"the configuration before stays in use: {error}")
    try:
        update_configuration(config)
    except Exception as error:
        failed.append(f"the windows are served as they were before: {error}")
    return config, "\n".join(failed)


def _settings(config: IonbeamConfig) -> PyGeoApiService:
    settings = config.exporters[FORMAT].settings
    assert isinstance(settings, PyGeoApiService)
    return settings


def _described(config: IonbeamConfig, dataset: DatasetSettings, folder: Path) -> Served:
    about = about_in(config.sources[name].config for name in dataset.sources)
    return Served(dataset.name, folder / dataset.name, about)
