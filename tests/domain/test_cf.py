"""CF's names and units: the shipped table, conversions against UDUNITS itself, and what is told of faulty metadata."""

import math
import runpy
from pathlib import Path

import pytest
from cf_units import Unit
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_client.cf import (
    UnitError,
    check_metadata,
    check_variable,
    conversion,
    is_local,
    lookup,
    standard_names,
    suggest_name,
    suggest_unit,
    unit,
)
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    LatitudeAxis,
    LongitudeAxis,
)

LINEAR = [
    ("degC", "K"), ("K", "degC"), ("degF", "degC"), ("degF", "K"), ("hPa", "Pa"), ("inHg", "hPa"), ("%", "1"),
    ("km/h", "m s-1"), ("knots", "m s-1"), ("mile hour-1", "m s-1"), ("µg m-3", "kg m-3"), ("mm h-1", "m s-1"),
    ("0.125", "1"), ("degC (100 m)-1", "K m-1"), ("min", "s"), ("ft", "m"),
]  # fmt: skip


def variable(standard_name: str, cf_unit: str, **parts: object) -> CanonicalVariable:
    return CanonicalVariable(column="raw", standard_name=standard_name, cf_unit=cf_unit, **parts)


def told(standard_name: str, cf_unit: str, **parts: object) -> str:
    return "\n".join(str(problem) for problem in check_variable(variable(standard_name, cf_unit, **parts)))


def test_the_shipped_table_is_whole():
    table = standard_names()
    assert (table.version, table.date, len(table.units)) == (93, "2026-03-17", 5023)
    assert not table.units.keys() & table.aliases.keys()
    assert all(name in table.units for current in table.aliases.values() for name in current)
    assert table.differences <= table.units.keys()


def test_every_standard_name_in_its_own_unit_has_no_problem():
    faulty = {
        name: told(name, units or "1") for name, units in standard_names().units.items() if told(name, units or "1")
    }
    assert faulty == {}


def test_names_are_looked_up():
    assert lookup("air_temperature").units == "K"
    assert lookup("platform_id").units == ""
    assert lookup("air_pressure_at_sea_level").current == ("air_pressure_at_mean_sea_level",)
    assert len(lookup("surface_carbon_dioxide_mole_flux").current) == 2
    assert lookup("ocean_volume").kind == "standard", "both a name and an alias in CF's file"
    assert [is_local(name) for name in ("x_battery_level", "x_wind", "battery_level")] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("mole_fraction_of_sulphur_dioxide_in_air", "mole_fraction_of_sulfur_dioxide_in_air"),
        ("wind_from_direction_of_gust", "wind_gust_from_direction"),
        ("minimum_air_temperature", "air_temperature with method minimum"),
        ("air_temprature", "air_temperature"),
        ("bluetooth_RSSI", None),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name, instead):
    assert suggest_name(name) == instead
    assert told(name, "1").startswith(f"error: column 'raw': {name} is not in the CF standard name table (version 93)")


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("C", "degC"), ("degrees Celsius", "degC"), ("mph", "mile hour-1"), ("mb", "hPa"), ("deg", "degree"),
        ("m_s-1", "m s-1"), ("degC/100m", "degC (100 m)-1"), ("octa", "0.125"), ("no_unit", "1"),
        ("dB", "0.1 lg(re 1)"),
    ],
)  # fmt: skip
def test_units_that_udunits_misses_or_misreads_are_refused_with_the_right_one(text, instead):
    assert suggest_unit(text) == instead
    assert unit(instead) is not None
    with pytest.raises(UnitError) as error:
        unit(text)
    assert repr(instead) in str(error.value)


@given(
    degree=st.sampled_from(["deg", "degree", "degrees", "Degree", "Degrees", "DEGREE", "DEGREES", "°"]),
    between=st.sampled_from(["", " ", "  ", "-", ".", "*", "_"]),
    name=st.sampled_from(["C", "K", "F", *(f(name) for name in ("celsius", "kelvin", "fahrenheit")
                                            for f in (str.lower, str.upper, str.capitalize))]),
)  # fmt: skip
def test_a_temperature_is_one_however_it_is_spelt(degree, between, name):
    text = degree + between + name
    scale, offset = conversion(suggest_unit(text) or text, "degC")
    expected = {"C": 20.0, "K": 20 - 273.15, "F": -20 / 3}[name[0].upper()]
    assert 20 * scale + offset == pytest.approx(expected)


