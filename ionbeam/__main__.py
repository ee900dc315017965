"""`python -m ionbeam` starts the platform, as `ionbeam dev` does; with arguments it is the command `ionbeam`."""

from __future__ import annotations

import sys

from ionbeam_dagster.cli import app

app(sys.argv[1:] or ["dev"], prog_name="ionbeam")
