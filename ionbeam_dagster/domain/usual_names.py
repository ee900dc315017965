"""What people and loggers call the quantities of weather stations, and what CF calls them.

Belongs here: names, in the spellings of consoles, loggers and services, and what follows from a name: standard name,
usual unit, usual height. Does not belong here: what CF itself says (ionbeam_client.cf), or who asks. A name is a hint:
who uses it shows it to a person.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usual:
    """What a name usually means; `level` is in m above the ground, `sums` of what is counted over a time."""

    standard_name: str
    unit: str
    level: float = 0.0
    sums: bool = False


_QUANTITIES: list[tuple[Usual, str]] = [
    (Usual("air_temperature", "degC", 2.0), """
        t ta tt tas tair tmp temp temperature airtemp airtemperature airt airtc outtemp tempout outdoortemp
        outdoortemperature outsidetemperature temperatur lufttemperatur temperatuur temperatura temperaturaaria
        temperaturadelaire tttu ttu atmp t2m tm2m temperature2m drybulb drybulbtemp drybulbtemperature
        ambienttemperature ambienttemp tamb
        tre200s0 tre200b0 tre200h0"""),
    (Usual("dew_point_temperature", "degC", 2.0), """
        td dp dewp dewpt dewpoint dewpointtemp dewpointtemperature taupunkt dauwpunt puntodirugiada outdewpoint
        tde200s0 dewpttemp
        dwpt"""),
    (Usual("wet_bulb_temperature", "degC", 2.0), """
        wetbulb wetbulbtemp wetbulbtemperature twet feuchttemperatur"""),
    (Usual("relative_humidity", "%", 2.0), """
        rh rf rftu hum humid humidity relhum relhumidity relativehumidity outhumidity outhum humidityout
        outsidehumidity feuchte luftfeuchte luftfeuchtigkeit relativefeuchte relativeluftfeuchte vochtigheid
        relatievevochtigheid umidita umiditarelativa humedad humedadrelativa hur
        rhum ure200s0 outdoorhumidity outdoorhum relh"""),
    (Usual("air_pressure", "hPa"), """
        p press pressure airpressure stationpressure stationlevelpressure atmosphericpressure bp bpmbar
        luftdruck luchtdruk pressione presion barometricpressure abspressure absolutepressure qfe
        pp prestas0"""),
    (Usual("air_pressure_at_mean_sea_level", "hPa"), """
        pres barometer barom baro altimeter slp mslp pmsl msl prmsl qff qnh sealevelpressure pressuresealevel
        pressureatsealevel pressuremsl relpressure relativepressure
        pp0qffs0"""),
    (Usual("wind_speed", "m s-1", 10.0), """
        ws ff wspd wspeed wind windspd windspeed windvel windvelocity ffavg windgeschwindigkeit
        windsnelheid velocitavento velocita velocidad velocidadviento
        fkl010z0"""),
    (Usual("wind_speed_of_gust", "m s-1", 10.0), """
        gust gusts windgust gustspeed windgustspeed windspeedgust wgst gst wgust gff boe windboe windspitze
        windstoot raffica velocitaraffica racha hiwindspeed windhi hispeed peakwind
        wpgt fkl010z1"""),
    (Usual("wind_from_direction", "degree", 10.0), """
        wd wdir winddir winddirection windfromdirection dd drct direction dir windrichtung windrichting
        direzione direzionevento direccion direccionviento
        dkl010z0"""),
    (Usual("wind_gust_from_direction", "degree", 10.0), """
        gustdir windgustdir windgustdirection gustdirection"""),
    (Usual("thickness_of_rainfall_amount", "mm", 0.0, sums=True), """
        rain rainfall rainamount regen pioggia lluvia raincounter"""),
    (Usual("lwe_thickness_of_precipitation_amount", "mm", 0.0, sums=True), """
        precip precipitation prcp rr r1h niederschlag niederschlagshoehe neerslag precipitazione precipitacion
        precipitationamount
        rre150z0"""),
    (Usual("rainfall_rate", "mm h-1"), """
        rainrate rainfallrate rainintensity"""),
    (Usual("lwe_precipitation_rate", "mm h-1"), """
        preciprate precipitationrate precipitationintensity"""),
    (Usual("surface_downwelling_shortwave_flux_in_air", "W m-2"), """
        solar ghi sr solarrad solarradiation solarirradiance radiation globalradiation globalstrahlung
        globalestraling radiazione radiazionesolare dwsolar swdown swin shortwave slr slrw irradiance
        globalirradiance pyranometer
        gre000z0"""),
    (Usual("surface_downwelling_longwave_flux_in_air", "W m-2"), """
        dwir lwdown lwin longwave"""),
    (Usual("duration_of_sunshine", "s", 0.0, sums=True), """
        sunshine sunshineduration sunduration sonnenscheindauer zonneschijn
        tsun"""),
    (Usual("visibility_in_air", "m"), """
        vis visib visibility sichtweite zicht visibilita"""),
    (Usual("cloud_area_fraction", "%"), """
        cloud cloudcover cloudamount totalcloudcover tcc bewoelkung"""),
    (Usual("surface_snow_thickness", "m"), """
        snowdepth snowheight schneehoehe sneeuwhoogte"""),
    (Usual("soil_temperature", "degC"), """
        soiltemp soiltemperature bodentemperatur tsoil"""),
    (Usual("sea_surface_temperature", "degC"), """
        wtmp sst watertemp watertemperature seatemperature"""),
    (Usual("sea_surface_wave_significant_height", "m"), """
        wvht hm0 significantwaveheight"""),
    (Usual("ultraviolet_index", "1"), """
        uv uvi uvindex"""),
    (Usual("heat_index_of_air_temperature", "degC", 2.0), """
        heatindex"""),
    (Usual("wind_chill_of_air_temperature", "degC", 2.0), """
        windchill"""),
    (Usual("mass_concentration_of_pm1_ambient_aerosol_particles_in_air", "ug m-3", 2.0), """
        pm1 pm01"""),
    (Usual("mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air", "ug m-3", 2.0), """
        pm25 pm2p5"""),
    (Usual("mass_concentration_of_pm10_ambient_aerosol_particles_in_air", "ug m-3", 2.0), """
        pm10"""),
    (Usual("mole_fraction_of_carbon_dioxide_in_air", "1e-6", 2.0), """
        co2 carbondioxide"""),
]  # fmt: skip
_BY_NAME = {name: usual for usual, names in _QUANTITIES for name in names.split()}

_WITH_UNITS = {
    "tmpf": ("temp", "degF"), "tmpc": ("temp", "degC"), "dwpf": ("dewpoint", "degF"), "dwpc": ("dewpoint", "degC"),
    "sknt": ("windspeed", "knot"), "alti": ("barometer", "inHg"), "p01i": ("precip", "inch"), "p01m": ("precip", "mm"),
    "vsby": ("visibility", "mile"),
}  # fmt: skip
"""Names of METARs in tables, in which a unit stands."""

UNITS_AT_ENDS = {
    "c": "degC", "degc": "degC", "celsius": "degC", "f": "degF", "degf": "degF", "fahrenheit": "degF", "k": "K",
    "mbar": "hPa", "mb": "hPa", "hpa": "hPa", "kpa": "kPa", "pa": "Pa", "inhg": "inHg", "mmhg": "mmHg",
    "mps": "m s-1", "ms": "m s-1", "m s": "m s-1", "kph": "km h-1", "kmh": "km h-1", "km h": "km h-1",
    "mph": "mile hour-1", "knot": "knot", "knots": "knot", "kt": "knot", "kts": "knot", "kn": "knot",
    "pct": "%", "percent": "%", "perc": "%", "mm": "mm", "cm": "cm", "inch": "inch", "wm2": "W m-2", "w m2": "W m-2",
    "deg": "degree", "ugm3": "ug m-3", "ug m3": "ug m-3", "ppm": "1e-6",
}  # fmt: skip
"""Units as the ends of names have them, such as ``outTemp_F``."""

_METHODS = {
    **dict.fromkeys(["avg", "mean", "average", "ave", "media", "medio", "mittel", "mittelwert", "gemiddelde"], "mean"),
    **dict.fromkeys(["max", "maximum", "mx", "hi", "high", "massima"], "maximum"),
    **dict.fromkeys(["min", "minimum", "mn", "lo", "low", "minima"], "minimum"),
    **dict.fromkeys(["tot", "total", "sum", "summe", "totale"], "sum"),
    **dict.fromkeys(["std", "stdev", "sd", "stddev"], "standard_deviation"),
    **dict.fromkeys(["smp", "sample", "inst", "instant"], "point"),
}
_LEVEL = re.compile(r"\b(?P<number>\d+(?:\.\d+)?|\d+p\d+) ?(?P<unit>m|cm)\b")


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a column tells: the quantity, and a unit, a method and a level where they stand in it."""

    usual: Usual | None
    unit: str | None = None
    method: str | None = None
    level: float | None = None


