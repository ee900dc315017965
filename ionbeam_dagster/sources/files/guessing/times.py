"""Where the times of rows stand, and how they are written.

Belongs here: trying on a sample the ways in which times are written, by the reader's own function. Does not belong
here: reading times in earnest (sources/files/times.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import polars as pl
from pydantic import ValidationError

from ionbeam_dagster.domain.usual_names import words_of
from ionbeam_dagster.sources.files.guessing.sample import Sample
from ionbeam_dagster.sources.files.guessing.statements import Line, Question, Statement, Sureness
from ionbeam_dagster.sources.files.readers import PROBLEM, Unreadable
from ionbeam_dagster.sources.files.times import FILED, present, timed
from ionbeam_dagster.sources.files.written import TimeColumn

_NAMES = ("datetime", "timestamp", "time", "date time", "datetime utc", "time utc", "date", "observation time",
          "valid time",
          "obs time", "utc", "mess datum", "date and time", "zeit", "datum", "data", "data ora", "fecha",
          "tijd")  # fmt: skip
_PARTS = {
    "Y": ("year yyyy yy yr jahr jaar anno", 1900, 2100),
    "m": ("month mon mo mm monat maand mese", 1, 12),
    "d": ("day dd dy dom tag dag giorno", 1, 31),
    "H": ("hour hh hr h stunde uur ora", 0, 24),
    "M": ("minute minutes min mn mm mi", 0, 59),
    "S": ("second seconds sec ss s", 0, 60),
    "j": ("doy jday julian yday dayofyear day", 1, 366),
    "HM": ("time hhmm hrmn clock hm hour", 0, 2400),
}
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_BETWEEN = 631_152_000, 2_208_988_800  # 1990 and 2040, in seconds
_SERIALS = 32_874, 51_136  # the same, in days since:
_EXCEL_0 = datetime(1899, 12, 30)
_ZONES = {"utc": "UTC", "gmt": "UTC", "z": "UTC", "cet": "+01:00", "mez": "+01:00", "cest": "+02:00", "mesz": "+02:00",
          "est": "-05:00", "edt": "-04:00", "cst": "-06:00", "mst": "-07:00", "pst": "-08:00",
          "bst": "+01:00"}  # fmt: skip
_DAY = (
    r"(?P<ymd>\d{4}(?P<s1>[-/.])\d{1,2}(?P=s1)\d{1,2})|(?P<dmy>\d{1,2}(?P<s2>[-/.])\d{1,2}(?P=s2)\d{4})"
    r"|(?P<short>\d{1,2}(?P<s3>[-/.])\d{1,2}(?P=s3)\d{2})"
    r"|(?P<named>\d{1,2}(?P<s4>[- ])[A-Za-z]{3}(?P=s4)\d{4})|(?P<digits>\d{8})"
)
_CLOCK = (
    r"(?P<clock>\d{1,2}:\d\d(?P<seconds>:\d\d(?:\.\d+)?)?|\d{6}|\d{4}|\d\d?)"
    r"(?:(?P<gap>\s*)(?P<half>[aApP]\.?[mM]?\.?)(?=\s|$))?"
)
_ZONE = r"(?P<zone>\s*(?:Z|UTC|[+-]\d\d:?\d\d|[A-Z]{2,5}))?"
_MOMENT = re.compile(rf"^(?:{_DAY})(?P<between>[ T_,]*){_CLOCK}{_ZONE}$")
_DATE = re.compile(rf"^(?:{_DAY})$")
_ALONE = re.compile(rf"^{_CLOCK}{_ZONE}$")
_TRIED = 400
_UNREAD = 0.05  # the share of texts that may be no times: a line of means at the end, a torn one


@dataclass(slots=True)
class Times:
    """Where the times are: the lines that say it, the columns that are taken, the usual step between two rows of a
    station, and whether the way of writing is that of the United States."""

    lines: list[Line] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    found: pl.Series | None = None
    american: bool = False


@dataclass(frozen=True, slots=True)
class _Written:
    """How texts of times are written, and what that tells: a zone of their own, letters that name one, a doubt."""

    format: str | None = None
    knows_zone: bool = False
    zone: str | None = None
    zone_name: str = ""
    american: bool = False
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Columns that may hold the times, as keys of `time`, and how these are written."""

    keys: dict[str, object]
    columns: tuple[str, ...]
    why: str
    written: _Written = field(default_factory=_Written)


