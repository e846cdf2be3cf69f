"""Every text that a client sends meets a length limit before anything costly is done with it."""

import json
import unicodedata
from pathlib import Path
from urllib.parse import urlencode

import jwt
import pytest

from app.auth.accounts import TYPED_NAME_CHARACTERS, name_key
from app.auth.passwords import PasswordHasher
from tests.accounts_app import CHAT, HELLO, PASSWORD, Server, running
from tests.asgi_client import Answer

# NFKC sorts a run of these by their classes, in time that grows with the square of its length.
MARKS = "a" + "\u0327" * 60_000 + "\u0301" * 60_000
LONG_PASSWORD = "x" * 1025
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(autouse=True)
def normalized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long the texts were that were normalised."""
    lengths: list[int] = []
    real = unicodedata.normalize

    def normalize(form: str, text: str) -> str:
        lengths.append(len(text))
        return real(form, text[:1000])  # else a failing test takes minutes

    monkeypatch.setattr(unicodedata, "normalize", normalize)
    return lengths


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was hashed or compared with a hash."""
    passwords: list[str] = []
    for name in ("hash", "verify"):
        real = getattr(PasswordHasher, name)

        async def noting(self, *arguments, real=real):
            passwords.extend(text for text in arguments if isinstance(text, str))
            return await real(self, *arguments)

        monkeypatch.setattr(PasswordHasher, name, noting)
    return passwords


def multipart(fields: dict[str, str], head: str = "") -> bytes:
    parts = (
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n{head}\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return "".join([*parts, "--x--\r\n"]).encode()


async def log_in(server: Server, kind: str, username: str, password: str = PASSWORD) -> Answer:
    fields = {"username": username, "password": password}
    raw, content_type = {
        "form": (urlencode(fields).encode(), FORM),
        "unescaped form": (f"username={username}&password={password}".encode(), FORM),
        "multipart": (multipart(fields), "multipart/form-data; boundary=x"),
        "json": (json.dumps(fields).encode(), "application/json"),
    }[kind]
    return await server.ask("POST", "/login", raw=raw, headers={"content-type": content_type})


@pytest.mark.parametrize("kind", ["form", "unescaped form", "multipart", "json"])
@pytest.mark.parametrize("length", [1_000, 15_000, 120_000])
async def test_a_name_of_any_length_is_not_normalised_at_login(
    tmp_path: Path, normalized: list[int], kind: str, length: int
):
    async with running(tmp_path) as server:
        answer = await log_in(server, kind, MARKS[:length])
    assert answer.status in (400, 413)
    assert len(answer.body) < 500
    assert max(normalized, default=0) <= TYPED_NAME_CHARACTERS


@pytest.mark.parametrize("registration", ["open", "closed"])
@pytest.mark.parametrize("length", [1_000, 15_000, 120_000])
async def test_nor_when_it_is_registered(
    tmp_path: Path, normalized: list[int], registration: str, length: int
):
    async with running(tmp_path, registration=registration) as server:
        answer = await server.register(MARKS[:length])
    assert answer.status in (400, 413)
    assert max(normalized, default=0) <= TYPED_NAME_CHARACTERS


def test_nor_below_the_dialects(normalized: list[int]):
    assert name_key(MARKS) is None
    assert not normalized


@pytest.mark.parametrize("name", ["e\u0301" * 64, "\u1100\u1161\u11a8" * 64])
async def test_a_name_may_be_typed_in_its_longest_form(tmp_path: Path, name: str):
    composed = unicodedata.normalize("NFKC", name)
    assert len(composed) == 64 < len(name)
    async with running(tmp_path) as server:
        assert (await server.register(composed)).status == 200
        assert (await log_in(server, "form", name)).status == 200


@pytest.mark.parametrize("kind", ["form", "multipart", "json"])
async def test_a_password_that_nobody_can_have_is_not_hashed_at_login(
    tmp_path: Path, hashed: list[str], kind: str
):
    async with running(tmp_path) as server:
        await server.register("ada")
        answer = await log_in(server, kind, "ada", LONG_PASSWORD)
        nobody = await log_in(server, kind, "nobody", LONG_PASSWORD)
    detail = "password has 1025 characters, expected at most 1024"
    assert (answer.status, answer.json) == (400, {"detail": detail})
    assert nobody.body == answer.body
    assert hashed == [PASSWORD], "the registration's"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/me/password", {"current_password": LONG_PASSWORD, "new_password": "anotherpassword"}),
        ("/me/password", {"current_password": PASSWORD, "new_password": LONG_PASSWORD}),
        ("/me/delete", {"password": LONG_PASSWORD}),
    ],
)
async def test_nor_by_who_is_signed_in(
    tmp_path: Path, hashed: list[str], path: str, body: dict[str, str]
):
    async with running(tmp_path) as server:
        token = await server.token("ada")
        hashed.clear()
        answer = await server.ask("POST", path, body, token=token)
    assert answer.status == 400
    assert answer.json["detail"].startswith("password has 1025 characters")
    assert hashed == []


