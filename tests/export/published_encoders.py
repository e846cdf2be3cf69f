"""Tiny checkpoints of Nomic's and GTE's encoders as their makers publish them, and their vectors.

What the vectors have to be is computed in NumPy alone: one text at a time, in float64, and with
rotations as products of complex numbers. None of it is export's.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bench.families.tiny import VOCAB
from tests.export.tiny_encoders import pair_tokenizer, write

Arrays = Mapping[str, np.ndarray]
HIDDEN, HEADS, LAYERS, WIDE, CONTEXT = 32, 4, 2, 256, 128
NOMIC: dict[str, Any] = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "activation_function": "swiglu",
    "attn_pdrop": 0.0,
    "causal": False,
    "fused_bias_fc": True,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "layer_norm_eps": 1e-12,
    "layer_norm_epsilon": 1e-12,
    "max_position_embeddings": CONTEXT,
    "max_trained_positions": CONTEXT,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "n_embd": HIDDEN,
    "n_head": HEADS,
    "n_inner": WIDE,
    "intermediate_size": WIDE,
    "n_layer": LAYERS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "n_positions": 8192,
    "pad_vocab_size_multiple": 64,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_weights": True,
    "summary_type": "cls_index",
    "type_vocab_size": 2,
    "use_flash_attn": True,
    "vocab_size": VOCAB,
}
"""In its makers' names and in those of Transformers 5, as nomic-embed-text-v1.5 has them."""
GTE: dict[str, Any] = {
    "model_type": "new",
    "architectures": ["NewModel"],
    "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "id2label": {"0": "LABEL_0"},
    "intermediate_size": WIDE,
    "label2id": {"LABEL_0": 0},
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": CONTEXT,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pack_qkv": True,
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "type_vocab_size": 1,
    "unpad_inputs": True,
    "use_memory_efficient_attention": True,
    "vocab_size": VOCAB,
}


def nomic_weights(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    names: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCAB, HIDDEN),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], HIDDEN),
        **_norm("emb_ln"),
    }
    for layer in range(LAYERS):
        at = f"encoder.layers.{layer}"
        names |= {
            **_linear(f"{at}.attn.Wqkv", 3 * HIDDEN, HIDDEN, biased=config["qkv_proj_bias"]),
            **_linear(f"{at}.attn.out_proj", HIDDEN, HIDDEN, biased=config["qkv_proj_bias"]),
            **_linear(f"{at}.mlp.fc11", WIDE, HIDDEN, biased=config["mlp_fc1_bias"]),
            **_linear(f"{at}.mlp.fc12", WIDE, HIDDEN, biased=config["mlp_fc1_bias"]),
            **_linear(f"{at}.mlp.fc2", HIDDEN, WIDE, biased=config["mlp_fc2_bias"]),
            **_norm(f"{at}.norm1"),
            **_norm(f"{at}.norm2"),
        }
    return _random(names)


def gte_weights(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Named as those of the encoder alone; with labels, as those of a cross-encoder."""
    names = {"embeddings.word_embeddings.weight": (VOCAB, HIDDEN), **_norm("embeddings.LayerNorm")}
    if config["type_vocab_size"]:
        names["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], HIDDEN)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        names |= {
            **_linear(f"{at}.attention.o_proj", HIDDEN, HIDDEN),
            **_linear(f"{at}.mlp.up_gate_proj", 2 * WIDE, HIDDEN, biased=False),
            **_linear(f"{at}.mlp.down_proj", HIDDEN, WIDE),
            **_norm(f"{at}.attn_ln"),
            **_norm(f"{at}.mlp_ln"),
        }
        if config["pack_qkv"]:
            names |= _linear(f"{at}.attention.qkv_proj", 3 * HIDDEN, HIDDEN)
        else:
            for part in "qkv":
                names |= _linear(f"{at}.attention.{part}_proj", HIDDEN, HIDDEN)
    if "NewForSequenceClassification" in config["architectures"]:
        names |= _linear("pooler.dense", HIDDEN, HIDDEN)
        names = {f"new.{name}": shape for name, shape in names.items()}
        names |= _linear("classifier", 1, HIDDEN)
    return _random(names)


def save(folder: Path, config: Mapping[str, Any], weights: Arrays) -> None:
    """Write a source folder: an embedding model by its mean, unless it is a cross-encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "config.json", config)
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    pair_tokenizer().save_pretrained(folder)
    if "NewForSequenceClassification" not in config["architectures"]:
        listed = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
        write(
            folder / "modules.json",
            [{"type": f"sentence_transformers.models.{n}", "path": path} for n, path in listed],
        )
        write(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})


