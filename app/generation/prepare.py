"""What has to be done to a request before the engine takes it: template, tokens, limits.

Synchronous; `service` decides on which thread. Refuses what can be refused. Starts nothing.
"""

from collections.abc import Sequence

import msgspec

from app.catalog.chat_template import ChatTemplate
from app.catalog.grammars import Grammar
from app.catalog.loaded import LoadedModel
from app.contract.conversation import ChatMessage, Tool
from app.contract.generation import GenerationRequest
from app.engine.sequence import EngineRequest
from app.errors import ContextOverflow, InvalidParameter, RequestError
from app.generation.structured import response_grammar
from app.generation.tool_calls import ToolCallParser
from app.generation.tool_formats import (
    HERMES,
    ToolFormat,
    in_plain_turns,
    native_format,
    tool_grammar,
)


class Prepared(msgspec.Struct, frozen=True):
    """A request, ready but for the constraint that its grammar makes."""

    engine: EngineRequest
    silent_ids: frozenset[int]
    """End a text without being part of it."""
    grammar: Grammar | None
    format: ToolFormat | None
    """None: the answer can't call tools."""
    tool_names: tuple[str, ...]
    prompt_only: bool
    """No token is wanted."""

    def parser(self) -> ToolCallParser | None:
        """Make one for the answer's tool calls."""
        return None if self.format is None else ToolCallParser(self.format, self.tool_names)


def prepare(model: LoadedModel, request: GenerationRequest, tenant: str) -> Prepared:
    """Make what the engine and the text layer need.

    Raises:
        InvalidParameter, ContextOverflow, RequestError: it can't be served by this model.
        ModelBroken: the chat template fails by itself.
    """
    format_ = _tool_format(model, request)
    ids = _prompt_ids(model, request, format_)
    capacity = model.engine.capacity
    if len(ids) > capacity:
        raise ContextOverflow(len(ids), capacity)
    # the last token is never fed, so a full context still gives one
    room = capacity - len(ids) + 1
    max_tokens = room if request.max_tokens is None else request.max_tokens
    if request.min_tokens > max_tokens:
        limit = f"at most max_tokens, {max_tokens}"
        raise InvalidParameter("min_tokens", request.min_tokens, limit)
    vocab_size = model.manifest.graph.vocab_size
    check_ids("stop_token_ids", request.stop_token_ids, vocab_size)
    check_ids("logit_bias", list(request.sampling.logit_bias), vocab_size)
    grammar = None
    if format_ is not None:
        grammar = tool_grammar(format_, request, model.tokenizer)
    elif request.response_format is not None:
        grammar = response_grammar(request.response_format)
    eos_ids = frozenset(model.manifest.tokens.eos_ids)
    stop_ids = frozenset(request.stop_token_ids) | (frozenset() if request.ignore_eos else eos_ids)
    engine = EngineRequest(
        prompt_ids=ids,
        tenant=tenant,
        max_tokens=max(1, min(max_tokens, room)),
        sampling=request.sampling,
        stop_ids=stop_ids,
        min_tokens=request.min_tokens,
        top_logprobs=request.top_logprobs,
        prompt_logprobs=request.prompt_logprobs,
        max_time_s=request.max_time_s,
    )
    return Prepared(
        engine=engine,
        # A grammar may end at the model's own end, whether or not that is ignored.
        silent_ids=stop_ids | eos_ids if grammar is not None else stop_ids,
        grammar=grammar,
        format=format_,
        tool_names=tuple(tool.name for tool in request.tools),
        prompt_only=request.max_tokens == 0,
    )


def tokenize(
    model: LoadedModel, text: str | Sequence[ChatMessage], *, add_special_tokens: bool
) -> list[int]:
    """Give the tokens of a text, or of a conversation as the model would get it.

    Raises:
        InvalidParameter, RequestError, ModelBroken: the conversation can't be written out.
    """
    if not isinstance(text, str):
        text = conversation(_template(model), text)
    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
    return ids


def check_ids(field: str, ids: Sequence[int], vocab_size: int) -> None:
    """Refuse an id that the model doesn't have.

    Raises:
        InvalidParameter: with the id and the vocabulary's size.
    """
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            limit = f"token ids below {vocab_size}, the size of this model's vocabulary"
            raise InvalidParameter(field, token_id, limit)


def conversation(
    template: ChatTemplate,
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool] = (),
) -> str:
    """Write a conversation out by the template's own means, or by ours where it lacks them.

    Raises:
        InvalidParameter, ModelBroken: as the template does.
    """
    if native_format(template) is not None:
        return template.render(messages, tools)
    if not tools and not any(m.role == "tool" or m.tool_calls for m in messages):
        return template.render(messages)
    try:
        return template.render(in_plain_turns(messages, tools))
    except InvalidParameter:  # some templates take no system's turn
        return template.render(in_plain_turns(messages, tools, in_system=False))


def _prompt_ids(
    model: LoadedModel, request: GenerationRequest, format_: ToolFormat | None
) -> list[int]:
    if request.prompt_ids is not None:
        ids = list(request.prompt_ids)
        check_ids("prompt", ids, model.manifest.graph.vocab_size)
    elif request.messages and (model.chat_template is not None or request.prompt is None):
        # Tools that may not be called are not shown: a model that doesn't see them calls none.
        tools = request.tools if format_ is not None else ()
        text = conversation(_template(model), request.messages, tools)
        # the template writes the special tokens itself
        ids = model.tokenizer.encode(text, add_special_tokens=False).ids
    elif request.prompt is not None:
        ids = model.tokenizer.encode(request.prompt, add_special_tokens=True).ids
    else:
        _template(model)
        raise InvalidParameter("messages", [], "at least one")
    if not ids:
        raise InvalidParameter("prompt", request.prompt, "a text of at least one token")
    return ids


def _template(model: LoadedModel) -> ChatTemplate:
    if model.chat_template is None:
        raise RequestError(
            f"model {model.manifest.model_id} has no chat template: "
            "it takes a prompt, not messages or a system prompt"
        )
    return model.chat_template


def _tool_format(model: LoadedModel, request: GenerationRequest) -> ToolFormat | None:
    """How the answer may call tools; None: it may not."""
    names = [tool.name for tool in request.tools]
    choice = request.tool_choice
    if len(set(names)) < len(names):
        raise InvalidParameter("tools", names, "different names")
    if choice.mode == "required" and not names:
        raise InvalidParameter("tool_choice", choice.mode, "tools to choose from")
    if choice.name is not None and (choice.mode != "required" or choice.name not in names):
        raise InvalidParameter("tool_choice", choice.name, f"required, and one of {names}")
    if not names or choice.mode == "none":
        return None
    if not request.messages:
        raise InvalidParameter("tools", names, "messages to go with them")
    return native_format(_template(model)) or HERMES
