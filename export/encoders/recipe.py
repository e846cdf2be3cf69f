"""What a folder says its vectors are made from: sentence-transformers' files, or a scoring head.

`modules.json` lists the modules that a text goes through, each with a folder of its own. Knows
those files; no weights and no ONNX.
"""

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from export.errors import SourceUnusable, UnsupportedModel
from export.file_checks import read_object, read_text, refuse_stand_in, shown
from export.folder import CONFIG

MODULES: Final = "modules.json"
TRANSFORMER_CONFIG: Final = "sentence_bert_config.json"
PROMPTS_CONFIG: Final = "config_sentence_transformers.json"
POOLING_MODES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Switches of older files → the names of newer ones."""
ACTIVATIONS: Final = {"Identity": "", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}

Kind = Literal["text", "embedding", "reranking"]


class Dense(msgspec.Struct, frozen=True, kw_only=True):
    """A layer behind the pooling."""

    folder: str
    """Of its weights, below the model's."""
    inputs: int
    outputs: int
    bias: bool
    activation: str


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How texts become vectors; the contents of recipe.json."""

    pooling: tuple[str, ...] = ()
    """Out of the values of `POOLING_MODES`, their results side by side; empty: a reranker."""
    dense: tuple[Dense, ...] = ()
    normalised: bool = False
    max_tokens: int | None = None
    """Tokens of a text, as the model's own files limit it."""
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    dimensions: tuple[int, ...] = ()
    any_dimensions: bool = False


def kind_of(folder: Path) -> Kind:
    """Tell what a folder's model is for, by its files.

    Raises:
        SourceUnusable: a file of them can't be read.
    """
    if (folder / MODULES).exists():
        return "embedding"
    if not (folder / CONFIG).is_file():
        return "text"
    names = read_object(folder / CONFIG).get("architectures")
    scoring = isinstance(names, list) and any(
        str(name).endswith("ForSequenceClassification") for name in names
    )
    return "reranking" if scoring else "text"


def read_recipe(folder: Path, kind: Kind) -> Recipe:
    """Read how texts become vectors.

    Raises:
        SourceUnusable: a file is damaged.
        UnsupportedModel: a module, or one of its options, is none that can be exported.
    """
    config = read_object(folder / CONFIG)
    if kind == "reranking":
        return Recipe()
    modules = _modules(folder)
    names = [name for name, _ in modules]
    if names[:2] != ["Transformer", "Pooling"]:
        raise _unsupported(config, f"its modules are {names}, expected Transformer and Pooling")
    transformer = _optional(folder / modules[0][1] / TRANSFORMER_CONFIG)
    if transformer.get("do_lower_case"):
        raise _unsupported(config, f"{TRANSFORMER_CONFIG} has do_lower_case, beside the tokenizer")
    dense = []
    for name, path in modules[2:]:
        if name == "Dense":
            dense.append(_dense(folder, path))
        elif name != "Normalize":
            raise _unsupported(config, f"{MODULES} has the module {shown(name)}")
    if "Normalize" in names[:-1]:
        raise _unsupported(config, f"{MODULES} has Normalize before another module")
    prompts = _optional(folder / PROMPTS_CONFIG)
    texts = prompts.get("prompts") or {}
    default = prompts.get("default_prompt_name")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise SourceUnusable(f"{folder / PROMPTS_CONFIG}: prompts is {shown(texts)}")
    if default is not None and default not in texts:
        raise SourceUnusable(
            f"{folder / PROMPTS_CONFIG}: default_prompt_name is {shown(default)}, "
            f"which is not one of {sorted(texts)}"
        )
    pooling_config = read_object(folder / modules[1][1] / CONFIG)
    if texts and pooling_config.get("include_prompt") is False:
        raise _unsupported(config, "its pooling leaves the prompt's tokens out (include_prompt)")
    sizes = config.get("matryoshka_dimensions") or []
    if not isinstance(sizes, list) or not all(type(size) is int for size in sizes):
        raise SourceUnusable(f"{folder / CONFIG}: matryoshka_dimensions is {shown(sizes)}")
    longest = transformer.get("max_seq_length")
    return Recipe(
        pooling=_pooling(folder / modules[1][1] / CONFIG, pooling_config),
        dense=tuple(dense),
        normalised="Normalize" in names,
        max_tokens=longest if type(longest) is int and longest > 0 else None,
        prompts={str(name): text for name, text in texts.items()},
        default_prompt=default,
        dimensions=tuple(sorted(sizes)),
        any_dimensions=config.get("is_matryoshka") is True and not sizes,
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, in their order."""
    path = folder / MODULES
    refuse_stand_in(path)
    try:
        listed = msgspec.json.decode(read_text(path))
    except msgspec.DecodeError as error:
        raise SourceUnusable(f"{path} is not JSON: {error}") from error
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise SourceUnusable(f"{path} holds {shown(listed)}, expected a list of modules")
    found = []
    for entry in listed:
        below = str(entry.get("path", ""))
        if ".." in Path(below).parts or Path(below).is_absolute():
            raise SourceUnusable(f"{path}: path is {shown(below)}, expected a folder below it")
        found.append((str(entry.get("type", "")).rpartition(".")[2], below))
    return found


def _pooling(path: Path, config: dict[str, Any]) -> tuple[str, ...]:
    given = config.get("pooling_mode")
    if given is None:
        chosen = [mode for switch, mode in POOLING_MODES.items() if config.get(switch)]
    else:
        chosen = given if isinstance(given, list) else [given]
    unknown = [mode for mode in chosen if mode not in POOLING_MODES.values()]
    if unknown or not chosen:
        raise SourceUnusable(
            f"{path}: the pooling is {shown(unknown or chosen)}, "
            f"expected one of {', '.join(POOLING_MODES.values())}"
        )
    return tuple(chosen)


def _dense(folder: Path, path: str) -> Dense:
    config = read_object(folder / path / CONFIG)
    name = str(config.get("activation_function", "")).rpartition(".")[2]
    sizes = (config.get("in_features"), config.get("out_features"))
    if name not in ACTIVATIONS:
        raise SourceUnusable(
            f"{folder / path / CONFIG}: activation_function is {shown(name)}, "
            f"expected one of {', '.join(ACTIVATIONS)}"
        )
    if not all(type(size) is int and 0 < size <= 1 << 20 for size in sizes):
        raise SourceUnusable(f"{folder / path / CONFIG}: its sizes are {shown(sizes)}")
    return Dense(
        folder=path,
        inputs=config["in_features"],
        outputs=config["out_features"],
        bias=config.get("bias", True) is True,
        activation=ACTIVATIONS[name],
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _unsupported(config: dict[str, Any], reason: str) -> UnsupportedModel:
    return UnsupportedModel(str(config.get("model_type")), reason)
