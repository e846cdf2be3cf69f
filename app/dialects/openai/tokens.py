"""A model's tokens and its template, as vLLM and llama.cpp tell them.

`POST /tokenize`, `/detokenize` and `GET /tokenizer_info` are vLLM's, `POST /apply-template` is
llama.cpp's. None of them generates anything.
"""

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from msgspec import UNSET, Meta, UnsetType

from app.contract.generation import GenerationRequest, Generator
from app.contract.sampling import SamplingParams
from app.contract.tokens import TokenizerFacts
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.query import asks, read_query
from app.dialects.kit.tools import to_options
from app.dialects.openai.chat_schemas import CHAT_RULES, ChatBody, Message, to_messages
from app.dialects.openai.sampling import TokenId
from app.dialects.openai.schemas import ModelId, TemplateVariables
from app.dialects.openai.taken import IGNORED, UNSERVED, Rules, read
from app.dialects.openai.tools import ChatTool, to_tools, without_foreign_tools
from app.dialects.openai.wire import refusals
from app.errors import InvalidParameter
from app.settings import Settings

_RULES: Final = Rules(UNSERVED, IGNORED)
_OF_MESSAGES: Final = (
    *("add_generation_prompt", "continue_final_message", "chat_template_kwargs", "tools"),
)


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /tokenize`: a prompt or messages."""

    model: ModelId | None = None
    prompt: Annotated[str | None, Meta(examples=["Hello"])] = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    add_special_tokens: Annotated[
        bool | None,
        Meta(description="Default: true for a prompt; the chat template writes its own."),
    ] = None
    add_generation_prompt: Annotated[
        bool | None,
        Meta(description="Whether the assistant's turn is opened. Default: true."),
    ] = None
    continue_final_message: Annotated[
        bool, Meta(description="The last message is to be gone on with: its turn stays open.")
    ] = False
    chat_template_kwargs: TemplateVariables = {}  # msgspec copies it
    tools: Annotated[list[ChatTool], Meta(max_length=128)] = []  # msgspec copies it
    return_token_strs: Annotated[
        bool, Meta(description="Tell tokens as the vocabulary writes them, too.")
    ] = False

    def text(self) -> str | GenerationRequest:
        """Make what is to be tokenized.

        Raises:
            InvalidParameter: there are both, or neither, or fields that contradict each other.
        """
        if (self.prompt is None) == (self.messages is None):
            raise InvalidParameter("prompt", self.prompt, "either it or messages")
        if self.prompt is not None or self.messages is None:
            for name in _OF_MESSAGES:
                if value := getattr(self, name):
                    raise InvalidParameter(name, value, "messages to go with it")
            return self.prompt or ""
        if self.add_generation_prompt and self.continue_final_message:
            limit = "false with continue_final_message"
            raise InvalidParameter("add_generation_prompt", True, limit)
        tools = [tool.function for tool in self.tools]
        return GenerationRequest(
            messages=to_messages(self.messages),
            tools=to_tools(tools, strict=False, where="tools[{}].function.name"),
            template_options=to_options(self.chat_template_kwargs, "chat_template_kwargs"),
            opens_turn=self.add_generation_prompt is not False,
            continues=self.continue_final_message,
            sampling=SamplingParams(),
        )


class Tokenized(msgspec.Struct, frozen=True):
    """A text's tokens."""

    count: int
    max_model_len: Annotated[int, Meta(description="Tokens of prompt and answer together.")]
    tokens: list[int]
    token_strs: Annotated[list[str] | UnsetType, Meta(description="With return_token_strs.")] = (
        UNSET
    )


class DetokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /detokenize`."""

    model: ModelId | None = None
    tokens: Annotated[list[TokenId], Meta(max_length=2**20, examples=[[1, 2, 3]])]


class Written(msgspec.Struct, frozen=True):
    """A text."""

    prompt: str


class InfoQuery(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /tokenizer_info`."""

    model: ModelId | None = None


class TokenizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer, by the names of Transformers' `tokenizer_config.json`."""

    tokenizer_class: Annotated[str, Meta(description="What reads the model's tokenizer.json.")] = (
        "PreTrainedTokenizerFast"
    )
    vocab_size: int
    model_max_length: Annotated[int, Meta(description="Tokens of prompt and answer together.")]
    bos_token: str | None
    eos_token: str | None
    chat_template: str | None
    added_tokens_decoder: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, facts: TokenizerFacts) -> "TokenizerInfo":
        """Make it from the contract's record."""
        return cls(
            vocab_size=facts.vocab_size,
            model_max_length=facts.capacity,
            bos_token=facts.bos,
            eos_token=facts.eos,
            chat_template=facts.chat_template,
            added_tokens_decoder={
                str(token_id): msgspec.structs.asdict(token)
                for token_id, token in facts.added.items()
            },
        )


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
    body = without_foreign_tools(await read_object(request), passed)
    asked = read(body, TokenizeBody, _RULES, passed)
    special = asked.add_special_tokens
    tokens = await generator.tokenize(
        asked.text(),
        asked.model,
        add_special_tokens=asked.prompt is not None if special is None else special,
        strings=asked.return_token_strs,
        caller=await caller_of(request),
    )
    answer = Tokenized(
        len(tokens.ids),
        tokens.max_model_len,
        tokens.ids,
        tokens.strings if asked.return_token_strs else UNSET,
    )
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
) -> Response[Written]:
    """Give the text of tokens."""
    passed = PassedOver(strict=settings.strict_parameters)
    asked = read(await read_object(request), DetokenizeBody, _RULES, passed)
    caller = await caller_of(request)
    text = await generator.detokenize(asked.tokens, asked.model, caller)
    return Response(Written(text), headers=passed.headers)


@post(
    "/apply-template",
    status_code=200,
    summary="Apply the chat template",
    operation_class=takes(ChatBody),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def apply_template(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[Written]:
    """Write out the prompt that a chat completion with this body would read; none is made."""
    passed = PassedOver(strict=settings.strict_parameters)
    body = without_foreign_tools(await read_object(request), passed)
    asked = read(body, ChatBody, CHAT_RULES, passed)
    [wanted, *_] = asked.requests()
    text = await generator.write_out(wanted, asked.model, await caller_of(request))
    return Response(Written(text), headers=passed.headers)


# Not behind a flag, as it is at vLLM: all that it tells can be found out with /tokenize and
# /apply-template, and whoever may not know it may not sign in either.
@get(
    "/tokenizer_info",
    summary="Describe the tokenizer",
    operation_class=asks(InfoQuery),
    responses=refusals(400, 401, 404, 500, 503),
)
async def tokenizer_info(request: AnyRequest, generator: Provided[Generator]) -> TokenizerInfo:
    """Describe a model's tokenizer and give its chat template."""
    asked = read_query(request, InfoQuery)
    return TokenizerInfo.of(await generator.tokenizer_facts(asked.model))
