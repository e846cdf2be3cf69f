"""Sources that would be exported without complaint as another model than they are.

The comparison with torch can't notice any of them: torch has loaded the same wrong model.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from app.contract.sampling import SamplingDefaults
from app.manifest import read_manifest
from bench.families.tiny import VOCAB, tiny_tokenizer
from export import tied_weights
from export.__main__ import main
from export.folder import sampling_of
from export.source import resolve
from export.torch_model import load_model
from export.weight_file import WeightFile
from tests.export import quantised as q
from tests.export.refusals import refusal
from tests.export.test_checkpoints import VARIANTS
from tests.export.tiny import CONFIGS, save_tiny
from tests.export.tiny_gguf import tiny_fields, tiny_tensors, write_gguf

NORM = "model.layers.1.post_attention_layernorm.weight"
BIAS = "model.layers.0.self_attn.q_proj.bias"
UP = "model.layers.0.mlp.up_proj.weight"

Refuse = Callable[[Path], str]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "source", CONFIGS["llama"]())
    return tmp_path / "source"


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    return lambda source: refusal(source, tmp_path / "models", capsys)


def change(path: Path, **values: Any) -> None:
    """Set fields of a JSON file; None removes one."""
    written = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in written.items() if v is not None}))


def without_norm(tensors: Tensors) -> None:
    del tensors[NORM]


def with_bias(tensors: Tensors) -> None:
    tensors[BIAS] = torch.ones(64)


def with_narrow_layer(tensors: Tensors) -> None:
    tensors[UP] = tensors[UP][:, :32].clone()


def with_nan(tensors: Tensors) -> None:
    tensors[UP][3, 4] = torch.nan


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_norm, f"its weights lack {NORM}, which the model needs"),
        (with_bias, f"its weights have {BIAS}, which the model doesn't use"),
        (with_narrow_layer, f"{UP} has [96, 32], expected [96, 64]"),
        (with_nan, f"{UP} has values that are not finite"),
    ],
)
def test_weights_that_are_not_the_configurations_are_refused_by_name(
    damage: Callable[[Tensors], None], said: str, folder: Path, refused: Refuse
) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    damage(tensors)
    save_file(tensors, weights, {"format": "pt"})
    assert refused(folder).endswith(said)


def test_a_tied_output_layer_that_is_not_stored_is_no_missing_weight(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "source", CONFIGS["llama-3-rope"]())
    assert model.config.tie_word_embeddings
    assert "lm_head.weight" not in load_file(tmp_path / "source" / "model.safetensors")
    assert (
        main([str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--only", "resolve"]) == 0
    )
    assert main([str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--only", "trace"]) == 0


@pytest.mark.parametrize("place", [0, -1])
def test_a_tied_output_layer_that_differs_from_the_embedding_is_refused(
    place: int, tmp_path: Path, refused: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tied_weights, "PART", 1_000)
    save_with_head(tmp_path / "source", place, 0.25)
    assert refused(tmp_path / "source") == (
        f"folder {tmp_path / 'source'}: model.embed_tokens.weight and lm_head.weight are stored "
        "with different values, and the model has one weight for both; if both are meant, "
        "tie_word_embeddings has to be false in config.json"
    )


def test_a_tied_output_layer_that_equals_the_embedding_is_read(tmp_path: Path) -> None:
    embedding = save_with_head(tmp_path / "source", 0, 0.0)
    with WeightFile(tmp_path / "weights.bin") as weights:
        model = load_model(resolve(str(tmp_path / "source"), tmp_path / "work"), weights)
        assert torch.equal(model.lm_head.weight, embedding)
        assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_quantised_output_layer_beside_a_tied_embedding_is_refused(
    tmp_path: Path, refused: Refuse
) -> None:
    save_with_head(tmp_path / "source", 0, 0.0)
    q.save_quantised(tmp_path / "source", *VARIANTS["fp8"], r"lm_head\.weight")
    assert "lm_head.weight are stored with different values" in refused(tmp_path / "source")


def save_with_head(folder: Path, place: int, more: float) -> torch.Tensor:
    """A model with a tied embedding, and an output layer beside it that differs in a number."""
    save_tiny(folder, CONFIGS["qwen2"]())
    tensors = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in tensors, "the model must be tied or this proves nothing"
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embedding.clone()
    tensors["lm_head.weight"].view(-1)[place] += more
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return embedding


def test_frequencies_that_old_checkpoints_stored_are_no_unexpected_weight(
    folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for step in ("resolve", "trace"):
        assert main([str(folder), "--out", str(tmp_path / "out"), "--only", step]) == 0


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"]
)
def test_folder_with_a_model_and_an_adapter_is_refused(
    name: str, folder: Path, refused: Refuse
) -> None:
    (folder / name).write_text(json.dumps({"peft_type": "LORA"}))
    assert f"{name} is an adapter beside a model" in refused(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, "type is 'longrope'"),
        ({"rope.scaling.attn_factor": 1.5}, "rope.scaling.attn_factor is 1.5"),
        ({"rope.dimension_count": 16, "attention.key_length": 8}, "key_length is 8"),
        ({"attention.sliding_window": 64}, "attention.sliding_window is 64"),
        ({"attention.scale": 0.5}, "attention.scale is 0.5"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"logit_scale": 0.0625}, "logit_scale is 0.0625"),
        ({"expert_count": 8}, "expert_count is 8"),
        ({"attention.a_new_idea": 1}, "attention.a_new_idea is 1"),
    ],
)
def test_metadata_that_the_model_in_torch_ignores_is_refused(
    fields: dict[str, Any], said: str, tmp_path: Path, refused: Refuse
) -> None:
    named = {f"llama.{name}": value for name, value in fields.items()}
    path = write_gguf(tmp_path / "m.gguf", tiny_fields() | named, tiny_tensors())
    sentence = refused(path)
    assert "m.gguf: llama." in sentence
    assert f"{said}, which is not supported" in sentence


def test_metadata_that_says_what_is_so_anyway_is_not_refused(tmp_path: Path) -> None:
    idle = {
        "llama.rope.scaling.type": "none",
        "llama.rope.scaling.finetuned": False,
        "llama.rope.scaling.original_context_length": 192,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.attention.causal": True,
        "llama.attention.sliding_window": 4096,
        "llama.expert_count": 0,
        "llama.tensor_data_layout": "Meta AI original pth",
        "general.quantization_version": 2,
        "general.tags": ["text-generation"],
    }
    path = write_gguf(tmp_path / "m.GGUF", tiny_fields() | idle, tiny_tensors())
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    assert read_manifest(tmp_path / "out").quality.mean_kl < 0.01


def test_linear_scaling_by_one_is_not_refused(tmp_path: Path) -> None:
    one = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0}
    path = write_gguf(tmp_path / "m.gguf", tiny_fields() | one, tiny_tensors())
    for step in ("resolve", "trace"):
        assert main([str(path), "--out", str(tmp_path / "out"), "--only", step]) == 0


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "a.new.tensor"])
def test_tensor_that_the_model_in_torch_ignores_is_refused(
    name: str, tmp_path: Path, refused: Refuse
) -> None:
    tensors = tiny_tensors() | {name: np.ones(8, np.float32)}
    sentence = refused(write_gguf(tmp_path / "m.gguf", tiny_fields(), tensors))
    assert sentence == f"m.gguf: its weights have {name}, which the model doesn't use"


def test_tensor_that_a_gguf_lacks_is_refused(tmp_path: Path, refused: Refuse) -> None:
    tensors = tiny_tensors()
    del tensors["blk.1.ffn_norm.weight"]
    sentence = refused(write_gguf(tmp_path / "m.gguf", tiny_fields(), tensors))
    assert sentence == f"m.gguf: its weights lack {NORM}, which the model needs"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("general.type", "adapter", "general.type is 'adapter', expected 'model'"),
        ("general.type", "mmproj", "general.type is 'mmproj', expected 'model'"),
        ("split.count", 3, "such as name-00001-of-00002.gguf with the same count"),
    ],
)
def test_gguf_that_is_no_whole_model_is_refused(
    field: str, value: object, said: str, tmp_path: Path, refused: Refuse
) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_fields() | {field: value}, tiny_tensors())
    assert refused(path).endswith(said)


def test_gguf_of_the_same_name_in_the_current_directory_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refuse
) -> None:
    tensors = tiny_tensors()
    del tensors["blk.1.ffn_norm.weight"]
    write_gguf(tmp_path / "here" / "m.gguf", tiny_fields(), tiny_tensors())
    asked = write_gguf(tmp_path / "there" / "m.gguf", tiny_fields(), tensors)
    monkeypatch.chdir(tmp_path / "here")
    assert NORM in refused(asked)


EVIL = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
pathlib.Path({mark!r}).touch()
class Config(LlamaConfig):
    model_type = {model_type!r}
class Model(LlamaForCausalLM):
    config_class = Config
class Tokens(PreTrainedTokenizerFast):
    pass
"""


