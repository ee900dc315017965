"""Makes ionbeam_client/src/ionbeam_client/cf_standard_names.tsv from the CF standard name table:
``.venv/bin/python tools/cf_standard_names.py cf-standard-name-table.xml``.

The XML is published at https://cfconventions.org/Data/cf-standard-names/current/src/cf-standard-name-table.xml; the
wheel of the package ``compliance-checker`` holds it too, as ``compliance_checker/data/cf-standard-name-table.xml``.

A line of the table is ``name <tab> canonical units``, or ``name <tab> units <tab> difference`` where CF says that the
name stands for a difference of temperatures, or ``name <tab> = <tab> current names`` for an alias. The first line tells
version and date. Lines are sorted, so that the difference between two versions reads well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

TABLE = Path(__file__).parents[1] / "ionbeam_client" / "src" / "ionbeam_client" / "cf_standard_names.tsv"
DIFFERENCE = 'units_metadata="temperature: difference"'


def table_text(xml: Path) -> str:
    """The table as text, from CF's XML file; the same XML gives the same bytes."""
    root = ElementTree.parse(xml).getroot()
    lines = [_entry(element) for element in root.iter("entry")]
    current = {line.split("\t", 1)[0] for line in lines}
    # CF keeps a few names both as an alias and as a name of its own: the name is valid, so its alias is left out.
    lines += [_alias(element) for element in root.iter("alias") if element.get("id") not in current]
    version, date = root.findtext("version_number", ""), root.findtext("last_modified", "")[:10]
    return "\n".join([f"# CF standard name table\t{version}\t{date}", *sorted(lines)]) + "\n"


def _entry(element: ElementTree.Element) -> str:
    units = (element.findtext("canonical_units") or "").strip()
    only_difference = DIFFERENCE in (element.findtext("description") or "")
    return f"{element.get('id')}\t{units}" + ("\tdifference" if only_difference else "")


def _alias(element: ElementTree.Element) -> str:
    return f"{element.get('id')}\t=\t{' '.join((target.text or '').strip() for target in element.iter('entry_id'))}"


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    TABLE.write_text(table_text(Path(arguments[0])), encoding="utf-8")
    print(f"{TABLE}: {TABLE.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
