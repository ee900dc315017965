"""The web service's configuration in Dagster: one asset for all datasets.

Belongs here: `service_definitions`. Does not belong here: what is served (edr/served.py), or how the YAML is kept
(edr/configuration.py).
"""

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any

import dagster as dg

from ionbeam_dagster.edr.clients import clients
from ionbeam_dagster.edr.collection import stamp
from ionbeam_dagster.edr.configuration import openapi_path
from ionbeam_dagster.edr.extents import Extent
from ionbeam_dagster.edr.served import ASSET, FORMAT, served, update_configuration
from ionbeam_dagster.orchestration import automation, metadata
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.automation import Ionbeam
from ionbeam_dagster.orchestration.resources import PlatformResource

_COLLECTIONS = ("collection", "windows", "rows", "from", "to", "west, south, east, north", "parameters")
_CLIENTS = ("dataset", "client", "has", "lacks", "confirmed last (UTC)")


def service_definitions(ionbeam: Ionbeam) -> dg.Definitions:
    """The asset of the configuration, where a dataset is exported for the service."""
    datasets = served(ionbeam.platform.config)
    if not datasets:
        return dg.Definitions()
    configuration = _configuration(datasets)
    what = "Writes the web service's configuration by itself after every export."
    settings = ionbeam.platform.config.automation
    sensor = automation.automation_sensor(settings, "configuring", [configuration.key], what)
    return dg.Definitions(assets=[configuration], sensors=[sensor])


def _configuration(datasets: list[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key=ASSET,
        deps=[dg.AssetDep(export_key(name, FORMAT)) for name in datasets],
        automation_condition=automation.configures(),
        owners=metadata.OWNERS,
        kinds={"python", "yaml"},
        tags={"ionbeam/stage": "service", "ionbeam/format": FORMAT},
        description=(
            "The web service's configuration: a collection a dataset with its true extents and parameters, and the "
            "OpenAPI document. What a person wrote into the YAML stays; `ionbeam serve` takes a change up in seconds."
        ),
    )
    def configured(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> dg.MaterializeResult[Any]:
        begun = perf_counter()
        path, extents = update_configuration(ionbeam.platform.config, context.log.info)
        for name, extent in extents.items():
            for file in extent.unreadable:
                context.log.warning("%s: %s cannot be read; queries leave it out", name, file)
        collections = [(name, *_cells(extent)) for name, extent in extents.items()]
        followers = [
            (one.dataset, one.name, one.has, one.lacks, f"{one.at:%Y-%m-%d %H:%M:%S}")
            for one in clients(ionbeam.platform.config)
        ]
        return dg.MaterializeResult(
            metadata={
                "configuration": dg.MetadataValue.path(path.absolute()),
                "OpenAPI document": dg.MetadataValue.path(openapi_path(path).absolute()),
                "collections": _table(_COLLECTIONS, collections),
                "clients that follow the windows": _table(_CLIENTS, followers),
                "seconds": round(perf_counter() - begun, 3),
            }
        )

    return configured


def _table(columns: Sequence[str], rows: Sequence[Sequence[str | int]]) -> dg.TableMetadataValue:
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    return dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(column) for column in columns]))


def _cells(extent: Extent) -> Iterator[str | int]:
    yield from (extent.files, extent.rows)
    yield from (stamp(moment) for moment in extent.times) if extent.times else ("", "")
    yield ", ".join(f"{side:g}" for side in extent.bbox or ())
    yield len(extent.parameters)
