"""The page ``/heard``: which stations fell silent, a source after the other, with a picture of each.

Belongs here: its HTML, in which everything from outside is text, and which asks for nothing outside of itself. Does not
belong here: what is silent (domain/silence.py), or what each number is called (heard_words.py); nothing is brought up
to date for who looks.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape

import polars as pl

from ionbeam_client.text import visible
from ionbeam_dagster.domain.silence import Told
from ionbeam_dagster.health.heard_words import (
    OF_A_STATION,
    doubted,
    how_late,
    named,
    of_a_station,
    percent,
    rows_of_a_day,
)
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline.lately import lately
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import Found

log = logging.getLogger(__name__)
_SHOWN = 50
_WORST = 20
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2937; max-width: 62rem; margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; border-top: 1px solid #e5e7eb; padding-top: 1rem }
img { max-width: 100%; height: auto } p { margin: .3rem 0 } .trouble { color: #b91c1c; font-weight: 600 }
.well { color: #0f766e } table { border-collapse: collapse; margin: .6rem 0; font-size: .86rem }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid #e5e7eb; vertical-align: top }
td { overflow-wrap: anywhere } th { color: #6b7280; font-weight: 500 }
"""


class HeardPage:
    """Answers with status, type and body; a picture is drawn once for what it shows."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._drawn: dict[str, tuple[Found | None, str]] = {}

    def __call__(self) -> tuple[int, str, bytes]:
        parts = [part for source in self._platform.config.sources for part in self._of(source)]
        title = "Which stations fell silent"
        return 200, "text/html; charset=utf-8", page(title, parts).encode()

    def _of(self, source: str) -> Iterator[str]:
        yield f"<h2>{text(source)}</h2>"
        stamp = self._platform.heard.stamp(source)
        found = self._platform.heard.told(source)
        if found is None:
            yield "<p>Nobody has looked yet, or nothing was heard: <code>ionbeam heard</code> looks now.</p>"
            return
        silent = found.silent
        kind = "trouble" if silent.height else "well"
        yield f'<p class="{kind}">{silent.height:,} of {found.heard:,} stations fell silent</p>'
        yield from (f"<p>{text(line)}</p>" for line in self._lines(source, found))
        yield self._picture(source, stamp, found)
        if silent.height:
            yield _stations(silent.head(_SHOWN))
            if silent.height > _SHOWN:
                yield f"<p>and {silent.height - _SHOWN:,} more: <code>ionbeam heard {text(source)}</code></p>"
        worst = found.stations.filter(~pl.col("silent") & ((pl.col("completeness") < 0.9) | (pl.col("set_aside") > 0)))
        if worst.height:
            yield f"<p>{worst.height:,} others of which less than 90 % of a day came, or rows were set aside:</p>"
            yield _stations(worst.sort("completeness", "station", nulls_last=False).head(_WORST))

    def _lines(self, source: str, found: Told) -> Iterator[str]:
        until = f"Until {found.until:%Y-%m-%d %H:%M} UTC."
        if not can_ask_ledger(self._platform):
            yield until
            return
        of_it = lately(self._platform, self._platform.source(source), self._platform.now())
        share = "" if of_it.completeness is None else f" {percent(of_it.completeness)} of it was collected."
        yield f"{until} {rows_of_a_day(of_it)}.{share}"
        if late := how_late(of_it):
            yield f"{late.capitalize()}."
        if found.judged:
            yield f"{doubted(found)} of values are doubted{named(found.tests)}."
        if found.aside.height:
            yield f"Set aside{named(found.aside)}."

    def _picture(self, source: str, stamp: Found | None, found: Told) -> str:
        known = self._drawn.get(source)
        if known is None or known[0] != stamp:
            known = self._drawn[source] = stamp, picture(source, found)
        return known[1]


def picture(source: str, found: Told) -> str:
    """An image that stands in the page itself; nothing where it cannot be drawn."""
    try:
        from ionbeam_dagster.pictures.heard import heard_picture

        drawn = b64encode(heard_picture(source, found)).decode()
    except Exception as error:  # whatever it is: what it shows stands beside it in words
        log.warning("what was heard of %s cannot be drawn: %s", source, error)
        return ""
    shows = f"Map of the stations of {source}, those that fell silent in red; rows and lateness of a week"
    return f'<img width="900" height="420" alt="{text(shows)}" src="data:image/png;base64,{drawn}">'


def page(title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width='
        f'device-width, initial-scale=1"><title>{text(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><h1>{text(title)}</h1>\n{body}\n</body></html>\n"
    )


def text(said: object) -> str:
    """Whatever comes from outside, as text of HTML."""
    return escape(visible(str(said)))


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{text(one)}</th>" for one in headings)
    lines = ("".join(f"<td>{text(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _stations(stations: pl.DataFrame) -> str:
    return table(OF_A_STATION, (of_a_station(row) for row in stations.iter_rows(named=True)))
