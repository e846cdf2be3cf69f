"""Encoders of every family give torch's vectors, in padded batches, pooled as their files say."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.encoder_manifest import EncoderManifest
from app.manifest import read_any_manifest
from app.runtime.encoder import Row
from app.runtime.ort_encoder import OrtEncoder
from export.__main__ import main
from export.encoders.recipe import POOLING_MODES
from tests.export.tiny_encoders import FAMILIES, save_encoder, write

# torch 2.13, at the import of Transformers' ModernBERT, which asks for torch.compile
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)


def exported(folder: Path, *options: str) -> EncoderManifest:
    assert main([str(folder), "--out", str(folder / "out"), *options]) == 0
    manifest = read_any_manifest(folder / "out")
    assert isinstance(manifest, EncoderManifest)
    return manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_torchs_vectors(tmp_path, family):
    pooling = {"pooling_mode_lasttoken": True} if family == "qwen3" else None
    save_encoder(tmp_path, FAMILIES[family](), pooling=pooling)
    manifest = exported(tmp_path)
    assert (manifest.kind, manifest.graph.width, manifest.scheme) == ("embedding", 64, "none")
    assert manifest.normalised
    assert manifest.closeness.min_cosine > 1 - 1e-6
    assert manifest.closeness.max_difference < 1e-5
    assert manifest.graph.context_length == 128, "of 130 positions, or as the tokenizer says"


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert"])
def test_a_classifier_of_one_label_is_a_reranker(tmp_path, family):
    save_encoder(tmp_path, FAMILIES[family](), labels=1)
    manifest = exported(tmp_path)
    assert (manifest.kind, manifest.graph.width) == ("reranking", 1)
    assert manifest.closeness.min_cosine > 1 - 1e-6
    assert manifest.graph.token_types is (family == "bert")


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_pooling_is_what_the_models_files_say(tmp_path, mode):
    save_encoder(tmp_path, FAMILIES["bert"](), pooling={mode: True}, normalise=False)
    manifest = exported(tmp_path)
    assert manifest.pooling == POOLING_MODES[mode]
    assert not manifest.normalised
    encoder = OrtEncoder(tmp_path / "out", manifest.graph, capacity=128)
    [short, _] = encoder.run([Row([0, 7, 1]), Row([0, *range(20, 60), 1])])
    [alone] = encoder.run([Row([0, 7, 1])])
    np.testing.assert_allclose(short, alone, atol=1e-5, err_msg="padding is not pooled")


@pytest.mark.parametrize("scheme", ["int8", "w8a8"])
def test_eight_bits_pass_a_gate_or_are_refused(tmp_path, scheme, capsys):
    save_encoder(tmp_path, FAMILIES["bert"]())
    manifest = exported(tmp_path, "--quantise", scheme)
    assert manifest.scheme == scheme
    assert 0.99 < manifest.closeness.mean_cosine < 1
    options = ["--out", str(tmp_path / "none"), "--quantise", scheme, "--gate", "1e-9"]
    assert main([str(tmp_path), *options]) == 1
    assert "is too far from torch" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_prompts_and_sizes_come_from_the_models_files(tmp_path):
    config = FAMILIES["bert"]()
    config.matryoshka_dimensions = [16, 32, 64]
    prompts = {"prompts": {"query": "query: ", "doc": ""}, "default_prompt_name": "doc"}
    save_encoder(tmp_path, config, prompts=prompts)
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 100})
    manifest = exported(tmp_path)
    assert manifest.prompts == prompts["prompts"]
    assert manifest.default_prompt == "doc"
    assert manifest.dimensions == (16, 32)
    assert manifest.graph.context_length == 100


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("modules.json", [], "its modules are []"),
        ("modules.json", {}, "expected a list of modules"),
        ("modules.json", [{"type": "x.Transformer", "path": "../up"}], "expected a folder below"),
        (
            "modules.json",
            [
                {"type": "x.Transformer"},
                {"type": "x.Pooling", "path": "1_Pooling"},
                {"type": "CNN"},
            ],
            "has the module 'CNN'",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "best"}, "the pooling is ['best']"),
        ("1_Pooling/config.json", {}, "expected one of cls, mean"),
        ("config_sentence_transformers.json", {"prompts": ["x"]}, "prompts is ['x']"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "not one of []"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
    ],
)
def test_what_can_not_be_served_is_refused_by_name(tmp_path, capsys, path, value, said):
    save_encoder(tmp_path, FAMILIES["bert"]())
    write(tmp_path / path, value)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_its_makers_code_is_refused_in_a_sentence(tmp_path, capsys):
    kind = "makers_bert"
    save_encoder(tmp_path, FAMILIES["bert"]())
    config = json.loads((tmp_path / "config.json").read_text())
    code = {name: f"makers/code--modeling.{name}" for name in ("AutoConfig", "AutoModel")}
    write(tmp_path / "config.json", {**config, "model_type": kind, "auto_map": code})
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = (
        f"refused: '{kind}' is not supported: it is code of its makers', which is never executed,"
    )
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_classifier_of_several_labels_is_refused(tmp_path, capsys):
    save_encoder(tmp_path, FAMILIES["bert"](), labels=3)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "it has 3 labels, a reranker has 1" in capsys.readouterr().err


def test_weights_that_are_missing_are_refused(tmp_path, capsys):
    save_encoder(tmp_path, FAMILIES["bert"]())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "its weights lack encoder.layer.2" in capsys.readouterr().err
