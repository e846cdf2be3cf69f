"""The pages' files: read once from the package, compressed, and named by their content.

Every file but the pages themselves lies below one folder whose name is a digest of them all. They
import each other by relative paths, so a browser never mixes two versions, may keep each file for
ever, and nothing has to be built. A page's style sheets are sent in it, so that it is painted
before its scripts have come. Knows no route.
"""

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"
ASSETS_MARK: Final = "{assets}"
"""In a page: where its files are, relative to the page, so that a path before it does no harm."""
STYLE_LINK: Final = re.compile(r' *<link rel="stylesheet" href="\{assets\}/([^"]+)">\n')
MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".woff2": "font/woff2",
}
"""By suffix; a file with another one is not served."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent."""

    media_type: str
    content: bytes
    etag: str
    """Weak, for it names the content in either coding."""
    compressed: bytes | None
    """By gzip; None: that would not make it smaller."""

    @classmethod
    def of(cls, suffix: str, content: bytes) -> "PageFile":
        """Make one, compressing it.

        Args:
            suffix: a key of `MEDIA_TYPES`.
            content: the whole file.
        """
        # mtime: the same file has the same bytes after every start, as its ETag says
        compressed = gzip.compress(content, mtime=0)
        return cls(
            MEDIA_TYPES[suffix],
            content,
            f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
            compressed if len(compressed) < len(content) else None,
        )


@dataclass(frozen=True, slots=True)
class StyledPage:
    """A page, with its styles in it."""

    file: PageFile
    style_hash: str
    """What a Content-Security-Policy allows these styles by, without its quotes."""


@dataclass(frozen=True, slots=True)
class PageFiles:
    """Everything that is served."""

    digest: str
    """Names the folder of the assets."""
    assets: Mapping[str, PageFile]
    """By path below that folder."""
    pages: Mapping[str, StyledPage]
    """By file name."""


@cache
def page_files() -> PageFiles:
    """Read the package's files; later calls get the same ones."""
    found = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in MEDIA_TYPES and path.is_file()
    }
    whole = hashlib.sha256()
    for name, content in found.items():
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    digest = whole.hexdigest()[:16]
    assets, pages = {}, {}
    for name, content in found.items():
        suffix = Path(name).suffix
        if suffix == ".html":
            pages[name] = _styled(content.decode(), found, digest)
        else:
            assets[name] = PageFile.of(suffix, content)
    return PageFiles(digest, assets, pages)


def _styled(text: str, found: Mapping[str, bytes], digest: str) -> StyledPage:
    """Put a page's style sheets where its first link to one is."""
    styles = "".join(found[name].decode() for name in STYLE_LINK.findall(text))
    assert "url(" not in styles, "it would be relative to the page"
    sha256 = base64.b64encode(hashlib.sha256(styles.encode()).digest()).decode()
    first = STYLE_LINK.search(text)
    assert first is not None, "a page has styles"
    text = text[: first.start()] + f"  <style>{styles}</style>\n" + text[first.end() :]
    text = STYLE_LINK.sub("", text).replace(ASSETS_MARK, f"assets/{digest}")
    return StyledPage(PageFile.of(".html", text.encode()), f"sha256-{sha256}")
