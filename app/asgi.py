"""Put the packages together: the only file that knows them all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from litestar import Litestar

from app.auth.auth import create_auth
from app.catalog.catalog import Catalog
from app.catalog.library import Library
from app.contract.models import ModelRegistry
from app.dialects.accounts import routes as accounts
from app.dialects.admin import routes as admin
from app.dialects.anthropic import routes as anthropic
from app.dialects.kit.application import assemble
from app.dialects.kit.host import Host
from app.dialects.llm_host import routes as llm_host
from app.dialects.locallab import routes as locallab
from app.dialects.neptun import routes as neptun
from app.dialects.ollama import routes as ollama
from app.dialects.openai import routes as openai
from app.dialects.operations import routes as operations
from app.dialects.pages import routes as pages
from app.embedding.service import EmbeddingService
from app.errors import UnknownModel
from app.generation.service import GenerationService
from app.metrics import Metrics
from app.recent_errors import RecentErrors
from app.runtime.heap import trim_when_grown
from app.settings import InvalidSetting, Settings
from app.storage.database import Database, database_of
from app.tracing import create_tracing

DIALECTS: Final = (
    operations,
    locallab,
    accounts,
    llm_host,
    neptun,
    openai,
    anthropic,
    ollama,
    pages,
    admin,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The application, and what the process around it needs."""

    application: Litestar
    models: ModelRegistry
    operations_paths: Sequence[str]
    """What tells operators and their programs how the server is."""
    drain: Callable[[], Awaitable[None]]
    """Lets what runs finish within the time of the setting; the server takes nothing new."""


def create_app(settings: Settings) -> Litestar:
    """Make the application alone."""
    return create_server(settings).application


def create_server(settings: Settings) -> Server:
    """Put the server together; nothing is opened or loaded before the application's lifespan.

    Raises:
        InvalidSetting: a setting can't be used.
    """
    metrics = Metrics()
    tracing = create_tracing()
    catalog = Catalog(settings, metrics)
    errors = RecentErrors()
    try:
        database = database_of(settings)
        auth = create_auth(settings, database, metrics.store_answers)
    except OSError as error:
        raise InvalidSetting(
            f"LLMHOST_DATA_DIR={str(settings.data_dir)!r} can't be written: {error}"
        ) from error
    host = Host(
        models=catalog,
        library=Library(settings.models_dir, catalog),
        generator=GenerationService(catalog, tracing, log_prompts=settings.log_prompts),
        embedder=EmbeddingService(catalog),
        auth=auth,
        database=database,
        metrics=metrics,
        settings=settings,
        errors=errors,
    )
    dialects = [package.dialect(host) for package in DIALECTS]

    @asynccontextmanager
    async def lifespan(application: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as cleanup:
            errors.attach()
            cleanup.callback(errors.detach)
            cleanup.push_async_callback(database.close)
            cleanup.push_async_callback(auth.close)
            for dialect in dialects:
                if dialect.close is not None:
                    cleanup.push_async_callback(dialect.close)
            if tracing is not None:
                cleanup.push_async_callback(tracing.close)
            cleanup.push_async_callback(catalog.close)
            await _migrate(database)
            auth.open()
            if settings.model:
                await _load_first(catalog, settings)
            idle_watch = asyncio.create_task(catalog.unload_idle())
            cleanup.callback(idle_watch.cancel)
            trimming = asyncio.create_task(trim_when_grown())
            cleanup.callback(trimming.cancel)
            for dialect in dialects:
                if dialect.open is not None:
                    await dialect.open(application)
            yield

    return Server(
        application=assemble(host, dialects, lifespan=[lifespan]),
        models=catalog,
        operations_paths=operations.PATHS,
        drain=catalog.close,
    )


async def _migrate(database: Database) -> None:
    try:
        await database.migrate()
    except Exception as error:
        # each driver has errors of its own; the first line says it, the others quote statements
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InvalidSetting(
            f"the database {database.url.render_as_string()} can't be used: {reason}; "
            "see LLMHOST_DATABASE_URL and LLMHOST_DATA_DIR"
        ) from error


async def _load_first(catalog: Catalog, settings: Settings) -> None:
    try:
        await catalog.load(settings.model)
    except UnknownModel as error:
        names = [facts.model_id for facts in await catalog.available()]
        base, colon, adapter = settings.model.partition(":")
        with_adapter = f" --adapter {adapter}=FOLDER" if colon else ""
        raise InvalidSetting(
            f"LLMHOST_MODEL={settings.model!r}: there is no such model in "
            f"{str(settings.models_dir)!r}, there {_listed(names)}; "
            f"llmhost pull {base}{with_adapter} would make it"
        ) from error


def _listed(names: list[str]) -> str:
    if not names:
        return "is none"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names[:10])}{more}"
