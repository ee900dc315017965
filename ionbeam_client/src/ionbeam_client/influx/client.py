"""What a station's program calls: the client, its write API, and what a write gives back.

Belongs here: the calls of InfluxDB's own client, with a durable meaning. Does not belong here: what rows are
(records.py, frames.py), how they are kept (log.py) and brought on (sender.py).
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ionbeam_client.influx import records, times
from ionbeam_client.influx.config import Config, make_config, read_config_file
from ionbeam_client.influx.errors import NotDeliveredError, RecordError, RefusedRowsError
from ionbeam_client.influx.log import Log, Position
from ionbeam_client.influx.rows import How
from ionbeam_client.influx.sender import OnError, Sender, Status, Told, status_of
from ionbeam_client.influx.state import State

_logger = logging.getLogger("ionbeam_client.influx")


class WriteType(Enum):
    """When write() returns. In every case the rows are on the disk then."""

    asynchronous = "at once"
    batching = "at once, too: rows are always sent in parts as large as there is need for"
    synchronous = "when every server has the rows"


@dataclass(frozen=True)
class WriteOptions:
    """How to write; objects of InfluxDB's own client are taken too."""

    write_type: WriteType = WriteType.asynchronous
    timeout: float = 30.0
    """Seconds that a synchronous write waits for the servers."""


ASYNCHRONOUS = WriteOptions(WriteType.asynchronous)
BATCHING = WriteOptions(WriteType.batching)
SYNCHRONOUS = WriteOptions(WriteType.synchronous)


class PointSettings:
    """Tags that every row gets which does not have them."""

    def __init__(self, **default_tags: str) -> None:
        self.defaultTags = default_tags


class Receipt:
    """What became of one write. The rows are in the log; they are sent whether anybody asks here or not."""

    def __init__(self, client: EHTInfluxDBClient, after: Position, until: Position, rows: int) -> None:
        self._client, self._after, self._until = client, after, until
        self.rows = rows

    def get(self, timeout: float = 30.0) -> None:
        """Wait until every server has the rows.

        Raises:
            RefusedRowsError: servers refused some, with their reasons.
            NotDeliveredError: not every server has them after `timeout` seconds; they will be sent.
        """
        late = self._client._sender.wait(self._until, timeout, servers_only=True)
        if refusals := self._client._sender.refusals(self._after, self._until):
            raise RefusedRowsError(f"{len(refusals)} refusals, the first: {refusals[0]}", refusals)
        if late:
            raise NotDeliveredError(f"after {timeout:g} s not yet on {', '.join(late)}; in the log, and will be sent")


