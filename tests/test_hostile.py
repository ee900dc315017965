"""What comes from outside is text wherever a person looks at it."""

from __future__ import annotations

import csv
import io
import re
from types import SimpleNamespace

import polars as pl
import pytest
from hostile import HOSTILE
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from ionbeam_client.influx.export import _from
from ionbeam_client.text import markdown, visible
from ionbeam_dagster.edr.answers import harmless
from ionbeam_dagster.orchestration.metadata import _preview, table
from ionbeam_dagster.pictures.canvas import Canvas
from ionbeam_dagster.pictures.ground import png

TEXTS = st.one_of(st.text(), st.lists(st.sampled_from("`|\\\\![]()<>\\n*_~#:/ax@"), max_size=30).map("".join))


def live_parts(source: str) -> list[str]:
    """Whatever a renderer would make more than text of, and the texts that Dagster's UI would make links of."""
    found = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source):
        found += ["html"] if token.type == "html_block" else []
        for part in token.children or ():
            if part.type in ("image", "link_open", "html_inline"):
                found.append(part.type)
            if part.type == "text" and ("://" in part.content or "www." in part.content.lower()):
                found.append(part.content)
    return found


def cells(source: str) -> int:
    tokens = MarkdownIt("commonmark").enable("table").parse(source)
    return sum(token.type == "td_open" for token in tokens)


@given(TEXTS)
@example("a\\\\|b")
def test_a_cell_of_a_table_is_text_whatever_is_in_it(text):
    source = table(["name", "other"], [[text, "end"]])
    assert live_parts(source) == [] and cells(source) == 2
    assert live_parts(f"- {markdown(text)}") == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text_in_dagsters_ui_and_in_terminals(text):
    source = table([text, "other"], [[text, "end"]])
    assert live_parts(source) == [] and cells(source) == 2
    assert visible(text).isprintable()


def test_a_station_whose_name_is_an_image_is_shown_as_its_name(tmp_path):
    path = tmp_path / "window.parquet"
    names = [name for name in HOSTILE if name != "\ud800"]
    pl.DataFrame({"station_id": names}).write_parquet(path)
    assert live_parts(_preview(path)) == []
    assert "![x](https://evil.example/beacon.png)" in _preview(path)


FORMULAS = ["+1+cmd|' /C calc'!A0", "\t=1+1", "@SUM(1)", "-2+3"]


@pytest.mark.parametrize("text", [*HOSTILE[:-1], *FORMULAS])
def test_a_cell_of_a_csv_is_no_formula_and_comes_back(text):
    written = harmless(pl.DataFrame({"station_id": [text, "-7", "+4.5"], "t": [-1.0, 2.0, 3.0]})).write_csv()
    back = list(csv.reader(io.StringIO(written, newline="")))
    assert back[0] == ["station_id", "t"] and [row[1] for row in back[1:]] == ["-1.0", "2.0", "3.0"]
    assert not back[1][0].strip().startswith(("=", "+", "-", "@"))
    assert back[1][0] in (text, f"'{text}") and [row[0] for row in back[2:]] == ["-7", "+4.5"]


@pytest.mark.parametrize("text", [*(name for name in HOSTILE if name not in ("\ud800", "\x00")), "$x^2$", "$\\frac{$"])
def test_a_label_of_a_picture_is_text(text):
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.text(0.1, 0.5, text)
    assert png(figure).startswith(b"\x89PNG")
    assert not figure.texts[0].get_parse_math()


@pytest.mark.parametrize("text", [*HOSTILE, "long" * 10_000])
def test_words_on_a_canvas_are_text_in_one_line(text):
    canvas = Canvas()
    for anchor in ("ls", "ms", "rm", "mt"):
        canvas.write(0.5, 0.5, text, anchor=anchor)
    assert canvas.png().startswith(b"\x89PNG")
    assert all(words.isprintable() for words in canvas.words)


@pytest.mark.parametrize("name", [*HOSTILE[:-1], "a${1+1}", 'b"c'])
def test_a_bucket_is_no_expression_of_flux(name):
    text = _from(SimpleNamespace(bucket=name), 0, 1)
    assert re.fullmatch(r'from\(bucket: "(?:[^"\\$]|\\.|\$(?!\{))*"\) \|> range\(start: [^|]*\)', text, re.DOTALL)


def test_what_is_harmless_is_not_changed():
    for text in (
        "Oslo - Blindern",
        "air_temperature__degC__2.0__point__PT0S",
        "2026-06-21 00:00:00+00:00",
        "Ærø (54.9)",
    ):
        assert markdown(text) == text == visible(text)
