"""What a client has to be told: where the broker is, where its own files may lie, and how patient it is.

Belongs here: every setting, its default and its environment variable. Does not belong here: any connection.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeFloat, field_validator, model_validator


def _split_at_commas(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


class IonbeamClientConfig(BaseModel):
    """The settings of a client. One that is not given is read from ``IONBEAM_<NAME>`` (``IONBEAM_AMQP_URL``, ...).

    `amqp_url` may be ``amqps://``; `tls_ca_file`, `tls_cert_file` and `tls_key_file` are PEM files. `arrow_store_path`
    is the platform's payload store, a folder or ``s3://bucket/prefix``; without one, or when the platform has not
    marked that folder as its own, rows travel in the messages. `state_path` is the folder of the outbox and the inbox;
    it must outlive the process (in a container: a volume). `queues` is the type of the queues that this client makes;
    those that are there are used as they are. Times are in seconds, sizes in bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    amqp_url: str = Field(default="amqp://guest:guest@localhost:5672/", repr=False)
    arrow_store_path: str | Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    heartbeat: int = Field(default=60, ge=1)
    queues: Literal["classic", "quorum"] = "classic"
    inline_limit: int = Field(default=1_000_000, ge=1_000)
    state_path: Path | None = None
    outbox_max_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    outbox_full: Literal["wait", "raise"] = "wait"
    retry_delays: Annotated[tuple[NonNegativeFloat, ...], BeforeValidator(_split_at_commas)] = (5.0, 60.0, 600.0)
    close_timeout: float = Field(default=10.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read_environment(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        named = {name: os.environ.get(f"IONBEAM_{name.upper()}") for name in cls.model_fields}
        return {name: value for name, value in named.items() if value is not None} | given

    @field_validator("tls_ca_file", "tls_cert_file", "tls_key_file")
    @classmethod
    def _is_there(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_file():
            raise ValueError(f"there is no file {file}")
        return file

    @field_validator("amqp_url")
    @classmethod
    def _is_amqp(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise ValueError("amqp_url must be like amqp://user:password@host:5672/ (or amqps://)")
        return url

    @property
    def broker(self) -> str:
        """The broker's address without its password, for logs."""
        parts = urlsplit(self.amqp_url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        return f"{parts.hostname}:{port}{parts.path or '/'}"

    @property
    def user(self) -> str | None:
        """The broker's user that this client is; None where a certificate says it."""
        parts = urlsplit(self.amqp_url)
        if parse_qs(parts.query).get("auth", ["plain"])[0].lower() not in ("plain", "amqplain"):
            return None
        return unquote(parts.username or "guest")

    @property
    def state_folder(self) -> Path:
        """`state_path`, or a folder of the user's, one for each broker: what waits for one never goes to another."""
        if self.state_path is not None:
            return self.state_path
        base = os.environ.get("XDG_STATE_HOME")
        home = Path(base) if base else Path.home() / ".local" / "state"
        return home / "ionbeam-client" / re.sub(r"[^A-Za-z0-9.-]+", "_", self.broker).strip("_")
