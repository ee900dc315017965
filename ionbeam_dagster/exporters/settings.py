"""What the YAML says of every exporter, in the section of its own below ``projections``.

Belongs here: the keys that all of them have. Does not belong here: the keys of one format (they stand with it).
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.stores.files import Location
from ionbeam_dagster.stores.settings import WritableLocation


class ExporterSettings(Settings):
    """The keys of every exporter's section; an exporter adds its own in a subclass.

    `apart_from_content` names the keys on which the bytes of a file do not depend.
    """

    apart_from_content: ClassVar[frozenset[str]] = frozenset({"input_path", "output_path"})

    input_path: Location | None = Field(
        default=None, description="Must be dataset_aggregator.data_path, where it is given.", examples=["./data"]
    )
    output_path: WritableLocation = Field(
        default="data-projections", description="Folder, or s3://bucket/prefix, of the exports."
    )


class CycleSettings(ExporterSettings):
    """The same for exporters that write analysis cycles."""

    apart_from_content: ClassVar[frozenset[str]] = ExporterSettings.apart_from_content | {"cycle_cut_off"}

    cycle_cut_off: NonNegativeDuration = Field(
        default=timedelta(hours=1),
        description="How long after its end a cycle waits for its windows, and takes what is built again.",
    )
