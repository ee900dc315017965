"""ODB-2 files against ECMWF's own decoders (codc, and the odc command), against IFS, and against bad input."""

import json
import math
import resource
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import codc
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import published_export
from pydantic import ValidationError

from ionbeam_client import cf
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.quality.plan import quality_fields
from ionbeam_dagster.errors import ExportError
from ionbeam_dagster.exporters.odb import OdbCycleExporter, OdbExporter, reading, writing
from ionbeam_dagster.exporters.odb.encoder import Encoder
from ionbeam_dagster.exporters.odb.reading import OdbError, describe_odb, odc_command
from ionbeam_dagster.exporters.odb.settings import OdbCodes, OdbSettings, VariableMapping
from ionbeam_dagster.exporters.odb.tables import (
    COLUMNS,
    DEFAULT_RULES,
    OWN_COLUMNS,
    REPORT_TYPES,
    STANDARD_GRAVITY,
    VARNOS,
)

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")  # in codc, with pandas 3

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
ABOUT = {
    "dataset": "crowd",
    "window_start": "2026-06-21T12:00:00Z",
    "window_end": "2026-06-21T13:00:00Z",
    "revision": 3,
    "inputs": "5f2a",
    "software": "ionbeam-dagster 0.1.0",
    "coverage": 1.0,
}
IFS_SAMPLE = Path(__file__).parents[2] / "../shared/data/odb/ifs_synop_feedback.odb"

T2M = "air_temperature__degC__2.0__point__PT0S"
RH2M = "relative_humidity__%__2.0__point__PT0S"
PS = "surface_air_pressure__hPa__0.0__point__PT0S"
PMSL = "air_pressure_at_mean_sea_level__hPa__0.0__point__PT0S"
RAIN = "precipitation_amount__mm__0.0__sum__PT5M"
FF = "wind_speed__km h-1__10.0__mean__PT10M"


def schema_of(names, described=("station_id", "altitude"), dtypes=None):
    variables = [CanonicalVariable.from_canonical_name(n, dtype=(dtypes or {}).get(n, "float64")) for n in names]
    ingestion = DataIngestionMap(
        canonical_variables=variables, metadata_variables=[MetadataVariable(column=column) for column in described]
    )
    return canonical_schema([IngestionMetadata(dataset=DatasetMetadata(name="crowd"), ingestion_map=ingestion)])


def dataset(folder, columns, *, about=ABOUT, name="window.parquet"):
    """A dataset file with these columns; those of every dataset have defaults (one station in Cologne)."""
    rows = len(next(iter(columns.values())))
    described = [column for column in columns if "__" not in column and column not in ("datetime", "lat", "lon")]
    schema = schema_of([column for column in columns if "__" in column], described)
    filled = {"datetime": [NOON + timedelta(minutes=5 * row) for row in range(rows)]} | columns
    filled = {"lat": [50.94] * rows, "lon": [6.96] * rows} | filled
    table = pa.table({field.name: pa.array(filled[field.name], field.type) for field in schema}, schema=schema)
    path = folder / name
    pq.write_table(table.replace_schema_metadata({b"ionbeam": json.dumps(about).encode()}), path)
    return path


def rows_of(path):
    """What codc reads, rows in their order."""
    reader = codc.Reader(str(path), aggregated=False)
    frames = [frame.dataframe() for frame in reader.frames]
    return pl.concat([pl.from_pandas(frame) for frame in frames], how="vertical_relaxed")


def by_odc(path, select):
    command = [odc_command(), "sql", "-T", "--no_alignment", "-delimiter", ",", "-i", str(path), select]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def exported(folder, columns, exporter=None, **options):
    target = folder / "out" / "window.odb"
    report = published_export(exporter or OdbExporter(), dataset(folder, columns, **options), target)
    return target, report


