"""Remove from a traced decoder what costs time and changes nothing.

Every pass preserves the numbers, except that a scale that is not a power of two rounds at another
place once it is folded into weights; `validate.py` still compares the result with torch. Knows the
operators that `onnx_config.py` emits and those of projections; nothing about architectures.
"""

import numpy as np
from onnx import NodeProto, helper

from export.graph import MICROSOFT, OnnxGraph
from export.origins import Origin


def clean(graph: OnnxGraph) -> None:
    """Run all passes over a traced graph."""
    for node in graph.nodes("SimplifiedLayerNormalization"):
        node.domain = ""  # ONNX Runtime registers it under the default domain, whose name is empty
    graph.infer_shapes()
    fix_reshapes(graph)
    graph.prune()
    graph.infer_shapes()
    drop_idle_nodes(graph)
    flatten_gemms(graph)
    drop_idle_nodes(graph)
    fuse_residual_norms(graph)
    fuse_silu(graph)
    pack_attention_inputs(graph)
    fold_query_scales(graph)
    graph.prune()


def fix_reshapes(graph: OnnxGraph) -> None:
    """Make the target of each Reshape a constant, so that nothing needs the shape arithmetic."""
    for node in graph.nodes("Reshape", "Expand"):
        source, target = graph.shapes.get(node.input[0]), graph.shapes.get(node.output[0])
        if source is None or target is None or node.input[1] in graph.initializers:
            continue
        if node.op_type == "Expand":
            if source == target:
                node.input[1] = graph.add_constant(np.ones(1, np.int64), "ones")
            continue
        dims = [
            0 if i < len(source) and dim == source[i] and isinstance(dim, str) else dim
            for i, dim in enumerate(target)
        ]
        unknown = [i for i, dim in enumerate(dims) if isinstance(dim, str)]
        if len(unknown) <= 1:
            fixed = [-1 if isinstance(dim, str) else dim for dim in dims]
            node.input[1] = graph.add_constant(np.array(fixed, np.int64), "shape")


def drop_idle_nodes(graph: OnnxGraph) -> None:
    """Bypass nodes that return their input: a Reshape back, a Cast to the same type, Identity."""
    for node in graph.nodes("Identity", "Cast", "Reshape", "Expand", "Slice"):
        graph.index()
        source, result = node.input[0], node.output[0]
        if node.op_type == "Cast":
            idle = graph.types.get(source) == graph.types.get(result, 0)
        elif node.op_type == "Identity":
            idle = True
        else:
            if node.op_type == "Reshape":
                before = graph.made_by(source, "Reshape")
                while before is not None:
                    source = before.input[0]
                    before = graph.made_by(source, "Reshape")
            shape = graph.shapes.get(source)
            idle = shape is not None and shape == graph.shapes.get(result)
        if idle and result not in graph.outputs:
            graph.replace(result, source)
        elif idle and source in graph.producer and graph.used_once(source):
            maker = graph.producer[source]
            graph.remove([node])
            maker.output[list(maker.output).index(source)] = result
    graph.prune()


def flatten_gemms(graph: OnnxGraph) -> None:
    """Replace a Gemm between two Reshapes (GPT-2's Conv1D) by MatMul and Add."""
    for node in graph.nodes("Gemm"):
        before = graph.made_by(node.input[0], "Reshape")
        after = [n for n in graph.users[node.output[0]] if n.op_type == "Reshape"]
        weight = graph.constant(node.input[1])
        if before is None or weight is None or len(after) != len(graph.users[node.output[0]]):
            continue
        source = before.input[0]
        shape = graph.shapes.get(source)
        if shape is None or len(shape) != 3 or any(
            graph.shapes.get(n.output[0], ())[:2] != shape[:2]
            or len(graph.shapes.get(n.output[0], ())) != 3
            for n in after
        ):  # fmt: skip
            continue
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if options.get("alpha", 1.0) != 1.0 or options.get("beta", 1.0) != 1.0:
            continue
        weight = weight.T if options.get("transB", 0) else weight
        product = result = graph.fresh_name("product")
        name = graph.add_constant(weight, "weight")
        if node.input[1] in graph.origins:
            graph.origins[name] = graph.origins[node.input[1]].turned(weight.shape[1])
        graph.add("MatMul", [source, name], [product])
        if len(node.input) > 2:
            result = graph.fresh_name("biased")
            graph.add("Add", [product, node.input[2]], [result])
        graph.shapes[product] = graph.shapes[result] = graph.shapes[after[0].output[0]]
        for reshape in after:
            graph.replace(reshape.output[0], result)
    graph.prune()