def is_called_time(name: str) -> bool:
    """Whether a column's name says that it may be the time, or the first part of it."""
    return _rank(name) <= len(_NAMES) or bool({*words_of(name)} & {*_PARTS["Y"][0].split()})


def times_of(sample: Sample) -> Times:
    """Where the times of a sample's rows stand."""
    if sample.knows_times:
        return Times(found=sample.moments)
    for candidate in _candidates(sample):
        found = _parsed(sample.rows, candidate)
        if found is not None:
            return Times([Statement("time", inner=tuple(_said(candidate, sample)))], candidate.columns, found,
                         candidate.written.american)  # fmt: skip
    question = "no column was recognised as the time. Name it, and how it is written if not as 2024-03-01T00:00:00Z:"
    return Times([Question(question, ("time: {column: NAME, format: '%d/%m/%Y %H:%M', zone: UTC}",))])


def step_of(found: pl.Series | None, stations: pl.Series | None) -> timedelta | None:
    """The usual time between two rows of a station."""
    if found is None:
        return None
    of = stations if stations is not None else pl.repeat("", len(found), eager=True)
    rows = pl.DataFrame({"time": found, "of": of}).drop_nulls("time").unique(maintain_order=True)
    steps = rows.select(pl.col("time").diff().over("of").alias("step"))["step"].drop_nulls()
    steps = steps.filter(steps > timedelta(0))
    usual = steps.mode().sort()
    return usual[0] if len(usual) else None


def _candidates(sample: Sample) -> Iterator[_Candidate]:
    """The ways in which the times may be written, the most plausible first."""
    rows = sample.rows
    by_name = sorted(rows.columns, key=lambda name: (_rank(name), rows.columns.index(name)))
    for name in by_name:
        yield from _typed(rows[name])
    parts = _parts(sample)
    for name in by_name:
        yield from _alone(name, rows[name])
    if parts is not None:
        yield parts
    yield from _days_of_the_year(sample)
    yield from _date_and_clock(rows, by_name)
    for name in by_name:
        yield from _since_1970(name, rows[name])


def _rank(name: str) -> int:
    words = " ".join(words_of(name))
    if words in _NAMES:
        return _NAMES.index(words)
    return len(_NAMES) + (0 if set(words.split()) & {"time", "date", "datetime", "timestamp", "zeit", "utc"} else 1)


def _typed(given: pl.Series) -> Iterator[_Candidate]:
    if given.dtype == pl.Datetime:
        zone = getattr(given.dtype, "time_zone", None)
        yield _Candidate(
            {"column": given.name}, (given.name,), "the column has times", _Written(knows_zone=zone is not None)
        )


def _texts(given: pl.Series) -> list[str]:
    if given.dtype != pl.String:
        return []
    kept = given.to_frame("x").select(present(pl.col("x")).str.strip_chars())["x"].drop_nulls()
    return kept.head(_TRIED).to_list() if len(kept) else []


def _alone(name: str, given: pl.Series) -> Iterator[_Candidate]:
    texts = _texts(given)
    if not texts or (set("".join(texts[:20])) <= set("0123456789.") and len(texts[0]) not in (10, 12, 14)):
        return
    if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", texts[0]):
        zoned = all(re.search(r"(Z|[+-]\d\d:?\d\d)$", text[10:]) for text in texts)
        yield _Candidate({"column": name}, (name,), "texts as ISO 8601 has them", _Written(knows_zone=zoned))
    for written in _forms(texts):
        yield _Candidate({"column": name}, (name,), f"texts such as {texts[0]}", written)


