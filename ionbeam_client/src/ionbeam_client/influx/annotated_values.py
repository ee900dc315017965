"""Texts of annotated CSV to values of line protocol, by their data type and its format.

Belongs here: one value. Does not belong here: which column has which type (annotated.py), and times in layouts of their
own (layouts.py). Source: the documentation of InfluxData's csv2lp, "CSV Data On Input".
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import UTC, tzinfo
from decimal import Decimal

from ionbeam_client.influx.layouts import read_duration, read_time
from ionbeam_client.influx.lines import escape_text

_RFC3339 = "2006-01-02T15:04:05Z07:00"
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_HEX_NUMBER = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?\d+", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NATURAL = re.compile(r"\d+", re.ASCII)


def parser(kind: str, form: str, zone: tzinfo | None) -> Callable[[str], str]:
    """What makes line protocol of a column's texts; it raises ValueError for one that is no such value.

    `zone` is that of times that have none of their own; None is UTC.
    """
    if kind == "string":
        return lambda value: f'"{escape_text(value)}"'
    if kind == "double":
        return lambda value: _double(_normal(value, form)[0])
    if kind == "long":
        return lambda value: f"{_integer(value, form, _INTEGER, -(2**63), 2**63 - 1)}i"
    if kind == "unsignedLong":
        return lambda value: f"{_integer(value, form, _NATURAL, 0, 2**64 - 1)}u"
    if kind == "boolean":
        return _boolean(form)
    if kind == "dateTime":
        return lambda value: str(time_of(value, form, zone or UTC))
    if kind == "duration":
        return lambda value: f"{read_duration(value)}i"
    if kind == "base64Binary":
        return _base64
    if kind:
        return _no_such_type(kind)
    return lambda value: value


def _no_such_type(kind: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        raise ValueError(f"there is no data type {kind!r}")

    return parse


def _normal(value: str, form: str, whole: bool = False) -> tuple[str, bool]:
    """A number as programs write it; and whether its fraction was cut off, which `whole` asks for.

    The first character of the format separates the fraction, the others are left out.
    """
    form = form or ". \n\t\r_"
    for character in form[1:]:
        value = value.replace(character, "")
    if whole and form[0] in value:
        return value.partition(form[0])[0], True
    return value.replace(form[0], "."), False


def _integer(value: str, form: str, pattern: re.Pattern[str], least: int, most: int) -> int:
    strict = form.startswith("strict")
    text, cut = _normal(value, form.removeprefix("strict"), whole=True)
    if strict and cut:
        raise ValueError(f"{value!r} has a fraction")
    if not pattern.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(f"{value!r} is no whole number between {least} and {most}")
    return int(text)


def _double(text: str) -> str:
    if _HEX_NUMBER.fullmatch(text):
        number = float.fromhex(text)
    elif _NUMBER.fullmatch(text):
        number = float(text)
    else:
        raise ValueError(f"{text!r} is not a number")
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is too large for a float")
    return format(Decimal(repr(number)), "f").removesuffix(".0")


def _boolean(form: str) -> Callable[[str], str]:
    if not form:
        return _boolean_by_first_character
    if ":" not in form:
        raise ValueError(f"the format of booleans is {form!r}; it has to look like yes,true:no,false")
    true, _, false = form.partition(":")
    truthy, falsy = (part.split(",") if part else [] for part in (true, false))

    def parse(value: str) -> str:
        if value in falsy:
            return "false"
        if value in truthy:
            return "true"
        if not falsy:
            return "false"
        if not truthy:
            return "true"
        raise ValueError(f"{value!r} is neither one of {truthy} nor one of {falsy}")

    return parse


def _boolean_by_first_character(value: str) -> str:
    if value[0] in "tTyY1":
        return "true"
    if value[0] in "fFnN0":
        return "false"
    raise ValueError(f"{value!r} does not begin with one of t, f, 0, 1, y, n")


def time_of(value: str, form: str, zone: tzinfo) -> int:
    """Nanoseconds since 1970; raises ValueError."""
    if form in ("", "number"):
        if _INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63:
            return int(value)
        if form:
            raise ValueError(f"{value!r} is not a whole number")
    layout = _RFC3339 if form in ("", "RFC3339", "RFC3339Nano") else form
    found = read_time(value, layout, zone)
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"{value!r} lies outside of what InfluxDB stores, 1677 to 2262")
    return found


def _base64(value: str) -> str:
    try:
        return base64.b64encode(base64.b64decode(value, validate=True)).decode()
    except binascii.Error as error:
        raise ValueError(f"{value!r} is not base64: {error}") from None
