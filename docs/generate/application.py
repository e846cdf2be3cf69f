"""The application that pages are written from: every dialect, with nothing opened or loaded."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

from app.asgi import DIALECTS, create_app
from app.auth.auth import create_auth
from app.catalog.catalog import Catalog
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.host import Host
from app.generation.service import GenerationService
from app.metrics import Metrics
from app.settings import Settings
from app.storage.database import Database, database_url

UNTAGGED: Final = {"llm_host": "LLM Host", "pages": "Pages"}
"""What dialects are called that have no route of their own, by their folder."""


@cache
def openapi() -> dict[str, Any]:
    """The document that a server with the default settings shows at `/schema/openapi.json`."""
    with tempfile.TemporaryDirectory() as folder:
        return create_app(Settings(data_dir=Path(folder))).openapi_schema.to_schema()


@cache
def dialects() -> dict[str, Dialect]:
    """Every dialect, by the tag of its routes; by its folder where it has none."""
    settings, metrics = Settings(jwt_secret="s" * 32), Metrics()
    catalog = Catalog(settings, metrics)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(database_url("", Path(folder)))
    host = Host(
        models=catalog,
        generator=GenerationService(catalog),
        auth=create_auth(settings, database),
        database=database,
        metrics=metrics,
        settings=settings,
    )
    named = {}
    for package in DIALECTS:
        dialect = package.dialect(host)
        name = package.__name__.split(".")[-2]
        tags = dialect.router.tags if dialect.router else []
        named[str(tags[0]) if tags else UNTAGGED.get(name, name)] = dialect
    return named
