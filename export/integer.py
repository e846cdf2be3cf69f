"""Store a decoder's products in int8 such that it says what it said: rotate, calibrate, round.

The order: rotate what can be rotated, turn the inputs of products that nothing linear makes, run
a page of text to see what the products are fed, round the weights by GPTQ, and measure. Kinds of
products whose inputs stay hard to quantise keep their weights in blocks (`quantise.py`), as far as
a measured budget says. Knows no architectures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto

from app.manifest import Graph
from app.model_files import Arithmetic
from export.calibrate import page_logits, second_moments
from export.errors import QualityRefused
from export.gptq import column_steps, round_by_gptq
from export.graph import OnnxGraph
from export.integer_products import replace_product, turn_activations
from export.onnx_file import read_tensor, stored_tensor
from export.products import Product, find_products, matrix
from export.quantise import quantise, quantise_embedding
from export.quantise_experts import quantise_experts
from export.rotation import rotate_stream, rotate_values

CALIBRATION: Final = Path(__file__).with_name("calibration.txt")
"""Another page than the one that judges the result."""
ROTATED_KL: Final = 1e-6
"""Nats per token between the graph and itself, rotated: rounding in float32."""
BUDGET_KL: Final = 0.006
"""Nats per token on the page of calibration that the products in int8 may cost all together; 8-bit
blocks cost the default model 0.004."""
JUDGED_TOKENS: Final = 512

Codes = dict[str, tuple[TensorProto, npt.NDArray[np.float32]]]
"""By name of a weight: codes [K, N], in a file, and the steps of its columns [N]."""


@dataclass(frozen=True)
class Page:
    """A page of text, and what the unquantised graph says of it."""

    folder: Path
    """Of all large constants of the graphs that are compared."""
    shape: Graph
    ids: Sequence[int]
    logits: npt.NDArray[np.float32]
    """[S, V]."""

    @classmethod
    def read(cls, graph: OnnxGraph, folder: Path, shape: Graph, ids: Sequence[int]) -> Self:
        """Run the graph that others are compared with; its logits go into its spill.

        Raises:
            QualityRefused: it computes nothing finite.
        """
        logits = graph.room((len(ids), shape.vocab_size), np.float32)
        start = 0
        for piece in page_logits(graph, folder, shape, ids):
            if not np.isfinite(piece).all():
                raise QualityRefused("what the model says of a page of text is not finite")
            logits[start : start + len(piece)] = piece
            start += len(piece)
        return cls(folder, shape, ids, logits)

    def kl(self, graph: OnnxGraph) -> float:
        """Mean divergence of another graph, nats per token."""
        total, start = 0.0, 0
        for piece in page_logits(graph, self.folder, self.shape, self.ids):
            total += sum_of_kl(self.logits[start : start + len(piece)], piece)
            start += len(piece)
        return total / len(self.ids)


@dataclass(frozen=True)
class Outcome:
    """What became of the products."""

    num_integer: int
    num_blocks: int
    """Those that keep their weights in blocks."""
    stream_rotated: bool
    values_rotated: int
    """Layers whose value heads were rotated."""

    def __str__(self) -> str:
        said = f"{self.num_integer} matrices in int8 with int8 inputs"
        if self.num_blocks:
            said += f", {self.num_blocks} in blocks"
        stream = "rotated" if self.stream_rotated else "not rotated"
        return f"{said}, residual stream {stream}, values of {self.values_rotated} layers"


def quantise_to_integers(
    graph: OnnxGraph, folder: Path, shape: Graph, ids: Sequence[int], arithmetic: Arithmetic
) -> tuple[OnnxGraph, Outcome]:
    """Make the graph with integer products.

    Args:
        graph: the cleaned one, which is changed; its large constants and its spill lie below
            `folder`.
        folder: for files of our own, which are deleted again.
        shape: of the graph.
        ids: tokens of `CALIBRATION`.
        arithmetic: of the products; this processor must compute it exactly.

    Raises:
        QualityRefused: the unquantised graph computes nothing finite.
    """
    page = Page.read(graph, folder, shape, ids[:JUDGED_TOKENS])
    graph, stream, values = turn(graph, page)
    codes = _round(graph, folder, shape, ids)
    kept = _affordable(graph, page, codes, arithmetic)
    num_integer = _replace(graph, kept, codes, arithmetic)
    num_blocks = quantise(graph, "int8") + quantise_experts(graph, "int8")
    quantise_embedding(graph)
    return graph, Outcome(num_integer, num_blocks, stream, values)


def turn(clean: OnnxGraph, page: Page) -> tuple[OnnxGraph, bool, int]:
    """Rotate a graph as far as the numbers stay the same.

    Returns:
        The graph, whether its stream is rotated, and in how many layers the values are.
    """
    spill = clean.spill
    before = 0 if spill is None else spill.size
    for attempt in ((True, True), (False, True), (False, False)):
        if spill is not None:
            spill.cut(before)
        graph = clean.copy()
        graph.infer_shapes()
        stream = attempt[0] and rotate_stream(graph)
        values = rotate_values(graph) if attempt[1] else 0
        turn_activations(graph)
        graph = graph.copy()
        if page.kl(graph) < ROTATED_KL:
            break
    # without a rotation at last the graph is what it was, however it rounds: the gate judges it
    return graph, stream, values


def _round(graph: OnnxGraph, folder: Path, shape: Graph, ids: Sequence[int]) -> Codes:
    """Round every product's weights by what enters it."""
    products = find_products(graph)
    widths = {product.source: graph.initializers[product.weight].dims[0] for product in products}
    codes: Codes = {}
    for moments in second_moments(graph, folder, shape, widths, ids):
        for source in [*moments]:
            seen = moments.pop(source)
            for product in products:
                if product.source == source and product.weight not in codes:
                    codes[product.weight] = _rounded(graph, product, seen)
    return codes


