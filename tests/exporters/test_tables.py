"""Every number, name and unit that leaves the platform, against tables that others publish as packages."""

import json
import runpy
from importlib.util import find_spec
from pathlib import Path

import eccodes
import pytest

from ionbeam_client import cf
from ionbeam_dagster.exporters.bufr.templates import (
    AIR,
    ASSOCIATED_BITS,
    FIXED,
    MASTER_TABLES,
    TEMPLATES,
    TWO_BITS_OF_QUALITY,
    expansion,
)
from ionbeam_dagster.exporters.odb.settings import OdbCodes
from ionbeam_dagster.exporters.odb.tables import DEFAULT_RULES, PERIOD_OF_RAIN, VARNOS

ROOT = Path(__file__).parents[2]
SPELT = {"degree true": "deg"}  # how pybufrkit spells a unit, and eccodes
OF_ONE_SOURCE = {25, 37, 38}
MODIFIED = {("3 07 092", 13003): (1, 4), (AIR.name, 15027): (2, 10)}
"""What operators 2 02 and 2 01 of the template add to scale and width."""
UNITS_AS_PY3ODB_WRITES_THEM = {"(K)": "K", "(m/s)": "m s-1", "(Pa)": "Pa", "(meter)": "m", "(kg/kg)": "kg kg-1"}


def folder_of(package):
    """Where a package lies, which is not imported (py3odb wants a library that nobody has)."""
    found = find_spec(package)
    if found is None:
        pytest.skip(f"{package} is a test's package: pip install -e '.[dev]'")
    return Path(found.origin).parent


def test_the_page_of_tables_is_that_of_the_code():
    made = runpy.run_path(str(ROOT / "tools" / "tables_page.py"))
    assert (ROOT / "docs" / "tables.md").read_text() == made["page"](), "run: python tools/tables_page.py"


def test_varnos_have_the_names_and_units_of_ecmwfs_governance():
    table = runpy.run_path(str(folder_of("py3odb") / "constants" / "varno.py"))["VARNO_TABLE"]
    theirs = {entry["code"]: (name, entry["desc"]) for name, entry in table.items()}
    assert {number for number in VARNOS if number not in theirs} == OF_ONE_SOURCE
    told = 0
    for number in VARNOS.keys() & theirs.keys():
        name, described = theirs[number]
        assert VARNOS[number].name == name
        for written, unit in UNITS_AS_PY3ODB_WRITES_THEM.items():
            if written in described:
                told += 1
                assert VARNOS[number].unit == unit, described
    assert told >= 9
    written = {rule.varno for rule in DEFAULT_RULES} | {PERIOD_OF_RAIN}
    assert not written & OF_ONE_SOURCE


def test_cf_names_are_in_cfs_table_and_their_units_become_those_of_the_varnos_and_descriptors():
    for rule in DEFAULT_RULES:
        for name in rule.standard_names:
            assert cf.conversion(cf.lookup(name).units, VARNOS[rule.varno].unit), name
    for template in TEMPLATES:
        for slot in template.slots:
            (node,) = {expansion(template).node(slot.codes[0])} - {None} or {None}
            for name in slot.names if node is not None else ():
                unit = "J m-2" if slot.integrated else cf.lookup(name).units
                assert cf.conversion(unit, expansion(template).elements[node].udunit), name


def test_descriptors_are_those_of_master_table_39_as_pybufrkit_has_it():
    tables = folder_of("pybufrkit") / "tables" / "0" / "0_0" / str(MASTER_TABLES)
    elements, sequences = (json.loads((tables / f"Table{letter}.json").read_text()) for letter in "BD")
    assert {f"{code:06d}" for template in TEMPLATES for code in template.descriptors if code > 300_000} <= set(
        sequences
    )
    for template in TEMPLATES:
        expanded = expansion(template)
        for slot in template.slots:
            for code in slot.codes:
                if (node := expanded.node(code)) is None:
                    continue
                ours, (_, unit, scale, reference, width, *_) = expanded.elements[node], elements[f"{code:06d}"]
                more_decimals, more_bits = MODIFIED.get((template.name, code), (0, 0))
                scale, width = scale + more_decimals, width + more_bits
                assert (ours.unit.lower(), ours.scale, ours.reference, ours.width) == (
                    SPELT.get(unit, unit).lower(), scale, reference, width,
                ), code  # fmt: skip


def test_the_codes_of_quality_and_constituents_mean_what_we_take_them_for():
    table = folder_of("pybufrkit") / "tables" / "0" / "0_0" / str(MASTER_TABLES) / "code_and_flag.json"
    codes = json.loads(table.read_text())
    significance = dict(codes["031021"])
    assert "2-bit indicator of quality" in significance[str(TWO_BITS_OF_QUALITY)].lower()
    words = {25: "1", 26: "2.5", 27: "10", 0: "ozone", 4: "carbon monoxide", 5: "nitrogen dioxide", 8: "sul"}
    constituents = dict(codes["008043"])
    for slot in AIR.slots:
        assert words[slot.constituent] in constituents[str(slot.constituent)].lower()
    assert {expansion(FIXED).elements[n].width for n, code in enumerate(expansion(FIXED).codes) if code == 999999} == {
        ASSOCIATED_BITS
    }


def test_class_and_stream_are_those_of_mars():
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    eccodes.codes_set(handle, "setLocalDefinition", 1)
    for key, number, name in (("marsClass", OdbCodes().class_, "rd"), ("marsStream", OdbCodes().stream, "oper")):
        eccodes.codes_set(handle, key, number)
        assert eccodes.codes_get_string(handle, key) == name
    eccodes.codes_release(handle)
