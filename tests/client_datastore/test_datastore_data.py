"""Data, lazily: item by item or into files, and on after a break with none lost and none doubled."""

import asyncio
import csv
import gzip
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restream_service import API, TOKEN, seconds

from ionbeam_client.datastore import (
    APICompatibilityError,
    APIConcurrencyLimitError,
    AuthError,
    DataAggregations,
    DataFillMethods,
    DataResolutions,
    DatastoreError,
    Pad,
    ServiceError,
    Site,
    StageNameFilters,
    constants,
    resume,
)
from ionbeam_dagster.testing.service import Reply, empty, html, slow, status

START = datetime(2025, 9, 9, tzinfo=UTC)


def read(site=981, twin=False, **asked):
    """All items, by the one way or the other."""

    async def awaited():
        data = await Site(id=site).aget_data(**asked)
        return [item async for item in data.data_fetcher]

    return asyncio.run(awaited()) if twin else list(Site(id=site).get_data(**asked).data_fetcher)


def save(place, twin=False, **named):
    if twin:
        data = asyncio.run(Site(id=981).aget_data())
        asyncio.run(data.asave(place, **named))
    else:
        Site(id=981).get_data().save(place, **named)


both = pytest.mark.parametrize("twin", [False, True], ids=["blocking", "asyncio"])


# What is asked


def test_nothing_is_asked_before_somebody_looks_and_each_look_asks_anew(service):
    data = Pad(id=681).get_data(
        start_datetime=datetime(2025, 9, 8, 19, tzinfo=UTC), end_datetime=datetime(2025, 9, 9, 0, 1, tzinfo=UTC),
        is_routed=True, stage_name_filter=StageNameFilters.FRAC, stage_number=3, fields=["slurry_flow", "proppant"],
        resolution=DataResolutions.MINUTE, aggregation=DataAggregations.MAX, si_units=True,
        measurement_sources_names="M1",
    )  # fmt: skip
    first, second = data.data_fetcher, data.data_fetcher
    assert service.asked == []
    assert len(list(first)) == len(list(second)) == 122
    assert len(service.asked) == 2
    assert service.asked[0][1:3] == (f"{API}/pads/681/data/", [
        ("agg", "max"), ("end_datetime", "2025-09-09 00:01:00"), ("fields", "slurry_flow,proppant"),
        ("measurement_source", "M1"), ("resolution", "minute"), ("routed", "true"), ("si_units", "true"),
        ("stage_number", "3"), ("start_datetime", "2025-09-08 19:00:00"), ("state_imatch", "frac"),
    ])  # fmt: skip
    assert service.seen[0].headers["prefer"] == "streaming"


