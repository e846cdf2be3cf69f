"""An application with accounts and chats over a fake service and a real database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components

from app.auth.auth import Auth, create_auth
from app.auth.guards import (
    SECURITY_SCHEMES,
    add_rate_headers,
    signed_in_if_required,
    within_rate_limit,
)
from app.dialects.fallback import fallback_handlers
from app.dialects.llm_host import routes as llm_host_routes
from app.dialects.llm_host import schemas as llm_host_schemas
from app.dialects.llm_host import wire as llm_host_wire
from app.dialects.neptun import routes as neptun_routes
from app.dialects.neptun import wire as neptun_wire
from app.dialects.neptun.keeping import ChatKeeper
from app.dialects.shared_paths import Choice, generate_route
from app.errors import Error
from app.generation.service import GenerationService
from app.settings import Settings
from app.storage.database import Database
from tests.asgi_client import Answer, ask
from tests.databases import empty_database
from tests.fakes import FakeService

PASSWORD = "testpassword"
CHAT = "/api/ai/huggingface/test/fake/chat"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
CHEAP = Settings(
    jwt_secret="s" * 32,
    argon2_memory_kib=8,
    argon2_time_cost=1,
    rate_limit_per_minute=0,
    rate_limit_burst=0,
    login_attempts_per_account=0,
    login_attempts_per_address=0,
)


@dataclass
class Server:
    app: Litestar
    auth: Auth
    database: Database
    keeper: ChatKeeper
    service: FakeService

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
    folder: Path, service: FakeService | None = None, *, kind: str = "sqlite", **settings: Any
) -> AsyncIterator[Server]:
    async with empty_database(kind, folder) as database:
        await database.migrate()
        server = make_server(
            database,
            service or FakeService("Hel", "lo ", "you"),
            msgspec.structs.replace(CHEAP, data_dir=folder, **settings),
        )
        try:
            yield server
        finally:
            await server.keeper.finish()
            await server.auth.close()


def make_server(database: Database, service: GenerationService, settings: Settings) -> Server:
    auth = create_auth(settings, database)
    keeper = ChatKeeper(database)
    choice = Choice(
        handler=partial(llm_host_routes.generate, max_tokens=settings.default_max_tokens),
        refuse=llm_host_wire.refuse,
        body=llm_host_schemas.Query,
        responses=llm_host_wire.refusals(400, 401, 413, 429, 500, 503),
    )
    shared = Router(
        path="/",
        route_handlers=[generate_route({"query": choice}, llm_host_wire.refuse)],
        guards=[signed_in_if_required, within_rate_limit],
        exception_handlers={Error: lambda _, error: llm_host_wire.refuse(error)},
    )
    app = Litestar(
        [
            shared,
            llm_host_routes.router(auth),
            neptun_routes.router(keeper, settings.default_max_tokens),
        ],
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        exception_handlers=fallback_handlers(
            {"": llm_host_wire.envelope, "/api": neptun_wire.envelope}
        ),
        state=State({"access": auth.access}),
        before_send=[add_rate_headers],
        openapi_config=OpenAPIConfig(
            "test", "1", components=Components(security_schemes=SECURITY_SCHEMES)
        ),
        logging_config=None,
    )
    return Server(app, auth, database, keeper, service)
