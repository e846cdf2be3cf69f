"""Ollama's `options`: what each name means here, or why it can't be had.

Defaults are Ollama's, but for its penalty of repetition: that looks at the last 64 tokens there and
at all of them here, prompt included, where 1.1 would spoil an answer.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.contract.sampling import SamplingParams
from app.dialects.kit.body import to_record
from app.dialects.kit.passed_over import PassedOver
from app.errors import InvalidParameter, Unsupported

StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
_LOADING: Final = "how a model is loaded is a setting of the server"
PASSED_OVER: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all"),
            *("vocab_only", "use_mmap", "use_mlock", "embedding_only", "num_thread"),
        ),
        _LOADING,
    ),
    "num_keep": "nothing is cut from a conversation here",
    "repeat_last_n": "the penalty looks at all tokens",
    "mirostat_tau": "there is no mirostat",
    "mirostat_eta": "there is no mirostat",
    "penalize_newline": "no token is an exception",
    "draft_num_predict": "drafts are a setting of the server",
}
"""Options that change no answer's meaning."""
NEUTRAL: Final[Mapping[str, tuple[float, str]]] = {
    "mirostat": (0, "there is no mirostat"),
    "tfs_z": (1, "there is no tail-free sampling"),
    "typical_p": (1, "there is no typical sampling"),
}
"""Options that are taken with one value alone, which turns them off."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is served."""

    num_ctx: Annotated[
        int | None, Meta(description="Taken where the model's context is as large.")
    ] = None
    num_predict: Annotated[
        int, Meta(description="Tokens at most; below 1: as many as the context has room for.")
    ] = -1
    temperature: Annotated[float, Meta(ge=0, le=2, description="0 is greedy.")] = 0.8
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="0 and -1 are off.")] = 40
    top_p: Annotated[float, Meta(ge=0, le=1)] = 0.9
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repeat_penalty: Annotated[float, Meta(gt=0, le=2, description="1 is off.")] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=64)] = []

    @property
    def max_tokens(self) -> int | None:
        """Tokens to generate at most; None: as many as fit."""
        return self.num_predict if self.num_predict > 0 else None

    @property
    def stops(self) -> tuple[str, ...]:
        """The text ends before the first of these."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def sampling(self) -> SamplingParams:
        """Say how tokens are chosen."""
        # top_p 0 leaves the likeliest token alone, as temperature 0 does
        greedy = self.temperature == 0 or self.top_p == 0
        return SamplingParams(
            repetition_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            temperature=0.0 if greedy else self.temperature,
            top_k=max(0, self.top_k),
            top_p=self.top_p or 1.0,
            min_p=self.min_p,
            seed=None if self.seed is None else self.seed % 2**64,
        )


def read_options(sent: Mapping[str, Any], context: int, passed_over: PassedOver) -> Options:
    """Read the options of a request.

    Args:
        sent: by name.
        context: tokens of prompt and answer together that the model has room for.
        passed_over: notes what is asked for in vain.

    Raises:
        InvalidParameter, Unsupported: the first that is wrong or can't be served.
    """
    kept: dict[str, Any] = {}
    for name, value in sent.items():
        field = f"options.{name}"
        if name in Options.__struct_fields__:
            kept[name] = value
        elif name in NEUTRAL:
            off, reason = NEUTRAL[name]
            if value not in (None, off):
                raise Unsupported(field, value, reason)
        elif value is not None:
            passed_over.note(field, value, PASSED_OVER.get(name, "there is no such option"))
    try:
        options = to_record(kept, Options)
    except InvalidParameter as error:
        raise InvalidParameter(f"options.{error.field}", error.value, error.limit) from error
    if options.num_ctx is not None and options.num_ctx > context:
        reason = f"the context is {context} tokens: a longer prompt is refused"
        passed_over.note("options.num_ctx", options.num_ctx, reason)
    return options
