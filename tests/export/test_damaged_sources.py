"""Damaged GGUF files and folders: one sentence that names the file, the field and the value."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from app.manifest import read_manifest
from export.__main__ import main
from export.errors import QualityRefused, SourceUnusable, UnsupportedModel
from export.gguf_file import read_gguf
from export.reach import context_length
from export.source import model_id_of
from export.validate import refuse_poor_page
from tests.export.refusals import refusal
from tests.export.tiny import CONFIGS, save_tiny
from tests.export.tiny_gguf import (
    ARRAY,
    STRING,
    UINT32,
    Raw,
    gguf_bytes,
    text,
    tiny_fields,
    tiny_tensors,
    write_gguf,
)

Refuse = Callable[[Path], str]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4096\n"
HTML = b"\n<!DOCTYPE html><html><body>Not found</body></html>"
CUT = Raw(struct.pack("<I", STRING) + struct.pack("<Q", 2) + b"\xff\xfe")
"""A text that is not UTF-8."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in order, to be copied."""
    save_tiny(tmp_path_factory.mktemp("whole") / "source", CONFIGS["llama"]())
    return tmp_path_factory.getbasetemp() / "whole0" / "source"


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "source"))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    return lambda source: refusal(source, tmp_path / "models", capsys)


def header(num_tensors: int, num_fields: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_fields) + rest


ENDLESS = header(0, 1, text("a") + struct.pack("<IIQ", ARRAY, UINT32, 2**40))


def test_array_of_a_trillion_in_49_bytes_is_refused_at_once(tmp_path: Path) -> None:
    assert len(ENDLESS) == 49
    path = tmp_path / "m.gguf"
    path.write_bytes(ENDLESS)
    start = time.process_time()
    with pytest.raises(SourceUnusable) as refused:
        read_gguf(path)
    assert str(refused.value) == (
        f"{path}: length of 'a' is {2**40}, what is left of the file has room for 0"
    )
    assert time.process_time() - start < 1, "it counts to nothing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (LFS, "is a Git LFS pointer, `git lfs pull` fetches the file itself"),
        (HTML, "is an HTML page, not the file that its name says"),
        (b"PK\x03\x04 an archive", "begins with b'PK\\x03\\x04', a GGUF file with b'GGUF'"),
        (b"GG", "magic needs 4 bytes at byte 0, the file has 2"),
        (b"GGUF\x03", "version needs 4 bytes at byte 4, the file has 5"),
        (header(0, 0, version=1), "version is 1, expected 2 or 3"),
        (header(2**60, 0), f"number of tensors is {2**60}, what is left"),
        (header(0, 2**63), f"number of fields is {2**63}, what is left"),
        (header(0, 1, struct.pack("<Q", 2**62) + bytes(9)), "length of name of field 0 is"),
        (header(0, 1, text("a") + struct.pack("<IB", 77, 0)), "'a' has a value of type 77"),
        (header(0, 2, 2 * (text("a") + struct.pack("<II", UINT32, 5))), "field 'a' is there twice"),
        (header(0, 1, text("a") + CUT), "'a' is not UTF-8: byte 0 is 0xff"),
        (
            header(0, 1, text("a") + struct.pack("<I", ARRAY) * 9 + bytes(99)),
            "what is left of the file has room for",
        ),
        (ENDLESS, f"length of 'a' is {2**40}"),
    ],
)
def test_damaged_header_is_one_sentence(
    content: bytes, said: str, tmp_path: Path, refused: Refuse
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    sentence = refused(path)
    assert sentence.startswith(str(path))
    assert said in sentence


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("general.architecture", None, "general.architecture is None, expected a text"),
        ("general.architecture", 7, "general.architecture is 7, expected a text"),
        ("general.architecture", "unheard-of", "unheard-of.context_length is None"),
        ("general.alignment", 0, "general.alignment is 0, expected a power of two"),
        ("general.alignment", "x", "general.alignment is 'x', expected a power of two"),
        ("general.license", 3, "general.license is 3, expected a text"),
        ("llama.block_count", 2**31, "llama.block_count is 2147483648, but the file holds 21"),
        ("llama.block_count", 0, "llama.block_count is 0, expected an int >= 1"),
        ("llama.block_count", None, "llama.block_count is None, expected an int >= 1"),
        ("llama.block_count", [2, 2], "llama.block_count is [2, 2], expected an int >= 1"),
        ("llama.embedding_length", 2**40, "hidden_size is 1099511627776, expected an int of 1"),
        ("llama.context_length", 2**40, "max_position_embeddings is 1099511627776, expected"),
        ("llama.attention.head_count", 2**33, "num_attention_heads is 8589934592, expected"),
        ("llama.attention.head_count_kv", 0, "num_key_value_heads is 0, expected an int of 1"),
        ("llama.attention.layer_norm_rms_epsilon", None, "rms_epsilon is None, expected a number"),
        ("llama.attention.layer_norm_rms_epsilon", "x", "rms_epsilon is 'x', expected a number"),
        ("llama.vocab_size", 2**40, "vocab_size is 1099511627776, expected an int of 1"),
        ("llama.vocab_size", 319, "model.embed_tokens.weight has [320, 64], expected [319, 64]"),
        ("tokenizer.ggml.model", None, "its tokenizer is None with pre-tokenizer 'gpt-2'"),
        ("tokenizer.ggml.pre", ["x"], "pre-tokenizer ['x']"),
        ("tokenizer.ggml.tokens", None, "tokenizer.ggml.tokens is None, expected texts"),
        ("tokenizer.ggml.tokens", [1, 2], "tokenizer.ggml.tokens is [1, 2], expected texts"),
        ("tokenizer.ggml.merges", ["ab"], "tokenizer.ggml.merges has 'ab', not two tokens"),
        ("tokenizer.ggml.merges", ["☃ ☃"], "tokenizer.ggml: "),
        ("tokenizer.ggml.token_type", [1], "token_type is [1], expected 320 numbers"),
        ("tokenizer.ggml.bos_token_id", "<s>", "bos_token_id is '<s>', there are 320 tokens"),
        ("tokenizer.chat_template", 5, "tokenizer.chat_template is 5, expected a text"),
        ("tokenizer.chat_template", CUT, "'tokenizer.chat_template' is not UTF-8: byte 0 is"),
    ],
)
def test_damaged_metadata_is_one_sentence(
    field: str, value: object, said: str, tmp_path: Path, refused: Refuse
) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_fields() | {field: value}, tiny_tensors())
    sentence = refused(path)
    assert "m.gguf: " in sentence
    assert said in sentence


