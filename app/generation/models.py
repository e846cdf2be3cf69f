"""What generation needs of a model in memory, and of whoever hands models out.

`catalog` has both. Says nothing of how a model is found, loaded or run.
"""

from typing import Protocol

from tokenizers import Tokenizer

from app.catalog.chat_template import ChatTemplate
from app.catalog.grammars import Grammars
from app.contract.sampling import SamplingDefaults
from app.engine.places import Places


class TextModel(Protocol):
    """A model in memory, as far as texts are concerned."""

    @property
    def model_id(self) -> str:
        """`publisher/name`, or `publisher/name:adapter`."""

    @property
    def adapter(self) -> int:
        """The adapter that answers in this name, by its place in the model's; 0: none."""

    @property
    def digest(self) -> str:
        """SHA-256 of its files, in hex."""

    @property
    def capacity(self) -> int:
        """Tokens of prompt and answer together that one request may have."""

    @property
    def vocab_size(self) -> int:
        """Token ids that the model has logits for; perhaps more than the tokenizer knows."""

    @property
    def bos_id(self) -> int | None:
        """Token id that begins a text."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Token ids that end a text."""

    @property
    def sampling_defaults(self) -> SamplingDefaults:
        """What the model's makers recommend for what a request leaves open."""

    @property
    def tokenizer(self) -> Tokenizer:
        """It neither truncates nor pads."""

    @property
    def longest_token(self) -> int | None:
        """Characters that one token can stand for; None: any number."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts of special tokens that stay text where a client sends them in a conversation."""

    @property
    def chat_template(self) -> ChatTemplate | None:
        """None: the model takes no conversations."""

    @property
    def grammars(self) -> Grammars:
        """Compiles for the model's tokenizer."""


class ModelSource(Protocol):
    """Hands out models in memory, loading those that are only on disk."""

    async def get(self, model_id: str | None) -> TextModel:
        """Give a model.

        Args:
            model_id: None for the current one.

        Raises:
            NoModelLoaded, UnknownModel, ModelBroken: there is no such model to be had.
        """

    async def reserve(
        self, model_id: str | None, count: int, client: str = ""
    ) -> tuple[TextModel, Places]:
        """Hold room for requests on a model.

        Args:
            model_id: None for the current one.
            count: requests that are to be submitted.
            client: who asks, user or address; "" stands for everybody without a name.

        Raises:
            NoModelLoaded, UnknownModel, ModelBroken: there is no such model to be had.
            BatchTooLarge, TryAgainLater, EngineFailure: the model takes no more now.
        """
