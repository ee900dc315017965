"""What the map page is given: stations of the newest window, and a word where it lacks some."""

import json

from windows import PLACES, service_of, write_window

from ionbeam_dagster.edr import map_page


def test_a_newest_window_that_cannot_be_read_is_told(tmp_path):
    write_window(tmp_path / "net", 0)
    newest = write_window(tmp_path / "net", 1)
    service = service_of(tmp_path / "net")
    whole = json.loads(map_page.stations(service, {}).body)
    assert (len(whole["stations"]), whole["notes"]) == (len(PLACES), [])
    newest.write_bytes(newest.read_bytes()[:-40])
    lacking = json.loads(map_page.stations(service_of(tmp_path / "net"), {}).body)
    assert lacking["stations"] == []
    assert lacking["notes"] == ["the window 2025-01-01T01:00:00Z/2025-01-01T02:00:00Z cannot be read and is left out"]


def test_the_coastline_is_where_the_page_looks_for_it():
    drawn = json.loads(map_page.coastline())
    assert drawn["land"] and drawn["borders"]
