"""Models as dialects see them: what is on disk, what is in memory, and who manages both."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

ModelKind = Literal["text", "embedding", "reranking"]
"""What a model is for: it writes texts, makes vectors of them, or judges documents by a query."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk."""

    model_id: str
    """`publisher/name`, as clients write it; an adapter's is `publisher/name:adapter`."""
    adapter_of: str | None = None
    """The model that it is an adapter of; None: it is a model of its own."""
    kind: ModelKind = "text"
    width: int | None = None
    """Numbers of a vector; None: it makes none."""
    description: str
    architecture: str = ""
    chat: bool = True
    """Whether it takes a conversation, and not prompts alone."""
    created: datetime
    """When it was exported."""
    context_length: int
    """Tokens of prompt and answer together, of another kind's input, that it was trained for, or
    fewer by a setting."""
    quantisation: Literal["none", "w8a8", "int8", "int4"]
    size_bytes: int
    """Bytes on disk; of an adapter, those that it was published in."""

    @property
    def base_id(self) -> str:
        """The model in whose memory it is served."""
        return self.adapter_of or self.model_id


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory, at the moment of asking."""

    facts: ModelFacts
    capacity: int
    """Tokens of prompt and answer together that one request may have; at most the context."""
    provider: Literal["cpu", "cuda"]
    cache_bytes: int
    """Bytes of its KV cache with every slot full."""
    slots: int
    """Requests that generate at once."""
    running: int
    """Requests that hold a slot."""
    waiting: int
    """Requests that wait for one."""
    step_age_s: float
    """Seconds that the step under way has taken; 0 while none is."""
    failure: str | None
    """Why it can't go on; None while it can."""

    @property
    def model_id(self) -> str:
        """`publisher/name`."""
        return self.facts.model_id


class ModelRegistry(Protocol):
    """The models of one server: on disk, on their way, in memory."""

    @property
    def closing(self) -> bool:
        """Whether the server takes nothing new, for good."""

    @property
    def current(self) -> ModelState | None:
        """The text model that was used last: what a request that names none gets."""

    @property
    def loaded(self) -> Sequence[ModelState]:
        """Models in memory, the one used last first."""

    @property
    def loading(self) -> Mapping[str, float]:
        """Load progress, 0 to 1, by id of each model on its way into memory.

        0 until its files are open, then 0.5 while it waits for another model to finish and leave.
        """

    async def available(self) -> Sequence[ModelFacts]:
        """Models on disk, by name; a broken folder is left out and logged."""

    async def describe(self, model_id: str) -> ModelFacts:
        """Look a model up on disk.

        Raises:
            UnknownModel: there is no such model.
            ModelBroken: its folder is not a whole model.
        """

    async def load(self, model_id: str) -> ModelState:
        """Bring a model into memory; one that is there, or on its way, is no error.

        Of an adapter its model: requests that name none get the adapter from then on.

        Raises:
            UnknownModel, ModelBroken: what is loaded stays as it was.
            ShuttingDown: the server takes nothing new.
        """

    async def unload(self, model_id: str | None = None) -> str | None:
        """Let a model finish what it runs and give its memory back.

        Args:
            model_id: None for the current model; an adapter goes with the model that it is for.

        Returns:
            Its id; None when there was none to unload.
        """


class PullStep(msgspec.Struct, frozen=True):
    """How far a model has come that is being fetched."""

    name: str
    """What is being done; "" before the first step."""
    done: int
    """Steps that are done."""
    total: int


class ModelLibrary(Protocol):
    """Changes which models there are on disk."""

    def pull(self, name: str) -> AsyncGenerator[PullStep, None]:
        """Fetch a model from the Hugging Face Hub and export it; closing it ends that.

        Raises:
            InvalidParameter: it is no name of a repository there.
            TryAgainLater: another one is being fetched.
            ModelBroken: it was refused, or could not be fetched.
        """

    async def delete(self, model_id: str) -> None:
        """Let a model leave memory and delete its folder.

        Raises:
            UnknownModel: there is no such model.
        """

    async def copy(self, model_id: str, name: str) -> None:
        """Give a model a further name.

        Raises:
            UnknownModel: there is no such model.
            InvalidParameter: the name can't be one, or is taken.
        """
