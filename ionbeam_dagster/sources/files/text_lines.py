"""Files whose rows are lines: in pieces of whole rows, also while they grow.

Belongs here: where lines and rows end, whatever the cells are. Does not belong here: what stands in a line
(csv_files.py, json_lines.py, annotated_csv.py).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import IO, cast
from zipfile import BadZipFile, ZipFile

import numpy as np

from ionbeam_dagster.sources.files.readers import Place, TableReader, Unreadable, listed, refusals

CSV_PART = 2 << 20
SMALL_PIECES = 32  # that a part would have, of which only the last ones may still change
LONGEST_LINE = 1 << 20
MARK = b"\xef\xbb\xbf"
PACKED = (".gz", ".zip")
_OF_BEGINNING = 8
_UTF_16 = "is UTF-16, which cannot be read in pieces; convert it, for example: iconv -f utf-16 -t utf-8"
_OTHER_CONTENT = {
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
    b"PK\x03\x04": "holds a zip file or a workbook, no text; unpack it, or give it its ending (.zip, .xlsx)",
    b"\x1f\x8b": "holds a gzip file, no text; unpack it, or give it the ending .gz",
    b"\xd0\xcf\x11\xe0": "holds a workbook, no text; give it the ending .xls",
    b"PAR1\x15": "holds Parquet, no text; give it the ending .parquet",
    b"\x89HDF": "holds netCDF 4, no text; give it the ending .nc",
    **{b"CDF" + version: "holds netCDF, no text; give it the ending .nc" for version in (b"\x01", b"\x02", b"\x05")},
}
"""What files begin with that are no text as it is read here, and what is said of them."""


class LineReader(TableReader):
    """A format whose rows are lines.

    A part is ``(offset of its header, length of the header, offset, length, number of its first line)``, in bytes; of a
    format without headers the first two are 0.
    """

    def grows_by_lines(self, path: Path) -> bool:
        return path.suffix not in PACKED

    def is_unchanged(self, path: Path, content: Mapping[Place, str]) -> bool:
        with refusals(), opened(path, self.config.member) as file:
            for (header_at, header_length, offset, length, _), known in content.items():
                digest = sha256()
                for at, size in ((header_at, header_length), (offset, length)):
                    file.seek(at)
                    digest.update(file.read(size))
                if digest.hexdigest()[:16] != known:
                    return False
        return True


def opened(path: Path, member: str | None = None) -> IO[bytes]:
    """The file, unpacked; of a zip the only member, or the only one that the glob `member` finds. Raises Unreadable,
    also where it holds no text."""
    file = _unpacked(path, member)
    try:
        refuse_other_content(file.read(_OF_BEGINNING))
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _unpacked(path: Path, member: str | None) -> IO[bytes]:
    if path.suffix == ".zip":
        return _in_zip(path, member)
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def refuse_other_content(begins: bytes) -> None:
    """Refuse a file that begins as one does that is no text."""
    for start, told in _OTHER_CONTENT.items():
        if begins.startswith(start):
            raise Unreadable(told)


def _in_zip(path: Path, member: str | None) -> IO[bytes]:
    try:
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            found = [name for name in names if member is None or fnmatchcase(name, member)]
            if len(found) != 1:
                sought = f"{len(found)} members like {member!r}" if member else f"{len(found)} members"
                raise Unreadable(f"has {sought}, not one; it has {listed(names)}; state which with `member`")
            return archive.open(found[0])
    except (BadZipFile, NotImplementedError, RuntimeError) as error:  # the last of one with a password
        raise Unreadable(f"cannot be unpacked ({error}); put an intact copy in its place") from error


def blocks(
    file: IO[bytes], start: int, whole_lines: bool, first_line: int, quote: bytes | None = b'"'
) -> Iterator[tuple[int, int, bytes]]:
    """The file from `start` on in pieces of whole rows, each with its offset and the number of its first line.

    A line break between two of `quote` ends no row.

    The last piece is cut into smaller ones, always at the same places: a file that grows changes only what is behind
    them.
    """
    file.seek(start)
    offset, line, rest = start, first_line, b""
    while data := file.read(CSV_PART):
        block, rest = _whole_rows(rest + data, quote)
        if len(rest) > LONGEST_LINE and b"\n" not in rest:
            endless = line + block.count(b"\n")
            raise Unreadable(f"line {endless} does not end within 1 MiB; correct or remove the file")
        if len(rest) > LONGEST_LINE:  # a quote that opens and never closes
            more, _, rest = rest.rpartition(b"\n")
            block += more + b"\n"
        for piece in [block] if len(data) == CSV_PART else _small_pieces(block, quote):
            yield offset, line, piece
            offset, line = offset + len(piece), line + piece.count(b"\n")
    if rest and not whole_lines:
        yield offset, line, rest


def _whole_rows(data: bytes, quote: bytes | None) -> tuple[bytes, bytes]:
    """`data` up to its last line break that no quotes enclose, and the rest."""
    end = data.rfind(b"\n") + 1
    if quote and end and data.count(quote, 0, end) % 2:
        outside = line_breaks(data, quote)
        end = int(outside[-1]) + 1 if len(outside) else 0
    return data[:end], data[end:]


def line_breaks(data: bytes, quote: bytes = b'"') -> np.ndarray:
    """Where the line breaks of `data` are that no quotes enclose; `data` begins outside of quotes."""
    characters = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(characters == ord("\n"))
    quotes = np.flatnonzero(characters == ord(quote))
    outside: np.ndarray = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    return outside


def _small_pieces(block: bytes, quote: bytes | None) -> Iterator[bytes]:
    start = 0
    breaks = line_breaks(block, quote) if quote and block.count(quote) else None
    while start < len(block):
        at = start + CSV_PART // SMALL_PIECES
        if breaks is None:
            end = block.find(b"\n", at) + 1
        else:
            place = int(np.searchsorted(breaks, at))
            end = int(breaks[place]) + 1 if place < len(breaks) else 0
        end = end or len(block)
        yield block[start:end]
        start = end


def decoded(data: bytes, encoding: str, line: int) -> str:
    """The text of lines from number `line` on. Raises Unreadable with the line that is none."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        place = line + data.count(b"\n", 0, error.start)
        raise Unreadable(
            f"line {place}: byte {data[error.start]:#04x} is not {encoding}; state the file's encoding, "
            "for example csv.encoding: latin-1, or correct the file"
        ) from error
