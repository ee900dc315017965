"""TLS towards servers that have an authority of one's own, or ask for a certificate.

Belongs here: the keys of the YAML, and the connection's context that follows from them. Does not belong here: what is
said of a certificate that is refused (ionbeam_client/certificates.py).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ionbeam_client.certificates import no_passphrase
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.settings import Settings


class TlsSettings(Settings):
    """The certificates of a server's clients, all PEM files."""

    ca_file: Path | None = Field(
        default=None,
        description="Certificates of those who signed the server's; without it those that the system trusts.",
        examples=["/etc/ssl/authority.pem"],
    )
    cert_file: Path | None = Field(
        default=None, description="Our own certificate, where the server asks for one.", examples=["/etc/ssl/ours.pem"]
    )
    key_file: Path | None = Field(
        default=None, description="The key of our own certificate.", examples=["/etc/ssl/ours.key"]
    )

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; give both, or none")
        return self

    @property
    def has_files(self) -> bool:
        return self.ca_file is not None or self.cert_file is not None

    def context(self, section: str = "") -> ssl.SSLContext:
        """How to connect; raises ConfigError for a file that is not there or holds no certificate. `section` stands
        before the key that it names."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{section}ca_file {self.ca_file} cannot be used ({error}); name a PEM file of certificates"
            ) from error
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, no_passphrase)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"{section}cert_file {self.cert_file} and key_file {self.key_file} cannot be used ({error}); name "
                    "a PEM certificate and its key"
                ) from error
        return context
