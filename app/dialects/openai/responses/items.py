"""`POST /v1/responses`: the items of an input, and the conversation that they are."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, TextPart, ToolCall
from app.dialects.openai.schemas import NOT_USED, ROLE, TEXT_ALONE
from app.errors import InvalidParameter, Unsupported

_TEXTS: Final = ("input_text", "output_text", "text", "summary_text", "reasoning_text")


class InputPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a message; only text is served."""

    type: str
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    image_url: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: str | None = None


Text = str | list[InputPart] | None


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message, a call of a function, or what the function gave. Output can be sent back."""

    type: Annotated[
        str,
        Meta(
            description="`message`, `function_call`, `function_call_output`, `reasoning`, "
            "`custom_tool_call` or `custom_tool_call_output`."
        ),
    ] = "message"
    role: Annotated[str, Meta(min_length=1, max_length=64, pattern=ROLE)] | None = None
    content: Annotated[Text, Meta(description="Parts are joined by newlines.")] = None
    call_id: str | None = None
    name: str | None = None
    arguments: Annotated[str | None, Meta(description="JSON text.")] = None
    input: Annotated[str | None, Meta(description="Of a custom tool's call.")] = None
    output: Text = None
    id: Annotated[str | None, Meta(description=NOT_USED)] = None
    status: Annotated[str | None, Meta(description=NOT_USED)] = None
    phase: Annotated[str | None, Meta(description=NOT_USED)] = None
    namespace: Annotated[str | None, Meta(description=NOT_USED)] = None
    summary: Annotated[list[Any] | None, Meta(description=NOT_USED)] = None
    encrypted_content: Annotated[str | None, Meta(description=NOT_USED)] = None


def to_messages(items: Sequence[Item], field: str, first: int = 0) -> list[ChatMessage]:
    """Make generation's turns.

    Args:
        items: what was said so far.
        field: the path in the body of those that were sent.
        first: the index of the first of them; those before it were sent earlier.

    Raises:
        InvalidParameter, Unsupported: an item lacks what its type needs, or is not text.
    """
    messages: list[ChatMessage] = []
    calls: dict[int, list[ToolCall]] = {}
    """By the number of the assistant's turn that they belong to."""
    for index, item in enumerate(items):
        where = f"{field}[{index - first}]"
        match item.type:
            case "message":
                role = _needed(item.role, f"{where}.role")
                content = _parts(item.content, f"{where}.content")
                messages.append(ChatMessage(role, content, reasoning=_thought(items, index)))
            case "function_call":
                _add_call(messages, calls, item, item.arguments, where)
            case "custom_tool_call":
                given = {"input": _needed(item.input, f"{where}.input")}
                arguments = msgspec.json.encode(given).decode()
                _add_call(messages, calls, item, arguments, where)
            case "function_call_output" | "custom_tool_call_output":
                call_id = _needed(item.call_id, f"{where}.call_id")
                output = _parts(item.output, f"{where}.output")
                messages.append(ChatMessage("tool", output, tool_call_id=call_id))
            case "reasoning":
                pass  # goes with the message after it
            case "item_reference":
                reason = "it names an item that is not in this request"
                raise Unsupported(f"{where}.type", item.type, reason)
            case other:
                reason = "no tool here leaves such items"
                raise Unsupported(f"{where}.type", other, reason)
    for turn, made in calls.items():
        messages[turn] = msgspec.structs.replace(messages[turn], tool_calls=tuple(made))
    return messages


def _thought(items: Sequence[Item], index: int) -> str | None:
    """Give what the model thought before one of its messages, if that came back in the open."""
    before = items[index - 1] if index and items[index].role == "assistant" else None
    if before is None or before.type != "reasoning" or not isinstance(before.content, list):
        return None
    return "\n".join(part.text or "" for part in before.content) or None


def _add_call(
    messages: list[ChatMessage],
    calls: dict[int, list[ToolCall]],
    item: Item,
    arguments: str | None,
    where: str,
) -> None:
    """Put a call into the assistant's turn, which its text or another call may have begun."""
    call = ToolCall(
        _needed(item.call_id, f"{where}.call_id"),
        _needed(item.name, f"{where}.name"),
        _needed(arguments, f"{where}.arguments"),
    )
    if not messages or messages[-1].role != "assistant":
        messages.append(ChatMessage.of("assistant", ""))
    calls.setdefault(len(messages) - 1, []).append(call)


def _needed(value: str | None, where: str) -> str:
    if value is None:
        raise InvalidParameter(where, None, "string")
    return value


def _parts(content: Text, where: str) -> tuple[TextPart, ...]:
    if not isinstance(content, list):
        return (TextPart(_needed(content, where)),)
    return tuple(TextPart(_part_text(part, f"{where}[{i}]")) for i, part in enumerate(content))


def _part_text(part: InputPart, where: str) -> str:
    if part.type == "refusal":
        return _needed(part.refusal, f"{where}.refusal")
    if part.type not in _TEXTS:
        raise Unsupported(f"{where}.type", part.type, TEXT_ALONE)
    return _needed(part.text, f"{where}.text")