def told_by(name: str) -> Named:
    """What a name tells: ``AirTC_Avg``, ``outTemp_F``, ``T_2m`` or ``Temp[°C]``, whose unit is not looked at."""
    words = words_of(re.split(r" - |, ", re.sub(r"[\[(].*?[\])]", " ", name))[0])
    if len(words) == 1 and words[0] in _WITH_UNITS:
        same, of_name = _WITH_UNITS[words[0]]
        return Named(_BY_NAME[same], of_name)
    if usual := _known(words):
        return Named(usual)
    if "." in name and (usual := _known(words_of(name.rpartition(".")[2]))):
        return Named(usual)  # a field of a measurement
    level, words = _level_in(words)
    method, words = _method_in(words)
    if usual := _known(words):
        return Named(usual, None, method, level)
    for many in (2, 1):
        unit = UNITS_AT_ENDS.get(" ".join(words[-many:])) if len(words) > many else None
        if unit and (usual := _known(words[:-many])):
            return Named(usual, unit, method, level)
    return Named(None, None, method, level)


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, without accents: ``outTempMax`` has three."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", plain)
    return re.sub(r"[^a-z0-9.]+", " ", apart.lower()).replace(". ", " ").strip(" .").split()


def method_called(text: str) -> str | None:
    """CF's cell method that a word such as ``Avg`` means."""
    return next((_METHODS[word] for word in words_of(text) if word in _METHODS), None)


def _known(words: list[str]) -> Usual | None:
    together = "".join(words).replace(".", "")
    return _BY_NAME.get(together) or (_BY_NAME.get(together.rstrip("0123456789")) if len(together) > 3 else None)


def _level_in(words: list[str]) -> tuple[float | None, list[str]]:
    text = " ".join(words)
    found = _LEVEL.search(text)
    if found is None or len(words) == 1:
        return None, words
    metres = float(found["number"].replace("p", ".")) * (0.01 if found["unit"] == "cm" else 1.0)
    return metres, (text[: found.start()] + text[found.end() :]).split()


def _method_in(words: list[str]) -> tuple[str | None, list[str]]:
    method = next((_METHODS[word] for word in words if word in _METHODS), None)
    left = [word for word in words if word not in _METHODS]
    return (method, left) if left else (None, words)


def usual_of(standard_name: str) -> Usual | None:
    """What is usual of a quantity that has CF's name already."""
    return next((usual for usual, _ in _QUANTITIES if usual.standard_name == standard_name), None)
