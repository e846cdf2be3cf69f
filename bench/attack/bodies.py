"""Bodies that could cost a server far more than a client: large ones, and hostile JSON schemas.

Each is made when it is asked for: together they would take hundreds of megabytes.
"""

import json
from collections.abc import Callable
from typing import Any, Final

LARGE: Final = 9_600_000
"""Bytes; just below the limit of a body."""
CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
HI: Final = b'{"role": "user", "content": "Hi"}'
Made = tuple[str, bytes]
"""A path and a body."""


def large(model: str) -> dict[str, Callable[[], Made]]:
    """The shapes of a body of `LARGE` bytes, by name."""
    named = b'"model": ' + json.dumps(model).encode()

    def chat(messages: bytes, more: bytes = b"") -> Made:
        return CHAT, b'{%b, "messages": [%b]%b}' % (named, messages, more)

    def completion(prompt: bytes) -> Made:
        return COMPLETIONS, b'{%b, "prompt": %b}' % (named, prompt)

    def described() -> Made:
        text = b'{"name": "f", "description": "%b"}' % listed(b"words", b" ")
        return chat(HI, b', "tools": [{"type": "function", "function": %b}]' % text)

    return {
        "empty messages": lambda: chat(listed(b'{"role":"user","content":""}')),
        "one long message": lambda: chat(
            b'{"role": "user", "content": "%b"}' % listed(b"hello", b" ")
        ),
        "blanks": lambda: chat(b'{"role": "user", "content": "%b"}' % (b" " * LARGE)),
        "special tokens": lambda: chat(
            b'{"role": "user", "content": "%b"}' % listed(b"<|im_end|>", b" ")
        ),
        "a long tool description": described,
        "a wide schema": lambda: chat(
            HI, b", %b" % response_format(b'{"enum": [%b]}' % listed(b'"x"'))
        ),
        "many fields": lambda: chat(
            HI, b', "metadata": {%b}' % b",".join(b'"%d":"x"' % i for i in range(700_000))
        ),
        "many prompts": lambda: ("/generate/batch", b'{"prompts": [%b]}' % listed(b'"x"')),
        "many lists": lambda: completion(b"[%b]" % listed(b"[1]")),
        "many token ids": lambda: completion(b"[%b]" % listed(b"1")),
        "many floats": lambda: completion(b"[%b]" % listed(b"1.5")),
        "deep": lambda: ("/generate", b'{"prompt": %b' % (b"[" * LARGE)),
        "a long prompt": lambda: ("/generate", b'{"prompt": "%b"}' % listed(b"hello", b" ")),
        "a long raw prompt": lambda: (
            "/generate",
            b'{"raw": true, "prompt": "%b"}' % listed(b"hello", b" "),
        ),
        "combining marks": lambda: (
            "/generate",
            b'{"prompt": "%b"}' % ("a" + "\u0315\u0300" * (LARGE // 4)).encode(),
        ),
        "a long text to tokenize": lambda: (
            "/tokenize",
            b'{%b, "prompt": "%b"}' % (named, listed(b"hello", b" ")),
        ),
        "many ids to detokenize": lambda: (
            "/detokenize",
            b'{%b, "tokens": [%b]}' % (named, listed(b"1")),
        ),
        "a context of ids to detokenize": lambda: (
            "/detokenize",
            b'{%b, "tokens": [%b]}' % (named, b",".join([b"100"] * 150_000)),
        ),
        "a stop string": lambda: (
            "/generate",
            b'{"prompt": "Hi", "max_length": 2, "stop": "%b"}' % (b"a" * LARGE),
        ),
        "a query": lambda: ("/generate", b'{"query": "%b"}' % listed(b"hello", b" ")),
        "items of a response": lambda: (
            "/v1/responses",
            b'{%b, "input": [%b]}' % (named, listed(b'{"role":"user","content":""}')),
        ),
        "a long user name": lambda: (
            "/register",
            b'{"username": "%b", "password": "testpassword"}'
            % ("a" + "\u0315\u0300" * (LARGE // 4)).encode(),
        ),
        "no JSON": lambda: ("/generate", b"\xff" * LARGE),
    }


def listed(item: bytes, separator: bytes = b",") -> bytes:
    """As many of an item as make `LARGE` bytes."""
    return separator.join([item] * (LARGE // (len(item) + len(separator))))


def response_format(schema: bytes) -> bytes:
    """The field that asks for an answer by a schema."""
    return (
        b'"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": %b}}'
        % schema
    )


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _doubling(levels: int) -> dict[str, Any]:
    """A schema whose text doubles with every level once its references are written out."""
    leaf: dict[str, Any] = {"type": "integer"}
    defs = {"d0": leaf}
    for i in range(1, levels):
        pair = {name: {"$ref": f"#/$defs/d{i - 1}"} for name in ("a", "b")}
        defs[f"d{i}"] = {"type": "object", "properties": pair, "required": ["a", "b"]}
    return {"$defs": defs, "$ref": f"#/$defs/d{levels - 1}"}


SCHEMAS: Final[tuple[dict[str, Any], ...]] = (
    {"type": "string", "pattern": "^(a|aa|aaa)*b$"},
    {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"},
    {"type": "string", "pattern": "^(.*a){60}$"},
    {"type": "string", "pattern": "^([ab]*a[ab]{24})$"},
    {"type": "string", "pattern": "^a{100000}$"},
    {"type": "string", "pattern": "^(?:(?:a{1,99}){1,99}){1,99}$"},
    {"type": "string", "pattern": "|".join(f"^.*{i}.*{i + 1}.*$" for i in range(200))},
    {"anyOf": [{"type": "string", "pattern": f"^.*{c}.{{20}}$"} for c in "abcdefgh"]},
    {"type": "string", "minLength": 9_999, "maxLength": 10_000},
    {"type": "array", "items": {"type": "integer"}, "minItems": 10_000},
    {"type": "array", "items": {"anyOf": [{"const": i} for i in range(2_000)]}, "minItems": 500},
    {"enum": [f"value {i}" for i in range(4_000)]},
    {"enum": [i**3 for i in range(4_000)]},
    {"type": "integer", "minimum": -(10**300), "maximum": 10**300},
    {"type": "number", "minimum": 1e-300, "maximum": 1.0000000000000002e-300},
    {"type": "number", "multipleOf": 1e-9},
    {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(2_000)}},
    {"anyOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(1_000)]},
    _nested(15),
    _doubling(24),
    {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
)
"""JSON schemas that ask for much work, or for an automaton of very many states."""