def test_values_arrive_in_the_units_and_places_of_the_tables(tmp_path):
    target, report = exported(
        tmp_path,
        {
            T2M: [20.1, 20.3],
            RH2M: [57.0, 58.0],
            PS: [1000.2, 1000.1],
            PMSL: [1013.2, 1013.1],
            FF: [36.0, 18.0],
            "station_id": ["aws-1", "aws-1"],
            "altitude": ["146", "146"],
        },
    )
    rows = rows_of(target)
    assert rows["varno@body"].to_list() == [39, 58, 107, 108, 110, 110, 112] * 2
    first = rows["seqno@hdr"][0]
    assert rows["entryno@body"].to_list() == [*range(1, 8)] * 2
    assert rows["seqno@hdr"].to_list() == [first] * 7 + [first + 1] * 7
    earlier = [293.25, 0.57, 100020, 101320, 100020, 101320, 10]
    expected = np.float32([*earlier, 293.45, 0.58, 100010, 101310, 100010, 101310, 5])
    assert np.array_equal(rows["obsvalue@body"].to_numpy().astype(np.float32), expected)
    assert rows["date@hdr"].unique().to_list() == [20260621]
    assert rows["time@hdr"].to_list() == [120000] * 7 + [120500] * 7
    assert (rows["statid@hdr"].unique().to_list(), rows["stalt@hdr"].unique().to_list()) == (["   aws-1"], [146.0])
    assert rows["vertco_type@body"].to_list() == [2, 1, 2, 2, 2, 2, 2] * 2
    assert rows["ppcode@conv_body"].to_list() == [1, 1, 1, 0, 1, 0, 1] * 2
    height = np.float32(146 * STANDARD_GRAVITY)
    references = [[height, pressure, height, 0.0, height, 0.0, height] for pressure in (100020.0, 100010.0)]
    assert rows["vertco_reference_1@body"].to_list() == [*references[0], *references[1]]
    assert rows["source@hdr"].unique().to_list() == ["crowd"]
    codes = by_odc(
        target,
        "select distinct datum_status.active, class, stream, expver, type, reportype, codetype, obstype, groupid, "
        "andate, antime, lat, lon where report_status.active = 1",
    )
    assert codes == ["1,2,1025,'    xxxx',264,16090,179,1,17,20260621,120000,50.939999,6.960000"]
    assert by_odc(target, "select varno, count(*) where varno = 58") == ["58,2.000000"]
    assert (report.rows, report.stations) == (14, 1)
    assert report.read_back["read by"] == "odc sql" and report.read_back["varnos"]["58 rh2m"]["rows"] == 2
    assert report.read_back["varnos"]["58 rh2m"]["mean"] == pytest.approx(0.575)
    assert report.plan.mapped[RH2M] == "odb varno 58 (rh2m, 1)" and report.plan.left_out == {}


def test_a_rain_amount_comes_with_its_hours(tmp_path):
    target, report = exported(tmp_path, {RAIN: [0.2, None, 1.4]})
    rows = rows_of(target)
    assert rows["varno@body"].to_list() == [79, 80, 79, 80]
    assert rows["obsvalue@body"].to_list() == [np.float32(x) for x in (5 / 60, 0.2, 5 / 60, 1.4)]
    assert report.plan.mapped[RAIN] == "odb varno 80 (rr, kg m-2), its 0.0833 h as varno 79 (trtr, h)"


def test_a_missing_value_has_no_row_and_a_missing_height_no_vertical_coordinate(tmp_path):
    values = {T2M: [1.0, None, float("nan"), 1e60], RH2M: [None, None, 40.0, 50.0]}
    target, report = exported(tmp_path, values | {"altitude": ["12 m", None, "nan", "1e3"]})
    rows = rows_of(target)
    assert rows.select("varno@body", "time@hdr").rows() == [(39, 120000), (58, 121000), (58, 121500)]
    assert (rows["seqno@hdr"] - rows["seqno@hdr"][0]).to_list() == [0, 1, 2]
    nulls = by_odc(target, "select stalt, vertco_type, vertco_reference_1 where stalt is null")
    assert nulls == ["NULL,NULL,NULL"] * 2
    assert by_odc(target, "select vertco_reference_1 where stalt is not null") == ["9806.650391"]
    assert report.read_back["values beyond REAL"] == 1 and report.read_back["reports"] == 3


@pytest.mark.parametrize(
    ("moment", "cycle"),
    [
        (datetime(2026, 2, 28, 20, 59, 59, tzinfo=UTC), (20260228, 180000)),
        (datetime(2026, 2, 28, 21, 0, 0, 999_999, tzinfo=UTC), (20260228, 180000)),
        (datetime(2026, 2, 28, 21, 0, 1, tzinfo=UTC), (20260301, 0)),
        (datetime(2026, 3, 1, 2, 59, 59, 999_999, tzinfo=UTC), (20260301, 0)),
        (datetime(2026, 3, 1, 3, tzinfo=UTC), (20260301, 0)),
        (datetime(2026, 3, 1, 3, 0, 1, tzinfo=UTC), (20260301, 60000)),
        (datetime(2026, 3, 1, 9, tzinfo=UTC), (20260301, 60000)),
        (datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC), (19700101, 0)),
        (datetime(1969, 12, 31, 15, 0, 0, 500_000, tzinfo=UTC), (19691231, 120000)),
        (datetime(2024, 2, 29, 14, 59, 1, tzinfo=UTC), (20240229, 120000)),
    ],
)
def test_an_observation_belongs_to_its_analysis_and_one_at_an_edge_to_the_one_before(tmp_path, moment, cycle):
    target, _ = exported(tmp_path, {"datetime": [moment], T2M: [0.0]})
    (row,) = rows_of(target).select("andate", "antime", "date@hdr", "time@hdr").rows()
    assert row == (*cycle, int(f"{moment:%Y%m%d}"), int(f"{moment:%H%M%S}"))


