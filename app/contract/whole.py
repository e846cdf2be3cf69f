"""All events of a generation in one record, for whoever waits for its end."""

from collections.abc import AsyncIterator

import msgspec

from app.contract.conversation import ToolCall
from app.contract.generation import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from app.contract.tokens import PromptLogprobs, TokenLogprob


class Whole(msgspec.Struct, frozen=True):
    """All events of a generation in one record."""

    text: str
    logprobs: tuple[TokenLogprob, ...]
    prompt_logprobs: PromptLogprobs | None
    tool_calls: tuple[ToolCall, ...]
    finished: Finished
    reasoning: str = ""
    """What the model thought before the answer."""


async def collect(events: AsyncIterator[Event]) -> Whole:
    """Wait for the end of a generation and return everything in one record.

    Raises:
        ServerError, ShuttingDown: the generation failed.
    """
    text: list[str] = []
    thoughts: list[str] = []
    logprobs: list[TokenLogprob] = []
    prompt: PromptLogprobs | None = None
    heads: list[ToolCallDelta] = []
    arguments: list[list[str]] = []
    async for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
                logprobs += event.logprobs
            case ReasoningDelta():
                thoughts.append(event.text)
            case PromptLogprobs():
                prompt = event
            case ToolCallDelta():
                if event.id is not None:
                    heads.append(event)
                    arguments.append([])
                arguments[event.index].append(event.arguments)
            case Finished():
                calls = tuple(
                    ToolCall(head.id or "", head.name or "", "".join(pieces))
                    for head, pieces in zip(heads, arguments, strict=True)
                )
                reasoning = "".join(thoughts)
                return Whole("".join(text), tuple(logprobs), prompt, calls, event, reasoning)
    raise AssertionError("iteration ends with Finished")
