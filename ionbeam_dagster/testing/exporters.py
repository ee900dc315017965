"""What every exporter promises: whole files of every dataset, the same bytes again, and a reason for what stays behind.

Belongs here: the suites that our own exporters pass, for the author of another one (docs/writing-an-exporter.md), and
the dataset files that they are tried on. Does not belong here: what a single format has to hold, or any decoder.

    class TestMyFormat(WindowExporterContract):
        @pytest.fixture
        def exporter(self):
            return MyFormat()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.records import Provenance
from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.exporters import (
    CycleExporter,
    Exporter,
    ExportReport,
    WindowExporter,
    installed_exporters,
    loaded,
)
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.cycles import export_cycle
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.show import contents
from ionbeam_dagster.stores.datasets import DatasetStore
from ionbeam_dagster.stores.files import Files

NOON = datetime(2024, 6, 21, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + HOUR)
T, P = "air_temperature__degC__2.0__point__PT0S", "surface_air_pressure__hPa__0.0__point__PT0S"
RH, DD = "relative_humidity__%__2.0__point__PT0S", "wind_from_direction__degree__10.0__mean__PT10M"
VARIABLES = (T, P, RH, DD)
COMMON: Mapping[str, Any] = {
    "datetime": NOON, "lat": 50.0, "lon": 7.0, "station_id": "a station", "altitude": "100",
    T: 20.0, P: 1000.0, RH: 50.0, DD: 90.0,
}  # fmt: skip
ODD_ROWS: Mapping[str, Mapping[str, Any]] = {
    "a name in another script": {"station_id": "\u6771\u4eac"},
    "a name with control characters and quotes": {"station_id": "a\tb;\"c',"},
    "a long name": {"station_id": "x" * 300},
    "no name": {"station_id": None},
    "the northern pole": {"lat": 90.0, "lon": 180.0},
    "the southern pole": {"lat": -90.0, "lon": -180.0},
    "no height": {"altitude": None},
    "a height that is none": {"altitude": "unknown"},
    "one value alone": {P: None, RH: None, DD: None},
    "a value that cannot be": {T: 1e9},
    "infinity": {T: float("inf")},
}


def dataset_file(
    folder: Path, rows: Sequence[Mapping[str, Any]], window: Window = WINDOW, variables: Sequence[str] = VARIABLES
) -> Path:
    """A dataset file of `window`, as the platform writes it, with rows that differ from `COMMON` as they say."""
    described = [MetadataVariable(column=name) for name in ("station_id", "altitude")]
    metadata = IngestionMetadata(
        dataset=DatasetMetadata(name="crowd"),
        ingestion_map=DataIngestionMap(
            canonical_variables=[CanonicalVariable.from_canonical_name(name) for name in variables],
            metadata_variables=described,
        ),
    )
    schema = canonical_schema([metadata])
    whole = [{**COMMON, "datetime": window.start + timedelta(seconds=n), **row} for n, row in enumerate(rows)]
    whole.sort(key=lambda row: (row["station_id"] is not None, row["station_id"], row["datetime"]))
    batch = pa.RecordBatch.from_pylist([{name: row[name] for name in schema.names} for row in whole], schema)
    provenance = Provenance("crowd", window, 1, "inputs", metadata={"crowd": metadata})
    store = DatasetStore(Files(folder / "scratch"), str(folder / "data"))
    return Path(store.write(schema, [batch], provenance).path)


class _ExporterContract:
    """What suites of window and of cycle exporters have in common."""

    dataset_keys: ClassVar[Mapping[str, Any]] = {}
    """Keys of a source's block that it needs beside `exports`, in a platform of the synthetic network."""

    @pytest.fixture
    def exporter(self) -> Exporter:
        raise NotImplementedError("a suite of an exporter has a fixture exporter")

    def written(self, exporter: Any, dataset_files: Sequence[Path], draft: Path) -> ExportReport:
        raise NotImplementedError

    def draft(self, exporter: Exporter, folder: Path) -> Path:
        """A place to write to, in a folder in which there is nothing else."""
        folder.mkdir(parents=True)
        return folder / f"file.{exporter.extension}"

    def test_it_is_found_by_its_entry_point(self, exporter: Exporter) -> None:
        assert exporter.format in installed_exporters(), (
            f"no entry point of ionbeam.exporters has the name {exporter.format}; it stands in the pyproject.toml of "
            "the package, which must be installed"
        )
        assert loaded(installed_exporters()[exporter.format]) is type(exporter)
        assert exporter.title and exporter.extension and exporter.version and exporter.lacking() is None

    def test_the_plan_says_of_every_variable_where_it_goes_or_why_not(self, exporter: Exporter, tmp_path: Path) -> None:
        schema = pq.read_schema(dataset_file(tmp_path, [{}]))
        plan = exporter.plan(schema)
        assert not plan.mapped.keys() & plan.left_out.keys()
        assert set(VARIABLES) <= {*plan.mapped, *plan.left_out} <= set(schema.names)
        assert all(plan.mapped.values()) and all(plan.left_out.values())

    def test_a_file_holds_every_row_and_nothing_else_is_left(self, exporter: Exporter, tmp_path: Path) -> None:
        source = dataset_file(tmp_path, [{"station_id": "A"}, {"station_id": "A"}, {"station_id": "B", "lat": 51.0}])
        before, draft = source.read_bytes(), self.draft(exporter, tmp_path / "out")
        report = self.written(exporter, [source], draft)
        assert report.rows > 0 and report.stations == 2
        assert report.plan == exporter.plan(pq.read_schema(source))
        assert report.not_passed.keys() <= exporter.checks.keys(), "it tells of a check that it does not name"
        assert draft.stat().st_size and list(draft.parent.iterdir()) == [draft]
        assert source.read_bytes() == before

    def test_the_same_dataset_gives_the_same_bytes(self, exporter: Exporter, tmp_path: Path) -> None:
        source = dataset_file(tmp_path, [{"station_id": f"S{number:03}"} for number in range(300)])
        drafts = [self.draft(exporter, tmp_path / folder) for folder in ("first", "second")]
        reports = [self.written(exporter, [source], draft) for draft in drafts]
        assert len({sha256(draft.read_bytes()).hexdigest() for draft in drafts}) == 1
        assert reports[0].rows == reports[1].rows

    def test_without_a_row_the_report_says_so(self, exporter: Exporter, tmp_path: Path) -> None:
        report = self.written(exporter, [dataset_file(tmp_path, [])], self.draft(exporter, tmp_path / "out"))
        assert (report.rows, report.stations) == (0, 0)

    @pytest.mark.parametrize("odd", ODD_ROWS)
    def test_an_odd_row_holds_up_no_other(self, exporter: Exporter, tmp_path: Path, odd: str) -> None:
        source = dataset_file(tmp_path, [{}, ODD_ROWS[odd], {}])
        draft = self.draft(exporter, tmp_path / "out")
        report = self.written(exporter, [source], draft)
        alone = self.written(exporter, [dataset_file(tmp_path / "two", [{}, {}])], draft.with_name("other"))
        assert report.rows >= alone.rows and draft.stat().st_size

    def test_a_damaged_dataset_is_no_export(self, exporter: Exporter, tmp_path: Path) -> None:
        source = dataset_file(tmp_path, [{}] * 100)
        source.write_bytes(source.read_bytes()[:-30])
        with pytest.raises(Exception, match=r"."):  # of whichever library: the platform tells it with the file
            self.written(exporter, [source], self.draft(exporter, tmp_path / "out"))

    def test_it_describes_its_own_files_and_no_other(self, exporter: Exporter, tmp_path: Path) -> None:
        source = dataset_file(tmp_path, [{}, {}])
        draft = self.draft(exporter, tmp_path / "out")
        self.written(exporter, [source], draft)
        described = exporter.describe(draft)
        assert described and described.kind and described.columns.height
        text = tmp_path / "notes.txt"
        text.write_text("a text")
        assert exporter.describe(source) is None and exporter.describe(text) is None

    def test_the_fingerprint_follows_the_version(self, exporter: Exporter) -> None:
        newer = type("Newer", (type(exporter),), {"version": f"{exporter.version} and more"})(exporter.settings)
        assert newer.fingerprint != exporter.fingerprint == type(exporter)(exporter.settings).fingerprint

    def test_what_it_says_of_its_settings_is_text(self, exporter: Exporter) -> None:
        assert all(isinstance(line, str) and line for line in (*exporter.notes(), *exporter.faults([])))

    def platform(self, exporter: Exporter, folder: Path, window: Window) -> Any:
        """A platform below `folder` with one built hour of the synthetic network, which exports in the format alone."""
        path = folder / "ionbeam.yaml"
        block: dict[str, Any] = {
            "start": window.start,
            "num_stations": 5,
            "aggregation_span": "PT1H",
            "exports": [exporter.format],
        }
        section = exporter.settings.model_dump(mode="json", exclude_unset=True)
        given = {"sources": {"ioncannon": {**block, **self.dataset_keys}}, "projections": {exporter.section(): section}}
        path.write_text(yaml.safe_dump(given))
        platform = open_platform(IonbeamConfig.load(path))
        source = platform.source("ioncannon")
        collect(platform, source, window, platform.now())
        ingest(platform, source, window)
        build(platform, platform.dataset("ioncannon"), window, platform.now(), insist=True)
        return platform


