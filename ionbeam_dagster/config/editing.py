"""Changing a YAML that a person wrote: comments, order and layout of what is there stay.

Belongs here: adding a source, and adding to one. Does not belong here: reading the YAML (reading.py), or PyGeoAPI's
configuration (edr/).

It is written by YAML 1.2 and read by YAML 1.1, in which more texts are numbers, times or truths: those stand in quotes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import yaml as yaml_1_1
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, SingleQuotedScalarString
from ruamel.yaml.util import load_yaml_guess_indent

from ionbeam_client.text import visible
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.stores.publish import published

_TEXT, _NUMBER = "tag:yaml.org,2002:str", "tag:yaml.org,2002:float"


def add_source(path: Path, name: str, block: Mapping[str, str | date], comment: str = "") -> None:
    """Put a source first under ``sources:`` of the YAML at `path`.

    Raises ConfigError, and leaves the file as it is, when it would be no configuration with it.
    """
    try:
        text = _with_source(path, name, block, comment)
    except YAMLError as error:
        raise ConfigError(f"{path} cannot be read, and is left as it is: {error}") from error
    _replace(path, text)


def _replace(path: Path, text: str) -> None:
    try:
        with published(path) as draft:
            draft.write_text(text, encoding="utf-8")
            draft.chmod(path.stat().st_mode)
            IonbeamConfig.load(draft)
    except (ConfigError, YAMLError) as error:
        raise ConfigError(f"with this source {path} would not be valid, and is left as it is: {error}") from error


def add_to_source(
    path: Path, name: str, keys: Mapping[str, str | int], list_key: str, items: Sequence[Mapping[str, Any]]
) -> None:
    """Set keys of a source's block in the YAML at `path`, and append to one of its lists.

    Raises ConfigError, and leaves the file as it is, when it would be no configuration with that.
    """
    text = path.read_text(encoding="utf-8")
    yaml, _ = _as_written(text)
    content = yaml.load(text)
    sources = content.get("sources") or {}
    block = sources[name] if name in sources else content[name]
    block.update(_added(keys))
    if items:
        flow = []
        for item in items:
            one = _added(item)
            one.fa.set_flow_style()
            flow.append(one)
        if list_key in block:
            block[list_key].extend(flow)
        else:
            block[list_key] = flow
    written = StringIO()
    yaml.dump(content, written)
    _replace(path, written.getvalue())


def _with_source(path: Path, name: str, block: Mapping[str, str | date], comment: str) -> str:
    text = path.read_text(encoding="utf-8")
    yaml, width = _as_written(text)
    content = yaml.load(text) or CommentedMap()
    if not content.get("sources"):
        content["sources"] = CommentedMap()
    added = _added(block)
    if content["sources"].fa.flow_style():
        added.fa.set_flow_style()
    elif comment:
        added.yaml_set_comment_before_after_key(next(iter(block)), before=visible(comment), indent=2 * width)
    _insert_first(content, _text(name), added)
    written = StringIO()
    yaml.dump(content, written)
    return written.getvalue()


def _added(given: Mapping[str, Any]) -> CommentedMap:
    return CommentedMap({_text(key): _text(value) if isinstance(value, str) else value for key, value in given.items()})


def _text(text: str) -> str:
    """A text that is read as the same one."""
    quoted: str = text
    if not text.isprintable():
        quoted = DoubleQuotedScalarString(text)
    elif yaml_1_1.SafeLoader("").resolve(yaml_1_1.ScalarNode, text, (True, False)) != _TEXT:  # type: ignore[no-untyped-call]
        quoted = SingleQuotedScalarString(text)
    return quoted


class _Representer(RoundTripRepresenter):
    """Writes numbers with a point, without which one with an exponent is a text."""

    def represent_number(self, number: float) -> Any:
        text = repr(number)
        if "." in text or "e" not in text:
            return self.represent_float(number)
        return self.represent_scalar(_NUMBER, text.replace("e", ".0e"))


_Representer.add_representer(float, _Representer.represent_number)


def _insert_first(content: CommentedMap, name: str, added: CommentedMap) -> None:
    """Put a source before all others; a comment that stood above what was the first stays with that."""
    sources = content["sources"]
    above = content.ca.items.get("sources", [None] * 4)[3]
    if above and sources:
        content.ca.items["sources"][3] = None
        sources.ca.comment = None
        sources.ca.items.setdefault(next(iter(sources)), [None] * 4)[1] = above
    sources.insert(0, name, added)


def _as_written(text: str) -> tuple[YAML, int]:
    """A reader and writer that indents as `text` does, and by how much it indents mappings."""
    _, indent, dash = load_yaml_guess_indent(text)
    lines = (line for line in text.splitlines() if line.startswith(" ") and not line.lstrip().startswith(("#", "-")))
    first = next(lines, "  ")
    width = len(first) - len(first.lstrip())
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 1 << 16
    yaml.indent(mapping=width, sequence=indent or width + 2, offset=width if dash is None else dash)
    return yaml, width
