"""What comes from outside is text wherever a person looks at it."""

from __future__ import annotations

import polars as pl
import pytest
from hostile import HOSTILE
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ionbeam_client.text import markdown, visible
from ionbeam_dagster.orchestration.metadata import _preview, table

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


def test_what_is_harmless_is_not_changed():
    for text in (
        "Oslo - Blindern",
        "air_temperature__degC__2.0__point__PT0S",
        "2026-06-21 00:00:00+00:00",
        "Ærø (54.9)",
    ):
        assert markdown(text) == text == visible(text)
