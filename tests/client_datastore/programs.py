"""The programs of the Datastore SDK's specification, as its Markdown has them.

Belongs here: finding them, and the name that they import. Does not belong here: what they should do.
"""

import re
from pathlib import Path

ALIAS = Path(__file__).parents[2] / "ionbeam_client" / "aliases" / "datastore_sdk"
SPECIFICATION = Path(__file__).parents[2] / ".." / "shared" / "spec" / "datastore-sdk.md"


def programs():
    """Pairs of a line number and the program that begins there; none where the specification is absent."""
    if not SPECIFICATION.exists():
        return []
    text = SPECIFICATION.read_text()
    return [
        (text.count("\n", 0, found.start(1)) + 1, found.group(1))
        for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]
