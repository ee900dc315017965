"""The name by which the documentation knows `slugs`. Belongs here: that name. Does not belong here: code."""

import sys

from ionbeam_client.archfx.utils import slugs

sys.modules[__name__] = slugs
