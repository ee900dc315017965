"""`ionbeam_client.archfx.utils.gid`, and nothing else."""

import sys

from ionbeam_client.archfx.utils import gid

sys.modules[__name__] = gid