@pytest.mark.parametrize("path", ["/register", "/login", "/refresh", "/me/password", "/me/keys"])
async def test_a_body_has_no_more_bytes_than_the_longest_of_its_texts_take(
    tmp_path: Path, path: str
):
    async with running(tmp_path) as server:
        token = await server.token("ada")
        answer = await server.ask("POST", path, {"x": "y" * 70_000}, token=token)
        assert (answer.status, answer.json) == (
            413,
            {"detail": "the body is larger than 65536 bytes"},
        )
        # a thousand characters, each escaped as two surrogates
        body = {"username": "bob", "password": "😀" * 1024}
        assert len(json.dumps(body)) > 12_000
        assert (await server.ask("POST", "/register", body)).status == 200
        assert (await server.ask("POST", "/login", body)).status == 200


async def test_a_smaller_setting_holds_here_too(tmp_path: Path):
    async with running(tmp_path, max_body_bytes=1000) as server:
        assert (await server.register("ada", "x" * 1000)).status == 413


async def test_a_token_of_any_length_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    monkeypatch.setattr(jwt, "get_unverified_header", read.append)
    async with running(tmp_path) as server:
        for token in ("x" * 1025, "a." * 200_000, "sk-llmhost-" + "a" * 400_000):
            answer = await server.ask("GET", "/me", token=token)
            assert answer.status == 401
            assert len(answer.body) < 200
            body = {"refresh_token": token[:60_000]}
            answer = await server.ask("POST", "/refresh", body)
            assert (answer.status, answer.json) == (401, {"detail": "invalid refresh token"})
    assert read == []


@pytest.mark.parametrize("text", ["\0", "é", "日本語", "x" * 50_000, "{", "0" * 32])
async def test_no_text_in_a_path_or_query_is_a_fault_of_ours(tmp_path: Path, text: str):
    async with running(tmp_path) as server:
        token = await server.token("ada")
        for method, path, body, statuses in (
            ("DELETE", f"/me/keys/{text}", None, (404,)),
            ("GET", f"/api/chats/{text}", None, (404,)),
            ("PATCH", f"/api/chats/{text}", {"title": "x"}, (404,)),
            ("DELETE", f"/api/chats/{text}", None, (404,)),
            ("POST", f"/api/ai/huggingface/{text}/x/chat?chat_id=1", HELLO, (400,)),
            ("POST", f"/api/ai/huggingface/x/{text}/chat?chat_id=1", HELLO, (400,)),
            ("POST", f"{CHAT}?chat_id={text}", HELLO, (200, 400)),
            ("GET", f"/api/chats?limit={text}", None, (400,)),
            ("GET", f"/me?{text}={text}", None, (200,)),
        ):
            answer = await server.ask(method, path, body, token=token)
            assert answer.status in statuses, (method, path[:60], answer.body)
            assert len(answer.body) < 400


async def test_letters_that_are_not_escaped_are_utf_8_in_a_query(tmp_path: Path):
    async with running(tmp_path) as server:
        token = await server.token("ada")
        path = f"{CHAT}?chat_id=日本語"
        assert (await server.ask("POST", path, HELLO, token=token)).status == 200
        [chat] = (await server.ask("GET", "/api/chats", token=token)).json["chats"]
        assert chat["chat_id"] == "日本語"
        assert (await server.ask("GET", "/api/chats/日本語", token=token)).status == 200


@pytest.mark.parametrize("charset", ["bogus", "utf-16", "punycode", "idna", "hex", "undefined"])
async def test_a_part_is_utf_8_whatever_it_says_of_itself(tmp_path: Path, charset: str):
    async with running(tmp_path) as server:
        await server.register("zoë")
        fields = {"username": "zoë", "password": PASSWORD}
        raw = multipart(fields, f"Content-Type: text/plain; charset={charset}\r\n")
        headers = {"content-type": 'multipart/form-data; boundary="x"'}
        assert (await server.ask("POST", "/login", raw=raw, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (multipart({"username": "ada", "password": "x"}), "multipart/form-data"),
        (multipart({"username": "ada", "password": "x"}), "multipart/form-data; boundary="),
        (multipart({"username": "ada", "password": "x"})[:-9], "multipart/form-data; boundary=x"),
        (multipart({str(n): "" for n in range(21)}), "multipart/form-data; boundary=x"),
        (
            multipart({"username": "ada"}).replace(b"ada", b"\xff"),
            "multipart/form-data; boundary=x",
        ),
        (b"", "multipart/form-data; boundary=x"),
        (b"username=ada&password=x", f"{FORM}; {'x' * 1000}"),
    ],
)
async def test_a_form_that_is_none_is_refused(tmp_path: Path, raw: bytes, content_type: str):
    async with running(tmp_path) as server:
        answer = await server.ask("POST", "/login", raw=raw, headers={"content-type": content_type})
    assert (answer.status, list(answer.json)) == (400, ["detail"])
