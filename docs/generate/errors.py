"""The tables of errors: the tree of `app.errors`, and the status that each dialect answers."""

import inspect
import typing
from collections.abc import Iterator
from typing import Any, Final

from app import errors
from app.errors import Error
from docs.generate.application import dialects
from docs.generate.tables import table

# what stands in for an argument of an error's constructor
SAMPLES: Final[dict[object, object]] = {str: "x", object: "x", int: 1, float: 1.0, bool: False}


def markdown() -> str:
    """Write what each error says, then its status in each dialect."""
    kinds = list(tree(Error))
    says = [(_indented(kind), summary(kind)) for kind in kinds]
    columns: dict[tuple[int, ...], list[str]] = {}
    for dialect, column in statuses().items():
        columns.setdefault(tuple(column), []).append(dialect)
    # of those with the same statuses, one column
    answered = [
        (f"`{kind.code}`", *(str(column[row]) for column in columns))
        for row, kind in enumerate(kinds)
    ]
    head = ("code", *(", ".join(names) for names in columns.values()))
    return f"## Codes\n\n{table(('code', 'when'), says)}\n## Statuses\n\n{table(head, answered)}"


def _indented(kind: type[Error]) -> str:
    return "&nbsp;" * 4 * (len(kind.__mro__) - len(Error.__mro__)) + f"`{kind.code}`"


def statuses() -> dict[str, list[int]]:
    """The status of every error of the tree, in its order, by dialect."""
    return {
        name: [dialect.refuse(sample(kind)).status_code or 0 for kind in tree(Error)]
        for name, dialect in dialects().items()
    }


def tree(kind: type[Error]) -> Iterator[type[Error]]:
    """An error and all below it, in the order of the file."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def sample(kind: type[Error]) -> Error:
    """Make an error of a kind: what it says doesn't matter, only its status does."""
    constructor: Any = kind.__init__
    hints = typing.get_type_hints(constructor) if "__init__" in dir(kind) else {}
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    given = [
        SAMPLES[hints[parameter.name]]
        for parameter in parameters
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.default is parameter.empty
    ]
    return kind(*given)


def summary(kind: type[Error]) -> str:
    """The first paragraph of a class's text."""
    return inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
