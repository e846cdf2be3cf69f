"""Which models are on disk, which are in memory, and who has to go when another one comes.

Everything runs on the event loop; only the opening of files leaves it. Knows no HTTP and no
text.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from pathlib import Path

from app.catalog.loaded import LoadedModel, open_model
from app.engine.places import Places
from app.engine.thread import EngineThread
from app.errors import ModelBroken, NoModelLoaded, ShuttingDown, UnknownModel
from app.manifest import MANIFEST_NAME, Manifest, folder_name, read_manifest
from app.metrics import Metrics
from app.runtime.ort_decoder import trim_heap
from app.settings import Settings

logger = logging.getLogger(__name__)


class Catalog:
    """The models of one folder."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        """Least recently used first."""
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._progress: dict[str, float] = {}
        """Of each model in `_loading`."""
        self._leaving: dict[EngineThread, str] = {}
        """Of models out of reach for requests, still finishing what they run."""
        self._one_at_a_time = asyncio.Lock()
        """Held while a model is opened and room made for it."""
        self._closing = False

    @property
    def current(self) -> LoadedModel | None:
        """The model that was used last: what a request that names none gets."""
        return next(reversed(self._loaded.values()), None)

    @property
    def closing(self) -> bool:
        """Whether the server takes nothing new, for good."""
        return self._closing

    @property
    def loaded(self) -> list[LoadedModel]:
        """Models in memory, the one used last first."""
        return list(reversed(self._loaded.values()))

    @property
    def loading(self) -> dict[str, float]:
        """Models on their way into memory, and how far each has come.

        0 until its files are open (ONNX Runtime does not tell more), then 0.5 while it waits for
        another one to finish and go.
        """
        return dict(self._progress)

    def available(self) -> list[Manifest]:
        """Models on disk, by name; a broken folder is left out and logged. Reads the disk."""
        manifests = []
        for path in self._manifest_paths():
            try:
                manifests.append(read_manifest(path.parent))
            except ModelBroken as error:
                logger.warning("model_broken %s", error)
        return manifests

    def read(self, model_id: str) -> Manifest:
        """What the disk says about a model. Reads the disk.

        Raises:
            UnknownModel: there is no such folder, or it holds a model of another name.
            ModelBroken: the folder is not a whole model.
        """
        # A name is looked up among the folders, so that none can lead out of them.
        folders = {path.parent.name: path.parent for path in self._manifest_paths()}
        folder = folders.get(folder_name(model_id))
        if folder is None:
            raise UnknownModel(model_id)
        manifest = read_manifest(folder)
        if manifest.model_id != model_id:
            raise UnknownModel(model_id)
        return manifest

    async def reserve(self, model_id: str | None, count: int) -> tuple[LoadedModel, Places]:
        """Hold room for requests on a model, loading it first where it is only on disk.

        Args:
            model_id: None for the current one.
            count: requests that are to be submitted.

        Raises:
            NoModelLoaded, UnknownModel, ModelBroken: there is no such model to be had.
            BatchTooLarge, TryAgainLater, EngineFailure: the model takes no more now.
        """
        while True:
            model = await self.get(model_id)
            if self._loaded.get(model.model_id) is model:  # it may have to go between the two
                return model, model.engine.reserve(count)
            # a load that is over is forgotten at the loop's next turn: else this waits for ever
            await asyncio.sleep(0)

    async def get(self, model_id: str | None) -> LoadedModel:
        """Give a model that is ready, loading it first where it is only on disk.

        Raises:
            NoModelLoaded, UnknownModel, ModelBroken: there is no such model to be had.
        """
        if model_id is None:
            if self.current is None:
                raise NoModelLoaded
            return self.current
        return await self.load(model_id)

    async def load(self, model_id: str) -> LoadedModel:
        """Bring a model into memory; loading one that is there, or on its way, is no error.

        Raises:
            UnknownModel, ModelBroken: what is loaded stays as it was.
            ShuttingDown: the server takes nothing new.
        """
        if self._closing:
            raise ShuttingDown
        if model_id in self._loaded:
            self._loaded.move_to_end(model_id)
            return self._loaded[model_id]
        if model_id not in self._loading:
            task = asyncio.create_task(self._load(model_id))
            self._loading[model_id], self._progress[model_id] = task, 0.0
            task.add_done_callback(lambda _: self._forget_loading(model_id))
        task = self._loading[model_id]
        try:
            # shielded: others may wait for the same model when this one's client goes away
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by `close`, not by who waits here
                raise ShuttingDown from None
            raise

    async def unload(self, model_id: str | None = None) -> str | None:
        """Let a model finish what it runs and give its memory back.

        Returns:
            Its name; None when there was none to unload.
        """
        if model_id is None:
            model_id = next(reversed(self._loaded), None)
        if model_id is None or model_id not in self._loaded:
            return None
        await self._stop(model_id, drain_timeout_s=None)
        return model_id

    async def unload_idle(self) -> None:
        """Unload, for ever, what nobody used for the time that the setting says."""
        limit_s = self._settings.idle_unload_s
        while limit_s:
            await asyncio.sleep(min(1.0, limit_s))
            for model in self.loaded:
                idle_since_s = model.engine.idle_since_s
                if idle_since_s is not None and time.monotonic() - idle_since_s >= limit_s:
                    logger.info("model_idle model=%s", model.model_id)
                    await self._stop(model.model_id, drain_timeout_s=None)

    async def close(self) -> None:
        """Stop every engine; what runs may go on for the time that the setting says."""
        self._closing = True
        for task in self._loading.values():
            task.cancel()
        patience_s = self._settings.drain_timeout_s
        await asyncio.gather(
            *(engine.stop(patience_s) for engine in list(self._leaving)),
            *(self._stop(model_id, patience_s) for model_id in list(self._loaded)),
        )

    async def _load(self, model_id: str) -> LoadedModel:
        await asyncio.to_thread(self.read, model_id)
        for engine, leaving in list(self._leaving.items()):
            if leaving == model_id:  # it must not be in memory twice
                await engine.stop(drain_timeout_s=None)
        folder = self._settings.models_dir / folder_name(model_id)
        async with self._one_at_a_time:
            # Opened before another has to go: a model that is broken costs nobody a place.
            parts = await asyncio.to_thread(open_model, folder, self._settings)
            self._progress[model_id] = 0.5
            while len(self._loaded) >= self._settings.max_loaded_models:
                await self._stop(self._least_useful().model_id, drain_timeout_s=None)
            model = LoadedModel(parts, self._settings, self._metrics.model(model_id))
            self._loaded[model_id] = model
            return model

    def _forget_loading(self, model_id: str) -> None:
        del self._loading[model_id], self._progress[model_id]

    def _least_useful(self) -> LoadedModel:
        """The least recently used model that runs nothing, or else the least recently used."""
        models = list(self._loaded.values())
        return next((model for model in models if not model.engine.num_requests), models[0])

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

    def _manifest_paths(self) -> list[Path]:
        return sorted(self._settings.models_dir.glob(f"*/{MANIFEST_NAME}"))
