"""PyGeoAPI's configuration in Dagster: one asset for all datasets.

Belongs here: `pygeoapi_config`, and what of the platform's configuration is served. Does not belong here: how the YAML
is kept (exporters/pygeoapi/configuration.py).
"""

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import dagster as dg

from ionbeam_dagster.exporters.pygeoapi.configuration import ConfigurationError, Extent, Served, openapi_path, update
from ionbeam_dagster.exporters.pygeoapi.query import stamp
from ionbeam_dagster.orchestration import automation, metadata
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.automation import Ionbeam
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline import Platform
from ionbeam_dagster.stores.files import is_address

FORMAT = "pygeoapi"


def pygeoapi_definitions(ionbeam: Ionbeam) -> dg.Definitions:
    """``pygeoapi_config``, where a dataset is exported for it."""
    served = [name for name, dataset in ionbeam.platform.config.datasets.items() if FORMAT in dataset.exports]
    return dg.Definitions(assets=[_configuration(served)] if served else [])


def _configuration(datasets: list[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key="pygeoapi_config",
        deps=[dg.AssetDep(export_key(name, FORMAT)) for name in datasets],
        automation_condition=automation.configures(),
        owners=metadata.OWNERS,
        kinds={"python", "yaml"},
        tags={"ionbeam/stage": "service", "ionbeam/format": FORMAT},
        description=(
            "PyGeoAPI's configuration: a collection a dataset with its true extents and parameters, and the OpenAPI "
            "document. What a person wrote into the YAML stays. `ionbeam serve` takes a change up within seconds."
        ),
    )
    def configured(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> dg.MaterializeResult:
        begun = perf_counter()
        path, extents = update_configuration(ionbeam.platform)
        for name, extent in extents.items():
            for file in extent.unreadable:
                context.log.warning("%s: %s cannot be read; queries leave it out", name, file)
        columns = ("collection", "windows", "rows", "from", "to", "west, south, east, north", "parameters")
        records = [
            dg.TableRecord(dict(zip(columns, (name, *_told(extent)), strict=True))) for name, extent in extents.items()
        ]
        schema = dg.TableSchema([dg.TableColumn(column) for column in columns])
        return dg.MaterializeResult(
            metadata={
                "configuration": dg.MetadataValue.path(path.absolute()),
                "OpenAPI document": dg.MetadataValue.path(openapi_path(path).absolute()),
                "collections": dg.MetadataValue.table(records, schema=schema),
                "seconds": round(perf_counter() - begun, 3),
            }
        )

    return configured


def _told(extent: Extent) -> Iterator[str | int]:
    yield from (extent.files, extent.rows)
    yield from (stamp(moment) for moment in extent.times) if extent.times else ("", "")
    yield ", ".join(f"{side:g}" for side in extent.bbox or ())
    yield len(extent.parameters)


def update_configuration(platform: Platform) -> tuple[Path, dict[str, Extent]]:
    """Bring PyGeoAPI's configuration up to date; gives its place, and what each dataset's files hold.

    Raises ConfigurationError.
    """
    config = platform.config
    service = config.sections.projections.pygeoapi_service
    state = config.sections.state_path / FORMAT
    path = service.config_path or state / "config.yml"
    if is_address(service.output_path):
        raise ConfigurationError(
            f"projections.pygeoapi_service.output_path is {service.output_path}, but PyGeoAPI serves files of a local "
            "folder only; name a folder there"
        )
    folder = Path(service.output_path) / FORMAT
    served = []
    for name, dataset in config.datasets.items():
        if FORMAT in dataset.exports:
            feeding = config.sources[dataset.sources[0]].config
            served.append(
                Served(
                    name,
                    folder / name,
                    getattr(feeding, "description", "") or "",
                    tuple(getattr(feeding, "keywords", ()) or ()),
                    tuple(
                        {"href": str(link.href), "title": link.title or str(link.href), "rel": link.rel}
                        for link in getattr(feeding, "source_links", ()) or ()
                    ),
                )
            )
    return path, update(path, state, served)
