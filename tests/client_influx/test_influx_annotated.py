"""Annotated CSV becomes the lines that InfluxData's own csv2lp makes of it."""

from __future__ import annotations

import csv
import io
import subprocess
from pathlib import Path

import pytest
from backends import Missing, _installed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ionbeam_client.influx.annotated import read_lines


@pytest.fixture(scope="session")
def csv2lp(tmp_path_factory):
    """What the `influx` command makes of a text: its lines, without the rows it cannot read, and how many those are."""
    try:
        binary = _installed("influx")
    except Missing as missing:
        pytest.skip(missing.reason)
    place: Path = tmp_path_factory.mktemp("csv2lp") / "in.csv"

    def convert(text: str) -> tuple[list[str], int]:
        place.write_bytes(text.encode())
        command = [binary, "write", "dryrun", "--skipRowOnError", "-f", place]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        errors = [line for line in done.stderr.splitlines() if " line " in line and "WARNING" not in line]
        return [line for line in done.stdout.split("\n") if line], len(errors)

    return convert


def ours(text: str) -> tuple[list[str], int]:
    found = list(read_lines(io.StringIO(text, newline="")))
    lines = "\n".join(line for _, line, _ in found if line is not None)
    return [line for line in lines.split("\n") if line], sum(line is None for _, line, _ in found)


CORPUS = {
    "the specification": """#datatype measurement,tag,long,dateTime:number
measurement,station,pps_offset,timestamp
pps,KP,0,1617672549204824064
""",
    "a flux result": """#group,false,false,true,true,false,false,true,true,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string,string
#default,_result,,,,,,,,,
,result,table,_start,_stop,_time,_value,_field,_measurement,cpu,host
,,0,2020-02-25T22:17:54.068926364Z,2020-02-25T22:22:54Z,2020-02-25T22:17:57Z,0,time_steal,cpu,cpu1,rsavage.prod
,,0,2020-02-25T22:17:54Z,2020-02-25T22:22:54Z,2020-02-25T22:18:07.5+02:00,1e3,steal,cpu,cpu1,rsavage.prod

#group,false,false,true,true,false,false,true,true,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,boolean,string,string,string,string
#default,_result,,,,,,,,,
,result,table,_start,_stop,_time,_value,_field,_measurement,cpu,host
,,1,2020-02-25T22:17:54Z,2020-02-25T22:22:54Z,2020-02-25T22:18:01Z,true,up,cpu,cpu-total,
""",
    "types in the header": """m|measurement,cpu|tag,host|tag,steal|double,usage|double|5,no|ignored,t|dateTime:number
cpu,cpu1,rsavage prod,0,2.7,a,1482669077000000000
cpu,cpu1,"a,b=c",0,,a,1482669087000000000
""",
    "defaults": """#datatype measurement,tag,string,double,boolean,long,unsignedLong,duration,dateTime
#default test,annotatedDatatypes,,,,,,
m,name,s,d,b,l,ul,dur,time
,,str1,1.0,true,1,1,1ms,1
,,"st""r\\2",2.50,false,2,2,2us,2020-01-11T10:10:10Z
,x y,,,,,,1h2m3.5s,
,,,,,,,,
""",
    "constants, a time zone, formats": """#constant measurement,test
#constant tag,name,datetypeFormats
#timezone -0500
t|dateTime:2006-01-02|1970-01-02,"d|double:,. ","b|boolean:y,Y:n,N|y"
1970-01-01,"123.456,78",
,"123 456,78",Y
1970-01-03,"1,2,3",n
1970-01-03,"1,2",maybe
""",
    "another separator": """sep=;
m|measurement;available|boolean:y,Y:|n;dt|dateTime:number
test;nil;1
test;N;2
test;";";3
test;;4
test;Y;5
""",
    "concatenated": """#datatype measurement,string,string,long,dateTime:number
#concat,string,full,${first} and ${last}
#concat measurement,${m}_x
m,first,last,n,time
a,b,c,1,1
a,,c,2,2
""",
    "a column that is concatenated, and is not there": """#concat,string,full,${nothing}
m|measurement,n|long
a,1
a,2
""",
    "numbers": """m|measurement,l|long,u|unsignedLong,s|long:strict,d|double,t|dateTime:number
a,1.9,2.1,3,1_000.5,1
a,1 000,+5,3.0,1e400,1
a,9223372036854775807,18446744073709551615,-1,1e22,1
a,9223372036854775808,1,1,1,1
a,,,,0x1p-2,1
a,,,,-0.0,1
a,,,,.5,1
a,,,,5.,-1
a,,,,inf,1
a,x,1,1,1,1
a,1,-1,1,1,1
a,1,1,1,1,1.5
""",
    "types that are not there": """m|measurement,l|number
a,1
a,2
""",
    "two tables, and one of them with more columns than its rows": """#datatype measurement,tag,long
m,t,l
a,b,1
#datatype measurement,tag,double,field,base64Binary
m,t,d,f,b
a,b
a,b,1
a,b,1,"""
    '"text",aGVsbG8='
    """
a,b,1,5u,nope!
""",
    "comments and unknown annotations": """# a comment
#unknown,1,2
#datatypes,1,2
#DATATYPE measurement,long
m,l
# another
a,1
#constant,tag,late,yes
a,2
""",
    "carriage returns and line breaks": '#datatype measurement,string,long\r\nm,s,l\r\na,"x\ny",1\r\n\r\na,z,2\r\n',
    "no measurement": "a|long,b|tag\n1,2\n",
    "the same tag twice": "m|measurement,t|tag,t|tag,l|long\na,b,c,1\n",
    "reserved labels": "_measurement,_time,_field,_value|double,x|tag\nm,5,f,1.5,y\nm,5,,1.5,y\nm,5,f,,y\n",
    "nothing": "",
    "a header alone": "m|measurement,l|long\n",
    "months and half days": """m|measurement,l|long,"t|dateTime:Jan 2, 2006 at 3:04pm (MST)"
a,1,"Feb 3, 2013 at 7:54pm (UTC)"
a,2,"Feb 30, 2013 at 7:54pm (UTC)"
a,3,"feb 3, 2013 at 12:54am (UTC)"
""",
}
LAYOUTS = {
    "2006-01-02 15:04:05": [
        "2020-02-29 23:59:59",
        "2020-02-29 3:59:59.123456789",
        "2021-02-29 00:00:00",
        "2020-2-9 0:00:00",
    ],
    "2006-01-02T15:04:05.000Z07:00": [
        "2020-01-01T00:00:00.123+01:30",
        "2020-01-01T00:00:00.1Z",
        "2020-01-01T00:00:00.123Z",
    ],
    "2006-01-02T15:04:05.999Z0700": [
        "2020-01-01T00:00:00.123456-0130",
        "2020-01-01T00:00:00Z",
        "2020-01-01T00:00:00+2500",
    ],
    "02/01/06 03:04:05 PM": [
        "29/02/20 12:00:00 AM",
        "29/02/20 12:00:00 PM",
        "01/01/70 01:02:03 PM",
        "1/1/70 01:02:03 PM",
    ],
    "Mon Jan _2 15:04:05 -0700 2006": ["Tue Feb  4 01:02:03 -0800 2020", "Tue Feb 14 01:02:03 +0000 2020"],
    "Monday, 02-January-2006 15:04:05": ["Tuesday, 04-February-2020 01:02:03", "someday, 04-February-2020 01:02:03"],
    "2006.002 15h04": ["2020.366 10h30", "2021.366 10h30"],
    "20060102150405": ["20200229235959", "20200229235960", "20200229235959,5"],
}


