"""Answers of last resort, in the words of the dialect that owns the path."""

import logging
from dataclasses import replace

import pytest
from litestar import Request, Response, Router, get, post

from app.dialects.kit.application import CLIENT_GONE, assemble
from app.dialects.kit.dialect import Dialect, Owners
from app.dialects.kit.streaming import ClientGone
from tests.asgi_client import ask
from tests.fakes import FakeService
from tests.hosts import host_over


@get(["/bug", "/api/ai/bug"])
async def bug() -> None:
    raise ValueError("/secret/path")


@get("/gone")
async def gone() -> None:
    raise ClientGone


@post("/read", status_code=200)
async def read(request: Request) -> dict:
    return {"size": len(await request.body())}


def named(name: str, *paths: str) -> Dialect:
    def envelope(status: int, message: str, headers: dict[str, str]) -> Response:
        return Response({name: message}, status_code=status, headers=headers)

    def headers(_scope, _start) -> list[tuple[bytes, bytes]]:
        return [(b"x-dialect", name.encode())]

    def refuse(error: Exception) -> Response:
        return envelope(418, str(error), {})

    return Dialect(paths=paths, refuse=refuse, envelope=envelope, headers=headers)


PLAIN = replace(named("plain", "/"), router=Router(path="/", route_handlers=[bug, gone, read]))
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
