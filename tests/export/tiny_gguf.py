"""Tiny GGUF files, written field by field so that any of them can be wrong."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PretrainedConfig, PreTrainedModel

from bench.families.tiny import VOCAB, tiny_tokenizer
from tests.export.tiny import CONFIGS, make_model

Fields = dict[str, Any]
Tensors = dict[str, npt.NDArray[np.float32]]
UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 6, 7, 8, 9, 10
ALIGNMENT = 32
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


class Raw(bytes):
    """A field's type and value, already encoded."""


def tiny_fields(config: PretrainedConfig | None = None) -> Fields:
    """Metadata of the tiny llama, with its tokenizer."""
    config = config or CONFIGS["llama"]()
    backend = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    tokens = sorted(backend["model"]["vocab"], key=backend["model"]["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(VOCAB - len(tokens))]
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "Tiny",
        "general.license": "apache-2.0",
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": config.rope_theta,
        "llama.vocab_size": VOCAB,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (VOCAB - 2)],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in backend["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def tiny_tensors(model: PreTrainedModel | None = None) -> Tensors:
    """The tiny llama's weights under llama.cpp's names and in its order of rotary dimensions."""
    model = model or make_model(CONFIGS["llama"]())
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    tensors = {}
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if name.startswith("model.layers."):
            layer, _, rest = name.removeprefix("model.layers.").partition(".")
            part = NAMES[rest.removesuffix(".weight")]
            if part in heads:
                halves = values.reshape(heads[part], 2, -1, values.shape[-1])
                values = halves.swapaxes(1, 2).reshape(values.shape)
            tensors[f"blk.{layer}.{part}.weight"] = values
        else:
            ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
            tensors[f"{ends.get(name.removesuffix('.weight'), 'output')}.weight"] = values
    return tensors


def write_gguf(path: Path, fields: Mapping[str, Any], tensors: Tensors) -> Path:
    """Write a GGUF file of version 3; a field of None is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes({k: v for k, v in fields.items() if v is not None}, tensors))
    return path


def gguf_bytes(fields: Mapping[str, Any], tensors: Tensors) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    header += b"".join(text(name) + value(content) for name, content in fields.items())
    data = b""
    for name, values in tensors.items():
        dims = values.shape[::-1]
        header += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        header += struct.pack("<IQ", 0, len(data))
        data += values.tobytes() + bytes(-values.nbytes % ALIGNMENT)
    return header + bytes(-len(header) % ALIGNMENT) + data


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content.encode())) + content.encode()


def value(content: Any) -> bytes:
    """A field's type and value."""
    if isinstance(content, Raw):
        encoded = bytes(content)
    elif isinstance(content, list):
        items = [value(item) for item in content]
        kind = items[0][:4] if items else struct.pack("<I", UINT32)
        body = b"".join(item[4:] for item in items)
        encoded = struct.pack("<I", ARRAY) + kind + struct.pack("<Q", len(items)) + body
    elif isinstance(content, str):
        encoded = struct.pack("<I", STRING) + text(content)
    elif isinstance(content, bool):
        encoded = struct.pack("<I?", BOOL, content)
    elif isinstance(content, float):
        encoded = struct.pack("<If", FLOAT32, content)
    else:
        encoded = struct.pack("<II", UINT32, content) if content < 1 << 32 else b""
        encoded = encoded or struct.pack("<IQ", UINT64, content)
    return encoded
