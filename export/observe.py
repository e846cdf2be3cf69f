"""Run a model once in torch and record what its attention layers do.

There is no table of architectures. This module records the calls that `intercept.py` redirects and
decides by comparing numbers: a rotary embedding moves into the operator only where the operator's
formula gives the same numbers and its results reach attention unchanged. A model that does
something else is refused by name. Knows nothing about ONNX.
"""

import inspect
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from export.attention import Layer, RotaryTable, attend, rotate
from export.errors import UnsupportedModel
from export.file_checks import sentence
from export.intercept import (
    PassingCache,
    intercepted,
    layer_index,
    rotary_modules,
    rotary_name,
)

PROBE_TOKENS = 24
HARMLESS = frozenset({"position_ids", "cache_position", "position_embeddings"})
"""Tensors that attention functions are passed and that are accounted for elsewhere."""


@dataclass(frozen=True)
class TracePlan:
    """Everything that tracing needs to know about a model."""

    layers: tuple[Layer, ...]
    tables: tuple[RotaryTable, ...]
    folded: frozenset[str]
    """Names of the rotary modules that became tables; the others are traced into the graph."""
    context_length: int


def context_length(config: Any) -> int:
    """The longest sequence, in tokens, that the graph may be used for.

    Long-context variants that change their frequencies beyond the original length (Phi-3
    long) keep the short ones here: one cache can't hold keys of both kinds.

    Raises:
        UnsupportedModel: the configuration names no length.
    """
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type", scaling.get("type")) == "longrope":
        original = "original_max_position_embeddings"
        shorter = getattr(config, original, None) or scaling.get(original)
        if shorter is None:
            raise UnsupportedModel(config.model_type, f"its longrope scaling has no {original}")
        return int(shorter)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    raise UnsupportedModel(config.model_type, "its configuration has no context length")


