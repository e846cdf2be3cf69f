"""Keep what a client writes as text: special tokens in a conversation are the template's alone.

A client that types `<|im_end|>` into a message would otherwise end its turn, and could open
one of the system. So a mark is put after the first character of every special token in what a
client sent, before the template is rendered. Where a mark comes out, the rendered text is cut, and
the parts are tokenized apart. A conversation without special tokens has no marks.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from app.catalog.call_arguments import called_arguments
from app.contract.conversation import ChatMessage, Tool
from app.errors import InvalidParameter

_PRIVATE_USE: Final = range(0xE000, 0xF900)
_MARK_LENGTH: Final = 8
"""Characters, drawn at random: 101 bits, so that no client can have the mark in its text."""


def marked(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], special_tokens: Sequence[str]
) -> tuple[Sequence[ChatMessage], Sequence[Tool], str]:
    """Mark special tokens in whatever a client sent.

    Args:
        messages: a conversation.
        tools: what it may call.
        special_tokens: the texts to look for. Those of one character can't be marked.

    Returns:
        messages and tools as the template is to see them, and the mark: characters of Unicode's
        private use; "" where there was nothing to mark.
    """
    sent = msgspec.to_builtins((messages, tools))  # a copy, and so changed in place below
    calls = [call for message in sent[0] for call in message["tool_calls"]]
    texts = [*_texts(sent), *(t for call in calls for t in _escaped(call["arguments"]))]
    present = [t for t in special_tokens if len(t) > 1 and any(t in text for text in texts)]
    if not present:
        return messages, tools, ""
    mark = "".join(chr(secrets.choice(_PRIVATE_USE)) for _ in range(_MARK_LENGTH))

    def mark_one(text: str) -> str:
        for token in present:
            while token in text:  # again, for a token may overlap itself
                text = text.replace(token, token[0] + mark + token[1:])
        return text

    for call in calls:
        call["arguments"] = _marked_arguments(call["arguments"], mark_one)
    _change(sent, mark_one)
    return (*msgspec.convert(sent, tuple[list[ChatMessage], list[Tool]]), mark)


def _texts(value: Any) -> Iterator[str]:
    """Find every text in a value, names of fields too."""
    waiting = [value]
    while waiting:  # no recursion: a tool's schema may be nested as deeply as a body
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as fields:
                yield from fields
                waiting += fields.values()
            case list() | tuple() as items:
                waiting += items


def _change(value: Any, change: Callable[[str], str]) -> None:
    """Change every text in a value, names of fields too."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, tuple):
            waiting += part
            continue
        items = list(part.items() if isinstance(part, dict) else enumerate(part))
        if isinstance(part, dict):
            part.clear()
        for key, inner in items:
            if isinstance(inner, dict | list | tuple):
                waiting.append(inner)
            name = change(key) if isinstance(key, str) else key
            part[name] = change(inner) if isinstance(inner, str) else inner


def _escaped(arguments: str) -> Iterator[str]:
    """Find the texts of a call's arguments as templates read them: escapes could hide a token."""
    if "\\" in arguments:
        yield from _texts(_read(arguments))


def _marked_arguments(text: str, change: Callable[[str], str]) -> str:
    """Mark arguments: as the object that templates read, which their text could hide.

    With a name that comes twice, one value is in the text alone.
    """
    value = _read(text)
    texts = list(_texts(value))
    if value is None or [change(t) for t in (text, *texts)] == [text, *texts]:
        return text
    _change(value, change)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _read(arguments: str) -> dict[str, Any] | None:
    """What a call's arguments say, whole or cut off; None: no template reads them."""
    try:
        return called_arguments(arguments)
    except InvalidParameter:
        return None