def nomic_states(config: Mapping[str, Any], w: Arrays, ids: list[int]) -> np.ndarray:
    """Hidden states [S, HIDDEN]."""
    rows = w["embeddings.word_embeddings.weight"][ids]
    x = _normalised(rows + w["embeddings.token_type_embeddings.weight"][0], w, "emb_ln")
    dims = int(HIDDEN // HEADS * config["rotary_emb_fraction"])
    base, factor = config["rotary_emb_base"], config["rotary_scaling_factor"]
    if factor and len(ids) > config["max_trained_positions"]:
        ratio = factor * len(ids) / config["max_trained_positions"] - (factor - 1)
        base *= ratio ** (dims / (dims - 2))
    speeds = base ** (-np.arange(0, dims, 2) / dims)
    for layer in range(LAYERS):
        at = f"encoder.layers.{layer}"
        qkv = np.split(_through(x, w, f"{at}.attn.Wqkv"), 3, axis=1)
        seen = _attended(qkv, speeds, neighbours=config["rotary_emb_interleaved"])
        x = _normalised(x + _through(seen, w, f"{at}.attn.out_proj"), w, f"{at}.norm1")
        gate = _through(x, w, f"{at}.mlp.fc12")
        inner = _through(x, w, f"{at}.mlp.fc11") * gate / (1 + np.exp(-gate))
        x = _normalised(x + _through(inner, w, f"{at}.mlp.fc2"), w, f"{at}.norm2")
    return x


def gte_states(
    config: Mapping[str, Any], w: Arrays, ids: list[int], types: list[int] | None = None
) -> np.ndarray:
    """Hidden states [S, HIDDEN]."""
    x = w["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    if config["type_vocab_size"]:
        x += w["embeddings.token_type_embeddings.weight"][types or [0] * len(ids)]
    x = _normalised(x, w, "embeddings.LayerNorm")
    dims = HIDDEN // HEADS
    factor = (config["rope_scaling"] or {"factor": 1})["factor"]
    speeds = (config["rope_theta"] * factor) ** (-np.arange(0, dims, 2) / dims)
    speeds /= factor ** (2 / dims)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        if config["pack_qkv"]:
            qkv = np.split(_through(x, w, f"{at}.attention.qkv_proj"), 3, axis=1)
        else:
            qkv = [_through(x, w, f"{at}.attention.{part}_proj") for part in "qkv"]
        seen = _attended(qkv, speeds, neighbours=False)
        x = _normalised(x + _through(seen, w, f"{at}.attention.o_proj"), w, f"{at}.attn_ln")
        up, gate = np.split(_through(x, w, f"{at}.mlp.up_gate_proj"), 2, axis=1)
        inner = up * gate * (1 + _erf(gate / np.sqrt(2))) / 2
        x = _normalised(x + _through(inner, w, f"{at}.mlp.down_proj"), w, f"{at}.mlp_ln")
    return x


def gte_score(config: Mapping[str, Any], w: Arrays, ids: list[int], types: list[int]) -> float:
    inside = {name.removeprefix("new."): value for name, value in w.items()}
    first = gte_states(config, inside, ids, types)[:1]
    pooled = np.tanh(_through(first, inside, "pooler.dense"))
    return float(_through(pooled, inside, "classifier")[0, 0])


def mean_vector(states: np.ndarray) -> np.ndarray:
    mean: np.ndarray = states.mean(0)
    vector: np.ndarray = mean / np.linalg.norm(mean)
    return vector


def read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def _attended(qkv: list[np.ndarray], speeds: np.ndarray, *, neighbours: bool) -> np.ndarray:
    size, heads = HIDDEN // HEADS, []
    for head in range(HEADS):
        query, key, value = (part[:, head * size : (head + 1) * size] for part in qkv)
        scores = _turned(query, speeds, neighbours) @ _turned(key, speeds, neighbours).T
        scores /= np.sqrt(size)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(weights / weights.sum(1, keepdims=True) @ value)
    return np.concatenate(heads, 1)


def _turned(x: np.ndarray, speeds: np.ndarray, neighbours: bool) -> np.ndarray:
    dims = 2 * len(speeds)
    first = slice(0, dims, 2) if neighbours else slice(0, dims // 2)
    second = slice(1, dims, 2) if neighbours else slice(dims // 2, dims)
    numbers = x[:, first] + 1j * x[:, second]
    numbers *= np.exp(1j * np.outer(np.arange(len(x)), speeds))
    turned = x.copy()
    turned[:, first], turned[:, second] = numbers.real, numbers.imag
    return turned


def _through(x: np.ndarray, w: Arrays, name: str) -> np.ndarray:
    product: np.ndarray = x @ w[f"{name}.weight"].astype(np.float64).T
    if f"{name}.bias" in w:
        product += w[f"{name}.bias"]
    return product


def _normalised(x: np.ndarray, w: Arrays, name: str) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    even = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12)
    scaled: np.ndarray = even * w[f"{name}.weight"] + w[f"{name}.bias"]
    return scaled


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([[math.erf(number) for number in row] for row in x])


def _linear(
    name: str, outputs: int, inputs: int, *, biased: bool = True
) -> dict[str, tuple[int, ...]]:
    bias: dict[str, tuple[int, ...]] = {f"{name}.bias": (outputs,)} if biased else {}
    return {f"{name}.weight": (outputs, inputs), **bias}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (HIDDEN,), f"{name}.bias": (HIDDEN,)}


def _random(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(17)
    made = {}
    for name, shape in shapes.items():
        values = rng.normal(0, 0.2, shape)
        norm = name.endswith("weight") and len(shape) == 1
        made[name] = (values + norm).astype(np.float32)
    return made
