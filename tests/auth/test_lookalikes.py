from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.lookalikes import RESERVED, looks_like
from app.storage.models import Role
from tests.accounts_app import PASSWORD, running


@pytest.mark.parametrize(
    "name",
    [
        *("аdmin", "АDМІN", "admіn", "ΑDMIN", "adｍіn", "аdмin"),  # Cyrillic, Greek
        *("ADMlN", "adm1n", "admln", "adrnin", "ɑdmin"),  # Latin
        *("rооt", "r00t", "ꓣOOT", "sуstem", "ѕupport"),
    ],
)
def test_what_looks_like_a_reserved_name_is_found(name: str):
    assert looks_like(name, RESERVED)


@pytest.mark.parametrize(
    "name",
    [
        "admin",
        "Admin",
        "ADMIN",
        "ａｄｍｉｎ",
        "administration",
        "ada",
        "Zoë",
        "roots",
        "Бахор",
        "a",
    ],
)
def test_the_name_itself_and_other_names_are_not(name: str):
    assert not looks_like(name, RESERVED)


@given(st.text(max_size=256))
def test_no_text_is_a_fault(text: str):
    looks_like(text, RESERVED)


async def test_nobody_registers_beside_an_administrator_or_a_reserved_name(tmp_path: Path):
    async with running(tmp_path) as server:
        assert (await server.register("воѕѕ")).status == 200, "nobody is called boss yet"
        await server.auth.accounts.create("Boss", PASSWORD, Role.ADMIN)
        await server.auth.accounts.create("hero", PASSWORD)
        for name in ("bоss", "b0ss", "B0SS", "аdmin", "adm1n"):
            answer = await server.register(name)
            assert answer.status == 400
            assert answer.json["detail"] == (
                f"username is {name!r}, expected a name that doesn't look like an administrator's"
            )
        assert (await server.register("boss")).json == {"detail": "Username already taken"}
        assert (await server.register("herо")).status == 200, "hero is no administrator"
        assert (await server.register("admin")).status == 200
        assert (await server.auth.accounts.create("rооt", PASSWORD)).username, "operators may"
