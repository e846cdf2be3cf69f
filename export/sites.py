"""Where the modules of the torch model are among the products of a graph.

Knows how the quantiser joins a product with its bias, and nothing of what is done at a site.
"""

from typing import Final

import msgspec
import numpy as np
from onnx import helper

from export.graph import OnnxGraph
from export.origins import Origin
from export.products import Product, find_products

SITES: Final = "clean/sites.json"
"""Of the cleaned graph, below the work folder."""


class Place(msgspec.Struct, frozen=True):
    """Where a module's columns are in a matrix."""

    start: int
    columns: int
    scaled: int
    """How many of its first columns are multiplied by `factor`."""
    factor: float


class Site(msgspec.Struct, frozen=True):
    """A product of the graph, and where it has the modules that it was made of."""

    source: str
    """What it multiplies, [B, S, K]."""
    product: str
    """Its result, [B, S, N]."""
    output: str
    """Its result with its bias, if it has one, [B, S, N]."""
    shape: tuple[int, int]
    """K, N."""
    dtype: str
    places: dict[str, Place]
    """By module."""


def find_sites(graph: OnnxGraph) -> list[Site]:
    """The products whose origin is known, in a graph whose weights aren't quantised yet.

    Without the output layer, and without those whose input isn't known to be [B, S, K].
    """
    sites = []
    for product in find_products(graph):
        origin, output = graph.origins.get(product.weight), _with_bias(graph, product)
        source = graph.shapes.get(product.source, ())
        if origin is None or output in graph.outputs or len(source) != 3:
            continue
        weight = graph.initializers[product.weight]
        columns, rows = weight.dims
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(weight.data_type))
        places = _places(origin)
        result, shape = product.node.output[0], (columns, rows)
        sites.append(Site(product.source, result, output, shape, dtype.name, places))
    return sites


def _places(origin: Origin) -> dict[str, Place]:
    places, start = {}, 0
    for part in origin.parts:
        scaled = min(max(origin.scaled - start, 0), part.columns)
        places[part.module] = Place(start, part.columns, scaled, origin.factor)
        start += part.columns
    return places


def _with_bias(graph: OnnxGraph, product: Product) -> str:
    """The name of a product's result, behind the bias that the quantiser joins to it."""
    output: str = product.node.output[0]
    users = graph.users[output]
    if len(users) == 1 and users[0].op_type == "Add" and output not in graph.outputs:
        bias = graph.constant(next(name for name in users[0].input if name != output))
        if bias is not None and bias.ndim == 1:
            output = users[0].output[0]
    return output
