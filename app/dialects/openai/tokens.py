"""`POST /tokenize` and `/detokenize`: a model's tokens, in the form that vLLM gave them."""

from typing import Annotated, Final

import msgspec
from litestar import Response, post
from msgspec import Meta

from app.contract.generation import Generator
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.openai.chat_schemas import Message, to_messages
from app.dialects.openai.sampling import TokenId
from app.dialects.openai.schemas import ModelId
from app.dialects.openai.taken import IGNORED, UNSERVED, Rules, read
from app.dialects.openai.wire import refusals
from app.errors import InvalidParameter
from app.settings import Settings

_RULES: Final = Rules(UNSERVED, IGNORED)


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /tokenize`: a prompt or messages."""

    model: ModelId | None = None
    prompt: Annotated[str | None, Meta(examples=["Hello"])] = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    add_special_tokens: Annotated[
        bool | None,
        Meta(description="Default: true for a prompt; the chat template writes its own."),
    ] = None


class Tokenized(msgspec.Struct, frozen=True):
    """A text's tokens."""

    count: int
    max_model_len: Annotated[int, Meta(description="Tokens of prompt and answer together.")]
    tokens: list[int]


class DetokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /detokenize`."""

    model: ModelId | None = None
    tokens: Annotated[list[TokenId], Meta(max_length=2**20, examples=[[1, 2, 3]])]


class Detokenized(msgspec.Struct, frozen=True):
    """A text."""

    prompt: str


@post(
    "/tokenize",
    status_code=200,
    summary="Tokenize",
    operation_class=takes(TokenizeBody),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def tokenize(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[Tokenized]:
    """Give the tokens of a text, or of a conversation as the model would get it."""
    passed = PassedOver(strict=settings.strict_parameters)
    asked = read(await read_object(request), TokenizeBody, _RULES, passed)
    if (asked.prompt is None) == (asked.messages is None):
        raise InvalidParameter("prompt", asked.prompt, "either it or messages")
    text = to_messages(asked.messages) if asked.messages is not None else asked.prompt
    assert text is not None, "checked above"
    special = asked.add_special_tokens
    special = asked.prompt is not None if special is None else special
    caller = await caller_of(request)
    tokens = await generator.tokenize(text, asked.model, add_special_tokens=special, caller=caller)
    answer = Tokenized(len(tokens.ids), tokens.max_model_len, tokens.ids)
    return Response(answer, headers=passed.headers)


@post(
    "/detokenize",
    status_code=200,
    summary="Detokenize",
    operation_class=takes(DetokenizeBody),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def detokenize(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[Detokenized]:
    """Give the text of tokens."""
    passed = PassedOver(strict=settings.strict_parameters)
    asked = read(await read_object(request), DetokenizeBody, _RULES, passed)
    caller = await caller_of(request)
    text = await generator.detokenize(asked.tokens, asked.model, caller)
    return Response(Detokenized(text), headers=passed.headers)
