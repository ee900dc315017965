"""Windows in S3, served by one machine, followed in two ways, and looked at from another: one memory of it all."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from serving import Serving
from typer.testing import CliRunner
from windows import write_window

from ionbeam_client.windows import Dataset, WindowsError
from ionbeam_dagster.cli import app
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.stores.files import Files, S3Settings


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch):
    """The bucket of the exports, with two windows, and its address for pyarrow."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    bucket = s3.bucket("kept")
    for hour in range(2):
        put(s3, tmp_path, bucket, hour)
    monkeypatch.setattr("ionbeam_client.windows.places.SETTLED", timedelta(0))
    return bucket


def put(s3, folder, bucket, hour, add=0.0):
    made = write_window(folder / "made" / "net", hour, add=add)
    with Files(folder / "drafts", S3Settings(**s3.section())).published(f"{bucket}/pygeoapi/net/{made.name}") as draft:
        draft.write_bytes(made.read_bytes())


def machine(s3, folder: Path, bucket: str) -> Serving:
    """One of several that have nothing in common but the configuration."""
    folder.mkdir()
    made = Serving(folder, ["net"])
    sections = yaml.safe_load(made.yaml.read_text()) | {"s3": s3.section(), "scratch_path": str(folder / "scratch")}
    sections["projections"]["pygeoapi_service"]["output_path"] = bucket
    made.yaml.write_text(yaml.safe_dump(sections))
    return made


def listed(where: Serving, monkeypatch) -> list[list[str]]:
    """What the operator is told on a machine: dataset, client, and how many windows it has and lacks."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(where.yaml))
    done = CliRunner().invoke(app, ["export", "clients"])
    assert done.exit_code == 0, done.output
    return [[word for word in line.split() if word != "│"][:4] for line in done.output.splitlines() if "net" in line]


def test_what_clients_confirm_is_the_same_for_every_machine(s3, bucket, tmp_path, monkeypatch):
    over_bucket = f"{bucket}/pygeoapi?scheme=http&endpoint_override={s3.endpoint.partition('//')[2]}&region={s3.region}"
    office = machine(s3, tmp_path / "office", bucket)
    with machine(s3, tmp_path / "cellar", bucket) as cellar:
        anna = Dataset("net", cellar.url, client="anna")
        events, _ = anna.get_data_changes()
        anna.confirm(events)
        berta = Dataset("net", over_bucket, client="berta")
        berta.get_data_changes()[0][0].confirm_data_received()
        assert listed(office, monkeypatch) == [["net", "anna", "2", "0"], ["net", "berta", "1", "1"]]
        assert not list(tmp_path.rglob("anna.json")), "no machine keeps it for itself"
        assert Dataset("net", over_bucket, client="anna").get_data_changes()[0] == [], "over either way"
        [lacking] = Dataset("net", cellar.url, client="berta").get_data_changes()[0]

        monkeypatch.setattr("ionbeam_client.windows.places.ATTEMPTS", 1)
        s3.process.stop()
        try:
            with pytest.raises(WindowsError, match="cannot be read or written now") as told:
                lacking.confirm_data_received()
            assert told.value.may_pass
            done = CliRunner().invoke(app, ["export", "clients"])
            assert done.exit_code == 1 and "who follows the windows cannot be told" in str(done.output)
        finally:
            s3.process.start()
        lacking.confirm_data_received()
    assert listed(office, monkeypatch) == [["net", "anna", "2", "0"], ["net", "berta", "2", "0"]]


@pytest.mark.parametrize(("number", "advice"), [(errno.EACCES, True), (errno.ENOSPC, False)])
def test_who_cannot_write_is_told_that_nothing_is_confirmed(number, advice, tmp_path, monkeypatch):
    def forbidden(*given):
        raise OSError(number, os.strerror(number))

    write_window(tmp_path / "net", 0)
    [event] = Dataset("net", str(tmp_path), client="anna").get_data_changes()[0]
    monkeypatch.setattr("ionbeam_client.windows.feed.os.fsync", forbidden)
    with pytest.raises(WindowsError, match=r"anna\.json: cannot be written") as told:
        event.confirm_data_received()
    assert ("needs permission to write below" in str(told.value)) == advice
    assert not event.update_received and list((tmp_path / ".confirmed" / "net").iterdir()) == []
