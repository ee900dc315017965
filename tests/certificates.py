"""An authority of the tests' own, and the certificates that it signs.

Belongs here: PEM files. Does not belong here: servers that use them, or any test.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Certificate:
    """The PEM files of a certificate and its key."""

    file: Path
    key: Path


class Authority:
    """Signs certificates; who is to trust them is given `file`."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not on this machine")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.file, self._key = folder / "authority.pem", folder / "authority.key"
        _openssl(
            "req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=ours", "-keyout", self._key, "-out", self.file,
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def certificate(self, name: str, days: int = 2) -> Certificate:
        """A certificate for the host `name`; with -1 `days` it has expired."""
        made = Certificate(self._folder / f"{name}{days}.pem", self._folder / f"{name}{days}.key")
        asked, names = self._folder / "asked.csr", self._folder / "names"
        names.write_text(f"subjectAltName=DNS:{name}\n")
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", asked)
        _openssl(
            "x509", "-req", "-in", asked, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", str(days),
            "-extfile", names, "-out", made.file,
        )  # fmt: skip
        return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
