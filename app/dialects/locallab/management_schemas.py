"""What LocalLab's clients send and get about models and the machine."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from app.contract.models import ModelFacts, ModelState
from app.dialects.locallab.schemas import MAX_LENGTH, Length, Text
from app.system import Cpu, Gpu, Memory, process_bytes

ModelId = Annotated[Text, Meta(examples=["HuggingFaceTB/SmolLM2-135M-Instruct"])]
Progress = Annotated[
    float,
    Meta(
        ge=0,
        le=1,
        description="0: its files are being opened; 0.5: it waits for another model to finish "
        "and leave; 1: loaded.",
    ),
]


class LoadBody(msgspec.Struct, frozen=True):
    """`POST /models/load`."""

    model_id: ModelId


class UnloadBody(msgspec.Struct, frozen=True):
    """`POST /models/unload`; the body may be absent."""

    model_id: Annotated[Text | None, Meta(description="Default: the model used last.")] = None


class LoadAnswer(msgspec.Struct, frozen=True):
    """The model is in memory."""

    model_id: str
    message: str
    status: str = "success"


class UnloadAnswer(msgspec.Struct, frozen=True):
    """The model has left memory, or there was none."""

    status: Annotated[str, Meta(examples=["Model unloaded successfully", "No model was loaded"])]
    message: str
    model_id: str | None = None


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What both lists of models say."""

    id: str
    name: str
    description: str
    is_loaded: bool
    loading_progress: Progress | None
    context_length: Annotated[int, Meta(description="Tokens of prompt and answer together.")]
    quantization: Annotated[
        str, Meta(description="How weights are stored: none, w8a8, int8 or int4.")
    ]
    size_bytes: Annotated[int, Meta(description="Bytes on disk.")]


class CurrentModel(ListedModel, frozen=True, kw_only=True):
    """The model that answers requests that name none."""

    model_id: str
    max_length: Annotated[Length, Meta(description="Tokens that one answer can have at most.")]
    execution_provider: Annotated[str, Meta(description="Where it runs: cpu or cuda.")]
    memory_used: Annotated[
        int,
        Meta(
            description="Bytes of main memory that the server holds now, measured: all loaded "
            "models together. A GPU's memory is in `/system/info`."
        ),
    ]
    kv_cache_size: Annotated[
        int, Meta(description="Bytes that its KV cache takes when every slot is full.")
    ]
    slots: Annotated[int, Meta(description="Requests that generate at once.")]
    loaded_models: Annotated[list[str], Meta(description="All in memory, the one used last first.")]

    @classmethod
    def of(cls, model: ModelState, loaded: Sequence[ModelState]) -> "CurrentModel":
        """Describe a loaded model."""
        facts, capacity = model.facts, model.capacity
        return cls(
            id=model.model_id,
            model_id=model.model_id,
            name=short_name(model.model_id),
            description=facts.description,
            is_loaded=True,
            loading_progress=1.0,
            context_length=capacity,
            max_length=min(capacity, MAX_LENGTH),
            quantization=facts.quantisation,
            execution_provider=model.provider,
            memory_used=process_bytes(),
            kv_cache_size=model.cache_bytes,
            size_bytes=facts.size_bytes,
            slots=model.slots,
            loaded_models=[other.model_id for other in loaded],
        )


class AvailableModel(ListedModel, frozen=True, kw_only=True):
    """A model on disk."""

    can_load: Annotated[
        bool, Meta(description="Always true: a folder that is not a whole model is not listed.")
    ]

    @classmethod
    def of(cls, facts: ModelFacts, progress: float | None) -> "AvailableModel":
        """Describe a model on disk.

        Args:
            facts: what its folder says.
            progress: None: neither loaded nor on its way.
        """
        return cls(
            id=facts.model_id,
            name=short_name(facts.model_id),
            description=facts.description,
            can_load=True,
            is_loaded=progress == 1,
            loading_progress=progress,
            context_length=facts.context_length,
            quantization=facts.quantisation,
            size_bytes=facts.size_bytes,
        )


class AvailableModels(msgspec.Struct, frozen=True):
    """All models on disk."""

    models: list[AvailableModel]
    current_model: str | None


class SystemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the server, flat as documented and nested as older examples read it."""

    cpu_usage: Annotated[float, Meta(description="Percent of all processors.")]
    memory_usage: Annotated[float, Meta(description="Percent of main memory.")]
    gpu_info: Annotated[
        list[Gpu] | None, Meta(description="null without an NVIDIA GPU and the extra `gpu`.")
    ]
    active_model: str | None
    uptime: Annotated[float, Meta(description="Seconds since the server's start.")]
    request_count: Annotated[
        int, Meta(description="Generations started since then; a batch counts as one.")
    ]
    cpu: Cpu
    memory: Memory
    gpu: Annotated[list[Gpu] | None, Meta(description="The same as gpu_info.")]


def short_name(model_id: str) -> str:
    """A model's name without its publisher."""
    return model_id.rpartition("/")[2]