class Observer:
    """Records one run; `plan` turns the records into decisions."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.model_type = model.config.model_type
        self.context = context_length(model.config)
        self.layers: dict[int, Layer] = {}
        self.rotary_of_layer: dict[int, str] = {}
        self.rotations: dict[str, list[Any]] = {}

    def run(self, input_ids: Tensor) -> Tensor:
        """Logits [B, S, V] of the model while it is observed."""
        with intercepted(self.model, self.attention, self.mask, self.apply_rotary):
            logits: Tensor = self.model(
                input_ids=input_ids,
                position_ids=torch.arange(input_ids.shape[1])[None].expand(input_ids.shape[0], -1),
                cache_position=torch.arange(input_ids.shape[1]),
                past_key_values=PassingCache(),
                use_cache=True,
            ).logits
        return logits

    def apply_rotary(self, original: Any, q: Tensor, k: Tensor, *rest: Any, **kw: Any) -> Any:
        """Rotate as the model does, and mark the results with the rotary module's name."""
        rotated_q, rotated_k = original(q, k, *rest, **kw)
        name = rotary_name(rest[0] if rest else kw.get("cos"))
        if name is not None:
            rotated_q.rotary = rotated_k.rotary = name
            self.rotations.setdefault(name, []).append(original)
        return rotated_q, rotated_k

    def mask(self, *, mask_function: Any, kv_length: int, **_: Any) -> Tensor:
        """An empty mask that carries the window of the model's mask function as an attribute."""
        marked: Any = torch.zeros(1, 1, 1, kv_length)
        marked.window = self.window(mask_function)
        return cast("Tensor", marked)

    def window(self, mask_function: Any) -> int | None:
        """The sliding window of a mask function; None if the mask is plainly causal."""
        last = min(self.context, 1 << 17) - 1
        keys = torch.arange(last + 1)
        widths = {}
        for query in (last // 2, last - 1, last):
            seen = mask_function(0, 0, torch.tensor(query), keys).expand(last + 1)
            widths[query] = int(seen.sum())
            tail = seen[query + 1 - widths[query] : query + 1]
            if widths[query] > query + 1 or not bool(tail.all()):
                raise UnsupportedModel(self.model_type, "its attention mask is not a window")
        if all(width == min(query + 1, widths[last]) for query, width in widths.items()):
            return None if widths[last] == last + 1 else widths[last]
        raise UnsupportedModel(self.model_type, "its attention window changes with position")

    def attention(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scaling: float | None = None,
        softcap: float | None = None,
        **extra: Any,
    ) -> tuple[Tensor, None]:
        """Record the layer and compute plain attention."""
        strange = [n for n, v in extra.items() if isinstance(v, Tensor) and n not in HARMLESS]
        if strange:
            raise UnsupportedModel(self.model_type, f"its attention takes {', '.join(strange)}")
        if not query.shape[-1] == key.shape[-1] == value.shape[-1] or query.shape[-1] % 8:
            sizes = f"{query.shape[-1]}, {key.shape[-1]} and {value.shape[-1]}"
            raise UnsupportedModel(
                self.model_type, f"heads of queries, keys and values have {sizes} dimensions"
            )
        index = layer_index(module)
        layer = Layer(
            num_heads=query.shape[1],
            num_kv_heads=key.shape[1],
            head_dim=query.shape[-1],
            scale=float(query.shape[-1] ** -0.5 if scaling is None else scaling),
            softcap=float(softcap or 0.0),
            window=getattr(mask, "window", None),
        )
        if index in self.layers:
            raise UnsupportedModel(self.model_type, f"layer {index} attends twice")
        self.layers[index] = layer
        rotary = rotary_name(query)
        if rotary is not None and rotary_name(key) == rotary:
            self.rotary_of_layer[index] = rotary
        flat = [x.transpose(1, 2).flatten(2) for x in (query, key, value)]
        out = attend(flat[0], flat[1], flat[2], layer)
        return out.unflatten(-1, (layer.num_heads, layer.head_dim)), None

    def plan(self) -> TracePlan:
        """Decide which rotary embeddings move into the operator."""
        tables: list[RotaryTable] = []
        numbers: dict[str, int] = {}
        used = list(self.rotary_of_layer.values())
        for name in dict.fromkeys(used):
            calls = self.rotations[name]
            # A rotation whose result was changed on its way to attention (normed, joined with an
            # unrotated part) lost its mark: it has more calls than layers and stays in the graph.
            untouched = used.count(name) == len(calls)
            table = self.table(calls[0], rotary_modules(self.model)[name]) if untouched else None
            if table is not None:
                numbers[name] = len(tables)
                tables.append(table)
        layers = []
        for index in sorted(self.layers):
            layer = self.layers[index]
            number = numbers.get(self.rotary_of_layer.get(index, ""))
            if number is not None:
                layer = replace(layer, rotary=number, interleaved=tables[number].interleaved)
            layers.append(layer)
        return TracePlan(tuple(layers), tuple(tables), frozenset(numbers), self.context)

    def table(self, original: Any, module: nn.Module) -> RotaryTable | None:
        """The rotary module as a table, if the operator's formula gives the same rotation."""
        layer = next(iter(self.layers.values()))
        positions = torch.arange(self.context)[None]
        cos, sin = (x[0].float() for x in module(torch.zeros(1, dtype=torch.float32), positions))
        probe = torch.Generator().manual_seed(0)
        few = min(self.context, 64)
        heads = torch.randn(1, 2, few, layer.head_dim, generator=probe)
        want, _ = original(heads, heads, cos[None, :few], sin[None, :few])
        half = cos.shape[-1] // 2
        if half % 8 or layer.head_dim % 16:
            return None  # the operator's own limits
        # The model's cosines hold each angle twice: side by side, or half the width apart.
        for pick, interleaved in product((slice(half), slice(None, None, 2)), (False, True)):
            table = RotaryTable(cos[:, pick].clone(), sin[:, pick].clone(), interleaved)
            got = rotate(heads, table.cos, table.sin, interleaved=interleaved)
            if got.shape == want.shape and torch.allclose(got, want, atol=1e-5):
                return table
        return None


def refuse_by_config(config: Any) -> None:
    """Raise `UnsupportedModel` for what can be seen without making the model."""
    experts = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    reason = None
    if config.is_encoder_decoder:
        reason = "it is not a decoder-only language model"
    elif config.get_text_config() is not config:
        reason = "it reads more than text"
    elif any(getattr(config, name, None) for name in experts):
        reason = "mixtures of experts can't be traced yet"
    if reason is not None:
        raise UnsupportedModel(config.model_type, reason)


def refuse_by_kind(model: PreTrainedModel) -> None:
    """Raise `UnsupportedModel` for what can be seen without running the model."""
    config = model.config
    takes = inspect.signature(model.forward).parameters
    missing = [n for n in ("position_ids", "past_key_values") if n not in takes]
    reason = None
    if not model.can_generate():
        reason = "it is not a decoder-only language model"
    elif model._is_stateful:  # noqa: SLF001 - Transformers' own mark for state-space models
        reason = "it keeps a recurrent state, not a cache"
    elif missing:
        reason = f"it takes no {' and no '.join(missing)}"
    if reason is not None:
        raise UnsupportedModel(config.model_type, reason)


@torch.no_grad()
def observe(model: PreTrainedModel) -> TracePlan:
    """Run a model on random tokens and find out what its layers do.

    Raises:
        UnsupportedModel: the model does something that the decoder graph can't express.
    """
    refuse_by_kind(model)
    config = model.config
    probe = torch.Generator().manual_seed(0)
    tokens = min(PROBE_TOKENS, context_length(config))
    input_ids = torch.randint(0, config.vocab_size, (2, tokens), generator=probe)
    try:
        expected = model(input_ids=input_ids, use_cache=False).logits
    except Exception as error:  # the model's code, with numbers that someone else has written
        raise UnsupportedModel(
            config.model_type, f"it can't compute {tokens} tokens: {sentence(error)}"
        ) from error
    observer = Observer(model)
    try:
        seen = observer.run(input_ids)
    except (TypeError, RuntimeError, AttributeError, KeyError) as error:
        # Modeling code that expects another cache or mask than the ones it is given.
        raise UnsupportedModel(
            config.model_type, f"its code can't run with our cache: {sentence(error)}"
        ) from error
    wanted = config.num_hidden_layers
    if len(observer.layers) != wanted:
        raise UnsupportedModel(
            config.model_type,
            f"{len(observer.layers)} of its {wanted} layers use Transformers' attention interface",
        )
    largest = float((seen - expected).abs().max())
    if largest > 1e-3 * max(1.0, float(expected.abs().max())):
        raise UnsupportedModel(
            config.model_type,
            f"its attention is not plain causal attention, logits differ by {largest:.3g}",
        )
    return observer.plan()