def test_a_frame_has_one_analysis(tmp_path):
    """MARS files frames whole, by what is the same in all of their rows (`Frame::span` of odc)."""
    moments = [datetime(2026, 6, 21, hour, tzinfo=UTC) for hour in (8, 9, 10, 14, 15, 16, 21, 22)]
    columns = {"datetime": moments * 2, T2M: range(16), "station_id": ["a"] * 8 + ["b"] * 8}
    target, report = exported(tmp_path, columns)
    analyses = []
    reader = codc.Reader(str(target), aggregated=False)  # its frames do not outlive it
    for frame in reader.frames:
        spans = frame.dataframe(["andate", "antime"])[["andate", "antime"]].drop_duplicates().to_numpy().tolist()
        analyses += spans
        assert len(spans) == 1
    assert analyses == [[20260621, 60000], [20260621, 120000], [20260621, 180000], [20260622, 0]]
    assert report.read_back["reports by analysis"] == {
        "20260621 06 UTC": 4, "20260621 12 UTC": 6, "20260621 18 UTC": 4, "20260622 00 UTC": 2
    }  # fmt: skip


@pytest.mark.parametrize("span", [timedelta(minutes=5), timedelta(hours=1), timedelta(hours=12)])
def test_no_two_reports_of_a_day_have_one_number(tmp_path, span):
    midnight = datetime(2026, 6, 21, tzinfo=UTC)
    numbers = []
    windows = timedelta(days=1) // span
    for start in (midnight + number * span for number in sorted({0, 1, windows - 1})):
        edges = {"window_start": start.isoformat(), "window_end": (start + span).isoformat()}
        columns = {"datetime": [start] * 3, T2M: [1.0, 2.0, 3.0], "station_id": ["a", "b", "c"]}
        target, _ = exported(tmp_path, columns, about=ABOUT | edges)
        numbers += rows_of(target)["seqno@hdr"].to_list()
    assert len(numbers) == len(set(numbers)) and min(numbers) > 0 and max(numbers) < 2**31


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wind_speed__m s-1__2.0__mean__PT10M", "varno 112 (ff) is mapped for level 10.0, but this one is at 2.0"),
        ("air_temperature__degC__2.0__mean__PT1H", "period PT0S to PT10M, but this one is PT1H"),
        ("air_temperature__degC__1.5__minimum__PT10M", "method point or mean, but this one is minimum"),
        ("air_temperature__ppb__2.0__point__PT0S", "varno 39 (t2m, K) cannot be made of it: 'ppb' and 'K'"),
        ("mole_fraction_of_ozone_in_air__ppb__2.0__point__PT0S", "no varno is mapped from mole_fraction_of_ozone"),
        ("x_battery_level__V__0.0__point__PT0S", "x_battery_level is no name of CF; no varno stands for it"),
    ],
)
def test_what_is_left_out_says_why(tmp_path, name, why):
    target, report = exported(tmp_path, {name: [1.0], T2M: [1.0]})
    assert list(report.plan.left_out) == [name] and why in report.plan.left_out[name]
    assert rows_of(target)["varno@body"].to_list() == [39]


def test_texts_are_left_out():
    plan = OdbExporter().plan(schema_of([T2M], dtypes={T2M: "string"}))
    assert plan.left_out == {T2M: "its values are string, not numbers"}


def mapping(varno, *sources):
    keys = ("standard_name", "level", "method", "period")
    return VariableMapping(varno=varno, mapped_from=[dict(zip(keys, source, strict=True)) for source in sources])


DD = "wind_from_direction__degree__10.0__mean__PT10M"


