"""Line protocol, sequence numbers and the journal: the pure parts of the HTTP door."""

from __future__ import annotations

import os
from io import FileIO
from threading import Thread

import numpy as np
import polars as pl
import pytest
from door_samples import wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from influxdb_client import Point
from line_protocol_parser import parse_line

from ionbeam_dagster.doors.http.journal import Frame, Journal, frames
from ionbeam_dagster.doors.http.lines import BadLines, Limits, Lines, as_sent, read_again, read_lines, shown, shown_text
from ionbeam_dagster.doors.http.sequences import Seen
from ionbeam_dagster.errors import StoreError

TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co", "Zl", "Zp")),
    min_size=1,
    max_size=8,
)  # fmt: skip
NAME = TEXT.filter(lambda text: text.strip() == text and not text.startswith(("#", '"')) and "\\" not in text)
FIELD = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-1e15, max_value=1e15),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    TEXT,
)


def parts(plain: bytes) -> dict:
    """A plain line taken apart at its signs, as the mapping does it, and shown."""
    head, fields, *time = plain.decode().split(" ")
    measurement, *tags = head.split(",")
    return {
        "measurement": shown_text(measurement),
        "tags": {shown_text(k): shown_text(v) for k, v in (tag.split("=") for tag in tags)},
        "fields": {shown_text(k): shown_text(v) for k, v in (one.split("=") for one in fields.split(","))},
        "time": int(time[0]) if time else None,
    }


@given(
    NAME,
    st.dictionaries(NAME, NAME, max_size=3),
    st.dictionaries(NAME, FIELD, min_size=1, max_size=4),
    st.none() | st.integers(-(2**62), 2**62),
    st.integers(1, 300),
)
@settings(max_examples=150)
def test_what_the_official_client_writes_is_read_whole(measurement, tags, fields, time, copies):
    point = Point(measurement)
    for key, value in tags.items():
        point.tag(key, value)
    for key, value in fields.items():
        point.field(key, value)
    line = point.time(time).to_line_protocol() if time is not None else point.to_line_protocol()
    expected = parse_line(line)
    lines = read_lines("\n".join([line] * copies).encode(), "ns", Limits())  # few, and so many that all go at once
    assert lines.count == copies
    found = parts(lines.text.split(b"\n")[-1])
    assert (found["measurement"], found["tags"], found["time"]) == (measurement, tags, time)
    assert found["fields"].keys() == expected["fields"].keys()
    for key, value in fields.items():
        text = found["fields"][key]
        if isinstance(value, bool):
            assert text.lower() in ("true" if value else "false", "t" if value else "f")
        elif isinstance(value, str):
            assert text[0] == text[-1] == '"' and text[1:-1].replace('\\"', '"').replace("\\\\", "\\") == value
        else:
            assert float(text.rstrip("i")) == pytest.approx(float(value))


@given(st.lists(st.text(alphabet='ab=, "\\#1.ie-tu', max_size=24), min_size=1, max_size=4), st.booleans())
@settings(max_examples=400)
def test_a_body_is_read_alike_few_lines_or_many_and_never_with_another_error(texts, many):
    body = "\n".join(texts)
    more = ("\n" + "x a=1 1\n" * 3_000).rstrip("\n")
    outcomes = []
    for given_body in (body, body + more):
        try:
            outcomes.append(
                read_lines(given_body.encode(), "s", Limits()).text.decode().removesuffix(more.strip()).strip()
            )
        except BadLines as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_what_stands_for_a_sign_is_shown_as_the_sign():
    lines = read_lines(b'my\\ weather,a=x\\,y t="so, so = \\"so\\""', "ns", Limits())
    text = pl.DataFrame({"x": [lines.text.decode()]}).select(shown(pl.col("x"))).item()
    assert text == r'my weather,a=x,y t="so, so = \"so\""'


def again(lines):
    """Lines as they are written when they are parked."""
    text = pl.DataFrame({"x": lines.text.decode().split("\n")})
    return text.select(as_sent(pl.col("x"))).to_series().to_list()


