"""A GGUF file with rotary scaling is the model that it was made from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.manifest import read_manifest
from export.__main__ import main
from export.source import resolve
from export.torch_model import load_model
from export.weight_file import WeightFile
from tests.export.refusals import refusal
from tests.export.tiny import CONFIGS, LLAMA3_ROPE, VOCAB, configured, make_model
from tests.export.tiny_gguf import tiny_fields, tiny_tensors, write_gguf

ORIGINAL = 48
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
SCALINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": (
        {"rope_type": "linear", "factor": 4.0},
        {"scaling.type": "linear", "scaling.factor": 4.0, "scaling.finetuned": True},
    ),
    "linear by the factor alone": (
        {"rope_type": "linear", "factor": 2.0},
        {"scaling.factor": 2.0},
    ),
    "linear as it was first written": (
        {"rope_type": "linear", "factor": 2.0},
        {"scale_linear": 2.0},
    ),
    "yarn": (
        YARN,
        {
            "scaling.type": "yarn",
            "scaling.factor": 4.0,
            "scaling.original_context_length": ORIGINAL,
            "scaling.attn_factor": 1.0,
        },
    ),
    "yarn with other limits": (
        {**YARN, "beta_fast": 16.0, "beta_slow": 2.0},
        {
            "scaling.type": "yarn",
            "scaling.factor": 4.0,
            "scaling.original_context_length": ORIGINAL,
            "scaling.yarn_beta_fast": 16.0,
            "scaling.yarn_beta_slow": 2.0,
        },
    ),
}


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(0, VOCAB, (1, 150), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits[0]


def mean_kl(wanted: torch.Tensor, found: torch.Tensor) -> float:
    return float(
        torch.nn.functional.kl_div(
            found.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean"
        )
    )


def loaded(path: Path, work: Path) -> torch.Tensor:
    work.mkdir()
    with WeightFile(work / "weights.bin") as weights:
        return logits(load_model(resolve(str(path), work), weights))


@pytest.mark.parametrize("name", SCALINGS)
def test_scaling_in_fields_is_applied(name: str, tmp_path: Path) -> None:
    scaling, fields = SCALINGS[name]
    model = make_model(configured("LlamaConfig", rope_scaling=scaling)())
    named = {f"llama.rope.{field}": value for field, value in fields.items()}
    scaled = write_gguf(
        tmp_path / "scaled.gguf", tiny_fields(model.config) | named, tiny_tensors(model)
    )
    plain = write_gguf(tmp_path / "plain.gguf", tiny_fields(model.config), tiny_tensors(model))
    wanted = logits(model)
    without = mean_kl(wanted, loaded(plain, tmp_path / "a"))
    assert without > 1e-3, f"without the scaling KL is {without}: this proves nothing"
    assert mean_kl(wanted, loaded(scaled, tmp_path / "b")) < 1e-6


def with_factors(path: Path, model: Any, factors: np.ndarray[Any, Any]) -> Path:
    tensors = tiny_tensors(model) | {"rope_freqs.weight": factors.astype(np.float32)}
    return write_gguf(path, tiny_fields(model.config), tensors)


def test_llama_3s_factors_are_applied_and_exported(tmp_path: Path) -> None:
    model = make_model(configured("LlamaConfig", rope_scaling=LLAMA3_ROPE)())
    plain = make_model(CONFIGS["llama"]())
    factors = (
        plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
    ).numpy()  # what a converter stores
    assert factors.max() == pytest.approx(4.0)
    path = with_factors(tmp_path / "m.gguf", model, factors)
    assert mean_kl(logits(model), loaded(path, tmp_path / "a")) < 1e-6
    assert main([str(path), "--out", str(tmp_path / "out"), "--quantise", "none"]) == 0
    assert read_manifest(tmp_path / "out").quality.mean_kl < 1e-4


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        (np.ones(7), "rope_freqs.weight has 7 values, the model 8 frequencies"),
        (np.zeros(8), "rope_freqs.weight has values that are not above 0"),
    ],
)
def test_factors_that_can_not_be_applied_are_refused(
    factors: np.ndarray[Any, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(CONFIGS["llama"]())
    path = with_factors(tmp_path / "m.gguf", model, factors)
    assert refusal(path, tmp_path / "models", capsys).endswith(said)


def test_yarn_without_the_context_that_it_extends_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yarn = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    path = write_gguf(tmp_path / "m.gguf", tiny_fields() | yarn, tiny_tensors())
    assert refusal(path, tmp_path / "models", capsys).endswith(
        "rope.scaling.original_context_length is None, expected an int >= 1 beside the type 'yarn'"
    )