def flagged(folder, columns, flags):
    """A dataset file as quality control leaves it: `flags` by variable column."""
    path = dataset(folder, columns)
    table = pq.read_table(path)
    for name, values in flags.items():
        fields = {field.name: field for field in quality_fields(name)}
        field = fields[f"{name}__flag"]
        # A name that tells nothing: the column is found by its role.
        table = table.append_column(field.with_name(f"q{len(table.schema)}"), pa.array(values, pa.uint8()))
    pq.write_table(table, path)
    return path


def test_flags_decide_the_status_of_a_value_and_of_its_report(tmp_path):
    source = flagged(
        tmp_path,
        {T2M: [1.0, 2.0, 3.0, 4.0, 5.0], RH2M: [50.0, None, 50.0, 50.0, 50.0], RAIN: [None, None, None, None, 0.2]},
        {T2M: [1, 3, 4, 4, None], RH2M: [2, 9, 3, 4, 1], RAIN: [9, 9, 9, 9, 3]},
    )
    target = tmp_path / "window.odb"
    report = OdbExporter().export(source, target)
    asked = "time, varno, quality, datum_status.active, datum_status.passive, datum_status.rejected, "
    found = by_odc(target, f"select {asked} report_status.active, report_status.passive, report_status.rejected")
    assert found == [
        "120000,39,1,1,0,0,1,0,0",
        "120000,58,2,1,0,0,1,0,0",
        "120500,39,3,0,1,0,0,1,0",
        "121000,39,4,0,0,1,0,1,0",
        "121000,58,3,0,1,0,0,1,0",
        "121500,39,4,0,0,1,0,0,1",
        "121500,58,4,0,0,1,0,0,1",
        "122000,39,2,1,0,0,1,0,0",
        "122000,58,1,1,0,0,1,0,0",
        "122000,79,3,0,1,0,1,0,0",
        "122000,80,3,0,1,0,1,0,0",
    ]
    assert report.read_back["quality"] == {"pass": 2, "not_evaluated": 2, "suspect": 4, "fail": 3}


def test_humidity_stands_at_no_pressure_that_is_not_used(tmp_path):
    columns = {PS: [1000.0, 400.0, 400.0], RH2M: [50.0] * 3, "altitude": ["100"] * 3}
    target = tmp_path / "window.odb"
    OdbExporter().export(flagged(tmp_path, columns, {PS: [1, 3, 4], RH2M: [1, 1, 1]}), target)
    rows = rows_of(target).filter(pl.col("varno@body") == 58)
    assert rows["vertco_type@body"].to_list() == [1, 2, 2]
    assert rows["vertco_reference_1@body"].to_list() == pytest.approx([100_000.0, 980.665, 980.665], rel=1e-6)


def test_components_follow_from_speed_and_direction_at_ten_metres(tmp_path):
    columns = {DD: [270.0, 180.0, None, None, 30.0], FF: [36.0, 18.0, 0.0, 7.2, None]}
    target = tmp_path / "window.odb"
    report = OdbExporter().export(flagged(tmp_path, columns, {DD: [3, 1, 9, 9, 1], FF: [1, 4, 1, 1, 9]}), target)
    rows = rows_of(target).filter(pl.col("varno@body").is_in([41, 42]))
    found = rows.select("time@hdr", "varno@body", pl.col("obsvalue@body").round(5), "quality@body").rows()
    assert found == [
        (120000, 41, 10.0, 3), (120000, 42, 0.0, 3), (120500, 41, 0.0, 4), (120500, 42, 5.0, 4), (121000, 41, 0.0, 1),
        (121000, 42, 0.0, 1),
    ]  # fmt: skip
    assert report.plan.mapped[FF] == (
        f"odb varno 41 (u10m, m s-1) with {DD}; odb varno 42 (v10m, m s-1) with {DD}; odb varno 112 (ff, m s-1)"
    )
    eastward = "eastward_wind__m s-1__10.0__mean__PT10M"
    assert eastward in OdbExporter().plan(schema_of([DD, FF, eastward])).mapped
    lower = [
        mapping(111, ("wind_from_direction", 2.0, "mean", "PT5M")),
        mapping(112, ("wind_speed", 2, "mean", "PT5M")),
    ]
    names = ["wind_from_direction__degree__2.0__mean__PT5M", "wind_speed__m s-1__2.0__mean__PT5M"]
    assert list(OdbExporter(OdbSettings(variable_map=lower)).plan(schema_of(names)).mapped.values()) == [
        "odb varno 111 (dd, degree)",
        "odb varno 112 (ff, m s-1)",
    ]


