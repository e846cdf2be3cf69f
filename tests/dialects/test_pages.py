"""Pages and their files: what is sent, for how long it is kept, and what a page may do."""

import base64
import gzip
import hashlib
import re
from pathlib import Path

import pytest
from litestar import Litestar

from app.dialects.pages import routes
from app.dialects.pages.files import FOLDER, MEDIA_TYPES, page_files
from tests.asgi_client import ask
from tests.fakes import FakeService
from tests.hosts import app_over, host_over

BROWSER = {"accept": "text/html,*/*;q=0.8"}
"""Whoever doesn't ask for a page gets Ollama's hello."""
NOT_SERVED = {"vendor/lock.json"}


@pytest.fixture(scope="module")
def app() -> Litestar:
    return app_over(host_over(FakeService()))


def asset_url(name: str) -> str:
    return f"/assets/{page_files().digest}/{name}"


async def test_the_page_names_files_that_are_there(app: Litestar) -> None:
    page = await ask(app, "GET", "/", headers=BROWSER)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:src|href)="(assets/[^"]+)"', page.body.decode())
    assert len(named) >= 3
    for name in named:
        assert (await ask(app, "GET", f"/{name}")).status == 200, name


async def test_a_page_may_run_its_own_scripts_and_reach_no_other_host(app: Litestar) -> None:
    page = await ask(app, "GET", "/", headers=BROWSER)
    headers = page.headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    (styles,) = re.findall("<style>(.*?)</style>", page.body.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(styles.encode()).digest()).decode()
    assert policy["style-src"] == f"'self' 'sha256-{digest}'", "and these styles alone"
    assert policy["trusted-types"] == "'none'", "no text may become HTML"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("page", [*FOLDER.glob("*.html")], ids=lambda page: page.name)
def test_no_page_has_inline_code_or_a_name_of_another_host(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?://|src=\"//", text)


async def test_every_file_of_the_folder_is_served_with_its_type(app: Litestar) -> None:
    names = {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.is_file()}
    assets = {name for name in names if not name.endswith(".html")} - NOT_SERVED
    assert assets == page_files().assets.keys()
    for name in assets:
        answer = await ask(app, "GET", asset_url(name))
        assert answer.status == 200, name
        kind = answer.headers["content-type"].removesuffix("; charset=utf-8")
        assert kind == MEDIA_TYPES["." + name.rpartition(".")[2]]
        assert answer.body == (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    ("accepted", "coded"),
    [
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, GZIP;q=1.0", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("xgzip", False),
    ],
)
async def test_gzip_goes_to_those_who_take_it(app: Litestar, accepted: str, coded: bool) -> None:
    answer = await ask(app, "GET", asset_url("css/base.css"), headers={"accept-encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") is coded
    body = gzip.decompress(answer.body) if coded else answer.body
    assert body == (FOLDER / "css/base.css").read_bytes()
    assert answer.headers["vary"] == "Accept-Encoding"


async def test_what_does_not_get_smaller_is_sent_as_it_is(app: Litestar) -> None:
    font = next(name for name in page_files().assets if name.endswith(".woff2"))
    answer = await ask(app, "GET", asset_url(font), headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


async def test_pages_are_asked_for_anew_and_their_files_never_again(app: Litestar) -> None:
    page = await ask(app, "GET", "/", headers=BROWSER)
    assert page.headers["cache-control"] == "no-cache"
    again = await ask(app, "GET", "/", headers={**BROWSER, "if-none-match": page.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    other = await ask(app, "GET", "/", headers={**BROWSER, "if-none-match": 'W/"other"'})
    assert other.status == 200
    kept = await ask(app, "GET", asset_url("css/base.css"))
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    "path",
    [
        "/assets",
        "/assets/0000000000000000/css/base.css",
        asset_url("css/none.css"),
        asset_url("vendor/lock.json"),
        asset_url("index.html"),
        asset_url("../routes.py"),
        asset_url("css/../../routes.py"),
        asset_url("css"),
    ],
)
async def test_nothing_else_is_there(app: Litestar, path: str) -> None:
    answer = await ask(app, "GET", path)
    assert answer.status == 404
    assert "there is nothing at" in answer.json["detail"]


def test_relative_imports_of_scripts_and_styles_lead_to_files() -> None:
    found = 0
    for path in [*FOLDER.rglob("*.js"), *FOLDER.rglob("*.css")]:
        if path.is_relative_to(FOLDER / "vendor") and "preact" not in path.parts:
            continue
        for target in re.findall(
            r"""(?:from ?|import\()["']([^"']+)["']|url\("?([^")]+)""", path.read_text()
        ):
            name = next(filter(None, target))
            assert (path.parent / name).is_file(), f"{path.name}: {name}"
            found += 1
    assert found > 3


@pytest.mark.parametrize("page", [*FOLDER.glob("*.html")], ids=lambda page: page.name)
def test_a_page_asks_at_once_for_all_modules_that_its_script_imports(page: Path) -> None:
    """Else a browser learns of them one level after the other."""
    text = page.read_text()
    [script] = re.findall(r'<script type="module" src="{assets}/([^"]+)"', text)
    wanted, found = [FOLDER / script], set()
    while wanted:
        path = wanted.pop().resolve()
        found.add(path.relative_to(FOLDER).as_posix())
        imports = re.findall(r'\bfrom ?"(\.[^"]+)"', path.read_text())
        wanted += [
            path.parent / name
            for name in imports
            if (path.parent / name).resolve().relative_to(FOLDER).as_posix() not in found
        ]
    preloaded = re.findall(
        r'<link rel="modulepreload" fetchpriority="low" href="{assets}/([^"]+)">', text
    )
    assert sorted(preloaded) == sorted(found - {script})


def test_a_page_stands_in_no_folder_of_its_own() -> None:
    """It names its files relative to itself, which is what lets a proxy add a prefix."""
    assert all("/" not in name for name in page_files().pages)
    assert routes.page("/", "index.html").paths == {"/"}
