"""What Dagster loads (workspace.yaml): the platform of ``$IONBEAM_CONFIG_PATH``, or of the shipped default.

Nothing connects and nothing is read but the configuration.
"""

from __future__ import annotations

import dagster as dg

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import PlatformResource


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(PlatformResource(config_path=str(IonbeamConfig.load().path)))
