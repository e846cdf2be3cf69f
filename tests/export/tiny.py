"""Tiny models of many architectures, made from configurations: random weights, no download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import PretrainedConfig, PreTrainedModel

from bench.families.tiny import VOCAB, tiny_tokenizer

BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 192,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
TOKENS = {"vocab_size": VOCAB, "initializer_range": 0.15, "bos_token_id": 0, "eos_token_id": 1}
HEADS = {"head_dim": 16}
UNTIED = {"tie_word_embeddings": False}
"""With one random matrix at both ends, a model with scaled embeddings repeats its last token."""
WINDOW = 12
"""Shorter than every text in these tests."""
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}
LONG_ROPE = {
    "type": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [4.0] * 8,
}


def configured(kind: str, **changes: Any) -> Callable[[], PretrainedConfig]:
    return lambda: getattr(hf, kind)(**{**BASE, **changes})


CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": configured("LlamaConfig"),
    "llama-3-rope": configured("LlamaConfig", rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True),
    "qwen2": configured("Qwen2Config", tie_word_embeddings=True),
    "qwen3": configured("Qwen3Config", **HEADS),
    "mistral": configured("MistralConfig", sliding_window=WINDOW, **HEADS),
    "phi3": configured("Phi3Config", partial_rotary_factor=0.5),
    "phi3-partial": configured(
        "Phi3Config", partial_rotary_factor=0.5, head_dim=32, hidden_size=128
    ),
    "phi3-long": configured(
        "Phi3Config", rope_scaling=LONG_ROPE, original_max_position_embeddings=160
    ),
    "gemma": configured("GemmaConfig", **UNTIED, **HEADS),
    "gemma2": configured("Gemma2Config", query_pre_attn_scalar=24, **UNTIED, **MIXED, **HEADS),
    "gemma3": configured("Gemma3TextConfig", query_pre_attn_scalar=24, **UNTIED, **MIXED, **HEADS),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCAB, n_positions=192, n_embd=64, n_layer=2, n_head=4, initializer_range=0.15,
        bos_token_id=0, eos_token_id=1, **UNTIED,
    ),
    "smollm3": configured("SmolLM3Config", no_rope_layers=[1, 0]),
    "cohere": configured("CohereConfig", use_qk_norm=False, logit_scale=0.5),
    "cohere2": configured("Cohere2Config", **MIXED, **HEADS),
    "granite": configured("GraniteConfig", attention_multiplier=0.2, residual_multiplier=0.7),
    "olmo2": configured("Olmo2Config"),
    "opt": lambda: hf.OPTConfig(
        vocab_size=VOCAB, hidden_size=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=192, word_embed_proj_dim=64, init_std=0.15, bos_token_id=0,
        eos_token_id=1, pad_token_id=1,
    ),
    "gpt-neox": configured("GPTNeoXConfig", rotary_pct=0.5),
    "starcoder2": configured("Starcoder2Config", sliding_window=WINDOW),
    "glm": configured("GlmConfig", **HEADS),
    "glm4": configured("Glm4Config", **HEADS),
    "phi": configured("PhiConfig", partial_rotary_factor=0.5),
    "exaone4": configured("Exaone4Config", **MIXED),
    "ernie4-5": configured("Ernie4_5Config", **HEADS),
    "hunyuan": configured("HunYuanDenseV1Config", **HEADS),
    "helium": configured("HeliumConfig", **HEADS),
    "seed-oss": configured("SeedOssConfig", **HEADS),
}  # fmt: skip

CONFIGS |= {
    "arcee": configured("ArceeConfig"),
    "bitnet": configured("BitNetConfig"),
    "olmo": configured("OlmoConfig"),
    "olmo3": configured("Olmo3Config", **MIXED),
    "persimmon": configured("PersimmonConfig"),
    "stablelm": configured("StableLmConfig", **UNTIED),
    "bloom": lambda: hf.BloomConfig(
        hidden_size=64, n_layer=2, n_head=4, seq_length=192, **TOKENS, **UNTIED
    ),
    "gpt-neo": lambda: hf.GPTNeoConfig(
        hidden_size=64, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
        window_size=40, max_position_embeddings=192, intermediate_size=96, **TOKENS, **UNTIED,
    ),
    "apertus": configured("ApertusConfig"),
    "roberta": configured("RobertaConfig", is_decoder=True, max_position_embeddings=196, **UNTIED),
}  # fmt: skip
"""The three before Apertus write their attention out: in heads that repeat, with ALiBi, in a window
that is wider than a probe. RoBERTa counts positions by itself, from 2 on."""

FEW = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
"""Experts of one block's width, two per token."""
GROUPED = {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, **FEW}
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16, "v_head_dim": 16, "first_k_dense_replace": 1,
}  # fmt: skip

