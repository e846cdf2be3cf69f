"""An application with accounts and chats over a fake service and a real database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Litestar

from app.asgi import DIALECTS
from app.auth.auth import Auth
from app.dialects.kit.application import assemble
from app.dialects.kit.dialect import Dialect
from app.settings import Settings
from app.storage.database import Database
from tests.asgi_client import Answer, ask
from tests.databases import current_database
from tests.fakes import FakeService
from tests.hosts import CHEAP, host_over

PASSWORD = "testpassword"
CHAT = "/api/ai/huggingface/test/fake/chat"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class Server:
    app: Litestar
    auth: Auth
    database: Database
    service: FakeService
    dialects: Sequence[Dialect] = ()

    async def finish(self) -> None:
        """Wait for what dialects do beside requests."""
        for dialect in self.dialects:
            if dialect.close is not None:
                await dialect.close()

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = "", **options: Any
    ) -> Answer:
        headers = options.pop("headers", {})
        if token:
            headers = {"authorization": f"Bearer {token}", **headers}
        return await ask(self.app, method, path, body, headers=headers, **options)

    async def register(self, username: str, password: str = PASSWORD) -> Answer:
        return await self.ask("POST", "/register", {"username": username, "password": password})

    async def login(self, username: str, password: str = PASSWORD, **headers: str) -> Answer:
        return await self.ask(
            "POST",
            "/login",
            raw=urlencode({"username": username, "password": password}).encode(),
            headers={"content-type": "application/x-www-form-urlencoded", **headers},
        )

    async def token(self, username: str) -> str:
        """Register and sign in."""
        assert (await self.register(username)).status == 200
        token: str = (await self.login(username)).json["access_token"]
        return token


@asynccontextmanager
async def running(
    folder: Path,
    service: FakeService | None = None,
    *,
    kind: str = "sqlite",
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    """Serve every dialect; `options` are Litestar's."""
    async with current_database(kind, folder) as database:
        server = make_server(
            database,
            service or FakeService("Hel", "lo ", "you"),
            msgspec.structs.replace(CHEAP, data_dir=folder, **settings),
            **(options or {}),
        )
        try:
            yield server
        finally:
            await server.finish()
            await server.auth.close()


def make_server(
    database: Database, service: FakeService, settings: Settings, **options: Any
) -> Server:
    values = msgspec.structs.asdict(settings)
    host = host_over(service, database=database, **values)
    dialects = [package.dialect(host) for package in DIALECTS]
    app = assemble(host, dialects, **options)
    return Server(app, host.auth, database, service, dialects)
