"""Let a model leave memory when nobody has used it for as long as a client said.

Looks once per second at models that have such a time: one that runs something, or was started
on anything meanwhile, counts as used. A server's own idle time goes on beside it.
"""

import asyncio
import logging
import re
import time
from typing import Final

from app.contract.generation import Generator
from app.contract.models import ModelRegistry
from app.errors import InvalidParameter

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_FOR_EVER_S: Final = 10 * 365 * 86_400
"""So long, or longer, is for ever: no date could hold some of what can be sent."""
_UNITS_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def seconds(keep_alive: float | str) -> float | None:
    """Read a duration as Ollama's clients write it; None: for ever.

    Raises:
        InvalidParameter: it is none.
    """
    if isinstance(keep_alive, str):
        # its length has been checked: matching takes the square of it
        sign, text = (-1, keep_alive[1:]) if keep_alive.startswith("-") else (1, keep_alive)
        parts = _PART.findall(text)
        if "".join(number + unit for number, unit in parts) == text != "":
            keep_alive = sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        elif text.replace(".", "", 1).isdecimal():
            keep_alive = sign * float(text)
        else:
            raise InvalidParameter("keep_alive", keep_alive, "seconds, or a duration such as 5m")
    return float(keep_alive) if 0 <= keep_alive < _FOR_EVER_S else None


class KeepAlive:
    """The times of one server's models."""

    def __init__(self, models: ModelRegistry, generator: Generator) -> None:
        self._models = models
        self._generator = generator
        self._keep_s: dict[str, float] = {}
        self._used_at_s: dict[str, float] = {}
        self._watch: asyncio.Task[None] | None = None

    def keep(self, model_id: str, keep_s: float | None) -> None:
        """Let a model stay for so long from its last use; None: for ever."""
        self._used_at_s[model_id] = time.monotonic()
        if keep_s is None:
            self._keep_s.pop(model_id, None)
            return
        self._keep_s[model_id] = keep_s
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._run())

    def left_s(self, model_id: str) -> float | None:
        """Seconds until a model leaves if nobody uses it; None: it stays."""
        keep_s = self._keep_s.get(model_id)
        if keep_s is None:
            return None
        return max(0.0, self._used_at_s[model_id] + keep_s - time.monotonic())

    async def close(self) -> None:
        """Stop looking."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _run(self) -> None:
        started = self._generator.num_started
        while self._keep_s:
            await asyncio.sleep(_LOOK_EVERY_S)
            if started != self._generator.num_started:
                started = self._generator.num_started
                self._used_at_s = dict.fromkeys(self._used_at_s, time.monotonic())
            loaded = {model.model_id: model for model in self._models.loaded}
            for model_id in list(self._keep_s):
                model = loaded.get(model_id)
                if model is None:  # it has left by itself
                    del self._keep_s[model_id]
                elif model.running or model.waiting:
                    self._used_at_s[model_id] = time.monotonic()
                elif self.left_s(model_id) == 0:
                    del self._keep_s[model_id]
                    logger.info("model_unused model=%s", model_id)
                    await self._models.unload(model_id)
