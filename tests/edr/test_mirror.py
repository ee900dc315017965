"""Exports in S3: fetched, served, replaced and removed as they are there, and served while S3 is away."""

import json
import time
from pathlib import Path

import yaml
from windows import TEMPERATURE, service_of, write_window

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.edr import served as web
from ionbeam_dagster.stores.files import Files, S3Settings, within


def test_exports_in_s3_are_served_as_they_are_there(s3, tmp_path, monkeypatch):
    place = within(s3.bucket("served"), "out")
    source = {"kind": "external", "start": "2025-01-01T00:00:00Z", "aggregation_span": "PT1H",
              "data_path": str(tmp_path / "raw")}  # fmt: skip
    sections = {
        "sources": {"net": source},
        "projections": {"pygeoapi_service": {"output_path": place}},
        "dataset_aggregator": {"data_path": str(tmp_path / "data")},
        "state_path": str(tmp_path / "state"),
        "s3": s3.section(),
    }
    (tmp_path / "ionbeam.yaml").write_text(yaml.safe_dump(sections))
    config = IonbeamConfig.load(tmp_path / "ionbeam.yaml")
    files = Files(tmp_path / "drafts", S3Settings(**s3.section()))

    def put(hour, add=0.0):
        made = write_window(tmp_path / "made" / "net", hour, add=add)
        location = within(place, "pygeoapi", "net", made.name)
        with files.published(location) as draft:
            draft.write_bytes(made.read_bytes())
        return location

    first = put(0)
    put(1)
    path, extents = web.update_configuration(config)
    assert (extents["net"].files, extents["net"].rows) == (2, 2 * 6 * 7)
    folder = Path(yaml.safe_load(path.read_text())["resources"]["net"]["providers"][0]["data"])
    service = service_of(folder)

    def temperatures():
        reply = service.answer("net", "locations", "s1", {"parameter-name": TEMPERATURE})
        return json.loads(reply.body)["ranges"][TEMPERATURE]["values"][::6]

    def becomes(expected):
        for _ in range(200):
            if temperatures() == expected:
                return
            time.sleep(0.05)
        raise AssertionError(temperatures())

    assert temperatures() == [1.0, 1.01]
    kept = (folder / first.rpartition("/")[2]).stat()
    web.update_configuration(config)
    assert (folder / first.rpartition("/")[2]).stat() == kept  # what did not change is not fetched again

    monkeypatch.setattr(web, "LOOKED_EVERY", 0.1)
    stop = web.follow(config)
    put(0, add=10.0)
    becomes([11.0, 1.01])
    put(2)
    becomes([11.0, 1.01, 1.02])
    files.delete(first)
    becomes([1.01, 1.02])
    s3.process.stop()
    try:
        time.sleep(0.5)
        assert temperatures() == [1.01, 1.02]
    finally:
        s3.process.start()
    put(2, add=20.0)
    becomes([1.01, 21.02])
    stop.set()
