"""Text in, text out: the `Generator` of the contract, on models that are handed out.

A request gets its place in the engine first, then what is costly is done (template, tokens): on a
thread where clients take turns. All that can be refused is refused by `start`, before the first
event. Knows no HTTP, no users.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from app.catalog.fair_thread import FairThread
from app.catalog.thinking_constraint import ThinkingConstraint
from app.contract.generation import NOBODY, Caller, Generation, GenerationRequest
from app.contract.tokens import TokenizedText, TokenizerFacts
from app.current_request import count_tokens
from app.engine.places import Places
from app.engine.sequence import Constraint
from app.errors import Error
from app.generation.generation import EmptyGeneration, EngineGeneration
from app.generation.models import ModelSource, TextModel
from app.generation.prepare import Prepared, check_figures, prepare
from app.generation.prompting import check_ids, tokenize, write_out
from app.generation.reading import TextReader
from app.generation.ruled_out import SharedVetoes
from app.generation.tokenizer_facts import token_strings, tokenizer_facts
from app.generation.traced import start_traced
from app.tracing import Tracing

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Characters; longer texts are tokenized off the event loop, which these hold for 1.4 ms
# (SmolLM2's tokenizer, one core of a 2-core virtual machine).
_LONG_TEXT: Final = 4_000


class GenerationService:
    """Starts generations on models that are handed out."""

    def __init__(
        self, models: ModelSource, tracing: Tracing | None = None, *, log_prompts: bool = False
    ) -> None:
        """Start nothing yet.

        Args:
            models: hands models out.
            tracing: follows each request; None: nobody does.
            log_prompts: write every prompt's text to the log.
        """
        self._models = models
        self._tracing = tracing
        self._log_prompts = log_prompts
        self._num_started = 0
        self._thread = FairThread("prepare")

    @property
    def num_started(self) -> int:
        """Requests that were started since the server's start; a batch counts as one."""
        return self._num_started

    async def start(
        self,
        request: GenerationRequest,
        model_id: str | None = None,
        caller: Caller = NOBODY,
    ) -> Generation:
        """Start one generation; see `Generator.start`."""
        [generation] = await self.start_batch([request], model_id, caller)
        return generation

    async def start_batch(
        self,
        requests: Sequence[GenerationRequest],
        model_id: str | None = None,
        caller: Caller = NOBODY,
    ) -> list[Generation]:
        """Start all of the requests or none; see `Generator.start_batch`."""
        if self._tracing is None:
            return list(await self._start_batch(requests, model_id, caller))
        return await start_traced(self._tracing, self._start_batch, requests, model_id, caller)

    async def _start_batch(
        self, requests: Sequence[GenerationRequest], model_id: str | None, caller: Caller
    ) -> list[EngineGeneration | EmptyGeneration]:
        model, places = await self._models.reserve(model_id, len(requests), caller.client)
        with places:
            long = _is_long(requests)
            shared = SharedVetoes()
            # one after the other: others take turns between them
            all_prepared = [
                await self._run(caller, partial(prepare, model, request, caller, shared), long=long)
                for request in requests
            ]
            check_figures(all_prepared)
            for prepared in all_prepared:
                self._note(model, prepared)
            # one after the other: a request must not take all of the compiler's turns
            constrained = [await _constrained(model, prepared) for prepared in all_prepared]
            generations: list[EngineGeneration | EmptyGeneration] = []
            try:
                for prepared in constrained:
                    generations.append(_submit(model, places, prepared))  # noqa: PERF401 # those before a failure must be closed
            except Error:
                for generation in generations:
                    await generation.aclose()
                raise
        self._num_started += 1
        return generations

    def _note(self, model: TextModel, prepared: Prepared) -> None:
        """Count a prompt's tokens for the access log; write its text down where that is wanted."""
        ids = prepared.engine.prompt_ids
        count_tokens(prompt_tokens=len(ids))
        if self._log_prompts:
            [text] = model.tokenizer.decode_batch([ids], skip_special_tokens=False)
            logger.info("prompt model=%s tokens=%d text=%s", model.model_id, len(ids), text)

    async def tokenize(
        self,
        text: str | GenerationRequest,
        model_id: str | None = None,
        *,
        add_special_tokens: bool = True,
        strings: bool = False,
        caller: Caller = NOBODY,
    ) -> TokenizedText:
        """Give the tokens of a text or of a conversation; see `Generator.tokenize`."""
        model = await self._models.get(model_id)

        def encode() -> TokenizedText:
            ids = tokenize(model, text, add_special_tokens=add_special_tokens)
            told = token_strings(model, ids) if strings else []
            return TokenizedText(ids, model.capacity, told)

        long = not isinstance(text, str) or len(text) > _LONG_TEXT
        return await self._run(caller, encode, long=long)

    async def write_out(
        self, request: GenerationRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> str:
        """Give a conversation as the model would get it; see `Generator.write_out`."""
        model = await self._models.get(model_id)
        return await self._run(caller, partial(write_out, model, request), long=True)

    async def tokenizer_facts(self, model_id: str | None = None) -> TokenizerFacts:
        """Describe a model's tokenizer; see `Generator.tokenizer_facts`."""
        return tokenizer_facts(await self._models.get(model_id))

    async def detokenize(
        self, ids: Sequence[int], model_id: str | None = None, caller: Caller = NOBODY
    ) -> str:
        """Give the text of tokens, special ones too; see `Generator.detokenize`."""
        model = await self._models.get(model_id)

        def decode() -> str:
            check_ids("tokens", ids, model.vocab_size)
            # `decode` would hold the interpreter's lock
            texts: list[str] = model.tokenizer.decode_batch([list(ids)], skip_special_tokens=False)
            return texts[0]

        return await self._run(caller, decode, long=len(ids) > _LONG_TEXT)

    async def _run(self, caller: Caller, work: Callable[[], T], *, long: bool) -> T:
        """Do some work: at once, or on the thread at the caller's turn if it may take long."""
        return await self._thread.run(caller.client, work) if long else work()


async def _constrained(model: TextModel, prepared: Prepared) -> Prepared:
    """Make what the tokens are held to, if there is something; a grammar off the event loop."""
    constraint: Constraint | None = None
    if prepared.grammar is not None:
        constraint = await model.grammars.constraint(prepared.grammar, prepared.engine.client)
    thinking = prepared.thinking
    if thinking is not None and (constraint is not None or thinking.budget is not None):
        constraint = ThinkingConstraint(
            model.tokenizer,
            thinking.format.opening,
            thinking.format.closing,
            begun=thinking.begun,
            budget=thinking.budget,
            answer=constraint,
        )
    if constraint is None:
        return prepared
    engine = msgspec.structs.replace(prepared.engine, constraint=constraint)
    return msgspec.structs.replace(prepared, engine=engine)


def _submit(
    model: TextModel, places: Places, prepared: Prepared
) -> EngineGeneration | EmptyGeneration:
    """Hand a request to the engine in one of the places.

    Raises:
        EngineFailure: the engine has stopped meanwhile.
    """
    sampling = prepared.engine.sampling
    if prepared.needless:
        return EmptyGeneration(model.model_id, sampling, prepared.engine.prompt_ids, model.digest)
    stream = places.submit(prepared.engine)
    reader = TextReader(model.tokenizer, prepared)
    return EngineGeneration(model.model_id, sampling, stream, reader, model.digest)


def _is_long(requests: Sequence[GenerationRequest]) -> bool:
    """Whether preparing requests would hold the event loop.

    A conversation waits for the process that renders templates, and a schema has to be translated.
    """
    length = sum(
        len(asked.prompt or "")
        + len(asked.prompt_ids or ())
        + len(asked.allowed_ids or ())
        + sum(map(len, asked.bad_words))
        for asked in requests
    )
    return length > _LONG_TEXT or any(
        asked.messages or asked.response_format is not None for asked in requests
    )
