"""Whether each store can be read and written.

Belongs here: a small thing written to and removed from each place, and servers asked. Does not belong here: what is in
the stores (files.py), or how full their disks are (disks.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ionbeam_dagster.domain.windows import EPOCH
from ionbeam_dagster.health.findings import Finding, of_error
from ionbeam_dagster.health.places import nearest, places
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import FilesError, is_address, within
from ionbeam_dagster.stores.ledger.sqlite_file import check_free

LEDGER, FILES, OBSERVATIONS = "ledger", "files", "observations"
_PATIENCE = 5.0  # seconds
_PROBE = bytes(1 << 16)  # less may find room where a window does not


@cache
def _own_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def can_ask_ledger(platform: Platform) -> bool:
    """Whether there is a ledger to be asked: one in a file that is not there yet would be made by asking."""
    sections = platform.config.sections
    return sections.redis is not None or (sections.state_path / "ledger.sqlite").exists()


def ledger(platform: Platform) -> Iterator[Finding]:
    """Whether the ledger can be read and written; raises LedgerError where not."""
    if not can_ask_ledger(platform):
        yield Finding(LEDGER, "note", "there is none yet: nothing was collected", "begin with `ionbeam run SOURCE`")
        return
    sections = platform.config.sections
    redis = sections.redis
    if redis is None:
        check_free(sections.state_path / "ledger.sqlite", _PATIENCE)
    else:
        from ionbeam_dagster.stores.ledger.redis_server import weaknesses  # its client takes long to import

        for words, remedy in weaknesses(redis.address):
            yield Finding(LEDGER, "warning", words, remedy)
    holder = f"doctor {_own_name()}"
    platform.ledger.workers.beat(holder, socket.gethostname(), os.getpid(), "looks whether the ledger can be written")
    platform.ledger.workers.leave(holder)
    if recovered := platform.ledger.recovered():
        yield Finding(LEDGER, "note", f"it was made again on {recovered[0]:%Y-%m-%d %H:%M}: {recovered[1]}")
    yield Finding(LEDGER, "well", "it can be read and written")


def files(platform: Platform) -> Iterator[Finding]:
    """Whether each folder and prefix can be written."""
    every = places(platform)
    well = 0
    for place, key in every.items():
        try:
            _write(platform, place)
            well += 1
        except FilesError as error:
            yield of_error(FILES, error)
        except OSError as error:
            words = f"{place} ({key}) cannot be written: {error.strerror or error}"
            yield Finding(FILES, "error", words, f"make room, give permission, or correct {key} in the YAML")
    yield Finding(FILES, "well", f"{well} of {len(every)} places can be written")


def _write(platform: Platform, place: str) -> None:
    name = f".ionbeam-probe-{_own_name()}"
    if is_address(place):
        probe = within(place, name)
        with platform.files.published(probe) as draft:
            draft.write_bytes(_PROBE)
        platform.files.delete(probe)
        return
    path = Path(nearest(place), name)
    try:
        path.write_bytes(_PROBE)
    finally:
        path.unlink(missing_ok=True)


def observations(platform: Platform) -> Iterator[Finding]:
    """Whether InfluxDB takes points, and its bucket does as it has to; segments are files. Raises InfluxError."""
    influx = platform.config.sections.influxdb_common
    if influx is None:
        yield Finding(OBSERVATIONS, "well", "they are in segments below state_path")
        return
    from ionbeam_dagster.stores.timeseries.influxdb.bucket import OpenBucket

    token = influx.influxdb_token.get_secret_value()
    with OpenBucket(
        influx.influxdb_url, influx.influxdb_org, influx.influxdb_bucket, token, _PATIENCE, influx
    ) as bucket:
        if not bucket.is_sound(platform.longest_revising()):
            yield _no_bucket(platform, influx.influxdb_bucket)
            return
        bucket.try_to_write()
    yield Finding(OBSERVATIONS, "well", f"InfluxDB at {influx.influxdb_url} answers, and has the bucket")


def _no_bucket(platform: Platform, name: str) -> Finding:
    datasets = platform.config.datasets if can_ask_ledger(platform) else ()
    if any(platform.ledger.revisions(dataset, EPOCH, platform.now()) for dataset in datasets):
        words = f"InfluxDB has no bucket {name!r}: the observations of what was built are gone with it"
        remedy = (
            "restore it from a backup; without one an empty one is made, and `ionbeam rebuild` ingests raw files again"
        )
        return Finding(OBSERVATIONS, "error", words, remedy)
    words = f"InfluxDB has no bucket {name!r} yet: it is made when the first observations are written"
    return Finding(
        OBSERVATIONS,
        "note",
        words,
        "if there should be one, correct influxdb_common: bucket, or a token that may read it",
    )