def test_gaps_are_filled_by_the_service(service):
    read(fill_data_method=DataFillMethods.FORWARD_FILL, fill_data_limit=5, fields="proppant")
    assert service.asked[0][2] == [
        ("fields", "proppant"), ("fill_data_limit", "5"), ("fill_data_method", "ffill"), ("inside_area_only", "true"),
        ("resolution", "raw"), ("si_units", "false"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start_datetime": datetime(2025, 9, 9)}, "start_datetime=2025-09-09T00:00:00 has no time zone"),
        ({"end_datetime": datetime(2025, 9, 9)}, "end_datetime=2025-09-09T00:00:00 has no time zone"),
        ({"start_datetime": START, "end_datetime": START - timedelta(seconds=1)}, "is after"),
        ({"stage_number": 1}, "needs stage_name_filter"),
        ({"fill_data_method": DataFillMethods.BACKWARD_FILL}, "needs fill_data_limit"),
        ({"fill_data_method": DataFillMethods.BACKWARD_FILL, "fill_data_limit": 0}, "positive"),
        ({"fill_data_method": DataFillMethods.BACKWARD_FILL, "fill_data_limit": 1,
          "resolution": DataResolutions.HOUR}, "items of a second"),
        ({"fields": [1]}, "a name, or a list of names"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told_at_once(service, asked, said):
    for owner in (Site(id=981), Pad(id=681)):
        with pytest.raises(ValueError, match=said):
            owner.get_data(**asked)
        with pytest.raises(ValueError, match=said):
            asyncio.run(owner.aget_data(**asked))
    with pytest.raises(ValueError, match="is_routed=True"):
        Pad(id=681).get_data(stage_number=1, stage_name_filter=StageNameFilters.FRAC)
    assert service.asked == []


@both
def test_items_come_as_they_are_with_no_numbers_missing(service, twin):
    service.data[981] = [{"time": "2025-09-09T00:00:00Z", "a": "Infinity", "b": {"c": "Infinity"}, "d": "é"}]
    assert read(twin=twin) == [{"time": "2025-09-09T00:00:00Z", "a": None, "b": {"c": "Infinity"}, "d": "é"}]


def test_items_come_while_the_rest_is_still_on_its_way(service):
    service.break_("data", slow(60))
    items = Site(id=981).get_data().data_fetcher
    assert [next(items) for _ in range(20)] == service.data[981][:20]
    items.close()

    async def twin():
        items = (await Site(id=982).aget_data()).data_fetcher
        service.break_("data", slow(60))
        first = await anext(items)
        await items.aclose()
        return first

    assert asyncio.run(twin()) == service.data[982][0]


@both
@pytest.mark.parametrize("cut", [None, 300], ids=["whole", "cut"])
def test_a_compressed_stream_is_read_and_goes_on(service, twin, cut):
    def compressed(reply):
        return replace(reply, body=gzip.compress(reply.body), headers={"Content-Encoding": "gzip"})

    service.break_("data", lambda reply: replace(compressed(reply), cut=cut))
    service.break_("data", compressed)
    assert read(twin=twin) == service.data[981]


# Files


@both
def test_a_json_file_has_the_items(service, tmp_path, twin):
    save(tmp_path / "new" / "folder" / "data.json", twin)
    assert json.loads((tmp_path / "new" / "folder" / "data.json").read_bytes()) == service.data[981]
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["data.json"]


@both
def test_a_csv_file_has_a_column_for_every_field_of_any_item(service, tmp_path, twin):
    service.data[981] = [
        {"time": "2025-09-09T00:00:00Z", "a": 1, "b": True},
        {"time": "2025-09-09T00:00:01Z", "b": None, "a": 0.1},
        {"time": "2025-09-09T00:00:02Z", "c": 'x,"y"\n\r z', "a": 1e300},
        {"time": "2025-09-09T00:00:03Z", "a": "", "b": "é"},
        {"time": "2025-09-09T00:00:04Z", "a": 2, "d": 5},
    ]
    save(tmp_path / "data.csv", twin)
    with (tmp_path / "data.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["time", "a", "b", "c", "d"],
            ["2025-09-09T00:00:00Z", "1", "True", "", ""],
            ["2025-09-09T00:00:01Z", "0.1", "", "", ""],
            ["2025-09-09T00:00:02Z", "1e+300", "", 'x,"y"\n\r z', ""],
            ["2025-09-09T00:00:03Z", "", "é", "", ""],
            ["2025-09-09T00:00:04Z", "2", "", "", "5"],
        ]
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_no_data_make_an_empty_file(service, tmp_path, ending):
    service.data[981] = []
    save(tmp_path / f"data.{ending}")
    assert (tmp_path / f"data.{ending}").read_text() == {"json": "[]", "csv": ""}[ending]


def test_the_ending_of_a_name_may_be_in_capitals(service, tmp_path):
    service.data[981] = []
    save(tmp_path / "DATA.JSON")
    assert (tmp_path / "DATA.JSON").read_text() == "[]"


def test_one_field_makes_one_column(service, tmp_path):
    service.data[981] = [{"time": "2025-09-09T00:00:00Z"}, {"time": "2025-09-09T00:00:01Z"}]
    save(tmp_path / "data.csv")
    assert (tmp_path / "data.csv").read_text() == "time\n2025-09-09T00:00:00Z\n2025-09-09T00:00:01Z\n"


@both
def test_names_are_looked_at_before_anything_is_asked(service, tmp_path, twin):
    for name in ("data.txt", "data", "data.json.gz"):
        with pytest.raises(ValueError, match=r"should end in \.json or \.csv"):
            save(tmp_path / name, twin)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(IsADirectoryError):
        save(tmp_path / "folder.json", twin, overwrite=True)
    (tmp_path / "data.json").write_text("old")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save(tmp_path / "data.json", twin)
    assert (tmp_path / "data.json").read_text() == "old"
    assert service.asked == []
    save(tmp_path / "data.json", twin, overwrite=True)
    assert json.loads((tmp_path / "data.json").read_bytes()) == service.data[981]


@both
@pytest.mark.parametrize("ending", ["json", "csv"])
@pytest.mark.parametrize("broken", ["at first", "in the middle"])
def test_a_download_that_fails_leaves_the_old_file_as_it_was(service, tmp_path, ending, twin, broken):
    place = tmp_path / f"data.{ending}"
    place.write_text("old")
    if broken == "in the middle":
        service.break_("data", lambda reply: replace(reply, cut=500))
    service.break_("data", status(401))
    with pytest.raises(AuthError):
        save(place, twin, overwrite=True)
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_process_that_is_killed_leaves_the_old_file_as_it_was(service, tmp_path):
    (tmp_path / "data.json").write_text("old")
    service.break_("data", slow(60))
    program = "from ionbeam_client.datastore import Site; Site(id=981).get_data().save('data.json', overwrite=True)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) as process:
        while not (service.asked and list(tmp_path.glob(".data.json.*.part"))):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert (tmp_path / "data.json").read_text() == "old"
    save(tmp_path / "data.json", overwrite=True)
    assert json.loads((tmp_path / "data.json").read_bytes()) == service.data[981]


def test_the_disk_is_full(service, tmp_path, monkeypatch):
    place = tmp_path / "data.csv"
    place.write_text("old")
    monkeypatch.setattr("ionbeam_client.saved_file.os.fsync", _full)
    with pytest.raises(OSError, match="No space"):
        save(place, overwrite=True)
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def _full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_that_comes_meanwhile_is_not_overwritten(service, tmp_path, monkeypatch, links):
    place = tmp_path / "data.json"
    service.break_("data", lambda reply: place.write_text("theirs") and reply)
    if not links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", _full)
    with pytest.raises(FileExistsError):
        save(place)
    assert place.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [place]
    place.unlink()
    save(place)
    assert json.loads(place.read_bytes()) == service.data[981]


def test_a_link_stays_a_link_and_a_mode_a_mode(service, tmp_path):
    file = tmp_path / "file.json"
    file.write_text("old")
    file.chmod(0o640)
    (tmp_path / "link.json").symlink_to(file)
    save(tmp_path / "link.json", overwrite=True)
    assert (tmp_path / "link.json").is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert json.loads(file.read_bytes()) == service.data[981]


def test_integers_of_any_size_are_written(tmp_path):
    from ionbeam_client.saved_file import SavedFile

    file = SavedFile(tmp_path / "data.json", False)
    file.write([{"a": 2**80}, {"a": 1}])
    file.finish()
    assert json.loads((tmp_path / "data.json").read_bytes()) == [{"a": 2**80}, {"a": 1}]


# Faults that pass


@both
@pytest.mark.parametrize("much", [0, 1 << 20], ids=["by time", "by bytes"])
def test_a_stream_that_is_cut_at_any_byte_goes_on(service, monkeypatch, much, twin):
    monkeypatch.setattr(resume, "_MUCH", much)
    service.data[981] = seconds("2025-09-09", 4, text="},{")
    length = len(json.dumps(service.data[981]))
    for cut in range(0, length + 1, 3 if twin else 1):
        service.break_("data", lambda reply, cut=cut: replace(reply, cut=cut))
        assert read(twin=twin) == service.data[981], cut


@both
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 9_000), max_size=constants.ATTEMPTS - 1), much=st.sampled_from([0, 2_000, 1 << 20]),
       way=st.sampled_from(["in order", "back", "two sites", "no time", "numbers"]), is_told=st.booleans())  # fmt: skip
