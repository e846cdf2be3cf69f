"""Keep what a client writes as text: special tokens in a conversation are the template's alone.

A client that types `<|im_end|>` into a message would otherwise end its turn, and could open
one of the system. So a mark is put after the first character of every special token in what a
client sent, before the template is rendered. Where a mark comes out, the rendered text is cut, and
the parts are tokenized apart. A conversation without special tokens has no marks.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from app.contract.conversation import ChatMessage, Tool

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
    sent = msgspec.to_builtins((messages, tools))
    present = [t for t in special_tokens if len(t) > 1 and any(t in text for text in _texts(sent))]
    if not present:
        return messages, tools, ""
    mark = "".join(chr(secrets.choice(_PRIVATE_USE)) for _ in range(_MARK_LENGTH))

    def mark_one(text: str) -> str:
        for token in present:
            while token in text:  # again, for a token may overlap itself
                text = text.replace(token, token[0] + mark + token[1:])
        return text

    seen = _mapped(sent, mark_one)
    return (*msgspec.convert(seen, tuple[list[ChatMessage], list[Tool]]), mark)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, inner in value.items():
                if key == "arguments" and isinstance(inner, str):
                    inner = _decoded(inner)  # noqa: PLW2901 # its escapes could hide a token
                yield from (key, *_texts(inner))
        case list() | tuple():
            for inner in value:
                yield from _texts(inner)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {
                change(key): _mapped_arguments(inner, change)
                if key == "arguments" and isinstance(inner, str)
                else _mapped(inner, change)
                for key, inner in value.items()
            }
        case list() | tuple():
            return [_mapped(inner, change) for inner in value]
    return value


def _mapped_arguments(text: str, change: Callable[[str], str]) -> str:
    decoded = _decoded(text)
    if isinstance(decoded, str):
        return change(text)
    return msgspec.json.encode(_mapped(decoded, change)).decode()


def _decoded(text: str) -> Any:
    """What a call's arguments say; the text itself where they were cut off."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
