"""What every block of the YAML is: the base class of the settings of stores, sources, exporters and sections.

Belongs here: that base alone. Does not belong here: any key (they stand with what they are for).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A block of the YAML: a key that it does not know is refused, and nothing of it changes once it is read.

    Each field has a `description` in plain words, with its unit: the JSON Schema and docs/configuration.md show it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
