"""`ionbeam_client.archfx.utils.main`, and nothing else."""

import sys

from ionbeam_client.archfx.utils import main

sys.modules[__name__] = main
