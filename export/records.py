"""What steps leave for later ones in the work folder: shape.json and findings.json."""

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from app import manifest as contract
from export.errors import UnsupportedModel
from export.observe import TracePlan

LEAST_CONTEXT: Final = 40
"""A page of fewer tokens can't be compared; see `export.validate.refuse_poor_page`."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What `validate` measured; the contents of findings.json."""

    quality: contract.Quality
    greedy_tokens: int
    greedy_ties: int
    greedy_distinct: int
    greedy_max_difference: float
    batch_difference: float
    """The largest difference of any logit between a row alone and in a batch."""
    chunk_difference: float
    min_first_chunk: int
    """Both: see `export.validate.Invariance`."""
    adapters: tuple[contract.Quality, ...] = ()
    """With each adapter in turn, against torch with it."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What `trace` knows about the graph; the contents of shape.json."""

    architecture: str
    graph: contract.Graph
    rotary_in_attention: int
    """The number of layers whose rotary embedding the attention operator applies."""
    windows: tuple[int | None, ...]
    """The sliding window of each layer, in tokens; None: none."""


def describe(
    config: Any, plan: TracePlan, dtype: Literal["float32", "float16"], file: str
) -> Shape:
    """Describe a planned graph to the server.

    Raises:
        UnsupportedModel: the layers have caches of different shape, or the context is too short.
    """
    if plan.context_length < LEAST_CONTEXT:
        raise UnsupportedModel(
            config.model_type,
            f"its context is {plan.context_length} tokens, at least {LEAST_CONTEXT} are needed",
        )
    heads = {layer.num_kv_heads for layer in plan.layers}
    if len(heads) != 1:
        raise UnsupportedModel(config.model_type, "its layers have caches of different shape")
    graph = contract.Graph(
        file=file,
        num_layers=len(plan.layers),
        num_kv_heads=heads.pop(),
        head_dim=plan.head_dim,
        vocab_size=config.vocab_size,
        context_length=plan.context_length,
        kv_dtype=dtype,
    )
    return Shape(
        architecture=config.model_type,
        graph=graph,
        rotary_in_attention=sum(layer.rotary is not None for layer in plan.layers),
        windows=tuple(layer.window for layer in plan.layers),
    )


def figures(quality: contract.Quality) -> str:
    """The figures of a model's quality in one line."""
    return (
        f"mean KL {quality.mean_kl:.5f}, top-1 {quality.top1_agreement:.3f}, perplexity "
        f"{quality.perplexity:.2f} (torch {quality.reference_perplexity:.2f}) on "
        f"{quality.text_tokens} tokens"
    )


def read_shape(work: Path) -> Shape:
    """Read what `trace` wrote."""
    return msgspec.json.decode((work / "shape.json").read_bytes(), type=Shape)


def read_findings(work: Path) -> Findings:
    """Read what `validate` wrote."""
    return msgspec.json.decode((work / "findings.json").read_bytes(), type=Findings)
