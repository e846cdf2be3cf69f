"""What a run has that it sends in its requests: tokens and keys, made anew when they are gone."""

import itertools
from typing import Any

import aiohttp

from bench.fuzz.seeds import PASSWORD


class Accounts:
    """The accounts of a run. `secrets` is what stands for `<<name>>` in a request."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._numbers = itertools.count()
        self.secrets: dict[str, str] = {}

    async def renew(self) -> None:
        """Make what is missing, and what no longer holds."""
        for name in ("token", "ending"):
            if not await self._holds(self.secrets.get(name)):
                tokens = await self._sign_in()
                self.secrets[name] = tokens["access_token"]
                if name == "ending":
                    self.secrets["refresh"] = tokens["refresh_token"]
        if not await self._holds(self.secrets.get("key")):
            token = (await self._sign_in())["access_token"]
            made = await self._ask("/me/keys", json={"name": "k"}, headers=bearer(token))
            self.secrets["key"] = made["key"]

    async def _sign_in(self) -> dict[str, str]:
        """Register a new account and sign in."""
        name = f"fuzzer{next(self._numbers)}"
        await self._ask("/register", json={"username": name, "password": PASSWORD})
        self.secrets["name"] = name
        tokens: dict[str, str] = await self._ask(
            "/login", data={"username": name, "password": PASSWORD}
        )
        return tokens

    async def _holds(self, token: str | None) -> bool:
        if token is None:
            return False
        async with self._session.get("/me", headers=bearer(token)) as response:
            return response.status == 200

    async def _ask(self, path: str, **options: Any) -> Any:
        async with self._session.post(path, **options) as response:
            response.raise_for_status()
            return await response.json()


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"authorization": f"Bearer {token}"}
