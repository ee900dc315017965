"""What every source declares: CF names with units that convert, or local names, and what the exports make of them."""

import pytest

from ionbeam_dagster.domain.canonical import canonical_schema, columns_of
from ionbeam_dagster.domain.cf import check_metadata, lookup
from ionbeam_dagster.exporters.bufr import BufrExporter, BufrSettings
from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter
from ionbeam_dagster.exporters.odb import OdbExporter
from ionbeam_dagster.sources import installed_sources

NEEDED = {"netatmo_archive": {"path": "archives"}}
WITHOUT_VARIABLES = {"files", "external"}  # they declare what the YAML, a file or a client says


@pytest.mark.parametrize("name", sorted(set(installed_sources()) - WITHOUT_VARIABLES))
def test_every_variable_is_in_cf_or_local_and_every_export_says_what_becomes_of_it(name):
    source = installed_sources()[name].load()
    metadata = source(name, source.Config(**NEEDED.get(name, {}))).metadata
    assert [str(problem) for problem in check_metadata(metadata) if problem.severity == "error"] == []
    for variable in metadata.ingestion_map.canonical_variables:
        assert lookup(variable.standard_name).kind in ("standard", "local"), variable
    schema = canonical_schema([metadata])
    for exporter in (OdbExporter(), BufrExporter(BufrSettings()), GeoParquetExporter()):
        plan = exporter.plan(schema)
        for column in columns_of(schema, "variable"):
            assert column in plan.mapped or plan.left_out.get(column), f"{column} is dropped without a word"
