"""Tiny models of many architectures, made from configurations: random weights, no download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from export.validate import TEXT

VOCAB = 320
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
}

REFUSED: dict[str, Callable[[], PretrainedConfig]] = {
    "mamba": lambda: hf.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2),
    "stablelm": configured("StableLmConfig"),
    "mixtral": configured("MixtralConfig", num_local_experts=2, num_experts_per_tok=1),
    "falcon": lambda: hf.FalconConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=4
    ),
    "bloom": lambda: hf.BloomConfig(vocab_size=VOCAB, hidden_size=64, n_layer=2, n_head=4),
    "gpt-oss": configured("GptOssConfig", num_local_experts=2, head_dim=16),
    "apertus": configured("ApertusConfig"),
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


def make_tokenizer() -> PreTrainedTokenizerFast:
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def save_tiny(folder: Path, config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Write a whole source folder; returns the model."""
    model = make_model(config, seed)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return model