SENT = [
    "weather,station=roof temperature=20.50,count=7i,sum=8u,wet=T,dry=false 5",
    r'my\ we\,ather=x,sta\=tion\ a=ro\,of,b=c"d te\ mp=1e3,note="21.5",other="a, b = \"c\\\\ d\" # e",z=-0 -5',
    r"a\b,c\d=e\f g\h=1",
    'a,b=é°C x="°, \U0001f600"',
]


def test_what_was_read_is_written_again_as_it_came():
    body = "\n".join(SENT)
    read = read_lines(body.encode(), "ns", Limits())
    assert again(read) == SENT
    assert read_again(pl.Series(SENT)).to_list() == read.text.decode().split("\n")


@given(
    NAME,
    st.dictionaries(NAME, NAME, max_size=3),
    st.dictionaries(NAME, FIELD, min_size=1, max_size=4),
)
@settings(max_examples=150)
def test_what_is_written_again_means_the_same(measurement, tags, fields):
    point = Point(measurement)
    for key, value in tags.items():
        point.tag(key, value)
    for key, value in fields.items():
        point.field(key, value)
    line = point.to_line_protocol()
    [written] = again(read_lines(line.encode(), "ns", Limits()))
    assert parse_line(written) == parse_line(line)


def test_what_was_taken_once_is_read_again_whatever_its_lengths():
    endless = [f"m,{'n' * 60_000}={'v' * 60_000} a=1 1"] * 3
    assert read_again(pl.Series(endless)).to_list() == endless


def test_what_an_earlier_version_parked_is_read():
    hidden_blank = chr(0xE000)
    kept = pl.Series(["a,b=c d=hot,e=5,f=True 1", f"my{hidden_blank}a d=so{hidden_blank}so,e=1e+16,g=7 2"])
    assert again(Lines("\n".join(read_again(kept)).encode(), 2)) == [
        'a,b=c d="hot",e=5,f=True 1', r'my\ a d="so so",e=1e+16,g=7 2'
    ]  # fmt: skip


@pytest.mark.parametrize("copies", [1, 3_000])  # few, and so many that all go at once
def test_a_name_twice_is_what_influxdb_makes_of_it(copies):
    more = "\nx a=1" * copies
    read = read_lines(f"m,t=1 x=1,y=2,x=3 5\nm x=a,x=1{more}".replace("x=a", 'x="a"').encode(), "ns", Limits())
    assert read.text.decode().split("\n")[:2] == ["m,t=1 x=3,y=2 5", "m x=1"]
    assert read_lines(f"m,x=1 x=2{more}".encode(), "ns", Limits()).text.startswith(b"m,x=1 x=2\n")
    for line in ("m,b=1,a=1,b=2 x=1", "m,b=1,b=1 x=1"):
        with pytest.raises(BadLines, match=r"line 2: .*a tag twice \('m,b"):
            read_lines(f"m x=1\n{line}{more}".encode(), "ns", Limits())


@pytest.mark.parametrize("copies", [1, 3_000])
@pytest.mark.parametrize("line", ["{},a=b x=1", "m,{}=b x=1", "m,a={} x=1", "m,a=b {}=1", 'm,a=b {}="y z"'])
def test_names_and_tags_may_not_be_endless(line, copies):
    more = "\nx a=1" * copies
    assert read_lines((line.format("n" * 255) + more).encode(), "ns", Limits()).count == copies + 1
    with pytest.raises(BadLines, match="line 1: has a name or a tag of more than 255 characters"):
        read_lines((line.format("n" * 256) + more).encode(), "ns", Limits())


NUMBERS = st.lists(st.integers(0, 40) | st.integers(2**64 - 5, 2**64 - 1), max_size=30)


@given(st.lists(NUMBERS, max_size=6))
@settings(max_examples=300)
def test_numbers_are_seen_once_whatever_their_order(batches):
    seen, known = Seen(), set()
    for batch in batches:
        new = seen.new(np.array(batch, np.uint64))
        expected = []
        for number in batch:
            expected.append(number == 0 or number not in known)
            known.add(number)
        assert new.tolist() == expected
        seen = Seen.from_bytes(seen.with_(np.array(batch, np.uint64)).to_bytes())
    assert seen.highest == max(known - {0}, default=0)
    assert len(seen.first) == sum(1 for n in known - {0} if n - 1 not in known - {0})


