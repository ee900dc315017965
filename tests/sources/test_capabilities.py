"""What sources can do beyond `fetch` is said by members of theirs: that each says the truth, and what holds without."""

from datetime import UTC, datetime, timedelta

import pytest

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig, installed_sources

WINDOW = Window(datetime(2026, 6, 21, tzinfo=UTC), datetime(2026, 6, 21, 1, tzinfo=UTC))


class OnlyFetches(Source):
    """The least that a third party writes."""

    metadata = None  # type: ignore[assignment]

    def fetch(self, window):
        yield from ()


@pytest.mark.parametrize("name", sorted(installed_sources()))
def test_a_source_says_that_it_can_what_it_can(name):
    source = installed_sources()[name].load()
    assert source.tells_changes == (source.changes is not Source.changes)
    assert source.subscribes == (source.subscriber is not Source.subscriber)


def test_a_source_that_only_fetches_can_nothing_else_and_says_so():
    source = OnlyFetches("plain", SourceConfig())
    assert not (source.tells_changes or source.subscribes)
    assert source.sample(WINDOW) is None and source.extent() is None
    assert source.signature(WINDOW) == "" and source.problems() == []
    with pytest.raises(SourceError, match="plain: a source of type OnlyFetches does not tell what changed"):
        source.changes(None)
    with pytest.raises(SourceError, match="plain: nothing is published to a source of type OnlyFetches"):
        source.subscriber()


def test_any_source_may_be_looked_at_and_collected_again_by_its_block():
    config = SourceConfig.model_validate({"look_again_for": "P1D", "collect_again_after": ["PT1H", "PT6H"]})
    assert config.look_again_for == timedelta(days=1)
    assert config.collect_again_after == (timedelta(hours=1), timedelta(hours=6))
    assert SourceConfig().look_again_for == timedelta(0) and SourceConfig().collect_again_after == ()


def test_a_source_that_uses_its_cache_is_another_only_where_it_did_not():
    source = OnlyFetches("plain", SourceConfig())
    cached = source.using_cache()
    assert cached.config.use_cache and not source.config.use_cache and cached.using_cache() is cached
