"""Models of real sizes with random weights, for speed and memory where no real weights can be had.

`python -m bench.peers.shapes NAME FOLDER TOKENIZER` writes a Hugging Face folder in bfloat16, the
same weights as two GGUF files for llama.cpp, and this server's two profiles of them. Random weights
say nothing about quality; what a step costs does not depend on them. What exists already is kept.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf.quants import quantize
from transformers import AutoConfig, AutoModelForCausalLM

CONTEXT: Final = 4096
ROWS: Final = 8192
"""Rows that are quantised at once, so that a large embedding needs no second copy."""


SHAPES: Final[Mapping[str, tuple[str, Mapping[str, float]]]] = {
    # type and sizes of Llama-3.2-1B and Qwen2.5-0.5B, from their config.json
    "llama-1b": (
        "llama",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "rope_theta": 500000.0,
            "rms_norm_eps": 1e-5,
        },
    ),
    "qwen2.5-0.5b": (
        "qwen2",
        {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "rope_theta": 1000000.0,
            "rms_norm_eps": 1e-6,
        },
    ),
}
GGUF_TYPES: Final = {
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_1": gguf.GGMLQuantizationType.Q4_1,
}
OURS: Final = ("w8a8", "int4")
"""The schemes of our two profiles; also the names of their folders."""


def make(name: str, folder: Path, tokenizer: Path) -> None:
    """Write whatever of a shape's files is not there yet; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "hugging-face"
    if not source.exists():
        part = _empty(folder / ".part")
        model = _random_model(name)
        model.save_pretrained(part)
        shutil.copy2(tokenizer, part / "tokenizer.json")
        for kind, quantisation in GGUF_TYPES.items():
            _write_gguf(model, quantisation, folder / f"{kind}.gguf")
        part.rename(source)
        del model
    for scheme in OURS:
        if not (folder / scheme).exists():
            # the gate is for real weights
            options = ("--quantise", scheme, "--gate", "inf", "--out", str(folder / scheme))
            subprocess.run(  # noqa: S603
                [sys.executable, "-m", "export", str(source), *options], check=True
            )


def _random_model(name: str) -> Any:
    model_type, sizes = SHAPES[name]
    config = AutoConfig.for_model(
        model_type,
        **sizes,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def _write_gguf(model: Any, quantisation: gguf.GGMLQuantizationType, out: Path) -> None:
    config = model.config
    writer = gguf.GGUFWriter(out, config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")  # only token ids are ever fed
    architecture = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, weight in model.named_parameters():  # a tied output's matrix is not among them
        short = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert short is not None, name
        values = weight.detach().float().numpy()
        if weight.dim() == 1:
            writer.add_tensor(short, values)
        else:
            parts = [
                quantize(values[at : at + ROWS], quantisation) for at in range(0, len(values), ROWS)
            ]
            writer.add_tensor(short, np.concatenate(parts), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(SHAPES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizer", type=Path)
    given = parser.parse_args()
    make(given.name, given.folder, given.tokenizer)