@pytest.mark.parametrize("name", CORPUS)
def test_the_same_lines(csv2lp, name):
    assert ours(CORPUS[name]) == csv2lp(CORPUS[name])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("zone", ["", "#timezone,+0530\n", "#timezone America/New_York\n"])
def test_the_same_times(csv2lp, layout, zone):
    for text in LAYOUTS[layout]:
        file = f'{zone}m|measurement,l|long,"t|dateTime:{layout}"\na,1,"{text}"\n'
        assert ours(file) == csv2lp(file), text


def test_a_wrong_row_is_told_with_its_line_and_its_column():
    text = '#datatype measurement,long\nm,"l"\na,1\n\na,"x\ny"\n'
    assert [found for found in read_lines(io.StringIO(text, newline="")) if found[1] is None] == [
        (6, None, "column 'l': 'x\\ny' is no whole number between -9223372036854775808 and 9223372036854775807")
    ]


label = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, blacklist_characters="#|\x7f"), min_size=1, max_size=5
)
cells = {
    "measurement": label, "tag": st.one_of(st.just(""), label), "string": st.text("ab \"\\,=é\n", max_size=5),
    "double": st.one_of(st.floats(allow_nan=False).map(repr), st.sampled_from(["", "1_0", "1 0.5", "x"])),
    "long": st.one_of(st.integers(-(2**64), 2**64).map(str), st.sampled_from(["", "1.5", "+7", "1_000"])),
    "unsignedLong": st.one_of(st.integers(-2, 2**64 + 2).map(str), st.sampled_from(["", "1.5"])),
    "boolean": st.sampled_from(["t", "False", "0", "", "yes", "maybe"]), "ignored": label,
    "duration": st.sampled_from(["1h", "-2m3.5s", "", "5", "1.5us", "0", "3µs"]),
    "dateTime": st.one_of(st.integers(-(2**63), 2**63 - 1).map(str), st.datetimes().map(lambda t: t.isoformat() + "Z")),
    "dateTime:number": st.integers(-(2**63), 2**63 - 1).map(str), "field": st.sampled_from(["1i", '"text"', "", "t"]),
    "long:strict": st.sampled_from(["1", "1.0", ""]), "double:,.": st.sampled_from(["1.000,5", "2", ""]),
}  # fmt: skip


@st.composite
def tables(draw) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for _ in range(draw(st.integers(1, 3))):
        kinds = draw(st.lists(st.sampled_from(sorted(cells)), min_size=1, max_size=6))
        kinds = ["measurement", *kinds] if draw(st.integers(0, 9)) else kinds
        annotated = [f"#datatype {kinds[0]}", *kinds[1:]]
        if any("\n" in kind for kind in kinds):
            continue
        writer.writerow(annotated)
        if draw(st.booleans()):
            writer.writerow([f"#default {draw(label)}", *(draw(st.one_of(st.just(""), label)) for _ in kinds[1:])])
        if draw(st.booleans()):
            writer.writerow(
                ["#constant", draw(st.sampled_from(["tag", "long", "string", "measurement"])), draw(label), draw(label)]
            )
        writer.writerow([draw(label) for _ in kinds])
        for _ in range(draw(st.integers(0, 4))):
            writer.writerow([draw(cells[kind]) for kind in kinds][: draw(st.sampled_from([99, 99, 1, 2]))])
    return out.getvalue()


def _years_of_influxdb(text: str) -> bool:
    """Times outside of 1678 to 2261 wrap around in csv2lp; we say that they cannot be stored."""
    return not any(
        len(cell) > 10 and cell[4:5] == "-" and cell[-1:] == "Z" and not "1678" <= cell[:4] <= "2261"
        for row in csv.reader(io.StringIO(text, newline="")) for cell in row
    )  # fmt: skip


@given(tables().filter(_years_of_influxdb))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_the_same_lines_of_any_file(csv2lp, text):
    assert ours(text) == csv2lp(text)
