"""Make a request's prompt: its conversation written out, and its tokens.

Synchronous; `service` decides on which thread. What can't fit is refused before it is tokenized.
"""

from collections.abc import Sequence

from app.catalog.chat_template import ChatTemplate
from app.contract.generation import GenerationRequest
from app.errors import ContextOverflow, InvalidParameter, RequestError
from app.generation.conversation import ConversationWriter
from app.generation.models import TextModel
from app.generation.thinking import Thinking, planned, template_options
from app.generation.tool_formats import ToolFormat


def tool_format(model: TextModel, request: GenerationRequest) -> ToolFormat | None:
    """Find how the answer may call tools; None: it may not.

    Raises:
        InvalidParameter, RequestError: there are tools and no conversation, or no template.
    """
    if not request.tools or request.tool_choice.mode == "none":
        return None
    if not request.messages:
        names = [tool.name for tool in request.tools]
        raise InvalidParameter("tools", names, "messages to go with them")
    return _writer(model).tool_format


def prompt(
    model: TextModel, request: GenerationRequest, *, shows_tools: bool
) -> tuple[list[int], Thinking | None]:
    """Write a request's prompt out and tokenize it; say how its answer may think.

    Raises:
        InvalidParameter, ContextOverflow, RequestError: it can't be served by this model.
        ModelBroken: the chat template fails by itself.
    """
    thinking = None
    if request.prompt_ids is not None:
        ids = request.prompt_ids
    elif request.prompt is not None and not (request.messages and model.chat_template):
        ids = _encode(model, [request.prompt], add_special_tokens=True)
    else:
        if not request.messages:
            raise InvalidParameter("messages", [], "at least one")
        parts = _write(model, request, shows_tools=shows_tools)
        if (format_ := _writer(model).thinking) is not None:
            thinking = planned(format_, "".join(parts), request.reasoning)
        ids = _encode(model, parts, add_special_tokens=False)  # the template writes them itself
    if not ids:
        sent = request.prompt if request.prompt_ids is None else request.prompt_ids
        raise InvalidParameter("prompt", sent, "a text of at least one token")
    # a tokenizer may have tokens that the model has no logits for
    check_ids("prompt", ids, model.vocab_size)
    return ids, thinking


def tokenize(
    model: TextModel, text: str | GenerationRequest, *, add_special_tokens: bool
) -> list[int]:
    """Give the tokens of a text, or of a request's conversation as the model would get it.

    Raises:
        InvalidParameter, RequestError, ModelBroken: the conversation can't be written out.
    """
    parts = [text] if isinstance(text, str) else _conversation(model, text)
    return _encode(model, parts, add_special_tokens=add_special_tokens)


def write_out(model: TextModel, request: GenerationRequest) -> str:
    """Give a request's conversation as the model would get it, but for its tokens.

    Raises:
        InvalidParameter, RequestError, ModelBroken: the conversation can't be written out.
    """
    return "".join(_conversation(model, request))


def check_ids(field: str, ids: Sequence[int], vocab_size: int) -> None:
    """Refuse an id that the model doesn't have.

    Raises:
        InvalidParameter: with the id and the vocabulary's size.
    """
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        wrong = next(token_id for token_id in ids if not 0 <= token_id < vocab_size)
        limit = f"token ids below {vocab_size}, the size of this model's vocabulary"
        raise InvalidParameter(field, wrong, limit)


def _conversation(model: TextModel, request: GenerationRequest) -> list[str]:
    return _write(model, request, shows_tools=tool_format(model, request) is not None)


def _encode(model: TextModel, parts: list[str], *, add_special_tokens: bool) -> list[int]:
    """Tokenize a text's parts, each by itself.

    Raises:
        ContextOverflow: by its length alone the text can't fit; nothing was tokenized.
    """
    _check_length(model, sum(map(len, parts)))
    # `encode` would hold the interpreter's lock, so that every thread stands still meanwhile
    encoded = model.tokenizer.encode_batch_fast(parts, add_special_tokens=add_special_tokens)
    return [token_id for encoding in encoded for token_id in encoding.ids]


def _write(model: TextModel, request: GenerationRequest, *, shows_tools: bool) -> list[str]:
    """Write a conversation out.

    Raises:
        ContextOverflow: by its length alone it can't fit. Looking for special tokens in it and
            reading its calls would take seconds, in which nobody else's prompt is prepared.
        InvalidParameter, RequestError, ModelBroken: the template doesn't take it.
    """
    messages = request.messages
    texts = sum(len(part.text) for message in messages for part in message.content)
    arguments = sum(len(call.arguments) for message in messages for call in message.tool_calls)
    _check_length(model, texts + arguments)
    return _writer(model).write(
        messages,
        # Tools that may not be called are not shown: a model that doesn't see them calls none.
        request.tools if shows_tools else (),
        {**template_options(request.reasoning), **request.template_options},
        opens_turn=request.opens_turn,
        continues=request.continues,
    )


def _check_length(model: TextModel, characters: int) -> None:
    if model.longest_token is not None:
        at_least = -(-characters // model.longest_token)
        if at_least > model.capacity:
            raise ContextOverflow(at_least, model.capacity, at_least=True)


def _writer(model: TextModel) -> ConversationWriter:
    template: ChatTemplate | None = model.chat_template
    if template is None:
        raise RequestError(
            f"model {model.model_id} has no chat template: "
            "it takes a prompt, not messages or a system prompt"
        )
    return ConversationWriter(template, model.special_tokens)
