"""Line protocol: what is a line, and every line in one plain form.

Belongs here: the grammar, and bodies of requests. Does not belong here: which field is which variable (mapping.py).

A *plain* line has no escapes, no texts and one blank between its parts: nearly all lines are. Those are told by one
regular expression for all lines at once. The others are read one by one by line-protocol-parser, and written plain,
with a character of Unicode's private area in place of each that has a meaning in lines: of one range in names and tags,
where escapes are gone, of another in texts, which stay as they came, quotes and escapes too. So `as_sent` is the line
again as it came, but for needless escapes and blanks.

As InfluxDB has it, of a field that a line names twice the last value counts, and a tag twice is no line protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl
from line_protocol_parser import LineFormatError, parse_line

SCALES = {"ns": 1, "n": 1, "us": 1_000, "u": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
"""Nanoseconds of each precision that a client may name; m and h are InfluxDB 1's."""

_MEANING = ' ,="\\\n'
_PRIVATE = "".join(chr(0xE000 + place) for place in range(len(_MEANING)))
_PRIVATE_IN_TEXTS = "".join(chr(0xE010 + place) for place in range(len(_MEANING)))
_HIDE = str.maketrans(_MEANING, _PRIVATE)
_HIDE_TEXT = str.maketrans(_MEANING, _PRIVATE_IN_TEXTS)
_SHOW = dict(zip(_PRIVATE + _PRIVATE_IN_TEXTS, 2 * _MEANING, strict=True))
_ESCAPED = _SHOW | {_PRIVATE[_MEANING.index(sign)]: f"\\{sign}" for sign in " ,="}
_ESCAPED_IN_MEASUREMENT = _ESCAPED | {_PRIVATE[_MEANING.index("=")]: "="}

_WORD = rf'[^,\s"\\=#\x00-\x1f{_PRIVATE}{_PRIVATE_IN_TEXTS}]+'
_NUMBER = r"-?[0-9]{1,15}(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,2})?|-?[0-9]{1,18}i|[0-9]{1,18}u"
_VALUE = rf"(?:{_NUMBER}|[tTfF]|true|True|TRUE|false|False|FALSE)"
_PARTS = rf"{_WORD}(?:,{_WORD}={_WORD})* {_WORD}={_VALUE}(?:,{_WORD}={_VALUE})*"
_PLAIN = re.compile(rf"{_PARTS}(?: -?[0-9]{{1,19}})?")
_NUMERIC = re.compile(_VALUE)
_KEY, _TEXT = r"(?>\\[,= ]|[^,= ])++", r'"(?>\\["\\]|[^"])*+"'
_TAGS, _FIELDS = rf",({_KEY})=({_KEY})", rf',({_KEY})=({_TEXT}|[^," ]+)'
_SECTIONS = re.compile(rf"(?>\\[, ]|[^, ])++((?:{_TAGS})*+) +({_FIELDS[1:]}(?:{_FIELDS})*+)(?: +-?[0-9]+)?")
_ESCAPE = re.compile(r"\\([,= ])")
_FEW_BYTES = 1 << 14  # below, reading line by line is faster than having the expression compiled for all at once

_QUOTED = 80
_FARTHEST = 2**63 - 1


class BadLines(ValueError):
    """A body that is no line protocol. The message names the first line that is not, from 1, and why."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Lines:
    """Plain lines of one body, a newline between two, and how many there are."""

    text: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a line, how many tags it may have, and characters of its names and of the values of its tags."""

    longest: int = 65_536
    most_tags: int = 64
    longest_name: int | None = 255


NO_LIMITS = Limits(1 << 40, 1 << 20, None)
"""For lines that were taken before."""


def hidden(text: str) -> str:
    """A key or value of a line as plain lines have it."""
    return text.translate(_HIDE)


def shown(texts: pl.Expr) -> pl.Expr:
    """Keys, values or whole plain lines for people: what `hidden` replaced is there again."""
    return texts.str.replace_many(_SHOW)


def shown_text(text: str) -> str:
    """The same of one text."""
    return text.translate({ord(sign): meaning for sign, meaning in _SHOW.items()})


def as_sent(plain: pl.Expr) -> pl.Expr:
    """Whole plain lines as line protocol."""
    head, rest = plain.str.extract("^([^, ]*)"), plain.str.replace("^[^, ]*", "")
    return pl.concat_str(head.str.replace_many(_ESCAPED_IN_MEASUREMENT), rest.str.replace_many(_ESCAPED))


def read_again(lines: pl.Series) -> pl.Series:
    """Lines that `as_sent` wrote, each plain. Earlier versions kept lines plain, texts without quotes: there what is no
    number is a text."""
    try:
        found = read_lines("\n".join(lines.to_list()).encode(), "ns", NO_LIMITS)
    except BadLines:
        return lines.map_elements(_of_earlier_version, pl.String)
    return pl.Series(lines.name, found.text.decode().split("\n"), pl.String)


def _of_earlier_version(line: str) -> str:
    try:
        return _plain(line, 0, 1, NO_LIMITS)
    except BadLines:
        head, fields, *time = line.split(" ")
        return " ".join([head, ",".join(map(_typed, fields.split(","))), *time])


