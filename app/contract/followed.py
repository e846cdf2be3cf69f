"""A generation that is another one, whose events somebody looks at on their way."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from app.contract.generation import Generation
from app.contract.sampling import SamplingParams
from app.contract.usage import Timings, Usage

G = TypeVar("G", bound=Generation)


class Followed(Generic[G]):
    """Tells what the other one tells; whoever follows it adds the events and the end."""

    def __init__(self, generation: G) -> None:
        self._generation = generation

    @property
    def model_id(self) -> str:
        """The model that writes."""
        return self._generation.model_id

    @property
    def sampling(self) -> SamplingParams:
        """How its tokens are chosen."""
        return self._generation.sampling

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return self._generation.usage

    @property
    def prompt_ids(self) -> Sequence[int]:
        """The prompt's tokens."""
        return self._generation.prompt_ids

    @property
    def token_ids(self) -> Sequence[int]:
        """Every token so far."""
        return self._generation.token_ids

    @property
    def timings(self) -> Timings | None:
        """How long it has taken so far."""
        return self._generation.timings

    @property
    def digest(self) -> str:
        """SHA-256 of the model's files."""
        return self._generation.digest

    @property
    def thinks(self) -> bool:
        """Whether the model may think before its answer."""
        return self._generation.thinks