class WindowExporterContract(_ExporterContract):
    """The suite of a `WindowExporter`. A subclass gives `exporter`."""

    @pytest.fixture
    def exporter(self) -> WindowExporter:
        raise NotImplementedError("a suite of an exporter has a fixture exporter")

    def written(self, exporter: WindowExporter, dataset_files: Sequence[Path], draft: Path) -> ExportReport:
        [dataset] = dataset_files
        return exporter.export(dataset, draft)

    def test_the_platform_publishes_and_describes_it(
        self, exporter: WindowExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        platform = self.platform(exporter, tmp_path, WINDOW)
        exporter = platform.config.window_exporters[exporter.format]  # as the configuration makes it
        made = export(platform, platform.dataset("ioncannon"), exporter, WINDOW)
        assert made.path and made.path.endswith(f"ioncannon/ioncannon_{WINDOW.label}.{exporter.extension}")
        assert made.report.rows and contents(Path(made.path)).kind
        record = platform.ledger.export("ioncannon", WINDOW, exporter.format)
        assert (record.path, record.made_by) == (made.path, exporter.fingerprint)


class CycleExporterContract(_ExporterContract):
    """The suite of a `CycleExporter`. A subclass gives `exporter`."""

    @pytest.fixture
    def exporter(self) -> CycleExporter:
        raise NotImplementedError("a suite of an exporter has a fixture exporter")

    def written(self, exporter: CycleExporter, dataset_files: Sequence[Path], draft: Path) -> ExportReport:
        cycle = cycle_of(NOON)
        about = {
            "dataset": "crowd", "window_start": cycle.start.isoformat(), "window_end": cycle.end.isoformat(),
            "analysis": NOON.isoformat(), "revision": "1", "windows": WINDOW.label, "lacking": "none",
            "inputs": "0" * 64, "software": "ionbeam",
        }  # fmt: skip
        return exporter.export(dataset_files, draft, about)

    def test_windows_with_other_variables_make_one_file(self, exporter: CycleExporter, tmp_path: Path) -> None:
        later = Window(WINDOW.end, WINDOW.end + HOUR)
        first = dataset_file(tmp_path, [{"station_id": "A"}], variables=[T, P])
        second = dataset_file(tmp_path, [{"station_id": "B", "lat": 51.0}], later, variables=[T, RH])
        draft = self.draft(exporter, tmp_path / "out")
        alone = self.written(exporter, [first], self.draft(exporter, tmp_path / "one"))
        both = self.written(exporter, [first, second], draft)
        assert both.rows > alone.rows and both.stations == 2 and list(draft.parent.iterdir()) == [draft]

    def test_the_platform_publishes_it(
        self, exporter: CycleExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        platform, cycle = self.platform(exporter, tmp_path, WINDOW), cycle_of(NOON)
        exporter = platform.config.cycle_exporters[exporter.format]  # as the configuration makes it
        made = export_cycle(platform, platform.dataset("ioncannon"), exporter, cycle, platform.now()).made
        assert made and made.path and made.path.endswith(f"ioncannon_{cycle.label}.{exporter.extension}")
        assert made.report.rows and contents(Path(made.path)).kind
