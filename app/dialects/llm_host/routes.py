"""LLM Host's side of `POST /generate`: an answer to a query, for users."""

from functools import partial
from typing import Any, Final

from litestar import Response
from litestar.openapi.datastructures import ResponseSpec

from app.auth.guards import signed_in
from app.contract.conversation import ChatMessage
from app.contract.generation import GenerationRequest
from app.contract.sampling import SamplingParams
from app.dialects.kit.body import Body, to_record
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Claim, Dialect
from app.dialects.kit.framing import EVENT_STREAM, NDJSON, asks_for
from app.dialects.kit.host import AnyRequest, Host
from app.dialects.kit.refusals import detail
from app.dialects.kit.streaming import Reply
from app.dialects.llm_host.schemas import Content, Query
from app.dialects.llm_host.wire import EventLines, JsonLines, refusals, refuse
from app.errors import InvalidParameter

# A query carries no parameters: these are LocalLab's documented defaults, less what is a matter
# of the model (top_k, repetition_penalty).
SAMPLING: Final = SamplingParams(temperature=0.7, top_p=0.9)


async def generate(host: Host, request: AnyRequest, body: Body) -> Response[Any]:
    """Answer a body with `query`, for users only; whole, or streamed with `?stream=true`."""
    await signed_in(request)
    streamed = _is_true("stream", request.query_params.get("stream", "false"))
    generation = await host.generator.start(
        GenerationRequest(
            messages=[ChatMessage.of("user", to_record(body, Query).query)],
            max_tokens=host.settings.default_max_tokens,
            sampling=SAMPLING,
        ),
        None,  # the current model
        await caller_of(request),
    )
    reply = Reply(request, generation)
    if not streamed:
        [whole] = await reply.whole()
        return Response(Content(whole.text))
    if asks_for(request, NDJSON):
        return await reply.stream(JsonLines(), NDJSON)
    return await reply.stream(EventLines())


def dialect(host: Host) -> Dialect:
    """Make LLM Host's claim; its other endpoints are those of the accounts."""
    return Dialect(
        paths=(),
        refuse=refuse,
        envelope=detail,
        claims={
            "query": Claim(
                handler=partial(generate, host),
                body=Query,
                responses={200: ResponseSpec(Content), **refusals(400, 401, 413, 429, 500, 503)},
                streams=(EVENT_STREAM, NDJSON),
            )
        },
    )


def _is_true(name: str, value: str) -> bool:
    booleans = {"true": True, "1": True, "false": False, "0": False}
    try:
        return booleans[value.lower()]
    except KeyError:
        raise InvalidParameter(name, value, "true or false") from None
