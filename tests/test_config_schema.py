"""The JSON Schema of the YAML: what every example is, what it refuses."""

import json
import re
from datetime import date, datetime
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config.schema import schema

ROOT = Path(__file__).parents[1]
EXAMPLES = [
    *sorted((ROOT / "examples").glob("*.yaml")),
    *sorted((ROOT / "deployments").glob("*/config*.yaml")),
    ROOT / "ionbeam_dagster" / "default.yaml",
]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    whole = schema()
    Draft202012Validator.check_schema(whole)
    return Draft202012Validator(whole)


def as_json(text: str) -> object:
    """What an editor sees of a YAML: times are texts."""

    def plain(value: object) -> str:
        assert isinstance(value, date | datetime)
        return value.isoformat()

    return json.loads(json.dumps(yaml.safe_load(text), default=plain))


def faults(validator: Draft202012Validator, text: str) -> list[str]:
    return [error.message for error in validator.iter_errors(as_json(text))]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_example_fits_the_schema(validator, example):
    assert faults(validator, example.read_text()) == []


@pytest.mark.parametrize(
    "yaml",
    [
        "sources: {ioncannon: {num_statoins: 3}}",
        "ioncannon: {num_stations: many}",
        "sources: {mine: {num_stations: 3}}",  # no type, and no type's name
        "sources: {mine: {type: ioncannon, path: x}}",  # the key of another type
        "sources: {ioncannon: {type: files}}",  # lacks a path
        "sources: {mine: {type: nonsense}}",
        "sources: {ioncannon: {start: yesterday}}",
        "automation: {interval: 1}",
        "projections: {odb_servise: {}}",
        "nonsense: {}",
    ],
)
def test_what_cannot_be_is_refused(validator, yaml):
    assert faults(validator, yaml)


@pytest.mark.parametrize(
    "yaml",
    [
        "sources: {ioncannon: }",
        "sources: {mine: {type: ioncannon, num_stations: 3}, roof: {kind: external, aggregation_span: P1D}}",
        "sources: {ioncannon: {type: files, path: x, variables: [T, {column: p, unit: hPa}], time: when}}",
        "sources: {logger: {type: files, path: x, variables: [T], constants: {station_id: 6260}, latitude: 44.3}}",
        "sources: {ioncannon: {allow_incomplete: never, lateness: p95, quality: false, start: 2026-06-21T06:00Z}}",
        "ioncannon: {kind: external}",
    ],
)
def test_what_the_platform_takes_fits(validator, yaml):
    assert faults(validator, yaml) == []


def test_every_key_has_a_description_and_what_to_write(validator):
    definitions = validator.schema["$defs"]
    for name, block in definitions.items():
        for key, found in block.get("properties", {}).items():
            referred = definitions.get(re.sub(r".*/", "", found.get("$ref", "")), {})
            if name != "SourceOfItsType":
                assert found.get("description") or referred.get("description"), f"{name}.{key}"
            if not ("$ref" in json.dumps(found) or "const" in found or "enum" in found):
                example = found.get("examples") or found.get("default") not in (None, "", [], {})
                assert example, f"{name}.{key}: needs an example"


def test_the_command_prints_it():
    printed = CliRunner().invoke(app, ["config", "schema"])
    assert printed.exit_code == 0 and json.loads(printed.stdout) == schema()


def test_a_source_that_cannot_be_imported_is_left_out_with_a_warning(monkeypatch, caplog):
    from importlib.metadata import EntryPoint

    from ionbeam_dagster.sources import installed_sources

    points = installed_sources() | {"absent": EntryPoint("absent", "absent_package:Source", "ionbeam.sources")}
    monkeypatch.setattr("ionbeam_dagster.config.schema.installed_sources", lambda: points)
    found = schema()["properties"]["sources"]["properties"]
    assert "files" in found and "absent" not in found and "absent_package:Source cannot be imported" in caplog.text
