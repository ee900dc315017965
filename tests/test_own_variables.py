"""What CF has no name for, from the YAML to the files and the web: names and definitions of a dataset's own."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from covjson_pydantic.coverage import Coverage
from typer.testing import CliRunner

from ionbeam_client.cf import check_together
from ionbeam_client.models import IngestDataCommand
from ionbeam_dagster.cli import app
from ionbeam_dagster.cli.terminal import console
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.edr.configuration import Served, update
from ionbeam_dagster.edr.service import EDR_PLUGIN, Service
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

SEVEN = datetime(2026, 6, 21, 7, tzinfo=UTC)
WINDOW = Window(SEVEN, SEVEN + timedelta(hours=1))
DEFINITION = "Load of the spindle, as a share of its rated power"
LOAD = "x_spindle_load__%__0.0__mean__PT1M"
PLANT = f"""
  plant:
    type: files
    path: plant/*.csv
    settle: 0
    start: 2026-06-21
    aggregation_span: PT1H
    exports: [odb, bufr, pygeoapi]
    time: time
    metadata: {{station_id: machine}}
    variables:
      - {{column: temperature, standard_name: air_temperature, cf_unit: degC, level: 2.0}}
      - {{column: load, standard_name: x_spindle_load, unit: "1", cf_unit: "%", method: mean, period: PT1M,
         definition: "{DEFINITION}"}}
"""


@pytest.fixture
def plant(platform_of, tmp_path, monkeypatch):
    rows = [f"{SEVEN + n * timedelta(minutes=10):%Y-%m-%dT%H:%M:%SZ},52.1,5.2,m1,2{n}.5,0.{n}" for n in range(6)]
    (tmp_path / "plant").mkdir()
    (tmp_path / "plant" / "a.csv").write_text("\n".join(["time,lat,lon,machine,temperature,load", *rows, ""]))
    monkeypatch.setattr(console, "_width", 400)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.yaml"))
    return platform_of(PLANT)


def said(*arguments):
    done = CliRunner().invoke(app, [*arguments])
    return done.exit_code, done.output


def test_a_name_of_its_own_goes_into_files_and_the_web_and_is_told_where_it_does_not_go(plant):
    code, output = said("config", "check")
    assert code == 0 and output.count("no: x_spindle_load is no name of CF") == 2  # odb and bufr
    collect(plant, plant.source("plant"), WINDOW, plant.now())
    ingest(plant, plant.source("plant"), WINDOW)
    built = build(plant, plant.dataset("plant"), WINDOW, plant.now(), insist=True).revision
    assert pq.read_schema(built.path).field(LOAD).metadata[b"definition"].decode() == DEFINITION
    made = {
        format: export(plant, plant.dataset("plant"), plant.config.window_exporters[format], WINDOW)
        for format in ("odb", "bufr", "pygeoapi")
    }
    assert {format for format, one in made.items() if LOAD in one.report.plan.left_out} == {"odb", "bufr"}
    parquet = pq.read_table(made["pygeoapi"].path)
    assert parquet[LOAD].to_pylist() == pytest.approx([0, 10, 20, 30, 40, 50])
    assert parquet.schema.field(LOAD).metadata[b"definition"].decode() == DEFINITION
    output = said("status", "plant")[1]
    assert "plant: not exported as odb: x_spindle_load" in output and "not exported as bufr: x_spindle" in output

    provider = {"type": "edr", "name": EDR_PLUGIN, "data": str(Path(made["pygeoapi"].path).parent)}
    web = Service({"resources": {"plant": {"type": "collection", "providers": [provider]}}}, "http://service.test")
    id = "x_spindle_load:0.0:mean:PT1M"
    reply = web.answer("plant", "position", None, {"coords": "POINT(5.2 52.1)", "parameter-name": id})
    Coverage.model_validate_json(reply.body)
    about = json.loads(reply.body)["parameters"][id]
    assert about["observedProperty"] == {"label": {"en": "Spindle load"}, "description": {"en": DEFINITION}}
    assert about["description"]["en"] == f"{DEFINITION} at 0 m, mean over PT1M"
    assert about["unit"]["symbol"]["value"] == "%"
    listed = web.about("plant")["parameter_names"][id]
    assert listed["observedProperty"] == {"label": "Spindle load", "description": DEFINITION}


def test_a_variable_that_the_newest_window_lacks_keeps_its_definition_on_the_web(plant, tmp_path):
    collect(plant, plant.source("plant"), WINDOW, plant.now())
    ingest(plant, plant.source("plant"), WINDOW)
    build(plant, plant.dataset("plant"), WINDOW, plant.now(), insist=True)
    first = Path(export(plant, plant.dataset("plant"), plant.config.window_exporters["pygeoapi"], WINDOW).path)
    newer = first.with_name(first.name.replace("T070000", "T080000"))
    table = pq.read_table(first)
    pq.write_table(table.drop_columns([name for name in table.column_names if name.startswith(LOAD)]), newer)
    place = tmp_path / "web.yml"
    for _ in range(2):  # as it is looked at, and as it is remembered
        update(place, tmp_path / "web", [Served("plant", first.parent)])
        web = Service(yaml.safe_load(place.read_text()), "http://service.test")
        listed = web.about("plant")["parameter_names"]["x_spindle_load:0.0:mean:PT1M"]
        assert listed["observedProperty"] == {"label": "Spindle load", "description": DEFINITION}


def test_a_clients_definition_travels_and_what_has_none_is_written_as_ever(plant):
    metadata = plant.metadata(plant.source("plant"))
    command = IngestDataCommand(metadata=metadata, start_time=WINDOW.start, end_time=WINDOW.end)
    assert IngestDataCommand.from_wire(command.model_dump_json()).metadata == metadata
    [heat, load] = metadata.ingestion_map.canonical_variables
    assert load.definition == DEFINITION and "definition" not in heat.model_dump_json()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("x_air_temperature", "would be mistaken for CF's air_temperature; write air_temperature"),
        ("x_wind_speeds", "would be mistaken for CF's wind_speed"),
        ("x_Load", "is no name: x_ is followed by small letters"),
        ("x_", "is no name"),
        ("spindle_load", "a quantity that CF has no name for is called x_spindle_load"),
    ],
)
def test_a_name_that_could_be_anothers_is_refused(plant, tmp_path, given, reason):
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("x_spindle_load", given))
    code, output = said("config", "check")
    assert code == 1 and reason in output


def test_units_are_those_of_udunits(plant, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace('unit: "1", cf_unit: "%"', "cf_unit: fortnights of rain"))
    code, output = said("config", "check")
    assert code == 1 and "UDUNITS does not know it" in output


def test_sources_of_one_dataset_mean_one_thing_by_a_name(plant):
    metadata = plant.metadata(plant.source("plant"))

    def other(**changes):
        [heat, load] = metadata.ingestion_map.canonical_variables
        changed = {"canonical_variables": [heat, load.model_copy(update=changes)]}
        return metadata.model_copy(update={"ingestion_map": metadata.ingestion_map.model_copy(update=changed)})

    def told(**changes):
        return [str(problem) for problem in check_together({"plant": metadata, "shop": other(**changes)})]

    assert told() == told(cf_unit="1", definition="") == []
    assert told(cf_unit="W") == [
        "error: column 'load' of shop: x_spindle_load is in 'W', and in plant in '%': no unit becomes the other"
    ]
    assert told(definition="Weight") == [
        "warning: column 'load' of shop: x_spindle_load is defined otherwise than in plant"
    ]
