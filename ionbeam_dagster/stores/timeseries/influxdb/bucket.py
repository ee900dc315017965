"""One bucket of an InfluxDB server, and what is asked of it.

Belongs here: requests, with patience while the server is away or busy. Does not belong here: what they are for
(store.py).
"""

from __future__ import annotations

import csv
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import count
from secrets import token_hex
from types import TracebackType
from typing import TypeVar

import polars as pl
import pyarrow as pa
from influxdb_client import Bucket, BucketRetentionRules, InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from influxdb_client.service import DBRPsService
from urllib3.exceptions import HTTPError

from ionbeam_client.certificates import certificate_fault, perhaps_ours
from ionbeam_dagster.domain.windows import HOUR, Window, window_of
from ionbeam_dagster.stores.timeseries import TIME
from ionbeam_dagster.stores.timeseries.influxdb.errors import InfluxError, RefusedError
from ionbeam_dagster.stores.timeseries.influxdb.influxql import END, forms_of, parse, whole
from ionbeam_dagster.stores.timeseries.influxdb.line_protocol import body_of, line_protocol
from ionbeam_dagster.stores.timeseries.influxdb.names import LAYER, micros, moment, quoted, stored_text
from ionbeam_dagster.stores.timeseries.influxdb.parts import EVER, PART_FRAME, PART_SCHEMA, PART_TAGS, PARTS, Part
from ionbeam_dagster.tls import TlsSettings

