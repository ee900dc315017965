"""`ionbeam_client.archfx.reports.exceptions`, and nothing else."""

import sys

from ionbeam_client.archfx.reports import exceptions

sys.modules[__name__] = exceptions