def test_the_variable_map_overrides_the_defaults_of_its_varnos_only():
    at_two = "wind_speed__m s-1__2.0__mean__PT10M"
    hourly = "air_temperature__degC__2.0__mean__PT1H"
    named = [
        mapping(112, ("wind_speed", 2.0, "mean", "PT600S")),
        mapping(39, ("air_temperature", 2, "mean", "PT1H"), ("air_temperature", 2, "point", "PT0S")),
        mapping(107, ("surface_air_pressure", 0, "point", "PT0S")),
        mapping(58),
    ]
    plan = OdbExporter(OdbSettings(variable_map=named)).plan(schema_of([at_two, FF, hourly, T2M, PS, RH2M, PMSL]))
    assert plan.mapped == {
        hourly: "odb varno 39 (t2m, K)",
        PS: "odb varno 107 (pstation, Pa)",
        PMSL: "odb varno 108 (pmsl, Pa); odb varno 110 (ps, Pa) at sea level",
        at_two: "odb varno 112 (ff, m s-1)",
    }
    assert plan.left_out == {
        FF: "varno 112 (ff) is mapped for level 2.0, but this one is at 10.0; "
        "name it under variable_map to write it all the same",
        T2M: f"varno 39 is taken by {hourly}, which stands first in variable_map",
        RH2M: "no varno is mapped from relative_humidity",
    }


def test_one_variable_may_become_two_varnos(tmp_path):
    both = [mapping(number, ("surface_air_pressure", 0.0, "point", "PT0S")) for number in (107, 110)]
    target, report = exported(tmp_path, {PS: [990.0]}, OdbExporter(OdbSettings(variable_map=both)))
    assert rows_of(target).select("varno@body", "obsvalue@body").rows() == [(107, 99000.0), (110, 99000.0)]
    assert report.plan.mapped == {PS: "odb varno 107 (pstation, Pa); odb varno 110 (ps, Pa)"}


def test_of_two_candidates_the_point_value_wins_then_the_shorter_period_then_the_first():
    mean, other = "air_temperature__degC__2.0__mean__PT10M", "air_temperature__K__1.5__point__PT0S"
    hourly = "precipitation_amount__mm__0.0__sum__PT1H"
    plan = OdbExporter().plan(schema_of([mean, T2M, other, RAIN, hourly]))
    assert set(plan.mapped) == {other, RAIN}
    assert plan.left_out == {
        mean: f"varno 39 is taken by {other}, which is a value at a point in time",
        T2M: f"varno 39 is taken by {other}, which comes first",
        hourly: f"varno 80 is taken by {RAIN}, which covers a shorter period",
    }


@given(
    st.lists(
        st.builds(
            "__".join,
            st.tuples(
                st.sampled_from(["air_temperature", "wind_speed", "air_pressure", "precipitation_amount", "x_lux"]),
                st.sampled_from(["K", "m s-1", "hPa", "mm"]),
                st.sampled_from(["0.0", "1.5", "2.0", "10.0"]),
                st.sampled_from(["point", "mean", "sum"]),
                st.sampled_from(["PT0S", "PT5M", "PT1H"]),
            ),
        ),
        unique=True,
        max_size=12,
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow])  # the first example loads CF's table
def test_every_variable_is_planned_once_and_no_varno_twice(names):
    plan = OdbExporter().plan(schema_of(names))
    assert set(plan.mapped) | set(plan.left_out) == set(names) and not set(plan.mapped) & set(plan.left_out)
    assert len(set(plan.mapped.values())) == len(plan.mapped) and all(plan.left_out.values())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"varno": 112, "mapped_from": [{"standard_name": "wind_speed", "level": 2.0, "method": "mean"}]}, "period"),
        ({"varno": 91, "mapped_from": []}, "varno 91 has no known unit; choose from 1 z"),
        ({"varno": 79, "mapped_from": []}, "varno 79 is written by itself with 80"),
        ({"varno": 39, "mapped_from": [], "unit": "K"}, "Extra inputs"),
        (
            {"varno": 39, "mapped_from": [{"standard_name": "t", "level": 2, "method": "mean", "period": "1h"}]},
            "'1h' is not an ISO 8601 duration",
        ),
    ],
)
def test_a_map_that_cannot_be_right_is_refused(given, why):
    with pytest.raises(ValidationError, match=why):
        VariableMapping.model_validate(given)


