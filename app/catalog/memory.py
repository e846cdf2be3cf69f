"""How much memory a model takes, told from its manifest before anything is opened.

Knows no decoder: what it takes on a GPU shows when it is reserved there.
"""

from typing import Final

import psutil

from app.errors import ModelTooLarge
from app.manifest import Manifest
from app.settings import Settings

MAX_AUTO_SLOTS: Final = 16
AUTO_CONTEXT: Final = 8192
"""Tokens of a slot where no setting says so and the model could have more: with all that newer
models allow, 131,072 tokens, a slot of an 8B is 34 GB, and only one person could be served."""


def planned_size(manifest: Manifest, settings: Settings) -> tuple[int, int]:
    """Slots and tokens of each that a model would get now."""
    capacity = min(settings.context_length or AUTO_CONTEXT, manifest.graph.context_length)
    cache_mb = settings.prefix_cache_mb
    return settings.slots or auto_slots(manifest, capacity, cache_mb), capacity


def check_memory(manifest: Manifest, slots: int, capacity: int, prefix_cache_mb: int) -> None:
    """Refuse now what would end the process later, for the cache's pages come as they are used.

    Raises:
        ModelTooLarge: with the numbers and the settings that they come from.
    """
    cache = slots * capacity * manifest.graph.kv_bytes_per_token
    needed = manifest.size_bytes + cache + prefix_cache_mb * 2**20
    free = psutil.virtual_memory().available
    if needed > free:
        raise ModelTooLarge(
            f"{manifest.model_id} needs {needed / 1e9:.1f} GB: {manifest.size_bytes / 1e9:.1f} of "
            f"files, {cache / 1e9:.1f} for {slots} slots (LLMHOST_SLOTS) of {capacity} tokens "
            f"(LLMHOST_CONTEXT_LENGTH), {prefix_cache_mb} MB of LLMHOST_PREFIX_CACHE_MB; "
            f"{free / 1e9:.1f} GB are free"
        )


def auto_slots(manifest: Manifest, capacity: int, prefix_cache_mb: int) -> int:
    """Slots whose full caches fit half of the memory that the rest of the model leaves: 1 … 16."""
    slot_bytes = capacity * manifest.graph.kv_bytes_per_token
    left = psutil.virtual_memory().available - manifest.size_bytes - prefix_cache_mb * 2**20
    return max(1, min(MAX_AUTO_SLOTS, left // 2 // slot_bytes))
