"""`models/<publisher>--<name>/manifest.json`: the contract between export/ and app/.

export/ writes it last, so a folder with a manifest is a whole model. Knows nothing about
ONNX Runtime: it says what lies in the folder, not how to run it.

The decoder graph that it describes:

| input | type, shape | meaning |
|---|---|---|
| `input_ids` | int64 [B, S] | new tokens, right-padded |
| `query_seqlens` | int32 [B] | how many of the S are real, 0 … S |
| `seqlens_k` | int32 [B] | tokens in the cache after this step, minus 1 |
| `total_sequence_length` | int32 [1], on the CPU | the largest `seqlens_k` plus 1 |
| `logits_index` | int64 [B, L] | which of the S positions get logits |
| `adapter_ids` | int64 [B] | the adapter of each row, from 1, 0: none; if the graph has adapters |
| `past_key_values.N.key`, `.value` | kv_dtype [B, kv_heads, capacity, head_dim] | the cache |

Outputs: `logits` float32 [B, L, vocab_size]; `present.N.key`, `present.N.value`, bound to
the memory of the past.

The encoder graph is described in `app.encoder_manifest`.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.sampling import SamplingDefaults
from app.encoder_manifest import EncoderManifest, check_encoder
from app.errors import ModelBroken
from app.model_files import FORMAT, Arithmetic, Described, FileName, ModelFile, TokenId

MANIFEST_NAME: Final = "manifest.json"
ADAPTER_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
TAGS: Final = ("latest", "none", "w8a8", "int8", "int4")
"""What stands behind the colon of a model's name in Ollama's API and is no adapter."""
AdapterName = Annotated[str, Meta(pattern=ADAPTER_NAME)]
"""Without a colon, which stands before it in a model's name."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The decoder's shape: what the KV cache and the logits buffer are made from."""

    file: FileName
    num_layers: Annotated[int, Meta(ge=1, le=1_000)]
    num_kv_heads: Annotated[int, Meta(ge=1, le=4_096)]
    head_dim: Annotated[int, Meta(ge=1, le=4_096)]
    vocab_size: Annotated[int, Meta(ge=1, le=2**24)]
    context_length: Annotated[int, Meta(ge=1, le=2**27)]
    """Tokens; the longest the model was trained for."""
    kv_dtype: Literal["float32", "float16"]
    num_adapters: Annotated[int, Meta(ge=0, le=1_000)] = 0
    """Adapters that its rows may use."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Cache bytes that one token of one sequence occupies, over all layers."""
        width = {"float32": 4, "float16": 2}[self.kv_dtype]
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * width


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Special tokens that generation needs by id."""

    bos_id: TokenId | None
    eos_ids: tuple[TokenId, ...]
    """A sampled id out of these ends the text; it is not part of the text."""


class Quantisation(msgspec.Struct, frozen=True, kw_only=True):
    """How the weights are stored."""

    scheme: Literal["none", "w8a8", "int8", "int4"]
    """`w8a8`: weights in 8 bits, a scale for each output, times inputs in 8 bits, a scale for each
    token. `int8`, `int4`: weights in blocks that share a scale."""
    arithmetic: Arithmetic = "any"
    block_size: int = 0
    """Weights that share a scale; 0 without blocks."""
    batch_invariant: bool
    """Whether a row's logits are bitwise the same alone and in a batch, and wherever its prompt is
    cut, as measured at export, with steps of one token kept apart from wider ones, as the engine
    does."""
    min_first_chunk: int = 0
    """Tokens that the first chunk of a prompt must have for its logits to be bitwise the same
    wherever else it is cut; shorter prompts may be cut anywhere. The engine keeps to it. 0: not
    known, or they never are."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """The exported graph against torch in float32, on the text that export/ keeps."""

    text_tokens: int
    mean_kl: float
    """Mean Kullback-Leibler divergence, nats per token."""
    top1_agreement: float
    perplexity: float
    reference_perplexity: float


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter in a model's graph, served as `publisher/name:adapter`."""

    name: AdapterName
    rank: Annotated[int, Meta(ge=1)]
    """The greatest of its modules."""
    targets: tuple[str, ...]
    """The last parts of its modules' names, as `q_proj`."""
    base: str
    """The model that it was trained for, as its own configuration names it."""
    sha256: str
    """Of its weights as they were published."""
    size_bytes: Annotated[int, Meta(ge=0)]
    """Of its weights as they were published."""
    quality: Quality
    """The graph with it against torch with it."""


