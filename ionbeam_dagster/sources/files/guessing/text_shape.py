"""How the lines of a text are written: comments, separator, header, units, where the rows begin.

Belongs here: what follows from the look of lines, whatever stands in them. Does not belong here: what the columns are
(times.py, stations.py, columns.py), and finding the lines (looking.py).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ionbeam_client.cf import UnitError, suggest_unit, unit
from ionbeam_dagster.domain.raw_values import NO_VALUE
from ionbeam_dagster.domain.usual_names import method_called
from ionbeam_dagster.sources.files.guessing.statements import Statement
from ionbeam_dagster.sources.files.readers import Unreadable
from ionbeam_dagster.sources.files.written import BLANKS

_COMMENTS = ("#", "%", "!", "//")
_SEPARATORS = ("\t", "|", ";", ",", BLANKS)
_CALLED = {"\t": "tabs", "|": "bars", ";": "semicolons", ",": "commas", BLANKS: "blanks"}
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_TIME_LIKE = re.compile(
    r"(?=.*\d.*[-:/.T]\s?\d)[\d\-:/. +TZ]+([aApP]\.?[mM]?\.?|[A-Z]{2,4})?|\d{1,2}[- ][A-Za-z]{3}[- ]\d{2,4}.*"
)
_DECIMAL_COMMA, _DECIMAL_POINT = re.compile(r"[+-]?\d+,\d+"), re.compile(r"[+-]?\d*\.\d+")
_NEARLY_UNITS = ("ts", "rn", "degt", "°", "utc")  # a logger's time stamp and number of the record, true degrees
_MAY_BE_UNIT = re.compile(r"(?:0?\.0*1 ?)?[A-Za-zµ%°º℃℉]|[1-]$")
_USED_FOR_SEPARATOR = 400
_INVENTED = "column_{}"


@dataclass(slots=True)
class TextShape:
    """How a text is written, and the cells of its rows. `units` and `methods` are what lines below the names say of
    columns; `around` are the comments, and the lines above the rows."""

    separator: str
    names: list[str]
    rows: list[list[str]]
    statements: list[Statement]
    units: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    around: list[str] = field(default_factory=list)
    names_are_invented: bool = False
    decimal: str = "."


def shape_of(head: Sequence[str], tail: Sequence[str]) -> TextShape:
    """The shape of a text with these first and last lines. Raises Unreadable where it is no table."""
    mark = _comment_mark(head)
    body = [line for line in head if line.strip() and not (mark and line.startswith(mark))]
    separator, width = _separator(body[-_USED_FOR_SEPARATOR:] or list(head))
    cells = {number: split(line, separator) for number, line in enumerate(head, 1) if _is_row(line, mark)}
    return shape_of_cells(head, cells, [split(line, separator) for line in tail if _is_row(line, mark)],
                          width, separator, mark)  # fmt: skip


def shape_of_cells(
    head: Sequence[str],
    cells: dict[int, list[str]],
    last: list[list[str]],
    width: int,
    separator: str,
    mark: str | None,
) -> TextShape:
    """The shape of a table whose lines, by number from 1, have these cells."""
    first = _first_row(cells, width)
    padded = _padded(cells, width, first)
    above = [number for number in cells if number < first]
    around = [line for number, line in enumerate(head, 1) if number < first or (mark and line.startswith(mark))]
    least = min(2, width)  # a title has one
    named = [number for number in above
             if len(cells[number]) == width and sum(bool(cell.strip()) for cell in cells[number]) >= least]  # fmt: skip
    found = _names(named, cells, [] if mark is None else _cells_of_comments(around, mark, separator, width))
    names = found.names or [_INVENTED.format(place + 1) for place in range(width)]
    blank = [number for number, line in enumerate(head, 1) if number < first and not line.strip()]
    written: list[Statement] = []
    if separator != ",":
        why = f"the sample has {width} columns in each line, which {_CALLED[separator]} divide"
        written.append(Statement("separator", separator, "sure", why))
    if mark is not None:
        written.append(
            Statement("comment", mark, "sure", f"{sum(line.startswith(mark) for line in head)} lines begin so")
        )
    written += _header(found, [*above, *blank], names, padded)
    rows = [row for number, row in cells.items() if number >= first and len(row) == width]
    rows += [row for row in last if len(row) == width]
    shape = TextShape(separator, names, rows, written, around=around, names_are_invented=found.names is None)
    if separator != "," and _has_decimal_commas(rows):
        shape.decimal = ","
        written.append(Statement("decimal", ",", "sure", "numbers are written with a comma"))
    shape.units = dict(zip(names, found.units, strict=False)) if found.units else {}
    shape.methods = dict(zip(names, found.methods, strict=False)) if found.methods else {}
    return shape


def split(line: str, separator: str) -> list[str]:
    if separator == BLANKS:
        line, separator = re.sub(r"[ \t]+", " ", line.strip()), " "
    return next(csv.reader([line], delimiter=separator), [])


def is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in NO_VALUE


def _is_row(line: str, mark: str | None) -> bool:
    return bool(line.strip()) and not (mark and line.startswith(mark))


def _comment_mark(lines: Sequence[str]) -> str | None:
    begin = next((mark for mark in _COMMENTS if any(line.startswith(mark) for line in lines[:100])), None)
    if begin is None or all(line.startswith(begin) for line in lines if line.strip()):
        return None
    return begin


def _separator(lines: Sequence[str]) -> tuple[str, int]:
    """What divides the cells, and how many a row has. Raises Unreadable."""
    for separator in _SEPARATORS:
        counts = Counter(len(split(line, separator)) for line in lines)
        width, often = counts.most_common(1)[0]
        if width > 1 and often >= 0.6 * len(lines):
            return separator, width
    for separator in _SEPARATORS:  # a few rows under many lines of other things
        width, often = Counter(len(split(line, separator)) for line in lines[len(lines) // 2 :]).most_common(1)[0]
        if width > 1 and often >= 0.6 * (len(lines) - len(lines) // 2):
            return separator, width
    raise Unreadable("is no table: no separator divides its lines into the same number of columns")


def _looks_like_a_value(cell: str) -> bool:
    cell = cell.strip()
    return is_number(cell) or _TIME_LIKE.fullmatch(cell) is not None


def _first_row(cells: dict[int, list[str]], width: int) -> int:
    """The line of the first row: the first that has values where the later ones have."""
    whole = {number: row for number, row in cells.items() if len(row) == width}
    later = list(whole.values())[len(whole) // 2 :]
    of_values = [
        place
        for place in range(width)
        if 2 * sum(_looks_like_a_value(row[place]) for row in later) > sum(not is_missing(row[place]) for row in later)
    ]
    if not of_values:
        raise Unreadable("is no table: no column has numbers or times")
    for number, row in whole.items():
        given = [place for place in of_values if not is_missing(row[place])]
        if 2 * sum(_looks_like_a_value(row[place]) for place in given) > len(given):
            return number
    return next(iter(list(whole)[1:]), 1)


@dataclass(slots=True)
class _Names:
    """Where the names of columns stand: in a `line`, in two, in a comment, or nowhere."""

    names: list[str] | None
    lines: tuple[int, ...] = ()
    in_comment: bool = False
    units: list[str] | None = None
    methods: list[str] | None = None


def _names(named: list[int], cells: dict[int, list[str]], comments: list[list[str]]) -> _Names:
    if not named:
        if not comments:
            return _Names(None)
        *_, names = [row for row in comments if not _are_units(row)] or comments
        units = comments[-1] if _are_units(comments[-1]) else None
        return _Names([cell.strip() for cell in names], in_comment=True, units=units)
    # From below: units and methods stand between the names and the rows, and other things above the names.
    *above, line = named
    below: list[list[str]] = []
    while above and (_are_units(cells[line]) or _are_methods(cells[line])):
        below.append(cells[line])
        *above, line = above
    texts = [cell.strip() for cell in cells[line]]
    lines: tuple[int, ...] = (line,)
    if above and above[-1] == line - 1 and _completes([cell.strip() for cell in cells[above[-1]]], texts):
        texts = [" ".join(f"{one.strip()} {two}".split()) for one, two in zip(cells[above[-1]], texts, strict=True)]
        lines = (above[-1], line)
    units = next((row for row in below if _are_units(row)), None)
    methods = next((row for row in below if _are_methods(row)), None)
    return _Names(texts, lines, units=units, methods=methods)


def _completes(above: Sequence[str], below: Sequence[str]) -> bool:
    """Whether the words of a line belong to those of the line above it: names in two lines have gaps in the first."""
    return any(not cell for cell in above[1:]) and sum(bool(cell.strip()) for cell in below) > sum(map(bool, above))


def _header(found: _Names, above: list[int], names: list[str], padded: bool) -> list[Statement]:
    skipped = sorted({*above})
    if found.names is not None and len(found.lines) == 1 and len({*names}) == len(names) and not padded:
        line = found.lines[0]
        before = [number for number in skipped if number < line]
        behind = [number for number in skipped if number > line]
        stated = [Statement("header", line, "sure", f"line {line} has the names")] if before else []
        what = "units" if found.units else "no rows"
        return stated + ([Statement("skip", behind, "sure", f"above the first row, {what}")] if behind else [])
    why = "no line has names: these are invented, write better ones"
    if found.in_comment:
        why = "the names stand in a comment"
    elif len(found.lines) == 2:
        why = "the names stand in two lines"
    elif padded:
        why = "the rows have one cell more than the line with the names"
    elif found.names is not None:
        why = "two columns have one name in the file: these are told apart"
    names[:] = _told_apart(names)
    sureness = "a guess" if found.names is None else "sure"
    stated = [Statement("names", names, sureness, why)]  # type: ignore[arg-type]
    return stated + ([Statement("skip", skipped, "sure", "above the first row")] if skipped else [])


def _padded(cells: dict[int, list[str]], width: int, first: int) -> bool:
    """Give the names a cell more where the rows have one: names of rows before them, or a separator at their ends."""
    rows = [row for number, row in cells.items() if number >= first and len(row) == width]
    short = [number for number in cells if number < first and len(cells[number]) == width - 1]
    if width < 3 or not short or any(len(cells[number]) == width for number in cells if number < first):
        return False
    at_ends = all(not row[-1].strip() for row in rows)
    for number in short:
        cells[number] = [*cells[number], ""] if at_ends else ["row", *cells[number]]
    return True


def _told_apart(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    apart = []
    for name in names:
        seen[name] += 1
        apart.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return apart


def _cells_of_comments(lines: Sequence[str], mark: str, separator: str, width: int) -> list[list[str]]:
    """The comments with as many cells as a row, of those that stand together last."""
    found: list[list[str]] = []
    for line in [line for line in lines if line.startswith(mark)]:
        cells = split(line.removeprefix(mark).lstrip(mark), separator)
        if len(cells) == width and not any(_NUMBER.fullmatch(cell.strip()) for cell in cells):
            found.append(cells)
        elif line.removeprefix(mark).strip():
            found = []
    return found


def _are_units(cells: Sequence[str]) -> bool:
    given = [cell.strip() for cell in cells if cell.strip()]
    return bool(given) and 2 * sum(map(is_unit, given)) >= len(given)


def is_unit(text: str) -> bool:
    """Whether a text is a unit, also as loggers spell it, or in brackets."""
    text = text.strip().strip("[]()").strip()
    if not _MAY_BE_UNIT.match(text):
        return False
    if suggest_unit(text):
        return True
    try:
        unit(text)
    except UnitError:
        return text.lower() in _NEARLY_UNITS
    return True


def _are_methods(cells: Sequence[str]) -> bool:
    given = [cell.strip() for cell in cells if cell.strip()]
    return bool(given) and all(method_called(cell) for cell in given)


def _has_decimal_commas(rows: Sequence[Sequence[str]]) -> bool:
    given = [cell.strip() for row in rows for cell in row]
    commas = sum(_DECIMAL_COMMA.fullmatch(cell) is not None for cell in given)
    return commas > sum(_DECIMAL_POINT.fullmatch(cell) is not None for cell in given)
