"""Trace an encoder to ONNX, and take out what costs time and changes nothing.

ONNX Runtime fuses norms, activations and residuals by itself when it opens a graph. Knows nothing
about individual architectures.
"""

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import NodeProto
from torch import Tensor
from torch.onnx.errors import OnnxExporterError

from export.cleanup import drop_idle_nodes, fix_reshapes
from export.encoders.attention import as_single_nodes
from export.encoders.torch_encoder import TorchEncoder
from export.errors import UnsupportedModel
from export.graph import OnnxGraph
from export.onnx_file import load_model
from export.spill import Spill

OPSET = 18


def trace(encoder: TorchEncoder, path: Path, *, token_types: bool) -> None:
    """Write the raw graph to `path`.

    Raises:
        UnsupportedModel: torch can't express one of the model's operations in ONNX.
    """
    inputs: tuple[Tensor, ...] = (
        torch.full((2, 7), 5, dtype=torch.int64),
        torch.tensor([7, 3], dtype=torch.int32),
    )
    names = ["input_ids", "lengths"]
    axes = {"input_ids": {0: "batch", 1: "tokens"}, "lengths": {0: "batch"}}
    if token_types:
        inputs += (torch.zeros(2, 7, dtype=torch.int64),)
        names.append("token_type_ids")
        axes["token_type_ids"] = axes["input_ids"]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # The tracer warns about every Python value that it makes constant (validation tells whether
    # that was wrong), and prints the whole graph when it fails.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), as_single_nodes():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                encoder,
                inputs,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=["vectors"],
                dynamic_axes={**axes, "vectors": {0: "batch"}},
                custom_opsets={"com.microsoft": 1},
            )
        except (OnnxExporterError, RuntimeError) as error:
            said = str(error).partition("\n")[0].rstrip(".")
            raise UnsupportedModel(encoder.model.config.model_type, said) from error


def cleaned(path: Path, spill: Spill) -> OnnxGraph:
    """Read a traced graph and clean it; new constants go to `spill`."""
    graph = OnnxGraph(load_model(path), spill)
    graph.infer_shapes()
    fix_reshapes(graph)
    graph.prune()
    graph.infer_shapes()
    drop_idle_nodes(graph)
    for node in graph.nodes("MultiHeadAttention"):
        graph.index()
        merge_projections(graph, node)
    graph.prune()
    return graph


def merge_projections(graph: OnnxGraph, attention: NodeProto) -> None:
    """Make queries, keys and values by one product where they read one input.

    Its columns are split again: the CPU's kernel takes the three apart.
    """
    parts: list[tuple[Any, Any]] = []
    sources = set()
    for name in attention.input[:3]:
        node, bias = graph.producer.get(name), None
        if node is not None and node.op_type == "Add":
            bias = next((c for n in node.input if (c := graph.constant(n)) is not None), None)
            variable = next((n for n in node.input if n not in graph.initializers), "")
            node = graph.producer.get(variable)
        weight = graph.constant(node.input[1]) if node and node.op_type == "MatMul" else None
        if node is None or weight is None or weight.ndim != 2 or (
            bias is not None and bias.shape != weight.shape[1:]
        ):  # fmt: skip
            return
        sources.add(node.input[0])
        parts.append((weight, np.zeros(weight.shape[1], weight.dtype) if bias is None else bias))
    if len(sources) != 1:
        return
    product, biased = graph.fresh_name("qkv"), graph.fresh_name("qkv_biased")
    weights = graph.add_constant(np.concatenate([w for w, _ in parts], 1), "qkv_weight")
    biases = graph.add_constant(np.concatenate([b for _, b in parts]), "qkv_bias")
    sizes = graph.add_constant(np.array([w.shape[1] for w, _ in parts], np.int64), "qkv_sizes")
    split = [graph.fresh_name(name) for name in ("query", "key", "value")]
    graph.add("MatMul", [sources.pop(), weights], [product])
    graph.add("Add", [product, biases], [biased])
    graph.add("Split", [biased, sizes], split, axis=-1)
    attention.input[0], attention.input[1], attention.input[2] = split