def fuse_residual_norms(graph: OnnxGraph) -> None:
    """Replace Norm(a + b) by SkipSimplifiedLayerNormalization, which also returns the sum."""
    for norm in graph.nodes("SimplifiedLayerNormalization"):
        graph.index()
        add = graph.made_by(norm.input[0], "Add")
        if add is None:
            continue
        a, b = (graph.shapes.get(name) for name in add.input)
        if a is None or a != b or len(a) != 3:
            continue
        total = add.output[0]
        readers = [n for n in graph.users[total] if n is not norm]
        outputs = [norm.output[0], "", "", total] if readers else [norm.output[0]]
        epsilon = next(a.f for a in norm.attribute if a.name == "epsilon")
        graph.remove([norm, add])
        graph.add(
            "SkipSimplifiedLayerNormalization",
            [*add.input, norm.input[1]],
            outputs,
            epsilon=epsilon,
            domain=MICROSOFT,
        )
    graph.prune()


def fuse_silu(graph: OnnxGraph) -> None:
    """Replace x · Sigmoid(x) by QuickGelu with a factor of 1, which is the same in one node."""
    for sigmoid in graph.nodes("Sigmoid"):
        graph.index()
        source, gate = sigmoid.input[0], sigmoid.output[0]
        readers = graph.users[gate]
        if not graph.used_once(gate) or readers[0].op_type != "Mul":
            continue
        if sorted(readers[0].input) != sorted((source, gate)):
            continue
        graph.remove([sigmoid, readers[0]])
        graph.add("QuickGelu", [source], list(readers[0].output), alpha=1.0, domain=MICROSOFT)
    graph.prune()


def pack_attention_inputs(graph: OnnxGraph) -> None:
    """Merge the three projections of one input into one, which attention takes as packed QKV."""
    for node in graph.nodes("GroupQueryAttention"):
        graph.index()
        packed = _shared_split(graph, node) or _shared_input(graph, node)
        if packed is not None:
            node.input[0], node.input[1], node.input[2] = packed, "", ""
    graph.prune()


def _shared_split(graph: OnnxGraph, attention: NodeProto) -> str | None:
    """The value whose consecutive parts are Q, K and V, if there is one."""
    width = 0
    source = None
    for name in attention.input[:3]:
        size = graph.shapes.get(name, ("",))[-1]
        if not isinstance(size, int):
            return None
        found = _part_of(graph, name, width, size)
        if found is None or (source is not None and found != source):
            return None
        source, width = found, width + size
    shape = graph.shapes.get(source or "", ("",))
    return source if shape[-1] == width else None


def _part_of(graph: OnnxGraph, name: str, start: int, size: int) -> str | None:
    """The value of which `name` is [..., start : start + size]."""
    node = graph.producer.get(name)
    if node is None or node.op_type not in ("Split", "Slice"):
        return None
    rank = len(graph.shapes.get(node.input[0], ()))
    if node.op_type == "Split":
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        sizes = graph.constant(node.input[1]) if len(node.input) > 1 else None
        position = list(node.output).index(name)
        if axis % max(rank, 1) != rank - 1 or sizes is None:
            return None
        return node.input[0] if int(sizes[:position].sum()) == start else None
    bounds = [graph.constant(n) for n in node.input[1:5]]
    if len(bounds) < 3 or any(b is None or b.size != 1 for b in bounds):
        return None
    first, last, axis, *step = (int(b.item()) for b in bounds if b is not None)
    whole = graph.shapes[node.input[0]][-1]
    last = min(last, whole) if isinstance(whole, int) else last
    same = axis % rank == rank - 1 and first == start and last == start + size
    return node.input[0] if same and step in ([], [1]) else None


