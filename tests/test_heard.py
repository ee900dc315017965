"""What was heard of stations, from raw partitions to the command line, alerts and pages."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

import polars as pl
import pytest
from crowd import crowd as block
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.health.alerts import Alerting
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.heard_page import HeardPage
from ionbeam_dagster.health.messages import Message
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.heard import up_to_date
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.lately import lately
from ionbeam_dagster.pipeline.platform import Platform

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
DAY = datetime(2026, 6, 21, tzinfo=UTC)
CROWD = block("[]", "{station_id: s}", start="2026-06-20")
Row = tuple[datetime, str, float | None, float]


def hour(number: int) -> Window:
    return Window(DAY + number * HOUR, DAY + (number + 1) * HOUR)


@pytest.fixture
def crowd(platform_of, tmp_path) -> Callable[..., Platform]:
    """A platform with these rows in its folder; its clock says when they were taken in."""

    def made(rows: Iterable[Row], now: datetime, **sections: str) -> Platform:
        (tmp_path / "in").mkdir(exist_ok=True)
        write(tmp_path / "in" / "all.csv", rows)
        platform = platform_of(CROWD, automation="{enabled: false}", **sections)
        platform.now = lambda: now  # type: ignore[method-assign]
        return platform

    return made


def write(place: Path, rows: Iterable[Row]) -> None:
    table = pl.DataFrame(list(rows), schema=["t", "s", "lat", "warm"], orient="row")
    table.with_columns(pl.lit(5.0).alias("lon")).write_csv(place)


def take_in(platform: Platform, *windows: Window, building: bool = False) -> None:
    source, dataset = platform.source("crowd"), platform.dataset("crowd")
    for window in windows:
        collect(platform, source, window, platform.now())
        ingest(platform, source, window)
        if building:
            build(platform, dataset, window, platform.now(), insist=True)


def told_by(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["--config", "config.yaml", "heard", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


SILENT = [f"s{number:04}" for number in range(1000) if number % 10 == 7]


def of_a_thousand(until: int, silent_from: int) -> list[Row]:
    """A row of each of a thousand stations every ten minutes; those that are silent come no more from an hour on."""
    rows = []
    for number in range(1000):
        ends = silent_from if number % 10 == 7 else until
        place, name = 50 + number / 1000, f"s{number:04}"
        rows += [(DAY + minute * MINUTE, name, place, 20.0) for minute in range(number % 10, ends * 60, 10)]
    return rows


class Seen:
    def findings(self) -> list[Finding]:
        return [Finding("files", "well", "it was looked at")]


def test_exactly_those_stations_that_fell_silent_are_named_wherever_it_is_told(crowd):
    now = DAY + 6 * HOUR
    platform = crowd(of_a_thousand(6, 3), now, alerts="{after: PT0S, silent_stations: 0.05, silence: P365D}")
    take_in(platform, *map(hour, range(3)))
    assert up_to_date(platform, "crowd").silent.is_empty()
    take_in(platform, *map(hour, range(3, 6)))
    found = up_to_date(platform, "crowd")
    assert found.silent["station"].to_list() == SILENT and found.stations.height == 1000
    assert found.stations["interval"].to_list() == [10 * MINUTE] * 1000
    assert set(re.findall(r"\bs\d{4}\b", told_by("--most", "1000"))) == set(SILENT)
    assert "1,000 stations heard in a week, 100 of them fell silent" in told_by()
    status, kind, page = HeardPage(platform)()
    assert (status, kind) == (200, "text/html; charset=utf-8")
    named = set(re.findall(r"<td>(s\d{4})</td>", page.decode()))
    assert len(named) == 50 and named < set(SILENT) and "and 50 more" in page.decode()
    sent = []
    Alerting(platform, platform.config.sections.alerts, Seen(), [sent.append]).look()
    assert [(one.subject, "100 of 1,000 stations fell silent: s0007, s0017" in one.text) for one in sent] == [
        ("stations of crowd", True)
    ]
    assert set(re.findall(r"\bs\d{4}\b", sent[0].text)) < set(SILENT)


def panic(path: Path) -> None:
    """Damage a file so that polars panics, which is no Exception."""
    whole = path.read_bytes()
    for at in reversed(range(4, len(whole) - 8)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            pl.read_parquet(path)
        except pl.exceptions.PanicException:
            return
        except pl.exceptions.PolarsError:
            continue
    raise AssertionError("polars never panics")


def test_it_is_the_same_whether_it_was_looked_at_once_or_after_each_window(crowd, monkeypatch):
    platform = crowd(of_a_thousand(4, 2), DAY + 4 * HOUR)
    for number in range(4):
        take_in(platform, hour(number), building=number == 2)
        after_each = up_to_date(platform, "crowd")
    store, looked = platform.heard, platform.heard.week("crowd")
    assert up_to_date(platform, "crowd").stations.equals(after_each.stations)
    for what in ("week", "told"):
        path = Path(f"ionbeam-state/heard/crowd.{what}.parquet")
        panic(path)
        assert not store.told("crowd") if what == "told" else not store.week("crowd").mark
        path.write_bytes(b"damaged")
    at_once = up_to_date(platform, "crowd")
    assert at_once.stations.equals(after_each.stations) and at_once.hours.equals(after_each.hours)
    again = store.week("crowd")
    assert again.mark == looked.mark > 0 and not again.due and not again.unjudged
    assert at_once.judged == 900 * 6


def away(path: str) -> Path:
    """Take a file away, as a disk that is not mounted does; gives where it is now."""
    return Path(path).rename(f"{path}.away")


def back(path: Path) -> None:
    path.rename(path.with_suffix(""))


def test_what_cannot_be_read_now_is_known_as_before_and_looked_at_again(crowd, tmp_path):
    rows = [(DAY + minute * MINUTE, "a", 52.0, 20.0) for minute in range(0, 180, 10)]
    platform = crowd(rows[:6:2] + rows[6:], DAY + 3 * HOUR)
    take_in(platform, hour(0), building=True)
    before = up_to_date(platform, "crowd")
    write(tmp_path / "in" / "all.csv", rows)
    take_in(platform, *map(hour, range(3)), building=True)
    raws = [platform.ledger.raw("crowd", hour(number)).path for number in range(2)]
    built = platform.ledger.revisions("crowd", DAY, DAY + HOUR)[0].path
    gone = [away(path) for path in (*raws, built)]
    without = up_to_date(platform, "crowd")
    assert (before.hours["rows"].sum(), without.hours["rows"].sum()) == (3, 3 + 6)
    assert (before.judged, without.judged) == (3, 3 + 6 + 6)
    assert without.stations["last"].to_list() == [DAY + 170 * MINUTE]
    for path in gone:
        back(path)
    found = up_to_date(platform, "crowd")
    assert (found.hours["rows"].sum(), found.judged) == (18, 18)
    assert not platform.heard.week("crowd").due and not platform.heard.week("crowd").unjudged


def flipped(path: Path) -> None:
    """Change a byte, which can be read for all that."""
    whole = path.read_bytes()
    at = whole.index(b"PAR1") + 40
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_a_raw_file_with_a_byte_that_flipped_is_told_and_not_counted(crowd, caplog):
    platform = crowd([(DAY + minute * MINUTE, "a", 52.0, 20.0) for minute in range(0, 120, 10)], DAY + 2 * HOUR)
    take_in(platform, *map(hour, range(2)))
    raw = Path(platform.ledger.raw("crowd", hour(0)).path)
    flipped(raw)
    assert up_to_date(platform, "crowd").hours["rows"].sum() == 6
    told = [one.getMessage() for one in caplog.records if "what was heard is not known" in one.getMessage()]
    assert len(told) == 1 and "does not hold what was written" in told[0] and f"{raw}.damaged" in told[0]
    assert not raw.exists()  # so that it is collected again
    take_in(platform, hour(0))
    assert up_to_date(platform, "crowd").hours["rows"].sum() == 12


def test_late_rows_of_an_hour_whose_other_rows_were_purged_take_nothing_away(crowd, tmp_path, monkeypatch):
    platform = crowd([(DAY + minute * MINUTE, "a", 52.0, 20.0) for minute in range(0, 60, 5)], DAY + HOUR)
    take_in(platform, hour(0))
    before = up_to_date(platform, "crowd")
    raw = platform.ledger.raw("crowd", hour(0))
    platform.ledger.record_purged(raw, DAY + HOUR)
    Path(raw.path).unlink()
    write(tmp_path / "in" / "all.csv", [(DAY + 57 * MINUTE, "b", 52.0, 20.0)])
    feed = platform.sources["crowd"]
    monkeypatch.setattr(type(feed), "fetch", lambda self, window, old=feed.fetch: old(hour(0)))
    platform.now = lambda: DAY + 2 * HOUR
    take_in(platform, hour(1))
    found = up_to_date(platform, "crowd")
    assert found.hours["rows"].sum() == before.hours["rows"].sum() == 12
    assert dict(found.stations.select("station", "last").rows()) == {"a": DAY + 55 * MINUTE, "b": DAY + 57 * MINUTE}
    assert not platform.heard.week("crowd").due


def test_other_troubles_are_told_while_a_week_of_stations_is_summed(crowd, monkeypatch):
    platform = crowd(of_a_thousand(6, 3), DAY + 6 * HOUR,
                     alerts="{after: PT0S, silent_stations: 0.05, silence: P365D}")  # fmt: skip
    take_in(platform, *map(hour, range(6)))
    monkeypatch.setattr("ionbeam_dagster.health.alerts._PATIENCE", 0.05)
    full = Finding("disk", "error", "the disk is full", "make room")
    monkeypatch.setattr(Seen, "findings", lambda _: [full])
    sent: list[Message] = []
    alerting = Alerting(platform, platform.config.sections.alerts, Seen(), [sent.append])
    another = platform.ledger.job("heard crowd")
    assert another.acquire()
    alerting.look()
    assert [one.subject for one in sent] == ["disk"]
    another.close()
    told_until = monotonic() + 60
    while len(sent) < 2 and monotonic() < told_until:
        alerting.look()
        sleep(0.05)
    assert [one.subject for one in sent] == ["disk", "stations of crowd"]


def test_what_comes_again_or_later_is_counted_once(crowd, tmp_path):
    rows = [(DAY + minute * MINUTE, "a", 52.0, 20.0) for minute in range(0, 120, 10)]
    platform = crowd(rows[::2], DAY + 2 * HOUR)
    take_in(platform, hour(0), hour(1))
    assert up_to_date(platform, "crowd").stations["interval"].to_list() == [20 * MINUTE]
    write(tmp_path / "in" / "all.csv", rows)
    take_in(platform, hour(0), hour(1))
    take_in(platform, hour(0))
    found = up_to_date(platform, "crowd")
    assert found.hours.tail(2)["rows"].to_list() == [6, 6]
    assert found.stations["interval"].to_list() == [10 * MINUTE]


def test_rows_that_were_set_aside_are_told_with_their_station_and_reason(crowd):
    good = [(DAY + minute * MINUTE, name, 52.0, 20.0) for minute in range(0, 60, 10) for name in "ab"]
    lost = [(DAY + minute * MINUTE, "<img src=x>\x1b[31mc", 95.0, 20.0) for minute in range(0, 60, 20)]
    platform = crowd(good + lost, DAY + HOUR)
    take_in(platform, hour(0))
    for _ in range(2):
        found = up_to_date(platform, "crowd")
        assert found.aside.rows() == [("latitude out of range", 3)]
        of_it = found.stations.row(by_predicate=pl.col("set_aside") > 0, named=True)
        assert (of_it["set_aside"], of_it["why"], of_it["last"]) == (3, "latitude out of range 3", None)
    page = HeardPage(platform)()[2].decode()
    assert "&lt;img src=x&gt;" in page and "<img src=x" not in page and "\x1b" not in page
    assert not re.search(r"<[^>]*(src|href)=.(?!data:)", page) and "<script" not in page
    shown = told_by("--every")
    assert "set aside: latitude out of range (3)" in shown and "never" in shown
    assert "\x1b[31m" not in shown


def test_a_source_that_sends_yesterdays_rows_again_for_ever_is_told(crowd, monkeypatch):
    platform = crowd([(DAY + minute * MINUTE, "a", 52.0, 20.0) for minute in range(0, 60, 5)], DAY + HOUR,
                     alerts="{after: PT0S, silence: PT3H}")  # fmt: skip
    take_in(platform, hour(0))
    platform.ledger.alerts.looked_since("crowd", DAY + HOUR)
    source = platform.source("crowd")
    now = DAY + 20 * HOUR
    platform.now = lambda: now
    feed = platform.sources["crowd"]
    monkeypatch.setattr(type(feed), "fetch", lambda self, window, old=feed.fetch: old(hour(0)))
    take_in(platform, *map(hour, range(16, 20)))
    found = lately(platform, source, now)
    assert (found.newest, found.silent_for, found.arrived_at) == (DAY + HOUR, 19 * HOUR, now)
    sent = []
    Alerting(platform, platform.config.sections.alerts, Seen(), [sent.append]).look()
    assert [one.subject for one in sent] == ["silence of crowd"]
    assert "nothing of crowd is newer than 2026-06-21 01:00, though rows came until" in sent[0].text
    assert "it sends again what is old" in sent[0].text
