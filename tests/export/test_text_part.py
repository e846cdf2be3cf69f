"""The text model inside one that reads images too: its logits, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from app.manifest import read_manifest
from bench.families.tiny import VOCAB, tiny_tokenizer
from export.__main__ import main
from export.session import GraphSession
from tests.export.refusals import refusal
from tests.export.tiny import BASE, HEADS, MIXED, UNTIED

EYES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3]}


def gemma3() -> PreTrainedModel:
    text = {**BASE, **HEADS, **MIXED, **UNTIED, "query_pre_attn_scalar": 24}
    config = hf.Gemma3Config(text_config=text, vision_config=EYES, mm_tokens_per_image=4)
    return hf.Gemma3ForConditionalGeneration(config)


def qwen3_vl() -> PreTrainedModel:
    """Transformers has its text model without an output layer."""
    text = {**BASE, **HEADS, **UNTIED, "rope_scaling": MROPE}
    eyes = {"hidden_size": 32, "depth": 1, "num_heads": 2, "intermediate_size": 32}
    config = hf.Qwen3VLConfig(text_config=text, vision_config={**eyes, "out_hidden_size": 64})
    return hf.Qwen3VLForConditionalGeneration(config)


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.eval().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [gemma3, qwen3_vl])
def test_text_of_a_model_that_reads_images_too(make: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = make()
    source = save(whole, tmp_path / "source")
    assert main([str(source), "--out", str(tmp_path / "out"), "--quantise", "none"]) == 0

    graph = read_manifest(tmp_path / "out").graph
    session = GraphSession(tmp_path / "out", graph, rows=1, capacity=128)
    ids = torch.randint(2, VOCAB, (1, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = whole(input_ids=ids).logits[0].numpy()
    for start in range(0, 100, 7):
        ours = session.feed([ids[0, start : start + 7].tolist()], all_logits=True)[0]
        assert np.abs(ours - theirs[start : start + 7]).max() < 1e-4


def test_weights_of_the_text_model_are_checked_as_those_of_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(gemma3(), tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    norm = next(name for name in tensors if "language_model" in name and "layers.1.input" in name)
    del tensors[norm]
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    said = refusal(source, tmp_path / "models", capsys)
    assert said.endswith("lack model.layers.1.input_layernorm.weight, which the model needs")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"quantization_config": {"quant_method": "mxfp4"}},
            "gemma3 is not supported: it reads more than text, and its weights are quantised",
        ),
        (
            {"model_type": "paligemma"},
            "paligemma is not supported: it reads prompts in both directions",
        ),
    ],
)
def test_whole_models_whose_text_part_would_be_another_are_refused(
    change: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(gemma3(), tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | change
    (source / "config.json").write_text(json.dumps(config))
    assert refusal(source, tmp_path / "models", capsys) == said