def test_a_million_numbers_with_gaps_take_a_few_kilobytes():
    numbers = np.arange(1, 1_000_001, dtype=np.uint64)
    kept = Seen().with_(numbers[np.arange(len(numbers)) % 1_000 != 7]).to_bytes()
    assert len(kept) < 4_000 and int((~Seen.from_bytes(kept).new(numbers)).sum()) == 999_000


# --- the journal ------------------------------------------------------------------------------------------------------


def test_a_frame_that_was_cut_off_ends_its_file_and_one_damaged_within_is_told(tmp_path):
    journal = Journal(tmp_path)
    for number in range(3):
        journal.add(Frame("garden", number, 1, body=b"a b=%d" % number))
    [path] = tmp_path.glob("*.journal")
    whole = path.read_bytes()
    bodies = [frame.body for frame in frames(path) if frame.source]
    assert bodies == [b"a b=0", b"a b=1", b"a b=2"]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        found = [frame.body for frame in frames(path) if frame.source]
        assert found == bodies[: len(found)] and len(found) < 3
    for old, new in (
        (b"a b=1", b"a b=7"), (b'"source"', b'"sourcf"'), (b'"lines": 1', b'"lines": "'),
        (b'"lines": 1', b'"linet": 1'), (b'"bytes": 5', b'"bytes": -5'), (b'"bytes": 5', b'"bytes": []'),
        (b'"device": null', b'"device": 7'),
    ):  # fmt: skip
        path.write_bytes(whole.replace(old, new, 2))
        with pytest.raises(StoreError, match=r"is damaged at byte \d+"):
            list(frames(path))
    journal.close()


def test_one_process_writes_a_journal(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(BlockingIOError, match="another process"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_a_sync_that_failed_takes_back_what_it_should_have_kept(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.add(Frame("garden", 1, 1, body=b"a b=1"))
    real = os.fdatasync
    monkeypatch.setattr("os.fdatasync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "I/O error")))
    with pytest.raises(OSError, match="I/O error"):
        journal.add(Frame("garden", 2, 1, body=b"a b=2"))
    monkeypatch.setattr("os.fdatasync", real)
    journal.add(Frame("garden", 3, 1, body=b"a b=3"))
    journal.close()
    kept = [frame.body for path in sorted(tmp_path.glob("*.journal")) for frame in frames(path) if frame.source]
    assert kept == [b"a b=1", b"a b=3"]


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_file_that_cannot_be_closed_well_ends_no_request_that_waits_for_it_with_another_error(
    tmp_path, monkeypatch, call
):
    failing, answers = set(), []

    class Disk(FileIO):
        def write(self, data):
            if "write" in failing:
                raise OSError(28, "No space left on device")
            return super().write(data)

    def synced(descriptor):
        if "fdatasync" in failing:
            raise OSError(5, "I/O error")

    def brought():
        try:
            answers.append(journal.add(Frame("garden", 1, 1, body=b"a b=1")))
        except Exception as error:
            answers.append(error)

    monkeypatch.setattr("ionbeam_dagster.doors.http.journal.FileIO", Disk)
    monkeypatch.setattr("os.fdatasync", synced)
    journal = Journal(tmp_path)
    request = Thread(target=brought)
    with journal._syncing:
        request.start()
        wait_for(lambda: journal.lines)
        with journal._writing:  # the request waits to be synced, and the file is closed first
            failing.add(call)
            with pytest.raises(OSError, match=r"No space|I/O error"):
                journal._finish()
            failing.clear()
    request.join(20)
    journal.add(Frame("garden", 2, 1, body=b"a b=2"))
    journal.close()
    kept = [frame.body for path in sorted(tmp_path.glob("*.journal")) for frame in frames(path) if frame.source]
    if call == "write":
        assert answers == [None] and kept == [b"a b=1", b"a b=2"]
    else:
        assert [type(answer) for answer in answers] == [OSError] and kept == [b"a b=2"]
