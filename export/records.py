"""What steps leave for later ones in the work folder: shape.json and findings.json."""

from pathlib import Path

import msgspec

from app import manifest as contract


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


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What `trace` knows about the graph; the contents of shape.json."""

    architecture: str
    graph: contract.Graph
    rotary_in_attention: int
    """The number of layers whose rotary embedding the attention operator applies."""
    windows: tuple[int | None, ...]
    """The sliding window of each layer, in tokens; None: none."""


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
