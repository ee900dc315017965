"""`ionbeam_client.archfx.utils.slugs`, and nothing else."""

import sys

from ionbeam_client.archfx.utils import slugs

sys.modules[__name__] = slugs
