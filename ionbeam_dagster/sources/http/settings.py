"""Keys of the YAML that sources have alike which ask a service over HTTP.

Belongs here: their types, with their bounds and their meaning; each source has a default of its own. Does not belong
here: what a client does with them (client.py).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Timeout = Annotated[float, Field(gt=0, description="Seconds that a connection, or a wait for data, may take.")]
Concurrency = Annotated[int, Field(ge=1, le=32, description="Requests at once.")]
Retries = Annotated[int, Field(ge=0, description="How often a request that fails in passing is tried again.")]
