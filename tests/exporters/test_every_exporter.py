"""Our own exporters pass the suites that are shipped for those of others."""

import pytest

from ionbeam_dagster.exporters.bufr import BufrExporter
from ionbeam_dagster.exporters.bufr.settings import BufrService, BufrSettings
from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter
from ionbeam_dagster.exporters.odb import OdbCycleExporter, OdbExporter
from ionbeam_dagster.testing.exporters import CycleExporterContract, WindowExporterContract


class TestOdb(WindowExporterContract):
    @pytest.fixture
    def exporter(self):
        return OdbExporter()


class TestOdbCycles(CycleExporterContract):
    @pytest.fixture
    def exporter(self):
        return OdbCycleExporter()


class TestGeoParquet(WindowExporterContract):
    @pytest.fixture
    def exporter(self):
        return GeoParquetExporter()


class TestBufr(WindowExporterContract):
    @pytest.fixture
    def exporter(self):
        return BufrExporter(BufrService(settings=BufrSettings(wigos_issuer=276)))
