"""What every source promises: the same rows for the same window, and never an empty window for a failure.

Belongs here: the suite that our own sources pass, for the author of another one (docs/writing-a-source.md). Does not
belong here: what one service does, or any service.

    class TestMySource(SourceContract):
        type_name = "my_source"
        window = Window(datetime(2026, 6, 21, 7, tzinfo=UTC), datetime(2026, 6, 21, 8, tzinfo=UTC))

        @pytest.fixture
        def block(self, service):
            return {"base_url": service.url}

        @pytest.fixture
        def broken(self, block, service):
            service.down = True
            return block
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ionbeam_client.cf import check_metadata
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.canonical import canonicalise, point_key
from ionbeam_dagster.domain.windows import Window, window_of
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.sources import Source, installed_sources

NAME = "tried"
"""The block's name in the configurations that the suite writes."""


class SourceContract:
    """The suite of a `Source`. A subclass gives `type_name`, a `window` with observations, `block` and `broken`."""

    type_name: ClassVar[str]
    """The name of its entry point."""
    window: ClassVar[Window]
    """A window of the source in which its service has observations."""

    @pytest.fixture
    def block(self) -> dict[str, Any]:
        """The keys of its block in the YAML, as Python; what it takes observations from gives them."""
        raise NotImplementedError("a suite of a source has a fixture block")

    @pytest.fixture
    def broken(self) -> dict[str, Any] | None:
        """The same, where what it takes observations from has failed; None of a source that depends on nothing."""
        raise NotImplementedError("a suite of a source has a fixture broken")

    @pytest.fixture
    def source(self, block: dict[str, Any], tmp_path: Path) -> Source:
        return self.made(block, tmp_path)

    def made(self, block: dict[str, Any], folder: Path) -> Source:
        """The source of a block; what it keeps lies below `folder`."""
        assert self.type_name in installed_sources(), (
            f"no entry point of ionbeam.sources has the name {self.type_name}; it stands in the pyproject.toml of the "
            "package, which must be installed"
        )
        source_type = installed_sources()[self.type_name].load()
        assert isinstance(source_type, type) and issubclass(source_type, Source)
        given = {"data_path": str(folder / "raw")} | block
        made = source_type(NAME, source_type.Config.model_validate(given))
        assert isinstance(made, Source)
        return made

    def rows(self, source: Source) -> pl.DataFrame:
        """The observations of the window, as they come."""
        batches = list(source.fetch(self.window))
        assert batches, f"{self.window}: is to have observations, but fetch gave no batch"
        return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches)))

    def test_making_one_connects_to_nothing(
        self, block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: Any, **named: Any) -> NoReturn:
            raise AssertionError("a source that is only made connects to something")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "create_connection", refuse)
        self.made(block, tmp_path)

    def test_its_names_and_units_are_those_of_cf(self, source: Source) -> None:
        assert [problem for problem in check_metadata(source.metadata) if problem.severity == "error"] == []
        assert source.metadata == source.metadata

    def test_the_dataset_is_told_to_people(self, source: Source) -> None:
        assert source.metadata.dataset.name == NAME and source.metadata.dataset.description

    def test_the_same_window_gives_the_same_rows_in_the_same_order(
        self, source: Source, block: dict[str, Any], tmp_path: Path
    ) -> None:
        first = self.rows(source)
        assert first.height and first.equals(self.rows(source))
        assert first.equals(self.rows(self.made(block, tmp_path / "another")))

    def test_all_batches_have_one_schema_with_every_declared_column(self, source: Source) -> None:
        first, *others = (batch.schema for batch in source.fetch(self.window))
        assert all(schema.equals(first) for schema in others)
        mapping = source.metadata.ingestion_map
        declared = {one.column for one in mapping.canonical_variables}
        assert not (declared | {one.column for one in mapping.metadata_variables}) - set(first.names)

    def test_every_row_is_one_point_of_a_named_station(self, source: Source) -> None:
        rows = canonicalise(self.rows(source), source.metadata)
        assert rows.rows.height > rows.rejected.height, rows.rejected["reason"].unique().to_list()
        [inside] = rows.rows.select(pl.col("datetime").is_between(self.window.start, self.window.end, "left").sum())
        assert inside.item(), "no row of the window lies in it"
        assert "station_id" in rows.rows.columns and rows.rows["station_id"].null_count() == 0

    def test_a_failure_is_never_an_empty_window(self, broken: dict[str, Any] | None, tmp_path: Path) -> None:
        if broken is None:
            pytest.skip("this source depends on nothing that could fail")
        with pytest.raises(SourceError) as failure:
            list(self.made(broken, tmp_path).fetch(self.window))
        assert len(str(failure.value)) > 10, "the place and the reason are told"

    def test_it_says_that_it_can_what_it_can(self, source: Source) -> None:
        of_type = type(source)
        assert source.tells_changes == (of_type.changes is not Source.changes)
        assert source.subscribes == (of_type.subscriber is not Source.subscriber)
        assert source.corrects == (of_type.corrections is not Source.corrections)
        assert source.corrects == (of_type.confirm is not Source.confirm)

    def test_what_tells_changes_tells_the_window_and_then_nothing_new(self, source: Source) -> None:
        if not source.tells_changes:
            with pytest.raises(SourceError):
                source.changes(None)
            return
        ranges, cursor = source.changes(None)
        assert any(one.start < self.window.end and self.window.start < one.end for one in ranges)
        assert source.changes(cursor)[0] == []

    def test_what_is_confirmed_is_told_no_longer(self, source: Source) -> None:
        if not source.corrects:
            with pytest.raises(SourceError):
                source.corrections()
            return
        told = source.corrections()
        assert source.tells_changes and told == source.corrections(), "and they are not asked for by the clock"
        for one in told:
            assert one.id and one.what
            source.confirm(one)
            source.confirm(one)
        assert source.corrections() == []

    def test_the_signature_stays_while_nothing_changes(
        self, source: Source, block: dict[str, Any], tmp_path: Path
    ) -> None:
        assert source.signature(self.window) == self.made(block, tmp_path / "another").signature(self.window)

    def test_a_sample_shows_what_is_fetched(self, source: Source) -> None:
        sample = source.sample(self.window)
        if sample is not None:
            schema = next(iter(source.fetch(self.window))).schema
            assert all(batch.schema.equals(schema) for batch in sample)

    def test_what_is_finite_contains_the_window(self, source: Source) -> None:
        extent = source.extent()
        assert extent is None or (extent.start < self.window.end and self.window.start < extent.end)
        last = source.last_time()
        assert last is None or (extent is not None and self.window.start < last <= extent.end)
        assert not any(hole.covers(self.window) for hole in source.nothing_in(self.window))

    def test_progress_never_goes_beyond_its_end(self, source: Source) -> None:
        steps: list[tuple[int, int]] = []
        source.progress = lambda what, done, of: steps.append((done, of))
        self.rows(source)
        assert all(0 <= done <= of for done, of in steps)

    def test_what_it_says_to_people_is_text(self, source: Source) -> None:
        self.rows(source)
        assert all(isinstance(problem, str) and problem for problem in source.problems())

    def test_the_cache_is_a_matter_of_the_block(self, source: Source) -> None:
        cached = source.using_cache()
        assert cached.config.use_cache and type(cached) is type(source) and cached.name == source.name

    def test_its_windows_become_a_dataset_once(
        self, block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "ionbeam.yaml"
        started = {"start": window_of(self.window.start, self.window.span).start}
        path.write_text(yaml.safe_dump({"sources": {NAME: {"type": self.type_name} | started | block}}))
        platform = open_platform(IonbeamConfig.load(path))
        source, dataset = platform.source(NAME), platform.dataset(NAME)
        window = window_of(self.window.start, source.window_size)
        now = platform.now()
        first, claimed = collect(platform, source, window, now), ingest(platform, source, window).claim
        again = collect(platform, source, window, now)
        assert first.rows and claimed.rows and (again.rows, again.changed) == (first.rows, False)
        assert ingest(platform, source, window).claim == claimed
        built = build(platform, dataset, window_of(self.window.start, dataset.span), now, insist=True)
        assert built.revision and built.revision.revision.number == 1 and built.revision.facts.stations
        table = pq.read_table(built.revision.path)
        points = pl.DataFrame(pl.from_arrow(table)).select(*point_key(table.schema), "datetime")
        assert points.height == built.revision.facts.rows and not points.is_duplicated().any()

    def test_a_key_that_it_does_not_know_is_refused(self, block: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not_a_key_of_any_source"):
            self.made(block | {"not_a_key_of_any_source": 1}, tmp_path)
