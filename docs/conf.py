"""How Sphinx makes the manual: `make docs`.

The source folder is the checkout and not docs/, so that links between the pages here and README.md,
SECURITY.md and the notes of other folders are one kind of link, and checked as such. What is not a
page, such as the Containerfile, comes along as a download.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from importlib.metadata import version as version_of  # noqa: E402

from docs.generate import PLACE, with_parts  # noqa: E402 # found by the line above

project = "llmhost"
copyright = "the authors of llmhost"  # noqa: A001 # Sphinx's name for it
release = version = version_of("llmhost")
root_doc = "docs/index"
# The pages; folders that can't have any are not even looked into.
include_patterns = [
    *(
        "docs/*.md",
        "docs/**/*.md",
        "*.md",
        "app/README.md",
        "bench/README.md",
        "bench/LOG.md",
        "models/README.md",
        "deploy/*.md",
    ),
]
exclude_patterns = [".*", "**/.*", "tests", "export", "data", "models/*--*", "*.egg-info", "site"]

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
# Anchors as code hosts make them from headings: a link works there and here.
myst_heading_anchors = 4
# A warning ends the build, and a link that leads nowhere is one.
nitpicky = True
# A block in a language that Pygments doesn't know is fine; one that it can't read is not.
highlight_language = "text"

html_theme = "pydata_sphinx_theme"
html_title = f"llmhost {release}"
html_extra_path = ["extra"]
html_static_path = ["static"]
html_css_files = ["manual.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 5,
    "show_toc_level": 1,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def generate(_: Any, __: str, source: list[str]) -> None:
    """Put what is written from the code into a page that asks for it."""
    source[0] = with_parts(source[0])


def always_anew(_: Any, env: Any, *__: Any) -> list[str]:
    """Name the pages that change with the code, which Sphinx doesn't watch."""
    return [page for page in env.found_docs if PLACE.search(Path(env.doc2path(page)).read_text())]


def setup(app: Any) -> None:
    """Hook both into the build."""
    app.connect("source-read", generate)
    app.connect("env-get-outdated", always_anew)
