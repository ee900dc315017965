"""`ionbeam_client.archfx.api.exceptions`, and nothing else."""

import sys

from ionbeam_client.archfx.api import exceptions

sys.modules[__name__] = exceptions
