"""odc's C interface: frames of NumPy columns become bytes of ODB-2.

Belongs here: what the library wants, and its traps. Does not belong here: what is in the columns (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.exporters.odb.tables import STATUS_BITS, Arrays, Column


class Encoder:
    """Encodes frames of at most `rows_per_frame` rows, with the same `constants` and `properties`.

    It belongs to the thread that made it.
    """

    def __init__(
        self,
        columns: list[Column],
        constants: dict[str, int | bytes],
        properties: Mapping[str, str],
        rows_per_frame: int,
    ) -> None:
        from codc.lib import ffi, lib

        self._ffi, self._lib, self._columns = ffi, lib, columns
        # A thread that has not been told otherwise takes integers for doubles, and writes each as 0.
        lib.odc_integer_behaviour(lib.ODC_INTEGERS_AS_LONGS)
        self._missing = {
            "INTEGER": _setting_of(lib.odc_missing_integer, "long"),
            "REAL": _setting_of(lib.odc_missing_double, "double"),
        }
        # The library takes a stride of 0 for "contiguous", so that a constant has to be there in every row.
        self._constants = {name: np.full(rows_per_frame, value) for name, value in constants.items()}
        self._encoder = self._new(properties)
        self._buffer = ffi.new("char[]", 8 * rows_per_frame * (len(columns) + 16))

    def _new(self, properties: Mapping[str, str]) -> Any:
        handle = self._ffi.new("odc_encoder_t**")
        self._lib.odc_new_encoder(handle)
        encoder = self._ffi.gc(handle[0], self._lib.odc_free_encoder)
        for number, (name, kind) in enumerate(self._columns):
            self._lib.odc_encoder_add_column(encoder, name.encode(), getattr(self._lib, f"ODC_{kind}"))
            for bit in STATUS_BITS if kind == "BITFIELD" else ():
                self._lib.odc_encoder_column_add_bitfield(encoder, number, bit.encode(), 1)
        for key, value in properties.items():
            self._lib.odc_encoder_add_property(encoder, key.encode(), value.encode())
        return encoder

    def write(self, frame: Arrays, file: BinaryIO) -> None:
        """Append a frame, all of whose columns that are not constant are given."""
        rows = len(frame["varno@body"])
        self._lib.odc_encoder_set_row_count(self._encoder, rows)
        self._lib.odc_encoder_set_rows_per_frame(self._encoder, rows)
        alive = []
        for number, (name, kind) in enumerate(self._columns):
            column = self._constants[name] if name in self._constants else self._in_64_bits(frame[name], kind)
            alive.append(column)
            self._lib.odc_encoder_column_set_data_array(
                self._encoder, number, column.itemsize, column.itemsize, self._ffi.cast("void*", column.ctypes.data)
            )
        size = self._ffi.new("long*")
        self._lib.odc_encode_to_buffer(self._encoder, self._buffer, len(self._buffer), size)
        file.write(self._ffi.buffer(self._buffer, size[0]))

    def _in_64_bits(self, column: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
        """`column` as the library takes it."""
        if kind == "STRING":
            return np.ascontiguousarray(column)
        if kind == "REAL":
            # The library keeps the doubles of a column that does not change: round them as it rounds all others.
            column = column.astype(np.float32).astype(np.float64)
        if column.dtype.kind == "f":
            column[np.isnan(column)] = self._missing[kind]
        return np.ascontiguousarray(column, np.float64 if kind == "REAL" else np.int64)


def _setting_of(question: Any, kind: str) -> Any:
    """What a function of the library answers through a pointer to `kind`."""
    from codc.lib import ffi

    answer = ffi.new(f"{kind}*")
    question(answer)
    return answer[0]
