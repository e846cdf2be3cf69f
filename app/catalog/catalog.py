"""Which models are in memory, and who has to go when another one comes.

Implements `contract.models.ModelRegistry`. Everything runs on the event loop; only what reads the
disk leaves it. Knows no HTTP and no text.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

from app.catalog.loaded import LoadedModel
from app.catalog.loaded_encoder import LoadedEncoder
from app.catalog.loads import Loads
from app.catalog.opening import open_parts, start
from app.catalog.residents import Loaded, Residents
from app.catalog.shelf import Shelf
from app.contract.models import ModelFacts, ModelKind, ModelState
from app.encoding.thread import EncoderThread
from app.engine.places import Places
from app.engine.thread import EngineThread
from app.errors import NoModelLoaded, ShuttingDown
from app.metrics import Metrics
from app.runtime.heap import trim_heap
from app.settings import Settings

logger = logging.getLogger(__name__)


SWAP_PATIENCE_S: Final = 10.0
"""Seconds for which a model that has to go still takes new requests if it is never idle."""
_OPEN: Final = 0.5
"""The progress of a load whose files are open."""
HEAL_AGAIN_AFTER_S: Final = 60.0
"""A model whose engine has stopped is loaded anew by itself at most once in so many seconds."""


class Catalog:
    """The models of one folder."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._shelf = Shelf(settings.models_dir, settings.context_length)
        self._metrics = metrics or Metrics()
        self._loaded = Residents(settings)
        self._coming: dict[str, ModelKind] = {}
        """What models are that are on their way, as soon as that is known."""
        self._loads = Loads()
        self._gone: str | None = None
        """The model last unloaded to make room, until the one that needed the room is there."""
        self._healed_at_s: dict[str, float] = {}
        """When a model was last loaded anew because its engine had stopped."""
        self._leaving: dict[EngineThread | EncoderThread, str] = {}
        """Engines of models that requests can't reach any more, still finishing what they run."""
        self._one_at_a_time = asyncio.Lock()
        """Held while a model is opened and room made for it."""
        self._closing = False

    @property
    def current(self) -> ModelState | None:
        """The text model that was used last: what a request that names none gets."""
        model = self._loaded.current
        return None if model is None else self._loaded.under(model, None).state()

    @property
    def closing(self) -> bool:
        """Whether the server takes nothing new, for good."""
        return self._closing

    @property
    def loaded(self) -> list[ModelState]:
        """Models in memory, the one used last first."""
        return [model.state() for model in self._loaded.newest_first()]

    @property
    def loading(self) -> Mapping[str, float]:
        """Load progress, 0 to 1, by id of each model on its way into memory.

        0 until its files are open (ONNX Runtime does not tell more), then 0.5 while it waits for
        another one to finish and go.
        """
        return self._loads.progress

    async def available(self) -> list[ModelFacts]:
        """Models on disk, by name, with adapters; a broken folder is left out and logged."""
        return await asyncio.to_thread(self._shelf.facts)

    async def describe(self, model_id: str) -> ModelFacts:
        """Look a model up on disk.

        Raises:
            UnknownModel: there is no such model.
            ModelBroken: its folder is not a whole model.
        """
        return await asyncio.to_thread(self._shelf.describe, model_id)

    async def reserve(
        self, model_id: str | None, count: int, client: str = ""
    ) -> tuple[LoadedModel, Places]:
        """Hold room for requests on a model, loading it first where it is only on disk.

        A model whose engine has stopped is loaded anew, once in `HEAL_AGAIN_AFTER_S`.

        Args:
            model_id: None for the current one; `publisher/name:adapter` for one with an adapter.
            count: requests that are to be submitted.
            client: who asks; see `EngineThread.reserve`.

        Raises:
            NoModelLoaded, UnknownModel, ModelBroken: there is no such model to be had.
            BatchTooLarge, TryAgainLater, EngineFailure: the model takes no more now.
        """
        while True:
            model = await self._ready(model_id)
            if self._loaded.get(model.model_id) is not model:  # it had to go between the two
                # without a turn of the loop, the load that is over would never be forgotten
                await asyncio.sleep(0)
            elif model.engine.failure is not None and self._may_heal(model.model_id):
                await self._heal(model.model_id)
            else:
                return self._loaded.under(model, model_id), model.engine.reserve(count, client)

    async def get(self, model_id: str | None) -> LoadedModel:
        """Give a model that is ready, loading it first where it is only on disk.

        Raises:
            NoModelLoaded, UnknownModel, ModelBroken: there is no such model to be had.
            ShuttingDown: the server takes nothing new.
        """
        return self._loaded.under(await self._ready(model_id), model_id)

    async def _ready(self, model_id: str | None) -> LoadedModel:
        """Give the model itself that a name is served by."""
        if self._closing:  # what is loaded is on its way out, and is not missing
            raise ShuttingDown
        if model_id is None and self._loaded.current is not None:
            return self._loaded.current
        model_id = model_id or self._to_be_current
        if model_id is None:
            raise NoModelLoaded
        model_id = await self._loaded.base_of(model_id, self._shelf)
        await self._loaded.check_kind(model_id, "text", self._shelf)
        model = await self._bring(model_id)
        assert isinstance(model, LoadedModel), "its kind was checked"
        return model

    async def encoder(self, model_id: str | None, kind: ModelKind) -> LoadedEncoder:
        """Give an encoder that is ready; see `app.embedding.models.EncoderSource`."""
        if self._closing:
            raise ShuttingDown
        if model_id is None:
            current = self._loaded.current_encoder(kind)
            on_disk = [] if current else await self.available()
            names = (facts.model_id for facts in on_disk if facts.kind == kind)
            model_id = current.model_id if current else next(names, None)
        if model_id is None:
            raise NoModelLoaded
        model_id = await self._loaded.base_of(model_id, self._shelf)
        await self._loaded.check_kind(model_id, kind, self._shelf)
        model = await self._bring(model_id)
        if model.engine.failure is not None and self._may_heal(model_id):
            model = await self._heal(model_id)
        assert isinstance(model, LoadedEncoder), "its kind was checked"
        return model

    async def load(self, model_id: str) -> ModelState:
        """Bring a model into memory, for requests that name none; see `ModelRegistry.load`.

        One whose engine has stopped is loaded anew.

        Raises:
            UnknownModel, ModelBroken: what is loaded stays as it was.
            ShuttingDown: the server takes nothing new.
        """
        base_id = await self._loaded.base_of(model_id, self._shelf)
        loaded = self._loaded.get(base_id)
        if loaded is not None and loaded.engine.failure is not None and not self._closing:
            await self._heal(base_id)
        model = await self._bring(base_id)
        if isinstance(model, LoadedEncoder):
            return model.state()
        self._loaded.choose(model_id)
        return model.under(model_id).state()

    async def unload(self, model_id: str | None = None) -> str | None:
        """Let a model finish what it runs and give its memory back.

        Returns:
            Its name; None when there was none to unload.
        """
        if model_id is None:
            model_id = None if self._loaded.current is None else self._loaded.current.model_id
        self._gone = None
        if model_id is not None:
            model_id = await self._loaded.base_of(model_id, self._shelf)
        if model_id is None or model_id not in self._loaded:
            return None
        await self._stop(model_id, drain_timeout_s=None)
        return model_id

    async def unload_idle(self) -> None:
        """Unload models that nobody has used for the time of the setting; runs until cancelled."""
        limit_s = self._settings.idle_unload_s
        while limit_s:
            await asyncio.sleep(min(1.0, limit_s))
            for model in self._loaded.newest_first():
                idle_since_s = model.engine.idle_since_s
                if idle_since_s is not None and time.monotonic() - idle_since_s >= limit_s:
                    logger.info("model_idle model=%s", model.model_id)
                    await self._stop(model.model_id, drain_timeout_s=None)

    async def close(self) -> None:
        """Stop every engine; what runs may go on for the time that the setting says."""
        self._closing = True
        self._loads.cancel()
        patience_s = self._settings.drain_timeout_s
        await asyncio.gather(
            *(engine.stop(patience_s) for engine in list(self._leaving)),
            *(self._stop(model_id, patience_s) for model_id in list(self._loaded)),
        )

    async def _bring(self, model_id: str) -> Loaded:
        if self._closing:
            raise ShuttingDown
        if model_id in self._loaded:
            return self._loaded.use(model_id)
        return await self._loads.join(model_id, lambda: self._load(model_id))

    async def _load(self, model_id: str) -> Loaded:
        folder, manifest = await asyncio.to_thread(self._shelf.find, model_id)
        for engine, leaving in list(self._leaving.items()):
            if leaving == model_id:  # it must not be in memory twice
                await engine.stop(drain_timeout_s=None)
        async with self._one_at_a_time:
            # Opened before another has to go: a model that is broken costs nobody a place.
            parts = await open_parts(folder, manifest, self._settings)
            try:
                self._loads.note(model_id, _OPEN)
                self._coming[model_id] = manifest.kind
                while self._loaded.full(manifest.kind):
                    await self._make_room(manifest.kind)
                model = start(parts, self._settings, self._metrics.model(model_id))
            except BaseException:
                await asyncio.to_thread(parts.close)
                raise
            finally:
                self._coming.pop(model_id, None)
            self._loaded.add(model)
            if manifest.kind == "text":
                self._gone = None
            return model

    async def _make_room(self, kind: ModelKind) -> None:
        """Unload a model as soon as one is idle, after `SWAP_PATIENCE_S` in any case.

        Until then all of them serve: new requests for the one that goes would wait for the swap
        and for another one back.
        """
        await self._loaded.one_idle(kind, SWAP_PATIENCE_S)
        if self._loaded.full(kind):
            leaving = self._loaded.least_useful(kind).model_id
            if kind == "text":
                self._gone = leaving
            await self._stop(leaving, drain_timeout_s=None)

    def _may_heal(self, model_id: str) -> bool:
        """Whether a model whose engine has stopped was not loaded anew just before."""
        healed_at_s = self._healed_at_s.get(model_id)
        return not self._closing and (
            healed_at_s is None or time.monotonic() - healed_at_s >= HEAL_AGAIN_AFTER_S
        )

    async def _heal(self, model_id: str) -> Loaded:
        """Load anew a model whose engine has stopped."""
        logger.warning("model_restarted model=%s", model_id)
        self._healed_at_s[model_id] = time.monotonic()
        await self._stop(model_id, drain_timeout_s=0.0)
        return await self._bring(model_id)

    @property
    def _to_be_current(self) -> str | None:
        """The model for a request that names none while none is in memory, in the middle of a swap.

        The one that is about to come; or the one that made room for it, if its load was given up.
        """
        wanted = self._loads.progress  # a load that was given up is not in it
        coming = (m for m, kind in self._coming.items() if kind == "text" and m in wanted)
        return next(coming, self._gone)

    async def _stop(self, model_id: str, drain_timeout_s: float | None) -> None:
        # No reference to the model may outlive its engine here: what is still held when the heap
        # is trimmed stays in it.
        if model_id not in self._loaded:  # somebody else was faster
            return
        engine = self._loaded.pop(model_id).engine
        self._leaving[engine] = model_id
        await engine.stop(drain_timeout_s)
        del self._leaving[engine], engine
        await asyncio.to_thread(trim_heap)
        logger.info("model_unloaded model=%s", model_id)
