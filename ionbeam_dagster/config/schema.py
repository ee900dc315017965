"""The whole YAML as JSON Schema, with the settings of all sources and exporters that are installed.

Belongs here: how blocks of sources are told apart by their type. Does not belong here: any key (they stand with what
they are for). `ionbeam config schema` prints it, editors complete by it, tools/configuration_page.py makes
docs/configuration.md of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any

from pydantic.json_schema import models_json_schema

from ionbeam_dagster.config.exporting import find_exporters
from ionbeam_dagster.sources import SENT_KINDS, Source, SourceConfig, installed_sources

LOG = logging.getLogger(__name__)
Schema = dict[str, Any]


def schema() -> Schema:
    """JSON Schema (2020-12) of the YAML; without the sources that cannot be imported, which a warning names."""
    sections = find_exporters().sections_model()
    found = {name: _loaded(point) for name, point in installed_sources().items()}
    sources = {name: source.Config for name, source in found.items() if source is not None}
    models: list[type[Any]] = [sections, SourceConfig, *sources.values()]
    references, defined = models_json_schema([(model, "validation") for model in models])
    of = {model: reference for (model, _), reference in references.items()}
    definitions: dict[str, Schema] = defined["$defs"]
    own = definitions.pop(of[sections]["$ref"].rpartition("/")[2])
    blocks = {name: _block(of[config]) for name, config in sources.items()}
    definitions["SourceOfItsType"] = _by_type({name: of[config] for name, config in sources.items()})
    nested = {
        "type": ["object", "null"],
        "description": "The sources, each by its name; a block whose name is no type says its type.",
        "properties": {"scheduler": own["properties"]["scheduler"], **blocks},
        "additionalProperties": {"$ref": "#/$defs/SourceOfItsType"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ionbeam",
        "description": "The configuration of an Ionbeam platform.",
        "type": "object",
        "properties": {"sources": nested, **own["properties"], **blocks},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _loaded(point: EntryPoint) -> type[Source] | None:
    try:
        found: type[Source] = point.load()
    except Exception as error:  # whatever a third party's module does
        LOG.warning("the source %s cannot be imported (%s); remove or repair its package", point.value, error)
        return None
    return found


_NAMES_ITS_TYPE: Schema = {"type": "object", "required": ["type"]}


def _is_sent(kinds: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": {"kind": {"enum": list(kinds)}},
        "required": ["kind"],
        "not": {"required": ["type"]},
    }


def _block(of_its_name: Schema) -> Schema:
    """A block whose name is a type: of that type, unless it says another one."""
    return {
        "if": {"anyOf": [_NAMES_ITS_TYPE, _is_sent(SENT_KINDS)]},
        "then": {"$ref": "#/$defs/SourceOfItsType"},
        "else": {"anyOf": [of_its_name, {"type": "null"}]},
    }


def _by_type(sources: dict[str, Schema]) -> Schema:
    """A block of any name: its `type` says what else it may have."""
    chosen = [
        {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": config}
        for name, config in sources.items()
    ]
    return {
        "type": "object",
        "description": "A source of any name, of the type that it names.",
        "properties": {"type": {"enum": sorted(sources)}},
        "anyOf": [_NAMES_ITS_TYPE, _is_sent(SENT_KINDS)],
        "allOf": [*chosen, *({"if": _is_sent([kind]), "then": sources[kind]} for kind in SENT_KINDS)],
    }