MIXTURES: dict[str, Callable[[], PretrainedConfig]] = {
    "mixtral": configured(
        "MixtralConfig", num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW
    ),
    "qwen3-moe": configured("Qwen3MoeConfig", num_experts=8, norm_topk_prob=True, **FEW, **HEADS),
    "qwen2-moe": configured(
        "Qwen2MoeConfig", num_experts=8, shared_expert_intermediate_size=64, **FEW
    ),
    "olmoe": configured("OlmoeConfig", num_experts=8, num_experts_per_tok=2),
    "phimoe": configured("PhimoeConfig", num_local_experts=4, num_experts_per_tok=2),
    "flex-olmo": configured("FlexOlmoConfig", num_experts=8, num_experts_per_tok=2),
    "granitemoe": configured(
        "GraniteMoeConfig", num_local_experts=8, num_experts_per_tok=2, residual_multiplier=0.7
    ),
    "granitemoeshared": configured(
        "GraniteMoeSharedConfig", num_local_experts=8, num_experts_per_tok=2,
        shared_intermediate_size=64,
    ),
    "granitemoehybrid": configured(
        "GraniteMoeHybridConfig", num_local_experts=4, num_experts_per_tok=2,
        shared_intermediate_size=64, layer_types=["attention"] * 2, position_embedding_type="rope",
    ),
    "granitemoehybrid-dense": configured(
        "GraniteMoeHybridConfig", num_local_experts=0, num_experts_per_tok=0,
        shared_intermediate_size=64, layer_types=["attention"] * 2, position_embedding_type="rope",
    ),
    "deepseek-v2": configured(
        "DeepseekV2Config", topk_method="group_limited_greedy", routed_scaling_factor=1.5,
        **LATENT, **GROUPED,
    ),
    "deepseek-v3": configured("DeepseekV3Config", **LATENT, **GROUPED),
    "ernie4-5-moe": configured(
        "Ernie4_5_MoeConfig", moe_num_experts=8, moe_k=2, moe_num_shared_experts=1,
        moe_layer_start_index=1, moe_layer_end_index=1, moe_layer_interval=1, use_bias=True, **FEW,
    ),
    "glm4-moe": configured("Glm4MoeConfig", first_k_dense_replace=1, **GROUPED, **HEADS),
    "dots1": configured(
        "Dots1Config", n_routed_experts=8, n_shared_experts=1, first_k_dense_replace=1, n_group=1,
        topk_group=1, routed_scaling_factor=2.5, **FEW, **HEADS,
    ),
    "gpt-oss": configured(
        "GptOssConfig", num_local_experts=4, num_experts_per_tok=2, rope_scaling=None, **MIXED,
        **HEADS,
    ),
    "hunyuan-moe": configured("HunYuanMoEV1Config", num_experts=4, moe_topk=2, **HEADS),
    "llama4": configured(
        "Llama4TextConfig", num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=64,
        interleave_moe_layer_step=1, no_rope_layers=[1, 0], attention_chunk_size=100,
        floor_scale=101, **HEADS,
    ),
}  # fmt: skip
"""Mixtures of experts."""

REFUSED: dict[str, Callable[[], PretrainedConfig]] = {
    "mamba": lambda: hf.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2),
    "mixtral": configured("MixtralConfig", num_local_experts=2, hidden_act="gelu"),
    "endless": lambda: hf.BloomConfig(vocab_size=VOCAB, hidden_size=64, n_layer=2, n_head=4),
    "xlm": lambda: hf.XLMConfig(
        emb_dim=64, n_layers=2, n_heads=4, max_position_embeddings=192, **TOKENS
    ),
    "bert": lambda: hf.BertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    ),
}  # fmt: skip


def make_model(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model with random weights; norms and biases are moved off their neutral values."""
    torch.manual_seed(seed)
    model: PreTrainedModel = hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            assert parameter.isfinite().all(), name
    model.eval()
    return model


def save_tiny(folder: Path, config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Write a whole source folder; returns the model."""
    model = make_model(config, seed)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model
