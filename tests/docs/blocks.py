"""The code blocks of all pages: what each is written in, and whether it can be run here.

A block is run unless a comment right above it says why not: `<!-- not run: needs root -->`. A
block below `<!-- output -->` is what the block before it prints, with … for what varies. A block of
`text`, or without a language, is no code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            page
            for folder in ("app", "bench", "deploy", "docs")
            for page in (ROOT / folder).rglob("*.md")
        ),
        ROOT / "models" / "README.md",
    ]
)
NOT_RUN: Final = "<!-- not run: "
OUTPUT: Final = "<!-- output -->"
NO_CODE: Final = ("", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    page: str
    """Relative to the checkout."""
    line: int
    language: str
    text: str
    is_output: bool
    not_run: str
    """Why it can't be run here; empty: it can."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Every block of a page in order, but for directives of the manual and what is no code."""
    found = list(_read(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()))
    return [block for block in found if block.is_output or block.language not in NO_CODE]


def _read(text: str, page: str) -> Iterator[Block]:
    before: Token | None = None
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "fence" and not token.info.startswith("{"):
            assert token.map is not None
            comment = before.content.strip() if before and before.type == "html_block" else ""
            marked = comment.startswith(NOT_RUN)
            yield Block(
                page=page,
                line=token.map[0] + 1,
                language=token.info.strip(),
                text=token.content,
                is_output=comment == OUTPUT,
                not_run=" ".join(comment[len(NOT_RUN) : -len("-->")].split()) if marked else "",
            )
        before = token
