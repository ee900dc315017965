"""Makes docs/configuration.md from the JSON Schema of the YAML: ``.venv/bin/python tools/configuration_page.py``.

Due after every change of a key, a default or a description; tests/test_config.py tells.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from ionbeam_dagster.config.schema import schema

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
Schema = dict[str, Any]

HEAD = """# The configuration, key by key

Made by `tools/configuration_page.py` from the JSON Schema of the YAML, which `ionbeam config schema` prints with the
sources and exporters that are installed with you. An editor completes and checks the YAML by it:

```console
$ ionbeam config schema > ionbeam.schema.json
$ head -1 config.yaml
# yaml-language-server: $schema=ionbeam.schema.json
```

Durations are ISO 8601 (`PT5M`, `P1D`). A moment without a zone is in UTC, and a date is its midnight. `${NAME}` is
replaced by the environment's `NAME`; within `{...}` or `[...]` it needs quotes. A key that is not known, and a key that
is given twice, are refused; `ionbeam config check` tells all faults at once.
"""
SOURCES = """
## Sources

Each block under `sources:` is a source. Its name is its type, unless it has a `type:`. How all of them are cut into
windows stands under `sources.scheduler` (or `scheduler` at the top level). A source whose name is a type may stand at
the top level, too.

### Every source
"""
FED = """
Sources of one dataset must agree on the keys that describe it: `aggregation_span`, `subject_to_change_window`,
`lateness`, `allow_incomplete`, `debounce`, `revise_for`, `exports` and `quality`; docs/windows.md says what follows.
"""


def page() -> str:
    """The text of the page."""
    whole = schema()
    definitions, sections = whole["$defs"], whole["properties"]
    sources = {name for name in sections["sources"]["properties"] if name != "scheduler"}
    parts = [HEAD, "\n## The platform\n\n", _table(_rows(sections, definitions, skip={*sources, "sources"}))]
    base = definitions["SourceConfig"]["properties"]
    parts += [SOURCES, "\n", _table(_rows(base, definitions)), FED]
    for name in sorted(sources):
        config = _referred(sections[name]["else"], definitions) or {}
        own = {key: value for key, value in config["properties"].items() if _differs(value, base.get(key))}
        parts += [f"\n### `{name}`\n\n{_described(config)}\n"]
        parts += ["\n", _table(_rows(own, definitions))] if own else ["\nIt has no keys of its own.\n"]
    return "".join(parts)


def _rows(
    properties: Schema, definitions: Schema, prefix: str = "", skip: Collection[str] = ()
) -> Iterator[tuple[str, str, str, str]]:
    """Key, meaning, default and example of each key, with the keys of its block below it."""
    for key, found in properties.items():
        if key in skip:
            continue
        inner = _referred(found, definitions)
        meaning = _described(found) or _described(inner or {})
        if inner is None:
            yield f"{prefix}{key}", meaning, _default(found), _example(found)
            continue
        yield f"{prefix}{key}", f"**{meaning}**" if not prefix else meaning, "", ""
        step = "[]." if _is_list(found) else ".NAME." if _is_by_name(found) else "."
        needed = inner.get("required", ())
        for name, *rest in _rows(inner["properties"], definitions, f"{prefix}{key}{step}"):
            short = name.removeprefix(f"{prefix}{key}{step}")
            yield (name, rest[0], "needed" if short in needed else rest[1], rest[2])


def _referred(found: Schema, definitions: Schema) -> Schema | None:
    """The block of keys that a key holds, alone, in a list, by a name, or as one of several possibilities."""
    candidates = [found, found.get("items", {}), *found.get("anyOf", ()), *found.get("items", {}).get("anyOf", ())]
    if _is_by_name(found):
        candidates.append(found["additionalProperties"])
    for candidate in candidates:
        if "$ref" in candidate:
            block = definitions[candidate["$ref"].rpartition("/")[2]]
            if "properties" in block:
                return block  # type: ignore[no-any-return]
    return None


def _is_list(found: Schema) -> bool:
    return found.get("type") == "array"


def _is_by_name(found: Schema) -> bool:
    return isinstance(found.get("additionalProperties"), dict)


def _described(found: Schema) -> str:
    return " ".join(found.get("description", "").split("\n\n")[0].split())


def _differs(own: Schema, base: Schema | None) -> bool:
    return base is None or own.get("default") != base.get("default")


def _default(found: Schema) -> str:
    return "" if found.get("default") is None else _code(found["default"])


def _example(found: Schema) -> str:
    """One that is given, else a value that is allowed: the default itself."""
    if found.get("examples"):
        return _code(found["examples"][0])
    chosen = found.get("default", next(iter(found.get("enum", ())), None))
    return "" if chosen is None else _code(chosen)


def _code(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    text = text.replace("|", "\\|")
    return f"`{text}`" if len(text) < 80 else f"`{text[:76]}` ..."


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = ["| key | meaning | default | example |", "| --- | --- | --- | --- |"]
    for key, meaning, default, example in rows:
        text = meaning.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{key}` | {text} | {default} | {example} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