@pytest.mark.parametrize("model_type", ["llama", "unheard-of"])
@pytest.mark.parametrize("part", ["config", "tokenizer"])
def test_a_folders_own_python_is_never_executed(
    model_type: str, part: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark), model_type=model_type))
    if part == "config":
        code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        change(folder / "config.json", model_type=model_type, auto_map=code)
    else:
        code = {"AutoTokenizer": [None, "evil.Tokens"]}
        kind = "PreTrainedTokenizerFast" if model_type == "llama" else "Tokens"
        change(folder / "tokenizer_config.json", tokenizer_class=kind, auto_map=code)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    done = main([str(folder), "--out", str(tmp_path / "out")])
    assert not mark.exists()
    assert done == (0 if model_type == "llama" else 1)


@pytest.mark.parametrize("eos", [VOCAB, 2**40, -1, [1, VOCAB]])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_end_of_text_outside_the_vocabulary_is_refused(
    name: str, eos: int | list[int], folder: Path, refused: Refuse
) -> None:
    change(folder / name, eos_token_id=eos)
    wrong = eos[-1] if isinstance(eos, list) else eos
    assert refused(folder).endswith(f"eos_token_id is {wrong}, the vocabulary has {VOCAB} tokens")


@pytest.mark.parametrize("eos", ["</s>", 1.0, True, [[1]], {"id": 1}])
def test_end_of_text_that_is_no_token_id_is_refused(
    eos: object, folder: Path, refused: Refuse
) -> None:
    change(folder / "config.json", eos_token_id=eos)
    assert refused(folder).endswith(f"config.json: eos_token_id is {eos!r}, expected token ids")


