"""MeteoTracker over real HTTP: drives, accounts, pages and faults."""

import csv
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from meteotracker_service import CODES, MeteoTrackers, drive_of_csv, synthetic_drive

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.agenda import needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources.meteotracker import MeteoTracker, MeteoTrackerConfig
from ionbeam_dagster.testing.service import empty, html, not_utf8, redirected, slow, status, truncated

SEVEN = datetime(2026, 6, 21, 7, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(SEVEN, SEVEN + HOUR)
NEXT = Window(WINDOW.end, WINDOW.end + HOUR)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", lambda seconds: None)


@pytest.fixture
def service():
    drives = [
        synthetic_drive("aa1", "Genova LL1", SEVEN + timedelta(minutes=10), 80, 44.4, 8.9),
        synthetic_drive("aa2", "Bologna LL1", SEVEN + timedelta(minutes=20), 10, 44.5, 11.3),
        synthetic_drive("aa3", "somebody else", SEVEN + timedelta(minutes=30), 10, 48.1, 11.5),
    ]
    with MeteoTrackers(drives, points_a_page=300) as running:
        yield running


def source(service, folder, **keys):
    keys = {"username": "somebody", "password": "pa55word", "timeout": 0.5, "max_retries": 2} | keys
    return MeteoTracker("meteotracker", MeteoTrackerConfig(base_url=service.url, data_path=folder, **keys))


def fetched(feed, window=WINDOW):
    batches = list(feed.fetch(window))
    return pl.concat([pl.from_arrow(batch) for batch in batches]) if batches else pl.DataFrame()


def drives(rows):
    return dict(rows.group_by("station_id").len().sort("station_id").iter_rows())


def test_a_window_has_the_drives_that_began_in_it_with_all_their_points(service, tmp_path):
    rows = fetched(source(service, tmp_path))
    assert drives(rows) == {"aa1": 1600, "aa2": 200, "aa3": 200}
    assert rows.filter(pl.col("time") >= "2026-06-21T08:00").height == 600
    assert set(rows.select("station_id", "platform_id", "mobility", "indoor").unique().rows()) == {
        ("aa1", "Genova LL1", "mobile", "false"),
        ("aa2", "Bologna LL1", "mobile", "false"),
        ("aa3", "somebody else", "mobile", "false"),
    }


def test_a_later_window_has_what_goes_on_in_it(service, tmp_path):
    rows = fetched(source(service, tmp_path), NEXT)
    assert drives(rows) == {"aa1": 600}
    assert rows["time"].min() == "2026-06-21T08:00:00.000Z"
    assert fetched(source(service, tmp_path), Window(NEXT.end, NEXT.end + HOUR)).height == 0


def test_a_drive_without_end_goes_on(service, tmp_path):
    service.drives = [synthetic_drive("aa1", "me", SEVEN + timedelta(minutes=50), 30, 44.4, 8.9)]
    del service.drives[0]["endTime"]
    assert drives(fetched(source(service, tmp_path), NEXT)) == {"aa1": 400}


def test_only_the_authors_and_labs_that_were_asked_for(service, tmp_path):
    rows = fetched(source(service, tmp_path, living_labs={"genova": ["Genova LL1"]}, authors=["Bologna LL1"]))
    assert set(rows.select("platform_id", "living_lab").unique().rows()) == {
        ("Genova LL1", "genova"),
        ("Bologna LL1", None),
    }


@pytest.mark.parametrize("ignores_pages", [False, True])
@pytest.mark.parametrize("a_page", [1600, 400, 333, 5000])
def test_points_come_in_pages_or_not(service, tmp_path, a_page, ignores_pages):
    service.points_a_page, service.ignores_pages = (5000 if ignores_pages else a_page), ignores_pages
    rows = fetched(source(service, tmp_path, authors=["Genova LL1"]))
    assert rows.height == rows["time"].n_unique() == 1600


def test_more_sessions_than_a_page(service, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.meteotracker._SESSIONS_A_PAGE", 2)
    assert set(drives(fetched(source(service, tmp_path)))) == {"aa1", "aa2", "aa3"}
    with pytest.raises(SourceError, match="more than 1 pages of sessions; raise max_queries"):
        fetched(source(service, tmp_path, max_queries=1))


def test_sessions_that_change_while_they_are_paged_are_taken_once_and_looked_at_again(service, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.meteotracker._SESSIONS_A_PAGE", 2)
    new = synthetic_drive("aa0", "new", SEVEN + timedelta(minutes=5), 10, 44.4, 8.9)
    feed = source(service, tmp_path)
    before = feed.signature(WINDOW)
    service.break_(
        "sessions.*page=0", lambda reply: service.drives.insert(0, new) or reply
    )  # what follows moves on by one
    assert drives(fetched(feed)) == {"aa1": 1600, "aa2": 200, "aa3": 200}
    assert feed.signature(WINDOW) != before  # so the window is collected again
    assert set(drives(fetched(feed))) == {"aa0", "aa1", "aa2", "aa3"}
    service.break_("sessions.*page=0", lambda reply: service.drives.pop(0) and reply)  # and one is taken back
    with pytest.raises(SourceError, match="404 Not Found"):
        fetched(feed)
    assert set(drives(fetched(feed))) == {"aa1", "aa2", "aa3"}


def test_a_token_that_expires_in_the_middle_of_paging_is_renewed(service, tmp_path):
    service.token_uses = 3  # one request at a time: more of them would use a new token up before it is tried
    assert fetched(source(service, tmp_path, concurrency=1)).height == 2000
    assert service.logins > 3
    assert len(service.paths("/auth/refreshtoken")) > 2


def test_an_account_that_is_refused_or_missing_is_told_without_the_password(service, tmp_path):
    with pytest.raises(SourceError, match="401 Unauthorized; check the user name and the password") as failure:
        fetched(source(service, tmp_path, password="wr0ng"))
    assert "wr0ng" not in str(failure.value)
    with pytest.raises(SourceError, match="has no username and password"):
        fetched(source(service, tmp_path, username=""))


@pytest.mark.parametrize("place", ["/api/sessions", "page=1"])
@pytest.mark.parametrize("fault", [status(401), status(429, retry_after="1"), status(500), truncated, slow(1)])
def test_what_passes_costs_no_point(service, tmp_path, place, fault):
    service.break_(place, fault)
    assert fetched(source(service, tmp_path)).height == 2000


@pytest.mark.parametrize("place", ["/auth/login/api", "/api/sessions", "page=1"])
@pytest.mark.parametrize("fault", [status(500), truncated, empty, html, not_utf8])
def test_what_stays_fails_the_window(service, tmp_path, place, fault):
    service.break_(place, fault, times=99)
    with pytest.raises(SourceError, match=service.url):
        fetched(source(service, tmp_path))


def test_neither_password_nor_token_goes_to_another_host(service, tmp_path):
    with MeteoTrackers(service.drives) as other:
        service.break_("/api/sessions", redirected(f"{other.url}/api/sessions"), times=99)
        with pytest.raises(SourceError):
            fetched(source(service, tmp_path))
        service.break_("/auth/login", redirected(f"{other.url}/auth/login/api"), times=99)
        with pytest.raises(SourceError, match="302 Found"):
            fetched(source(service, tmp_path))
        assert [request.headers.get("authorization") for request in other.seen] == [None] * len(other.seen)
        assert other.paths("/auth") == []


def test_points_without_a_place_and_a_clock_that_is_wrong(service, tmp_path):
    points = service.drives[1]["points"]
    points[3]["lo"] = None
    del points[4]["lo"]
    points[5]["time"] = "1970-01-01T00:00:00.000Z"
    points[6]["T0"] = "NaN"
    points[7] = dict(points[8])  # a point that was sent twice
    feed = source(service, tmp_path, authors=["Bologna LL1"])
    [done] = [canonicalise(batch, feed.metadata) for batch in feed.fetch(WINDOW)]
    assert done.rejected["reason"].to_list() == ["no latitude; no longitude"] * 2
    assert done.rows.height == 198


def test_speed_is_the_vehicles(service, tmp_path):
    variables = source(service, tmp_path).metadata.ingestion_map.canonical_variables
    names = {variable.column: variable.standard_name for variable in variables}
    assert names["s"] == "platform_speed_wrt_ground"
    assert not any("wind" in name for name in names.values())


def test_a_late_drive_makes_its_window_due_again(service, platform_of, monkeypatch):
    late = service.drives.pop()
    platform = platform_of(
        f"  meteotracker: {{base_url: '{service.url}', username: somebody, password: pa55word, start: 2026-06-21}}"
    )
    now = datetime(2026, 6, 22, tzinfo=UTC)
    for window in (WINDOW, NEXT):
        collect(platform, platform.source("meteotracker"), window, now)
        ingest(platform, platform.source("meteotracker"), window)
        assert not needs_collecting(platform, "meteotracker", window)
    assert build(platform, platform.dataset("meteotracker"), WINDOW, now).revision.facts.rows == 1200
    assert build(platform, platform.dataset("meteotracker"), NEXT, now).revision.facts.rows == 600
    service.drives.append(late)
    assert needs_collecting(platform, "meteotracker", WINDOW)
    monkeypatch.setattr(type(platform), "now", lambda self: now)
    repository = build_definitions(WatchedPlatform(platform)).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        repository.get_sensor_def("meteotracker__changes").evaluate_tick(context)
    assert [work.window for work in platform.ledger.attempts.open("collect", "meteotracker")] == [WINDOW]
    collect(platform, platform.source("meteotracker"), WINDOW, now)
    ingest(platform, platform.source("meteotracker"), WINDOW)
    again = build(platform, platform.dataset("meteotracker"), WINDOW, now).revision
    assert (again.revision.number, again.facts.rows, again.facts.stations) == (2, 1400, 3)


def test_the_real_drive_comes_out_point_for_point(tmp_path, real_data):
    place = real_data / "meteotracker" / "jerusalem_2022-08-25.csv"
    with place.open(encoding="utf-8") as lines:
        given = list(csv.DictReader(lines))
    with MeteoTrackers([drive_of_csv(place, "6307a5", "JerusalemLL3")], points_a_page=500) as service:
        feed = source(service, tmp_path, living_labs={"jerusalem": ["JerusalemLL3"]})
        begin = datetime(2022, 8, 25, 11, tzinfo=UTC)
        rows = fetched(feed, Window(begin, begin + HOUR))
    assert rows.height == len(given) == 1928
    codes = [code for code in CODES.values() if code != "a"]
    found = rows.select("time", "lat", "lon", *codes, pl.col("station_height").cast(pl.Float64)).rows()
    names = {code: name for name, code in CODES.items()}
    assert found == [
        (row["time"], float(row["lat"]), float(row["lon"]), *(_number(row[names[code]]) for code in codes),
         float(row["Alt[m]"]))
        for row in given
    ]  # fmt: skip


def _number(text):
    return None if text == "NaN" else float(text)
