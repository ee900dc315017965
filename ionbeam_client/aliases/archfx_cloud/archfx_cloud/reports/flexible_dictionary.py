"""`ionbeam_client.archfx.reports.flexible_dictionary`, and nothing else."""

import sys

from ionbeam_client.archfx.reports import flexible_dictionary

sys.modules[__name__] = flexible_dictionary
