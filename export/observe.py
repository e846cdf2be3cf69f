"""Run a model once in torch and record what its attention layers do.

There is no table of architectures. This module records the calls that `intercept.py` redirects and
decides by comparing numbers: a rotary embedding moves into the operator only where the operator's
formula gives the same numbers and its results reach attention unchanged. A model that does
something else is refused by name. Knows nothing about ONNX.
"""

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
    taken,
)
from export.lookups import Lookup, RecordLookups, ReplaceLookups
from export.mixture import Mixture, computed_by_shares, find_mixtures
from export.reach import PROBE_TOKENS, NotPlain, context_length, longer_than_windows, window_of_mask
from export.written_out import AttentionWrittenOut, Written, measure

HARMLESS = frozenset({"position_ids", "cache_position", "position_embeddings"})
"""Tensors that attention functions are passed and that are accounted for elsewhere."""
SINKS = "s_aux"
"""The tensor of attention sinks, one for each head."""


@dataclass(frozen=True)
class TracePlan:
    """Everything that tracing needs to know about a model."""

    layers: tuple[Layer, ...]
    tables: tuple[RotaryTable, ...]
    folded: frozenset[str]
    """Names of the rotary modules that became tables; the others are traced into the graph."""
    context_length: int
    head_dim: int
    """Of the cache; see `attention.widen`."""
    mixtures: tuple[Mixture, ...] = ()
    lookups: tuple[Lookup | None, ...] = ()


