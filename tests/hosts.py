"""A `Host` over fakes, and the application that real dialects make of one."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar

from app.asgi import DIALECTS
from app.auth.auth import create_auth
from app.contract.embedding import Embedder
from app.contract.generation import Generator
from app.contract.models import ModelRegistry
from app.dialects.kit.application import assemble
from app.dialects.kit.host import Host
from app.metrics import Metrics
from app.settings import Settings
from app.storage.database import Database, database_url
from tests.fakes import FakeCatalog, FakeService

CHEAP = Settings(
    jwt_secret="s" * 32,
    argon2_memory_kib=8,
    argon2_time_cost=1,
    rate_limit_per_minute=0,
    rate_limit_burst=0,
    login_attempts_per_account=0,
    login_attempts_per_address=0,
    login_attempts_from_new_addresses=0,
    registrations_per_address=0,
)


def host_over(
    generator: Generator,
    models: ModelRegistry | None = None,
    *,
    embedder: Embedder | None = None,
    database: Database | None = None,
    metrics: Metrics | None = None,
    **settings: Any,
) -> Host:
    """Offer dialects a generator; its own fake catalog is the registry unless another is given.

    Without a database nobody can sign in: the one that is made here is never opened.
    """
    if models is None:
        models = generator.catalog if isinstance(generator, FakeService) else FakeCatalog(None)
    chosen = msgspec.structs.replace(CHEAP, **settings)
    if database is None:
        database = Database(database_url("", Path(tempfile.gettempdir()) / "never-opened"))
    return Host(
        models=models,
        generator=generator,
        embedder=embedder,
        auth=create_auth(chosen, database),
        database=database,
        metrics=metrics or Metrics(),
        settings=chosen,
    )


def app_over(host: Host, packages: Sequence[Any] = DIALECTS, **options: Any) -> Litestar:
    """The application of real dialects: all of them, or those whose routes a test needs."""
    return assemble(host, [package.dialect(host) for package in packages], **options)
