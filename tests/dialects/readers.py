"""How clients read streams, re-implemented line by line."""

import json
from typing import Any


def read_events(stream: bytes) -> list[str]:
    """The data of each event: the HTML standard's algorithm, for UTF-8 that is whole."""
    events: list[str] = []
    data: list[str] = []
    lines = stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line in lines[:-1]:  # an unfinished line is not processed
        if not line:
            if data:
                events.append("\n".join(data))
            data = []
            continue
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
    return events


def stream_generate(stream: bytes) -> tuple[list[str], bool]:
    """What `LocalLabClient.stream_generate` (1.1.0) yields, and whether it saw the end."""
    yielded: list[str] = []
    for line in _lines(stream):
        text = line.decode().strip()
        if not text:
            continue
        text = text.removeprefix("data: ")
        if text == "[DONE]":
            return yielded, True
        if text.startswith(("\nError:", "Error:")):
            return [*yielded, f"\nError: {text}"], False
        yielded.append(text)
    return yielded, False


def stream_chat(stream: bytes) -> tuple[list[dict[str, Any]], bool]:
    """What `LocalLabClient.stream_chat` (1.1.0) yields, and whether it saw the end."""
    yielded: list[dict[str, Any]] = []
    for line in _lines(stream):
        text = line.decode().strip()
        if not text:
            continue
        try:
            data = json.loads(text)
        except json.JSONDecodeError:
            if text.startswith(("\nError:", "Error:")):
                return [*yielded, {"error": text}], False
            continue
        if data == "[DONE]":
            return yielded, True
        yielded.append(data)
    return yielded, False


def _lines(stream: bytes) -> list[bytes]:
    """As aiohttp cuts a body: behind each newline and nowhere else."""
    return [line + b"\n" for line in stream.split(b"\n")]