def test_codes_that_disagree_are_refused():
    assert OdbCodes.model_validate({"reportype": 16001, "codetype": 14, "class": 1, "expver": "0001"}).class_ == 1
    assert OdbCodes(reportype=16076, codetype=170).codetype == 170
    with pytest.raises(ValidationError, match=r"reportype 16002 \(manual land SYNOP\) goes with codetype 11, not 14"):
        OdbCodes(reportype=16002, codetype=14)
    with pytest.raises(ValidationError, match="goes with codetype 179 or 19, not 14"):
        OdbCodes(codetype=14)
    assert (OdbCodes().reportype, OdbCodes().codetype) == (16090, 179)
    assert (OdbCodes(preset="synop").reportype, OdbCodes(preset="synop").codetype) == (16001, 14)
    assert (
        OdbCodes(preset="dwd").codetype == 19 and OdbCodes(preset="synop", reportype=16076, codetype=170).obstype == 1
    )
    with pytest.raises(ValidationError, match="'ecmwf_crowd', 'synop' or 'dwd'"):
        OdbCodes(preset="metar")


def test_a_thread_writes_what_the_main_thread_writes(tmp_path):
    source = dataset(tmp_path, {T2M: [1.0, 2.0], "station_id": ["a", "b"]})
    targets = [tmp_path / "main.odb", tmp_path / "thread.odb"]
    OdbExporter().export(source, targets[0])
    thread = threading.Thread(target=OdbExporter().export, args=(source, targets[1]))
    thread.start()
    thread.join()
    assert targets[1].read_bytes() == targets[0].read_bytes()
    assert by_odc(targets[1], "select distinct varno, date, reportype") == ["39,20260621,16090"]


def test_the_same_dataset_gives_the_same_bytes_and_tells_where_it_came_from(tmp_path):
    columns = {T2M: [1.0, 2.0], RAIN: [0.0, 0.1]}
    first, _ = exported(tmp_path, columns)
    before = first.read_bytes()
    again, _ = exported(tmp_path, columns)
    assert again.read_bytes() == before
    facts, varnos = describe_odb(again)
    told = ("dataset", "window_start", "window_end", "revision", "inputs", "software")
    assert {key: facts[key] for key in told} == {key: str(ABOUT[key]) for key in told} and facts["rows"] == "6"
    assert varnos.rows()[0] == ("varno 39 t2m", "K", 2, "274.15", "275.15")
    corrected, _ = exported(tmp_path, columns, about=ABOUT | {"revision": 4})
    assert corrected.read_bytes() != before


def test_files_of_several_windows_become_one_with_the_variables_of_all(tmp_path):
    earlier = dataset(tmp_path, {T2M: [1.0, 2.0], "station_id": ["a", "b"]}, name="earlier.parquet")
    later = {
        RH2M: [50.0, 60.0],
        T2M: [3.0, None],
        "station_id": ["b", "c"],
        "datetime": [NOON + timedelta(hours=1)] * 2,
    }
    later = dataset(tmp_path, later, name="later.parquet")
    target = tmp_path / "both.odb"
    report = OdbCycleExporter().export([earlier, later], target, {"revision": "7"})
    assert (report.rows, report.stations, report.read_back["reports"]) == (5, 3, 4)
    assert by_odc(target, "select varno, obsvalue, seqno, time") == [
        "39,274.149994,1,120000", "39,275.149994,2,120500", "39,276.149994,3,130000", "58,0.500000,3,130000",
        "58,0.600000,4,130000",
    ]  # fmt: skip
    assert describe_odb(target)[0]["revision"] == "7"


def test_what_is_no_odb_is_told(tmp_path):
    (tmp_path / "text.odb").write_text("no frame begins like this")
    with pytest.raises(OdbError, match=r"odc cannot read .*text\.odb: .*Incorrect MAGIC"):
        describe_odb(tmp_path / "text.odb")


@pytest.mark.parametrize("columns", [{T2M: []}, {T2M: [None, None]}, {"x_lux__1__0.0__point__PT0S": [1.0]}])
def test_without_a_value_there_is_no_file(tmp_path, columns):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "window.odb").write_bytes(b"of an earlier revision")
    _, report = exported(tmp_path, columns)
    assert (report.rows, list((tmp_path / "out").iterdir())) == (0, [])