@pytest.mark.parametrize("text", ["0.1 degC", "degC/10", "0.1 degF", "10 °C", "0.1 celsius"])
def test_a_multiple_of_a_temperature_with_another_zero_is_refused(text):
    with pytest.raises(UnitError, match="scale the values"):
        conversion(text, "degC")
    assert conversion("0.1 K", "K") == (0.1, 0.0) and conversion("degC m-1", "K m-1") == (1.0, 0.0)


@pytest.mark.parametrize(("angle", "none"), [("degree K", "K"), ("degree", "1"), ("degree m s-1", "m s-1")])
def test_an_angle_never_becomes_what_is_none(angle, none):
    for pair in ((angle, none), (none, angle)):
        with pytest.raises(UnitError):
            conversion(*pair)
    assert conversion("degree", "radian")[0] == pytest.approx(0.0174532925)


@pytest.mark.parametrize(
    "text", ["degC", "°C", "celsius", "degF", "%", "percent", "ug m-3", "mbar", "ppm", "dBm", "degrees_north", "1"]
)
def test_good_units_are_taken(text):
    assert suggest_unit(text) is None
    assert unit(text) == Unit(text)


@given(pair=st.sampled_from(LINEAR), value=st.floats(-1e6, 1e6))
def test_scale_and_offset_do_what_udunits_does(pair, value):
    scale, offset = conversion(*pair)
    expected = Unit(pair[0]).convert(value, pair[1])
    assert math.isclose(value * scale + offset, expected, rel_tol=1e-12, abs_tol=1e-12 * (1 + abs(offset)))


def test_conversions_that_are_exact_are_told_exactly():
    assert conversion("furlong", "furlong") == (1.0, 0.0)
    assert conversion("K", "kelvin") == (1.0, 0.0)
    assert conversion("degC", "K") == (1.0, 273.15)
    assert conversion("K", "degC") == (1.0, -273.15)
    assert conversion("hPa", "Pa") == (100.0, 0.0)
    assert conversion("%", "1") == (0.01, 0.0)
    assert conversion("degF", "K")[0] == pytest.approx(5 / 9, rel=5e-16, abs=0)


def test_a_depth_of_water_is_its_mass():
    assert conversion("mm", "kg m-2") == (1.0, 0.0)
    assert conversion("kg m-2", "mm") == (1.0, 0.0)
    assert conversion("mm h-1", "kg m-2 h-1") == (1.0, 0.0)
    assert conversion("kg m-2 s-1", "mm h-1") == (3600.0, 0.0)
    assert told("precipitation_flux", "mm h-1") == ""
    assert told("lwe_precipitation_rate", "kg m-2 s-1") == ""
    assert "cannot be in 'mm'" in told("soil_mass_content_of_carbon", "mm")
    for fresh_snow in ("thickness_of_snowfall_amount", "surface_snow_thickness"):
        assert "cannot be in 'kg m-2'" in told(fresh_snow, "kg m-2")


@pytest.mark.parametrize(
    ("from_unit", "to_unit", "reason"),
    [
        ("dBm", "W", "no matter of a scale and an offset"),
        ("W", "dBm", "no matter of a scale and an offset"),
        ("s m-1", "m s-1", "no matter of a scale and an offset"),
        ("mm", "K", "measure different things"),
        ("m", "kg", "measure different things"),
        ("days since 1970-01-01", "hours since 1970-01-01", "about dates"),
        ("C", "K", "write 'degC'"),
        ("fortnights per jiffy of rain", "m", "does not know it"),
    ],
)
def test_what_cannot_be_converted_says_why(from_unit, to_unit, reason):
    with pytest.raises(UnitError, match=reason):
        conversion(from_unit, to_unit)


@pytest.mark.parametrize(
    ("parts", "severity", "says"),
    [
        (("air_pressure_at_sea_level", "hPa"), "warning", "CF now says air_pressure_at_mean_sea_level"),
        (("battery_level", "%"), "error", "called x_battery_level"),
        (("air_temperature", "C"), "error", "write 'degC'"),
        (("air_temperature", "hPa"), "error", "cannot be in 'hPa'; CF has it in 'K'"),
        (("wind_speed", "s m-1"), "error", "cannot be in 's m-1'"),
        (("sound_intensity_level_in_air", "m"), "error", "CF has it in 'dB'"),
        (("air_temperature_anomaly", "degC"), "error", "would shift by 273.15; write 'K'"),
    ],
)
def test_faulty_names_and_units(parts, severity, says):
    (problem,) = check_variable(variable(*parts))
    assert problem.severity == severity
    assert says in problem.text


