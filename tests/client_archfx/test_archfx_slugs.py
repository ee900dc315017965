"""Ids of every kind and form: the specification's, round trips, what is refused, and the vendor's own answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vendor_seen import seen

from ionbeam_client.archfx.utils import gid, slugs
from ionbeam_client.archfx.utils.slugs import (
    ArchFxDeviceSlug,
    ArchFxParentSlug,
    ArchFxStreamerSlug,
    ArchFxStreamSlug,
    ArchFxVariableID,
)


def digits(bits: int) -> st.SearchStrategy[str]:
    """Every written form of an id without its type: short or full, in groups or not, upper or lower case."""

    def forms(number: int) -> list[str]:
        full = f"{number:0{bits // 4}x}"
        groups = "-".join(full[start : start + 4] for start in range(0, len(full), 4))
        short = groups
        while short.startswith("0000-"):
            short = short[5:]
        return [full, full.lstrip("0") or "0", groups, groups.upper(), short, short.lstrip("0") or "0"]

    return st.integers(0, 2**bits - 1).flatmap(lambda number: st.sampled_from(forms(number)))


def forms(bits: int, *types: str) -> st.SearchStrategy[int | str]:
    """Numbers and all texts of them, with and without a type."""
    typed = st.tuples(st.sampled_from(types), digits(bits)).map("--".join) if types else st.nothing()
    return st.integers(0, 2**bits - 1) | digits(bits) | typed


PARENTS = forms(32, "pl", "ps", "pa")
DEVICES = forms(64, "d", "m")
VARIABLES = forms(32) | st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
STARTS = st.none() | st.integers(0, 10**16 - 1)
STREAMS = st.tuples(
    st.sampled_from(["sl", "sa", "ss", "sd"]), st.just("") | digits(32), digits(64), digits(32)
).map("--".join)  # fmt: skip
GARBAGE = st.sampled_from(["", "-", "--", "g", "pl--", "d--x", "0x10", "1_0", " 1", "+1", "-1", "1-", "0001-90-", "٣"])


def test_the_forms_of_the_specification():
    assert str(ArchFxParentSlug(1, ptype="ps")) == "ps--0000-0001"
    assert str(ArchFxParentSlug("pa--1")) == "pa--0000-0001"
    machine = ArchFxDeviceSlug("d--0000-0001-0000-0001")
    for parent, device, text in [
        ("ps--0000-0001", None, "ss--0000-0001--0000-0000-0000-0000--0000-5051"),
        ("pa--0000-0001", "", "sa--0000-0001--0000-0000-0000-0000--0000-5051"),
        ("pl--0000-0001", 0, "sl--0000-0001--0000-0000-0000-0000--0000-5051"),
        ("pl--0000-0001", "d--0000-0000-0000-0001", "sl--0000-0001--0000-0000-0000-0001--0000-5051"),
        ("pl--0000-0001", machine, "sl--0000-0001--0000-0001-0000-0001--0000-5051"),
    ]:
        stream = ArchFxStreamSlug()
        stream.from_parts(parent, device, "0000-5051")
        assert str(stream) == text
        assert stream == ArchFxStreamSlug(text)
        assert stream.get_parts()["parent"] == parent
    assert stream.get_parts()["device_slug"] == str(machine)
    assert str(ArchFxStreamerSlug("d--1", 2)) == "t--0000-0000-0000-0001--0002"
    assert gid is slugs


@given(PARENTS, DEVICES, VARIABLES)
def test_an_id_is_equal_to_itself_in_any_form(parent, device, variable):
    for kind, given_form in [(ArchFxParentSlug, parent), (ArchFxDeviceSlug, device), (ArchFxVariableID, variable)]:
        one = kind(given_form)
        again = [kind(one), kind(str(one))]
        if kind is not ArchFxParentSlug:
            again.append(kind(one.get_id()))
        assert {one, *again} == {one}
        assert all(str(other) == str(one) and other.get_id() == one.get_id() for other in again)
        assert one != str(one)


@given(PARENTS | st.none(), DEVICES | st.none(), VARIABLES, STARTS)
def test_a_stream_is_what_its_parts_are(parent, device, variable, start):
    stream = ArchFxStreamSlug()
    stream.from_parts(parent, device, variable, start)
    assert ArchFxStreamSlug(str(stream)) == stream
    parts = stream.get_parts()
    again = ArchFxStreamSlug()
    again.from_parts(
        parts["parent"] if parent is not None else None, parts["device_slug"], parts["variable"], parts["start"]
    )
    assert again == stream and hash(again) == hash(stream)


@given(
    st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), None]),
    st.datetimes(datetime(1970, 1, 2), datetime(2286, 11, 1)),
)
def test_the_start_of_a_stream_is_exact_to_the_microsecond(zone, moment):
    stream = ArchFxStreamSlug()
    stream.from_parts("pl--1", 1, 1, moment.replace(tzinfo=zone))
    since = timedelta(microseconds=int(stream.get_parts()["start"]))
    assert datetime(1970, 1, 1, tzinfo=UTC) + since == moment.replace(tzinfo=zone or UTC)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ArchFxParentSlug(2**32),
        lambda: ArchFxParentSlug(-1),
        lambda: ArchFxParentSlug("d--0001"),
        lambda: ArchFxParentSlug(1, ptype="d"),
        lambda: ArchFxParentSlug(None),
        lambda: ArchFxDeviceSlug(2**64),
        lambda: ArchFxDeviceSlug(2**48, allow_64bits=False),
        lambda: ArchFxDeviceSlug("b--0001"),
        lambda: ArchFxDeviceSlug("0001-90"),  # 0000-0000-0000-0190 to the vendor's, which joins all digits
        lambda: ArchFxDeviceSlug("d--12--34"),  # ... and here, too
        lambda: ArchFxDeviceSlug(True),
        lambda: ArchFxDeviceSlug(1.0),
        lambda: ArchFxVariableID("0000--0001"),
        lambda: ArchFxVariableID((1, 2**16)),
        lambda: ArchFxVariableID(("1", "90")),
        lambda: ArchFxVariableID((1,)),
        lambda: ArchFxStreamSlug("zz--0000-0001--0001--0001"),
        lambda: ArchFxStreamSlug("sl--0000-0001--0001"),
        lambda: ArchFxStreamSlug("sl--0000-0001----0001"),
        lambda: ArchFxStreamSlug("sl--1--1--1--x"),
        lambda: ArchFxStreamSlug(5),
        lambda: ArchFxStreamSlug().from_parts(1, 1, 1, start=10**16),
        lambda: ArchFxStreamSlug().from_parts(1, 1, 1, start=-1),
        lambda: ArchFxStreamSlug().from_parts(1, 1, 1, start=datetime(1969, 12, 31, tzinfo=UTC)),
        lambda: ArchFxStreamSlug().get_parts(),
        lambda: ArchFxStreamSlug("sl--1--1--1").get_id(),
        lambda: ArchFxStreamerSlug(1, 2**16),
        lambda: ArchFxStreamerSlug(1, -1),
        lambda: ArchFxStreamerSlug(None, 1),
    ],
)
def test_what_is_no_id_is_refused(make):
    with pytest.raises(ValueError):
        make()


@given(GARBAGE)
def test_text_that_is_no_id_is_refused_by_all(text):
    for kind in (ArchFxParentSlug, ArchFxDeviceSlug, ArchFxVariableID):
        with pytest.raises(ValueError):
            kind(text)


KINDS = st.one_of(
    st.tuples(st.just("ArchFxParentSlug"), PARENTS),
    st.tuples(st.just("ArchFxParentSlug"), PARENTS, st.sampled_from(["pl", "ps", "pa"])),
    st.tuples(st.just("ArchFxDeviceSlug"), DEVICES),
    st.tuples(st.just("ArchFxDeviceSlug"), forms(48, "d", "m"), st.just(False)),
    st.tuples(st.just("ArchFxVariableID"), VARIABLES),
    st.tuples(st.just("ArchFxStreamSlug"), STREAMS),
    st.tuples(st.just("ArchFxStreamSlug"), STREAMS.map(lambda text: f"{text}--1611100800100000")),
    st.tuples(st.just("ArchFxStreamerSlug"), DEVICES, st.integers(0, 0xFFFF)),
)


def without_our_own(told: dict) -> dict:
    """Of a stream: not the key that we add, nor the parts of one without a parent, at which the vendor's fails."""
    if told["get_parts"] is not None:
        told["get_parts"].pop("device_slug", None)
    if told["stype"] == "sd":
        told["get_parts"] = None
    return told


@given(KINDS)
def test_the_vendors_ids_are_the_same(vendor, call):
    kind, *arguments = call
    ours = seen(getattr(slugs, kind)(*arguments))
    assert without_our_own(ours) == without_our_own(vendor("slug", *call))


@given(st.tuples(st.none() | st.just("") | PARENTS, st.none() | st.just("") | DEVICES, VARIABLES, STARTS))
def test_the_vendors_streams_are_the_same(vendor, parts):
    stream = ArchFxStreamSlug()
    stream.from_parts(*parts)
    assert without_our_own(seen(stream)) == without_our_own(vendor("stream", *parts))
