"""Models on their way into memory, each shared by everybody who waits for it.

A load goes on as long as somebody waits: when the last one has gone it is given up, so that no
other model has to go for one that nobody wants. Knows nothing of how a model is loaded.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from app.catalog.residents import Loaded
from app.errors import ShuttingDown


@dataclass(slots=True)
class _Load:
    task: asyncio.Task[Loaded]
    progress: float = 0.0
    waiters: int = 0


class Loads:
    """The loads of one catalog."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Load] = {}

    @property
    def progress(self) -> dict[str, float]:
        """How far each has come, 0 to 1, by model."""
        return {model_id: load.progress for model_id, load in self._under_way.items()}

    def note(self, model_id: str, progress: float) -> None:
        """Note how far a load has come; one that was given up is no error."""
        if model_id in self._under_way:
            self._under_way[model_id].progress = progress

    def cancel(self) -> None:
        """End them all."""
        for load in self._under_way.values():
            load.task.cancel()

    async def join(self, model_id: str, begin: Callable[[], Coroutine[Any, Any, Loaded]]) -> Loaded:
        """Wait for a model, beginning its load unless it is on its way.

        Raises:
            ShuttingDown: `cancel` ended it.
            Error: whatever the load raises.
        """
        if model_id not in self._under_way:
            begun = _Load(asyncio.create_task(begin()))
            self._under_way[model_id] = begun
            begun.task.add_done_callback(lambda _: self._forget(model_id, begun))
        load = self._under_way[model_id]
        load.waiters += 1
        try:
            # shielded: others may wait for the same model when this one's client goes away
            return await asyncio.shield(load.task)
        except asyncio.CancelledError:
            if load.task.cancelled():  # not who waits here
                raise ShuttingDown from None
            raise
        finally:
            load.waiters -= 1
            if not load.waiters and not load.task.done():
                load.task.cancel()
                self._forget(model_id, load)

    def _forget(self, model_id: str, load: _Load) -> None:
        if self._under_way.get(model_id) is load:
            del self._under_way[model_id]
