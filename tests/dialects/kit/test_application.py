"""Answers of last resort, in the words of the dialect that owns the path."""

import logging
import re
from dataclasses import replace

import pytest
from litestar import Request, Response, Router, get, post

from app.dialects.kit.application import CLIENT_GONE, assemble
from app.dialects.kit.connected import ClientGone
from app.dialects.kit.dialect import Dialect, Owners
from tests.asgi_client import ask
from tests.fakes import FakeService
from tests.hosts import host_over

REFUSED = 418


@get(["/bug", "/api/ai/bug"])
async def bug() -> None:
    raise ValueError("/secret/path")


@get("/gone")
async def gone() -> None:
    raise ClientGone


@get("/bare")
async def bare() -> None:
    pass


@post("/read", status_code=200)
async def read(request: Request) -> dict:
    return {"size": len(await request.body())}


def named(name: str, *paths: str) -> Dialect:
    def envelope(status: int, message: str, headers: dict[str, str]) -> Response:
        return Response({name: message}, status_code=status, headers=headers)

    def headers(_scope, _start) -> list[tuple[bytes, bytes]]:
        return [(b"x-dialect", name.encode())]

    def refuse(error: Exception) -> Response:
        return envelope(REFUSED, str(error), {})

    return Dialect(paths=paths, refuse=refuse, envelope=envelope, headers=headers)


PLAIN = replace(
    named("plain", "/"), router=Router(path="/", route_handlers=[bare, bug, gone, read])
)
DIALECTS = [PLAIN, named("api", "/api"), named("neptun", "/api/ai/")]
app = assemble(host_over(FakeService(), max_body_bytes=10), DIALECTS)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/", "plain"),
        ("/nowhere", "plain"),
        ("/api", "api"),
        ("/api/nowhere", "api"),
        ("/apiary", "plain"),
        ("/api/aims", "api"),
        ("/api/ai/nowhere", "neptun"),
    ],
)
async def test_an_unknown_path_is_answered_in_the_envelope_of_its_prefix(path, dialect):
    answer = await ask(app, "GET", path)
    assert (answer.status, answer.json) == (404, {dialect: f"there is nothing at {path}"})
    assert answer.headers["x-dialect"] == dialect


async def test_a_wrong_method_is_answered_with_those_allowed():
    answer = await ask(app, "DELETE", "/read")
    assert (answer.status, answer.json) == (405, {"plain": "DELETE is not allowed at /read"})
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["*", "/*", "/nowhere", "/bug"])
async def test_options_are_answered_everywhere(path):
    answer = await ask(app, "OPTIONS", path)
    assert answer.status == {"/bug": 204, "*": 204}.get(path, 404)
    if path == "/bug":
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    if path == "*":
        assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


async def test_head_is_answered_where_get_is_and_nowhere_else():
    assert (await ask(app, "HEAD", "/health/live")).status == 404, "no such route in here"
    assert (await ask(app, "HEAD", "/schema")).status == 200
    answer = await ask(app, "HEAD", "/read")
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize(
    "path",
    [
        "/schema/nowhere",
        "/schema/nowhere/deep",
        "/schema/files",
        "/schema/files/nothing",
        "/schema/files/\0",
        "/schema/files/..",
        f"/schema/files/{'a' * 5000}",
    ],
)
async def test_below_the_document_nothing_is_told_as_everywhere_else(path):
    answer = await ask(app, "GET", path)
    assert (answer.status, answer.json) == (404, {"plain": f"there is nothing at {path}"})


async def test_the_documents_page_and_its_files_are_there():
    page = await ask(app, "GET", "/schema")
    assert page.headers["content-type"].startswith("text/html")
    names = re.findall(rb"\./schema/files/([\w.-]+)", page.body)
    assert len(names) == 4
    for name in names:
        answer = await ask(app, "GET", f"/schema/files/{name.decode()}")
        assert (answer.status, len(answer.body) > 100) == (200, True), name
        assert answer.headers["content-disposition"].startswith("inline"), name


@pytest.mark.parametrize("path", ["/", "/bug", "/gone", "/schema", "/read", "/nowhere"])
async def test_no_answer_is_for_a_browser_to_guess_its_type(path):
    assert (await ask(app, "GET", path)).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "settings", "status"),
    [
        ("127.0.0.1:8000", {}, 200),
        ("[::1]:8000", {}, 200),
        ("[::1]", {}, 200),
        ("192.168.1.2", {}, 200),
        ("localhost", {}, 200),
        ("LocalHost.:8000", {}, 200),
        ("app.localhost:8000", {}, 200),
        ("evil.example:8000", {}, REFUSED),
        ("127.0.0.1.evil.example", {}, REFUSED),
        ("localhost.evil.example", {}, REFUSED),
        ("evillocalhost", {}, REFUSED),
        ("models.example:8000", {"allowed_hosts": "other.example, Models.example"}, 200),
        ("x.models.example", {"allowed_hosts": "models.example"}, REFUSED),
        ("evil.example", {"allowed_hosts": "*"}, 200),
        ("evil.example", {"require_auth": True}, 200),
    ],
)
async def test_an_open_server_is_called_by_no_name_that_others_could_point_at_it(
    host, settings, status
):
    served = assemble(host_over(FakeService(), **settings), DIALECTS)
    for path in ("/bare", "/schema", "/schema/files/swagger-ui.css"):
        answer = await ask(served, "GET", path, headers={"host": host})
        assert answer.status == status, path
        if status == REFUSED:
            expected = f"Host is {host!r}, expected an address, localhost or a name of "
            assert answer.json == {"plain": f"{expected}LLMHOST_ALLOWED_HOSTS"}


@pytest.mark.parametrize("headers", [{}, {"content-length": "1"}])
async def test_a_large_body_is_refused_with_the_limit_whatever_its_announced_length(headers):
    answer = await ask(app, "POST", "/read", raw=b"x" * 11, headers=headers)
    assert (answer.status, answer.json) == (413, {"plain": "the body is larger than 10 bytes"})
    assert (await ask(app, "POST", "/read", raw=b"x" * 10)).json == {"size": 10}


@pytest.mark.parametrize(("path", "dialect"), [("/bug", "plain"), ("/api/ai/bug", "neptun")])
async def test_a_bug_is_logged_with_its_traceback_and_not_shown(path, dialect, caplog):
    with caplog.at_level(logging.ERROR):
        answer = await ask(app, "GET", path)
    assert (answer.status, answer.json) == (500, {dialect: "Internal Server Error"})
    [record] = [r for r in caplog.records if r.name == "app.dialects.kit.application"]
    assert record.exc_info[0] is ValueError


async def test_a_client_that_is_gone_is_no_error(caplog):
    with caplog.at_level(logging.WARNING):
        answer = await ask(app, "GET", "/gone")
    assert (answer.status, answer.body) == (CLIENT_GONE, b"")
    assert not [r for r in caplog.records if r.name.startswith("app.")]


@pytest.mark.parametrize(
    "dialects", [[named("a", "/a")], [PLAIN, named("a", "/a"), named("b", "/a/")]]
)
def test_every_path_has_exactly_one_owner(dialects):
    with pytest.raises(AssertionError, match="own"):
        Owners(dialects)
