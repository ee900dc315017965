"""What the YAML says of giving windows away by WIS2.

Belongs here: the keys. Does not belong here: what is wrong with them beside the datasets (checks.py), or what is told
(wis2/).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from ionbeam_dagster.domain.times import Moment, NonNegativeDuration
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.sources import WebAddress
from ionbeam_dagster.stores.settings import WritableLocation
from ionbeam_dagster.tls import TlsSettings

DISCIPLINES = (
    "weather", "climate", "hydrology", "atmospheric-composition", "cryosphere", "ocean", "space-weather",
)  # fmt: skip
"""Where a topic begins, below the policy (WIS2 Topic Hierarchy)."""
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LOCAL = ("localhost", "127.0.0.1", "::1")
_RIGHT = "right would be mqtts://broker.example:8883"


def _broker_address(given: str) -> str:
    try:
        parts = urlsplit(given)
        known = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"is not the address of an MQTT broker; {_RIGHT}")
    if "@" in parts.netloc:
        raise ValueError(f"holds a user, whom others would be told; {_RIGHT}, with username and password beside it")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"has more than a host and a port; {_RIGHT}")
    return given


def _topic(given: str) -> str:
    if given.split("/")[0] not in DISCIPLINES:
        raise ValueError(f"{given!r} begins with none of {', '.join(DISCIPLINES)}; {_OF_A_CROWD}")
    return given


_OF_A_CROWD = "right would be, for a crowd's stations, weather/experimental/crowd"
BrokerAddress = Annotated[str, AfterValidator(_broker_address)]
Topic = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$"), AfterValidator(_topic)]


class Wis2Broker(TlsSettings):
    """The MQTT broker to which notifications are published, with quality of service 1."""

    url: BrokerAddress = Field(
        description="Its address: mqtts://host:port, or mqtt:// on the same machine.",
        examples=["mqtts://broker.example:8883"],
    )
    username: str = Field(default="", description="Who publishes; without it nobody logs in.", examples=["ionbeam"])
    password: SecretStr = Field(default=SecretStr(""), description="The password.", examples=["${WIS2_PASSWORD}"])
    public_url: BrokerAddress | None = Field(
        default=None,
        description="Address at which others subscribe, which the records tell; without it url.",
        examples=["mqtts://wis2.example:8883"],
    )

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def encrypted(self) -> bool:
        return urlsplit(self.url).scheme == "mqtts"

    @model_validator(mode="after")
    def _password_is_not_sent_in_the_clear(self) -> Self:
        if self.username and not self.encrypted and self.host not in _LOCAL:
            raise ValueError(f"url has no TLS, so that the password would be sent in the clear; {_RIGHT}")
        if self.has_files and not self.encrypted:
            raise ValueError(f"url has no TLS, so that ca_file and cert_file would not be used; {_RIGHT}")
        return self


class Wis2Contact(Settings):
    """Who answers for what is given away, as the records tell."""

    organization: str = Field(min_length=1, description="Its name.", examples=["Weather Service of Example"])
    email: str = Field(
        pattern=r"^[^@\s]+@[^@\s]+$", description="Where questions are answered.", examples=["wis2@weather.example"]
    )
    url: WebAddress | None = Field(default=None, description="Its page.", examples=["https://weather.example"])


class Wis2Dataset(Settings):
    """How one dataset is given away."""

    topic: Topic = Field(
        description="Topic of its notifications, below origin/a/wis2/<centre_id>/data/<policy>; docs/wis2.md tells "
        "which.",
        examples=["weather/experimental/crowd"],
    )
    policy: Literal["core", "recommended"] = Field(
        default="recommended",
        description="WMO's data policy: core is free and unrestricted; recommended is under the licence of its "
        "sources.",
    )
    formats: tuple[str, ...] = Field(
        default=("bufr",), min_length=1, description="Which of its exports are given away, those of a window.",
        examples=[["bufr", "pygeoapi"]],
    )  # fmt: skip
    start: Moment = Field(
        description="The first moment whose windows are given away; UTC unless it says otherwise.",
        examples=["2026-12-01"],
    )


class Wis2Settings(Settings):
    """What is given away by WIS2, and in whose name; without this section nothing is (docs/wis2.md)."""

    centre_id: str = Field(
        pattern=r"^[a-z]{2,}(-[a-z0-9_]+)+$",
        description="The operator's centre identifier in WIS2; one that ends with -test is for trials.",
        examples=["de-example-test"],
    )
    broker: Wis2Broker = Field(description="Where notifications are published.")
    output_path: WritableLocation = Field(
        default="data-wis2", description="Folder, or s3://bucket/prefix, of the files that are given away."
    )
    url: WebAddress = Field(
        description="Address at which others read what lies in output_path.", examples=["https://data.example/wis2"]
    )
    contact: Wis2Contact = Field(description="Who answers for it.")
    datasets: dict[str, Wis2Dataset] = Field(
        min_length=1,
        description="What is given away, by the dataset's name.",
        examples=[{"crowd": {"topic": "weather/experimental/crowd", "start": "2026-12-01"}}],
    )
    keep_for: NonNegativeDuration | None = Field(
        default=None,
        description="How long a file that is given away is kept, from when it was made; without it for ever. That it "
        "went is told to nobody.",
        examples=["P7D"],
    )

    def channel(self, dataset: str) -> str:
        """The topic of a dataset's notifications."""
        given = self.datasets[dataset]
        return f"origin/a/wis2/{self.centre_id}/data/{given.policy}/{given.topic}"

    @property
    def metadata_channel(self) -> str:
        """The topic of notifications of records."""
        return f"origin/a/wis2/{self.centre_id}/metadata"
