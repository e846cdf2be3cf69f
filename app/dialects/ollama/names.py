"""Which model a name means: with or without tag, adapter, publisher and capitals."""

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
    for part in (_whole, _short):
        # what is behind the colon is the adapter's name, or else a tag
        for wanted, tagged in ((name.lower(), "latest"), (bare.lower(), tag)):
            found = [one for one in facts if part(one.model_id) == wanted and tagged in _tags(one)]
            if len(found) == 1:
                return found[0]
    adapters = [one.model_id for one in facts if bare.lower() in map(str.lower, _bases(one))]
    raise UnknownModel(name, f"there are {', '.join(adapters)}" if adapters else "")


def told_name(facts: ModelFacts) -> str:
    """A model's name as Ollama's clients show it; an adapter's has its own behind the colon."""
    return facts.model_id if facts.adapter_of else f"{facts.model_id}{LATEST}"


def _bases(facts: ModelFacts) -> Sequence[str]:
    """The names of the model that an adapter is for."""
    base_id = facts.adapter_of
    return () if base_id is None else (base_id, base_id.rpartition("/")[2])


def _whole(model_id: str) -> str:
    return model_id.lower()


def _short(model_id: str) -> str:
    return model_id.rpartition("/")[2].lower()


def _tags(facts: ModelFacts) -> Sequence[str]:
    return ("latest", facts.quantisation)
