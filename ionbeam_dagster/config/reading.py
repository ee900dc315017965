"""Reading the YAML: text to plain values, with secrets from the environment in place.

Belongs here: what is wrong with the file as YAML, told by its lines. Does not belong here: what its keys mean
(sections.py, resolving.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from ionbeam_dagster.domain.written_numbers import as_written
from ionbeam_dagster.errors import ConfigError

CONFIG_VARIABLE = "IONBEAM_CONFIG_PATH"
_MOST_VALUES = 100_000
_WHOLE, _FRACTION = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_LEADING_ZERO = re.compile(r"[-+]?0[0-7_]+")
_SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Loader(yaml.SafeLoader):
    """Remembers how numbers are written."""

    def construct_number(self, node: yaml.ScalarNode) -> float:
        of_kind = self.construct_yaml_int if node.tag == _WHOLE else self.construct_yaml_float
        return as_written(of_kind(node), node.value)


for _tag in (_WHOLE, _FRACTION):
    _Loader.add_constructor(_tag, _Loader.construct_number)


def read(path: Path) -> dict[str, Any]:
    """What the YAML at `path` says, with ``${NAME}`` replaced by the environment's NAME. Raises ConfigError."""
    content = _parsed(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: should hold sections such as 'sources:' and 'projections:'")
    missing: list[str] = []
    filled: dict[str, Any] = _fill_secrets(content, missing)
    if missing:
        raise ConfigError(
            f"{path}: the environment has no {', '.join(sorted(set(missing)))}; set it, it is used as ${{...}} there"
        )
    return filled


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name your YAML with --config, or in {CONFIG_VARIABLE}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    try:
        with ExitStack() as disposing:
            loader = _Loader(text)
            disposing.callback(loader.dispose)
            root = loader.get_single_node()
            known: dict[int, int] = {}
            if root and _values(root, known) - len(known) > _MOST_VALUES:
                raise ConfigError(
                    f"{path}: its aliases stand for more than {_MOST_VALUES:,} values; write out what is meant"
                )
            faults = [*_keys_given_twice(root), *_misread(root, loader)] if root else []
            content = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}: {_unquoted_secret(text, error) or _in_a_line(error)}") from error
    except RecursionError:
        raise ConfigError(
            f"{path}: holds itself (an alias within its own anchor), or is nested too deep; write it out, or flatter"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: a date that is none
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    return content


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, where aliases are written out."""
    if id(node) not in known:
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        is_scalar = isinstance(node, yaml.ScalarNode)
        known[id(node)] = 1 if is_scalar else 1 + sum(_values(one, known) for one in inner)
    return known[id(node)]


def _in_a_line(error: yaml.MarkedYAMLError) -> str:
    """What the parser says, which draws it over several lines."""
    where, begun = error.problem_mark or error.context_mark, error.context_mark
    place = f"line {where.line + 1}, column {where.column + 1}: " if where else ""
    within = f", {error.context}" + (f" that begins in line {begun.line + 1}" if begun else "") if error.context else ""
    return f"is not YAML: {place}{error.problem}{within}"


def _keys_given_twice(node: yaml.Node, place: str = "") -> Iterator[str]:
    """A fault for each key that a mapping has twice: YAML would take the last, and lose the first without a word."""
    if isinstance(node, yaml.SequenceNode):
        for number, inner in enumerate(node.value):
            yield from _keys_given_twice(inner, f"{place}.{number}")
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        full = f"{place}.{name}".strip(".")
        if name in first:
            yield (
                f"{full}: is given twice, in line {first[name]} and in line {line}, and one would be lost; keep one "
                "of them, or give the other a name of its own"
            )
        first.setdefault(name, line)
        yield from _keys_given_twice(value, full)


def _misread(node: yaml.Node, loader: yaml.SafeLoader, place: str = "") -> Iterator[str]:
    """A fault for each key and value of which YAML makes another one without a word."""
    if isinstance(node, yaml.ScalarNode) and _is_other_number(node):
        yield (
            f"{place}: line {node.start_mark.line + 1}: YAML reads {node.value} as {loader.construct_object(node)}; "
            f"write '{node.value}', in quotes, or a number without zeros before it and without colons"
        )
    if isinstance(node, yaml.SequenceNode):
        for number, inner in enumerate(node.value):
            yield from _misread(inner, loader, f"{place}.{number}".strip("."))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            full = f"{place}.{key.value}".strip(".") if isinstance(key, yaml.ScalarNode) else place
            if key.tag == "tag:yaml.org,2002:bool":
                yield (
                    f"{full}: line {key.start_mark.line + 1}: YAML reads the key {key.value} as "
                    f"{str(loader.construct_object(key)).lower()}; write '{key.value}', in quotes"
                )
            yield from _misread(key, loader, full)
            yield from _misread(value, loader, full)


def _is_other_number(node: yaml.ScalarNode) -> bool:
    """Whether a number is octal, or of sixties, as 0270 and 12:30 are in YAML 1.1."""
    is_number = node.tag in (_WHOLE, _FRACTION)
    return is_number and (":" in node.value or _LEADING_ZERO.fullmatch(node.value) is not None)


def _unquoted_secret(text: str, error: yaml.MarkedYAMLError) -> str | None:
    """What is wrong where the brace that YAML does not expect belongs to ``${NAME}``."""
    if (mark := error.problem_mark) is None:
        return None
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    found = _SECRET.match(line, max(mark.column - 1, 0))
    if found is None:
        return None
    return (
        f"line {mark.line + 1}: {found[0]} stands within {{...}} or [...] without quotes, where YAML takes its brace "
        f"for another mapping; write '{found[0]}', in quotes"
    )


def _fill_secrets(value: Any, missing: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill_secrets(inner, missing) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill_secrets(inner, missing) for inner in value]
    if isinstance(value, str):
        missing += [name for name in _SECRET.findall(value) if name not in os.environ]
        return _SECRET.sub(lambda match: os.environ.get(match[1], ""), value)
    return value
