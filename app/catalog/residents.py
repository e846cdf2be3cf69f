"""The models in memory, in the order of their last use.

Models that generate text and encoders have places of their own, so that a program that uses both
has both. Knows not how models come and go.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from app.catalog.loaded import LoadedModel
from app.catalog.loaded_encoder import LoadedEncoder
from app.catalog.shelf import Shelf
from app.contract.models import ModelKind
from app.errors import Unsupported
from app.settings import Settings

Loaded = LoadedModel | LoadedEncoder

_DOES: Final[dict[ModelKind, str]] = {
    "text": "generates text",
    "embedding": "makes embeddings",
    "reranking": "judges documents by a query",
}
_NOT: Final[dict[ModelKind, str]] = {
    "text": "generates no text",
    "embedding": "makes no embeddings",
    "reranking": "judges no documents",
}


class Residents:
    """The models in memory. Everything runs on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_id: OrderedDict[str, Loaded] = OrderedDict()
        """Least recently used first."""

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._by_id

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def get(self, model_id: str) -> Loaded | None:
        """Look one up, without using it."""
        return self._by_id.get(model_id)

    def use(self, model_id: str) -> Loaded:
        """Look one up that is there, and make it the last that was used."""
        self._by_id.move_to_end(model_id)
        return self._by_id[model_id]

    def add(self, model: Loaded) -> None:
        """Add one, as the last that was used."""
        self._by_id[model.model_id] = model

    def pop(self, model_id: str) -> Loaded:
        """Take one out."""
        return self._by_id.pop(model_id)

    def newest_first(self) -> list[Loaded]:
        """All of them, the one used last first."""
        return list(reversed(self._by_id.values()))

    @property
    def current(self) -> LoadedModel | None:
        """The model that generated text last."""
        models = (model for model in self.newest_first() if isinstance(model, LoadedModel))
        return next(models, None)

    def current_encoder(self, kind: ModelKind) -> LoadedEncoder | None:
        """The encoder of a kind that was used last."""
        return next(
            (
                model
                for model in self.newest_first()
                if isinstance(model, LoadedEncoder) and model.manifest.kind == kind
            ),
            None,
        )

    async def check_kind(self, model_id: str, wanted: ModelKind, shelf: Shelf) -> None:
        """Refuse a model of another kind before anything is loaded for it.

        Raises:
            Unsupported: it is of another kind.
            UnknownModel, ModelBroken: it is neither in memory nor on disk.
        """
        loaded = self._by_id.get(model_id)
        if loaded is None:
            _, manifest = await asyncio.to_thread(shelf.find, model_id)
            kind = manifest.kind
        else:
            kind = loaded.manifest.kind
        if kind != wanted:
            raise Unsupported("model", model_id, f"it {_DOES[kind]} and {_NOT[wanted]}")

    def full(self, kind: ModelKind) -> bool:
        """Whether one of them has to go before a model of a kind can come."""
        settings = self._settings
        limit = settings.max_loaded_models if kind == "text" else settings.max_loaded_encoders
        return len(self._rivals(kind)) >= limit

    def least_useful(self, kind: ModelKind) -> Loaded:
        """Who has to go: the least recently used that runs nothing, or else that of them all."""
        rivals = self._rivals(kind)
        return next((model for model in rivals if not model.engine.num_requests), rivals[0])

    async def one_idle(self, kind: ModelKind, patience_s: float) -> None:
        """Wait until one that could go runs nothing, or for so many seconds."""
        idle = [asyncio.create_task(model.engine.wait_idle()) for model in self._rivals(kind)]
        try:
            await asyncio.wait(idle, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in idle:
                task.cancel()
            await asyncio.gather(*idle, return_exceptions=True)

    def _rivals(self, kind: ModelKind) -> list[Loaded]:
        """Who shares places with models of a kind."""
        return [
            model
            for model in self._by_id.values()
            if isinstance(model, LoadedModel) is (kind == "text")
        ]
