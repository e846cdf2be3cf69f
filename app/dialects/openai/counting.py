"""`POST /v1/responses/input_tokens`: what the input of a response would cost."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, post
from msgspec import Meta

from app.contract.generation import Generator
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.openai.responses_schemas import RESPONSES_RULES, ResponseBody, note_harmless
from app.dialects.openai.taken import read
from app.dialects.openai.tools import without_foreign_tools
from app.dialects.openai.wire import refusals
from app.settings import Settings


class InputTokens(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens an input has."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: Annotated[int, Meta(description="With instructions and the tools as shown.")]


@post(
    "/v1/responses/input_tokens",
    status_code=200,
    summary="Count a response's input",
    operation_class=takes(ResponseBody),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def input_tokens(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[InputTokens]:
    """Count the tokens that a response with this body would read; none is made."""
    passed = PassedOver(strict=settings.strict_parameters)
    body = without_foreign_tools(await read_object(request), passed)
    asked = read(body, ResponseBody, RESPONSES_RULES, passed)
    note_harmless(asked, passed)
    wanted = asked.request()
    tools = () if wanted.tool_choice.mode == "none" else wanted.tools
    tokens = await generator.tokenize(
        wanted.messages,
        asked.model,
        add_special_tokens=False,
        tools=tools,
        caller=await caller_of(request),
    )
    return Response(InputTokens(input_tokens=len(tokens.ids)), headers=passed.headers)
