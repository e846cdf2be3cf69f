"""Put LoRA adapters into a finished graph, so that each row of a batch may use one of them.

The products of all adapters lie side by side: behind x · W come x · A, with the columns of all
adapters, a mask that leaves each row those of its own, and the product of that with B, which has
the rows of all. So there are two more products for each of the model's, however many adapters and
rows there are; with no copies of matrices, as gathering each row's own would need; and what a row
gets depends on no other row. They stand in a branch that a step without adapters doesn't take.

Knows neither how adapters are stored (`adapter.py`) nor how sites are found (`sites.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from export.adapter import Change, Changes
from export.errors import SourceUnusable
from export.graph import OnnxGraph
from export.quantise import BLOCK_SIZE, PARTS, block_options, quantise_rows, store_blocks
from export.sites import Place, Site
from export.spill import Array

ADAPTER_IDS: Final = "adapter_ids"
USED: Final = "adapters_used"


def sites_of(sites: Iterable[Site], adapters: Mapping[str, Changes]) -> list[Site]:
    """The sites that adapters change, each with those of its modules that they change.

    Args:
        sites: of the cleaned graph.
        adapters: changes by the adapter's name.

    Raises:
        SourceUnusable: an adapter changes what is no product of its own, or the output layer.
    """
    changed = {module for changes in adapters.values() for module in changes}
    chosen = []
    for site in sites:
        places = {module: place for module, place in site.places.items() if module in changed}
        if places:
            chosen.append(msgspec.structs.replace(site, places=places))
    found = [module for site in chosen for module in site.places]
    for name, changes in adapters.items():
        for module in changes:
            if found.count(module) != 1:
                raise SourceUnusable(
                    f"the adapter {name} changes {module}, which is no inner product of its own "
                    "in the graph: it can be merged, not served beside the model"
                )
    return chosen


def graft(
    graph: OnnxGraph, sites: Sequence[Site], adapters: Mapping[str, Changes], *, blocks: bool
) -> None:
    """Add adapters to a graph, which gets the input `adapter_ids`.

    Args:
        graph: is changed; its products may be quantised by now.
        sites: of `sites_of`.
        adapters: changes by the adapter's name, in the order of their numbers.
        blocks: whether their factors are stored in 8-bit blocks.
    """
    batch = graph.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    info = helper.make_tensor_value_info(ADAPTER_IDS, TensorProto.INT64, [batch])
    graph.model.graph.input.append(info)
    zero = graph.add_constant(np.array(0, np.int64), "no_adapter")
    largest = graph.fresh_name("largest_adapter")
    graph.add("ReduceMax", [ADAPTER_IDS], [largest], keepdims=0)
    graph.add("Greater", [largest, zero], [USED])
    columns = _columns(adapters, BLOCK_SIZE if blocks else 1)
    masks: dict[tuple[int, str], str] = {}
    by_source: dict[str, list[_Graft]] = {}
    for site in sites:
        key = (len(site.places), site.dtype)
        if key not in masks:
            masks[key] = _mask(graph, columns, *key)
        made = _made(graph, site, adapters, columns, masks[key], blocks=blocks)
        by_source.setdefault(site.source, []).append(made)
    for grafts in by_source.values():
        _put_in(graph, grafts)
    graph.index()


def _columns(adapters: Mapping[str, Changes], block: int) -> dict[str, slice]:
    """Which of the low-rank columns are an adapter's: whole blocks, for its greatest rank.

    In a block with another's numbers the larger ones would set the step for both.
    """
    columns, start = {}, 0
    for name, changes in adapters.items():
        rank = max(len(change.first) for change in changes.values())
        end = start + -(-rank // block) * block
        columns[name] = slice(start, end)
        start = end
    return columns


def _width(columns: Mapping[str, slice]) -> int:
    width: int = max(taken.stop for taken in columns.values())
    return width


def _mask(graph: OnnxGraph, columns: Mapping[str, slice], repeats: int, dtype: str) -> str:
    """The columns of each row's adapter as 0 and 1, [B, 1, R], repeated for several modules."""
    table = np.zeros((1 + len(columns), _width(columns)), dtype)
    for number, taken in enumerate(columns.values(), start=1):
        table[number, taken] = 1
    name = graph.add_constant(np.tile(table, (1, repeats)), "adapter_columns")
    rows, mask = graph.fresh_name("own_columns"), graph.fresh_name("own_columns")
    graph.add("Gather", [name, ADAPTER_IDS], [rows])
    axis = graph.add_constant(np.array([1], np.int64), "tokens_axis")
    graph.add("Unsqueeze", [rows, axis], [mask])
    return mask


