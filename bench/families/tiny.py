"""Make a tiny model of any type that Transformers knows: random weights, no download.

A configuration is the type's own with small numbers wherever it has one of the usual names. What a
type needs beside them is in `VARIANTS`.
"""

from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from export.validate import TEXT

VOCAB: Final = 320
CONTEXT: Final = 192
WINDOW: Final = 12
"""Shorter than the text, several times over."""
DEVIATION: Final = 0.15
SMALL: Final[dict[str, Any]] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_size"), 64),
    **dict.fromkeys(("input_embedding_size", "output_embedding_size", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "dff", "dim_ff", "ffn_hidden_size"), 96),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "n_inner"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers", "depth"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("attention_heads", "decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "dim_head"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCAB),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), CONTEXT),
    "max_target_positions": CONTEXT,
    **dict.fromkeys(("sliding_window", "window_size"), WINDOW),
    "rotary_dim": 8,
    "tie_word_embeddings": False,
    "is_decoder": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
"""With one random matrix at both ends, a model with scaled embeddings repeats its last token."""

MROPE: Final = {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
"""Three positions of each token, which are the same in a text."""

LATENT: Final = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
"""Keys and values from one vector, and few experts."""

VARIANTS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "bloom": {"": {"seq_length": CONTEXT}},
    **{
        name: {"": {"text_config": MROPE}}
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")
    },
    "falcon": {
        "multi query": {"alibi": False},
        "new decoder": {"alibi": False, "new_decoder_architecture": True},
        "alibi": {"alibi": True, "multi_query": False, "num_kv_heads": 4},
    },
    "gemma3n_text": {
        "": {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 16,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        }
    },
    "granitemoehybrid": {
        "": {
            "layer_types": ["attention", "attention"],
            "num_local_experts": 0,
            "shared_intermediate_size": 96,
        }
    },
    "deepseek_v2": {"": LATENT},
    "deepseek_v3": {"": {**LATENT, "n_routed_experts": 8, "n_group": 2, "topk_group": 1}},
    "xlm": {"": {"causal": True}},
    "xmod": {"": {"default_language": "en_XX"}},
    "gpt_neo": {"": {"attention_types": [[["global", "local"], 1]]}},
}
"""By type: names of variants, and what they change."""


def tiny_config(model_type: str, **changes: Any) -> PretrainedConfig:
    """The configuration of a type, in small."""
    return _small(CONFIG_MAPPING[model_type], changes)


def _small(kind: type[PretrainedConfig], changes: dict[str, Any]) -> PretrainedConfig:
    known = {**PretrainedConfig().to_dict(), **kind().to_dict()}
    values: dict[str, Any] = {n: small for n, small in SMALL.items() if n in known}
    for name, part in kind.sub_configs.items():
        value = getattr(kind(), name, None)
        found: Any = type(value) if isinstance(value, PretrainedConfig) else part
        if found is not AutoConfig:
            values[name] = _small(found, {}).to_dict()
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    return kind(**values)


def tiny_model(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model with random weights, none of which is 0 or 1."""
    torch.manual_seed(seed)
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and config.get_text_config() is config
    kind: Any = AutoModelForCausalLM if causal else AutoModelForImageTextToText
    model: PreTrainedModel = kind.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, DEVIATION)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval()
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of VOCAB - 8 tokens, trained on the text that validation reads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 8,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT.read_text()], trainer)
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def save_tiny(folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """Write a whole source folder; returns the model."""
    model = tiny_model(config)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model
