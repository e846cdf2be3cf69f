"""Open a model's folder, whatever kind of model it holds, and start what was opened.

Knows not which models there are.
"""

import asyncio
from pathlib import Path

from app.catalog.loaded import LoadedModel, ModelParts, open_model
from app.catalog.loaded_encoder import EncoderParts, LoadedEncoder, open_encoder
from app.catalog.residents import Loaded
from app.manifest import AnyManifest, Manifest
from app.metrics import ModelMetrics
from app.settings import Settings

Parts = ModelParts | EncoderParts


async def open_parts(folder: Path, manifest: AnyManifest, settings: Settings) -> Parts:
    """Open a model's files off the event loop; what comes too late is closed again.

    Raises:
        ModelBroken, ModelTooLarge, ProviderUnavailable: it can't be opened.
    """
    opening = asyncio.create_task(asyncio.to_thread(_open, folder, manifest, settings))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise


def start(parts: Parts, settings: Settings, metrics: ModelMetrics) -> Loaded:
    """Start the thread of what was opened."""
    if isinstance(parts, ModelParts):
        return LoadedModel(parts, settings, metrics)
    return LoadedEncoder(parts, settings, metrics)


def _open(folder: Path, manifest: AnyManifest, settings: Settings) -> Parts:
    if isinstance(manifest, Manifest):
        return open_model(folder, settings)
    return open_encoder(folder, manifest, settings)


def _close_late(opening: asyncio.Task[Parts]) -> None:
    """Free a model that nobody waits for any more; that it could not be opened is no news."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
