"""Fields that ask for what can't be served and change no answer's meaning: taken, and said so.

Clients send more than any one server has. What is passed over is named in a header of the answer,
so that nothing is ignored silently; a strict server refuses it.
"""

import re
from typing import Any, Final

from app.errors import Unsupported

IGNORED: Final = "x-llmhost-ignored"
"""The header's name."""
_MOST: Final = 20
# What a client names stands in a header: letters of field names alone.
_NAME: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")


class PassedOver:
    """What one request asked for in vain."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        """Whether nothing is."""
        self._names: dict[str, None] = {}

    def note(self, field: str, value: Any, reason: str) -> None:
        """Take a field without doing what it asks for.

        Raises:
            Unsupported: the server is strict, or the field has a name that no header could have.
        """
        if self.strict or not _NAME.fullmatch(field):
            raise Unsupported(field, value, reason)
        self._names[field] = None

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says of it; nothing where there was nothing."""
        names = list(self._names)
        if not names:
            return {}
        more = [f"and-{len(names) - _MOST}-more"] if len(names) > _MOST else []
        return {IGNORED: ", ".join([*names[:_MOST], *more])}
