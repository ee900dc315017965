"""Arrays cut into items: whatever the items, the white space and the pieces in which the bytes come."""

import itertools
import json
import re
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ionbeam_client.datastore import APICompatibilityError, stream
from ionbeam_client.datastore.stream import ArraySplitter, IncompleteArrayError
from ionbeam_client.reported_errors import reported_error

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('{}[],:"\\'), max_size=12).filter(
    lambda text: text not in ("Infinity", "-Infinity", "NaN")
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arrays = st.lists(
    st.dictionaries(texts, values, max_size=4).filter(lambda item: reported_error([item], "time") is None), max_size=8
)
spaces = st.sampled_from(["", " ", "\n", " \r\n\t"])


def split(document, cuts, splitter=None):
    splitter = splitter or ArraySplitter()
    items = []
    places = [0, *sorted(cut % (len(document) + 1) for cut in cuts), len(document)]
    for begin, end in itertools.pairwise(places):
        items += splitter.feed(document[begin:end])
    return items + splitter.close()


@given(arrays, spaces, st.booleans(), st.lists(st.integers(0, 10_000), max_size=12))
@example([{"a": [{"a": 1}, {"a": 2}]}], "", False, list(range(40)))
@example([{"a": '},{"a":'}, {"a": "]"}], " ", True, list(range(40)))
def test_all_items_come_out_whatever_the_pieces(array, space, ascii_only, cuts):
    separators = (f"{space},{space}", f"{space}:{space}")
    document = space + json.dumps(array, separators=separators, ensure_ascii=ascii_only) + space
    assert split(document.encode(), cuts) == array


@given(arrays.filter(len), st.lists(st.integers(0, 10_000), max_size=6), st.integers(0, 10_000))
def test_another_splitter_goes_on_from_the_position(array, cuts, broken_at):
    document = json.dumps(array).encode()
    first = ArraySplitter()
    had = first.feed(document[: broken_at % len(document)])
    assert first.checksum == zlib.crc32(document[: first.position])
    second = ArraySplitter(first.position, first.checksum)
    assert had + split(document[first.position :], cuts, second) == array


@given(arrays, st.integers(0, 10_000))
def test_an_array_that_has_not_ended_is_never_taken_for_a_whole_one(array, cut):
    document = json.dumps(array).encode()
    splitter = ArraySplitter()
    had = splitter.feed(document[: cut % len(document)])
    with pytest.raises(IncompleteArrayError):
        splitter.close()
    rest = ArraySplitter(splitter.position, splitter.checksum)
    assert had + split(document[splitter.position :], [5], rest) == array


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("<!DOCTYPE html>", "<!DOCTYPE"),
        ('{"detail": "gone"}', "detail"),
        ('[{"a": NaN}]', "not valid JSON"),
        ('[{"a": 1}, {"a": Infinity}]', "not valid JSON"),
        ('[{"a": 1}{"a": 2}]', "not valid JSON"),
        ('[{"a": 1},]', "not valid JSON"),
        ('[{"a": 1}] more', "more"),
        ('[{"a": 1}]]', "]"),
        ("[] []", "[]"),
        ("[1, 2]", "1"),
        ('[{"a": 1}, 2, {"a": 3}]', "2"),
        ('["text"]', "text"),
        ('[[{"a": 1}]]', "[{"),
        ('[{"a": "\\x"}]', "not valid JSON"),
        ('[{"time": "t"}, {"error": "boom"}]', 'reports an error among its items: {"error": "boom"}'),
        ('[{"time": "t"}, {"error": "boom", "code": 500}]', '"boom", "code": 500'),
        ('[{"detail": "boom", "code": 500}, {"time": "t"}]', "boom"),
        ('[{"timestamp": "t", "status": 500, "error": "boom"}]', "boom"),
    ],
)
def test_what_is_no_array_of_objects_is_told(document, said):
    with pytest.raises(APICompatibilityError, match=re.escape(said)):
        split(document.encode(), [])
    with pytest.raises(APICompatibilityError):
        split(document.encode(), range(len(document)))


def test_an_item_with_a_time_may_have_a_field_of_any_name():
    array = [{"time": "t", "message": "pump on", "error": 0.5}, {"a": 1}]
    assert split(json.dumps(array).encode(), [7]) == array


def test_text_that_is_not_utf_8_is_told():
    with pytest.raises(APICompatibilityError, match="not valid JSON"):
        split(b'[{"a": "\xff\xfe"}]', [])


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":1},{"a":['], ids=["arrays", "objects", "mixed"])
def test_what_is_too_deep_is_told_and_takes_no_memory(opening):
    tracemalloc.start()
    with pytest.raises(APICompatibilityError, match="in one another"):
        split(b"[" + opening * 300_000, [])
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_an_item_without_an_end_is_told(monkeypatch):
    monkeypatch.setattr(stream, "_LARGEST_ITEM", 3 << 20)
    splitter = stream.ArraySplitter()
    splitter.feed(b'[{"a": 1}, {"a": "')
    with pytest.raises(APICompatibilityError, match="without the end"):
        for _ in range(10):
            splitter.feed(b"a" * (1 << 20))


def test_values_that_are_no_numbers_are_missing():
    array = [{"a": "Infinity", "b": "-Infinity", "c": "NaN", "d": "To Infinity", "e": 1}, {"a": 2.5}]
    expected = [{"a": None, "b": None, "c": None, "d": "To Infinity", "e": 1}, {"a": 2.5}]
    assert split(json.dumps(array).encode(), []) == expected


def test_an_item_of_any_size_comes_out(monkeypatch):
    monkeypatch.setattr(stream, "_MOST_PENDING", 1000)
    array = [{"a": 1}, {"a": [{"b": i} for i in range(500)]}, {"a": "Infinity"}, {"a": 4}]
    document = json.dumps(array).encode()
    assert split(document, range(0, len(document), 100)) == [*array[:2], {"a": None}, {"a": 4}]
    with pytest.raises(IncompleteArrayError):
        split(document[:-1], range(0, len(document) - 1, 100))
    with pytest.raises(APICompatibilityError, match="not valid JSON"):
        split(document[:-1] + b",}]", range(0, len(document), 100))