def _forms(texts: Sequence[str]) -> Iterator[_Written]:
    """The ways in which the texts may be whole moments."""
    found = _MOMENT.match(texts[0])
    if found is None or not (found["between"] or found["digits"]):
        return  # 01.03.2024 is no 01.03.20 at 24 o'clock
    clock = _clock_form(found, texts)
    for date, american, doubt in _date_forms(found, texts):
        yield replace(clock, format=f"{date}{found['between']}{clock.format}", doubt=doubt,
                      american=american or bool(found["half"]))  # fmt: skip


def _clock_form(found: re.Match[str], texts: Iterable[str]) -> _Written:
    clock = found["clock"]
    hour = "%I" if found["half"] else "%H"
    if ":" in clock:
        fraction = "%.f" if any(re.search(r":\d\d\.\d", text) for text in texts) else ""
        form = f"{hour}:%M" + (f":%S{fraction}" if found["seconds"] else "")
    else:
        form = {1: hour, 2: hour, 4: f"{hour}%M", 6: f"{hour}%M%S"}[len(clock)]
    if found["half"]:
        form += found["gap"] + "%p"
    zone = found["zone"] or ""
    if not zone.strip():
        return _Written(form)
    if re.fullmatch(r"\s*[+-]\d\d:?\d\d", zone) or (zone == "Z" and len({text[-1] for text in texts}) > 1):
        return _Written(form + " " * (len(zone) - len(zone.lstrip())) + "%#z", knows_zone=True)
    letters = zone.strip()
    return _Written(form + zone, zone=_ZONES.get(letters.lower()), zone_name=letters)


def _date_forms(found: re.Match[str], texts: Sequence[str]) -> list[tuple[str, bool, str]]:
    """Formats of the date, each with whether it is the American one, and what is doubtful about it."""
    if found["ymd"]:
        return [(f"%Y{found['s1']}%m{found['s1']}%d", False, "")]
    if found["digits"]:
        return [("%Y%m%d", False, "")]
    if found["named"]:
        return [(f"%d{found['s4']}%b{found['s4']}%Y", False, "")]
    sign, year = (found["s2"], "%Y") if found["dmy"] else (found["s3"], "%y")
    day_first, month_first = f"%d{sign}%m{sign}{year}", f"%m{sign}%d{sign}{year}"
    pairs = [
        tuple(map(int, re.split(r"[-/.]", text)[:2])) for text in texts if re.match(r"\d{1,2}[-/.]\d{1,2}[-/.]", text)
    ]
    firsts, seconds = {first for first, _ in pairs}, {second for _, second in pairs}
    if max(firsts, default=0) > 12:
        return [(day_first, False, "")]
    if max(seconds, default=0) > 12:
        return [(month_first, sign == "/", "")]
    # Of days that follow one another the day changes more often than the month.
    if len(firsts) != len(seconds):
        return [(day_first, False, "")] if len(firsts) > len(seconds) else [(month_first, sign == "/", "")]
    american = sign == "/" and (bool(found.groupdict().get("half")) or re.match(r"\d/|\d\d?/\d/", texts[0]) is not None)
    if sign == ".":
        return [(day_first, False, "")]
    doubt = f"whether {texts[0].split()[0]} has the day first or the month the sample does not show"
    return [(month_first, True, doubt)] if american else [(day_first, False, doubt)]


def _date_and_clock(rows: pl.DataFrame, names: Sequence[str]) -> Iterator[_Candidate]:
    dates = [(name, texts) for name in names if (texts := _texts(rows[name])) and _DATE.match(texts[0])]
    clocks = [(name, texts) for name in names if (texts := _texts(rows[name])) and _is_clock(name, texts)]
    for date, date_texts in dates:
        for clock, clock_texts in clocks:
            if date == clock:
                continue
            found = _ALONE.match(clock_texts[0])
            moment = _MOMENT.match(f"{date_texts[0]} {clock_texts[0]}")
            if found is None or moment is None:
                continue
            written = _clock_form(found, clock_texts)
            for day, american, doubt in _date_forms(moment, date_texts):
                both = replace(written, format=f"{day} {written.format}", american=american, doubt=doubt)
                yield _Candidate({"columns": [date, clock]}, (date, clock), "a date and a clock", both)