def test_what_the_makers_recommend_is_in_the_manifest(folder: Path, tmp_path: Path) -> None:
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "num_beams": 1}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **said}))
    assert main([str(folder), "--out", str(tmp_path / "out"), "--quantise", "none"]) == 0
    recommended = SamplingDefaults(temperature=0.6, top_k=20, top_p=0.9)
    assert read_manifest(tmp_path / "out").sampling == recommended


def test_greedy_makers_recommend_nothing(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"do_sample": False, "temperature": 0.6}))
    assert sampling_of(path) == SamplingDefaults()


@pytest.mark.parametrize(("name", "value"), [("temperature", -1), ("top_p", "x"), ("top_k", 1.5)])
def test_recommendations_that_can_not_be_are_refused(
    name: str, value: object, folder: Path, refused: Refuse
) -> None:
    content = {"do_sample": True, "eos_token_id": 1, name: value}
    (folder / "generation_config.json").write_text(json.dumps(content))
    assert "generation_config.json: Expected `" in refused(folder)
    assert f"`$.{name}`" in refused(folder)


@pytest.mark.parametrize("field", ["eos_token_id", "eot_token_id", "bos_token_id"])
def test_special_token_that_a_gguf_does_not_have_is_refused(
    field: str, tmp_path: Path, refused: Refuse
) -> None:
    fields = tiny_fields() | {f"tokenizer.ggml.{field}": VOCAB}
    sentence = refused(write_gguf(tmp_path / "m.gguf", fields, tiny_tensors()))
    assert sentence.endswith(f"m.gguf: tokenizer.ggml.{field} is {VOCAB}, there are {VOCAB} tokens")


def save_tokenizer(folder: Path, *tokens: AddedToken) -> Tokenizer:
    """Add tokens behind the tokenizer's own; the first gets the id VOCAB - 8."""
    backend = tiny_tokenizer().backend_tokenizer
    backend.add_tokens(list(tokens))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    return backend


def test_tokenizer_larger_than_the_embedding_is_refused(folder: Path, refused: Refuse) -> None:
    words = [AddedToken(f"word{i}", special=False) for i in range(20)]
    assert save_tokenizer(folder, *words).get_vocab_size() > VOCAB
    assert refused(folder).endswith(
        f"its tokenizer has 'word8' as token {VOCAB}, its embedding {VOCAB} rows"
    )


def test_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path, refused: Refuse) -> None:
    config = CONFIGS["llama"]()
    config.vocab_size = VOCAB - 20
    save_tiny(tmp_path / "source", config)
    assert refused(tmp_path / "source").endswith(
        f"its tokenizer has {VOCAB - 8} tokens, its embedding {VOCAB - 20} rows"
    )


def test_special_tokens_beyond_the_embedding_become_text(folder: Path, tmp_path: Path) -> None:
    images = [AddedToken(f"<image{i}>", special=True) for i in range(20)]
    assert save_tokenizer(folder, *images).encode("<image15>").ids == [VOCAB + 7]
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("<image7>").ids == [VOCAB - 1], "it has a row"
    ids = tokenizer.encode("<image15>").ids
    assert max(ids) < VOCAB
    assert tokenizer.decode(ids) == "<image15>"