_PROBE_BYTES = 4096
BUSY = (429, 502, 503, 504)
DROPPED = re.compile(r"partial write: .* dropped=(\d+)")
"""How InfluxDB tells how many lines of a request it left out for one reason."""
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class OpenBucket:
    """A connection to one bucket, and what is asked of it."""

    def __init__(
        self, url: str, org: str, bucket: str, token: str, timeout: float, tls: TlsSettings | None = None
    ) -> None:
        self._place = f"InfluxDB at {url}, bucket {bucket}"
        self._org, self._bucket = org, bucket
        self._patience = timeout
        self._is_encrypted = url.startswith("https:")
        context = tls.context("influxdb_common.") if tls is not None and tls.has_files else None
        self._client = InfluxDBClient(url, token, org=org, timeout=round(timeout * 1000), ssl_context=context)
        self._writes = self._client.write_api(write_options=SYNCHRONOUS)

    def __enter__(self) -> OpenBucket:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def __str__(self) -> str:
        return self._place

    def prepare(self, revise_for: timedelta | None) -> timedelta | None:
        """Make the bucket when it is not there; refuse one that forgets what is still needed.

        Gives for how long it keeps what is written to it (None: for ever).
        """
        found = self._found()
        if found is None:
            api, forever = self._client.buckets_api(), BucketRetentionRules(type="expire", every_seconds=0)
            with suppress(RefusedError):  # another process may have been quicker
                self._ask(lambda: api.create_bucket(bucket_name=self._bucket, org=self._org, retention_rules=forever))
                _LOG.warning("%s: was not there, and was made; what was in one before it is not in it", self)
            found = self._found()
        if found is None:
            raise InfluxError(f"{self}: is not there and cannot be made; make it, or correct influxdb_common")
        return self._keeps(found, revise_for)

    def is_sound(self, revise_for: timedelta | None) -> bool:
        """Whether the bucket is there; nothing is made. Refuses it as `prepare` does."""
        found = self._found()
        if found is not None:
            self._keeps(found, revise_for)
        return found is not None

    def try_to_write(self) -> None:
        """Write a point of no dataset, the same one for an hour; it is larger than what a full disk still has room for
        at the end of a file. Raises InfluxError where the server takes none."""
        hour = micros(window_of(datetime.now(UTC), HOUR).start)
        for _, reason in self.send(pl.Series([f'ionbeam_probe held="{token_hex(_PROBE_BYTES)}" {hour}'])):
            raise InfluxError(
                f"{self}: takes no point ({reason}); make room on its disk, and start it again if it still takes none"
            )

    def _keeps(self, found: Bucket, revise_for: timedelta | None) -> timedelta | None:
        mappings = DBRPsService(self._client.api_client)
        known = self._ask(lambda: mappings.get_dbr_ps(org=self._org, db=self._bucket).content)
        if [one.bucket_id for one in known if one.default] != [found.id]:
            raise InfluxError(
                f"{self}: is not database {self._bucket!r} in InfluxQL; remove the mapping that `influx v1 dbrp list` "
                "shows, or choose a bucket without '/' in its name"
            )
        rules = found.retention_rules
        kept = min((timedelta(seconds=rule.every_seconds) for rule in rules if rule.every_seconds), default=None)
        if kept is not None and (revise_for is None or kept < revise_for):
            raise InfluxError(
                f"{self}: keeps data for {kept}, but windows are built again for {revise_for or 'ever'}; "
                "lengthen the bucket's retention, or shorten revise_for"
            )
        return kept

    def _found(self) -> Bucket | None:
        """The bucket as the server describes it; None when there is no such bucket."""
        api = self._client.buckets_api()
        try:
            bucket: Bucket
            [bucket] = self._ask(lambda: api.find_buckets(name=self._bucket, org=self._org).buckets)
        except RefusedError as error:
            if not re.search("bucket .* not found", str(error)):
                raise
            return None
        return bucket

    def points(self, measurement: str, window: Window, schema: pa.Schema, condition: str = "true") -> pl.DataFrame:
        """What a measurement has in `window`, in no order: the columns of `schema`, and its layer.

        Asked in InfluxQL, which reads points: Flux reads values, and to pivot them costs the server thrice as much.
        """
        there = self._keys(measurement)
        forms = [form for some in forms_of(schema).values() for form in some if form.stored in there]
        columns = ", ".join(["layer", "empty", *(f'"{form.stored}" AS {form.alias}' for form in forms)])
        start, end = (1000 * micros(moment) for moment in (window.start, window.end))
        where = f"time >= {start} AND time < {end} AND {condition}"
        answer = self._query(f'SELECT {columns} FROM "{measurement}" WHERE {where}')  # noqa: S608 (names of our own)
        return parse(answer, schema)

    def _keys(self, measurement: str) -> set[str]:
        """The names of the measurement's fields and tags: one that is not there would cost as much as one that is."""
        answer = self._query(f'SHOW FIELD KEYS FROM "{measurement}"; SHOW TAG KEYS FROM "{measurement}"')
        return {row[2] for row in csv.reader(answer.decode().split("\n")) if len(row) > 2}

    def parts(self, dataset: str, window: Window, *ingestions: str) -> list[Part]:
        """The parts of `dataset` in the hours of `window`, of some ingestions or of all."""
        condition = f"dataset = {quoted(stored_text(dataset))}"
        if ingestions:
            asked = " OR ".join(f"ingestion = {quoted(stored_text(one))}" for one in ingestions)
            condition += f" AND ({asked})"
        hours = Window(window_of(window.start, HOUR).start, window.end)
        found = self.points(PARTS, hours, PART_SCHEMA, condition).drop(LAYER)
        # Of a part that was retired while it was being written, only the word "ready" is left.
        return [Part(**part) for part in found.filter(pl.col("number").is_not_null()).sort(TIME, "attempt").to_dicts()]

    def record(self, dataset: str, parts: Sequence[Part]) -> None:
        """Make `parts` known, before any of their points is written."""
        self._mark(dataset, pl.DataFrame([asdict(part) for part in parts], schema=PART_FRAME))

    def mark(self, dataset: str, parts: Sequence[Part], state: str) -> None:
        """Make `parts` "ready" or "retired", all at once."""
        marked = pl.DataFrame([asdict(part) for part in parts], schema=PART_FRAME)
        self._mark(dataset, marked.select("ingestion", "attempt", TIME, pl.lit(True).alias(state)))

    def _mark(self, dataset: str, parts: pl.DataFrame) -> None:
        lines = line_protocol(PARTS, parts.with_columns(pl.lit(dataset).alias("dataset")), PART_TAGS)
        for _, reason in self.send(lines):
            raise InfluxError(f"{self}: refuses to note what is written: {reason}")

    def send(self, lines: pl.Series, first: int = 0) -> Iterator[tuple[range, str]]:
        """Write `lines`, except those that are refused: gives the places, counted from `first`, of some that are
        refused together, and why."""
        if lines.is_empty():
            return
        try:
            # The constants of WritePrecision are texts, whatever the annotation says.
            self._ask(lambda: self._writes.write(self._bucket, self._org, body_of(lines), write_precision="us"))  # type: ignore[arg-type]
        except RefusedError as error:
            dropped = DROPPED.search(str(error))
            if len(lines) == 1 or (dropped and int(dropped[1]) == len(lines)):
                yield range(first, first + len(lines)), str(error)
                return
            half = len(lines) // 2
            yield from self.send(lines[:half], first)
            yield from self.send(lines[half:], first + half)

    def delete(self, first: int, last: int, predicate: str) -> None:
        """Remove the points with times in [first, last] (microseconds since 1970) that meet `predicate`."""
        start, stop = moment(first).isoformat(), moment(last).isoformat()
        api = self._client.delete_api()
        self._ask(lambda: api.delete(start, stop, predicate, bucket=self._bucket, org=self._org))

    def points_of(self, measurement: str, tag: str, value: str) -> int:
        """How many points a measurement has with this value of a tag; every point has a latitude."""
        where = f'"{tag}" = {quoted(stored_text(value))}'
        answer = self._query(f'SELECT count("lat") FROM "{measurement}" WHERE {where}')  # noqa: S608 (names of our own)
        counts = [row[3] for row in csv.reader(answer.decode().split("\n")) if len(row) > 3]
        return sum(int(count) for count in counts if count.isdigit())

    def delete_of(self, measurement: str, tag: str, value: str) -> None:
        """Remove all points of a measurement with this value of a tag."""
        text = stored_text(value).replace('"', '\\"')
        self.delete(micros(EVER.start), micros(EVER.end), f'_measurement="{measurement}" AND {tag}="{text}"')

    def _query(self, influxql: str) -> bytes:
        """The answer to statements as CSV, with times in microseconds; empty when there is nothing to tell."""
        asked = {"org": self._org, "db": self._bucket, "epoch": "u"}
        headers = {"Accept": "application/csv", "Content-Type": "application/x-www-form-urlencoded"}
        answer: bytes = self._ask(
            lambda: self._client.api_client.call_api(
                "/query", "POST", query_params=list(asked.items()), header_params=headers,
                post_params=[("q", f"{influxql}; {END}")], _preload_content=False, _return_http_data_only=True,
            ).data
        )  # fmt: skip
        return whole(answer)

    def _ask(self, request: Callable[[], T]) -> T:
        """Do `request`; while the server is away or busy, again and again for as long as our patience lasts."""
        until = time.monotonic() + self._patience
        for attempt in count():
            pause = min(0.1 * 2**attempt, 5.0)
            try:
                return request()
            except (ApiException, HTTPError, OSError) as error:
                if fault := certificate_fault(error, "influxdb_common.ca_file", "influxdb_common.cert_file"):
                    raise InfluxError(f"{self}: cannot be used: {fault}") from error
                if not isinstance(error, ApiException):
                    reason = f"{error}{self._hint(error)}"
                elif error.status not in BUSY:
                    raise self._understood(error) from error
                else:
                    pause, reason = _retry_after(error, pause), _reason(error)
            if time.monotonic() + pause > until:
                raise InfluxError(
                    f"{self}: does not answer ({reason}); start it, or correct influxdb_common.influxdb_url"
                )
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _hint(self, error: Exception) -> str:
        return perhaps_ours(error, "influxdb_common.cert_file") if self._is_encrypted else ""

    def _understood(self, error: ApiException) -> InfluxError:
        reason = _reason(error)
        if error.status == 401:
            return InfluxError(f"{self}: the token is not accepted ({reason}); correct influxdb_common.influxdb_token")
        if error.status == 403:
            return InfluxError(f"{self}: the token may not do this ({reason}); give it read and write of the bucket")
        if "organization name" in reason:
            return InfluxError(f"{self}: {reason}; correct influxdb_common.influxdb_org")
        return RefusedError(f"{self}: {reason}")


def _reason(error: ApiException) -> str:
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason)
    with suppress(ValueError, KeyError, TypeError):
        body = json.loads(body)["message"]
    return body if len(body) < 400 else f"{body[:200]} ... {body[-200:]}"


def _retry_after(error: ApiException, otherwise: float) -> float:
    asked = error.headers.get("Retry-After", "") if error.headers else ""
    return float(asked) if re.fullmatch(r"\d+(\.\d+)?", asked) else otherwise