def _shared_input(graph: OnnxGraph, attention: NodeProto) -> str | None:
    """Merge three MatMuls of one input (and their biases) into one; returns the result's name."""
    weights, biases, origins, sources = [], [], [], set()
    for name in attention.input[:3]:
        node = graph.producer.get(name)
        bias = None
        if node is not None and node.op_type == "Add":
            constants = [graph.constant(n) for n in node.input]
            bias = next((c for c in constants if c is not None and c.ndim == 1), None)
            variable = next((n for n in node.input if n not in graph.initializers), "")
            node = graph.producer.get(variable) if bias is not None else None
        weight = graph.constant(node.input[1]) if node and node.op_type == "MatMul" else None
        if node is None or weight is None or weight.ndim != 2:
            return None
        sources.add(node.input[0])
        weights.append(weight)
        biases.append(bias)
        origins.append(graph.origins.get(node.input[1]))
    if len(sources) != 1:
        return None
    packed = graph.fresh_name("qkv")
    name = graph.add_constant(np.concatenate(weights, 1), "qkv_weight")
    joined = Origin.joined(origins)
    if joined is not None:
        graph.origins[name] = joined
    graph.add("MatMul", [sources.pop(), name], [packed])
    if any(bias is not None for bias in biases):
        parts = [
            np.zeros(w.shape[1], w.dtype) if b is None else b
            for w, b in zip(weights, biases, strict=True)
        ]
        biased = graph.fresh_name("qkv_biased")
        graph.add("Add", [packed, graph.add_constant(np.concatenate(parts), "qkv_bias")], [biased])
        packed = biased
    return packed


def fold_query_scales(graph: OnnxGraph) -> None:
    """Fold attention's scale into the weights that make the queries; the operator's becomes 1.

    ONNX Runtime's kernel for one query against a cache supports no other factor: with one, it first
    packs the keys again for each head, and a step of 8 rows with 1,000 tokens each takes a quarter
    longer (bench/LOG.md, 2026-11-24). Where other operators stand between the weights and the
    queries, a Mul node scales the queries; if such queries are packed with keys and values, the
    operator keeps its scale.
    """
    for node in graph.nodes("GroupQueryAttention"):
        graph.index()
        scale = next(a for a in node.attribute if a.name == "scale")
        if scale.f == 1.0:
            continue
        past_key, packed = node.input[3], not node.input[1]
        factor = np.array(scale.f, helper.tensor_dtype_to_np_dtype(graph.types[past_key]))
        places = _query_weights(graph, node)
        if places is not None:
            heads = next(a.i for a in node.attribute if a.name == "num_heads")
            width = heads * graph.shapes[past_key][-1]
            for maker, position in places:
                weight = np.array(graph.constant(maker.input[position]))
                weight[..., :width] *= factor  # only the queries' part, if it is packed
                name = graph.add_constant(weight, maker.input[position])
                if maker.input[position] in graph.origins:
                    origin = graph.origins[maker.input[position]]
                    graph.origins[name] = origin.times(width, float(factor))
                maker.input[position] = name
        elif packed:
            continue
        else:
            scaled_query = graph.fresh_name("scaled_query")
            name = graph.add_constant(factor, "query_scale")
            graph.add("Mul", [node.input[0], name], [scaled_query])
            node.input[0] = scaled_query
        scale.f = 1.0
    graph.prune()


def _query_weights(graph: OnnxGraph, attention: NodeProto) -> list[tuple[NodeProto, int]] | None:
    """The constants that the queries are proportional to, as (node, input index)."""
    name = attention.input[0]
    biases: list[tuple[NodeProto, int]] = []
    while (node := graph.producer.get(name)) is not None and graph.used_once(name):
        constant = next((i for i, n in enumerate(node.input) if n in graph.initializers), None)
        if node.op_type in ("Reshape", "Transpose"):
            name = node.input[0]
        elif node.op_type in ("MatMul", "SimplifiedLayerNormalization") and constant == 1:
            return [*biases, (node, constant)]
        elif node.op_type == "Add" and constant is not None:
            biases.append((node, constant))
            name = node.input[1 - constant]
        else:
            return None
    return None