def test_batches_and_frames_leave_no_trace(tmp_path, monkeypatch):
    count = 60
    columns = {
        "station_id": [f"s{row // 7}" for row in range(count)],
        T2M: [None if row % 5 == 0 else row / 10 for row in range(count)],
        RH2M: [None if row % 10 == 0 else float(row) for row in range(count)],
    }
    whole, report = exported(tmp_path, columns)
    rows = rows_of(whole)
    assert report.stations == 9 and report.read_back["reports"] == 54
    first = rows["seqno@hdr"].min()
    assert sorted(rows["seqno@hdr"].unique()) == list(range(first, first + 54))
    monkeypatch.setattr(writing, "ROWS_PER_FRAME", 8)
    monkeypatch.setattr(writing, "VALUES_PER_BATCH", 18)
    pieces, again = exported(tmp_path, columns)
    reader = codc.Reader(str(pieces), aggregated=False)
    assert len(reader.frames) > 8
    order = ["seqno@hdr", "entryno@body"]
    assert rows_of(pieces).sort(order).equals(rows.sort(order))
    assert (again.stations, again.read_back) == (
        report.stations,
        report.read_back,
    )


@pytest.mark.parametrize(
    ("name", "statid"),
    [
        ("06260", "06260"),
        ("01234567", "01234567"),
        ("0-20000-0-06260", "06260"),
        ("ab:cd:ef:01", "abcdef01"),
        ("70:ee:50:12:34:56", "encu2xwn"),
        ("Zürich", "Zurich"),
        ("a_very_long_name_of_a_station", "28u4ua5i"),
        ("東京", "vsb7u8ek"),
        ("", "07mvmjgb"),
        (None, "07mvmjgb"),
    ],
)
def test_station_ids_fit_and_stay_the_same(tmp_path, name, statid):
    target, report = exported(tmp_path, {T2M: [1.0], "station_id": [name]})
    (row,) = rows_of(target).select("statid@hdr", "wigosid@hdr").rows()
    assert row == (statid.rjust(8), name if name == "0-20000-0-06260" else "")
    assert report.read_back["station ids changed"] == int(bool(name) and name != statid)
    assert ("stations without an id" in report.read_back) == (not name)


def test_stations_that_come_to_share_an_id_are_counted(tmp_path):
    names = ["ab:cd:ef:01", "ab-cd-ef-01"]
    _, report = exported(tmp_path, {T2M: [1.0, 2.0], "station_id": names})
    assert report.read_back["station ids shared by several stations"] == 1


def test_a_place_stands_for_a_station_that_has_no_id(tmp_path):
    places = {"lat": [-90.0, 50.94, 50.94001], "lon": [180.0, 6.96, 6.96]}
    target, report = exported(tmp_path, places | {T2M: [1.0, 2.0, 3.0]})
    assert rows_of(target)["statid@hdr"].n_unique() == report.stations == 3


def test_a_file_that_does_not_read_back_is_not_published(tmp_path, monkeypatch):
    target, _ = exported(tmp_path, {T2M: [1.0, 2.0]})
    before = target.read_bytes()
    write = Encoder.write

    def twice(self, frame, file):
        write(self, frame, file)
        write(self, frame, file)

    monkeypatch.setattr(Encoder, "write", twice)
    with pytest.raises(ExportError, match=r"window.odb: was not written .* odc sql reads 8 rows, but 4 were written"):
        exported(tmp_path, {T2M: [1.0, 2.0], RH2M: [3.0, 4.0]})

    def warmer(self, frame, file):
        write(self, frame | {"obsvalue@body": frame["obsvalue@body"] + 0.01}, file)

    monkeypatch.setattr(Encoder, "write", warmer)
    with pytest.raises(ExportError, match="odc sql reads 2 values of varno 39 with the sum"):
        exported(tmp_path, {T2M: [1.0, 2.0]})

    def elsewhere(self, frame, file):
        write(self, frame | {"lat@hdr": -frame["lat@hdr"]}, file)

    monkeypatch.setattr(Encoder, "write", elsewhere)
    with pytest.raises(ExportError, match="odc sql reads places between"):
        exported(tmp_path, {T2M: [1.0, 2.0]})
    assert target.read_bytes() == before and [path.name for path in target.parent.iterdir()] == ["window.odb"]


def test_without_the_command_the_library_reads_back(tmp_path, monkeypatch):
    columns = {T2M: [1.0, None], RH2M: [5.0, 6.0]}
    _, report = exported(tmp_path, columns)
    monkeypatch.setattr(reading, "odc_command", lambda: None)
    _, by_library = exported(tmp_path, columns)
    assert by_library.read_back == report.read_back | {"read by": "codc"}


