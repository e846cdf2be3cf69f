"""The manual is built without a warning: every link and every anchor leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = re.compile(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["'](?:https?:)?//""")
IMPORTED = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//""")


def build(source: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ROOT / "docs"]
    return subprocess.run(
        [*map(str, command), "-d", str(into / "doctrees"), str(source), str(into / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("docs")
    built = build(ROOT, into)
    assert built.returncode == 0, built.stderr
    return into / "site"


def test_every_page_is_in_it(site: Path) -> None:
    pages = [ROOT / "README.md", ROOT / "app" / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 10
    for page in pages:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).is_file()
    assert "docs/index.html" in (site / "index.html").read_text()


def test_tables_are_written_from_the_code(site: Path) -> None:
    page = (site / "docs" / "reference" / "settings.html").read_text()
    assert "LLMHOST_MAX_WAITING" in page
    assert "generated:" not in page


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > 10
    assert styles
    assert not [page for page in pages if FOREIGN.search(page.read_text())]
    assert not [style for style in styles if IMPORTED.search(style.read_text())]


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    page = tmp_path / "source" / "docs" / "index.md"
    page.parent.mkdir(parents=True)
    page.write_text("# A page\n\n[here](#a-page) and [there](#nowhere)\n")
    built = build(tmp_path / "source", tmp_path)
    assert built.returncode != 0
    assert "#nowhere" in built.stderr or "'nowhere'" in built.stderr
    assert "a-page" not in built.stderr
