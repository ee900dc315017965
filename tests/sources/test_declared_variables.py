"""What every source declares: CF names with units that convert, or local names, and what the exports make of them."""

import json
import re
from datetime import UTC, datetime, timedelta

import codc
import pdbufr
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ionbeam_client.cf import UnitError, check_metadata, conversion, lookup
from ionbeam_dagster.domain.canonical import canonical_schema, columns_of, variable_of
from ionbeam_dagster.exporters.bufr import BufrExporter
from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter
from ionbeam_dagster.exporters.odb import OdbExporter
from ionbeam_dagster.sources import installed_sources

NEEDED = {"netatmo_archive": {"path": "archives"}}
PLAUSIBLE = {"degC": 15.0, "%": 60.0, "Pa": 95_000.0, "hPa": 950.0, "K": 290.0, "m s-1": 5.0, "degree": 270.0}
NORTHWARD = "42"  # the varno of v, of which a wind from 270 degrees has none
NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
WITHOUT_VARIABLES = {"archfx", "files", "external", "door", "restream"}  # the YAML, a file or a client declares theirs


@pytest.mark.parametrize("name", sorted(set(installed_sources()) - WITHOUT_VARIABLES))
def test_every_variable_is_in_cf_or_local_and_every_export_says_what_becomes_of_it(name):
    source = installed_sources()[name].load()
    metadata = source(name, source.Config(**NEEDED.get(name, {}))).metadata
    assert [str(problem) for problem in check_metadata(metadata) if problem.severity == "error"] == []
    for variable in metadata.ingestion_map.canonical_variables:
        assert lookup(variable.standard_name).kind in ("standard", "local"), variable
    schema = canonical_schema([metadata])
    for exporter in (OdbExporter(), BufrExporter(), GeoParquetExporter()):
        plan = exporter.plan(schema)
        for column in columns_of(schema, "variable"):
            assert column in plan.mapped or plan.left_out.get(column), f"{column} is dropped without a word"


@pytest.mark.parametrize("name", sorted(set(installed_sources()) - WITHOUT_VARIABLES))
def test_every_variable_reaches_the_files_that_it_is_said_to_reach_in_their_units(name, tmp_path):
    source = installed_sources()[name].load()
    schema = canonical_schema([source(name, source.Config(**NEEDED.get(name, {}))).metadata])
    window = _window(tmp_path, schema)
    reached = [(OdbExporter(), _odb), (BufrExporter(), _bufr), (GeoParquetExporter(), _parquet)]
    for exporter, read in reached:
        target = tmp_path / f"window.{exporter.extension}"
        assert exporter.export(window, target).stations == 1
        mapped = exporter.plan(schema).mapped
        for column in columns_of(schema, "variable"):
            variable, fate = variable_of(schema.field(column)), mapped.get(column, "")
            places = re.findall(r"varno (\d+) \(\w+, ([^)]+)\)|bufr [\d, ]+ (\w+) \(([^)]+)\)", fate)
            for place in places or [(column, variable.cf_unit, "", "")] * (fate == column):
                key, unit = place[0] or place[2], place[1] or place[3]
                found = read(target, key)
                assert found, f"{column} is not in {key}"
                expected = 0.0 if key == NORTHWARD else _in(variable, unit)
                if expected is not None:
                    assert any(one == pytest.approx(expected, rel=0.01) for one in found), (column, key, found)


def _window(folder, schema):
    """A dataset file of two rows of one station, in which every variable has a value."""
    described = {"station_id": "one", "platform_id": "1", "indoor": "false", "station_height": "100"}
    described["mobility"] = "fixed"
    filled = {"datetime": [NOON, NOON + timedelta(minutes=10)], "lat": [50.94] * 2, "lon": [6.96] * 2}
    variables = {column: variable_of(schema.field(column)) for column in columns_of(schema, "variable")}
    filled |= {column: [PLAUSIBLE.get(variable.cf_unit, 3.0)] * 2 for column, variable in variables.items()}
    filled |= {column: [described.get(column)] * 2 for column in columns_of(schema, "metadata")}
    filled |= {column: [1] * 2 for column in columns_of(schema, "quality")}
    about = {"dataset": "all", "window_start": f"{NOON}", "window_end": f"{NOON + timedelta(hours=1)}", "revision": 1}
    table = pa.table({field.name: pa.array(filled[field.name], field.type) for field in schema}, schema=schema)
    path = folder / "window.dataset.parquet"
    pq.write_table(table.replace_schema_metadata({b"ionbeam": json.dumps(about).encode()}), path)
    return path


def _in(variable, unit):
    """The value that stands for a variable, in `unit`; None where what is written is another quantity."""
    try:
        scale, offset = conversion(variable.cf_unit, {"deg": "degree", "m/s": "m s-1"}.get(unit, unit))
    except UnitError:
        return None
    return PLAUSIBLE.get(variable.cf_unit, 3.0) * scale + offset


def _odb(path, varno):
    rows = codc.read_odb(str(path), columns=["varno@body", "obsvalue@body"], single=True)
    return rows[rows["varno@body"] == int(varno)]["obsvalue@body"].to_list()


def _bufr(path, element):
    rows = pdbufr.read_bufr(path, columns=("latitude", element), required_columns=["latitude"])
    return rows[element].dropna().to_list() if element in rows else []


def _parquet(path, column):
    return pl.read_parquet(path)[column].drop_nulls().to_list()
