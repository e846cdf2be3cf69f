"""Grammars for one model's tokenizer: which tokens may come next, so that a text follows one.

Goes with its models: what the library makes of the tokenizer (some 30 MiB at 49,152 tokens) is made
once and freed with the last of them. Knows how to compile; not what a grammar is for.
"""

import functools
import hashlib
import json
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance import gbnf_to_lark as gbnf
from tokenizers import Tokenizer

from app.catalog.fair_thread import FairThread
from app.errors import EngineFailure, InvalidParameter
from app.runtime.decoder import CountArray

_CHECK: Final = Path(__file__).with_name("check_schemas.py")
_CHECK_TIMEOUT_S: Final = 10.0
"""By the clock; its processor time is limited far below, in the script itself."""
_VERDICTS: Final = 256
"""Checked sets of schemas that are remembered; a few hundred bytes each."""

# What a step may cost the engine's thread, and a text in memory: 450 bytes per lexer state, nine
# states per character of a string whose length is bounded. With these, the worst masks took 14 ms:
# those of hostile patterns before they were refused, and of an object with 300 optional properties.
_LIMITS: Final[dict[str, Any]] = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 40_000,
    "max_lexer_states": 100_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}


_IN_OTHER_WORDS: Final = {
    r"NoExtensionBias": "nothing satisfies it",
    r"lexer error: (.*)": r"following it costs too much (\1)",
    r"[Pp]arser [Ee]rror: (.*items[^;]*).*": r"too much can follow at one place (\1)",
    r"lookarounds not supported yet; .*": "an anchor inside a pattern can't be enforced",
    r"oneOf constraints are not supported.*": "the branches of a oneOf may overlap",
    r"Regex is empty: .*": "no string matches its pattern, format and lengths",
    r"Unable to determine if regex is empty: .*": "whether a string matches is too hard to tell",
    r"regex parse error:\n *(.*)\n[ ^]*\nerror: (.*)": r"the pattern \1: \2",
}
"""What the library says, and what that means to the author of a schema."""
_COSTLY: Final = r"lexer error: |[Pp]arser [Ee]rror: .*items"
"""What it says where one of its limits is reached on the way."""


@functools.lru_cache(maxsize=16)  # the choices of a request share one
def lark_of(grammar: str) -> str:
    """Write a grammar in GBNF, llama.cpp's notation, in Lark.

    Raises:
        ValueError: it is no grammar in GBNF.
    """
    try:
        written: str = gbnf.gbnf_to_lark(grammar)
    except Exception as error:  # the library raises bare Exception, and what comes to it
        raise ValueError(str(error)) from error
    return written


class SchemaText(msgspec.Struct, frozen=True):
    """A JSON Schema that a client sent, or a whole grammar."""

    field: str
    """Which field of the request is blamed for it."""
    sent: object
    text: str
    """As the grammar has it, with options of ours."""
    lark: bool = False
    """Whether it is a grammar in Lark and no JSON Schema."""


class Grammar(msgspec.Struct, frozen=True):
    """What a text must follow."""

    lark: str
    """In llguidance's variant of Lark."""
    schemas: tuple[SchemaText, ...] = ()
    """Those inside `lark` that a client wrote, to be checked before anything else."""
    field: str = "response_format"
    """What is blamed where no single schema is."""
    otherwise: "Grammar | None" = None
    """What to follow where the schemas can't be enforced; None: the request is refused."""


class GrammarConstraint:
    """Which tokens may come next in one text; see `Constraint` in the engine."""

    def __init__(self, matcher: LLMatcher, grammar: Grammar) -> None:
        """Begin to follow a grammar.

        Args:
            matcher: made from it; belongs to the constraint from now on.
            grammar: whose client is told where it can't be followed.
        """
        self._matcher = matcher
        self._grammar = grammar

    def fill_mask(self, mask: CountArray) -> None:
        """Set the bits of the allowed tokens.

        Args:
            mask: int32 [ceil(V / 32)].

        Raises:
            InvalidParameter: following the client's schema costs more than its limits.
            EngineFailure: the grammar failed otherwise, or no client wrote it.
        """
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._check()

    def accept(self, token_id: int) -> None:
        """Take the token that was sampled.

        Raises:
            InvalidParameter: as `fill_mask`.
            EngineFailure: it can't come here.
        """
        self._matcher.consume_token(token_id)
        self._check()

    @property
    def ended(self) -> bool:
        """Whether nothing but the end can follow."""
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def _check(self) -> None:
        if self._matcher.is_error():
            error = self._matcher.get_error()
            why = _short(error)
            if self._grammar.schemas and re.search(_COSTLY, error):
                raise _refused(self._grammar, why)
            raise EngineFailure(f"the answer's grammar failed: {why}")


