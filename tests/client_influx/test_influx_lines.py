"""Rows to line protocol and back; the fast way gives what the slow one gives."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam_client.influx import lines
from ionbeam_client.influx.fast_lines import Converter

names = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\\"), min_size=1, max_size=8)
texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
values = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), texts
)
rows = st.fixed_dictionaries(
    {
        "timestamp": st.integers(-(2**63) + 2, 2**63 - 2),
        "measurement": names.filter(lambda name: not name.startswith("#")),
        "tags": st.dictionaries(names, names, max_size=3),
        "fields": st.dictionaries(names, values, min_size=1, max_size=4),
    }
)


@given(rows)
def test_a_row_survives_its_line(row):
    found = lines.row_of(lines.line_of(row, {}))
    assert (found.measurement, found.tags, found.timestamp) == (row["measurement"], row["tags"], row["timestamp"])
    assert {name: (type(value), value) for name, value in found.fields.items()} == {
        name: (type(value), value) for name, value in row["fields"].items()
    }


@given(st.lists(rows, max_size=4), st.lists(st.integers(0, 3), max_size=40), st.data())
@settings(max_examples=150)
def test_the_fast_way_gives_the_same_lines(shapes, order, data):
    """Rows of a few shapes, with other values, in any order, with nulls and with broken rows among them."""
    raw, expected = [], []
    for place in order:
        if place >= len(shapes):
            raw.append(b'{"timestamp":1,"measu\n')
            expected.append(None)
            continue
        shape = shapes[place]
        same = {
            name: data.draw(
                st.one_of(st.none(), st.booleans() if type(value) is bool else st.integers(-(2**63), 2**63 - 1)
                          if type(value) is int else st.floats(allow_nan=False, allow_infinity=False)
                          if type(value) is float else texts)
            )
            for name, value in shape["fields"].items()
        }  # fmt: skip
        row = shape | {"fields": same, "timestamp": data.draw(st.integers(-(10**18), 10**18))}
        raw.append(orjson.dumps(row) + b"\n")
        try:
            expected.append(lines.line_of(row, {}).encode())
        except ValueError:
            expected.append(None)
    made, reasons = Converter({}).convert(raw)
    assert [_floats(line) for line in made] == [_floats(line) for line in expected]
    assert set(reasons) == {place for place, line in enumerate(made) if line is None}
    again, _ = Converter({}).convert(raw * 2)
    assert again == made * 2


def _floats(line):
    """Its row: 1e+16 and 1e16 are the same number."""
    return None if line is None else lines.row_of(line.decode())


@pytest.mark.parametrize("tags", [b'"a":1', b'"a"', b'"a":["b"]'])
def test_tags_that_are_none_in_a_row_that_looks_like_the_others_take_none_along(tags):
    good = b'{"timestamp":5,"measurement":"m","tags":{"a":"b"},"fields":{"f":1.5}}\n'
    converter = Converter({})
    for raw in ([good, good.replace(b'"a":"b"', tags), good], [good, good.replace(b'"a":"b"', tags)]):
        made, reasons = converter.convert(raw)
        assert (made[0], made[1], made[2:]) == (b"m,a=b f=1.5 5", None, [b"m,a=b f=1.5 5"] * (len(raw) - 2))
        assert reasons.keys() == {1}


def test_what_json_cannot_say_the_schema_says():
    schema = {"m": {"u": "unsigned", "f": "float"}}
    raw = [
        orjson.dumps({"timestamp": n, "measurement": m, "tags": {}, "fields": {"u": n, "f": n, "i": n}}) + b"\n"
        for n in (5, 6, -7, 2**60)
        for m in ("m", "n")
    ]
    made, _ = Converter(schema).convert(raw * 2)
    assert [line.decode() for line in made[:8]] == [
        "m u=5u,f=5.0,i=5i 5",
        "n u=5i,f=5i,i=5i 5",
        "m u=6u,f=6.0,i=6i 6",
        "n u=6i,f=6i,i=6i 6",
        "m u=-7i,f=-7.0,i=-7i -7",
        "n u=-7i,f=-7i,i=-7i -7",
        f"m u={2**60}u,f={2**60}i,i={2**60}i {2**60}",
        f"n u={2**60}i,f={2**60}i,i={2**60}i {2**60}",
    ]
    assert made[8:] == made[:8]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("m f=1 5", lines.Row("m", {}, {"f": 1.0}, 5)),
        ("m,a=b f=1i,g=t,h=FALSE  5", lines.Row("m", {"a": "b"}, {"f": 1, "g": True, "h": False}, 5)),
        (r"m\,\ x,a\=\ =\,b f=-1.5e-3 -5", lines.Row("m, x", {"a= ": ",b"}, {"f": -0.0015}, -5)),
        ('m s="a \\"b\\" \\\\ c,d=e f" 5', lines.Row("m", {}, {"s": 'a "b" \\ c,d=e f'}, 5)),
        ("m u=18446744073709551615u 5", lines.Row("m", {}, {"u": 2**64 - 1}, 5, frozenset({"u"}))),
    ],
)
def test_lines_are_read(line, row):
    assert lines.row_of(line) == row


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("m", "no measurement"), ("m,a= f=1 5", "tags cannot"), ("m f=1", "no time"), ("m f=1 x", "not a whole"),
        ("m f= 5", "fields cannot"), ("m f=1, 5", "fields cannot"), ("m f=1ii 5", "no value of line"),
        ('m f="x 5', "fields cannot"), ("m f=nan 5", "no value"), ("m,a f=1 5", "tags cannot"), ("", "no measurement"),
    ],
)  # fmt: skip
def test_what_is_no_line_is_said(line, says):
    with pytest.raises(ValueError, match=says):
        lines.row_of(line)


def test_texts_are_split_into_lines():
    text = '# comment "\nm s="a\nb" 1\r\n\n  \nm,a"b=c f"=1,g="\\"\n" 2\nm f="open 3'
    assert lines.split_lines(text) == ['m s="a\nb" 1', 'm,a"b=c f"=1,g="\\"\n" 2', 'm f="open 3']


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"measurement": "m", "fields": {"f": 1}}, "no timestamp"),
        ({"timestamp": 1, "measurement": "m", "fields": {}}, "no field with a value"),
        ({"timestamp": "1", "measurement": "m", "fields": {"f": 1}}, "not a whole number"),
        ({"timestamp": 1, "measurement": "m", "fields": {"f": [1]}}, "field f is"),
        ([1], "not an object"),
        ({"timestamp": 1, "measurement": 5, "fields": {"f": 1}}, "not an object"),
    ],
)
def test_what_is_no_row_is_said(row, says):
    with pytest.raises(ValueError, match=says):
        lines.line_of(row, {})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_exact(value):
    found = lines.row_of(lines.line_of({"timestamp": 1, "measurement": "m", "fields": {"f": value}}, {})).fields["f"]
    assert found == value
    assert math.copysign(1, found) == math.copysign(1, value)
