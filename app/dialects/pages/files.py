"""The pages' files: read once from the package, compressed, and named by their content.

Every file but the pages themselves lies below one folder whose name is a digest of them all. They
import each other by relative paths, so a browser never mixes two versions, may keep each file for
ever, and nothing has to be built. Knows no route.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"
ASSETS_MARK: Final = "{assets}"
"""In a page: where its files are, relative to the page, so that a path before it does no harm."""
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
class PageFiles:
    """Everything that is served."""

    digest: str
    """Names the folder of the assets."""
    assets: Mapping[str, PageFile]
    """By path below that folder."""
    pages: Mapping[str, PageFile]
    """By file name, the mark replaced."""


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
            text = content.decode().replace(ASSETS_MARK, f"assets/{digest}")
            pages[name] = PageFile.of(suffix, text.encode())
        else:
            assets[name] = PageFile.of(suffix, content)
    return PageFiles(digest, assets, pages)
