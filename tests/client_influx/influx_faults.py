"""A server that answers InfluxDB's write API over real HTTP, with faults on demand, and programs that write.

Belongs here: what several tests of the client share. Does not belong here: any test.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from servers import free_port

ROOT = Path(__file__).parents[2]
ALIAS = ROOT / "ionbeam_client" / "aliases" / "eht_influx_client"
T0 = 1617672549_000_000_000
FOREVER = "start: 1677-10-01T00:00:00Z, stop: 2262-01-01T00:00:00Z"


class Answer(NamedTuple):
    status: int
    body: object = ""
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    done: bool = False  # the lines are kept although the answer says otherwise, or never comes
    hang_up: bool = False


class Faulty:
    """Keeps the lines it takes, in order; `plan` is asked first what to answer, and None means 204."""

    def __init__(
        self,
        plan: Callable[[list[str]], Answer | None] = lambda lines: None,
        forward: tuple[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.plan = plan
        self.lines: list[str] = []
        self.requests: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.forward = forward  # a write URL and its token: what passes goes there
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                with suppress(ConnectionError):  # the client gave up
                    outer._post(self)

            def log_message(self, *arguments):
                pass

        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        lines = body.decode().split("\n")
        with self.lock:
            self.requests.append(len(lines))
            self.headers.append(dict(handler.headers))
            answer = self.plan(lines)
        if answer is None or answer.done:
            if self.forward:
                status, text = self._forward(body)
                answer = answer or Answer(status, text)
            else:
                with self.lock:
                    self.lines += lines
                answer = answer or Answer(204)
        time.sleep(answer.delay)
        if answer.hang_up:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        handler.send_response(answer.status)
        for name, value in answer.headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())

    def _forward(self, body: bytes) -> tuple[int, str]:
        url, token = self.forward
        request = urllib.request.Request(url, body, {"Authorization": f"Token {token}"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 503, ""

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def sometimes(chance: float, seed: int) -> Callable[[list[str]], Answer | None]:
    """Faults of every kind, at random: refusals to answer before and after the work was done."""
    rng = random.Random(seed)
    faults = [
        Answer(503), Answer(500, done=True), Answer(429, headers=(("Retry-After", "0"),)), Answer(503, hang_up=True),
        Answer(204, hang_up=True, done=True), Answer(401, {"code": "unauthorized", "message": "unauthorized access"}),
    ]  # fmt: skip
    return lambda lines: rng.choice(faults) if rng.random() < chance else None


def configuration(folder: Path, *servers: tuple[str, str, str, str], **keys: object) -> dict[str, object]:
    """Keywords of a client: servers as (url, org, bucket, token), a log in the folder, and short waits."""
    said: dict[str, object] = {
        "jsonlogfile": folder / "log.jsonl",
        "retry_wait_max": 0.05,
        "timeout": 5,
        "close_timeout": 20,
    }
    for number, server in enumerate(servers, 1):
        end = "" if number == 1 else str(number)
        said |= {f"{key}{end}": value for key, value in zip(("url", "org", "bucket", "token"), server, strict=True)}
    return said | keys


def of(faulty: Faulty, bucket: str = "it_test") -> tuple[str, str, str, str]:
    return faulty.url, "eht", bucket, "token"


class Bucket(NamedTuple):
    """A bucket of a real influxd, empty at first."""

    url: str
    org: str
    bucket: str
    token: str

    @classmethod
    def made(cls, influxdb, name: str) -> Bucket:
        bucket = cls(influxdb.url, influxdb.org, name, influxdb.token)
        found = bucket._ask(f"/api/v2/orgs?org={influxdb.org}")
        bucket._ask("/api/v2/buckets", {"orgID": found["orgs"][0]["id"], "name": name, "retentionRules": []})
        return bucket

    def _ask(self, path: str, body: object = None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def write(self, lines: str) -> None:
        url = f"{self.url}/api/v2/write?org={self.org}&bucket={self.bucket}&precision=ns"
        request = urllib.request.Request(url, lines.encode(), {"Authorization": f"Token {self.token}"})
        with urllib.request.urlopen(request, timeout=60):
            pass

    def query(self, flux: str) -> str:
        body = {"query": flux, "dialect": {"annotations": ["datatype", "group", "default"]}}
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v2/query?org={self.org}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read().decode()

    def points(self) -> dict[tuple, tuple[str, str]]:
        """Every value: (measurement, tags, field, time) -> (type, text)."""
        found, types, names = {}, [], []
        for row in csv.reader(
            io.StringIO(self.query(f'from(bucket: "{self.bucket}") |> range(start: 1677-10-01T00:00:00Z)'))
        ):
            if not row:
                names = []
            elif row[0] == "#datatype":
                types = row
            elif row[0].startswith("#"):
                continue
            elif not names:
                names = row
            else:
                one = dict(zip(names, row, strict=True))
                kind = types[names.index("_value")]
                tags = tuple(
                    (name, one[name])
                    for name in names[3:]
                    if name not in ("_start", "_stop", "_time", "_value", "_field", "_measurement")
                )
                text = one["_value"].replace("\r\n", "\n")  # how the server writes all line breaks
                found[one["_measurement"], tags, one["_field"], one["_time"]] = (kind, text)
        return found


def program(text: str, *arguments: object) -> list[str]:
    """A command that runs a program, which may import the alias distributions."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ALIAS)!r})\n{text}",
            *map(str, arguments)]  # fmt: skip


def ids_in_log(folder: Path, name: str = "log.jsonl") -> Counter:
    """How often each row stands in the log and its rotated files, by the field `id`."""
    return Counter(
        row["fields"]["id"] for path in sorted(folder.glob(f"{name}*")) if path.is_file() and "schema" not in path.name
        and "refused" not in path.name for line in path.read_bytes().splitlines() if (row := _json(line))
    )  # fmt: skip


def _json(line: bytes):
    try:
        return json.loads(line)
    except ValueError:
        return None
