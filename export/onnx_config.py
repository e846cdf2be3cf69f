"""Export through Optimum's extension points: which inputs the graph has and how they are traced.

`trace` gives Optimum a model patcher, whose forward takes the server's inputs, and an
`OnnxConfig` that names them. Knows nothing about individual architectures (`observe.py`), nor
what happens to the graph afterwards (`cleanup.py`).
"""

import io
import logging
import warnings
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from optimum.exporters.onnx import onnx_export_from_model
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import ModelPatcher
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedTextConfig
from torch import Tensor, nn
from torch.onnx import register_custom_op_symbolic  # type: ignore[attr-defined]
from torch.onnx.errors import OnnxExporterError
from transformers import PreTrainedModel

from export.attention import GroupQueryAttention, widen
from export.errors import UnsupportedModel
from export.intercept import PassingCache, intercepted, layer_index, rotary_name, taken
from export.lookups import ReplaceLookups
from export.mixture import traced_as_nodes
from export.observe import SINKS, TracePlan
from export.single_nodes import PickRows, single_node_norms
from export.stored_weights import without_matrices, write_places
from export.weight_file import WeightFile
from export.written_out import AttentionWrittenOut, Written

OPSET = 18
MODEL_TYPE = "llmhost"
"""None of Optimum's, which knows better what some types can be exported for."""
DUMMY_BATCH, DUMMY_TOKENS, DUMMY_CAPACITY = 2, 3, 8


def _expm1(g: Any, x: Any) -> Any:
    """exp(x) - 1, of which ONNX has nothing more precise (xIELU in Apertus)."""
    return g.op("Sub", g.op("Exp", x), g.op("Constant", value_t=torch.tensor(1.0)))


register_custom_op_symbolic("aten::expm1", _expm1, OPSET)


