import logging

import pytest
from litestar import Litestar, Request, Response, get, post

from app.dialects.fallback import CLIENT_GONE, fallback_handlers
from app.dialects.streaming import ClientGone
from tests.asgi_client import ask


def envelope(dialect: str):
    def answer(status: int, message: str, headers: dict[str, str]) -> Response:
        return Response({dialect: message}, status_code=status, headers=headers)

    return answer


@get(["/bug", "/api/ai/bug"])
async def bug() -> None:
    raise ValueError("/secret/path")


@get("/gone")
async def gone() -> None:
    raise ClientGone


@post("/read", status_code=200)
async def read(request: Request) -> dict:
    return {"size": len(await request.body())}


app = Litestar(
    [bug, gone, read],
    exception_handlers=fallback_handlers(
        {"": envelope("plain"), "/api": envelope("api"), "/api/ai/": envelope("neptun")}
    ),
    request_max_body_size=10,
)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/", "plain"),
        ("/nowhere", "plain"),
        ("/api/nowhere", "api"),
        ("/api/ai/nowhere", "neptun"),
    ],
)
async def test_an_unknown_path_is_answered_in_the_envelope_of_its_prefix(path, dialect):
    answer = await ask(app, "GET", path)
    assert (answer.status, answer.json) == (404, {dialect: f"there is nothing at {path}"})


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
    [record] = [r for r in caplog.records if r.name == "app.dialects.fallback"]
    assert record.exc_info[0] is ValueError


async def test_a_client_that_is_gone_is_no_error(caplog):
    with caplog.at_level(logging.WARNING):
        answer = await ask(app, "GET", "/gone")
    assert (answer.status, answer.body) == (CLIENT_GONE, b"")
    assert not [r for r in caplog.records if r.name.startswith("app.")]