def test_a_damaged_dataset_and_a_full_disk_are_told_with_their_place(tmp_path):
    source = dataset(tmp_path, {T2M: list(np.arange(5000.0) / 50)})
    target = tmp_path / "out" / "window.odb"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(ExportError, match=r"window.odb: was not written from .*window.parquet: .*File too large"):
            published_export(OdbExporter(), source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"window.odb: was not written from .*window.parquet"):
        published_export(OdbExporter(), source, target)
    assert list(target.parent.iterdir()) == []


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(-90, 60, width=32),
            st.none() | st.integers(0, 100),
            st.none() | st.floats(500, 1100, width=32),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_values_survive_within_float32(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("odb")
    temperature, humidity, pressure = zip(*rows, strict=True)
    target, report = exported(folder, {T2M: temperature, RH2M: humidity, PS: pressure})
    units = ((39, 1.0, 273.15), (58, 0.01, 0.0), (107, 100.0, 0.0), (110, 100.0, 0.0))
    expected = [
        (number, value * scale + offset)
        for row in rows
        for value, (number, scale, offset) in zip((*row, row[-1]), units, strict=True)
        if value is not None
    ]
    assert report.rows == len(expected) and target.exists() == bool(expected)
    if expected:
        found = rows_of(target).select("varno@body", "obsvalue@body").rows()
        assert [varno for varno, _ in found] == [varno for varno, _ in expected]
        assert all(math.isclose(a, b, rel_tol=2**-23) for (_, a), (_, b) in zip(found, expected, strict=True))


def test_every_default_has_a_unit_that_its_names_can_be_converted_to():
    for rule in DEFAULT_RULES:
        for name in rule.standard_names:
            found = cf.lookup(name)
            assert found.units is not None, name
            assert cf.conversion(found.units, VARNOS[rule.varno].unit)


@pytest.mark.skipif(not IFS_SAMPLE.exists(), reason="the shared data are not beside the project")
def test_columns_that_ifs_writes_have_the_same_type_and_meaning(tmp_path):
    columns = {T2M: [1.0], RH2M: [54.03], PS: [1004.2], "station_id": ["61998"], "altitude": ["30"]}
    target, _ = exported(tmp_path, columns)
    readers = [codc.Reader(str(path)) for path in (target, IFS_SAMPLE)]
    ours, ifs = (reader.frames[0].column_dict for reader in readers)
    assert set(ours) == {name for name, _ in COLUMNS} == set(ours) & set(ifs) | set(OWN_COLUMNS)
    for name, column in ours.items():
        if name in OWN_COLUMNS:
            continue
        assert column.dtype == ifs[name].dtype, name
        assert [(b.name, b.size, b.offset) for b in column.bitfields or ()] == [
            (b.name, b.size, b.offset) for b in ifs[name].bitfields or ()
        ], name
    ours, ifs = rows_of(target), rows_of(IFS_SAMPLE)
    columns = ["vertco_type@body", "vertco_reference_1@body", "ppcode@conv_body"]
    ps, rh = (ours.filter(pl.col("varno@body") == varno).select(columns).rows() for varno in (110, 58))
    theirs = ifs.filter(pl.col("seqno@hdr") == 1767666).sort("varno@body").select(columns).rows()
    assert [kind for kind, _, _ in theirs] == [kind for ((kind, _, _),) in (rh, ps)] == [1, 2]
    assert [code for _, _, code in theirs] == [code for ((_, _, code),) in (rh, ps)] == [1, 1]
    assert rh[0][1] == ours.filter(pl.col("varno@body") == 110)["obsvalue@body"].item()
    of_report = ifs.filter(pl.col("seqno@hdr") == 1767666)
    assert theirs[0][1] == of_report.filter(pl.col("varno@body") == 110)["obsvalue@body"].item()
    edge = ifs.filter(pl.col("time@hdr") == 150000)
    assert edge.height and edge["antime"].unique().to_list() == [120000]
    pressure = pl.col("varno@body") == 110
    (of_us,) = ours.filter(pressure).select("vertco_type@body", "vertco_reference_1@body", "stalt@hdr").rows()
    assert of_us in ifs.filter(pressure).select("vertco_type@body", "vertco_reference_1@body", "stalt@hdr").rows()
    for varno in (58, 110):
        mine, theirs = (rows.filter(pl.col("varno@body") == varno)["obsvalue@body"] for rows in (ours, ifs))
        assert theirs.min() * 0.9 < mine.item() < theirs.max() * 1.1
    assert set(ifs["groupid@hdr"]) == set(ours["groupid@hdr"]) and set(ifs["obstype@hdr"]) == set(ours["obstype@hdr"])
    synop = REPORT_TYPES[ifs["reportype"][0]]
    assert set(ifs["codetype@hdr"]) == set(synop.codetypes) and synop.meaning == "automatic land SYNOP"
