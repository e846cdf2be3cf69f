"""Find which of a setting's regular expressions names a module.

Where thousands of modules have one each, most say a name in full: those are looked up. Knows
expressions, not settings.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

from export.checkpoints.tensors import Tensors

IN_FULL: Final = re.compile(r"\^((?:[\w-]|\\[.-])+)\$")
"""An expression that one name alone has."""


class Patterns:
    """The expressions of a setting, of which the first one that applies counts."""

    def __init__(
        self,
        tensors: Tensors,
        setting: str,
        expressions: Mapping[str, str],
        where: Literal["beginning", "anywhere"],
    ) -> None:
        """Compile them.

        Args:
            tensors: of the checkpoint.
            setting: its name.
            expressions: by what it has for them.
            where: in a name they have to be found.

        Raises:
            SourceUnusable: one of them is no regular expression.
        """
        self._in_full: dict[str, tuple[int, str]] = {}
        self._others: list[tuple[int, str, Callable[[str], object]]] = []
        for place, (written, expression) in enumerate(expressions.items()):
            anchored = f"^{expression.removeprefix('^')}" if where == "beginning" else expression
            if match := IN_FULL.fullmatch(anchored):
                self._in_full.setdefault(match[1].replace("\\", ""), (place, written))
            else:
                pattern = tensors.pattern(setting, written, expression)
                applies = pattern.match if where == "beginning" else pattern.search
                self._others.append((place, written, applies))

    def first(self, module: str) -> str | None:
        """What the setting has for the first expression that applies to a module, if any."""
        best, written = self._in_full.get(module, (None, None))
        for place, other, applies in self._others:
            if best is not None and place > best:
                break
            if applies(module):
                return other
        return written