class EHTInfluxDBClient:
    """Logs rows on this machine's disk, and brings them to every InfluxDB of the configuration."""

    def __init__(self, config: Config | None = None, *, on_error: OnError | None = None, **keywords: Any) -> None:
        """`keywords` are the keys of the INI file; `on_error(target, error)` is called, in a thread, with what fails.

        Raises:
            ConfigurationError: a key is wrong or missing.
            LogError: the log cannot be kept where it should.
        """
        self.config = config or make_config(keywords)
        self._on_error = on_error
        self._log = Log(self.config.jsonlogfile, self.config.rotate_megabytes * 2**20)
        self._state = State(self._log.folder / "cursors.sqlite")
        self._sender = Sender(self._log, self._state, self.config, Told(self.config, on_error))
        self._sender.start()
        self._end: Position | None = None
        self._waited: Position | None = None
        self.closed = False
        self._process = os.getpid()
        _OPEN.add(self)

    @classmethod
    def from_config_file(
        cls, config_file: str | Path, *, on_error: OnError | None = None, **keywords: Any
    ) -> EHTInfluxDBClient:
        """A client of an INI file; `keywords` stand in place of its keys.

        Raises:
            ConfigurationError: which file and key, and what to do.
        """
        return cls(make_config(read_config_file(config_file, **keywords), str(config_file)), on_error=on_error)

    def write_api(
        self,
        write_options: Any = ASYNCHRONOUS,
        point_settings: Any = None,
        default_tags: Mapping[str, str] | None = None,
    ) -> WriteApi:
        """What writes; `write_options` says when write() returns, `point_settings` has tags for every row."""
        tags = {**(getattr(point_settings, "defaultTags", None) or {}), **(default_tags or {})}
        return WriteApi(self, write_options, tags)

    def status(self) -> list[Status]:
        """How it stands with every target; after close(), too."""
        return status_of(self._log, self._state, self.config)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every target has everything that is in the log now; False when some have not after `timeout` s."""
        self._waited = end = self._log.end()
        late = self._sender.wait(end, self.config.close_timeout if timeout is None else timeout)
        if late:
            _logger.warning(
                "not everything is delivered to %s yet; it is in %s, and is sent later", ", ".join(late), self._log.path
            )
        return not late

    def close(self) -> None:
        """Wait a moment for what is not delivered, and end. What is left is told, and sent by the next program."""
        if self.closed:
            return
        if self._process == os.getpid():
            if self._waited != self._log.end():  # write_api.close() may just have waited for it in vain
                self.flush()
            self._sender.stop()
        self.closed = True
        self._log.close()
        self._state.close()

    def _append(self, record: Any, how: How) -> Receipt:
        if self.closed:
            raise RecordError("the client is closed; nothing was logged")
        encoded = records.encode(record, how)
        if encoded.without_value or encoded.infinite:
            _logger.warning(
                "left out: %d rows without any value, %d values that are infinite",
                encoded.without_value,
                encoded.infinite,
            )
        if encoded.long_ago:
            _logger.warning(
                "%d rows have times within a month of 1970-01-01: is the unit right (write_precision is %s), and the "
                "clock set?",
                encoded.long_ago,
                how.write_precision,
            )
        if not encoded.rows:
            here = self._end or Position(0, 0)
            return Receipt(self, here, here, 0)
        after, self._end = self._log.append(encoded.data, encoded.unsigned)
        if self._process == os.getpid():
            self._sender.notify()
        return Receipt(self, after, self._end, encoded.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.config, self._on_error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WriteApi:
    """Writes records, as InfluxDB's own client does; what it returns from is on the disk."""

    def __init__(self, client: EHTInfluxDBClient, write_options: Any, default_tags: Mapping[str, str]) -> None:
        self._client = client
        self._options = write_options
        self._write_type = WriteType[str(write_options.write_type.name)]
        self._default_tags = dict(default_tags)
        self._closed = False

    def write(
        self,
        bucket: str | None = None,
        org: str | None = None,
        record: Any = None,
        write_precision: str = "ns",
        *,
        data_frame_measurement_name: str | None = None,
        data_frame_tag_columns: Any = None,
        data_frame_timestamp_column: str | None = None,
        data_frame_timestamp_timezone: Any = None,
        record_measurement_name: str | None = None,
        record_measurement_key: str = "measurement",
        record_time_key: str | None = None,
        record_tag_keys: Any = None,
        record_field_keys: Any = None,
        field_types: Mapping[str, str] | None = None,
    ) -> Receipt | None:
        """Log `record`: a data frame, dict, line protocol, Point, named tuple, dataclass, or any of these in a list.

        The keywords are those of InfluxDB's own client. Every row needs a time: of a frame the column `timestamp` (ns
        since 1970 or units of `write_precision`, datetimes, RFC 3339 texts), the column that is named, or a
        DatetimeIndex; of a dict the key `time` or `timestamp`. `bucket` and `org` are those of the configuration.

        Raises:
            RecordError: what is wrong, and where; nothing of the record is logged.
            LogError: the disk is full or broken; nothing of the record is logged.
            RefusedRowsError, NotDeliveredError: with SYNCHRONOUS only; the rows are in the log.
        """
        if self._closed:
            raise RecordError("this write API is closed; nothing was logged")
        self._check_place("bucket", bucket)
        self._check_place("org", org)
        try:
            precision = times.precision_of(write_precision)
        except ValueError as error:
            raise RecordError(str(error)) from None
        how = How(
            precision, self._default_tags, data_frame_measurement_name, _names(data_frame_tag_columns) or (),
            data_frame_timestamp_column, data_frame_timestamp_timezone, record_measurement_name, record_measurement_key,
            record_time_key, _names(record_tag_keys), _names(record_field_keys), field_types or {},
        )  # fmt: skip
        receipt = self._client._append(record, how)
        if self._write_type is WriteType.synchronous:
            receipt.get(getattr(self._options, "timeout", 30.0))
            return None
        return receipt

    def flush(self) -> None:
        """Wait a moment until everything is delivered; what is not is told, and sent later."""
        self._client.flush()

    def close(self) -> None:
        """Flush, and end this write API."""
        if not self._closed and not self._client.closed:
            self._client.flush()
        self._closed = True

    def _check_place(self, what: str, given: Any) -> None:
        known = {getattr(server, what) for server in self._client.config.servers}
        name = getattr(given, "name", given)
        if name is not None and name not in known:
            raise RecordError(
                f"{what} is {name!r}, but this client writes to {', '.join(sorted(known))}: the configuration says "
                "where rows go; make another client for another place"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return WriteApi, (self._client, self._options, self._default_tags)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(str(name) for name in names)


_OPEN: weakref.WeakSet[EHTInfluxDBClient] = weakref.WeakSet()
_IN_THIS_PROCESS: dict[Config, EHTInfluxDBClient] = {}


def _unpickled(config: Config, on_error: OnError | None) -> EHTInfluxDBClient:
    """The client of a pool's process: one for each configuration, however often a task brings it along."""
    client = _IN_THIS_PROCESS.get(config)
    if client is None or client.closed or client._process != os.getpid():
        client = _IN_THIS_PROCESS[config] = EHTInfluxDBClient(config, on_error=on_error)
    return client


def _close_all() -> None:
    for client in list(_OPEN):
        client.close()


def _in_the_child() -> None:
    for client in list(_OPEN):
        client._sender.after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_in_the_child)
