"""Export through Optimum's extension points: which inputs the graph has and how they are traced.

`trace` gives Optimum a model patcher, whose forward takes the server's inputs, and an
`OnnxConfig` that names them. Knows nothing about individual architectures (`observe.py`), nor
what happens to the graph afterwards (`cleanup.py`).
"""

import io
import logging
import warnings
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import torch
from optimum.exporters.onnx import onnx_export_from_model
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import ModelPatcher
from optimum.utils import NormalizedTextConfig
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError
from transformers import PreTrainedModel

from export.attention import GroupQueryAttention
from export.errors import UnsupportedModel
from export.intercept import PassingCache, intercepted, layer_index, rotary_name
from export.observe import TracePlan
from export.single_nodes import PickRows, single_node_norms

OPSET = 18
DUMMY_BATCH, DUMMY_TOKENS, DUMMY_CAPACITY = 2, 3, 8


class DecoderPatcher(ModelPatcher):  # type: ignore[misc] # Optimum ships no types
    """Gives the model the server's inputs while it is traced."""

    def __init__(
        self, config: "DecoderOnnxConfig", model: PreTrainedModel, model_kwargs: Any = None
    ) -> None:
        super().__init__(config, model, model_kwargs=model_kwargs)
        self.plan = config.plan
        self.stack = ExitStack()
        original = self.orig_forward

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
            self.step = (seqlens_k, total_sequence_length, query_seqlens)
            self.past, self.logits_index = past_key_values, logits_index
            self.present: dict[int, tuple[Tensor, Tensor]] = {}
            logits = original(
                input_ids=input_ids,
                position_ids=positions,
                cache_position=steps,
                past_key_values=PassingCache(),
                use_cache=True,
            ).logits
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
        self.stack.enter_context(intercepted(model, self.attention, self.mask, self.apply_rotary))
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
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, None]:
        """Trace one layer as one node."""
        index = layer_index(module)
        layer = self.plan.layers[index]
        past_key, past_value = self.past[index]
        tables = [
            None if layer.rotary is None else getattr(self._model, f"rotary_{n}_{layer.rotary}")
            for n in ("cos", "sin")
        ]
        out, *present = GroupQueryAttention.apply(
            query.transpose(1, 2).flatten(2),
            key.transpose(1, 2).flatten(2),
            value.transpose(1, 2).flatten(2),
            past_key,
            past_value,
            *self.step,
            *tables,
            layer,
        )
        self.present[index] = (present[0], present[1])
        return out.view(*out.shape[:2], layer.num_heads, layer.head_dim), None


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

        def buffer(heads: int, dim: int) -> Tensor:
            return torch.zeros(DUMMY_BATCH, heads, DUMMY_CAPACITY, dim, dtype=self.kv_dtype)

        lengths = torch.full((DUMMY_BATCH,), DUMMY_TOKENS, dtype=torch.int32)
        return {
            "input_ids": torch.ones(DUMMY_BATCH, DUMMY_TOKENS, dtype=torch.int64),
            "query_seqlens": lengths,
            "seqlens_k": lengths - 1,
            "total_sequence_length": torch.tensor([DUMMY_TOKENS], dtype=torch.int32),
            "logits_index": torch.zeros(DUMMY_BATCH, 1, dtype=torch.int64),
            "past_key_values": [
                (buffer(x.num_kv_heads, x.head_dim), buffer(x.num_kv_heads, x.head_dim))
                for x in self.plan.layers
            ],
        }


def trace(model: PreTrainedModel, plan: TracePlan, folder: Path) -> Path:
    """Export `model` through Optimum; returns the raw graph, `folder`/model.onnx.

    Raises:
        UnsupportedModel: torch can't express one of the model's operations in ONNX.
    """
    config = DecoderOnnxConfig(model, plan)
    for name in ("optimum", "torch.onnx", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # The tracer warns about every Python value that it makes constant (validation tells whether
    # that was wrong), and prints the whole graph when it fails.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
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
        except OnnxExporterError as error:
            said = str(error).partition("\n")[0].rstrip(".")
            raise UnsupportedModel(model.config.model_type, said) from error
    return folder / "model.onnx"
