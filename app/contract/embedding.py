"""What dialects ask of models that make vectors of texts or judge documents, and what they get."""

from array import array
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

from app.contract.generation import NOBODY, Caller

Vector: TypeAlias = "array[float]"
"""float32."""
Text = str | Sequence[int]
"""A text, or its tokens, special ones included."""


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts that shall have vectors."""

    inputs: Sequence[Text]
    dimensions: int | None = None
    """Numbers of a vector; None: all that the model makes."""
    prompt_name: str | None = None
    """Which of the model's prompts the texts begin with; None: its default, if it has one."""
    truncate: bool = False
    """Whether a text that is too long is cut; else it is refused."""
    field: str = "input"
    """What the client calls the texts."""


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors of some texts."""

    model_id: str
    vectors: Sequence[Vector]
    """One per text, in their order, all of one length."""
    prompt_tokens: int
    """Tokens of all texts together."""


class RankingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Documents that shall be judged by a query."""

    query: str
    documents: Sequence[str]
    max_document_tokens: int | None = None
    """Documents are cut to so many tokens; None: one that is too long is refused."""


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """How well documents answer a query."""

    model_id: str
    scores: Sequence[float]
    """One per document, in their order: 0 … 1."""
    prompt_tokens: int
    """Tokens of all pairs together."""


class Embedder(Protocol):
    """Makes vectors of texts and judges documents, on whichever models there are."""

    async def embed(
        self, request: EmbeddingRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> Embeddings:
        """Make a vector of each text.

        Args:
            request: the texts.
            model_id: None for the embedding model that was used last, or the first on disk.
            caller: who asks.

        Raises:
            RequestError, TryAgainLater, ServerError: no text was embedded.
        """

    async def rank(
        self, request: RankingRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> Ranking:
        """Judge each document by the query.

        Args:
            request: the query and the documents.
            model_id: None for the reranker that was used last, or the first on disk.
            caller: who asks.

        Raises:
            RequestError, TryAgainLater, ServerError: no document was judged.
        """
