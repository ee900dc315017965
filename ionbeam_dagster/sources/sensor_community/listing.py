"""The archive's listings: which days there are and where, which files a day has, and which months there are.

Belongs here: reading the pages that the archive's web server makes of its folders. Does not belong here: the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.http import HttpClient

_DAY = re.compile(r'href="(?:[^"]*/)?(\d{4}-\d\d-\d\d)/"')
_YEAR = re.compile(r'href="(?:[^"]*/)?(\d{4})/"')
_FILE = re.compile(
    r'href="(?:[^"]*/)?(?P<stem>\d{4}-\d\d-\d\d_(?P<type>[^"_]+)_sensor_(?P<sensor>\d+)(?P<indoor>_indoor)?)'
    r'(?P<suffix>\.csv(?:\.gz)?)"(?P<rest>.*?)(?=href="|</tr>|</pre>|\n|$)',
    re.IGNORECASE,
)
_MONTH = re.compile(
    r'href="(?:[^"]*/)?(?P<name>\d{4}-\d\d_(?P<type>[^"_]+)\.zip)"(?P<rest>.*?)(?=href="|</tr>|</pre>|\n|$)',
    re.IGNORECASE,
)
_CHANGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?")
_SIZE = re.compile(r">\s*([\d.]+[KMG]?)\s*<|\s([\d.]+[KMG]?)\s*$")
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of the archive: `mark` changes when it is published again (its time and size in the listing)."""

    stem: str
    suffix: str
    type: str
    sensor: str
    indoor: bool
    mark: str

    @property
    def is_empty(self) -> bool:
        return self.mark.endswith(" 0")

    @property
    def least_size(self) -> float:
        """The bytes that the file has at least: listings round, and do not agree on what a K is."""
        said = self.mark.rpartition(" ")[2]
        unit = _UNITS.get(said[-1:].upper(), 1)
        return 0.9 * float(said[:-1]) * unit if unit > 1 else float(said or 0)


class NotListed(SourceError):
    """The archive has no such day."""


def find_day(client: HttpClient, day: date) -> tuple[str, dict[str, Listed]]:
    """The folder of `day`, and its files by name without ending.

    Days of past years lie in a folder of their year, those of the current year at the top; where the root listing says
    otherwise than what is found, what is found counts. Raises NotListed when there is no such day, and SourceError when
    it cannot be known.
    """
    root = _page(client, "/") or ""
    years = set(_YEAR.findall(root))
    if not years and not _DAY.search(root):
        raise SourceError(
            f"{client.base_url}: does not look like the archive's listing: it names neither years nor days"
        )
    nested, top = f"/{day:%Y}/{day}/", f"/{day}/"
    places = (nested, top) if f"{day:%Y}" in years else (top, nested)
    for place in places:
        page = _page(client, place, missing_is_none=True)
        if page is not None:
            return place, _files(page, f"{client.base_url.rstrip('/')}{place}")
    raise NotListed(f"{client.base_url}: has no folder {places[0]}")


def find_month(client: HttpClient, day: date) -> dict[str, str]:
    """The address of the zip of the day's month, by sensor type; of zips that were made after the month's end.

    None at all where the archive has no such month. Raises SourceError when it cannot be known.
    """
    place = f"/csv_per_month/{day:%Y-%m}/"
    page = _page(client, place, missing_is_none=True) or ""
    month = f"{day:%Y-%m}"
    changed = ((match, _CHANGED.search(match["rest"])) for match in _MONTH.finditer(page))
    return {match["type"].lower(): f"{place}{match['name']}" for match, time in changed if time and time[0][:7] > month}


def _page(client: HttpClient, path: str, missing_is_none: bool = False) -> str | None:
    answer = client.get(path, allow=(404,) if missing_is_none else ())
    if answer.status == 404:
        return None
    page = answer.text()
    if "</html>" not in page.lower():
        raise answer.wrong("is no whole listing: it does not end as a page of HTML does")
    return page


def _files(page: str, address: str) -> dict[str, Listed]:
    found: dict[str, Listed] = {}
    for match in _FILE.finditer(page):
        listed = _listed(match)
        before = found.get(listed.stem)
        if before is None or listed.mark > before.mark:
            found[listed.stem] = listed
    if not found:
        raise SourceError(f"{address}: lists no sensor's file; a day without any is a day that is not published")
    return found


def _listed(match: re.Match[str]) -> Listed:
    rest = match["rest"]
    changed, size = _CHANGED.search(rest), _SIZE.search(_CHANGED.sub("", rest))
    said = (size[1] or size[2]) if size else ""
    return Listed(
        stem=match["stem"],
        suffix=match["suffix"],
        type=match["type"].lower(),
        sensor=match["sensor"],
        indoor=match["indoor"] is not None,
        mark=f"{changed[0] if changed else ''} {said}",
    )


def signature(files: Iterable[Listed]) -> str:
    """A text that changes when any file is added, removed or published again."""
    return "\n".join(sorted(f"{file.stem} {file.mark}" for file in files))
