"""`POST /v1/completions`: what is sent, and the requests that it means."""

from typing import Annotated, Final, cast

import msgspec
from msgspec import Meta

from app.contract.generation import GenerationRequest
from app.dialects.openai.sampling import TokenId
from app.dialects.openai.schemas import MAX_CHOICES, GenerationOptions
from app.dialects.openai.taken import IGNORED, UNSERVED, Rules, Unserved
from app.errors import InvalidParameter, Unsupported

COMPLETIONS_RULES: Final = Rules(
    {
        **UNSERVED,
        "suffix": Unserved("models here only write on, they don't fill in", ("",)),
        "top_logprobs": Unserved("its name here is logprobs", (0,)),
    },
    IGNORED,
)
Given = str | list[int]
"""One prompt: a text, or its tokens."""


class CompletionBody(GenerationOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/completions`."""

    prompt: Annotated[
        str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1, max_length=2**20)],
        Meta(
            description="A text, several texts, the tokens of one, or the tokens of several.",
            examples=["Once upon a time"],
        ),
    ]
    max_tokens: Annotated[
        int, Meta(ge=0, le=2**31 - 1, description="0 only with echo or prompt_logprobs.")
    ] = 16
    echo: Annotated[bool, Meta(description="The text begins with the prompt.")] = False
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    best_of: Annotated[
        Annotated[int, Meta(ge=1, le=128)] | None, Meta(description="Must equal n.")
    ] = None

    def prompts(self) -> list[Given]:
        """The prompts, of which each gets `n` choices.

        Raises:
            InvalidParameter: texts and tokens are mixed, or too many choices.
        """
        given = self.prompt
        if isinstance(given, str):
            return [given]
        kinds = {type(item) for item in given}
        if len(kinds) > 1:
            raise InvalidParameter("prompt", given, "texts alone, tokens alone or lists of tokens")
        # the check above is what makes this cast true; a copy would cost a million tokens twice
        prompts = cast("list[Given]", [given] if kinds == {int} else given)
        if len(prompts) * self.n > MAX_CHOICES:
            raise InvalidParameter("n", self.n, f"at most {MAX_CHOICES} choices of all prompts")
        return prompts

    def requests(self, prompts: list[Given]) -> list[GenerationRequest]:
        """Make one request per choice, those of a prompt next to each other.

        Raises:
            InvalidParameter, Unsupported: fields contradict each other, or one can't be served.
        """
        if self.best_of is not None and self.best_of != self.n:
            reason = f"only n choices are made, which is {self.n}"
            raise Unsupported("best_of", self.best_of, reason)
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise InvalidParameter("max_tokens", 0, ">= 1 without echo or prompt_logprobs")
        choices = self.choices(
            max_tokens=self.max_tokens,
            top_logprobs=self.logprobs,
            prompt_logprobs=self.logprobs if self.echo else None,
        )
        return [
            msgspec.structs.replace(choice, prompt=prompt)
            if isinstance(prompt, str)
            else msgspec.structs.replace(choice, prompt_ids=prompt)
            for prompt in prompts
            for choice in choices
        ]
