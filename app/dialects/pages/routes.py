"""`GET /`, the chat page, `GET /admin`, the operator's, and the files of all pages.

The pages do everything else over the same endpoints as any other client: nothing here knows of
models, chats or accounts.
"""

from typing import Any, Final

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.dialects.kit.dialect import Dialect
from app.dialects.kit.host import AnyRequest, Host
from app.dialects.kit.refusals import STATUSES, detail, refuse_with_detail
from app.dialects.kit.router import OwnRouter
from app.dialects.pages.files import PageFile, page_files

# no text becomes HTML anywhere on a page, whoever wrote it: that is what the last two say
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' '{style_hash}'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # a new version is seen at the next visit; the files that it names are kept for ever
    "Cache-Control": "no-cache",
}
ASSET_HEADERS: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


def page(path: str, name: str) -> HTTPRouteHandler:
    """Make the route of a page.

    Args:
        path: where it is; one segment at most, since pages name their files relative to themselves.
        name: its file, `index.html`.
    """

    @get(path, include_in_schema=False, name=f"page {name}")
    async def show(request: AnyRequest) -> Response[bytes]:
        found = page_files().pages[name]
        policy = POLICY.format(style_hash=found.style_hash)
        return _answer(request, found.file, {"Content-Security-Policy": policy, **PAGE_HEADERS})

    return show


@get("/assets/{digest:str}/{path:path}", include_in_schema=False)
async def asset(request: AnyRequest, digest: FromPath[str], path: FromPath[str]) -> Response[bytes]:
    """Send a file that pages consist of."""
    files = page_files()
    found = files.assets.get(str(path).removeprefix("/"))
    if digest != files.digest or found is None:
        raise NotFoundException
    return _answer(request, found, ASSET_HEADERS)


def dialect(_: Host) -> Dialect:
    """Make the pages."""
    page_files()  # read at the start: no request waits for it
    return Dialect(
        paths=("/assets",),
        router=OwnRouter(
            path="/", route_handlers=[page("/", "index.html"), page("/admin", "admin.html"), asset]
        ),
        refuse=refuse_with_detail(STATUSES),
        envelope=detail,
    )


def _answer(request: AnyRequest, file: PageFile, headers: dict[str, str]) -> Response[Any]:
    headers = {**headers, "ETag": file.etag, "Vary": "Accept-Encoding"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(None, status_code=304, headers=headers)
    content = file.content
    if file.compressed is not None and _takes_gzip(request.headers.get("accept-encoding", "")):
        headers |= {"Content-Encoding": "gzip"}
        content = file.compressed
    return Response(content, media_type=file.media_type, headers=headers)


def _takes_gzip(accept_encoding: str) -> bool:
    codings = (coding.replace(" ", "") for coding in accept_encoding.lower().split(","))
    return any(coding == "gzip" or coding.startswith("gzip;q=1") for coding in codings)