class Observer:
    """Records one run; `plan` turns the records into decisions."""

    def __init__(self, model: PreTrainedModel, lookups: tuple[Lookup | None, ...]) -> None:
        self.model = model
        self.lookups = lookups
        self.model_type = model.config.model_type
        tables = [lookup.context for lookup in lookups if lookup is not None]
        self.context = min([context_length(model.config), *tables])
        self.layers: dict[int, Layer] = {}
        self.written: set[int] = set()
        """Layers whose attention the model's code writes out."""
        self.rotary_of_layer: dict[int, str] = {}
        self.rotations: dict[str, list[Any]] = {}
        self.mixtures = find_mixtures(model, self.model_type)

    def run(self, input_ids: Tensor) -> Tensor:
        """Logits [B, S, V] of the model while it is observed."""
        self.batch, tokens = input_ids.shape
        written_out = AttentionWrittenOut(tokens, self.written_out)
        with (
            ReplaceLookups(self.lookups) as lookups,
            computed_by_shares(self.model, self.mixtures),
            intercepted(self.model, self.attention, written_out, self.mask, self.apply_rotary),
        ):
            steps = torch.arange(tokens)
            positions = steps.repeat(self.batch, 1)
            lookups.begin(positions)
            arguments = taken(
                self.model.forward,
                position_ids=positions,
                cache_position=steps,
                past_key_values=PassingCache(),
                use_cache=True,
            )
            logits: Tensor = self.model(input_ids=input_ids, **arguments).logits
        return logits

    def apply_rotary(self, original: Any, q: Tensor, k: Tensor, *rest: Any, **kw: Any) -> Any:
        """Rotate as the model does, and mark the results with the rotary module's name."""
        rotated = original(q, k, *rest, **kw)
        name = rotary_name(rest[0] if rest else kw.get("cos"))
        if name is not None:
            rotated[0].rotary = rotated[1].rotary = name
            self.rotations.setdefault(name, []).append(original)
        return rotated

    def mask(self, *, mask_function: Any, kv_length: int, **_: Any) -> Tensor:
        """An empty mask that carries the window of the model's mask function as an attribute."""
        marked: Any = torch.zeros(1, 1, 1, kv_length)
        try:
            marked.window = window_of_mask(mask_function, self.context)
        except NotPlain as error:
            raise UnsupportedModel(self.model_type, str(error)) from error
        return cast("Tensor", marked)

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
        known = {*HARMLESS, SINKS}
        strange = [n for n, v in extra.items() if isinstance(v, Tensor) and n not in known]
        if strange:
            raise UnsupportedModel(self.model_type, f"its attention takes {', '.join(strange)}")
        index = layer_index(module)
        layer = Layer(
            num_heads=query.shape[1],
            num_kv_heads=key.shape[1],
            head_dim=query.shape[-1],
            value_dim=value.shape[-1],
            scale=float(query.shape[-1] ** -0.5 if scaling is None else scaling),
            softcap=float(softcap or 0.0),
            window=getattr(mask, "window", None),
            sinks=extra.get(SINKS) is not None,
        )
        if index in self.layers:
            raise UnsupportedModel(self.model_type, f"layer {index} attends twice")
        self.layers[index] = layer
        rotary = rotary_name(query)
        if rotary is not None and rotary_name(key) == rotary:
            self.rotary_of_layer[index] = rotary
        return self.attended(query, key, value, layer, extra.get(SINKS)), None

    def written_out(self, written: Written) -> Tensor:
        """Record a layer that the model's code computes by itself; see `written_out.py`."""
        index = len(self.layers)
        try:
            layer = self.layers[index] = measure(written, self.batch)
        except NotPlain as error:
            raise UnsupportedModel(self.model_type, str(error)) from error
        self.written.add(index)
        return written.as_written(self.attended(*written.heads(self.batch, layer), layer))

    def attended(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layer: Layer,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Plain attention over [B, heads, S, dim], as [B, S, heads, value_dim]."""
        flat = [x.transpose(1, 2).flatten(2) for x in (query, key, value)]
        out = attend(flat[0], flat[1], flat[2], layer, sinks)
        heads: Tensor = out.unflatten(-1, (layer.num_heads, layer.value_dim))
        return heads.to(value.dtype)

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
        return TracePlan(
            tuple(layers),
            tuple(tables),
            frozenset(numbers),
            self.context,
            self.head_dim,
            self.mixtures,
            self.lookups,
        )

    @property
    def head_dim(self) -> int:
        """Of all heads in the cache."""
        return max(layer.least_dim for layer in self.layers.values())

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
        # The model's cosines hold each angle twice: side by side, or half the width apart; or once.
        picks = (slice(half), slice(None, None, 2), slice(None))
        for pick, interleaved in product(picks, (False, True)):
            table = RotaryTable(cos[:, pick].clone(), sin[:, pick].clone(), interleaved)
            width = table.cos.shape[-1]
            if width % 8 or self.head_dim % 16 or 2 * width > layer.head_dim:
                continue  # the operator's own limits
            got = rotate(heads, table.cos, table.sin, interleaved=interleaved)
            if got.shape == want.shape and torch.allclose(got, want, atol=1e-5):
                return table
        return None


def refuse_by_config(config: Any) -> None:
    """Raise `UnsupportedModel` for what can be seen without making the model."""
    if config.is_encoder_decoder:
        raise UnsupportedModel(config.model_type, "it is not a decoder-only language model")


def refuse_by_kind(model: PreTrainedModel) -> None:
    """Raise `UnsupportedModel` for what can be seen without running the model."""
    config = model.config
    reason = None
    if not model.can_generate():
        reason = "it is not a decoder-only language model"
    elif model._is_stateful and not _attends(config):  # noqa: SLF001 - a mark of state-space models
        reason = "it keeps a recurrent state, not a cache"
    if reason is not None:
        raise UnsupportedModel(config.model_type, reason)


def _attends(config: Any) -> bool:
    """Whether a model that may have state-space layers has none (Granite 4 micro)."""
    return set(getattr(config, "layers_block_type", ())) == {"attention"}


@torch.no_grad()
def observe(model: PreTrainedModel) -> TracePlan:
    """Run a model on random tokens and find out what its layers do.

    Raises:
        UnsupportedModel: the model does something that the decoder graph can't express.
    """
    refuse_by_kind(model)
    tokens = min(PROBE_TOKENS, context_length(model.config))
    observer = _observed(model, tokens)
    longer = longer_than_windows(model.config)
    if observer.written and longer > tokens:  # only masks that are computed show their windows
        observer = _observed(model, longer)
    return observer.plan()


def _observed(model: PreTrainedModel, tokens: int) -> Observer:
    """See `observe`."""
    config = model.config
    probe = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, config.vocab_size, (2, tokens), generator=probe)
    try:
        with RecordLookups() as lookups:
            expected = model(input_ids=input_ids, **taken(model.forward, use_cache=False)).logits
    except Exception as error:  # the model's code, with numbers that someone else has written
        raise UnsupportedModel(
            config.model_type, f"it can't compute {tokens} tokens: {sentence(error)}"
        ) from error
    observer = Observer(model, tuple(lookups.found))
    try:
        seen = observer.run(input_ids)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        # Modeling code that expects another cache or mask than the ones it is given.
        raise UnsupportedModel(
            config.model_type, f"its code can't run with our cache: {sentence(error)}"
        ) from error
    wanted = config.num_hidden_layers
    if len(observer.layers) != wanted:
        raise UnsupportedModel(
            config.model_type,
            f"attention was found in {len(observer.layers)} of its {wanted} layers",
        )
    largest = float((seen - expected).abs().max())
    if largest > 1e-3 * max(1.0, float(expected.abs().max())):
        raise UnsupportedModel(
            config.model_type,
            f"with our attention and cache its logits differ by {largest:.3g}",
        )
    return observer
