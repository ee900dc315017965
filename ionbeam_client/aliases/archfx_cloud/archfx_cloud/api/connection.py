"""`ionbeam_client.archfx.api.connection`, and nothing else."""

import sys

from ionbeam_client.archfx.api import connection

sys.modules[__name__] = connection
