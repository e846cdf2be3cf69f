"""A tiny decoder made in milliseconds: random seeded weights, the graph contract of app.manifest.

Two Llama-like layers with GroupQueryAttention, written node by node, so that the runtime and
the engine are tested on the real operators without torch or a download.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from app.manifest import (
    Graph,
    Manifest,
    Quality,
    Quantisation,
    Tokens,
    describe_file,
    folder_name,
    write_manifest,
)

LAYERS, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 2, 4, 2, 16, 256
HIDDEN = HEADS * HEAD_DIM


def build_graph(vocab_size: int, seed: int = 0, context: int = CONTEXT) -> onnx.ModelProto:
    """The graph, weights scaled so that greedy tokens wander over the vocabulary."""
    rng = np.random.default_rng(seed)
    initializers, nodes = [], []

    def constant(name: str, array: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(name: str, *shape: int) -> str:
        scale = 2.0 / np.sqrt(shape[0])
        return constant(name, rng.normal(0, scale, shape).astype(np.float32))

    def node(op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    angles = np.outer(np.arange(context), 10000.0 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM))
    cos = constant("cos_cache", np.cos(angles).astype(np.float32))
    sin = constant("sin_cache", np.sin(angles).astype(np.float32))
    ones = constant("ones", np.ones(HIDDEN, np.float32))

    def norm(x: str, output: str) -> str:
        return node("SimplifiedLayerNormalization", [x, ones], output, epsilon=1e-5, axis=-1)

    x = node("Gather", [weight("embedding", vocab_size, HIDDEN), "input_ids"], "x0")
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "S"]),
        helper.make_tensor_value_info("query_seqlens", TensorProto.INT32, ["B"]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["B"]),
        helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("logits_index", TensorProto.INT64, ["B", "L"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "L", vocab_size])]
    cache: list[str | int] = ["B", KV_HEADS, "C", HEAD_DIM]
    for i in range(LAYERS):
        packed = node(
            "MatMul",
            [norm(x, f"norm{i}"), weight(f"qkv{i}", HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD_DIM)],
            f"packed{i}",
        )
        past = [f"past_key_values.{i}.{part}" for part in ("key", "value")]
        present = [f"present.{i}.{part}" for part in ("key", "value")]
        for names, group in ((past, inputs), (present, outputs)):
            group += [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in names
            ]
        lengths = ["seqlens_k", "total_sequence_length"]
        attention = [packed, "", "", *past, *lengths, cos, sin, *[""] * 7, "query_seqlens"]
        nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                attention,
                [f"attended{i}", *present],
                domain="com.microsoft",
                num_heads=HEADS,
                kv_num_heads=KV_HEADS,
                do_rotary=1,
            )
        )
        projected = node(
            "MatMul", [f"attended{i}", weight(f"o{i}", HIDDEN, HIDDEN)], f"projected{i}"
        )
        x = node("Add", [x, projected], f"x{i + 1}")
    axes = constant("last_axis", np.array([2], np.int64))
    index = node("Unsqueeze", ["logits_index", axes], "index")
    shape = constant("index_shape", np.array([1, 1, HIDDEN], np.int64))
    wide = node("Expand", [index, shape], "wide_index")
    picked = node("GatherElements", [norm(x, "norm_final"), wide], "picked", axis=1)
    node("MatMul", [picked, weight("head", HIDDEN, vocab_size)], "logits")
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def write_tiny_model(
    models_dir: Path,
    model_id: str = "tiny/random",
    *,
    vocab_size: int = 96,
    seed: int = 0,
    eos_ids: tuple[int, ...] = (),
    tokenizer: Tokenizer | None = None,
    chat_template: str = "",
    context: int = CONTEXT,
) -> Path:
    """Write a model folder as export/ would and return it; without a tokenizer unless given."""
    folder = models_dir / folder_name(model_id)
    folder.mkdir(parents=True)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    if chat_template:
        (folder / "chat_template.jinja").write_text(chat_template)
    onnx.save(build_graph(vocab_size, seed, context), folder / "model.onnx")
    manifest = Manifest(
        model_id=model_id,
        architecture="llama",
        source="random weights",
        created="2026-11-22T00:00:00Z",
        graph=Graph(
            file="model.onnx",
            num_layers=LAYERS,
            num_kv_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            vocab_size=vocab_size,
            context_length=context,
            kv_dtype="float32",
        ),
        tokens=Tokens(bos_id=None, eos_ids=eos_ids),
        quantisation=Quantisation(scheme="none", batch_invariant=False),
        quality=Quality(
            text_tokens=0,
            mean_kl=0.0,
            top1_agreement=1.0,
            perplexity=0.0,
            reference_perplexity=0.0,
        ),
        chat=bool(chat_template),
        files={file.name: describe_file(file) for file in folder.iterdir()},
    )
    write_manifest(folder, manifest)
    return folder
