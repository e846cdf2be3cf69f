"""Ids of what OpenAI's endpoints tell of: its kind, and a random number."""

from uuid import UUID, uuid4


def new_id(kind: str) -> str:
    """Make an id for an object of a kind."""
    return f"{kind}_{uuid4().hex}"


def id_of(kind: str, written: str, between: str = "_") -> UUID | None:
    """Read an id that `new_id` made, or one like it; None: it is none of this kind."""
    digits = written.removeprefix(f"{kind}{between}")
    if len(digits) != 32 or digits == written:
        return None
    try:
        found = UUID(digits)
    except ValueError:
        return None
    return found if found.hex == digits else None