def tensor_entry(name: str, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return text(name) + shape + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([tensor_entry("t", [])], "tensor 't' has 0 dimensions, expected 1 … 4"),
        ([tensor_entry("t", [1] * 5)], "tensor 't' has 5 dimensions, expected 1 … 4"),
        ([tensor_entry("t", [8], kind=999)], "tensor 't' has type 999, which is unknown"),
        ([tensor_entry("t", [0])], "tensor 't' has dimensions [0], expected none of 0"),
        ([tensor_entry("t", [33], kind=8)], "tensor 't' has dimensions [33], expected none of 0"),
        ([tensor_entry("t", [2**40])], "tensor 't' ends at byte 4398046511104 of the data"),
        ([tensor_entry("t", [2**32, 2**32])], "tensor 't' ends at byte"),
        ([tensor_entry("t", [8], offset=2**50)], f"tensor 't' ends at byte {2**50 + 32}"),
        ([tensor_entry("t", [8])] * 2, "tensor 't' is there twice"),
        ([tensor_entry("t", [8]), tensor_entry("u", [8])], "its tensors take 64 bytes of data"),
    ],
)
def test_damaged_tensor_is_one_sentence(
    entries: list[bytes], said: str, tmp_path: Path, refused: Refuse
) -> None:
    path = tmp_path / "m.gguf"
    start = header(len(entries), 0, b"".join(entries))
    path.write_bytes(start + bytes(-len(start) % 32) + bytes(32))
    assert said in refused(path)


def test_truncated_gguf_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    content = gguf_bytes(tiny_fields(), tiny_tensors())
    path = tmp_path / "m.gguf"
    for size in np.random.default_rng(0).integers(1, len(content) - 1, 60).tolist():
        path.write_bytes(content[:size])
        with pytest.raises(SourceUnusable, match=r"m\.gguf"):
            read_gguf(path)


def test_gguf_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    field = struct.pack(">Q", 1) + b"a" + struct.pack(">IIQHH", ARRAY, 2, 2, 258, 1)
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 1) + field)
    assert read_gguf(path).fields == {"a": [258, 1]}


def test_a_file_in_capitals_or_without_a_suffix_is_a_file_too(tmp_path: Path) -> None:
    for name in ("Tiny.GGUF", "blob"):
        path = write_gguf(tmp_path / name, tiny_fields(), tiny_tensors())
        assert model_id_of(str(path)) == f"local/{path.stem}"
        assert main([str(path), "--out", str(tmp_path / "out"), "--only", "resolve"]) == 0
    assert model_id_of("nowhere/Tiny.GGUF") == "local/Tiny"


