"""Who sends BUFR, and under which names: the operator's settings, and what bulletins and files are called by them.

Belongs here: the settings and what is wrong with them, the heading of a bulletin and the name of its file. Does not
belong here: what stations are called (station_ids.py). The configuration reads this module wherever it runs: it needs
no eccodes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from ionbeam_dagster.exporters.settings import ExporterSettings
from ionbeam_dagster.settings import Settings

MOST_BYTES_OF_A_BULLETIN = 500_000
"""Of a bulletin in a binary form on the GTS (WMO-No. 386, Manual on the GTS, part II)."""
WMO_STATIONS = 20000  # the WIGOS issuer whose ids are WMO's station numbers


def _not_of_wmo(issuer: int) -> int:
    if issuer == WMO_STATIONS:
        raise ValueError(f"issuer {WMO_STATIONS} belongs to WMO's station numbers; take your own (an ISO 3166 number)")
    return issuer


Heading = Annotated[str, StringConstraints(pattern=r"^[A-Z]{4}[0-9]{2}$")]


class BufrSettings(Settings):
    """Who sends, under which names, and how large a message may be."""

    centre: int = Field(default=65535, ge=0, le=65535, description="The operator's number in table C-11; 65535: none.")
    sub_centre: int = Field(default=0, ge=0, le=65535, description="The operator's sub-centre in table C-12.")
    wigos_issuer: Annotated[int, AfterValidator(_not_of_wmo)] | None = Field(
        default=None,
        ge=0,
        le=65534,
        description="Issuer of WIGOS ids for stations that have none: 0-<issuer>-<issue number>-<local id>; without it "
        "they get none.",
        examples=[276],
    )
    wigos_issue_number: int = Field(default=0, ge=0, le=65534, description="Issue number of these WIGOS ids.")
    cccc: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{4}$",
        description="The operator's location indicator; with it files get names for the GTS, too.",
        examples=["EDZW"],
    )
    ttaaii: Heading = Field(
        default="ISAX30",
        description="Heading of the bulletins (ISA 30-59: observations of n minutes; X: the whole globe).",
    )
    headings: dict[str, Heading] = Field(
        default={},
        description="Headings of datasets, by name, that have one of their own.",
        examples=[{"netatmo": "ISAX31"}],
    )
    subsets_per_message: int = Field(default=1000, ge=1, le=65534, description="Most reports of a message.")
    bytes_per_message: int = Field(default=499_999, ge=2_000, le=499_999, description="Most bytes of a message.")

    def heading_of(self, dataset: str) -> str:
        """TTAAii of a dataset's bulletins."""
        return self.headings.get(dataset, self.ttaaii)


class BufrService(ExporterSettings):
    """The BUFR exports (bufr); they need the extra ``ionbeam-dagster[bufr]``."""

    settings: BufrSettings = Field(
        default=BufrSettings(), description="Who sends, under which names, and how large a message may be."
    )


def correction(revision: int) -> str:
    """The indicator BBB of a revision: none for the first, then CCA to CCX, which all later ones share."""
    return "" if revision <= 1 else f"CC{chr(ord('A') + min(revision - 2, 23))}"


def bulletin_heading(settings: BufrSettings, dataset: str, window_start: datetime, revision: int) -> str:
    """``TTAAii CCCC YYGGgg [BBB]``; raises ValueError when the settings have no `cccc`."""
    if settings.cccc is None:
        raise ValueError("a bulletin needs the location indicator of its sender: set cccc")
    parts = settings.heading_of(dataset), settings.cccc, f"{window_start:%d%H%M}", correction(revision)
    return " ".join(part for part in parts if part)


def gts_file_name(settings: BufrSettings, dataset: str, window_start: datetime, revision: int) -> str:
    """The name under which the GTS takes the file of a window; raises ValueError when the settings have no `cccc`.

    Both times in it are the window's start, so that the name follows from the content.
    """
    heading = bulletin_heading(settings, dataset, window_start, revision).replace(" ", "")
    return f"A_{heading}_C_{settings.cccc}_{window_start:%Y%m%d%H%M%S}.bin"
