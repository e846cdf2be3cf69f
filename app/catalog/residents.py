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
from app.catalog.shelf import Shelf, adapter_number, split_name
from app.contract.models import ModelKind
from app.errors import Unsupported
from app.manifest import AnyManifest
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
        self._chosen: dict[str, str] = {}
        """By model: the name that it was last loaded by, its own or one of its adapters'."""

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

    def choose(self, name: str) -> None:
        """Have requests that name no model get this one, while its model is the current one."""
        self._chosen[split_name(name)[0]] = name

    def under(self, model: LoadedModel, name: str | None) -> LoadedModel:
        """A model under the name that a request gives, or else under the one last chosen.

        Raises:
            UnknownModel: it has no such adapter.
        """
        return model.under(name or self._chosen.get(model.model_id))

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
        kind = (await self.manifest_of(model_id, shelf)).kind
        if kind != wanted:
            raise Unsupported("model", model_id, f"it {_DOES[kind]} and {_NOT[wanted]}")

    async def manifest_of(self, model_id: str, shelf: Shelf) -> AnyManifest:
        """The manifest of a model, also of one that is only on disk.

        Raises:
            UnknownModel, ModelBroken: it is neither in memory nor on disk.
        """
        loaded = self._by_id.get(model_id)
        if loaded is not None:
            return loaded.manifest
        _, manifest = await asyncio.to_thread(shelf.find, model_id)
        return manifest

    async def base_of(self, model_id: str, shelf: Shelf) -> str:
        """The model that a name is served by: its own, or that of one of its adapters.

        Raises:
            UnknownModel: the model has no such adapter.
        """
        base_id, adapter = split_name(model_id)
        if adapter is not None:
            adapter_number(await self.manifest_of(base_id, shelf), adapter)
        return base_id

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
