"""The parts of the reference that are written from the code when the site is built.

A page says where one belongs with a comment, `<!-- generated: settings -->`, which Sphinx sees
replaced by what the part of that name returns: Markdown. Knows nothing of Sphinx.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from docs.generate import command_line, endpoints, errors, metrics, settings

PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "command-line": command_line.markdown,
    "endpoints": endpoints.markdown,
    "errors": errors.markdown,
    "metrics": metrics.markdown,
    "settings": settings.markdown,
}
PLACE: Final = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def with_parts(text: str) -> str:
    """Put the parts into a page.

    Raises:
        KeyError: a comment names a part that there isn't.
    """
    return PLACE.sub(lambda place: PARTS[place[1]](), text)
