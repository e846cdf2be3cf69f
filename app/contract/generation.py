"""What is asked of a text generator and what comes back: requests down, events up.

Token ids appear only where a client speaks of tokens: logprobs, prompts and stops given as ids.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol, Self

import msgspec

from app.contract.conversation import ChatMessage, Tool
from app.contract.formats import ResponseFormat
from app.contract.sampling import FinishReason, SamplingParams
from app.contract.tokens import (
    PromptLogprobs,
    TokenizedText,
    TokenizerFacts,
    TokenLogprob,
)
from app.contract.usage import PromptProgress, Timings, Usage


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether the answer calls tools: as the model likes, never, or at least once."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    """This tool and no other; only with `required`."""


class Reasoning(msgspec.Struct, frozen=True):
    """How a model that thinks before it answers is to think; others have no use for it."""

    effort: str | None = None
    """`none`: not at all; any other word is the chat template's too. None: as the model likes."""
    budget: int | None = None
    """Tokens of thinking at most; None: as many as `effort` stands for."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One text to generate: from `messages` by the chat template, from `prompt` or `prompt_ids`.

    `prompt_ids` take precedence; of messages and prompt, the messages are used where the model has
    a chat template, else the prompt. Whoever makes a request has checked its tools, as
    `dialects.kit.tools` does: different names, and one there for each call that is required.
    """

    messages: Sequence[ChatMessage] = ()
    prompt: str | None = None
    """Tokenized as it is."""
    prompt_ids: list[int] | None = None
    """Token ids, used as they are; nothing is added."""
    max_tokens: int | None = None
    """None: as many as the context has room for. 0: only the prompt's logprobs are wanted."""
    sampling: SamplingParams
    left_open: frozenset[str] = frozenset()
    """Fields of `sampling` that the client didn't say; the model's makers may have."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    include_stop: bool = False
    """Whether the text ends with the stop string that ended it."""
    stop_token_ids: tuple[int, ...] = ()
    """Each ends the text as the model's own end token does; it is not part of the text."""
    min_tokens: int = 0
    """No end token may come before so many tokens; stop strings still end the text."""
    ignore_eos: bool = False
    """The model's own end token doesn't end the text; `stop_token_ids` still do."""
    top_logprobs: int | None = None
    """None: no logprobs. n: for each token its own and those of the n likeliest in its place."""
    bad_words: tuple[str, ...] = ()
    """Texts that are not generated, as the model's tokenizer writes them."""
    allowed_ids: tuple[int, ...] | None = None
    """No other token is generated; None: any may be."""
    skip_special: bool = True
    """False: special tokens are text, but for those that end it."""
    truncate_prompt: int | None = None
    """Only so many of the prompt's last tokens count; -1: as many as leave room for an answer."""
    logprob_ids: tuple[int, ...] = ()
    """Tokens whose logprobs are told beside those of the likeliest, with `top_logprobs`."""
    prompt_logprobs: int | None = None
    """None: no logprobs of the prompt. n: as `top_logprobs`, for each of the prompt's tokens."""
    progress: bool = False
    """Whether events tell how far the prompt has come: at its beginning and with each piece."""
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    """False: at most one call per answer."""
    response_format: ResponseFormat | None = None
    format_field: str = "response_format"
    """What the client calls it, for errors."""
    template_options: Mapping[str, Any] = {}
    """What the chat template is given beside the conversation: numbers, words, switches."""
    reasoning: Reasoning = Reasoning()
    opens_turn: bool = True
    """Whether the prompt ends with the opening of the assistant's turn."""
    continues: bool = False
    """Whether the answer goes on with the conversation's last turn, and opens none of its own."""
    max_time_s: float | None = None


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as far as requests of different callers are kept apart."""

    client: str = ""
    """Who takes turns with others: a user, or else an address; "" for everybody without a name."""
    tenant: str = ""
    """Whose prefix cache it is: tenants share none of it; "" for everybody without an account."""
    trace: tuple[str, str] = ("", "")
    """The headers `traceparent` and `tracestate` of W3C's Trace Context, if they were sent."""