@dataclass(frozen=True)
class _Graft:
    """What the adapters add to one product, in nodes of no graph yet."""

    site: Site
    plain: str
    """The name that the product's result is to have."""
    changed: str
    nodes: list[NodeProto]

    def info(self, name: str) -> ValueInfoProto:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(self.site.dtype))
        return helper.make_tensor_value_info(name, dtype, None)


def _made(
    graph: OnnxGraph,
    site: Site,
    adapters: Mapping[str, Changes],
    columns: Mapping[str, slice],
    mask: str,
    *,
    blocks: bool,
) -> _Graft:
    """Make what the adapters add to one product."""
    width = _width(columns)
    down = graph.room((site.shape[0], len(site.places) * width), site.dtype)
    up = graph.room((len(site.places) * width, site.shape[1]), site.dtype)
    for number, (module, place) in enumerate(site.places.items()):
        for name, changes in adapters.items():
            if module in changes:
                first = number * width + columns[name].start
                _fill(down, up, first, changes[module], place)
    for turning in graph.turnings.get(site.product, ()):  # as the product's own matrix was
        factor = down if turning.columns else up
        factor[...] = turning.change(factor.astype(np.float64))
    low, own, change, changed, plain = (
        graph.fresh_name(f"{site.output}.{what}")
        for what in ("low", "own", "change", "changed", "plain")
    )
    nodes = [
        _product(graph, site.source, down, low, blocks=blocks),
        helper.make_node("Mul", [low, mask], [own]),
        _product(graph, own, up, change, blocks=blocks),
        helper.make_node("Add", [plain, change], [changed]),
    ]
    return _Graft(site, plain, changed, nodes)


def _put_in(graph: OnnxGraph, grafts: Sequence[_Graft]) -> None:
    """Put what is added to the products of one value into a branch."""
    graph.index()
    for each in grafts:
        maker = graph.producer[each.site.output]
        maker.output[list(maker.output).index(each.site.output)] = each.plain
        maker.name = each.plain  # nodes are named by their results, and `If` has the old ones
    then = [node for each in grafts for node in each.nodes]
    same = [graph.fresh_name(f"{each.plain}.same") for each in grafts]
    idle = [
        helper.make_node("Identity", [each.plain], [name])
        for each, name in zip(grafts, same, strict=True)
    ]
    changed = [each.info(each.changed) for each in grafts]
    unchanged = [each.info(name) for each, name in zip(grafts, same, strict=True)]
    graph.add(
        "If",
        [USED],
        [each.site.output for each in grafts],
        then_branch=helper.make_graph(then, "with_adapters", [], changed),
        else_branch=helper.make_graph(idle, "without", [], unchanged),
    )


def _fill(
    down: npt.NDArray[Any], up: npt.NDArray[Any], first: int, change: Change, place: Place
) -> None:
    """Write an adapter's factors of one module into those of all, from column `first` on."""
    rank = len(change.first)
    down[:, first : first + rank] = change.first.numpy().T
    second = change.scale * change.second.numpy().T
    second[:, : place.scaled] *= place.factor
    up[first : first + rank, place.start : place.start + place.columns] = second


def _product(
    graph: OnnxGraph, source: str, weight: Array, output: str, *, blocks: bool
) -> NodeProto:
    """A product with a constant matrix [K, N], a node of no graph yet."""
    name = graph.fresh_name(f"{output}.weight")
    if not blocks:
        return helper.make_node("MatMul", [source, graph.add_constant(weight, name)], [output])
    store_blocks(graph, name, weight.T, lambda rows: quantise_rows(rows, "int8"))
    stored = [part for each in PARTS if (part := f"{name}.{each}") in graph.initializers]
    options = block_options(weight.shape[1], weight.shape[0], "int8")
    return helper.make_node("MatMulNBits", [source, *stored], [output], **options)
