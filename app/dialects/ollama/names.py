"""Which model a name means: with or without tag, publisher and capitals."""

from collections.abc import Sequence
from typing import Final

from app.contract.models import ModelFacts, ModelRegistry
from app.errors import UnknownModel

LATEST: Final = ":latest"


async def resolve(models: ModelRegistry, name: str) -> ModelFacts:
    """Find the model that a name means: its id, else the only one of such a short name.

    Raises:
        UnknownModel: there is none, or there are several.
    """
    facts = await models.available()
    bare, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
    bare = bare.lower()
    for part in (_whole, _short):
        found = [one for one in facts if part(one.model_id) == bare and tag in _tags(one)]
        if len(found) == 1:
            return found[0]
    raise UnknownModel(name)


def told_name(facts: ModelFacts) -> str:
    """A model's name as Ollama's clients show it."""
    return f"{facts.model_id}{LATEST}"


def _whole(model_id: str) -> str:
    return model_id.lower()


def _short(model_id: str) -> str:
    return model_id.rpartition("/")[2].lower()


def _tags(facts: ModelFacts) -> Sequence[str]:
    return ("latest", facts.quantisation)
