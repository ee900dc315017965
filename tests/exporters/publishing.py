"""Exports as the pipeline publishes them, for tests of single formats."""

from pathlib import Path

from ionbeam_dagster.pipeline.export import publish
from ionbeam_dagster.stores.files import Files


def published_export(exporter, dataset_file: Path, target: Path):
    files = Files(target.parent.parent / "drafts")
    return publish(files, exporter, str(target), lambda draft: exporter.export(dataset_file, draft)).report
