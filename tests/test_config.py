"""The YAML: what is taken, what follows from it, and how faults are told."""

import json
import re
import runpy
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ionbeam_dagster.config import CONFIG_VARIABLE, IonbeamConfig
from ionbeam_dagster.config.editing import add_source, add_to_source
from ionbeam_dagster.errors import ConfigError

EXAMPLES = Path(__file__).parents[1] / "examples"

SPECIFICATION = """
broker:
  url: amqp://guest:guest@rabbitmq:5672/
redis:
  redis_url: redis://redis:6379
influxdb_common:
  influxdb_org: ionbeam-example
  influxdb_url: http://influxdb2:8086
  influxdb_token: your-token-here
  influxdb_bucket: ionbeam
dataset_aggregator:
  data_path: ./data                    # Output directory for aggregated datasets
  delete_after_export: false          # Whether to clean up raw data after aggregation
sources:
  scheduler:
    windows:
      - source_name: ioncannon          # Load test data generator
        window_size: "PT5M"             # 5-minute collection windows
        trigger_interval: "PT5M"        # Trigger every 5 minutes
      - source_name: meteotracker
        window_size: "PT1H"             # 1-hour windows
        trigger_interval: "PT1H"        # Fetch every hour
        window_lag: "PT1H"              # 1-hour lag for data availability
ioncannon:
  data_path: ./data-raw
meteotracker:
  base_url: ''
  token_endpoint: ''
  refresh_endpoint: ''
  timeout: 30
  max_retries: 5
  max_queries: 100
  username: 'your-username'
  password: 'your-password'
  use_cache: false
  data_path: ./data-raw
netatmo:
  base_url: ''
  username: 'your-username'
  password: 'your-password'
  data_path: ./data-raw
sensor_community:
  base_url: ''
  timeout_seconds: 60
  concurrency: 5
  use_cache: false
  data_path: ./data-raw
projections:
  pygeoapi_service:
    input_path: ./data                          # Input aggregated datasets
    output_path: ./data-projections                  # Output GeoParquet files
    config_path: ./pygeoapi/local.config.yml   # PyGeoAPI configuration
  odb_service:
    input_path: ./data
    output_path: ./data-projections
    variable_map:                               # Map CF standard names to ODB variable numbers
      - varno: 108                              # Mean sea level pressure
        mapped_from:
          - standard_name: air_pressure_at_mean_sea_level
            level: 2.0
            method: mean
            period: PT1H
      - varno: 39                               # Air temperature
        mapped_from:
          - standard_name: air_temperature
            level: 2.0
            method: point
            period: PT0S
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    def load(text: str) -> IonbeamConfig:
        monkeypatch.chdir(tmp_path)
        place = tmp_path / "config.yaml"
        place.write_text(text)
        return IonbeamConfig.load(place)

    return load


def test_the_specifications_yaml_loads_unchanged(load):
    config = load(SPECIFICATION)
    ioncannon = config.sources["ioncannon"]
    assert ioncannon.window_size == ioncannon.trigger_interval == timedelta(minutes=5)
    assert config.datasets["ioncannon"].exports == ("odb", "pygeoapi")
    assert config.sections.projections.odb_service.variable_map[0].varno == 108
    assert set(config.sources) == {"ioncannon", "meteotracker", "netatmo", "sensor_community"}


def test_a_source_block_may_stand_under_sources(load):
    config = load("sources:\n  scheduler: {windows: [{source_name: ioncannon, window_size: PT05M}]}\n  ioncannon: {}\n")
    assert config.sources["ioncannon"].window_size == timedelta(minutes=5)


def test_the_shipped_default_needs_no_server(monkeypatch, tmp_path):
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    config = IonbeamConfig.load()
    assert list(config.sources) == ["ioncannon"] and config.notes(datetime(2027, 6, 21, tzinfo=UTC)) == []


def test_more_windows_than_dagster_is_quick_with_are_noted(load):
    config = load("ioncannon: {start: 1800-01-01, end: 1900-01-01}\n")
    windows, hours = config.notes(datetime(2026, 6, 21, tzinfo=UTC))
    assert windows.startswith("sources.ioncannon: has 10,518,912 windows of PT5M since its start 1800-01-01")
    assert hours.startswith("dataset 'ioncannon': has 876,576 windows of PT1H") and "set a later start" in hours


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads(example, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\$\{(\w+)\}", example.read_text()):
        monkeypatch.setenv(name, "something")
    assert IonbeamConfig.load(example).datasets


def test_the_environment_names_the_file_and_holds_the_secrets(load, tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUX_TOKEN", "s3cret")
    config = load(
        "influxdb_common: {influxdb_org: o, influxdb_url: u, influxdb_token: '${INFLUX_TOKEN}', influxdb_bucket: b}\n"
        "ioncannon: {}\n"
    )
    assert config.sections.influxdb_common.influxdb_token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(config)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.yaml"))
    assert IonbeamConfig.load() == config
    monkeypatch.delenv("INFLUX_TOKEN")
    with pytest.raises(ConfigError, match="INFLUX_TOKEN"):
        IonbeamConfig.load()


def test_a_dataset_may_have_no_export(load):
    cycles = load("ioncannon: {exports: [odb_cycle, pygeoapi]}").datasets["ioncannon"]
    assert (cycles.exports, cycles.cycle_exports) == (("pygeoapi",), ("odb_cycle",))
    assert not load("ioncannon: {}").datasets["ioncannon"].cycle_exports
    assert load("ioncannon: {exports: []}").datasets["ioncannon"].exports == ()
    assert load("ioncannon: {}").datasets["ioncannon"].exports == ("odb", "pygeoapi")


def test_a_source_may_feed_a_dataset_of_another_name_and_two_may_feed_one(load):
    config = load(
        "sources:\n"
        "  scheduler: {windows: [{source_name: north, window_size: PT5M}, {source_name: south, window_size: PT1H}]}\n"
        "  north: {type: ioncannon, dataset: network, aggregation_span: PT1H, start: 2026-02-01}\n"
        "  south: {type: ioncannon, dataset: network, station_prefix: s, start: 2026-01-15T00:30Z, end: 2026-03-01}\n"
    )
    (network,) = config.datasets.values()
    assert network.sources == ("north", "south") and network.policy.sources == ("north", "south")
    assert network.span == timedelta(hours=1) and network.end is None
    assert network.start == datetime(2026, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        (
            "ioncannon: {num_statoins: 5}",
            r"ioncannon\.num_statoins: this key is not known; is num_stations meant\?; known are .*num_stations",
        ),
        ("ionkanone: {}", r"ionkanone: this key is not known"),
        ("sources: {thermo: {}}", r"sources\.thermo: no source of type 'thermo' is installed; known are .*ioncannon"),
        ("sources: [ioncannon]", r"sources: should hold a block for each source, by its name"),
        ("sources: {'a:b': {type: ioncannon}}", r"sources\.a:b: 'a:b' cannot be a source's name; use letters"),
        ("automation: {lookback: -PT1H}\nioncannon: {}", r"automation\.lookback: -PT1H is negative"),
        (
            "sources: {scheduler: {windows: [{source_name: ioncannon, window_size: PT1H, trigger_interval: -PT5M}]}}",
            r"scheduler\.windows\.0\.trigger_interval: -PT5M is negative",
        ),
        (
            "sources: {scheduler: {windows: [{source_name: ioncannon, window_size: PT1H}, "
            "{source_name: ioncannon, window_size: PT5M}]}, ioncannon: {}}",
            r"scheduler\.windows: 'ioncannon' stands there 2 times; keep one of them",
        ),
        ("automation: {lookback: soon}\nioncannon: {}", r"automation\.lookback: 'soon' is not a duration"),
        (
            "sources: {scheduler: {windows: [{source_name: ioncannon, window_size: PT7M}]}, ioncannon: {}}",
            r"scheduler\.windows\.0\.window_size: PT7M cannot be a partition; use whole minutes",
        ),
        (
            "sources: {scheduler: {windows: [{source_name: ioncannon, window_size: PT3H}]}, "
            "ioncannon: {aggregation_span: PT4H}}",
            r"sources\.ioncannon: its window of PT3H neither divides the aggregation_span PT4H",
        ),
        (
            "sources: {scheduler: {windows: [{source_name: gone, window_size: PT1H}]}, ioncannon: {}}",
            r"'gone' has no block",
        ),
        ("ioncannon: {data_path: config.yaml/raw}", r"data_path: config\.yaml/raw is, or lies below, a file"),
        ("ioncannon: {}\nsources: {ioncannon: {}}", r"under 'sources:' and at the top level"),
        ("ioncannon: {exports: [grib]}", r"exports: grib not known; choose from bufr, odb, odb_cycle, pygeoapi"),
        (
            "ioncannon: {aggregation_span: PT2H, exports: [odb_cycle]}",
            r"dataset 'ioncannon': exports has odb_cycle, but aggregation_span PT2H does not divide three hours",
        ),
        (
            "ioncannon: {aggregation_span: PT1H, subject_to_change_window: PT1H, exports: [odb_cycle]}",
            r"cycle_cut_off: PT1H is not longer than the PT1H that windows of 'ioncannon' wait",
        ),
        (
            "ioncannon: {}\nprojections: {odb_service: {input_path: ./elsewhere}}",
            r"odb_service\.input_path: elsewhere is not where datasets are written; right would be data",
        ),
        (
            "sources: {north: {type: ioncannon, exports: [bufr]}, south: {type: ioncannon, exports: [bufr]}}\n"
            "projections: {bufr_service: {settings: {cccc: EDZW}}}",
            r"headings: north and south would send bulletins of the same names, ISAX30 EDZW; .* example south: ISAX31",
        ),
        (
            "ioncannon: {}\nprojections: {bufr_service: {settings: {headings: {ioncanon: ISAX31}}}}",
            r"headings: no dataset 'ioncanon' writes BUFR; those that do are none",
        ),
        (
            "sources: {a: {type: ioncannon, dataset: d, aggregation_span: PT1H}, "
            "b: {type: ioncannon, dataset: d, station_prefix: b, aggregation_span: PT3H}}",
            r"dataset 'd': a, b disagree about aggregation_span",
        ),
        (
            "sources: {a: {type: ioncannon}, b: {type: ioncannon, dataset: a}}",
            r"dataset 'a': a and b feed it, .* the same id\. .* of b .* \(station_prefix: b-\), or those of a",
        ),
        ("- a list", r"should hold sections"),
        (
            "sources:\n  a:\n    constants: {station_id: 0270}\n    quality: {good: [01]}\n",
            r"sources\.a\.constants\.station_id: line 3: YAML reads 0270 as 184; write '0270', in quotes(.|\n)*"
            r"sources\.a\.quality\.good\.0: line 4: YAML reads 01 as 1; write '01', in quotes",
        ),
        *(
            (
                f"sources:\n  a: {{type: files, path: x, variables: [t], constants: {{station_id: {written}}}}}",
                rf"sources\.a\.constants\.station_id: YAML reads {written} as {number}; write '{written}', in quotes",
            )
            for written, number in (("0x1F", 31), (r"1_000", 1000), ("1.10", "1.1"), ("6260.00", "6260.0"))
        ),
        (
            "sources:\n  a:\n    type: files\n    path: x\n    missing: [-999.00, 0x1F]\n"
            "    variables: [{column: t, quality: {column: q, poor: [1.10]}}]",
            r"variables\.0\.quality\.poor\.0: YAML reads 1\.10 as 1\.1; (.|\n)*missing\.1: YAML reads 0x1F as 31;",
        ),
        (
            "ioncannon: {station_prefix: 0x1F}",
            r"ioncannon\.station_prefix: is a number to YAML, where a text belongs; wr",
        ),
        (
            "ioncannon: {station_prefix: off}",
            r"station_prefix: is true or false to YAML, where a text belongs; write it",
        ),
        (
            "ioncannon: {title: 2026-06-21}",
            r"ioncannon\.title: is a date to YAML, where a text belongs; write it in qu",
        ),
        ("sources:\n  a: {clock: 12:30}", r"a\.clock: line 2: YAML reads 12:30 as 750; write '12:30', in quotes"),
        ("sources:\n  off: {type: ioncannon}", r"sources\.off: line 2: YAML reads the key off as false; write 'off'"),
        (
            "sources:\n  a: {type: ioncannon}\n  a: {type: files}\n",
            r"sources\.a: is given twice, in line 2 and in line 3",
        ),
        (
            "ioncannon:\n  seed: 1\n  start: 2026-06-21\n  seed: 2\n",
            r"ioncannon\.seed: is given twice, .* 2 and in line 4",
        ),
        (
            "sources: {scheduler: {windows: [{source_name: a, source_name: b}]}}",
            r"sources\.scheduler\.windows\.0\.source_name: is given twice, in line 1 and in line 1",
        ),
        (
            "influxdb_common: {influxdb_org: o,\n  influxdb_token: ${TOKEN}, influxdb_bucket: b}\n",
            r"line 2: \$\{TOKEN\} stands within .* without quotes, .*; write '\$\{TOKEN\}', in quotes",
        ),
        ("ioncannon: {start: 2026-02-30}", r"is not YAML: day"),
        ("a: [", r"is not YAML"),
        (
            "a: {b: c\n  d: e\n",
            r"config\.yaml: is not YAML: line 2, column 4: expected ',' or '}', but got ':', while parsing a flow "
            r"mapping that begins in line 1\Z",
        ),
        ("a: \0", r"config\.yaml: is not YAML: unacceptable character .* position 3\Z"),
        ("a: &a [*a]", r"holds itself \(an alias within its own anchor\), or is nested too deep; write it out"),
        ("a: " + "[" * 2000, r"or is nested too deep"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(20)),
            r"its aliases stand for more than 100,000 values; write out",
        ),
        ("ioncannon: {exports: odb}", r"ioncannon\.exports: 'odb' is not a list; right would be, for example, \[odb\]"),
        (
            "ioncannon: {start: yesterday}",
            r"ioncannon\.start: 'yesterday' is not a time; right would be, .* 2026-06-21",
        ),
        (
            "ioncannon: {exports: {odb: 1}}",
            r"ioncannon\.exports: should be a list; begin each of its entries with '- '",
        ),
        (
            "sources: {scheduler: {windows: [{source_name: ioncannon, window_size: PT1H, trigger_interval: PT0S}]}}",
            r"trigger_interval: PT0S is no interval; leave it out, and the source is asked once a window",
        ),
    ],
)
def test_a_fault_is_told_with_file_key_reason_and_what_would_be_right(load, yaml, told):
    with pytest.raises(ConfigError, match=told) as refused:
        load(yaml)
    assert "config.yaml: " in str(refused.value)


def test_every_fault_is_told_at_once(load):
    with pytest.raises(ConfigError) as refused:
        load("ioncannon: {seeed: 1, num_stations: many}\nredis: {}\n")
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        ("lateness: p96", "sources.ioncannon.lateness: 'p96' is neither p95 nor a duration; right would be"),
        ("allow_incomplete: sometimes", "'sometimes' is neither never nor always nor a duration"),
        ("debounce: -PT1M", "sources.ioncannon.debounce: -PT1M is negative"),
        ("revise_for: PT1H, lateness: PT2H", "revise_for PT1H is not longer than lateness PT2H"),
        ("revise_for: P0D", "a window would be sealed before a correction can be built; lengthen revise_for"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused_with_what_would_be_right(tmp_path, policy, fault):
    place = tmp_path / "config.yaml"
    place.write_text(f"sources:\n  ioncannon: {{{policy}}}\n")
    with pytest.raises(ConfigError, match=re.escape(fault)):
        IonbeamConfig.load(place)


def test_the_policy_of_a_dataset_is_what_any_of_its_sources_says(tmp_path):
    place = tmp_path / "config.yaml"
    place.write_text(
        "sources:\n  a: {type: ioncannon, dataset: d, lateness: p95, revise_for: P7D}\n"
        "  b: {type: ioncannon, dataset: d, station_prefix: b, allow_incomplete: never, debounce: PT10M}\n"
    )
    policy = IonbeamConfig.load(place).datasets["d"].policy
    assert policy.lateness_measured and policy.revise_for == timedelta(days=7)
    assert policy.allow_incomplete == "never" and policy.debounce == timedelta(minutes=10)


@pytest.mark.parametrize(
    ("yaml", "outcome"),
    [
        (
            "broker: {url: 'amqp://b/'}\nsources:\nautomation: {}\n",
            "sources:\n  x:\n    # new\n    kind: external\n",
        ),
        ("broker: {url: 'amqp://b/'}", "'amqp://b/'}\nsources:\n  x:\n    # new\n    kind: external\n"),
        ("sources: {ioncannon: {}}  # mine\n", "sources: {x: {kind: external}, ioncannon: {}} # mine\n"),
        ("sources:\n  ioncannon: {nonsense: 1}\n", "is left as it is"),
        (
            "sources:\n  # a generator\n  # of load\n  ioncannon: {}  # mine\n",
            "sources:\n  x:\n    # new\n    kind: external\n  # a generator\n  # of load\n  ioncannon: {}  # mine\n",
        ),
        (
            "sources:\n    ioncannon:\n        seed: 3\n",
            "sources:\n    x:\n        # new\n        kind: external\n",
        ),
    ],
)
def test_a_source_is_added_to_any_yaml_or_the_reason_is_told(tmp_path, yaml, outcome):
    place = tmp_path / "a.yaml"
    place.write_text(yaml)
    try:
        add_source(place, "x", {"kind": "external"}, "new")
    except ConfigError as error:
        assert outcome in str(error) and place.read_text() == yaml
    else:
        assert outcome in place.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_source_is_added_and_every_other_line_stays(example, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\$\{(\w+)\}", example.read_text()):
        monkeypatch.setenv(name, "something")
    place = tmp_path / "own.yaml"
    place.write_text(example.read_text())
    add_source(place, "roof", {"kind": "external", "start": date(2026, 6, 21)})
    lines, added = place.read_text().splitlines(), ["  roof:", "    kind: external", "    start: 2026-06-21"]
    at = lines.index("  roof:")
    assert lines[at : at + 3] == added and lines[:at] + lines[at + 3 :] == example.read_text().splitlines()


OTHERS_TO_YAML = [
    "12:30", "off", "y", "0270", "1.10", "1_000", "0x1F", "0b1", ".inf", "~", "=", "<<", "2026-06-21", "1e3", "a\x85b",
    "-", "?", "#",
]  # fmt: skip
TEXTS = st.sampled_from([*OTHERS_TO_YAML, "", "a: b", "a #b", "{a}", "two\nlines"]) | st.text(max_size=40)


@settings(max_examples=60)
@given(text=TEXTS, other=TEXTS, level=st.floats(allow_nan=False, allow_infinity=False))
@example(text="off", other="0x1F", level=1e-07)
@example(text="12:30", other="1.10", level=1e22)
def test_what_is_written_into_a_yaml_is_read_as_it_was(text, other, level, tmp_path_factory):
    assume("${" not in text + other)
    place = tmp_path_factory.mktemp("yaml") / "a.yaml"
    told = {"kind": "door", "token": "x" * 34, "quality": False}
    place.write_text(f"broker: {{url: 'amqp://b/'}}\nsources:\n  roof: {json.dumps(told)}\n")
    block = {"kind": "external", "description": text}
    add_source(place, "off", block, other)
    variable = {"measurement": "a", "field": "t", "standard_name": "air_temperature", "cf_unit": "degC", "level": level}
    add_to_source(place, "roof", {"attribution": text, "description": other}, "variables", [variable])
    roof = told | {"attribution": text, "description": other, "variables": [variable]}
    assert yaml.safe_load(place.read_text())["sources"] == {"off": block, "roof": roof}


def test_the_page_is_that_of_the_code():
    made = runpy.run_path(str(EXAMPLES.parent / "tools" / "configuration_page.py"))
    assert (EXAMPLES.parent / "docs" / "configuration.md").read_text() == made["page"](), (
        "run: python tools/configuration_page.py"
    )
