"""Store a decoder's products in int8 such that it says what it said: rotate, calibrate, round.

The order: rotate what can be rotated, turn the inputs of products that nothing linear makes, run
a page of text to see what the products are fed, round the weights by GPTQ, and measure. Kinds of
products whose inputs stay hard to quantise keep their weights in blocks (`quantise.py`), as far as
a measured budget says. Knows no architectures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from app.manifest import Graph
from export.calibrate import page_logits, second_moments
from export.errors import QualityRefused
from export.gptq import column_steps, round_by_gptq
from export.graph import OnnxGraph
from export.integer_products import replace_product, turn_activations
from export.onnx_file import load_model, save_model
from export.products import Product, find_products, matrix
from export.quantise import quantise, quantise_embedding
from export.rotation import rotate_stream, rotate_values

CALIBRATION: Final = Path(__file__).with_name("calibration.txt")
"""Another page than the one that judges the result."""
ROTATED_KL: Final = 1e-6
"""Nats per token between the graph and itself, rotated: rounding in float32."""
BUDGET_KL: Final = 0.006
"""Nats per token on the page of calibration that the products in int8 may cost all together; 8-bit
blocks cost the default model 0.004."""
JUDGED_TOKENS: Final = 512

Codes = dict[str, tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]]
"""By name of a weight: codes [K, N] and the steps of its columns [N]."""


@dataclass(frozen=True)
class Page:
    """A page of text, and what the unquantised graph says of it."""

    shape: Graph
    ids: Sequence[int]
    logits: npt.NDArray[np.float32]
    """[S, V]."""

    def kl(self, model: Path) -> float:
        """Mean divergence of another graph, nats per token."""
        return mean_kl(self.logits, page_logits(model, self.shape, self.ids))


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
    clean: Path, folder: Path, shape: Graph, ids: Sequence[int]
) -> tuple[OnnxGraph, Outcome]:
    """Make the graph with integer products.

    Args:
        clean: the cleaned graph's file.
        folder: for files of our own, which are deleted again.
        shape: of the graph.
        ids: tokens of `CALIBRATION`.

    Raises:
        QualityRefused: the unquantised graph computes nothing finite.
    """
    page = Page(shape, ids[:JUDGED_TOKENS], page_logits(clean, shape, ids[:JUDGED_TOKENS]))
    if not np.isfinite(page.logits).all():
        raise QualityRefused("what the model says of a page of text is not finite")
    turned = folder / "turned.onnx"
    stream, values = turn(clean, turned, page)
    codes = _round(turned, shape, ids)
    kept = _affordable(turned, page, codes)
    graph = OnnxGraph(load_model(turned))
    num_integer = _replace(graph, kept, codes)
    num_blocks = quantise(graph, "int8")
    quantise_embedding(graph)
    for file in (turned, turned.with_name("turned.onnx.data")):
        file.unlink()
    return graph, Outcome(num_integer, num_blocks, stream, values)


def turn(clean: Path, turned: Path, page: Page) -> tuple[bool, int]:
    """Write the graph, rotated as far as the numbers stay the same."""
    for attempt in ((True, True), (False, True), (False, False)):
        graph = OnnxGraph(load_model(clean))
        graph.infer_shapes()
        stream = attempt[0] and rotate_stream(graph)
        values = rotate_values(graph) if attempt[1] else 0
        turn_activations(graph)
        save_model(graph.finish(), turned)
        if page.kl(turned) < ROTATED_KL:
            break
    # without a rotation at last the graph is what it was, however it rounds: the gate judges it
    return stream, values


def _round(model: Path, shape: Graph, ids: Sequence[int]) -> Codes:
    """Round every product's weights by what enters it."""
    graph = OnnxGraph(load_model(model))
    products = find_products(graph)
    widths = {product.source: len(_weight(graph, product)) for product in products}
    codes: Codes = {}
    for moments in second_moments(model, shape, widths, ids):
        for product in products:
            if product.source in moments and product.weight not in codes:
                weight = _weight(graph, product)
                steps = column_steps(weight)
                rounded = round_by_gptq(weight, steps, moments[product.source])
                codes[product.weight] = rounded, steps
    return codes


def _affordable(model: Path, page: Page, codes: Codes) -> set[str]:
    """Choose the kinds of products that together cost no more than `BUDGET_KL`."""

    def cost(kinds: Iterable[str]) -> float:
        graph = OnnxGraph(load_model(model))
        _replace(graph, set(kinds), codes)
        files = save_model(graph.finish(), model.with_name("tried.onnx"))
        try:
            return page.kl(files[0])
        finally:
            for file in files:
                file.unlink()

    graph = OnnxGraph(load_model(model))
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


def mean_kl(wanted: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence of logits [S, V] from others, nats per token."""
    total = 0.0
    for theirs, ours in zip(wanted, found, strict=True):
        p, q = _log_softmax(theirs), _log_softmax(ours)
        total += float((np.exp(p) * (p - q)).sum())
    return total / len(wanted)


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    shifted: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return shifted


def _replace(graph: OnnxGraph, kinds: set[str], codes: Codes) -> int:
    """Replace the products of some kinds; returns how many there were."""
    quantised: dict[str, tuple[str, str]] = {}
    chosen = [p for p in find_products(graph) if kind_of(graph, p) in kinds]
    for product in chosen:
        replace_product(graph, product, *codes[product.weight], quantised)
    graph.prune()
    return len(chosen)


def _weight(graph: OnnxGraph, product: Product) -> npt.NDArray[np.float32]:
    weight = matrix(graph, product.weight)
    assert weight is not None
    return weight.astype(np.float32)
