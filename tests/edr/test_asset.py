"""``pygeoapi_config`` in Dagster: when it is asked for, and what it tells."""

import dagster as dg
from windows import PLACES, write_window

from ionbeam_client.windows import Dataset
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import PlatformResource

YAML = """  net:
    kind: external
    start: 2025-01-01T00:00:00Z
    end: 2025-01-02T00:00:00Z
    aggregation_span: PT1H
"""


def test_the_configuration_follows_every_export_once_and_tells_what_there_is(platform_of, tmp_path):
    platform = platform_of(YAML)
    definitions = build_definitions(PlatformResource(config_path=str(platform.config.path)))
    only = dg.AssetSelection.assets("pygeoapi_config")
    key = dg.AssetKey(["net", "pygeoapi"])
    with dg.DagsterInstance.ephemeral() as instance:

        def look(cursor=None):
            return dg.evaluate_automation_conditions(definitions, instance, asset_selection=only, cursor=cursor)

        first = look()
        assert first.total_requested == 1
        second = look(first.cursor)
        assert second.total_requested == 0
        write_window(tmp_path / "data-projections" / "pygeoapi" / "net", 3, flags=True)
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="20250101T030000"))
        third = look(second.cursor)
        assert third.total_requested == 1
        assert look(third.cursor).total_requested == 0
        graph = definitions.get_repository_def().asset_graph
        anna = Dataset("net", str(tmp_path / "data-projections" / "pygeoapi"), client="anna")
        anna.confirm(anna.get_data_changes()[0])
        write_window(tmp_path / "data-projections" / "pygeoapi" / "net", 4)
        asset = graph.assets_def_for_key(dg.AssetKey("pygeoapi_config"))
        done = dg.materialize([asset], instance=instance)
        assert done.success
        told = done.asset_materializations_for_node(asset.node_def.name)[0].metadata
    (row,) = told["collections"].value.records
    assert row.data["collection"] == "net" and row.data["windows"] == 2 and row.data["rows"] == 2 * 6 * len(PLACES)
    assert row.data["from"] == "2025-01-01T03:00:00Z" and row.data["to"] == "2025-01-01T04:50:00Z"
    (client,) = told["clients that follow the windows"].value.records
    assert [client.data[name] for name in ("dataset", "client", "has", "lacks")] == ["net", "anna", 1, 1]
    assert "net" in (tmp_path / "ionbeam-state" / "pygeoapi" / "config.yml").read_text()
