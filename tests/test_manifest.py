"""A damaged manifest is a broken model, and the others stay usable."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.catalog.catalog import Catalog
from app.encoder_manifest import EncoderManifest
from app.errors import ModelBroken
from app.manifest import MANIFEST_NAME, read_any_manifest, read_manifest
from app.settings import Settings
from tests.fakes import BYTES
from tests.tiny_encoder import write_tiny_encoder
from tests.tiny_model import write_tiny_model

GOOD, BAD = "tiny/good", "tiny/bad"


def damage(folder: Path, *path: str, value: object) -> None:
    """Change one field of a manifest."""
    file = folder / MANIFEST_NAME
    manifest: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    at = manifest
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    file.write_bytes(msgspec.json.encode(manifest))


DAMAGED = [
    (("graph", "vocab_size"), 2**40),
    (("graph", "vocab_size"), 0),
    (("graph", "num_layers"), 0),
    (("graph", "num_layers"), 10**9),
    (("graph", "num_kv_heads"), -1),
    (("graph", "head_dim"), 0),
    (("graph", "context_length"), -5),
    (("graph", "context_length"), 2**60),
    (("graph", "kv_dtype"), "int3"),
    (("graph", "file"), "../model.onnx"),
    (("graph", "file"), "/etc/passwd"),
    (("graph", "file"), ".."),
    (("graph", "file"), "other.onnx"),
    (("graph", "file"), "a\0b"),
    (("tokens", "eos_ids"), [-1]),
    (("tokens", "eos_ids"), [258]),
    (("tokens", "eos_ids"), [2**40]),
    (("tokens", "bos_id"), 258),
    (("created",), "yesterday"),
    (("created",), "0001-01-01T00:00:00"),
    (("files", "../x"), {"size_bytes": 1, "sha256": ""}),
    (("files",), {}),
    (("format",), 99),
    (("quality", "mean_kl"), "none"),
]


@pytest.mark.parametrize(("path", "value"), DAMAGED)
async def test_a_manifest_that_can_not_be_is_a_broken_model(tmp_path, path, value):
    for model_id in (GOOD, BAD):
        folder = write_tiny_model(tmp_path, model_id, vocab_size=258, tokenizer=BYTES)
    damage(folder, *path, value=value)
    with pytest.raises(ModelBroken) as refused:
        read_manifest(folder)
    assert len(str(refused.value)) < 500
    catalog = Catalog(Settings(models_dir=tmp_path))
    assert [facts.model_id for facts in await catalog.available()] == [GOOD]
    with pytest.raises(ModelBroken):
        await catalog.load(BAD)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("graph", "vocab_size"), 257),
        (("graph", "vocab_size"), 10_000),
        (("graph", "num_kv_heads"), 3),
        (("graph", "head_dim"), 8),
        (("graph", "num_layers"), 1),
    ],
)
async def test_a_manifest_of_another_graph_is_a_broken_model(tmp_path, path, value):
    folder = write_tiny_model(tmp_path, BAD, vocab_size=258, tokenizer=BYTES)
    damage(folder, *path, value=value)
    catalog = Catalog(Settings(models_dir=tmp_path))
    with pytest.raises(ModelBroken, match=r"model\.onnx"):
        await catalog.load(BAD)


@pytest.mark.parametrize(
    ("names", "rank", "said"),
    [
        (("a", "A"), 4, "'a', a tag or given twice"),
        (("latest",), 4, "'latest', a tag or given twice"),
        (("a\n",), 4, "matching regex"),
        (("a:b",), 4, "matching regex"),
        (("a",), -5, ">= 1"),
    ],
)
def test_adapters_that_can_not_be_are_a_broken_model(tmp_path, names, rank, said):
    folder = write_tiny_model(tmp_path, BAD)
    written = msgspec.json.decode((folder / MANIFEST_NAME).read_bytes())
    one = {"rank": rank, "targets": [], "base": "", "sha256": "", "size_bytes": 1}
    one["quality"] = written["quality"]
    damage(folder, "adapters", value=[{"name": name, **one} for name in names])
    damage(folder, "graph", "num_adapters", value=len(names))
    with pytest.raises(ModelBroken, match=said):
        read_manifest(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_a_broken_model(tmp_path, content):
    folder = write_tiny_model(tmp_path, BAD)
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ModelBroken):
        read_manifest(folder)


def test_a_manifest_from_before_there_were_kinds_is_a_text_model(tmp_path):
    folder = write_tiny_model(tmp_path, GOOD)
    file = folder / MANIFEST_NAME
    told: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    assert told.pop("kind") == "text"
    file.write_bytes(msgspec.json.encode(told))
    assert read_manifest(folder).kind == "text"


DAMAGED_ENCODERS = [
    (("kind",), "painting"),
    (("kind",), "reranking"),
    (("graph", "width"), 0),
    (("graph", "context_length"), 0),
    (("graph", "num_heads"), -1),
    (("graph", "pad_id"), 258),
    (("graph", "file"), "other.onnx"),
    (("scheme",), "int3"),
    (("dimensions",), [4, 9]),
    (("default_prompt",), "query"),
    (("closeness", "mean_cosine"), "near"),
    (("files",), {}),
    (("format",), 99),
]


@pytest.mark.parametrize(("path", "value"), DAMAGED_ENCODERS)
async def test_an_encoder_that_can_not_be_is_a_broken_model(tmp_path, path, value):
    for model_id in (GOOD, BAD):
        folder = write_tiny_encoder(tmp_path, model_id)
    assert isinstance(read_any_manifest(folder), EncoderManifest)
    damage(folder, *path, value=value)
    with pytest.raises(ModelBroken):
        read_any_manifest(folder)
    catalog = Catalog(Settings(models_dir=tmp_path))
    assert [facts.model_id for facts in await catalog.available()] == [GOOD]
    with pytest.raises(ModelBroken):
        await catalog.load(BAD)


@pytest.mark.parametrize(
    ("path", "value"), [(("graph", "width"), 9), (("graph", "token_types"), True)]
)
async def test_an_encoder_of_another_graph_is_a_broken_model(tmp_path, path, value):
    damage(write_tiny_encoder(tmp_path, BAD), *path, value=value)
    with pytest.raises(ModelBroken, match=r"model\.onnx"):
        await Catalog(Settings(models_dir=tmp_path)).load(BAD)


def test_an_encoder_is_not_read_as_a_text_model(tmp_path):
    with pytest.raises(ModelBroken, match="kind is 'embedding', expected 'text'"):
        read_manifest(write_tiny_encoder(tmp_path, GOOD))
