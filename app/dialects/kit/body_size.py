"""How many values a JSON body has, found without decoding it and without holding the event loop."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

PER_CONTAINER: Final = 8
_SLICE_BYTES: Final = 2**18
"""Counted in one go: some milliseconds in the worst case."""


async def num_values(raw: bytes, enough: int) -> int:
    """Count values in JSON text, without decoding it: that would hold the event loop.

    An array or object counts as `PER_CONTAINER`, for it takes about as long as so many numbers.
    Others have their turn on the loop between one slice and the next.

    Args:
        raw: the text; may be no JSON.
        enough: below this, a bound is as good as the number; above it, as much as was counted.
    """
    bound = 0
    async for piece in _slices(raw):
        bound += _num_separators(piece)
        if bound > enough:
            break
    else:  # so few, whether or not some are inside strings
        return bound
    counted = num_quotes = 0
    kept = b""
    async for piece in _slices(raw):
        text = kept + piece
        kept = b"\\" if (len(text) - len(text.rstrip(b"\\"))) % 2 else b""
        plain = text[: len(text) - len(kept)].replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = plain.split(b'"')
        counted += _num_separators(b"".join(parts[num_quotes % 2 :: 2]))
        num_quotes += len(parts) - 1
        # of the strings half may be keys
        if max(counted, num_quotes // 4) > enough:
            break
    return max(counted, num_quotes // 4)


async def _slices(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), _SLICE_BYTES):
        if start:
            await asyncio.sleep(0)
        yield raw[start : start + _SLICE_BYTES]


def _num_separators(text: bytes) -> int:
    return text.count(b",") + PER_CONTAINER * (text.count(b"{") + text.count(b"["))
