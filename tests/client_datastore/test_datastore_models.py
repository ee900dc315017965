"""Pads, sites, states, stages and changes: what is asked of the service, and what becomes of its answers."""

import asyncio
import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from restream_service import API, CLIENT_SECRET, TOKEN, RestreamService

from ionbeam_client.datastore import (
    APICompatibilityError,
    AuthError,
    DataChange,
    Pad,
    Site,
    StageNameFilters,
    State,
)
from ionbeam_dagster.testing.service import Reply, redirected, status


def paths(service):
    return [path.removeprefix(API) for _, path, _, _ in service.asked]


def called(both, name, *args, **named):
    """The result of a method, after its twin for asyncio gave the same."""
    blocking = getattr(both, name)(*args, **named)
    awaited = asyncio.run(getattr(both, f"a{name}")(*args, **named))
    assert _plain(awaited) == _plain(blocking)
    return blocking


def _plain(result):
    if isinstance(result, list):
        return [_plain(one) for one in result]
    return vars(result) if hasattr(result, "__dict__") else result


def test_it_imports_neither_frames_nor_arrow_nor_a_broker():
    program = (
        "import sys; import ionbeam_client.datastore;"
        "print(*{'pyarrow', 'pandas', 'polars', 'numpy', 'aio_pika', 'pydantic'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "\n"


def test_all_fields_become_attributes_and_timestamps_datetimes(service):
    site = called(Site, "get_model", id=981)
    assert (site.id, site.name, site.latitude, site.timezone) == (981, "Site 981", 31.5, "US/Central")
    assert site.date_created == datetime(2024, 5, 1, 10, 0, 0, 123456, UTC)
    assert site.commissioned == datetime(2024, 5, 1, 22, tzinfo=UTC)  # a field that this version does not know
    assert site.metadata == {"first_timestamp": "2024-05-01T10:00:00Z"}


def test_a_dict_keeps_what_the_service_said_and_makes_the_same_object(service):
    fields = called(Site, "get_model", id=981, as_dict=True)
    assert fields["date_created"] == "2024-05-01T10:00:00.123456Z"
    site = Site(**fields)
    assert site.date_created == datetime(2024, 5, 1, 10, 0, 0, 123456, UTC)
    assert vars(site) == vars(Site.get_model(981))


def test_a_timestamp_without_a_zone_is_utc_and_one_that_is_none_is_told():
    assert Site(id=1, date_created="2024-05-01T10:00:00").date_created == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert Pad(id=1, completion_date="2024-05-01").completion_date == datetime(2024, 5, 1, tzinfo=UTC)
    assert Pad(id=1, completion_date=None).completion_date is None
    assert Pad(id=1, name="2024-05-01T10:00:00Z").name == "2024-05-01T10:00:00Z"  # known to be a name
    assert Pad(id=1, note="2024-13-01T10:00:00Z is no date").note.endswith("no date")
    with pytest.raises(APICompatibilityError, match=r"Site\(id=1\): date_created is no timestamp: 'soon'"):
        Site(id=1, date_created="soon")


def test_a_field_that_looks_like_a_timestamp_and_is_none_stays_a_text():
    assert Pad(id=1, serial="2024-13-01T10:00:00Z").serial == "2024-13-01T10:00:00Z"


def test_a_field_with_the_name_of_a_method_is_left_out_and_told():
    with pytest.warns(RuntimeWarning, match="'update' has the name of a method"):
        pad = Pad(id=1, update="2025", name="x")
    assert pad.name == "x"
    assert callable(pad.update)
    with pytest.warns(RuntimeWarning, match="'_auth_token'"):
        assert Pad(id=1, auth_token="secret", _auth_token="theirs")._auth_token == "secret"


def test_what_is_not_loaded_says_how_to_load_it(service):
    pad = Pad(id=668)
    assert getattr(pad, "name", None) is None
    with pytest.raises(AttributeError, match=r"Pad\(id=668\) has no 'name'; update\(\)"):
        print(pad.name)
    assert service.asked == []
    pad.update()
    assert pad.name == "Pad 668"
    other = Pad(id=668)
    asyncio.run(other.aupdate())
    assert vars(other) == vars(pad)


def test_objects_can_be_copied_and_pickled_and_show_no_token():
    pad = Pad(id=668, auth_token="secret", name="x")
    for twin in (copy.deepcopy(pad), pickle.loads(pickle.dumps(pad))):
        assert vars(twin) == vars(pad)
    assert repr(pad) == "Pad(id=668)"


@pytest.mark.parametrize("model", [Pad, Site, State])
def test_all_models(service, model):
    models = called(model, "get_models")
    assert models
    assert all(type(one) is model for one in models)
    assert [one["id"] for one in called(model, "get_models", as_dict=True)] == [one.id for one in models]


def test_filters_are_parameters_of_the_address(service):
    Pad.get_models(complete=False, well_api="42-317", site_pk=None, since=datetime(2025, 1, 1, tzinfo=UTC), id=[1, 2])
    assert service.asked[0][2] == [
        ("complete", "false"), ("id", "1"), ("id", "2"), ("since", "2025-01-01T00:00:00Z"), ("well_api", "42-317"),
    ]  # fmt: skip


def test_an_id_stays_one_part_of_the_path(service):
    with pytest.raises(APICompatibilityError, match="404"):
        Pad.get_model(id="../sites/981")
    assert "%2F" in service.asked[0][1]


def test_children_and_parents_are_asked_for_once(service):
    assert [site.id for site in called(Pad(id=681), "get_sites")] == [982, 983]
    assert paths(service) == ["/sites/"] * 2
    assert service.asked[0][2] == [("pad__id", "681")]
    service.asked.clear()
    assert Site(id=981).get_pad().id == 668
    assert paths(service) == ["/sites/981/", "/pads/668/"]
    service.asked.clear()
    assert called(Site.get_model(981), "get_pad", as_dict=True)["name"] == "Pad 668"
    assert paths(service) == ["/sites/981/", "/pads/668/", "/pads/668/"]
    assert Site(id=981, pad_id=None).get_pad() is None


def test_states(service):
    assert called(Site(id=981), "get_state").current_state == "frac_frac"
    assert called(Site(id=981), "get_state", as_dict=True)["calculated_stage_number"] == 12
    assert {state.site_name for state in called(Pad(id=681), "get_states")} == {"Site 982", "Site 983"}
    service.break_("states", lambda reply: Reply.of_json([]))
    assert Site(id=981).get_state() is None


@pytest.mark.parametrize(("stage", "code"), [("FRAC", "frac"), ("WIRELINE", "wl"), ("STANDBY", "standby")])
def test_states_of_one_kind_of_stage(service, stage, code):
    states = called(Pad(id=681), "get_states", stage_name_filter=StageNameFilters[stage], as_dict=True)
    assert service.asked[0][2] == [("current_state_search", code), ("pad__id", "681")]
    assert all(code in state["current_state"] for state in states)
    assert called(State, "get_models", stage_name_filter=StageNameFilters[stage])


def test_a_state_is_watched(service):
    state = Site(id=981).get_state()
    service.break_("states/", lambda reply: Reply(reply.body.replace(b"frac_frac", b"wl_run"), type=reply.type), 2)
    state.update()
    assert state.current_state == "wl_run"
    asyncio.run(state.aupdate())
    assert paths(service) == ["/states/", "/states/5981/", "/states/5981/"]


def test_past_stages(service):
    zone = timezone(timedelta(hours=-5))
    first, last = datetime(2025, 9, 16, 19, tzinfo=zone), datetime(2025, 9, 18, tzinfo=UTC)
    found = called(Site(id=981), "get_stages_metadata", start_date=first, end_date=last,
                   stage_name_filter=StageNameFilters.FRAC, stage_number=0)  # fmt: skip
    assert [stage["stage_number"] for stage in found] == [1, 3]
    assert service.asked[0][2] == [
        ("end", "2025-09-18T00:00:00Z"), ("stage_number", "0"), ("start", "2025-09-17T00:00:00Z"), ("state", "frac"),
    ]  # fmt: skip
    called(Site(id=981), "get_stages_metadata", start=first, end=last)
    assert service.asked[2][2] == [("end", "2025-09-18T00:00:00Z"), ("start", "2025-09-17T00:00:00Z")]


def test_moments_of_stages_have_a_zone_one_name_and_an_order():
    site, moment = Site(id=981), datetime(2025, 9, 17, tzinfo=UTC)
    with pytest.raises(ValueError, match="time zone"):
        site.get_stages_metadata(start_date=datetime(2025, 9, 17))
    with pytest.raises(TypeError, match="start is another name for start_date"):
        site.get_stages_metadata(start_date=moment, start=moment)
    with pytest.raises(ValueError, match="is after"):
        site.get_stages_metadata(start=moment, end=moment - timedelta(seconds=1))


@pytest.mark.filterwarnings("ignore:.*no aggregations")
def test_aggregations_are_merged_by_stage(service, monkeypatch):
    monkeypatch.setattr("ionbeam_client.datastore.constants.STAGES_AT_ONCE", 2)
    found = called(Pad(id=681), "get_stages_metadata", add_aggregations=True)
    assert [stage["aggregations"] for stage in found] == [{"slurry_flow_max": stage["id"] / 2} for stage in found]
    asked = [query for _, path, query, _ in service.asked if "aggregations" in path]
    assert asked[0] == [("histories", "9821"), ("histories", "9822")]
    assert len(asked) == 6  # six stages, two at once, in two ways


def test_a_site_without_aggregations_is_told_and_the_others_are_given(service):
    service.break_("aggregations", lambda reply: Reply.of_json({"982": [{"id": 9821, "max": 1}], "983": "No data"}))
    with pytest.warns(RuntimeWarning, match="no aggregations for site 983: No data"):
        found = Pad(id=681).get_stages_metadata(add_aggregations=True)
    assert [stage["aggregations"] for stage in found] == [{"max": 1}] + [None] * 5


def test_measurement_sources(service):
    of_pad = called(Pad(id=681), "get_measurement_sources_metadata")
    assert [source["name"] for source in of_pad["frac"]] == ["M1", "M2"]
    of_site = called(Site(id=983), "get_measurement_sources_metadata")
    assert of_site == {"frac": [{"id": 8, "name": "M2"}], "wl": []}
    assert Pad(id=1, simops_config=None).get_measurement_sources_metadata() == {}
    assert Site(id=1, pad_id=None).get_measurement_sources_metadata() == {}
    with pytest.raises(APICompatibilityError, match="no measurement_sources"):
        Pad(id=1, simops_config={}).get_measurement_sources_metadata()


@pytest.mark.parametrize("owner", [Pad(id=681), Site(id=981)])
def test_fields(service, owner):
    assert [field["name"] for field in called(owner, "get_fields_metadata")] == ["slurry_flow", "proppant"]
    assert paths(service)[0].endswith(f"/{owner.id}/fields/")


# Tokens and hosts


def test_a_token_is_taken_from_the_argument_then_from_either_variable(service, monkeypatch):
    monkeypatch.setenv("TALLY_AUTH_TOKEN", "theirs")
    with pytest.raises(AuthError, match="401"):
        Pad.get_models()
    assert Pad.get_models(auth_token=TOKEN)
    monkeypatch.setenv("TALLY_AUTH_TOKEN", f"{TOKEN}\n")  # as from a file
    assert Pad.get_models()
    monkeypatch.delenv("TALLY_AUTH_TOKEN")
    monkeypatch.setenv("RESTREAM_AUTH_TOKEN", TOKEN)
    assert Pad.get_models()


def test_without_a_usable_token_nothing_is_asked(service, monkeypatch):
    monkeypatch.delenv("TALLY_AUTH_TOKEN")
    with pytest.raises(AuthError, match=r"set TALLY_AUTH_TOKEN or RESTREAM_AUTH_TOKEN, or .*, or give auth_token="):
        Pad.get_models()
    for token in ("a\nb", "café"):
        with pytest.raises(AuthError, match="copied whole") as told:
            Pad.get_models(auth_token=token)
        assert token not in str(told.value)
    assert service.asked == []


def test_a_token_goes_on_to_all_that_an_object_leads_to(service, monkeypatch):
    monkeypatch.delenv("TALLY_AUTH_TOKEN")
    pad = Pad.get_model(id=668, auth_token=TOKEN)
    (site,) = pad.get_sites()
    assert site.get_pad().get_states()[0].update() is None
    events, data = Pad(id=668, auth_token=TOKEN).get_data_changes()
    assert list(data.data_fetcher)
    assert list(events[0].get_data().data_fetcher)
    assert all(event.confirm_data_received() for event in events)
    assert site.get_measurement_sources_metadata()
    assert list(site.get_data().data_fetcher)
    assert {request.headers["authorization"] for request in service.seen} == {f"Bearer {TOKEN}"}


def test_a_host_is_an_address(monkeypatch):
    monkeypatch.setenv("TALLY_AUTH_TOKEN", TOKEN)
    for host in ("app.example", "ftp://app.example", "http://[1"):
        monkeypatch.setenv("RESTREAM_HOST", host)
        with pytest.raises(ValueError, match="RESTREAM_HOST"):
            Pad.get_models()


@pytest.fixture
def client(service, monkeypatch):
    """The environment of somebody who has no token, but an id and a secret."""
    monkeypatch.delenv("TALLY_AUTH_TOKEN")
    monkeypatch.setenv("RESTREAM_CLIENT_ID", "me")
    monkeypatch.setenv("RESTREAM_CLIENT_SECRET", CLIENT_SECRET)


def test_a_client_is_granted_a_token_and_uses_it_again(service, client):
    service.break_("token", status(503))
    for _ in range(2):
        called(Pad, "get_models")
    assert list(Site(id=981).get_data().data_fetcher)
    assert (
        service.grants == [{"client_id": "me", "client_secret": CLIENT_SECRET, "grant_type": "client_credentials"}] * 2
    )  # the first answer was lost
    assert Pad.get_models(auth_token=TOKEN)


@pytest.mark.parametrize("twin", [False, True])
def test_another_token_is_asked_for_at_the_end_of_its_time_or_when_it_is_refused(service, client, twin):
    def get_models():
        return asyncio.run(Pad.aget_models()) if twin else Pad.get_models()

    service.token_seconds = 20  # less than a token should have before it is used
    assert get_models() and get_models()
    assert len(service.grants) == 2
    service.token_seconds = 3600
    assert get_models() and get_models()
    assert len(service.grants) == 3
    service.break_("pads", status(401))
    with pytest.raises(AuthError, match="no longer"):
        get_models()
    assert get_models()
    assert len(service.grants) == 4


@pytest.mark.parametrize("twin", [False, True])
def test_a_client_that_is_not_known_is_told_without_its_secret(service, client, monkeypatch, twin):
    monkeypatch.setenv("RESTREAM_CLIENT_SECRET", "misspelt")
    with pytest.raises(AuthError, match="no token for RESTREAM_CLIENT_ID and RESTREAM_CLIENT_SECRET") as told:
        asyncio.run(Pad.aget_models()) if twin else Pad.get_models()
    assert "misspelt" not in str(told.value)
    assert len(service.asked) == 1
    monkeypatch.setenv("RESTREAM_CLIENT_SECRET", CLIENT_SECRET)
    for answer in ({"access_token": "x"}, [], {"access_token": "x", "expires_in": "soon"}):
        service.break_("token", lambda reply, answer=answer: Reply.of_json(answer))
        with pytest.raises(APICompatibilityError, match="grants no token"):
            Pad.get_models()


def test_a_token_does_not_go_to_another_host(service):
    with RestreamService() as other:
        service.break_("pads", redirected(f"{other.url}{API}/pads/"))
        with pytest.raises(AuthError):
            Pad.get_models()
        assert "authorization" not in other.seen[0].headers
    service.break_("pads", redirected("/external/thirdparty/v1/sites/"))
    assert len(Pad.get_models()) == 3  # on the same host it is followed


# Changes


def test_changes_and_their_data_with_what_overlaps_once(service):
    events, data = Pad(id=668).get_data_changes()
    assert [event.id for event in events] == [1, 2]
    assert events[1].start_date == datetime(2025, 9, 9, 0, 0, 15, 250000, UTC)
    assert events[0].update_received is False
    assert len(service.asked) == 1
    times = [item["time"][17:19] for item in data.data_fetcher]
    assert times == [f"{second:02}" for second in range(5, 31)]
    assert len(service.asked) == 2
    assert service.asked[1][1:3] == (f"{API}/sites/981/data/", [
        ("end_datetime", "2025-09-09 00:00:30"), ("resolution", "raw"), ("si_units", "false"),
        ("start_datetime", "2025-09-09 00:00:05"),
    ])  # fmt: skip


def test_changes_of_several_sites(service):
    service.events += [service.events[0] | {"id": 4, "site": 983}]
    as_dicts, data = Pad(id=681).get_data_changes(as_dict=True)
    assert [event["site"] for event in as_dicts] == [982, 983]
    assert [item["site"] for item in data.data_fetcher] == [982] * 6 + [983] * 16

    async def twin():
        _, data = await Pad(id=681).aget_data_changes()
        return [item["site"] async for item in data.data_fetcher]

    assert asyncio.run(twin()) == [982] * 6 + [983] * 16


def test_a_deletion_is_a_range_whose_items_are_gone(service, tmp_path):
    service.data[982] = [item for item in service.data[982] if item["time"] < "2025-09-09T00:01:00Z"]
    (event,), data = Site(id=982).get_data_changes()
    assert event.modification_subtype == "delete"
    assert list(event.get_data().data_fetcher) == []
    data.save(tmp_path / "gone.json")
    assert (tmp_path / "gone.json").read_text() == "[]"
    data.save(tmp_path / "gone.csv")
    assert (tmp_path / "gone.csv").read_text() == ""


def test_what_is_confirmed_is_not_given_again(service):
    first, second = Site(id=981).get_data_changes()[0]
    assert first.confirm_data_received() is True
    assert service.asked[-1] == ("POST", f"{API}/sites/981/data_changes/", [],
                                 {"change_log": [{"id": 1, "update_received": True}]})  # fmt: skip
    assert [event.id for event in Site(id=981).get_data_changes()[0]] == [2]
    assert first.confirm_data_received() is True
    assert service.confirmed == [1]
    assert asyncio.run(second.aconfirm_data_received()) is True
    assert service.confirmed == [1, 2]


def test_an_event_is_looked_up_again(service):
    first, second = Site(id=981).get_data_changes()[0]
    service.events[0]["end_date"] = "2025-09-10T00:00:00Z"
    del service.events[1]
    first.update()
    asyncio.run(second.aupdate())
    assert (first.end_date, first.update_received) == (datetime(2025, 9, 10, tzinfo=UTC), False)
    assert second.update_received is True


@pytest.mark.parametrize("lost", ["the request", "the answer"])
@pytest.mark.parametrize("twin", [False, True])
def test_a_confirmation_that_was_lost_is_sent_again(service, lost, twin):
    event = Site(id=981).get_data_changes()[0][0]
    fault = status(503) if lost == "the request" else (lambda reply: replace(reply, cut=0))
    service.break_("data_changes", fault, 2)
    assert asyncio.run(event.aconfirm_data_received()) if twin else event.confirm_data_received()
    assert service.confirmed == [1]
    assert [event.id for event in Site(id=981).get_data_changes()[0]] == [2]


def test_an_event_made_by_hand_is_confirmed_by_its_number(service):
    service.break_("data_changes", lambda reply: Reply.of_json({"change_log": [{"id": 1, "site": 981}]}))
    event = DataChange(id="1", site=981)
    assert event.confirm_data_received() is False


@pytest.mark.parametrize("answer", [[], {}, {"change_log": None}, {"detail": "no"}, None])
def test_a_confirmation_is_none_until_the_service_says_so(service, answer):
    event = Site(id=981).get_data_changes()[0][0]
    service.break_("data_changes", lambda reply: Reply.of_json(answer))
    with pytest.raises(APICompatibilityError):
        event.confirm_data_received()
    assert event.update_received is False
    service.break_("data_changes", lambda reply: Reply.of_json({"change_log": [{"id": 1, "site": 981}]}))
    assert event.confirm_data_received() is False
    assert event.confirm_data_received() is True


FAULTS = {
    "no date": ({"end_date": "later"}, "change event 2 says no range of a site: Invalid isoformat"),
    "no end": ({"end_date": None}, "change event 2 says no range of a site"),
    "an end before its start": ({"end_date": "2025-09-09T00:00:01Z"}, "2025-09-09T00:00:01Z is before its start"),
    "made at no time": ({"created_at": "once"}, r"DataChange\(id=2\): created_at is no timestamp"),
}


@pytest.mark.parametrize(("keys", "said"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("as_dict", [False, True])
def test_an_event_that_cannot_be_followed_is_told_and_hides_no_other(service, keys, said, as_dict):
    service.events[1] |= keys
    with pytest.warns(RuntimeWarning, match=said) as told:
        (event,), data = Site(id=981).get_data_changes(as_dict=as_dict)
    assert told[0].filename == __file__
    assert len(list(data.data_fetcher)) == 16
    (DataChange(**event) if as_dict else event).confirm_data_received()
    assert [one["id"] for one in service.events] == [2, 3]

    async def twin():
        return await Site(id=981).aget_data_changes(as_dict=as_dict)

    with pytest.warns(RuntimeWarning, match=said):
        assert asyncio.run(twin())[0] == []


def test_an_event_without_a_range_has_no_data():
    with pytest.raises(APICompatibilityError, match="it has no 'start_date'"):
        DataChange(id=9, site=981).get_data()
    with pytest.raises(APICompatibilityError, match="is before its start"):
        DataChange(id=9, site=981, start_date="2025-09-09T00:00:01Z", end_date="2025-09-09T00:00:00Z").get_data()


@pytest.mark.parametrize("answer", [{"error": "db timeout"}, {"detail": "later", "code": 1}])
def test_an_error_among_events_confirms_nothing(service, answer):
    event = Site(id=981).get_data_changes()[0][0]
    service.break_("data_changes", lambda reply: Reply.of_json({"change_log": [answer]}), 2)
    with pytest.raises(APICompatibilityError, match=r"reports an error among its change events: .*(timeout|later)"):
        event.confirm_data_received()
    assert event.update_received is False
    with pytest.raises(APICompatibilityError, match="reports an error"):
        Site(id=981).get_data_changes()
