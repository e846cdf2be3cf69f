"""How tokens are chosen and a text ends: fields that all three endpoints have."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.contract.generation import GenerationRequest
from app.contract.sampling import SamplingDefaults, SamplingParams
from app.errors import InvalidParameter

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
OPEN = "Left open: what the model's makers recommend, else off."
Temperature = Annotated[
    float,
    Meta(
        ge=0,
        le=2,
        description="0 is greedy. Left open: what the model's makers recommend, else 1.",
    ),
]
TopP = Annotated[float, Meta(ge=0, le=1, description=f"0 is greedy, 1 is off. {OPEN}")]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's parameters and those that vLLM, SGLang and llama.cpp have beside them."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    logit_bias: Annotated[
        dict[str, Annotated[float, Meta(ge=-100, le=100)]],
        Meta(max_length=1024, description="By token id.", examples=[{"50256": -100}]),
    ] = {}
    seed: Annotated[
        Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None,
        Meta(description="The same request with the same seed gives the same text."),
    ] = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Meta(max_length=16)],
        Meta(description="The text ends before the first of these."),
    ] = []
    include_stop_str_in_output: Annotated[
        bool, Meta(description="Whether the text ends with the stop string that ended it.")
    ] = False
    top_k: (
        Annotated[int, Meta(ge=-1, le=2**31 - 1, description=f"0 and -1 are off. {OPEN}")] | None
    ) = None
    min_p: Annotated[float, Meta(ge=0, le=1, description=f"0 is off. {OPEN}")] | None = None
    repetition_penalty: (
        Annotated[float, Meta(gt=0, le=2, description=f"1 is off. {OPEN}")] | None
    ) = None
    repeat_penalty: Annotated[
        Annotated[float, Meta(gt=0, le=2)] | None,
        Meta(description="llama.cpp's name of repetition_penalty."),
    ] = None
    ignore_eos: Annotated[bool, Meta(description="Go on where the model would end.")] = False
    min_tokens: Annotated[
        int, Meta(ge=0, le=2**31 - 1, description="The model can't end before so many.")
    ] = 0
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=64)] = []
    bad_words: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=128)]],
        Meta(
            max_length=512,
            description="Not generated as the tokenizer writes them, in front or after a space.",
        ),
    ] = []
    allowed_token_ids: Annotated[
        Annotated[list[TokenId], Meta(min_length=1, max_length=16_384)] | None,
        Meta(description="No other is generated, the model's own end included."),
    ] = None
    skip_special_tokens: Annotated[
        bool, Meta(description="false: they are text, but for the one that ends it.")
    ] = True
    truncate_prompt_tokens: Annotated[
        Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None,
        Meta(description="The prompt's last tokens; -1: as many as leave room for an answer."),
    ] = None
    logprob_token_ids: Annotated[
        list[TokenId],
        Meta(max_length=128, description="Named beside the likeliest, with logprobs."),
    ] = []

    def sampled(self, **fields: Any) -> GenerationRequest:
        """Make the request.

        Args:
            **fields: of the request, what the endpoint has beyond this.

        Raises:
            InvalidParameter: fields contradict each other.
        """
        if self.logprob_token_ids and fields.get("top_logprobs") is None:
            limit = "none without logprobs"
            raise InvalidParameter("logprob_token_ids", self.logprob_token_ids, limit)
        if self.truncate_prompt_tokens == 0:
            raise InvalidParameter("truncate_prompt_tokens", 0, "-1 or >= 1")
        # top_p 0 leaves the likeliest token alone, as temperature 0 does
        greedy = self.temperature == 0 or self.top_p == 0
        said = SamplingDefaults(
            temperature=0.0 if greedy else self.temperature,
            top_k=None if self.top_k is None else max(0, self.top_k),
            top_p=1.0 if self.top_p == 0 else self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repeat_penalty or self.repetition_penalty,
        )
        fields_of_models = SamplingDefaults.__struct_fields__
        otherwise = SamplingParams(
            logit_bias=self._logit_bias(),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=None if self.seed is None else self.seed % 2**64,
        )
        return GenerationRequest(
            sampling=otherwise.completed(fields_of_models, said),
            left_open=frozenset(n for n in fields_of_models if getattr(said, n) is None),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            include_stop=self.include_stop_str_in_output,
            stop_token_ids=tuple(self.stop_token_ids),
            min_tokens=self.min_tokens,
            ignore_eos=self.ignore_eos,
            logprob_ids=tuple(self.logprob_token_ids),
            bad_words=tuple(self.bad_words),
            allowed_ids=(None if self.allowed_token_ids is None else tuple(self.allowed_token_ids)),
            skip_special=self.skip_special_tokens,
            truncate_prompt=self.truncate_prompt_tokens,
            **fields,
        )

    def _logit_bias(self) -> dict[int, float]:
        for token_id in self.logit_bias:
            if not (token_id.isascii() and token_id.isdigit() and len(token_id) <= 10):
                raise InvalidParameter("logit_bias", self.logit_bias, "token ids as its keys")
        return {int(token_id): bias for token_id, bias in self.logit_bias.items()}
