"""What has to be done to a request before the engine takes it: template, tokens, limits.

Synchronous; `service` decides on which thread. Refuses what can be refused. Starts nothing.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from app.catalog.grammars import Grammar
from app.contract.generation import Caller, GenerationRequest
from app.engine.sequence import EngineRequest
from app.errors import ContextOverflow, InvalidParameter
from app.generation.models import TextModel
from app.generation.prompting import check_ids, prompt, tool_format
from app.generation.ruled_out import SharedVetoes
from app.generation.structured import response_grammar
from app.generation.thinking import Thinking
from app.generation.tool_calls import ToolCallParser
from app.generation.tool_formats import ToolFormat
from app.generation.tool_grammar import tool_grammar

MOST_PROMPT_FIGURES: Final = 65_536
"""Logprobs of all prompts' tokens together: they are one record each and one answer."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request, ready for the engine but for the constraint that its grammar makes."""

    engine: EngineRequest
    grammar: Grammar | None
    stop: tuple[str, ...]
    """The text ends before the first of these."""
    include_stop: bool = False
    """Or with it."""
    skip_special: bool = True
    """Whether special tokens are no text, but for those in `shown`."""
    silent_ids: frozenset[int]
    """Token ids that end a text without being part of it."""
    format: ToolFormat | None
    """How tool calls are written; None: the answer can't call tools."""
    tool_names: tuple[str, ...]
    calls_required: bool
    """Whether the whole answer has to be calls."""
    thinking: Thinking | None = None
    """How the model may think before its answer; None: it doesn't."""
    prompt_only: bool
    """No token is wanted, only what the engine says of the prompt."""

    @property
    def needless(self) -> bool:
        """Whether there is nothing for the engine to do."""
        return self.prompt_only and self.engine.prompt_logprobs is None

    @property
    def shown(self) -> tuple[str, ...] | None:
        """Special tokens that count as text; None: all of them."""
        if not self.skip_special:
            return None
        calls = () if self.format is None else self.format.tokens
        return calls if self.thinking is None else (*calls, *self.thinking.format.shown)

    def parser(self) -> ToolCallParser | None:
        """Make one for the answer's tool calls; None: all is text."""
        if self.format is None:
            return None
        return ToolCallParser(self.format, self.tool_names, required=self.calls_required)


def prepare(
    model: TextModel, request: GenerationRequest, caller: Caller, shared: SharedVetoes
) -> Prepared:
    """Make what the engine and the text layer need.

    Args:
        model: what answers.
        request: what is asked.
        caller: who asks.
        shared: what was made for requests beside this one.

    Raises:
        InvalidParameter, ContextOverflow, RequestError: it can't be served by this model.
        ModelBroken: the chat template fails by itself.
    """
    calls = tool_format(model, request)
    ids, thinking = prompt(model, request, shows_tools=calls is not None)
    capacity = model.capacity
    ids = _truncated(ids, request, capacity)
    # Prompt and answer share the context: a prompt that fills it has no room for an answer.
    room = capacity - len(ids)
    if room < (0 if request.max_tokens == 0 else 1):
        raise ContextOverflow(len(ids), capacity)
    max_tokens = room if request.max_tokens is None else min(request.max_tokens, room)
    if request.min_tokens > max_tokens:
        limit = f"at most max_tokens and what the context has room for, {max_tokens}"
        raise InvalidParameter("min_tokens", request.min_tokens, limit)
    vocab_size = model.vocab_size
    check_ids("stop_token_ids", request.stop_token_ids, vocab_size)
    check_ids("logit_bias", list(request.sampling.logit_bias), vocab_size)
    check_ids("logprob_token_ids", request.logprob_ids, vocab_size)
    check_ids("allowed_token_ids", request.allowed_ids or (), vocab_size)
    grammar = None
    if calls is not None:
        grammar = tool_grammar(calls, request, model.tokenizer)
    elif request.response_format is not None:
        grammar = response_grammar(request.response_format, request.format_field)
    if grammar is not None and request.allowed_ids is not None:
        limit = "none beside tools or a form that the answer is held to"
        raise InvalidParameter("allowed_token_ids", list(request.allowed_ids), limit)
    eos_ids = frozenset(model.eos_ids)
    stop_ids = frozenset(request.stop_token_ids) | (frozenset() if request.ignore_eos else eos_ids)
    engine = EngineRequest(
        prompt_ids=ids,
        client=caller.client,
        tenant=caller.tenant,
        adapter=model.adapter,
        max_tokens=max(1, max_tokens),
        sampling=request.sampling.completed(request.left_open, model.sampling_defaults),
        stop_ids=stop_ids,
        min_tokens=request.min_tokens,
        vetoes=shared.of(model, request),
        top_logprobs=request.top_logprobs,
        logprob_ids=tuple(dict.fromkeys(request.logprob_ids)),
        prompt_logprobs=request.prompt_logprobs,
        progress=request.progress,
        max_time_s=request.max_time_s,
    )
    return Prepared(
        engine=engine,
        grammar=grammar,
        stop=request.stop,
        include_stop=request.include_stop,
        skip_special=request.skip_special,
        # A grammar may end at the model's own end, whether or not that is ignored.
        silent_ids=stop_ids | eos_ids if grammar is not None else stop_ids,
        format=calls,
        tool_names=tuple(tool.name for tool in request.tools),
        calls_required=request.tool_choice.mode == "required",
        thinking=thinking,
        prompt_only=request.max_tokens == 0,
    )


def _truncated(ids: list[int], request: GenerationRequest, capacity: int) -> list[int]:
    """Leave the last tokens of a prompt that is to be cut."""
    most = request.truncate_prompt
    if most == -1:
        most = max(1, capacity - (1 if request.max_tokens is None else request.max_tokens))
    return ids if most is None else ids[-most:]


def check_figures(all_prepared: Sequence[Prepared]) -> None:
    """Refuse logprobs of prompts that together would hold the event loop and fill memory.

    Args:
        all_prepared: all that becomes one answer.

    Raises:
        InvalidParameter: there are too many.
    """
    wanted = 0
    num_tokens = num_figures = 0
    for prepared in all_prepared:
        engine = prepared.engine
        if engine.prompt_logprobs is not None:
            wanted = max(wanted, engine.prompt_logprobs)
            num_tokens += len(engine.prompt_ids)
            num_figures += len(engine.prompt_ids) * (1 + engine.prompt_logprobs)
    if num_figures > MOST_PROMPT_FIGURES:
        most = MOST_PROMPT_FIGURES // num_tokens - 1
        limit = f"at most {max(most, 0)} for each of a prompt's {num_tokens} tokens"
        raise InvalidParameter("prompt_logprobs", wanted, limit)