@pytest.mark.parametrize(
    ("method", "period", "cf_unit", "says"),
    [
        ("average", "PT1H", "K", "error: column 'raw': method 'average' is not a CF cell method; write 'mean'"),
        ("point", "PT10M", "K", "error: column 'raw': method point is an instant, so period PT10M must be PT0S"),
        ("sum", "PT0S", "K", "error: column 'raw': method sum needs the period"),
        ("mean", "-PT1H", "K", "error: column 'raw': period -PT1H is negative"),
        ("mean", "PT0S", "K", "warning: column 'raw': method mean without a period"),
        (
            "standard_deviation",
            "PT1H",
            "degC",
            "error: column 'raw': the standard_deviation of air_temperature is a diff",
        ),
        ("variance", "PT1H", "K", "error: column 'raw': air_temperature cannot be in 'K'; CF has it in '(K)2'"),
    ],
)
def test_faulty_methods_and_periods(method, period, cf_unit, says):
    assert told("air_temperature", cf_unit, method=method, period=period).startswith(says)


def test_right_methods_and_periods():
    assert told("air_temperature", "degC", method="mean", period="PT10M") == ""
    assert told("air_temperature", "K", method="standard_deviation", period="PT1H") == ""
    assert told("air_temperature", "K2", method="variance", period="PT1H") == ""
    assert told("precipitation_amount", "mm", method="sum", period="PT1H") == ""
    assert told("x_battery_level", "%") == ""
    assert "dtype string" in told("air_temperature", "degC", dtype="string")


def test_metadata_are_checked_with_their_axes():
    def problems(lat: LatitudeAxis, lon: LongitudeAxis, variables: list[CanonicalVariable]) -> list[str]:
        mapping = DataIngestionMap(lat=lat, lon=lon, canonical_variables=variables)
        return [str(p) for p in check_metadata(IngestionMetadata(dataset={"name": "d"}, ingestion_map=mapping))]

    good = variable("air_temperature", "degC")
    assert problems(LatitudeAxis(), LongitudeAxis(), [good]) == []
    east, north = LatitudeAxis(from_col="y", cf_unit="degrees_east"), LongitudeAxis(standard_name="latitude")
    swapped = problems(east, north, [good])
    assert [text.split(";")[0] for text in swapped] == [
        "error: column 'y': a latitude in 'degrees_east' cannot be read",
        "error: column 'lon': its standard_name is 'latitude'",
    ]
    assert problems(LatitudeAxis(), LongitudeAxis(), []) == [
        "error: canonical_variables: no variable is declared, so no row has a value"
    ]


def test_the_table_is_made_from_cf_s_xml(tmp_path):
    xml = tmp_path / "table.xml"
    xml.write_text(
        """<standard_name_table><version_number>7</version_number><last_modified>2030-01-02T03:04:05Z</last_modified>
        <entry id="b"><canonical_units> K </canonical_units>
        <description>It should have units_metadata="temperature: difference".</description></entry>
        <entry id="a"><canonical_units/></entry>
        <alias id="old"><entry_id>a</entry_id><entry_id>b</entry_id></alias>
        <alias id="a"><entry_id>b</entry_id></alias></standard_name_table>"""
    )
    made = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "cf_standard_names.py"))
    assert made["table_text"](xml) == "# CF standard name table\t7\t2030-01-02\na\t\nb\tK\tdifference\nold\t=\ta b\n"


def test_the_units_of_a_real_file_are_understood_or_mended(real_data):
    netcdf = pytest.importorskip("netCDF4").Dataset(real_data / "knmi" / "20221231.nc")
    units = {found.units for found in netcdf.variables.values() if "units" in found.ncattrs()}
    assert len(units) > 10
    mended = {text: suggest_unit(text) for text in units if suggest_unit(text)}
    assert mended == {"degrees Celsius": "degC", "octa": "0.125", "code": "1", "Number": "1"}
    assert all(unit(mended.get(text, text)) for text in units if " since " not in text)