def _is_clock(name: str, texts: Sequence[str]) -> bool:
    if re.match(r"\d{1,2}:\d\d", texts[0]):
        return _ALONE.match(texts[0]) is not None
    hours = set(words_of(name)) & {*_PARTS["H"][0].split(), "time", "clock", "hour"}
    return bool(hours) and all(re.fullmatch(r"\d{1,4}|\d{6}", text) for text in texts)


def _parts(sample: Sample) -> _Candidate | None:
    """Year, month, day and so on, each in a column of its own, one behind the other."""
    numbers = {name: _whole(sample.rows[name]) for name in sample.rows.columns}
    names = list(numbers)
    for start, name in enumerate(names):
        if not _is_part("Y", name, numbers[name], sample.names_are_invented):
            continue
        taken, forms, written = [name], ["%Y"], _Written()
        rest = names[start + 1 :]
        for part in "mdHMS":
            here = next((n for n, one in enumerate(rest[:2])
                         if _is_part(part, one, numbers[one], sample.names_are_invented)), None)  # fmt: skip
            if here is None or (here and len(taken) > 1):
                break
            if sample.names_are_invented and part in "MS" and _tell_apart(sample.rows, taken):
                break
            taken.append(rest[here])
            forms.append(f"%{part}")
            rest = rest[here + 1 :]
        if len(taken) == 3 and rest and (texts := _texts(sample.rows[rest[0]])) and _is_clock(rest[0], texts):
            found = _ALONE.match(texts[0])
            written = _clock_form(found, texts) if found else written
            taken, forms = [*taken, rest[0]], [*forms, str(written.format)]
        if len(taken) >= 4:
            why = "each part of the time has a column"
            return _Candidate({"columns": taken}, tuple(taken), why, replace(written, format=" ".join(forms)))
    return None


def _days_of_the_year(sample: Sample) -> Iterator[_Candidate]:
    """A year, the day of it and a clock that is one number, one behind the other, as older loggers write them."""
    names = sample.rows.columns
    for taken in zip(names, names[1:], names[2:], strict=False):
        numbers = [_whole(sample.rows[name]) for name in taken]
        those = zip(("Y", "j", "HM"), taken, numbers, strict=True)
        if not all(_is_part(part, name, one, sample.names_are_invented) for part, name, one in those):
            continue
        clocks = numbers[2]
        if clocks is not None and (clocks % 100 < 60).all():
            form = "%Y %j %H" if (clocks <= 24).all() else "%Y %j %H%M"
            why = "a year, the day of it and a clock"
            yield _Candidate({"columns": [*taken]}, taken, why, _Written(format=form))


def _tell_apart(rows: pl.DataFrame, columns: Sequence[str]) -> bool:
    """Whether the values of columns are others in each row, so that no further column is a part of the time."""
    return rows.select(columns).is_unique().all()


def _is_part(part: str, name: str, numbers: pl.Series | None, by_value: bool) -> bool:
    names, least, most = _PARTS[part]
    if numbers is None or numbers.is_empty() or not numbers.is_between(least, most).all():
        return False
    return by_value or bool(set(words_of(name)) & set(names.split()))


def _whole(given: pl.Series) -> pl.Series | None:
    numbers = (
        given.cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False) if given.dtype != pl.Datetime else None
    )
    return None if numbers is None or numbers.has_nulls() else numbers


