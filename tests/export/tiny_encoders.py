"""Tiny encoders of many families with random weights, in folders of sentence-transformers' form."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from bench.families.tiny import VOCAB, tiny_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "initializer_range": 0.15,
    "pad_token_id": 1,
}


def configured(kind: str, **changes: Any) -> Callable[[], PretrainedConfig]:
    return lambda: getattr(hf, kind)(**{**SIZES, **changes})


FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": configured("BertConfig"),
    "roberta": configured("RobertaConfig", type_vocab_size=1),
    "xlm-roberta": configured("XLMRobertaConfig", type_vocab_size=1),
    "mpnet": configured("MPNetConfig"),
    "modernbert": configured(
        "ModernBertConfig",
        local_attention=16,
        global_attn_every_n_layers=2,
        cls_token_id=0,
        sep_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
    ),
    "distilbert": lambda: hf.DistilBertConfig(
        vocab_size=VOCAB, dim=64, hidden_dim=96, n_layers=2, n_heads=4, pad_token_id=1,
        max_position_embeddings=130, initializer_range=0.15,
    ),
    "qwen3": configured("Qwen3Config", num_key_value_heads=2, head_dim=16),
}  # fmt: skip


def save_encoder(
    folder: Path,
    config: PretrainedConfig,
    *,
    pooling: Mapping[str, Any] | None = None,
    normalise: bool = True,
    prompts: Mapping[str, Any] | None = None,
    labels: int = 0,
) -> None:
    """Write a source folder: an embedding model, or with labels one for classification."""
    torch.manual_seed(0)
    auto: Any = hf.AutoModel
    if labels:
        config.num_labels = labels
        auto = hf.AutoModelForSequenceClassification
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer = pair_tokenizer()
    tokenizer.save_pretrained(folder)
    if labels:
        return
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    listed = [
        {
            "idx": index,
            "name": str(index),
            "path": "" if index == 0 else f"{index}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(modules)
    ]
    write(folder / "modules.json", listed)
    write(folder / "1_Pooling" / "config.json", dict(pooling or {"pooling_mode_mean_tokens": True}))
    if prompts is not None:
        write(folder / "config_sentence_transformers.json", dict(prompts))


def pair_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, which ends texts and tells those of a pair apart."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.model_max_length = 128
    return tokenizer


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
