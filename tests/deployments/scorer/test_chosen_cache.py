"""Which label cache the settings choose."""

from __future__ import annotations

from pathlib import Path

from esci_tournament.deployments.scorer.chosen_cache import open_cache
from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.redis_cache import RedisCache
from esci_tournament.registry.settings import read_settings


def test_a_file_of_the_home_unless_redis_is_named(tmp_path: Path) -> None:
    cache = open_cache(read_settings(home=tmp_path, cache_max_mib=8))
    assert isinstance(cache, FileCache)
    assert (tmp_path / "cache").is_dir()
    cache.close()
    shared = open_cache(read_settings(home=tmp_path, cache_redis_url="redis://127.0.0.1:1/0"))
    assert isinstance(shared, RedisCache)
    shared.close()
