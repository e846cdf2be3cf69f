"""What the server offers a dialect, and how handlers get at it.

Everything that answers is a Protocol of `app.contract`: no dialect sees an engine, a tokenizer or
a manifest.
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from litestar import Request
from litestar.di import Dependency, Provide
from litestar.params import SkipValidationMarker

from app.auth.auth import Auth
from app.contract.embedding import Embedder
from app.contract.generation import Generator
from app.contract.models import ModelLibrary, ModelRegistry
from app.metrics import Metrics
from app.recent_errors import RecentErrors
from app.settings import Settings
from app.storage.database import Database

T = TypeVar("T")

AnyRequest = Request[Any, Any, Any]

# Litestar would check a Protocol by evaluating every property of it.
Provided: TypeAlias = Annotated[T, Dependency(), SkipValidationMarker()]
"""A handler's parameter that is given what the `Host` has under the parameter's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The server as a dialect sees it."""

    models: ModelRegistry
    library: ModelLibrary | None = None
    """None: which models there are can't be changed from here."""
    generator: Generator
    embedder: Embedder | None = None
    """None: no model here makes embeddings."""
    auth: Auth
    database: Database
    metrics: Metrics
    settings: Settings
    errors: RecentErrors | None = None
    """None: nobody keeps them."""

    def dependencies(self) -> dict[str, Provide]:
        """By name, what handlers may ask for."""

        def provide(value: object) -> Provide:
            return Provide(lambda: value, sync_to_thread=False)

        return {
            "models": provide(self.models),
            "generator": provide(self.generator),
            "embedder": provide(self.embedder),
            "library": provide(self.library),
            "auth": provide(self.auth),
            "settings": provide(self.settings),
        }
