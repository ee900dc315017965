"""What people are told of a collection: title, description, keywords, licence, attribution and links.

Belongs here: these texts, and how those of several sources become one. Does not belong here: where they are written
(configuration.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ionbeam_dagster.sources import SourceConfig


@dataclass(frozen=True, slots=True)
class About:
    """What people are told of a collection; what is empty, nobody said. `links` have href, title and rel."""

    title: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    licence: str = ""
    attribution: str = ""
    links: tuple[dict[str, str], ...] = ()

    def joined(self, other: About) -> About:
        """With what `other` says beside it; where both say one thing, this holds."""
        told = {link["href"] for link in self.links}
        return About(
            self.title or other.title,
            self.description or other.description,
            tuple(dict.fromkeys((*self.keywords, *other.keywords))),
            self.licence or other.licence,
            self.attribution or other.attribution,
            (*self.links, *(link for link in other.links if link["href"] not in told)),
        )


NOBODY_SAID = About()


def about_of(sources: dict[str, Any]) -> About:
    """What sources say of themselves (`DatasetMetadata` as JSON, by source), as one."""
    about = About()
    for told in sources.values():
        links = tuple(
            {"href": link["href"], "title": link.get("title") or link["href"], "rel": link.get("rel") or "about"}
            for link in told.get("source_links") or ()
            if str(link.get("href", "")).startswith(("https://", "http://"))  # a script is no page
        )
        about = about.joined(
            About(description=told.get("description") or "", keywords=tuple(told.get("keywords") or ()), links=links)
        )
    return about


def about_in(blocks: Iterable[SourceConfig]) -> About:
    """What the YAML says of the dataset that these sources feed."""
    about = About()
    for block in blocks:
        said = {"description": block.description, "keywords": block.keywords}
        links = [link.model_dump() for link in block.source_links]
        own = About(block.title, licence=block.licence or "", attribution=block.attribution)
        about = about.joined(own).joined(about_of({"": {**said, "source_links": links}}))
    return about
