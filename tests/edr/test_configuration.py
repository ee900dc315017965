"""What is remembered of files is what a look at all of them would tell."""

from windows import write_window

from ionbeam_dagster.edr import extents as footers_of_files
from ionbeam_dagster.edr.configuration import Served, update


def test_what_is_remembered_tells_the_same_as_a_look_at_every_file(tmp_path, monkeypatch):
    served = [Served(name, tmp_path / "windows" / name) for name in ("net", "other", "none")]
    monkeypatch.setattr(footers_of_files, "TOLD_EVERY", 0.0)
    looks = 0

    def looked_at() -> list[str]:
        """The datasets of which files were looked at, one entry a file."""
        nonlocal looks
        looks += 1
        told: list[str] = []
        kept = update(tmp_path / "config.yml", tmp_path / "state", served, told.append)
        assert kept == update(tmp_path / "afresh.yml", tmp_path / f"afresh-{looks}", served)
        extents.update(kept)
        return [line.split(":")[0] for line in told]

    extents = {}
    for hour in range(3):
        write_window(served[0].folder, hour)
    write_window(served[1].folder, 0)
    assert looked_at() == ["net"] * 3 + ["other"]
    assert looked_at() == []
    before = extents["net"]
    write_window(served[0].folder, 1, places=[(100.0, 10.0)], flags=True)  # replaced: another place, a new parameter
    assert looked_at() == ["net"]
    assert extents["net"].files == before.files and extents["net"].rows < before.rows
    assert len(extents["net"].parameters) == len(before.parameters) + 1
    gone, damaged = (served[0].folder / name for name in sorted(one.name for one in served[0].folder.iterdir())[::2])
    gone.unlink()
    damaged.write_bytes(b"PAR1 no more")
    assert looked_at() == ["net"]
    assert extents["net"].unreadable == [damaged.name]
    assert extents["net"].bbox == [100.0, 10.0, 100.0, 10.0] and extents["net"].files == 1
    write_window(served[0].folder, 2)
    assert looked_at() == ["net"]
    assert extents["net"].unreadable == [] and extents["net"].files == 2
    next((tmp_path / "state").iterdir()).write_bytes(b"torn")
    assert looked_at() == ["net"] * 2 + ["other"]
