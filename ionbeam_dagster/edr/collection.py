"""The windows of one dataset as a collection: its parameters, its metadata columns, and how many rows its windows have.

Belongs here: what is known of a collection as a whole. Does not belong here: which rows answer a query (reading.py,
search.py, pages.py).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.edr import footers
from ionbeam_dagster.edr.crs import OFFERED
from ionbeam_dagster.edr.files import LocalFiles, WindowFile, version_of
from ionbeam_dagster.edr.parameters import Column, Layout, Parameter, layout_of

NAMES = ("station_name", "name")
WIGOS = ("wigos_id", "wigosid", "wigos_station_identifier")
LOCATION = "location"


class Collection:
    """One dataset's windows."""

    def __init__(
        self,
        name: str,
        files: LocalFiles,
        ever: dict[str, Parameter] | None = None,
        offered_crs: tuple[str, ...] = OFFERED,
    ) -> None:
        self.name = name
        self.files = files
        self.offered_crs = offered_crs
        self._ever = ever or {}
        self._newest: tuple[object, dict[str, Parameter], tuple[str, ...], dict[str, str]] | None = None
        self._layouts: dict[tuple[object, ...], Layout] = {}
        self.repeated: list[str] = []  # texts that are read as dictionaries

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by id: those of the newest window that can be read, and those that any window ever had."""
        return self._described()[0]

    def described(self) -> tuple[str, ...]:
        """The metadata columns of the newest window that can be read."""
        return self._described()[1]

    def takes(self, column: Column) -> bool:
        """Whether the values of a file's column can be given together with those of its parameter in other files: they
        are what they are in the newest windows or, where these lack it, in the one that was read first."""
        known = self._described()[2]
        return column.is_answerable and known.setdefault(column.parameter.id, column.kind) == column.kind

    def layout(self, schema: pa.Schema) -> Layout:
        """The layout of a file of this collection; files of the same columns and types share it."""
        columns = (*schema.names, *schema.types)
        known = self._layouts.get(columns)
        if known is None:
            if len(self._layouts) > 100:
                self._layouts.clear()
            known = self._layouts[columns] = layout_of(schema)
        return known

    def _described(self) -> tuple[dict[str, Parameter], tuple[str, ...], dict[str, str]]:
        newest = self.files.windows()[: -20 - 1 : -1]
        for place, window in enumerate(newest):
            with suppress(OSError, pa.ArrowException):
                version = (window.name, self.files.version(window.name))
                if self._newest is None or self._newest[0] != version:
                    layout = layout_of(self._schema(window))
                    if not layout.fit:
                        continue
                    found = {column.parameter.id: column.parameter for column in layout.columns}
                    self.repeated = [name for name in (STATION, *NAMES, *WIGOS) if name in layout.described]
                    known = dict(sorted({**self._ever, **found}.items()))
                    self._newest = version, known, layout.described, self._kinds(newest[place:], known)
                return self._newest[1:]
        return self._ever, (), {}

    def _kinds(self, newest_first: list[WindowFile], known: dict[str, Parameter]) -> dict[str, str]:
        """What the values of parameters are, by their ids: so in the newest of the windows that have them."""
        kinds: dict[str, str] = {}
        for window in newest_first:
            with suppress(OSError, pa.ArrowException):
                layout = self.layout(self._schema(window))
                for one in layout.columns if layout.fit else ():
                    if one.is_answerable:
                        kinds.setdefault(one.parameter.id, one.kind)
            if known.keys() <= kinds.keys():
                break
        return kinds

    def _schema(self, window: WindowFile) -> pa.Schema:
        with self.files.open(window.name) as handle:
            return pq.read_schema(handle)

    def rows_in(self, window: WindowFile) -> int | None:
        """How many rows a window has, None where it cannot be read; remembered until the file is replaced."""
        path = self.files.path(window.name)
        try:
            found = footers.known(path, self.files.version(window.name))
            if found is None:
                with self.files.open(window.name) as handle:
                    metadata = pq.read_metadata(handle)
                    if not self.layout(metadata.schema.to_arrow_schema()).fit:
                        return None
                    found = footers.remembered(path, version_of(handle), metadata, footers.boxes_of(metadata))
        except FileNotFoundError:
            return 0  # taken away after it was listed
        except (OSError, pa.ArrowException):
            return None
        return found.rows


def stamp(moment: int) -> str:
    """Microseconds since 1970 as RFC 3339 text."""
    text = datetime.fromtimestamp(moment / 1e6, UTC)
    return text.strftime("%Y-%m-%dT%H:%M:%SZ") if moment % 1_000_000 == 0 else text.isoformat().replace("+00:00", "Z")
