"""Lists of what a user has, a page at a time, as OpenAI tells them."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, Self

import msgspec


class Told(Protocol):
    """What a list tells of one entry."""

    @property
    def id(self) -> str:
        """The id that the next page begins after."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list; each kind of list says what its entries are."""

    object: Literal["list"] = "list"
    data: list[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[Told], limit: int) -> Self:
        """Make a page of `limit` entries, of which one more was looked for."""
        shown = list(found[:limit])
        return cls(
            data=shown,
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
            has_more=len(found) > limit,
        )
