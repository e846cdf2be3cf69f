"""Anthropic's Messages: an answer, and how many tokens it would be asked with."""

from typing import Final

import msgspec
from litestar import Response, post

from app.auth.guards import signed_in_if_required, within_chosen_rate_limit
from app.contract.generation import GenerationRequest, Generator
from app.contract.sampling import SamplingParams
from app.dialects.anthropic import wire
from app.dialects.anthropic.conversation import is_beginning
from app.dialects.anthropic.messages_wire import Answering, MessageAnswer, MessageEvents
from app.dialects.anthropic.models import list_models, show_model, visits
from app.dialects.anthropic.schemas import CountBody, MessagesBody, read
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.framing import EVENT_STREAM
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.router import OwnRouter
from app.dialects.kit.streaming import Reply
from app.settings import Settings

REFUSALS: Final = wire.refusals(400, 401, 404, 413, 429, 500, 529)
BETAS: Final = "anthropic-beta"


class Count(msgspec.Struct, frozen=True):
    """Tokens of a prompt."""

    input_tokens: int


@post(
    "/v1/messages",
    status_code=200,
    summary="Message",
    operation_class=takes(MessagesBody, streams=(EVENT_STREAM,)),
    responses=REFUSALS,
)
async def messages(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[MessageAnswer]:
    """Write the assistant's next turn of a conversation, or let it call tools."""
    ignored = PassedOver(strict=settings.strict_parameters)
    betas = request.headers.get(BETAS, "")
    asked = read(await read_object(request), MessagesBody, ignored, betas=betas)
    wanted = asked.request()
    started = await generator.start(wanted, asked.model, await caller_of(request))
    reply = Reply(request, started)
    async with reply.guarded():
        asked.note_thinking(ignored, thinks=reply.thinks)
    hidden = asked.thinking is not None and asked.thinking.display == "omitted"
    answering = Answering(started, asked.max_tokens, hides_thinking=hidden)
    if asked.stream:
        events = MessageEvents(answering)
        return await reply.stream(events, headers=ignored.headers, ping=events.ping)
    # the events of the stream build the answer; here nobody reads them
    await reply.feed(lambda _, event: list(answering.take(event)))
    return Response(answering.message, headers=ignored.headers)


@post(
    "/v1/messages/count_tokens",
    status_code=200,
    summary="Tokens of a message's prompt",
    operation_class=takes(CountBody),
    responses=REFUSALS,
)
async def count_tokens(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[Count]:
    """Count the tokens that the model would be given, without generating."""
    ignored = PassedOver(strict=settings.strict_parameters)
    betas = request.headers.get(BETAS, "")
    asked = read(await read_object(request), CountBody, ignored, betas=betas)
    turns, (tools, choice) = asked.turns(), asked.choice()
    conversation = GenerationRequest(
        messages=turns,
        tools=tools,
        tool_choice=choice,
        # agents ask how long a conversation has become, also where no answer could go on with it
        continues=asked.continues and is_beginning(turns[-1]),
        sampling=SamplingParams(),
    )
    counted = await generator.tokenize(
        conversation,
        asked.model,
        add_special_tokens=False,  # the template writes them itself
        caller=await caller_of(request),
    )
    return Response(Count(len(counted.ids)), headers=ignored.headers)


def dialect(_: Host) -> Dialect:
    """Make Anthropic's endpoints."""
    return Dialect(
        paths=("/v1/messages", "/anthropic"),
        router=OwnRouter(
            path="/",
            route_handlers=[
                OwnRouter(
                    path="/",
                    route_handlers=[messages, count_tokens],
                    guards=[signed_in_if_required, within_chosen_rate_limit],
                ),
                OwnRouter(
                    path="/",
                    route_handlers=[list_models, show_model],
                    guards=[signed_in_if_required],
                ),
            ],
            middleware=[wire.keyed],
            tags=["Anthropic"],
        ),
        refuse=wire.refuse,
        envelope=wire.envelope,
        headers=wire.own_headers,
        visits=visits(),
    )
