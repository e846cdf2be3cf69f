"""Pages for readers: what they link to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(
        page
        for folder in ("app", "bench", "deploy", "docs", "models")
        for page in (ROOT / folder).rglob("*.md")
    ),
]
LINK = re.compile(r"\]\((?!\w+://)([^)#]*)(#[^)]*)?\)")


def anchors(page: Path) -> set[str]:
    """What can stand behind # in a link to a page, as code hosts make it from a heading."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}{anchor}"


def test_readme_and_the_pages_of_docs_are_among_them() -> None:
    assert len(LINK.findall((ROOT / "README.md").read_text())) > 10
    assert len(list((ROOT / "docs").rglob("*.md"))) > 8