JSON_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("name", [*JSON_FILES, "model.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (LFS, "is a Git LFS pointer"),
        (HTML, "is an HTML page"),
    ],
)
def test_what_stands_in_a_files_place_is_named(
    name: str, content: bytes, said: str, folder: Path, refused: Refuse
) -> None:
    (folder / name).write_bytes(content)
    assert refused(folder).startswith(f"{folder / name} {said}")


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": "\xff"}', "is not UTF-8: byte 7 is 0xff"),
        (b'{"a": 1', "is not JSON: Expecting ',' delimiter at line 1, column 8"),
        (b"[1, 2]", "holds [1, 2], expected an object"),
        (b"[" * 100_000, "is not JSON: RecursionError"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON: Exceeds the limit"),
    ],
)
def test_broken_json_is_named(
    name: str, content: bytes, said: str, folder: Path, refused: Refuse
) -> None:
    (folder / name).write_bytes(content)
    assert refused(folder).startswith(f"{folder / name} {said}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": None}, "source"),
        ({"model_type": "unheard-of"}, "unheard-of"),
        ({"model_type": ["llama"]}, "source"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000, the limit is 4096"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, expected an int of 1 … 1024"),
        ({"num_hidden_layers": -5}, "num_hidden_layers is -5, expected"),
        ({"num_hidden_layers": "two"}, "source"),
        ({"num_hidden_layers": 3}, "its weights lack model.layers.2."),
        ({"num_hidden_layers": 1}, "its weights have model.layers.1."),
        ({"num_hidden_layers": 1000}, "num_hidden_layers is 1000, its weights are 21 tensors"),
        ({"num_hidden_layers": 20}, "the configuration asks for"),
        ({"hidden_size": 2**40}, "hidden_size is 1099511627776, expected an int of 1 … 1048576"),
        ({"hidden_size": 63}, "source"),
        ({"hidden_size": 0}, "hidden_size is 0, expected an int of 1 … 1048576"),
        ({"vocab_size": 2**40}, "vocab_size is 1099511627776, expected an int of 1 … 16777216"),
        ({"vocab_size": 2**23}, "the configuration asks for"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected"),
        ({"num_attention_heads": 1.5}, "source"),
        ({"head_dim": 10**9}, "head_dim is 1000000000, expected"),
        ({"max_position_embeddings": 2**40}, "max_position_embeddings is 1099511627776, expected"),
        ({"max_position_embeddings": -5}, "max_position_embeddings is -5, expected"),
        ({"hidden_act": "unheard-of"}, "unheard-of"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps is 'x', expected a number above 0"),
        ({"rope_theta": "x"}, "source"),
        ({"rope_scaling": {"rope_type": "unheard-of"}}, "unheard-of"),
        ({"rope_scaling": 5}, "source"),
        ({"pad_token_id": 10**9}, "source"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "source"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "source"),
        ({"quantization_config": {"quant_method": "fp8"}}, "source"),
        ({"quantization_config": {"quant_method": "unheard-of"}}, "source"),
        ({"quantization_config": "gptq"}, "source"),
    ],
)
def test_broken_configuration_is_one_sentence(
    change: dict[str, Any], said: str, folder: Path, refused: Refuse
) -> None:
    path = folder / "config.json"
    written = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in written.items() if v is not None}))
    sentence = refused(folder)
    assert str(folder) in sentence
    assert said in sentence


def test_a_number_that_is_null_is_named(folder: Path, refused: Refuse) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": None}))
    assert "num_hidden_layers is null, expected an int" in refused(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_quantised_source_names_its_method(method: str, folder: Path, refused: Refuse) -> None:
    path = folder / "config.json"
    quantised = {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 32}}
    path.write_text(json.dumps(json.loads(path.read_text()) | quantised))
    assert f"quantization_config.quant_method is '{method}'" in refused(folder)


def test_masks_of_a_long_context_are_refused_before_they_are_made(
    tmp_path: Path, refused: Refuse
) -> None:
    save_tiny(tmp_path / "source", CONFIGS["gpt2"]())
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_positions": 1 << 20}))
    sentence = refused(tmp_path / "source")
    assert "the configuration asks for" in sentence or "the model's buffers take" in sentence


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:100], "model.safetensors"),
        (lambda content: content[:-100], "model.safetensors"),
        (lambda content: struct.pack("<Q", 2**60) + content[8:], "model.safetensors"),
        (lambda content: content.replace(b'"F32"', b'"F33"'), "model.safetensors"),
        (lambda content: content.replace(b"[320,64]", b"[640,64]"), "model.safetensors"),
        (lambda content: content.replace(b"norm", b"n\xffrm"), "model.safetensors"),
    ],
)
def test_damaged_weights_are_named(
    damage: Callable[[bytes], bytes], said: str, folder: Path, refused: Refuse
) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    damaged = damage(content)
    assert damaged != content, "else nothing is damaged"
    path.write_bytes(damaged)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({}, "weight_map is None, expected file names"),
        ({"weight_map": {"a": "there/is/none"}}, "names 'there/is/none', which is missing"),
        ({"weight_map": {"a": 5}}, "names '5', which is missing"),
    ],
)
def test_damaged_index_is_named(
    index: dict[str, Any], said: str, folder: Path, refused: Refuse
) -> None:
    (folder / "model.safetensors").unlink()
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    assert refused(folder) == f"{path}: weight_map {said.removeprefix('weight_map ')}"