def _typed(field: str) -> str:
    key, _, value = field.partition("=")
    try:
        float(value.rstrip("iu"))
    except ValueError:
        if not _NUMERIC.fullmatch(value):
            text = shown_text(value).replace("\\", "\\\\").replace('"', '\\"')
            return key + "=" + f'"{text}"'.translate(_HIDE_TEXT)
    return field


def read_lines(body: bytes, precision: str, limits: Limits) -> Lines:
    """The lines of a body, all of them good; blank lines and comments are passed over. Raises BadLines."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadLines("is not UTF-8 text", body.count(b"\n", 0, error.start) + 1) from error
    scale = SCALES[precision]
    if len(text) <= _FEW_BYTES:
        lines = text.split("\n")
        kept = [plain for place, line in enumerate(lines, 1) if (plain := _plain(line, place, scale, limits))]
        return Lines("\n".join(kept).encode(), len(kept))
    given = pl.Series([text]).str.split("\n").explode()
    others = (~_easy(given, scale, limits)).arg_true()
    if others.is_empty():
        return Lines(body, len(given))
    rewritten = [
        _plain(line, place + 1, scale, limits) for place, line in zip(others, given.gather(others), strict=True)
    ]
    given = given.scatter(others, rewritten)
    kept = given.filter(given != "").to_list()
    return Lines("\n".join(kept).encode(), len(kept))


def _easy(given: pl.Series, scale: int, limits: Limits) -> pl.Series:
    """Which lines are plain and clearly within the limits; the others need a look of their own."""
    text, farthest = pl.col("x"), str(_FARTHEST // scale)
    # Of the latest times that can be, those that begin with the same digit need the look, too.
    time = rf"[0-9]{{1,{len(farthest) - 1}}}|[0-{int(farthest[0]) - 1}][0-9]{{{len(farthest) - 1}}}"
    good = (
        text.str.contains(rf"^{_PARTS}(?: -?(?:{time}))?$")
        & (text.str.len_bytes() <= limits.longest)
        & (text.str.count_matches(",", literal=True) <= limits.most_tags)
        & (text.str.extract_all("[^,= ]+=").list.n_unique() == text.str.count_matches("=", literal=True))
    )
    if limits.longest_name is not None:
        good &= ~text.str.contains(rf"[^,= ]{{{limits.longest_name + 1}}}")
    return given.to_frame("x").select(good.fill_null(False)).to_series()


def _plain(text: str, number: int, scale: int, limits: Limits) -> str:
    """A line made plain; empty where there is none. Raises BadLines."""
    if len(text.encode()) > limits.longest:
        raise BadLines(f"is longer than {limits.longest} bytes", number)
    plain = text if _PLAIN.fullmatch(text) else _rewritten(text.strip(), number)
    if not plain:
        return plain
    head, fields, *time = plain.split(" ")
    measurement, *tags = head.split(",")
    if len(tags) > limits.most_tags:
        raise BadLines(f"has more than {limits.most_tags} tags", number)
    of_tag, of_field = (dict(one.split("=", 1) for one in some) for some in (tags, fields.split(",")))
    if len(of_tag) < len(tags):
        raise BadLines(f"has a tag twice ({text[:_QUOTED]!r})", number)
    names = measurement, *of_tag, *of_tag.values(), *of_field
    if limits.longest_name is not None and max(map(len, names)) > limits.longest_name:
        raise BadLines(f"has a name or a tag of more than {limits.longest_name} characters", number)
    if len(of_field) <= fields.count(","):
        plain = " ".join([head, ",".join(f"{key}={value}" for key, value in of_field.items()), *time])
    if time and not -_FARTHEST // scale < int(time[0]) <= _FARTHEST // scale:
        raise BadLines(f"has a time that is out of range: {time[0]}", number)
    return plain


def _rewritten(text: str, number: int) -> str:
    if not text or text.startswith("#"):
        return ""
    if any(sign in text for sign in _SHOW) or "\0" in text:
        raise BadLines("has characters that stand for nothing (U+0000, U+E000 to U+E005, U+E010 to U+E015)", number)
    try:
        found = parse_line(text)
    except (LineFormatError, ValueError, OverflowError) as error:
        raise BadLines(f"{str(error).strip() or 'is no line protocol'} ({text[:_QUOTED]!r})", number) from error
    sections = _SECTIONS.fullmatch(text)
    tags, fields = (sections[1], f",{sections[4]}") if sections else ("", "")
    of_tag = [(_ESCAPE.sub(r"\1", key), _ESCAPE.sub(r"\1", value)) for key, value in re.findall(_TAGS, tags)]
    of_field = [(_ESCAPE.sub(r"\1", key), value) for key, value in re.findall(_FIELDS, fields)]
    if dict(of_tag) != found["tags"] or {key for key, _ in of_field} != found["fields"].keys():
        raise BadLines(f"is no line protocol ({text[:_QUOTED]!r})", number)
    head = "".join([hidden(found["measurement"]), *(f",{hidden(key)}={hidden(value)}" for key, value in of_tag)])
    fields = ",".join(f"{hidden(key)}={value.translate(_HIDE_TEXT)}" for key, value in of_field)
    plain = f"{head} {fields}" + ("" if found["time"] is None else f" {found['time']}")
    if any(ord(sign) < 32 for sign in plain):
        raise BadLines("has control characters", number)
    return plain
