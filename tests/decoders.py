"""Exports of a dataset window as decoders that are not ours read them, compared with the dataset file, value by value.

Belongs here: odc's command and codc for ODB-2, pdbufr and Debian's bufr_dump for BUFR. Rows of an ODB file stand in the
order of the dataset's; subsets of BUFR are grouped, so that sorted values are compared.
"""

import json
import shutil
import subprocess

import codc
import numpy as np
import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import columns_of, quality_column, variable_of
from ionbeam_dagster.exporters.odb.reading import odc_command

# CF name: (varno, scale, offset) and (element of BUFR, scale, offset, step)
ODB = {
    "air_temperature": (39, 1, 273.15),
    "dew_point_temperature": (40, 1, 273.15),
    "relative_humidity": (58, 0.01, 0),
    "air_pressure_at_mean_sea_level": (108, 100, 0),
    "surface_air_pressure": (110, 100, 0),
    "wind_from_direction": (111, 1, 0),
    "wind_speed": (112, 1, 0),
}
BUFR = {
    "air_temperature": ("airTemperature", 1, 273.15, 0.01),
    "dew_point_temperature": ("dewpointTemperature", 1, 273.15, 0.01),
    "air_pressure_at_mean_sea_level": ("pressureReducedToMeanSeaLevel", 100, 0, 10),
    "surface_air_pressure": ("nonCoordinatePressure", 100, 0, 10),
    "wind_speed": ("windSpeed", 1, 0, 0.1),
}
STATUS = np.array([0, 1, 1, 2, 4])
QUALITY = np.array([-1, 0, 2**18 - 1, 1, 3])


def told(dataset):
    """Of each quantity of a dataset file: its values and flags (2 where there are none) where there is a value."""
    table = pq.read_table(dataset)
    schema = table.schema
    found = {}
    for name in columns_of(schema, "variable"):
        variable = variable_of(schema.field(name))
        if (
            variable.standard_name in ODB
            and variable.method in ("point", "mean")
            and variable.level > 0.5 * ("temperature" in variable.standard_name)
        ):
            values = table[name].to_numpy().astype(float)
            flag = quality_column(schema, name, "flag")
            flags = table[flag].to_numpy() if flag else np.full(len(values), 2)
            found[variable.standard_name] = values[~np.isnan(values)], flags[~np.isnan(values)]
    return found


def check_odb(dataset, path):
    """Compare by odc's command and by codc; returns how many values were compared."""
    select = "select varno, obsvalue, quality, datum_status.active, datum_status.passive, datum_status.rejected"
    command = [odc_command(), "sql", "-T", "--full_precision", "--no_alignment", "-delimiter", ",", "-i", str(path)]
    # Rows of 03, 09, 15 and 21 UTC stand before the others of their window: their analysis is another one.
    select += " order by seqno, entryno"
    lines = subprocess.run([*command, select], capture_output=True, text=True, check=True).stdout.splitlines()
    by_odc = np.array([line.split(",") for line in lines], float)
    columns = ["varno@body", "obsvalue@body", "quality@body"]
    order = ["seqno@hdr", "entryno@body"]
    by_codc = codc.read_odb(str(path), columns=columns + order, single=True).sort_values(order)[columns].to_numpy()
    assert len(by_codc) == len(by_odc)
    compared = 0
    for name, (values, flags) in told(dataset).items():
        varno, scale, offset = ODB[name]
        for rows in (by_odc[by_odc[:, 0] == varno], by_codc[by_codc[:, 0] == varno]):
            np.testing.assert_allclose(rows[:, 1], values * scale + offset, rtol=2**-23, err_msg=name)
            assert (rows[:, 2] == flags).all(), name
        status = by_odc[by_odc[:, 0] == varno][:, 3:] @ [1, 2, 4]
        assert (status == STATUS[flags]).all(), name
        compared += len(values)
    return compared


def check_bufr(dataset, path):
    """Compare by pdbufr and by Debian's bufr_dump, where they are; returns how many values were compared."""
    import pdbufr

    expected = {BUFR[name][0]: (name, *told) for name, told in told(dataset).items() if name in BUFR}
    dumped = _dumped(path)
    compared = 0
    for element, (name, values, flags) in expected.items():
        _, scale, offset, step = BUFR[name]
        wanted = np.sort(values * scale + offset)
        frame = pl.from_pandas(pdbufr.read_bufr(path, columns=("latitude", element), required_columns=["latitude"]))
        found = [np.sort(frame[element].drop_nulls().to_numpy())]
        if dumped is not None:
            found.append(np.sort([value for value in dumped.get(element, []) if value is not None]))
            fields = dumped.get(f"{element}->associatedField", [])
            given = [quality for quality, value in zip(fields, dumped[element], strict=True) if value is not None]
            assert sorted(given) == sorted(QUALITY[flags]), name
        for one in found:
            # bufr_dump prints six digits.
            np.testing.assert_allclose(one, wanted, atol=step * 0.5001 + 5e-6 * abs(offset), err_msg=name)
        compared += len(values)
    return compared


def _dumped(path):
    """Values of each element (and its associated field) by `bufr_dump`, in the order of subsets."""
    commands = shutil.which("bufr_dump"), shutil.which("bufr_get")
    if None in commands:
        return None
    dump, get = commands
    done = subprocess.run([dump, "-jf", str(path)], capture_output=True, text=True, check=True)
    counted = subprocess.run([get, "-p", "numberOfSubsets", str(path)], capture_output=True, text=True, check=True)
    subsets = map(int, counted.stdout.split())
    found, number = {}, 0
    for item in json.loads(done.stdout)["messages"]:
        if item["index"] == 1:
            number = next(subsets)
        field = item.get("associatedField", {}).get("value")
        for key, value in ((item["key"], item["value"]), (f"{item['key']}->associatedField", field)):
            # What all subsets share is told once.
            found.setdefault(key, []).extend(value if isinstance(value, list) else [value] * number)
    return found
