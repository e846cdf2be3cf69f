"""The manifest of an encoder: a model that makes vectors of texts, or judges documents by a query.

The encoder graph that it describes:

| input | type, shape | meaning |
|---|---|---|
| `input_ids` | int64 [B, S] | whole texts, right-padded with `pad_id` |
| `lengths` | int32 [B] | how many of the S are real, 1 … S |
| `token_type_ids` | int64 [B, S] | only with `token_types`: 1 in the second text of a pair |

Output: `vectors` float32 [B, width], pooled and normalised; of a reranker its raw score, width 1.

Reading it is `app.manifest`'s.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from app.errors import ModelBroken
from app.model_files import Arithmetic, Described, FileName, TokenId


class EncoderGraph(msgspec.Struct, frozen=True, kw_only=True):
    """An encoder's shape: what its inputs and outputs are made from."""

    file: FileName
    vocab_size: Annotated[int, Meta(ge=1, le=2**24)]
    context_length: Annotated[int, Meta(ge=1, le=2**27)]
    """Tokens of one text, or of a query and a document, special tokens included."""
    width: Annotated[int, Meta(ge=1, le=2**20)]
    """Numbers of one vector; 1 of a reranker."""
    num_heads: Annotated[int, Meta(ge=1, le=2**16)]
    """Attention computes so many numbers for each pair of tokens of a text."""
    pad_id: TokenId
    token_types: bool = False
    """Whether the graph tells the two texts of a pair apart by an input."""

    def attention_bytes(self, num_tokens: int) -> int:
        """Bytes that the attention of one text takes while a layer runs: scores and their mask."""
        return 4 * (self.num_heads + 1) * num_tokens**2


class Closeness(msgspec.Struct, frozen=True, kw_only=True):
    """The exported graph against torch in float32, on texts that export/ keeps."""

    texts: int
    mean_cosine: float
    """Of vectors; of a reranker, the correlation of its scores."""
    min_cosine: float
    """The furthest text; of a reranker, the correlation again."""
    max_difference: float
    """Of any number."""


class EncoderManifest(Described, frozen=True, kw_only=True):
    """One exported model that makes vectors of texts, or judges documents by a query."""

    kind: Literal["embedding", "reranking"]
    graph: EncoderGraph
    scheme: Literal["none", "w8a8", "int8"]
    """How the weights are stored, as in `Quantisation`."""
    arithmetic: Arithmetic = "any"
    closeness: Closeness
    pooling: str = ""
    """How tokens become one vector, for people to read: the graph does it."""
    normalised: bool = False
    """Whether vectors have length 1, as the model's own files say."""
    dimensions: tuple[Annotated[int, Meta(ge=1, le=2**20)], ...] = ()
    """Sizes below `width` to which vectors may be cut, as the model was trained for."""
    any_dimensions: bool = False
    """Whether vectors may be cut to any size."""
    prompts: dict[str, str] = msgspec.field(default_factory=dict)
    """Beginnings that the model expects of texts, by name: `query`, `document`."""
    default_prompt: str | None = None
    """The one of `prompts` that texts get unless another is asked for."""


def check_encoder(path: Path, manifest: EncoderManifest) -> None:
    """Refuse what the types can't say.

    Raises:
        ModelBroken: with the field and its value.
    """
    width = manifest.graph.width
    if manifest.kind == "reranking" and width != 1:
        raise ModelBroken(f"{path}: graph.width is {width}, a reranker's is 1")
    for size in manifest.dimensions:
        if size > width:
            raise ModelBroken(f"{path}: dimensions has {size}, vectors have {width} numbers")
    if manifest.default_prompt is not None and manifest.default_prompt not in manifest.prompts:
        raise ModelBroken(
            f"{path}: default_prompt is {manifest.default_prompt!r}, which is not in prompts"
        )
