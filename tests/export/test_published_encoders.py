"""Nomic's and GTE's encoders, from their published names, against NumPy and Transformers 5."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from app.encoder_manifest import EncoderManifest
from app.manifest import read_any_manifest
from app.runtime.encoder import Row
from app.runtime.ort_encoder import OrtEncoder
from export.__main__ import main
from export.encoders.families import written_here
from export.encoders.recipe import Recipe
from export.encoders.torch_encoder import load_encoder
from export.errors import SourceUnusable, UnsupportedModel
from export.source import ModelSource
from tests.export import published_encoders as published
from tests.export.published_encoders import GTE, NOMIC, gte_weights, nomic_weights, save
from tests.export.tiny_encoders import write

RNG = np.random.default_rng(5)
TEXTS = [RNG.integers(2, published.VOCAB, size).tolist() for size in (1, 2, 9, 33, 64, 5)]
SCORER = {**GTE, "architectures": ["NewForSequenceClassification"], "type_vocab_size": 2}
NATIVE = {
    **{name: GTE[name] for name in GTE if name not in ("rope_theta", "rope_scaling", "pack_qkv")},
    "model_type": "gte",
    "rope_parameters": {"rope_theta": 20000.0, "rope_type": "default"},
}
"""GTE as Transformers 5 writes it."""
NATIVE_SCORER = {
    **NATIVE,
    "architectures": ["NewForSequenceClassification"],
    "type_vocab_size": 2,
}
NATIVE_NOMIC = {
    "model_type": "nomic_bert",
    **{name: NOMIC[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")},
    **{name: NOMIC[name] for name in ("intermediate_size", "rope_parameters", "vocab_size")},
}
"""Nomic as Transformers 5 writes it."""
IDS, TYPES = [0, 7, 40, 211, 9, 88, 1], [0, 0, 0, 0, 1, 1, 1]
RECORDED = {
    "nomic": [-0.04336, -0.111377, -0.059183, 0.304827, -0.055387, -0.048115],
    "gte": [-0.171459, 0.138803, -0.27861, 0.082987, 0.057434, 0.345895],
    "score": [0.567126],
}
"""The first numbers that Transformers 5.24.0 makes of these tokens with the same three folders."""


def exported(folder: Path, *options: str) -> EncoderManifest:
    assert main([str(folder), "--out", str(folder / "out"), *options]) == 0
    manifest = read_any_manifest(folder / "out")
    assert isinstance(manifest, EncoderManifest)
    return manifest


def served(folder: Path, manifest: EncoderManifest, rows: list[Row]) -> np.ndarray:
    encoder = OrtEncoder(folder / "out", manifest.graph, capacity=manifest.graph.context_length)
    return np.array([list(vector) for vector in encoder.run(rows)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True},
        {"rotary_emb_interleaved": True, "rotary_emb_fraction": 0.5},
        {"rotary_scaling_factor": 2.0, "max_trained_positions": 16},
    ],
    ids=["as published", "biases", "interleaved", "stretched"],
)
def test_nomics_vectors_are_those_of_plain_numpy(tmp_path, changes):
    config = {**NOMIC, **changes}
    weights = nomic_weights(config)
    save(tmp_path, config, weights)
    manifest = exported(tmp_path)
    assert (manifest.architecture, manifest.graph.width) == ("nomic_bert", published.HIDDEN)
    found = served(tmp_path, manifest, [Row(ids) for ids in TEXTS])
    expected = [
        published.mean_vector(published.nomic_states(config, weights, ids)) for ids in TEXTS
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [
        ({}, "new."),
        ({"type_vocab_size": 0, "rope_scaling": {"type": "ntk", "factor": 2.0}}, ""),
        ({"pack_qkv": False, "rope_scaling": None}, ""),
    ],
    ids=["multilingual", "english", "unpacked"],
)
def test_gtes_vectors_are_those_of_plain_numpy(tmp_path, changes, prefix):
    config = {**GTE, **changes}
    weights = gte_weights(config)
    stored = {prefix + name: value for name, value in weights.items()}
    if prefix:  # gte-multilingual-base brings a head for sparse vectors
        stored["classifier.weight"] = np.zeros((1, published.HIDDEN), np.float32)
        stored["classifier.bias"] = np.zeros(1, np.float32)
    save(tmp_path, config, stored)
    manifest = exported(tmp_path)
    assert (manifest.architecture, manifest.graph.width) == ("new", published.HIDDEN)
    found = served(tmp_path, manifest, [Row(ids) for ids in TEXTS])
    expected = [published.mean_vector(published.gte_states(config, weights, i)) for i in TEXTS]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gtes_scores_are_those_of_plain_numpy(tmp_path):
    weights = gte_weights(SCORER)
    save(tmp_path, SCORER, weights)
    manifest = exported(tmp_path)
    assert (manifest.kind, manifest.graph.token_types) == ("reranking", True)
    found = served(tmp_path, manifest, [Row(ids, len(ids) // 2) for ids in TEXTS])
    expected = [
        published.gte_score(
            SCORER,
            weights,
            ids,
            [int(len(ids) > 1 and i >= len(ids) // 2) for i in range(len(ids))],
        )
        for ids in TEXTS
    ]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("name", RECORDED)
def test_vectors_are_those_of_transformers_5(tmp_path, name):
    scoring = name == "score"
    config = {"nomic": NOMIC, "gte": NATIVE, "score": NATIVE_SCORER}[name]
    weights = nomic_weights(NOMIC) if name == "nomic" else gte_weights({"pack_qkv": True, **config})
    save(tmp_path, config, {key.replace("new.", "gte."): w for key, w in weights.items()})
    source = ModelSource(model_id=name, described=name, weights=str(tmp_path))
    recipe = Recipe() if scoring else Recipe(pooling=("mean",), normalised=True)
    encoder = load_encoder(source, recipe)
    types = torch.tensor([TYPES]) if scoring else None
    with torch.inference_mode():
        found = encoder(torch.tensor([IDS]), torch.tensor([len(IDS)]), types)[0]
    recorded = RECORDED[name]
    np.testing.assert_allclose(found[: len(recorded)], recorded, atol=2e-6)


@pytest.mark.parametrize("scheme", ["int8", "w8a8"])
@pytest.mark.parametrize("family", ["nomic", "gte"])
def test_eight_bits_pass_the_gate(tmp_path, family, scheme):
    config = NOMIC if family == "nomic" else GTE
    save(tmp_path, config, nomic_weights(NOMIC) if family == "nomic" else gte_weights(GTE))
    manifest = exported(tmp_path, "--quantise", scheme)
    assert manifest.scheme == scheme
    assert 0.99 < manifest.closeness.mean_cosine < 1


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({}, 128),
        ({"max_trained_positions": 64, "max_position_embeddings": 8192}, 64),
        ({"max_trained_positions": 64, "rotary_scaling_factor": 2.0, "n_positions": 100}, 100),
    ],
)
def test_nomics_context_is_what_it_was_trained_on_or_stretched_to(tmp_path, changes, context):
    config = {**NOMIC, **changes}
    save(tmp_path, config, nomic_weights(config))
    found = written_here(tmp_path, scoring=False)
    assert found is not None
    assert found[0].max_position_embeddings == context


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**NOMIC, "moe_every_n_layers": 2}, "its moe_every_n_layers is 2, mixtures of experts"),
        ({**NOMIC, "prenorm": True}, "its prenorm is True, only False is supported"),
        ({**NOMIC, "causal": True}, "its causal is True"),
        ({**NOMIC, "use_rms_norm": True}, "its use_rms_norm is True"),
        ({**NOMIC, "activation_function": "geglu"}, "its activation_function is 'geglu'"),
        ({**NOMIC, "rotary_emb_scale_base": 512}, "its rotary_emb_scale_base is 512"),
        ({**NOMIC, "rotary_emb_fraction": 0.0}, "its rotary_emb_fraction is 0.0"),
        ({**NOMIC, "rotary_emb_fraction": math.nan}, "its rotary_emb_fraction is nan, an even"),
        (
            {**NOMIC, "rope_parameters": {"rope_type": "yarn"}},
            "rope_parameters.rope_type is 'yarn'",
        ),
        ({**NOMIC, "n_head": 5, "num_attention_heads": 5}, "its n_head is 5, which doesn't divide"),
        ({**NOMIC, "is_decoder": True}, "its is_decoder is True"),
        ({**NOMIC, "talking_heads": 4}, "its talking_heads is 4, an option that is not known here"),
        ({**GTE, "logn_attention_scale": True}, "its logn_attention_scale is True"),
        ({**GTE, "layer_norm_type": "rms_norm"}, "its layer_norm_type is 'rms_norm'"),
        ({**GTE, "position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'"),
        ({**GTE, "hidden_act": "relu"}, "its hidden_act is 'relu', only 'gelu' is supported"),
        ({**GTE, "rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling.type is 'linear'"),
        (
            {**GTE, "rope_scaling": {"type": "ntk", "factor": 2, "mixed_b": 0.6}},
            "its rope_scaling.mixed_b is 0.6, an option that is not known here",
        ),
    ],
)
def test_an_option_that_is_not_computed_is_refused_with_its_value(tmp_path, config, said):
    write(tmp_path / "config.json", config)
    with pytest.raises(UnsupportedModel) as refused:
        written_here(tmp_path, scoring=False)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**NOMIC, "hidden_size": 48}, "n_embd is 32 and hidden_size is 48"),
        ({**NOMIC, "n_layer": 0, "num_hidden_layers": None}, "n_layer is 0, expected an int of 1"),
        ({**NOMIC, "n_layer": None, "num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({**NOMIC, "qkv_proj_bias": "no"}, "qkv_proj_bias is 'no', expected true or false"),
        ({**NOMIC, "id2label": ["LABEL_0"]}, r"id2label is \['LABEL_0'\], expected an object of"),
        ({**GTE, "id2label": {"zero": "LABEL_0"}}, "id2label is {'zero': 'LABEL_0'}, expected an"),
        ({**NATIVE_NOMIC, "max_position_embeddings": "many"}, "max_position_embeddings is 'many'"),
        ({**NATIVE_NOMIC, "max_position_embeddings": 0}, "max_position_embeddings is 0, expected"),
        ({**NOMIC, "max_trained_positions": 0}, "max_trained_positions is 0, expected an int"),
        ({**GTE, "rope_theta": -1}, "rope_theta is -1, expected a number above 0"),
        ({**GTE, "rope_theta": 10**400}, "expected a number above 0"),
        ({**GTE, "rope_theta": None}, "rope_theta is None, expected a number above 0"),
    ],
)
def test_a_damaged_option_is_refused_with_its_value(tmp_path, config, said):
    write(tmp_path / "config.json", config)
    with pytest.raises(SourceUnusable, match=said):
        written_here(tmp_path, scoring=False)


def test_a_nomic_reranker_is_refused(tmp_path, capsys):
    save(tmp_path, NOMIC, nomic_weights(NOMIC))
    (tmp_path / "modules.json").unlink()
    write(tmp_path / "config.json", {**NOMIC, "architectures": ["XForSequenceClassification"]})
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = "nomic_bert is not supported: rerankers of this type are not supported"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "stored", "said"),
    [
        ("encoder.layer.1.mlp.down_proj.bias", None, "its weights lack encoder.layer.1.mlp.down"),
        ("encoder.layer.2.mlp.down_proj.bias", 32, "its weights have encoder.layer.2.mlp.down"),
        ("embeddings.LayerNorm.bias", 31, "LayerNorm.bias has another size, expected [32]"),
    ],
    ids=["missing", "unused", "of another size"],
)
def test_weights_that_are_not_the_models_are_refused_by_name(tmp_path, capsys, name, stored, said):
    weights = gte_weights(GTE)
    weights.pop(name, None)
    if stored is not None:
        weights[name] = np.ones(stored, np.float32)
    save(tmp_path, GTE, weights)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_configuration_claims_is_not_allocated(tmp_path, capsys):
    save(tmp_path, {**NOMIC, "n_inner": 1 << 23, "intermediate_size": None}, nomic_weights(NOMIC))
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    asked = r"the configuration asks for \d{10} weights, there are \d{5}$"
    assert re.search(asked, capsys.readouterr().err.strip())


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((1 << 20, 1 << 20), "expected {'weight': [1048576, 1048576], 'bias': [1048576]}"),
        (
            (published.HIDDEN, 9),
            "has {'bias': [8], 'weight': [8, 32]}, expected {'weight': [9, 32]",
        ),
    ],
)
def test_sizes_of_a_dense_layer_are_compared_before_it_is_made(tmp_path, capsys, sizes, said):
    save(tmp_path, GTE, gte_weights(GTE))
    modules = json.loads((tmp_path / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    write(tmp_path / "modules.json", [*modules[:2], dense])
    told = {"in_features": sizes[0], "out_features": sizes[1], "activation_function": "Identity"}
    write(tmp_path / "2_Dense" / "config.json", told)
    layer = {"linear.weight": np.ones((8, published.HIDDEN)), "linear.bias": np.ones(8)}
    stored = {name: values.astype(np.float32) for name, values in layer.items()}
    save_file(stored, tmp_path / "2_Dense" / "model.safetensors")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
