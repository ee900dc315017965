"""The source `restream`: what becomes of the service's items, and of everything that it may do wrong."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restream_service import CLIENT_SECRET
from restream_weather import SITES, START, RestreamWeather, block_of, event, item

from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.errors import DeadlineExceeded, SourceError
from ionbeam_dagster.sources.deadline import within
from ionbeam_dagster.sources.restream import Restream, RestreamConfig
from ionbeam_dagster.testing.service import Reply, empty, html, slow, status, truncated

WINDOW = Window(START, START + HOUR)
FIELD = "ambient_temperature"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """How long was waited between tries; nobody really waits."""
    waited = []
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", waited.append)
    return waited


@pytest.fixture
def service():
    with RestreamWeather() as running:
        yield running


def made(service, **keys) -> Restream:
    return Restream("restream", RestreamConfig(**block_of(service) | keys))


def fetched(source, window=WINDOW) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(source.fetch(window))))


def and_then(item):
    """What follows the items of an answer."""
    return lambda reply: Reply.of_json([*json.loads(reply.body), item])


def of_all(reply, value):
    return Reply.of_json([one | {FIELD: value} for one in json.loads(reply.body)])


def test_items_become_rows_of_sites(service):
    source = made(service)
    rows = fetched(source)
    assert rows["station_id"].to_list() == [str(site) for site in SITES for _ in range(6)]
    assert rows[FIELD].to_list()[:2] == [pytest.approx(10.0), pytest.approx(10.0 + 1 / 1.8)]
    first = rows.row(0, named=True)
    assert (first["lat"], first["lon"], first["station_name"], first["datetime"]) == (31.5, -102.25, "Site 981", START)
    assert source.problems() == []
    asked = [request for request in service.seen if request.path.endswith("/data/")]
    assert len(asked) == 3 and {request.headers["prefer"] for request in asked} == {"streaming"}
    assert asked[0].query == {
        "si_units": "false", "resolution": "raw", "fields": FIELD, "start_datetime": "2025-09-09 00:00:00",
        "end_datetime": "2025-09-09 01:00:00",
    }  # fmt: skip


def test_a_long_window_is_asked_an_hour_at_a_time_and_three_at_once(service):
    lock, at_once, most = threading.Lock(), 0, 0
    answer = service.answer

    def counted(request):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.02)
        with lock:
            at_once -= 1
        return answer(request)

    service.answer = counted
    rows = fetched(made(service), Window(START, START + 8 * HOUR))
    assert rows.height == 3 * 18 and len(service.paths("/data/$")) == 3 * 8 and most == 3


def test_items_as_they_may_be(service):
    ten = START + timedelta(minutes=10)
    service.data[981] = [
        item(ten, 981, "Infinity"),
        item(START, 981, 50),
        item(ten + timedelta(minutes=1), 981, "NaN") | {"new": {"a": [1]}},
        item(ten, 981, "59.0") | {"time": "2025-09-09T00:20:00"},
        item(ten, 981, None) | {"time": "2025-09-09T00:21:00.250000+00:00"},
        {"time": "2025-09-09T00:22:00Z"},
        item(START, 981, 68.0),
        item(START - HOUR, 981, 50.0),
        item(ten + timedelta(minutes=20), 981, "53,1"),
        item(ten + timedelta(minutes=21), 981, {"v": 1}),
        item(ten + timedelta(minutes=22), 981, True),
        item(ten + timedelta(minutes=23), 981, 10**400),
    ]
    service._items = lambda sites, query: service.data[sites[0]] if sites == [981] else []
    source = made(service)
    rows = fetched(source)
    assert [None if one is None else round(one, 3) for one in rows[FIELD]] == [
        20.0, None, None, 15.0, None, None, None, None, None, None,
    ]  # fmt: skip
    assert source.problems() == [
        "site 981: 1 items outside of 2025-09-09 00:00-01:00 were left out",
        "site 981: 1 items with the time of another were left out",
        f'site 981: 3 values of {FIELD} were left out, as they are no numbers: "53,1"',
    ]


def test_no_items_at_all_are_an_empty_window(service):
    service.data = {site: [] for site in SITES}
    assert list(made(service).fetch(WINDOW)) == []


def test_a_field_that_no_item_has_is_told(service):
    source = made(service, variables=[{"field": "mistyped", "standard_name": "air_temperature", "cf_unit": "degC"}])
    fetched(source)
    assert source.problems() == ["no item has a number in mistyped; are the names of the fields right?"]


def test_a_site_without_a_place_is_told_and_may_be_given_one(service, monkeypatch):
    monkeypatch.setattr("restream_service._site", lambda site: {"id": site, "name": "A", "latitude": None})
    source = made(service)
    assert fetched(source)["lat"].null_count() == 18
    assert source.problems()[0] == "site 981 has no place, so that its rows are set aside: add it to stations"
    placed = made(service, stations={site: {"latitude": 1.0, "longitude": 2.0, "altitude": 3.0} for site in SITES})
    assert fetched(placed).row(0, named=True)["altitude"] == 3.0 and placed.problems() == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (status(401), r"data/.*: 401, the service does not know the token; renew sources.restream.token: not now"),
        (status(403), r"403, the token does not allow it; correct sources.restream.pads and sites"),
        (status(404), r"404, there is no such pad or site"),
        (status(429, retry_after="7"), r"429 .*\(3 tries\)"),
        (status(503), r"503 .*\(3 tries\)"),
        (truncated, r"broke off .*\(3 tries\)"),
        (lambda reply: replace(reply, body=reply.body[:-1]), "is not JSON"),
        (html, "is not JSON .*text/html.*We are moving"),
        (empty, "is empty"),
        (lambda reply: Reply.of_json({"detail": "later"}), "is no list, but .*later"),
        (lambda reply: Reply.of_json([1, 2]), "has an item that is none: 1"),
        (and_then(None), "has an item that is none: null"),
        (lambda reply: Reply.of_json([{"error": "db timeout"}]), 'an error among its items: .*"db timeout'),
        (and_then({"error": "db timeout"}), 'an error among its items: .*"db timeout'),
        (and_then({"detail": "x" * 999, "code": 500}), r"an error among its items: .{200}\.\.\.$"),
        (and_then({"timestamp": "2025-09-09T00:00:00Z", FIELD: 1.0}), "an item without a time .*timestamp"),
        (and_then({"time": 1757376000, FIELD: 1.0}), "an item without a time .*1757376000"),
        (and_then({"time": "at noon\x1b", FIELD: 1.0}), r'an item whose time cannot be read: "at noon\\u001b"'),
        (lambda reply: of_all(reply, "53,1"), f'has no number in {FIELD}, but "53,1"'),
        (lambda reply: of_all(reply, {"a": 1}), f"has no number in {FIELD}, but .*a"),
    ],
    ids=["401", "403", "404", "429", "503", "cut", "no end", "html", "empty", "object", "numbers", "null", "error",
         "error last", "detail", "other name", "number", "no time", "comma", "nested"],
)  # fmt: skip
def test_what_is_wrong_with_one_page_is_no_window(service, waits, fault, told):
    service.break_("/sites/982/data/", fault, times=9)
    with pytest.raises(SourceError, match=told):
        list(made(service, max_retries=2).fetch(WINDOW))
    if "429" in told:
        assert waits == [7.0, 7.0], "as long as the service asks for"


def test_what_passes_is_no_harm(service, waits):
    service.break_("/sites/982/data/", status(503))
    service.break_("/sites/983/data/", truncated)
    service.break_("/sites/981/data/", status(429, retry_after="2"))
    assert fetched(made(service)).height == 18 and 2.0 in waits


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2000), st.booleans())
def test_a_page_that_ends_anywhere_is_no_window(service, at, is_told):
    """Whether the connection breaks, or the service itself ends the answer there."""
    service.repair()
    whole = len(json.dumps(service.data[982][:7]))
    service.break_(
        "/sites/982/data/",
        lambda reply: replace(reply, cut=at % whole) if is_told else replace(reply, body=reply.body[: at % whole]),
        times=9,
    )
    with pytest.raises(SourceError, match=r"982/data"):
        list(made(service, max_retries=0).fetch(WINDOW))


def test_a_slow_answer_ends_with_the_deadline(service):
    service.break_("/data/", slow(3.0), times=9)
    with within(timedelta(seconds=0.3)), pytest.raises((DeadlineExceeded, SourceError)):
        list(made(service).fetch(WINDOW))


def test_a_client_program_is_granted_a_token(service):
    source = made(service, token="", client_id="us", client_secret=CLIENT_SECRET)
    assert fetched(source).height == 18 and len(service.grants) == 1
    with pytest.raises(SourceError, match=r"has no token; set sources.restream.token, or client_id and client_secret"):
        list(made(service, token="").fetch(WINDOW))


def test_no_message_shows_a_secret(service):
    service.break_("", lambda reply: Reply(b"you are your token", 403), times=9)
    with pytest.raises(SourceError) as failure:
        list(made(service).fetch(WINDOW))
    assert "your token" not in str(failure.value)


def test_it_tells_newly_ended_time_and_corrections_once(service):
    source = made(service)
    ranges, cursor = source.changes(None)
    assert len(ranges) == 1 and ranges[0].start == START
    service.correct(7, 982, START + HOUR, START + HOUR, 70.0)
    told, cursor = source.changes(cursor)
    assert told == [Window(START + HOUR, START + HOUR + timedelta(seconds=1))]
    assert source.changes(cursor)[0] == []
    service.events = [event(7, 982, START, START + HOUR)]
    assert source.changes(cursor)[0] == [Window(START, START + HOUR + timedelta(seconds=1))]


def test_a_correction_of_a_new_site_is_collected(service):
    source = made(service)
    few = lambda reply: Reply.of_json(json.loads(reply.body)[:1])  # noqa: E731
    service.break_(r"/sites/\?", few)
    assert set(fetched(source)["station_id"]) < {str(site) for site in SITES}
    assert set(fetched(source)["station_id"]) == {str(site) for site in SITES}


def test_a_confirm_that_the_service_does_not_take_is_an_error(service):
    service.correct(7, 982, START, START, 70.0)
    [told] = made(service).corrections()
    service._confirm = lambda change_log: None
    with pytest.raises(SourceError, match="still has change event 7, which was confirmed"):
        made(service).confirm(told)


def test_an_answer_that_is_an_error_confirms_nothing(service):
    service.correct(7, 982, START, START, 70.0)
    [told] = made(service).corrections()
    service.break_("data_changes", lambda reply: Reply.of_json({"change_log": [{"error": "db timeout"}]}))
    with pytest.raises(SourceError, match=r"an error among its change events: .*db timeout"):
        made(service).confirm(told)


@pytest.mark.parametrize(
    "fault",
    [
        html,
        empty,
        truncated,
        lambda reply: Reply.of_json([]),
        lambda reply: Reply.of_json({"change_log": [{"error": "x"}]}),
    ],
)
def test_events_that_cannot_be_had_are_an_error(service, fault):
    service.break_("data_changes", fault, times=9)
    with pytest.raises(SourceError):
        made(service, max_retries=0).corrections()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sites": [], "pads": []}, "has neither pads nor sites"),
        ({"variables": []}, "at least 1 item"),
        ({"variables": [{"field": "a", "standard_name": "air_temperature", "unit": "m", "cf_unit": "K"}]}, "air_temp"),
        ({"variables": [{"field": "a", "standard_name": name, "cf_unit": "1"} for name in ("x_a", "x_b")]}, "field a"),
    ],
)
def test_a_block_that_cannot_work_is_refused(service, keys, told):
    with pytest.raises(ValueError, match=told):
        made(service, **keys)
