"""What people are told of a collection: from the configuration and from the sources themselves, whatever their type."""

import json
import time

import pyarrow.parquet as pq
import yaml
from windows import write_window

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.edr import served as web
from ionbeam_dagster.edr.configuration import Served, update
from ionbeam_dagster.edr.served import update_configuration
from ionbeam_dagster.edr.service import EDR_PLUGIN, FEATURES_PLUGIN, Service


def told_by_source(path, **dataset):
    """Let a window's footer hold what its source said of itself, as dataset files have it."""
    table = pq.read_table(path)
    about = {"dataset": "net", "metadata": {"net": {"dataset": {"name": "net", **dataset}}}}
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"ionbeam": json.dumps(about).encode()}), path
    )


def resource_of(path):
    return yaml.safe_load(path.read_text())["resources"]["net"]


def test_every_type_of_source_has_its_say_and_the_configuration_the_last_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    window = write_window(tmp_path / "data-projections" / "pygeoapi" / "net", 0)
    links = [
        {"href": "https://net.example", "title": "The network", "rel": "about"},
        {"href": "javascript:alert(1)", "title": "A trap"},
    ]
    told_by_source(window, description="By its client", keywords=["citizens"], source_links=links)
    block = {
        "kind": "external",
        "title": "Stations of a town",
        "licence": "https://creativecommons.org/licenses/by/4.0/",
    }
    block |= {"attribution": "The town", "keywords": ["town"]}
    (tmp_path / "ionbeam.yaml").write_text(yaml.safe_dump({"sources": {"net": block}}))
    config = IonbeamConfig.load(tmp_path / "ionbeam.yaml")
    path, _ = update_configuration(config)
    service = Service(yaml.safe_load(path.read_text()), "http://service.test")
    told = service.about("net")
    assert (told["title"], told["description"]) == ("Stations of a town", "By its client")
    assert (told["keywords"], told["attribution"]) == (["town", "citizens"], "The town")
    of_others = [(link["rel"], link["href"]) for link in told["links"] if "service.test" not in link["href"]]
    assert of_others == [("license", "https://creativecommons.org/licenses/by/4.0/"), ("about", "https://net.example")]

    block["description"] = "By the operator"
    (tmp_path / "ionbeam.yaml").write_text(yaml.safe_dump({"sources": {"net": block}}))
    update_configuration(IonbeamConfig.load(tmp_path / "ionbeam.yaml"))
    assert resource_of(path)["description"] == "By the operator"


def test_a_text_follows_its_source_until_a_person_writes_another(tmp_path):
    folder, path = tmp_path / "net", tmp_path / "config.yml"

    def updated(hour, description):
        told_by_source(write_window(folder, hour), description=description)
        update(path, tmp_path / "state", [Served("net", folder)])
        return resource_of(path)["description"]

    assert updated(0, "first") == "first"
    assert updated(1, "second") == "second"
    path.write_text(path.read_text().replace("second", "by hand"))
    assert updated(2, "third") == "by hand"


def test_a_configuration_that_names_the_earlier_plug_ins_is_brought_up_to_date(tmp_path):
    folder, path = tmp_path / "net", tmp_path / "config.yml"
    write_window(folder, 0)
    update(path, tmp_path / "state", [Served("net", folder)])
    earlier = path.read_text().replace("ionbeam_dagster.edr.provider", "ionbeam_dagster.exporters.pygeoapi.provider")
    mine = "    mine:\n        type: collection\n        providers:\n        - {type: edr, data: /x, name: EDR}\n"
    mine = mine.replace("EDR", "ionbeam_dagster.exporters.pygeoapi.provider.WindowsEDR")
    earlier = earlier.replace("resources:\n", f"resources:\n{mine}").replace("title: net", "title: My network")
    path.write_text(earlier)
    (tmp_path / "state" / "texts.json").unlink()  # which that version did not write
    update(path, tmp_path / "state", [Served("net", folder)])
    assert "exporters.pygeoapi" not in path.read_text()
    resources = yaml.safe_load(path.read_text())["resources"]
    assert [one["name"] for one in resources["net"]["providers"]] == [EDR_PLUGIN, FEATURES_PLUGIN]
    assert [one["name"] for one in resources["mine"]["providers"]] == [EDR_PLUGIN]
    assert resources["net"]["title"] == "My network"


def test_what_follows_the_windows_keeps_to_the_yaml_as_it_stands(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(web, "LOOKED_EVERY", 0.05)
    place = tmp_path / "ionbeam.yaml"
    for name in ("net", "other"):
        write_window(tmp_path / "data-projections" / "pygeoapi" / name, 0)

    def written(**blocks):
        draft = tmp_path / "draft.yaml"
        draft.write_text(
            yaml.safe_dump({"sources": {name: {"kind": "external", **one} for name, one in blocks.items()}})
        )
        draft.rename(place)

    def served():
        return {name: one["title"] for name, one in yaml.safe_load(path.read_text())["resources"].items()}

    def becomes(expected):
        deadline = time.monotonic() + 10
        while served() != expected:
            assert time.monotonic() < deadline, served()
            time.sleep(0.05)

    written(net={"title": "Stations of a town"})
    config = IonbeamConfig.load(place)
    path, _ = update_configuration(config)
    stop = web.follow(config)
    try:
        written(net={"title": "Stations of two towns"}, other={"title": "Others"})
        both = {"net": "Stations of two towns", "other": "Others"}
        becomes(both)
        update_configuration(IonbeamConfig.load(place))  # as the asset does
        written(net={"title": "Wrong", "no_such_key": 1})
        while "no_such_key" not in caplog.text:
            assert stop.is_set() is False and served() == both
            time.sleep(0.05)
        write_window(tmp_path / "data-projections" / "pygeoapi" / "net", 3)
        deadline = time.monotonic() + 10
        while resource_of(path)["extents"]["temporal"]["end"].hour != 3:  # by the last one that was right
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert served() == both and caplog.text.count("no_such_key") == 1
        written(net={"title": "Right again"})
        becomes({"net": "Right again"})
    finally:
        stop.set()
