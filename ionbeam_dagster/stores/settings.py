"""What the YAML says of the stores: where they are, and who may use them.

Belongs here: the keys of the servers and folders of stores. Does not belong here: S3's (they stand with the files,
files.py), or anything that connects.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlencode, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from ionbeam_dagster.stores.files import Location, is_address
from ionbeam_dagster.tls import TlsSettings


def check_writable(path: Path) -> Path:
    """`path`, if it is a folder that can be written, or made; raises ValueError."""
    nearest = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ValueError(f"{path} is, or lies below, a file; a folder is needed")
    if os.statvfs(nearest).f_flag & os.ST_RDONLY:
        raise ValueError(
            f"{path} lies on a disk that is mounted read-only, as a damaged one is; see `dmesg`, and "
            f"`mount -o remount,rw {_mounted_at(nearest)}`, or choose another folder"
        )
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"{path} cannot be written (no permission on {nearest}); choose a folder that can")
    return path


def _mounted_at(place: Path) -> Path:
    """Where the disk of a folder is mounted; of one that is mounted twice only the kernel knows."""
    mounts = Path("/proc/self/mounts")
    known = {line.split()[1] for line in mounts.read_text().splitlines()} if mounts.exists() else set()
    return next(one for one in (place, *place.parents) if str(one) in known or one.is_mount())


def check_writable_location(location: str) -> str:
    """`location`, if it is an address or a folder that can be written; raises ValueError."""
    if not is_address(location):
        check_writable(Path(location))
    return location


WritableFolder = Annotated[Path, AfterValidator(check_writable)]
WritableLocation = Annotated[Location, AfterValidator(check_writable_location)]


class RedisSettings(TlsSettings):
    """The Redis server that holds the ledger; without this section the ledger is a SQLite file."""

    redis_url: str = Field(
        description="Address of the server, with its database.", examples=["redis://redis.example:6379/0"]
    )

    @model_validator(mode="after")
    def _certificates_are_used(self) -> Self:
        if self.has_files and urlsplit(self.redis_url).scheme != "rediss":
            raise ValueError("certificates are for TLS, and redis_url does not ask for it; begin it with rediss://")
        return self

    @property
    def address(self) -> str:
        """The URL with the certificates, as Redis' client reads it; raises ConfigError where they cannot be used."""
        if self.has_files:
            self.context("redis.")
        files = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
        if not (named := urlencode({name: str(file) for name, file in files.items() if file is not None})):
            return self.redis_url
        return f"{self.redis_url}{'&' if '?' in self.redis_url else '?'}{named}"


class InfluxDBSettings(TlsSettings):
    """The InfluxDB 2 server that holds the observations; without this section they are in Parquet segments."""

    influxdb_org: str = Field(description="Organisation that the bucket belongs to.", examples=["ionbeam"])
    influxdb_url: str = Field(description="Address of the server.", examples=["http://influxdb.example:8086"])
    influxdb_token: SecretStr = Field(
        description="Token that may read, write and delete in the bucket.", examples=["${INFLUXDB_TOKEN}"]
    )
    influxdb_bucket: str = Field(description="Bucket of the observations.", examples=["observations"])
