"""Makes docs/tables.md from the tables of the exporters: ``.venv/bin/python tools/tables_page.py``.

Due after every change of a number or name that is written; tests/exporters/test_tables.py tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ionbeam_client.models import format_duration
from ionbeam_dagster.exporters.bufr.templates import TEMPLATES, Element, expansion
from ionbeam_dagster.exporters.odb.tables import DEFAULT_RULES, PRESETS, REPORT_TYPES, VARNOS, Rule

PAGE = Path(__file__).parents[1] / "docs" / "tables.md"
ONLY_NAMED = "none: under `variable_map` only"

HEAD = """# Numbers and names, and where they come from

Made by `tools/tables_page.py` from the tables of the exporters. `tests/exporters/test_tables.py` checks them
against tables that others publish as packages: varnos against py3odb (a copy of ECMWF's ODB governance), descriptors
against pybufrkit's and eccodes' copies of WMO's master table 39, CF names and units against CF's standard name table 93
(`cf_standard_names.tsv`, made of the XML in compliance-checker), MARS `class` and `stream` against eccodes.
"""
VARNO_TEXT = """
## ODB-2: varnos

Units are those of ECMWF's governance; that 58 is 0 to 1 and what 110 stands beside is also seen in files of IFS. 25, 37
and 38 are not in py3odb and come from one source only (pyodb's table); no default writes them, and DWD has other
meanings for 37 and 38.
"""
REPORT_TEXT = """
## ODB-2: kinds of report

16001 with groupid 17, obstype 1 and codetype 14 stands in files of IFS. 16090 with 179, DWD's 19, and the MARS `type`
264 are in no package: they are ECMWF's and DWD's own, and each can be set under `codes`.
"""
BUFR_TEXT = """
## BUFR: descriptors

The associated field is always 2 04 018 with significance 0 31 021 = 2. Scale and width are those of the element where
it stands in the template.
"""


def page() -> str:
    parts = [HEAD, VARNO_TEXT, table(("varno", "name", "meaning", "unit", "from"), _varnos())]
    parts += [REPORT_TEXT, table(("reportype", "meaning", "groupid", "obstype", "codetype", "preset"), _reports())]
    parts += [BUFR_TEXT, table(("template", "descriptor", "element", "unit", "scale", "width", "from"), _descriptors())]
    return "\n".join(parts)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def _varnos() -> Iterable[Sequence[object]]:
    rules = {rule.varno: rule for rule in DEFAULT_RULES}
    for varno in VARNOS.values():
        source = _of(rules[varno.number]) if varno.number in rules else ONLY_NAMED
        yield varno.number, varno.name, varno.meaning, varno.unit, "goes with 80" if varno.number == 79 else source


def _of(rule: Rule) -> str:
    levels, periods = dict.fromkeys(rule.levels), dict.fromkeys(map(format_duration, rule.periods))
    where = " to ".join(f"{level:g}" for level in levels)
    return f"{', '.join(rule.standard_names)}; {where} m; {' or '.join(rule.methods)}; {' to '.join(periods)}"


def _reports() -> Iterable[Sequence[object]]:
    for number, kind in REPORT_TYPES.items():
        presets = [name for name, codes in PRESETS.items() if codes["reportype"] == number]
        codes = " or ".join(map(str, kind.codetypes))
        yield number, kind.meaning, kind.groupid, kind.obstype, codes, ", ".join(presets)


def _descriptors() -> Iterable[Sequence[object]]:
    for template in TEMPLATES:
        expanded = expansion(template)
        for slot in template.slots:
            for code in slot.codes:
                node = expanded.node(code)
                if node is not None:
                    element: Element = expanded.elements[node]
                    what = f"{', '.join(slot.names)}" + (
                        f" (0 08 043 = {slot.constituent})" if slot.constituent is not None else ""
                    )
                    yield (
                        template.name,
                        element.descriptor,
                        element.name,
                        element.unit,
                        element.scale,
                        element.width,
                        what,
                    )


if __name__ == "__main__":
    PAGE.write_text(page())
