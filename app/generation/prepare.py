"""What has to be done to a request before the engine takes it: template, tokens, limits.

Synchronous; `service` decides on which thread. Refuses what can be refused. Starts nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.catalog.grammars import Grammar
from app.contract.conversation import ChatMessage, Tool
from app.contract.generation import Caller, GenerationRequest
from app.engine.sequence import EngineRequest
from app.errors import ContextOverflow, InvalidParameter, RequestError
from app.generation.conversation import ConversationWriter
from app.generation.models import TextModel
from app.generation.structured import response_grammar
from app.generation.thinking import Thinking, planned, template_options
from app.generation.tool_calls import ToolCallParser
from app.generation.tool_formats import ToolFormat
from app.generation.tool_grammar import tool_grammar


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request, ready for the engine but for the constraint that its grammar makes."""

    engine: EngineRequest
    grammar: Grammar | None
    stop: tuple[str, ...]
    """The text ends before the first of these."""
    include_stop: bool = False
    """Or with it."""
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
    def shown(self) -> tuple[str, ...]:
        """Special tokens that count as text."""
        calls = () if self.format is None else self.format.tokens
        return calls if self.thinking is None else (*calls, *self.thinking.format.shown)

    def parser(self) -> ToolCallParser | None:
        """Make one for the answer's tool calls; None: all is text."""
        if self.format is None:
            return None
        return ToolCallParser(self.format, self.tool_names, required=self.calls_required)


def prepare(model: TextModel, request: GenerationRequest, caller: Caller) -> Prepared:
    """Make what the engine and the text layer need.

    Raises:
        InvalidParameter, ContextOverflow, RequestError: it can't be served by this model.
        ModelBroken: the chat template fails by itself.
    """
    calls = _tool_format(model, request)
    ids, thinking = _prompt(model, request, shows_tools=calls is not None)
    capacity = model.capacity
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
    grammar = None
    if calls is not None:
        grammar = tool_grammar(calls, request, model.tokenizer)
    elif request.response_format is not None:
        grammar = response_grammar(request.response_format, request.format_field)
    eos_ids = frozenset(model.eos_ids)
    stop_ids = frozenset(request.stop_token_ids) | (frozenset() if request.ignore_eos else eos_ids)
    engine = EngineRequest(
        prompt_ids=ids,
        client=caller.client,
        tenant=caller.tenant,
        max_tokens=max(1, max_tokens),
        sampling=request.sampling.completed(request.left_open, model.sampling_defaults),
        stop_ids=stop_ids,
        min_tokens=request.min_tokens,
        top_logprobs=request.top_logprobs,
        prompt_logprobs=request.prompt_logprobs,
        max_time_s=request.max_time_s,
    )
    return Prepared(
        engine=engine,
        grammar=grammar,
        stop=request.stop,
        include_stop=request.include_stop,
        # A grammar may end at the model's own end, whether or not that is ignored.
        silent_ids=stop_ids | eos_ids if grammar is not None else stop_ids,
        format=calls,
        tool_names=tuple(tool.name for tool in request.tools),
        calls_required=request.tool_choice.mode == "required",
        thinking=thinking,
        prompt_only=request.max_tokens == 0,
    )


def tokenize(
    model: TextModel,
    text: str | Sequence[ChatMessage],
    tools: Sequence[Tool] = (),
    *,
    add_special_tokens: bool,
) -> list[int]:
    """Give the tokens of a text, or of a conversation as the model would get it.

    Raises:
        InvalidParameter, RequestError, ModelBroken: the conversation can't be written out.
    """
    if not isinstance(text, str):
        parts = _write(model, text, tools)
        return _encode(model, parts, add_special_tokens=add_special_tokens)
    return _encode(model, [text], add_special_tokens=add_special_tokens)


def check_ids(field: str, ids: Sequence[int], vocab_size: int) -> None:
    """Refuse an id that the model doesn't have.

    Raises:
        InvalidParameter: with the id and the vocabulary's size.
    """
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        wrong = next(token_id for token_id in ids if not 0 <= token_id < vocab_size)
        limit = f"token ids below {vocab_size}, the size of this model's vocabulary"
        raise InvalidParameter(field, wrong, limit)


def _prompt(
    model: TextModel, request: GenerationRequest, *, shows_tools: bool
) -> tuple[list[int], Thinking | None]:
    """Write the prompt out and tokenize it; say how its answer may think."""
    thinking = None
    if request.prompt_ids is not None:
        ids = request.prompt_ids
    elif request.prompt is not None and not (request.messages and model.chat_template):
        ids = _encode(model, [request.prompt], add_special_tokens=True)
    else:
        if not request.messages:
            raise InvalidParameter("messages", [], "at least one")
        # Tools that may not be called are not shown: a model that doesn't see them calls none.
        tools = request.tools if shows_tools else ()
        options = {**template_options(request.reasoning), **request.template_options}
        parts = _write(model, request.messages, tools, options, continues=request.continues)
        if (format_ := _writer(model).thinking) is not None:
            thinking = planned(format_, "".join(parts), request.reasoning)
        ids = _encode(model, parts, add_special_tokens=False)  # the template writes them itself
    if not ids:
        sent = request.prompt if request.prompt_ids is None else request.prompt_ids
        raise InvalidParameter("prompt", sent, "a text of at least one token")
    # a tokenizer may have tokens that the model has no logits for
    check_ids("prompt", ids, model.vocab_size)
    return ids, thinking


def _encode(model: TextModel, parts: list[str], *, add_special_tokens: bool) -> list[int]:
    """Tokenize a text's parts, each by itself.

    Raises:
        ContextOverflow: by its length alone the text can't fit; nothing was tokenized.
    """
    _check_length(model, sum(map(len, parts)))
    # `encode` would hold the interpreter's lock, so that every thread stands still meanwhile
    encoded = model.tokenizer.encode_batch_fast(parts, add_special_tokens=add_special_tokens)
    return [token_id for encoding in encoded for token_id in encoding.ids]


def _write(
    model: TextModel,
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool] = (),
    options: Mapping[str, Any] | None = None,
    *,
    continues: bool = False,
) -> list[str]:
    """Write a conversation out.

    Raises:
        ContextOverflow: by its length alone it can't fit. Looking for special tokens in it and
            reading its calls would take seconds, in which nobody else's prompt is prepared.
        InvalidParameter, RequestError, ModelBroken: the template doesn't take it.
    """
    texts = sum(len(part.text) for message in messages for part in message.content)
    arguments = sum(len(call.arguments) for message in messages for call in message.tool_calls)
    _check_length(model, texts + arguments)
    return _writer(model).write(messages, tools, options, continues=continues)


def _check_length(model: TextModel, characters: int) -> None:
    if model.longest_token is not None:
        at_least = -(-characters // model.longest_token)
        if at_least > model.capacity:
            raise ContextOverflow(at_least, model.capacity, at_least=True)


def _writer(model: TextModel) -> ConversationWriter:
    if model.chat_template is None:
        raise RequestError(
            f"model {model.model_id} has no chat template: "
            "it takes a prompt, not messages or a system prompt"
        )
    return ConversationWriter(model.chat_template, model.special_tokens)


def _tool_format(model: TextModel, request: GenerationRequest) -> ToolFormat | None:
    """Find how the answer may call tools; None: it may not."""
    if not request.tools or request.tool_choice.mode == "none":
        return None
    if not request.messages:
        names = [tool.name for tool in request.tools]
        raise InvalidParameter("tools", names, "messages to go with them")
    return _writer(model).tool_format
