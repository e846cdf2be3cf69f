"""Room for requests, held from before they are prepared until they are submitted."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from app.engine.sequence import EngineRequest
from app.engine.stream import TokenStream


class Places:
    """Room for some requests; a context manager, at whose exit unused places go back."""

    def __init__(
        self,
        count: int,
        submit: Callable[[EngineRequest], TokenStream],
        give_back: Callable[[int], None],
    ) -> None:
        self._left = count
        self._submit = submit
        self._give_back = give_back

    def submit(self, request: EngineRequest) -> TokenStream:
        """Hand a request to the engine in one of the places.

        Raises:
            EngineFailure: the engine has stopped meanwhile.
        """
        assert self._left > 0, "every reserved place is used"
        stream = self._submit(request)
        self._left -= 1
        self._give_back(1)
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back(self._left)
        self._left = 0