NOBODY: Final = Caller()
BEHIND: Final = "behind "
"""What the names of clients begin with who come after all others: they get what nobody else wants.
"""


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the text, whole characters; empty only when it carries logprobs."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    """The tokens whose text this is; () unless logprobs were asked for."""


class ReasoningDelta(msgspec.Struct, frozen=True):
    """The next piece of what the model thinks before its answer."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True):
    """The next piece of a tool call."""

    index: int
    """Which call of the answer, from 0."""
    id: str | None
    """On the first delta of a call; later None."""
    name: str | None
    """On the first delta of a call; later None."""
    arguments: str
    """Joined over a call's deltas: a JSON object, unless the text was cut off."""


class Finished(msgspec.Struct, frozen=True):
    """The last event of a generation that did not fail. A failure is raised instead."""

    reason: FinishReason
    usage: Usage
    call_cut: bool = False
    """The text ended within the arguments of its last tool call, which are no JSON then."""
    stop_string: str | None = None
    """The one of the request's stop strings that the text ended before; None: another end."""


Event = PromptProgress | PromptLogprobs | ReasoningDelta | TextDelta | ToolCallDelta | Finished


class Generation(Protocol):
    """One text in the making.

    Whoever holds one calls `aclose` or runs it to its end; either frees its slot.
    """

    @property
    def model_id(self) -> str:
        """The model that writes."""

    @property
    def sampling(self) -> SamplingParams:
        """How tokens are chosen, what the request left open included."""
        return SamplingParams()

    @property
    def usage(self) -> Usage:
        """Tokens so far; what was cached is known from the first event on."""

    @property
    def prompt_ids(self) -> Sequence[int]:
        """The prompt's tokens."""
        return ()

    @property
    def token_ids(self) -> Sequence[int]:
        """Every token so far, those that are no text included; it only ever grows."""
        return ()

    @property
    def digest(self) -> str:
        """SHA-256 of the model's files, in hex; "" where nobody knows it."""
        return ""

    @property
    def timings(self) -> Timings | None:
        """How long it has taken so far; None before the first token."""
        return None

    @property
    def thinks(self) -> bool:
        """Whether the model may think before its answer."""
        return False

    def __aiter__(self) -> Self:
        """Iterate over the events."""

    async def __anext__(self) -> Event:
        """Return the next event; the last one is `Finished`.

        Raises:
            ServerError, ShuttingDown: the generation failed.
        """

    async def aclose(self) -> None:
        """End it and free its slot; harmless when repeated or after the end."""


class Generator(Protocol):
    """Answers requests on whichever models there are."""

    @property
    def num_started(self) -> int:
        """Requests that were started since the server's start; a batch counts as one."""

    async def start(
        self, request: GenerationRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> Generation:
        """Start one generation; whoever starts it closes it in any case.

        Args:
            request: what to generate.
            model_id: None for the current model.
            caller: who asks.

        Raises:
            RequestError, TryAgainLater, ServerError: nothing was started.
        """

    async def start_batch(
        self,
        requests: Sequence[GenerationRequest],
        model_id: str | None = None,
        caller: Caller = NOBODY,
    ) -> Sequence[Generation]:
        """Start all of the requests or none; they share the engine's steps.

        Raises:
            RequestError, TryAgainLater, ServerError: nothing was started.
        """

    async def tokenize(
        self,
        text: str | GenerationRequest,
        model_id: str | None = None,
        *,
        add_special_tokens: bool = True,
        strings: bool = False,
        caller: Caller = NOBODY,
    ) -> TokenizedText:
        """Give the tokens of a text, or of a conversation as the model would get it.

        Args:
            text: as it is, or a request with messages.
            model_id: None for the current model.
            add_special_tokens: whether those that begin and end a text are added.
            strings: whether they are told as the vocabulary writes them, too.
            caller: who asks.

        Raises:
            RequestError, TryAgainLater, ServerError: there is no such model, or it takes no
                such conversation.
        """

    async def detokenize(
        self, ids: Sequence[int], model_id: str | None = None, caller: Caller = NOBODY
    ) -> str:
        """Give the text of tokens, special ones too.

        Args:
            ids: the tokens.
            model_id: None for the current model.
            caller: who asks.

        Raises:
            RequestError, TryAgainLater, ServerError: there is no such model or no such token.
        """

    async def write_out(
        self, request: GenerationRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> str:
        """Give a request's conversation before it is tokenized; raises what `tokenize` does."""

    async def tokenizer_facts(self, model_id: str | None = None) -> TokenizerFacts:
        """Describe a model's tokenizer; raises what `tokenize` does."""
