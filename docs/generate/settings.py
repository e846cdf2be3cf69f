"""The list of settings: fields of `app.settings.Settings`, their defaults, limits and texts."""

import ast
import inspect
import typing
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from app import settings
from app.setting_sources import PREFIX
from app.settings import Settings, expected
from docs.generate.tables import code

WORDS: Final = {
    "int": "whole number",
    "float": "number",
    " and <= ": " to ",
    " >= ": " from ",
    " > ": " above ",
}


def markdown() -> str:
    """Write a section per group of settings, with a part for each of them."""
    text, default = described(), Settings()
    hints = typing.get_type_hints(Settings, include_extras=True)
    parts = []
    for group, fields in grouped().items():
        parts.append(f"## {group}")
        for field in fields:
            shown = as_variable(getattr(default, field))
            parts += [
                f"### {PREFIX}{field.upper()}",
                f"*{in_words(hints[field])}; default: {code(shown) or 'empty'}*",
                text[field],
            ]
    return "\n\n".join(parts) + "\n"


def as_variable(value: object) -> str:
    """Write a value as it would stand in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def in_words(hint: object) -> str:
    """Say what a variable may hold."""
    names = {"str": "text", "bool": "true or false", "Path": "a folder"}
    words = expected(hint)
    if words in names:
        return names[words]
    for of_ours, of_readers in WORDS.items():
        words = words.replace(of_ours, of_readers)
    return words


def described() -> dict[str, str]:
    """Find the text below each field."""
    (body,) = [node.body for node in _classes() if node.name == Settings.__name__]
    texts = {}
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(below, ast.Expr), f"no text below the setting {field.target.id}"
            assert isinstance(below.value, ast.Constant)
            texts[field.target.id] = inspect.cleandoc(str(below.value.value))
    return texts


def grouped() -> dict[str, list[str]]:
    """Find the fields below each comment that heads a group.

    Such a comment is a line of its own, right above a field and below an empty line.
    """
    lines = ["", *_source().splitlines()]
    (body,) = [node.body for node in _classes() if node.name == Settings.__name__]
    groups: dict[str, list[str]] = {}
    for field in body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            above, before = lines[field.lineno - 1].strip(), lines[field.lineno - 2].strip()
            if above.startswith("# ") and not before:
                groups[above.removeprefix("# ")] = []
            groups[next(reversed(groups))].append(field.target.id)
    return groups


def _source() -> str:
    return Path(settings.__file__).read_text(encoding="utf-8")


def _classes() -> Iterator[ast.ClassDef]:
    return (node for node in ast.parse(_source()).body if isinstance(node, ast.ClassDef))