class Manifest(Described, frozen=True, kw_only=True):
    """One exported model that generates text."""

    kind: Literal["text"] = "text"
    """Manifests from before there were others don't say it."""
    graph: Graph
    tokens: Tokens
    quantisation: Quantisation
    quality: Quality
    chat: bool
    """Whether `chat_template.jinja` is there."""
    sampling: SamplingDefaults = SamplingDefaults()
    """What `generation_config.json` recommended."""
    adapters: tuple[Adapter, ...] = ()


AnyManifest = Manifest | EncoderManifest


class _Kind(msgspec.Struct):
    """What is read of a manifest before it is known which one it is."""

    format: int = FORMAT
    kind: str = "text"


def folder_name(model_id: str) -> str:
    """The folder of a model below the models directory: `a/b` → `a--b`."""
    return model_id.replace("/", "--")


def describe_file(path: Path) -> ModelFile:
    """Size and SHA-256 of a file, for the manifest."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFile(size_bytes=path.stat().st_size, sha256=digest)


def write_manifest(folder: Path, manifest: AnyManifest) -> None:
    """Write the manifest in one move, so that a reader sees none or a whole one."""
    part = folder / f"{MANIFEST_NAME}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    part.replace(folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model that generates text; see `read_any_manifest`.

    Raises:
        ModelBroken: it is of another kind, or as there.
    """
    manifest = read_any_manifest(folder)
    if not isinstance(manifest, Manifest):
        raise ModelBroken(f"{folder / MANIFEST_NAME}: kind is {manifest.kind!r}, expected 'text'")
    return manifest


def read_any_manifest(folder: Path) -> AnyManifest:
    """Read a folder's manifest and check that its files are there in their sizes.

    Contents are not hashed here: that would read every weight at each start.

    Raises:
        ModelBroken: the manifest or a file is missing, of another size, or unreadable; or what the
            manifest says can't be.
    """
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
        told = msgspec.json.decode(content, type=_Kind)
        manifest: AnyManifest
        if told.kind == "text":
            manifest = msgspec.json.decode(content, type=Manifest)
        else:
            manifest = msgspec.json.decode(content, type=EncoderManifest)
    except FileNotFoundError as error:
        raise ModelBroken(f"{path} does not exist") from error
    except (OSError, msgspec.DecodeError) as error:
        raise ModelBroken(f"{path}: {error}") from error
    if manifest.format != FORMAT:
        raise ModelBroken(f"{path}: format is {manifest.format}, this server reads {FORMAT}")
    _check(path, manifest)
    for name, expected in manifest.files.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != expected.size_bytes:
            found = "missing" if size is None else f"{size} bytes"
            raise ModelBroken(f"{file}: expected {expected.size_bytes} bytes, found {found}")
    return manifest


def _check(path: Path, manifest: AnyManifest) -> None:
    """Refuse what the types can't say.

    Raises:
        ModelBroken: with the field and its value.
    """
    vocab_size = manifest.graph.vocab_size
    if isinstance(manifest, Manifest):
        ids: tuple[int, ...] = (*manifest.tokens.eos_ids, manifest.tokens.bos_id or 0)
        if len(manifest.adapters) != manifest.graph.num_adapters:
            raise ModelBroken(
                f"{path}: graph.num_adapters is {manifest.graph.num_adapters}, "
                f"adapters are {len(manifest.adapters)}"
            )
        names = [adapter.name.lower() for adapter in manifest.adapters]
        for name in names:
            if name in TAGS or names.count(name) > 1:
                raise ModelBroken(f"{path}: adapters have the name {name!r}, a tag or given twice")
    else:
        ids = (manifest.graph.pad_id,)
        check_encoder(path, manifest)
    for token_id in ids:
        if token_id >= vocab_size:
            raise ModelBroken(
                f"{path}: token id {token_id} is outside the vocabulary, {vocab_size}"
            )
    if manifest.graph.file not in manifest.files:
        raise ModelBroken(f"{path}: graph.file is {manifest.graph.file!r}, which is not in files")
    try:
        datetime.fromisoformat(manifest.created).astimezone(UTC).timestamp()
    except (ValueError, OverflowError) as error:
        raise ModelBroken(f"{path}: created is {manifest.created!r}: {error}") from error