def test_pickled_weights_are_read_and_damaged_ones_refused(folder: Path, refused: Refuse) -> None:
    path = folder / "pytorch_model.bin"
    (folder / "model.safetensors").unlink()
    assert refused(folder).startswith(f"{folder} has no model.safetensors")
    path.write_bytes(LFS)
    assert refused(folder).startswith(f"{path} is a Git LFS pointer")
    path.write_bytes(b"\x80\x04\x95 no weights at all")
    assert str(folder) in refused(folder)


def test_template_that_is_not_utf_8_is_named(folder: Path, refused: Refuse) -> None:
    (folder / "chat_template.jinja").write_bytes(b"{{ \xff }}")
    assert refused(folder) == f"{folder / 'chat_template.jinja'} is not UTF-8: byte 3 is 0xff"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer.json", {"model": {"type": "BPE"}}),
        ("tokenizer.json", {"model": None}),
        ("tokenizer.json", {"added_tokens": [{"id": -1}]}),
        ("tokenizer.json", {"pre_tokenizer": {"type": "unheard-of"}}),
        ("tokenizer_config.json", {"tokenizer_class": "unheard-of"}),
        ("tokenizer_config.json", {"bos_token": 5}),
        ("tokenizer_config.json", {"chat_template": 5}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": "y"}}),
    ],
)
def test_damaged_tokenizer_is_one_sentence(
    name: str, change: dict[str, Any], folder: Path, refused: Refuse
) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert str(folder) in refused(folder)


def test_text_of_one_distinct_token_proves_nothing_and_is_refused(
    folder: Path, refused: Refuse
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)
    assert refused(folder) == (
        "nothing can be measured: its tokenizer makes 184 tokens of the page in the context of "
        "192, 1 of them different; at least 32 and 16 are needed"
    )


def test_figures_that_are_not_finite_are_refused(folder: Path, refused: Refuse) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] *= 1e6  # what torch expects is so unlikely that e to its power is not
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "is not finite: mean KL" in refused(folder)


def test_page_must_have_enough_tokens_and_enough_different_ones() -> None:
    refuse_poor_page(list(range(16)) * 2, 40)
    for ids in (list(range(31)), list(range(15)) * 4, []):
        with pytest.raises(QualityRefused, match=f"makes {len(ids)} tokens of the page"):
            refuse_poor_page(ids, 100)


@pytest.mark.parametrize("context", [40, 64, 79])
def test_context_under_80_is_compared_within_its_length(context: int, tmp_path: Path) -> None:
    config = CONFIGS["opt"]()
    config.max_position_embeddings = context
    save_tiny(tmp_path / "source", config)
    assert main([str(tmp_path / "source"), "--out", str(tmp_path / "out")]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.graph.context_length == context
    assert manifest.quality.text_tokens == context - 8


def test_context_that_holds_no_page_is_refused(tmp_path: Path, refused: Refuse) -> None:
    config = CONFIGS["llama"]()
    config.max_position_embeddings = 39
    save_tiny(tmp_path / "source", config)
    assert refused(tmp_path / "source") == (
        "llama is not supported: its context is 39 tokens, at least 40 are needed"
    )


def test_longrope_without_its_original_length_is_refused() -> None:
    config = CONFIGS["phi3-long"]()
    config.original_max_position_embeddings = None
    config.rope_scaling.pop("original_max_position_embeddings", None)
    with pytest.raises(UnsupportedModel, match="longrope scaling has no original_max_position"):
        context_length(config)


def test_model_that_repeats_a_token_is_compared_on_other_tokens(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "source", CONFIGS["llama"]())
    with torch.no_grad():  # the output layer prefers one token whatever the text is
        model.lm_head.weight.zero_()
        model.lm_head.weight[5] = 0.01 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "source")
    out = tmp_path / "out"
    main([str(tmp_path / "source"), "--out", str(out), "--keep-work"])
    findings = json.loads((tmp_path / ".work" / "out" / "findings.json").read_text())
    assert findings["greedy_distinct"] >= 9