def _since_1970(name: str, given: pl.Series) -> Iterator[_Candidate]:
    texts = given.cast(pl.String).str.strip_chars() if given.dtype != pl.Datetime else pl.Series([], dtype=pl.String)
    numbers = texts.cast(pl.Float64, strict=False).drop_nulls()
    if numbers.is_empty() or len(numbers) < 0.9 * len(given.drop_nulls()):
        return
    if is_called_time(name) and numbers.is_between(*_SERIALS).all():
        first = _EXCEL_0 + timedelta(days=float(numbers[0]))
        why = f"days as spreadsheets count them, the first is {first:%Y-%m-%d %H:%M}"
        yield _Candidate({"column": name, "unit": "excel"}, (name,), why)
    for unit, of_second in _UNITS.items():
        if numbers.is_between(_BETWEEN[0] * of_second, _BETWEEN[1] * of_second).all():
            shown = datetime.fromtimestamp(float(numbers[0]) / of_second, UTC).strftime("%Y-%m-%d %H:%M")
            yield _Candidate({"column": name, "unit": unit}, (name,), f"numbers since 1970, the first is {shown}",
                             _Written(knows_zone=True))  # fmt: skip


def _parsed(rows: pl.DataFrame, candidate: _Candidate) -> pl.Series | None:
    """The times of all rows, where the candidate reads nearly all of them."""
    given = rows.select(*candidate.columns, pl.lit(None, pl.String).alias(PROBLEM))
    keys = candidate.keys | ({"format": candidate.written.format} if candidate.written.format else {})
    with suppress(Unreadable, ValidationError, pl.exceptions.PolarsError):
        found = timed(given, candidate.columns, TimeColumn.model_validate(keys))[FILED]
        texts = [pl.col(name).cast(pl.String).str.strip_chars() for name in candidate.columns]
        there = given.filter(pl.all_horizontal(text.str.len_chars() > 0 for text in texts)).height
        read = len(found.drop_nulls())
        if read >= min(2, there) and there - read <= max(1, _UNREAD * there):
            return found
    return None


def _zone_in(name: str) -> str | None:
    """The zone that a column's name says: Europe/Paris, GMT+01:00, UTC."""
    if named := re.search(r"[A-Z][a-z]+/[A-Za-z_/]+", name):
        return named[0] if named[0] in available_timezones() else None
    if ahead := re.search(r"\b(?:UTC|GMT)\s*([+-])(\d{1,2}):?(\d\d)?\b", name):
        return f"{ahead[1]}{int(ahead[2]):02}:{ahead[3] or '00'}"
    return next((_ZONES[word] for word in words_of(name) if word in ("utc", "gmt", "cet", "mez")), None)


def _said(candidate: _Candidate, sample: Sample) -> Iterator[Line]:
    for key, value in candidate.keys.items():
        is_named = "unit" not in candidate.keys or is_called_time(candidate.columns[0])
        why = candidate.why if key != "unit" else "by their size"
        yield Statement(key, value, "sure" if is_named else "likely", why)
    if candidate.written.doubt:
        yield Question(f"{candidate.written.doubt}: correct the format if it is the other way round")
    if candidate.written.format:
        sureness: Sureness = "a guess" if candidate.written.doubt else "sure"
        yield Statement("format", candidate.written.format, sureness, "all texts of the sample can be read so")
    if candidate.written.knows_zone:
        return
    named = candidate.written.zone or next(filter(None, map(_zone_in, candidate.columns)), None)
    told = next((line for line in sample.around if re.search(r"\b(UTC|GMT)\b", line)), None)
    if named:
        what = candidate.written.zone_name or "the column's name"
        yield Statement("zone", named, "likely", f"{what} says it")
    elif told is not None:
        yield Statement("zone", "UTC", "likely", f"the file says: {told.strip()[:60]}")
    else:
        yield Question("the files do not say which clock their times are of. Write its zone here in place of UTC, such "
                       "as Europe/Rome, or +01:00 for one that knows no summer time:")  # fmt: skip
        yield Statement("zone", "UTC", "a guess", "as nothing tells another")
