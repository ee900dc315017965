"""A process that works as long as it is the only one: ``python standing_by.py CONFIG LINES HELD_FOR``.

Belongs here: the program that test_standby starts. While it works it writes its number into LINES again and again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.orchestration import standby
from ionbeam_dagster.pipeline.recovery import open_platform

if __name__ == "__main__":
    standby.HELD_FOR = float(sys.argv[3])
    standby._LOOKED_EVERY = 0.1
    platform = open_platform(IonbeamConfig.load(Path(sys.argv[1])))
    with standby.alone(platform, print), Path(sys.argv[2]).open("a", 1) as lines:
        while True:
            lines.write(f"{os.getpid()}\n")
            time.sleep(0.005)