class DecoderPatcher(ModelPatcher):  # type: ignore[misc] # Optimum ships no types
    """Gives the model the server's inputs while it is traced."""

    def __init__(
        self, config: "DecoderOnnxConfig", model: PreTrainedModel, model_kwargs: Any = None
    ) -> None:
        super().__init__(config, model, model_kwargs=model_kwargs)
        self.plan = config.plan
        self.stack = ExitStack()
        original = self.orig_forward
        lookups = self.lookups = ReplaceLookups(self.plan.lookups)

        def patched_forward(  # noqa: PLR0917 - the graph's inputs
            input_ids: Tensor,
            query_seqlens: Tensor,
            seqlens_k: Tensor,
            total_sequence_length: Tensor,
            logits_index: Tensor,
            past_key_values: list[tuple[Tensor, Tensor]],
        ) -> dict[str, Any]:
            steps = torch.arange(input_ids.shape[1])
            past = (seqlens_k + 1 - query_seqlens).to(torch.int64)
            # A row without new tokens may start at the capacity: its positions are never used,
            # but a learned position table must not be indexed beyond its end.
            positions = (past[:, None] + steps[None]).clamp(0, self.plan.context_length - 1)
            self.put_in(input_ids)
            self.step = (seqlens_k, total_sequence_length, query_seqlens)
            self.past, self.logits_index = past_key_values, logits_index
            self.present: dict[int, tuple[Tensor, Tensor]] = {}
            self.positions = positions
            lookups.begin(positions)
            arguments = taken(
                original,
                position_ids=positions,
                cache_position=steps,
                past_key_values=PassingCache(),
                use_cache=True,
            )
            logits = original(input_ids=input_ids, **arguments).logits
            present = [self.present[i] for i in range(len(self.plan.layers))]
            return {"logits": logits.float(), "present": present}

        self.patched_forward = patched_forward

    def __enter__(self) -> None:
        super().__enter__()
        model = self._model
        for number, table in enumerate(self.plan.tables):
            dtype = next(model.parameters()).dtype
            # Persistent: the exporter copies any other table into every layer as a constant.
            for name, values in (("cos", table.cos), ("sin", table.sin)):
                model.register_buffer(f"rotary_{name}_{number}", values.to(dtype))
                self.stack.callback(delattr, model, f"rotary_{name}_{number}")
        self.stack.enter_context(single_node_norms(model))
        self.stack.enter_context(self.lookups)
        written_out = AttentionWrittenOut(DUMMY_TOKENS, self.written_out)
        self.stack.enter_context(
            intercepted(model, self.attention, written_out, self.mask, self.apply_rotary)
        )
        self.stack.enter_context(traced_as_nodes(model, self.plan.mixtures))
        stacked = {name for mixture in self.plan.mixtures for name in mixture.experts.names()}
        self.put_in = self.stack.enter_context(without_matrices(model, stacked))
        head = model.get_output_embeddings()
        self.stack.enter_context(head.register_forward_pre_hook(self.pick))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stack.close()
        super().__exit__(exc_type, exc_value, traceback)

    def pick(self, _head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pass only the positions whose logits are wanted on to the output layer."""
        return (PickRows.apply(inputs[0], self.logits_index),)

    def mask(self, **_: Any) -> None:
        """Return no mask: the operator masks by itself."""

    def apply_rotary(self, original: Any, q: Tensor, k: Tensor, *rest: Any, **kw: Any) -> Any:
        """Skip the rotation where the plan leaves it to the operator."""
        name = rotary_name(rest[0] if rest else kw.get("cos"))
        return (q, k) if name in self.plan.folded else original(q, k, *rest, **kw)

    def attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **extra: Any
    ) -> tuple[Tensor, None]:
        """Trace one layer as one node."""
        return self.node(layer_index(module), query, key, value, extra.get(SINKS)), None

    def written_out(self, written: Written) -> Tensor:
        """Trace one layer that the model's code computes by itself."""
        index = len(self.present)
        heads = written.heads(DUMMY_BATCH, self.plan.layers[index])
        return written.as_written(self.node(index, *heads))

    def node(
        self,
        index: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Attention over [B, heads, S, dim] and the cache, as [B, S, heads, dim]."""
        layer, head_dim = self.plan.layers[index], self.plan.head_dim
        past_key, past_value = self.past[index]
        tables = [
            None if layer.rotary is None else getattr(self._model, f"rotary_{n}_{layer.rotary}")
            for n in ("cos", "sin")
        ]
        wide = widen(query, key, value, self.positions, layer, head_dim)
        out, *present = GroupQueryAttention.apply(
            *(x.transpose(1, 2).flatten(2) for x in wide),
            past_key,
            past_value,
            *self.step,
            *tables,
            sinks,
            replace(layer, head_dim=head_dim, value_dim=head_dim, slopes=None),
        )
        self.present[index] = (present[0], present[1])
        return out.view(*out.shape[:2], layer.num_heads, head_dim)[..., : layer.value_dim]


class DecoderOnnxConfig(OnnxConfig):  # type: ignore[misc] # Optimum ships no types
    """Names and dynamic axes of the graph's inputs and outputs; see app/manifest.py."""

    DEFAULT_ONNX_OPSET: ClassVar[int] = OPSET
    _MODEL_PATCHER = DecoderPatcher
    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DUMMY_INPUT_GENERATOR_CLASSES: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, model: PreTrainedModel, plan: TracePlan) -> None:
        super().__init__(model.config, task="text-generation")
        self.plan = plan
        self.kv_dtype = next(model.parameters()).dtype

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names of the inputs and of their dynamic axes."""
        names: dict[str, dict[int, str]] = {
            "input_ids": {0: "batch", 1: "tokens"},
            "query_seqlens": {0: "batch"},
            "seqlens_k": {0: "batch"},
            "total_sequence_length": {},
            "logits_index": {0: "batch", 1: "picked"},
        }
        for n in range(len(self.plan.layers)):
            for part in ("key", "value"):
                names[f"past_key_values.{n}.{part}"] = {0: "batch", 2: "capacity"}
        return names

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Names of the outputs and of their dynamic axes."""
        names: dict[str, dict[int, str]] = {"logits": {0: "batch", 1: "picked"}}
        for n in range(len(self.plan.layers)):
            for part in ("key", "value"):
                names[f"present.{n}.{part}"] = {0: "batch", 2: "capacity"}
        return names

    def fix_dynamic_axes(self, *_: Any, **__: Any) -> None:
        """Do nothing: all axes are named. Optimum would start an ONNX Runtime session here."""

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
        """Inputs of a small step on an empty cache."""
        assert framework == "pt", "only torch is traced"

        def buffer(heads: int) -> Tensor:
            shape = (DUMMY_BATCH, heads, DUMMY_CAPACITY, self.plan.head_dim)
            return torch.zeros(shape, dtype=self.kv_dtype)

        lengths = torch.full((DUMMY_BATCH,), DUMMY_TOKENS, dtype=torch.int32)
        return {
            "input_ids": torch.ones(DUMMY_BATCH, DUMMY_TOKENS, dtype=torch.int64),
            "query_seqlens": lengths,
            "seqlens_k": lengths - 1,
            "total_sequence_length": torch.tensor([DUMMY_TOKENS], dtype=torch.int32),
            "logits_index": torch.zeros(DUMMY_BATCH, 1, dtype=torch.int64),
            "past_key_values": [
                (buffer(x.num_kv_heads), buffer(x.num_kv_heads)) for x in self.plan.layers
            ],
        }


def trace(model: PreTrainedModel, plan: TracePlan, folder: Path, weights: WeightFile) -> Path:
    """Export `model` through Optimum; returns the raw graph, `folder`/model.onnx.

    Its matrices stay in `weights`; `stored_weights.fill_in` gives them to the graph.

    Raises:
        UnsupportedModel: torch can't express one of the model's operations in ONNX.
    """
    config = DecoderOnnxConfig(model, plan)
    model.config.export_model_type = MODEL_TYPE
    for name in ("optimum", "torch.onnx", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # The tracer warns about every Python value that it makes constant (validation tells whether
    # that was wrong), and prints the whole graph when it fails.
    ours = patch.object(TasksManager, "infer_library_from_model", return_value="transformers")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), ours:
        warnings.simplefilter("ignore")
        try:
            onnx_export_from_model(
                model,
                folder,
                opset=OPSET,
                task="text-generation-with-past",
                custom_onnx_configs={"model": config},
                do_validation=False,
                no_post_process=True,
            )
        except (OnnxExporterError, RuntimeError) as error:
            said = str(error).partition("\n")[0].rstrip(".")
            raise UnsupportedModel(
                model.config.model_type, f"torch can't trace its code: {said}"
            ) from error
    stacked = {name for mixture in plan.mixtures for name in mixture.experts.names()}
    write_places(model, weights, folder, stacked)
    return folder / "model.onnx"
