"""A tiny encoder made in milliseconds: a text's vector tells its tokens, whoever runs beside it.

Its graph has the contract of app.encoder_manifest, written node by node: the mean of each token's
row of an embedding; a reranker's score is the mean of the tokens' ids, the second text's twice.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from app.encoder_manifest import Closeness, EncoderGraph, EncoderManifest
from app.manifest import describe_file, folder_name, write_manifest
from tests.fakes import BYTES

WIDTH, CONTEXT = 8, 64
VOCAB = BYTES.get_vocab_size()


def table(width: int = WIDTH) -> np.ndarray:
    """The embedding: [VOCAB, width]; one column for a reranker, each token's id over 100."""
    if width == 1:
        return (np.arange(VOCAB, dtype=np.float32) / 100)[:, None]
    return np.random.default_rng(3).normal(size=(VOCAB, width)).astype(np.float32)


def build_encoder(width: int = WIDTH, *, token_types: bool = False) -> onnx.ModelProto:
    """Mean of embeddings over real tokens."""
    constants = {
        "table": table(width),
        "one": np.array(1, np.int64),
        "zero": np.array(0, np.int64),
        "axis": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        "column": np.array([-1, 1], np.int64),
    }
    nodes = []

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    size = node("Gather", [node("Shape", ["input_ids"], "shape"), "one"], "size")
    steps = node("Range", ["zero", size, "one"], "steps")
    lengths = node("Cast", ["lengths"], "lengths64", to=TensorProto.INT64)
    lengths = node("Reshape", [lengths, "column"], "per_row")
    weights = node("Cast", [node("Less", [steps, lengths], "real")], "weights", to=1)
    count = node("ReduceSum", [weights, "axis"], "count", keepdims=1)
    if token_types:
        types = node("Cast", ["token_type_ids"], "types", to=1)
        weights = node("Add", [weights, node("Mul", [weights, types], "twice")], "weighted")
    tokens = node("Gather", ["table", "input_ids"], "tokens")
    wide = node("Unsqueeze", [weights, "last"], "wide")
    total = node("ReduceSum", [node("Mul", [tokens, wide], "kept"), "axis"], "total", keepdims=0)
    node("Div", [total, count], "vectors")
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "S"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
    ]
    if token_types:
        info = helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["B", "S"])
        inputs.append(info)
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["B", width])]
    graph = helper.make_graph(
        nodes,
        "tiny-encoder",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def write_tiny_encoder(
    models_dir: Path,
    model_id: str = "tiny/vectors",
    *,
    kind: Literal["embedding", "reranking"] = "embedding",
    tokenizer: Tokenizer = BYTES,
    **changes: Any,
) -> Path:
    """Write a model folder as export/ would and return it."""
    folder = models_dir / folder_name(model_id)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    width, token_types = (1, True) if kind == "reranking" else (WIDTH, False)
    onnx.save(build_encoder(width, token_types=token_types), folder / "model.onnx")
    manifest = EncoderManifest(
        kind=kind,
        model_id=model_id,
        architecture="tiny",
        source="random weights",
        created="2026-11-26T00:00:00Z",
        graph=EncoderGraph(
            file="model.onnx",
            vocab_size=VOCAB,
            context_length=CONTEXT,
            width=width,
            num_heads=1,
            pad_id=0,
            token_types=token_types,
        ),
        scheme="none",
        closeness=Closeness(texts=1, mean_cosine=1.0, min_cosine=1.0, max_difference=0.0),
        files={file.name: describe_file(file) for file in folder.iterdir()},
    )
    write_manifest(folder, msgspec.structs.replace(manifest, **changes))
    return folder