class Grammars:
    """Compiles for one tokenizer. Methods belong to the event loop; the work is done off it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: Sequence[int]) -> None:
        """Remember; nothing is made yet.

        Args:
            tokenizer: the model's.
            vocab_size: of the model's logits, perhaps more than the tokenizer has.
            eos_ids: may come where the grammar lets a text end.
        """
        self.tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_ids = list(eos_ids)
        self._made: LLTokenizer | None = None
        self._unusable = ""
        """Why the library can't take the tokenizer, once that is known."""
        self._verdicts: OrderedDict[bytes, tuple[int, str] | None] = OrderedDict()
        """Digest of the schemas → the one that is refused and why; least recently used first."""
        # Two, so that a hostile schema delays only those that were not seen before.
        self._checker = FairThread("schema-check")
        self._compiler = FairThread("grammar")

    def prepare(self) -> None:
        """Make what all grammars share, which holds every thread up: 0.26 s at 49,152 tokens.

        For a thread on which a model is loaded; else the first grammar does it. A tokenizer that
        the library can't take is told to those who ask for a grammar.
        """
        try:
            self._made = LLTokenizer(
                self.tokenizer.to_str(), n_vocab=self._vocab_size, eos_token=self._eos_ids
            )
        except ValueError as error:
            self._unusable = _short(str(error))

    async def constraint(self, grammar: Grammar, client: str = "") -> GrammarConstraint:
        """Make one for one text.

        Args:
            grammar: what the text must follow.
            client: who asks: clients take turns.

        Nothing is shared between texts, although the library could: its lexer's states are
        limited, and a text that uses them up would end the others.

        Raises:
            InvalidParameter: a schema can't be enforced, or not within the limits; or this
                model's tokenizer is of a kind that can't be held to a grammar.
        """
        try:
            return await self._constraint(grammar, client)
        except InvalidParameter:
            if grammar.otherwise is None:
                raise
            return await self._constraint(grammar.otherwise, client)

    async def _constraint(self, grammar: Grammar, client: str) -> GrammarConstraint:
        if grammar.schemas:
            texts = [(schema.text, schema.lark) for schema in grammar.schemas]
            digest = hashlib.sha256(json.dumps(texts).encode()).digest()
            if digest not in self._verdicts:
                verdict = await self._checker.run(client, lambda: _check(texts))
                self._verdicts[digest] = verdict
            self._verdicts.move_to_end(digest)
            while len(self._verdicts) > _VERDICTS:
                self._verdicts.popitem(last=False)
            if refused := self._verdicts[digest]:
                index, why = refused
                schema = grammar.schemas[index]
                what = "grammar" if schema.lark else "schema"
                limit = f"a {what} that can be enforced: {why}"
                raise InvalidParameter(schema.field, schema.sent, limit)
        return await self._compiler.run(client, lambda: self._compile(grammar))

    def _compile(self, grammar: Grammar) -> GrammarConstraint:
        """On the compiler's thread."""
        if self._made is None and not self._unusable:
            self.prepare()
        if self._made is None:
            limit = f"nothing: this model's tokenizer can't be held to it: {self._unusable}"
            sent = [schema.sent for schema in grammar.schemas]
            raise InvalidParameter(grammar.field, sent, limit)
        source = LLMatcher.grammar_from_lark(grammar.lark)
        limits = LLParserLimits(**_LIMITS)
        matcher = LLMatcher(self._made, source, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise _refused(grammar, _short(matcher.get_error()))
        return GrammarConstraint(matcher, grammar)


def _check(texts: list[tuple[str, bool]]) -> tuple[int, str] | None:
    """Compile in another process, which may die of it."""
    try:
        done = subprocess.run(  # noqa: S603 # our own script
            [sys.executable, "-P", str(_CHECK)],
            input=json.dumps({"schemas": texts, "limits": _LIMITS}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_CHECK_TIMEOUT_S,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return len(texts) - 1, "compiling it takes too much time or memory"
    verdict = json.loads(done.stdout)
    return None if verdict is None else (verdict[0], _short(verdict[1]))


def _refused(grammar: Grammar, why: str) -> InvalidParameter:
    sent = [schema.sent for schema in grammar.schemas]
    return InvalidParameter(grammar.field, sent, f"schemas that can be enforced: {why}")


def _short(error: str) -> str:
    """Put the library's message in a client's words, without the grammar that it quotes."""
    text = re.sub(r"\n(<| *\d+ \| | *while processing ).*", "", error, flags=re.DOTALL)
    text = text.rpartition("failed to compile JSON schema: ")[2]
    for pattern, words in _IN_OTHER_WORDS.items():
        text = re.sub(pattern, words, text)
    text = text.replace("\n", " ").strip()
    return text if len(text) <= 300 else f"{text[:299]}…"
