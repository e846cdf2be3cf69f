"""Texts in, vectors or scores out: the `Embedder` of the contract, on encoders that are handed out.

A request gets its place first, then its texts are tokenized: a few at a time, on a thread where
clients take turns. All that can be refused is refused before anything runs. Knows no HTTP, no
users.
"""

import asyncio
import math
from array import array
from collections.abc import Callable, Sequence
from typing import Final

from app.catalog.fair_thread import FairThread
from app.contract.embedding import (
    EmbeddingRequest,
    Embeddings,
    Ranking,
    RankingRequest,
    Text,
    Vector,
)
from app.contract.generation import NOBODY, Caller
from app.embedding.models import EncoderModel, EncoderSource
from app.embedding.rows import check_query, rows_of_pairs, rows_of_texts
from app.errors import InvalidParameter, Unsupported
from app.runtime.encoder import Row

CUT_AT_ONCE: Final = 64
"""Vectors that are cut without letting others run: 5 ms."""
CHARACTERS_AT_ONCE: Final = 20_000
"""Of texts that are tokenized in one turn: about 10 ms."""


class EmbeddingService:
    """Makes vectors and scores on encoders that are handed out."""

    def __init__(self, models: EncoderSource) -> None:
        self._models = models
        self._thread = FairThread("prepare-embeddings")

    async def embed(
        self, request: EmbeddingRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> Embeddings:
        """Make a vector of each text; see `Embedder.embed`."""
        model = await self._models.encoder(model_id, "embedding")
        size = _size(model, request.dimensions)
        prompt = _prompt(model, request.prompt_name)
        fields = _fields(request.field, len(request.inputs))
        with model.engine.reserve(caller.client) as place:

            def tokenized(texts: Sequence[Text], start: int) -> list[Row]:
                some = fields[start : start + len(texts)]
                return rows_of_texts(model, texts, prompt, some, cut=request.truncate)

            rows = await self._rows(caller, request.inputs, tokenized)
            vectors = await place.encode(caller.client, rows)
        if size is not None:
            whole, vectors = vectors, []
            for start in range(0, len(whole), CUT_AT_ONCE):
                some = whole[start : start + CUT_AT_ONCE]
                vectors += [_cut(vector, size, model.manifest.normalised) for vector in some]
                await asyncio.sleep(0)  # others on the event loop
        return Embeddings(
            model_id=model.model_id, vectors=vectors, prompt_tokens=sum(map(len, rows))
        )

    async def rank(
        self, request: RankingRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> Ranking:
        """Judge each document by the query; see `Embedder.rank`."""
        model = await self._models.encoder(model_id, "reranking")
        fields = [f"documents[{i}]" for i in range(len(request.documents))]
        with model.engine.reserve(caller.client) as place:

            def tokenized(texts: Sequence[str], start: int) -> list[Row]:
                some = fields[start : start + len(texts)]
                limit = request.max_document_tokens
                return rows_of_pairs(model, request.query, texts, some, limit)

            await self._thread.run(caller.client, lambda: check_query(model, request.query))
            beside = len(request.query)
            rows = await self._rows(caller, request.documents, tokenized, beside)
            scores = [vector[0] for vector in await place.encode(caller.client, rows)]
        return Ranking(
            model_id=model.model_id,
            scores=[_sigmoid(score) for score in scores],
            prompt_tokens=sum(map(len, rows)),
        )

    async def _rows(
        self,
        caller: Caller,
        texts: Sequence[Text],
        tokenized: Callable[[Sequence[str], int], list[Row]]
        | Callable[[Sequence[Text], int], list[Row]],
        beside: int = 0,
    ) -> list[Row]:
        """Tokenize texts, a few in each of the caller's turns.

        Args:
            caller: whose turns they are.
            texts: what the client sent.
            tokenized: makes rows of some, given the number of the first.
            beside: characters that are tokenized with each.
        """
        rows: list[Row] = []
        while len(rows) < len(texts):
            start, characters, end = len(rows), 0, len(rows)
            while end < len(texts) and (end == start or characters < CHARACTERS_AT_ONCE):
                characters += beside + len(texts[end]) + 1
                end += 1
            some = texts[start:end]
            rows += await self._thread.run(caller.client, lambda: tokenized(some, start))  # type: ignore[arg-type]  # noqa: B023 # awaited within the turn
        return rows


def _fields(field: str, count: int) -> list[str]:
    return [field] if count == 1 else [f"{field}[{i}]" for i in range(count)]


def _prompt(model: EncoderModel, name: str | None) -> str:
    """What texts begin with.

    Raises:
        InvalidParameter: the model has no prompt of this name.
    """
    manifest = model.manifest
    name = manifest.default_prompt if name is None else name
    if name is None:
        return ""
    if name not in manifest.prompts:
        named = ", ".join(sorted(manifest.prompts)) or "none: this model has no prompts"
        raise InvalidParameter("prompt_name", name, f"one of the model's prompts, {named}")
    return manifest.prompts[name]


def _size(model: EncoderModel, asked: int | None) -> int | None:
    """To how many numbers vectors are cut; None: they are not.

    Raises:
        Unsupported: the model wasn't trained for vectors that are cut.
        InvalidParameter: it was, to other sizes.
    """
    manifest = model.manifest
    width = manifest.graph.width
    if asked is None or asked == width:
        return None
    if manifest.any_dimensions:
        if asked > width:
            raise InvalidParameter("dimensions", asked, f"at most {width}")
        return asked
    if not manifest.dimensions:
        raise Unsupported(
            "dimensions",
            asked,
            f"the vectors of {model.model_id} have {width} numbers, and it was not trained for "
            "fewer (its config.json has no matryoshka_dimensions)",
        )
    if asked not in manifest.dimensions:
        sizes = ", ".join(map(str, (*manifest.dimensions, width)))
        raise InvalidParameter("dimensions", asked, f"one of {sizes}")
    return asked


def _cut(vector: Vector, size: int, normalised: bool) -> Vector:
    """A vector's first numbers, of length 1 again if the whole had it."""
    some = vector[:size]
    length = math.hypot(*some) if normalised else 1.0
    return some if length in (0.0, 1.0) else array("f", [number / length for number in some])


def _sigmoid(score: float) -> float:
    """0 … 1, without an overflow at either end."""
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))
