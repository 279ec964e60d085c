"""The label cache that the settings choose: a file of this machine, or Redis, which several scorers share."""

from __future__ import annotations

from esci_tournament.deployments.scorer.cache import LabelCache
from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.redis_cache import RedisCache
from esci_tournament.registry.settings import Settings


def open_cache(settings: Settings) -> LabelCache:
    """Open the label cache that the settings name: Redis, or a file in the folder `cache` of the home.

    Args:
        settings: those whose names begin with `cache_`, and `home`.

    Returns:
        The cache. A connection to Redis is made at the first look-up.

    Raises:
        StoreError: if there is no room on the disk.
        UsageError: if the address of Redis is malformed, or the size of the file too small.
    """
    if settings.cache_redis_url:
        return RedisCache(
            settings.cache_redis_url.get_secret_value(),
            settings.cache_redis_timeout_ms / 1000,
            settings.cache_redis_days * 86_400,
        )
    return FileCache(settings.home / "cache", settings.cache_max_mib)
