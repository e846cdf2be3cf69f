"""Mutations of JSON: of values while they are a tree, and of the text afterwards.

Knows no endpoint. Whatever is random comes from the generator that is passed in.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from bench.fuzz.values import DEEP, LISTS, NUMBERS, PATTERNS, SCHEMAS, TEXTS, Raw

Place = tuple[Any, Any]
"""A list or object, and the index or key of a value in it."""
LONGEST_LIST: Final = 300
ROOT_SHARE: Final = 0.03
"""Of the changes, how many are to the whole body."""


def mutated(body: Any, others: list[Any], rng: random.Random) -> Any:
    """Change one thing in a body.

    Args:
        body: is left as it is.
        others: bodies from which a field may be taken.
        rng: chooses what, where and how.
    """
    holder = [copy.deepcopy(body)]
    [root, *inner] = _places(holder)
    outer = inner[:12]  # where most fields are
    if not inner or rng.random() < ROOT_SHARE:
        outer = inner = [root]
    container, key = rng.choice(inner if rng.random() < 0.6 else outer)
    value = container[key]
    changes: list[Callable[[], Any]] = [
        lambda: _extreme(rng),
        lambda: _extreme(rng),
        lambda: _like(value, rng),
        lambda: _like(value, rng),
        lambda: _like(value, rng),
        lambda: _other_type(value, rng),
        lambda: rng.choice(SCHEMAS),
        lambda: rng.choice(others),
    ]
    if isinstance(container, dict):
        changes += [
            lambda: _rename(container, key, rng),
            lambda: _double(container, key, rng),
            lambda: _remove(container, key),
            lambda: _add(container, others, rng),
        ]
    changed = rng.choice(changes)()
    if changed is not _DONE:
        container[key] = changed
    return holder[0]


def dumped(value: Any, rng: random.Random) -> bytes:
    """Write a tree as JSON; surrogates and raw leaves make it invalid now and then."""
    ascii_only = rng.random() < 0.5
    return _dumped(value, ascii_only)


def damaged(text: bytes, rng: random.Random) -> bytes:
    """Change one thing in a JSON text, or in a form, as bytes."""
    at = rng.randrange(len(text) + 1)
    end = rng.randrange(at, len(text) + 1)
    strange = [b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\n", bytes([rng.randrange(256)])]
    readable = text.decode("utf-8", "replace")
    return rng.choice(
        [
            text[:at],
            text + rng.choice([b"}", b"]", b"\x00", b" x", b"{}", b",", text]),
            b"\xef\xbb\xbf" + text,
            readable.encode(rng.choice(["utf-16", "utf-32", "utf-7"])),
            text[:at] + rng.choice(strange) + text[at + 1 :],
            text[:at] + rng.choice(strange) + text[at:],
            b" " * rng.choice([1, 1_000, 100_000]) + text,
            rng.choice(DEEP).text[: rng.choice([50, 5_000, 50_000])] + text,
            text.replace(b'"', b"'"),
            text[:end] + text[at:end] + text[end:],
        ]
    )


_DONE: Final = object()
"""The container has been changed already."""


def _places(value: Any) -> Iterator[Place]:
    """Every place in a tree, the outermost first."""
    level = [value]
    while level:
        deeper: list[Any] = []
        for container in level:
            for key in range(len(container)) if isinstance(container, list) else list(container):
                yield container, key
                if isinstance(container[key], list | dict) and container[key]:
                    deeper.append(container[key])
        level = deeper


def _extreme(rng: random.Random) -> Any:
    kind = rng.choices([NUMBERS, TEXTS, LISTS, DEEP, (None, True, False)], [8, 8, 2, 1, 3])[0]
    return copy.deepcopy(rng.choice(kind))


def _like(value: Any, rng: random.Random) -> Any:
    """A value of the same type, but strange."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice([*NUMBERS, value + 1, value - 1, -value, value * 1e10, value / 3])
    if isinstance(value, str):
        return _text_like(value, rng)
    if isinstance(value, list):
        return _list_like(value, rng)
    if isinstance(value, dict):
        return {key: value[key] for key in value if rng.random() < 0.5}
    return _extreme(rng)


def _text_like(value: str, rng: random.Random) -> str:
    strange = rng.choice(TEXTS)
    at = rng.randrange(len(value) + 1)
    return rng.choice(
        [
            strange,
            value[:at] + strange + value[at:],
            value * rng.choice([2, 20, 200]),
            value[:at],
            value.swapcase(),
            rng.choice(PATTERNS),
            "".join(rng.choices(TEXTS, k=5)),
        ]
    )


def _list_like(value: list[Any], rng: random.Random) -> list[Any]:
    match rng.randrange(4):
        case 0:
            return (value * rng.choice([2, 10, 200]))[:LONGEST_LIST]
        case 1:
            return value[1:]
        case 2:
            return [*value, _extreme(rng)]
        case _:
            return rng.sample(value, len(value))


def _other_type(value: Any, rng: random.Random) -> Any:
    match rng.randrange(6):
        case 0:
            return [value]
        case 1:
            return {"a": value}
        case 2:
            return _dumped(value, ascii_only=True).decode()
        case 3 if isinstance(value, str | int | float) and not isinstance(value, bool):
            return Raw(json.dumps(value).encode() + rng.choice([b"0", b".0", b"e1", b"1"]))
        case 4 if isinstance(value, dict):
            return list(value.values())
        case _:
            return len(value) if isinstance(value, list | dict | str) else str(value)


def _rename(container: dict[Any, Any], key: Any, rng: random.Random) -> object:
    name = rng.choice(
        [key.upper(), f"{key} ", f" {key}", f"{key}s", f"{key}\x00", "__proto__", "", *TEXTS]
    )
    container[name] = container.pop(key)
    return _DONE


def _double(container: dict[Any, Any], key: Any, rng: random.Random) -> Raw:
    """The value, and then the whole member once more with another value."""
    first, second = container[key], rng.choice([container[key], _extreme(rng)])
    name = json.dumps(key).encode()
    return Raw(_dumped(first, ascii_only=True) + b", " + name + b": " + _dumped(second, True))


def _remove(container: dict[Any, Any], key: Any) -> object:
    del container[key]
    return _DONE


def _add(container: dict[Any, Any], others: list[Any], rng: random.Random) -> object:
    other = rng.choice(others)
    if isinstance(other, dict) and other and rng.random() < 0.7:
        name = rng.choice(list(other))
        container[name] = copy.deepcopy(other[name])
    else:
        container[rng.choice(TEXTS)] = _extreme(rng)
    return _DONE


def _dumped(value: Any, ascii_only: bool) -> bytes:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        members = (
            _dumped(str(k), ascii_only) + b": " + _dumped(v, ascii_only) for k, v in value.items()
        )
        return b"{" + b", ".join(members) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(_dumped(item, ascii_only) for item in value) + b"]"
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
