"""A damaged manifest is a broken model, and the others stay usable."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.catalog.catalog import Catalog
from app.errors import ModelBroken
from app.manifest import MANIFEST_NAME, read_manifest
from app.settings import Settings
from tests.fakes import BYTES
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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_a_broken_model(tmp_path, content):
    folder = write_tiny_model(tmp_path, BAD)
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ModelBroken):
        read_manifest(folder)
