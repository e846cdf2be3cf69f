"""A model that is fetched for an operator, while nobody waits for the answer.

The library fetches it (`contract.ModelLibrary`); how far it has come is kept here.
"""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Literal

import msgspec

from app.contract.models import ModelLibrary, PullStep
from app.errors import Error, TryAgainLater, Unsupported

_NEEDED: Final = ("torch", "optimum")
_RETRY_AFTER_S: Final = 60


class Pull(msgspec.Struct, frozen=True):
    """A model that is being fetched, or was."""

    name: str
    state: Literal["running", "done", "failed", "cancelled"]
    step: PullStep
    """The one under way, or the last one."""
    failure: str | None = None


class Pulls:
    """Fetches one model at a time."""

    def __init__(self, library: ModelLibrary | None) -> None:
        """Start nothing yet; without a library nothing can be fetched."""
        self._library = library
        self._task: asyncio.Task[None] | None = None
        self._steps: AsyncGenerator[PullStep, None] | None = None
        self.last: Pull | None = None
        """The one under way, or else the one before; None: there was none."""

    @property
    def cannot(self) -> str | None:
        """Say why no model can be fetched; None: one can."""
        if self._library is None:
            return "this server fetches no models"
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if not missing:
            return None
        install = "pip install 'llmhost[export]'"
        return f"{' and '.join(missing)} not installed, expected the extra: {install}"

    async def start(self, name: str) -> None:
        """Begin to fetch a model.

        Raises:
            Unsupported: the exporter is not installed.
            InvalidParameter: it is no name of a model on the Hub.
            TryAgainLater: another one is being fetched.
        """
        cannot = self.cannot
        if cannot is not None or self._library is None:
            raise Unsupported("name", name, cannot or "no library")
        if self._task is not None and not self._task.done():
            raise TryAgainLater("another model is being fetched", _RETRY_AFTER_S)
        steps = self._library.pull(name)
        first = await anext(steps)  # what can be refused is refused here
        self.last, self._steps = Pull(name, "running", first), steps
        self._task = asyncio.create_task(self._follow(name, steps))

    async def cancel(self) -> None:
        """End what is under way, if anything is."""
        if self._task is None or self._task.done():
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        assert self._steps is not None
        await self._steps.aclose()  # a task that has not begun closes nothing
        if self.last is not None and self.last.state == "running":
            self.last = msgspec.structs.replace(self.last, state="cancelled")

    async def _follow(self, name: str, steps: AsyncGenerator[PullStep, None]) -> None:
        step = PullStep("", 0, 0)
        try:
            async with aclosing(steps):
                async for step in steps:
                    self.last = Pull(name, "running", step)
        except Error as error:
            self.last = Pull(name, "failed", step, error.message)
        else:
            self.last = Pull(name, "done", step)
