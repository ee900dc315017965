"""`ionbeam_client.archfx.reports.report`, and nothing else."""

import sys

from ionbeam_client.archfx.reports import report

sys.modules[__name__] = report
