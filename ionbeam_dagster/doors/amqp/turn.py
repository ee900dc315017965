"""What one turn of the bridge did; whoever does a part of it counts here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Turn:
    """What one turn did."""

    taken: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    announced: int = 0
    replayed: int = 0