def test_several_cuts_lose_nothing_and_double_nothing(service, cuts, much, way, is_told, twin):
    """Whatever the order of the items, and whichever way the rest is found; or it is told that this cannot be."""
    items = seconds("2025-09-09", 90)
    if way == "back":
        items = items[:3] + items[1:2] + items[3:]
    elif way == "two sites":
        items = [item | {"site": site} for item in items for site in (1, 2)]
    elif way == "no time":
        items = [{"value": i // 7} for i in range(200)]
    elif way == "numbers":
        items = [{"time": 1_757_376_000 + i} for i in range(200)]
    service.repair()
    service.answer = lambda request: Reply.of_json(_from(items, request.query.get("start_datetime")))
    before, resume._MUCH = resume._MUCH, much
    try:
        for cut in cuts:
            service.break_("data", partial(_broken_off, cut, is_told))
        came = read(twin=twin)
    except ServiceError as error:
        assert much < 1 << 20 and way in ("back", "two sites") and "go back in time" in str(error)
    else:
        assert came == items
    finally:
        resume._MUCH = before


def _broken_off(place, is_told, reply):
    """The connection ends too early, or the answer looks complete and is not."""
    place = min(place, len(reply.body) - 1)
    return replace(reply, cut=place) if is_told else replace(reply, body=reply.body[:place])


def _from(items, start):
    return [item for item in items if not start or item["time"][:19] >= start.replace(" ", "T")]


def test_the_rest_is_asked_for_by_time_where_much_was_had(service, monkeypatch):
    monkeypatch.setattr(resume, "_MUCH", 1000)
    service.break_("data", lambda reply: replace(reply, cut=3000))
    assert read(start_datetime=START) == service.data[981]
    starts = [dict(query)["start_datetime"] for _, _, query, _ in service.asked]
    assert starts[0] == "2025-09-09 00:00:00"
    assert starts[1] > "2025-09-09 00:00:20"


@pytest.mark.parametrize(
    "asked",
    [
        {"aggregation": DataAggregations.MEAN, "resolution": DataResolutions.MINUTE},
        {"fill_data_method": DataFillMethods.FORWARD_FILL, "fill_data_limit": 9},
    ],
)
def test_what_depends_on_its_start_is_asked_for_again_from_its_start(service, monkeypatch, asked):
    monkeypatch.setattr(resume, "_MUCH", 1000)
    service.break_("data", lambda reply: replace(reply, cut=3000))
    assert read(start_datetime=START, **asked) == service.data[981]
    assert service.asked[0] == service.asked[1]


def test_a_routed_pad_is_asked_for_again_from_its_start(service, monkeypatch):
    monkeypatch.setattr(resume, "_MUCH", 1000)
    service.break_("data", lambda reply: replace(reply, cut=3000))  # the first site's items alone, all in order
    items = list(Pad(id=681).get_data(is_routed=True).data_fetcher)
    assert items == service.data[982] + service.data[983]


@both
@pytest.mark.parametrize("much", [0, 1 << 20], ids=["by time", "by bytes"])
def test_data_that_change_while_they_are_downloaded_are_told(service, monkeypatch, twin, much):
    monkeypatch.setattr(resume, "_MUCH", much)

    def change(reply):
        service.data[981] = [item | {"slurry_flow": -1} for item in service.data[981]]
        return replace(reply, cut=3000)

    service.break_("data", change)
    with pytest.raises(ServiceError, match="changed meanwhile"):
        read(twin=twin)


def test_items_that_go_back_after_the_rest_was_found_by_time_are_told(service, monkeypatch):
    monkeypatch.setattr(resume, "_MUCH", 1000)
    service.data[981].insert(60, service.data[981][50])
    service.break_("data", lambda reply: replace(reply, cut=3000))
    with pytest.raises(ServiceError, match="go back in time"):
        read()


@both
@pytest.mark.parametrize(
    "fault", [status(503), status(500), status(429), status(429, retry_after="0"), lambda reply: replace(reply, cut=0)],
    ids=["503", "500", "429", "429 with Retry-After", "cut"],
)  # fmt: skip
def test_what_may_pass_is_tried_again(service, fault, twin):
    service.break_("data", fault, constants.ATTEMPTS - 1)
    assert read(twin=twin) == service.data[981]
    service.break_("pads/668", fault, constants.ATTEMPTS - 1)
    assert asyncio.run(Pad.aget_model(668)).id == 668 if twin else Pad.get_model(668).id == 668


@both
@pytest.mark.parametrize(
    ("fault", "error"),
    [(status(503), ServiceError), (status(429, retry_after="0"), APIConcurrencyLimitError),
     (lambda reply: replace(reply, cut=0), ServiceError)], ids=["503", "429", "cut"],
)  # fmt: skip
def test_what_does_not_pass_is_told_in_the_end(service, fault, error, twin):
    service.break_("data", fault, 1000)
    with pytest.raises(error):
        read(twin=twin)
    assert len(service.asked) <= constants.ATTEMPTS


@pytest.mark.parametrize("fault", [lambda reply: replace(reply, body=reply.body[:-1]), empty], ids=["no ]", "empty"])
def test_an_answer_that_ends_too_early_each_time_is_told(service, fault):
    service.break_("data", fault, 1000)
    items = Site(id=981).get_data().data_fetcher
    with pytest.raises(ServiceError, match=r"broken off 5 times without one more item, after \d+: .*closing bracket"):
        list(items)
    service.repair()
    service.break_("data", fault)
    assert read() == service.data[981]


def test_a_service_that_asks_to_wait_is_waited_for(service, waits, capsys):
    service.break_("pads", status(429, retry_after="1"))
    assert Pad.get_model(668).id == 668
    assert waits == [1.0]
    service.break_("pads", status(429, retry_after="3600"))
    with pytest.raises(APIConcurrencyLimitError) as told:
        Pad.get_model(668)
    assert told.value.retry_after == 3600
    service.break_("pads", status(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"))
    assert Pad.get_model(668).id == 668
    assert waits == [1.0, 0.0]
    assert capsys.readouterr() == ("", ""), "a library prints nothing"


@both
def test_a_silent_connection_is_a_broken_one(service, monkeypatch, twin):
    monkeypatch.setattr(constants, "SILENCE_SECONDS", 0.2)
    service.break_("data", slow(1))
    assert read(twin=twin) == service.data[981]
    assert len(service.asked) == 2


# Faults that stay


@both
@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (status(401), AuthError, "401.*does not know the token"),
        (status(403), AuthError, "403.*not allowed"),
        (status(404), APICompatibilityError, "404.*no such resource"),
        (status(400), ServiceError, "400 Bad Request: not now"),
        (html, APICompatibilityError, "DOCTYPE"),
    ],
    ids=["401", "403", "404", "400", "HTML with 200"],
)
def test_what_will_not_pass_is_told_at_once(service, fault, error, said, twin):
    service.break_("data", fault, 1000)
    with pytest.raises(error, match=said):
        read(twin=twin)
    service.break_("pads", fault, 1000)
    with pytest.raises(error, match=said) as told:
        asyncio.run(Pad.aget_models()) if twin else Pad.get_models()
    assert len(service.asked) == 2
    assert f"{service.url}{API}/pads/" in str(told.value)
    assert TOKEN not in str(told.value)


@both
@pytest.mark.parametrize("code", [200, 400, 401, 403, 404])
def test_a_service_that_repeats_the_token_makes_no_error_that_shows_it(service, code, twin):
    service.break_("data", lambda reply: Reply(f"<html>sent: Bearer {TOKEN}</html>".encode(), code), 1000)
    service.break_("pads", lambda reply: Reply(f"sent: Bearer {TOKEN}".encode(), code), 1000)
    for ask in (lambda: read(twin=twin), Pad.get_models):
        with pytest.raises(DatastoreError, match=r"Bearer \*\*\*") as told:
            ask()
        assert TOKEN not in repr(told.value)


def test_an_error_among_the_items_is_no_item(service, tmp_path):
    service.break_("data", lambda reply: replace(reply, body=reply.body[:-1] + b', {"detail": "Server error"}]'), 1000)
    with pytest.raises(APICompatibilityError, match="Server error"):
        save(tmp_path / "rows.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"", "is empty"), (b"{", "is no JSON"), (b'{"detail": "gone"}', "a list of objects was expected"),
     (b"[1]", "a list of objects was expected"), (b'[{"name": "x"}]', "no id"), (b"null", "a list of objects")],
)  # fmt: skip
def test_answers_of_another_shape_are_told(service, answer, said):
    service.break_("pads", lambda reply: replace(reply, body=answer), 10)
    with pytest.raises(APICompatibilityError, match=said):
        Pad.get_models()
    with pytest.raises(APICompatibilityError):
        Pad.get_model(668) if answer[:1] != b"{" or len(answer) < 2 else Pad.get_models(as_dict=True)


@both
def test_a_token_that_ends_in_the_middle_of_a_stream_is_told_after_what_came(service, twin):
    service.break_("data", lambda reply: replace(reply, cut=2000))
    service.break_("data", status(401))
    came = []

    async def awaited():
        async for item in (await Site(id=981).aget_data()).data_fetcher:
            came.append(item)  # noqa: PERF401

    def blocking():
        for item in Site(id=981).get_data().data_fetcher:
            came.append(item)  # noqa: PERF402

    with pytest.raises(AuthError):
        asyncio.run(awaited()) if twin else blocking()
    assert came == service.data[981][: len(came)]
    assert len(came) > 10


def test_a_task_that_is_cancelled_leaves_no_file_and_gives_its_place_back(service, tmp_path):
    async def run():
        service.break_("data", slow(60), 3)
        data = await Site(id=981).aget_data()
        tasks = [asyncio.create_task(data.asave(tmp_path / f"{i}.json")) for i in range(3)]
        while len(list(tmp_path.iterdir())) < 3 or len(service.asked) < 3:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [item async for item in data.data_fetcher]

    assert asyncio.run(run()) == service.data[981]
    assert list(tmp_path.iterdir()) == []


# Requests at once


def test_a_fourth_stream_in_one_place_is_refused_not_waited_for(service, waits):
    service.break_("data", slow(60), 3)
    open_ones = [Site(id=site).get_data().data_fetcher for site in (981, 982, 983)]
    for items in open_ones:
        next(items)
    with pytest.raises(APIConcurrencyLimitError, match="read one of its streams to the end, or close it") as told:
        read()
    assert not told.value.may_pass
    assert waits == []
    assert Pad.get_models()  # another endpoint
    open_ones[0].close()
    assert read() == service.data[981]
    for items in open_ones:
        items.close()


def test_never_more_than_three_requests_at_once_for_an_endpoint(service):
    now, most, lock = [0], [0], threading.Lock()
    answer = service.answer

    def counted(request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.05)
        with lock:
            now[0] -= 1
        return answer(request)

    service.answer = counted

    async def tasks():
        return await asyncio.gather(*(Pad.aget_model(668) for _ in range(6)))

    threads = [threading.Thread(target=partial(Pad.get_model, 668)) for _ in range(5)]
    threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.asked) == 11
    assert most[0] == 3


def test_who_waits_for_a_place_too_long_is_told(service, monkeypatch, waits):
    monkeypatch.setattr(constants, "SECONDS_FOR_A_PLACE", 0.1)
    service.break_("data", slow(60), 3)
    open_ones = [Site(id=981).get_data().data_fetcher for _ in range(3)]
    for items in open_ones:
        next(items)
    told = []

    def elsewhere(twin):
        try:
            read(twin=twin)
        except APIConcurrencyLimitError as error:
            told.append(str(error))

    for twin in (False, True):
        thread = threading.Thread(target=elsewhere, args=(twin,))
        thread.start()
        thread.join()
    for items in open_ones:
        items.close()
    assert [text.endswith("none became free within 0.1 s") for text in told] == [True, True]
    assert waits == []
