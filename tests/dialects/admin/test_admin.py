"""The operator's page: who may see and change what, over a real database and a fake catalog."""

from pathlib import Path

import pytest

from app.storage.models import Role
from tests.accounts_app import PASSWORD, Server, running

OVERVIEW = ("GET", "/admin/api/overview")
READ = [OVERVIEW, ("GET", "/admin/api/users")]
OPERATE = [("POST", "/admin/api/pull", {"name": "a/b"}), ("POST", "/admin/api/pull/cancel")]
CHANGE = [
    ("POST", "/admin/api/users/role", {"username": "ada", "role": "admin"}),
    ("POST", "/admin/api/users/delete", {"username": "ada"}),
    ("POST", "/admin/api/keys/create", {"username": "ada", "name": "x"}),
    ("POST", "/admin/api/keys/revoke", {"username": "ada", "key_id": "1"}),
]
ALL = [*READ, *OPERATE, *CHANGE]
ELSEWHERE = ("203.0.113.9", 50000)


class People:
    """An administrator, a user, and their tokens and keys."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.tokens: dict[str, str] = {}

    async def come(self) -> "People":
        for name, role in (("root", Role.ADMIN), ("ada", Role.USER)):
            user = await self._server.auth.accounts.create(name, PASSWORD, role)
            self.tokens[name] = (await self._server.auth.logins.sign_in(user)).access_token
            secret, _ = await self._server.auth.api_keys.create(user.id, "key")
            self.tokens[f"key of {name}"] = secret
        return self


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("127.8.9.1", 1), ("::1", 1)])
async def test_on_an_open_server_whoever_is_at_the_machine_sees_and_operates(tmp_path, client):
    async with running(tmp_path) as server:
        for request in READ:
            assert (await server.ask(*request, client=client)).status == 200, request
        seen = (await server.ask(*OVERVIEW, client=client)).json
        assert (seen["open"], seen["username"], seen["administrator"]) == (True, None, False)
        for request in OPERATE:  # refused for another reason: this server pulls nothing
            assert (await server.ask(*request, client=client)).status in (200, 400), request


async def test_on_an_open_server_nobody_else_gets_in_without_a_token(tmp_path):
    async with running(tmp_path) as server:
        for client in (ELSEWHERE, ("10.0.0.5", 1), ("2001:db8::1", 1), ("/run/socket", 0), None):
            for request in ALL:
                answer = await server.ask(*request, client=client)
                assert answer.status == 401, (request, client)
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"]
)
async def test_a_header_never_makes_a_request_local_and_one_of_a_proxy_makes_it_foreign(
    tmp_path, name
):
    async with running(tmp_path) as server:
        for value in ("127.0.0.1", "203.0.113.9", ""):
            headers = {name: value}
            assert (await server.ask(*OVERVIEW, headers=headers)).status == 401
            assert (await server.ask(*OVERVIEW, headers=headers, client=ELSEWHERE)).status == 401


async def test_a_trusted_proxy_on_the_machine_is_not_somebody_who_sits_there(tmp_path):
    async with running(tmp_path, trusted_proxies="127.0.0.1") as server:
        assert (await server.ask(*OVERVIEW)).status == 401
        assert (await server.ask(*OVERVIEW, client=("::1", 1))).status == 200


@pytest.mark.parametrize("closed", [True, False])
async def test_administrators_pass_from_anywhere_and_others_nowhere(tmp_path, closed):
    async with running(tmp_path, require_auth=closed) as server:
        tokens = (await People(server).come()).tokens
        for request in ALL:
            for who, status in (("ada", 403), ("key of ada", 403), ("key of root", 403)):
                answer = await server.ask(*request, token=tokens[who], client=ELSEWHERE)
                assert answer.status == status, (request, who)
            answer = await server.ask(*request, token="nonsense", client=ELSEWHERE)
            assert answer.status == 401, request
        for request in (*READ, *OPERATE):
            answer = await server.ask(*request, token=tokens["root"], client=ELSEWHERE)
            assert answer.status in (200, 400), request
        seen = (await server.ask(*OVERVIEW, token=tokens["root"], client=ELSEWHERE)).json
        assert (seen["username"], seen["administrator"], seen["open"]) == ("root", True, not closed)


async def test_a_closed_server_asks_the_machine_itself_for_a_token_too(tmp_path):
    async with running(tmp_path, require_auth=True) as server:
        for request in ALL:
            assert (await server.ask(*request)).status == 401, request


async def test_accounts_are_changed_by_administrators_alone_on_an_open_server_too(tmp_path):
    async with running(tmp_path) as server:
        tokens = (await People(server).come()).tokens
        for request in CHANGE:
            assert (await server.ask(*request)).status == 401, request
            for who in ("ada", "key of ada", "key of root"):
                assert (await server.ask(*request, token=tokens[who])).status == 403, who


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
async def test_a_page_of_another_site_gets_nothing(tmp_path, headers):
    async with running(tmp_path) as server:
        tokens = (await People(server).come()).tokens
        for request in ALL:
            answer = await server.ask(*request, token=tokens["root"], headers=headers)
            assert answer.status == 403, request


async def test_an_administrator_changes_roles_keys_and_users(tmp_path: Path):
    async with running(tmp_path) as server:
        tokens = (await People(server).come()).tokens

        async def change(path: str, **body: object) -> dict:
            answer = await server.ask("POST", path, body, token=tokens["root"])
            assert answer.status == 200, answer.json
            return answer.json

        async def users() -> dict[str, dict]:
            found = (await server.ask("GET", "/admin/api/users")).json["users"]
            return {user["username"]: user for user in found}

        assert (await users())["ada"]["role"] == "user"
        await change("/admin/api/users/role", username="ada", role="admin")
        assert (await users())["ada"]["role"] == "admin"

        made = await change("/admin/api/keys/create", username="ada", name="laptop")
        assert (await server.ask("GET", "/me", token=made["key"])).json["username"] == "ada"
        keys = (await users())["ada"]["keys"]
        assert [key["name"] for key in keys] == ["key", "laptop"]
        assert keys[1]["ending"] == made["key"][-4:]
        assert made["key"] not in str(await users()), "a key is shown once"
        await change("/admin/api/keys/revoke", username="ada", key_id=keys[1]["id"])
        assert (await server.ask("GET", "/me", token=made["key"])).status == 401

        await change("/admin/api/users/delete", username="ada")
        assert set(await users()) == {"root"}
        assert (await server.ask("GET", "/me", token=tokens["ada"])).status == 401
        assert (await server.ask("GET", "/me", token=tokens["key of ada"])).status == 401


@pytest.mark.parametrize("name", ["root", "ROOT", "\uff52oot"])
async def test_an_administrator_stays_one(tmp_path, name):
    async with running(tmp_path) as server:
        tokens = (await People(server).come()).tokens
        for path, body in (
            ("/admin/api/users/role", {"username": name, "role": "user"}),
            ("/admin/api/users/delete", {"username": name}),
        ):
            answer = await server.ask("POST", path, body, token=tokens["root"])
            assert answer.status == 400
            assert "another user than yourself" in answer.json["detail"]


async def test_what_operators_do_is_in_the_security_log(tmp_path, caplog):
    async with running(tmp_path) as server:
        tokens = (await People(server).come()).tokens
        body = {"username": "ada", "role": "admin"}
        with caplog.at_level("INFO", "app.security"):
            await server.ask("POST", "/admin/api/users/role", body, token=tokens["root"])
            await server.ask("POST", "/admin/api/users/delete", {"username": "ada"})
        told = [record.security for record in caplog.records if record.name == "app.security"]
        changed, refused = told
        assert changed["event"] == "role_changed"
        assert (changed["user"], changed["by"], changed["role"]) == ("ada", "root", "admin")
        assert (refused["event"], refused["path"]) == ("access_refused", "/admin/api/users/delete")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/admin/api/users/role", {"username": "nobody", "role": "admin"}),
        ("/admin/api/users/role", {"username": "ada", "role": "king"}),
        ("/admin/api/users/delete", {}),
        ("/admin/api/keys/create", {"username": "ada", "name": ""}),
        ("/admin/api/keys/create", {"username": "ada", "name": "x", "expires_in_days": 0}),
    ],
)
async def test_a_wrong_request_is_refused(tmp_path, path, body):
    async with running(tmp_path) as server:
        tokens = (await People(server).come()).tokens
        answer = await server.ask("POST", path, body, token=tokens["root"])
        assert answer.status == 400
        assert answer.json["detail"]


async def test_no_cache_keeps_what_operators_see_and_the_page_is_for_anybody(tmp_path):
    async with running(tmp_path) as server:
        for status, client in ((200, ("127.0.0.1", 1)), (401, ELSEWHERE)):
            answer = await server.ask(*OVERVIEW, client=client)
            assert (answer.status, answer.headers["cache-control"]) == (status, "no-store")
        page = await server.ask("GET", "/admin", client=ELSEWHERE)
        assert page.status == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-cache"
