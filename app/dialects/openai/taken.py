"""Fields that clients send and this server does nothing with: which are harmless, and which not.

What is harmless asks how an answer is made, kept or counted, for whom or how fast. It is taken and
named in a header (`kit.passed_over`). What would change the answer's meaning is refused.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from app.dialects.kit.body import Body, to_record
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.unknown_fields import without_unknown
from app.errors import InvalidParameter, Unsupported

T = TypeVar("T", bound=msgspec.Struct)


class Unserved(NamedTuple):
    """A field that we know and can't serve."""

    reason: str
    harmless: tuple[Any, ...] = ()
    """Values that ask for nothing."""


class Rules(NamedTuple):
    """What becomes of the fields that an endpoint's record doesn't have."""

    unserved: Mapping[str, Unserved]
    ignored: Mapping[str, Unserved]
    """Those whose every value is harmless; the values named ask for nothing at all."""


_SPEED: Final = "it may make an answer faster and never another one"
_KEEPING: Final = "prompts are cached by themselves, for as long as there is room"
_LABEL: Final = "labels are not used"
_LOADED: Final = "it is the operator's to say how models are loaded"
_ROUTING: Final = "there is nothing to choose between"

IGNORED: Final[Mapping[str, Unserved]] = {
    # OpenAI
    "service_tier": Unserved("there is one tier", ("auto", "default")),
    "verbosity": Unserved("models here know no verbosity", ("medium",)),
    "prediction": Unserved(_SPEED),
    "prompt_cache_options": Unserved(_KEEPING),
    "prompt_cache_retention": Unserved(_KEEPING, ("in_memory",)),
    "client_metadata": Unserved(_LABEL),
    # Open WebUI, LibreChat, LobeChat and their like
    **dict.fromkeys(
        ("chat_id", "session_id", "message_id", "conversation_id", "trace_id", "tags"),
        Unserved(_LABEL),
    ),
    # Ollama's, which its own OpenAI endpoint passes over too
    **dict.fromkeys(("keep_alive", "num_ctx", "options"), Unserved(_LOADED)),
    # llama.cpp
    **dict.fromkeys(
        ("cache_prompt", "n_keep", "n_cache_reuse", "id_slot", "slot_id", "t_max_predict_ms"),
        Unserved(_KEEPING),
    ),
    # vLLM and SGLang
    "priority": Unserved("clients take turns", (0,)),
    **dict.fromkeys(("request_id", "rid"), Unserved("ids are the server's; see X-Request-Id")),
    **dict.fromkeys(("cache_salt", "kv_transfer_params"), Unserved(_KEEPING)),
    "spaces_between_special_tokens": Unserved("tokens are joined as their tokenizer does", (True,)),
    # OpenRouter and LiteLLM
    **dict.fromkeys(("provider", "route", "models", "transforms"), Unserved(_ROUTING)),
    "usage": Unserved("it is always told"),
}
"""Fields that no endpoint does anything with."""

_NEVER: Final = "this sampler doesn't exist here"
UNSERVED: Final[Mapping[str, Unserved]] = {
    "moderation": Unserved("there is no moderation model"),
    # samplers of others, which their clients send with the values that switch them off
    **dict.fromkeys(("typical_p", "typical", "tfs_z", "tfs"), Unserved(_NEVER, (1,))),
    **dict.fromkeys(
        (
            *("top_a", "mirostat", "mirostat_mode", "dynatemp_range", "xtc_probability"),
            *("dry_multiplier", "smoothing_factor", "epsilon_cutoff", "eta_cutoff"),
            *("no_repeat_ngram_size", "penalty_alpha", "diversity_penalty"),
        ),
        Unserved(_NEVER, (0,)),
    ),
    "use_beam_search": Unserved("there is no beam search", (False,)),
    "num_beams": Unserved("there is no beam search", (1,)),
    "length_penalty": Unserved("there is no beam search", (1,)),
    "early_stopping": Unserved("there is no beam search", (False,)),
}
"""Fields that no endpoint serves."""


_OF_STREAMS: Final = ("stream_options", "return_progress")
"""What says how a stream is written."""


def read(body: Body, kind: type[T], rules: Rules, passed: PassedOver) -> T:
    """Check a body's fields against a record's and against what we can't serve.

    Args:
        body: as sent.
        kind: the record.
        rules: what becomes of other fields that are known.
        passed: notes what is taken and not used.

    Raises:
        InvalidParameter, UnknownParameter, Unsupported: the first field that is wrong.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in list(given.items()):
        if name in rules.unserved or name in rules.ignored:
            del given[name]
            rule = rules.unserved.get(name) or rules.ignored[name]
            if value in rule.harmless:
                continue
            if name in rules.unserved:
                raise Unsupported(name, value, rule.reason)
            passed.note(name, value, rule.reason)
    for name in _OF_STREAMS:
        if given.get(name) and not given.get("stream"):
            limit = "none without stream: true"
            if passed.strict:
                raise InvalidParameter(name, given[name], limit)
            passed.note(name, given.pop(name), limit)
    if not passed.strict:  # else the record names the field that it doesn't know
        given = without_unknown(given, kind, passed)
    return to_record(given, kind)


def note_effort(field: str, effort: str | None, passed: PassedOver, *, thinks: bool) -> None:
    """Note that a model was asked to think and can't.

    Raises:
        Unsupported: the server takes no such thing.
    """
    if effort not in (None, "none") and not thinks:
        passed.note(field, effort, "this model doesn't think before it answers")
