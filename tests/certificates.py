"""An authority of the tests' own, and the certificates that it signs.

Belongs here: PEM files, and a server spoken to by them. Does not belong here: the servers themselves, or any test.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import free_port

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

    def encrypted(self, given: Certificate) -> Certificate:
        """The same certificate with a key that has a passphrase."""
        made = Certificate(given.file, self._folder / "encrypted.key")
        _openssl("ec", "-in", given.key, "-aes256", "-passout", "pass:secret", "-out", made.key)
        return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@contextmanager
def spoken_with_tls(port: int, served: Certificate, clients: Authority | None = None) -> Iterator[int]:
    """A place where the server on `port` is reached over TLS, with `served` as its certificate, by whoever has one of
    `clients` where that is given."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients.file if clients else None)
    context.load_cert_chain(served.file, served.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    loop, place = asyncio.new_event_loop(), Future[int]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def serve() -> None:
        server = await asyncio.start_server(connected, ["127.0.0.1", "::1"], free_port(), ssl=context)
        place.set_result(server.sockets[0].getsockname()[1])

    loop.set_exception_handler(lambda *_: None)  # those who are refused
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop)
    try:
        yield place.result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
