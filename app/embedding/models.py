"""What embedding needs of a model in memory, and of whoever hands it one.

`catalog` has both. Says nothing of how a model is found, loaded or run.
"""

from typing import Protocol

from tokenizers import Tokenizer

from app.contract.models import ModelKind
from app.encoder_manifest import EncoderManifest
from app.encoding.thread import EncoderThread


class EncoderModel(Protocol):
    """An encoder in memory."""

    @property
    def model_id(self) -> str:
        """`publisher/name`."""

    @property
    def capacity(self) -> int:
        """Tokens that a text may have, special ones included."""

    @property
    def manifest(self) -> EncoderManifest:
        """What it is and does."""

    @property
    def tokenizer(self) -> Tokenizer:
        """It neither truncates nor pads."""

    @property
    def longest_token(self) -> int | None:
        """Characters that one token can stand for; None: any number."""

    @property
    def engine(self) -> EncoderThread:
        """What runs it."""


class EncoderSource(Protocol):
    """Hands out encoders in memory, loading those that are only on disk."""

    async def encoder(self, model_id: str | None, kind: ModelKind) -> EncoderModel:
        """Give an encoder of a kind.

        Args:
            model_id: None for the one of its kind that was used last, or the first on disk.
            kind: what it is for.

        Raises:
            NoModelLoaded, UnknownModel, ModelBroken: there is no such model to be had.
            Unsupported: it is of another kind.
            ShuttingDown: the server takes nothing new.
        """
