"""Our own sources pass the suite that is shipped for others, each with its service on the loopback interface."""

from datetime import UTC, date, datetime, timedelta

import pytest
from acronet_service import LOGIN, Liguria
from archfx_cloud_service import Cloud
from meteotracker_service import MeteoTrackers, synthetic_drive
from netatmo_feed import write_archive
from netatmo_service import Weather
from restream_weather import START as RESTREAM_START
from restream_weather import RestreamWeather, block_of
from sensor_community_service import Archive, LiveDocument, synthetic_day, synthetic_records

from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.sources.sensor_community import archive
from ionbeam_dagster.testing.service import status
from ionbeam_dagster.testing.sources import SourceContract

DAY = date(2026, 6, 21)
MIDNIGHT = datetime(2026, 6, 21, tzinfo=UTC)
SEVEN = MIDNIGHT + 7 * HOUR
NOON = MIDNIGHT + 12 * HOUR


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", lambda seconds: None)


class OfAService(SourceContract):
    window = Window(SEVEN, SEVEN + HOUR)

    @pytest.fixture
    def broken(self, block, service):
        service.break_("", status(500), times=999)
        return block


class TestIonCannon(SourceContract):
    type_name = "ioncannon"
    window = Window(SEVEN, SEVEN + HOUR)

    @pytest.fixture
    def block(self):
        return {"num_stations": 5}

    @pytest.fixture
    def broken(self):
        return None


class TestFiles(SourceContract):
    type_name = "files"
    window = Window(SEVEN, SEVEN + HOUR)

    @pytest.fixture
    def block(self, tmp_path):
        rows = [f"{SEVEN + n * timedelta(minutes=10):%Y-%m-%dT%H:%M:%SZ},45.0,7.0,A,{n}.5" for n in range(9)]
        (tmp_path / "logger").mkdir()
        (tmp_path / "logger" / "seen.csv").write_text("\n".join(["time,lat,lon,station,temperature", *rows, ""]))
        temperature = {"column": "temperature", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}
        columns = {"time": "time", "metadata": {"station_id": "station"}, "variables": [temperature]}
        return columns | {"path": str(tmp_path / "logger" / "*.csv"), "settle": 0, "description": "Of one logger."}

    @pytest.fixture
    def broken(self, block, tmp_path):
        (tmp_path / "logger").rename(tmp_path / "not mounted")
        return block


class TestMeteoTracker(OfAService):
    type_name = "meteotracker"

    @pytest.fixture
    def service(self):
        with MeteoTrackers([synthetic_drive("aa1", "me", SEVEN + timedelta(minutes=10), 80, 44.4, 8.9)]) as running:
            yield running

    @pytest.fixture
    def block(self, service):
        return {"base_url": service.url, "username": "somebody", "password": "pa55word", "max_retries": 1}


class TestAcronet(OfAService):
    type_name = "acronet"

    @pytest.fixture
    def service(self):
        with Liguria() as running:
            yield running

    @pytest.fixture
    def block(self, service):
        account = {"username": "someone", "password": "very-secret", "client_secret": "client-secret"}
        return account | {"base_url": f"{service.url}/app/", "token_endpoint": service.url + LOGIN, "max_retries": 1}


class TestArchFx(OfAService):
    type_name = "archfx"

    @pytest.fixture
    def service(self):
        readings = [(SEVEN + n * timedelta(minutes=1), 20.0 + n / 10) for n in range(90)]
        with Cloud({"sl--0000-0001--0000-0000-0000-0007--0000-5001": readings}, most_a_page=7) as running:
            yield running

    @pytest.fixture
    def block(self, service):
        heat = {"variable": "5001", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}
        account = {"email": Cloud.email, "password": Cloud.password, "max_retries": 1}
        return account | {"base_url": service.url, "variables": [heat], "latitude": 52.1, "longitude": 5.2}


class TestNetatmo(OfAService):
    type_name = "netatmo"

    @pytest.fixture
    def service(self):
        with Weather() as running:
            yield running

    @pytest.fixture
    def block(self, service):
        return {"base_url": service.url, "countries": ["norway"], "history": "P3650D", "max_retries": 1}


class TestNetatmoArchive(SourceContract):
    type_name = "netatmo_archive"
    window = Window(SEVEN, SEVEN + HOUR)

    @pytest.fixture
    def block(self, tmp_path):
        write_archive(tmp_path / "archives", DAY, range(6, 9))
        return {"path": str(tmp_path / "archives")}

    @pytest.fixture
    def broken(self, block, tmp_path):
        [path] = (tmp_path / "archives").iterdir()
        path.write_bytes(path.read_bytes()[:-1000])
        return block


class TestSensorCommunity(OfAService):
    type_name = "sensor_community"
    window = Window(MIDNIGHT, MIDNIGHT + 24 * HOUR)

    @pytest.fixture(autouse=True)
    def now(self, monkeypatch):
        monkeypatch.setattr(archive, "_now", lambda: datetime(2026, 6, 30, tzinfo=UTC))

    @pytest.fixture
    def service(self):
        with Archive({f"{DAY}": synthetic_day(DAY, 6, 48)}) as running:
            yield running

    @pytest.fixture
    def block(self, service):
        return {"base_url": service.url, "max_retries": 1}


class TestSensorCommunityLive(OfAService):
    type_name = "sensor_community_live"
    window = Window(NOON - timedelta(minutes=5), NOON)

    @pytest.fixture
    def service(self):
        with LiveDocument(synthetic_records(NOON, 50)) as running:
            yield running

    @pytest.fixture
    def block(self, service):
        return {"base_url": f"{service.url}/static/v2/data.json", "max_retries": 1}


class TestRestream(OfAService):
    type_name = "restream"
    window = Window(RESTREAM_START, RESTREAM_START + HOUR)

    @pytest.fixture
    def service(self):
        with RestreamWeather() as running:
            running.correct(1, 981, RESTREAM_START, RESTREAM_START + HOUR, 60.0)
            running.correct(2, 983, RESTREAM_START + HOUR, RESTREAM_START + HOUR, None)
            yield running

    @pytest.fixture
    def block(self, service):
        return block_of(service) | {"max_retries": 1}