def _rounded(
    graph: OnnxGraph, product: Product, moments: npt.NDArray[np.float32]
) -> tuple[TensorProto, npt.NDArray[np.float32]]:
    """Codes and steps of one product's weight."""
    weight = matrix(graph, product.weight)
    assert weight is not None
    steps = column_steps(weight)
    room = graph.room(weight.shape, np.int8)
    round_by_gptq(weight, steps, moments, out=room)
    return stored_tensor(room, product.weight), steps


def _affordable(graph: OnnxGraph, page: Page, codes: Codes, arithmetic: Arithmetic) -> set[str]:
    """Choose the kinds of products that together cost no more than `BUDGET_KL`."""

    def cost(kinds: Iterable[str]) -> float:
        tried = graph.copy()
        _replace(tried, set(kinds), codes, arithmetic)
        return page.kl(tried)

    kinds = {kind_of(graph, product) for product in find_products(graph)}
    if cost(kinds) <= BUDGET_KL:
        return kinds
    costs = sorted((cost([kind]), kind) for kind in kinds)
    kept: set[str] = set()
    for _, kind in costs:
        if cost({*kept, kind}) > BUDGET_KL:
            break
        kept.add(kind)
    return kept


def kind_of(graph: OnnxGraph, product: Product) -> str:
    """Name what makes a product's input, or say that the product makes the logits.

    Products that are alike in that have inputs that are alike.
    """
    if product.node.output[0] in graph.outputs:
        return "output layer"
    maker: NodeProto | None = graph.producer.get(product.source)
    return "" if maker is None else maker.op_type


def sum_of_kl(wanted: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Kullback-Leibler divergence of logits [S, V] from others, nats, of all tokens together."""
    total = 0.0
    for theirs, ours in zip(wanted, found, strict=True):
        p, q = _log_softmax(theirs), _log_softmax(ours)
        total += float((np.exp(p) * (p - q)).sum())
    return total


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    shifted: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return shifted


def _replace(graph: OnnxGraph, kinds: set[str], codes: Codes, arithmetic: Arithmetic) -> int:
    """Replace the products of some kinds; returns how many there were."""
    quantised: dict[str, tuple[str, str]] = {}
    chosen = [p for p in find_products(graph) if kind_of(graph, p) in kinds]
    for product in chosen:
        stored, steps = codes[product.weight]
        replace_product(
            graph, product, read_tensor(stored), steps, quantised, arithmetic=arithmetic
        )
    graph.prune()
    return len(chosen)
